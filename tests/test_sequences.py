"""Sequences of different lengths in one batch, against each of them alone."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import snnparams as sp
from snnparams.layers import sequences, states

LENGTHS = [7, 12, 3, 7, 10]


def network(kind):
    torch.manual_seed(1)
    p = sp.LIFParameters(tau_mem=sp.Learned(0.02), v_th=0.3, alpha=5.0)
    exact = sp.LIFParameters(tau_mem=sp.Learned(0.02, shared=True), v_th=0.3, method="adjoint")
    first = {
        "recurrent": lambda: [sp.LIFRecurrent(4, 6, p)],
        "adjoint": lambda: [sp.LIFRecurrent(4, 6, exact)],
        "norm": lambda: [sp.OverTime(nn.Linear(4, 6), nn.BatchNorm1d(6)), sp.LIF(p, size=6)],
        "nested": lambda: [sp.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), sp.LIF(p, size=6))],
    }[kind]()
    return sp.Sequential(*first, nn.Linear(6, 3), sp.LI()).double()


def padded(fill, steps=14):
    generator = torch.Generator().manual_seed(2)
    x = (torch.rand(steps, len(LENGTHS), 4, generator=generator, dtype=torch.float64) < 0.5).double()
    for row, length in enumerate(LENGTHS):
        x[length:, row] = fill
    return x


def loss(voltages):
    return voltages.square().sum() + sequences.last(voltages, LENGTHS).sum() + sequences.mean(voltages, LENGTHS).sum()


@pytest.mark.parametrize("kind", ["recurrent", "adjoint"])
def test_each_sequence_gets_the_numbers_that_it_gets_alone(kind):
    model = network(kind)
    x = padded(math.nan).requires_grad_()
    voltages, state = model(x, lengths=LENGTHS)
    loss(voltages).backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for row, length in enumerate(LENGTHS):
        alone = x.detach()[:length, row : row + 1].requires_grad_()
        v, last = model(alone)
        torch.testing.assert_close(voltages[:length, row : row + 1], v, rtol=1e-10, atol=1e-12)
        assert (voltages[length:, row] == 0).all()
        torch.testing.assert_close(states.select(state, [row]), last, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(sequences.last(voltages, LENGTHS)[row], v[-1, 0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(sequences.mean(voltages, LENGTHS)[row], v[:, 0].mean(0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(sequences.maximum(voltages, LENGTHS)[row], v[:, 0].amax(0), rtol=1e-10, atol=1e-12)
        (v.square().sum() + v[-1].sum() + v.mean(0).sum()).backward()
        torch.testing.assert_close(x.grad[:length, row : row + 1], alone.grad, rtol=1e-9, atol=1e-11)
        assert (x.grad[length:, row] == 0).all()
    for name, p in model.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("kind", ["recurrent", "adjoint", "norm", "nested"])
def test_what_stands_behind_the_end_changes_nothing(kind):
    found = []
    for fill in (0.0, 1e30, math.nan, math.inf):
        model = network(kind)
        voltages, state = model(padded(fill), lengths=torch.tensor(LENGTHS))
        loss(voltages).backward()
        found.append([voltages, state, dict(model.state_dict()), [p.grad for p in model.parameters()]])
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=0, atol=0)
    assert all(grad.isfinite().all() for grad in found[0][3])


def test_a_normalisation_sees_the_steps_that_count():
    lifted, x = sp.OverTime(nn.BatchNorm1d(4).double()), padded(math.nan)
    frames = torch.cat([x[:length, row] for row, length in enumerate(LENGTHS)])
    normal = (x[2, 0] - frames.mean(0)) / (frames.var(0, unbiased=False) + 1e-5).sqrt()
    out = lifted(x, LENGTHS)
    torch.testing.assert_close(out[2, 0], normal)
    assert (out[LENGTHS[0] :, 0] == 0).all()


def test_a_given_state_goes_on_and_equal_lengths_are_none():
    model, x = network("recurrent"), padded(1.0)
    _, middle = model(x[:4])
    voltages, state = model(x[4:], middle, lengths=[10] * 5)
    expected, last = model(x[4:], middle)
    torch.testing.assert_close(voltages, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)
    shorter, _ = model(x[4:], middle, lengths=[1, 2, 3, 4, 10])
    torch.testing.assert_close(shorter[:2, 1], expected[:2, 1], rtol=1e-12, atol=1e-12)


def test_the_mask():
    mask = sequences.valid([1, 3, 2], 4)
    assert mask.T.tolist() == [[True, False, False, False], [True, True, True, False], [True, True, False, False]]
    assert torch.equal(sequences.valid(torch.tensor([1, 3, 2]), 4), mask)


def test_an_ensemble_takes_lengths():
    members, x = [network("recurrent"), network("recurrent")], padded(math.nan)
    with torch.no_grad():
        members[1][1].weight.mul_(2)
    out, _ = sp.Ensemble(members)(x, lengths=LENGTHS)
    for k, member in enumerate(members):
        torch.testing.assert_close(out[k], member(x, lengths=LENGTHS)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recurrent", "norm", "nested"])
def test_a_compiled_network_takes_lengths_in_one_graph(kind):
    found = []
    for compiled in (False, True):
        model, x = network(kind), padded(math.nan).requires_grad_()
        called = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        voltages, state = called(x, lengths=LENGTHS)
        loss(voltages).backward()
        found.append([voltages, state, x.grad, dict(model.state_dict()), [p.grad for p in model.parameters()]])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)
    with pytest.raises(Exception, match=r"lengths: expected a list of integers under torch\.compile, got a tensor"):
        called(x, lengths=torch.tensor(LENGTHS))


def test_bad_input():
    model, x = network("recurrent"), padded(0.0)
    for lengths, error, message in (
        (torch.tensor([7.0, 12, 3, 7, 10]), TypeError, "lengths: expected integers, got torch.float32"),
        (torch.ones(14, 5) > 0, TypeError, r"lengths: expected integers, got torch.bool; a mask .* as mask.sum\(0\)"),
        ([7, 12, 3, 7, 10.0], TypeError, "lengths: expected integers, got float"),
        ([7, 12, 3, 7, True], TypeError, "lengths: expected integers, got bool"),
        (torch.tensor(5), TypeError, "lengths: expected one integer for each sequence, got a tensor without axes"),
        ([7, 12, 3], ValueError, r"one for each sequence of an input \(T, B, ...\), got 3 for an input of shape"),
        ([7, 12, 3, 7, 15], ValueError, "lengths: expected 1 to 14 steps, got 15"),
        ([7, 12, 3, 7, 0], ValueError, "lengths: expected 1 to 14 steps, got 0"),
    ):
        with pytest.raises(error, match=message):
            model(x, lengths=lengths)
        with pytest.raises(error, match=message):
            sequences.last(x, lengths)
    with pytest.raises(TypeError, match=r"got torch.sparse_coo; use .to_dense"):
        model(x.to_sparse(), lengths=LENGTHS)
    packed = pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    with pytest.raises(TypeError, match=r"got a PackedSequence; use torch.nn.utils.rnn.pad_packed_sequence"):
        model(packed, lengths=LENGTHS)
    with pytest.raises(TypeError, match=r"got a PackedSequence; use torch.nn.utils.rnn.pad_packed_sequence"):
        model(packed)
    with pytest.raises(ValueError, match="lengths: expected layers, which compute whole sequences, got cells"):
        sp.Sequential(sp.LIFCell())(torch.rand(3, 2), lengths=[1, 1])
    with pytest.raises(ValueError, match="lengths: expected 1 to 3 steps, got 4"):
        sequences.valid([4], 3)
