"""Long sequences in chunks: the backward pass computes each chunk again, from the state in which it began.

So of all that happens within a chunk nothing has to be kept meanwhile, and what is kept grows with the number of chunks
instead of that of steps. The price is a second forward pass, but for the last chunk: its backward pass comes first, so
that what it needs is kept. About the square root of T is a good length: then there are as many states as steps in a
chunk. (Gradient checkpointing: Griewank and Walther, 2000; Chen et al., 2016.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from snnparams.parameters.settings import check_counts

Compute = Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]]


def check_chunk(chunk: int | None) -> int | None:
    """Return the length of a chunk in steps, or None for none.

    Raises:
        ValueError: if it is neither None nor a positive integer.
    """
    if chunk is not None:
        check_counts(chunk=chunk)
    return chunk


def steps_of(x: torch.Tensor, begin: int, end: int) -> torch.Tensor:
    """Return some steps of a sequence (T, ...), dense or sparse."""
    if x.layout != torch.sparse_coo or x.requires_grad:  # sparse spikes with a gradient are refused where they are used
        return x[begin:end]
    x = x.coalesce()
    indices, values = x._indices(), x._values()
    first, last = torch.searchsorted(indices[0].contiguous(), torch.tensor([begin, end], device=x.device)).tolist()
    step, *where = indices[:, first:last]
    moved, shape = torch.stack([step - begin, *where]), (end - begin, *x.shape[1:])
    # what is said to be coalesced may not be: whether it is in order is checked by what multiplies it, as ever
    return torch.sparse_coo_tensor(moved, values[first:last], shape, check_invariants=False, is_coalesced=True)


def _checkpointed(compute: Compute, x: torch.Tensor, state: Any, random: bool) -> tuple[torch.Tensor, Any]:
    """Return what is computed, of which autograd keeps only x and the state."""
    from torch.utils.checkpoint import checkpoint  # loads more than an import of this package should

    if torch._C._functorch.maybe_current_level() is not None:
        raise RuntimeError(
            "chunk: expected None within an Ensemble and other transforms of torch.func, which cannot compute a chunk "
            "again; train the members one by one, or leave chunk out"
        )
    leaves, structure = tree_flatten(state)  # as arguments, so that autograd sees them

    def anew(x, *leaves):
        return compute(x, tree_unflatten(leaves, structure))

    return checkpoint(anew, x, *leaves, use_reentrant=False, preserve_rng_state=random)


def over_chunks(
    compute: Compute, x: torch.Tensor, state: Any, chunk: int | None, random: bool = False
) -> tuple[torch.Tensor, Any]:
    """Compute a sequence chunk by chunk.

    Args:
        compute: called with some steps of the sequence and a state, or None, it returns outputs and the new state.
        x: shape (T, ...), dense or in the sparse COO layout.
        state: state before the first step, or None.
        chunk: length of a chunk in steps, or None for the whole sequence at once.
        random: whether `compute` draws random numbers, which then are drawn once and used twice.

    Returns:
        Outputs (T, ...) and the state after the last step.

    Raises:
        RuntimeError: within a transform of `torch.func`, if there is to be a gradient.
    """
    if chunk is None or not isinstance(x, torch.Tensor) or not x.dim() or x.shape[0] <= chunk:
        return compute(x, state)
    if x.layout == torch.sparse_coo and not x.requires_grad:
        x = x.coalesce()  # once for all chunks
    outputs, steps = [], x.shape[0]
    for begin in range(0, steps, chunk):
        part = steps_of(x, begin, min(begin + chunk, steps))
        if torch.is_grad_enabled() and begin + chunk < steps:
            output, state = _checkpointed(compute, part, state, random)
        else:
            output, state = compute(part, state)
        outputs.append(output)
    return torch.cat(outputs), state


over_chunks_untraced: Any = torch._disable_dynamo(over_chunks)  # for what torch.compile does not look into anyway
