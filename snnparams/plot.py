"""Figures of the book: its style, rasters, histograms, and pictures that the reader can move."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

STYLE = Path(__file__).with_name("snnparams.mplstyle")


def use_style() -> None:
    """Use the book's look for all figures from here on."""
    plt.style.use(STYLE)


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
    steps, neurons = spikes.nonzero()
    ax.scatter(1e3 * dt * steps, neurons, **{"s": 4, "marker": "|", "color": "k", **kwargs})
    ax.set(
        xlim=(0, 1e3 * dt * len(spikes)),
        ylim=(-0.5, spikes.shape[1] - 0.5),
        xlabel="time (ms)",
        ylabel="neuron",
    )


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
    ax.hist(old, edges, label="before", color="C0", alpha=0.45)
    ax.hist(new, edges, label="after", histtype="step", color="C1", linewidth=2)
    ax.set(xlabel=xlabel, ylabel="neurons")
    ax.legend()


def parameter_history(ax: plt.Axes, records, ylabel: str, label: str | None = None, color: str = "C0") -> None:
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
    look = {"marker": "o", "linestyle": "none", "markersize": 3, "color": "C0", **kwargs}
    ax.loglog(truth, found, **look)
    ax.set(xlabel=f"true {name}", ylabel=f"recovered {name}")


class Slider:
    """A figure that the reader moves, in a notebook or in a static page: pictures behind a slider.

    Args:
        draw: draws the figure of one value and returns it.
        values: the positions of the slider, numbers or names.
        label: what the slider sets, for instance "membrane time constant (ms)".
        describe: text that stands for the picture of one value, for those who cannot see it.
        start: index of the position shown first.

    Raises:
        ValueError: if there are no values or `start` is not among them.
    """

    def __init__(
        self,
        draw: Callable[..., plt.Figure],
        values: Sequence[float] | Sequence[str],
        label: str,
        describe: Callable[..., str],
        start: int = 0,
    ) -> None:
        if not 0 <= start < len(values):
            raise ValueError(f"start: expected an index into {len(values)} values, got {start}")
        self.label, self.start = label, start
        self.names = [value if isinstance(value, str) else f"{value:g}" for value in values]
        self.frames = [(self._png(draw(value)), describe(value)) for value in values]

    @staticmethod
    def _png(figure: plt.Figure) -> str:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        plt.close(figure)
        return base64.b64encode(buffer.getvalue()).decode()

    def __repr__(self) -> str:
        return f"Slider({self.label}: {', '.join(self.names)})"

    def _repr_html_(self) -> str:
        name = "slider-" + hashlib.sha256(repr((self.label, self.frames)).encode()).hexdigest()[:8]
        label = html.escape(self.label)
        images = "".join(
            f'<img src="data:image/png;base64,{png}" alt="{html.escape(alt)}" style="max-width:100%;background:white"'
            f"{'' if k == self.start else ' hidden'}>"
            for k, (png, alt) in enumerate(self.frames)
        )
        texts = html.escape(json.dumps(self.names))
        move = (
            "const box=this.closest('figure'),k=Number(this.value);"
            "box.querySelectorAll('img').forEach((image,j)=>{image.hidden=j!==k});"
            "const text=JSON.parse(this.dataset.values)[k];"
            "box.querySelector('output').textContent=text;this.setAttribute('aria-valuetext',text)"
        )
        start = html.escape(self.names[self.start])
        return (
            f'<figure class="snnparams-slider" style="margin:0">{images}'
            f'<div style="display:flex;gap:.8em;align-items:center;flex-wrap:wrap">'
            f'<label for="{name}">{label}: <output for="{name}">{start}</output></label>'
            f'<input id="{name}" type="range" min="0" max="{len(self.names) - 1}" value="{self.start}" step="1" '
            f'style="flex:1;min-width:12em" data-values="{texts}" aria-valuetext="{start}" oninput="{move}">'
            f"</div></figure>"
        )
