"""Predictions that were written down before an experiment, and what became of them. Explained in chapter 6."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from snnparams.experiments.statistics import Contrast, mean_contrast


class Outcome(NamedTuple):
    """What became of a prediction."""

    verdict: str  # "hit", "miss", "undecided", or "not run"
    contrast: Contrast | None


def decide(prediction: Mapping, rows: Iterable[Mapping], level: float = 0.95) -> Outcome:
    """Say whether a prediction came true.

    Args:
        prediction: with `contrast`, a list of stage, task, condition and weight; `measure`, the name of what is
            weighted; and `low` and `high`, the interval that was predicted, None for no bound.
        rows: results, each with `stage`, `task`, `condition`, `seed` and that measure.
        level: of the confidence interval of the contrast, paired by the seeds that all its conditions share.

    Returns:
        A hit if the confidence interval lies within the predicted one, a miss if they have no number in common, else
        undecided. Not run, if a condition has fewer than two seeds in common with the others.

    Raises:
        ValueError: if two rows are of one stage, task, condition and seed, or the interval is empty.
    """
    low, high = prediction["low"], prediction["high"]
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if not low < high:
        raise ValueError(f"{prediction['id']}: expected low < high, got {low} and {high}")
    wanted = {tuple(place): weight for *place, weight in prediction["contrast"]}
    found: dict[tuple, dict[int, float]] = {place: {} for place in wanted}
    for row in rows:
        place = row["stage"], row["task"], row["condition"]
        if place in found:
            if row["seed"] in found[place]:
                raise ValueError(f"rows: expected one for each seed, got two of {place}, seed {row['seed']}")
            found[place][row["seed"]] = row[prediction["measure"]]
    seeds = sorted(set.intersection(*(set(values) for values in found.values())))
    if len(seeds) < 2:
        return Outcome("not run", None)
    sums = [sum(weight * found[place][seed] for place, weight in wanted.items()) for seed in seeds]
    contrast = mean_contrast(sums, level)
    if low <= contrast.low and contrast.high <= high:
        return Outcome("hit", contrast)
    return Outcome("miss" if contrast.high < low or contrast.low > high else "undecided", contrast)
