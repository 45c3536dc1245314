"""What chapter 6 reads out of its results: tables, and what the search for settings tells.

The runs are read by `benefit_results`, names and colours stand in `benefit_terms`.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from benefit_design import ALL, EQUAL, KINDS, LEARNS, MEM, SYN
from benefit_results import Difference, Results, measured, signed
from benefit_terms import (
    ALL_FROM_EQUAL,
    COLOR,
    DECLARED,
    DELAY_STAGES,
    FLAT_EPOCHS,
    FOLDER,
    LEVELS,
    MARGIN,
    NATURAL,
    SEEDS,
    TASKS,
    TITLE,
    as_shown,
    task_name,
)

from snnparams.plot import Table

# besides the functions below: what those who read results need of the two other files
__all__ = ["COLOR", "DELAY_STAGES", "FOLDER", "MARGIN", "SEEDS", "Results", "Table", "measured", "task_name"]


def percent(number: float | None, digits: int = 1) -> str:
    """Return per cent as text, a dash where there is no number."""
    return "\N{EN DASH}" if number is None else f"{number:.{digits}f}"


def levels(results: Results) -> Table:
    """Return accuracies beside their reference levels; a star where a linear classifier is better on a natural task."""
    rows = []
    for task in (*TASKS, *natural_tasks(results)):
        known = [results.level(task, level) for level in LEVELS]
        if any((task, level) in results.runs("references") for level in LEVELS):
            reached = results.reached(task)
            best = max(reached, key=reached.__getitem__)
            mark = " *" if task in below_linear(results) else ""
            ours = [percent(reached[EQUAL]), f"{reached[best]:.1f} ({TITLE[best]})"]
            rows.append([task_name(task) + mark, *map(percent, known), *ours])
    note = "* a linear classifier on all bins is better: no general conclusion from this task"
    note = note if below_linear(results) else ""
    return Table(["correct (%)", *LEVELS.values(), "equal", "best kind"], rows, note)


def natural_tasks(results: Results) -> list[str]:
    """Return the natural tasks that have been run, on their official split or on splits of their own."""
    return [task for task in NATURAL if (task, EQUAL) in results.runs("natural") or results.splits(task, EQUAL)]


def all_splits(results: Results, task: str) -> bool:
    """Return whether all kinds have been run on all five splits of a natural task."""
    return all(len(results.splits(task, kind)) == 5 for kind in (*KINDS, ALL))


def below_linear(results: Results) -> list[str]:
    """Return the natural tasks on which the best kind of network is worse than a linear classifier on all bins."""
    best = {task: max(results.reached(task).values()) for task in natural_tasks(results)}
    return [task for task, accuracy in best.items() if accuracy < (results.level(task, "linear") or 0)]


def controls(results: Results) -> Table:
    """Return the controls that are not about the reset."""
    readouts = ("readout 40 steps", "readout per output", "surrogate slope 1", "surrogate slope 20")
    wanted = [
        ("96 equal neurons, against 48", f"{EQUAL}, 96 neurons", EQUAL),
        ("192 equal neurons, against 48", f"{EQUAL}, 192 neurons", EQUAL),
        ("24 different neurons, against 192 equal", f"{SYN}, 24 neurons", f"{EQUAL}, 192 neurons"),
        ("12 different neurons, against 192 equal", f"{SYN}, 12 neurons", f"{EQUAL}, 192 neurons"),
        ("equal, readout of 40 steps, against 8", f"{EQUAL}, readout 40 steps", EQUAL),
        ("equal, one readout for each output, against one for all", f"{EQUAL}, readout per output", EQUAL),
        *[(f"different, against equal, {x}", f"{SYN}, {x}", f"{EQUAL}, {x}") for x in readouts],
        ("all learned from equal, against τ syn learned", ALL_FROM_EQUAL, LEARNS),
        ("different and all learned, against all learned from equal", ALL, ALL_FROM_EQUAL),
    ]
    rows = []
    for title, condition, other in wanted:
        reached = results.mean("causes", "windows 4", condition)
        rows.append([title, percent(reached), str(results.difference("causes", "windows 4", condition, other))])
    return Table(["control", "correct (%)", "difference (points)"], rows)


def official(results: Results) -> Table:
    """Return what the kinds reach on the official split of the spoken digits, as far as it has been run."""
    rows = []
    for task in natural_tasks(results):
        for kind in (*KINDS, ALL):
            if (task, kind) in results.runs("natural"):
                reached, spikes = (results.mean("natural", task, kind, measure) for measure in ("accuracy", "spikes"))
                gain = "\N{EN DASH}" if kind == EQUAL else str(results.difference("natural", task, kind))
                count = len(results.by_seed("natural", task, kind))
                rows.append([f"{task_name(task)}: {TITLE[kind]}", percent(reached), gain, f"{spikes:.0f}", str(count)])
    return Table(["official split", "correct (%)", "minus equal (points)", "spikes", "seeds"], rows)


def declared(results: Results) -> Table:
    """Return the declared contrasts."""
    rows = []
    for name in DECLARED:
        found = results.declared(name)
        c = found.contrast
        rows.append([name, str(found), f"{c.p:.1g}", str(c.n), f"{c.detectable:.1f}"])
    return Table(["declared contrast", "points (95 %)", "p", "seeds", "could be seen (points)"], rows)


def every_difference(results: Results) -> Table:
    """Return mean, median, collapsed runs and difference of each kind, on the tasks where all seeds ran."""
    rows = []
    asked = [("core", task, kind) for task in results.tasks for kind in KINDS]
    for task, kind in results.runs("again"):  # those whose search was made again stand behind what they had first
        if kind != EQUAL:
            asked.insert(asked.index(("core", task, kind)) + 1, ("again", task, kind))
    for stage, task, kind in asked:
        values = list(results.by_seed(stage, task, kind).values())
        gain = seen = same = "\N{EN DASH}"
        if kind != EQUAL:
            found = results.difference(stage, task, kind)
            gain, seen = str(found), f"{found.contrast.detectable:.1f}"
            same = "yes" if found.same < 0.05 else "no"
        reached = [percent(float(measure(values))) for measure in (np.mean, np.median)]
        collapsed = f"{100 * results.collapsed(stage, task, kind):.0f}"
        name = f"{task_name(task)}: {TITLE[kind]}" + ("" if stage == "core" else ", 2nd search")
        rows.append([name, gain, *reached, collapsed, seen, same])
    header = ["test split", "minus equal (points)", "mean (%)", "median (%)", "collapsed (%)", "could be seen (points)"]
    header.append("within 1 point")
    return Table(header, rows)


def predictions(results: Results, with_outcome: bool = False) -> Table:
    """Return the predictions as a table, with what became of them if asked for."""
    outcomes = results.outcomes() if with_outcome else {}
    rows = []
    for prediction in results.predictions["predictions"]:
        unit = "" if prediction["measure"] in ("remembered", "derivative") else " points"
        row = [as_shown(prediction["claim"]), "known" if prediction["known"] else "new", bounds(prediction) + unit]
        if with_outcome:
            verdict, contrast = outcomes[prediction["id"]]
            interval = "\N{EN DASH}"
            if contrast:
                small = max(abs(contrast.low), abs(contrast.high)) < 0.05  # both ends would be shown as zero
                digits = 3 if not unit or small else 1
                interval = f"{signed(contrast.low, digits)} to {signed(contrast.high, digits)}"
            row = [*row, interval, verdict]
        rows.append(row)
    found = ["found (95 %)", "verdict"] if with_outcome else []
    return Table(["prediction", "when", "predicted", *found], rows)


def counted(results: Results) -> Table:
    """Return how many predictions are hits, misses, undecided and still to be run."""
    outcomes, rows = results.outcomes(), []
    verdicts = ("hit", "miss", "undecided", "not run")
    for known in (True, False):
        chosen = [p["id"] for p in results.predictions["predictions"] if p["known"] == known]
        found = [outcomes[name].verdict for name in chosen]
        rows.append(["known" if known else "new", len(chosen), *(found.count(verdict) for verdict in verdicts)])
    return Table(["predictions", "all", *verdicts], rows)


def bounds(prediction: Mapping) -> str:
    """Return the predicted interval in words."""
    low, high = prediction["low"], prediction["high"]
    if high is None:
        return f"more than {low:g}".replace("-", "\N{MINUS SIGN}")
    text = f"less than {high:g}" if low is None else f"{low:g} to {high:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def triples(difference: Difference, size: int = 3) -> np.ndarray:
    """Return the mean of every choice of so many seeds: what an experiment with few would have found."""
    return np.array([np.mean(chosen) for chosen in itertools.combinations(difference.values, size)])


def gained_by_doubling(results: Results, task: str) -> dict[str, float]:
    """Return what twice the epochs gain each kind on the validation split, in points, mean over seeds."""
    found = {}
    for kind in KINDS:
        half = results.runs("flat")[task, f"{kind}, {FLAT_EPOCHS // 2} epochs"].values()
        found[kind] = results.mean("flat", task, kind) - float(np.mean([measured(x, "accuracy") for x in half]))
    return found


def chosen_by_one_seed(results: Results, task: str, kind: str, chooser: Callable = min) -> tuple[float, float]:
    """Return the gain over equal neurons if one seed chooses both, on that seed and on the other one of the search.

    Args:
        results: the kept runs.
        task: whose search is asked.
        kind: what is compared with equal neurons.
        chooser: which of the two seeds chooses, `min` or `max`.
    """
    stage, pairs = "natural_tuning" if task in NATURAL else "tuning", []
    for condition in (kind, EQUAL):
        by_knobs: dict[str, dict[int, float]] = {}
        for line in results.lines(stage):
            if (line["task"], line["condition"]) == (task, condition):
                knobs = json.dumps([line["cell"]["neurons"], line["cell"]["training"]], sort_keys=True)
                accuracy = 100 * line["result"].get("validation", {}).get("accuracy", 0.0)
                by_knobs.setdefault(knobs, {})[line["seed"]] = accuracy
        pairs.append(max((x for x in by_knobs.values() if len(x) == 2), key=lambda x: x[chooser(x)]))
    both = (chooser, max if chooser is min else min)
    return tuple(pairs[0][pick(pairs[0])] - pairs[1][pick(pairs[1])] for pick in both)


def gain_of_best_settings(results: Results, task: str, kind: str, count: int = 5) -> tuple[float, float]:
    """Return the smallest and the largest gain over equal neurons between the best settings of a search.

    Args:
        results: the kept runs.
        task: whose search is asked, on the validation split that chose.
        kind: what is compared with equal neurons.
        count: how many of the best settings of each of the two are taken.
    """
    ours, theirs = (
        sorted((found.accuracy for found in results.tries("tuning", task, condition)), reverse=True)[:count]
        for condition in (kind, EQUAL)
    )
    return ours[-1] - theirs[0], ours[0] - theirs[-1]


def over_untuned(results: Results, task: str, kind: str = MEM) -> tuple[float, float]:
    """Return how much a tuned kind gains over equal neurons that are not tuned, and that are, on the validation split.

    Not tuned means at the median of all tries: settings that somebody has found reasonable.
    """
    stage = "natural_tuning" if task in NATURAL else "tuning"
    ours, theirs = ([x.accuracy for x in results.tries(stage, task, condition)] for condition in (kind, EQUAL))
    return max(ours) - float(np.median(theirs)), max(ours) - max(theirs)


def settings(results: Results, tasks: Sequence[str]) -> Table:
    """Return the settings that tuning chose: times in steps, a spread over its middle, and learning rates."""
    rows = []
    for task in tasks:
        for kind in KINDS:
            cell = results.choice("tuning", task, kind).run["cell"]
            found = cell["neurons"] | cell["training"]
            spread = found.get("spread_syn", found.get("spread_mem"))
            numbers = (found["tau_mem"], found["tau_syn"], spread, found["learning_rate"])
            row = [f"{task_name(task)}: {TITLE[kind]}"]
            row += ["\N{EN DASH}" if x is None else f"{x:.3g}" for x in (*numbers, found.get("neuron_learning_rate"))]
            rows.append([*row, "no" if results.encloses("tuning", task, kind) else "yes"])
    header = ["chosen", "τ mem", "τ syn", "spread", "learning rate", "learning rate of τ", "at an edge"]
    note = (
        "Times in steps, at the start where they are learned; different ones go from about τ/spread to about τ·spread."
    )
    return Table(header, rows, note)


def slopes(results: Results, tasks: Sequence[str]) -> Table:
    """Return the slopes of the loss of equal networks by the logarithm of a parameter, before and after training."""
    when = {"before": "initial", "after": "trained"}
    ways = {"surrogate": "surrogate", "exact": "exact", "difference": "difference 0.1"}
    rows = []
    for task in tasks:
        for name, symbol in (("tau_mem", "τ mem"), ("tau_syn", "τ syn"), ("v_th", "threshold")):
            row = [f"{task_name(task)}: {symbol}"]
            for state in when.values():
                for way in ways.values():
                    of_seeds = results.derivatives(task, f"{name}, {way}, {state}")
                    row.append(signed(float(np.mean(list(of_seeds.values()))), 3))
            rows.append(row)
    return Table(["slope of the loss", *(f"{word}: {way}" for word in when for way in ways)], rows)
