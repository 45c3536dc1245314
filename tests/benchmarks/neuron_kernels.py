"""Fused CPU kernels of every neuron against the reference loop; writes book/results/neuron_kernels.json.

Run from the repository root, some minutes on two cores:

    python tests/benchmarks/neuron_kernels.py

All neurons of the package and one that a user might write, with all parameters learned one per neuron, forward and
backward, in turns. The kernels are derived from the steps of the neurons. With --before FOLDER, a checkout of an
earlier commit, the LIF neurons of that take part in the turns, each package in a process of its own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import stored
import torch

import snnparams as sp

ROOT = Path(__file__).parents[2]
CASES = {  # steps, rows, neurons, whether recurrent
    "recurrent": (100, 256, 128, True),
    "without recurrence": (500, 16, 512, False),
}
SMALL = {"recurrent": (5, 4, 8, True), "without recurrence": (6, 2, 16, False)}
WARM_UP = 2  # turns that do not count: the first one compiles


def declared(kind):
    """Return a declaration in which every parameter is learned."""
    if not hasattr(kind, "parameters"):  # of a package from before neurons were classes
        return kind(**{name: sp.Learned(getattr(kind(), name)) for name in kind.neuron_fields})
    return kind(**{name: sp.Learned(parameter.default) for name, parameter in kind.parameters.items()})


def neurons() -> dict[str, type]:
    """Return the neurons that are measured, by name; in a package of before, LIF alone."""
    if not hasattr(sp, "Neuron"):
        return {"LIFParameters": sp.LIFParameters}

    class OfAUser(sp.Neuron):
        state = ("v", "u")
        tau_mem_inv = sp.rate(100.0, time="tau_mem")
        v_th = sp.voltage(1.0)
        pull = sp.voltage(0.1)

        def constants(dt, tau_mem_inv):
            return {"a": dt * tau_mem_inv}

        def step(x, v, u, a, v_th, pull, spike, where):
            v = v + a * ((x - v) - u)
            z = spike(v, v_th)
            return z, where(z, v - v_th, v), u + a * (pull * v - u)

    found = vars(sp.neurons).values()
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, sp.Neuron) and kind is not sp.Neuron]
    return {kind.__name__: kind for kind in kinds} | {"of a user": OfAUser}


def layer_of(kind, kernel: str, size: int, recurrent: bool):
    """Return a layer that drives its neurons to some spikes."""
    torch.manual_seed(0)
    generic = hasattr(sp, "RecurrentLayer")
    if recurrent:
        layer = (sp.RecurrentLayer if generic else sp.LIFRecurrent)(size, size, declared(kind), kernel=kernel)
    else:
        layer = (sp.Layer if generic else sp.LIF)(declared(kind), size=size, kernel=kernel)
    return layer


def serve(cases: dict) -> None:
    """Answer each line with neuron, kernel and case, separated by tabs, with the seconds of one turn."""
    layers, inputs = {}, {}
    for line in sys.stdin:
        name, kernel, case = key = tuple(line.rstrip("\n").split("\t"))
        steps, rows, size, recurrent = cases[case]
        if key not in layers:
            layers[key] = layer_of(neurons()[name], kernel, size, recurrent)
            spikes = (torch.rand(steps, rows, size) < 0.05).float()
            inputs[key] = spikes if recurrent else 10 * spikes
        layer, x = layers[key], inputs[key].requires_grad_()
        began = time.perf_counter()
        out, _ = layer(x)
        out.sum().backward()
        print(time.perf_counter() - began, flush=True)
        layer.zero_grad()
        x.grad = None


class Package:
    """A process in which layers of one checkout are measured."""

    def __init__(self, folder: Path, *options: str) -> None:
        paths = [str(folder), str(Path(__file__).parent)]
        command = [sys.executable, __file__, "--serve", *options]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=folder)

    def seconds(self, *key: str) -> float:
        """Return how long one turn took."""
        assert self.process.stdin
        assert self.process.stdout
        print(*key, sep="\t", file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{' '.join(key)}: expected a time, got the end of the process")
        return float(answer)


def measure(turns: int, before: Path | None, options: list[str]) -> dict:
    """Return the median in ms of each contestant, by case, and the ratio of medians to that of LIF."""
    packages = {"now": Package(ROOT, *options)} | ({"before": Package(before, *options)} if before else {})
    runs = [("now", name, kernel) for name in neurons() for kernel in ("cpu", "reference")]
    runs += [("before", "LIFParameters", "cpu")] if before else []
    results = {}
    for case, (steps, rows, size, _) in CASES.items():
        times: dict = {run: [] for run in runs}
        for turn in range(turns + WARM_UP):
            for run in runs:
                package, name, kernel = run
                if kernel == "reference" and turn >= WARM_UP + 3:  # it takes long
                    continue
                seconds = packages[package].seconds(name, kernel, case)
                if turn >= WARM_UP:
                    times[run].append(1e3 * seconds)
        medians = {run: statistics.median(found) for run, found in times.items()}
        lif = medians["now", "LIFParameters", "cpu"]
        table = {}
        for package, name, kernel in runs:
            row = table.setdefault(name if package == "now" else f"{name}, before", {})
            row[f"{kernel}_ms"] = round(medians[package, name, kernel], 2)
            if kernel == "cpu":
                row["of_lif"] = round(medians[package, name, kernel] / lif, 2)
        results[case] = {"steps": steps, "rows": rows, "neurons": size, "times": table}
    for package in packages.values():
        package.process.stdin.close()
        package.process.wait()
    return results


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--output", type=Path, default=ROOT / "book" / "results" / "neuron_kernels.json")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.smoke:
        CASES.update(SMALL)
    if given.serve:
        return serve(CASES)
    options = ["--smoke"] if given.smoke else []
    command = "neuron_kernels.py" + (" --before FOLDER" if given.before else "")
    results = measure(given.turns, given.before, options)
    content = stored.header(command) | {"threads": torch.get_num_threads(), "turns": given.turns, "cases": results}
    stored.write(given.output, content)
    for case, result in results.items():
        print(case, *(f"  {name}: {row}" for name, row in result["times"].items()), sep="\n")


if __name__ == "__main__":
    main()
