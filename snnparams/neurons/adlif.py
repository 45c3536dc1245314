r"""LIF neurons with subthreshold adaptation (adLIF): a current that follows the voltage, and jumps at spikes.

.. math::
    \tau_\mathrm{mem} \dot v = -v + x - w, \qquad \tau_\mathrm{adapt} \dot w = -w + a v ,

with :math:`w \to w + b \, (1 - e^{-\Delta t / \tau_\mathrm{adapt}})` and :math:`v \to 0` at a spike. Voltage and
current pull at each other: the neuron can oscillate. Two discretisations, with exact decays
:math:`p = e^{-\Delta t/\tau_\mathrm{mem}}` and :math:`\rho = e^{-\Delta t/\tau_\mathrm{adapt}}`:

.. math::
    \begin{aligned}
    v_t &= p\, v_{t-1} + (1 - p) (x_t - w_{t-1}) \\
    w_t &= \rho\, w_{t-1} + (1 - \rho) (a v_\ast + b z_t)
    \end{aligned}

- `SEAdLIF`, symplectic Euler, takes the new voltage, :math:`v_\ast = v_t` after the reset. Without input and spikes its
  matrix has the determinant :math:`p \rho < 1`, whatever :math:`a`, but not whatever trace: it is stable for
  :math:`-1 < a < (1 + p)(1 + \rho) / ((1 - p)(1 - \rho)) \approx 4 \tau_\mathrm{mem} \tau_\mathrm{adapt} / \Delta t^2`.
- `EFAdLIF`, forward Euler, takes the old one, :math:`v_\ast = v_{t-1}`. It is stable only for
  :math:`-1 < a < (1 - p \rho) / ((1 - p)(1 - \rho)) \approx (\tau_\mathrm{mem} + \tau_\mathrm{adapt}) / \Delta t`, and
  beyond explodes, although the equations do not.

Explained in chapter 8.

References:
    M. Baronig, R. Ferrand, S. Sabathiel and R. Legenstein (2025), "Advancing spatio-temporal processing through
    adaptation in spiking neural networks", Nature Communications 16. Its :math:`a` and :math:`b` are 0 to 1 and 0 to 2
    times a factor of 120, its :math:`\tau_\mathrm{mem}` 5 to 25 ms and its :math:`\tau_\mathrm{adapt}` 60 to 300 ms;
    defaults here are the middles. Its forward form also takes the spike of the step before.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch

from snnparams.neurons.neuron import Neuron, Value
from snnparams.parameters.parameter import rate, voltage


class SEAdLIF(Neuron):
    r"""Parameters of a LIF neuron with subthreshold adaptation, in the form that stays stable longer (SE-adLIF).

    Args:
        tau_mem_inv: inverse membrane time constant in 1/s, positive; any is valid.
        tau_adapt_inv: inverse time constant of the adaptation current in 1/s, positive; any is valid.
        v_th: threshold voltage, dimensionless.
        a: current per voltage, dimensionless, above -1: below, the neuron runs away. 0 to 120 in the source. At 0 only
            spikes adapt it; learned it is positive, unless another constraint is chosen.
        b: current that each spike adds, times :math:`1 - \rho`, dimensionless. 0 to 240 in the source. Learned it is
            positive, unless another constraint is chosen.
        method: as in `snnparams.LIFParameters`.
        alpha: likewise.
        tau_mem: membrane time constant in s, longer than a time step, in place of `tau_mem_inv`.
        tau_adapt: that of the adaptation current in s, longer than a time step, in place of `tau_adapt_inv`.

    Input goes into the membrane directly, without a synapse. What each may be given as, and errors are those of
    `snnparams.LIFParameters`.
    """

    state = ("v", "w")

    tau_mem_inv: Value = rate(default=1 / 15e-3, time="tau_mem", most_per_step=math.inf)
    tau_adapt_inv: Value = rate(default=1 / 180e-3, time="tau_adapt", most_per_step=math.inf)
    v_th: Value = voltage(default=1.0)
    a: Value = voltage(default=60.0, low=-1.0, constraint="log")
    b: Value = voltage(default=120.0, constraint="log")
    if TYPE_CHECKING:  # what a class of neurons gets by itself
        method: str | None = None
        alpha: float | None = None
        tau_mem: Value | None = dataclasses.field(default=None, kw_only=True)  # s
        tau_adapt: Value | None = dataclasses.field(default=None, kw_only=True)  # s

    @staticmethod
    def constants(dt, tau_mem_inv, tau_adapt_inv):
        """Return the shares of the way to their targets that voltage and adaptation current go in one step."""
        return {"of_v": -torch.expm1(-dt * tau_mem_inv), "of_w": -torch.expm1(-dt * tau_adapt_inv)}

    @staticmethod
    def step(x, v, w, of_v, of_w, v_th, a, b, spike, reset):
        """Take one step in which the adaptation current follows the new voltage."""
        v = v + of_v * ((x - w) - v)
        z = spike(v, v_th)
        v = (1 - reset(z)) * v
        return z, v, w + of_w * (a * v + b * z - w)


class EFAdLIF(SEAdLIF):
    """Parameters of the same neuron in the form that explodes for large `a` (EF-adLIF): those of `SEAdLIF`."""

    @staticmethod
    def step(x, v, w, of_v, of_w, v_th, a, b, spike, reset):
        """Take one step in which the adaptation current follows the old voltage."""
        new = v + of_v * ((x - w) - v)
        z = spike(new, v_th)
        return z, (1 - reset(z)) * new, w + of_w * (a * v + b * z - w)
