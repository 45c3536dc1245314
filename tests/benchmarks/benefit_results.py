"""The kept runs of chapter 6's experiment: numbers by seed, and contrasts of them.

`python tests/benchmarks/benefit.py` makes the results, this module only reads their lines, of whatever stages and
tasks there are. What belongs to stages that have not been run yet (controls, equal spikes, natural tasks, gradients)
waits here for their lines.
"""

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benefit_design import ADAPTIVE, ALL, CAUSES, DELAYS, EQUAL, KINDS, LEARNS, SYN
from benefit_terms import (
    BESIDE_THE_CORE,
    COLLAPSED,
    CORE_SEEDS,
    DECLARED,
    DELAY_STAGES,
    FLAT_EPOCHS,
    FOLDER,
    MARGIN,
    NATURAL,
    SEEDS,
    SPLITS,
    TASKS,
)
from scipy import stats

from snnparams.experiments.predictions import Outcome, decide
from snnparams.experiments.statistics import Contrast, corrected_contrast, equivalence, mean_contrast
from snnparams.experiments.tuning import Knob, enclosed


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
    """Return what a run reached: accuracy in per cent, windows remembered, rate, spikes, or what a disturbance costs.

    That is a change of accuracy in points, called by the name of the disturbance. All are of the test split, or of the
    validation split if the run was not allowed to see that one.
    """
    test = line["result"].get("test", line["result"]["validation"])
    if measure == "accuracy":
        return 100 * test["accuracy"]
    if measure == "remembered":
        return sum(2 * answer - 1 for answer in test["answers"])
    if measure == "rate":
        return float(np.mean(test["rate"]))
    if measure in line["result"].get("disturbed", ()):
        return 100 * (line["result"]["disturbed"][measure] - test["accuracy"])
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

    def natural(self, task: str, condition: str, other: str = EQUAL, measure: str = "accuracy") -> Difference:
        """Return how a condition differs from another over the splits of a natural task, by the corrected t test."""
        ours, theirs = self.splits(task, condition, measure), self.splits(task, other, measure)
        found = {split: ours[split] - theirs[split] for split in ours}
        share = next(share for name, share in SPLITS.items() if task.startswith(name))
        values = list(found.values())
        contrast = corrected_contrast(values, share)
        return Difference(found, contrast, _corrected_equivalence(contrast, len(values)))

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

    def encloses(self, stage: str, task: str, condition: str, knobs: Mapping[str, Knob] | None = None) -> bool:
        """Return whether a search ended at no edge: all neighbours of its choice have been tried.

        Args:
            stage: of the search.
            task: that was searched on.
            condition: that was searched for.
            knobs: that it turned, if it began elsewhere than the condition says.
        """
        kinds = {**KINDS, **{name: kind for name, (kind, _) in CAUSES.items()}, **ADAPTIVE}
        knobs, scores = knobs or kinds[condition].knobs, {}
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


def _is_split(name: str, task: str) -> bool:
    return name.startswith(f"{task}, split")


def _corrected_equivalence(contrast: Contrast, count: int) -> float:
    """Return the p-value of two one-sided tests with the standard error of a contrast."""
    error = (contrast.high - contrast.mean) / stats.t.ppf(0.975, count - 1)
    if error == 0:
        return float(abs(contrast.mean) >= MARGIN)
    above, below = (contrast.mean + MARGIN) / error, (MARGIN - contrast.mean) / error
    return float(stats.t.sf(min(above, below), count - 1))
