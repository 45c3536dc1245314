import dataclasses
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import snnparams as sp
from snnparams.neurons.surrogate import DERIVATIVES, Surrogate


@pytest.mark.parametrize("method", [m for m in DERIVATIVES if m != "sigmoid"])
def test_spikes_only_above_threshold(method):
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 2.0], dtype=torch.float64)
    assert Surrogate(method)(x).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("method", [m for m in DERIVATIVES if m != "heaviside"])
@settings(deadline=None)
@given(x=st.floats(-3, 3), alpha=st.floats(0.05, 200), upstream=st.floats(-5, 5))
def test_backward_is_the_documented_derivative(method, x, alpha, upstream):
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (upstream * Surrogate(method, alpha)(leaf)).backward()
    expected = upstream * sp.surrogate_derivative(leaf.detach(), method, alpha)
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize(
    ("method", "smooth_step"),  # smooth functions whose derivative the surrogate is, up to the documented scale
    [
        ("super", lambda x, a: x / (1 + a * x.abs())),
        ("triangle", lambda x, a: a * torch.where(x.abs() < 1, x - x * x.abs() / 2, x.sign() / 2)),
        ("tanh", lambda x, a: torch.tanh(a * x) / a),
        ("circ", lambda x, a: x / torch.sqrt(1 + (x / a) ** 2)),
        ("heavi_erfc", lambda x, a: torch.erf(a * x) / a),
        ("sigmoid", lambda x, a: 1 / (1 + torch.exp(-a * x))),
    ],
)
def test_derivatives_against_autograd_of_a_smooth_step(method, smooth_step):
    x = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(smooth_step(x, 1.7).sum(), x)
    torch.testing.assert_close(sp.surrogate_derivative(x.detach(), method, 1.7), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", DERIVATIVES)
def test_the_default_of_alpha_is_the_number_that_learns_as_norse_does(method):
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64, requires_grad=True)
    expected = 1.0 if method == "super" else 100.0
    derivative = sp.surrogate_derivative(x.detach(), method)
    assert torch.equal(derivative, sp.surrogate_derivative(x.detach(), method, expected))
    if method != "heaviside":
        (gradient,) = torch.autograd.grad(Surrogate(method)(x).sum(), x)
        torch.testing.assert_close(gradient, derivative, rtol=1e-12, atol=0)
        assert not torch.equal(derivative, sp.surrogate_derivative(x.detach(), method, 7.0))
    layer = sp.LIF(sp.LIFParameters(method=method))
    assert layer.gradient == layer.p.values().gradient == sp.Surrogate(method, expected) == sp.Surrogate(method)
    assert f"gradient=Surrogate({method!r}, alpha={expected:g})" in repr(layer)
    assert sp.LIF(sp.LIFParameters(method=method, alpha=30)).gradient.alpha == 30.0
    changed = dataclasses.replace(sp.LIFParameters(method=method), method="tanh")
    assert sp.LIF(changed).gradient.alpha == 100.0


def test_an_explicit_alpha_of_100_is_obeyed():
    x = torch.full((6, 1, 1), 0.9)
    gradients = {}
    for alpha in (None, 1.0, 100.0):
        for kernel in ("reference", "cpu"):
            leak = torch.nn.Parameter(torch.zeros(()))
            spikes, _ = sp.LIF(sp.LIFParameters(alpha=alpha, v_leak=leak), kernel=kernel)(x)
            spikes.sum().backward()
            gradients[alpha, kernel] = leak.grad.item()
    for kernel in ("reference", "cpu"):
        assert gradients[None, kernel] == gradients[1.0, kernel]
        assert gradients[100.0, kernel] < 0.1 * gradients[1.0, kernel]


def test_an_ensemble_compares_the_alpha_in_effect():
    sp.Ensemble([sp.LIF(sp.LIFParameters()), sp.LIF(sp.LIFParameters(alpha=1.0))])
    with pytest.raises(ValueError, match=r"expected p\.gradient as in member 0, .* alpha=1\), got .* alpha=100\) in"):
        sp.Ensemble([sp.LIF(sp.LIFParameters()), sp.LIF(sp.LIFParameters(alpha=100.0))])


def test_the_adjoint_method_shows_no_alpha():
    text = repr(sp.LIF(sp.LIFParameters(method="adjoint")))
    assert "gradient=Adjoint()\n" in text
    assert "alpha" not in text


def test_sigmoid_gives_graded_spikes():
    x = torch.tensor([-200.0, 0.0, 200.0], dtype=torch.float64)
    torch.testing.assert_close(Surrogate("sigmoid", 0.5)(x), torch.special.expit(0.5 * x), rtol=1e-12, atol=0)


def test_heaviside_passes_no_gradient():
    x = torch.ones(3, requires_grad=True)
    assert not Surrogate("heaviside")(x).requires_grad
    assert sp.surrogate_derivative(x, "heaviside").sum() == 0


def test_vmap_agrees_with_a_batch():
    x = torch.randn(4, 5)
    assert torch.equal(torch.vmap(Surrogate())(x), Surrogate()(x))


def test_unknown_method_lists_the_known_ones():
    known = "heaviside, super, triangle, tanh, circ, heavi_erfc, sigmoid"
    for call in (sp.Surrogate, lambda method: sp.surrogate_derivative(torch.zeros(1), method)):
        with pytest.raises(ValueError, match=f"method='superspike'; expected one of {known}"):
            call("superspike")
    with pytest.raises(ValueError, match=known):
        sp.LIFParameters(method="super_spike")


def steep(x, alpha):
    return 1 / (1 + alpha * x.abs()) ** 2


def soft(x, alpha):
    return torch.sigmoid(alpha * x)


def slope_of_soft(x, alpha):
    return alpha * soft(x, alpha) * (1 - soft(x, alpha))


def total(x, alpha):
    return torch.exp(-x * x).sum()


def constant(x, alpha):
    return 1.0


def test_functions_of_your_own_do_what_the_ones_that_are_there_do():
    x = 3 * torch.rand(20, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for own, there in (
        (sp.Surrogate("mine", derivative=steep), sp.Surrogate("super")),
        (sp.Surrogate("mine", 3.0, derivative=slope_of_soft, value=soft), sp.Surrogate("sigmoid", 3.0)),
    ):
        results = []
        for gradient in (own, there):
            torch.manual_seed(1)
            p = sp.LIFParameters(tau_mem=sp.Learned(0.02), v_th=sp.Learned(0.4))
            layer = sp.LIFRecurrent(5, 4, p, gradient=gradient, dtype=torch.float64)
            z, _ = layer(x)
            z.square().sum().backward()
            results.append([z.detach(), *(parameter.grad for parameter in layer.parameters())])
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
        assert (own.graded, own.alpha) == (there.graded, there.alpha)
        torch.testing.assert_close(own.slope(x), there.slope(x), rtol=1e-12, atol=0)
    assert repr(own) == "Surrogate('mine', alpha=3, derivative=slope_of_soft, value=soft)"


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"method": "mine"}, ValueError, "unknown spike function method='mine'; expected one of heaviside, super"),
        ({"method": "super", "derivative": steep}, ValueError, "method='super': expected a name of its own"),
        ({"method": "mine", "value": soft}, ValueError, "derivative: expected that of the value"),
        ({"method": "mine", "derivative": 2.0}, TypeError, "derivative: expected a function of x and alpha, got float"),
        (
            {"method": "mine", "derivative": total},
            ValueError,
            "expected a tensor of the shape of x, here (2, 3), got",
        ),
        ({"method": "mine", "derivative": steep, "value": constant}, ValueError, "of x, here (2, 3), got float"),
        ({"method": "adjoint"}, ValueError, "for the adjoint method use Adjoint()"),
        ({"method": steep}, TypeError, "method: expected the name of a spike function, got function"),
        ({"alpha": 0.0}, ValueError, "alpha: expected a positive, finite number, got 0.0"),
        ({"alpha": torch.ones(2)}, TypeError, "alpha: expected a number, which is not learned, got Tensor"),
    ],
)
def test_a_surrogate_that_is_none_is_refused(how, error, message):
    with pytest.raises(error, match=re.escape(message)):
        sp.Surrogate(**how)


class Anneal:
    """A derivative with a width of its own, which somebody changes while a network learns."""

    __name__ = "anneal"

    def __init__(self, width):
        self.width = width

    def __call__(self, x, alpha):
        return 1 / (1 + self.width * x.abs()) ** 2


@pytest.mark.parametrize(("steps", "size"), [(4, 5), (90, 40)])  # a small call, and one for fused kernels
def test_a_function_that_changes_is_refused_and_a_new_surrogate_computes_it_anew(steps, size):
    def gradient(own, kernel=None):
        layer = sp.LIF(sp.LIFParameters(v_th=0.2), gradient=own, kernel=kernel).double()
        torch.manual_seed(0)
        x = torch.rand(steps, 3, size, dtype=torch.float64, requires_grad=True)
        layer(x)[0].sum().backward()
        return x.grad

    function = Anneal(1.0)
    before = sp.Surrogate("anneal", derivative=function)
    torch.testing.assert_close(gradient(before), gradient(before, "reference"))
    function.width = 50.0
    with pytest.raises(ValueError, match=r"Surrogate\('anneal'.*: expected functions that compute what they did when"):
        gradient(before)
    after = sp.Surrogate("anneal", derivative=function)
    torch.testing.assert_close(gradient(after), gradient(after, "reference"))
    assert gradient(after).norm() < gradient(sp.Surrogate("super", 1.0)).norm()
