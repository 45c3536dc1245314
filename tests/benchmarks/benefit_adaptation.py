"""What chapter 8 reads out of the stage "adaptation", of whatever lines there are."""

import matplotlib.pyplot as plt
from benefit_analysis import COLOR, TITLE, Results
from benefit_design import ADAPT, ADAPT_DIFFERENT, ADAPT_LEARNS, ADAPTATION_TASKS, ADAPTIVE, BESIDE, EQUAL
from benefit_figures import forest

from snnparams.plot import Table

STAGE = "adaptation"
PREDICTIONS = "adaptation_predictions.json"
COMMAND = "python tests/benchmarks/benefit.py --stage adaptation"
TITLES = TITLE | {
    EQUAL: "equal, no adaptation",
    ADAPT: "equal adaptation",
    ADAPT_DIFFERENT: "different adaptation",
    ADAPT_LEARNS: "adaptation learned",
}
COLORS = COLOR | {ADAPT: "0.55", ADAPT_DIFFERENT: "C4", ADAPT_LEARNS: "C5"}
KINDS = (*BESIDE, *ADAPTIVE)
NOT_RUN = "not run"


def seeds(results: Results, task: str, kind: str) -> list[int]:
    """Return the seeds of a condition that there are, failed runs left out."""
    if (task, kind) not in results.runs(STAGE):
        return []
    return list(results.by_seed(STAGE, task, kind))


def shared_seeds(results: Results, task: str, *kinds: str) -> int:
    """Return how many seeds all of some conditions have run with."""
    return len(set.intersection(*(set(seeds(results, task, kind)) for kind in kinds)))


def table(results: Results) -> Table:
    """Return accuracy and gain over equal neurons without adaptation, for each task and kind; "not run" where it is."""
    rows = []
    for task in ADAPTATION_TASKS:
        for kind in KINDS:
            count = len(seeds(results, task, kind))
            reached = f"{results.mean(STAGE, task, kind):.1f} %" if count else NOT_RUN
            gain = "" if kind == EQUAL else NOT_RUN
            if kind != EQUAL and shared_seeds(results, task, kind, EQUAL) > 1:
                gain = str(results.difference(STAGE, task, kind, EQUAL))
            rows.append([f"{task}: {TITLES[kind]}", reached, gain, str(count)])
    return Table(["task and kind", "accuracy", "gain over equal (95 %)", "seeds"], rows)


def gains(results: Results) -> plt.Figure:
    """Draw the gain over equal neurons without adaptation, seed by seed; what has not been run says so."""
    rows: list = []
    for task in ADAPTATION_TASKS:
        found = [kind for kind in KINDS if kind != EQUAL and shared_seeds(results, task, kind, EQUAL) > 1]
        rows.append((task if found else f"{task}: {NOT_RUN}", None, "k"))
        rows += [(TITLES[kind], results.difference(STAGE, task, kind, EQUAL), COLORS[kind]) for kind in found]
    fig, ax = plt.subplots(figsize=(7.2, 0.6 + 0.3 * len(rows)))
    forest(ax, rows, "gain over equal neurons without adaptation (points)")
    if len(rows) == len(ADAPTATION_TASKS):
        ax.set(xticks=[])
    return fig
