"""Checks of what a module is built with besides its parameters: numbers of things, choices, times in seconds."""

from __future__ import annotations

import math
import numbers
from typing import Any, TypeGuard

LONGEST = 1.0  # s; a longer time was more likely meant in milliseconds


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a real number, of Python or of NumPy, and not True or False."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: Any, least: int = 1) -> bool:
    """Return whether a value is an integer, of Python or of NumPy, that is not too small."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def check_counts(**counts: int) -> None:
    """Check numbers of things, by name.

    Raises:
        ValueError: if one is not a positive integer.
    """
    for name, count in counts.items():
        if not is_whole(count):
            raise ValueError(f"{name}: expected a positive integer, got {count!r}")


def shape_of_population(size: int | tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the shape of a population of that size, if it is known.

    Raises:
        ValueError: if it is neither a positive integer nor a tuple of them.
    """
    if size is None:
        return None
    shape = size if isinstance(size, tuple) else (size,)
    if not all(is_whole(n) for n in shape):
        raise ValueError(f"size: expected a positive integer or a tuple of them, got {size!r}")
    return tuple(int(n) for n in shape)


def check_bool(**choices: bool) -> None:
    """Check choices between yes and no, by name.

    Raises:
        TypeError: if one is neither True nor False.
    """
    for name, choice in choices.items():
        if not isinstance(choice, bool):
            raise TypeError(f"{name}: expected True or False, got {choice!r}")


def check_seconds(name: str, kind: str, time: float, otherwise: str = "", limit: str = "at most") -> None:
    """Refuse a time that was meant in milliseconds.

    Args:
        name: of the argument.
        kind: what it is, "time constant" say.
        time: its value in s, or a typical or the largest one.
        otherwise: what to do if seconds were meant.
        limit: "at most" `LONGEST`, or "below" it.

    Raises:
        ValueError: if it is too long.
    """
    if time > LONGEST or (time == LONGEST and limit == "below"):
        expected = f"a {kind} in s, {limit} {LONGEST:g} s"
        raise ValueError(
            f"{name}: expected {expected}, got {time:g} s; were milliseconds meant, {time * 1e-3:g} s?{otherwise}"
        )


def check_dt(dt: float) -> float:
    """Return the time step `dt` in s as a float.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is not positive and finite, or as long as a second.
    """
    if not hasattr(dt, "__float__"):
        raise TypeError(f"dt: expected a time step in s, got {dt!r}")
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt: expected a positive, finite time step in s, got {dt}")
    check_seconds("dt", "time step", dt, limit="below")
    return float(dt)
