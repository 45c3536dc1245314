"""The figures of chapter 6: what they show is computed by the page, or read by `benefit_analysis`."""

import functools
from collections.abc import Mapping, Sequence

import benefit_analysis as analysis
import matplotlib.pyplot as plt
import numpy as np
from benefit_analysis import COLOR, TITLE, Results
from benefit_design import ALL, EQUAL, KINDS, LEARNS, MEM, SHARED, SYN
from benefit_forest import forest, ink
from benefit_terms import task_name

from snnparams import plot
from snnparams.data import tasks

SYMBOL = {"tau_mem": "τ mem", "tau_syn": "τ syn"}  # subscripts would be too small to read
OTHERS = [kind for kind in KINDS if kind != EQUAL]
RESETS = ("", "reset by subtraction", "no reset", "synapse cleared", "no reset, synapse cleared")
CHANGES = {
    "warp 0.75": "faster: 3/4 of the time",
    "warp 1.5": "slower: 3/2 of the time",
    "noise 0.25": "noise: a quarter more spikes",
    "noise 1": "noise: twice the spikes",
}  # of test inputs
WIDTH = 5.05  # inches: a wider figure does not fit a phone; 0.1 less where a label stands out of it


def kinds_of(results: Results, stage: str, task: str, kinds: Sequence[str] = OTHERS) -> list:
    """Return a row of a forest for each kind: how it differs from equal neurons.

    Of a kind of the core whose search was made again, what that search found, with a star.
    """
    rows = []
    for kind in kinds:
        again = stage == "core" and (task, kind) in results.runs("again")
        title = f"{TITLE[kind]} *" if again else TITLE[kind]
        rows.append((title, results.difference("again" if again else stage, task, kind), COLOR[kind]))
    return rows


def seeds_of(results: Results, task: str) -> str:
    """Return how many seeds a difference on a task rests on."""
    return f"{len(results.difference(results.stage(task), task, SYN).values)} seeds"


def verdict(results: Results) -> plt.Figure:
    """Windows remembered without recurrence, and the gain over equal neurons on three tasks."""
    fig, (above, below) = plt.subplots(2, 1, figsize=(WIDTH - 0.1, 6.6), height_ratios=(4, 7))
    counts = (2, 4, 6)
    for kind in KINDS:
        stages = [results.stage(f"windows {k}") for k in counts]
        held = [results.mean(s, f"windows {k}", kind, "remembered") for s, k in zip(stages, counts, strict=True)]
        above.plot(counts, held, "-", color=COLOR[kind])
        above.plot(counts, held, "o", markersize=5, color=COLOR[kind])
    above.plot([1.5, 5], [1.5, 5], ":", color="0.6", linewidth=1)
    above.text(4.55, 4.75, "all of them", color="0.4", ha="right")
    heights = {LEARNS: 4.6, SYN: 4.1, MEM: 3.45, SHARED: 2.85, EQUAL: 2.35}  # as the lines lie, apart
    for kind, height in heights.items():
        above.text(6.15, height, TITLE[kind], color=ink(COLOR[kind]), va="center")
    above.set(ylabel="windows remembered", xticks=counts, xlim=(1.5, 9.9), ylim=(0, 5.2))
    above.set_xlabel("windows to remember, without recurrence", loc="left")
    rows: list = []
    for task in ("windows 4", "xor, two layers", "windows 12, recurrent"):
        place = below.get_yaxis_transform()
        below.text(1, len(rows), seeds_of(results, task), fontsize=10, va="center", ha="right", transform=place)
        rows.append((task_name(task), None, "k"))
        rows += kinds_of(results, results.stage(task), task)
    forest(below, rows, "gain over equal neurons (percentage points)")
    return fig


def filters(equal: np.ndarray, different: np.ndarray, wanted: np.ndarray, sums: Mapping[str, np.ndarray]) -> plt.Figure:
    """Draw filters (N, T), what a readout would like to have (T,), and its best sums of filters."""
    fig, axes = plt.subplots(3, 1, figsize=(WIDTH, 5.4), sharex=True)
    weights = np.random.default_rng(1).uniform(0.3, 1, 8)
    for ax, shapes, kind in ((axes[0], equal, EQUAL), (axes[1], different, SYN)):
        for shape, weight in zip(shapes[:: len(shapes) // 8], weights, strict=False):
            ax.plot(weight * shape / shape.max(), color=COLOR[kind], alpha=0.7, linewidth=1.2)
        ax.set(title=TITLE[kind])
    axes[1].set(ylabel="weight times filter")
    axes[2].fill_between(range(len(wanted)), wanted, color="0.88", step="mid")
    for kind, found in sums.items():
        axes[2].plot(found, color=COLOR[kind])
    axes[2].text(42, 0.75, TITLE[SYN], color=ink(COLOR[SYN]))
    axes[2].text(52, 0.22, TITLE[EQUAL], color=ink(COLOR[EQUAL]))
    axes[2].set(title="best sum for one window")
    for ax in axes:
        ax.set(ylim=(-0.3, 1.1))
    axes[2].set(xlabel="steps ago")
    return fig


def reset(memories: Mapping[str, Sequence]) -> plt.Figure:
    """Draw the memory of a slow membrane and of a slow synapse, with and without spikes."""
    fig, axes = plt.subplots(2, 1, figsize=(WIDTH, 4.2), sharex=True)
    labels = ("membrane", "voltage", MEM), ("synapse", "synaptic current", SYN)
    for which, (ax, (name, label, kind)) in enumerate(zip(axes, labels, strict=True)):
        spiking, silent = memories[name]
        ax.axvspan(10, 25, color="0.93", linewidth=0)
        ax.plot(spiking[which], color=COLOR[kind], linewidth=2.2)
        ax.plot(silent[which], "--", color="k", linewidth=1.1)
        ax.plot(spiking[2], [1.1 * max(silent[which])] * len(spiking[2]), "k|", markersize=7)
        ax.set(title=f"slow {name}", ylabel=label)
    axes[0].text(50, 2.4, "if it could not spike")
    axes[0].text(32, 0.25, "spiking", color=ink(COLOR[MEM]))
    axes[1].text(56, 2.0, "both, one on the other", color=ink(COLOR[SYN]))
    axes[1].set(xlabel="step")
    return fig


def capacity(held: Mapping[str, Mapping[str, float]]) -> plt.Figure:
    """Draw memory capacities by kind and population, on a logarithmic scale: linear ones are far larger."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.8))
    names = list(next(iter(held.values())))
    for kind, shift in zip(held, (-0.2, 0, 0.2), strict=True):
        found = [held[kind][name] for name in names]
        ax.plot(found, np.arange(len(names)) + shift, "o", color=COLOR[kind], markersize=5.5, label=TITLE[kind])
    for row in range(1, len(names)):
        ax.axhline(row - 0.5, color="0.9", linewidth=0.7)
    ax.set(xscale="log", xlabel="memory capacity", ylim=(len(names) - 0.5, -0.5), yticks=range(len(names)))
    ax.set_yticklabels(names)
    ax.set_xticks([1, 2, 3, 5, 10, 15], [1, 2, 3, 5, 10, 15])
    ax.minorticks_off()
    ax.grid(axis="y", visible=False)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


def dials() -> plt.Figure:
    """One input of each generated task."""
    fig, axes = plt.subplots(2, 1, figsize=(WIDTH, 4.8))
    made = tasks.windows(4, train=100, validation=10, test=10), tasks.multi_timescale_xor(train=100, test=10)
    for ax, task, k in zip(axes, made, (2, 3), strict=True):
        steps, inputs = task.encode(task.train.inputs[k : k + 1])[:, 0].nonzero(as_tuple=True)
        for group, color in ((inputs < 12, "k"), (inputs >= 12, "0.55")):
            ax.scatter(steps[group], inputs[group], s=12, marker="|", color=color)
        labels = task.train.labels[k].tolist()
        ends = [20 * j + 10 for j in range(4)] if task is made[0] else [due for due, _ in task.answers]
        for end, label in zip(ends, labels, strict=True):
            ax.text(end, 24.3, "AB"[label] if task is made[0] else label, ha="center", fontsize=10)
            if task is made[0]:
                ax.axvspan(end - 10, end + 10, color="0.94" if end % 40 > 20 else "w", zorder=0, linewidth=0)
            else:
                ax.axvline(end, color="0.5", linewidth=0.8, linestyle=":")
        ax.set(ylabel="input", xlim=(-0.5, task.steps + 1), ylim=(-1, 27))
    axes[0].set_title("windows: A (black) or B (grey) in each? Asked at the end", fontsize=10)
    axes[1].set_title("XOR of a slow (black) and fast cues (grey), due at the dots", fontsize=10)
    axes[1].set_xlabel("step")
    return fig


def gains(results: Results, stage: str, tasks_of: Sequence[str], limits: tuple[float, float]) -> plt.Figure:
    """The gain of each kind over equal neurons on some tasks of a stage; an arrow where an interval leaves the axis."""
    rows: list = []
    for task in tasks_of:
        rows.append((task_name(task), None, "k"))
        rows += kinds_of(results, stage, task)
    fig, ax = plt.subplots(figsize=(WIDTH - 0.1, 0.22 * len(rows) + 0.6))
    forest(ax, rows, "gain over equal neurons (percentage points)")
    for row, (_, difference, color) in enumerate(rows):
        if difference is not None:
            ends = difference.contrast.low, difference.contrast.high
            for end, limit, arrow in zip(ends, limits, "<>", strict=True):
                if abs(end) > abs(limit):
                    ax.plot(limit, row, arrow, color=color, markersize=7, clip_on=False)
    ax.set(xlim=limits)
    return fig


def windows(results: Results) -> plt.Figure:
    """Accuracy for each window."""
    fig, axes = plt.subplots(2, 1, figsize=(WIDTH, 5.6), sharey=True)
    for ax, count in zip(axes, (4, 6), strict=True):
        task = f"windows {count}"
        for kind in KINDS:
            runs = [line["result"] for line in results.runs(results.stage(task))[task, kind].values()]
            answers = 100 * np.mean([r.get("test", r["validation"])["answers"] for r in runs], axis=0)
            ax.plot(range(1, count + 1), answers, "o-", markersize=3.5, color=COLOR[kind], label=TITLE[kind])
        ax.axhline(50, color="0.6", linewidth=1)
        ax.set(xticks=range(1, count + 1), ylabel="right (%)")
        ax.set_title(f"{task_name(task)}, {seeds_of(results, task)}")
    axes[1].set(xlabel="window")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def rasters(trained: Mapping[str, Mapping]) -> plt.Figure:
    """Hidden spikes of four trained networks for one input, neurons sorted and coloured by time constant.

    Args:
        trained: what `snnparams.experiments.trial.run_raster` returns of four kinds.
    """
    fig, axes = plt.subplots(2, 2, figsize=(WIDTH, 6.2), sharex=True, sharey=True)
    for ax, (kind, result) in zip(axes.flat, trained.items(), strict=True):
        name = "tau_mem" if kind == MEM else "tau_syn"
        taus, labels = np.array(result[name]), result["label"]
        place = np.argsort(np.argsort(taus, kind="stable"))
        shades = np.array(plot.time_constant_colors(taus / 1e3, fastest=3e-3))
        if taus.min() == taus.max():
            shades[:] = float(COLOR[EQUAL])  # grey
        for k, group in enumerate(labels):
            ax.axvspan(20 * k, 20 * k + 20, color="0.94" if k % 2 else "w", zorder=0, linewidth=0)
            ax.text(20 * k + 10, len(taus) - 0.2, "AB"[group], ha="center", va="bottom", fontsize=9.5)
        neurons = np.array(result["neurons"], int)
        ax.scatter(result["steps"], place[neurons], s=9, marker="|", color=shades[neurons], linewidth=1.2)
        ax.set(xlim=(0, 20 * len(labels)), ylim=(-0.7, len(taus) - 0.3))
        ends = sorted({f"{taus.min():.0f}", f"{taus.max():.0f}"}, key=float)
        named = f"{TITLE[kind]}, {SYMBOL[name]}" if kind == EQUAL else TITLE[kind]
        ax.set_title(f"{named}:\n{' to '.join(ends)} steps", fontsize=10, pad=15)
        ax.grid(visible=False)
    for ax in axes[1]:
        ax.set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("neuron, by time constant")
    return fig


def without_reset(reached: Mapping[tuple[str, str], float]) -> plt.Figure:
    """Draw accuracies in per cent by kind and reset."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.1))
    kinds = list(dict.fromkeys(kind for kind, _ in reached))
    for x, kind in enumerate(kinds):
        with_reset, without = reached[kind, "zero"], reached[kind, "none"]
        ax.annotate("", (x + 0.18, without), (x - 0.18, with_reset), arrowprops={"arrowstyle": "->", "color": "0.6"})
        for shift, y, fill in ((-0.18, with_reset, COLOR[kind]), (0.18, without, "w")):
            ax.plot(x + shift, y, "o", color=COLOR[kind], markerfacecolor=fill, markersize=8, markeredgewidth=2)
            ax.text(x + shift * 1.35, y, f"{y:.0f}", ha="right" if shift < 0 else "left", va="center", fontsize=9.5)
    ax.set(xlim=(-0.6, len(kinds) - 0.4), ylim=(60, 100), ylabel="accuracy (%)")
    ax.set_xticks(range(len(kinds)), [TITLE[kind] for kind in kinds])
    ax.grid(axis="x", visible=False)
    return fig


def causes(results: Results) -> plt.Figure:
    """What networks reach under other resets, and with other numbers of distinct values."""
    fig, (above, below) = plt.subplots(2, 1, figsize=(WIDTH - 0.1, 6.4), height_ratios=(5, 3))
    for row, change in enumerate(RESETS):
        for kind, shift in ((EQUAL, -0.25), (MEM, 0.0), (SYN, 0.25)):
            condition = f"{kind}, {change}" if change else kind
            values = list(results.by_seed("causes", "windows 4", condition).values())
            above.plot(values, [row + shift] * len(values), "o", color=COLOR[kind], alpha=0.3, markersize=3)
            label = None if row else TITLE[kind]
            above.plot(np.mean(values), row + shift, "o", color=COLOR[kind], markersize=6, label=label)
        above.axhline(row + 0.5, color="0.9", linewidth=0.7)
    above.set(xlabel="accuracy (%)", yticks=range(len(RESETS)), ylim=(len(RESETS) - 0.5, -0.5))
    above.set_yticklabels([(change or "reset to zero").replace(", ", ",\n") for change in RESETS])
    above.grid(axis="y", visible=False)
    fig.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    counts = (1, 2, 3, 4, 8, 48)
    for place, count in enumerate(counts):
        values = list(results.by_seed("causes", "windows 4", f"{SYN}, {count} values").values())
        below.plot([place] * len(values), values, "o", color=COLOR[SYN], alpha=0.35, markersize=3.5)
        below.plot(place, np.mean(values), "_", color="k", markersize=14)
    below.set(xlabel="distinct τ syn of 48 neurons", ylabel="accuracy (%)")
    below.set_xticks(range(len(counts)), counts)
    return fig


def spikes(results: Results) -> plt.Figure:
    """Accuracy against spikes for each example, at three rates and without a bound."""
    fig, ax = plt.subplots(figsize=(WIDTH, 4.2))
    for kind in KINDS:
        means = []
        for task in (f"windows 4, rate {rate:g}" for rate in (0.05, 0.1, 0.2)):
            means.append([results.mean("equal_spikes", task, kind, x) for x in ("spikes", "accuracy")])
            values = list(results.by_seed("equal_spikes", task, kind).values())
            ax.plot([means[-1][0]] * len(values), values, "o", color=COLOR[kind], alpha=0.2, markersize=3)
        ax.plot(*zip(*means, strict=True), "o-", color=COLOR[kind], markersize=5, label=TITLE[kind])
        free = [results.mean("core", "windows 4", kind, x) for x in ("spikes", "accuracy")]
        ax.plot(*free, "x", color=COLOR[kind], markersize=7, markeredgewidth=2)
    ax.set(xlabel="hidden spikes for each example", ylabel="accuracy (%)")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig


def natural(results: Results) -> plt.Figure:
    """The gain over equal neurons on natural tasks: seed by seed on the official split, and split by split.

    Splits of a task with recurrence are left to tables, which keeps the figure short enough for a phone.
    """
    rows: list = []
    for task in analysis.natural_tasks(results):
        of_task = []
        if (task, EQUAL) in results.runs("natural"):
            of_task.append(("the official split", functools.partial(results.difference, "natural")))
        if analysis.all_splits(results, task) and not task.endswith("recurrent"):
            of_task.append(("five splits", results.natural))
        for title, difference in of_task:
            rows.append((f"{task_name(task)}, {title}", None, "k"))
            rows += [(TITLE[kind], difference(task, kind), COLOR[kind]) for kind in (*OTHERS, ALL)]
    fig, ax = plt.subplots(figsize=(WIDTH, 0.6 + 0.3 * len(rows)))
    forest(ax, rows, "gain over equal neurons (percentage points)")
    return fig


def robustness(results: Results, task: str) -> plt.Figure:
    """What disturbed test inputs cost on the official split, less what they cost equal neurons."""
    rows: list = []
    kinds = (*OTHERS, ALL)
    for change, title in CHANGES.items():
        rows.append((title, None, "k"))
        rows += [(TITLE[k], results.difference("natural", task, k, measure=change), COLOR[k]) for k in kinds]
    fig, ax = plt.subplots(figsize=(WIDTH, 0.6 + 0.3 * len(rows)))
    forest(ax, rows, "change minus that of equal neurons (points)")
    return fig


def untuned(gains: Mapping[str, tuple[float, float]], by_one: Mapping[str, tuple[float, float]]) -> plt.Figure:
    """Draw two ways to find a benefit.

    Args:
        gains: by task, over a baseline that is the median of its trials, and over its best one.
        by_one: by task, the gain on the seed that chose, and on another one.
    """
    fig, axes = plt.subplots(2, 1, figsize=(WIDTH, 7.4), sharex=True)
    labels = ("baseline not tuned", "baseline tuned"), ("the seed that chose", "another seed")
    for ax, found, names in zip(axes, (gains, by_one), labels, strict=True):
        ax.axvline(0, color="0.6", linewidth=1)
        for row, (first, second) in enumerate(found.values()):
            ax.plot([first, second], [row, row], color="0.8", zorder=0)
            look = {"marker": "o", "linestyle": "none", "color": COLOR[MEM]}
            ax.plot(first, row, **look, markerfacecolor="w", label=None if row else names[0])
            ax.plot(second, row, **look, label=None if row else names[1])
        ax.set(yticks=range(len(found)), ylim=(len(found) - 0.5, -0.5))
        ax.set_yticklabels([task_name(task) for task in found], fontsize=10)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.3, 1.0), ncols=2, handletextpad=0.1)
        ax.grid(axis="y", visible=False)
    axes[1].set_xlabel("gain over equal neurons (percentage points)", loc="right")
    return fig
