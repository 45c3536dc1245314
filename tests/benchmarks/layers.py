"""Layers beside those of other libraries: time, memory, and what each computes; writes book/results/layers.json.

Run from the repository root, about twenty minutes on two cores:

    pip install -r tests/benchmarks/requirements.txt
    python tests/benchmarks/layers.py

All contestants take turns in one process, and each value is a time of forward and backward pass together. All share
the allocator that the CPU kernel sets to keep freed memory. Peak memory on a CPU is that of a process of its own. With
--device cuda, the same on a GPU. Results of the other device, and of CPUs with other registers, stay.

What is compared. All spike functions have the derivative 1 / (1 + |v - v_th|)^2, which is that of Norse 1.1 for every
alpha. Ours and Norse's neurons have a synapse and learn three values each; those of snnTorch have no synapse and learn
two; SpikingJelly's have none and learn a single time constant for the whole layer. So the peers are never given more to
do than we are. Norse's feed-forward cells run in a loop of ours: its own layer takes `x[t]` in each step, and the
derivative of that is a tensor of the size of x, so that the time would grow with T squared. SpikingJelly 2.0 chooses
its implementation by device: a loop in PyTorch on a CPU, CUDA or Triton on a GPU; there is no CuPy any more. "loop" is
our reference, "loop, compiled" the same with each step compiled by torch.compile, which on a CPU needs a C++ compiler.
"""

import argparse
import contextlib
import ctypes
import functools
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import stored
import torch
from layers_contestants import ALPHA, WITHOUT_SYNAPSE, A, First, drawn, parameters, problem
from torch import nn

import snnparams as sp
from snnparams.training.models import mnist_model

GRID = 2**24  # inputs of a layer in all steps, at most: so that the loop needs less than 8 GB
WARM_UP = 1  # turns that do not count: the first one compiles


def run(module: nn.Module, x: torch.Tensor, gradient: torch.Tensor) -> None:
    """Run forward and backward pass."""
    module.zero_grad(set_to_none=True)
    x.grad = None
    module(x).backward(gradient)


def seconds(function, device: str) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can: the largest shapes need all there is."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def in_turns(functions: dict, turns: int, device: str) -> dict[str, dict]:
    """Return median and all times of each in ms.

    Before each call that counts, what others freed goes back to the system, and one call that does not count gets
    memory again: so nobody works in what the others left.
    """
    times = {name: [] for name in functions}
    for turn in range(turns + WARM_UP):
        for name, function in functions.items():
            if device == "cpu":
                give_back_memory()
                function()
            elapsed = seconds(function, device)
            if turn >= WARM_UP:
                times[name].append(round(elapsed * 1e3, 3))
    return {name: {"median_ms": round(statistics.median(t), 3), "turns_ms": t} for name, t in times.items()}


def resident(field: str) -> float:
    """Return what Linux says of this process's memory, in MB: VmRSS (now) or VmHWM (its peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def peak_here(kind: str, name: str, shape: tuple[int, int, int], device: str) -> float:
    """Return the memory that one run adds to module, input and gradient at its peak, in MB."""
    run(*problem(kind, name, (4, *shape[1:]), device))  # compiles
    given = problem(kind, name, shape, device)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(*given)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far, that of the parent process included
    before = resident("VmRSS")
    run(*given)
    return resident("VmHWM") - before


def peak(kind: str, name: str, shape: tuple[int, int, int], device: str) -> float | str:
    """Return `peak_here`, on a CPU of a process of its own."""
    if device == "cuda":
        return round(peak_here(kind, name, shape, device), 1)
    if not Path("/proc/self/clear_refs").exists():
        return "not measured"  # not Linux
    command = [sys.executable, __file__, "--peak", json.dumps([kind, name, shape])]
    return round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]), 1)


def compare(
    kind: str, names: list[str], shape: tuple[int, int, int], turns: int, device: str, peaks_too: bool = True
) -> dict:
    """Measure some contestants at one shape."""
    torch.compiler.reset()
    there = [name for name in names if peaks_too and problem(kind, name, (1, 1, 2), device)]
    peaks = {name: peak(kind, name, shape, device) for name in there}
    give_back_memory()
    given = {name: problem(kind, name, shape, device) for name in names}
    there = {name: how for name, how in given.items() if how is not None}
    functions = {name: functools.partial(run, *how) for name, how in there.items()}
    results = in_turns(functions, turns, device)
    for name, (module, x, _) in there.items():
        results[name]["spike_rate"] = None if name == "nn.RNN" else round(module(x).detach().mean().item(), 4)
        x.grad = None
        results[name] |= {"peak_mb": peaks[name]} if peaks_too else {}
    del given, there, functions, module, x
    drawn.cache_clear()
    give_back_memory()
    missing = {name: "not installed" for name in names if name not in results}
    row = {"layer": kind, "T": shape[0], "B": shape[1], "N": shape[2], "results": results | missing}
    print(json.dumps(row | {"results": {n: r["median_ms"] for n, r in results.items()}}), flush=True)
    return row


def agreement(device: str, without: list[str]) -> dict[str, dict | str]:
    """Compare spikes and the gradient by the input, in float32, with ours, but for some contestants.

    Returns:
        For each contestant: the share of spikes of either that only one of the two has; and the largest difference of
        the gradients in multiples of the largest gradient: without recurrence over the neurons of which both have the
        same spikes, with recurrence over all inputs.
    """
    cases = [("feed-forward", name, (100, 16, 512)) for name in ("loop, compiled", "Norse", *WITHOUT_SYNAPSE)]
    cases += [("recurrent", name, (100, 256, 128)) for name in ("loop, compiled", "Norse")]
    found = {}
    for kind, name, shape in (case for case in cases if case[1] not in without):
        key = f"{name}, {kind}"
        theirs = problem(kind, name, shape, device)
        if theirs is None:
            found[key] = "not installed"
            continue
        ours = problem(kind, "snnparams", shape, device)
        scale = 1.0
        if name in WITHOUT_SYNAPSE:
            module, x = First(sp.LIF(parameters(shape[2], synapse=False))).to(device), theirs[1]
            scale = A if name == "snnTorch" else 1.0
            ours = module, (x.detach() / scale).requires_grad_(), ours[2]
        results = []
        for module, x, gradient in (ours, theirs):
            x = x.detach().requires_grad_()
            z = module(x)
            z.backward(gradient)
            results.append((z.detach() > 0, x.grad))
        (z_ours, g_ours), (z_theirs, g_theirs) = results
        differ = (z_ours ^ z_theirs).sum() / (z_ours | z_theirs).sum()
        same = (z_ours == z_theirs).all(dim=0) if kind == "feed-forward" else slice(None)
        difference = (g_ours / scale - g_theirs)[:, same].abs().max() / g_theirs.abs().max()
        found[key] = {"spikes_of_one_only": differ.item(), "gradient_difference": difference.item()}
        print(key, found[key], flush=True)
    drawn.cache_clear()
    return found


def ensembles(sizes: list[int], turns: int, device: str) -> list[dict]:
    """Measure a training step of chapter 4 for several networks at once, and of as many one after the other."""
    mnist = sp.load_mnist()
    if mnist.name != "MNIST":
        raise SystemExit("this benchmark needs the real MNIST")
    x, y = mnist.train.inputs[:256].to(device), mnist.train.labels[:256].to(device)
    layout = torch.strided if device == "cuda" else torch.sparse_coo

    def member() -> nn.Module:
        p = {"tau_mem_inv": nn.Parameter(100 + 20 * torch.randn(100)), "v_th": nn.Parameter(torch.full((100,), 0.5))}
        return mnist_model(sp.LIFParameters(**p, alpha=ALPHA), spike_layout=layout).to(device)

    def at_once(ensemble, optimizer):
        optimizer.zero_grad()
        out = ensemble(x)
        nn.functional.nll_loss(out.flatten(0, 1), y.repeat(len(out)), reduction="sum").div(len(x)).backward()
        optimizer.step()

    def one_by_one(models, optimizers):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.nll_loss(model(x), y).backward()
            optimizer.step()

    rows = []
    for size in sizes:
        models = [member() for _ in range(size)]
        ensemble = sp.Ensemble(models)
        optimizers = [torch.optim.Adam(model.parameters(), lr=2e-3) for model in models]
        functions = {
            "at once": functools.partial(at_once, ensemble, torch.optim.Adam(ensemble.parameters(), lr=2e-3)),
            "one by one": functools.partial(one_by_one, models, optimizers),
        }
        rows.append({"members": size, "results": in_turns(functions, turns, device)})
        print(json.dumps({"members": size, **{n: r["median_ms"] for n, r in rows[-1]["results"].items()}}), flush=True)
    return rows


def measure(device: str, turns: int, small: bool, without: list[str]) -> Iterator[dict]:
    """Measure everything on one device, but for some contestants, and yield all so far.

    small leaves out the slowest shapes, for a look.
    """
    where = torch.cuda.get_device_name() if device == "cuda" else stored.processor()
    result = stored.header_of_device(where, "torch", "numba", "triton", "norse", "snntorch", "spikingjelly")
    rows: list[dict] = []
    result |= {"agreement": agreement(device, without), "layers": rows}
    peers = ["snnparams", "loop", "loop, compiled", "Norse", *WITHOUT_SYNAPSE]
    peers = [name for name in peers if name not in without]
    for n in (512, 2048) if small else (512, 2048, 8192, 16384):
        rows.append(compare("feed-forward", peers, (500, 16, n), turns if n < 4096 else min(turns, 3), device))
        yield result
    layers = ["snnparams", "snnparams, sparse input", "nn.RNN", "loop", "loop, compiled", "Norse"]
    layers = [name for name in layers if name not in without]
    if device == "cuda":
        layers.remove("snnparams, sparse input")
    shapes = [(100, 256, h) for h in (128, 256, 512, 1024)]
    shapes += [(100, b, 128) for b in (16, 64, 1024)]
    shapes += [(t, 64, 128) for t in (128, 256, 512, 1024)]
    for shape in shapes:
        rows.append(compare("recurrent", layers, shape, turns, device))
        yield result
    result["ensembles"] = ensembles([1, 2, 5, 10, 20], turns, device)
    if device == "cuda":  # as much again with TF32 allowed, for all
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        result["layers, TF32"] = [compare("recurrent", layers, shape, turns, device) for shape in shapes[:4]]
    yield result


def grid(device: str, turns: int) -> Iterator[list[dict]]:
    """Measure recurrent layers of dense input for small to large layers and batches; yield all rows so far."""
    rows = []
    for h in (64, 128, 256, 512, 1024, 2048):
        for b in (1, 16, 256, 1024):
            steps = min(100, GRID // (b * h))
            rows.append(compare("recurrent", ["snnparams", "nn.RNN", "loop"], (steps, b, h), turns, device, False))
            yield rows


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="leave out the largest feed-forward layers")
    parser.add_argument("--output", type=Path, default=Path("book/results/layers.json"))
    parser.add_argument("--without", action="append", default=[], help="leave out a contestant, as 'loop, compiled'")
    parser.add_argument("--grid", action="store_true", help="only recurrent layers of many sizes, T at most 100")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        kind, name, shape = json.loads(args.peak)
        print(peak_here(kind, name, tuple(shape), "cpu"))
        return
    torch.backends.cudnn.allow_tf32 = False  # float32 for all, until "high" precision is asked for
    here = stored.part(args.device)
    results = stored.parts(args.output, *stored.CPUS, *(f"grid, {cpu}" for cpu in stored.CPUS), "cuda")
    if args.grid:
        head = stored.header_of_device(stored.processor(), "torch", "numba")
        found = (head | {"layers": rows} for rows in grid(args.device, args.turns))
        stored.write_as_it_comes(args.output, results, f"grid, {here}", found)
        return
    results["command"] = "python tests/benchmarks/layers.py"
    stored.write_as_it_comes(args.output, results, here, measure(args.device, args.turns, args.small, args.without))


if __name__ == "__main__":
    main()
