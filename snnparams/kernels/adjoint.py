r"""Exact gradients: the adjoint method (EventProp) on the time grid, with gradients for the neuron parameters.

A spike is an event at a time, and that time is a differentiable function of weights and parameters, as long as the
membrane crosses the threshold with a slope. Let :math:`\lambda_v` and :math:`\lambda_i` be the derivatives of the loss
by voltage and current. Between spikes they obey, backward in time, the adjoint of the neuron's own equations; on the
grid, with :math:`A = \Delta t / \tau_\mathrm{mem}` and :math:`B = \Delta t / \tau_\mathrm{syn}`:

.. math::
    \begin{aligned}
    \lambda_i &\leftarrow (1 - B) \lambda_i + A \lambda_v, \\
    \lambda_v &\leftarrow (1 - A) \lambda_v .
    \end{aligned}

At a spike :math:`\lambda_v` jumps. With the slopes in front of the threshold and behind the reset,
:math:`s^- = v_\mathrm{leak} - v_\mathrm{th} + i` and :math:`s^+ = v_\mathrm{leak} - v_\mathrm{reset} + i`, in units of
:math:`1 / \tau_\mathrm{mem}`, and with the change :math:`\Delta` of the loss if the spike alone came one step later,

.. math::
    \begin{aligned}
    \lambda_v^- &= \frac{s^+ \lambda_v^+ - \Delta / A}{s^-}, \\
    \frac{\partial L}{\partial v_\mathrm{th}} &\mathrel{-}= \lambda_v^-, \\
    \frac{\partial L}{\partial v_\mathrm{reset}} &\mathrel{+}= \lambda_v^+ .
    \end{aligned}

**Where** :math:`\Delta` **comes from.** Autograd hands the layer the derivative :math:`G_t` of the loss by its spikes,
for all steps, also those without a spike. A spike that comes one step later leaves step t and enters step t + 1, so
:math:`\Delta = G_{t+1} - G_t`, to which a recurrent layer adds the same difference of what its own neurons receive. It
makes stacks of layers exact as :math:`\Delta t \to 0`: after `Linear` and `LI`, :math:`G_t` is what a spike at t would
add to the loss. It also means that the gradient of a loss that only counts spikes is zero, as it should be. For losses
on spike times see `spike_times`.

**Memory.** The gradients by time constants and leak are integrals over all steps. They are not computed from stored
voltages but with four traces, which go forward in time with the neuron: the derivatives of its voltage by these
parameters since its last reset, and that of its current by the synaptic time constant, which no spike resets. So
the backward pass needs four numbers per spike and none per step. On a GPU, where lists of spikes cannot grow, two
numbers per step are kept instead, see `snnparams.kernels.gpu_adjoint`.

**Where the derivative does not exist.** The spike time of a membrane that grazes the threshold (:math:`s^- \to 0`) has
an infinite derivative: :math:`s^-` counts as at least `GRAZING`, and :math:`|\lambda_v^-|` as at most `LARGEST`. A
neuron that was above its threshold before the step (because its reset is) crosses nothing, and one that does not spike
has no spike time: no gradient passes. Nor does one pass by the time of a spike in the last step, unless the state is
handed to a next sequence. So gradients are finite as long as those that arrive are.

Theory: Wunderlich and Pehle (2021), for weights. Derived for the neuron parameters in chapter 7.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from snnparams import kernels
from snnparams.kernels.fused import plain as _plain
from snnparams.neurons import LIFFeedForwardState, LIFParameters, LIFState
from snnparams.neurons.dynamics import AdjointState

GRAZING = 1e-3  # least slope at a threshold crossing, in units of voltage per membrane time constant
LARGEST = 1e12  # largest derivative by a voltage
CHUNK = 32  # steps whose spikes PyTorch lists at once
BACKENDS = {"cpu": "snnparams.kernels.adjoint_cpu", "triton": "snnparams.kernels.gpu_adjoint"}


def state_of(state: Any) -> type[AdjointState | LIFFeedForwardState]:
    """Return the class of states to expect: an `AdjointState`, or one that knows no earlier spikes."""
    return AdjointState if isinstance(state, AdjointState) else LIFFeedForwardState


# ------------------------------------------------------------- with PyTorch's own operators, on any device
#
# T steps, B rows (the batch), N neurons. `x` (T, B, N) are currents, `w` (N, N) recurrent weights or None, the
# parameters are a, b, v_leak, v_th and v_reset as `p` (5, N). `spikes` is a list of tensors, for each CHUNK two: step
# and position of each spike in B * N, (spikes, 2), and its slope s^- and three traces, (spikes, 4). `last` (4, B, N)
# holds the traces after the last step.


def _fires(v, v_th):
    """Return spikes, by which nothing is differentiated here."""
    return (v > v_th).to(v.dtype)


def _forward(
    x: Tensor, v: Tensor, i: Tensor, w: Tensor | None, p: Tensor, keep: bool, with_p: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """Return spikes (T, B, N), the last state, the last traces and the list of spikes."""
    a, b, v_leak, v_th, v_reset = p
    of_a, of_b, of_leak, of_i = torch.zeros(4, *v.shape, dtype=x.dtype, device=x.device)
    z, z_all, recorded, spikes = None, [], [], []
    for t, x_t in enumerate(x):
        i = i + x_t
        if w is not None and z is not None:
            i = i + linear(z, w)
        before, i_now = v, i
        z, v, i = LIFParameters.step(before, i_now, a, b, v_leak, v_th, v_reset, _fires, lambda z: z)
        z_all.append(z)
        if with_p:  # the derivatives of what the step does to voltage and current
            of_a, of_b = of_a + ((v_leak - before) + i_now) - a * of_a, of_b + a * (of_i - of_b)
            of_leak, of_i = of_leak + a * (1 - of_leak), of_i - b * of_i - i_now
        if keep:
            crossing = torch.where(before > v_th, -1.0, ((v_leak - v_th) + i_now).clamp(min=0))
            recorded.append(torch.stack([crossing, of_a, of_b, of_leak]))
            if len(recorded) == CHUNK or t == len(x) - 1:
                first = t + 1 - len(recorded)
                step, position = torch.stack(z_all[first:]).flatten(1).nonzero(as_tuple=True)
                what = torch.stack(recorded).flatten(2)[step, :, position]
                spikes += [torch.stack([step + first, position], dim=1).int(), what]
                recorded = []
        of_a, of_b, of_leak = (trace.masked_fill(z > 0.5, 0) for trace in (of_a, of_b, of_leak))
    return torch.stack(z_all), v, i, torch.stack([of_a, of_b, of_leak, of_i]), spikes


def _backward(
    grad_z: Tensor | None, grad_z_last: Tensor | None, grad_v: Tensor, grad_i: Tensor, last: Tensor,
    spikes: Sequence[Tensor], w: Tensor | None, p: Tensor, steps: int, with_p: bool, with_w: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the gradients by x, by the first state, by w, and by the neuron parameters (5, N).

    What is here is the adjoint of the neuron's equations, not the derivative of its step: that one has no gradient by
    the time of a spike.
    """
    a, b, _, v_th, v_reset = p
    rows, neurons = grad_v.shape
    grad_x = grad_v.new_empty(steps, rows, neurons)
    of_a, of_b, of_leak, of_i = last
    grad_p = torch.zeros(5, rows, neurons, dtype=grad_v.dtype, device=grad_v.device)
    grad_p[:3] = torch.stack([grad_v * of_a, grad_v * of_b + grad_i * of_i, grad_v * of_leak])
    grad_w = grad_v.new_zeros(neurons, neurons)
    after = arrives = grad_i  # gradients by the currents two steps and one step later
    dense, first = grad_v.new_empty(0), steps
    for t in range(steps - 1, -1, -1):
        if t < first:  # spread the spikes of the next chunk over their steps
            where, what = spikes[t // CHUNK * 2 : t // CHUNK * 2 + 2]
            first = t // CHUNK * CHUNK
            dense = grad_v.new_zeros(t + 1 - first, rows * neurons, 4)
            fired = torch.zeros(t + 1 - first, rows * neurons, dtype=torch.bool, device=grad_v.device)
            index = where[:, 0].long() - first, where[:, 1].long()
            dense[index], fired[index] = what, True
        slope, *traces = dense[t - first].view(rows, neurons, 4).unbind(-1)
        fires = fired[t - first].view(rows, neurons)
        later = torch.zeros_like(grad_v)  # by how much the loss changes if a spike comes one step later
        if t < steps - 1:
            if grad_z is not None:
                later = grad_z[t + 1] - grad_z[t]
            if w is not None:
                later = later + (after - arrives) @ w
                if with_w:
                    grad_w += arrives.t() @ fires.to(w.dtype)
        elif grad_z_last is not None:
            later = grad_z_last if grad_z is None else grad_z_last - grad_z[t]
        jump = (grad_v * (slope + (v_th - v_reset)) - later / a) / slope.clamp(min=GRAZING)
        jump = torch.where(fires & (slope >= 0), jump.clamp(-LARGEST, LARGEST), 0)
        if with_p:
            grad_p += torch.stack([*(jump * trace for trace in traces), -jump, torch.where(fires, grad_v, 0)])
        grad_v = torch.where(fires, jump, grad_v)
        grad_i = grad_i - b * grad_i + a * grad_v
        grad_v = grad_v - a * grad_v
        grad_x[t] = grad_i
        after, arrives = arrives, grad_i
    return grad_x, grad_v, grad_i, grad_w, grad_p.sum(dim=1)


# --------------------------------------------------------------------------------------------- one autograd node


def _backend(name: str):
    """Return the functions of forward and backward pass."""
    if name == "reference":
        return _forward, _backward
    module = importlib.import_module(BACKENDS[name])
    return module.forward, module.backward


def refuse(what: str) -> Any:
    """Return what refuses, as a method of an autograd function, what the adjoint method has none of."""

    def refuse(*_):
        raise NotImplementedError(
            f"{what}: the adjoint method has none; use a surrogate gradient, method='super' say, and kernel='reference'"
        )

    return staticmethod(refuse)


class _Adjoint(torch.autograd.Function):
    """A whole sequence: spikes, spikes of the last step, last voltage and current, last traces, lists of spikes."""

    @staticmethod
    def forward(x, z_0, v_0, i_0, w, p, keep, with_p, kernel):
        x, v, i, w, p = (_plain(tensor) for tensor in (x, v_0, i_0, w, p))
        if w is not None:
            i = i + linear(_plain(z_0), w)
        z, v, i, last, spikes = _backend(kernel)[0](x, v, i, w, p, keep, with_p)
        return z, z[-1].clone(), v, i, last, *spikes

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, z_0, _, _, w, p, _, ctx.with_p, ctx.kernel = inputs
        ctx.steps = len(x)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[4:])
        ctx.save_for_backward(z_0, w, p, *output[4:])

    @staticmethod
    def backward(ctx, grad_z, grad_z_last, grad_v, grad_i, *_):
        z_0, w, p, last, *spikes = ctx.saved_tensors
        grad_v, grad_i = (torch.zeros_like(last[0]) if g is None else g for g in (grad_v, grad_i))
        with_w = w is not None and ctx.needs_input_grad[4]
        how = ctx.steps, ctx.with_p, with_w, ctx.kernel
        grad_x, of_v, of_i, of_w, of_p = _AdjointBackward.apply(
            grad_z, grad_z_last, grad_v, grad_i, last, w, p, *how, *spikes
        )
        of_z = None
        if ctx.needs_input_grad[1]:  # by the time of the spikes before the first step, as a sequence's own
            of_z = torch.zeros_like(of_v) if grad_z is None else grad_z[0]
            if w is not None:
                of_z = of_z + ((grad_x[1] if ctx.steps > 1 else grad_i) - grad_x[0]) @ w
        of_weights = of_w + grad_x[0].t() @ z_0 if with_w else None
        return grad_x, of_z, of_v, of_i, of_weights, of_p if ctx.with_p else None, None, None, None

    jvp = refuse("forward-mode derivative")
    vmap = refuse("rule of torch.vmap")


class _AdjointBackward(torch.autograd.Function):
    """The backward pass: gradients by x, by the first state, by w and by the neuron parameters (5, N)."""

    @staticmethod
    def forward(grad_z, grad_z_last, grad_v, grad_i, last, w, p, steps, with_p, with_w, kernel, *spikes):
        grads = [_plain(g) for g in (grad_z, grad_z_last, grad_v, grad_i)]
        grad_x, of_v, of_i, of_w, of_p = _backend(kernel)[1](
            *grads, last, spikes, _plain(w), _plain(p), steps, with_p, with_w
        )
        return grad_x, of_v, of_i, of_w if with_w else grad_x.new_empty(0), of_p

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Remember nothing: there is no second derivative."""

    @staticmethod
    def vmap(info, in_dims, *args):
        """Go through the gradients one by one, as `torch.func.jacrev` asks for."""

        def gradients(k):
            return [x if dim is None else x.select(dim, k) for x, dim in zip(args, in_dims, strict=True)]

        out = [_AdjointBackward.apply(*gradients(k)) for k in range(info.batch_size)]
        return tuple(torch.stack(parts) for parts in zip(*out, strict=True)), (0,) * 5

    backward = refuse("second derivative")
    jvp = refuse("forward-mode derivative")


_kind: Any
for _kind in (_Adjoint, _AdjointBackward):
    _kind.forward.__signature__ = inspect.signature(_kind.forward)  # PyTorch asks for it at each call
_untraced: Any = torch._disable_dynamo  # torch.compiler.disable would import torch._dynamo here, this does at a call


@_untraced
def _sequence(currents, z_0, v_0, i_0, w, p, dt, kernel):
    """Call the node; the population's axes become one."""
    population = currents.shape[2:]

    def per_neuron(value):
        return torch.as_tensor(value).to(v_0).expand(population).reshape(-1)

    def flat(state):
        return None if state is None else state.flatten(1).clone()

    x = currents.flatten(2)
    rates = dt * p.tau_mem_inv, dt * p.tau_syn_inv
    of_neurons = torch.stack([per_neuron(value) for value in (*rates, p.v_leak, p.v_th, p.v_reset)])
    keep, chosen = torch.is_grad_enabled(), kernels.choose(kernel, x)
    if w is not None and chosen == "cpu" and not torch.isfinite(w).all():
        chosen = "reference"  # the compiled one skips neurons that are silent, but zero times infinity is NaN
    how = keep, keep and of_neurons.requires_grad, chosen
    z, *last = _Adjoint.apply(x, flat(z_0), flat(v_0), flat(i_0), w, of_neurons, *how)[:4]
    return z.view(currents.shape), *(t.view(v_0.shape) for t in last)


def lif(currents: Tensor, state: Any, p: Any, dt: float, kernel: str | None = None) -> tuple[Tensor, AdjointState]:
    """Compute a feed-forward LIF population over a whole sequence, with exact gradients.

    Args:
        currents: input currents, shape (T, B, ...).
        state: `AdjointState` before the first step, each of shape (B, ...), or a `LIFFeedForwardState`, from which
            nobody wants to know what the time of earlier spikes does.
        p: neuron parameters, broadcast against the input's shape without T and B.
        dt: time step in s.
        kernel: "cpu", "triton", "reference" or None for the fastest one that takes the input.

    Returns:
        Spikes, shape (T, B, ...), and the `AdjointState` after the last step.

    Raises:
        ValueError: if the kernel is unknown or cannot take the input.
    """
    z_0 = state.z if isinstance(state, AdjointState) else None
    z, z_last, v, i = _sequence(currents, z_0, state.v, state.i, None, p, dt, kernel)
    return z, AdjointState(v, i, z_last)


def lif_recurrent(
    currents: Tensor, state: LIFState, recurrent_weights: Tensor, p: Any, dt: float, kernel: str | None = None
) -> tuple[Tensor, LIFState]:
    """Compute a recurrent LIF population over a whole sequence, with exact gradients.

    Args:
        currents: currents that the input causes, shape (T, B, H).
        state: `LIFState` before the first step, each of shape (B, H). The gradient by its `z` is by how much
            the loss changes if those spikes come one step later.
        recurrent_weights: shape (H, H).
        p: neuron parameters, scalars or of shape (H,).
        dt: time step in s.
        kernel: "cpu", "triton", "reference" or None for the fastest one that takes the input.

    Returns:
        Spikes, shape (T, B, H), and the state after the last step.

    Raises:
        ValueError: if the kernel is unknown or cannot take the input.
    """
    z, *last = _sequence(currents, *state, recurrent_weights, p, dt, kernel)
    return z, LIFState(*last)
