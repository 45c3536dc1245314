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

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from snnparams.cells import LICell, LIFCell, LIFRecurrentCell
from snnparams.delay import Delay, DelayedRecurrentLayer
from snnparams.layers import LI, LIF, LIFRecurrent
from snnparams.neurons import LIFParameters, LIParameters
from snnparams.parameters import NeuronParameters
from snnparams.population import FeedForward, Population, Recurrent
from snnparams.sequential import OverTime, Sequential
from snnparams.surrogate import Adjoint, Gradient, Surrogate
from snnparams.values import Learned, check_dt

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
        raise ImportError("nir: expected the package, which is not installed; run `pip install nir`") from error
    return nir


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


# --------------------------------------------------------------------------------------------------------- to NIR


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
    sizes = [inputs, *(value.numel() for value in values.values() if value.dim())]
    if isinstance(p.size, tuple):
        sizes.append(int(np.prod(p.size)))
    size = next((n for n in sizes if n is not None), None)
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
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    last, size, steps = "input", None, {}

    def add(kind: str, node) -> str:
        nonlocal last
        name = f"{kind}_{len(nodes)}"
        nodes[name] = node
        edges.append((last, name))
        last = name
        return name

    parts = _parts(model)
    if not parts:
        raise ValueError("model: expected at least one module, got none")
    for part in parts:
        name = type(part).__name__
        if isinstance(part, (Population, Delay)):
            steps[part.dt] = name
        if isinstance(part, nn.Linear):
            add("linear", _weights(part.weight, part.bias))
            size = part.out_features
        elif isinstance(part, Delay):
            shape = (size,) if size is not None else part.p.size or tuple(part.p.delay.shape)
            if not isinstance(shape, tuple) or len(shape) != 1:
                raise ValueError(f"{name}: expected a known number of neurons on one axis; build it with size=...")
            size = shape[0]
            add("delay", _delay(part.p.delay, size))
        elif isinstance(part, Recurrent):
            node, size = _neurons(part, None, name)
            weights = _weights(part.input_weights)
            back = _weights(part.effective_recurrent_weights(), autapses=part.autapses)
            if resistance != "1":
                node.r = node.tau_mem / node.tau_mem.dtype.type(part.dt)
                weights, back = _into_weights(node.r, weights), _into_weights(node.r, back)
            add("linear", weights)
            neurons = add("lif", node)
            if isinstance(part, DelayedRecurrentLayer):
                if part.per_synapse:
                    raise TypeError(f"{name}: expected delays of neurons, which NIR has, got one per synapse")
                add("delay", _delay(part.delays.delay, size, less=part.dt))
            edges.append((add("recurrent", back), neurons))
            last = neurons
        elif isinstance(part, FeedForward):
            node, size = _neurons(part, size, name)
            if resistance != "1":
                node.r = node.tau_mem / node.tau_mem.dtype.type(part.dt)
                if not isinstance(nodes.get(last), (nir.Linear, nir.Affine)):
                    add("linear", nir.Linear(weight=np.eye(size, dtype=node.r.dtype)))
                nodes[last] = _into_weights(node.r, nodes[last])
            add("lif" if part.neuron is LIFParameters else "li", node)
        else:
            raise TypeError(
                f"model: expected cells and layers of LIF and LI neurons, nn.Linear and Delay, got {name}, for which "
                "NIR has nothing"
            )
    if len(steps) > 1:
        raise ValueError(f"model: expected one time step, got {', '.join(f'{dt:g} s' for dt in steps)}")
    add("output", nir.Output(output_type={"output": nodes[last].output_type["output"]}))
    first = next(iter(nodes.values()))
    nodes = {"input": nir.Input(input_type={"input": first.input_type["input"]})} | nodes
    nodes["output"] = nodes.pop(last)
    edges = [(a, "output" if b == last else b) for a, b in edges]
    return nir.NIRGraph(nodes=nodes, edges=edges)


# ------------------------------------------------------------------------------------------------------- from NIR


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
        self.modules[name.replace(".", "_")] = module

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
        longest = 2 * float(np.max(part.node.delay)) + self.dt if "delay" in self.learned else None
        self.add(part.name, Delay(delays, max_delay=longest, size=size, dt=self.dt, dtype=self.dtype))

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
            how["max_delay"] = 2 * float(delays.max()) + self.dt
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
        learned: neuron parameters that are to be learned, one value per neuron, such as `("tau_mem_inv", "v_th")`, and
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
    known = (*LIFParameters.neuron_fields, "delay")
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


# ----------------------------------------------------------------------------------------------------- from Norse

FROM_NORSE = {
    "LIF": LIF,
    "LIFCell": LIFCell,
    "LIFRecurrent": LIFRecurrent,
    "LIFRecurrentCell": LIFRecurrentCell,
    "LI": LI,
    "LICell": LICell,
}


def _of_norse(module: nn.Module) -> bool:
    return type(module).__module__.split(".")[0] == "norse"


def _converted(module: nn.Module, name: str) -> nn.Module:
    """Return what does here what a module does in Norse."""
    kind = type(module).__name__
    if not _of_norse(module):
        if any(_of_norse(part) for part in module.modules()):
            if type(module) is nn.Sequential:
                return Sequential(OrderedDict((n, _converted(m, n)) for n, m in module.named_children()))
            raise TypeError(f"{name}: expected Norse's modules in a SequentialState, got them in {kind}")
        return copy.deepcopy(module)
    if kind == "SequentialState":
        return Sequential(OrderedDict((n, _converted(m, n)) for n, m in module.named_children()))
    if kind == "Lift":
        inner: nn.Module = module.lifted_module  # type: ignore[assignment]
        if not _of_norse(inner):
            return OverTime(copy.deepcopy(inner))
        whole = FROM_NORSE.get(type(inner).__name__.removesuffix("Cell"))
        if whole is None or not type(inner).__name__.endswith("Cell"):
            raise TypeError(f"{name}: expected a cell of LIF or LI neurons in Lift, got {type(inner).__name__}")
        return _neurons_of_norse(inner, whole)
    if kind not in FROM_NORSE:
        raise TypeError(f"{name}: expected one of {', '.join(FROM_NORSE)}, SequentialState or Lift, got {kind}")
    return _neurons_of_norse(module, FROM_NORSE[kind])


def _neurons_of_norse(module: Any, kind: type) -> nn.Module:
    p, values = module.p, dict[str, Any]()
    spiking = issubclass(kind, (LIF, LIFCell, LIFRecurrent, LIFRecurrentCell))
    declaration = LIFParameters if spiking else LIParameters
    for name in declaration.neuron_fields:
        value = torch.as_tensor(getattr(p, name))
        values[name] = nn.Parameter(value.detach().clone()) if value.requires_grad else value.clone()
    how: dict[str, Any] = {"dt": float(module.dt), "dtype": next(iter(values.values())).dtype}
    sizes: tuple[int, ...] = ()
    if spiking:
        # Norse's "super" takes no notice of alpha
        alpha = 1.0 if p.method == "super" else float(p.alpha)
        how["gradient"] = Adjoint() if p.method == "adjoint" else Surrogate(p.method, alpha)
    if issubclass(kind, Recurrent):
        sizes = int(module.input_size), int(module.hidden_size)
        how |= {"autapses": bool(module.autapses), "dtype": module.input_weights.dtype}
        how |= {name: getattr(module, name).detach().clone() for name in ("input_weights", "recurrent_weights")}
    return kind(*sizes, declaration(**values), **how)


def from_norse(source: nn.Module | Mapping[str, torch.Tensor], model: nn.Module | None = None) -> nn.Module:
    """Return a network from a module of Norse, or load what Norse has saved.

    Args:
        source: a cell or layer of LIF or LI neurons of Norse, a `SequentialState`, or a `Lift`; modules of PyTorch
            within are copied. Or the `state_dict` of one, which holds weights alone: Norse's neuron parameters are no
            part of it.
        model: for a `state_dict`, the module that takes it, with the modules of Norse's in their order; else None.

    Returns:
        A network with the same numbers, gradients and spikes; a neuron parameter that Norse learns is an `nn.Parameter`
        here, without a constraint. Or `model`, with the weights.

    Raises:
        TypeError: if a module is one that there is none for here; the message names it.
        ValueError: if a `state_dict` has other names than the weights of the model.
    """
    if isinstance(source, nn.Module):
        if model is not None:
            raise ValueError("model: expected None for a module of Norse, got one")
        if not any(_of_norse(part) for part in source.modules()):
            raise TypeError(f"source: expected a module of Norse, got {type(source).__name__}")
        return _converted(source, type(source).__name__)
    if not isinstance(source, Mapping) or not isinstance(model, nn.Module):
        got = type(source).__name__ if not isinstance(source, Mapping) else f"a state_dict and {type(model).__name__}"
        raise TypeError(f"source: expected a module of Norse, or a state_dict and a model for it, got {got}")
    parts = [path for path, part in model.named_modules() if isinstance(part, NeuronParameters)]
    own = model.state_dict()
    weights = [key for key in own if not any(key.startswith(f"{path}.") for path in parts)]
    if set(source) != set(weights):
        raise ValueError(f"source: expected {', '.join(weights)}, got {', '.join(source)}")
    model.load_state_dict(own | dict(source))
    return model
