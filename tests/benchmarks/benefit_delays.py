"""What chapter 9 reads out of the stages of delays, of whatever lines there are."""

import matplotlib.pyplot as plt
import torch
from benefit_analysis import COLOR, TITLE, Results
from benefit_beside import NOT_RUN, Study
from benefit_design import (
    DELAY_RATE,
    DELAY_TASK,
    DELAYED,
    DELAYS,
    DELAYS_DIFFERENT_LEARN,
    DELAYS_LEARN,
    EASY_DELAY_TASKS,
    EQUAL,
    EQUAL_DELAYS,
    LATER_DELAY_TASKS,
    LEARNS,
    SPOKEN,
    SYN,
    delayed_from,
)
from benefit_forest import forest, ink
from benefit_terms import task_name

import snnparams as sp
from snnparams.plot import Table

PREDICTIONS = "delays_predictions.json"
COMMAND = "python tests/benchmarks/benefit.py --accept-older --stage delays"
TITLES = TITLE | {name: name for name in DELAYED} | {EQUAL: "equal, no delays"}
COLORS = COLOR | {EQUAL_DELAYS: "0.55", DELAYS: "C4", DELAYS_LEARN: "C2", DELAYS_DIFFERENT_LEARN: "C5"}
CORE = Study({DELAY_TASK: "delays"}, (EQUAL, SYN, LEARNS, *DELAYED), TITLES, COLORS)
LATER = Study(dict.fromkeys(LATER_DELAY_TASKS, "delays_later"), (EQUAL, SYN, *DELAYED), TITLES, COLORS)
AT_RATE = f"{DELAY_TASK}, rate {DELAY_RATE:g}"
SPIKES = Study({AT_RATE: "delays_equal_spikes"}, (EQUAL, SYN, LEARNS, DELAYS, DELAYS_LEARN), TITLES, COLORS)
WORDS = Study({SPOKEN: "delays_spoken"}, (EQUAL, SYN, *DELAYED), TITLES, COLORS)


def table(results: Results) -> Table:
    """Return accuracy and gain over equal neurons without delays on four windows; "not run" where it is."""
    return CORE.table(results)


def later(results: Results) -> plt.Figure:
    """Draw the gains on the other tasks, seed by seed."""
    return LATER.gains(results, "gain over equal neurons (points)")


def at_edge(results: Results, task: str, kind: str) -> bool:
    """Return whether the search of a kind on one of the other tasks ended at an edge."""
    if kind not in DELAYED:
        return not results.encloses("tuning", task, kind)
    kinds = DELAYED
    if task not in EASY_DELAY_TASKS:
        begun = results.choice("tuning", task, EQUAL).run["cell"]
        kinds = delayed_from(begun["neurons"] | begun["training"])
    return not results.encloses("delays_later_tuning", task, kind, kinds[kind].knobs)


def later_accuracies(results: Results) -> Table:
    """Return the accuracy of each kind on the other tasks, and of how many seeds it is the mean.

    A star says that a search ended at an edge, a note on which processors the seeds ran.
    """
    rows: list[list[str]] = []
    ran: dict[tuple[str, str], set[int]] = {}
    for kind in LATER.kinds:
        cells = []
        for task, stage in LATER.stages.items():
            seeds = LATER.seeds(results, task, kind)
            if not seeds:
                cells.append(NOT_RUN)
                continue
            star = " *" if at_edge(results, task, kind) else ""
            cells.append(f"{results.mean(stage, task, kind):.1f} % ({len(seeds)}){star}")
            for seed in seeds:
                name = results.runs(stage)[task, kind][seed]["processor"]
                place = " ".join(name.split()[:2]) if name.startswith("NVIDIA") else "a CPU"
                ran.setdefault((task, place), set()).add(seed)
        rows.append([TITLES[kind], *cells])
    where = "; ".join(f"{task_name(task)}, seeds {min(x)} to {max(x)}, on {place}" for (task, place), x in ran.items())
    note = f"* the search for settings ended at an edge. Computed: {where}." if ran else ""
    return Table(["accuracy (seeds)", *map(task_name, LATER.stages)], rows, note)


def spikes(results: Results) -> Table:
    """Return accuracy, gain and rate on four windows where all kinds were held at one rate."""
    rows = []
    for kind in SPIKES.kinds:
        seeds = SPIKES.seeds(results, AT_RATE, kind)
        found = [NOT_RUN, "" if kind == EQUAL else NOT_RUN, NOT_RUN]
        if seeds:
            stage = SPIKES.stages[AT_RATE]
            found[0] = f"{results.mean(stage, AT_RATE, kind):.1f} %"
            found[2] = f"{results.mean(stage, AT_RATE, kind, 'rate'):.3f}"
            if kind != EQUAL and SPIKES.shared_seeds(results, AT_RATE, kind, EQUAL) > 1:
                found[1] = str(results.difference(stage, AT_RATE, kind))
        rows.append([TITLES[kind], *found, str(len(seeds))])
    return Table(["kind", "accuracy", "gain over equal (95 %)", "spikes per step", "seeds"], rows)


def words(results: Results) -> Table:
    """Return accuracy and gain over equal neurons on spoken digits."""
    return WORDS.table(results)


def verdict(results: Results) -> plt.Figure:
    """Draw how equal and different delays take spikes apart, and what that gains on four windows, seed by seed."""
    fig, (above, below) = plt.subplots(2, 1, figsize=(4.95, 5.0), height_ratios=(1, 1.15))
    count, start = 24, 5
    together = torch.zeros(80, 1, count)
    together[start] = 1.0
    different = torch.linspace(0, 60, count).round() * 1e-3  # s
    for delays, kind, shift in ((different, DELAYS, 0), (20e-3, EQUAL_DELAYS, count + 4)):
        late, _ = sp.Delay(delays)(together)
        steps, neurons = late[:, 0].nonzero(as_tuple=True)
        above.scatter(steps, neurons + shift, color=COLORS[kind], s=9)
        place = (steps.median() + 3, neurons.median() + shift - 4)
        above.annotate(TITLES[kind], place, color=ink(COLORS[kind]), fontsize=10)
    above.axvline(start, color="0.7", linewidth=1)
    above.annotate("all spike", (start + 1, 2 * count + 5), fontsize=10)
    above.set(xlabel="arrival at the readout (ms)", ylabel="neuron", yticks=[], xlim=(0, 75), ylim=(-2, 2 * count + 9))
    found = [kind for kind in CORE.kinds if kind != EQUAL and CORE.shared_seeds(results, DELAY_TASK, kind, EQUAL) > 1]
    rows = [
        (TITLES[kind], results.difference(CORE.stages[DELAY_TASK], DELAY_TASK, kind), COLORS[kind]) for kind in found
    ]
    forest(below, rows, "gain over equal neurons (points)")
    return fig
