"""The networks of chapter 6: conditions differ in what they say and in nothing else."""

import concurrent.futures
import copy
import dataclasses
import math
import multiprocessing

import pytest
import torch

from snnparams import Ensemble, Split, benefit, conditions, tasks
from snnparams.benefit import run_cells, train_networks
from snnparams.conditions import LEARNABLE, Condition, Settings, build

OPTIONS = {"train": 120, "validation": 60, "test": 60, "classes": 4, "steps": 40}
SETTINGS = Settings("smooth_random_manifolds", OPTIONS, epochs=2, hidden=24, batch_size=40)
TASK = tasks.smooth_random_manifolds(**OPTIONS)
CONDITIONS = {
    "hom fixed": Condition(8),
    "het fixed": Condition(8, 0.7),
    "hom learned": Condition(8, 0.0, LEARNABLE),
    "het learned": Condition(8, 0.7, LEARNABLE),
    "slow": Condition(64),
    "only thresholds": Condition(8, 0.0, ("v_th",)),
}


def cell(condition, seed=0, test=False, **settings):
    return {
        "settings": {**dataclasses.asdict(SETTINGS), **settings},
        "condition": dataclasses.asdict(condition),
        "seed": seed,
        "test": test,
    }


def own_weights(network):
    """Return the weights without the factors of the neurons."""
    hidden = network.hidden.parametrizations
    return hidden.input_weights.original, hidden.recurrent_weights.original, network.readout_weights


def values(network):
    p = network.hidden.p
    return {"tau_mem": 1e3 / p.tau_mem_inv, "tau_syn": 1e3 / p.tau_syn_inv, "v_th": p.v_th}


def test_networks_of_one_seed_have_equal_weights_and_rates_whatever_the_condition():
    networks = {name: build(c, SETTINGS, TASK, seed=3) for name, c in CONDITIONS.items()}
    other_seed = build(CONDITIONS["hom fixed"], SETTINGS, TASK, seed=4)
    spikes = TASK.encode(TASK.train.images)
    first = networks["hom fixed"]
    for name, network in networks.items():
        for a, b in zip(own_weights(first), own_weights(network), strict=True):
            assert torch.equal(a, b)
        gains = [g.unique() for g in conditions._gains(network)]
        assert torch.equal(*gains)  # one factor per neuron, for both kinds of weights
        assert len(gains[0]) == (24 if "het" in name else 1)
        assert network(spikes)[1].mean().item() == pytest.approx(
            SETTINGS.rate, rel=0.2
        )  # on all inputs, not on the sample
    assert not torch.equal(own_weights(first)[0], own_weights(other_seed)[0])


def test_what_a_condition_says_is_what_a_network_has():
    for condition in CONDITIONS.values():
        found = values(build(condition, SETTINGS, TASK, seed=0))
        for key, middle in (("tau_mem", condition.tau), ("tau_syn", condition.tau / 2), ("v_th", 1.0)):
            if condition.spread:
                assert found[key].log().mean().item() == pytest.approx(math.log(middle), abs=0.4)
                assert 0.5 < found[key].log().std() / (0.7 / 4 if key == "v_th" else 0.7) < 1.5
            else:
                torch.testing.assert_close(found[key], torch.full((24,), float(middle)))
        assert set(LEARNABLE) == set(found)


def test_fixed_and_learned_networks_begin_as_the_same():
    for kind in ("hom", "het"):
        a, b = (build(CONDITIONS[f"{kind} {how}"], SETTINGS, TASK, seed=1) for how in ("fixed", "learned"))
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y)


def test_only_what_is_learned_moves():
    learners = [
        Condition(8, 0.5, tuple(n for n, used in zip(LEARNABLE, bits, strict=True) if used))
        for bits in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]
    ]
    before = values(build(learners[0], SETTINGS, TASK, seed=0))
    settings = dataclasses.replace(SETTINGS, epochs=1)
    ensemble = train_networks(learners, settings, TASK, seed=0)
    for k, condition in enumerate(learners):
        after = values(ensemble.member(k))
        for name in LEARNABLE:
            moved = (after[name] != before[name]).float().mean()
            assert moved == 0 if name not in condition.learned else moved > 0.9, (condition, name)
        for a, b in zip(own_weights(ensemble.member(k)), own_weights(build(condition, SETTINGS, TASK, 0)), strict=True):
            assert (a != b).float().mean() > 0.5


def test_all_conditions_of_a_seed_see_the_same_batches(monkeypatch):
    seen = []

    def recorded(images):
        seen[-1].append(images.clone())
        return TASK.encode(images)

    task = dataclasses.replace(TASK, encode=recorded)
    for condition, seed in ((CONDITIONS["hom fixed"], 0), (CONDITIONS["het learned"], 0), (CONDITIONS["hom fixed"], 1)):
        seen.append([])
        train_networks([condition], SETTINGS, task, seed)
    first, same, other = seen
    assert len(first) == len(same) == 1 + 2 * 3  # the sample for the rate, and two epochs of three batches
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def poisoned(split):
    return Split(split.images, (split.labels + 1) % 4)


def test_no_label_of_validation_or_test_reaches_training(monkeypatch):
    def results(**changes):
        task = dataclasses.replace(TASK, **changes)
        monkeypatch.setattr(benefit, "_task", lambda *_: task)
        final = train_networks([CONDITIONS["het learned"]], SETTINGS, task, seed=0)
        return run_cells([cell(CONDITIONS["het learned"], test=True)])[0], list(final.state_dict().values())

    clean, clean_state = results()
    for part in ("test", "validation"):
        found, state = results(**{part: poisoned(getattr(TASK, part))})
        assert all(torch.equal(a, b) for a, b in zip(clean_state, state, strict=True))
        assert found["after"] == clean["after"]
        assert found[part] != clean[part]  # the poison works
        other = {"test", "validation"} - {part}
        assert all(found[name] == clean[name] for name in other)
    found, state = results(train=poisoned(TASK.train))
    assert not all(torch.equal(a, b) for a, b in zip(clean_state, state, strict=True))


def test_the_test_split_is_not_touched_unless_asked_for(monkeypatch):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"test.{name} was read")

        __getitem__ = __iter__ = __len__ = __getattr__

    task = dataclasses.replace(TASK, test=Untouchable())
    monkeypatch.setattr(benefit, "_task", lambda *_: task)
    assert run_cells([cell(CONDITIONS["het learned"])])[0]["test"] is None
    with pytest.raises(AssertionError, match=r"test\.\w+ was read"):
        run_cells([cell(CONDITIONS["het learned"], test=True)])


def test_the_same_cell_gives_the_same_numbers_wherever_it_runs():
    one = cell(CONDITIONS["het learned"], test=True)
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    here = run_cells([one])
    torch.manual_seed(2)
    torch.set_num_threads(2)
    try:
        assert run_cells([copy.deepcopy(one)]) == here
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(run_cells, [one]).result() == here


def test_an_ensemble_gives_each_condition_what_it_gets_alone():
    settings = dataclasses.replace(SETTINGS, epochs=1)
    learners = list(CONDITIONS.values())
    together = train_networks(learners, settings, TASK, seed=0)
    for k, condition in enumerate(learners):
        alone = train_networks([condition], settings, TASK, seed=0).member(0)
        for a, b in zip(together.member(k).parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_results_are_what_the_network_does():
    result = run_cells([cell(CONDITIONS["hom learned"], test=True)])[0]
    network = train_networks([CONDITIONS["hom learned"]], SETTINGS, TASK, seed=0).member(0)
    log_p, rate = network(TASK.encode(TASK.test.images))
    assert result["test"]["accuracy"] == pytest.approx((log_p.argmax(1) == TASK.test.labels).float().mean().item())
    assert result["test"]["rate"] == pytest.approx(rate.mean().item(), rel=1e-4)
    assert [len(curve) for curve in result["validation"].values()] == [3, 3, 3]
    assert result["before"]["tau_mem"] == pytest.approx([8.0] * 21)
    assert result["after"]["tau_mem"][10] == pytest.approx(values(network)["tau_mem"].median().item(), rel=0.05)
    assert set(result["robustness"]) == {f"warp {w:g}" for w in benefit.WARPS} | {f"noise {n:g}" for n in benefit.NOISE}


def test_training_reaches_more_than_chance():
    options = OPTIONS | {"train": 1000, "dimensions": 1, "test": 400}
    result = run_cells([cell(CONDITIONS["het fixed"], test=True, options=options, epochs=5)])[0]
    chance = tasks.smooth_random_manifolds(**options).chance
    assert result["test"]["accuracy"] > 1.5 * chance
    assert result["validation"]["loss"][-1] < 0.9 * result["validation"]["loss"][0]


def test_a_gradient_that_is_not_finite_is_refused():
    ensemble = Ensemble([torch.nn.Linear(2, 1, bias=False) for _ in range(2)])
    ensemble.stacked.weight.grad = torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]]])
    benefit._clip(ensemble, 1.0)
    torch.testing.assert_close(ensemble.stacked.weight.grad, torch.tensor([[[0.6, 0.8]], [[0.3, 0.4]]]))
    ensemble.stacked.weight.grad[1, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"expected finite gradients, got norms of \[1\.0, nan\]"):
        benefit._clip(ensemble, 1.0)


def test_time_warp_by_hand():
    spikes = torch.zeros(6, 1, 2)
    spikes[[0, 3, 4], 0, 0] = 1
    assert benefit.time_warp(spikes, 1.0).equal(spikes)
    assert benefit.time_warp(spikes, 2.0)[:, 0, 0].nonzero().flatten().tolist() == [0, 6, 8]
    slow = benefit.time_warp(spikes, 0.5)
    assert slow.shape == (3, 1, 2)
    assert slow[:, 0, 0].tolist() == [1, 1, 1]
    assert benefit.time_warp(spikes, 0.25)[:, 0, 0].tolist() == [1, 1]  # 3 and 4 fall into steps 0 and 1
    with pytest.raises(ValueError, match="factor: expected a positive number, got 0"):
        benefit.time_warp(spikes, 0)


def test_noise_adds_spikes_and_takes_none_away():
    spikes = (torch.rand(200, 5, 50) < 0.05).float()
    generator = torch.Generator().manual_seed(1)
    noisy = benefit.add_noise(spikes, 1.0, generator)
    assert (noisy >= spikes).all()
    assert noisy.mean().item() == pytest.approx(0.05 + 0.05 * 0.95, rel=0.05)
    assert benefit.add_noise(spikes, 0.0, generator).equal(spikes)
    with pytest.raises(ValueError, match="level: expected noise of 0 to 1"):
        benefit.add_noise(spikes, 30.0, generator)


def test_bad_input():
    with pytest.raises(ValueError, match="tau: expected more than 2 time steps, got 2"):
        Condition(2)
    with pytest.raises(ValueError, match="spread: expected at least 0, got -1"):
        Condition(4, -1)
    with pytest.raises(ValueError, match=r"learned: expected some of tau_mem, .*, got \['tau'\]"):
        Condition(4, 0, ("tau",))
    with pytest.raises(ValueError, match=r"task: expected one of mnist, .*, got 'cifar'"):
        Settings("cifar")
    with pytest.raises(ValueError, match="readout: expected one of max, mean, got 'last'"):
        Settings("mnist", readout="last")
    with pytest.raises(ValueError, match="other conditions only"):
        run_cells([cell(Condition(4)), cell(Condition(4), seed=1)])
    with pytest.raises(RuntimeError, match=r"rate: expected 2\.0 spikes per neuron"):
        build(Condition(8), dataclasses.replace(SETTINGS, rate=2.0), TASK, 0)
