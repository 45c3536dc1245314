"""What delays cost, beside a dilated convolution with a dense kernel, as DCLS has; writes book/results/delays.json.

Run from the repository root, some minutes on two cores: python tests/benchmarks/delays.py

All contestants take turns in one process on one thread. A time is that of the forward and backward pass of a batch,
with learned delays and weights: one delay per presynaptic neuron, before an `nn.Linear`; one per synapse; and what
spiking networks with DCLS do, a kernel over time in which each synapse is a Gaussian around its delay. `numbers` are
those that are learned, `kernel` those of the kernel that is made of them in every pass, and `kept_mb` what autograd
keeps of a forward pass, besides weights, delays and input.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import stored
import torch
from kept import kept
from torch import nn

import snnparams as sp

DT, WARM_UP = 1e-3, 2  # s, turns


class Gaussian(nn.Module):
    """A convolution over time whose kernel (O, I, D + 1) is a Gaussian for each synapse."""

    def __init__(self, inputs: int, outputs: int, steps: int, width: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.delay = nn.Parameter(steps * torch.rand(outputs, inputs))  # time steps
        self.steps, self.width = steps, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        taps = torch.arange(self.steps, -1, -1)
        kernel = torch.exp(-(((taps - self.delay[..., None]) / self.width) ** 2) / 2)
        kernel = self.weight[..., None] * kernel / kernel.sum(dim=2, keepdim=True)
        return nn.functional.conv1d(nn.functional.pad(x.permute(1, 2, 0), (self.steps, 0)), kernel).permute(2, 0, 1)


def contestants(inputs: int, outputs: int, steps: int) -> dict[str, nn.Module]:
    """Return modules for delays of up to a number of steps."""
    longest = steps * DT
    drawn = sp.Learned(sp.distributions.uniform(mean=longest / 2, variation=0.5))
    axonal = sp.Sequential(
        sp.Delay(drawn, max_delay=longest, size=inputs, dt=DT), nn.Linear(inputs, outputs, bias=False)
    )
    synaptic = sp.DelayedLinear(inputs, outputs, drawn, max_delay=longest, dt=DT)
    return {"axonal": axonal, "synaptic": synaptic, "Gaussian kernel": Gaussian(inputs, outputs, steps)}


def in_turns(modules: dict[str, nn.Module], x: torch.Tensor, count: int) -> dict[str, list[float]]:
    """Return the times in ms of forward and backward passes, in turns."""
    turns: dict[str, list[float]] = {name: [] for name in modules}
    for turn in range(count + WARM_UP):
        for name, module in modules.items():
            module.zero_grad()
            start = time.perf_counter()
            out = module(x)
            (out[0] if isinstance(out, tuple) else out).square().mean().backward()
            if turn >= WARM_UP:
                turns[name].append(round(1e3 * (time.perf_counter() - start), 2))
    return turns


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--delays", type=int, nargs="+", default=[10, 25, 100], help="longest delays in steps")
    parser.add_argument("--sizes", type=int, nargs=4, default=[100, 64, 140, 256], help="T, B, I and O")
    parser.add_argument("--output", type=Path, default=Path("book/results/delays.json"))
    parser.add_argument("--memory", action="store_true", help="count memory only, and leave the times of the file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps, batch, inputs, outputs = args.sizes
    x = (torch.rand(steps, batch, inputs) < 0.05).float()
    of_delays = {longest: contestants(inputs, outputs, longest) for longest in args.delays}
    if args.memory:
        content = json.loads(args.output.read_text())
    else:
        results = {}
        for longest, modules in of_delays.items():
            turns = in_turns(modules, x, args.turns)
            results[longest] = {
                name: {
                    "median_ms": round(statistics.median(turns[name]), 2),
                    "turns_ms": turns[name],
                    "numbers": sum(p.numel() for p in module.parameters()),
                    "kernel": 0 if name == "axonal" else outputs * inputs * (longest + 1 + (name == "synaptic")),
                }
                for name, module in modules.items()
            }
            print(longest, {name: found["median_ms"] for name, found in results[longest].items()})
        header = stored.header("delays.py", f"{stored.processor()}, CPU, 1 thread")
        content = header | {"sizes": args.sizes, "longest delay (steps)": results}
    content["kept_mb"] = {
        longest: {name: round(kept(module, x) / 1e6, 2) for name, module in modules.items()}
        for longest, modules in of_delays.items()
    }
    print(content["kept_mb"])
    stored.write(args.output, content)


if __name__ == "__main__":
    main()
