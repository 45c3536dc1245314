"""What Norse's modules hold, in layers of this package."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from snnparams.layers.cells import LICell, LIFCell, LIFRecurrentCell
from snnparams.layers.layer import LI, LIF, LIFRecurrent
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.layers.population import Recurrent
from snnparams.layers.sequential import OverTime, Sequential
from snnparams.neurons import LIFParameters, LIParameters, Neuron

FROM_NORSE = {
    "LIF": LIF,
    "LIFCell": LIFCell,
    "LIFRecurrent": LIFRecurrent,
    "LIFRecurrentCell": LIFRecurrentCell,
    "LI": LI,
    "LICell": LICell,
}


def _of_norse(module: Any) -> bool:
    return type(module).__module__.split(".")[0] == "norse"


def _converted(module: Any, name: str) -> nn.Module:
    """Return what does here what a module does in Norse."""
    kind = type(module).__name__
    if not any(_of_norse(part) for part in module.modules()):
        return copy.deepcopy(module)
    if type(module) is nn.Sequential or (_of_norse(module) and kind == "SequentialState"):
        return Sequential(OrderedDict((n, _converted(m, n)) for n, m in module.named_children()))
    if not _of_norse(module):
        raise TypeError(f"{name}: expected Norse's modules in a SequentialState, got them in {kind}")
    if kind == "Lift":
        inner = module.lifted_module
        if not _of_norse(inner):
            return OverTime(copy.deepcopy(inner))
        whole = FROM_NORSE.get(type(inner).__name__.removesuffix("Cell"))
        if whole is None or not type(inner).__name__.endswith("Cell"):
            raise TypeError(f"{name}: expected a cell of LIF or LI neurons in Lift, got {type(inner).__name__}")
        return _neurons_of_norse(inner, whole)
    if kind not in FROM_NORSE:
        raise TypeError(f"{name}: expected one of {', '.join(FROM_NORSE)}, SequentialState or Lift, got {kind}")
    return _neurons_of_norse(module, FROM_NORSE[kind])


def _declaration_of_norse(p: Any) -> Neuron:
    kind, values = type(p), dict[str, Any]()
    declaration: Any = {"LIFParameters": LIFParameters, "LIParameters": LIParameters}.get(kind.__name__)
    if declaration is None:
        got = f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"source: expected Norse's LIFParameters or LIParameters, got {got}")
    for name in declaration.neuron_fields:
        value = torch.as_tensor(getattr(p, name))
        values[name] = nn.Parameter(value.detach().clone()) if value.requires_grad else value.clone()
    if declaration is LIFParameters:
        # Norse's "super" takes no notice of alpha
        values["method"], values["alpha"] = p.method, 1.0 if p.method == "super" else float(p.alpha)
    return declaration(**values)


def _neurons_of_norse(module: Any, kind: type) -> nn.Module:
    p: Any = _declaration_of_norse(module.p)
    how: dict[str, Any] = {"dt": float(module.dt), "dtype": p.tau_mem_inv.dtype}
    sizes: tuple[int, ...] = ()
    if issubclass(kind, Recurrent):
        sizes = int(module.input_size), int(module.hidden_size)
        how |= {"autapses": bool(module.autapses), "dtype": module.input_weights.dtype}
        how |= {name: getattr(module, name).detach().clone() for name in ("input_weights", "recurrent_weights")}
    return kind(*sizes, p, **how)


def from_norse(source: Any, model: nn.Module | None = None) -> Any:
    """Return a network from a module of Norse, or a declaration from one, or load what Norse has saved.

    Args:
        source: a cell or layer of LIF or LI neurons of Norse, a `SequentialState`, or a `Lift`; modules of PyTorch
            within are copied. Or the `state_dict` of one, which holds weights alone: Norse's neuron parameters are no
            part of it. Or Norse's `LIFParameters` or `LIParameters`.
        model: for a `state_dict`, the module that takes it, with the modules of Norse's in their order; else None.

    Returns:
        A network with the same numbers, gradients and spikes; a neuron parameter that Norse learns is an `nn.Parameter`
        here, without a constraint. Or `model`, with the weights. Or a declaration with the same values.

    Raises:
        TypeError: if a module or declaration is one that there is none for here; the message names it.
        ValueError: if a `state_dict` has other names than the weights of the model.
    """
    if isinstance(source, nn.Module):
        if model is not None:
            raise ValueError("model: expected None for a module of Norse, got one")
        if not any(_of_norse(part) for part in source.modules()):
            raise TypeError(f"source: expected a module of Norse, got {type(source).__name__}")
        return _converted(source, type(source).__name__)
    if _of_norse(source) and isinstance(source, tuple) and model is None:
        return _declaration_of_norse(source)
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
