"""Figures and tables of the book: its style, colours, rasters, histograms, and results in rows."""

from __future__ import annotations

import colorsys
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from snnparams.parameters.settings import check_dt

STYLE = Path(__file__).with_name("snnparams.mplstyle")

# One colour per meaning, in all figures. `book/_static/live/live.css` has darker shades of them, to be read as text.
COLORS = {
    "synapse": "C0",  # blue: synaptic currents, and neurons that differ in tau_syn
    "membrane": "C1",  # orange: voltages, their thresholds, what a readout answers, and neurons that differ in tau_mem
    "learned": "C2",  # green: what every neuron learned; what works; a surrogate
    "shared": "C3",  # pink: one value for all; what fails, or a cure is for
    "delay": "C4",  # amber: delays and adaptation; the second of two learned kinds
    "other": "C5",  # light blue: one more kind, which the figure names
    "spikes": "k",  # black: spikes; what a figure is about, where nothing above fits; the right answer
    "reference": "0.5",  # grey: what is compared against, as equal or fixed neurons, before training, a target
}


def use_style() -> None:
    """Use the book's look for all figures from here on, in a notebook with two pixels for each point of the page."""
    plt.style.use(STYLE)
    if "inline" in plt.get_backend():  # a notebook; its first figure loads the module, which would be too late
        from matplotlib_inline import backend_inline

        backend_inline.set_matplotlib_formats("retina")


def to_numpy(x) -> np.ndarray:
    """Return a copy of a tensor, or of what NumPy takes for an array, as a NumPy array.

    A copy, because `x.detach().cpu().numpy()` shares memory with a parameter on the CPU: a "before" that is
    taken like that changes with the training. A sparse tensor becomes a dense array, bfloat16 float32, which holds the
    same numbers.
    """
    if not isinstance(x, torch.Tensor):
        return np.array(x)
    x = x.detach().cpu().to_dense()
    return (x.float() if x.dtype == torch.bfloat16 else x.clone()).numpy()


def _place(x) -> int | None:
    """Return where the numbers begin in memory, or None where they are in no one piece."""
    if isinstance(x, torch.Tensor):
        return x.data_ptr() if x.layout == torch.strided else None
    return x.ctypes.data if isinstance(x, np.ndarray) else None


def raster(ax: plt.Axes, spikes, dt: float = 0.001, **kwargs) -> None:
    """Draw one mark per spike, time in ms against the neuron's index.

    Args:
        ax: where to draw.
        spikes: 0 or 1, shape (T, N); a tensor, dense or sparse, or an array.
        dt: time step in s.
        **kwargs: for `Axes.scatter`.

    Raises:
        ValueError: if `spikes` has another number of dimensions.
    """
    spikes = to_numpy(spikes)
    if spikes.ndim != 2:
        raise ValueError(f"spikes: expected shape (T, N), got {spikes.shape}")
    check_dt(dt)
    steps, neurons = spikes.nonzero()
    ax.scatter(1e3 * dt * steps, neurons, **{"s": 4, "marker": "|", "color": "k", **kwargs})
    ax.set(
        xlim=(0, 1e3 * dt * len(spikes)),
        ylim=(-0.5, spikes.shape[1] - 0.5),
        xlabel="time (ms)",
        ylabel="neuron",
    )


def time_constant_colors(taus, fastest: float = 3e-3, slowest: float = 30e-3) -> list[tuple[float, float, float]]:
    """Return a colour for each time constant, the same in every figure, as those that compute in the page have them.

    Fast is yellow and slow is blue; between the two the hue follows the logarithm.

    Args:
        taus: time constants in s, positive, shape (N,); a tensor, an array or a list.
        fastest: one that is yellow, as all that are shorter, in s, positive.
        slowest: one that is blue, as all that are longer, in s, longer than `fastest`.

    Returns:
        N triples of red, green and blue, each from 0 to 1.

    Raises:
        ValueError: if a time constant is not positive, or the two ends are not in order.
    """
    if not 0 < fastest < slowest:
        raise ValueError(f"fastest: expected a time constant below slowest, got {fastest:g} and {slowest:g}")
    values = to_numpy(torch.as_tensor(taus, dtype=torch.float64))
    if not (values > 0).all():
        raise ValueError(f"taus: expected positive time constants, got {values.min():g}")
    places = (np.log(values / fastest) / np.log(slowest / fastest)).clip(0, 1).tolist()
    return [colorsys.hls_to_rgb((40 + 190 * place) / 360, 0.42, 0.8) for place in places]


def before_after(ax: plt.Axes, before, after, xlabel: str, bins: int = 20) -> None:
    """Draw the distributions of a neuron parameter before and after training on common bins.

    Args:
        ax: where to draw.
        before: values before training, a copy, shape (N,); a tensor or an array.
        after: values after it, shape (N,), likewise.
        xlabel: label of the axis, with its unit.
        bins: number of bins.

    Raises:
        ValueError: if the two share memory, so that they cannot differ.
    """
    if (place := _place(before)) is not None and place == _place(after):
        raise ValueError("before: expected a copy (.detach().clone()) taken before training, got the same memory")
    old, new = to_numpy(before), to_numpy(after)
    edges = np.histogram_bin_edges(np.concatenate([old, new]), bins).tolist()
    ax.hist(old, edges, label="before", color=COLORS["reference"], alpha=0.45)
    ax.hist(new, edges, label="after", histtype="step", color=COLORS["learned"], linewidth=2)
    ax.set(xlabel=xlabel, ylabel="neurons")
    ax.legend()


def parameter_history(
    ax: plt.Axes, records, ylabel: str, label: str | None = None, color: str = COLORS["learned"]
) -> None:
    """Draw what a neuron parameter did during training: median, and the band of the middle 90 % of the neurons.

    Args:
        ax: where to draw.
        records: values before training and after each epoch, shape (epochs + 1, N), as in
            `snnparams.History.neuron_parameters`.
        ylabel: label of the axis, with its unit.
        label: name of the curve in a legend.
        color: of the curve and its band.

    Raises:
        ValueError: if `records` has another number of dimensions.
    """
    records = torch.as_tensor(records, dtype=torch.float64)
    if records.dim() != 2:
        raise ValueError(f"records: expected shape (epochs + 1, N), got {tuple(records.shape)}")
    low, middle, high = np.quantile(to_numpy(records), [0.05, 0.5, 0.95], axis=1)
    ax.fill_between(range(len(records)), low, high, color=color, alpha=0.25, linewidth=0)
    ax.plot(range(len(records)), middle, color=color, label=label)
    ax.set(xlabel="epoch", ylabel=ylabel)


def recovery(ax: plt.Axes, truth, found, name: str, **kwargs) -> None:
    """Draw the recovered values of a neuron parameter against the true ones, on logarithmic axes.

    Args:
        ax: where to draw.
        truth: true values, positive, shape (N,); a tensor or an array.
        found: recovered ones, likewise; those that are not positive have no place on the axes and are left out.
        name: of the parameter, with its unit, for both axes.
        **kwargs: for `Axes.plot`.

    Raises:
        ValueError: if the shapes differ.
    """
    truth, found = to_numpy(truth), to_numpy(found)
    if truth.shape != found.shape:
        raise ValueError(f"found: expected shape {truth.shape}, got {found.shape}")
    ends = [truth.min().item(), truth.max().item()]
    ax.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
    look = {"marker": "o", "linestyle": "none", "markersize": 3, "color": COLORS["learned"], **kwargs}
    ax.loglog(truth, found, **look)
    ax.set(xlabel=f"true {name}", ylabel=f"recovered {name}")


NUMBER = r"[+\-\u2212]?\d+(?:[,\u2009]\d{3})*(?:\.\d+)?"
NUMERIC = rf"[<>\u00b1]? ?{NUMBER}.{{0,20}}"  # a number, and what may follow it: a unit, a second number, an interval
DASHES = ("", "-", "\u2013")
NOTHING = (*DASHES, "not run")
LONG = 40  # letters: a phone gives a longer name of a row a line of its own (book.css)
BROAD = 50  # letters: and a table with longer rows, where the name of a row has at most the first number of them
NAME = 20


def _in_columns(cells: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether a column holds numbers, and its cells, filled up so that their decimal points meet."""
    numbers = [cell for cell in cells if cell not in NOTHING]
    if not numbers or not all(re.fullmatch(NUMERIC, cell) for cell in numbers):
        return False, list(cells)
    cells = [re.sub(r"(?<![\w.])-(?=\d)", "\u2212", cell) for cell in cells]
    if not all(re.fullmatch(NUMBER, cell) for cell in numbers):
        return True, cells
    places = [len(cell.partition(".")[2]) for cell in cells]
    most = max(places)
    # spaces as wide as a digit and as a point
    fill = [("\u2008" if most and not n else "") + "\u2007" * (most - n) for n in places]
    return True, [cell + (space if cell not in NOTHING else "") for cell, space in zip(cells, fill, strict=True)]


def _is_broad(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether a phone cannot show the columns of a table beside each other, in whole lines."""
    if any(len(first) > LONG for first, *_ in rows):
        return True
    longest = [  # a heading breaks between words
        max((len(text) for text in (*name.split(), *column)), default=0)
        for name, *column in zip(header, *rows, strict=True)
    ]
    return min(longest[0], NAME) + sum(longest[1:]) > BROAD


class Table:
    """A table that a page shows as a table, and a terminal as text.

    A page has columns of numbers on the right, their decimal points below each other where they are numbers alone.

    Args:
        header: a name for each column; the first column names the rows.
        rows: texts, or what `str` makes texts of, as many in each row as there are columns.
        note: what stands below it.

    Raises:
        ValueError: if a row has another number of cells.
    """

    def __init__(self, header: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
        self.header, self.rows, self.note = list(header), [list(map(str, row)) for row in rows], note
        if wrong := [row for row in self.rows if len(row) != len(self.header)]:
            raise ValueError(f"rows: expected {len(self.header)} cells, got {wrong[0]}")

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.header))]
        text = [
            "  ".join(x.ljust(w) if k == 0 else x.rjust(w) for k, (x, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        ]
        return "\n".join(line.rstrip() for line in [*text, *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        columns = [_in_columns([row[k] for row in self.rows]) for k in range(1, len(self.header))]
        right = ["", *(' class="number"' if numeric else "" for numeric, _ in columns)]
        head = "".join(
            f'<th scope="col"{look}>{html.escape(x)}</th>' if x else "<td></td>"
            for x, look in zip(self.header, right, strict=True)
        )
        body = ""
        for k, (first, *_) in enumerate(self.rows):
            cells = ""
            for name, (numeric, column) in zip(self.header[1:], columns, strict=True):
                kinds = ["number"] * numeric + ["dash"] * (column[k] in DASHES)
                look = f' class="{" ".join(kinds)}"' if kinds else ""
                cells += f'<td data-column="{html.escape(name)}"{look}>{html.escape(column[k])}</td>'
            body += f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>'
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        kind = "table results stacked" if _is_broad(self.header, self.rows) else "table results"
        table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return f'<div class="table-wrapper">{table}</div>{note}'


def __dir__() -> list[str]:
    own = [name for name, value in globals().items() if getattr(value, "__module__", "") == __name__ and name[0] != "_"]
    return ["COLORS", *own]
