"""Generated tasks: what their inputs hold is what their labels say."""

import math

import pytest
import torch

from snnparams.data import tasks

SMALL = {"train": 400, "validation": 50, "test": 150}


def everything(task):
    splits = (task.train, task.validation, task.test)
    return torch.cat([s.inputs for s in splits]), torch.cat([s.labels for s in splits])


def test_windows_can_be_read_from_the_input():
    task = tasks.windows(count=3, length=30, low=0.0, high=0.5, **SMALL)
    bits, labels = everything(task)
    assert bits.dtype == torch.bool
    assert labels.dtype == torch.uint8
    by_window = bits.view(600, 3, 30, 2, 12).sum(dim=(2, 4))  # (N, K, group)
    assert torch.equal(by_window.argmax(dim=2), labels.long())
    assert (by_window.amin(dim=2) == 0).all()
    assert task.answers == ((89, 0), (89, 1), (89, 2))
    assert (task.steps, task.features, task.outputs, task.classes) == (90, 24, 3, 2)


def test_windows_have_the_rates_that_they_are_given():
    bits, labels = everything(tasks.windows(count=2, **{**SMALL, "train": 4000}))
    active = torch.stack([labels == 0, labels == 1], dim=2)
    shares = bits.view(len(bits), 2, 20, 2, 12).float().mean(dim=(2, 4))
    for rate, mask in ((0.10, active), (0.02, ~active)):
        count = 240 * int(mask.sum())
        assert shares[mask].mean().item() == pytest.approx(rate, abs=5 * math.sqrt(rate / count))
    assert labels.float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_xor_is_that_of_the_slow_and_the_last_fast_cue():
    task = tasks.multi_timescale_xor(cues=4, low=0.0, high=0.6, **SMALL)
    bits, labels = everything(task)
    slow = bits[:, :10, :12].any(dim=(1, 2))
    assert not bits[:, 10:, :12].any()  # the slow group speaks once
    assert not bits[:, :10, 12:].any()
    for k, (due, output) in enumerate(task.answers):
        assert output == 0
        fast = bits[:, due - 11 : due - 1, 12:].any(dim=(1, 2))  # ten steps, the last of them two before the answer
        assert torch.equal(labels[:, k].bool(), slow ^ fast)
        assert not bits[:, due - 1 : due + 4, 12:].any()
    assert task.answers[-1][0] == task.steps - 1
    assert (task.steps, task.outputs) == (10 + 4 * 15 + 2, 1)


@pytest.mark.parametrize("make", [tasks.windows, tasks.multi_timescale_xor])
def test_splits_are_stable_and_differ_and_spikes_fit(make):
    task, again, other = make(**SMALL), make(**SMALL), make(**SMALL, seed=1)
    assert torch.equal(task.test.inputs, again.test.inputs)
    assert not torch.equal(task.test.inputs, other.test.inputs)
    assert [len(s.labels) for s in (task.train, task.validation, task.test)] == [400, 50, 150]
    rows = [tuple(row) for row in everything(task)[0].flatten(1).int().tolist()]
    assert len(set(rows)) == len(rows)
    spikes = task.encode(task.test.inputs[:7])
    assert spikes.shape == (task.steps, 7, task.features)
    assert torch.equal(spikes[:, 3], task.test.inputs[3].float())
    ones = task.test.labels.double().mean(dim=0).tolist()
    assert task.chance == pytest.approx(sum(max(x, 1 - x) for x in ones) / len(ones))
    moved = task.to("cpu")
    assert moved.answers == task.answers


def test_bad_arguments():
    with pytest.raises(ValueError, match="count: expected a positive integer, got 0"):
        tasks.windows(count=0)
    with pytest.raises(ValueError, match=r"train: expected a positive integer, got 1\.5"):
        tasks.windows(train=1.5)
    with pytest.raises(ValueError, match=r"low, high: expected 0 <= low < high <= 1 .*, got 0\.3 and 0\.2"):
        tasks.windows(low=0.3, high=0.2)
    with pytest.raises(ValueError, match="delay: expected at most gap, 5, got 6"):
        tasks.multi_timescale_xor(delay=6)
    with pytest.raises(ValueError, match="cues: expected a positive integer, got True"):
        tasks.multi_timescale_xor(cues=True)
