r"""Distributions of neuron parameters, given in physical units by where they lie and how wide they are.

All are `torch.distributions`. The width is the *coefficient of variation* :math:`c`, standard deviation over mean,
which has no unit; log-uniform and truncated normal ones take their ends or their scale instead. Give a time constant's
distribution in seconds to `tau_mem` or `tau_syn`, that of a rate in 1/s to `tau_mem_inv` or `tau_syn_inv`. Values are
drawn on the CPU, whatever the default device; a layer moves them to its own.
Explained in chapter 2.
"""

from __future__ import annotations

import copy
import math
from typing import TypeGuard

import torch
from torch.distributions import (
    Distribution,
    Gamma,
    Independent,
    LogNormal,
    MixtureSameFamily,
    TransformedDistribution,
    Uniform,
    constraints,
)
from torch.distributions.transforms import ExpTransform, PowerTransform

from snnparams.parameters.settings import is_number


def _centre(mean: float | None, median: float | None) -> float:
    """Return the one of the two that was given, checked."""
    if (mean is None) == (median is None):
        raise ValueError(f"expected either a mean or a median, got mean={mean} and median={median}")
    name, value = ("mean", mean) if median is None else ("median", median)
    if not (is_number(value) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive, finite number, got {value}")
    return float(value)


def _check_variation(variation: float, limit: float = math.inf, why: str = "") -> None:
    if not (is_number(variation) and math.isfinite(variation) and 0 < variation < limit):
        raise ValueError(f"variation: expected a positive, finite number{why}, got {variation}")


class _LogNormal(LogNormal):
    """PyTorch's, which says in which numbers it lies and not only what it is called."""

    def __repr__(self) -> str:
        return described(self)


def log_normal(*, median: float | None = None, mean: float | None = None, variation: float) -> LogNormal:
    r"""Return a log-normal distribution: the logarithm is normal, with :math:`\sigma^2 = \ln(1 + c^2)`.

    Its reciprocal is log-normal as well, with the reciprocal median and the same variation.

    Args:
        median: positive, in the unit of the values; :math:`\mu = \ln(median)`.
        mean: instead of the median; :math:`\mu = \ln(mean) - \sigma^2 / 2`.
        variation: coefficient of variation :math:`c`, positive.

    Raises:
        ValueError: if not exactly one of median and mean is given, or a number is out of range.
    """
    centre = _centre(mean, median)
    _check_variation(variation)
    variance = math.log1p(variation**2)
    with torch.device("cpu"):
        return _LogNormal(math.log(centre) - (0.0 if mean is None else variance / 2), math.sqrt(variance))


def gamma(*, median: float | None = None, mean: float | None = None, variation: float) -> Gamma:
    r"""Return a gamma distribution of shape :math:`1 / c^2`.

    Args:
        median: positive, in the unit of the values.
        mean: instead of the median.
        variation: coefficient of variation :math:`c`, positive.

    Raises:
        ValueError: if not exactly one of median and mean is given, or a number is out of range.
    """
    centre = _centre(mean, median)
    _check_variation(variation)
    shape = 1 / variation**2
    if mean is None:
        from scipy.special import gammaincinv  # slow to import

        centre *= shape / float(gammaincinv(shape, 0.5))  # mean over median
    with torch.device("cpu"):
        return Gamma(shape, shape / centre)


def uniform(*, median: float | None = None, mean: float | None = None, variation: float) -> Uniform:
    r"""Return a uniform distribution around a median, as wide as a coefficient of variation says.

    It reaches from :math:`1 - \sqrt 3 c` to :math:`1 + \sqrt 3 c` times the median, which is its mean as well.

    Args:
        median: positive, in the unit of the values. It equals the mean.
        mean: instead of the median.
        variation: coefficient of variation :math:`c`, positive and below :math:`1 / \sqrt 3`.

    Raises:
        ValueError: if not exactly one of median and mean is given, or a number is out of range.
    """
    centre = _centre(mean, median)
    _check_variation(variation, 1 / math.sqrt(3), " below 1 / sqrt(3) = 0.577")
    with torch.device("cpu"):
        return Uniform(centre * (1 - math.sqrt(3) * variation), centre * (1 + math.sqrt(3) * variation))


class LogUniform(TransformedDistribution):
    """A distribution whose logarithm is uniform: every factor of two is as likely as any other. See `log_uniform`."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, low: float, high: float) -> None:
        with torch.device("cpu"):
            super().__init__(Uniform(math.log(low), math.log(high)), ExpTransform())
        self.low, self.high = float(low), float(high)

    @property
    def mean(self) -> torch.Tensor:
        r"""Return :math:`(high - low) / \ln(high / low)`."""
        return torch.tensor((self.high - self.low) / math.log(self.high / self.low), device="cpu")

    @property
    def variance(self) -> torch.Tensor:
        """Return the mean square less the square of the mean."""
        square = (self.high**2 - self.low**2) / (2 * math.log(self.high / self.low))
        return torch.tensor(square, device="cpu") - self.mean**2

    def __repr__(self) -> str:
        return f"LogUniform(low={self.low:g}, high={self.high:g})"


def log_uniform(*, low: float, high: float) -> LogUniform:
    r"""Return a distribution whose logarithm is uniform, :math:`p(x) = 1 / (x \ln(high / low))`.

    For time constants of unknown scale. Its reciprocal is log-uniform as well. Its median is the root of `low` times
    `high`.

    Args:
        low: smallest value, positive, in the unit of the values.
        high: largest value, above it.

    Raises:
        ValueError: if not 0 < low < high, or one is not finite.
    """
    for name, value in (("low", low), ("high", high)):
        if not (is_number(value) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive, finite number, got {value}")
    if low >= high:
        raise ValueError(f"low, high: expected low below high, got {low:g} and {high:g}")
    return LogUniform(low, high)


class TruncatedNormal(Distribution):
    r"""A normal distribution, restricted to an interval: :math:`p(x) \propto e^{-(x - loc)^2 / 2 scale^2}`.

    Args:
        loc: mean of the normal distribution before it is cut.
        scale: its standard deviation, positive.
        low: lower end of the interval, or minus infinity.
        high: upper end, or infinity.

    Raises:
        ValueError: if the interval is empty or holds less than one part in a million of the normal distribution.
    """

    has_rsample = True
    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(self, loc: float, scale: float, low: float = -math.inf, high: float = math.inf) -> None:
        self.loc, self.scale = (torch.tensor(float(number), device="cpu") for number in (loc, scale))
        self.low, self.high = float(low), float(high)
        super().__init__(torch.Size(), validate_args=None)
        ends = torch.tensor([self.low, self.high], dtype=torch.float64, device="cpu")
        self._from, self._to = self._normal_cdf(ends).tolist()
        if not self._to - self._from > 1e-6:
            raise ValueError(
                f"expected an interval that holds part of a normal distribution around {loc} +- {scale}, "
                f"got {low} to {high}"
            )

    def __repr__(self) -> str:
        return f"TruncatedNormal(loc={self.loc:g}, scale={self.scale:g}, low={self.low:g}, high={self.high:g})"

    @property
    def support(self) -> constraints.Constraint:
        """Return the interval."""
        return constraints.interval(self.low, self.high)

    def _normal_cdf(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to("cpu").double()  # Apple's GPUs have no float64
        return torch.special.ndtr((x - self.loc.double()) / self.scale.double())

    def cdf(self, value: torch.Tensor) -> torch.Tensor:
        """Return the probability of a smaller value."""
        value = torch.as_tensor(value)
        share = (self._normal_cdf(value) - self._from) / (self._to - self._from)
        return share.clamp(0, 1).to(self.loc.dtype).to(value.device)

    def icdf(self, value: torch.Tensor) -> torch.Tensor:
        """Return the quantile."""
        value = torch.as_tensor(value)
        x = torch.special.ndtri(self._from + value.to("cpu").double() * (self._to - self._from))
        x = (self.loc.double() + self.scale.double() * x).clamp(self.low, self.high)
        return x.to(self.loc.dtype).to(value.device)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the density; minus infinity outside the interval."""
        value = torch.as_tensor(value)
        x = (value - self.loc) / self.scale
        log_p = -(x**2) / 2 - math.log(self.scale.item() * math.sqrt(2 * math.pi) * (self._to - self._from))
        inside = (value >= self.low) & (value <= self.high)
        return torch.where(inside, log_p, -math.inf).to(self.loc.dtype)

    def rsample(self, sample_shape=torch.Size()) -> torch.Tensor:  # noqa: B008
        """Draw values."""
        return self.icdf(torch.rand(sample_shape, dtype=torch.float64, device="cpu"))


def bounds(distribution: Distribution) -> tuple[float, float]:
    """Return the ends of the interval in which all values of a distribution lie."""
    if isinstance(distribution, LogUniform):
        return distribution.low, distribution.high  # as declared: exp(log(x)) is not x
    if isinstance(distribution, TransformedDistribution) and all(t.bijective for t in distribution.transforms):
        ends = torch.tensor(bounds(distribution.base_dist), dtype=torch.float64, device="cpu")
        for transform in distribution.transforms:
            ends = transform(ends)
        return min(ends.tolist()), max(ends.tolist())
    if isinstance(distribution, MixtureSameFamily):  # its support does not say where it ends
        return bounds(distribution.component_distribution)
    if isinstance(distribution, Independent):
        return bounds(distribution.base_dist)
    support = distribution.support
    low, high = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
    return float(torch.as_tensor(low, device="cpu").min()), float(torch.as_tensor(high, device="cpu").max())


def _is_reciprocal(distribution: Distribution) -> TypeGuard[TransformedDistribution]:
    """Return whether a distribution is what `reciprocal` makes of another."""
    transforms = distribution.transforms if isinstance(distribution, TransformedDistribution) else []
    return len(transforms) == 1 and isinstance(transforms[0], PowerTransform) and bool(transforms[0].exponent == -1)


def described(distribution: Distribution) -> str:
    """Return a distribution as text, with the numbers that say where it lies and how wide it is."""
    if isinstance(distribution, TransformedDistribution) and not isinstance(distribution, LogNormal):
        if _is_reciprocal(distribution):
            return f"1 / {described(distribution.base_dist)}"
    elif isinstance(distribution, LogNormal):
        if distribution.batch_shape:
            return f"LogNormal of shape {tuple(distribution.batch_shape)}"
        median, variation = distribution.loc.exp().item(), math.sqrt(math.expm1(distribution.scale.item() ** 2))
        return f"LogNormal(median={median:.4g}, variation={variation:.4g})"
    elif isinstance(distribution, Gamma) and not distribution.batch_shape:
        variation = distribution.concentration.item() ** -0.5
        return f"Gamma(mean={distribution.mean.item():.4g}, variation={variation:.4g})"
    elif isinstance(distribution, MixtureSameFamily):
        return f"Mixture of {described(distribution.component_distribution)}"
    elif isinstance(distribution, Uniform) and not distribution.batch_shape:
        return f"Uniform({distribution.low.item():.4g}, {distribution.high.item():.4g})"
    return repr(distribution)


def reciprocal(distribution: Distribution) -> Distribution:
    r"""Return the distribution of :math:`1/x`: that of a rate from that of a time constant, and back.

    Raises:
        ValueError: if values of the distribution can be negative.
    """
    if _is_reciprocal(distribution):
        return distribution.base_dist
    low, high = bounds(distribution)
    if low < 0:
        raise ValueError(
            f"expected a distribution of positive values, got {described(distribution)} from {low:g} to {high:g}"
        )
    return TransformedDistribution(distribution, PowerTransform(torch.tensor(-1.0, device="cpu")))


def _unchecked(distribution: Distribution) -> Distribution:
    """Return a distribution that also answers beyond its support: where one neuron's ends, another's may go on."""
    found = copy.copy(distribution)
    found._validate_args = False
    for name, part in vars(found).items():
        if isinstance(part, Distribution):
            setattr(found, name, _unchecked(part))
    return found


def probability_outside(distribution: Distribution, low: float, high: float) -> float:
    """Return the probability of a value that is not between `low` and `high`; NaN where the distribution has no cdf.

    Of several distributions, one per neuron, it is the largest.
    """
    least, most = bounds(distribution)
    distribution = _unchecked(distribution)

    def below(x: float) -> torch.Tensor:
        if not least < x < most:  # where some distributions have no answer
            return torch.tensor(float(x >= most), dtype=torch.float64, device="cpu")
        return torch.as_tensor(distribution.cdf(torch.tensor(x, device="cpu")), device="cpu").double().clamp(0, 1)

    try:
        return float((below(low) + 1 - below(high)).max())
    except NotImplementedError:
        return math.nan


def __dir__() -> list[str]:
    return [
        name for name, value in globals().items() if getattr(value, "__module__", "") == __name__ and name[0] != "_"
    ]
