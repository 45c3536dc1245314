"""Random problems for the neurons of version 0.1.0, and what that version made of them.

`lif_and_li.npz` holds spikes or voltages, the last state and all gradients, in float64, as the reference computed them
when every neuron was still written out by hand. No membrane comes closer to its threshold than 1e-9, so that rounding
decides no spike. Do not write the file anew with a later version: it shows that the numbers have not changed since. Run
from the project's root as `python -m tests.oracles.lif_and_li`.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import snnparams as sp

FILE = Path(__file__).with_suffix(".npz")
KINDS = ("LIF", "LIFRecurrent", "LI", "LIFCell", "LIFRecurrentCell", "LICell")
METHODS = ("heaviside", "super", "triangle", "tanh", "circ", "heavi_erfc", "sigmoid")
PER_KIND, MARGIN = 42, 1e-9
STEPS, ROWS, INPUTS, NEURONS = 7, 2, 3, 3


class Problem:
    """A population with random parameters, its input, its first state and a linear loss.

    The numbers are those of NumPy's oldest generator, which is the same in all versions.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.random = kind, np.random.RandomState(seed)
        self.recurrent, self.spiking = "Recurrent" in kind, kind.startswith("LIF")
        per_neuron, uniform = seed % 2 == 0, self.uniform
        size = (NEURONS,) if per_neuron else ()
        self.p = {"tau_syn_inv": uniform(50, 400, *size), "tau_mem_inv": uniform(30, 300, *size)}
        self.p["v_leak"] = uniform(-0.3, 0.3, *size)
        if self.spiking:
            self.p |= {"v_th": uniform(0.3, 0.9, *size), "v_reset": uniform(-0.3, 0.2, *size)}
        self.how = {"method": METHODS[seed % len(METHODS)], "alpha": uniform(0.5, 2.0).item()} if self.spiking else {}
        self.detach_reset = {"detach_reset": seed % 3 == 0} if self.spiking else {}
        self.x = uniform(-0.5, 2.0, STEPS, ROWS, INPUTS)
        shape = (ROWS, NEURONS)
        self.state = [uniform(-0.2, 0.25, *shape), uniform(-0.3, 1.0, *shape)]
        self.weights = {}
        if self.recurrent:
            self.state.insert(0, (uniform(0, 1, *shape) > 0.5).double())
            self.weights = {"input_weights": uniform(-0.3, 1, NEURONS, INPUTS)}
            self.weights["recurrent_weights"] = uniform(-1, 1, NEURONS, NEURONS).fill_diagonal_(0)
        self.of_outputs = uniform(-1, 1, STEPS, *shape)
        self.of_state = [uniform(-1, 1, *shape) for _ in self.state]

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.random.uniform(low, high, shape)))

    def module(self, kernel: str | None) -> nn.Module:
        values = {name: nn.Parameter(value.clone()) for name, value in self.p.items()}
        p = (sp.LIFParameters if self.spiking else sp.LIParameters)(**values, **self.how)
        sizes = {"input_size": INPUTS, "hidden_size": NEURONS} if self.recurrent else {}
        choice = {} if self.kind.endswith("Cell") else {"kernel": kernel}
        return getattr(sp, self.kind)(
            p=p, dtype=torch.float64, **sizes, **self.weights, **self.detach_reset, **choice
        )  # fmt: skip

    def solve(self, kernel: str | None = None) -> dict[str, torch.Tensor]:
        """Return outputs, last state and gradients; `kernel` is of no matter to a cell."""
        module, x = self.module(kernel), self.x.clone().requires_grad_()
        first = [value.clone().requires_grad_() for value in self.state]
        names = ("z", "v", "i")[-len(first) :]
        kinds = {"LIF": sp.LIFFeedForwardState, "LI": sp.LIState, "LIFRecurrent": sp.LIFState}
        state = kinds[self.kind.removesuffix("Cell")](*first)
        if self.kind.endswith("Cell"):
            outputs = []
            for x_t in x:
                out, state = module(x_t, state)
                outputs.append(out)
            out = torch.stack(outputs)
        else:
            out, state = module(x, state)
        loss = (self.of_outputs * out).sum()
        for factor, value in zip(self.of_state, state, strict=True):
            loss = loss + (factor * value).sum()
        learned = dict(module.named_parameters())
        leaves = {"x": x, **dict(zip(names, first, strict=True)), **learned}
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        found = {"outputs": out.detach()} | {f"last {n}": t.detach() for n, t in zip(names, state, strict=True)}
        return found | {f"gradient by {name}": g for name, g in zip(leaves, gradients, strict=True)}

    def distance(self) -> float:
        """Return how close a membrane comes to its threshold before a reset, by a loop of its own in NumPy."""
        if not self.spiking:
            return np.inf
        p = {name: value.numpy() for name, value in self.p.items()}
        *z, v, i = (value.numpy() for value in self.state)
        least, alpha = np.inf, self.how["alpha"]
        for x in self.x.numpy():
            if self.recurrent:
                x = x @ self.weights["input_weights"].numpy().T + z[0] @ self.weights["recurrent_weights"].numpy().T
            i = i + x
            v = v + 1e-3 * p["tau_mem_inv"] * (p["v_leak"] - v + i)
            i = i - 1e-3 * p["tau_syn_inv"] * i
            least = min(least, np.abs(v - p["v_th"]).min())
            spikes = 1.0 * (v > p["v_th"])
            if self.how["method"] == "sigmoid":
                spikes = 1 / (1 + np.exp(-alpha * (v - p["v_th"])))
            z, v = [spikes], (1 - spikes) * v + spikes * p["v_reset"]
        return least


def problems(kind: str):
    """Return the problems of one kind, by their seeds."""
    found, seed = {}, 0
    while len(found) < PER_KIND:
        problem = Problem(kind, seed)
        if problem.distance() > MARGIN:
            found[seed] = problem
        seed += 1
    return found


def unpack(numbers: np.ndarray, like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose numbers stand one after the other, in the order and the shapes of others."""
    parts = torch.from_numpy(numbers).split([tensor.numel() for tensor in like.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(like.items(), parts, strict=True)}


if __name__ == "__main__":
    stored = {}
    for kind in KINDS:
        solved = {seed: problem.solve("reference") for seed, problem in problems(kind).items()}
        stored |= {
            f"{kind} {seed}": torch.cat([t.flatten() for t in found.values()]).numpy()
            for seed, found in solved.items()
        }  # fmt: skip
    np.savez_compressed(FILE, **stored)
