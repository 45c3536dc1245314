"""Compare conditions over seeds: intervals, paired differences, exact tests, and their correction for being many.

The unit is the seed: one number per seed and condition. Explained in chapter 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

MOST_EXACT = 15  # seeds up to which all 2^n combinations of signs are counted
RESAMPLES = 100_000  # random combinations of signs beyond that
BOOTSTRAP_SAMPLES = 10_000


class Interval(NamedTuple):
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """How one condition differs from another, seed by seed."""

    mean: float  # of the differences
    low: float  # bootstrap interval of that mean
    high: float
    effect: float  # mean over standard deviation of the differences (Cohen's d_z)
    p: float  # two-sided, of the exact paired permutation test
    n: int  # number of seeds


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"{name}: expected at least two finite numbers, got {x.tolist()}")
    return x


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of some numbers with a bootstrap interval (bias-corrected and accelerated, BCa).

    With about ten numbers it is somewhat too short: of intervals at a level of 95 %, about 90 % hold the true mean.

    Args:
        values: at least two, one per seed.
        level: of confidence.

    Raises:
        ValueError: if there are fewer than two values, one is not finite, or the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    x = _numbers("values", values)
    mean = float(x.mean())
    if np.ptp(x) <= 1e-12 * abs(mean):  # the bootstrap of equal numbers is no distribution
        return Interval(mean, mean, mean)
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=BOOTSTRAP_SAMPLES, rng=np.random.default_rng(0)
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def permutation_test(differences: ArrayLike) -> float:
    """Return how likely a mean difference of at least that size is, were the sign of each difference random.

    Up to 15 differences all :math:`2^n` combinations of signs are counted, so that the result is exact and never below
    2 / 2^n; for more, 100,000 random ones.

    Args:
        differences: of two conditions, one per seed; at least two.

    Returns:
        The two-sided p-value.

    Raises:
        ValueError: if there are fewer than two, or one is not finite.
    """
    d = _numbers("differences", differences)
    how = (
        {"n_resamples": np.inf} if len(d) <= MOST_EXACT else {"n_resamples": RESAMPLES, "rng": np.random.default_rng(0)}
    )
    test = stats.permutation_test((d,), np.mean, permutation_type="samples", vectorized=True, batch=2**12, **how)
    return float(test.pvalue)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> Difference:
    """Compare two conditions by the seeds that they share: all seeds, or it is refused.

    A p-value never comes alone: with the mean difference come its interval and the size of the effect.

    Args:
        a: a number by seed.
        b: the numbers of the condition to compare with, by seed.
        level: of the interval.

    Returns:
        The difference a - b.

    Raises:
        ValueError: if the seeds differ, there are fewer than two, a number is not finite, or the level is not between 0
            and 1.
    """
    if set(a) != set(b):
        only = sorted(set(a) ^ set(b))
        raise ValueError(f"seeds: expected the same in both conditions, got {only} in one of them only")
    d = _numbers("differences", [a[seed] - b[seed] for seed in sorted(a)])
    mean, low, high = mean_interval(d, level)
    spread = d.std(ddof=1)
    if spread <= 1e-12 * abs(mean):
        effect = float(np.sign(mean) * np.inf) if mean else 0.0
    else:
        effect = float(mean / spread)
    return Difference(mean, low, high, effect, permutation_test(d), len(d))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for the number of tests by Holm's method: the chance of any false positive is kept.

    Args:
        p: p-values by name.

    Raises:
        ValueError: if one is not between 0 and 1.
    """
    if bad := {name: value for name, value in p.items() if not 0 <= value <= 1}:
        raise ValueError(f"p: expected values from 0 to 1, got {bad}")
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p}


def compare(conditions: Mapping[str, Mapping[int, float]], baseline: str, level: float = 0.95) -> dict[str, Difference]:
    """Compare all conditions with a baseline; p-values are corrected by Holm's method.

    Args:
        conditions: numbers by condition and seed.
        baseline: the condition to compare with.
        level: of the intervals, which are not corrected.

    Raises:
        ValueError: if the baseline is none of the conditions, seeds differ, or the level is not between 0 and 1.
    """
    if baseline not in conditions:
        raise ValueError(f"baseline: expected one of {', '.join(conditions)}, got {baseline!r}")
    found = {
        name: paired_difference(values, conditions[baseline], level)
        for name, values in conditions.items()
        if name != baseline
    }
    p = holm({name: difference.p for name, difference in found.items()})
    return {name: difference._replace(p=p[name]) for name, difference in found.items()}
