r"""A LIF neuron that learns the slope of its surrogate gradient."""

from __future__ import annotations

from snnparams.neurons.lif import LIFParameters
from snnparams.neurons.neuron import Value
from snnparams.parameters.parameter import voltage


class SlopeLIF(LIFParameters):
    r"""Parameters of a LIF neuron whose spike function has a slope of its own.

    The spike function takes :math:`s \, (v - v_\mathrm{th})`, with a slope :math:`s`. That changes no spike:
    :math:`v > v_\mathrm{th}` if and only if :math:`s \, (v - v_\mathrm{th}) > 0`. It makes the surrogate derivative
    narrower and higher. Like a time constant it can differ between neurons and be learned::

        layer = RecurrentLayer(100, 200, SlopeLIF(slope=Learned(1.0)))

    Its own gradient is that of the surrogate, the derivative of the spike function times :math:`v - v_\mathrm{th}`. It
    multiplies the `alpha` of a surrogate that counts as steepness.

    Args:
        slope: :math:`s`, positive, without unit; learned as its logarithm unless another constraint is chosen.

    The others are those of `LIFParameters`. The adjoint method, which needs no surrogate, is not to be had.
    """

    slope: Value = voltage(default=1.0, low=0.0, constraint="log")

    @staticmethod
    def step(v, i, a, b, v_leak, v_th, v_reset, slope, spike, reset):
        """Take one forward Euler step, then compare with the threshold."""
        v = v + a * ((v_leak - v) + i)
        i = i - b * i
        z = spike(slope * (v - v_th), 0)
        resets = reset(z)
        return z, (1 - resets) * v + resets * v_reset, i
