"""What chapter 8 reads out of the stage "adaptation", of whatever lines there are."""

import matplotlib.pyplot as plt
from benefit_analysis import COLOR, TITLE, Results
from benefit_beside import Study
from benefit_design import ADAPT, ADAPT_DIFFERENT, ADAPT_LEARNS, ADAPTATION_TASKS, ADAPTIVE, BESIDE, EQUAL

from snnparams.plot import Table

PREDICTIONS = "adaptation_predictions.json"
COMMAND = "python tests/benchmarks/benefit.py --stage adaptation"
TITLES = TITLE | {
    EQUAL: "equal, no adaptation",
    ADAPT: "equal adaptation",
    ADAPT_DIFFERENT: "different adaptation",
    ADAPT_LEARNS: "adaptation learned",
}
COLORS = COLOR | {ADAPT: "0.55", ADAPT_DIFFERENT: "C4", ADAPT_LEARNS: "C5"}
STUDY = Study(dict.fromkeys(ADAPTATION_TASKS, "adaptation"), (*BESIDE, *ADAPTIVE), TITLES, COLORS)


def table(results: Results) -> Table:
    """Return accuracy and gain over equal neurons without adaptation, for each task and kind; "not run" where it is."""
    return STUDY.table(results)


def gains(results: Results) -> plt.Figure:
    """Draw the gain over equal neurons without adaptation, seed by seed; what has not been run says so."""
    return STUDY.gains(results, "gain over equal neurons without adaptation (points)")
