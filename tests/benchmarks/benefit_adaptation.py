"""What chapter 8 reads out of the stages "adaptation_tuning" and "adaptation", of whatever lines there are."""

import dataclasses

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
from benefit_terms import task_name

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
LEGEND = (
    "\n\nIn the figure a dot is a seed and a bar the 95 % interval of their mean; *gain* is the mean difference from "
    "equal neurons without adaptation, seed by seed. A verdict waits for all seeds of what it compares. *Could be "
    "seen* is the smallest true difference that so many seeds, with the scatter between them, would show in four of "
    "five experiments; a smaller one may stay unseen, so an interval around zero does not say that there is nothing."
)
ASKED = (  # of each task: a kind, and what it is compared with
    (ADAPT, EQUAL),
    (ADAPT_DIFFERENT, ADAPT),
    (ADAPT_LEARNS, ADAPT),
    (ADAPT_LEARNS, ADAPT_DIFFERENT),
    (ADAPT_DIFFERENT, SYN),
    (ADAPT_LEARNS, LEARNS),
)


def started(results: Results) -> Study:
    """Return the part of the study that has been run at all: the tasks that have a run of thresholds that adapt."""
    stages = {
        task: stage
        for task, stage in STUDY.stages.items()
        if any(STUDY.seeds(results, task, kind) for kind in ADAPTIVE)
    }
    return dataclasses.replace(STUDY, stages=stages)


def state(results: Results) -> str:
    """Say in a sentence or two how much of the experiment there is, what is missing, and how to read what there is."""
    if not started(results).stages:
        searched = results.lines("adaptation_tuning")
        what = "Only settings have been searched for so far" if searched else "Nothing of this has been run yet"
        return f"**{what}.** `{COMMAND}` runs it, in hours of computing; what comes of it is then shown here."
    planned, tries = analysis.SEEDS, set()
    parts, failed = [], 0
    for task in STUDY.stages:
        counts = [len(STUDY.seeds(results, task, kind)) for kind in STUDY.kinds]
        if min(counts) < planned:
            fewest, most = min(counts), max(counts)
            seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            parts.append(f"{seeds} of {planned} seeds of each kind on {task_name(task)}")
        runs = results.runs("adaptation")
        failed += sum("failed" in x["result"] for kind in STUDY.kinds for x in runs.get((task, kind), {}).values())
        tries |= {len(results.tries("adaptation_tuning", task, kind)) for kind in ADAPTIVE}
    number = f"{max(tries)}" if len(tries) == 1 else f"{min(tries)} to {max(tries)}"
    searched = f"Settings of the new kinds were chosen from {number} tries each. " if max(tries) else ""
    failures = f" Runs that failed and are left out: {failed}." if failed else ""
    if not parts:
        return f"{searched}All of it has been run: {planned} seeds of each kind on each task.{failures}{LEGEND}"
    return f"{searched}So far there are {' and '.join(parts)}. `{COMMAND}` runs what is missing.{failures}{LEGEND}"


def predictions(results: Results) -> Table:
    """Return what was predicted, and what became of it as soon as something has been run."""
    return analysis.predictions(results, with_outcome=bool(started(results).stages))


def compared(results: Results) -> Table | None:
    """Return what was asked, task by task: difference and interval, the smallest that could be seen, and seeds.

    As `table` and `gains` it leaves out tasks of which nothing has been run, and is None where nothing is left.
    """
    rows = []
    for task, stage in started(results).stages.items():
        for kind, other in ASKED:
            row = [f"{task_name(task)}: {TITLES[kind]} \N{MINUS SIGN} {TITLES[other]}"]
            count = STUDY.shared_seeds(results, task, kind, other)
            if count > 1:
                found = results.difference(stage, task, kind, other)
                row += [str(found), f"{found.contrast.detectable:.1f}"]
            else:
                row += [NOT_RUN, ""]
            rows.append([*row, str(count)])
    return Table(["task and difference", "points (95 %)", "could be seen", "seeds"], rows) if rows else None


def table(results: Results) -> Table | None:
    """Return accuracy and gain over equal neurons without adaptation, for each task and kind; "not run" where it is."""
    study = started(results)
    return study.table(results) if study.stages else None


def gains(results: Results) -> plt.Figure | None:
    """Draw the gain over equal neurons without adaptation, seed by seed."""
    study = started(results)
    return study.gains(results, "gain over no adaptation (points)") if study.stages else None
