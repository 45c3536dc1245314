import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import snnparams as sp
from snnparams.surrogate import DERIVATIVES


@pytest.mark.parametrize("method", DERIVATIVES)
def test_spikes_only_above_threshold(method):
    x = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 2.0], dtype=torch.float64)
    assert sp.threshold(x, method).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("method", [m for m in DERIVATIVES if m != "heaviside"])
@given(x=st.floats(-3, 3), alpha=st.floats(0.05, 200), upstream=st.floats(-5, 5))
def test_backward_is_the_documented_derivative(method, x, alpha, upstream):
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (upstream * sp.threshold(leaf, method, alpha)).backward()
    expected = upstream * sp.surrogate_derivative(leaf.detach(), method, alpha)
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("method", "smooth_step"),  # smooth functions whose derivative the surrogate is, up to the documented scale
    [
        ("super", lambda x, a: x / (1 + a * x.abs())),
        ("triangle", lambda x, a: a * torch.where(x.abs() < 1, x - x * x.abs() / 2, x.sign() / 2)),
        ("tanh", lambda x, a: torch.tanh(a * x) / a),
        ("circ", lambda x, a: x / torch.sqrt(1 + (x / a) ** 2)),
        ("heavi_erfc", lambda x, a: torch.erf(a * x) / a),
    ],
)
def test_derivatives_against_autograd_of_a_smooth_step(method, smooth_step):
    x = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(smooth_step(x, 1.7).sum(), x)
    torch.testing.assert_close(sp.surrogate_derivative(x.detach(), method, 1.7), expected, rtol=1e-10, atol=1e-12)


def test_heaviside_passes_no_gradient():
    x = torch.ones(3, requires_grad=True)
    assert not sp.threshold(x, "heaviside").requires_grad
    assert sp.surrogate_derivative(x, "heaviside").sum() == 0


def test_vmap_agrees_with_a_batch():
    x = torch.randn(4, 5)
    assert torch.equal(torch.vmap(sp.threshold)(x), sp.threshold(x))


def test_unknown_method_lists_the_known_ones():
    known = "heaviside, super, triangle, tanh, circ, heavi_erfc"
    for call in (sp.threshold, sp.surrogate_derivative):
        with pytest.raises(ValueError, match=f"method='superspike'; expected one of {known}"):
            call(torch.zeros(1), "superspike")
    with pytest.raises(ValueError, match=known):
        sp.LIFParameters(method="superspike")
