"""What chapter 8 reads out of the stages "adaptation_tuning" and "adaptation", of whatever lines there are."""

import benefit_analysis as analysis
import matplotlib.pyplot as plt
from benefit_analysis import COLOR, TITLE, Results
from benefit_beside import NOT_RUN, Study
from benefit_design import (
    ADAPT,
    ADAPT_DIFFERENT,
    ADAPT_LEARNS,
    ADAPTATION_TASKS,
    ADAPTIVE,
    BESIDE,
    EQUAL,
    LEARNS,
    SYN,
)

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
ASKED = (  # of each task: a kind, and what it is compared with
    (ADAPT, EQUAL),
    (ADAPT_DIFFERENT, ADAPT),
    (ADAPT_LEARNS, ADAPT),
    (ADAPT_LEARNS, ADAPT_DIFFERENT),
    (ADAPT_DIFFERENT, SYN),
    (ADAPT_LEARNS, LEARNS),
)


def state(results: Results) -> str:
    """Say in a sentence or two how much of the experiment there is, and what is missing."""
    planned, tries = analysis.SEEDS, set()
    parts, failed = [], 0
    for task in STUDY.stages:
        counts = [len(STUDY.seeds(results, task, kind)) for kind in STUDY.kinds]
        if min(counts) < planned:
            fewest, most = min(counts), max(counts)
            seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            parts.append(f"{seeds} of {planned} seeds of each kind on {task}")
        runs = results.runs("adaptation")
        failed += sum("failed" in x["result"] for kind in STUDY.kinds for x in runs.get((task, kind), {}).values())
        tries |= {len(results.tries("adaptation_tuning", task, kind)) for kind in ADAPTIVE}
    number = f"{max(tries)}" if len(tries) == 1 else f"{min(tries)} to {max(tries)}"
    searched = f"Settings of the new kinds were chosen from {number} tries each. " if max(tries) else ""
    failures = f" Runs that failed and are left out: {failed}." if failed else ""
    if not parts:
        return f"{searched}All of it has been run: {planned} seeds of each kind on each task.{failures}"
    return f"{searched}So far there are {' and '.join(parts)}. The rest is missing.{failures}"


def compared(results: Results) -> Table:
    """Return what was asked, task by task: difference and interval, the smallest that could be seen, and seeds."""
    rows = []
    for task, stage in STUDY.stages.items():
        for kind, other in ASKED:
            row = [f"{task}: {TITLES[kind]} \N{MINUS SIGN} {TITLES[other]}"]
            count = STUDY.shared_seeds(results, task, kind, other)
            if count > 1:
                found = results.difference(stage, task, kind, other)
                row += [str(found), f"{found.contrast.detectable:.1f}"]
            else:
                row += [NOT_RUN, ""]
            rows.append([*row, str(count)])
    return Table(["task and difference", "points (95 %)", "could be seen", "seeds"], rows)


def table(results: Results) -> Table:
    """Return accuracy and gain over equal neurons without adaptation, for each task and kind; "not run" where it is."""
    return STUDY.table(results)


def gains(results: Results) -> plt.Figure:
    """Draw the gain over equal neurons without adaptation, seed by seed; what has not been run says so."""
    return STUDY.gains(results, "gain over equal neurons without adaptation (points)")
