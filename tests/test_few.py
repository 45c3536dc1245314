"""Short sequences of few neurons: `snnparams.kernels.few` against the reference, and what it leaves to others."""

import pytest
import torch

import snnparams as sp
from snnparams.kernels import few
from snnparams.layers.cells import Cell, RecurrentCell
from snnparams.layers.layer import Layer, RecurrentLayer
from snnparams.neurons import (
    AdaptiveLIF,
    EFAdLIF,
    ExactLIF,
    LIFParameters,
    LIParameters,
    Neuron,
    SEAdLIF,
    SlopeLIF,
    SubtractiveLIF,
    rate,
    voltage,
)
from snnparams.neurons.surrogate import DERIVATIVES


class OfCurrent(Neuron):
    """A neuron whose step takes the input current itself, and whose constants take an exponential function."""

    state = ("v",)
    tau_inv = rate(100.0, time="tau")
    v_th = voltage(0.5)

    def constants(dt, tau_inv):
        return {"decay": torch.exp(-dt * tau_inv)}

    def step(x, v, decay, v_th, spike, reset):
        v = decay * v + x
        z = spike(v, v_th)
        return z, v - reset(z) * v_th


GAIN = 1.0


def of_decay(dt, rate):
    return torch.exp(-dt * rate)


def gained(dt, rate):
    return GAIN * of_decay(dt, rate)


class Helped(OfCurrent):
    def constants(dt, tau_inv):
        return {"decay": of_decay(dt, tau_inv)}


class Within(OfCurrent):
    def constants(dt, tau_inv):
        return {"decay": (lambda: GAIN)() * of_decay(dt, tau_inv)}


class Gained(OfCurrent):
    def constants(dt, tau_inv):
        return {"decay": gained(dt, tau_inv)}


NEURONS = [LIFParameters, LIParameters, SubtractiveLIF, AdaptiveLIF, SEAdLIF, EFAdLIF, ExactLIF, SlopeLIF, OfCurrent]


@pytest.fixture
def calls(monkeypatch):
    """Whether each call since was one of `few`."""
    found, sequence = [], few.sequence
    monkeypatch.setattr(few, "sequence", lambda *args: found.append(sequence(*args)) or found[-1])
    return found


def declared(kind, learned):
    if not learned:
        return kind()
    values = {name: parameter.default for name, parameter in kind.parameters.items()}
    one, *others = values
    drawn = sp.Learned(torch.rand(6) * 0.2 * (values[one] or 1) + (values[one] or 1))
    shared = {name: sp.Learned(values[name], shared=True) for name in others}
    return kind(**{one: drawn}, **shared)


def gradients(layer, x, state, weigh):
    """Return output, state and all gradients of a random function of both."""
    state = None if state is None else type(state)(*(t.detach().requires_grad_() for t in state))
    x = x.clone().requires_grad_()
    out, last = layer(x, state)
    total = sum((t * w).sum() for t, w in zip((out, *last), weigh, strict=False))
    learned = [*layer.parameters(), *(state or ())]
    found = torch.autograd.grad(total, [x, *learned], allow_unused=True)
    return out, last, [torch.zeros_like(t) if g is None else g for t, g in zip([x, *learned], found, strict=True)]


@pytest.mark.parametrize("begun", [False, True], ids=["at rest", "with a state"])
@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
@pytest.mark.parametrize("kind", NEURONS)
def test_outputs_states_and_gradients_are_those_of_the_reference(kind, recurrent, learned, begun, double, calls):
    p = declared(kind, learned)
    layer = RecurrentLayer(4, 6, p) if recurrent else Layer(p, size=6)
    reference = RecurrentLayer(4, 6, p, kernel="reference") if recurrent else Layer(p, size=6, kernel="reference")
    reference.load_state_dict(layer.state_dict())
    x = torch.rand(7, 3, 4 if recurrent else 6) * 20
    if recurrent:
        x = x * (layer.input_weights.sum(dim=0) > 0)
    state = layer(x)[1] if begun else None
    weigh = [torch.randn(7, 3, 6), *torch.randn(5, 3, 6)]
    calls.clear()
    out, last, found = gradients(layer, x, state, weigh)
    assert [call is None for call in calls] == [False]
    expected_out, expected_last, expected = gradients(reference, x, state, weigh)
    assert len(calls) == 1
    torch.testing.assert_close(out, expected_out)
    assert not kind.spiking or out.any()
    for a, b in zip([*last, *found], [*expected_last, *expected], strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        again, after = layer(x, state)
    assert torch.equal(again, out)
    assert all(torch.equal(a, b) for a, b in zip(after, last, strict=True))


@pytest.mark.parametrize("method", DERIVATIVES)
@pytest.mark.parametrize("detach", [False, True])
def test_every_spike_function(method, detach, double, calls):
    how = {"gradient": sp.Surrogate(method), "detach_reset": detach}
    layer, reference = sp.LIFRecurrent(4, 6, **how), sp.LIFRecurrent(4, 6, kernel="reference", **how)
    reference.load_state_dict(layer.state_dict())
    x, weigh = torch.randn(7, 3, 4), [torch.randn(7, 3, 6), *torch.randn(3, 3, 6)]
    (out, last, found), (z, v, expected) = (gradients(module, x, None, weigh) for module in (layer, reference))
    assert [call is None for call in calls] == [False]
    for a, b in zip([out, *last, *found], [z, *v, *expected], strict=True):
        torch.testing.assert_close(a, b)
    if method == "heaviside":
        assert not layer(x)[0].requires_grad


@torch.no_grad()
@pytest.mark.parametrize("kind", NEURONS)
def test_a_step_of_a_cell_is_that_with_gradient(kind, double, calls):
    p = declared(kind, True)
    for cell, x in ((RecurrentCell(4, 6, p), torch.randn(3, 4)), (Cell(p, size=6), torch.randn(3, 6))):
        state = cell(x, cell(x)[1])[1]
        out, last = cell(x, state)
        assert len(calls) == 3
        with torch.enable_grad():
            expected, after = cell(x, state)
        assert len(calls) == 3
        for a, b in zip((out, *last), (expected, *after), strict=True):
            torch.testing.assert_close(a, b)
        assert out.data_ptr() != last[0].data_ptr()
        calls.clear()


def test_an_autapse_counts_where_it_is_allowed_only(double):
    x = torch.rand(5, 2, 4) * 3
    for autapses in (False, True):
        layer = sp.LIFRecurrent(4, 6, autapses=autapses)
        with torch.no_grad():
            layer.recurrent_weights.fill_diagonal_(5.0)
        reference = sp.LIFRecurrent(4, 6, autapses=autapses, kernel="reference")
        reference.load_state_dict(sp.LIFRecurrent(4, 6, autapses=autapses).state_dict())
        with torch.no_grad():
            for a, b in zip(reference.parameters(), layer.parameters(), strict=True):
                a.copy_(b)
        for module in (layer, reference):
            module(x)[1].v.sum().backward()
        torch.testing.assert_close(layer.recurrent_weights.grad, reference.recurrent_weights.grad)
        assert layer.recurrent_weights.grad.diagonal().any() == autapses


def test_memory_of_any_layout(double):
    layer, x = sp.LIFRecurrent(4, 6), torch.randn(4, 3, 7).permute(2, 1, 0)
    state = layer(x)[1]
    state = type(state)(*(t.t().contiguous().t() for t in state))
    for a, b in zip(layer(x, state)[1], layer(x.contiguous(), state)[1], strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(layer(torch._neg_view(-x), state)[0], layer(x, state)[0])


def test_what_changes_before_the_backward_pass_is_noticed():
    layer, x = sp.LIFRecurrent(4, 6), torch.randn(7, 3, 4)
    out = layer(x)[0]
    with torch.no_grad():
        layer.recurrent_weights.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    out = layer(x)[0].sum()
    out.backward()
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()


def test_fixed_values_may_change_before_the_backward_pass(double):
    layer, x = sp.LIFRecurrent(4, 6), torch.randn(7, 3, 4)
    (expected,) = torch.autograd.grad(layer(x)[0].sum(), layer.input_weights)
    out = layer(x)[0].sum()
    layer.p.v_th = 0.3
    assert torch.equal(torch.autograd.grad(out, layer.input_weights)[0], expected)
    assert not torch.equal(torch.autograd.grad(layer(x)[0].sum(), layer.input_weights)[0], expected)


@pytest.mark.parametrize("of", ["input", "weights", "parameter"])
def test_a_second_derivative_is_refused(of):
    layer = sp.LIFRecurrent(4, 6, sp.LIFParameters(tau_mem=sp.Learned(0.01)))
    x = torch.randn(7, 3, 4, requires_grad=True)
    leaf = {"input": x, "weights": layer.recurrent_weights, "parameter": layer.p.raw("tau_mem_inv")}[of]
    (g,) = torch.autograd.grad(layer(x)[1].v.square().sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"second derivative: .*use kernel='reference'"):
        torch.autograd.grad(g.sum(), leaf)


def test_many_gradients_at_once(double):
    layer, x = sp.LIFRecurrent(4, 6), torch.randn(7, 3, 4, requires_grad=True)
    out = layer(x)[1].v
    basis = torch.randn(5, 3, 6)

    def gradients(g):
        return torch.autograd.grad(out, [x, layer.recurrent_weights], g, retain_graph=True)

    for a, b in zip(torch.vmap(gradients)(basis), zip(*map(gradients, basis), strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(b))


def test_constants_that_read_what_changes_are_computed_each_time(monkeypatch, calls):
    gain, x = 1.0, torch.rand(5, 2, 3)

    class Around(OfCurrent):
        def constants(dt, tau_inv):
            return {"decay": gain * torch.exp(-dt * tau_inv)}

    for kind in (Gained, Within):
        fast, slow = Layer(kind(), size=3), Layer(kind(), size=3, kernel="reference")
        before = fast(x)[1].v
        with monkeypatch.context() as changed:
            changed.setitem(globals(), "GAIN", 0.5)
            after, expected = fast(x)[1].v, slow(x)[1].v
        assert calls[-1] is not None
        assert not torch.equal(after, before)
        torch.testing.assert_close(after, expected)
    assert [kind for kind in (*NEURONS, Helped, Gained, Within, Around) if kind.constants_may_change] == [
        Gained,
        Within,
        Around,
    ]
    around = Layer(Around(), size=3)
    before = around(x)[1].v
    gain = 0.5
    assert not torch.equal(around(x)[1].v, before)


def test_what_is_left_to_others(calls):
    layer, x = sp.LIFRecurrent(4, 6), torch.randn(7, 3, 4)
    layer(x)
    assert calls.pop() is not None
    for given in (x.repeat(few.STEPS, 1, 1), torch.randn(7, 400, 4), (x > 0).float().to_sparse()):
        layer(given)
        assert calls.pop() is None
    own = sp.Surrogate("own", derivative=lambda x, alpha: torch.special.erfc(x.abs()))
    sp.LIFRecurrent(4, 6, gradient=own)(x)
    assert calls.pop() is None
    torch.vmap(lambda x: layer(x)[0])(x[None])
    assert calls.pop() is None
    for kernel in ("cpu", "reference"):
        layer.kernel = kernel
        layer(x)
        assert not calls
