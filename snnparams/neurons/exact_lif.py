r"""The LIF neuron integrated exactly: between input and spikes its equations are linear, and their solution is known.

With :math:`p = e^{-\Delta t / \tau_\mathrm{mem}}` and :math:`q = e^{-\Delta t / \tau_\mathrm{syn}}`, and the incoming
current added first as everywhere in this package, one step is

.. math::
    v' = v_\mathrm{leak} + p \, (v - v_\mathrm{leak}) + \frac{q - p}{1 - \tau_\mathrm{mem} / \tau_\mathrm{syn}} \,
    i, \qquad i' = q \, i ,

the solution of the two equations *together* (Rotter and Diesmann 1999; NEST's `iaf_psc_exp`): the current decays while
the membrane integrates it. Every time constant is valid, and values at common times do not depend on the time step.
What some packages use instead, stork for one, :math:`v' = p v + (1 - p) i` and :math:`i' = q i` (exponential Euler),
has exact decays but holds the current through the step: too much charge arrives. Spikes still fall on the grid.
Explained in chapter 1.

References:
    S. Rotter and M. Diesmann (1999), "Exact digital simulation of time-invariant linear systems with applications to
    neuronal modeling", Biological Cybernetics 81, 381-402.
"""

from __future__ import annotations

import math

import torch

from snnparams.neurons.lif import LIFParameters
from snnparams.neurons.neuron import Value
from snnparams.parameters.parameter import rate


def _share_of_decay(x: torch.Tensor) -> torch.Tensor:
    """Return (1 - exp(-x)) / x for x >= 0, 1 at 0, with a derivative that does not lose digits near it."""
    small = x < 0.05
    series = torch.ones_like(x)
    for k in range(9, 1, -1):
        series = 1 - x / k * series
    safe = torch.where(small, 1.0, x)
    return torch.where(small, series, -torch.expm1(-safe) / safe)


class ExactLIF(LIFParameters):
    r"""Parameters of a LIF neuron whose decays are exact: any positive time constant is valid at any time step.

    Args:
        tau_syn_inv: inverse synaptic time constant :math:`1/\tau_\mathrm{syn}` in 1/s, positive.
        tau_mem_inv: inverse membrane time constant :math:`1/\tau_\mathrm{mem}` in 1/s, positive.

    The others, what each may be given as, and errors are those of `snnparams.LIFParameters`. A learned one stays below
    50 over the time step: of what is faster nothing is left after one step.
    """

    tau_syn_inv: Value = rate(default=1 / 5e-3, time="tau_syn", most_per_step=math.inf)
    tau_mem_inv: Value = rate(default=1 / 1e-2, time="tau_mem", most_per_step=math.inf)

    @staticmethod
    def constants(dt, tau_mem_inv, tau_syn_inv):
        """Return the shares that voltage and current lose in one step, and what a current adds to the voltage."""
        membrane, synapse = dt * tau_mem_inv, dt * tau_syn_inv
        slower, apart = torch.minimum(membrane, synapse), (membrane - synapse).abs()
        # (q - p) / (1 - tau_mem / tau_syn), which would be 0 / 0 where both are equal
        c = membrane * torch.exp(-slower) * _share_of_decay(apart)
        return {"a": -torch.expm1(-membrane), "b": -torch.expm1(-synapse), "c": c}

    @staticmethod
    def step(v, i, a, b, c, v_leak, v_th, v_reset, spike, reset):
        """Take one exact step, then compare with the threshold."""
        v = v + a * (v_leak - v) + c * i
        z = spike(v, v_th)
        resets = reset(z)
        return z, (1 - resets) * v + resets * v_reset, i - b * i
