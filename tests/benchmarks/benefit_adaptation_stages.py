"""The stages of chapter 6's experiment that chapter 8 reads: thresholds that adapt."""

import benefit_design as design
from benefit_design import KINDS, cell_of


class AdaptationStages:
    """Stages of the `Experiment` of benefit.py, which runs the trials and knows the problems."""

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
