"""Times on the GPU at hand of what gpu_predictions.py predicts; writes its part of book/results/gpu_times.json.

Run from the repository root, under a minute, on a machine with a CUDA GPU: python tests/benchmarks/gpu_times.py

**What is measured.** The rows of one card in gpu_predictions.json: forward and backward pass of `LIFRecurrent`, with
the neurons, precisions, steps and rows of the batch that stand there. All times are medians, in microseconds:

- `measured_us`: a pass as a user calls it, from a GPU that has nothing to do until it has nothing to do again, by the
  host's clock. The backward pass is that of a forward pass which is computed before and does not count.
- `of_the_gpu_us`: the same work replayed from a CUDA graph, one replay right behind the other, by the GPU's clock: so
  without what the host needs to launch it. The forward pass keeps what a backward pass needs. The backward pass is what
  a graph of both takes longer than one of the forward pass. Where nothing could be captured it is null, and
  `not_captured` says why.
- `readout_us`: the same pass of a readout behind the layer, as a user calls it: ten outputs, linear and `LI`.

A device in whose name a card of the predictions occurs also gets `predicted_us` and `measured_over_predicted`, the
ratio of `measured_us` to it. Cards of one name differ: PCIe and SXM have other clocks, and 40 and 80 GB another memory.
What the file holds of other devices stays. A run that is stopped leaves the rows that it has.
"""

import argparse
import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import gpu_predictions
import stored
import torch
from gpu_predictions import BATCH, OUTPUTS, STEPS
from layers_contestants import First, drawn, problem
from torch import nn

import snnparams as sp

WARM_UP, REPETITIONS = 5, 30  # calls; the first ones compile
REPLAYS = 20  # of a CUDA graph


class Pass(NamedTuple):
    """What is computed forward and backward.

    Args:
        module: of an input (T, B, N), an output.
        x: the input, a leaf that wants a gradient.
        gradient: the gradient by the output.
    """

    module: nn.Module
    x: torch.Tensor
    gradient: torch.Tensor

    def forward(self) -> torch.Tensor:
        """Return the output, with what its gradients need."""
        return self.module(self.x)

    def backward(self, out: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the gradients by input and parameters; it can be called again."""
        return torch.autograd.grad(out, [self.x, *self.module.parameters()], self.gradient, retain_graph=True)

    def both(self) -> tuple[torch.Tensor, ...]:
        """Return the gradients by input and parameters of an output computed for them."""
        return self.backward(self.forward())


def layer(neurons: int, device: str, steps: int = STEPS, batch: int = BATCH) -> Pass:
    """Return the recurrent layer, on spikes."""
    module, x, gradient = problem("recurrent", "snnparams", (steps, batch, neurons), device)
    return Pass(module, x.detach().requires_grad_(), gradient)


def readout(neurons: int, device: str, steps: int = STEPS, batch: int = BATCH) -> Pass:
    """Return the readout of so many neurons, on spikes."""
    module = nn.Sequential(nn.Linear(neurons, OUTPUTS, bias=False), First(sp.LI())).to(device)
    x = drawn("spikes", (steps, batch, neurons), device).detach().requires_grad_()
    return Pass(module, x, drawn("gradient", (steps, batch, OUTPUTS), device))


def wait(device: str) -> None:
    """Wait until a GPU has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def as_called(what: Pass, direction: str, device: str) -> float:
    """Return the median time of a pass in microseconds, as its caller waits for it."""
    out = what.forward() if direction == "backward" else None
    times = []
    for turn in range(WARM_UP + REPETITIONS):
        wait(device)
        start = time.perf_counter()
        if out is None:
            what.forward()
        else:
            what.backward(out)
        wait(device)
        if turn >= WARM_UP:
            times.append(1e6 * (time.perf_counter() - start))
    return statistics.median(times)


def replayed(function: Callable[[], object], device: str) -> float:
    """Return the median time of a function's work in microseconds, replayed from a CUDA graph.

    Raises:
        RuntimeError: if the device is no CUDA GPU, or does not let it be captured.
    """
    if device != "cuda":
        raise RuntimeError(f"only a CUDA GPU has graphs, got device={device!r}")
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # that of the capture: what libraries keep for a stream is there before
        for _ in range(WARM_UP):
            function()
        with torch.cuda.graph(graph, stream=stream):
            function()
        # nobody waits between replays, so that the host launches ahead and the events enclose the GPU's work alone
        events = [torch.cuda.Event(enable_timing=True) for _ in range(WARM_UP + REPLAYS + 1)]
        events[0].record()
        for event in events[1:]:
            graph.replay()
            event.record()
    torch.cuda.synchronize()
    return statistics.median(1e3 * a.elapsed_time(b) for a, b in itertools.pairwise(events[WARM_UP:]))


def of_the_gpu(what: Pass, direction: str, device: str) -> float:
    """Return the median time of a pass in microseconds, without that of launching it."""
    forward = replayed(what.forward, device)
    return forward if direction == "forward" else replayed(what.both, device) - forward


@contextlib.contextmanager
def precision_of_products(precision: str) -> Iterator[None]:
    """Set the precision of products of float32, for a while."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def wanted() -> list[dict]:
    """Return neurons, direction and precision of what is predicted for each card."""
    first = next(iter(gpu_predictions.CARDS))
    fields = ("neurons", "direction", "precision")
    return [{field: row[field] for field in fields} for row in gpu_predictions.rows() if row["card"] == first]


def compared(row: dict, device_name: str) -> dict:
    """Return a row with the prediction in microseconds and the ratio to it, if there is one for the device."""
    name = gpu_predictions.card_of(device_name)
    if name is None:
        return row
    card, tf32 = gpu_predictions.CARDS[name], row["precision"] == "high"
    predicted = gpu_predictions.predicted(card, row["neurons"], row["direction"], tf32)["predicted_us"]
    return row | {"predicted_us": predicted, "measured_over_predicted": round(row["measured_us"] / predicted, 2)}


def measured(device: str, neurons: int, direction: str, precision: str, steps: int = STEPS, batch: int = BATCH) -> dict:
    """Return a row: what it is of, and its times in microseconds."""
    sizes = neurons, device, steps, batch
    row = {"neurons": neurons, "direction": direction, "precision": precision}
    with precision_of_products(precision):
        row["measured_us"] = round(as_called(layer(*sizes), direction, device), 1)
        try:
            # of a layer of its own: gradients of a leaf are collected on the stream on which it was first used
            row["of_the_gpu_us"] = round(of_the_gpu(layer(*sizes), direction, device), 1)
        except Exception as error:  # whatever it is, the other times are worth having
            row |= {"of_the_gpu_us": None, "not_captured": f"{type(error).__name__}: {error}"}
        row["readout_us"] = round(as_called(readout(*sizes), direction, device), 1)
    return row


def record(path: Path, device_name: str, head: dict, rows: Iterable[dict]) -> None:
    """Write the rows of a device as they come, beside what the file has of others."""
    results, so_far = stored.parts(path), []
    for row in rows:
        so_far.append(row)
        results[device_name] = head | {"rows": so_far}
        stored.write(path, results)
        print(row, flush=True)


def main(given: list[str] | None = None) -> None:
    """Measure and write.

    Raises:
        SystemExit: if there is no CUDA GPU.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=gpu_predictions.TIMES)
    arguments = parser.parse_args(given)
    if not torch.cuda.is_available():
        raise SystemExit("gpu_times.py measures on a CUDA GPU, and PyTorch finds none")
    name = torch.cuda.get_device_name()
    head = stored.header_of_device(name, "torch", "triton")
    head |= {"command": "python tests/benchmarks/gpu_times.py", "kind": "measured"}
    head["sizes"] = {"steps": STEPS, "batch": BATCH, "dtype": "float32", "outputs_of_the_readout": OUTPUTS}
    record(arguments.output, name, head, (compared(measured("cuda", **what), name) for what in wanted()))


if __name__ == "__main__":
    main()
