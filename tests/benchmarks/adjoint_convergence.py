"""Adjoint gradients on the grid against central differences in continuous time.

Writes book/results/adjoint_convergence.json.

Run from the repository root, about two minutes on one core: python tests/benchmarks/adjoint_convergence.py
"""

import argparse
import collections
import itertools
import sys
from pathlib import Path

import numpy as np
import stored
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from test_adjoint import differentiable_networks, grid_gradients, relative_error, why_inexact

STEPS = [1e-3, 3e-4, 1e-4, 3e-5, 1e-5]  # s


def compare(recurrent: bool, kind: str, networks: int) -> dict:
    """Return the relative errors, (networks, steps) for each array, and what explains large ones."""
    errors, heights, distances = collections.defaultdict(list), [], []
    for _, network, _, parts, exact in itertools.islice(differentiable_networks(recurrent, kind), networks):
        height, distance = why_inexact(network)
        heights.append(round(float(height), 5))
        distances.append(round(float(distance), 8))
        results = [grid_gradients(network, dt, kind, *parts)[0] for dt in STEPS]
        for name, truth in exact.items():
            errors[name].append([float(f"{relative_error(result[name], truth):.3g}") for result in results])
    return {"errors": errors, "height above threshold": heights, "closest events (s)": distances}


def main() -> None:
    """Compute and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("book/results/adjoint_convergence.json"))
    args = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    runs = {}
    for recurrent in (False, True):
        for kind in ("times", "voltage"):
            key = f"{'recurrent' if recurrent else 'feed-forward'}, loss on {kind}"
            runs[key] = compare(recurrent, kind, args.networks)
            print(key, {name: f"{np.median(e, axis=0)[-1]:.2%}" for name, e in runs[key]["errors"].items()}, flush=True)
    content = stored.header("adjoint_convergence.py") | {"steps": STEPS, "runs": runs}
    stored.write(args.output, content, indent=None)


if __name__ == "__main__":
    main()
