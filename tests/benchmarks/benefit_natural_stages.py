"""The stages of chapter 6's experiment on natural tasks: spoken digits and sequential MNIST."""

import dataclasses
import json

import benefit_design as design
from benefit_design import KINDS, Kind, cell_of

from snnparams.data.spoken_digits import load_spoken_digits
from snnparams.experiments.trial import make_task


class NaturalStages:
    """Stages of the `Experiment` of benefit.py, which runs the trials and knows the problems."""

    @property
    def natural_kinds(self) -> dict[str, Kind]:
        """The five kinds, and all parameters learned from different values."""
        return {**KINDS, design.ALL: design.ALL_LEARNED}

    def natural_tuning(self) -> dict:
        """Return the knobs of each natural task and kind; sequential MNIST is tuned on a split of its own."""
        entries = {}
        for task in self.asked(self.natural_problems):
            problem = self.natural_problems[task]
            if "mnist" in task:
                problem = dataclasses.replace(problem, task={**problem.task, "seed": 100})
            entries |= {(task, name): (problem, kind, kind.first, {}) for name, kind in self.natural_kinds.items()}
        return self.search("natural_tuning", entries, self.grid.control_tries)

    def natural_flat(self) -> dict[str, int]:
        """Return the epochs of each natural task."""
        tuned, most = self.stage("natural_tuning"), self.grid.most_natural_epochs
        problems = {task: self.natural_problems[task] for task in self.asked(self.natural_problems)}
        return self.flatten("natural_flat", problems, tuned, self.natural_kinds, most)

    def natural(self) -> list[dict]:
        """Return the lines of the natural tasks, each with a split; seeds of split k are 10 k + 1, 10 k + 2, ..."""
        tuned, epochs = self.stage("natural_tuning"), self.stage("natural_flat")
        planned = []
        for task in self.asked(self.natural_problems):
            problem = self.natural_problems[task]
            splits = [
                (f"{task}, split {k}", {"seed": k} if "mnist" in task else {"fold": k}) for k in range(self.grid.splits)
            ]
            seeds = [] if "mnist" in task else [(task, {}, seed) for seed in range(1, self.grid.seeds + 1)]
            seeds += [
                (name, option, 10 * k + r + 1)
                for k, (name, option) in enumerate(splits)
                for r in range(self.grid.repetitions)
            ]
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
