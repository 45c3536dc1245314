"""Calls of few neurons beside those of other libraries: time and operators; writes book/results/small_calls.json.

Run from the repository root, less than a minute on two quiet cores:

    pip install -r tests/benchmarks/requirements.txt
    python tests/benchmarks/small_calls.py

All contestants take turns in one process with one thread. What counts are the ratios of their medians; the load of the
machine, which the file names, lengthens all of them.
"""

import argparse
import os
import statistics
import time
import warnings
from pathlib import Path

import stored
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import snnparams as sp

with warnings.catch_warnings():  # of torch.jit, on import
    warnings.simplefilter("ignore")
    import norse.torch as norse

CALLS = 3  # in one turn
ROOT = Path(__file__).parents[2]


class Operators(TorchDispatchMode):
    """Counts the operators that PyTorch calls below autograd."""

    count = 0

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        """Count an operator and call it."""
        self.count += 1
        return function(*args, **(kwargs or {}))


def learned() -> sp.LIFParameters:
    """Return parameters of which three are learned, two of them under a constraint."""
    tau_mem = sp.Learned(sp.distributions.log_normal(median=10e-3, variation=0.5))
    return sp.LIFParameters(tau_mem=tau_mem, tau_syn=sp.Learned(5e-3), v_th=sp.Learned(0.5))


def step(module, x):
    """Return a call that computes one step from a given state, without gradient."""
    state = module(x)[1]

    @torch.no_grad()
    def call():
        module(x, state)

    return call


def forward_and_backward(module, x):
    """Return a call that computes a sequence and its gradients."""
    return lambda: module(x)[0].sum().backward()


def groups() -> dict:
    """Return what is compared, by names."""
    x, sequence = (torch.rand(1, 20) < 0.3).float(), (torch.rand(8, 1, 20) < 0.3).float()
    return {
        "one step, 20 to 50 neurons, B 1, without gradient": {
            "LIFRecurrentCell": step(sp.LIFRecurrentCell(20, 50), x),
            "LIFRecurrentCell, learned": step(sp.LIFRecurrentCell(20, 50, learned()), x),
            "LIFRecurrent, learned": step(sp.LIFRecurrent(20, 50, learned()), x[None]),
            "Norse's LIFRecurrentCell": step(norse.LIFRecurrentCell(20, 50), x),
        },
        "T 8, B 1, H 10, forward and backward": {
            "LIFRecurrent": forward_and_backward(sp.LIFRecurrent(20, 10), sequence),
            "LIFRecurrent, learned": forward_and_backward(sp.LIFRecurrent(20, 10, learned()), sequence),
            "nn.RNN": forward_and_backward(torch.nn.RNN(20, 10), sequence),
        },
    }


def measure(calls: dict, turns: int) -> dict:
    """Return medians in microseconds and operators of calls that take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            if turn >= 2:  # before that, all is compiled and warm
                times[name].append((time.perf_counter() - start) / CALLS)
    found = {}
    for name, call in calls.items():
        with Operators() as operators:
            call()
        found[name] = {"median_us": round(1e6 * statistics.median(times[name])), "operators": operators.count}
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=51)
    parser.add_argument("--output", type=Path, default=ROOT / "book" / "results" / "small_calls.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    content = stored.header("small_calls.py", machine=stored.processor())
    content["load"] = round(os.getloadavg()[0], 1)
    content["results"] = {what: measure(calls, arguments.turns) for what, calls in groups().items()}
    stored.write(arguments.output, content)


if __name__ == "__main__":
    main()
