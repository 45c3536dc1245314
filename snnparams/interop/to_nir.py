r"""Exchange with other libraries: networks go out to NIR and come back, and come in from Norse.

NIR, the Neuromorphic Intermediate Representation, describes a network as a graph of equations in continuous time.
Norse, snnTorch, SpikingJelly, sinabs, Rockpool, Spyx, Lava and others read and write it; what each reads differs.

=========================================== ============================================================
here                                        in NIR
=========================================== ============================================================
`LIF`, `LIFCell`                            `CubaLIF`
`LI`, `LICell`                              `CubaLI`
`LIFRecurrent`, `LIFRecurrentCell`          `Linear` before a `CubaLIF`, and one from it back to it
`nn.Linear`                                 `Linear`, or with a bias `Affine`
`Delay`                                     `Delay`, in s
`DelayedRecurrentLayer`, one per neuron     as `LIFRecurrent`, with a `Delay` on the way back
=========================================== ============================================================

All values are written per neuron. **Conventions.** An input spike of weight 1 adds 1 to the current here, and
:math:`w_\mathrm{in} \Delta t / \tau_\mathrm{syn}` in NIR, where the current decays towards its input. So what is
written has :math:`w_\mathrm{in} = \tau_\mathrm{syn} / \Delta t` and a resistance of 1; other values are read into the
weights before and around the neurons. A spike that comes back arrives one step later here, in NIR at once, which
simulators make one step of: that step is no part of a `Delay` in NIR. Inverse time constants and delays are written a
second time, as metadata, because :math:`1 / (1 / x)` is not always x: with them a round trip is exact. They count only
where they still belong to the time constants in the graph.

**Tolerances, and what is refused.** Spikes of networks after a round trip, and of these in other libraries:

=================== ======================= ========================================================================
library             spikes                  refuses, or does in another way
=================== ======================= ========================================================================
snnparams           equal, bit for bit      what is not in the table above, by its name; graphs with branches
Norse 1.1           equal but for rounding  reads `CubaLIF`, `Linear`, `Affine` in float32; not `CubaLI` and `Delay`;
                                            ignores `v_reset` (0), and lets the current decay to `v_leak`: right where
                                            both are 0. What it writes has time constants times the time step: use
                                            `from_norse`
snnTorch 1.0        equal but for rounding, needs `resistance="tau_mem / dt"`, a time step of 0.1 ms, one threshold for
                    without recurrence      all neurons, `v_leak` and `v_reset` 0. With recurrence it builds another
                                            network: input passes the recurrent weights. What it writes is read
SpikingJelly 2.0    equal but for rounding  needs `resistance="tau_mem / dt"` and one value of every parameter for all
                                            neurons, `v_leak` 0. What it writes is read
=================== ======================= ========================================================================

Their rounding is that of float32: a membrane within some 1e-6 of its threshold may spike a step earlier or later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from snnparams.layers.contents import as_shown
from snnparams.layers.delay import Delay
from snnparams.layers.delayed_recurrent import DelayedRecurrentLayer
from snnparams.layers.population import FeedForward, Population, Recurrent
from snnparams.neurons import LIFParameters, LIParameters

NAMES = {"v_leak": "v_leak", "v_th": "v_threshold", "v_reset": "v_reset"}  # here and in NIR
RATES = {"tau_mem_inv": "tau_mem", "tau_syn_inv": "tau_syn"}
RESISTANCES = ("1", "tau_mem / dt")
KNOWN = "CubaLIF, CubaLI, Linear, Affine, Delay, Input, Output and graphs of them"


def _nir() -> ModuleType:
    """Return the package `nir`.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise ImportError("nir: expected the package: pip install 'nir>=1.0.8,<2'") from error
    return nir


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _parts(model: nn.Module | Sequence[nn.Module]) -> list[nn.Module]:
    """Return the modules of a network in their order."""
    if isinstance(model, (nn.Sequential, Sequence)):
        return [part for module in model for part in _parts(module)]
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, or a sequence of modules, got {type(model).__name__}")
    return [] if isinstance(model, (nn.Identity, nn.Dropout)) else [model]


def _neurons(layer: Population, inputs: int | None, name: str):
    """Return the node of a population, and its size."""
    nir, p, spiking = _nir(), layer.p, layer.neuron is LIFParameters
    if layer.neuron not in (LIFParameters, LIParameters):
        expected = "LIF or LI neurons, which NIR has,"
        raise TypeError(f"{name}: expected {expected} got {layer.neuron.__name__}, which it has not")
    values = {field: getattr(p, field).detach() for field in p.neuron_fields}
    size = int(np.prod(p.size)) if isinstance(p.size, tuple) else inputs
    if size is None:
        size = max((value.numel() for value in values.values() if value.dim()), default=None)
    if isinstance(layer, Recurrent):
        size = layer.hidden_size
    if size is None:
        raise ValueError(f"{name}: expected a known number of neurons; build the layer with size=...")
    if any(value.dim() > 1 for value in values.values()) or (isinstance(p.size, tuple) and len(p.size) > 1):
        raise ValueError(f"{name}: expected a population with one axis, got one of shape {p.size}")
    arrays = {field: _array(value.expand(size)) for field, value in values.items()}
    given = {RATES[field]: (1 / arrays[field].astype(np.float64)).astype(arrays[field].dtype) for field in RATES}
    given |= {NAMES[field]: array for field, array in arrays.items() if field in NAMES}
    given |= {"r": np.ones_like(arrays["v_leak"]), "w_in": given["tau_syn"] / arrays["v_leak"].dtype.type(layer.dt)}
    metadata = {"dt": layer.dt} | {field: arrays[field] for field in RATES}
    return (nir.CubaLIF if spiking else nir.CubaLI)(**given, metadata=metadata), size


def _weights(weights: torch.Tensor, bias: torch.Tensor | None = None, **metadata):
    nir = _nir()
    if bias is None:
        return nir.Linear(weight=_array(weights), metadata=metadata)
    return nir.Affine(weight=_array(weights), bias=_array(bias), metadata=metadata)


def _delay(delays: torch.Tensor, size: int, less: float = 0.0):
    exact = _array(delays.expand(size))
    return _nir().Delay(delay=np.maximum(exact - exact.dtype.type(less), 0), metadata={"delay": exact})


def _into_weights(r: np.ndarray, node):
    """Return a Linear or Affine whose weights are less by what a resistance is more."""
    return dataclasses.replace(
        node, weight=node.weight / r[:, None], **({"bias": node.bias / r} if hasattr(node, "bias") else {})
    )


class _Graph:
    """Nodes and edges, in the order of a network's parts.

    Args:
        resistance: that of neurons, as in `to_nir`.
    """

    def __init__(self, resistance: str) -> None:
        self.resistance = resistance
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.last, self.size = "input", cast("int | None", None)  # the node before the next, and its neurons

    def add(self, kind: str, node) -> str:
        """Append a node, and return its name."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes[name] = node
        self.edges.append((self.last, name))
        self.last = name
        return name

    def part(self, part: nn.Module) -> None:
        """Append a module."""
        name = type(part).__name__
        if isinstance(part, nn.Linear):
            self.add("linear", _weights(part.weight, part.bias))
            self.size = part.out_features
        elif isinstance(part, Delay):
            shape = (self.size,) if self.size is not None else part.p.size or tuple(part.p.delay.shape)
            if not isinstance(shape, tuple) or len(shape) != 1:
                raise ValueError(f"{name}: expected a known number of neurons on one axis; build it with size=...")
            self.size = shape[0]
            self.add("delay", _delay(part.p.delay, shape[0]))
        elif isinstance(part, Recurrent):
            self.recurrent(part, name)
        elif isinstance(part, FeedForward):
            self.feed_forward(part, name)
        else:
            expected = "cells and layers of LIF and LI neurons, nn.Linear and Delay"
            raise TypeError(f"model: expected {expected}, got {name}, for which NIR has nothing")

    def recurrent(self, part: Recurrent, name: str) -> None:
        """Append input weights, neurons, and the way back from them to themselves."""
        node, self.size = _neurons(part, None, name)
        weights = _weights(part.input_weights)
        back = _weights(part.effective_recurrent_weights(), autapses=part.autapses)
        if self.resistance != "1":
            node.r = node.tau_mem / node.tau_mem.dtype.type(part.dt)
            weights, back = _into_weights(node.r, weights), _into_weights(node.r, back)
        self.add("linear", weights)
        neurons = self.add("lif", node)
        if isinstance(part, DelayedRecurrentLayer):
            if part.per_synapse:
                raise TypeError(f"{name}: expected delays of neurons, which NIR has, got one per synapse")
            self.add("delay", _delay(part.delays.delay, self.size, less=part.dt))
        self.edges.append((self.add("recurrent", back), neurons))
        self.last = neurons

    def feed_forward(self, part: FeedForward, name: str) -> None:
        """Append neurons, and where a resistance asks for it weights before them."""
        nir = _nir()
        node, self.size = _neurons(part, self.size, name)
        if self.resistance != "1":
            node.r = node.tau_mem / node.tau_mem.dtype.type(part.dt)
            if not isinstance(self.nodes.get(self.last), (nir.Linear, nir.Affine)):
                self.add("linear", nir.Linear(weight=np.eye(self.size, dtype=node.r.dtype)))
            self.nodes[self.last] = _into_weights(node.r, self.nodes[self.last])
        self.add("lif" if part.neuron is LIFParameters else "li", node)


def to_nir(model: nn.Module | Sequence[nn.Module], *, resistance: str = "1") -> Any:
    """Return a network as a graph of NIR, which `nir.write` writes into a file.

    Args:
        model: a cell or layer of LIF or LI neurons, an `nn.Linear`, a `Delay`, or a `Sequential`, `nn.Sequential` or
            list of such modules in the order in which they are applied. `nn.Identity` and `nn.Dropout`, which does
            nothing after training, are left out.
        resistance: that of neurons, "1", or "tau_mem / dt" for snnTorch and SpikingJelly, which read no other; the
            weights before the neurons are less by as much then, and a round trip is exact but for rounding.

    Returns:
        A `nir.NIRGraph` of single nodes, with values per neuron in the type that they have, and metadata as said above.

    Raises:
        ImportError: if the package `nir` is not installed.
        TypeError: if a module or its neuron is none that NIR has.
        ValueError: if the number of neurons is not known, a population has several axes, time steps differ, or the
            resistance is another.
    """
    nir = _nir()
    if resistance not in RESISTANCES:
        raise ValueError(f"resistance: expected one of {', '.join(map(repr, RESISTANCES))}, got {resistance!r}")
    parts = _parts(model)
    if not parts:
        raise ValueError("model: expected at least one module, got none")
    graph = _Graph(resistance)
    for part in parts:
        graph.part(part)
    steps = dict.fromkeys(as_shown(part.dt) for part in parts if isinstance(part, (Population, Delay)))
    if len(steps) > 1:
        raise ValueError(f"model: expected one time step, got {', '.join(f'{dt:g} s' for dt in steps)}")
    graph.add("output", nir.Output(output_type={"output": graph.nodes[graph.last].output_type["output"]}))
    first = next(iter(graph.nodes.values()))
    nodes = {"input": nir.Input(input_type={"input": first.input_type["input"]})} | graph.nodes
    nodes["output"] = nodes.pop(graph.last)
    edges = [(a, "output" if b == graph.last else b) for a, b in graph.edges]
    return nir.NIRGraph(nodes=nodes, edges=edges)
