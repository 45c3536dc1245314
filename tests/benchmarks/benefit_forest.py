"""Differences below each other, with their intervals: the figure that chapters 6, 8 and 9 share."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from benefit_results import Difference
from matplotlib.colors import to_rgb

LOOK = {"linewidth": 2.5, "solid_capstyle": "butt"}


def ink(color: str) -> list[float]:
    """Return a darker shade of a colour, for letters, which need more contrast than lines."""
    return [0.75 * part for part in to_rgb(color)]


def forest(ax: plt.Axes, rows: Sequence[tuple[str, Difference | None, str]], xlabel: str = "") -> None:
    """Draw differences below each other: a dot for each seed or split, mean and 95 % interval on top of them.

    Args:
        ax: where to draw.
        rows: label, difference and colour, from top to bottom; one without a difference is a heading, which stands
            inside of the axes, where there is room for long ones.
        xlabel: label of the axis.
    """
    ax.axvline(0, color="0.6", linewidth=1)
    for row, (_, difference, color) in enumerate(rows):
        if difference is not None:
            c, values = difference.contrast, difference.values
            ax.plot(values, [row + 0.3] * len(values), "o", color=color, alpha=0.35, markersize=3, markeredgewidth=0)
            ax.plot([c.low, c.high], [row, row], color=color, **LOOK)
            ax.plot(c.mean, row, "o", color=color, markersize=5.5, markeredgecolor="white", markeredgewidth=0.7)
    named = {row: (label, color) for row, (label, difference, color) in enumerate(rows) if difference}
    ax.set(ylim=(len(rows) - 0.3, -0.5), xlabel=xlabel)
    ax.set_yticks([*named], [label for label, _ in named.values()], fontsize=10)
    ax.tick_params(top=len(rows) > 20, labeltop=len(rows) > 20)  # a tall figure says its numbers at both ends
    ax.grid(axis="y", visible=False)
    for tick, (_, color) in zip(ax.get_yticklabels(), named.values(), strict=True):
        tick.set_color(ink(color))
    for row, (label, difference, color) in enumerate(rows):
        if difference is None:
            look = {"fontsize": 10, "fontweight": "bold", "va": "center", "transform": ax.get_yaxis_transform()}
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # no line goes through the letters, which
            # keep some distance from the dots above
            ax.text(0.02, row + 0.12, label, color=ink(color), bbox=box, **look)
