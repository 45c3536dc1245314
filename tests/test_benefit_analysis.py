"""What chapter 6 reads out of its results is what the lines say."""

import json
import math
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from notebooks import ROOT
from scipy import stats

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import benefit_adaptation as adaptation
import benefit_analysis as analysis
import benefit_delays as delays
import benefit_design as design
import benefit_figures as figures
import benefit_results
from benefit_analysis import Results
from benefit_design import EQUAL, LEARNS, MEM, SYN

from snnparams.experiments.statistics import equivalence, mean_contrast


def changed(monkeypatch, name, value):
    """Change what the modules have read out of `benefit_terms`."""
    modules = [module for module in (analysis, benefit_results) if hasattr(module, name)]
    assert modules
    for module in modules:
        monkeypatch.setattr(module, name, value)


SEEDS = (1, 2, 3, 4)
GAIN = {1: 0.10, 2: 0.14, 3: 0.12, 4: 0.15}


def line(task, condition, seed, accuracy, neurons=None, **result):
    test = {"accuracy": accuracy, "answers": [accuracy + 0.1, accuracy - 0.1], "rate": [0.1, 0.3], "spikes": 40.0}
    return {
        "task": task,
        "condition": condition,
        "seed": seed,
        "cell": {"neurons": neurons or {"tau_mem": 4.0, "tau_syn": 20.0}, "training": {"learning_rate": 0.01}},
        "result": {"test": test, "validation": {"accuracy": accuracy}, **result},
    }


@pytest.fixture
def results(tmp_path):
    core = [line("windows 4", EQUAL, s, 0.7 + 0.01 * s) for s in SEEDS]
    core += [line("windows 4", SYN, s, 0.7 + 0.01 * s + GAIN[s]) for s in SEEDS]
    core.append({**line("windows 4", MEM, 1, 0.5), "result": {"failed": "no scale gives the rate"}})
    core += [line("windows 4", MEM, s, 0.7 + 0.01 * s + (0.01 if s < 4 else -0.3)) for s in SEEDS[1:]]
    causes = [line("windows 4", f"{SYN}, no reset", s, 0.9) for s in SEEDS[:3]]
    learned = {"learned": {"tau_syn": [[10.0, 40.0, 90.0]], "v_th": [[0.5, 0.5, 2.0]]}}
    causes += [line("windows 4", "all learned", s, 0.9, **learned) for s in SEEDS[:3]]
    tuning = [line("windows 4", EQUAL, s, 0.7 + 0.01 * k, {"tau_syn": 5.0 * 2**k}) for k in (0, 3, 1) for s in (8, 9)]
    tuning += [line("windows 4", MEM, s, 0.75) for s in (8, 9)]
    shifts = (0.01, 0.03, 0.02, 0.04, 0.05)
    natural = []
    for split, shift in enumerate(shifts):
        for seed in (10 * split + 1, 10 * split + 2):
            changed = {"disturbed": {"noise 1": 0.8}}
            natural.append(line(f"spoken digits, split {split}", EQUAL, seed, 0.9, **changed))
            natural.append(line(f"spoken digits, split {split}", SYN, seed, 0.9 + shift, **changed))
            natural.append(line(f"spoken digits, recurrent, split {split}", SYN, seed, 0.99))
    natural += [line("spoken digits", kind, 1, 0.93) for kind in (*design.KINDS, design.ALL)]
    gradients = [
        {"task": "windows 4", "condition": EQUAL, "seed": s, "result": {"tau_mem, exact, initial": 0.5 * s}}
        for s in (2, 1)
    ]
    levels = [("windows 4", "counts", 0.6), ("windows 4", "counts", 0.7), ("windows 4, recurrent", "gru", 0.8)]
    references = [
        {"task": task, "condition": level, "seed": seed, "result": {"test": accuracy}}
        for seed, (task, level, accuracy) in enumerate(levels)
    ]
    flat = [line("xor", f"{EQUAL}, {n} epochs", s, 0.5 + 0.01 * n) for n in (16, 32) for s in (1, 2)]
    flat += [line("xor", f"{SYN}, {n} epochs", s, 0.9) for n in (16, 32) for s in (1, 2)]
    for run in flat:
        del run["result"]["test"]
        run["result"]["validation"]["answers"] = [0.5, 1.0]
    stages = {"core": core, "causes": causes, "tuning": tuning, "natural": natural, "gradients": gradients}
    for stage, lines in {**stages, "references": references, "flat": flat}.items():
        (tmp_path / f"{stage}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return Results(tmp_path)


def test_numbers_are_those_of_the_lines_and_failed_runs_are_left_out(results):
    assert results.by_seed("core", "windows 4", EQUAL) == pytest.approx({s: 70 + s for s in SEEDS})
    assert list(results.by_seed("core", "windows 4", MEM)) == [2, 3, 4]
    assert results.mean("core", "windows 4", EQUAL, "remembered") == pytest.approx(2 * (2 * 0.725 - 1))
    assert results.mean("core", "windows 4", EQUAL, "rate") == pytest.approx(0.2)
    assert results.mean("core", "windows 4", EQUAL, "spikes") == 40
    with pytest.raises(KeyError, match="expected runs of 'nobody' on 'windows 4' in stage core, got none"):
        results.by_seed("core", "windows 4", "nobody")


def test_controls_are_compared_with_the_core_within_their_own_seeds(results):
    found = results.difference("causes", "windows 4", f"{SYN}, no reset", SYN)
    assert found.seeds == pytest.approx({s: 20 - s - 100 * GAIN[s] for s in SEEDS[:3]})


def test_differences_are_taken_within_seeds(results):
    found = results.difference("core", "windows 4", SYN)
    values = [100 * GAIN[s] for s in SEEDS]
    assert found.values == pytest.approx(values)
    assert found.contrast == pytest.approx(mean_contrast(values))
    assert found.same == pytest.approx(equivalence(values, 1.0))
    assert str(found).startswith("+12.8 (+9.")
    only_shared = results.difference("core", "windows 4", MEM)
    assert list(only_shared.seeds) == [2, 3, 4]


def test_splits_share_training_data_and_their_interval_says_so(results):
    found = results.natural("spoken digits", SYN)
    values = np.array([1, 3, 2, 4, 5.0])
    assert found.values == pytest.approx(values)
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) * math.sqrt(1 / 5 + 600 / 2100)
    assert found.contrast.high - found.contrast.mean == pytest.approx(half)
    change = results.natural("spoken digits", SYN, measure="noise 1")
    assert change.values == pytest.approx(-values)  # what is better loses more, to end at the same place


def test_natural_tasks_are_shown_as_far_as_they_have_been_run(tmp_path):
    kinds, changed = (*design.KINDS, design.ALL), dict.fromkeys(figures.CHANGES, 0.8)

    def given(*splits):
        runs = [(split, k, s) for split in splits for k in range(len(kinds)) for s in (1, 2)]
        reached = {(k, s): 0.9 + 0.01 * k * s / 1.5 for _, k, s in runs}
        lines = [line(f"spoken digits{x}", kinds[k], s, reached[k, s], disturbed=changed) for x, k, s in runs]
        (tmp_path / "natural.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return Results(tmp_path)

    def headings(figure):
        return [text.get_text() for text in figure.axes[0].texts]

    assert analysis.official(given()).rows == []
    rows = analysis.official(given("")).rows
    assert [row[0] for row in rows] == [f"spoken digits: {analysis.TITLE[kind]}" for kind in kinds]
    assert [row[1] for row in rows[:2]] == ["90.0", "91.0"]
    assert rows[1][2].startswith("+1.0 (")
    assert {row[4] for row in rows} == {"2"}
    four, five = ([f", split {k}" for k in range(count)] for count in (4, 5))
    assert headings(figures.natural(given("", *four))) == ["spoken digits, the official split"]
    assert headings(figures.natural(given(*five))) == ["spoken digits, five splits"]
    figure = figures.robustness(given(""), "spoken digits")
    assert headings(figure) == list(figures.CHANGES.values())
    means = [line.get_xdata()[0] for line in figure.axes[0].lines[3::3]]
    assert means == pytest.approx([-1, -2, -3, -4, -5] * 4)  # all end at 80 %, from wherever they began
    plt.close("all")


@pytest.mark.parametrize("values", [[0.1, -0.2, 0.3, 0.05], [0.9, 1.4, 1.0, 1.2], [-0.8, -0.9, -0.7, -0.6]])
def test_two_one_sided_tests_with_a_given_error_are_the_usual_ones_where_nothing_is_shared(values):
    ours = benefit_results._corrected_equivalence(mean_contrast(values), len(values))
    assert ours == pytest.approx(equivalence(values, analysis.MARGIN), rel=1e-6)
    assert benefit_results._corrected_equivalence(mean_contrast([0.5] * 4), 4) == 0
    assert benefit_results._corrected_equivalence(mean_contrast([1.5] * 4), 4) == 1


def test_reference_levels_of_a_recurrent_task_are_those_of_its_inputs(results):
    assert results.level("windows 4", "counts") == pytest.approx(65)
    assert results.level("windows 4, recurrent", "counts") == pytest.approx(65)
    assert results.level("windows 4, recurrent", "gru") == pytest.approx(80)
    assert results.level("windows 4", "chance") is None
    assert results.reached("spoken digits")[SYN] == pytest.approx(93)


def test_a_task_is_read_where_it_has_been_run(results, monkeypatch):
    assert results.tasks == []  # learned kinds are missing
    assert results.stage("windows 4") == "flat"
    changed(monkeypatch, "KINDS", {EQUAL: None, SYN: None})
    changed(monkeypatch, "CORE_SEEDS", 4)
    assert results.tasks == ["windows 4"]
    assert results.stage("windows 4") == "core"
    assert results.stage("xor") == "flat"
    assert results.by_seed("flat", "xor", EQUAL) == pytest.approx({1: 82, 2: 82})  # of the longer training
    assert results.mean("flat", "xor", EQUAL, "remembered") == pytest.approx(1)
    assert analysis.gained_by_doubling(results, "xor") == pytest.approx({EQUAL: 16, SYN: 0})
    assert results.lines("rasters") == []


def test_choices_and_tries(results):
    assert [x.accuracy for x in results.tries("tuning", "windows 4", EQUAL)] == pytest.approx([70, 73, 71])
    assert analysis.over_untuned(results, "windows 4") == pytest.approx((4, 2))
    chosen = results.choice("tuning", "windows 4", EQUAL)
    assert chosen.accuracy == pytest.approx(73)
    assert (chosen.run["seed"], chosen.run["cell"]["neurons"]["tau_syn"]) == (8, 40.0)
    assert results.scatter("xor", SYN) == 0


def test_a_search_that_tried_all_neighbours_ended_at_no_edge(tmp_path):
    def search(places):
        lines = []
        for mem, syn, rate, accuracy in places:
            neurons = {"tau_mem": 4.0 * 2**mem, "tau_syn": 20.0 * 2**syn}
            run = line("xor", EQUAL, 1, accuracy, neurons)
            run["cell"]["training"] = {"epochs": 8, "learning_rate": 0.01 * 2**rate}
            lines.append(json.dumps(run) + "\n")
        (tmp_path / "tuning.jsonl").write_text("".join(lines))
        return Results(tmp_path).encloses("tuning", "xor", EQUAL)

    middle = (1, 0, 2, 0.9)
    around = [(0, 0, 2, 0.8), (2, 0, 2, 0.7), (1, 1, 2, 0.8), (1, -1, 2, 0.5), (1, 0, 3, 0.6), (1, 0, 1, 0.8)]
    assert search([middle, *around])
    assert not search([middle, *around[1:]])


def test_what_one_seed_chose_is_looked_at_with_another(tmp_path):
    runs = [(EQUAL, 5.0, (0.7, 0.9)), (EQUAL, 10.0, (0.8, 0.6)), (SYN, 5.0, (0.85, 0.5)), (SYN, 10.0, (0.7, 0.99))]
    lines = [
        line("xor", kind, seed, accuracy, {"tau_syn": tau})
        for kind, tau, pair in runs
        for seed, accuracy in zip((1001, 1002), pair, strict=True)
    ]
    (tmp_path / "tuning.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    results = Results(tmp_path)
    assert analysis.chosen_by_one_seed(results, "xor", SYN) == pytest.approx((5, -10))
    assert analysis.chosen_by_one_seed(results, "xor", SYN, max) == pytest.approx((9, 0))
    assert analysis.gain_of_best_settings(results, "xor", SYN, 1) == pytest.approx((4.5, 4.5))
    assert analysis.gain_of_best_settings(results, "xor", SYN, 2) == pytest.approx((-12.5, 14.5))


def test_quantiles_of_what_was_learned(tmp_path):
    taus = [10.0 * 2**k for k in range(21)]
    lines = [line("xor", "tau_syn learned, 32 epochs", s, 0.9, learned={"tau_syn": [taus]}) for s in (1, 2)]
    (tmp_path / "flat.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert Results(tmp_path).learned("xor", LEARNS) == pytest.approx((40, 10 * 2**10, 10 * 2**18))


def test_collapsed_runs_failed_or_are_far_below_the_median(results):
    assert results.collapsed("core", "windows 4", EQUAL) == 0
    assert results.collapsed("core", "windows 4", MEM) == 0.5


def test_medians_before_and_after_training(results):
    found = results.medians("causes", "windows 4", "all learned")
    assert found["tau_syn"] == pytest.approx((20, 40))
    assert found["v_th"] == pytest.approx((1, 0.5))


def test_gradients_come_by_seed(results):
    assert results.derivatives("windows 4", "tau_mem, exact, initial") == {1: 0.5, 2: 1.0}


def test_slopes_stand_under_what_they_are_of(tmp_path):
    ways = ("surrogate", "exact", "difference 0.1")
    names = [
        f"{n}, {w}, {when}" for n in ("tau_mem", "tau_syn", "v_th") for when in ("initial", "trained") for w in ways
    ]
    lines = [
        {"task": "xor", "condition": EQUAL, "seed": s, "result": {name: k + 0.1 * s for k, name in enumerate(names)}}
        for s in (1, 2, 3)
    ]
    (tmp_path / "gradients.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    table = analysis.slopes(Results(tmp_path), ["xor"])
    assert table.header[1:4] == ["before: surrogate", "before: exact", "before: difference"]
    assert [row[0] for row in table.rows] == ["XOR: τ mem", "XOR: τ syn", "XOR: threshold"]
    assert [row[1:] for row in table.rows] == [[f"+{6 * k + j + 0.2:.3f}" for j in range(6)] for k in range(3)]


def test_predictions_are_decided_from_the_lines(results, monkeypatch):
    assert results.outcomes()["synapse"].verdict == "not run"  # 4 seeds of 20
    changed(monkeypatch, "CORE_SEEDS", 4)
    outcomes = results.outcomes()
    assert outcomes["synapse"].verdict == "undecided"  # 10 lies in the interval
    assert outcomes["synapse"].contrast.n == 4
    assert outcomes["two layers"].verdict == "not run"
    table = analysis.predictions(results, with_outcome=True)
    assert len(table.rows) == len(outcomes)
    assert table.rows[0][1:] == ["known", "more than 10 points", "+9.2 to +16.3", "undecided"]
    known, new = analysis.counted(results).rows
    assert [known[0], new[0]] == ["known", "new"]
    for row in (known, new):
        assert int(row[1]) == sum(map(int, row[2:]))
    assert int(known[1]) + int(new[1]) == len(outcomes)
    assert int(known[4]) + int(new[4]) == sum(outcome.verdict == "undecided" for outcome in outcomes.values())


def test_adaptation_says_what_has_not_been_run_and_stands_beside_the_core(results, monkeypatch):
    changed(monkeypatch, "SEEDS", 3)
    drawn = plt.get_fignums()
    assert adaptation.table(results) is adaptation.compared(results) is adaptation.gains(results) is None
    assert plt.get_fignums() == drawn
    assert adaptation.state(results).startswith(f"**Nothing of this has been run yet.** `{adaptation.COMMAND}` runs it")
    assert adaptation.predictions(results).header == ["prediction", "when", "predicted"]
    (results.folder / "adaptation_tuning.jsonl").write_text(json.dumps(line("windows 4", EQUAL, 8, 0.7)) + "\n")
    found = Results(results.folder, adaptation.PREDICTIONS)
    assert adaptation.state(found).startswith("**Only settings have been searched for so far.**")
    (results.folder / "adaptation_tuning.jsonl").unlink()
    lines = [line("windows 4", kind, s, 0.8 + 0.01 * s) for kind in design.ADAPTIVE for s in SEEDS[:3]]
    lines.append(line("windows 4", EQUAL, 3, 0.6))  # run again: it counts, not that of the core
    (results.folder / "adaptation.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    found = Results(results.folder, adaptation.PREDICTIONS)
    rows = {row[0]: row[1:] for row in adaptation.table(found).rows}
    assert rows["four windows: equal, no adaptation"] == ["67.7 %", "", "3"]  # 71, 72 and 60
    assert rows["four windows: adaptation learned"][0] == "82.0 %"
    assert rows["four windows: adaptation learned"][1].startswith("+14.3 (")  # 10, 10 and 23
    assert rows["four windows: \N{GREEK SMALL LETTER TAU} syn learned"] == ["not run", "not run", "0"]
    assert {name.partition(":")[0] for name in rows} == {"four windows"}  # of the other task there is nothing
    (ax,) = adaptation.gains(found).axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [adaptation.TITLES[kind] for kind in (SYN, *design.ADAPTIVE)]
    assert [text.get_text() for text in ax.texts] == ["four windows"]
    plt.close("all")
    outcomes = found.outcomes()
    assert outcomes["learned adaptation"].verdict == "miss"  # 0, where more than 3 was said
    assert outcomes["equal adaptation"].verdict != "not run"
    assert outcomes["recurrent"].verdict == "not run"
    state = adaptation.state(found)
    assert "0 to 3 of 3 seeds of each kind on four windows" in state  # no learned synapses
    assert "0 of 3 seeds of each kind on twelve windows" in state
    assert f"`{adaptation.COMMAND}` runs what is missing" in adaptation.state(found)
    assert adaptation.predictions(found).header[-1] == "verdict"
    rows = {row[0]: row[1:] for row in adaptation.compared(found).rows}
    assert len(rows) == len(adaptation.ASKED)
    gained = rows["four windows: equal adaptation \N{MINUS SIGN} equal, no adaptation"]
    assert gained[0].startswith("+14.3 (")
    expected = mean_contrast([10, 10, 23])
    assert gained[1:] == [f"{expected.detectable:.1f}", "3"]
    nothing = rows["four windows: different adaptation \N{MINUS SIGN} equal adaptation"]
    assert nothing == ["+0.0 (+0.0 to +0.0)", "0.0", "3"]


def test_adaptation_says_when_all_has_been_run_and_what_failed(results, monkeypatch):
    changed(monkeypatch, "SEEDS", 3)
    kinds = adaptation.STUDY.kinds
    lines = [
        line(task, kind, seed, 0.6 + 0.01 * k + 0.02 * seed * (k % 2))
        for task in adaptation.STUDY.stages
        for k, kind in enumerate(kinds)
        for seed in SEEDS[:3]
    ]
    tried = [line(t, k, 8, 0.5, {"tau_adapt": n}) for t in adaptation.STUDY.stages for k in kinds[3:] for n in (1, 2)]

    def given(*more):
        for stage, found in {"adaptation": [*lines, *more], "adaptation_tuning": tried}.items():
            (results.folder / f"{stage}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in found))
        return Results(results.folder, adaptation.PREDICTIONS)

    whole = (
        "Settings of the new kinds were chosen from 2 tries each. All of it has been run: 3 seeds of each kind on each"
    )
    assert adaptation.state(given()) == f"{whole} task.{adaptation.LEGEND}"
    assert {row[3] for row in adaptation.compared(given()).rows} == {"3"}
    assert "not run" not in str(adaptation.compared(given()).rows) + str(adaptation.table(given()).rows)
    labels = [label.get_text() for label in adaptation.gains(given()).axes[0].get_yticklabels()]
    plt.close("all")
    assert len(labels) == 2 * (len(kinds) - 1)  # headings have none
    broken = given({**line("windows 4", kinds[4], 3, 0.5), "result": {"failed": "no scale gives the rate"}})
    assert adaptation.state(broken).endswith(f" Runs that failed and are left out: 1.{adaptation.LEGEND}")
    assert {row[3] for row in adaptation.compared(broken).rows} == {"2", "3"}


def test_a_verdict_on_delays_waits_for_all_declared_seeds(results, monkeypatch):
    changed(monkeypatch, "SEEDS", 2)
    changed(monkeypatch, "CORE_SEEDS", 3)
    assert {cell for row in delays.later_accuracies(results).rows for cell in row[1:]} == {"not run"}
    headings = [text.get_text() for text in delays.later(results).axes[0].texts]
    plt.close("all")
    twelve = "twelve windows, recurrent:\nnot run"
    assert headings == ["six windows:\nnot run", *(f"XOR{of}:\nnot run" for of in ("", ", recurrent")), twelve]
    different = [line("windows 4", design.DELAYS, s, 0.99) for s in SEEDS[:2]]
    learned = [line("windows 4", design.DELAYS_LEARN, s, 0.98) for s in SEEDS[:2]]
    (results.folder / "delays.jsonl").write_text("".join(json.dumps(x) + "\n" for x in different + learned))
    found = Results(results.folder, delays.PREDICTIONS)
    rows = {row[0]: row[1:] for row in delays.table(found).rows}
    assert rows["four windows: different delays"][0] == "99.0 %"
    assert rows["four windows: equal delays"] == ["not run", "not run", "0"]
    assert found.outcomes()["different delays"].verdict == "not run"  # one seed is missing
    different.append(line("windows 4", design.DELAYS, SEEDS[2], 0.99))
    (results.folder / "delays.jsonl").write_text("".join(json.dumps(x) + "\n" for x in different + learned))
    outcomes = Results(results.folder, delays.PREDICTIONS).outcomes()
    assert outcomes["different delays"].contrast.n == 3
    assert outcomes["learned from equal"].contrast.mean == pytest.approx(-1)
    assert outcomes["six windows"].verdict == "not run"
    labels = [label.get_text() for label in delays.verdict(found).axes[1].get_yticklabels()]
    assert labels == [delays.TITLES[kind] for kind in (SYN, design.DELAYS, design.DELAYS_LEARN)]
    assert {tuple(row[1:]) for row in delays.spikes(found).rows[1:]} == {("not run", "not run", "not run", "0")}
    held = [
        line(delays.AT_RATE, kind, s, accuracy)
        for kind, accuracy in ((EQUAL, 0.7), (design.DELAYS, 0.9))
        for s in SEEDS[:2]
    ]
    (results.folder / "delays_equal_spikes.jsonl").write_text("".join(json.dumps(x) + "\n" for x in held))
    found = Results(results.folder, delays.PREDICTIONS)
    rows = {row[0]: row[1:] for row in delays.spikes(found).rows}
    assert rows["different delays"][0] == "90.0 %"
    assert rows["different delays"][1].startswith("+20.0 (")
    assert found.outcomes()["equal spikes"].contrast.mean == pytest.approx(20)
    assert {tuple(row[1:]) for row in delays.words(found).rows[1:]} == {("not run", "not run", "0")}
    plt.close("all")


def test_three_of_all_seeds(results):
    means = analysis.triples(results.difference("core", "windows 4", SYN))
    assert sorted(means) == pytest.approx([12, 37 / 3, 13, 41 / 3])


def test_declared_contrasts_ask_for_what_the_experiment_runs():
    problems = design.core_problems(10, 1, 10, 10)
    for stage, weights in analysis.DECLARED.values():
        assert sum(weights.values()) == 0
        for place in weights:
            task, condition = place if isinstance(place, tuple) else ("windows 4", place)
            assert task in problems
            assert condition in design.KINDS or (stage == "causes" and condition in design.CAUSES)
    known = {*design.KINDS, *design.CAUSES, design.ALL}
    assert set(analysis.TITLE) == set(analysis.COLOR) <= known
    assert LEARNS in known
    assert set(analysis.NATURAL) == set(design.natural_problems(True, 1))


def test_a_declared_contrast_weighs_conditions(results):
    with pytest.raises(KeyError, match=f"expected runs of '{design.ALL}'"):
        results.declared("values differ")


def test_numbers_in_words():
    assert [analysis.signed(x) for x in (-0.04, 0.04, -1.26, 3.0)] == ["+0.0", "+0.0", "\N{MINUS SIGN}1.3", "+3.0"]
    assert analysis.percent(None) == "\N{EN DASH}"
    assert analysis.bounds({"low": None, "high": -6}) == "less than \N{MINUS SIGN}6"
    assert analysis.bounds({"low": 10, "high": None}) == "more than 10"
    assert analysis.bounds({"low": -1.5, "high": 3}) == "\N{MINUS SIGN}1.5 to 3"
