"""Distributions against those of SciPy: quantiles, moments, densities; and what reciprocals and bounds are."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import (
    AffineTransform,
    Beta,
    Categorical,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    Independent,
    LogNormal,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
    Uniform,
)

import snnparams as sp
from snnparams.parameters.distributions import (
    TruncatedNormal,
    bounds,
    gamma,
    log_normal,
    log_uniform,
    probability_outside,
    reciprocal,
    uniform,
)

QUANTILES = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
LOGARITHMS = [-5.3, -3.5]  # of 5 and 30 ms


def mixture(kind, *numbers):
    """Return one of two components, of equal probability."""
    return MixtureSameFamily(Categorical(torch.tensor([0.5, 0.5])), kind(*map(torch.tensor, numbers)))


def oracle(name, centre, value, c):
    """Return SciPy's distribution of that mean or median and coefficient of variation, found by its own means."""
    if name == "log_normal":
        s = math.sqrt(math.log(1 + c**2))
        scale = value if centre == "median" else value / math.exp(s**2 / 2)
        return stats.lognorm(s, scale=scale)
    if name == "gamma":
        standard = stats.gamma(1 / c**2)
        return stats.gamma(1 / c**2, scale=value / getattr(standard, centre)())
    half = math.sqrt(3) * c * value
    return stats.uniform(value - half, 2 * half)


@pytest.mark.parametrize("c", [0.1, 0.5, 1.2])
@pytest.mark.parametrize("value", [10e-3, 100.0])
@pytest.mark.parametrize("centre", ["mean", "median"])
@pytest.mark.parametrize("build", [log_normal, gamma, uniform])
def test_quantiles_and_moments(build, centre, value, c):
    if build is uniform and c > 0.57:
        with pytest.raises(ValueError, match="variation: expected a positive, finite number below 1 / sqrt"):
            uniform(mean=value, variation=c)
        return
    ours, theirs = build(**{centre: value}, variation=c), oracle(build.__name__, centre, value, c)
    assert getattr(theirs, centre)() == pytest.approx(value)
    assert theirs.std() / theirs.mean() == pytest.approx(c)
    at = theirs.ppf(QUANTILES)
    np.testing.assert_allclose(ours.cdf(torch.tensor(at, dtype=torch.float32)).numpy(), QUANTILES, rtol=1e-3)
    assert ours.mean.item() == pytest.approx(theirs.mean(), rel=1e-4)
    assert (ours.stddev / ours.mean).item() == pytest.approx(c, rel=1e-4)
    drawn = ours.sample((20_000,)).double().numpy()
    assert stats.kstest(drawn, theirs.cdf).pvalue > 1e-4
    assert drawn.min() > 0


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (0.0, math.inf), (-math.inf, 1.0), (1.0, 3.0)])
def test_truncated_normal(low, high):
    loc, scale = 0.3, 0.6
    ours = TruncatedNormal(loc, scale, low, high)
    theirs = stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)
    at = theirs.ppf(QUANTILES)
    np.testing.assert_allclose(ours.icdf(torch.tensor(QUANTILES)).numpy(), at, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.cdf(torch.tensor(at)).numpy(), QUANTILES, rtol=1e-4)
    np.testing.assert_allclose(ours.log_prob(torch.tensor(at)).numpy(), theirs.logpdf(at), rtol=1e-4, atol=1e-5)
    drawn = ours.sample((20_000,))
    assert drawn.dtype == torch.float32
    assert low <= drawn.min()
    assert drawn.max() <= high
    assert stats.kstest(drawn.double().numpy(), theirs.cdf).pvalue > 1e-4
    if math.isfinite(low):
        assert ours.log_prob(torch.tensor(low - 1)) == -math.inf
        assert ours.cdf(torch.tensor(low - 1)) == 0


def test_log_uniform():
    ours, theirs = log_uniform(low=0.005, high=0.2), stats.loguniform(0.005, 0.2)
    x = torch.from_numpy(theirs.ppf(QUANTILES))
    np.testing.assert_allclose(ours.cdf(x), QUANTILES, rtol=1e-5)
    np.testing.assert_allclose(ours.icdf(torch.from_numpy(QUANTILES)), theirs.ppf(QUANTILES), rtol=1e-5)
    np.testing.assert_allclose(ours.log_prob(x), theirs.logpdf(x), rtol=1e-5)
    assert ours.mean.item() == pytest.approx(theirs.mean())
    assert ours.variance.item() == pytest.approx(theirs.var(), rel=1e-4)
    drawn = ours.sample((4000,))
    assert stats.kstest(drawn.numpy(), theirs.cdf).pvalue > 1e-4
    assert repr(ours) == "LogUniform(low=0.005, high=0.2)"
    layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(ours)), size=50)
    tau = layer.p.tau_mem.detach()
    assert 0.005 <= tau.min() < 0.02 < 0.05 < tau.max() <= 0.2


def test_reciprocal_of_a_time_constant_is_the_distribution_of_the_rate():
    tau = gamma(mean=10e-3, variation=0.4)
    rate = reciprocal(tau)
    theirs = stats.invgamma(1 / 0.4**2, scale=1 / 0.4**2 / 10e-3)
    at = torch.tensor(theirs.ppf(QUANTILES), dtype=torch.float32)
    np.testing.assert_allclose(rate.cdf(at).numpy(), QUANTILES, rtol=1e-3)
    assert stats.kstest(rate.sample((20_000,)).double().numpy(), theirs.cdf).pvalue > 1e-4
    twice = reciprocal(log_normal(median=10e-3, variation=0.5))
    same = log_normal(median=100.0, variation=0.5)
    np.testing.assert_allclose(twice.cdf(at).numpy(), same.cdf(at).numpy(), rtol=1e-3)


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (Normal(0.0, 1.0), (-math.inf, math.inf)),
        (LogNormal(0.0, 1.0), (0.0, math.inf)),
        (Gamma(1.0, 1.0), (0.0, math.inf)),
        (Exponential(1.0), (0.0, math.inf)),
        (HalfNormal(1.0), (0.0, math.inf)),
        (HalfCauchy(1.0), (0.0, math.inf)),
        (Uniform(2.0, 4.0), (2.0, 4.0)),
        (Uniform(torch.tensor([2.0, 1.0]), torch.tensor([4.0, 8.0])), (1.0, 8.0)),
        (Beta(1.0, 2.0), (0.0, 1.0)),
        (TruncatedNormal(0.0, 1.0, -1.0, 2.0), (-1.0, 2.0)),
        (log_uniform(low=0.005, high=0.2), (0.005, 0.2)),
        (reciprocal(log_uniform(low=0.005, high=0.2)), (5.0, 200.0)),
        (reciprocal(Uniform(2.0, 4.0)), (0.25, 0.5)),
        (reciprocal(LogNormal(0.0, 1.0)), (0.0, math.inf)),
        (reciprocal(HalfNormal(1.0)), (0.0, math.inf)),
        (mixture(LogNormal, LOGARITHMS, [0.2, 0.2]), (0.0, math.inf)),
        (mixture(Normal, LOGARITHMS, [0.2, 0.2]), (-math.inf, math.inf)),
        (reciprocal(mixture(Uniform, [2.0, 8.0], [4.0, 10.0])), (0.1, 0.5)),
        (Independent(LogNormal(torch.zeros(3), 1.0), 1), (0.0, math.inf)),
    ],
)
def test_bounds(distribution, expected):
    assert bounds(distribution) == pytest.approx(expected)


def test_probability_outside():
    assert probability_outside(Uniform(0.0, 10.0), 1.0, 9.0) == pytest.approx(0.2)
    assert probability_outside(Uniform(0.0, 10.0), -5.0, 20.0) == 0
    assert probability_outside(Normal(0.0, 1.0), -1.0, 1.0) == pytest.approx(2 * stats.norm.cdf(-1), rel=1e-4)
    assert probability_outside(reciprocal(LogNormal(0.0, 1.0)), 0.0, math.e) == pytest.approx(
        stats.norm.cdf(-1), rel=1e-3
    )
    assert math.isnan(probability_outside(Beta(1.0, 2.0), 0.1, 0.9))  # no cdf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_normal(variation=0.5), "expected either a mean or a median, got mean=None and median=None"),
        (lambda: gamma(mean=1.0, median=1.0, variation=0.5), "expected either a mean or a median, got mean=1.0"),
        (lambda: gamma(mean=-1.0, variation=0.5), "mean: expected a positive, finite number, got -1.0"),
        (lambda: log_normal(median=math.inf, variation=0.5), "median: expected a positive, finite number, got inf"),
        (lambda: log_normal(median="1", variation=0.5), "median: expected a positive, finite number, got 1"),
        (lambda: gamma(mean=1.0, variation=0), "variation: expected a positive, finite number, got 0"),
        (lambda: uniform(mean=1.0, variation=0.6), "variation: expected a positive, finite number below 1 / sqrt(3)"),
        (lambda: log_uniform(low=0, high=1.0), "low: expected a positive, finite number, got 0"),
        (lambda: log_uniform(low=1.0, high=math.inf), "high: expected a positive, finite number, got inf"),
        (lambda: log_uniform(low=2.0, high=1.0), "low, high: expected low below high, got 2 and 1"),
        (lambda: TruncatedNormal(0, 1, 2, 1), "expected an interval that holds part of a normal distribution"),
        (lambda: TruncatedNormal(0, 1, 9, 10), "expected an interval that holds part of a normal distribution"),
        (lambda: reciprocal(Normal(1.0, 0.1)), "expected a distribution of positive values, got Normal"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_drawn_parameters_follow_their_distribution():
    tau, v_th = gamma(mean=12e-3, variation=0.4), TruncatedNormal(0.5, 0.2, 0.1, 1.0)
    p = sp.LIFParameters(tau_mem=sp.Learned(tau), tau_syn=log_normal(median=5e-3, variation=0.3), v_th=v_th)
    layer = sp.LIF(p, size=20_000)
    mem, syn = oracle("gamma", "mean", 12e-3, 0.4), oracle("log_normal", "median", 5e-3, 0.3)
    assert stats.kstest(layer.p.tau_mem.detach().double().numpy(), mem.cdf).pvalue > 1e-4
    assert stats.kstest(layer.p.tau_syn.double().numpy(), syn.cdf).pvalue > 1e-4
    assert isinstance(layer.p.raw("tau_mem_inv"), torch.nn.Parameter)
    assert not isinstance(layer.p.v_th, torch.nn.Parameter)


def test_a_negligible_tail_beyond_the_time_step_is_cut_off_and_a_large_one_refused():
    # 0.03 % of these time constants are shorter than the time step
    tau = log_normal(median=10e-3, variation=0.8)
    assert 1e-4 < probability_outside(reciprocal(tau), 0.0, 1000.0) < 1e-3
    layer = sp.LIF(sp.LIFParameters(tau_mem=tau), size=100_000)
    assert layer.p.tau_mem_inv.max() < 1000
    kept = oracle("log_normal", "median", 10e-3, 0.8)
    assert layer.p.tau_mem.median().item() == pytest.approx(kept.median(), rel=0.02)
    for wide, message in (
        (log_normal(median=5e-3, variation=1.0), "of which 2.66% lie outside"),
        (uniform(mean=2e-3, variation=0.5), "lie outside"),
        (Uniform(0.999e-3, 0.5), "lie outside"),  # a support that ends outside, however little of it
    ):
        with pytest.raises(
            ValueError, match=f"tau_mem: expected a distribution .* from 0.001 to .* s, got .*{message}"
        ):
            sp.LIF(sp.LIFParameters(tau_mem=wide), size=3)


def test_the_ends_of_a_log_uniform_distribution_are_those_declared():
    for k in range(1, 200):
        low, high = 1e-3 * k / 7, 0.3 * k / 7
        assert bounds(log_uniform(low=low, high=high)) == (low, high)
        assert bounds(reciprocal(log_uniform(low=low, high=high))) == pytest.approx((1 / high, 1 / low), rel=1e-12)


def test_no_neuron_is_cut_off_by_a_distribution_that_lies_outside_for_it_alone():
    centres = torch.full((2000,), -4.6)
    centres[7] = -7.5
    share = stats.lognorm(0.3, scale=math.exp(-7.5)).cdf(1e-3)
    message = rf"tau_mem: expected .*, got LogNormal of shape \(2000,\), of which up to {share:.2%} lie outside"
    with pytest.raises(ValueError, match=message):
        sp.LIF(sp.LIFParameters(tau_mem=LogNormal(centres, 0.3)), size=2000)
    # an end that lies within the support of one neuron and beyond that of another
    apart = Uniform(torch.tensor([0.5e-3, 5e-3]), torch.tensor([6e-3, 7e-3]))
    assert probability_outside(apart, 1e-3, 6.5e-3) == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"tau_mem: expected .* of which up to 9\.09% lie outside"):
        sp.LIF(sp.LIFParameters(tau_mem=apart), size=2)


@pytest.mark.parametrize(
    ("distribution", "low", "high"),
    [
        (mixture(LogNormal, LOGARITHMS, [0.2, 0.2]), *(stats.lognorm(0.2, 0, math.exp(x)) for x in LOGARITHMS)),
        (mixture(Gamma, [20.0, 20.0], [4000.0, 20 / 0.03]), stats.gamma(20, 0, 1 / 4000), stats.gamma(20, 0, 0.0015)),
        (mixture(Uniform, [2e-3, 0.02], [4e-3, 0.04]), stats.uniform(2e-3, 2e-3), stats.uniform(0.02, 0.02)),
    ],
    ids=["log-normal", "gamma", "uniform"],
)
def test_time_constants_of_two_groups(distribution, low, high):
    def cdf(x):
        return (low.cdf(x) + high.cdf(x)) / 2

    p = sp.LIFParameters(tau_mem=sp.Learned(distribution), tau_syn=distribution, v_th=distribution)
    assert re.search("tau_mem=Learned.Mixture of (LogNormal|Gamma|Uniform)", repr(p))
    layer = sp.LIF(p, size=4000)
    for drawn in (layer.p.tau_mem, layer.p.tau_syn, layer.p.v_th):
        assert stats.kstest(drawn.detach().double().numpy(), cdf).pvalue > 1e-4
    for end in (3e-3, 25e-3):
        rates = reciprocal(distribution)
        assert probability_outside(distribution, 0.0, end) == pytest.approx(1 - cdf(end), abs=1e-5)
        assert probability_outside(rates, 0.0, 1 / end) == pytest.approx(cdf(end), abs=1e-5)
    with pytest.raises(ValueError, match=r"tau_syn: expected .*, got Mixture of .*, of which .* lie outside"):
        sp.LIF(p, size=2, dt=0.02)
    of_any_sign = mixture(Normal, [0.01, 0.02], [0.1, 0.1])
    with pytest.raises(ValueError, match=r"tau_mem: expected a distribution of positive values, got .* from -inf"):
        sp.LIFParameters(tau_mem=of_any_sign)
    with pytest.raises(ValueError, match="expected a distribution of single numbers"):
        sp.LIFParameters(tau_mem=Independent(LogNormal(torch.full((3,), -5.0), 0.1), 1))


def test_time_constants_of_a_distribution_that_knows_neither_its_mean_nor_its_median():
    tau = TransformedDistribution(Gamma(2.0, 1.0), [AffineTransform(2e-3, 5e-3)])
    drawn = sp.LIF(sp.LIFParameters(tau_mem=tau), size=4000).p.tau_mem
    assert stats.kstest(drawn.double().numpy(), stats.gamma(2, 2e-3, 5e-3).cdf).pvalue > 1e-4
