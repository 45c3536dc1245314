"""The Yin-Yang data set and its spikes."""

import json
import re
from pathlib import Path

import pytest
import torch

from snnparams.data.yin_yang import CLASSES, SEEDS, classify, latency_encode, yin_yang, yin_yang_points

RESULTS = Path(__file__).resolve().parents[1] / "book" / "results" / "yin_yang.json"


def test_points_lie_in_the_disc_and_carry_their_class():
    for part, (_, size) in SEEDS.items():
        points, labels = yin_yang_points(part)
        assert points.shape == (size, 2)
        assert points.dtype == torch.float32
        assert (torch.linalg.vector_norm(points - 0.5, dim=1) <= 0.5 + 1e-6).all()
        counts = torch.bincount(labels, minlength=3)
        assert (counts > 0.28 * size).all()
        again = [classify(*point) for point in points.double().tolist()]
        assert (torch.tensor(again) == labels).float().mean() > 0.999  # rounded to float32, a point may cross a border
        assert torch.equal(yin_yang_points(part).inputs, points)
    with pytest.raises(ValueError, match=re.escape("part: expected one of train, validation, test, got 'all'")):
        yin_yang_points("all")


def test_parts_differ_and_a_point_reflection_swaps_yin_and_yang():
    assert not torch.equal(yin_yang_points("validation").inputs, yin_yang_points("test").inputs)
    for x, y in yin_yang_points("test").inputs.double().tolist():
        first, second = classify(x, y), classify(1 - x, 1 - y)
        assert {first, second} in ({0, 1}, {2})
    assert classify(0.75, 0.5) == classify(0.25, 0.5) == 2


def test_it_is_a_task_like_the_others():
    task = yin_yang(240, 0.25e-3)
    assert (task.features, task.steps, task.outputs) == (5, 240, len(CLASSES))
    for part in SEEDS:
        split, points = getattr(task, part), yin_yang_points(part)
        assert torch.equal(split.inputs, points.inputs)
        assert torch.equal(split.labels, points.labels)
    spikes = task.encode(task.test.inputs[:4])
    assert torch.equal(spikes, latency_encode(task.test.inputs[:4], 240, 0.25e-3))
    assert task.chance == task.test.labels.bincount().max().item() / 1000


def test_latencies():
    points = torch.tensor([[0.0, 1.0], [0.25, 0.5]])
    spikes = latency_encode(points, 120, 0.5e-3)
    assert spikes.shape == (120, 2, 5)
    torch.testing.assert_close(spikes.sum(dim=0), torch.ones(2, 5))
    times = (spikes * torch.arange(120)[:, None, None]).sum(dim=0) * 0.5e-3  # of the centre of each spike
    expected = torch.tensor([[10.0, 40, 40, 10, 20], [17.5, 25, 32.5, 25, 20]]) * 1e-3
    torch.testing.assert_close(times, expected)
    exact = latency_encode(torch.rand(50, 2), 300, 0.2e-3)
    assert ((exact > 0).sum(dim=0) <= 2).all()
    with pytest.raises(ValueError, match=re.escape("points: expected shape (B, 2), got (3, 3)")):
        latency_encode(torch.zeros(3, 3), 120, 0.5e-3)
    with pytest.raises(ValueError, match=re.escape("points: expected spikes in steps 0 to 59, got some from 20 to 80")):
        latency_encode(points, 60, 0.5e-3)


def test_results_of_chapter_7_meet_the_published_accuracy():
    runs = json.loads(RESULTS.read_text())["runs"]
    for condition in ("weights and parameters", "weights"):
        final = [result["test"] for key, result in runs.items() if key.startswith(f"{condition}, seed")]
        assert len(final) == 5
        assert sum(final) / 5 >= 0.975 or condition == "weights"
