"""From numbers to spikes. Explained in chapters 1 and 4."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.autograd import forward_ad

from snnparams.kernels import DTYPES, choose, dense_spikes, sparse_spikes
from snnparams.layers.calls import HasParameters
from snnparams.layers.checks import autocast_is_on, check_finite, check_finite_later, check_floating, widened
from snnparams.layers.neuron_parameters import NeuronParameters
from snnparams.neurons import LIFParameters, Neuron, as_given
from snnparams.neurons.surrogate import Gradient, Surrogate, surrogate_of
from snnparams.parameters.declared import check_size, check_value
from snnparams.parameters.settings import check_counts, check_dt, shape_of_population


def _check_options(seq_length: int, layout: torch.layout, surrogate: Surrogate) -> None:
    check_counts(seq_length=seq_length)
    if layout not in (torch.strided, torch.sparse_coo):
        raise ValueError(f"layout: expected torch.strided or torch.sparse_coo, got {layout}")
    if surrogate.graded and layout == torch.sparse_coo:
        raise ValueError(f"layout: expected torch.strided for the graded spikes of {surrogate!r}, got {layout}")


def constant_current_lif_encode(
    input_current: torch.Tensor,
    seq_length: int,
    p: LIFParameters | NeuronParameters | None = None,
    *,
    dt: float = 0.001,
    gradient: Gradient | None = None,
    layout: torch.layout = torch.strided,
) -> torch.Tensor:
    r"""Let each value drive a LIF neuron as a constant current and return that neuron's spikes.

    The neuron has no synapse: :math:`v' = v + \Delta t \, \tau_\mathrm{mem}^{-1} (v_\mathrm{leak} - v + x)`, from
    :math:`v = 0`, as in Norse, whatever the leak voltage. A larger value spikes earlier and more often; a value of at
    most :math:`v_\mathrm{th} - v_\mathrm{leak}` never does, unless a threshold or reset voltage lets it: where 0 or
    :math:`v_\mathrm{reset}` lies above :math:`v_\mathrm{th}`.

    Args:
        input_current: values of any shape.
        seq_length: number of time steps T.
        p: neuron parameters, scalars or of a shape that broadcasts to that of the values, and converted to their
            type and device; `LIFParameters()` if None.
        dt: time step in s.
        gradient: the `Surrogate` of the spikes; None for what `p` says.
        layout: `torch.strided`, or `torch.sparse_coo` for a sparse tensor of the same spikes, for float32 and float64
            on a CPU only. Neurons that can reach their threshold are simulated twice, to count their spikes and to
            write them, and the dense tensor is never made. No gradient flows through it.

    Returns:
        Spikes, shape (T, ...), of the type of the values; under autocast, float32 of values in half precision.

    Raises:
        ValueError: if T is not a positive integer, a value is not finite, the parameters do not fit or are invalid at
            this time step, the spike function is none that the layout can have, or a gradient is required of sparse
            spikes.
        RuntimeError: if a value is not finite on a GPU, raised when the host next waits for it, or under
            `torch.compile`.
        TypeError: if the values are not floating-point numbers, a parameter is to be learned or drawn, or the
            parameters are of another neuron.
    """
    p = as_given(p, LIFParameters)
    check_encodes(p)
    surrogate = surrogate_of(p, gradient)
    _check_options(seq_length, layout, surrogate)
    check_dt(dt)
    x = _checked_input(input_current, layout)
    tau_mem_inv, v_leak, v_th, v_reset = values = _values_for(x, p, dt)
    a = dt * tau_mem_inv
    if layout == torch.sparse_coo:
        return sparse_spikes(x, seq_length, a, v_leak, v_th, v_reset)
    required = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *values))
    required |= forward_ad._current_level >= 0
    if not required and not surrogate.graded and choose(None, x) == "triton":
        return dense_spikes(x, seq_length, a, v_leak, v_th, v_reset)
    v, spikes = torch.zeros_like(x), []
    for _ in range(seq_length):  # a LIF neuron whose current does not decay
        z, v, _ = LIFParameters.step(v, x, a, 0.0, v_leak, v_th, v_reset, lambda v, v_th: surrogate(v - v_th), _same)
        spikes.append(z)
    return torch.stack(spikes)


def _same(z: torch.Tensor) -> torch.Tensor:
    return z


def check_encodes(p) -> None:
    """Check that neuron parameters are of the neuron that encodes: of another one, step and limits are others.

    Raises:
        TypeError: if they are not.
    """
    kind = p.neuron if isinstance(p, NeuronParameters) else type(p)
    if issubclass(kind, Neuron) and kind.program != LIFParameters.program:
        raise TypeError(f"p: expected LIFParameters, whose neuron encodes, got {kind.__name__}, of another step")


def _checked_input(x, layout: torch.layout) -> torch.Tensor:
    """Return values to encode, checked; under autocast, those of half precision as float32."""
    check_floating("input", x)
    if autocast_is_on(x):
        x = widened(x, torch.float32)
    (check_finite_later if x.is_cuda else check_finite)("input", x)
    if layout == torch.sparse_coo and (x.device.type != "cpu" or x.dtype not in DTYPES):
        raise TypeError(
            f"layout: expected float32 or float64 on a CPU for torch.sparse_coo, got {x.dtype} on {x.device}; use "
            "layout=torch.strided"
        )
    return x


def _values_for(x: torch.Tensor, p, dt: float) -> list[torch.Tensor]:
    """Return the parameters that an encoder uses, checked, in the type and on the device of its values."""
    checked = isinstance(p, NeuronParameters) and p.dt == dt  # when it was built; again, a GPU would make the host wait
    values = []
    for name in ("tau_mem_inv", "v_leak", "v_th", "v_reset"):
        value = getattr(p, name)
        if not checked:
            check_value(LIFParameters.parameters[name], value, dt)
        value = torch.as_tensor(value).to(x)
        check_size(name, value, tuple(x.shape))
        values.append(value)
    return values


def threshold_crossings(values: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Let an input spike in the step in which a value crosses its threshold; before the first step the value is 0.

    Args:
        values: shape (T, ...).
        thresholds: shape (K,), positive.

    Returns:
        Spikes, float32, shape (T, ..., 2 K): of the K inputs that tell a rise to the threshold or above it, and of the
        K that tell a fall below it.

    Raises:
        ValueError: if a threshold is not positive.
    """
    if not (thresholds > 0).all():
        raise ValueError(f"thresholds: expected positive values, got {thresholds.tolist()}")
    above = torch.zeros(len(values) + 1, *values.shape[1:], len(thresholds), dtype=torch.int8, device=values.device)
    above[1:] = values[..., None] >= thresholds
    change = above.diff(dim=0)
    return torch.cat([change == 1, change == -1], dim=-1).float()


def integrate_and_fire(rates: torch.Tensor) -> torch.Tensor:
    """Let an input spike whenever the sum of its rates so far reaches the next integer.

    Args:
        rates: spikes per time step, shape (T, ...), from 0 to 1. Float64 sums long sequences without drift.

    Returns:
        Spikes, shape (T, ...), of the type of the rates.

    Raises:
        TypeError: if the rates are no floating-point tensor.
        ValueError: if a rate is below 0 or above 1, which would need more than one spike in a step.
    """
    check_floating("rates", rates)
    if not ((rates >= 0) & (rates <= 1)).all():
        low, high = rates.min().item(), rates.max().item()
        raise ValueError(f"rates: expected 0 to 1 spike per time step, got {low:g} to {high:g}")
    # in half precision a sum of more than some hundred spikes could no longer tell one more
    count = rates.to(torch.promote_types(rates.dtype, torch.float32)).cumsum(dim=0).floor()
    return count.diff(dim=0, prepend=torch.zeros_like(count[:1])).to(rates.dtype)


class ConstantCurrentLIFEncoder(HasParameters):
    """Encode values as the spikes of LIF neurons that they drive, see `constant_current_lif_encode`.

    Args:
        seq_length: number of time steps T.
        p: neuron parameters; defaults as in `LIFParameters`.
        size: number of values, or their shape without the batch, if a parameter is drawn or learned for each of them.
        dt: time step in s.
        gradient: the `Surrogate` of the spikes; None for what `p` says.
        layout: `torch.strided`, or `torch.sparse_coo` for a sparse tensor of the same spikes.

    Called with values of any shape, it returns spikes of shape (T, ...).

    Raises:
        ValueError: if T is not a positive integer, a parameter is invalid, or the spike function is none that the
            layout can have.
        TypeError: if the values are not floating-point numbers, or the parameters are of another neuron.
    """

    as_built: ClassVar[tuple[str, ...]] = (*HasParameters.as_built, "seq_length", "layout")

    def __init__(
        self,
        seq_length: int,
        p: LIFParameters | None = None,
        *,
        size: int | tuple[int, ...] | None = None,
        dt: float = 0.001,
        gradient: Gradient | None = None,
        layout: torch.layout = torch.strided,
    ) -> None:
        super().__init__()
        p = LIFParameters() if p is None else p
        check_encodes(p)
        self.p = NeuronParameters(p, dt=dt, gradient=gradient, size=shape_of_population(size))
        _check_options(seq_length, layout, surrogate_of(self.p))
        self.seq_length, self.layout = seq_length, layout

    def extra_repr(self) -> str:
        """Show the number of time steps and their length."""
        return f"seq_length={self.seq_length}, dt={self.dt}, layout={self.layout}"

    def forward(self, input_currents: torch.Tensor) -> torch.Tensor:
        """Return spikes (T, ...)."""
        return constant_current_lif_encode(input_currents, self.seq_length, self.p, dt=self.dt, layout=self.layout)
