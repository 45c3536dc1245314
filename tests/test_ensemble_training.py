"""An ensemble in experiments: inputs, states, dropout and batch order of its own for each member; members that stop."""

import copy

import pytest
import torch
from test_fit import adam, data, fit, model
from torch import nn

import snnparams as sp

SEEDS = (0, 1, 2)


def members(dropout=0.0):
    return [model(seed, dropout) for seed in SEEDS]


def test_inputs_and_states_of_their_own():
    torch.manual_seed(0)
    layers = [sp.LIFRecurrent(4, 6, sp.LIFParameters(v_th=0.3), dtype=torch.float64) for _ in SEEDS]
    ensemble, x = sp.Ensemble(layers), (torch.rand(3, 8, 2, 4) < 0.5).double()
    z, state = ensemble(x, in_dims=0)
    more, last = ensemble(x[0], state, in_dims=(None, 0))
    for k, layer in enumerate(layers):
        own, after = layer(x[k])
        torch.testing.assert_close(z[k], own, rtol=0, atol=0)
        going_on, end = layer(x[0], after)
        torch.testing.assert_close(more[k], going_on, rtol=0, atol=0)
        torch.testing.assert_close(last.v[k], end.v, rtol=1e-12, atol=1e-12)
    for given, in_dims, message in (
        ((x, state), (0,), r"in_dims: expected 0 or None, or one of them for each of 2 arguments, got \(0,\)"),
        ((x,), 1, "in_dims: expected 0 or None, .* got 1"),
        ((x[:2],), 0, r"input: expected a leading axis of 3 members for in_dims=0, got \(2, 8, 2, 4\)"),
        (([1],), 0, "input: expected a leading axis of 3 members for in_dims=0, got int"),
    ):
        with pytest.raises(ValueError, match=message):
            ensemble(*given, in_dims=in_dims)
    with pytest.raises(TypeError, match=r"input: expected a dense tensor for in_dims=0, got layout torch\.sparse_coo"):
        ensemble(x.to_sparse(), in_dims=0)


@pytest.mark.parametrize(("limit", "parts"), [(1, [1] * 3), (2 * 8 * 2 * 6 * 8, [2, 1]), (3 * 8 * 2 * 6 * 8, [3])])
@pytest.mark.parametrize("in_dims", [None, 0])
def test_members_whose_tensors_would_be_large_are_computed_in_parts(limit, parts, in_dims, monkeypatch):
    """8 steps, 2 rows, 6 neurons and 8 bytes: the numbers are those of all at once, and of each alone."""
    torch.manual_seed(0)
    layers = [sp.LIFRecurrent(4, 6, sp.LIFParameters(v_th=sp.Learned(0.3)), dtype=torch.float64) for _ in SEEDS]
    x = (torch.rand(*([3] if in_dims == 0 else []), 8, 2, 4) < 0.5).double()
    ensemble, sizes = sp.Ensemble(layers), []
    with monkeypatch.context() as patch:
        patch.setattr("snnparams.training.stacking._LARGE", limit)
        seen = torch.func.functional_call

        def counted(*args, **options):
            out = seen(*args, **options)
            sizes.append(torch._C._functorch.get_unwrapped(out[0]).shape[0])
            return out

        patch.setattr("snnparams.training.ensemble.functional_call", counted)
        z, state = ensemble(x, in_dims=in_dims)
    assert sizes == parts
    z.sum().backward()
    for k, layer in enumerate(layers):
        own, after = layer(x[k] if in_dims == 0 else x)
        own.sum().backward()
        torch.testing.assert_close(z[k], own, rtol=0, atol=0)
        torch.testing.assert_close(state.v[k], after.v, rtol=1e-12, atol=1e-12)
        for name, parameter in layer.named_parameters():
            found = ensemble.stacked.get_parameter(name).grad[k]
            torch.testing.assert_close(found, parameter.grad, rtol=1e-10, atol=1e-12)


def test_in_parts_random_numbers_are_drawn_as_at_once_and_batches_are_counted_once(monkeypatch):
    monkeypatch.setattr("snnparams.training.stacking._LARGE", 1)
    same = sp.Ensemble([nn.Dropout(0.5) for _ in SEEDS], randomness="same")(torch.ones(500))
    assert torch.equal(same[0], same[2])
    counts = sp.Ensemble([nn.BatchNorm1d(4) for _ in SEEDS])
    counts(torch.rand(8, 4))
    assert counts.stacked.num_batches_tracked == 1


def test_dropout_differs_between_members_or_is_the_same():
    x = torch.ones(500, dtype=torch.float64)
    drop = [nn.Dropout(0.5) for _ in SEEDS]
    different, same = (sp.Ensemble(drop, randomness=how)(x) for how in ("different", "same"))
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])
    assert ((different == 0).double().mean(1) - 0.5).abs().max() < 0.15
    with pytest.raises(RuntimeError, match=r"stacked in training mode|randomness='different'"):
        sp.Ensemble(drop)(x)
    with pytest.raises(ValueError, match="randomness: expected 'error', 'different' or 'same', got 'both'"):
        sp.Ensemble(drop, randomness="both")


@pytest.mark.parametrize("own_order", [True, False])
def test_fit_trains_each_member_as_it_would_train_it_alone(own_order, tmp_path):
    def generators():
        found = [torch.Generator().manual_seed(seed if own_order else 7) for seed in SEEDS]
        return found if own_order else found[0]

    ensemble = sp.Ensemble(members())
    of_all = fit(ensemble, 3, generator=generators(), clip=0.05, checkpoint=tmp_path / "run.pt")
    for k, alone in enumerate(members()):
        generator = generators()[k] if own_order else generators()
        history = fit(alone, 3, generator=generator, clip=0.05)
        own = of_all.member(k)
        for got, expected in (
            (own.train_losses, history.train_losses),
            (own.test_losses, history.test_losses),
            (own.accuracies, history.accuracies),
        ):
            assert got == pytest.approx(expected, rel=1e-6)
        for a, b in zip(ensemble.member(k).parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="generator: expected one for each of 3 members, got 2"):
        fit(ensemble, 4, generator=[torch.Generator()] * 2)


def test_a_member_that_stops_keeps_its_values_and_the_others_go_on(tmp_path):
    def build():
        found = members()
        for module in found:
            module.network.append(nn.Sequential(sp.OverTime(nn.BatchNorm1d(2))).double())
        return sp.Ensemble(found)

    ensemble, before = build(), build()
    ensemble.halt(1)
    fit(ensemble, 2)
    going = [not all(map(torch.equal, ensemble.member(k).parameters(), before.member(k).parameters())) for k in SEEDS]
    assert going == [True, False, True]
    assert torch.equal(ensemble.member(1).network[4][0][0].running_var, before.member(1).network[4][0][0].running_var)
    free = build()
    fit(free, 2)
    for k in (0, 2):
        for a, b in zip(ensemble.member(k).parameters(), free.member(k).parameters(), strict=True):
            assert torch.equal(a, b)
    for wrong in (3, -1, 1.0):
        with pytest.raises(IndexError, match="members: expected integers from 0 to 2, got"):
            ensemble.halt(wrong)


def test_patience_halts_members_one_by_one_also_after_a_resumption(tmp_path):
    def worsen(ensemble, history):
        if history.epochs == 1:
            ensemble.stacked.network[2].weight.data[2].mul_(-5)

    def run(ensemble, epochs, **more):
        return fit(ensemble, epochs, callbacks=[worsen], patience=2, **more)

    whole, path = sp.Ensemble(members()), tmp_path / "run.pt"
    history = run(whole, 5)
    assert 2 in whole.halted
    assert len(whole.halted) < 3
    losses = history.member(2).test_losses
    assert losses[-1] == losses[-2]
    run(sp.Ensemble(members()), 4, checkpoint=path)
    resumed = sp.Ensemble(members())
    assert run(resumed, 5, checkpoint=path) == history
    assert resumed.halted == whole.halted


def test_learned_and_fixed_together_under_fit():
    found = members()
    found[1].network[0].p.raw("tau_mem_inv").requires_grad_(False)
    ensemble = sp.Ensemble(found)
    fit(ensemble, 2, clip=0.05)
    for k in SEEDS:
        alone = model(k, 0.0)
        if k == 1:
            alone.network[0].p.raw("tau_mem_inv").requires_grad_(False)
        before = alone.network[0].p.tau_mem_inv.detach().clone()
        fit(alone, 2, clip=0.05)
        torch.testing.assert_close(ensemble.member(k).network[0].p.tau_mem_inv, alone.network[0].p.tau_mem_inv)
        assert torch.equal(before, alone.network[0].p.tau_mem_inv.detach()) == (k == 1)


def test_members_that_are_dropped_leave_the_others_their_optimisers_state():
    whole = sp.Ensemble(members())
    optimizer = adam(whole)
    fit(whole, 2, optimizer=optimizer)
    rest = whole.select([2, 0], optimizer)
    fit(rest, 2, optimizer=optimizer)
    for place, k in enumerate((2, 0)):
        alone = model(k, 0.0)
        of_alone = adam(alone)
        fit(alone, 2, optimizer=of_alone)
        fit(alone, 2, optimizer=of_alone)
        for a, b in zip(rest.member(place).parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    whole.halt(2)
    assert whole.select([1, 2]).halted == {1}
    for wrong, error, message in (
        ([3], IndexError, "members: expected integers from 0 to 2, got 3"),
        ([], ValueError, r"members: expected at least one, and each once, got \[\]"),
        ([1, 1], ValueError, r"each once, got \[1, 1\]"),
    ):
        with pytest.raises(error, match=message):
            whole.select(wrong)


def test_each_member_gets_the_values_of_its_own_best_epoch_also_after_a_resumption(tmp_path):
    values = {}

    def worse(ensemble, history):
        values[history.epochs] = [copy.deepcopy(member.state_dict()) for member in map(ensemble.member, range(3))]
        for k in SEEDS:  # from here on it gets worse
            if history.epochs >= k + 1:
                ensemble.stacked.get_parameter("network.2.weight").data[k].mul_(-3)

    def run(ensemble, epochs, name):
        more = {"callbacks": [worse], "restore_best": True, "checkpoint": tmp_path / name, "patience": 3}
        return fit(ensemble, epochs, **more)

    ensemble, stopped = sp.Ensemble(members()), sp.Ensemble(members())
    history = run(ensemble, 6, "whole.pt")
    best = [history.member(k).best_epoch for k in SEEDS]
    assert len(set(best)) > 1
    assert max(best) < history.epochs
    losses = sp.evaluate(ensemble, data(30, 2)).loss
    for k, epoch in enumerate(best):
        for name, value in ensemble.member(k).state_dict().items():
            assert torch.equal(value, values[epoch][k][name]), (k, name)
        assert losses[k] == pytest.approx(min(history.member(k).test_losses))
    run(stopped, 2, "parts.pt")
    again = sp.Ensemble(members())
    assert run(again, 6, "parts.pt") == history
    for name, value in ensemble.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
