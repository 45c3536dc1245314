"""What the explorer of chapter 6 shows of the experiment, as a script for the page: seed by seed, kind by kind.

The book's build writes it anew from whatever results there are (`book/_extensions/live_figures.py`), by the rule by
which the chapter reads them: the core where all its seeds have run, or else the few seeds of the stage before.
"""

import json

from benefit_analysis import KINDS, TASKS, TITLE, Results
from benefit_terms import CORE_SEEDS, task_name
from scipy import stats

LEVEL = 0.95  # of the intervals
MEASURES = {  # name and unit
    "accuracy": ("accuracy", "points"),
    "rate": ("spikes of a neuron in 100 steps", "spikes"),
    "tau_syn": ("median synaptic time constant", "steps"),
    "tau_mem": ("median membrane time constant", "steps"),
}


def _median(line: dict, name: str) -> float:
    """Return the median of what a run learned of a time constant, in steps, or what was fixed."""
    learned = line["result"]["learned"].get(name)
    return learned[0][10] if learned else line["cell"]["neurons"][name]  # of 0, 5, ..., 100 %, in the first layer


def seed_by_seed(results: Results, task: str) -> dict:
    """Return what each kind reached on a task, for the seeds that all kinds have run."""
    stage = results.stage(task)
    accuracy, rate = ({k: results.by_seed(stage, task, k, x) for k in KINDS} for x in ("accuracy", "rate"))
    seeds = sorted(set.intersection(*map(set, accuracy.values())))
    kinds = {}
    for kind in KINDS:
        lines = results.runs(stage)[task, kind]
        kinds[kind] = {
            "accuracy": [round(accuracy[kind][seed], 4) for seed in seeds],
            "rate": [round(100 * rate[kind][seed], 4) for seed in seeds],
            **{name: [_median(lines[seed], name) for seed in seeds] for name in ("tau_syn", "tau_mem")},
        }
    title, note = f"{task_name(task)} ({len(seeds)} seeds)", ""
    if stage != "core":
        core = [set(results.runs("core").get((task, kind), ())) for kind in KINDS]
        title = f"{task_name(task)} (incomplete: {len(seeds)} seeds)"
        note = (
            f"This task is incomplete: of the {CORE_SEEDS} seeds of the experiment {len(set.intersection(*core))} have "
            f"run with all kinds. These are the {len(seeds)} of the stage before, on the validation split."
        )
    return {"title": title, "note": note, "seeds": seeds, "kinds": kinds}


def script(results: Results) -> str:
    """Return the script: tasks, names of kinds and measures, and quantiles of Student's t by the number of seeds."""
    tasks = {task: seed_by_seed(results, task) for task in TASKS}
    tasks = dict(sorted(tasks.items(), key=lambda item: bool(item[1]["note"])))  # complete ones first
    most = max(len(found["seeds"]) for found in tasks.values())
    critical = [None, None, *(float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) for n in range(2, most + 1))]
    data = {"tasks": tasks, "titles": {kind: TITLE[kind] for kind in KINDS}, "measures": MEASURES, "critical": critical}
    return f"liveFigures.grid = {json.dumps(data, allow_nan=False)}\n"
