r"""Where a gradient pushes a neuron parameter, and whether the loss falls there.

All neurons' time constants (or thresholds) are multiplied by one factor :math:`e^\delta`, and the derivative of the
loss by :math:`\delta` is taken in several ways: by the surrogate, by the exact gradient of the adjoint method,
and as a finite difference of the loss itself. Averaged over a data set that loss still has steps, where a spike
comes or goes, so its difference needs a step: it says what a change of that size does. Since a change of
a time constant also changes how many spikes there are, each derivative is also taken with the rate held, by
scaling all input weights of the layer. Explained in chapter 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from snnparams import kernels
from snnparams.data.task import Task
from snnparams.experiments.designs import DETACH, DT, LEARNABLE
from snnparams.experiments.networks import Network, SpikingLayer
from snnparams.experiments.trial import Training, loss_of, network_of, one_thread, train
from snnparams.kernels import adjoint
from snnparams.neurons import LIFParameters
from snnparams.neurons.dynamics import LIFFeedForwardState, LIFState

TIMES = LIFParameters.times  # names of time constants, and of the rates whose inverse they are
STEPS = (0.02, 0.05, 0.1, 0.2)  # of the logarithm of the parameter
WEIGHTS = "weights"
SHIFTS = (*LEARNABLE, WEIGHTS)


def _scaled(layer: SpikingLayer, spikes: torch.Tensor, shift: Mapping[str, torch.Tensor], exact: bool) -> torch.Tensor:
    """Return the spikes of a layer whose parameters are multiplied by the exponentials of some shifts."""
    p, changed = layer.p.values(), {}
    for name, delta in shift.items():
        if name in TIMES:
            changed[TIMES[name]] = getattr(p, TIMES[name]) * torch.exp(-delta)
        elif name != WEIGHTS:
            changed[name] = getattr(p, name) * torch.exp(delta)
    factor = torch.exp(shift[WEIGHTS]) if WEIGHTS in shift else 1.0
    p, currents = p._replace(**changed), spikes @ (factor * layer.weights).T
    back = factor * layer.recurrent_weights if layer.recurrent else None
    kind: Any = LIFState if layer.recurrent else LIFFeedForwardState
    start = kind(*torch.zeros(len(kind._fields), *currents.shape[1:]))
    if not exact:
        return kernels.sequence(LIFParameters, currents, start, p, DT, DETACH, recurrent_weights=back)[0]
    if back is None:
        return adjoint.lif(currents, start, p, DT)[0]
    return adjoint.lif_recurrent(currents, start, back, p, DT)[0]


def _means(network: Network, task: Task, shift: Mapping[str, torch.Tensor], exact: bool = False, batch_size: int = 500):
    """Yield loss and rate of each batch of the training split, weighted by its share: their sums are the means."""
    split = task.train
    for inputs, labels in zip(split.inputs.split(batch_size), split.labels.split(batch_size), strict=True):
        z, rates = task.encode(inputs).to_dense(), []
        for layer in network.spiking_layers():
            z = _scaled(layer, z, shift, exact)
            rates.append(z.mean())
        share = len(labels) / len(split.labels)
        yield share * loss_of(task, network.decode(z), labels), share * torch.stack(rates).mean()


def derivatives(network: Network, task: Task, exact: bool = False) -> dict[str, dict[str, float]]:
    """Return the derivatives of mean loss and mean rate by a common shift of the logarithm of each parameter.

    Args:
        network: with the standard reset.
        task: the means are those over its training split.
        exact: by the adjoint method instead of by the surrogate. It has no derivative of the rate: how many
            spikes there are has none.

    Returns:
        `loss` and `rate`, each with "tau_mem", "tau_syn", "v_th" and "weights" (input and recurrent ones). A positive
        derivative of the loss means that gradient descent makes the parameter smaller.

    Raises:
        ValueError: if a layer has another reset, or thresholds that adapt.
    """
    _check_reset(network)
    totals = {"loss": torch.zeros(len(SHIFTS)), "rate": torch.zeros(len(SHIFTS))}
    shift = {name: torch.zeros((), requires_grad=True) for name in SHIFTS}
    for pair in _means(network, task, shift, exact):
        for name, value in zip(totals, pair, strict=True):
            totals[name] += torch.stack(torch.autograd.grad(value, list(shift.values()), retain_graph=name == "loss"))
    return {name: dict(zip(SHIFTS, total.tolist(), strict=True)) for name, total in totals.items()}


@torch.no_grad()
def differences(network: Network, task: Task, step: float) -> dict[str, dict[str, float]]:
    """Return the same as `derivatives`, as central differences of mean loss and mean rate themselves.

    Args:
        network: with the standard reset.
        task: the means are those over its training split.
        step: change of the logarithm to either side.

    Raises:
        ValueError: if a layer has another reset or thresholds that adapt, or the step is not positive, or so large that
            a time constant would be no longer than a time step.
    """
    _check_reset(network)
    shortest = min(
        1 / (DT * getattr(layer.p, rate)).max().item() for layer in network.layers for rate in TIMES.values()
    )
    if not 0 < step < torch.tensor(shortest).log().item():
        raise ValueError(f"step: expected a positive number below the logarithm of {shortest:.3g} steps, got {step}")
    found: dict[str, dict[str, float]] = {"loss": {}, "rate": {}}
    for name in SHIFTS:
        ends = []
        for sign in (1, -1):
            pairs = list(_means(network, task, {name: torch.tensor(sign * step)}))
            ends.append([sum(value.item() for value in column) for column in zip(*pairs, strict=True)])
        for measure, high, low in zip(found, *ends, strict=True):
            found[measure][name] = (high - low) / (2 * step)
    return found


def rate_held(found: dict[str, dict[str, float]]) -> dict[str, float]:
    r"""Return derivatives of the loss along which the rate stays: the weights make up for what a parameter does to it.

    .. math:: \frac{\partial L}{\partial \delta} - \frac{\partial r / \partial \delta}{\partial r / \partial w}
              \frac{\partial L}{\partial w}

    Args:
        found: what `derivatives` or `differences` returns.

    Raises:
        ValueError: if the rate does not depend on the weights.
    """
    loss, rate = found["loss"], found["rate"]
    if rate[WEIGHTS] == 0:
        raise ValueError("rate: expected one that depends on the weights, got a derivative of 0")
    return {name: loss[name] - rate[name] / rate[WEIGHTS] * loss[WEIGHTS] for name in LEARNABLE}


def _check_reset(network: Network) -> None:
    if any(layer.p.neuron is not LIFParameters for layer in network.spiking_layers()):
        raise ValueError("network: expected layers with the standard reset and fixed thresholds, got one with others")


def run_drift(cell: dict) -> dict:
    """Return where the gradients of a network push, before and after training.

    Args:
        cell: as that of `snnparams.experiments.trial.run_trial`.

    Returns:
        Derivatives of the loss by name, such as "tau_mem, surrogate, initial": of each parameter, by the
        surrogate, the exact gradient and differences with each of `STEPS`, before and after training; all but the exact
        ones also with the rate held.
    """
    found: dict[str, float] = {}

    def record(method: str, when: str, values: dict) -> None:
        loss = values["loss"]
        found.update({f"{name}, {method}, {when}": loss[name] for name in LEARNABLE})
        if method != "exact":
            held = rate_held(values)
            found.update({f"{name}, {method}, {when}, rate held": held[name] for name in LEARNABLE})

    with one_thread():
        network, task = network_of(cell)
        for when in ("initial", "trained"):
            if when == "trained":
                train(network, task, Training(**cell["training"]), cell["seed"])
            record("surrogate", when, derivatives(network, task))
            record("exact", when, derivatives(network, task, exact=True))
            for step in STEPS:
                record(f"difference {step:g}", when, differences(network, task, step))
    return found
