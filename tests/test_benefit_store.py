"""Runs of chapter 6's experiment are kept as they come, found again, and refused when they are of another source."""

import dataclasses
import json
import math
import sys

import pytest
from notebooks import ROOT

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import benefit
import benefit_design as design
import benefit_store
from benefit_store import Store, key_of

from snnparams.experiments.designs import Architecture, Neurons
from snnparams.experiments.trial import Training
from snnparams.experiments.tuning import values

CELL = {
    "task": {"name": "windows", "count": 2, "length": 5, "train": 60, "validation": 20, "test": 20, "seed": 1},
    "neurons": {"learned": ["tau_syn"]},
    "architecture": {"hidden": 6},
    "training": {"epochs": 1, "batch_size": 30},
    "seed": 1,
    "test": True,
}


class Here:
    """Stands in for a pool of processes: computes at once, in this one."""

    def __init__(self, *_, **__):
        self.calls = []

    __enter__ = lambda self: self  # noqa: E731
    __exit__ = lambda self, *_: None  # noqa: E731

    def submit(self, function, *args):
        import concurrent.futures

        future = concurrent.futures.Future()
        future.set_result(function(*args))
        COMPUTED.append(args)
        return future

    def shutdown(self, **_):
        pass


COMPUTED: list = []


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    COMPUTED.clear()
    monkeypatch.setattr(benefit_store.concurrent.futures, "ProcessPoolExecutor", Here)


def planned(*seeds, condition="equal"):
    return [
        {"job": "trial", "task": "t", "condition": condition, "seed": s, "cell": {**CELL, "seed": s}} for s in seeds
    ]


def test_runs_are_kept_and_found_again(tmp_path):
    lines = Store(tmp_path, 1).run("core", planned(1, 2))
    assert [line["seed"] for line in lines] == [1, 2]
    assert len(COMPUTED) == 2
    for name in ("stage", "task", "condition", "cell", "result", "seconds", "commit", "processor", "source", "torch"):
        assert name in lines[0]
    assert 0 <= lines[0]["result"]["test"]["accuracy"] <= 1
    assert set(lines[0]["result"]["learned"]) == {"tau_syn"}
    assert Store(tmp_path, 1).hours() == {"core": pytest.approx(sum(x["seconds"] for x in lines) / 3600, rel=0.01)}
    again = Store(tmp_path, 1).run("core", planned(2, 1, 3))
    assert len(COMPUTED) == 3
    assert again[:2] == lines[::-1]
    other = Store(tmp_path, 1).run("causes", planned(1, condition="control"))  # the same cell under another name
    assert len(COMPUTED) == 3
    assert (other[0]["condition"], other[0]["result"]) == ("control", lines[0]["result"])


def test_a_line_that_is_cut_off_is_computed_again(tmp_path):
    first = Store(tmp_path, 1).run("core", planned(1, 2))
    path = tmp_path / "core.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = Store(tmp_path, 1).run("core", planned(1, 2))
    assert len(COMPUTED) == 3
    assert again[1]["result"] == first[1]["result"]
    assert len(path.read_text().splitlines()) == 2
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_runs_of_another_source_are_refused_or_accepted_by_word(tmp_path, monkeypatch):
    Store(tmp_path, 1).run("core", planned(1))
    real = benefit_store.versions
    monkeypatch.setattr(benefit_store, "versions", lambda f: {**real(f), "source": "other"})
    with pytest.raises(SystemExit, match=r"core\.jsonl holds runs of .*, this is .*: move it away .* --accept-older"):
        Store(tmp_path, 1)
    Store(tmp_path, 1, accept_older=True).run("core", planned(1))
    assert len(COMPUTED) == 1


def test_all_kinds_of_a_seed_run_on_one_processor(tmp_path, monkeypatch):
    Store(tmp_path, 1).run("core", planned(1, 2))
    monkeypatch.setattr(benefit_store, "processor", lambda: "another")
    store = Store(tmp_path, 1)
    learned = {**CELL, "neurons": {}}
    more = [{"job": "trial", "task": "t", "condition": "learned", "seed": 1, "cell": learned}]
    found = store.run("core", planned(1, 2) + more)
    assert len(COMPUTED) == 4  # the new one, and that of the same seed again; seed 2 was complete
    assert [line["processor"] == "another" for line in found] == [True, False, True]
    assert Store(tmp_path, 1).run("core", planned(1))[0]["processor"] == "another"  # the last line counts


def test_every_cell_of_the_design_can_be_built():
    grid = benefit.GRIDS["default"]
    problems = design.core_problems(grid.size, grid.epochs, grid.validation, grid.test)
    problems |= design.natural_problems(False, 1)
    kinds = [*design.KINDS.values(), design.ALL_LEARNED, *(kind for kind, _ in design.CAUSES.values())]
    kinds += design.ADAPTIVE.values()
    for kind in kinds:
        assert len(set(kind.first)) == len(kind.first) == 6
        for place in kind.first:
            knobs = values(kind.knobs, place)
            for problem in problems.values():
                cell = design.cell_of(problem, kind, knobs, 1, False)
                Neurons(**cell["neurons"]), Architecture(**cell["architecture"]), Training(**cell["training"])
                json.dumps(cell)
    for _, change in design.CAUSES.values():
        Architecture(**change)
    seeds = [*grid.tuning_seeds, *grid.flat_seeds, *grid.dial_seeds]
    assert len(set(seeds)) == len(seeds)
    assert not set(seeds) & set(range(1, 60))  # those of results


def test_predictions_are_about_what_is_run():
    causes = {*design.KINDS, *design.CAUSES}
    core = design.core_problems(1, 1, 1, 1)
    predictions = json.loads((ROOT / "book" / "results" / "predictions.json").read_text())["predictions"]
    assert sum(not p["known"] for p in predictions) >= 5
    for prediction in predictions:
        for stage, task, condition, _ in prediction["contrast"]:
            if stage == "core":
                assert task in core
                assert condition in design.KINDS
            elif stage == "causes":
                assert (task, condition in causes) == ("windows 4", True)
            elif stage == "equal spikes":
                assert float(task.removeprefix("windows 4, rate ")) in benefit.RATES
            else:
                assert stage == "gradients"


def test_predictions_of_adaptation_are_about_what_is_run():
    predictions = json.loads((ROOT / "book" / "results" / "adaptation_predictions.json").read_text())["predictions"]
    assert sum(not p["known"] for p in predictions) >= 4
    for prediction in predictions:
        assert prediction["low"] is None or prediction["high"] is None or prediction["low"] < prediction["high"]
        for stage, task, condition, _ in prediction["contrast"]:
            assert stage == "adaptation"
            assert task in design.ADAPTATION_TASKS
            assert condition in (*design.BESIDE, *design.ADAPTIVE)


def test_kinds_of_adaptation_get_equal_tries_and_run_beside_those_of_the_core(tmp_path, monkeypatch):
    tried = []

    def fake(self, stage, planned):
        tried.append((stage, planned))
        return [{**run, "result": {"validation": {"accuracy": 0.5}}} for run in planned]

    monkeypatch.setattr(Store, "run", fake)
    grid = dataclasses.replace(benefit.GRIDS["quick"], tries=8, most_tries=8)
    experiment = benefit.Experiment(grid, Store(tmp_path, 1))
    experiment.done["dial"] = dict.fromkeys(experiment.problems, 3)
    found = experiment.stage("adaptation_tuning")
    assert set(found) == {(task, kind) for task in design.ADAPTATION_TASKS for kind in design.ADAPTIVE}
    assert {x["tries"] for x in found.values()} == {8}
    runs = experiment.stage("adaptation")
    assert len(runs) == len(design.ADAPTATION_TASKS) * grid.seeds * (len(design.BESIDE) + len(design.ADAPTIVE))
    assert all(run["cell"]["test"] for run in runs)
    assert not any(run["cell"]["test"] for stage, planned in tried if stage != "adaptation" for run in planned)


def test_predictions_of_delays_are_about_what_is_run():
    predictions = json.loads((ROOT / "book" / "results" / "delays_predictions.json").read_text())["predictions"]
    assert sum(not p["known"] for p in predictions) >= 6
    for prediction in predictions:
        assert prediction["low"] is None or prediction["high"] is None or prediction["low"] < prediction["high"]
        for stage, task, condition, _ in prediction["contrast"]:
            tasks = {
                "delays": (design.DELAY_TASK,),
                "delays_later": design.LATER_DELAY_TASKS,
                "delays_equal_spikes": (f"{design.DELAY_TASK}, rate {design.DELAY_RATE:g}",),
                "delays_spoken": (design.SPOKEN,),
            }[stage]
            learned = (design.LEARNS,) if stage in ("delays", "delays_equal_spikes") else ()
            beside = (design.EQUAL, design.SYN, *learned)
            assert task in tasks
            assert condition in (*beside, *design.DELAYED)


def test_delays_get_equal_tries_and_the_contrast_of_the_core_comes_first(tmp_path, monkeypatch):
    tried = []

    def fake(self, stage, planned):
        tried.append((stage, planned))
        return [{**run, "result": {"validation": {"accuracy": 0.5}}} for run in planned]

    monkeypatch.setattr(Store, "run", fake)
    grid = dataclasses.replace(benefit.GRIDS["quick"], delay_tries=6, core_seeds=3, tries=8, most_tries=20)
    experiment = benefit.Experiment(grid, Store(tmp_path, 1))
    experiment.done["dial"] = dict.fromkeys(experiment.problems, 3)
    runs = experiment.stage("delays")
    tries = [run["condition"] for stage, planned in tried if stage == "delays_tuning" for run in planned]
    assert {kind: tries.count(kind) for kind in design.DELAYED} == dict.fromkeys(design.DELAYED, 6)
    seeds = {(run["condition"], run["seed"]) for run in runs}
    assert {s for name, s in seeds if name in (design.EQUAL, design.DELAYS)} == {1, 2, 3}
    assert {s for name, s in seeds if name == design.DELAYS_LEARN} == {1, 2}
    first = next(planned for stage, planned in tried if stage == "delays")
    assert {run["condition"] for run in first} == {design.EQUAL, design.SYN, design.LEARNS, design.DELAYS}
    delayed = [run["cell"] for run in runs if run["condition"] in design.DELAYED]
    assert all(cell["neurons"]["delay"] > 0 and cell["training"]["epochs"] == grid.epochs for cell in delayed)


def test_delays_on_harder_tasks_begin_where_equal_neurons_ended_with_as_many_tries_and_epochs(tmp_path, monkeypatch):
    tried = []

    def fake(self, stage, planned):
        tried.append((stage, planned))
        good = {"tau_mem": 8.0, "tau_syn": 40.0}  # what searches of equal neurons find on all tasks
        return [
            {
                **run,
                "result": {"validation": {"accuracy": 0.5 + 0.1 * (good.items() <= run["cell"]["neurons"].items())}},
            }
            for run in planned
        ]

    monkeypatch.setattr(Store, "run", fake)
    grid = dataclasses.replace(benefit.GRIDS["quick"], delay_tries=6, tries=12, most_tries=12)
    experiment = benefit.Experiment(grid, Store(tmp_path, 1))
    experiment.done["dial"] = dict.fromkeys(experiment.problems, 3)
    runs = experiment.stage("delays_later")
    tries = [run for stage, planned in tried if stage == "delays_later_tuning" for run in planned]
    for task in design.LATER_DELAY_TASKS:
        easy = task in design.EASY_DELAY_TASKS
        for kind in design.DELAYED:
            own = [run["cell"]["neurons"] for run in tries if (run["task"], run["condition"]) == (task, kind)]
            assert len(own) == (6 if easy else 12)
            assert (own[0]["tau_mem"], own[0]["tau_syn"]) == ((32, 10) if easy else (8, 40))
        epochs = {
            (run["condition"] in design.DELAYED, run["cell"]["training"]["epochs"])
            for run in runs
            if run["task"] == task
        }
        assert len({n for _, n in epochs}) == (2 if easy else 1)


def test_delays_at_equal_spikes_use_what_was_tuned_and_one_strength_for_all(tmp_path, monkeypatch):
    tried = []

    def fake(self, stage, planned):
        tried.append((stage, planned))
        off = {1.0: 0.2, 10.0: 0.101, 100.0: 0.1}  # only the two stronger ones hold the rate
        return [
            {**run, "result": {"validation": {"accuracy": 0.5, "rate": [off.get(strength, 0.1)]}}}
            for run in planned
            for strength in [run["cell"]["training"].get("rate_strength")]
        ]

    monkeypatch.setattr(Store, "run", fake)
    experiment = benefit.Experiment(benefit.GRIDS["quick"], Store(tmp_path, 1))
    experiment.done["dial"] = dict.fromkeys(experiment.problems, 3)
    runs = experiment.stage("delays_equal_spikes")
    kinds = {design.EQUAL, design.SYN, design.LEARNS, design.DELAYS, design.DELAYS_LEARN}
    assert {run["condition"] for run in runs} == kinds
    assert {run["cell"]["training"]["rate_strength"] for run in runs} == {10.0}
    assert {run["cell"]["training"]["rate_high"] for run in runs} == {1.01 * design.DELAY_RATE}
    stages = {stage for stage, _ in tried}
    assert "delays_tuning" in stages  # the settings of the stage before, not of one more search
    assert not any(run["cell"]["test"] for stage, planned in tried if stage.endswith("tuning") for run in planned)


def test_delays_on_spoken_digits_are_trained_as_long_as_kinds_without(tmp_path, monkeypatch):
    tried = []

    def fake(self, stage, planned):
        tried.append((stage, planned))
        return [{**run, "result": {"validation": {"accuracy": 0.5}}} for run in planned]

    monkeypatch.setattr(Store, "run", fake)
    experiment = benefit.Experiment(dataclasses.replace(benefit.GRIDS["quick"], delay_tries=6), Store(tmp_path, 1))
    experiment.done["natural data"] = True
    runs = experiment.stage("delays_spoken")
    assert {run["condition"] for run in runs} == {design.EQUAL, design.SYN, *design.DELAYED}
    assert len({run["cell"]["training"]["epochs"] for run in runs}) == 1
    tries = [run["condition"] for stage, planned in tried if stage == "delays_spoken_tuning" for run in planned]
    assert {kind: tries.count(kind) for kind in set(tries)} == dict.fromkeys(design.DELAYED, 6)
    experiment.done = {"natural data": False}
    assert experiment.delays_spoken() == []


def test_kinds_differ_in_what_they_say_and_get_equal_tries(tmp_path, monkeypatch):
    grid = dataclasses.replace(benefit.GRIDS["quick"], tries=9)
    tried = []

    def fake(self, stage, planned):
        tried.append(planned)
        return [{**run, "result": {"validation": {"accuracy": 0.5}}} for run in planned]

    monkeypatch.setattr(Store, "run", fake)
    experiment = benefit.Experiment(grid, Store(tmp_path, 1))
    experiment.done["dial"] = dict.fromkeys(experiment.problems, 3)
    found = experiment.stage("tuning")
    assert {x["tries"] for x in found.values()} == {9}
    keys = [key_of(run["job"], run["cell"]) for runs in tried for run in runs]
    assert len(keys) == len(set(keys)) == 9 * 5 * len(experiment.problems)


def test_no_choice_ends_at_an_edge(tmp_path, monkeypatch):
    def far(cell):
        knobs = {**cell["neurons"], **cell["training"]}
        peak = {"tau_mem": 30, "tau_syn": 90, "learning_rate": 0.04, "spread_syn": 3, "neuron_learning_rate": 0.1}
        return 0.9 - 0.01 * sum(abs(math.log(knobs[name] / x)) for name, x in peak.items() if name in knobs)

    def fake(self, stage, planned):
        return [{**run, "result": {"validation": {"accuracy": far(run["cell"])}}} for run in planned]

    monkeypatch.setattr(Store, "run", fake)
    grid = dataclasses.replace(benefit.GRIDS["quick"], tries=6, control_tries=6, most_tries=90)
    experiment = benefit.Experiment(grid, Store(tmp_path, 1))
    experiment.done["dial"] = dict.fromkeys(experiment.problems, 3)
    for stage in ("tuning", "control_tuning"):
        found = experiment.stage(stage)
        assert all(x["enclosed"] for x in found.values())
        for task in {task for task, _ in found}:
            groups = {}
            for (other, name), x in found.items():
                if other == task:
                    groups.setdefault("" if stage == "tuning" else name.partition(", ")[2], set()).add(x["tries"])
            assert all(len(tries) == 1 for tries in groups.values())  # what is compared gets equal tries
            assert max(max(tries) for tries in groups.values()) > 6
    assert found["windows 4", "equal, 192 neurons"]["knobs"]["tau_syn"] == 80
    assert found["windows 4", "equal, 192 neurons"]["knobs"]["learning_rate"] == 0.04


def test_runs_of_one_size_are_computed_side_by_side(tmp_path):
    store = Store(tmp_path, 1, members=2)
    store.together = True  # as on a GPU
    planned_runs = planned(1, 2, 3) + planned(1, condition="larger")
    planned_runs[-1]["cell"] = {**CELL, "architecture": {"hidden": 8}}
    lines = store.run("core", planned_runs)
    assert sorted(len(args[0]) for args in COMPUTED) == [1, 1, 2]  # no more than two, and none of another size
    alone = Store(tmp_path / "alone", 1).run("core", planned_runs)
    for a, b in zip(lines, alone, strict=True):
        assert a["cell"] == b["cell"]
        assert a["result"]["test"]["loss"] == pytest.approx(b["result"]["test"]["loss"], rel=1e-3)


def test_only_tasks_that_are_asked_for_are_run(tmp_path, monkeypatch):
    tried = []

    def fake(self, stage, planned):
        tried.append({run["task"].partition(", split")[0] for run in planned})
        level = {"validation": {"accuracy": 0.5}}
        return [{**run, "result": level} for run in planned]

    monkeypatch.setattr(Store, "run", fake)
    for task, stages in (("spoken digits", ("natural", "gradients")), ("windows 4", ("core", "gradients"))):
        experiment = benefit.Experiment(benefit.GRIDS["quick"], Store(tmp_path, 1))
        experiment.only, experiment.done = [task], {"natural data": True, "dial": dict.fromkeys(experiment.problems, 3)}
        tried.clear()
        assert all(experiment.stage(stage) for stage in stages)
        core = set(experiment.problems)  # epochs of the core are chosen for all its tasks
        assert {task} in tried
        assert all(tasks == {task} or tasks <= core for tasks in tried)
    assert experiment.asked(["windows 4", "spoken digits"]) == ["windows 4"]
