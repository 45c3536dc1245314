"""The stages of chapter 6's experiment that chapter 9 reads: spikes that travel to the readout."""

import benefit_design as design
from benefit_design import EQUAL, KINDS, SYN, Kind, Problem, cell_of


class DelayStages:
    """Stages of the `Experiment` of benefit.py, which runs the trials and knows the problems."""

    def _tuned_delays(self, stage: str, problems: dict[str, Problem], kinds: dict[str, Kind]) -> dict:
        """Return the knobs of kinds with delays, each of which gets the same few tries, whatever they find."""
        tries = self.grid.delay_tries
        entries = {
            (task, name): (problem, kind, kind.first[:tries], {})
            for task, problem in problems.items()
            for name, kind in kinds.items()
        }
        return self.search(f"{stage}_tuning", entries, tries, tries)

    def _with_delays(self, stage: str, tasks: tuple[str, ...], kinds: tuple[str, ...], seeds: int) -> list[dict]:
        """Return the lines of some kinds, after tuning them, which train as long as in the core.

        On tasks that delays solve early, kinds with delays stop after the epochs of tuning.
        """
        delayed = {name: design.DELAYED[name] for name in kinds if name in design.DELAYED}
        found = self._tuned_delays(stage, {task: self.problem(task) for task in tasks}, delayed)
        tuned, all_kinds = self.stage("tuning") | found, KINDS | design.DELAYED
        planned = [
            (task, name, seed, cell_of(problem, all_kinds[name], tuned[task, name]["knobs"], seed, True))
            for task in tasks
            for seed in range(1, seeds + 1)
            for name in kinds
            for early in [name in design.DELAYED and task in design.SHORT_DELAY_TASKS]
            for problem in [self.problem(task) if early else self.final(task)]
        ]
        return self.trials(stage, planned)

    def delays(self) -> list[dict]:
        """Return the lines of different delays beside kinds of the core, then those of the other delays."""
        tasks, seeds = (design.DELAY_TASK,), self.grid.core_seeds
        first = self._with_delays("delays", tasks, (EQUAL, SYN, design.LEARNS, design.DELAYS), seeds)
        others = [name for name in design.DELAYED if name != design.DELAYS]
        return first + self._with_delays("delays", tasks, tuple(others), min(seeds, self.grid.seeds))

    def delays_later(self) -> list[dict]:
        """Return the lines of delays on the other tasks, one after the other."""
        kinds = (EQUAL, SYN, *design.DELAYED)
        return [
            line
            for task in design.LATER_DELAY_TASKS
            for line in self._with_delays("delays_later", (task,), kinds, self.grid.seeds)
        ]

    def delays_equal_spikes(self) -> list[dict]:
        """Return the lines of delays beside equal neurons and synapses at one rate, the same for all."""
        task = design.DELAY_TASK
        delayed = {name: design.DELAYED[name] for name in (design.DELAYS, design.DELAYS_LEARN)}
        found = self._tuned_delays("delays", {task: self.problem(task)}, delayed)
        tuned = self.stage("tuning") | found
        entries = {
            name: (self.final(task), KINDS[name], tuned[task, name]["knobs"]) for name in (EQUAL, SYN, design.LEARNS)
        }
        entries |= {name: (self.problem(task), kind, tuned[task, name]["knobs"]) for name, kind in delayed.items()}
        return self.at_rates("delays_equal_spikes", task, entries, (design.DELAY_RATE,))

    def delays_spoken(self) -> list[dict]:
        """Return the lines of delays on spoken digits, beside kinds without, all trained equally long."""
        task, stage = design.SPOKEN, "delays_spoken"
        if not self.natural_is_there():
            return []
        problem = self.natural_problems[task]
        tuned = self.stage("natural_tuning") | self._tuned_delays(stage, {task: problem}, design.DELAYED_SPOKEN)
        kinds = {name: KINDS[name] for name in (EQUAL, SYN)} | design.DELAYED_SPOKEN
        epochs = self.flatten(f"{stage}_flat", {task: problem}, tuned, kinds, self.grid.most_spoken_epochs)[task]
        planned = [
            (task, name, seed, cell_of(*(problem, kind, tuned[task, name]["knobs"], seed, True), training=training))
            for training in [{"epochs": epochs}]
            for seed in range(1, self.grid.seeds + 1)
            for name, kind in kinds.items()
        ]
        return self.trials(stage, planned)
