"""The stages of chapter 6's experiment that chapter 9 reads: spikes that travel to the readout."""

import benefit_design as design
from benefit_design import EQUAL, KINDS, SYN, Kind, Problem, cell_of


class DelayStages:
    """Stages of the `Experiment` of benefit.py, which runs the trials and knows the problems."""

    def _tuned_delays(self, stage: str, task: str, problem: Problem, kinds: dict[str, Kind], tries: int) -> dict:
        """Return the knobs of kinds with delays, each of which gets the same tries, whatever they find."""
        entries = {(task, name): (problem, kind, kind.first[:tries], {}) for name, kind in kinds.items()}
        return self.search(f"{stage}_tuning", entries, tries, tries)

    def _with_delays(self, stage: str, task: str, kinds: tuple[str, ...], seeds: int) -> list[dict]:
        """Return the lines of some kinds, after tuning them.

        Where delays are not known to solve a task, kinds with delays get as many tries as equal neurons had, begin with
        what those ended with, and train as long.
        """
        problem, equal = self.problem(task), self.stage("tuning")[task, EQUAL]
        if easy := task in design.EASY_DELAY_TASKS:
            delayed, tries = design.DELAYED, self.grid.delay_tries
        else:
            delayed, tries = design.delayed_from(equal["knobs"]), equal["tries"]
        delayed = {name: delayed[name] for name in kinds if name in delayed}
        tuned = self.stage("tuning") | self._tuned_delays(stage, task, problem, delayed, tries)
        planned = [
            (task, name, seed, cell_of(*given, tuned[task, name]["knobs"], seed, True))
            for seed in range(1, seeds + 1)
            for name in kinds
            for given in [(problem if easy and name in delayed else self.final(task), (KINDS | delayed)[name])]
        ]
        return self.trials(stage, planned)

    def delays(self) -> list[dict]:
        """Return the lines of different delays beside kinds of the core, then those of the other delays."""
        task, seeds = design.DELAY_TASK, self.grid.core_seeds
        first = self._with_delays("delays", task, (EQUAL, SYN, design.LEARNS, design.DELAYS), seeds)
        others = [name for name in design.DELAYED if name != design.DELAYS]
        return first + self._with_delays("delays", task, tuple(others), min(seeds, self.grid.seeds))

    def delays_later(self) -> list[dict]:
        """Return the lines of delays on the other tasks, one after the other."""
        kinds = (EQUAL, SYN, *design.DELAYED)
        return [
            line
            for task in design.LATER_DELAY_TASKS
            for line in self._with_delays("delays_later", task, kinds, self.grid.seeds)
        ]

    def delays_equal_spikes(self) -> list[dict]:
        """Return the lines of delays beside equal neurons and synapses at one rate, the same for all."""
        task = design.DELAY_TASK
        delayed = {name: design.DELAYED[name] for name in (design.DELAYS, design.DELAYS_LEARN)}
        found = self._tuned_delays("delays", task, self.problem(task), delayed, self.grid.delay_tries)
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
        delayed, tries = design.DELAYED_SPOKEN, self.grid.delay_tries
        tuned = self.stage("natural_tuning") | self._tuned_delays(stage, task, problem, delayed, tries)
        kinds = {name: KINDS[name] for name in (EQUAL, SYN)} | delayed
        epochs = self.flatten(f"{stage}_flat", {task: problem}, tuned, kinds, self.grid.most_spoken_epochs)[task]
        planned = [
            (task, name, seed, cell_of(*(problem, kind, tuned[task, name]["knobs"], seed, True), training=training))
            for training in [{"epochs": epochs}]
            for seed in range(1, self.grid.seeds + 1)
            for name, kind in kinds.items()
        ]
        return self.trials(stage, planned)
