"""What gpu_times.py measures is what is predicted, and what it has of other cards stays."""

import json
import sys

import pytest
import torch
from notebooks import ROOT

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import gpu_predictions
import gpu_times

KEYS = ("neurons", "direction", "precision")


def keys(rows):
    return [tuple(row[key] for key in KEYS) for row in rows]


def test_rows_are_those_predicted_for_each_card():
    for card in gpu_predictions.CARDS:
        of_card = [row for row in gpu_predictions.rows() if row["card"] == card]
        assert keys(gpu_times.wanted()) == keys(of_card)


def test_names_of_devices_tell_the_card():
    cards = {"Tesla T4": "T4", "NVIDIA A10": "A10", "NVIDIA A100-SXM4-40GB": "A100", "NVIDIA H100 80GB HBM3": "H100"}
    assert {name: gpu_predictions.card_of(name) for name in cards} == cards
    assert {gpu_predictions.card_of(name) for name in ("NVIDIA A10G", "NVIDIA H200", "NVIDIA T400")} == {None}


@pytest.mark.parametrize("direction", gpu_predictions.OPERATORS)
def test_a_row_has_times_and_says_that_a_cpu_has_no_graphs(monkeypatch, direction):
    monkeypatch.setattr(gpu_times, "WARM_UP", 1)
    monkeypatch.setattr(gpu_times, "REPETITIONS", 2)
    before = torch.get_float32_matmul_precision()
    row = gpu_times.measured("cpu", 5, direction, "high", steps=3, batch=2)
    assert torch.get_float32_matmul_precision() == before
    assert keys([row]) == [(5, direction, "high")]
    assert row["measured_us"] > 0
    assert row["readout_us"] > 0
    assert row["of_the_gpu_us"] is None
    assert "only a CUDA GPU has graphs" in row["not_captured"]


@pytest.mark.parametrize("build", [gpu_times.layer, gpu_times.readout])
def test_a_pass_goes_back_to_input_and_parameters(build):
    what = build(5, "cpu", steps=3, batch=2)
    gradients = what.both()
    assert [g.shape for g in gradients] == [what.x.shape, *(p.shape for p in what.module.parameters())]


def test_a_row_is_compared_with_the_prediction_of_its_card():
    row = {"neurons": 256, "direction": "backward", "precision": "high", "measured_us": 1000.0}
    card = gpu_predictions.CARDS["T4"]
    predicted = gpu_predictions.predicted(card, 256, "backward", True)["predicted_us"]
    compared = gpu_times.compared(row, "Tesla T4")
    assert compared["predicted_us"] == predicted
    assert compared["measured_over_predicted"] == pytest.approx(1000 / predicted, abs=0.005)
    assert gpu_times.compared(row, "NVIDIA H200") == row


def test_without_a_gpu_it_refuses(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="CUDA GPU"):
        gpu_times.main(["--output", str(tmp_path / "times.json")])
    assert not list(tmp_path.iterdir())


def test_other_cards_stay_and_a_stopped_run_keeps_its_rows(tmp_path, monkeypatch):
    path = tmp_path / "times.json"
    times = dict.fromkeys(gpu_predictions.MEASURED, 1.0)
    rows = [what | times for what in gpu_times.wanted()]
    gpu_times.record(path, "Tesla T4", {"date": "then"}, rows)

    def stopped():
        yield rows[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpu_times.record(path, "NVIDIA H100 80GB HBM3", {"date": "now"}, stopped())
    expected = {"Tesla T4": {"date": "then", "rows": rows}}
    assert json.loads(path.read_text()) == expected | {"NVIDIA H100 80GB HBM3": {"date": "now", "rows": rows[:1]}}

    monkeypatch.setattr(gpu_predictions, "TIMES", path)
    beside = [row for row in gpu_predictions.rows() if row["measured"] != "not measured"]
    assert all(row["measured"] == times for row in beside)
    assert [row["card"] for row in beside] == ["T4"] * len(rows) + ["H100"]
    assert "but those that stand under measured" in gpu_predictions.content()["about"]


@pytest.mark.skipif(not gpu_predictions.TIMES.exists(), reason="no GPU was timed")
def test_each_card_has_all_rows():
    for device in json.loads(gpu_predictions.TIMES.read_text()).values():
        assert keys(device["rows"]) == keys(gpu_times.wanted())
        for row in device["rows"]:
            assert row["measured_us"] > 0
            assert row["readout_us"] > 0
            assert row["not_captured"] if row["of_the_gpu_us"] is None else row["of_the_gpu_us"] > 0
