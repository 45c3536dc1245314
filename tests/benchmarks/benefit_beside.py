"""What stands beside the core of chapter 6's experiment, read out of whatever lines there are: a table and a figure."""

import dataclasses
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from benefit_analysis import Results
from benefit_design import EQUAL
from benefit_forest import forest
from benefit_terms import task_name

from snnparams.plot import Table

NOT_RUN = "not run"


@dataclasses.dataclass(frozen=True)
class Study:
    """Kinds of networks that are compared with equal neurons on some tasks.

    Args:
        stages: for each task the stage that runs it.
        kinds: equal neurons first.
        titles: of each kind.
        colors: of each kind.
    """

    stages: Mapping[str, str]
    kinds: Sequence[str]
    titles: Mapping[str, str]
    colors: Mapping[str, str]

    def seeds(self, results: Results, task: str, kind: str) -> list[int]:
        """Return the seeds of a condition that there are, failed runs left out."""
        if (task, kind) not in results.runs(self.stages[task]):
            return []
        return list(results.by_seed(self.stages[task], task, kind))

    def shared_seeds(self, results: Results, task: str, *kinds: str) -> int:
        """Return how many seeds all of some conditions have run with."""
        return len(set.intersection(*(set(self.seeds(results, task, kind)) for kind in kinds)))

    def table(self, results: Results) -> Table:
        """Return accuracy and gain over equal neurons, for each task and kind; "not run" where it is."""
        rows = []
        for task, stage in self.stages.items():
            for kind in self.kinds:
                count = len(self.seeds(results, task, kind))
                reached = f"{results.mean(stage, task, kind):.1f} %" if count else NOT_RUN
                gain = "" if kind == EQUAL else NOT_RUN
                if kind != EQUAL and self.shared_seeds(results, task, kind, EQUAL) > 1:
                    gain = str(results.difference(stage, task, kind, EQUAL))
                rows.append([f"{task_name(task)}: {self.titles[kind]}", reached, gain, str(count)])
        return Table(["task and kind", "accuracy", "gain over equal (95 %)", "seeds"], rows)

    def gains(self, results: Results, xlabel: str) -> plt.Figure:
        """Draw the gain over equal neurons, seed by seed; what has not been run says so."""
        rows: list = []
        for task, stage in self.stages.items():
            found = [kind for kind in self.kinds if kind != EQUAL and self.shared_seeds(results, task, kind, EQUAL) > 1]
            rows.append((task_name(task) if found else f"{task_name(task)}:\n{NOT_RUN}", None, "k"))
            rows += [
                (self.titles[kind], results.difference(stage, task, kind, EQUAL), self.colors[kind]) for kind in found
            ]
        fig, ax = plt.subplots(figsize=(4.95, 0.6 + 0.3 * len(rows)))
        forest(ax, rows, xlabel)
        if rows[-1][1] is None:
            ax.set(ylim=(len(rows) + 0.1, -0.5))  # the second line of a heading stands above the axis
        if len(rows) == len(self.stages):
            ax.set(xticks=[])
        return fig
