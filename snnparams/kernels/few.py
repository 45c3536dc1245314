"""Short sequences of few neurons on a CPU, where what goes on around the arithmetic costs more than the arithmetic.

An operator of PyTorch takes some microseconds for ten numbers as for ten thousand, and so does each thread that is
asked for help. So a whole call, products with weights included, is one function for PyTorch here, and none of its
operators: NumPy computes the products, Python goes through the steps, and a step is the one that
`snnparams.kernels.elementwise` has written. Nothing else is compiled.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Hashable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch.autograd import forward_ad

from snnparams.kernels import INSTALLED
from snnparams.kernels.fused import _function, _keep_nothing, _refuse_second_derivative
from snnparams.neurons import Neuron
from snnparams.neurons.dynamics import arguments_of_step
from snnparams.neurons.step import PROGRAMS
from snnparams.neurons.surrogate import surrogate_of

STEPS = 64  # at most: more in Python would cost as much as a kernel for all, and sums over them in float32 round more
NUMBERS = 2**14  # of neurons, rows and steps, at most
PRODUCTS = 2**18  # in the product of inputs and weights, at most: for more, NumPy would start threads of its own
TYPES = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}


class _Call(NamedTuple):
    """What a call must know besides tensors.

    Args:
        program: the step, by its name in `PROGRAMS`.
        method: name of the spike function.
        alpha: its shape parameter.
        detach_reset: whether no gradient passes the spike in the reset.
        autapses: whether recurrent weights of a neuron to itself count.
    """

    program: str
    method: str
    alpha: float
    detach_reset: bool
    autapses: bool


def _takes(x: torch.Tensor, steps: int, neurons: int, *tensors: torch.Tensor | None) -> bool:
    """Return whether a sequence is one of few neurons, and one of plain tensors, whose memory NumPy can read.

    Args:
        x: the input, already checked.
        steps: number of time steps.
        neurons: in all rows of the batch.
        tensors: all others, weights first.
    """
    # first of all what torch.compile knows, which then sees nothing of the rest
    if torch.compiler.is_compiling() or not (x.is_cpu and x.dtype in TYPES and x.layout == torch.strided):
        return False
    widest = max((w.shape[1] for w in tensors[:2] if w is not None), default=0)
    if steps > STEPS or steps * neurons > NUMBERS or steps * neurons * widest > PRODUCTS or "numba" not in INSTALLED:
        return False
    if forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None:
        return False  # a derivative in forward mode, or a transform of torch.func
    if torch._C._get_tracing_state() is not None:
        return False
    plain, dtype = (torch.Tensor, torch.nn.Parameter), x.dtype
    for t in (x, *tensors):
        if t is not None and not (type(t) in plain and t.dtype == dtype and t.is_cpu and not t.is_neg()):
            return False
    return True


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()


def _place(array: np.ndarray) -> int:
    """Return where the first number lies in memory: NumPy's own attributes take three times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(cast(Any, array)))


@functools.cache
def _step(way: str, name: str, method: str, dtype: torch.dtype, *how: bool) -> Any:
    """Return what `elementwise` writes, by the name of its function and that one's arguments, as a function of Python.

    It keeps the interpreter, since to hand it over takes as long as a step.
    """
    from snnparams.kernels import elementwise  # which imports Numba

    kinds: list[Any] = [ctypes.c_int64, TYPES[dtype]]
    for array in {"forward": elementwise.FORWARD, "backward": elementwise.BACKWARD}[way]:
        kinds += [ctypes.c_void_p] + [ctypes.c_int64] * (array in elementwise.WITH_STRIDE)
    return ctypes.PYFUNCTYPE(None, *kinds)(getattr(elementwise, way)(name, method, dtype, *how))


def _known(tensor: torch.Tensor) -> tuple[bytes, torch.Size]:
    """Return a copy of all numbers of a tensor, and its shape."""
    if tensor.is_contiguous():
        return ctypes.string_at(tensor.data_ptr(), tensor.nbytes), tensor.shape
    return _array(tensor).tobytes(), tensor.shape


def _packed(parameters, shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    """Return constants and parameters (P, B, ...) of numbers, or of what `_known` returns: the same in each row."""
    packed = np.empty((len(parameters), *shape), TYPES[dtype])
    for place, value in zip(packed, parameters, strict=True):
        if isinstance(value, tuple):
            place[...] = np.frombuffer(value[0], packed.dtype).reshape(value[1])
        else:
            place[...] = value
    return packed


@functools.lru_cache(maxsize=64)
def _packed_before(neuron: Any, dt: float, shape: tuple[int, ...], dtype: torch.dtype, *values) -> np.ndarray:
    """Return the same of values that are given as `_known` returns them: computed once, and then found by value."""
    tensors = (torch.frombuffer(bytearray(numbers), dtype=dtype).reshape(sizes) for numbers, sizes in values)
    given = dict(zip(neuron.neuron_fields, tensors, strict=True))
    if neuron.constants is not None:
        given |= neuron.constants(dt, *(given[name] for name in neuron.of_constants))
    parameters = (given[name] for name in PROGRAMS[neuron.program].parameters)
    return _packed([_known(x) if isinstance(x, torch.Tensor) else x for x in parameters], shape, dtype)


def _weights(weights: torch.Tensor | None, autapses: bool) -> np.ndarray | None:
    """Return recurrent weights, without those of a neuron to itself where they do not count."""
    if weights is None:
        return None
    array = _array(weights)
    if not autapses and array.diagonal().any():
        array = array.copy()
        np.fill_diagonal(array, 0)
    return array


def _forward(call: _Call, dtype: torch.dtype, x, input_weights, weights, state, p, keep: bool):
    """Return outputs (T, B, ...), variables (S, B, ...) after the last step and, to be kept, those before each step.

    All are arrays; `weights` are those that count, and `state` begins with the outputs of before if there are some.
    """
    program = PROGRAMS[call.program]
    steps, shape = len(x), p.shape[1:]
    if input_weights is None:
        currents = np.ascontiguousarray(x)
    else:
        currents = x.reshape(-1, x.shape[2]) @ input_weights.T
    count = len(program.state)
    # in one piece, of which one address has to be found: variables, what is received, outputs, what is kept
    numbers = np.empty((count + 1 + steps * (1 + len(program.kept) * keep), *shape), x.dtype)
    variables, received, out = numbers[:count], numbers[count], numbers[count + 1 : count + 1 + steps]
    kept = numbers[count + 1 + steps :].reshape(-1, steps, *shape)
    for place, given in zip(variables, state[-count:], strict=True):
        place[...] = given
    if weights is not None:
        np.matmul(state[0], weights.T, out=received)
    size, row = received.size, received.nbytes
    of_variables, of_x, of_p = _place(numbers), _place(currents), _place(p)
    arriving, of_out = of_variables + count * row, of_variables + (count + 1) * row
    of_kept = of_out + steps * row
    step = _step("forward", call.program, call.method, dtype, weights is not None, keep)
    for t in range(steps):
        at = t * row
        if t and weights is not None:
            np.matmul(out[t - 1], weights.T, out=received)
        step(
            size, call.alpha, of_variables, size, of_x + at, arriving, of_p, size, of_out + at, of_kept + at,
            steps * size,
        )  # fmt: skip
    return out, variables, kept


class _Kept(NamedTuple):
    """What the backward pass knows besides the tensors that PyTorch keeps for it."""

    call: _Call
    dtype: torch.dtype
    p: np.ndarray
    weights: np.ndarray | None  # recurrent ones that count
    x_shape: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]  # of parameters that may get gradients
    needed: tuple[bool, ...]  # by which inputs gradients are asked for: x, both weights, the state, parameters


def _summed(of_neurons: np.ndarray, shape: tuple[int, ...], dtype) -> np.ndarray:
    """Return the gradient by a parameter of a shape that was broadcast, from those by its value in each neuron."""
    total = of_neurons.sum(axis=tuple(range(of_neurons.ndim - len(shape))), dtype=np.float64)
    axes = tuple(axis for axis, length in enumerate(shape) if length == 1)
    return np.asarray(total.sum(axis=axes, keepdims=True) if axes else total, dtype)


def _backward(about: _Kept, kept: np.ndarray, grad_out, grad_state):
    """Return gradients by currents (T, B, ...) and state (S, B, ...), by p summed over steps, and the outputs again."""
    call, p, recurrent = about.call, about.p, about.weights is not None
    program, steps, shape = PROGRAMS[call.program], kept.shape[1], kept.shape[2:]
    grad_x, out = np.empty((steps, *shape), p.dtype), np.empty((steps, *shape), p.dtype)
    of_variables = np.zeros((len(program.state), *shape), p.dtype)
    sums, received = np.zeros(p.shape, p.dtype), np.zeros(shape, p.dtype)
    for place, given in zip(of_variables, grad_state[-len(program.state) :], strict=True):
        if given is not None:
            place[...] = given
    if recurrent and grad_state[0] is not None:
        received[...] = grad_state[0]
    given = grad_x if grad_out is None else np.ascontiguousarray(grad_out)
    how = call.detach_reset, recurrent, grad_out is not None, bool(about.shapes)
    step, size, row = _step("backward", call.program, call.method, about.dtype, *how), received.size, received.nbytes
    of_kept, of_p, of_given, arriving, of_state = map(_place, (kept, p, given, received, of_variables))
    of_x, of_out, of_sums = map(_place, (grad_x, out, sums))
    for t in range(steps - 1, -1, -1):
        at = t * row
        if recurrent and t < steps - 1:
            np.matmul(grad_x[t + 1], cast(np.ndarray, about.weights), out=received)
        step(
            size, call.alpha, of_kept + at, steps * size, of_p, size, of_given + at, arriving, of_state, size,
            of_x + at, of_out + at, of_sums, size,
        )  # fmt: skip
    return grad_x, of_variables, sums, out


def _gradients(about: _Kept, kept, x, input_weights, before, *grads) -> tuple[torch.Tensor, ...]:
    """Return the gradients that are asked for, from those by what the function returned."""
    grad_out, *grad_state = (None if g is None else _array(g) for g in grads)
    grad_x, of_variables, sums, out = _backward(about, _array(kept), grad_out, grad_state)
    rows = grad_x.reshape(-1, grad_x.shape[-1])
    with_x, with_input_weights, with_weights, *others = about.needed
    found = []
    if with_x:
        found.append(grad_x if input_weights is None else (rows @ _array(input_weights)).reshape(about.x_shape))
    if with_input_weights:
        found.append(rows.T @ _array(x).reshape(len(rows), -1))
    if with_weights:
        found.append(rows.T @ np.concatenate([_array(before)[None], out[:-1]]).reshape(rows.shape))
        if not about.call.autapses:
            np.fill_diagonal(found[-1], 0)
    of_others = list(of_variables) if about.weights is None else [grad_x[0] @ about.weights, *of_variables]
    of_others += [_summed(total, shape, grad_x.dtype) for total, shape in zip(sums, about.shapes, strict=False)]
    found += [gradient for gradient, asked in zip(of_others, others, strict=True) if asked]
    return tuple(map(torch.from_numpy, found))


def _run_gradients(about: _Kept, count: int, *tensors) -> tuple[torch.Tensor, ...]:
    """Call `_gradients` with the first `count` tensors; on the others gradients depend, were they differentiated."""
    return _gradients(about, *tensors[:count])


def _each(info, in_dims, about: _Kept, count: int, *tensors):
    """Apply the rule of `torch.vmap`: one after the other."""
    found = []
    for k in range(info.batch_size):
        given = (t if dim is None else t.select(dim, k) for t, dim in zip(tensors, in_dims[2:], strict=True))
        found.append(_Gradients.apply(about, count, *given))
    return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])


_Gradients: type[torch.autograd.Function] = _function(_run_gradients, _keep_nothing, _refuse_second_derivative, _each)


class _Sequence(torch.autograd.Function):
    """A sequence from its input to outputs and state. `_takes` keeps it from what asks for a rule for `torch.vmap`."""

    @staticmethod
    def forward(ctx, call: _Call, p, x, input_weights, recurrent_weights, states: int, *rest):
        ctx.set_materialize_grads(False)
        state, parameters = rest[:states], rest[states:]
        weights = _weights(recurrent_weights, call.autapses)
        inputs = _array(x), None if input_weights is None else _array(input_weights), weights
        out, variables, kept = _forward(call, x.dtype, *inputs, [_array(t) for t in state], p, True)
        asked: tuple[bool, ...] = ctx.needs_input_grad
        with_x, needed = asked[2], (*asked[3:5], *asked[6:])
        shapes = tuple(tuple(t.shape) for t in parameters)
        ctx.about = _Kept(call, x.dtype, p, weights, tuple(x.shape), shapes, (with_x, *needed))
        # of what may be changed before the backward pass PyTorch finds out that it was
        own = input_weights if with_x else None, state[0] if needed[1] else None, recurrent_weights
        ctx.save_for_backward(torch.from_numpy(kept), x if needed[0] else None, *own)
        ctx.inputs = x, input_weights, recurrent_weights, *rest
        last = [] if weights is None else [out[-1].copy()]
        results = tuple(map(torch.from_numpy, (out, *last, *variables)))
        if call.method == "heaviside" and PROGRAMS[call.program].spikes:
            ctx.mark_non_differentiable(*results[: 1 + len(last)])
        return results

    @staticmethod
    def backward(ctx, *grads):
        about, (*kept, _) = ctx.about, ctx.saved_tensors
        given = *kept, *grads
        if torch.is_grad_enabled() or torch._C._functorch.maybe_current_level() is not None:
            found = iter(_Gradients.apply(about, len(given), *given, *ctx.inputs))
        else:
            found = iter(_gradients(about, *given))
        asked = False, False, *about.needed[:3], False, *about.needed[3:]
        return tuple(next(found) if ask else None for ask in asked)


def sequence(
    neuron: type[Neuron], x: torch.Tensor, state: Any, p: Any, dt: float, detach_reset: bool,
    input_weights: torch.Tensor | None = None, recurrent_weights: torch.Tensor | None = None, autapses: bool = True,
) -> tuple[torch.Tensor, Any] | None:  # fmt: skip
    """Compute a population of any neuron over a whole sequence, if it is a short one of few neurons.

    Args:
        neuron: its class.
        x: input (T, B, I), or without input weights currents (T, B, ...); or of one step, without the axis of time.
        state: `neuron.State` before the first step, or with recurrence `neuron.RecurrentState`.
        p: neuron parameters, tensors that are broadcast against the shape of a row.
        dt: time step in s.
        detach_reset: treat the spike as a constant in the reset.
        input_weights: shape (N, I), or None.
        recurrent_weights: shape (N, N), or None for no recurrence.
        autapses: whether recurrent weights of a neuron to itself count.

    Returns:
        Outputs, with the axis of time if x has it, and the state after the last step; or None if it is another
        sequence, or one that nothing but the reference can compute.
    """
    surrogate, values = surrogate_of(p) if neuron.spiking else None, p[: len(neuron.neuron_fields)]
    given, one_step = (input_weights, recurrent_weights, *state, *values), x.dim() == state[0].dim()
    steps = 1 if one_step else len(x)
    if (surrogate is not None and surrogate.refusal) or not _takes(x, steps, state[0].numel(), *given):
        return None
    spikes = ("heaviside", 1.0) if surrogate is None else (surrogate.fused(), surrogate.alpha)
    call = _Call(neuron.program, *spikes, detach_reset, autapses)
    shape, recurrent = state[0].shape, recurrent_weights is not None
    parameters: tuple[torch.Tensor, ...] = ()
    differentiated = torch.is_grad_enabled()
    if differentiated and any(value.requires_grad for value in values):
        of_step = arguments_of_step(neuron, p, dt, detach_reset)
        parameters = tuple(torch.as_tensor(of_step[k], dtype=x.dtype) for k in PROGRAMS[neuron.program].parameters)
        packed = _packed([*map(_known, parameters)], shape, x.dtype)
    else:
        packing = _packed_before.__wrapped__ if neuron.constants_may_change else _packed_before
        packed = packing(cast(Hashable, neuron), dt, shape, x.dtype, *map(_known, values))
        differentiated = differentiated and any(t is not None and t.requires_grad for t in (x, *given))
    if differentiated:
        x = x[None] if one_step else x
        inputs = input_weights, recurrent_weights, len(state), *state, *parameters
        out, *last = _Sequence.apply(call, packed, x, *inputs)
        return out[0] if one_step else out, (neuron.RecurrentState if recurrent else neuron.State)(*last)
    weights = None if input_weights is None else _array(input_weights), _weights(recurrent_weights, autapses)
    array = _array(x)[None] if one_step else _array(x)
    numbers, variables, _ = _forward(call, x.dtype, array, *weights, [_array(t) for t in state], packed, False)
    last = [torch.from_numpy(variable) for variable in variables]
    out = torch.from_numpy(numbers[0] if one_step else numbers)
    if recurrent:
        return out, neuron.RecurrentState(torch.from_numpy(numbers[-1].copy()), *last)
    return out, neuron.State(*last)
