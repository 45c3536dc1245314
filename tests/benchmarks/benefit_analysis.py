"""What chapter 6 reads out of its results: numbers by seed, contrasts of them, and tables.

`python tests/benchmarks/benefit.py` makes the results, this module only reads their lines, of whatever stages and
tasks there are. The contrasts of `DECLARED` were written down before there were results. What belongs to stages that
have not been run yet (controls, equal spikes, natural tasks, gradients) waits here for their lines.
"""

import functools
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benefit_design import ALL, ALL_LEARNED, DELAYS, EQUAL, KINDS, LEARNS, MEM, SHARED, SYN, core_problems
from scipy import stats

from snnparams.experiments.predictions import Outcome, decide
from snnparams.experiments.statistics import Contrast, corrected_contrast, equivalence, mean_contrast
from snnparams.experiments.tuning import enclosed
from snnparams.plot import Table

FOLDER = Path(__file__).resolve().parents[2] / "book" / "results" / "benefit"  # the one place that says where
MARGIN = 1.0  # points of accuracy: the largest difference that counts as none
COLLAPSED = 10.0  # points below the median of its condition at which a run has collapsed
SPLITS = {"spoken digits": 600 / 2100, "sequential mnist": 2000 / 10_000}  # inputs for test over those for training
TASKS = tuple(core_problems(1, 1, 1, 1))
CORE_SEEDS, SEEDS = 20, 10  # of the core, and of what stands beside it
DELAY_STAGES = ("delays", "delays_later", "delays_equal_spikes", "delays_spoken")
BESIDE_THE_CORE = ("causes", "adaptation", "delays", "delays_later")
FLAT_EPOCHS = 32  # the longer of the two trainings that are compared there
ALL_FROM_EQUAL = "all learned"
TITLE = {
    EQUAL: "equal",
    SYN: "different τ syn",  # one for all synapses of a neuron
    MEM: "different τ mem",
    LEARNS: "τ syn learned",
    SHARED: "shared τ syn learned",
    ALL: "different, all learned",
    ALL_FROM_EQUAL: "all learned",
}
LEVELS = {
    "chance": "chance",
    "counts": "counts",
    "linear filters": "one linear filter",
    "linear": "all bins",
    "gru": "GRU",
}
NATURAL = ("spoken digits", "sequential mnist", "spoken digits, recurrent", "sequential mnist, recurrent")
COLOR = {EQUAL: "0.35", SYN: "C0", MEM: "C1", LEARNS: "C2", SHARED: "C3", ALL: "C4", ALL_FROM_EQUAL: "C5"}

# What is asked of the results, by name: stage, and the weight of each condition at four windows without recurrence
DECLARED = {
    "values differ": ("causes", {SYN: 0.5, ALL: 0.5, EQUAL: -0.5, ALL_FROM_EQUAL: -0.5}),
    "values are learned": ("causes", {ALL_FROM_EQUAL: 0.5, ALL: 0.5, EQUAL: -0.5, SYN: -0.5}),
    "interaction of the two": ("causes", {ALL: 1, EQUAL: 1, SYN: -1, ALL_FROM_EQUAL: -1}),
    "recurrence, on the gain": (
        "core",
        {
            ("windows 4, recurrent", SYN): 1,
            ("windows 4, recurrent", EQUAL): -1,
            ("windows 4", SYN): -1,
            ("windows 4", EQUAL): 1,
        },
    ),
}


class Try(NamedTuple):
    """One place of a search."""

    accuracy: float  # on the validation split, in per cent, mean over seeds
    run: dict  # the line of the first seed: one that can be repeated in seconds


class Difference(NamedTuple):
    """Paired differences of two conditions."""

    seeds: dict[int, float]  # of each seed, or of each split
    contrast: Contrast
    same: float  # p-value of two one-sided tests: small if the mean lies within the margin

    @property
    def values(self) -> list[float]:
        """The differences alone."""
        return list(self.seeds.values())

    def __str__(self) -> str:
        c = self.contrast
        return f"{signed(c.mean)} ({signed(c.low)} to {signed(c.high)})"


def declared_seeds(stage: str, condition: str) -> int:
    """Return how many seeds a verdict on a condition waits for."""
    of_the_core = stage == "core" or (stage == "delays" and condition in (EQUAL, SYN, LEARNS, DELAYS))
    return CORE_SEEDS if of_the_core else SEEDS


def signed(number: float, digits: int = 1) -> str:
    """Return a number with its sign, a real minus, and no -0.0."""
    text = f"{round(number, digits) + 0.0:+.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def measured(line: dict, measure: str) -> float:
    """Return what a run reached: accuracy in per cent, windows remembered, rate, or spikes.

    On the test split, or on the validation split if it was not allowed to see that one.
    """
    test = line["result"].get("test", line["result"]["validation"])
    if measure == "accuracy":
        return 100 * test["accuracy"]
    if measure == "remembered":
        return sum(2 * answer - 1 for answer in test["answers"])
    if measure == "rate":
        return float(np.mean(test["rate"]))
    return test[measure]


class Results:
    """The kept runs of the experiment.

    Args:
        folder: with a file of lines for each stage; one that is not there has no runs.
        predictions: name of the file, beside the folder, of what was predicted.
    """

    def __init__(self, folder: Path = FOLDER, predictions: str = "predictions.json") -> None:
        self.folder = folder
        self.predictions = json.loads((FOLDER.parent / predictions).read_text())
        self.lines = functools.cache(self._lines)
        self.runs = functools.cache(self._runs)

    def _lines(self, stage: str) -> list[dict]:
        path = self.folder / f"{stage}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _runs(self, stage: str) -> dict[tuple[str, str], dict[int, dict]]:
        """Return the lines of a stage by task, condition and seed."""
        found: dict[tuple[str, str], dict[int, dict]] = {}
        for line in self.lines(stage):
            condition = (
                line["condition"].removesuffix(f", {FLAT_EPOCHS} epochs") if stage == "flat" else line["condition"]
            )
            found.setdefault((line["task"], condition), {})[line["seed"]] = line
        if stage in BESIDE_THE_CORE:
            # kinds beside which others stand: their first seeds are kept in the core
            seeds, tasks = set().union(*found.values()), {task for task, _ in found}
            for (task, kind), lines in self.runs("core").items():
                if task in tasks:
                    kept = {s: x for s, x in lines.items() if s in seeds}
                    found[task, kind] = kept | found.get((task, kind), {})
        return found

    def conditions(self, stage: str, task: str) -> list[str]:
        """Return the conditions of a task, in the order in which they ran."""
        return [condition for name, condition in self.runs(stage) if name == task]

    def by_seed(self, stage: str, task: str, condition: str, measure: str = "accuracy") -> dict[int, float]:
        """Return what a condition reached, by seed; runs that failed are left out.

        Raises:
            KeyError: if there are no such runs.
        """
        if (task, condition) not in self.runs(stage):
            raise KeyError(f"expected runs of {condition!r} on {task!r} in stage {stage}, got none")
        lines = self.runs(stage)[task, condition].items()
        return {seed: measured(line, measure) for seed, line in sorted(lines) if "failed" not in line["result"]}

    def mean(self, stage: str, task: str, condition: str, measure: str = "accuracy") -> float:
        """Return the mean over seeds."""
        return float(np.mean(list(self.by_seed(stage, task, condition, measure).values())))

    def weighted(self, stage: str, weights: Mapping[tuple[str, str], float], measure: str = "accuracy") -> Difference:
        """Return a weighted sum of conditions (task, condition), within the seeds that all of them share."""
        found = {place: self.by_seed(stage, *place, measure) for place in weights}
        seeds = sorted(set.intersection(*(set(values) for values in found.values())))
        sums = {seed: sum(w * found[place][seed] for place, w in weights.items()) for seed in seeds}
        values = list(sums.values())
        return Difference(sums, mean_contrast(values), equivalence(values, MARGIN))

    def difference(
        self, stage: str, task: str, condition: str, other: str = EQUAL, measure: str = "accuracy"
    ) -> Difference:
        """Return how a condition differs from another on one task, seed by seed."""
        return self.weighted(stage, {(task, condition): 1, (task, other): -1}, measure)

    def declared(self, name: str) -> Difference:
        """Return one of the contrasts that were declared before there were results."""
        stage, weights = DECLARED[name]
        places = {key if isinstance(key, tuple) else ("windows 4", key): weight for key, weight in weights.items()}
        return self.weighted(stage, places)

    # ------------------------------------------------------------------------------------------- natural tasks

    def splits(self, task: str, condition: str, measure: str = "accuracy") -> dict[str, float]:
        """Return what a condition reached on each split of a natural task, mean over the seeds of that split."""
        names = sorted(name for name, kind in self.runs("natural") if kind == condition)
        return {name: self.mean("natural", name, condition, measure) for name in names if _is_split(name, task)}

    def natural(self, task: str, condition: str, other: str = EQUAL, change: str | None = None) -> Difference:
        """Return how a condition differs over the splits of a natural task, by the corrected t test.

        Args:
            task: without its split.
            condition: what is compared.
            other: what it is compared with.
            change: instead of accuracy, the change of it by this disturbance of the inputs, in points.
        """
        ours, theirs = self.splits(task, condition), self.splits(task, other)
        if change:
            ours, theirs = ({s: self.lost(s, kind, change) for s in ours} for kind in (condition, other))
        found = {split: ours[split] - theirs[split] for split in ours}
        share = next(share for name, share in SPLITS.items() if task.startswith(name))
        values = list(found.values())
        contrast = corrected_contrast(values, share)
        return Difference(found, contrast, _corrected_equivalence(contrast, len(values)))

    def lost(self, name: str, condition: str, change: str) -> float:
        """Return by how many points a disturbance of the test inputs changes accuracy, mean over seeds."""
        runs = [line["result"] for line in self.runs("natural")[name, condition].values()]
        return 100 * float(np.mean([r["disturbed"][change] - r["test"]["accuracy"] for r in runs if "test" in r]))

    # ---------------------------------------------------------------------------------------- levels and choices

    @property
    def tasks(self) -> list[str]:
        """The tasks of the core that all kinds have run with all seeds, in the order of the design."""
        found = self.runs("core")
        return [task for task in TASKS if all(len(found.get((task, kind), ())) >= CORE_SEEDS for kind in KINDS)]

    def stage(self, task: str) -> str:
        """Return where to read of a task: in the core, or, if that has not been run, in "flat".

        The seeds of that stage are fresh, too: settings had been chosen with others. But there are three of them, and
        they did not see the test split.
        """
        return "core" if task in self.tasks else "flat"

    def level(self, task: str, level: str, split: str = "test") -> float | None:
        """Return a reference level in per cent, mean over seeds; of a recurrent task that of the same inputs."""
        for name in (task, task.removesuffix(", recurrent"), task.removesuffix(", two layers")):
            if lines := self.runs("references").get((name, level)):
                return 100 * float(np.mean([line["result"][split] for line in lines.values()]))
        return None

    def reached(self, task: str) -> dict[str, float]:
        """Return the mean accuracy of each kind; of a natural task on its official split, or else over its splits."""
        if task not in NATURAL:
            return {kind: self.mean(self.stage(task), task, kind) for kind in KINDS}
        if (task, EQUAL) in self.runs("natural"):
            return {kind: self.mean("natural", task, kind) for kind in (*KINDS, ALL)}
        return {kind: float(np.mean(list(self.splits(task, kind).values()))) for kind in (*KINDS, ALL)}

    def learned(self, task: str, kind: str, name: str = "tau_syn") -> tuple[float, float, float]:
        """Return the 10 %, 50 % and 90 % quantile of a learned parameter of the first layer, means over seeds."""
        runs = [line["result"] for line in self.runs(self.stage(task))[task, kind].values()]
        quantiles = np.log([r["learned"][name][0] for r in runs if "failed" not in r]).mean(axis=0)
        low, middle, high = np.exp(quantiles[[2, 10, 18]])  # of 0, 5, ..., 100 %
        return float(low), float(middle), float(high)

    def tries(self, stage: str, task: str, condition: str) -> list[Try]:
        """Return the tries of a search, in its order; a network that could not be built or trained reached 0."""
        found: dict[str, list[dict]] = {}
        for line in self.lines(stage):
            if (line["task"], line["condition"]) == (task, condition):
                knobs = json.dumps([line["cell"]["neurons"], line["cell"]["training"]], sort_keys=True)
                found.setdefault(knobs, []).append(line)
        return [
            Try(100 * float(np.mean([x["result"].get("validation", {}).get("accuracy", 0.0) for x in lines])), lines[0])
            for lines in found.values()
        ]

    def choice(self, stage: str, task: str, condition: str) -> Try:
        """Return the best try of a search; of equal ones the first."""
        return max(self.tries(stage, task, condition), key=lambda found: found.accuracy)

    def encloses(self, stage: str, task: str, condition: str) -> bool:
        """Return whether a search ended at no edge: all neighbours of its choice have been tried."""
        knobs = (KINDS | {ALL: ALL_LEARNED})[condition].knobs
        scores = {}
        for found in self.tries(stage, task, condition):
            values = {**found.run["cell"]["neurons"], **found.run["cell"]["training"]}
            place = tuple(
                round(math.log(values[name] / knob.start) / math.log(knob.factor)) for name, knob in knobs.items()
            )
            scores[place] = found.accuracy
        return enclosed(knobs, scores)

    def scatter(self, task: str, condition: str) -> float:
        """Return the standard deviation between seeds of the accuracy on the validation split, in points."""
        runs = [line["result"] for line in self.runs(self.stage(task))[task, condition].values()]
        return 100 * float(np.std([r["validation"]["accuracy"] for r in runs if "validation" in r], ddof=1))

    def collapsed(self, stage: str, task: str, condition: str) -> float:
        """Return the share of runs that failed or ended far below the median of their condition."""
        found = list(self.by_seed(stage, task, condition).values())
        runs = self.runs(stage)[task, condition]
        low = sum(value < np.median(found) - COLLAPSED for value in found)
        return (len(runs) - len(found) + low) / len(runs)

    # ---------------------------------------------------------------------------------- predictions and gradients

    def rows(self) -> list[dict]:
        """Return the results as `snnparams.experiments.predictions.decide` takes them.

        Conditions of which seeds are still to be run are left out: a verdict waits for all that were declared.
        """
        found = []
        for stage in ("core", "causes", "equal_spikes", "adaptation", *DELAY_STAGES):
            for (task, condition), lines in self.runs(stage).items():
                if len(lines) < declared_seeds(stage, condition):
                    continue
                for seed, line in lines.items():
                    if "failed" in line["result"]:
                        continue
                    name = "equal spikes" if stage == "equal_spikes" else stage
                    row = {"stage": name, "task": task, "condition": condition, "seed": seed}
                    row["accuracy"] = measured(line, "accuracy")
                    row["remembered"] = measured(line, "remembered") if "answers" in line["result"]["test"] else None
                    found.append(row)
        for line in self.lines("gradients"):
            for name, value in line["result"].items():
                row = {"stage": "gradients", "task": line["task"], "condition": name, "seed": line["seed"]}
                found.append({**row, "derivative": value})
        return found

    def outcomes(self) -> dict[str, Outcome]:
        """Return what became of each prediction."""
        rows = self.rows()
        return {prediction["id"]: decide(prediction, rows) for prediction in self.predictions["predictions"]}

    def derivatives(self, task: str, name: str) -> dict[int, float]:
        """Return a derivative of the loss of equal networks, such as "tau_mem, surrogate, initial", by seed."""
        lines = [line for line in self.lines("gradients") if line["task"] == task]
        return {line["seed"]: line["result"][name] for line in sorted(lines, key=lambda line: line["seed"])}

    def medians(self, stage: str, task: str, condition: str) -> dict[str, tuple[float, float]]:
        """Return the median of each learned neuron parameter of the first layer, before and after training.

        Before, that is the middle that tuning chose; after, a mean over runs (and splits) on a logarithmic scale.
        """
        runs = [
            line
            for (name, kind), lines in self.runs(stage).items()
            if kind == condition and (name == task or _is_split(name, task))
            for line in lines.values()
            if "failed" not in line["result"]
        ]
        found = {}
        for name in runs[0]["result"]["learned"]:
            after = [np.log(np.median(run["result"]["learned"][name][0])) for run in runs]
            before = 1.0 if name == "v_th" else runs[0]["cell"]["neurons"][name]
            found[name] = before, math.exp(float(np.mean(after)))
        return found


def natural_name(task: str) -> str:
    """Return the name of a task as a page writes it."""
    return task.replace("mnist", "MNIST")


def _is_split(name: str, task: str) -> bool:
    return name.startswith(f"{task}, split")


def _corrected_equivalence(contrast: Contrast, count: int) -> float:
    """Return the p-value of two one-sided tests with the standard error of a contrast."""
    error = (contrast.high - contrast.mean) / stats.t.ppf(0.975, count - 1)
    if error == 0:
        return float(abs(contrast.mean) >= MARGIN)
    above, below = (contrast.mean + MARGIN) / error, (MARGIN - contrast.mean) / error
    return float(stats.t.sf(min(above, below), count - 1))


# -------------------------------------------------------------------------------------------------------- tables


def percent(number: float | None, digits: int = 1) -> str:
    """Return per cent as text, a dash where there is no number."""
    return "\N{EN DASH}" if number is None else f"{number:.{digits}f}"


def levels(results: Results) -> Table:
    """Return accuracies beside their reference levels; a star where a linear classifier is better on a natural task."""
    rows = []
    for task in (*TASKS, *natural_tasks(results)):
        known = [results.level(task, level) for level in LEVELS]
        if any((task, level) in results.runs("references") for level in LEVELS):
            reached = results.reached(task)
            best = max(reached, key=reached.__getitem__)
            mark = " *" if task in below_linear(results) else ""
            ours = [percent(reached[EQUAL]), f"{reached[best]:.1f} ({TITLE[best]})"]
            rows.append([natural_name(task) + mark, *map(percent, known), *ours])
    note = "* a linear classifier on all bins is better: no general conclusion from this task"
    note = note if below_linear(results) else ""
    return Table(["correct (%)", *LEVELS.values(), "equal", "best kind"], rows, note)


def natural_tasks(results: Results) -> list[str]:
    """Return the natural tasks that have been run."""
    return [task for task in NATURAL if results.splits(task, EQUAL)]


def below_linear(results: Results) -> list[str]:
    """Return the natural tasks on which the best kind of network is worse than a linear classifier on all bins."""
    best = {task: max(results.reached(task).values()) for task in natural_tasks(results)}
    return [task for task, accuracy in best.items() if accuracy < (results.level(task, "linear") or 0)]


def controls(results: Results) -> Table:
    """Return the controls that are not about the reset."""
    readouts = ("readout 40 steps", "readout per output", "surrogate slope 1", "surrogate slope 20")
    wanted = [
        ("96 equal neurons, against 48", f"{EQUAL}, 96 neurons", EQUAL),
        ("192 equal neurons, against 48", f"{EQUAL}, 192 neurons", EQUAL),
        ("24 different neurons, against 192 equal", f"{SYN}, 24 neurons", f"{EQUAL}, 192 neurons"),
        ("12 different neurons, against 192 equal", f"{SYN}, 12 neurons", f"{EQUAL}, 192 neurons"),
        ("equal, readout of 40 steps, against 8", f"{EQUAL}, readout 40 steps", EQUAL),
        ("equal, one readout for each output, against one for all", f"{EQUAL}, readout per output", EQUAL),
        *[(f"different, against equal, {x}", f"{SYN}, {x}", f"{EQUAL}, {x}") for x in readouts],
        ("all learned from equal, against τ syn learned", ALL_FROM_EQUAL, LEARNS),
        ("different and all learned, against all learned from equal", ALL, ALL_FROM_EQUAL),
    ]
    rows = []
    for title, condition, other in wanted:
        reached = results.mean("causes", "windows 4", condition)
        rows.append([title, percent(reached), str(results.difference("causes", "windows 4", condition, other))])
    return Table(["control", "correct (%)", "difference (points)"], rows)


def official(results: Results) -> Table:
    """Return what the kinds reach on the official split of the spoken digits."""
    rows = []
    for task in ("spoken digits", "spoken digits, recurrent"):
        for kind in (*KINDS, ALL):
            reached, spikes = (results.mean("natural", task, kind, measure) for measure in ("accuracy", "spikes"))
            gain = "\N{EN DASH}" if kind == EQUAL else str(results.difference("natural", task, kind))
            name = f"{TITLE[kind]}, recurrent" if "recurrent" in task else TITLE[kind]
            rows.append([name, percent(reached), gain, f"{spikes:.0f}"])
    return Table(["spoken digits, official split", "correct (%)", "minus equal (points)", "spikes"], rows)


def declared(results: Results) -> Table:
    """Return the declared contrasts."""
    rows = []
    for name in DECLARED:
        found = results.declared(name)
        c = found.contrast
        rows.append([name, str(found), f"{c.p:.1g}", str(c.n), f"{c.detectable:.1f}"])
    return Table(["declared contrast", "points (95 %)", "p", "seeds", "could be seen"], rows)


def every_difference(results: Results) -> Table:
    """Return mean, median, collapsed runs and difference of each kind, on the tasks where all seeds ran."""
    rows = []
    for task in results.tasks:
        for kind in KINDS:
            values = list(results.by_seed("core", task, kind).values())
            row = [f"{task}: {TITLE[kind]}", percent(float(np.mean(values))), percent(float(np.median(values)))]
            row.append(f"{results.collapsed('core', task, kind):.0%}")
            if kind == EQUAL:
                row += ["\N{EN DASH}"] * 3
            else:
                found = results.difference("core", task, kind)
                row += [str(found), f"{found.contrast.detectable:.1f}", "yes" if found.same < 0.05 else "no"]
            rows.append(row)
    header = ["test split", "mean (%)", "median", "collapsed", "minus equal", "could be seen", "within 1 point"]
    return Table(header, rows)


def predictions(results: Results, with_outcome: bool = False) -> Table:
    """Return the predictions as a table, with what became of them if asked for."""
    outcomes = results.outcomes() if with_outcome else {}
    rows = []
    for prediction in results.predictions["predictions"]:
        unit = "" if prediction["measure"] in ("remembered", "derivative") else " points"
        row = [prediction["claim"], "known" if prediction["known"] else "new", bounds(prediction) + unit]
        if with_outcome:
            verdict, contrast = outcomes[prediction["id"]]
            digits = 1 if unit else 3
            interval = (
                f"{signed(contrast.low, digits)} to {signed(contrast.high, digits)}" if contrast else "\N{EN DASH}"
            )
            row = [row[0], row[1], row[2], interval, verdict]
        rows.append(row)
    found = ["found (95 %)", "verdict"] if with_outcome else []
    return Table(["prediction", "", "predicted", *found], rows)


def counted(results: Results) -> Table:
    """Return how many predictions are hits, misses, undecided and still to be run."""
    outcomes, rows = results.outcomes(), []
    verdicts = ("hit", "miss", "undecided", "not run")
    for known in (True, False):
        chosen = [p["id"] for p in results.predictions["predictions"] if p["known"] == known]
        found = [outcomes[name].verdict for name in chosen]
        rows.append(["known" if known else "new", len(chosen), *(found.count(verdict) for verdict in verdicts)])
    return Table(["predictions", "all", *verdicts], rows)


def to_be_run(results: Results) -> str:
    """Return in words which tasks of the core wait for runs with all seeds."""
    left = [natural_name(task) for task in TASKS if task not in results.tasks]
    return f"the core with {CORE_SEEDS} seeds on {'; '.join(left)}" if left else ""


def bounds(prediction: Mapping) -> str:
    """Return the predicted interval in words."""
    low, high = prediction["low"], prediction["high"]
    if high is None:
        return f"more than {low:g}".replace("-", "\N{MINUS SIGN}")
    text = f"less than {high:g}" if low is None else f"{low:g} to {high:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def triples(difference: Difference, size: int = 3) -> np.ndarray:
    """Return the mean of every choice of so many seeds: what an experiment with few would have found."""
    return np.array([np.mean(chosen) for chosen in itertools.combinations(difference.values, size)])


def gained_by_doubling(results: Results, task: str) -> dict[str, float]:
    """Return what twice the epochs gain each kind on the validation split, in points, mean over seeds."""
    found = {}
    for kind in KINDS:
        half = results.runs("flat")[task, f"{kind}, {FLAT_EPOCHS // 2} epochs"].values()
        found[kind] = results.mean("flat", task, kind) - float(np.mean([measured(x, "accuracy") for x in half]))
    return found


def chosen_by_one_seed(results: Results, task: str, kind: str, chooser: Callable = min) -> tuple[float, float]:
    """Return the gain over equal neurons if one seed chooses both, on that seed and on the other one of the search.

    Args:
        results: the kept runs.
        task: whose search is asked.
        kind: what is compared with equal neurons.
        chooser: which of the two seeds chooses, `min` or `max`.
    """
    stage, pairs = "natural_tuning" if task in NATURAL else "tuning", []
    for condition in (kind, EQUAL):
        by_knobs: dict[str, dict[int, float]] = {}
        for line in results.lines(stage):
            if (line["task"], line["condition"]) == (task, condition):
                knobs = json.dumps([line["cell"]["neurons"], line["cell"]["training"]], sort_keys=True)
                accuracy = 100 * line["result"].get("validation", {}).get("accuracy", 0.0)
                by_knobs.setdefault(knobs, {})[line["seed"]] = accuracy
        pairs.append(max((x for x in by_knobs.values() if len(x) == 2), key=lambda x: x[chooser(x)]))
    both = (chooser, max if chooser is min else min)
    return tuple(pairs[0][pick(pairs[0])] - pairs[1][pick(pairs[1])] for pick in both)


def gain_of_best_settings(results: Results, task: str, kind: str, count: int = 5) -> tuple[float, float]:
    """Return the smallest and the largest gain over equal neurons between the best settings of a search.

    Args:
        results: the kept runs.
        task: whose search is asked, on the validation split that chose.
        kind: what is compared with equal neurons.
        count: how many of the best settings of each of the two are taken.
    """
    ours, theirs = (
        sorted((found.accuracy for found in results.tries("tuning", task, condition)), reverse=True)[:count]
        for condition in (kind, EQUAL)
    )
    return ours[-1] - theirs[0], ours[0] - theirs[-1]


def over_untuned(results: Results, task: str, kind: str = MEM) -> tuple[float, float]:
    """Return how much a tuned kind gains over equal neurons that are not tuned, and that are, on the validation split.

    Not tuned means at the median of all tries: settings that somebody has found reasonable.
    """
    stage = "natural_tuning" if task in NATURAL else "tuning"
    ours, theirs = ([x.accuracy for x in results.tries(stage, task, condition)] for condition in (kind, EQUAL))
    return max(ours) - float(np.median(theirs)), max(ours) - max(theirs)


def settings(results: Results, tasks: Sequence[str]) -> Table:
    """Return the settings that tuning chose: times in steps, a spread over its middle, and learning rates."""
    rows = []
    for task in tasks:
        for kind in KINDS:
            cell = results.choice("tuning", task, kind).run["cell"]
            found = cell["neurons"] | cell["training"]
            spread = found.get("spread_syn", found.get("spread_mem"))
            numbers = (found["tau_mem"], found["tau_syn"], spread, found["learning_rate"])
            row = [f"{task}: {TITLE[kind]}"]
            row += ["\N{EN DASH}" if x is None else f"{x:.3g}" for x in (*numbers, found.get("neuron_learning_rate"))]
            rows.append([*row, "no" if results.encloses("tuning", task, kind) else "yes"])
    header = ["chosen", "τ mem", "τ syn", "spread", "learning rate", "of neurons", "at an edge"]
    note = (
        "Times in steps, at the start where they are learned; different ones go from about τ/spread to about τ·spread."
    )
    return Table(header, rows, note)


def searches(results: Results) -> Table:
    """Return what the best try of every search reached: chosen on the validation split that measures it."""
    rows = []
    for task in (*TASKS, *NATURAL):
        stage = "natural_tuning" if task in NATURAL else "tuning"
        best = {kind: results.choice(stage, task, kind) for kind in KINDS}
        neurons = best[EQUAL].run["cell"]["architecture"].get("hidden", 48)
        row = [natural_name(task), f"{neurons}", *(percent(x.accuracy) for x in best.values())]
        row.append(percent(results.choice(stage, task, ALL).accuracy) if task in NATURAL else "\N{EN DASH}")
        rows.append(row)
    return Table(["best setting of each search (%)", "neurons", *(TITLE[kind] for kind in (*KINDS, ALL))], rows)


def drifts(results: Results) -> Table:
    """Return where the neuron parameters of networks that learn all of them go, as medians."""
    rows = []
    learners = [("causes", "windows 4", ALL_FROM_EQUAL), ("causes", "windows 4", ALL)]
    for stage, task, kind in learners + [("natural", task, ALL) for task in NATURAL]:
        row = [f"{natural_name(task)}: {TITLE[kind]}"]
        for before, after in results.medians(stage, task, kind).values():
            row.append(f"{before:.3g} to {after:.3g}")
        rows.append(row)
    return Table(["median before and after training", "tau_mem (steps)", "tau_syn (steps)", "v_th"], rows)
