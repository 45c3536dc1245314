"""What chapter 9 reads out of the stages "delays" and "delays_later", of whatever lines there are."""

import matplotlib.pyplot as plt
from benefit_analysis import COLOR, TITLE, Results
from benefit_beside import Study
from benefit_design import (
    DELAY_TASK,
    DELAYED,
    DELAYS,
    DELAYS_DIFFERENT_LEARN,
    DELAYS_LEARN,
    EQUAL,
    EQUAL_DELAYS,
    LATER_DELAY_TASKS,
    LEARNS,
    SYN,
)

from snnparams.plot import Table

PREDICTIONS = "delays_predictions.json"
COMMAND = "python tests/benchmarks/benefit.py --accept-older --stage delays"
TITLES = TITLE | {name: name for name in DELAYED} | {EQUAL: "equal, no delays"}
COLORS = COLOR | {EQUAL_DELAYS: "0.55", DELAYS: "C4", DELAYS_LEARN: "C5", DELAYS_DIFFERENT_LEARN: "C6"}
CORE = Study({DELAY_TASK: "delays"}, (EQUAL, SYN, LEARNS, *DELAYED), TITLES, COLORS)
LATER = Study(dict.fromkeys(LATER_DELAY_TASKS, "delays_later"), (EQUAL, SYN, *DELAYED), TITLES, COLORS)


def table(results: Results) -> Table:
    """Return accuracy and gain over equal neurons without delays on four windows; "not run" where it is."""
    return CORE.table(results)


def later(results: Results) -> Table:
    """Return how many seeds of the other tasks have been run, and the gain of different delays where any have."""
    rows = []
    for task in LATER.stages:
        counts = [len(LATER.seeds(results, task, kind)) for kind in (EQUAL, *DELAYED)]
        gain = "not run"
        if LATER.shared_seeds(results, task, EQUAL, DELAYS) > 1:
            gain = str(results.difference(LATER.stages[task], task, DELAYS))
        rows.append([task, gain, str(min(counts))])
    return Table(["task", "gain of different delays (95 %)", "seeds of all kinds"], rows)


def gains(results: Results) -> plt.Figure:
    """Draw the gain over equal neurons without delays on four windows, seed by seed."""
    return CORE.gains(results, "gain over equal neurons without delays (points)")
