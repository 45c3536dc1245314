"""The layers that layers.py compares: ours, and those of other libraries with as much to learn, at most."""

import functools
import shutil
import warnings

import torch
from torch import nn

import snnparams as sp

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
ALPHA = 1.0  # of the spike function
WITHOUT_SYNAPSE = ("snnTorch", "SpikingJelly")


class OverTime(nn.Module):
    """A cell of Norse or snnTorch, which takes one step, over a whole sequence."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, B, N)."""
        state = self.cell.reset_mem() if hasattr(self.cell, "reset_mem") else None
        spikes = []
        for x_t in x:
            z, state = self.cell(x_t, state)
            spikes.append(z)
        return torch.stack(spikes)


class CompiledSteps(nn.Module):
    """Our loop over time, with each step compiled."""

    def __init__(self, p: sp.LIFParameters) -> None:
        super().__init__()
        self.cell = sp.LIFCell(p)
        self.step = torch.compile(self.one_step, dynamic=False)

    def one_step(self, x: torch.Tensor, v: torch.Tensor, i: torch.Tensor):
        """Return spikes (B, N) and the state."""
        return sp.lif_feed_forward_step(x, sp.LIFFeedForwardState(v, i), self.cell.p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, B, N)."""
        v = i = torch.zeros_like(x[0])
        spikes = []
        for x_t in x:
            z, (v, i) = self.step(x_t, v, i)
            spikes.append(z)
        return torch.stack(spikes)


class CompiledRecurrentSteps(nn.Module):
    """The loop over time of our recurrent layer, with each step compiled; one product has the input of all steps."""

    def __init__(self, layer: sp.LIFRecurrent) -> None:
        super().__init__()
        self.layer = layer
        self.step = torch.compile(self.one_step, dynamic=False)

    def one_step(self, current: torch.Tensor, weights: torch.Tensor, *state: torch.Tensor):
        """Return spikes (B, H) and the state."""
        return sp.neuron_step(sp.LIFParameters, current, sp.LIFState(*state), weights, self.layer.p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, B, H)."""
        currents = nn.functional.linear(x, self.layer.input_weights)
        weights = self.layer.effective_recurrent_weights()
        state = (torch.zeros_like(currents[0]),) * len(sp.LIFState._fields)
        spikes = []
        for current in currents:
            z, state = self.step(current, weights, *state)
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


def has_compiler() -> bool:
    """Return whether there is what torch.compile needs on a CPU."""
    return bool(shutil.which("c++") or shutil.which("g++"))


def parameters(n: int, synapse: bool = True, device: str = "cpu") -> sp.LIFParameters:
    """Return learned values of n neurons; without synapse, the current lasts one step."""
    given = {"tau_mem_inv": A / DT, "tau_syn_inv": (B if synapse else 0.999999) / DT, "v_th": 1.0}
    learned = {name: nn.Parameter(torch.full((n,), value, device=device)) for name, value in given.items()}
    return sp.LIFParameters(**learned, alpha=ALPHA)


def norse_parameters(n: int, device: str):
    """Return the same values for Norse, which ignores alpha, on a device: a layer of Norse's does not move them."""
    p = parameters(n, device=device)
    return norse.LIFParameters(tau_mem_inv=p.tau_mem_inv, tau_syn_inv=p.tau_syn_inv, v_th=p.v_th)


def feed_forward(name: str, n: int, device: str) -> nn.Module | None:
    """Return a layer of n LIF neurons with learned parameters, or None if what it needs is missing."""
    if name == "snnparams":
        return First(sp.LIF(parameters(n)))
    if name == "loop":
        return First(sp.LIF(parameters(n), kernel="reference"))
    if name == "loop, compiled":
        return CompiledSteps(parameters(n)) if has_compiler() else None
    if name == "Norse":
        return norse and OverTime(norse.LIFCell(p=norse_parameters(n, device)))
    if name == "snnTorch":
        if snntorch is None:
            return None
        how = {"learn_beta": True, "learn_threshold": True, "reset_mechanism": "zero", "reset_delay": False}
        how["spike_grad"] = snntorch.surrogate.fast_sigmoid(slope=ALPHA)
        return OverTime(snntorch.Leaky(beta=torch.full((n,), 1 - A), threshold=torch.ones(n), **how))
    how = {"surrogate_function": surrogate.SuperSpike(ALPHA), "step_mode": "m"} if neuron else {}
    return neuron and FromRest(neuron.ParametricLIFNode(init_tau=1 / A, v_reset=0.0, **how))


def recurrent(name: str, h: int, device: str) -> nn.Module | None:
    """Return a recurrent layer of h neurons with h inputs, or None if its library is missing."""
    if name == "nn.RNN":
        return First(nn.RNN(h, h, bias=False))
    torch.manual_seed(0)
    w_in, w_rec = torch.randn(h, h) * (32 / h) ** 0.5, torch.randn(h, h) * (0.5 / h) ** 0.5
    weights = {"input_weights": w_in, "recurrent_weights": w_rec.fill_diagonal_(0.0)}
    if name == "Norse":
        return norse and First(norse.LIFRecurrent(h, h, p=norse_parameters(h, device), **weights))
    kernel = "reference" if name.startswith("loop") else None
    layer = sp.LIFRecurrent(h, h, parameters(h), **weights, kernel=kernel)
    if name == "loop, compiled":
        return CompiledRecurrentSteps(layer) if has_compiler() else None
    return First(layer)


@functools.lru_cache(maxsize=3)
def drawn(what: str, shape: tuple[int, int, int], device: str) -> torch.Tensor:
    """Return random numbers, the same for all contestants: currents, or spikes, or the gradient by the output."""
    generator = torch.Generator(device).manual_seed(1)
    if what == "gradient":
        return torch.randn(shape, device=device, generator=generator)
    x = torch.rand(shape, device=device, generator=generator)
    if what == "spikes":
        return (x < 0.05).float()
    x = x.mul_(0.6 if what == "currents" else 0.6 * A / B)  # neurons without synapse do not collect their input
    return x.requires_grad_()


def problem(kind: str, name: str, shape: tuple[int, int, int], device: str):
    """Return a module, its input and the gradient by its output, or None."""
    module = (feed_forward if kind == "feed-forward" else recurrent)(name, shape[2], device)
    if module is None:
        return None
    what = "spikes" if kind == "recurrent" else "currents"
    if name in WITHOUT_SYNAPSE:
        what = "currents of one step"
    x = drawn(what, shape, device)
    if name == "SpikingJelly":  # multiplies its input with A itself
        x = (x.detach() / A).requires_grad_()
    x = x.to_sparse() if name.endswith("sparse input") else x
    return module.to(device), x, drawn("gradient", shape, device)
