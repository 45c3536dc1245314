"""A search over knobs that gives every kind of network the same number of tries, and ends at no edge.

A knob is a number on a ladder: a start times a factor to a whole power, so that no ladder has an end. A search first
tries given places, then the neighbours, one step up or down one knob, of the best place so far. A best place whose
neighbours have all been tried lies at no edge: every knob was turned both ways. Explained in chapter 6.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

Place = tuple[int, ...]  # a power for each knob


@dataclasses.dataclass(frozen=True)
class Knob:
    """A ladder of values: `start` times `factor` to the power of ..., -1, 0, 1, ...

    Args:
        start: value at power 0.
        factor: from one rung to the next, more than 1.
        low: there is no rung below this value; the knob's natural end, where there is one (a spread of 1).
        high: there is no rung above it.
    """

    start: float
    factor: float = 2.0
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if not (self.factor > 1 and self.low <= self.start <= self.high and self.start > 0):
            raise ValueError(f"knob: expected a factor above 1 and low <= start <= high, got {self}")

    def value(self, power: int) -> float | None:
        """Return the value at a power, to four digits, or None beyond a natural end."""
        found = float(f"{self.start * self.factor**power:.4g}")
        return found if self.low <= found <= self.high else None


def values(knobs: Mapping[str, Knob], place: Place) -> dict[str, float]:
    """Return the value of each knob at a place.

    Raises:
        ValueError: if the place lies beyond a natural end, or has another number of powers.
    """
    found = {name: knob.value(power) for (name, knob), power in zip(knobs.items(), place, strict=True)}
    if outside := [name for name, value in found.items() if value is None]:
        raise ValueError(f"place: expected one on the ladders, got {place}, where {outside[0]} has no value")
    return {name: value for name, value in found.items() if value is not None}


def neighbours(knobs: Mapping[str, Knob], place: Place) -> list[Place]:
    """Return the places one step away, those beyond a natural end left out."""
    found = []
    for k, knob in enumerate(knobs.values()):
        for step in (1, -1):
            if knob.value(place[k] + step) is not None:
                found.append((*place[:k], place[k] + step, *place[k + 1 :]))
    return found


def best(scores: Mapping[Place, float]) -> Place:
    """Return the place with the highest score; of equal ones the first that was tried."""
    return max(scores, key=scores.__getitem__)


def enclosed(knobs: Mapping[str, Knob], scores: Mapping[Place, float]) -> bool:
    """Return whether all neighbours of the best place have been tried: it lies at no edge."""
    return all(place in scores for place in neighbours(knobs, best(scores)))


def next_places(
    knobs: Mapping[str, Knob], first: Sequence[Place], scores: Mapping[Place, float], tries: int
) -> list[Place]:
    """Return what to try next: the first places, then the untried neighbours of the best, then of the second best, ...

    Args:
        knobs: the ladders.
        first: places to begin with.
        scores: what was found at the places that have been tried.
        tries: how many places may be tried in all.

    Returns:
        Places that can be tried at once; none when all tries are spent.

    Raises:
        ValueError: if there are more first places than tries.
    """
    if len(set(first)) > tries:
        raise ValueError(f"tries: expected at least as many as first places, {len(set(first))}, got {tries}")
    left = tries - len(scores)
    missing = [place for place in dict.fromkeys(first) if place not in scores]
    if missing or left <= 0:
        return missing[: max(0, left)]
    for place in sorted(scores, key=scores.__getitem__, reverse=True):
        untried = [other for other in neighbours(knobs, place) if other not in scores]
        if untried:
            return untried[:left]
    return []
