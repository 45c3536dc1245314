r"""Delays: how long a spike travels, one per presynaptic neuron (axonal) or one per synapse, fixed or learned.

A delay :math:`d` in s shifts a signal by :math:`d / \Delta t = k + f` time steps, a whole number and a fraction,
between which is interpolated:

.. math:: y_t = (1 - f) \, x_{t - k} + f \, x_{t - k - 1} .

So a spike that arrives between two steps is shared by them. The derivative by the delay,
:math:`\partial y_t / \partial d = (x_{t - k - 1} - x_{t - k}) / \Delta t`, is that of this function, exactly; at a
whole number of steps, where it has a bend, that to its right.

**What a delay learns from.** This derivative sees the two steps between which a spike arrives and no others. The loss
has to tell it whether later or earlier is better: it does where the spike's effect is smooth over the distance to its
target. A membrane or a leaky integrator behind the delay smooths over its time constants. Further away the loss is
flat, or rough where spikes meet others by chance, and a delay does not move or moves anywhere: filter what is compared
with a time constant of about that distance, and shorten it during training.

**With the adjoint method** the gradient is exact as the step goes to zero. In the notation of chapter 7 a spike of
weight :math:`w` that arrives at :math:`\hat t = t + d` has :math:`G(\hat t) = w \lambda_i(\hat t)`. A delay that is
longer by :math:`\delta d` takes it away there and adds it :math:`\delta d` later, so with the equations of
:math:`\lambda` between spikes

.. math::
    \frac{\partial L}{\partial d} = \sum_{\hat t} \dot G(\hat t)
    = \sum_{\hat t} w \left( b \lambda_i(\hat t) - a \lambda_v(\hat t) \right) ,

the sum over all spikes that pass the delay. On the grid :math:`\dot G \Delta t = G_{t+1} - G_t`, and this is what the
derivative above makes of the gradient :math:`G` that a layer with `gradient=Adjoint()` hands to its input. The spikes
of a layer before the delay get :math:`G` from the time at which they arrive. So nothing has to be added to either
layer.

Theory: dilated convolutions with learnable spacings and linear interpolation, Khalfaoui-Hassani et al. (2023); in
spiking networks, with a Gaussian in its place that narrows during training, Hammouamri et al. (2024); event-based
gradients of delays, Göltz et al. (2025) and Mészáros et al. (2025). Explained in chapter 9.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import nn

from snnparams import kernels
from snnparams.layers.calls import HasState, in_own_type
from snnparams.layers.checks import check_input, check_population, check_state
from snnparams.layers.delay_parameters import DelayParameters, _delayed, _delayed_linear, _longest, _number_of_steps
from snnparams.layers.sequences import Lengths, over_lengths
from snnparams.neurons import Value
from snnparams.parameters.declared import check_size
from snnparams.parameters.settings import check_counts, check_dt, shape_of_population


class DelayState(NamedTuple):
    """State of a delay: what has come in and not all gone out again."""

    x: torch.Tensor  # inputs of the last D steps, oldest first, shape (B, D, ...)


def _batch_first(past: torch.Tensor) -> torch.Tensor:
    """Return the last steps (D, B, ...) as a state keeps them, in memory of its own."""
    return past.transpose(0, 1).clone(memory_format=torch.contiguous_format)


class _Delayed(HasState):
    """What the two modules that delay an input share: their delays, and what they remember."""

    as_built: ClassVar[tuple[str, ...]] = (
        *HasState.as_built,
        "max_delay",
        "remembered",
        "in_features",
        "out_features",
    )
    p: DelayParameters

    def __init__(self, delay: Value, max_delay: float | None, dt: float, size, device, dtype) -> None:
        super().__init__()
        self.max_delay = _longest(delay, max_delay)
        self.p = DelayParameters(
            delay, low=0.0, high=self.max_delay, dt=check_dt(dt), size=size, device=device, dtype=dtype
        )
        self.remembered = _number_of_steps(self.max_delay, self.dt)

    def _check(self, x: torch.Tensor) -> None:
        """Check an input (T, B, ...)."""
        raise NotImplementedError

    def _compute(self, x: torch.Tensor, state: DelayState | None) -> tuple[torch.Tensor, DelayState]:
        """Return the output of an input (T, B, ...), and the new state."""
        raise NotImplementedError

    @in_own_type
    def forward(
        self, input: torch.Tensor, state: DelayState | None = None, lengths: Lengths | None = None
    ) -> tuple[torch.Tensor, DelayState]:
        """Return what arrives at each of T steps, and the state after the last one."""
        if lengths is not None:
            return over_lengths(self._compute, input, state, lengths)
        return self._with_batch(input, state, self._compute)

    def _start(self, x: torch.Tensor, state: DelayState | None) -> tuple[Any, DelayState]:
        """Check the input; return steps and fractions of all delays, and the given state, checked, or the first."""
        self._check(x)
        batch, *population = x.shape[1:]
        shape = batch, self.remembered, *population
        if state is None:
            return self.p.steps(), DelayState(torch.zeros(shape, dtype=x.dtype, device=x.device))
        check_state(state, DelayState, shape, x)
        return self.p.steps(), state

    def _history(self, x: torch.Tensor, state: DelayState) -> tuple[torch.Tensor, DelayState]:
        """Return the last steps and the input, shape (D + T, B, ...), and the new state."""
        history = torch.cat([state.x.transpose(0, 1), x])
        return history, DelayState(_batch_first(history[x.shape[0] :]))


class Delay(_Delayed):
    r"""Axonal delays: the spikes of each presynaptic neuron arrive later by a time of its own, at all its synapses.

    It stands before the input weights of a layer::

        delay = sp.Delay(sp.Learned(sp.distributions.uniform(mean=10e-3, variation=0.5)), max_delay=25e-3, size=700)
        layer = sp.LIFRecurrent(700, 100)
        late, state_of_delay = delay(spikes)
        out, state = layer(late)

    Args:
        delay: delays in s, each from 0 to `max_delay`, one for all neurons or one per neuron, broadcast against the
            input's shape without T and B. A number, a tensor, a distribution, `Learned`, `Fixed` or an `nn.Parameter`,
            as in `LIFParameters`. `Learned` keeps them between 0 and `max_delay` by `constraints.Interval`, which
            reaches neither, unless another constraint is chosen.
        max_delay: longest delay in s that there is room for; None for the largest one given, the end of the
            distribution, or the upper bound of the `Interval`. Needed where delays are learned without one.
        size: number of neurons, or shape of the input without T and B, for delays that are drawn or learned one per
            neuron.
        dt: time step in s.
        device: device of the delays.
        dtype: their floating-point type.

    Called with an input of shape (T, B, ...) and optionally a `DelayState`, it returns the delayed input, of the same
    shape, and the state after the last step; before the first step there was nothing. Without a batch, types of spikes
    and `lengths`: as in `LIF`. `p.delay` are the delays, read and assigned as in `NeuronParameters`. An input in the
    sparse COO layout stays sparse, and costs only its spikes, where no gradient passes and outside of an `Ensemble`;
    else it is made dense.

    **Memory and time.** With :math:`D = \lceil max\_delay / \Delta t \rceil + 1` steps to remember, the state has
    :math:`D B I` numbers and a pass takes :math:`(D + 2 T) B I` more, of which :math:`T B I` are kept for learned
    delays; its time grows with :math:`T B I`, whatever D is. A sparse input of S spikes takes 2 S spikes and the state.

    Raises:
        ValueError: on building, if a delay is negative or longer than `max_delay`, or that or the size is needed and
            not given; on calling, if shapes, batch or device do not fit, or an unconstrained delay has left its range.
        TypeError: if floating-point types differ, or the input is an integer or complex tensor.
    """

    layout = "(T, B, ...)"

    def __init__(
        self,
        delay: Value,
        *,
        max_delay: float | None = None,
        size: int | tuple[int, ...] | None = None,
        dt: float = 0.001,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(delay, max_delay, dt, shape_of_population(size), device, dtype)

    def _population_axes(self) -> int | None:
        if isinstance(self.p.size, tuple):
            return len(self.p.size)
        return 1 if self.p.raw("delay").dim() == 1 else None

    def _check(self, x: torch.Tensor) -> None:
        like = self.p.raw("delay")
        check_input(x, self.layout, like.dtype, like.device, sparse=True)
        check_size("delay", like, tuple(x.shape[2:]))
        check_population((), None, tuple(x.shape[2:]), self.p.size)

    def _compute(self, x: torch.Tensor, state: DelayState | None) -> tuple[torch.Tensor, DelayState]:
        (whole, fraction), state = self._start(x, state)
        if x.is_sparse:
            members = torch._C._functorch.maybe_current_level() is not None  # of an ensemble: those are dense
            if not (members or x.requires_grad or fraction.requires_grad):
                return self._sparse(x, state, whole, fraction)
            x = kernels.dense(x)
        history, new = self._history(x, state)
        return _delayed(history, whole, fraction, x.shape[0], self.remembered), new

    def _sparse(self, x: torch.Tensor, state: DelayState, whole, fraction) -> tuple[torch.Tensor, DelayState]:
        """Move each spike to its two steps."""
        before = state.x.transpose(0, 1).to_sparse().coalesce()
        earlier = before.indices() - torch.tensor([[self.remembered]] + [[0]] * (x.dim() - 1), device=x.device)
        indices, values = torch.cat([earlier, x._indices()], 1), torch.cat([before.values(), x._values()])
        step, *where = indices
        k, f = (t.expand(x.shape[2:])[tuple(where[1:])] for t in (whole, fraction))
        steps, shares = torch.cat([step + k, step + k + 1]), torch.cat([values * (1 - f), values * f])
        kept = (steps >= 0) & (steps < x.shape[0]) & (shares != 0)
        moved = torch.stack([steps, *(torch.cat([axis, axis]) for axis in where)])[:, kept]
        late = torch.sparse_coo_tensor(moved, shares[kept], x.shape, check_invariants=True).coalesce()
        recent = step >= x.shape[0] - self.remembered
        last = values.new_zeros(self.remembered, *x.shape[1:])
        at = (step[recent] - (x.shape[0] - self.remembered), *(axis[recent] for axis in where))
        last = last.index_put(at, values[recent], accumulate=True)
        return late, DelayState(_batch_first(last))

    def extra_repr(self) -> str:
        """Show the longest delay and the time step."""
        return f"max_delay={self.max_delay:g}, dt={self.dt}"


class DelayedLinear(_Delayed):
    r"""Synaptic delays: a linear map in which every synapse has a weight and a delay. It replaces the `nn.Linear`.

    .. math:: y_{t,o} = b_o + \sum_i w_{oi} \, x_{t - d_{oi} / \Delta t, \, i}

    Args:
        in_features: number of presynaptic neurons I.
        out_features: number of postsynaptic neurons O.
        delay: delays in s, as in `Delay`, one for all synapses or of shape (O, I).
        max_delay: longest delay in s that there is room for, as in `Delay`.
        bias: whether to learn a bias, which no delay concerns.
        dt: time step in s.
        device: device of delays and weights.
        dtype: their floating-point type.

    Weights (O, I) and bias (O,) are those of a `nn.Linear`, under its names and with its initial values. Called with an
    input of shape (T, B, I), dense or in the sparse COO layout, which is made dense, and optionally a `DelayState`, it
    returns currents of shape (T, B, O) and the state after the last step. Without a batch, types of spikes and
    `lengths`: as in `LIF`.

    **Memory and time.** It is a convolution over time with a kernel of :math:`D + 1` steps, two of which are not zero
    for each synapse, as in DCLS: :math:`O I (D + 1)` numbers for the kernel and its gradient each, and :math:`T B O I
    (D + 1)` multiplications, with :math:`D = \lceil max\_delay / \Delta t \rceil + 1`. What is learned is :math:`2 O I`
    numbers. Delays of the presynaptic neurons alone, `Delay`, cost a :math:`D`-th of that, and in published comparisons
    learn about as well (arXiv 2602.09746).

    Raises:
        ValueError: as `Delay`, or if a number of features is not positive.
        TypeError: as `Delay`.
    """

    layout = "(T, B, I)"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        delay: Value,
        *,
        max_delay: float | None = None,
        bias: bool = False,
        dt: float = 0.001,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_counts(in_features=in_features, out_features=out_features)
        super().__init__(delay, max_delay, dt, (out_features, in_features), device, dtype)
        like = self.p.raw("delay")
        start = nn.Linear(in_features, out_features, bias, device=like.device, dtype=like.dtype)
        self.in_features, self.out_features = in_features, out_features
        self.weight = start.weight
        self.register_parameter("bias", start.bias)

    def _population_axes(self) -> int | None:
        return 1

    def _check(self, x: torch.Tensor) -> None:
        check_input(x, self.layout, self.weight.dtype, self.weight.device, self.in_features, sparse=True)

    def _compute(self, x: torch.Tensor, state: DelayState | None) -> tuple[torch.Tensor, DelayState]:
        steps, state = self._start(x, state)
        whole, fraction = (part.expand(self.weight.shape) for part in steps)
        history, new = self._history(kernels.dense(x) if x.is_sparse else x, state)
        y = _delayed_linear(history, self.weight, whole, fraction, x.shape[0], self.remembered)
        return y if self.bias is None else y + cast(torch.Tensor, self.bias), new

    def extra_repr(self) -> str:
        """Show the sizes, the longest delay and the time step."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{sizes}, max_delay={self.max_delay:g}, dt={self.dt}"
