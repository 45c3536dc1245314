"""Networks whose time constants differ: what a description says is what a network has, and a trial is what it says."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from snnparams import Split, rate_bounds_loss
from snnparams.data import tasks
from snnparams.experiments import trial
from snnparams.experiments.designs import DT, Architecture, Neurons, spaced
from snnparams.experiments.memory import temporal_filters
from snnparams.experiments.networks import build, filters, reach_rate
from snnparams.experiments.trial import Training, make_task, measure, run_raster, run_trial, train
from snnparams.layers.initialisation import RateError, voltage_variance

SIZES = {"train": 200, "validation": 60, "test": 80}
WINDOWS = {"name": "windows", "count": 3, "length": 10, **SIZES}
XOR = {"name": "multi-timescale xor", "cues": 2, **SIZES}
TASK = tasks.windows(3, 10, **SIZES)
SMALL = {"hidden": 12}
KINDS = {
    "equal": {"tau_mem": 4, "tau_syn": 20},
    "different tau_syn": {"tau_syn": 20, "spread_syn": 5},
    "different tau_mem": {"tau_mem": 20, "tau_syn": 3, "spread_mem": 5},
    "both": {"spread_mem": 3, "spread_syn": 3},
    "learned": {"learned": ("tau_syn",)},
    "shared": {"learned": ("tau_syn",), "shared": True},
    "all": {"spread_syn": 5, "learned": ("tau_mem", "tau_syn", "v_th")},
    "different tau_adapt": {"tau_adapt": 20, "spread_adapt": 5},
    "adaptation learned": {"tau_adapt": 20, "learned": ("tau_adapt", "beta")},
}


def cell(neurons=(), architecture=(), training=(), task=WINDOWS, seed=0, test=True, **more):
    defaults = {"epochs": 1, "batch_size": 50}
    made = {"neurons": dict(neurons), "architecture": {**SMALL, **dict(architecture)}, **more}
    return {"task": task, **made, "training": {**defaults, **dict(training)}, "seed": seed, "test": test}


def values(network, layer=0):
    p = network.layers[layer].p
    adaptation = {"tau_adapt": p.tau_adapt / DT, "beta": p.beta} if hasattr(p, "beta") else {}
    return {"tau_mem": p.tau_mem / DT, "tau_syn": p.tau_syn / DT, "v_th": p.v_th, **adaptation}


def test_spaced_values():
    assert spaced(20, 1, 5).tolist() == pytest.approx([20] * 5)
    found = spaced(11, 4, 4)
    assert (found - 1).tolist() == pytest.approx([10 * 4**x for x in (-0.75, -0.25, 0.25, 0.75)])
    two = spaced(11, 4, 5, distinct=2)
    assert two.unique().tolist() == pytest.approx([1 + 10 / 2, 1 + 10 * 2])
    assert torch.equal(spaced(11, 4, 5, distinct=9), spaced(11, 4, 5))
    assert spaced(11, 4, 7, distinct=1).tolist() == pytest.approx([11] * 7)


@pytest.mark.parametrize(("mem", "syn"), [(4.0, 20.0), (5.0, 5.0), (30.0, 1.5)])
def test_the_variance_of_a_voltage_is_the_energy_of_its_filter(mem, syn):
    found = voltage_variance(torch.tensor(mem).double(), torch.tensor(syn).double()).item()
    assert found == pytest.approx((temporal_filters(mem, syn, 2000) ** 2).sum(), rel=1e-9)


def test_readout_filters():
    found = filters(torch.tensor([8.0, 40.0]), 2000).double()
    assert (found**2).sum(dim=1).tolist() == pytest.approx([1, 1], rel=1e-4)
    assert (found[:, 1] / found[:, 0]).tolist() == pytest.approx([7 / 8, 39 / 40])


@pytest.mark.parametrize("recurrent", [False, True])
def test_networks_of_a_seed_have_equal_weights_and_rates(recurrent):
    architecture = Architecture(**SMALL, recurrent=recurrent, layers=2, rate=0.08)
    networks = {name: build(Neurons(**kind), architecture, TASK, 3) for name, kind in KINDS.items()}
    other = build(Neurons(), architecture, TASK, 4)
    spikes = TASK.encode(TASK.train.inputs[:100])
    for network in networks.values():
        for a, b in zip(networks["equal"].layers, network.layers, strict=True):
            for name in a.parametrizations:
                first, second = (layer.parametrizations[name].original for layer in (a, b))
                assert torch.equal(first, second)
        assert torch.equal(networks["equal"].readout_weights, network.readout_weights)
        _, hidden = network(spikes)
        assert [z.mean().item() for z in hidden] == pytest.approx([0.08, 0.08], rel=0.1)
        if recurrent:
            assert not network.layers[1].recurrent_weights.diagonal().any()  # no autapses
    a, b = (n.layers[0].parametrizations.weights.original for n in (networks["equal"], other))
    assert not torch.equal(a, b)


def test_what_a_description_says_is_what_a_network_has():
    found = {name: values(build(Neurons(**kind), Architecture(**SMALL), TASK, 0)) for name, kind in KINDS.items()}
    assert found["equal"]["tau_syn"].flatten().tolist() == pytest.approx([20] * 12, rel=1e-4)
    assert found["equal"]["tau_mem"].flatten().tolist() == pytest.approx([4] * 12, rel=1e-4)
    torch.testing.assert_close(found["different tau_syn"]["tau_syn"].double(), spaced(20, 5, 12), rtol=1e-4, atol=0)
    mem = found["different tau_mem"]["tau_mem"].double()
    torch.testing.assert_close(mem.sort().values, spaced(20, 5, 12), rtol=1e-4, atol=0)
    adapt = found["different tau_adapt"]["tau_adapt"].double()
    torch.testing.assert_close(adapt.sort().values, spaced(20, 5, 12), rtol=1e-4, atol=0)
    assert found["different tau_adapt"]["beta"].tolist() == pytest.approx([0.3] * 12)
    both = found["both"]
    assert both["tau_mem"].argsort().tolist() != both["tau_syn"].argsort().tolist()  # paired at random
    assert found["shared"]["tau_syn"].numel() == 1
    network = build(Neurons(**KINDS["shared"]), Architecture(**SMALL), TASK, 0)
    assert sum(x.numel() for x in network.layers[0].p.parameters()) == 1


@pytest.mark.parametrize("name", KINDS)
def test_only_what_is_learned_moves(name):
    kind = KINDS[name]
    network = build(Neurons(**kind), Architecture(**SMALL), TASK, 0)
    before = {key: x.detach().clone() for key, x in values(network).items()}
    train(network, TASK, Training(epochs=1, batch_size=50), 0)
    for key, x in values(network).items():
        moved = (x != before[key]).float().mean()
        assert moved > 0.9 if key in kind.get("learned", ()) else moved == 0
    learned = values(network)["tau_syn"].unique().numel()
    ones = ("shared", "equal", "different tau_mem", "different tau_adapt", "adaptation learned")
    assert learned == (1 if name in ones else 12)


def check_sum(found, exact, magnitude, terms):
    """Each rounding of a float32 sum moves it by half of eps times the sum of all magnitudes at most."""
    assert exact.dtype == torch.float64
    assert ((found - exact).abs() <= terms * torch.finfo(torch.float32).eps * magnitude).all()


def test_the_readout_by_hand():
    for tau in (8.0, "per output"):
        network = build(Neurons(), Architecture(**SMALL, readout_tau=tau), TASK, 0)
        nn.init.normal_(network.bias)
        logits, (z,) = network(TASK.encode(TASK.test.inputs[:5]))
        taus = [30, (30 * 8) ** 0.5, 8] if tau == "per output" else [8] * 3
        for k, (due, output) in enumerate(TASK.answers):
            assert output == k
            decay = 1 - 1 / taus[k]
            weights = math.sqrt(1 - decay**2) * decay ** torch.arange(due, -1, -1, dtype=torch.float64)
            filtered = (weights[:, None, None] * z[: due + 1]).sum(dim=0)
            readout, bias = network.readout_weights[k].double(), network.bias[k].double()
            magnitude = filtered @ readout.abs() + bias.abs()
            check_sum(logits[:, k], filtered @ readout + bias, magnitude, due + 12 + 4)


def test_answers_are_read_when_they_are_due():
    task = make_task(json.dumps(XOR))
    network = build(Neurons(), Architecture(**SMALL), task, 0)
    spikes = task.encode(task.test.inputs[:5])
    logits, _ = network(spikes)
    changed = spikes.clone()
    changed[task.answers[0][0] + 1 :] = 1  # after the first answer
    other, _ = network(changed)
    assert torch.equal(logits[:, 0], other[:, 0])
    assert not torch.equal(logits[:, 1], other[:, 1])


@pytest.mark.parametrize("readout", ["mean", "max"])
def test_classes_are_read_over_all_time(readout):
    task = tasks.smooth_random_manifolds(60, 20, 20, classes=3, steps=15)
    network = build(Neurons(), Architecture(hidden=8, readout=readout), task, 0)
    logits, (z,) = network(task.encode(task.test.inputs[:4]))
    weights, decay = network.readout_weights.double(), 7 / 8

    def voltages(weights):
        v, seen = 0.0, []
        for outputs in z.double() @ weights.T * math.sqrt(1 - decay**2):
            v = decay * v + outputs
            seen.append(v)
        return torch.stack(seen)

    of_time = torch.mean if readout == "mean" else torch.amax
    expected = of_time(voltages(weights), dim=0)
    check_sum(logits, expected, of_time(voltages(weights.abs()), dim=0), len(z) + 8 + 4)
    longer = torch.cat([z, torch.zeros_like(z)])  # another duration
    if readout == "max":
        torch.testing.assert_close(network.decode(longer), torch.maximum(logits, network.decode(longer)))
    torch.testing.assert_close(network.decode(torch.zeros_like(longer)), torch.zeros(4, 3))


def test_a_trial_is_what_the_network_does():
    one = cell(KINDS["all"], training={"epochs": 2})
    result = run_trial(copy.deepcopy(one))
    network, task = trial.network_of(one)
    train(network, task, Training(**one["training"]), 0)
    logits, (z,) = network(task.encode(task.test.inputs))
    right = (logits > 0) == task.test.labels.bool()
    assert result["test"]["accuracy"] == pytest.approx(right.float().mean().item())
    assert result["test"]["answers"] == pytest.approx(right.float().mean(dim=0).tolist())
    assert result["test"]["rate"] == pytest.approx([z.mean().item()], rel=1e-4)
    assert result["test"]["spikes"] == pytest.approx(z.sum().item() / 80, rel=1e-4)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, task.test.labels.float()).item()
    assert result["test"]["loss"] == pytest.approx(loss, rel=1e-4)
    assert len(result["curve"]) == 2
    assert result["curve"][-1] == result["validation"]["accuracy"]
    middle = values(network)["tau_syn"].double().quantile(0.5).item()
    assert result["after"]["tau_syn"][0][10] == pytest.approx(middle, rel=1e-4)
    assert result["before"]["tau_syn"][0][0] == pytest.approx(spaced(20, 5, 12)[0].item(), rel=1e-3)


def test_the_same_cell_gives_the_same_numbers():
    one = cell(KINDS["both"], {"recurrent": True})
    threads = torch.get_num_threads()
    first = run_trial(one)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    try:
        assert run_trial(copy.deepcopy(one)) == first
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert run_trial(cell(KINDS["both"], {"recurrent": True}, seed=1)) != first


def test_no_label_of_validation_or_test_reaches_training():
    def state(**changed):
        task = dataclasses.replace(TASK, **changed)
        network = build(Neurons(**KINDS["all"]), Architecture(**SMALL), task, 0)
        train(network, task, Training(epochs=1, batch_size=50), 0)
        return list(network.state_dict().values())

    clean = state()
    for part in ("validation", "test"):
        assert all(
            torch.equal(a, b) for a, b in zip(clean, state(**{part: poisoned(getattr(TASK, part))}), strict=True)
        )
    assert not all(torch.equal(a, b) for a, b in zip(clean, state(train=poisoned(TASK.train)), strict=True))


def poisoned(split):
    return Split(split.inputs, 1 - split.labels)


def test_the_test_split_is_not_measured_unless_asked_for(monkeypatch):
    result = run_trial(cell(test=False))
    assert "test" not in result
    assert "train" not in result
    disturbed = run_trial(cell(disturbed=True))["disturbed"]
    assert set(disturbed) == {"noise 0.25", "noise 1"}


def test_rates_are_held():
    training = {"epochs": 8, "rate_low": 0.19, "rate_high": 0.21, "rate_strength": 100.0, "learning_rate": 0.02}
    held = run_trial(cell(training=training))["test"]["rate"][0]
    assert held == pytest.approx(0.2, rel=0.15)
    free = run_trial(cell(training={"epochs": 8, "learning_rate": 0.02}))["test"]["rate"][0]
    assert abs(free - 0.2) > abs(held - 0.2)


def test_gradients_of_weights_and_neuron_parameters_are_shortened_apart(monkeypatch):
    seen = []
    real = nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        nn.utils, "clip_grad_norm_", lambda params, largest: seen.append(params) or real(params, largest)
    )
    network = build(Neurons(**KINDS["all"]), Architecture(**SMALL), TASK, 0)
    train(network, TASK, Training(epochs=1, batch_size=200), 0)
    weights, neuron = seen
    assert {id(x) for x in neuron} == {id(x) for layer in network.layers for x in layer.p.parameters()}
    assert {id(x) for x in weights} | {id(x) for x in neuron} == {id(x) for x in network.parameters()}
    assert not {id(x) for x in weights} & {id(x) for x in neuron}


def test_training_teaches():
    task = {**WINDOWS, "train": 2000, "high": 0.3}
    result = run_trial(cell({"tau_syn": 10, "spread_syn": 4}, {"hidden": 24}, {"epochs": 6}, task))
    assert result["test"]["accuracy"] > 0.8
    assert result["train"]["accuracy"] > 0.8


def test_a_network_that_cannot_be_built_or_trained_says_so(monkeypatch):
    layer = build(Neurons(), Architecture(**SMALL), TASK, 0).layers[0]
    with pytest.raises(RateError, match=r"rate: expected 900 1/s within 10%, got 0 1/s"):
        reach_rate(layer, torch.zeros(30, 4, 24), 0.9)
    monkeypatch.setattr(trial, "build", lambda *_: reach_rate(layer, torch.zeros(30, 4, 24), 0.9))
    assert run_trial(cell())["failed"].startswith("rate: expected 900 1/s")
    monkeypatch.undo()
    monkeypatch.setattr(trial, "loss_of", lambda *_: torch.full((), math.nan, requires_grad=True))
    network = build(Neurons(), Architecture(**SMALL), TASK, 0)
    with pytest.raises(FloatingPointError, match=r"batch 1: expected a finite loss, got nan"):
        train(network, TASK, Training(epochs=1), 0)
    before = [x.detach().clone() for x in network.parameters()]
    monkeypatch.setattr(trial, "loss_of", lambda task, logits, labels: 1e25 * logits.sum())
    with pytest.raises(FloatingPointError, match=r"expected gradients of finite lengths, got \[inf"):
        train(network, TASK, Training(epochs=1), 0)  # each of them is finite, the sum of their squares is not
    assert all(torch.equal(x, y) for x, y in zip(before, network.parameters(), strict=True))


def test_a_trial_trains_as_a_loop_that_is_written_out_does():
    """One loop serves the package: gradients of weights and of neurons shortened apart, a rate for each update."""
    training = Training(epochs=2, batch_size=50, rate_strength=0.5, rate_low=0.1, rate_high=0.2)
    ours, theirs = (build(Neurons(learned=("tau_syn",)), Architecture(**SMALL), TASK, 0) for _ in range(2))
    train(ours, TASK, training, 4)
    neuron = list(theirs.layers[0].p.parameters())
    groups = [[x for x in theirs.parameters() if all(x is not y for y in neuron)], neuron]
    rates = training.learning_rate, training.neuron_learning_rate
    optimizer = torch.optim.Adam([{"params": x, "lr": rate} for x, rate in zip(groups, rates, strict=True)])
    updates, step, order = 2 * math.ceil(len(TASK.train.labels) / 50), 0, torch.Generator().manual_seed(4)
    for _ in range(2):
        for batch in torch.randperm(len(TASK.train.labels), generator=order).split(50):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * step / updates)) / 2
            logits, hidden = theirs(TASK.encode(TASK.train.inputs[batch]).to_dense())
            loss = binary_cross_entropy_with_logits(logits, TASK.train.labels[batch].float())
            loss = loss + 0.5 * sum(rate_bounds_loss(z, 0.1, 0.2) for z in hidden)
            optimizer.zero_grad()
            loss.backward()
            for group in groups:
                nn.utils.clip_grad_norm_(group, 1.0)
            optimizer.step()
            step += 1
    for x, y in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-5)


def test_rasters_are_the_spikes_of_the_trained_network():
    one = {**cell(KINDS["all"]), "input": 3}
    found = run_raster(one)
    network, task = trial.network_of(one)
    train(network, task, Training(**one["training"]), 0)
    _, (z,) = network(task.encode(task.test.inputs[3:4]))
    assert [*zip(found["steps"], found["neurons"], strict=True)] == [tuple(x) for x in z[:, 0].nonzero().tolist()]
    assert found["tau_syn"] == pytest.approx(values(network)["tau_syn"].tolist(), rel=1e-4)
    assert found["label"] == task.test.labels[3].tolist()
    assert len(run_raster({**cell(KINDS["shared"]), "input": 0})["tau_syn"]) == 12


def test_measures_of_a_network_that_knows():
    class Oracle(nn.Module):
        def forward(self, spikes):
            by_window = spikes.view(3, 10, -1, 2, 12).sum(dim=(1, 4))  # (K, B, group)
            return (by_window[..., 1] - by_window[..., 0]).T, [spikes]

    task = tasks.windows(3, 10, low=0.0, high=0.6, **SIZES)
    found = measure(Oracle(), task, task.test, batch_size=30)
    assert found["accuracy"] == 1
    assert found["answers"] == [1, 1, 1]
    assert found["rate"] == pytest.approx([task.test.inputs.float().mean().item()])
    assert found["spikes"] == pytest.approx(task.test.inputs.sum().item() / 80)


def test_bad_input():
    for given, message in (
        ({"tau_mem": 1}, "tau_mem: expected more than 1 time step, got 1"),
        ({"spread_syn": 0.5}, r"spread_syn: expected a factor of at least 1, got 0\.5"),
        ({"distinct": 0}, "distinct: expected None or at least 1, got 0"),
        ({"learned": ("tau",)}, r"learned: expected some of tau_mem, .*, got \['tau'\]"),
        ({"tau_adapt": 1}, "tau_adapt: expected more than 1 time step, got 1"),
        ({"tau_adapt": 20, "beta": 0}, "beta: expected a positive number, got 0"),
        ({"spread_adapt": 2}, "spread_adapt: expected thresholds that adapt, with a tau_adapt"),
        ({"learned": ("beta",)}, r"learned: expected some of tau_mem, tau_syn, v_th, got \['beta'\]"),
        ({"shared": True}, "shared: expected equal neurons of which something is learned"),
        ({"shared": True, "learned": ("tau_syn",), "spread_syn": 2}, "shared: expected equal neurons"),
    ):
        with pytest.raises(ValueError, match=message):
            Neurons(**given)
    for given, message in (
        ({"reset": "soft"}, "reset: expected one of"),
        ({"hidden": 0}, "hidden: expected a positive integer, got 0"),
        ({"readout": "last"}, "readout: expected one of mean, max, got 'last'"),
        ({"readout_tau": 0.5}, r"readout_tau: expected at least 1 time step or 'per output', got 0\.5"),
        ({"rate": 0}, "rate: expected more than 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Architecture(**given)
    with pytest.raises(ValueError, match="reset: expected the standard one where thresholds adapt, got another"):
        build(Neurons(tau_adapt=20), Architecture(**SMALL, reset="none"), TASK, 0)
    with pytest.raises(ValueError, match=r"task: expected one of windows, .*, got 'cifar'"):
        make_task('{"name": "cifar"}')


DELAYED = {
    "equal": {"delay": 7.5},
    "different": {"delay": 7.5, "different_delays": True},
    "learned": {"delay": 7.5, "learned": ("delay",)},
}


@pytest.mark.parametrize("name", DELAYED)
@pytest.mark.parametrize("description", [WINDOWS, XOR], ids=["windows", "xor"])
def test_late_spikes_are_read_as_by_a_delay_before_the_readout(name, description):
    task = make_task(json.dumps(description))
    network = build(Neurons(**DELAYED[name]), Architecture(**SMALL), task, 0)
    logits, (z,) = network(task.encode(task.test.inputs[:5]))
    delay, network.delay = network.delay, None
    late, _ = delay(z)
    torch.testing.assert_close(logits, network.decode(late), rtol=1e-5, atol=1e-5)
    steps = delay.p.delay.expand(12) / DT
    spread = torch.linspace(7.5 / 12, 15 - 7.5 / 12, 12) if name == "different" else torch.full((12,), 7.5)
    torch.testing.assert_close(steps.float(), spread, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_delay_is_that_of_a_delay_before_the_readout():
    network = build(Neurons(**DELAYED["learned"]), Architecture(**SMALL), TASK, 0)
    logits, (z,) = network(TASK.encode(TASK.test.inputs[:5]))
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    (raw,) = network.delay.p.parameters()
    fast = torch.autograd.grad((logits * weights).sum(), raw)[0]
    delay, network.delay = network.delay, None
    slow = torch.autograd.grad((network.decode(delay(z.detach())[0]) * weights).sum(), raw)[0]
    assert slow.abs().max() > 0
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-4 * slow.abs().max().item())


def test_learned_delays_move_and_are_reported_and_the_others_stay():
    result = run_trial(cell(DELAYED["learned"]))
    assert result["before"]["delay"][0] == pytest.approx([7.5] * 21, rel=1e-4)
    after = result["after"]["delay"][0]
    assert after[0] < 7.5 < after[-1]
    for name in ("equal", "different"):
        result = run_trial(cell(DELAYED[name]))
        assert result["after"]["delay"] == result["before"]["delay"]


def test_classes_are_read_from_late_spikes_too():
    task = tasks.smooth_random_manifolds(60, 20, 20, classes=3, steps=15)
    network = build(Neurons(delay=3.0), Architecture(hidden=8, readout="mean"), task, 0)
    logits, (z,) = network(task.encode(task.test.inputs[:4]))
    network.delay = None
    late = torch.cat([torch.zeros_like(z[:3]), z[:-3]])
    torch.testing.assert_close(logits, network.decode(late))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"delay": -1.0}, "delay: expected at least 0 time steps, more if delays differ, got -1.0"),
        ({"different_delays": True}, "delay: expected at least 0 time steps, more if delays differ, got 0.0"),
        ({"learned": ("delay",)}, r"learned: expected some of tau_mem, tau_syn, v_th, got \['delay'\]"),
        ({"delay": 2.0, "learned": ("delay",), "shared": True}, "shared: expected equal neurons of which something"),
    ],
)
def test_delays_that_say_too_little_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Neurons(**wrong)
