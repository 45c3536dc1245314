"""What a step of chapter 7's network costs with the adjoint method and with a surrogate gradient.

Writes book/results/adjoint_cost.json.

Run from the repository root, some seconds on one core: python tests/benchmarks/adjoint_cost.py
Both take turns in one process on one thread. A time is that of the forward and backward pass of the whole network for
a batch of 100 points; all neuron parameters but leak and reset are learned.
"""

import argparse
import statistics
import time
from pathlib import Path

import stored
import torch
from torch.nn.functional import cross_entropy
from yin_yang import DT, STEPS, Net

from snnparams.data.yin_yang import yin_yang

BATCH, WARM_UP = 100, 3


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("book/results/adjoint_cost.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = yin_yang(STEPS, DT)
    spikes, labels = task.encode(task.train.inputs[:BATCH]), task.train.labels[:BATCH]
    models, turns = {}, {}
    for method in ("adjoint", "super"):
        torch.manual_seed(0)
        models[method], turns[method] = Net(learned=True, method=method), []
    for turn in range(args.turns + WARM_UP):
        for method, model in models.items():
            model.zero_grad()
            start = time.perf_counter()
            cross_entropy(model(spikes), labels).backward()
            elapsed = time.perf_counter() - start
            if turn >= WARM_UP:
                turns[method].append(round(1e3 * elapsed, 3))
    methods = {m: {"median_ms": round(statistics.median(t), 3), "turns_ms": t} for m, t in turns.items()}
    content = stored.header("adjoint_cost.py", f"{stored.processor()}, CPU, 1 thread") | {"methods": methods}
    stored.write(args.output, content)
    print({method: found["median_ms"] for method, found in methods.items()})


if __name__ == "__main__":
    main()
