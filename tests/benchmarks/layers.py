"""Layers beside those of other libraries: time, memory, and what each computes; writes book/results/layers.json.

Run from the repository root, about ten minutes on two cores:

    pip install -r tests/benchmarks/requirements.txt
    python tests/benchmarks/layers.py

All contestants take turns in one process, and each value is a time of forward and backward pass together. Peak memory
on a CPU is that of a process of its own. With --device cuda, the same on a GPU; the results of the other device stay.
"""

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

import snnparams as sp
from snnparams.models import mnist_model

with warnings.catch_warnings():  # of torch.jit, on import
    warnings.simplefilter("ignore")
    try:
        import norse.torch as norse
    except ImportError:
        norse = None
    try:
        import snntorch
    except ImportError:
        snntorch = None
    try:
        from spikingjelly.activation_based import functional, neuron, surrogate
    except ImportError:
        neuron = None

DT, A = 0.001, 0.1  # time step in s, time step over membrane time constant
B = 0.2  # time step over synaptic time constant


class OverTime(nn.Module):
    """A layer of snnTorch, which takes one step, over a whole sequence."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, B, N)."""
        mem = self.cell.reset_mem()
        spikes = []
        for x_t in x:
            z, mem = self.cell(A * x_t, mem)
            spikes.append(z)
        return torch.stack(spikes)


class FromRest(nn.Module):
    """A layer of SpikingJelly, which remembers its state, from a state of rest."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, B, N)."""
        functional.reset_net(self.layer)
        return self.layer(x)


class First(nn.Module):
    """A layer that returns its output and a state, without the state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output (T, B, N)."""
        return self.layer(x)[0]


def values(n: int, synapse: bool = True) -> dict[str, nn.Parameter]:
    """Return learned values of n neurons; without synapse, the current lasts one step."""
    given = {"tau_mem_inv": A / DT, "tau_syn_inv": (B if synapse else 0.999999) / DT, "v_th": 1.0}
    return {name: nn.Parameter(torch.full((n,), value)) for name, value in given.items()}


def feed_forward(name: str, n: int) -> nn.Module | None:
    """Return a layer of n LIF neurons with learned parameters, or None if its library is missing."""
    if name.startswith("snnparams"):
        kernel = "reference" if "reference" in name else None
        return First(sp.LIF(sp.LIFParameters(**values(n)), kernel=kernel))
    if name == "Norse":
        return norse and First(norse.LIF(p=norse.LIFParameters(**values(n))))
    if name == "snnTorch":
        learned = {"learn_beta": True, "learn_threshold": True}
        given = {"beta": torch.full((n,), 1 - A), "threshold": torch.ones(n)}
        cell = snntorch and snntorch.Leaky(**given, **learned, reset_mechanism="zero", reset_delay=False)
        return cell and OverTime(cell)
    backend = name.partition(", ")[2] or "torch"
    return neuron and FromRest(
        neuron.ParametricLIFNode(
            init_tau=1 / A, v_reset=0.0, surrogate_function=surrogate.ATan(), step_mode="m", backend=backend
        )
    )


def recurrent(name: str, h: int) -> nn.Module | None:
    """Return a recurrent layer of h neurons with h inputs, or None if its library is missing."""
    if name == "nn.RNN":
        return First(nn.RNN(h, h, bias=False))
    torch.manual_seed(0)
    w_in, w_rec = torch.randn(h, h) * (2 / h) ** 0.5, torch.randn(h, h) * (0.5 / h) ** 0.5
    w_rec.fill_diagonal_(0.0)
    if name.startswith("snnparams"):
        return First(sp.LIFRecurrent(h, h, sp.LIFParameters(**values(h)), input_weights=w_in, recurrent_weights=w_rec))
    if norse is None:
        return None
    layer = norse.LIFRecurrent(h, h, p=norse.LIFParameters(**values(h)), input_weights=w_in, recurrent_weights=w_rec)
    return First(layer)


def problem(kind: str, name: str, shape: tuple[int, int, int], device: str):
    """Return a module, its input and the gradient by its output, or None."""
    torch.manual_seed(1)
    module = (feed_forward if kind == "feed-forward" else recurrent)(name, shape[2])
    if module is None:
        return None
    if kind == "feed-forward":
        x = torch.rand(shape, device=device).mul_(0.6)
        if not name.startswith(("snnparams", "Norse")):
            x *= 1 / B  # neurons without synapse do not collect their input
        x.requires_grad_()
    else:
        x = (torch.rand(shape, device=device) < 0.05).float()
        x = x.to_sparse() if name.endswith("sparse input") else x
    return module.to(device), x, torch.randn(shape, device=device)


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


def in_turns(functions: dict, turns: int, device: str) -> dict[str, dict]:
    """Return median and all times of each in ms, after one call to warm up."""
    times = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name, function in functions.items():
            elapsed = seconds(function, device)
            if turn:
                times[name].append(round(elapsed * 1e3, 3))
    return {name: {"median_ms": round(statistics.median(t), 3), "turns_ms": t} for name, t in times.items()}


def peak_here(kind: str, name: str, shape: tuple[int, int, int], device: str) -> float:
    """Return the memory that one run adds to module, input and gradient at its peak, in MB."""
    small = problem(kind, name, (4, 2, shape[2]), device)
    run(*small)  # compiles
    given = problem(kind, name, shape, device)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(*given)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    run(*given)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - pages * resource.getpagesize() / 1e6


def peak(kind: str, name: str, shape: tuple[int, int, int], device: str) -> float:
    """Return `peak_here`, on a CPU of a process of its own."""
    if device == "cuda":
        return round(peak_here(kind, name, shape, device), 1)
    command = [sys.executable, __file__, "--peak", json.dumps([kind, name, shape])]
    return round(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]), 1)


def compare(kind: str, names: list[str], shape: tuple[int, int, int], turns: int, device: str) -> dict:
    """Measure some contestants at one shape."""
    given = {name: problem(kind, name, shape, device) for name in names}
    there = {name: how for name, how in given.items() if how is not None}
    rates = {}
    for name, how in there.items():
        if name != "nn.RNN":
            with torch.no_grad():
                rates[name] = round(how[0](how[1]).detach().float().mean().item(), 4)
    functions = {name: functools.partial(run, *how) for name, how in there.items()}
    results = in_turns(functions, turns, device)
    del given, there, functions
    for name in results:
        results[name] |= {"peak_mb": peak(kind, name, shape, device), "spike_rate": rates.get(name)}
    missing = {name: "not installed" for name in names if name not in results}
    row = {"layer": kind, "T": shape[0], "B": shape[1], "N": shape[2], "results": results | missing}
    print(json.dumps(row | {"results": {n: r["median_ms"] for n, r in results.items()}}), flush=True)
    return row


def agreement(device: str) -> dict[str, float | str]:
    """Return the share of steps and neurons at which each library spikes, or does not, as we do."""
    n, shares = 512, {}
    for name in ("Norse", "snnTorch", "SpikingJelly"):
        given = problem("feed-forward", name, (500, 16, n), device)
        if given is None:
            shares[name] = "not installed"
            continue
        module, x, _ = given
        ours = sp.LIF(sp.LIFParameters(**values(n, synapse=name == "Norse"))).to(device)
        with torch.no_grad():
            shares[name] = (module(x) == ours(x)[0]).float().mean().item()
    module, x, _ = problem("recurrent", "snnparams", (100, 256, 128), device)
    if norse is None:
        shares["Norse, recurrent"] = "not installed"
    else:
        with torch.no_grad():
            shares["Norse, recurrent"] = (recurrent("Norse", 128).to(device)(x) == module(x)).float().mean().item()
    return shares


def ensembles(sizes: list[int], turns: int, device: str) -> list[dict]:
    """Measure a training step of chapter 4 for several networks at once, and of as many one after the other."""
    images = sp.load_mnist().train
    x, y = images.images[:256].to(device), images.labels[:256].to(device)
    layout = torch.strided if device == "cuda" else torch.sparse_coo

    def member() -> nn.Module:
        p = {"tau_mem_inv": nn.Parameter(100 + 20 * torch.randn(100)), "v_th": nn.Parameter(torch.full((100,), 0.5))}
        return mnist_model(sp.LIFParameters(**p), spike_layout=layout).to(device)

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


def machine(device: str) -> dict:
    """Return what was measured on."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    packages = ("torch", "numba", "triton", "norse", "snntorch", "spikingjelly")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"machine": where, "threads": torch.get_num_threads(), "versions": versions}


def measure(device: str, turns: int) -> dict:
    """Measure everything on one device."""
    peers = ["snnparams", "snnparams, reference", "Norse", "snnTorch", "SpikingJelly"]
    if device == "cuda":
        peers += ["SpikingJelly, triton", "SpikingJelly, cupy"]
    rows = []
    for n in (512, 2048, 8192, 16384):
        rows.append(compare("feed-forward", peers, (500, 16, n), turns if n < 4096 else 3, device))
    layers = ["snnparams", "snnparams, sparse input", "nn.RNN", "Norse"]
    if device == "cuda":
        layers.remove("snnparams, sparse input")
    shapes = [(100, 256, h) for h in (128, 256, 512, 1024)]
    shapes += [(100, b, 128) for b in (16, 64, 1024)]
    shapes += [(t, 64, 128) for t in (128, 256, 512, 1024)]
    for shape in shapes:
        rows.append(compare("recurrent", layers, shape, turns, device))
    result = {"date": datetime.date.today().isoformat(), **machine(device), "agreement": agreement(device)}
    result |= {"layers": rows, "ensembles": ensembles([1, 2, 5, 10, 20], turns, device)}
    if device == "cuda":  # as much again with TF32 allowed, for both
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        result["layers, TF32"] = [compare("recurrent", layers, shape, turns, device) for shape in shapes[:4]]
    return result


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("book/results/layers.json"))
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        kind, name, shape = json.loads(args.peak)
        print(peak_here(kind, name, tuple(shape), "cpu"))
        return
    torch.backends.cudnn.allow_tf32 = False  # float32 for all, until "high" precision is asked for
    stored = (
        json.loads(args.output.read_text()) if args.output.exists() else {"cpu": "not measured", "cuda": "not measured"}
    )
    stored["command"] = "python tests/benchmarks/layers.py"
    stored[args.device] = measure(args.device, args.turns)
    args.output.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
