"""Where a batch of chapter 4 goes, line by line, beside what the machine allows; writes book/results/mnist_batch.json.

Run from the repository root, about ten seconds on two cores once the kernels are compiled:
python tests/benchmarks/mnist_batch.py
The stages of a training step are timed from outside, the kernels within them where they are called. The floor counts
what must be done at the least: the bytes that kernels read and write, at the speed of a copy between arrays of their
size, or the arithmetic of the products, at that of `torch.mm`, whichever takes longer.
"""

import argparse
import collections
import statistics
import time
from pathlib import Path

import stored
import torch
from torch.nn.functional import nll_loss

import snnparams as sp
from snnparams.kernels import cpu, sparse
from snnparams.training.models import mnist_model

STEPS, BATCH, INPUTS, HIDDEN, OUTPUTS = 32, 256, 784, 100, 10
WARM_UP = 5
KERNELS = {
    sparse: ("encode", "compress", "product", "weight_gradient"),
    cpu: ("sequence_forward", "sequence_backward"),
}


def timed(function, seconds: list[float]):
    """Return the same function, which notes how long each call takes."""

    def call(*args):
        start = time.perf_counter()
        found = function(*args)
        seconds.append(time.perf_counter() - start)
        return found

    return call


def stages(model, optimizer, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Train on a batch; return how many seconds each stage takes."""
    seconds, start = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[name], start = now - start, now

    optimizer.zero_grad()
    spikes = model.encoder(images)
    lap("encoder")
    z, _ = model.snn.hidden(spikes)
    lap("hidden layer")
    currents = model.snn.fc_out(z)
    lap("readout product")
    voltages, _ = model.snn.out(currents)
    lap("readout")
    loss = nll_loss(model.decoder(voltages), labels)
    loss.item()
    lap("loss")
    loss.backward()
    lap("backward pass")
    optimizer.step()
    lap("Adam")
    return seconds


def median_ms(seconds: list[float]) -> float:
    """Return the median in ms."""
    return round(statistics.median(seconds) * 1e3, 3)


def best(function) -> float:
    """Return the seconds of the fastest of some calls."""
    times = []
    for _ in range(20):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def speeds() -> tuple[float, float]:
    """Return bytes per second that a copy reads and writes, and operations per second of `torch.mm`."""
    source, target = torch.rand(2, STEPS * BATCH * HIDDEN)
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    return 2 * source.nbytes / best(lambda: target.copy_(source)), 2 * 1024**3 / best(lambda: a @ b)


def floor(spikes: int, rate: float) -> dict[str, dict[str, float]]:
    """Return for each part its bytes and operations, and the ms that the machine needs for them at the least.

    Args:
        spikes: of the input, in a batch.
        rate: share of hidden neurons and steps with a spike.
    """
    rows = STEPS * BATCH
    neurons, readout, weights = rows * HIDDEN, rows * OUTPUTS, HIDDEN * (INPUTS + HIDDEN + OUTPUTS)
    index = 3 * 8 * spikes  # of a sparse tensor
    parts = {  # numbers of 4 bytes in a population: current, spike and two kept ones, and as many backward
        "encode": (4 * BATCH * INPUTS + index, 4 * STEPS * BATCH * INPUTS),
        "input product": (index + 4 * neurons, 2 * spikes * HIDDEN),
        "hidden forward": (16 * neurons, 2 * rate * neurons * HIDDEN + 8 * neurons),
        "readout product": (4 * (neurons + readout), 2 * neurons * OUTPUTS),
        "readout forward": (12 * readout, 4 * readout),
        "readout backward": (16 * readout, 8 * readout),
        "readout gradients": (8 * neurons + 8 * readout, 4 * neurons * OUTPUTS),
        "hidden backward": (16 * neurons, 2 * (1 + rate) * neurons * HIDDEN + 20 * neurons),
        "weight gradient": (4 * spikes + 4 * neurons, 2 * spikes * HIDDEN),
        "Adam": (7 * 4 * weights, 12 * weights),
    }
    per_byte, per_operation = (1e3 / speed for speed in speeds())
    return {
        name: {
            "bytes": round(size),
            "operations": round(count),
            "ms": round(max(size * per_byte, count * per_operation), 3),
        }
        for name, (size, count) in parts.items()
    }


def measure(batches: int) -> dict:
    """Return the budget of a batch."""
    mnist = sp.load_mnist()
    if mnist.name != "MNIST":
        raise SystemExit("this benchmark needs the real MNIST")
    torch.manual_seed(0)
    learned = {"tau_mem_inv": 100 + 20 * torch.randn(HIDDEN), "v_th": 0.5 + 0.1 * torch.randn(HIDDEN)}
    p = sp.LIFParameters(**{name: torch.nn.Parameter(value) for name, value in learned.items()})
    model = mnist_model(p, HIDDEN, STEPS)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    kernels: dict[str, list[float]] = collections.defaultdict(list)
    for module, names in KERNELS.items():
        for name in names:
            setattr(module, name, timed(getattr(module, name), kernels[name]))
    rows = []
    for k in range(WARM_UP + batches):
        chosen = slice(k * BATCH, (k + 1) * BATCH)
        rows.append(stages(model, optimizer, mnist.train.inputs[chosen], mnist.train.labels[chosen]))
    with torch.no_grad():
        spikes = model.encoder(mnist.train.inputs[:BATCH])
        rate = model.snn.hidden(spikes)[0].mean().item()
    found = floor(spikes.values().numel(), rate)
    of_kernels = {}
    for name, seconds in kernels.items():
        each = len(seconds) // len(rows)  # calls in a batch: of hidden layer and readout
        of_kernels[name] = [median_ms(seconds[k::each][WARM_UP:]) for k in range(each)]
    return {
        "input_spikes": spikes.values().numel(),
        "hidden_rate": round(rate, 4),
        "whole_batch_ms": median_ms([sum(row.values()) for row in rows[WARM_UP:]]),
        "stages_ms": {name: median_ms([row[name] for row in rows[WARM_UP:]]) for name in rows[0]},
        "kernels_ms": of_kernels,
        "floor": found,
        "floor_ms": round(sum(part["ms"] for part in found.values()), 3),
    }


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("book/results/mnist_batch.json"))
    args = parser.parse_args()
    head = {"command": "python tests/benchmarks/mnist_batch.py"}
    head |= stored.header_of_device(stored.processor(), "torch", "numba")
    results = head | {"register_bytes": cpu.lanes(torch.float32) * 4} | measure(args.batches)
    stored.write(args.output, results)
    for name in ("stages_ms", "kernels_ms"):
        print(name, results[name])
    print("floor", {name: part["ms"] for name, part in results["floor"].items()})
    print("whole batch", results["whole_batch_ms"], "ms, floor", results["floor_ms"], "ms")


if __name__ == "__main__":
    main()
