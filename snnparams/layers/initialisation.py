r"""Initial weights that let neurons spike at a useful rate, whatever their time constants.

With weights that are too small a deep spiking network is silent and learns nothing; with large ones it hardly stops.
Fluctuation-driven initialisation lets each voltage vary around the leak voltage by as much as the threshold asks for.

J. Rossbroich, J. Gygax and F. Zenke (2022), "Fluctuation-driven initialization for spiking neural network training",
Neuromorphic Computing and Engineering 2, 044016.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.layers.population import Population, Recurrent
from snnparams.neurons import LIFParameters
from snnparams.parameters.settings import check_dt, is_number


class RateError(RuntimeError):
    """No scale of the weights gives the wanted rate."""


def voltage_variance(tau_mem: torch.Tensor, tau_syn: torch.Tensor) -> torch.Tensor:
    r"""Return the sum of the squares of what one unit of input current does to the voltage, over all later steps.

    With :math:`p = 1 - 1/\tau_\mathrm{mem}` and :math:`q = 1 - 1/\tau_\mathrm{syn}` that is

    .. math:: \frac{(1 - p)^2 (1 + p q)}{(1 - p^2) (1 - q^2) (1 - p q)},

    the variance of the voltage, without threshold, when independent spikes of variance 1 arrive. In fluctuation-driven
    initialization, the integral of the squared response to a spike has this place.

    Divide a neuron's initial weights by its root, and all voltages vary alike, whatever the time constants.

    Args:
        tau_mem: in time steps, at least 1.
        tau_syn: likewise, of a shape that fits.

    Raises:
        ValueError: if a time constant is shorter than a step, or none.
    """
    for name, tau in (("tau_mem", tau_mem), ("tau_syn", tau_syn)):
        if not (torch.as_tensor(tau) >= 1).all():
            raise ValueError(f"{name}: expected at least one time step, got {torch.as_tensor(tau).min().item():g}")
    p, q = 1 - 1 / tau_mem, 1 - 1 / tau_syn
    return (1 - p) ** 2 * (1 + p * q) / ((1 - p**2) * (1 - q**2) * (1 - p * q))


def _parameters_of(neurons: Any) -> NeuronParameters:
    p = neurons.p if isinstance(neurons, Population) else neurons
    if not isinstance(p, NeuronParameters):
        raise TypeError(f"neurons: expected a cell, a layer or its p, got {type(neurons).__name__}")
    known, kind = LIFParameters, p.neuron
    if any(getattr(kind, part) != getattr(known, part) for part in ("step", "constants", "receives", "state")):
        raise TypeError(f"neurons: expected LIF neurons, whose voltage has a known variance, got {kind.__name__}")
    return p


@torch.no_grad()
def fluctuation_driven_(
    weights: torch.Tensor,
    neurons: Population | NeuronParameters,
    rate: float,
    *,
    std: float = 1.0,
    share: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Draw the weights of LIF neurons so that their voltages vary by a wanted amount, in place.

    All weights are normal with mean 0; for neuron :math:`j` of :math:`n` inputs that spike by chance, independently and
    with probability :math:`r` per step, their variance is

    .. math:: \sigma_j^2 = \frac{s \, c^2 \, (v_{\mathrm{th},j} - v_{\mathrm{leak},j})^2}{n \, r (1 - r) \, S_j}

    with the `share` :math:`s`, the `std` :math:`c` and :math:`S_j` as in `voltage_variance`. Then, without threshold,
    the voltage has over time the standard deviation :math:`\sqrt s \, c \, (v_\mathrm{th} - v_\mathrm{leak})`, in the
    root mean square over neurons of equal parameters, and in their mean the leak voltage.

    For a recurrent layer, share the variance out: `fluctuation_driven_(layer.input_weights, layer, rate, share=0.8)`
    and `fluctuation_driven_(layer.recurrent_weights, layer, own_rate, share=0.2)`. Where a network has to spike at a
    given rate, let `reach_rate_` scale the weights afterwards.

    Args:
        weights: shape (H, I), of a `Linear` in front of a layer or of a recurrent layer itself; or of a convolution,
            (C, ...), in front of a layer with one value per channel.
        neurons: the cell or layer that these weights reach, or its `p`.
        rate: of each input, in 1/s: positive, below one spike per step.
        std: standard deviation of the voltage, in units of the distance from leak to threshold: positive. The threshold
            then lies :math:`1/c` standard deviations above the mean; that number is :math:`\xi` in the paper.
        share: part of the variance that these weights bring, more than 0 and at most 1.
        generator: of the random numbers, on the device of the weights; the global one if None.

    Returns:
        The weights. Those of a neuron with itself are zero where the layer has no autapses.

    Raises:
        ValueError: if a number is out of range, a threshold is not above the leak voltage, or shapes do not fit.
        TypeError: if the neurons are none, or of another kind than LIF.
    """
    p = _parameters_of(neurons)
    for name, value, most in (("rate", rate, 1 / p.dt), ("std", std, math.inf), ("share", share, math.nextafter(1, 2))):
        if not (is_number(value) and 0 < value < most):
            limit = "at most 1" if name == "share" else f"below {most:g}"
            raise ValueError(f"{name}: expected a number above 0 and {limit}, got {value!r}")
    if not isinstance(weights, torch.Tensor) or weights.dim() < 2:
        got = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise ValueError(f"weights: expected a tensor of shape (H, I), got {got}")
    _check_stored("weights", weights)
    rows, probability = len(weights), float(rate) * p.dt
    tau_mem, tau_syn = (1 / (p.dt * getattr(p, name).double()) for name in ("tau_mem_inv", "tau_syn_inv"))
    distance = (p.v_th - p.v_leak).double()
    if (distance <= 0).any():
        raise ValueError(f"v_th: expected thresholds above the leak voltage, got {distance.min().item():g} above it")
    to_itself = isinstance(neurons, Recurrent) and weights is neurons.recurrent_weights and not neurons.autapses
    inputs = weights[0].numel() - to_itself
    variance = float(share) * (float(std) * distance) ** 2 / (inputs * probability * (1 - probability))
    scale = (variance / voltage_variance(tau_mem, tau_syn)).sqrt()
    if scale.dim() > 1 or scale.numel() not in (1, rows):
        raise ValueError(f"neurons: expected one value, or one for each of {rows} rows, got {tuple(scale.shape)}")
    weights.normal_(generator=generator)
    weights.mul_(scale.to(weights).reshape(-1, *[1] * (weights.dim() - 1)))
    return weights.fill_diagonal_(0) if to_itself else weights


def _check_stored(name: str, weights: torch.Tensor) -> None:
    """Check that weights are stored: what a parametrization computes from others forgets what is written into it.

    Raises:
        ValueError: if they are computed.
    """
    if weights.grad_fn is not None:
        raise ValueError(f"{name}: expected a parameter or a buffer, got a tensor that is computed from others")


@torch.no_grad()
def reach_rate_(
    weights: Iterable[torch.Tensor],
    run: Callable[[], torch.Tensor],
    rate: float,
    *,
    dt: float = 0.001,
    tolerance: float = 0.02,
    most: float = 0.1,
) -> torch.Tensor:
    """Multiply weights by the one number that lets a population spike at a rate, in place, and return its spikes.

    The number is found by bisection. The rate can jump past the wanted one: then the nearest will do, if it is within
    `most`.

    Args:
        weights: all weights that reach the population, or factors of them.
        run: computes the spikes with the present weights on a sample of inputs, for instance `lambda: layer(x)[0]`. It
            has to give the same spikes for the same weights: put dropout into evaluation mode.
        rate: wanted spikes per second and neuron.
        dt: time step in s, that of the layers: `dt=layer.dt`.
        tolerance: share of the rate at which the search ends.
        most: share of the rate that is accepted when it cannot get nearer.

    Returns:
        The spikes.

    Raises:
        RateError: if no such number gives the wanted rate.
        ValueError: if the rate is not above 0 and below one spike per step, there are no weights, or spikes are not
            finite.
        TypeError: if weights or `run` are of another kind, or `run` returns something else than spikes.

    After an error, also one of `run`, the weights are as they were.
    """
    check_dt(dt)
    if not callable(run):
        raise TypeError(f"run: expected a function that computes spikes, got {type(run).__name__}")
    several = isinstance(weights, Iterable) and not isinstance(weights, torch.Tensor)
    listed: list[Any] = list(weights) if several else [None]
    if not all(isinstance(tensor, torch.Tensor) for tensor in listed):
        raise TypeError(f"weights: expected a list of tensors, got {type(weights).__name__}")
    for tensor in listed:
        _check_stored("weights", tensor)
    if not 0 < rate * dt < 1:
        raise ValueError(f"rate: expected a number above 0 and below {1 / dt:g} 1/s, got {rate!r}")
    before = [tensor.clone() for tensor in listed]
    if not before:
        raise ValueError("weights: expected at least one tensor, got none")
    try:
        return _scaled_to(listed, before, run, rate * dt, dt, tolerance, most)
    except BaseException:
        for tensor, start in zip(listed, before, strict=True):
            tensor.copy_(start)
        raise


def _scaled_to(weights, before, run, rate: float, dt: float, tolerance: float, most: float) -> torch.Tensor:
    """Multiply weights by the number that gives a rate in spikes per step, and return the spikes."""

    def scaled(number: float) -> torch.Tensor:
        for tensor, start in zip(weights, before, strict=True):
            tensor.copy_(number * start)
        return run()

    low, high = 2.0**-8, 2.0**8
    reached: dict[float, float] = {}
    for _ in range(40):
        number = math.sqrt(low * high)
        spikes = scaled(number)
        if not isinstance(spikes, torch.Tensor):
            got = type(spikes).__name__
            raise TypeError(f"run: expected it to return spikes, got {got}; of a layer they are layer(x)[0]")
        reached[number] = spikes.mean().item()
        if not math.isfinite(reached[number]):
            raise ValueError(f"run: expected spikes of a finite mean, got {reached[number]}")
        if abs(reached[number] - rate) <= tolerance * rate:
            return spikes
        low, high = (number, high) if reached[number] < rate else (low, number)
    number = min(reached, key=lambda number: abs(reached[number] - rate))
    if abs(reached[number] - rate) > most * rate:
        raise RateError(
            f"rate: expected {rate / dt:g} 1/s within {most:.0%}, got {reached[number] / dt:.4g} 1/s at time steps of "
            f"{dt:g} s"
        )
    return scaled(number)
