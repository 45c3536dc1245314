"""Adjoint gradients on the grid against central differences in continuous time.

Writes book/results/adjoint_convergence.json.

Run from the repository root, about two minutes on one core: python tests/benchmarks/adjoint_convergence.py
"""

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from test_adjoint import PARAMETERS, central_differences, exact_loss, grid_gradients, random_network, why_inexact

STEPS = [1e-3, 3e-4, 1e-4, 3e-5, 1e-5]  # s


def compare(recurrent: bool, kind: str, networks: int) -> dict:
    """Return the relative errors, (networks, steps) for each array, and what explains large ones."""
    names = ("w_in", *(["w_rec"] if recurrent else []), *PARAMETERS)
    errors, heights, distances, seed = {name: [] for name in names}, [], [], 0
    while len(heights) < networks:
        seed += 1
        network, rng = random_network(seed, recurrent), np.random.default_rng(seed)
        counts = network.counts()
        if counts.max() < 2:  # no gradient by v_reset
            continue
        c, w_out = rng.normal(size=(counts.max(), len(counts))), rng.normal(size=(3, len(counts)))
        loss = exact_loss(kind, network, c, w_out)
        exact = {name: central_differences(network, loss, name) for name in names}
        if not all(held for _, held in exact.values()) or any(np.linalg.norm(g) == 0 for g, _ in exact.values()):
            continue
        height, distance = why_inexact(network)
        heights.append(round(float(height), 5))
        distances.append(round(float(distance), 8))
        results = [grid_gradients(network, dt, kind, c, w_out)[0] for dt in STEPS]
        for name in names:
            truth = exact[name][0]
            found = [np.linalg.norm(result[name] - truth) / np.linalg.norm(truth) for result in results]
            errors[name].append([float(f"{error:.3g}") for error in found])
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
    content = {
        "command": "python tests/benchmarks/adjoint_convergence.py",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "steps": STEPS,
        "runs": runs,
    }
    args.output.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
