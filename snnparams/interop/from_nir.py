"""Networks that come from NIR: a graph becomes layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from snnparams.interop.to_nir import KNOWN, NAMES, RATES, _nir
from snnparams.layers.delay import Delay
from snnparams.layers.delayed_recurrent import DelayedRecurrentLayer
from snnparams.layers.layer import LI, LIF, LIFRecurrent
from snnparams.layers.sequential import Sequential
from snnparams.neurons import LIFParameters, LIParameters
from snnparams.neurons.surrogate import Gradient
from snnparams.parameters.declared import Learned
from snnparams.parameters.settings import LONGEST, check_dt, check_seconds


class _Part(NamedTuple):
    """One node of a chain, with the way back from it to itself."""

    name: str
    node: Any
    back: Any = None  # Linear or Affine
    delay: Any = None  # Delay before it


def _flat(graph, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]], list[str], list[str]]:
    """Return nodes and edges of a graph and of all graphs within, and the names of its inputs and outputs."""
    nir = _nir()
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    begins: dict[str, list[str]] = {}
    ends: dict[str, list[str]] = {}
    for name, node in graph.nodes.items():
        whole = prefix + str(name)
        if isinstance(node, nir.NIRGraph):
            inner, between, begins[name], ends[name] = _flat(node, f"{whole}.")
            nodes |= inner
            edges += between
        else:
            nodes[whole], begins[name], ends[name] = node, [whole], [whole]
    for a, b in graph.edges:
        edges += [(end, begin) for end in ends[a] for begin in begins[b]]
    own = {name: node for name, node in graph.nodes.items() if not isinstance(node, nir.NIRGraph)}
    inputs = [prefix + str(name) for name, node in own.items() if isinstance(node, nir.Input)]
    outputs = [prefix + str(name) for name, node in own.items() if isinstance(node, nir.Output)]
    return nodes, list(dict.fromkeys(edges)), inputs, outputs


def _chain(graph) -> list[_Part]:
    """Return the nodes of a graph in their order, those on a way back to a neuron with it.

    Raises:
        TypeError: if a node is of a kind that there is no module for.
        ValueError: if they do not follow one after the other.
    """
    nir = _nir()
    nodes, edges, inputs, outputs = _flat(graph)
    for name in [n for n, node in nodes.items() if isinstance(node, (nir.Input, nir.Output))]:
        if name in inputs or name in outputs:
            continue
        before, after = [a for a, b in edges if b == name], [b for a, b in edges if a == name]
        edges = [edge for edge in edges if name not in edge] + [(a, b) for a in before for b in after]
        del nodes[name]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"graph: expected one input and one output, got {len(inputs)} and {len(outputs)}")
    known = (nir.CubaLIF, nir.CubaLI, nir.Linear, nir.Affine, nir.Delay, nir.Input, nir.Output)
    for name, node in nodes.items():
        if not isinstance(node, known):
            raise TypeError(f"graph: expected {KNOWN}, got {type(node).__name__} as node {name!r}")
    ways = _ways_back(nodes, edges)
    aside = {name for found in ways.values() for way in found for name in way}
    edges = [(a, b) for a, b in edges if a not in aside and b not in aside and a != b]
    chain: list[_Part] = []
    name, left = inputs[0], set(nodes) - aside - {inputs[0]}
    while name != outputs[0]:
        after = [b for a, b in edges if a == name]
        if len(after) != 1 or after[0] not in left:
            raise ValueError(f"graph: expected one node to follow {name!r}, got {', '.join(after) or 'none'}")
        before = [a for a, b in edges if b == after[0]]
        if len(before) != 1:
            raise ValueError(f"graph: expected one node before {after[0]!r}, got {', '.join(before)}")
        name = after[0]
        left.remove(name)
        if name != outputs[0]:
            chain.append(_with_way_back(name, nodes, ways.get(name, [])))
    if left:
        raise ValueError(f"graph: expected nodes between input and output, got {', '.join(sorted(left))} apart")
    return chain


def _ways_back(nodes: dict[str, Any], edges: list[tuple[str, str]]) -> dict[str, list[list[str]]]:
    """Return for each `CubaLIF` the nodes of every way from it to itself that leads nowhere else."""
    nir = _nir()
    found: dict[str, list[list[str]]] = {}
    for neuron in [name for name, node in nodes.items() if isinstance(node, nir.CubaLIF)]:
        for name in [b for a, b in edges if a == neuron]:
            way: list[str] = []
            while name != neuron and len(way) < len(nodes):
                after, before = [b for a, b in edges if a == name], [a for a, b in edges if b == name]
                if len(after) != 1 or len(before) != 1:
                    break
                way.append(name)
                name = after[0]
            if name == neuron:
                found.setdefault(neuron, []).append(way)
    return found


def _with_way_back(name: str, nodes: dict[str, Any], loops: list[list[str]]) -> _Part:
    nir, node = _nir(), nodes[name]
    if not loops:
        return _Part(name, node)
    way = [nodes[n] for n in loops[0]]
    delays = [n for n in way if isinstance(n, nir.Delay)]
    weights = [n for n in way if isinstance(n, (nir.Linear, nir.Affine))]
    if len(loops) > 1 or len(weights) != 1 or len(delays) > 1 or (delays and way[0] is not delays[0]):
        expected = "one way back, by a Linear and before it at most a Delay"
        raise ValueError(f"graph: expected {expected}, got {loops} at {name!r}")
    if np.any(getattr(weights[0], "bias", 0) != 0):
        raise ValueError(f"graph: expected recurrent weights without a bias, got one at {name!r}")
    return _Part(name, node, weights[0], delays[0] if delays else None)


def _rates(node) -> dict[str, np.ndarray]:
    """Return the inverse time constants, those from the metadata if they belong to the time constants."""
    found = {}
    for rate, time in RATES.items():
        tau, exact = np.asarray(getattr(node, time)), np.asarray(node.metadata.get(rate, np.nan))
        belongs = exact.shape == tau.shape and exact.dtype == tau.dtype
        if not (np.isfinite(tau) & (tau > 0)).all():
            raise ValueError(f"{time}: expected positive, finite times in s, got {tau.min():g}")
        if belongs and np.array_equal((1 / exact.astype(np.float64)).astype(tau.dtype), tau):
            found[rate] = exact
        else:
            check_seconds(time, "time constant", float(np.median(tau)), " The times of a graph are in s")
            found[rate] = 1 / tau
    return found


def _scale(node, dt: float) -> np.ndarray | None:
    """Return what a weight of 1 adds to a current, or None for 1."""
    standard = node.tau_syn / np.asarray(node.tau_syn).dtype.type(dt)
    given = np.asarray(node.w_in) * np.asarray(node.r)
    return None if np.array_equal(given, standard) else given / standard


class _Builder:
    """What `from_nir` makes of the nodes, one after the other."""

    def __init__(self, dt: float, learned: Collection[str], gradient: Gradient | None, dtype: torch.dtype) -> None:
        self.dt, self.learned, self.gradient, self.dtype = dt, learned, gradient, dtype
        self.modules: OrderedDict[str, nn.Module] = OrderedDict()
        self.weights: tuple[str, np.ndarray, np.ndarray | None] | None = None  # of a Linear that is not yet a module

    def value(self, name: str, array: np.ndarray) -> Any:
        tensor = torch.from_numpy(np.array(array)).to(self.dtype)
        return Learned(tensor) if name in self.learned else tensor

    def add(self, name: str, module: nn.Module) -> None:
        given = name.replace(".", "_")
        if given in self.modules:
            raise ValueError(f"{name}: expected names of nodes that differ in more than dots, got {given} twice")
        self.modules[given] = module

    def flush(self) -> None:
        """Make a module of the weights that wait."""
        if self.weights is None:
            return
        name, weight, bias = self.weights
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=self.dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.array(weight)))
            if bias is not None:
                linear.bias.copy_(torch.from_numpy(np.array(bias)))
        self.add(name, linear)
        self.weights = None

    def linear(self, part: _Part) -> None:
        self.flush()
        if np.ndim(part.node.weight) != 2:
            raise ValueError(f"{part.name}: expected weights of shape (O, I), got {np.shape(part.node.weight)}")
        self.weights = part.name, part.node.weight, getattr(part.node, "bias", None)

    def delay(self, part: _Part) -> None:
        self.flush()
        delays = self.value("delay", self._delays(part.node, 0.0))
        size = np.size(part.node.delay)
        longest = self._longest(part.node.delay) if "delay" in self.learned else None
        self.add(part.name, Delay(delays, max_delay=longest, size=size, dt=self.dt, dtype=self.dtype))

    def _longest(self, delays) -> float:
        """Return how long delays may become that are learned."""
        longest = float(np.max(delays))
        return max(longest, min(2 * longest + self.dt, LONGEST))

    def _delays(self, node, more: float) -> np.ndarray:
        delay, exact = np.asarray(node.delay), np.asarray(node.metadata.get("delay", np.nan))
        if exact.dtype == delay.dtype and np.array_equal(np.maximum(exact - delay.dtype.type(more), 0), delay):
            return exact
        return delay + delay.dtype.type(more)

    def neurons(self, part: _Part) -> None:
        nir, node = _nir(), part.node
        spiking = isinstance(node, nir.CubaLIF)
        if np.ndim(node.v_leak) > 1:
            raise ValueError(f"{part.name}: expected a population with one axis, got shape {np.shape(node.v_leak)}")
        values = _rates(node) | {
            name: np.asarray(getattr(node, theirs))
            for name, theirs in NAMES.items()
            if name in (LIFParameters if spiking else LIParameters).neuron_fields
        }
        p = (LIFParameters if spiking else LIParameters)(**{n: self.value(n, v) for n, v in values.items()})
        scale = _scale(node, self.dt)
        if part.back is not None:
            return self._recurrent(part, p, scale)
        if scale is not None:
            if self.weights is None and np.ndim(scale) == 0:
                raise ValueError(f"{part.name}: expected w_in per neuron, got one number and no weights before it")
            name, weight, bias = self.weights or (f"{part.name}_input", np.eye(len(scale), dtype=scale.dtype), None)
            column = np.reshape(scale, (-1, 1)) if np.ndim(scale) else scale
            self.weights = name, column * weight, None if bias is None else scale * bias
        self.flush()
        size = np.size(node.v_leak) if np.ndim(node.v_leak) else None
        how: dict[str, Any] = {"size": size, "dt": self.dt, "dtype": self.dtype}
        self.add(part.name, LIF(p, gradient=self.gradient, **how) if spiking else LI(p, **how))

    def _recurrent(self, part: _Part, p, scale: np.ndarray | None) -> None:
        back = np.asarray(part.back.weight)
        if self.weights is not None and self.weights[2] is None:
            (_, weight, _), self.weights = self.weights, None
        else:
            self.flush()
            weight = np.eye(len(back), dtype=back.dtype)
        if scale is not None:
            column = np.reshape(scale, (-1, 1)) if np.ndim(scale) else scale
            weight, back = column * weight, column * back
        autapses = bool(part.back.metadata.get("autapses", False)) or bool(np.diagonal(back).any())
        how: dict[str, Any] = {"autapses": autapses, "dt": self.dt, "gradient": self.gradient, "dtype": self.dtype}
        how["input_weights"], how["recurrent_weights"] = (torch.from_numpy(np.array(w)) for w in (weight, back))
        if part.delay is None:
            self.add(part.name, LIFRecurrent(weight.shape[1], len(back), p, **how))
            return
        delays = self._delays(part.delay, self.dt)
        if "delay" in self.learned:
            how["max_delay"] = self._longest(delays)
        layer = DelayedRecurrentLayer(weight.shape[1], len(back), p, delay=self.value("delay", delays), **how)
        self.add(part.name, layer)


def from_nir(
    graph: Any,
    *,
    dt: float | None = None,
    learned: Collection[str] = (),
    gradient: Gradient | None = None,
    dtype: torch.dtype | None = None,
) -> Sequential:
    """Return a network from a graph of NIR.

    Args:
        graph: a `nir.NIRGraph`, or the name of a file that `nir.read` reads. Its nodes follow one after the other; a
            `CubaLIF` may have one way back to itself, by a `Linear` and before that a `Delay`. Graphs within are taken
            apart.
        dt: time step in s; None for the one that the graph's metadata say.
        learned: neuron parameters that are to be learned, one value per neuron, such as `("tau_mem", "v_th")`, and
            "delay". All others are fixed. Under a constraint a value is exact but for rounding.
        gradient: of the spikes, as in `LIF`.
        dtype: floating-point type; None for that of the graph, where types differ the widest.

    Returns:
        Layers of whole sequences, by the names of the nodes.

    Raises:
        ImportError: if the package `nir` is not installed.
        TypeError: if the graph is none, or has a node of another kind; the message names it.
        ValueError: if nodes have branches, several inputs or outputs, or values that are invalid at the time step.
    """
    nir = _nir()
    if not isinstance(graph, nir.NIRGraph):
        if isinstance(graph, nir.NIRNode) or (not isinstance(graph, str) and not hasattr(graph, "__fspath__")):
            raise TypeError(f"graph: expected a nir.NIRGraph or the name of a file, got {type(graph).__name__}")
        graph = nir.read(graph)
    chain = _chain(graph)
    known = (*LIFParameters.neuron_fields, *LIFParameters.times, "delay")
    if isinstance(learned, str) or any(name not in known for name in learned):
        raise ValueError(f"learned: expected names out of {', '.join(known)}, got {learned!r}")
    if dt is None:
        steps = {float(part.node.metadata["dt"]) for part in chain if "dt" in part.node.metadata}
        if len(steps) != 1:
            said = "none" if not steps else f"{len(steps)} of them"
            raise ValueError(f"dt: expected the time step in s, because the graph says {said}, got None")
        (dt,) = steps
    arrays = [value for part in chain for value in vars(part.node).values() if isinstance(value, np.ndarray)]
    types = {array.dtype for array in arrays if array.dtype.kind == "f"}
    if dtype is None:
        dtype = torch.from_numpy(np.empty(0, np.result_type(*types) if types else np.float32)).dtype
    learned = [LIFParameters.times.get(name, name) for name in learned]  # one learns the inverse
    builder = _Builder(check_dt(dt), learned, gradient, dtype)
    for part in chain:
        if isinstance(part.node, (nir.Linear, nir.Affine)):
            builder.linear(part)
        elif isinstance(part.node, nir.Delay):
            builder.delay(part)
        else:
            builder.neurons(part)
    builder.flush()
    return Sequential(builder.modules)
