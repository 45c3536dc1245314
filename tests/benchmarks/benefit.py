"""Chapter 6's experiment: does it help to learn neuron parameters, or to begin with different ones?

Run from the repository root; about an hour and a quarter on two cores: python tests/benchmarks/benefit.py
It writes book/results/benefit.json. A run that was stopped goes on where it was: cells are kept in _build/benefit.

First every kind of network is tuned alike: six initial time constants, by accuracy on the validation split, with seeds
that are used for nothing else. Then each kind is trained with ten other seeds and measured on the test split, once.
--grid gpu is the same with more data, larger networks and leaving each speaker out, for a GPU, where all conditions of
one seed train as one ensemble.
"""

import argparse
import dataclasses
import json
import os
import platform
from pathlib import Path

import stored
import torch

from snnparams.benefit import run_cells
from snnparams.conditions import LEARNABLE, Condition, Settings
from snnparams.experiment import run, versions
from snnparams.sound import SPEAKERS

TAUS = (4, 8, 16, 32, 64, 128)  # time steps
TUNING_SEEDS, SEEDS = range(100, 103), range(1, 11)
KINDS = {  # spread of initial values, what is learned
    "homogeneous, fixed": (0.0, ()),
    "heterogeneous, fixed": (1.0, ()),
    "homogeneous, learned": (0.0, LEARNABLE),
    "heterogeneous, learned": (1.0, LEARNABLE),
}
NOT_TUNED = "homogeneous, fixed, not tuned"
UNTUNED = 10  # time steps: the default of `LIFParameters`, which nobody chose for these tasks
SIZES = {"validation": 1000, "test": 2000}
SEQUENTIAL, SPOKEN = "sequential MNIST", "spoken digits"
ABLATED = (SEQUENTIAL, SPOKEN)  # here each parameter is learned alone as well
MORE = "sequential MNIST, more recurrence"
SMALL, LARGE = {"hidden": 64}, {"device": "cuda", "hidden": 128}
LONG = LARGE | {"epochs": 20, "hidden": 256, "batch_size": 256}
TASKS = {
    "default": {
        "MNIST": Settings("mnist", SIZES | {"train": 5000}, epochs=4, **SMALL),
        SEQUENTIAL: Settings("sequential_mnist", SIZES | {"train": 10_000}, epochs=6, **SMALL),
        MORE: Settings("sequential_mnist", SIZES | {"train": 10_000}, epochs=6, recurrent_share=0.6, **SMALL),
        SPOKEN: Settings("spoken_digits", {}, epochs=10, **SMALL),
        "random manifolds": Settings("smooth_random_manifolds", SIZES | {"train": 4000}, epochs=8, **SMALL),
    },
    "gpu": {
        "MNIST": Settings("mnist", {}, epochs=10, **LARGE),
        SEQUENTIAL: Settings("sequential_mnist", {}, **LONG),
        MORE: Settings("sequential_mnist", {}, recurrent_share=0.6, **LONG),
        "permuted sequential MNIST": Settings("sequential_mnist", {"permuted": True}, **LONG),
        "sequential MNIST, 28 x 28": Settings("sequential_mnist", {"size": 28}, **LONG),
        SPOKEN: Settings("spoken_digits", {}, epochs=30, **LARGE),
        **{
            f"spoken digits without {speaker}": Settings("spoken_digits", {"speaker": speaker}, epochs=30, **LARGE)
            for speaker in SPEAKERS
        },
        "random manifolds": Settings("smooth_random_manifolds", {}, epochs=30, **LARGE),
    },
}


def cell(settings: Settings, tau: float, spread: float, learned: tuple, seed: int, test: bool) -> dict:
    """Return a cell for `run_cells`."""
    condition = Condition(tau, spread, learned)
    return {
        "settings": dataclasses.asdict(settings),
        "condition": dataclasses.asdict(condition),
        "seed": seed,
        "test": test,
    }


def tuning_cells(tasks: dict[str, Settings]) -> list[dict]:
    """Return every kind of network with every initial time constant."""
    return [
        cell(settings, tau, spread, learned, seed, test=False)
        for settings in tasks.values()
        for seed in TUNING_SEEDS
        for spread, learned in KINDS.values()
        for tau in TAUS
    ]


def tuned(tasks: dict[str, Settings], cells: list[dict], results: list[dict]) -> dict[str, dict[str, float]]:
    """Return for each task and kind the time constant with the best mean accuracy on the validation split."""
    accuracy = {
        json.dumps(c, sort_keys=True): r["validation"]["accuracy"][-1] for c, r in zip(cells, results, strict=True)
    }

    def mean(settings: Settings, tau: float, kind: str) -> float:
        keys = (json.dumps(cell(settings, tau, *KINDS[kind], seed, False), sort_keys=True) for seed in TUNING_SEEDS)
        return sum(accuracy[key] for key in keys) / len(TUNING_SEEDS)

    return {
        name: {kind: max(TAUS, key=lambda tau: mean(settings, tau, kind)) for kind in KINDS}
        for name, settings in tasks.items()
    }


def main_cells(tasks: dict[str, Settings], taus: dict[str, dict[str, float]]) -> list[tuple[str, str, dict]]:
    """Return the cells that are measured on the test split, with the names of task and condition."""
    found = []
    for task, settings in tasks.items():
        best = taus[task]
        named = {kind: (best[kind], *KINDS[kind]) for kind in KINDS}
        named[NOT_TUNED] = (UNTUNED, *KINDS["homogeneous, fixed"])
        if task in ABLATED:
            named |= {
                f"homogeneous, {name} learned": (best["homogeneous, learned"], 0.0, (name,)) for name in LEARNABLE
            }
        found += [(task, name, cell(settings, *how, seed, test=True)) for seed in SEEDS for name, how in named.items()]
    return found


def rounded(value, digits: int = 4):
    """Return a result with numbers that a page needs."""
    if isinstance(value, dict):
        return {name: rounded(x, digits) for name, x in value.items()}
    if isinstance(value, list):
        return [rounded(x, digits) for x in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def main() -> None:
    """Run what is missing, then write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=TASKS, default="default")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, default=Path("_build/benefit"))
    args = parser.parse_args()
    tasks = TASKS[args.grid]
    on_gpu = args.grid == "gpu"
    how = {"processes": 1 if on_gpu else args.processes, "together": ["condition"] if on_gpu else []}
    first = tuning_cells(tasks)
    of_tuning = run(run_cells, first, args.folder / args.grid / "tuning", **how)
    taus = tuned(tasks, first, of_tuning)
    second = main_cells(tasks, taus)
    of_main = run(run_cells, [c for *_, c in second], args.folder / args.grid / "main", **how)
    file = "benefit.json" if args.grid == "default" else f"benefit_{args.grid}.json"
    machine = f"{platform.machine()}, {torch.cuda.get_device_name()}" if on_gpu else f"{stored.CPU}, CPU"
    names = {json.dumps(dataclasses.asdict(settings), sort_keys=True): name for name, settings in tasks.items()}
    result = stored.header(f"benefit.py --grid {args.grid}", machine, **versions()) | {
        "tasks": {name: dataclasses.asdict(settings) for name, settings in tasks.items()},
        "taus": taus,
        "tuning": [
            {
                "task": names[json.dumps(c["settings"], sort_keys=True)],
                "condition": c["condition"],
                "seed": c["seed"],
                "accuracy": rounded(r["validation"]["accuracy"][-1]),
            }
            for c, r in zip(first, of_tuning, strict=True)
        ],
        "main": [
            {"task": task, "name": name, "condition": c["condition"], "seed": c["seed"], **rounded(r)}
            for (task, name, c), r in zip(second, of_main, strict=True)
        ],
    }
    stored.write(Path("book/results") / file, result, indent=None)


if __name__ == "__main__":
    main()
