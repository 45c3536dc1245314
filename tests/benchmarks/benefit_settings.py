"""The stages of chapter 6's experiment that choose its settings: sizes, knobs, epochs."""

import dataclasses
from collections.abc import Iterable

import benefit_design as design
from benefit_design import EQUAL, KINDS, Kind, Problem, cell_of
from benefit_grid import Grid, mean, validation_accuracy
from benefit_store import Store

from snnparams.experiments.tuning import best, enclosed, next_places, values

SOLVED = 0.98  # accuracy from which a search that ends at an edge is not continued
FLAT = 0.005  # accuracy that twice the epochs may gain


class Settings:
    """Stages of the `Experiment` of benefit.py, and how any of them tunes, trains long enough and keeps its runs."""

    def __init__(self, grid: Grid, store: Store) -> None:
        self.grid, self.store = grid, store
        self.problems = design.core_problems(grid.size, grid.epochs, grid.validation, grid.test)
        self.natural_problems = design.natural_problems(grid.quick, grid.natural_epochs)
        self.done: dict = {}
        self.only: list[str] | None = None  # tasks that are asked for, if not all

    def asked(self, tasks: Iterable[str]) -> list[str]:
        """Return those of some tasks that are asked for."""
        return [task for task in tasks if not self.only or task in self.only]

    def stage(self, name: str):
        """Return what a stage found, after running what is missing, once."""
        if name not in self.done:
            self.done[name] = getattr(self, name)()
        return self.done[name]

    def trials(self, stage: str, planned: list[tuple[str, str, int, dict]], job: str = "trial") -> list[dict]:
        """Return the lines of runs given as task, condition, seed and cell."""
        names = ("task", "condition", "seed", "cell")
        return self.store.run(stage, [{"job": job, **dict(zip(names, run, strict=True))} for run in planned])

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

    def flatten(
        self, stage: str, problems: dict[str, Problem], tuned: dict, kinds: dict[str, Kind], most: int
    ) -> dict[str, int]:
        """Return for each task the epochs, at most `most`, after which twice as many gain no kind half a point.

        The first that is asked about is twice what tuning took. Says if even the most are not enough.
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
                if 4 * n > most:
                    waiting.remove(task)
                    print(f"  {stage}: {task}: {2 * n} epochs are the most; they gained {gain:.2%} over {n}")
        return epochs

    def flat(self) -> dict[str, int]:
        """Return the epochs of each task of the core."""
        problems = {task: self.problem(task) for task in self.problems}
        return self.flatten("flat", problems, self.stage("tuning"), KINDS, self.grid.most_epochs)

    def final(self, task: str) -> Problem:
        """Return a problem of the core as it is used for results."""
        problem = self.problem(task)
        return dataclasses.replace(problem, training={**problem.training, "epochs": self.stage("flat")[task]})
