"""Predicted times of recurrent layers on GPUs; writes book/results/gpu_predictions.json. No prediction was measured.

Run from the repository root, in a second, without a GPU: python tests/benchmarks/gpu_predictions.py

**What is predicted.** One pass, forward or backward, of `LIFRecurrent` with as many inputs as neurons, 100 steps of 256
rows of float32, as the package computes it (`snnparams.kernels.gpu`): what of it is the input product, what the steps,
and what a readout of ten neurons takes behind it. Beside it stands what other numbers of rows in a program would take,
how many neurons' weights would fit into which memory, and of cards for which book/results/gpu_times.json has times,
what gpu_times.py measured.

**The model.** A product over all time steps, and every tensor that is read or written once, take the larger of FLOPs
over the card's peak and bytes over its bandwidth; each operator costs a launch besides. A step of the recurrence takes
a latency, plus the largest of three, on the one multiprocessor that computes a program:

- FLOPs of the product over the multiprocessor's share of the peak. A tensor core multiplies sixteen rows, so fewer cost
  as much; float32 is three passes of TF32; where no tensor core knows that, ordinary units compute the rows there are.
- Bytes of the weights: on the chip 128 a cycle, from the cache that all share 64 a cycle, and from that cache together
  at most half of what all multiprocessors could take.
- Bytes of inputs, outputs and what is kept, of the rows of a program, at its share of the memory's bandwidth, and at
  most 64 a cycle.

Programs of which there are more than multiprocessors run in turns. What the model leaves out: conflicts of addresses,
occupancy, clocks below the highest, whether the compiler overlaps what could overlap. A factor of two is likely, and
more is possible; ratios of one card are worth more than times.

**Sources.** Multiprocessors, bandwidth and peaks without sparsity are those of NVIDIA: data sheets of T4 (2018), A10
(2021), A100 40 GB (2020) and H100 SXM5 (2022), and the white papers of Turing, Ampere and Hopper, which also say what a
multiprocessor has of shared memory and registers (256 KiB), and 128 and 64 bytes a cycle. Clocks follow from the peaks.
Latencies are assumptions, of the size that microbenchmarks find: Jia et al. (2019), arXiv 1903.07486, for the T4; Luo
et al. (2025), arXiv 2501.12084, for Ampere and Hopper.
"""

import argparse
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_resources import TARGETS

from snnparams.kernels import gpu

STEPS, BATCH, OUTPUTS, ITEM = 100, 256, 10, 4
NEURONS = (64, 128, 256, 512, 1024)
ROWS = (2, 4, 8, 16)
LAUNCH = 5e-6  # s, of one operator: an assumption
OPERATORS = {"forward": 2, "backward": 5}  # of the layer: products, sums, the kernel
BYTES = {"forward": 4, "backward": 5}  # numbers of a neuron and step: x, out, v, i; or v, i, two gradients, out
ON_CHIP, FROM_CACHE = 128, 64  # bytes a cycle of a multiprocessor
REGISTERS = 256 * 1024  # bytes of a multiprocessor
TIMES = Path(__file__).resolve().parents[2] / "book" / "results" / "gpu_times.json"  # what gpu_times.py measured
MEASURED = ("measured_us", "of_the_gpu_us", "readout_us")  # what of it stands beside the predictions


class Card(NamedTuple):
    """What the model knows of a card.

    Args:
        capability: compute capability, times ten.
        multiprocessors: their number.
        bandwidth: of the memory, bytes/s.
        float32: peak of ordinary units, FLOP/s.
        tf32: peak of tensor cores, FLOP/s, or None if they do not know it.
        units: of float32 in a multiprocessor, each of which multiplies and adds once a cycle.
        latency: cycles of a step in which nothing else can be done: a load that cannot begin earlier, two barriers,
            the chain of the step's own operations. An assumption.
    """

    capability: int
    multiprocessors: int
    bandwidth: float
    float32: float
    tf32: float | None
    units: int
    latency: int

    @property
    def clock(self) -> float:
        """Cycles per second."""
        return self.float32 / (2 * self.units * self.multiprocessors)


CARDS = {
    "T4": Card(75, 40, 320e9, 8.1e12, None, 64, 1200),
    "A10": Card(86, 72, 600e9, 31.2e12, 62.5e12, 128, 1200),
    "A100": Card(80, 108, 1555e9, 19.5e12, 156e12, 64, 1200),
    "H100": Card(90, 132, 3350e9, 67e12, 494.7e12, 128, 1200),
}


def product(card: Card, rows: int, inner: int, columns: int, tf32: bool) -> float:
    """Return the time in s of a product over all time steps, as a library computes it."""
    rate = card.tf32 if tf32 and card.tf32 else card.float32
    numbers = rows * inner + inner * columns + rows * columns
    return max(2 * rows * inner * columns / rate, ITEM * numbers / card.bandwidth) + LAUNCH


def step(card: Card, how: gpu.Arrangement, rows: int, neurons: int, direction: str) -> tuple[float, str]:
    """Return the time in s of a step of a program that takes so many rows, and what limits it."""
    on_chip, tensor_cores = how.path == "on chip", how.precision != "ieee"
    size = how.block if on_chip else how.block * math.ceil(neurons / how.block)
    passes = 3 if how.precision == "tf32x3" else 1
    multiplied = gpu.ROWS if tensor_cores else rows
    rate = (card.tf32 if tensor_cores and card.tf32 else card.float32) / card.multiprocessors
    busy = min(card.multiprocessors, math.ceil(BATCH / rows))
    weights = ITEM * size * size * (passes > 1 and on_chip) + ITEM * size * size
    from_cache = min(FROM_CACHE, FROM_CACHE * card.multiprocessors / 2 / busy)
    numbers = ITEM * BYTES[direction] * rows * neurons
    times = {
        "product": passes * 2 * multiplied * size * size / rate,
        "weights": weights / (ON_CHIP if on_chip else from_cache) / card.clock,
        "memory": numbers / min(card.bandwidth / busy, FROM_CACHE * card.clock),
    }
    largest = max(times, key=lambda name: times[name])
    latency = card.latency / card.clock
    return times[largest] + latency, largest if times[largest] > latency else "latency"


def predicted(card: Card, neurons: int, direction: str, tf32: bool) -> dict:
    """Return the times of a pass in microseconds, and what they consist of."""
    device = gpu.Device(card.capability, TARGETS[card.capability], card.multiprocessors)
    how = gpu.arrangements(device, 1, BATCH, neurons, torch.float32, tf32)[0]
    products = 1 if direction == "forward" else 2  # by the input, and by the weights
    inputs = products * product(card, STEPS * BATCH, neurons, neurons, tf32)
    if direction == "backward":  # the gradient by the recurrent weights
        inputs += product(card, neurons, STEPS * BATCH, neurons, tf32)
    readout = products * product(card, STEPS * BATCH, neurons, OUTPUTS, tf32)
    readout += 3 * ITEM * STEPS * BATCH * OUTPUTS / card.bandwidth + LAUNCH  # LI

    def steps(rows):
        turns = math.ceil(math.ceil(BATCH / rows) / card.multiprocessors)
        return turns * STEPS * step(card, how, rows, neurons, direction)[0]

    whole = inputs + steps(how.rows) + (OPERATORS[direction] - products) * LAUNCH
    return {
        "path": how.path,
        "rows_of_a_program": how.rows,
        "busy_multiprocessors": min(card.multiprocessors, math.ceil(BATCH / how.rows)),
        "a_step_is_limited_by": step(card, how, how.rows, neurons, direction)[1],
        "predicted_us": round(1e6 * whole, 1),
        "of_it_steps_us": round(1e6 * steps(how.rows), 1),
        "steps_us_by_rows": {str(rows): round(1e6 * steps(rows), 1) for rows in ROWS},
        "readout_us": round(1e6 * readout, 1),
    }


def capacity(card: Card) -> dict:
    """Return how many neurons' weights, of float32, would fit into which memory of a card."""
    shared = TARGETS[card.capability]
    places = {
        "shared memory of one multiprocessor": shared,
        "the same, as two numbers of TF32 each": shared // 2,
        "half of the registers of one multiprocessor": REGISTERS // 2,
        "half of all registers, of programs that wait for each other": card.multiprocessors * REGISTERS // 2,
    }
    return {place: math.isqrt(room // ITEM) for place, room in places.items()}


def card_of(device_name: str) -> str | None:
    """Return which card a device is by its name, or None. Whole words count: an A100 is no A10."""
    words = re.split(r"[^A-Za-z0-9]+", device_name)
    return next((name for name in CARDS if name in words), None)


def measured() -> dict[tuple, dict]:
    """Return the times in microseconds that were measured, by card, neurons, direction and precision.

    Of several devices with one card's name, those of the first in the file.
    """
    found: dict[tuple, dict] = {}
    for device_name, device in (json.loads(TIMES.read_text()) if TIMES.exists() else {}).items():
        for row in device["rows"]:
            key = card_of(device_name), row["neurons"], row["direction"], row["precision"]
            found.setdefault(key, {name: row[name] for name in MEASURED})
    return found


def rows() -> list[dict]:
    """Return the table."""
    times = measured()
    return [
        {"card": name, "neurons": neurons, "direction": direction, "precision": precision}
        | predicted(card, neurons, direction, precision == "high")
        | {"measured": times.get((name, neurons, direction, precision), "not measured")}
        for name, card in CARDS.items()
        for neurons in NEURONS
        for direction in OPERATORS
        for precision in ("highest", "high")
    ]


def content() -> dict:
    """Return what the file holds besides its head."""
    table = rows()
    about = "predictions by the model in the script's docstring; not one of these times was measured"
    if any(row["measured"] != "not measured" for row in table):
        about += ", but those that stand under measured, by gpu_times.py"
    cards = {name: card._asdict() | {"neurons_that_fit": capacity(card)} for name, card in CARDS.items()}
    sizes = {"steps": STEPS, "batch": BATCH, "dtype": "float32", "outputs_of_the_readout": OUTPUTS}
    return {"kind": "predicted", "about": about, "sizes": sizes, "cards": cards, "rows": table}


if __name__ == "__main__":
    import stored

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("book/results/gpu_predictions.json"))
    head = stored.header("gpu_predictions.py", machine="none: predicted, not measured")
    stored.write(parser.parse_args().output, head | content())
