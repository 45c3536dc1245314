"""What a training step of an ensemble costs on a CPU beside a loop over its members.

Twenty networks of the same shape see one input; from given gradients by their outputs, those by all parameters are
computed. They are a layer without or with recurrence, all of whose spikes are wanted, or one with recurrence and a
readout with ten outputs. "at once" is an `Ensemble`, "one by one" a loop over its members, which needs the memory of
one of them only, again and again. They take turns. Run it on a quiet machine:

    python tests/benchmarks/ensembles.py

It writes `book/results/ensembles.json` as it goes and takes about four minutes.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import stored
import torch
from torch import nn

import snnparams as sp

ROOT = Path(__file__).parents[2]
MEMBERS = 20
STEPS = 100
LARGE, SMALL = [(128, 64), (128, 128)], [(16, 16)]  # rows, neurons
KINDS = ("feed-forward", "recurrent", "recurrent, with a readout")


def member(kind: str, neurons: int) -> nn.Module:
    """Return a network whose neurons have time constants and thresholds of their own, and learn them."""
    tau_mem = sp.Learned(sp.distributions.log_normal(median=10e-3, variation=0.5))
    p = sp.LIFParameters(tau_mem=tau_mem, tau_syn=sp.Learned(5e-3), v_th=sp.Learned(0.5))
    if kind == "recurrent":
        return sp.LIFRecurrent(neurons, neurons, p)
    if kind == "recurrent, with a readout":
        return sp.Sequential(sp.LIFRecurrent(neurons, neurons, p), nn.Linear(neurons, 10), sp.LI())
    return sp.Sequential(nn.Linear(neurons, neurons, bias=False), sp.LIF(p, size=neurons))


def contestants(kind: str, rows: int, neurons: int) -> dict:
    """Return calls that compute the same spikes and gradients."""
    torch.manual_seed(0)
    members = [member(kind, neurons) for _ in range(MEMBERS)]
    ensemble = sp.Ensemble(members)
    x = (torch.rand(STEPS, rows, neurons) < 0.1).float()
    gradients = torch.randn_like(ensemble(x)[0])

    def at_once() -> None:
        ensemble.zero_grad()
        ensemble(x)[0].backward(gradients)

    def one_by_one() -> None:
        for one, gradient in zip(members, gradients, strict=True):
            one.zero_grad()
            one(x)[0].backward(gradient)

    at_once()
    one_by_one()
    for name, parameter in ensemble.stacked.named_parameters():
        alone = torch.stack([one.get_parameter(name).grad for one in members])
        torch.testing.assert_close(parameter.grad, alone, rtol=1e-3, atol=1e-3 * alone.abs().max().item())
    return {"at once": at_once, "one by one": one_by_one}


def measure(calls: dict, turns: int) -> dict:
    """Return medians in milliseconds of calls that take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:  # before that, all is compiled and warm
                times[name].append(time.perf_counter() - start)
    return {name: round(1e3 * statistics.median(found), 1) for name, found in times.items()}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--output", type=Path, default=ROOT / "book" / "results" / "ensembles.json")
    arguments = parser.parse_args()
    content = stored.header("ensembles.py", machine=stored.processor())
    content |= {"load": round(os.getloadavg()[0], 1), "members": MEMBERS, "steps": STEPS, "results": []}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for kind in KINDS:
            for rows, neurons in LARGE + SMALL:
                row = {"threads": threads, "kind": kind, "rows": rows, "neurons": neurons}
                row["median_ms"] = measure(contestants(kind, rows, neurons), arguments.turns)
                content["results"].append(row)
                print(row, flush=True)
                stored.write(arguments.output, content)


if __name__ == "__main__":
    main()
