"""Chapter 6's experiment: when do different and learned time constants help?

Run from the repository root; about 19 hours on two cores: python tests/benchmarks/benefit.py
With --device cuda, trials of one size are computed side by side on a GPU, which takes minutes instead of hours.
Every run is one line in book/results/benefit/, kept as it comes: stop it whenever you like, and start it again with the
same command. --stage runs one stage and what it needs; --grid quick exercises everything in ten minutes and writes to
_build/benefit_quick instead. Each process computes in one thread.

The stages, in this order:

dial         how many neurons a recurrent network gets: as many as leave the best of a few equal ones at most 85 %
tuning       every kind gets equally many tries over its own knobs, and more where one ends at an edge
flat         doubling the epochs gains no kind of a task half a point on the validation split, or all get twice as many,
             at most 32
core         five kinds, ten tasks, 20 seeds
causes       controls at four windows without recurrence, each tuned by itself, 10 seeds
equal_spikes three rates, the same for all kinds
adaptation   thresholds that adapt: equal, different and learned time constants of theirs, on four windows and on twelve
             recurrent ones, tuned like the kinds of the core, 10 seeds, beside equal neurons and synapses; chapter 8
             reads it
delays       spikes that travel: equal, different and learned delays to the readout, on four windows; each kind gets
             6 tries, and 8 epochs instead of the 32 of those without delays, which favours the latter. 20 seeds of
             different delays beside equal neurons, 10 of the other kinds; chapter 9 reads it
delays_later the same on six windows, on XOR, and with recurrence, which itself stays without delays, 10 seeds
delays_equal_spikes: delays beside equal neurons and synapses on four windows at one rate, the same for all, 10 seeds
delays_spoken: delays on spoken digits, official split, without recurrence: 6 tries for each kind with delays, as many
             epochs as are flat for all kinds, 10 seeds
natural      spoken digits and sequential MNIST, tuned, then the official split with 10 seeds, and 5 splits x 2 seeds.
             Folds use what was tuned on the official split, whose recordings are in them: a favour to all kinds alike
gradients    where the gradients of equal networks push their time constants and thresholds
references   chance, counts, linear classifiers, a GRU with as many parameters
rasters      hidden spikes of two trained networks
summary      choices, reference levels, power and the fate of the predictions, in book/results/benefit/summary.json

What was tried before: about thirty single networks, by hand, with seed 0, whose test accuracies were printed. Windows,
K = 4, equal and different synapses and learned ones, at learning rates of 0.005 to 0.02, 4,000 and 16,000 sequences
and 6 to 60 epochs; recurrent networks of 48 to 2 neurons, equal and different; XOR, of which networks with one
layer and no recurrence learned next to nothing at cues of 0.02 and 0.10 spikes per step, so that cues have 0.04 and
0.20; two layers of different synapses on it; spoken digits with both readouts (maximum over time 96.7 %, mean 95.3 %:
the maximum was taken); one different network at a held rate. That chose sizes, rates of cues, where searches begin,
and nothing else.

The plan: runs x seconds, in seconds of one core that has other work beside it; alone it takes about two thirds. An
epoch of 16,000 sequences takes 0.7 s (two windows), 1.0 s (four), 1.3 s (six, or XOR), 2.4 s (two layers), 0.7 to 1.1 s
(small recurrent networks), 2.9 s (a reset of choice: a loop in PyTorch); one of spoken digits 0.7 s, of sequential
MNIST 2.9 s. Epochs of results are what `flat` finds; 32 and 40 are supposed here.

dial            100 x  6 s                                                                     0.2 hours
tuning         3000 x 10 s    5 kinds x 10 tasks x about 30 tries x 2 seeds, 8 epochs          8
flat            300 x 30 s    16 against 32 epochs; more where that is not flat                3 to 6
core           1000 x 40 s                                                                    11
causes_tuning  1500 x 13 s    34 controls x about 22 tries x 2 seeds                           5
causes          390 x 50 s    34 controls and 5 kinds x 10 seeds                               5
equal_spikes    210 x 33 s                                                                     2
adaptation      450 x 40 s    3 kinds x 2 tasks x about 30 tries x 2 seeds; 6 kinds x 2 tasks x 10 seeds of 32 epochs;
                              an epoch takes 1.5 s with fused kernels, 4 s without                     5
delays          100 x 10 s    4 kinds x 6 tries x 2 seeds, then 50 runs of 8 epochs, both stages together     0.3 to 3
delays_equal_spikes  70 x 30 s                                                                 0.6
delays_spoken   160 x 20 s    4 kinds x 6 tries x 2 seeds; 6 kinds x 3 seeds, twice; 6 kinds x 10 seeds 1
natural_tuning 1000 x 18 s    6 kinds x 4 tasks x about 20 tries x 2 seeds, 10 epochs          5
natural_flat    144 x 54 s    20 against 40 epochs                                             2
natural         360 x 70 s                                                                     7
gradients        50 x 60 s                                                                     1
references      150 x 60 s                                                                     3

About 55 hours of such a core, 37 of one that is left alone, half of that on two. Each stage says how long it took.

What was run differently from this plan: searches went on for up to 54 tries, because many first ended at an edge; 60
were meant at first. While they ran, a rule was added that does not continue them from 98 %. Read with it, two windows
first kept, in `flat` and `core`, what equal neurons and one for all had found in 30 of their 48 tries; all tries count,
and those runs were repeated with the best of them. Sizes, tuning (also of natural tasks) and flatness, 6,826 runs, were
computed on one H100 in eleven minutes. The others run on CPUs; each line says where.
"""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import benefit_design as design
import stored
from benefit_delay_stages import DelayStages
from benefit_design import CAUSES, EQUAL, KINDS, MEM, SYN, Kind, Problem, cell_of
from benefit_store import Store

from snnparams.data.spoken_digits import load_spoken_digits
from snnparams.experiments.designs import Architecture, Neurons
from snnparams.experiments.networks import build
from snnparams.experiments.predictions import decide
from snnparams.experiments.statistics import smallest_effect
from snnparams.experiments.trial import make_task
from snnparams.experiments.tuning import best, enclosed, next_places, values

STRENGTHS = (1.0, 10.0, 100.0)  # of the loss term that holds rates
RATES = (0.05, 0.1, 0.2)
WITHIN = 0.025  # share of the rate within which a strength must bring all kinds
SOLVED = 0.98  # accuracy from which a search that ends at an edge is not continued
FLAT = 0.005  # accuracy that twice the epochs may gain
NOT_RUN = {"spiking heidelberg digits": "not run: it needs the user's own file, see snnparams.data.heidelberg"}


@dataclasses.dataclass(frozen=True)
class Grid:
    """How large everything is."""

    size: int = 16_000
    validation: int = 1000
    test: int = 2000
    epochs: int = 8  # of tuning
    natural_epochs: int = 10
    most_epochs: int = 32
    tries: int = 24
    most_tries: int = 54
    control_tries: int = 20
    delay_tries: int = 6
    core_seeds: int = 20
    seeds: int = 10
    repetitions: int = 2
    splits: int = 5
    gradient_seeds: int = 10
    reference_seeds: int = 3
    sizes: tuple[int, ...] = design.SIZES
    tuning_seeds: tuple[int, ...] = design.TUNING_SEEDS
    flat_seeds: tuple[int, ...] = design.FLAT_SEEDS
    dial_seeds: tuple[int, ...] = design.DIAL_SEEDS
    quick: bool = False


GRIDS = {
    "default": Grid(),
    "quick": Grid(
        *(200, 60, 60, 1, 1, 4, 2, 2, 2, 2),
        core_seeds=2,
        seeds=2,
        splits=2,
        gradient_seeds=2,
        reference_seeds=1,
        sizes=(12, 3),
        tuning_seeds=design.TUNING_SEEDS[:1],
        flat_seeds=design.FLAT_SEEDS[:1],
        dial_seeds=design.DIAL_SEEDS[:1],
        quick=True,
    ),
}


def mean(numbers) -> float:
    """Return the mean of some numbers."""
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def validation_accuracy(line: dict) -> float:
    """Return the accuracy on the validation split; of a network that could not be built or trained, 0."""
    return line["result"].get("validation", {}).get("accuracy", 0.0)


class Experiment(DelayStages):
    """The stages; each returns what later ones need, from kept runs where there are any."""

    def __init__(self, grid: Grid, store: Store) -> None:
        self.grid, self.store = grid, store
        self.problems = design.core_problems(grid.size, grid.epochs, grid.validation, grid.test)
        self.natural_problems = design.natural_problems(grid.quick, grid.natural_epochs)
        self.done: dict = {}
        self.only: list[str] | None = None  # tasks of the core, if not all

    def stage(self, name: str):
        """Return what a stage found, after running what is missing, once."""
        if name not in self.done:
            self.done[name] = getattr(self, name)()
        return self.done[name]

    def trials(self, stage: str, planned: list[tuple[str, str, int, dict]], job: str = "trial") -> list[dict]:
        """Return the lines of runs given as task, condition, seed and cell."""
        names = ("task", "condition", "seed", "cell")
        return self.store.run(stage, [{"job": job, **dict(zip(names, run, strict=True))} for run in planned])

    # ------------------------------------------------------------------------------------------------ settings

    def dial(self) -> dict[str, int]:
        """Return the number of neurons of each recurrent problem, found by halving the list of sizes."""
        settings = [
            {"tau_mem": m, "tau_syn": s, "learning_rate": 0.02} for m, s in ((4.0, 5.0), (4.0, 20.0), (10.0, 40.0))
        ]
        recurrent = {name: p for name, p in self.problems.items() if self.is_dialled(p)}
        sizes = self.grid.sizes
        ranges = dict.fromkeys(recurrent, (0, len(sizes) - 1))  # the first size that is not too easy lies in it
        found: dict[str, dict[int, float]] = {name: {} for name in recurrent}
        while any(low < high for low, high in ranges.values()):
            asked = {name: sizes[(low + high) // 2] for name, (low, high) in ranges.items() if low < high}
            planned = [
                (name, f"{EQUAL}, {size} neurons, {k}", seed, cell)
                for name, size in asked.items()
                for k, knobs in enumerate(settings)
                for seed in self.grid.dial_seeds
                for cell in [cell_of(recurrent[name], KINDS[EQUAL], knobs, seed, False, architecture={"hidden": size})]
            ]
            accuracies: dict[tuple[str, str], list[float]] = {}
            for line in self.trials("dial", planned):
                accuracies.setdefault((line["task"], line["condition"]), []).append(validation_accuracy(line))
            for name, size in asked.items():
                found[name][size] = max(mean(x) for (task, _), x in accuracies.items() if task == name)
                low, high = ranges[name]
                middle = (low + high) // 2
                ranges[name] = (low, middle) if found[name][size] <= design.EASY else (middle + 1, high)
        chosen = {name: sizes[low] for name, (low, _) in ranges.items()}
        for name, size in chosen.items():
            accuracy = found[name].get(size)
            text = "not tried" if accuracy is None else f"{accuracy:.1%}"
            print(f"  dial: {name}: {size} neurons, best of three equal settings {text}")
        return chosen

    @staticmethod
    def is_dialled(problem: Problem) -> bool:
        """Return whether the dial has to find the size of a network."""
        return problem.architecture.get("recurrent", False) and "hidden" not in problem.architecture

    def problem(self, name: str) -> Problem:
        """Return a problem of the core, with the size that the dial found."""
        problem = self.problems[name]
        if self.is_dialled(problem):
            hidden = {"hidden": self.stage("dial")[name]}
            problem = dataclasses.replace(problem, architecture={**problem.architecture, **hidden})
        return problem

    def search(
        self,
        stage: str,
        entries: dict[tuple[str, str], tuple[Problem, Kind, list, dict]],
        tries: int,
        most_tries: int | None = None,
    ) -> dict:
        """Tune all entries side by side and return the knobs of each.

        Args:
            stage: names the file.
            entries: by task and condition: problem, kind, first places, and what the architecture has instead.
            tries: for each; if one of those that are compared ends at an edge, all of them get six more. These are the
                kinds of a task, or those under one control (what stands behind a comma).
            most_tries: that it may come to in this way; None for those of the grid.

        Returns:
            For each the best knobs, their accuracy, the tries, and whether the choice is `enclosed`: at no edge.
        """
        scores: dict[tuple, dict] = {entry: {} for entry in entries}
        group = {(task, name): (task, "" if name in KINDS else name.partition(", ")[2]) for task, name in entries}
        allowed = dict.fromkeys(group.values(), tries)

        def next_runs(name: tuple, count: int) -> tuple[list, list]:
            """Return what a group of entries tries next if it may try so many places, and the place of each run."""
            planned, places = [], []
            for (task, condition), (problem, kind, first, change) in entries.items():
                if group[task, condition] == name:
                    for place in next_places(kind.knobs, first[:count], scores[task, condition], count):
                        for seed in self.grid.tuning_seeds:
                            knobs = values(kind.knobs, place)
                            cell = cell_of(problem, kind, knobs, seed, False, architecture=change)
                            planned.append((task, condition, seed, cell))
                            places.append(place)
            return planned, places

        while True:
            planned, places = [], []
            for name, count in allowed.items():
                for found_of_group, all_of_them in zip(next_runs(name, count), (planned, places), strict=True):
                    all_of_them += found_of_group
            if not planned:
                edges = {group[e] for e in entries if self.may_gain(entries[e][1], scores[e])}
                more = {name: next_runs(name, count + 6)[0] for name, count in allowed.items()}
                # what has been tried counts, also where the search would not go on today
                edges |= {n for n, runs in more.items() if runs and all(self.store.has("trial", x[3]) for x in runs)}
                edges = {name for name in edges if allowed[name] + 6 <= (most_tries or self.grid.most_tries)}
                if not edges:
                    break
                for name in edges:
                    allowed[name] += 6
                continue
            found: dict[tuple, list[float]] = {}
            for line, place in zip(self.trials(stage, planned), places, strict=True):
                found.setdefault((line["task"], line["condition"], place), []).append(validation_accuracy(line))
            for (task, condition, place), accuracies in found.items():
                scores[task, condition][place] = mean(accuracies)
        for entry, x in scores.items():
            if self.may_gain(entries[entry][1], x) and not self.grid.quick:
                print(f"  {stage}: {', '.join(entry)}: still at an edge after {len(x)} tries")
        return {
            entry: {
                "enclosed": enclosed(entries[entry][1].knobs, x),
                "place": best(x),
                "knobs": values(entries[entry][1].knobs, best(x)),
                "accuracy": max(x.values()),
                "tries": len(x),
            }
            for entry, x in scores.items()
        }

    @staticmethod
    def may_gain(kind: Kind, scores: dict) -> bool:
        """Return whether a search has ended at an edge, below what is as good as solved."""
        return max(scores.values()) < SOLVED and not enclosed(kind.knobs, scores)

    def tuning(self) -> dict:
        """Return the knobs of each task and kind of the core."""
        entries = {
            (task, name): (self.problem(task), kind, kind.first, {})
            for task in self.problems
            for name, kind in KINDS.items()
        }
        found = self.search("tuning", entries, self.grid.tries)
        for task, problem in self.problems.items():
            accuracy = found[task, EQUAL]["accuracy"]
            if self.is_dialled(problem) and not design.HARD <= accuracy <= 0.95 and not self.grid.quick:
                print(f"  tuning: {task}: expected tuned equal neurons between 75 and 95 %, got {accuracy:.1%}")
        return found

    def flatten(self, stage: str, problems: dict[str, Problem], tuned: dict, kinds: dict[str, Kind]) -> dict[str, int]:
        """Return for each task the epochs after which twice as many gain no kind half a point; say if none does.

        The first that is asked about is twice what tuning took.
        """
        epochs = {task: 2 * problem.training["epochs"] for task, problem in problems.items()}
        waiting = set(problems)
        while waiting:
            planned = [
                (task, f"{name}, {n} epochs", seed, cell)
                for task in sorted(waiting)
                for name, kind in kinds.items()
                for n in (epochs[task], 2 * epochs[task])
                for seed in self.grid.flat_seeds
                for cell in [
                    cell_of(problems[task], kind, tuned[task, name]["knobs"], seed, False, training={"epochs": n})
                ]
            ]
            accuracies: dict[tuple, list[float]] = {}
            for line in self.trials(stage, planned):
                accuracies.setdefault((line["task"], line["condition"]), []).append(validation_accuracy(line))
            for task in sorted(waiting):
                n = epochs[task]
                gains = {
                    name: mean(accuracies[task, f"{name}, {2 * n} epochs"])
                    - mean(accuracies[task, f"{name}, {n} epochs"])
                    for name in kinds
                }
                gain = max(gains.values())
                if gain < FLAT:
                    waiting.remove(task)
                    continue
                epochs[task] = 2 * n
                if 4 * n > self.grid.most_epochs:
                    waiting.remove(task)
                    print(f"  {stage}: {task}: {2 * n} epochs are the most; they gained {gain:.2%} over {n}")
        return epochs

    def flat(self) -> dict[str, int]:
        """Return the epochs of each task of the core."""
        return self.flatten("flat", {t: self.problem(t) for t in self.problems}, self.stage("tuning"), KINDS)

    def final(self, task: str) -> Problem:
        """Return a problem of the core as it is used for results."""
        problem = self.problem(task)
        return dataclasses.replace(problem, training={**problem.training, "epochs": self.stage("flat")[task]})

    # ------------------------------------------------------------------------------------------------- results

    def core(self) -> list[dict]:
        """Return the lines of the core experiment; all kinds of a seed after each other."""
        tuned = self.stage("tuning")
        planned = [
            (task, name, seed, cell_of(self.final(task), kind, tuned[task, name]["knobs"], seed, True))
            for task in self.only or self.problems
            for seed in range(1, self.grid.core_seeds + 1)
            for name, kind in KINDS.items()
        ]
        return self.trials("core", planned)

    def control_tuning(self) -> dict:
        """Return the knobs of each control: each begins where the kind that it varies ended."""
        task, tuned = "windows 4", self.stage("tuning")
        entries = {}
        for name, (kind, change) in CAUSES.items():
            base = next((tuned[task, k]["place"] for k, other in KINDS.items() if other.knobs == kind.knobs), None)
            first = kind.first if base is None else [base, *kind.first[:1]]
            entries[task, name] = (self.problem(task), kind, list(dict.fromkeys(first)), change)
        return self.search("causes_tuning", entries, self.grid.control_tries)

    def causes(self) -> list[dict]:
        """Return the lines of the controls, and of the kinds that they vary."""
        task, tuned = "windows 4", self.stage("control_tuning")
        base = self.stage("tuning")
        everything = {name: (KINDS[name], {}, base[task, name]["knobs"]) for name in KINDS}
        everything |= {name: (kind, change, tuned[task, name]["knobs"]) for name, (kind, change) in CAUSES.items()}
        planned = [
            (task, name, seed, cell_of(self.final(task), kind, knobs, seed, True, architecture=change))
            for seed in range(1, self.grid.seeds + 1)
            for name, (kind, change, knobs) in everything.items()
        ]
        return self.trials("causes", planned)

    def at_rates(self, stage: str, task: str, entries: dict[str, tuple[Problem, Kind, dict]], rates) -> list[dict]:
        """Return the lines of some kinds at equal rates; the weakest strength that holds all of them serves all.

        Args:
            stage: names the file; strengths are chosen on tuning seeds, in a file of their own.
            task: without the rate.
            entries: by condition: problem, kind, and knobs.
            rates: spikes per neuron and time step.
        """

        def runs(strength: float, seeds, test: bool) -> list:
            return [
                (f"{task}, rate {rate:g}", name, seed, cell)
                for rate in rates
                for seed in seeds
                for name, (problem, kind, knobs) in entries.items()
                for bounds in [{"rate_low": 0.99 * rate, "rate_high": 1.01 * rate, "rate_strength": strength}]
                for cell in [cell_of(problem, kind, knobs, seed, test, training=bounds)]
            ]

        for strength in STRENGTHS:
            lines = self.trials(f"{stage}_tuning", runs(strength, self.grid.tuning_seeds, False))
            trained = [x for x in lines if "failed" not in x["result"]]
            off = [abs(x["result"]["validation"]["rate"][0] / float(x["task"].split()[-1]) - 1) for x in trained]
            if max(off) <= WITHIN:
                break
        print(f"  {stage}: strength {strength:g}, rates within {max(off):.1%} on tuning seeds")
        self.done[f"strength of {stage}"] = strength
        return self.trials(stage, runs(strength, range(1, self.grid.seeds + 1), True))

    def equal_spikes(self) -> list[dict]:
        """Return the lines at three equal rates."""
        task, tuned = "windows 4", self.stage("tuning")
        entries = {name: (self.final(task), kind, tuned[task, name]["knobs"]) for name, kind in KINDS.items()}
        return self.at_rates("equal_spikes", task, entries, RATES)

    # ---------------------------------------------------------------------------------------------- adaptation

    def adaptation_tuning(self) -> dict:
        """Return the knobs of each task and kind of thresholds that adapt; they get as many tries as the core's."""
        entries = {
            (task, name): (self.problem(task), kind, kind.first, {})
            for task in design.ADAPTATION_TASKS
            for name, kind in design.ADAPTIVE.items()
        }
        return self.search("adaptation_tuning", entries, self.grid.tries)

    def adaptation(self) -> list[dict]:
        """Return the lines of thresholds that adapt, and of the kinds of the core beside them."""
        tuned = self.stage("tuning") | self.stage("adaptation_tuning")
        kinds = {name: KINDS[name] for name in design.BESIDE} | design.ADAPTIVE
        planned = [
            (task, name, seed, cell_of(self.final(task), kind, tuned[task, name]["knobs"], seed, True))
            for task in design.ADAPTATION_TASKS
            for seed in range(1, self.grid.seeds + 1)
            for name, kind in kinds.items()
        ]
        return self.trials("adaptation", planned)

    # ------------------------------------------------------------------------------------------- natural tasks

    @property
    def natural_kinds(self) -> dict[str, Kind]:
        """The five kinds, and all parameters learned from different values."""
        return {**KINDS, design.ALL: design.ALL_LEARNED}

    def natural_tuning(self) -> dict:
        """Return the knobs of each natural task and kind; sequential MNIST is tuned on a split of its own."""
        entries = {}
        for task, problem in self.natural_problems.items():
            if "mnist" in task:
                problem = dataclasses.replace(problem, task={**problem.task, "seed": 100})
            entries |= {(task, name): (problem, kind, kind.first, {}) for name, kind in self.natural_kinds.items()}
        return self.search("natural_tuning", entries, self.grid.control_tries)

    def natural_flat(self) -> dict[str, int]:
        """Return the epochs of each natural task."""
        return self.flatten("natural_flat", self.natural_problems, self.stage("natural_tuning"), self.natural_kinds)

    def natural(self) -> list[dict]:
        """Return the lines of the natural tasks, each with a split; seeds of split k are 10 k + 1, 10 k + 2, ..."""
        tuned, epochs = self.stage("natural_tuning"), self.stage("natural_flat")
        planned = []
        for task, problem in self.natural_problems.items():
            splits = [
                (f"{task}, split {k}", {"seed": k} if "mnist" in task else {"fold": k}) for k in range(self.grid.splits)
            ]
            seeds = [
                (name, option, 10 * k + r + 1)
                for k, (name, option) in enumerate(splits)
                for r in range(self.grid.repetitions)
            ]
            if "mnist" not in task:
                seeds += [(task, {}, seed) for seed in range(1, self.grid.seeds + 1)]
            planned += [
                (name, condition, seed, cell)
                for name, option, seed in seeds
                for condition, kind in self.natural_kinds.items()
                for cell in [
                    cell_of(
                        *(problem, kind, tuned[task, condition]["knobs"], seed, True),
                        task=option,
                        training={"epochs": epochs[task]},
                        disturbed=True,
                    )
                ]
            ]
        return self.trials("natural", planned)

    # ------------------------------------------------------------------------------------------------ the rest

    def gradients(self) -> list[dict]:
        """Return where the gradients of equal networks push."""
        tuned = self.stage("tuning")
        planned = [
            (task, EQUAL, seed, cell_of(self.final(task), KINDS[EQUAL], tuned[task, EQUAL]["knobs"], seed, False))
            for task in ("windows 4", "windows 4, recurrent", "xor, two layers")
            for seed in range(1, self.grid.gradient_seeds + 1)
        ]
        for task in ("spoken digits", "spoken digits, recurrent") if self.natural_is_there() else ():
            problem, natural = self.natural_problems[task], self.stage("natural_tuning")
            training = {"epochs": self.stage("natural_flat")[task]}
            planned += [
                (
                    task,
                    EQUAL,
                    seed,
                    cell_of(problem, KINDS[EQUAL], natural[task, EQUAL]["knobs"], seed, False, training=training),
                )
                for seed in range(1, self.grid.gradient_seeds + 1)
            ]
        return self.trials("gradients", planned, "gradients")

    def references(self) -> list[dict]:
        """Return the reference levels; a GRU has as many parameters as the network of that task."""
        planned = []
        problems = {task: (self.final(task), self.stage("flat")[task]) for task in self.only or self.problems}
        if not self.only and self.natural_is_there():
            flat = self.stage("natural_flat")
            problems |= {task: (p, flat[task]) for task, p in self.natural_problems.items()}
        for task, (problem, epochs) in problems.items():
            for seed in range(1, self.grid.reference_seeds + 1):
                by_seed = {"seed": seed} if problem.by_seed or "mnist" in task else {}
                described = {**problem.task, **by_seed}
                made = make_task(
                    json.dumps({**described, **({"train": 100} if problem.by_seed else {})}, sort_keys=True)
                )
                network = build(Neurons(), Architecture(**problem.architecture), made, seed)
                size = sum(x.numel() for x in network.parameters())
                options = {
                    "parameters": size,
                    "seed": seed,
                    "epochs": epochs,
                    "batch_size": problem.training.get("batch_size", 100),
                }
                levels = {"gru": options, "linear": {"bins": 49 if "mnist" in task else 20}}
                if "recurrent" not in task:  # the others are the same with recurrence
                    levels |= {"chance": {}, "counts": {}, "linear filters": {}}
                elif not problem.by_seed:
                    del levels["linear"]
                planned += [
                    (task, level, seed, {"task": described, "level": level, "options": given})
                    for level, given in levels.items()
                ]
        return self.trials("references", planned, "reference")

    def rasters(self) -> list[dict]:
        """Return the hidden spikes of a trained equal and a trained different network."""
        task, tuned = "windows 4", self.stage("tuning")
        planned = [
            (task, name, 1, cell_of(self.final(task), KINDS[name], tuned[task, name]["knobs"], 1, False, input=0))
            for name in (EQUAL, SYN, MEM, design.LEARNS)
        ]
        return self.trials("rasters", planned, "raster")

    def natural_is_there(self) -> bool:
        """Return whether the data of the natural tasks can be had; if not, say so."""
        if "natural data" not in self.done:
            try:
                load_spoken_digits()
                make_task(json.dumps({"name": "sequential mnist", "train": 10, "validation": 10, "test": 10}))
                self.done["natural data"] = True
            except FileNotFoundError as error:
                print(f"natural tasks: not run: {error}")
                self.done["natural data"] = False
        return self.done["natural data"]

    def summary(self) -> dict:
        """Return choices, reference levels, power, and what became of the predictions."""
        rows, failed = [], []
        for stage in ("core", "causes", "equal_spikes"):
            for line in self.stage(stage):
                if "failed" in line["result"]:
                    failed.append({name: line[name] for name in ("stage", "task", "condition", "seed")})
                    continue
                test = line["result"]["test"]
                answers = test.get("answers", [test["accuracy"]])
                measures = {"accuracy": 100 * test["accuracy"], "remembered": sum(2 * a - 1 for a in answers)}
                named = {name: line[name] for name in ("task", "condition", "seed")}
                rows.append({"stage": stage.replace("_", " "), **named, **measures})
        for line in self.stage("gradients"):
            for name, value in line["result"].items():
                named = {"stage": "gradients", "task": line["task"], "seed": line["seed"]}
                rows.append({**named, "condition": name, "derivative": value})
        predictions = json.loads(Path("book/results/predictions.json").read_text())["predictions"]
        reference: dict[str, dict] = {}
        for line in self.stage("references"):
            reference.setdefault(line["task"], {}).setdefault(line["condition"], []).append(line["result"]["test"])
        outcomes = {}
        for prediction in predictions:
            verdict, contrast = decide(prediction, rows)
            outcomes[prediction["id"]] = {"verdict": verdict, **(contrast._asdict() if contrast else {})}
        tuned = {"tuning": self.stage("tuning"), "causes": self.stage("control_tuning")}
        epochs = dict(self.stage("flat"))
        if self.natural_is_there():
            tuned["natural"], epochs = self.stage("natural_tuning"), epochs | self.stage("natural_flat")
        return {
            "tasks": {name: self.final(name).task["name"] for name in self.problems},
            "grid": dataclasses.asdict(self.grid),
            "neurons": self.stage("dial"),
            "epochs": epochs,
            "rate strength": self.done.get("strength of equal_spikes"),
            "tuned": [
                {"stage": stage, "task": task, "condition": condition, **found}
                for stage, entries in tuned.items()
                for (task, condition), found in entries.items()
            ],
            "reference": reference,
            "power": {f"{n} seeds": smallest_effect(n) for n in (self.grid.core_seeds, self.grid.seeds)},
            "predictions": outcomes,
            "failed": failed,
            "core hours": self.store.hours(),
            **({} if self.natural_is_there() else {"natural tasks": "not run"}),
            **NOT_RUN,
        }


STAGES = (
    *("dial", "tuning", "flat", "core", "control_tuning", "causes", "equal_spikes", "adaptation_tuning", "adaptation"),
    *("delays", "delays_later", "delays_equal_spikes", "delays_spoken"),
    *("natural_tuning", "natural_flat", "natural", "gradients", "references", "rasters", "summary"),
)


def main() -> None:
    """Run what is missing of the stages that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=GRIDS, default="default")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--stage", choices=STAGES, action="append", help="only these, and what they need")
    parser.add_argument("--folder", type=Path, help="where runs are kept")
    parser.add_argument("--accept-older", action="store_true", help="use kept runs of other source, too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: trials side by side")
    parser.add_argument("--task", action="append", help="in core and references only these, in this order; no summary")
    args = parser.parse_args()
    folder = args.folder or Path("book/results/benefit" if args.grid == "default" else "_build/benefit_quick")
    experiment = Experiment(GRIDS[args.grid], Store(folder, args.processes, args.accept_older, args.device))
    experiment.only = args.task
    if args.task and (unknown := set(args.task) - set(experiment.problems)):
        parser.error(f"--task: expected some of {', '.join(experiment.problems)}, got {', '.join(unknown)}")
    stages = [name for name in args.stage or STAGES if not (args.task and name == "summary")]
    for name in stages:
        if name.startswith("natural") and not experiment.natural_is_there():
            continue
        start = time.perf_counter()
        found = experiment.stage(name)
        print(f"{name}: done, {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
        if name == "summary":
            command = f"benefit.py --grid {args.grid}"
            about = stored.header(
                command, f"{stored.CPU}, {experiment.store.here['processor']}", **experiment.store.here
            )
            stored.write(folder / "summary.json", about | found)


if __name__ == "__main__":
    main()
