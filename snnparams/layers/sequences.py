"""Sequences of different lengths in one batch, and what a readout says at the end of each.

Sequences that are shorter than the longest are filled up with anything, NaN too. `lengths` says how many steps of each
count: a list of integers, or an integer tensor or array (B,), each from 1 to T. A `Sequential` and every layer take it.
What they return is zero behind the end of a sequence, and their state is that after the last step of each. In a graph
of `torch.compile`, which has to know how many steps there are, they are a list; other lengths are compiled anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from snnparams.layers import states
from snnparams.parameters.declared import plain

Lengths = Sequence[int] | torch.Tensor


def refuse_packed(x: Any) -> None:
    """Refuse a packed sequence, which holds its steps in another order.

    Raises:
        TypeError: with the function that gives what is expected.
    """
    if isinstance(x, PackedSequence):
        raise TypeError(
            "input: expected a tensor, got a PackedSequence; use torch.nn.utils.rnn.pad_packed_sequence, which gives "
            "the tensor and the lengths"
        )


def check_lengths(lengths: Lengths, x: torch.Tensor) -> list[int]:
    """Return lengths as integers.

    Args:
        lengths: steps of each sequence that count.
        x: the sequences, shape (T, B, ...).

    Raises:
        TypeError: if they are no integers, or the sequences are packed or sparse.
        ValueError: if there is not one for each sequence, or one is not from 1 to T.
    """
    refuse_packed(x)
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"input: expected a tensor (T, B, ...) where lengths are given, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise TypeError(f"input: expected a dense tensor where lengths are given, got {x.layout}; use .to_dense()")
    if isinstance(lengths, torch.Tensor) and (lengths.is_floating_point() or lengths.dtype == torch.bool):
        hint = "; a mask (T, B) is given as mask.sum(0)" if lengths.dtype == torch.bool else ""
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}{hint}")
    if isinstance(lengths, torch.Tensor) and torch.compiler.is_compiling():
        raise TypeError("lengths: expected a list of integers under torch.compile, got a tensor; give lengths.tolist()")
    if not isinstance(lengths, torch.Tensor | Sequence) and not hasattr(lengths, "tolist"):
        raise TypeError(f"lengths: expected one integer for each sequence, got {type(lengths).__name__}")
    listed = lengths.tolist() if hasattr(lengths, "tolist") else lengths
    if not isinstance(listed, Sequence):
        raise TypeError("lengths: expected one integer for each sequence, got a tensor without axes")
    found = [plain("lengths", n) for n in listed]
    if wrong := [n for n in found if type(n) is not int]:
        raise TypeError(f"lengths: expected integers, got {type(wrong[0]).__name__}")
    if x.dim() < 2 or len(found) != x.shape[1]:
        got = f"{len(found)} for an input of shape {tuple(x.shape)}"
        raise ValueError(f"lengths: expected one for each sequence of an input (T, B, ...), got {got}")
    if wrong := [n for n in found if not 1 <= n <= len(x)]:
        raise ValueError(f"lengths: expected 1 to {len(x)} steps, got {wrong[0]}")
    return found


def valid(lengths: Lengths, steps: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Return a mask (T, B), true in the steps that count.

    Args:
        lengths: steps of each sequence that count.
        steps: number of time steps T.
        device: device of the mask; that of the lengths if None.

    Raises:
        TypeError: if lengths are no integers.
        ValueError: if one is not from 1 to T.
    """
    device = device or (lengths.device if isinstance(lengths, torch.Tensor) else None)
    found = check_lengths(lengths, torch.empty(steps, len(lengths), device="meta"))
    return torch.arange(steps, device=device)[:, None] < torch.tensor(found, device=device)


def _mask_for(x: torch.Tensor, lengths: Lengths) -> torch.Tensor:
    mask = valid(check_lengths(lengths, x), len(x), x.device)
    return mask.view(*mask.shape, *[1] * (x.dim() - 2))


def without_padding(x: torch.Tensor, lengths: Lengths, fill: float = 0.0) -> torch.Tensor:
    """Return sequences (T, B, ...) with a number in all steps that do not count; no gradient passes there.

    Raises:
        TypeError: if lengths are no integers, or the sequences are packed or sparse.
        ValueError: if there is not one for each sequence, or one is not from 1 to T.
    """
    return torch.where(_mask_for(x, lengths), x, torch.full((), fill, dtype=x.dtype, device=x.device))


def last(x: torch.Tensor, lengths: Lengths) -> torch.Tensor:
    """Return the last step of each sequence that counts: (B, ...) of (T, B, ...).

    Raises:
        TypeError, ValueError: as `without_padding`.
    """
    found = check_lengths(lengths, x)
    rows = torch.arange(len(found), device=x.device)
    return x[torch.tensor(found, device=x.device) - 1, rows]


def mean(x: torch.Tensor, lengths: Lengths) -> torch.Tensor:
    """Return the mean over the steps of each sequence that count: (B, ...) of (T, B, ...).

    Raises:
        TypeError, ValueError: as `without_padding`.
    """
    mask = _mask_for(x, lengths)
    return without_padding(x, lengths).sum(dim=0) / mask.sum(dim=0)


def maximum(x: torch.Tensor, lengths: Lengths) -> torch.Tensor:
    """Return the maximum over the steps of each sequence that count: (B, ...) of (T, B, ...).

    Raises:
        TypeError, ValueError: as `without_padding`.
    """
    return without_padding(x, lengths, -torch.inf).amax(dim=0)


def _joined(parts: list) -> Any:
    """Return the state of a batch that consists of parts."""
    return tree_map(lambda *tensors: torch.cat(tensors), *parts)


def over_lengths(
    layer: Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]],
    x: torch.Tensor,
    state: Any,
    lengths: Lengths,
    apart: bool = False,
) -> tuple[torch.Tensor, Any]:
    """Compute sequences of different lengths by a layer that knows no lengths, and that carries a state.

    The batch is sorted by length; from the end of one sequence to that of the next, the layer computes those alone that
    go on. So it never sees padding, and spends no time on it: it is called as often as there are different lengths.

    Args:
        layer: called with sequences and a state, or None, it returns outputs and the new state.
        x: shape (T, B, ...).
        state: state before the first step, or None.
        lengths: steps of each sequence that count.
        apart: whether the steps that lead to the end of some sequences are computed apart from those of the others:
            for `method="adjoint"`, to which a spike in the last step of all has no gradient.

    Returns:
        Outputs (T, B, ...), zero behind the end of each sequence, and the state after the last step of each.

    Raises:
        TypeError, ValueError: as `without_padding`.
    """
    found = check_lengths(lengths, x)
    order = sorted(range(len(found)), key=lambda k: -found[k])
    rows = torch.tensor(order, device=x.device)
    x, state = x.index_select(1, rows), None if state is None else states.select(state, rows)
    outputs, ended, begin = [], [], 0
    for end in sorted(set(found)):
        going, staying = (sum(n >= least for n in found) for least in (end, end + 1))
        groups = (slice(staying), slice(staying, going)) if apart and staying else (slice(going),)
        done = [layer(x[begin:end, group], None if state is None else states.select(state, group)) for group in groups]
        rest = done[0][0].new_zeros(end - begin, len(found) - going, *done[0][0].shape[2:])
        outputs.append(torch.cat([*(output for output, _ in done), rest], dim=1))
        state = done[0][1]
        if len(groups) == 2:
            ended.append(done[1][1])
        else:
            ended.append(states.select(state, slice(staying, going)))
            state = states.select(state, slice(staying))
        begin = end
    outputs.append(outputs[0].new_zeros(len(x) - begin, *outputs[0].shape[1:]))
    back = torch.empty_like(rows)
    back[rows] = torch.arange(len(found), device=x.device)
    return torch.cat(outputs).index_select(1, back), states.select(_joined(ended[::-1]), back)


def __dir__() -> list[str]:
    return [
        name for name, value in globals().items() if getattr(value, "__module__", "") == __name__ and name[0] != "_"
    ]
