"""The picture on the first page of the book: `python tests/benchmarks/benefit_front.py` draws it, in a second.

It shows the finding of chapter 6, legible on a phone, from the results that are stored.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from benefit_analysis import COLOR, Results
from benefit_design import EQUAL, LEARNS, MEM, SHARED, SYN
from matplotlib.colors import to_rgb

from snnparams import plot

PICTURE = Path(__file__).resolve().parents[2] / "book" / "_static" / "verdict.png"
TASK = "windows 4"
ROWS = {
    SYN: r"different synaptic $\tau$",
    MEM: r"different membrane $\tau$",
    LEARNS: r"synaptic $\tau$, every neuron learns its own",
    SHARED: r"synaptic $\tau$, one learned for all",
}


def front(results: Results) -> plt.Figure:
    """Draw what four kinds of networks gain over equal neurons: a dot for each seed, mean and interval above them."""
    fig, ax = plt.subplots(figsize=(5.05, 3.3))
    level = results.mean(results.stage(TASK), TASK, EQUAL)
    ax.axvline(0, color=COLOR[EQUAL], linewidth=2)
    ax.text(0.2, -0.8, f"equal neurons, tuned: {level:.0f} % right", color=COLOR[EQUAL], fontsize=12)
    for row, (kind, label) in enumerate(ROWS.items()):
        difference = results.difference(results.stage(TASK), TASK, kind)
        c, color = difference.contrast, COLOR[kind]
        ink = [0.75 * part for part in to_rgb(color)]  # letters need more contrast than lines
        ax.text(0.2, row - 0.1, label, color=ink, fontsize=12)
        look = {"alpha": 0.3, "markersize": 3, "markeredgewidth": 0}
        ax.plot(difference.values, [row + 0.42] * len(difference.values), "o", color=color, **look)
        ax.plot([0, c.mean], [row + 0.2] * 2, color=color, linewidth=1)
        ax.plot([c.low, c.high], [row + 0.2] * 2, color=color, linewidth=4)
        ax.plot(c.mean, row + 0.2, "o", color=color, markersize=8, markeredgecolor="white")
        number = f"{c.mean:+.1f}".replace("-", "\N{MINUS SIGN}")
        ax.text(max(c.high, 0) + 0.5, row + 0.2, number, color=ink, fontsize=12, fontweight="bold", va="center")
    ax.set(ylim=(3.75, -1.25), xlim=(-1.5, 16.2), yticks=[], xticks=(0, 5, 10, 15))
    ax.set_xlabel("more right answers (percentage points)", fontsize=12)
    ax.tick_params(labelsize=12)
    ax.spines["left"].set_visible(False)
    return fig


def main() -> None:
    """Draw the picture."""
    plot.use_style()
    front(Results()).savefig(PICTURE, dpi=220)


if __name__ == "__main__":
    main()
