"""Constraints: whatever an optimiser does, values stay valid, gradients are not zero, and values come back."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from test_modules import KINDS, inputs, run
from torch import nn

import snnparams as sp
from snnparams.parameters.constraints import Decay, Interval, Log, Softplus, bend, straighten

F64 = torch.float64
DT = 1e-3
VALUES = {"tau_syn_inv": 150.0, "tau_mem_inv": 90.0, "v_leak": 0.05, "v_th": 0.4, "v_reset": 0.1}
RATES = ("tau_syn_inv", "tau_mem_inv")


def constraint_for(how, name):
    return Interval(VALUES[name] / 2, 2 * VALUES[name]) if how == "interval" else how


def fields(kind):
    return list(VALUES) if kind.startswith("LIF") else list(VALUES)[:3]


def build(kind, learned, dtype=torch.float32, scale=1.0, shared=False, **options):
    """Return a module; `learned` maps names of parameters to names of constraints."""
    declared = {}
    for name in fields(kind):
        declared[name] = scale * VALUES[name] * torch.linspace(0.9, 1.1, 3, dtype=F64)
        if name in learned:
            value = declared[name][1].item() if shared else declared[name]
            declared[name] = sp.Learned(value, constraint_for(learned[name], name), shared=shared)
    p = sp.LIFParameters(**declared, alpha=5.0) if kind.startswith("LIF") else sp.LIParameters(**declared)
    if "Recurrent" in kind:
        return getattr(sp, kind)(4, 3, p, input_weights=torch.rand(3, 4) + 0.5, dtype=dtype, **options)
    return getattr(sp, kind)(p, dtype=dtype, size=3, **options)


CASES = [
    (kind, name, how)
    for kind in KINDS
    for name in fields(kind)
    for how in ("log", "softplus", "decay", "interval", "none")
    if how != "decay" or name in RATES
]


@pytest.mark.parametrize("shared", [False, True], ids=["per neuron", "shared"])
@pytest.mark.parametrize(("kind", "name", "how"), CASES)
def test_a_learned_parameter_is_listed_gets_a_gradient_and_moves_and_no_other_does(kind, name, how, shared):
    module = build(kind, {name: how}, shared=shared)
    stored = module.p.raw(name)
    assert stored.shape == (() if shared else (3,))
    listed = [n for n, parameter in module.named_parameters() if n.startswith("p.")]
    assert listed == [f"p.{name}" if how == "none" else f"p.parametrizations.{name}.original"]
    assert module.get_parameter(listed[0]) is stored
    before = {n: getattr(module.p, n).detach().clone() for n in fields(kind)}
    torch.testing.assert_close(before[name].mean().item(), VALUES[name], rtol=1e-5, atol=0)
    run(module, kind, inputs(kind)).backward()
    assert stored.grad.abs().min() > 0
    torch.optim.Adam(module.parameters(), lr=1e-2).step()
    for other in fields(kind):
        moved = getattr(module.p, other) != before[other]
        assert moved.all() if other == name else not moved.any(), other
    module.p.validate()


LEARNED = {
    how: {name: how for name in VALUES if how != "decay" or name in RATES} for how in ("log", "softplus", "interval")
}
LEARNED["decay"] = dict.fromkeys(RATES, "decay")


@pytest.mark.parametrize("how", LEARNED)
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=3)
@given(
    seed=st.integers(0, 2**16),
    drift=st.sampled_from([-1.0, 0.0, 1.0]),
    size=st.floats(-6, 6),
    dtype=st.sampled_from([torch.float32, F64]),
)
def test_stays_valid_after_a_thousand_wild_steps(kind, how, seed, drift, size, dtype):
    learned = {name: constraint for name, constraint in LEARNED[how].items() if name in fields(kind)}
    module = build(kind, learned, dtype)
    stored = [module.p.raw(name) for name in learned]
    optimizer = torch.optim.Adam(stored, lr=1.0, fused=True)
    noise = torch.randn(1000, len(stored), 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    for gradients in 10**size * (noise + drift * torch.tensor([1.0, -1.0, 1.0], dtype=dtype)):
        for parameter, gradient in zip(stored, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    module.p.validate()
    assert drift == 0 or stored[0].abs().max() > 300
    for name in learned:
        constraint, values = module.p.constraint(name), getattr(module.p, name)
        assert (values >= constraint.low * (1 - 1e-6)).all(), name
        assert (values <= constraint.high * (1 + 1e-6)).all(), name
        (slope,) = torch.autograd.grad(values.sum(), module.p.raw(name))
        assert (slope > 0).all(), name
    out, _ = module(inputs(kind, dtype))
    assert torch.isfinite(out).all()


def test_without_a_constraint_a_time_constant_leaves_its_range_and_that_is_noticed():
    module = build("LIF", {"tau_mem_inv": "none", "v_th": "none"})
    optimizer = torch.optim.Adam(module.parameters(), lr=1.0)
    for _ in range(200):
        for parameter in module.parameters():
            parameter.grad = torch.ones(3)
        optimizer.step()
    assert (module.p.v_th < 0).all()  # a voltage may be anything
    with pytest.raises(ValueError, match="tau_mem_inv: expected positive values"):
        module.p.validate()


MAPS = {
    "log of a rate": (Log(1e-12 / DT, (1 - 1e-4) / DT, 100.0), 1.01e-9, 999.0),
    "softplus of a rate": (Softplus(1e-12 / DT, (1 - 1e-4) / DT, 100.0), 1.01e-9, 999.0),
    "decay": (Decay(DT), 1.01e-9, 999.0),
    "log of a voltage": (Log(), 1.01e-6, 0.99e6),
    "softplus of a voltage": (Softplus(), 1.01e-6, 0.99e6),
    "interval": (Interval(1e-7, 1e5), 1.0, 0.9e5),
    "narrow interval": (Interval(50.0, 51.0), 50.01, 50.99),
    "interval of both signs": (Interval(-2.0, 3.0), -1.99, 2.99),
}


@pytest.mark.parametrize("name", MAPS)
def test_values_come_back_over_twelve_orders_of_magnitude(name):
    constraint, low, high = MAPS[name]
    ends = (math.log(low), math.log(high)) if low > 0 else (low, high)
    values = torch.linspace(*ends, 1001, dtype=F64)
    values = values.exp() if low > 0 else values
    theta = constraint.right_inverse(values)
    assert torch.isfinite(theta).all()
    assert (theta.diff() > 0).all()
    torch.testing.assert_close(constraint(theta), values, rtol=1e-9, atol=0)
    if "interval" not in name:
        assert high / low > 0.9e12
        single = constraint.right_inverse(values.float())
        made = constraint(theta.requires_grad_())
        (slope,) = torch.autograd.grad(made.sum(), theta)
        # one rounding of what is stored, enlarged by the slope, and a few of the map itself
        roundings = (theta * slope / made).abs().max().item() + 8
        rounding = torch.finfo(torch.float32).eps * roundings
        torch.testing.assert_close(constraint(single), values.float(), rtol=rounding, atol=0)


@pytest.mark.parametrize("name", MAPS)
def test_values_out_of_range_are_refused_with_the_range(name):
    constraint, _, _ = MAPS[name]
    for bad in (constraint.low, constraint.high, constraint.high * 2 + 1, constraint.low - 1, math.nan):
        with pytest.raises(ValueError, match=re.escape(f"expected values within the range of {constraint!r}")):
            constraint.right_inverse(torch.tensor([bad], dtype=F64))


@pytest.mark.parametrize("kind", [Log, Softplus])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_logarithms_need_positive_numbers(kind, bad):
    for name in ("low", "unit"):
        with pytest.raises(ValueError, match=f"{kind.name}: expected a positive, finite {name}, got {bad}"):
            kind(**{name: bad})


def test_between_the_bends_the_maps_are_their_formulas():
    x = torch.linspace(-5, 1.5, 50, dtype=F64)
    rate = Log(1e-9, 999.9, 100.0)
    torch.testing.assert_close(rate(x), 100 * x.exp(), rtol=1e-14, atol=0)
    torch.testing.assert_close(Softplus(1e-9, 999.9, 100.0)(x), 100 * torch.log1p(x.exp()), rtol=1e-12, atol=0)
    assert torch.equal(Decay(DT)(x) * DT, torch.sigmoid(x) / DT * DT)
    torch.testing.assert_close(Decay(DT)(x), torch.from_numpy(expit(x.numpy())) / DT, rtol=1e-12, atol=0)
    torch.testing.assert_close(Interval(-1, 4)(x), torch.from_numpy(-1 + 5 * expit(x.numpy())), rtol=1e-12, atol=1e-12)
    assert Decay(DT).right_inverse(torch.tensor(100.0, dtype=F64)).item() == pytest.approx(logit(0.1))
    assert rate.right_inverse(torch.tensor(100.0)) == 0


@settings(deadline=None)
@given(low=st.floats(-50, 50), width=st.floats(0.01, 100), x=st.floats(-5000, 5000))
def test_bending_is_smooth_increasing_and_undone_by_straightening(low, width, x):
    margin = 2.0 ** min(-1, math.floor(math.log2(width / 4)))
    ends = (low, low + width, margin)
    x = torch.tensor([x, x + 0.5], dtype=F64, requires_grad=True)
    u = bend(x, *ends)
    assert low < u[0] < u[1] < low + width
    (slope,) = torch.autograd.grad(u.sum(), x)
    assert (slope > 0).all()
    assert (slope <= 1).all()
    rounding = 4 * torch.finfo(F64).eps * max(abs(low), abs(low + width)) / slope  # of u, as it shows in x
    assert ((straighten(u, *ends) - x).abs() <= 1e-6 + 1e-4 * x.abs() + rounding).all()
    assert torch.autograd.gradcheck(lambda y: bend(y, *ends), x, eps=1e-4 * margin, atol=1e-3)


def test_a_users_own_constraint():
    class Square(nn.Module):
        def forward(self, x):
            return x**2

        def right_inverse(self, value):
            return value.sqrt()

    layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(20e-3, Square())), size=4)
    torch.testing.assert_close(layer.p.raw("tau_mem_inv").detach(), torch.full((4,), math.sqrt(50)))
    torch.testing.assert_close(layer.p.tau_mem.detach(), torch.full((4,), 20e-3))
    assert "(learned, Square())" in repr(layer)

    class Wrong(Square):
        def right_inverse(self, value):
            return value

    with pytest.raises(ValueError, match="tau_mem_inv: expected a constraint whose right_inverse is its inverse"):
        sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(20e-3, Wrong())), size=4)


class Gate(sp.LIFParameters):
    part = sp.voltage(default=0.5, low=0.25, high=1.0, constraint="log")

    def step(v, i, a, b, v_leak, v_th, v_reset, part, spike, reset):
        v = v + a * ((v_leak - v) + i)
        z = spike(v, v_th)
        return z, v - part * reset(z) * (v - v_reset), i - b * i


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("how", [None, "softplus"])
def test_a_parameter_between_bounds_is_learned_and_never_reaches_them(how, dtype):
    layer = sp.Layer(Gate(part=sp.Learned(0.5, how)), size=2, dtype=dtype)
    torch.testing.assert_close(layer.p.part.detach(), torch.full((2,), 0.5, dtype=dtype))
    with torch.no_grad():
        layer.p.raw("part").copy_(torch.tensor([-1e30, 1e30]))
    layer.p.validate()
    torch.testing.assert_close(layer.p.part.detach(), torch.tensor([0.25, 1.0], dtype=dtype), rtol=2e-5, atol=0)
    longest = sp.Delay(sp.Learned(5e-3, how or "log"), max_delay=5e-3, size=2, dtype=dtype)  # a bound that is valid
    torch.testing.assert_close(longest.p.delay.detach(), torch.full((2,), 5e-3, dtype=dtype))


class Careful(sp.Neuron):
    state = ("v",)
    tau_mem_inv = sp.rate(100.0, time="tau_mem", most_per_step=0.5)

    def constants(dt, tau_mem_inv):
        return {"a": dt * tau_mem_inv}

    def step(v, x, a):
        v = v + a * (x - v)
        return v, v


def test_a_constraint_beyond_the_limit_of_a_neuron_is_refused_by_name_as_the_module_is():
    for how in ("decay", Decay(DT)):
        with pytest.raises(ValueError, match=r"constraint decay: tau_mem: expected dt / tau_mem < 0\.5"):
            sp.Layer(Careful(tau_mem=sp.Learned(10e-3, how)), size=3)
    assert sp.Layer(Careful(tau_mem=sp.Learned(10e-3)), size=3).p.constraint("tau_mem_inv").high < 500
    assert sp.Layer(sp.neurons.ExactLIF(tau_mem=sp.Learned(10e-3, "decay")), size=3).p.constraint("tau_mem_inv")
