"""Derivatives by common shifts: against scaling laws, autograd by other means, and each other."""

import dataclasses

import pytest
import torch

from snnparams.data import tasks
from snnparams.experiments.designs import Architecture, Neurons
from snnparams.experiments.drift import STEPS, derivatives, differences, rate_held, run_drift
from snnparams.experiments.networks import build
from snnparams.experiments.trial import loss_of

TASK = tasks.windows(2, 15, train=120, validation=10, test=10, high=0.2)


EXACT = dataclasses.replace(TASK, encode=lambda bits: TASK.encode(bits).double())


def network(recurrent=False, layers=1, neurons=None, task=TASK, **architecture):
    made = Architecture(hidden=10, recurrent=recurrent, layers=layers, **architecture)
    return build(neurons or Neurons(4, 10), made, task, 1)


def in_float64(neurons=None):
    one = network(neurons=neurons, task=EXACT).double()
    one.kernel = one.kernel.double()
    return one


def test_a_shift_of_all_weights_is_one_of_the_threshold_the_other_way(double):
    """Voltages are linear in the weights, so only their ratio to the threshold matters; spikes do not change."""
    one = in_float64()
    for step in (0.05, 0.2):
        found = differences(one, EXACT, step)
        for measure in ("loss", "rate"):
            assert found[measure]["weights"] == pytest.approx(-found[measure]["v_th"], rel=1e-9, abs=1e-12)
        assert rate_held(found)["v_th"] == pytest.approx(0, abs=1e-9)
        assert found["rate"]["v_th"] < 0 < found["rate"]["tau_syn"]


@pytest.mark.parametrize(("recurrent", "layers"), [(False, 1), (True, 1), (False, 2)])
def test_differences_are_those_of_networks_that_were_changed(recurrent, layers):
    one, step = network(recurrent, layers), 0.1
    spikes, labels = TASK.encode(TASK.train.inputs), TASK.train.labels

    def loss_and_rate(sign, name):
        other = network(recurrent, layers)
        for layer in other.spiking_layers():
            if name == "weights":
                for factor in layer.factors():
                    factor.mul_(torch.tensor(sign * step).exp())
            else:
                setattr(layer.p, name, getattr(layer.p, name) * torch.tensor(sign * step).exp())
        logits, hidden = other(spikes)
        return loss_of(TASK, logits, labels).item(), sum(z.mean().item() for z in hidden) / layers

    found = differences(one, TASK, step)
    for name in ("tau_mem", "tau_syn", "v_th", "weights"):
        (loss, rate), (low_loss, low_rate) = loss_and_rate(1, name), loss_and_rate(-1, name)
        assert found["loss"][name] == pytest.approx((loss - low_loss) / (2 * step), rel=0.05, abs=1e-3)
        assert found["rate"][name] == pytest.approx((rate - low_rate) / (2 * step), rel=0.05, abs=1e-3)


def test_surrogate_derivatives_are_sums_of_the_gradients_of_all_neurons(double):
    one = in_float64(Neurons(4, 10, learned=("tau_mem", "tau_syn", "v_th")))
    found = derivatives(one, EXACT)
    logits, (z,) = one(EXACT.encode(TASK.train.inputs))
    layer = one.layers[0]
    for measure, value in (("loss", loss_of(TASK, logits, TASK.train.labels)), ("rate", z.mean())):
        gradients = torch.autograd.grad(value, list(layer.p.parameters()), retain_graph=True)
        stored = {id(x): g for x, g in zip(layer.p.parameters(), gradients, strict=True)}
        v_th = stored[id(layer.p.raw("v_th"))].sum().item()  # of the logarithm
        assert found[measure]["v_th"] == pytest.approx(v_th, rel=1e-9, abs=1e-12)
        for name in ("tau_mem", "tau_syn"):  # of the logit of 1 / tau: its derivative by log tau is -1 / (1 - 1 / tau)
            rate = 1e-3 * getattr(layer.p, f"{name}_inv").detach()
            by_log = (-stored[id(layer.p.raw(f"{name}_inv"))] / (1 - rate)).sum().item()
            assert found[measure][name] == pytest.approx(by_log, rel=1e-9, abs=1e-12)


def test_the_exact_gradient_sees_no_rate():
    found = derivatives(network(), TASK, exact=True)
    assert all(value == 0 for value in found["rate"].values())
    assert all(value != 0 for value in found["loss"].values())
    with pytest.raises(ValueError, match="rate: expected one that depends on the weights"):
        rate_held(found)
    surrogate = derivatives(network(), TASK)
    assert surrogate["loss"]["tau_syn"] != pytest.approx(found["loss"]["tau_syn"], rel=0.01)


def test_a_whole_run():
    task = {"name": "windows", "count": 2, "length": 10, "train": 100, "validation": 20, "test": 20}
    cell = {"task": task, "neurons": {}, "architecture": {"hidden": 8}, "training": {"epochs": 1}, "seed": 0}
    found = run_drift(cell)
    ways = ["surrogate", "exact", *(f"difference {step:g}" for step in STEPS)]
    for name in ("tau_mem", "tau_syn", "v_th"):
        for when in ("initial", "trained"):
            assert all(f"{name}, {how}, {when}" in found for how in ways)
            assert all((f"{name}, {how}, {when}, rate held" in found) == (how != "exact") for how in ways)
    assert found["tau_mem, surrogate, initial"] != found["tau_mem, surrogate, trained"]


def test_bad_input():
    with pytest.raises(ValueError, match=r"step: expected a positive number below the logarithm of 4 steps, got 1\.5"):
        differences(network(), TASK, 1.5)
    with pytest.raises(ValueError, match="step: expected a positive number"):
        differences(network(), TASK, 0)
    message = "network: expected layers with the standard reset and fixed thresholds, got one with others"
    for other in (network(reset="none"), network(neurons=Neurons(4, 10, tau_adapt=20))):
        with pytest.raises(ValueError, match=message):
            derivatives(other, TASK)
