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
FINER = 3e-6  # s, for those whose error is still large at the last of them
LARGE = 0.1


def compare(recurrent: bool, kind: str, networks: int) -> dict:
    """Return the relative errors, (networks, steps) for each array, and what explains large ones.

    That is, for each network, how far a membrane rises above its threshold, how close two events are, how many spikes
    the smallest step loses, and how long before the end the last of these is in continuous time; and, by the number of
    a network with a large error, the largest error of its arrays at a finer step.
    """
    errors, finer = collections.defaultdict(list), {}
    columns = ("height above threshold", "closest events (s)", "spikes lost", "lost before the end (s)")
    why: dict[str, list] = {name: [] for name in columns}
    drawn = itertools.islice(differentiable_networks(recurrent, kind), networks)
    for k, (_, network, counts, parts, exact) in enumerate(drawn):
        results, spikes = zip(*(grid_gradients(network, dt, kind, *parts) for dt in STEPS), strict=True)
        for name, truth in exact.items():
            errors[name].append([float(f"{relative_error(result[name], truth):.3g}") for result in results])
        lost = np.abs(spikes[-1] - counts)
        times, neurons, _ = network.run()
        early = [network.duration - times[neurons == n].max() for n in lost.nonzero()[0]]
        found = (*why_inexact(network), lost.sum(), max(early, default=0.0))
        for name, value in zip(columns, found, strict=True):
            why[name].append(round(float(value), 8))
        if max(found[-1][-1] for found in errors.values()) > LARGE:
            result, _ = grid_gradients(network, FINER, kind, *parts)
            finer[k] = float(f"{max(relative_error(result[name], truth) for name, truth in exact.items()):.3g}")
    return {"errors": errors, **why, "finer": finer}


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
    content = stored.header("adjoint_convergence.py") | {"steps": STEPS, "finer step": FINER, "runs": runs}
    stored.write(args.output, content, indent=None)


if __name__ == "__main__":
    main()
