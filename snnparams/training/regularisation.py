"""Terms for a loss that say how much a population may spike. Explained in chapter 6."""

from __future__ import annotations

import math

import torch


def rate_bounds_loss(spikes: torch.Tensor, low: float, high: float, per_neuron: bool = False) -> torch.Tensor:
    r"""Return what a population pays for a mean rate outside two bounds; nothing inside.

    .. math::
        \begin{aligned}
        &\left(\frac{\max(0,\, r - r_\mathrm{high})}{r_\mathrm{high}}\right)^2 \\
        + &\left(\frac{\max(0,\, r_\mathrm{low} - r)}{r_\mathrm{low}}\right)^2
        \end{aligned}

    Relative distances make one strength fit all rates: a population at twice the upper bound pays 1.

    By default :math:`r` is the rate of the whole population, because what two networks shall have in common is how many
    spikes they spend, and not how they divide them among their neurons: a code in which a few neurons do the work
    stays possible. With `per_neuron` every neuron is held between the bounds by itself, and the mean over neurons is
    returned: that keeps neurons from falling silent.

    Args:
        spikes: 0 or 1, shape (T, B, H). Rates are means over time steps and batch.
        low: lower bound, in spikes per neuron and time step; 0 for none.
        high: upper bound, at most 1.
        per_neuron: whether every neuron is held between the bounds, or the population.

    Returns:
        A scalar that is at least 0. Its gradient reaches the neurons by whatever surrogate made the spikes; with the
        adjoint method it is zero, because a count of spikes has no slope.

    Raises:
        ValueError: if the spikes have another number of axes or none at all, or not 0 <= low <= high, 0 < high <= 1.
        TypeError: if the spikes are not of a floating-point type: a gradient could not pass.
    """
    if not (math.isfinite(low) and math.isfinite(high) and 0 <= low <= high <= 1 and high > 0):
        raise ValueError(f"low, high: expected 0 <= low <= high <= 1 and high > 0, got {low} and {high}")
    if not spikes.is_floating_point():
        raise TypeError(f"spikes: expected a floating-point type, got {spikes.dtype}")
    if spikes.dim() != 3 or not spikes.numel():
        raise ValueError(f"spikes: expected shape (T, B, H) and at least one value, got {tuple(spikes.shape)}")
    rates = spikes.mean(dim=(0, 1))
    if not per_neuron:
        rates = rates.mean()
    above = torch.relu(rates - high) / high
    below = torch.relu(low - rates) / low if low else torch.zeros_like(rates)
    return (above.square() + below.square()).mean()
