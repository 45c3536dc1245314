"""The first call in a process: what is compiled, and how long it takes; writes book/results/first_call.json.

Run from the repository root on a quiet machine, about a minute and a half:

    python tests/benchmarks/first_call.py

Each time is that of the first training step, forward and backward pass together, in a process of its own after the
package has been imported: cold with an empty folder for what is compiled, then warm with what the cold one left there.
The cases take turns. "compiled" names the functions that the cold process compiled, and how often each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import stored
import torch

import snnparams as sp
from snnparams.training.models import mnist_model

ROOT = Path(__file__).parents[2]
THREADS = 2


def chapter_4():
    """Return a training step of chapter 4: encoder, sparse input, recurrent layer, readout."""
    model = mnist_model(sp.LIFParameters(tau_mem=sp.Learned(10e-3)))
    x, y = torch.rand(256, 28 * 28), torch.randint(0, 10, (256,))
    return lambda: torch.nn.functional.nll_loss(model(x), y).backward()


def recurrent():
    """Return a training step of a recurrent layer with dense input."""
    layer, x = sp.LIFRecurrent(700, 128, sp.LIFParameters(tau_mem=sp.Learned(10e-3))), torch.rand(100, 32, 700)
    return lambda: layer(x)[0].sum().backward()


CASES = {"chapter 4": chapter_4, "recurrent layer": recurrent}


def compiled() -> dict[str, int]:
    """Return how often each function of the kernels has been compiled in this process."""
    modules = [module for name, module in sys.modules.items() if name.startswith("snnparams.kernels.")]
    functions = {name: f for module in modules for name, f in vars(module).items() if hasattr(f, "overloads")}
    counts = {name: sum(function.stats.cache_misses.values()) for name, function in functions.items()}
    return {name: count for name, count in counts.items() if count}


def here(case: str) -> dict:
    """Return the seconds of the first two steps in this process, and what was compiled."""
    torch.set_num_threads(THREADS)
    step, seconds = CASES[case](), []
    for _ in range(2):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"first_s": round(seconds[0], 3), "second_s": round(seconds[1], 3), "compiled": compiled()}


def in_a_process(case: str, folder: str) -> dict:
    """Return what `here` does, in a process of its own."""
    command = [sys.executable, __file__, "--case", case]
    environment = os.environ | {"NUMBA_CACHE_DIR": folder}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "book" / "results" / "first_call.json")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(here(arguments.case)))
        return
    content = stored.header("first_call.py", machine=stored.processor()) | {"threads": THREADS, "results": {}}
    times: dict[str, dict[str, list[float]]] = {case: {"cold_s": [], "warm_s": []} for case in CASES}
    for _ in range(arguments.turns):
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder:
                cold, warm = (in_a_process(case, folder) for _ in range(2))
            times[case]["cold_s"].append(cold["first_s"])
            times[case]["warm_s"].append(warm["first_s"])
            medians = {f"median_{name}": round(statistics.median(all_), 2) for name, all_ in times[case].items()}
            counts = {"compiled": cold["compiled"], "compiled_when_warm": warm["compiled"]}
            content["results"][case] = medians | times[case] | {"second_step_s": warm["second_s"]} | counts
            print(case, medians, flush=True)
            stored.write(arguments.output, content)  # as it goes


if __name__ == "__main__":
    main()
