"""The stage of chapter 6's experiment that measures what accuracies are to be compared with."""

import json

from snnparams.experiments.designs import Architecture, Neurons
from snnparams.experiments.networks import build
from snnparams.experiments.trial import make_task

# On natural tasks a GRU had first a mean over time and three rates, of which the smallest was chosen. Now it has the
# maximum that the spiking networks have, and a fourth rate.
GRU_LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)


class ReferenceStages:
    """A stage of the `Experiment` of benefit.py, which runs the trials and knows the problems."""

    def references(self) -> list[dict]:
        """Return the reference levels; a GRU has as many parameters as the network of that task."""
        planned = []
        problems = {task: (self.final(task), self.stage("flat")[task]) for task in self.asked(self.problems)}
        if (natural := self.asked(self.natural_problems)) and self.natural_is_there():
            flat = self.stage("natural_flat")
            problems |= {task: (self.natural_problems[task], flat[task]) for task in natural}
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
                if not problem.by_seed:
                    options |= {"readout": problem.architecture["readout"], "learning_rates": list(GRU_LEARNING_RATES)}
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
