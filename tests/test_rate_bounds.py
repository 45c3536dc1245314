"""The loss term that holds rates, and resets of choice, against values by hand and the package's own LIF."""

import pytest
import torch

import snnparams as sp
from snnparams import Layer, LIFParameters, RecurrentLayer, neurons, rate_bounds_loss
from snnparams.experiments.designs import RESETS, Architecture


def spikes_of(*rates, steps=20):
    z = torch.zeros(steps, 1, len(rates))
    for k, rate in enumerate(rates):
        z[: round(rate * steps), 0, k] = 1
    return z


def test_rates_by_hand():
    assert rate_bounds_loss(spikes_of(0.1, 0.3), 0.1, 0.3) == 0
    assert rate_bounds_loss(spikes_of(0.4, 0.4), 0.1, 0.2).item() == pytest.approx(1)  # twice the upper bound
    assert rate_bounds_loss(spikes_of(0.1, 0.1), 0.2, 0.3).item() == pytest.approx(0.25)  # half of the lower one
    assert rate_bounds_loss(spikes_of(0.0, 0.4), 0.2, 0.2).item() == pytest.approx(0, abs=1e-12)  # the population
    assert rate_bounds_loss(spikes_of(0.0, 0.4), 0.2, 0.2, per_neuron=True).item() == pytest.approx((1 + 1) / 2)
    assert rate_bounds_loss(spikes_of(0.0, 0.0), 0.0, 0.2) == 0


def test_its_gradient_is_that_of_the_formula():
    z = spikes_of(0.3, 0.5).requires_grad_()
    rate_bounds_loss(z, 0.1, 0.2).backward()
    expected = 2 * (0.4 - 0.2) / 0.2 / 0.2 / z.numel()
    torch.testing.assert_close(z.grad, torch.full_like(z, expected))


def test_bounds_that_are_none_are_refused():
    for low, high in ((0.3, 0.2), (-0.1, 0.2), (0.0, 1.5), (0.0, 0.0), (float("nan"), 0.5)):
        with pytest.raises(ValueError, match=r"low, high: expected 0 <= low <= high <= 1"):
            rate_bounds_loss(spikes_of(0.1), low, high)
    with pytest.raises(ValueError, match=r"spikes: expected shape \(T, B, H\).*, got \(3,\)"):
        rate_bounds_loss(torch.zeros(3), 0, 1)
    with pytest.raises(ValueError, match=r"at least one value, got \(3, 0, 2\)"):
        rate_bounds_loss(torch.zeros(3, 0, 2), 0, 1)
    with pytest.raises(TypeError, match=r"expected a floating-point type, got torch\.bool"):
        rate_bounds_loss(torch.zeros(3, 1, 1, dtype=torch.bool), 0, 1)


# ------------------------------------------------------------------------------------------------------------ resets

TAUS = {"tau_mem": torch.tensor([4e-3, 7e-3, 20e-3]), "tau_syn": torch.tensor([5e-3, 30e-3, 2e-3])}
P = {name: x.double() for name, x in TAUS.items()} | {"alpha": 5}


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize(
    ("kind", "reset"), [(LIFParameters, "zero"), (neurons.SubtractiveLIF, "subtraction")], ids=["zero", "subtraction"]
)
def test_a_reset_by_its_shares_is_that_of_the_neuron_that_has_it(detach, recurrent, kind, reset):
    generator = torch.Generator().manual_seed(0)
    inputs = 2 * torch.randn(40, 5, 3, generator=generator, dtype=torch.float64)
    weights = torch.eye(3).double(), torch.randn(3, 3, generator=generator, dtype=torch.float64)
    of_voltage, of_threshold = RESETS[reset]
    found = []
    for p in (kind(**P), neurons.PartialResetLIF(**P, of_voltage=of_voltage, of_threshold=of_threshold)):
        x = inputs.clone().requires_grad_()
        if recurrent:
            given = dict(zip(("input_weights", "recurrent_weights"), weights, strict=True))
            layer = RecurrentLayer(3, 3, p, **given, autapses=True, detach_reset=detach, dtype=torch.float64)
        else:
            layer = Layer(p, detach_reset=detach, size=3, dtype=torch.float64)
        z, _ = layer(x)
        (z * torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None, None]).sum().backward()
        found.append((z.detach(), x.grad))
    assert found[0][0].sum() > 10
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_resets_by_hand():
    x = torch.zeros(4, 1, 1)
    x[0] = 6.0  # v: 3, then i = 3, 1.5, 0.75 in the following steps

    def spikes(reset="zero", of_current=0.0):
        of_voltage, of_threshold = RESETS[reset]
        shares = {"of_voltage": of_voltage, "of_threshold": of_threshold, "of_current": of_current}
        z, _ = Layer(neurons.PartialResetLIF(tau_mem=2e-3, tau_syn=2e-3, v_th=1.0, **shares))(x)
        return z.flatten().tolist()

    # to zero: 3 | 0 + 1.5 | 0 + 0.75 | 0.75 / 2 + 0.375
    assert spikes() == [1, 1, 0, 0]
    # by subtraction: 3 | 2 / 2 + 1.5 = 2.5 | 1.5 / 2 + 0.75 = 1.5 | 0.5 / 2 + 0.375
    assert spikes("subtraction") == [1, 1, 1, 0]
    # none: 3 | 1.5 + 1.5 = 3 | 1.5 + 0.75 = 2.25 | 1.125 + 0.375
    assert spikes("none") == [1, 1, 1, 1]
    # with the synapse cleared nothing is left of the input
    assert spikes(of_current=1.0) == [1, 0, 0, 0]
    # none, cleared: 3 | 1.5 | 0.75
    assert spikes("none", of_current=1.0) == [1, 1, 0, 0]


def test_there_is_no_other_reset():
    with pytest.raises(ValueError, match="reset: expected one of zero, subtraction, none, got 'soft'"):
        Architecture(reset="soft")


def test_with_the_adjoint_method_a_count_of_spikes_has_no_gradient():
    torch.manual_seed(0)
    x = torch.rand(30, 2, 4, dtype=torch.float64).requires_grad_()
    z, _ = sp.LIF(sp.LIFParameters(v_th=0.3), gradient=sp.Adjoint(), dtype=torch.float64)(x)
    assert z.any()
    loss = sp.rate_bounds_loss(z, 0.0, 0.001)
    loss.backward()
    assert loss > 0
    assert not x.grad.any()
