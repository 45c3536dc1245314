"""How a whole sequence is computed, forward and backward: a kernel for the device, or the reference.

The compiled kernels compute any neuron, a user's own among them. `snnparams.kernels.derive` derives the backward pass
from its step; `snnparams.kernels.elementwise` makes machine code of both passes for a CPU, and
`snnparams.kernels.gpu_steps` functions for Triton.

============== =========================================== =======================================
name           what it is                                  what it takes
============== =========================================== =======================================
`"reference"`  a loop over `snnparams.neurons.dynamics`            every device and floating-point type
`"cpu"`        one operator, compiled by Numba             tensors on a CPU, float32 or float64
`"triton"`     one operator, compiled by Triton            tensors on an NVIDIA GPU from the T4 on, float32 or float64
============== =========================================== =======================================

Without a name, the fastest one that takes the input is used. On a CPU, layers compute short sequences of few neurons
by `snnparams.kernels.few` then: there a call costs more than its arithmetic. All compute the same: spikes and all
gradients are tested against the reference. A fused kernel has no second derivative. On a GPU, products with recurrent
weights follow `torch.set_float32_matmul_precision`: float32 unless the user allows TF32. Explained in chapter 10.
"""

from __future__ import annotations

import importlib.util
import math
import os
from typing import Any

import torch
from torch.nn.functional import linear

from snnparams.kernels import fused, fused_sequence, reference
from snnparams.neurons import Neuron
from snnparams.neurons.dynamics import arguments_of_step
from snnparams.neurons.step import PROGRAMS
from snnparams.neurons.surrogate import Surrogate, surrogate_of

KERNELS = ("reference", "cpu", "triton")
PACKAGES = {"cpu": "numba", "triton": "triton"}
INSTALLED = {name for name in PACKAGES.values() if importlib.util.find_spec(name)}  # torch.compile traces no find_spec
PROCESS = os.getpid()  # one that is forked from it has another number, and none of its threads
DTYPES = (torch.float32, torch.float64)  # of the fused kernels
OLDEST = (7, 5)  # compute capability for which the Triton kernels are compiled and checked: a T4


def check_kernel(kernel: str | None) -> str | None:
    """Return `kernel` if it names one, or None.

    Raises:
        ValueError: it does not; the message lists the names that do.
    """
    if kernel is not None and kernel not in KERNELS:
        raise ValueError(f"unknown kernel={kernel!r}; expected None or one of {', '.join(KERNELS)}")
    return kernel


def _refusal_of_gpu(device: torch.device) -> str | None:
    """Say why the Triton kernels cannot run on a GPU, or None. `torch.compile` takes all that is asked as constants."""
    if torch.version.hip is not None:
        return "expected a GPU by NVIDIA, got one under ROCm, for which the kernels are neither compiled nor tested"
    if not torch.cuda.is_available():
        return None  # a tensor without storage, which nobody computes with
    properties = torch.cuda.get_device_properties(device)
    if (properties.major, properties.minor) < OLDEST:
        major, minor = OLDEST
        got = f"{properties.major}.{properties.minor} ({properties.name})"
        return f"expected a GPU of compute capability {major}.{minor} or more, got {got}"
    return None


def _refusal(kernel: str, x: torch.Tensor) -> str | None:
    """Say why a kernel cannot take an input, or None."""
    if kernel == "reference":
        return None
    interpreted = kernel == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    if kernel == "cpu" and x.device.type != "cpu":
        return f"expected a tensor on a CPU, got one on {x.device}"
    if kernel == "triton" and x.device.type != "cuda" and not (interpreted and x.device.type == "cpu"):
        return f"expected a tensor on a CUDA GPU, got one on {x.device}"
    if kernel == "triton" and x.is_cuda and (refusal := _refusal_of_gpu(x.device)):
        return refusal
    if x.dtype not in DTYPES:
        return f"expected {' or '.join(map(str, DTYPES))}, got {x.dtype}"
    if PACKAGES[kernel] not in INSTALLED:
        return f"expected the package {PACKAGES[kernel]}, which is not installed"
    return None


def choose(kernel: str | None, x: torch.Tensor) -> str:
    """Return the kernel to use for an input.

    Args:
        kernel: its name, or None for the fastest one that takes the input.
        x: the input.

    Raises:
        ValueError: if the kernel is unknown or cannot take the input.
    """
    check_kernel(kernel)
    if kernel is None:
        fastest = "triton" if x.is_cuda else "cpu"
        return "reference" if _refusal(fastest, x) else fastest
    if refusal := _refusal(kernel, x):
        raise ValueError(f"kernel={kernel!r}: {refusal}; use kernel='reference', or None to have one chosen")
    return kernel


def sequence(
    neuron: type[Neuron],
    currents: torch.Tensor,
    state: Any,
    p: Any,
    dt: float,
    detach_reset: bool = False,
    kernel: str | None = None,
    recurrent_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Any]:
    """Compute a population of any neuron over a whole sequence.

    Args:
        neuron: its class.
        currents: input currents, shape (T, B, ...), or with recurrence (T, B, H), see `input_currents`.
        state: `neuron.State` before the first step, or with recurrence `neuron.RecurrentState`, each of shape (B, ...).
        p: neuron parameters, broadcast against the input's shape without T and B.
        dt: time step in s.
        detach_reset: treat the spike as a constant in the reset.
        kernel: name of the kernel, or None for the fastest one that takes the neuron and the input.
        recurrent_weights: shape (H, H), or None for no recurrence.

    Returns:
        Outputs, shape (T, B, ...), and the state after the last step.

    Raises:
        ValueError: if the kernel is unknown or cannot take the neuron or the input.
    """
    gradient = surrogate_of(p) if neuron.spiking else None
    chosen = _choose_for(gradient, kernel, currents)
    if chosen == "reference":
        return reference.sequence(neuron, currents, state, p, dt, detach_reset, recurrent_weights)
    return derived_sequence(neuron, currents, state, p, dt, detach_reset, chosen, recurrent_weights)


def _choose_for(gradient: Surrogate | None, kernel: str | None, x) -> str:
    """Return the kernel to use for an input and a spike function, see `choose`."""
    chosen = choose(kernel, x)
    if chosen == "reference" or gradient is None or not gradient.refusal:
        return chosen
    if kernel is not None:
        raise ValueError(f"kernel={kernel!r}: {gradient!r}: {gradient.refusal}; use kernel='reference' or None")
    return "reference"


def _flat(x: torch.Tensor, axes: int) -> torch.Tensor:
    """Return a tensor with one axis behind so many others, also if there is none there or there are no rows."""
    return x.flatten(axes) if x.dim() > axes else x.unsqueeze(-1)


def derived_sequence(
    neuron: type[Neuron],
    currents: torch.Tensor,
    state: Any,
    p: Any,
    dt: float,
    detach_reset: bool,
    kernel: str,
    recurrent_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Any]:
    """Compute a population of any neuron by the kernel that is derived from its step, see `sequence`."""
    program = PROGRAMS[neuron.program]
    steps, _, *population = currents.shape
    variables = dict(zip(program.state, state[-len(program.state) :], strict=True))
    if recurrent_weights is not None:  # what the output before the first step causes
        arrives = linear(state.z, recurrent_weights)
        if neuron.receives:
            variables[neuron.receives] = variables[neuron.receives] + arrives
        else:
            # all in one operator: backward, slices would each be filled up with zeros, copied and added
            common, first = torch.promote_types(currents.dtype, arrives.dtype), torch.zeros(1, dtype=torch.long)
            currents = currents.to(common).index_add(0, first.to(currents.device), arrives.to(common)[None])
    values = arguments_of_step(neuron, p, dt)
    precision = torch.promote_types(currents.dtype, variables[program.state[0]].dtype)  # as in the reference
    device = currents.device
    of_neurons = [torch.as_tensor(values[name], dtype=precision, device=device) for name in program.parameters]
    stacked = [(v if list(v.shape) == population else v.expand(population)).flatten() for v in of_neurons]
    gradient = surrogate_of(p) if neuron.spiking else None
    out, last, _ = fused_sequence.sequence(
        _flat(currents.to(precision), 2)[None],
        torch.stack([_flat(variable.to(precision), 1) for variable in variables.values()])[None],
        None if recurrent_weights is None or steps == 1 else recurrent_weights[None],
        torch.stack(stacked)[None],
        neuron.program,
        "heaviside" if gradient is None else gradient.fused(),
        1.0 if gradient is None else gradient.alpha,
        detach_reset,
        torch.is_grad_enabled(),
        kernel,
    )
    out = out.view(currents.shape)
    new = [variable.reshape(currents.shape[1:]).clone() for variable in last.unbind(1)]
    return out, neuron.State(*new) if recurrent_weights is None else neuron.RecurrentState(out[-1].clone(), *new)


def input_currents(spikes: torch.Tensor, weights: torch.Tensor, kernel: str | None = None) -> torch.Tensor:
    """Return the currents that input spikes cause, for all time steps in one product.

    Args:
        spikes: shape (T, B, I), dense, or sparse in the COO layout. A sparse one costs the CPU kernel as many
            additions as there are spikes; the reference makes it dense.
        weights: shape (H, I).
        kernel: name of the kernel, or None for the fastest one that takes the input.

    Returns:
        Currents, shape (T, B, H).

    Raises:
        ValueError: if the kernel is unknown or cannot take the input, or a sparse input requires a gradient.
    """
    if not spikes.is_sparse:
        return linear(spikes, weights)
    if spikes.requires_grad:
        raise ValueError("input: expected sparse spikes without gradient, got some that require one; use .to_dense()")
    if choose(kernel, spikes) != "cpu":
        return linear(dense(spikes), weights)
    rows = fused.compressed(spikes)
    return fused.sparse_product(*rows, weights).view(*spikes.shape[:2], -1)


def dense(spikes: torch.Tensor) -> torch.Tensor:
    """Return sparse COO spikes as a dense tensor.

    Raises:
        ValueError: if the indices lie outside of the tensor or are not in order, although it says that they are; on a
            GPU a RuntimeError, when the host next waits for it.
    """
    indices, sizes = spikes._indices(), spikes.shape
    flat = torch.zeros_like(indices[0])
    for axis, size in zip(indices, sizes, strict=True):
        flat = flat * size + axis
    limits = torch.tensor(sizes, device=indices.device)[:, None]
    valid = ((indices >= 0) & (indices < limits)).all()
    if spikes.is_coalesced():
        valid = valid & (flat.diff() > 0).all()
    expected = f"input: expected indices within {tuple(sizes)} in the order of rows"
    if spikes.is_cuda:
        torch._assert_async(valid, expected)
    elif not valid:
        raise ValueError(f"{expected}, got others; build the tensor with check_invariants=True")
    return spikes.to_dense()


def sparse_spikes(
    x: torch.Tensor, steps: int, a: torch.Tensor, v_leak: torch.Tensor, v_th: torch.Tensor, v_reset: torch.Tensor
) -> torch.Tensor:
    """Return the spikes of neurons that constant currents drive, see `snnparams.constant_current_lif_encode`.

    Args:
        x: currents, any shape, on a CPU.
        steps: number of time steps T.
        a: time step over membrane time constant, broadcast against `x` like the other parameters.
        v_leak: leak voltage.
        v_th: threshold voltage.
        v_reset: voltage after a spike.

    Returns:
        A coalesced sparse COO tensor, shape (T, ...).

    Raises:
        ValueError: if a gradient is required, or the kernel cannot take the input.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, a, v_leak, v_th, v_reset)):
        raise ValueError("input: expected values and parameters without gradient for layout torch.sparse_coo")
    choose("cpu", x)
    rows, columns = math.prod(x.shape[:-1]), x.shape[-1] if x.dim() else 1
    given = [t.expand(x.shape).reshape(rows, columns) for t in (x, a, v_leak, v_th, v_reset)]
    indices = fused.encode(given[0], steps, *given[1:])
    if x.dim() != 2:
        step, row, column = indices
        indices = torch.stack([step, *torch.unravel_index(row * columns + column, x.shape)])
    ones = torch.ones(indices.shape[1], dtype=x.dtype)
    return torch.sparse_coo_tensor(indices, ones, (steps, *x.shape), check_invariants=False, is_coalesced=True)


def dense_spikes(
    x: torch.Tensor, steps: int, a: torch.Tensor, v_leak: torch.Tensor, v_th: torch.Tensor, v_reset: torch.Tensor
) -> torch.Tensor:
    """Return the spikes of neurons that constant currents drive, on a CUDA GPU, as a dense tensor without gradient.

    Arguments and errors are those of `sparse_spikes`.
    """
    choose("triton", x)
    return fused.encode_dense(x, steps, *(t.expand(x.shape) for t in (a, v_leak, v_th, v_reset)))
