"""The table of predicted times is what the model gives, says that it is one, and carries what `gpu` says of it."""

import json
import sys

import pytest
from notebooks import ROOT

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import gpu_predictions
import gpu_resources

STORED = json.loads((ROOT / "book" / "results" / "gpu_predictions.json").read_text())
ROWS = STORED["rows"]


def test_the_stored_table_is_that_of_the_model_and_says_what_it_is():
    assert {name: STORED[name] for name in gpu_predictions.content()} == json.loads(
        json.dumps(gpu_predictions.content())
    )
    assert STORED["command"] == "python tests/benchmarks/gpu_predictions.py"
    assert STORED["kind"] == "predicted"
    assert "not one of these times was measured" in STORED["about"]
    for row in ROWS:
        assert row["measured"] == "not measured" or set(row["measured"]) == set(gpu_predictions.MEASURED)
    assert {row["card"] for row in ROWS} == {"T4", "A10", "A100", "H100"}


def test_no_prediction_is_faster_than_the_card_can_be():
    for row in ROWS:
        card = gpu_predictions.CARDS[row["card"]]
        steps, batch, neurons = gpu_predictions.STEPS, gpu_predictions.BATCH, row["neurons"]
        numbers = steps * batch * neurons * gpu_predictions.BYTES[row["direction"]]
        flops = 2 * steps * batch * neurons**2  # of the recurrence alone
        least = max(
            4 * numbers / card.bandwidth, flops / (card.tf32 or card.float32), steps * card.latency / card.clock
        )
        assert least <= 1e-6 * row["of_it_steps_us"] < 1e-6 * row["predicted_us"]


def test_programs_and_multiprocessors_are_those_of_the_cards():
    for card in gpu_predictions.CARDS.values():
        assert card.multiprocessors == gpu_resources.MULTIPROCESSORS[card.capability]
    assert gpu_predictions.CARDS["T4"].clock == pytest.approx(1.59e9, rel=0.01)  # the highest that NVIDIA names
    assert gpu_predictions.CARDS["A100"].clock == pytest.approx(1.41e9, rel=0.01)


def test_what_was_decided_follows_from_the_table():
    for row in ROWS:
        by_rows = row["steps_us_by_rows"]
        if row["card"] == "T4":
            assert row["rows_of_a_program"] == 8
            assert by_rows["8"] == min(by_rows.values())
            if row["neurons"] >= 256:
                assert by_rows["8"] < 0.55 * by_rows["16"]
        else:
            assert row["rows_of_a_program"] == 16
            assert min(by_rows.values()) >= 0.9 * by_rows["16"]
        assert row["readout_us"] < 0.45 * row["of_it_steps_us"]
    together = "half of all registers, of programs that wait for each other"
    assert all(card["neurons_that_fit"][together] > 1000 for card in STORED["cards"].values())


def test_what_was_measured_is_what_gpu_says_of_it():
    timed = [(row, row["measured"]) for row in ROWS if row["measured"] != "not measured"]
    assert {row["card"] for row, _ in timed} == {"H100"}
    ratios = {"on chip": set(), "tiles": set()}
    for row, measured in timed:
        ratios[row["path"]].add(round(measured["of_the_gpu_us"] / row["predicted_us"], 1))
    assert {path: (min(found), max(found)) for path, found in ratios.items()} == {
        "on chip": (1.4, 2.7),
        "tiles": (3.6, 9.3),
    }
    launching = [1e-3 * (measured["measured_us"] - measured["of_the_gpu_us"]) for _, measured in timed]
    assert (round(min(launching), 1), round(max(launching), 1)) == (0.8, 1.7)
    assert all(m["of_the_gpu_us"] < m["measured_us"] / 2 for row, m in timed if row["neurons"] <= 128)
    readouts = [1e-3 * measured["readout_us"] for _, measured in timed]
    assert (round(min(readouts), 1), round(max(readouts), 1)) == (0.7, 1.2)
