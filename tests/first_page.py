"""Draw the pictures of the first page: `make stills`. Each chapter's card has one, drawn for its size, without letters.

`python tests/first_page.py screenshot` takes book/_static/book.png, the picture in README.md, of the book that
`make book` has built.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from chromium import launch
from matplotlib.colors import to_rgb

import snnparams as sp
from snnparams import plot

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book" / "_static"
FOLDER = STATIC / "thumbnails"
SIZE = (2.4, 1.35)  # inches: a card's picture has 16 : 9
DPI = 240  # 576 pixels, for cards of up to 370: sharp enough on screens with more pixels, and light
SCREEN = {"width": 1280, "height": 900}  # pixels of README.md's picture
COLORS = plot.COLORS

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
from benefit_analysis import COLOR, Results  # noqa: E402
from benefit_design import EQUAL, LEARNS, MEM, SHARED, SYN  # noqa: E402


def rgb(meaning: str) -> tuple[float, float, float]:
    """Return the colour of a meaning; the names that `plot.COLORS` has for them belong to the book's style."""
    with plt.rc_context():
        plot.use_style()
        return to_rgb(COLORS[meaning])


def run_neuron(cell: torch.nn.Module, current: torch.Tensor) -> list:
    """Return the states of one neuron, one for each time step, under a current of shape (T,)."""
    state, states = None, []
    with torch.no_grad():
        for value in current:
            _, state = cell(value.reshape(1, 1), state)
            states.append(state)
    return states


def lif_neuron(fig: plt.Figure) -> None:
    """A current above, and the voltage that it causes."""
    arrivals = torch.zeros(80)
    arrivals[[8, 14, 36, 40, 43, 46]] = torch.tensor([0.7, 0.7, 0.9, 0.9, 0.9, 0.9])
    states = run_neuron(sp.LIFCell(sp.LIFParameters(v_th=0.5), size=1), arrivals)
    above, below = fig.subplots(2, 1)
    above.plot([state.i.item() for state in states], color=COLORS["synapse"])
    below.plot([state.v.item() for state in states], color=COLORS["membrane"])
    below.axhline(0.5, color=COLORS["reference"], linestyle="--", linewidth=1)


def heterogeneity(fig: plt.Figure) -> None:
    """How many neurons have which time constant, in the colours of time constants."""
    torch.manual_seed(0)
    taus = sp.distributions.log_normal(median=10e-3, variation=0.6).sample((4000,))
    counts, edges = np.histogram(taus.numpy(), np.linspace(0, 35e-3, 36))
    middles = (edges[:-1] + edges[1:]) / 2
    fig.subplots().bar(middles, counts, 0.8 * (edges[1] - edges[0]), color=plot.time_constant_colors(middles))


def mnist(fig: plt.Figure) -> None:
    """A digit, and the spikes of its brighter pixels."""
    image = sp.load_mnist().train.inputs[0].float() / 255  # (28, 28)
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.2))
    left.imshow(image.numpy(), cmap="Greys", aspect="equal")
    pixels = image.flatten().sort(descending=True).values[:120:5]
    spikes = sp.constant_current_lif_encode(3 * pixels, 40)  # (T, N)
    steps, neurons = spikes.nonzero(as_tuple=True)
    right.scatter(steps.numpy(), neurons.numpy(), marker="|", s=14, color=COLORS["spikes"], linewidth=1)


def conditioning(fig: plt.Figure) -> None:
    """Two maps learn one time constant: as a rate it hardly moves, as a logarithm it arrives."""
    start, target = 100.0, 40.0  # 1/s
    ax = fig.subplots()
    ax.axhline(target, color=COLORS["reference"], linestyle="--")
    for to_rate, back, color in ((torch.exp, np.log, "learned"), (lambda x: x, float, "shared")):
        stored = torch.tensor(back(start), requires_grad=True)
        optimizer, rates = torch.optim.Adam([stored], lr=0.02), []
        for _ in range(120):
            optimizer.zero_grad()
            rate = to_rate(stored)
            (torch.log(rate / target) ** 2).backward()
            optimizer.step()
            rates.append(rate.item())
        ax.plot(rates, color=COLORS[color], linewidth=2)


def benefit(fig: plt.Figure) -> None:
    """What four kinds of networks gain over equal neurons: a line, a dot for each seed and their mean."""
    results, ax = Results(), fig.subplots()
    ax.axvline(0, color=COLOR[EQUAL], linewidth=2)
    for row, kind in enumerate((SYN, MEM, LEARNS, SHARED)):
        difference = results.difference(results.stage("windows 4"), "windows 4", kind)
        ax.plot([0, difference.contrast.mean], [row] * 2, color=COLOR[kind], linewidth=3)
        ax.plot(difference.contrast.mean, row, "o", color=COLOR[kind], markersize=7)
        ax.plot(difference.values, [row + 0.35] * len(difference.values), "o", color=COLOR[kind], markersize=1.5)
    ax.invert_yaxis()


def adjoint(fig: plt.Figure) -> None:
    """A voltage that crosses three thresholds, and the times at which it does."""
    cell = sp.LIFCell(sp.LIFParameters(tau_mem=30e-3, tau_syn=15e-3, v_th=10.0), size=1)
    arrival = torch.zeros(40)
    arrival[4] = 5.0
    v = np.array([state.v.item() for state in run_neuron(cell, arrival)])
    ax = fig.subplots()
    ax.plot(v, color=COLORS["membrane"], linewidth=2)
    for share, shade in ((0.4, 0.4), (0.7, 0.7), (0.95, 1.0)):
        step = int((v > share * v.max()).argmax())
        ax.plot([0, step], [share * v.max()] * 2, "--", color=COLORS["membrane"], alpha=shade, linewidth=1)
        ax.plot([step] * 2, [0, share * v.max()], color=COLORS["spikes"], linewidth=1.5)


def own_neuron(fig: plt.Figure) -> None:
    """A voltage below a threshold that rises with each spike."""
    current = torch.zeros(450)
    current[50:350] = 0.4
    states = run_neuron(sp.Cell(sp.neurons.AdaptiveLIF(tau_adapt=0.1)), current)
    ax = fig.subplots()
    ax.plot([state.v.item() for state in states], color=COLORS["membrane"], linewidth=1)
    ax.plot([1 + 0.2 * state.adaptation.item() for state in states], color=COLORS["delay"], linewidth=2)


def delays(fig: plt.Figure) -> None:
    """Spikes that leave one after the other arrive together, each after its own delay."""
    ax = fig.subplots()
    for row, leaves in enumerate((5, 14, 23, 32, 41)):
        ax.plot([leaves, 50], [row] * 2, color=COLORS["delay"], linewidth=2.5)
        ax.plot([leaves] * 2, [row - 0.3, row + 0.3], color=COLORS["spikes"], linewidth=2)
        ax.plot([50] * 2, [row - 0.3, row + 0.3], color=COLORS["spikes"], linewidth=2)


def speed(fig: plt.Figure) -> None:
    """The training epoch of chapter 4 with Norse, and with this package."""
    epoch = json.loads((ROOT / "book" / "results" / "mnist_epoch.json").read_text())
    epoch = epoch["cpu, avx512f"]["seconds_per_epoch"]
    ax = fig.subplots()
    times = [epoch[name]["median"] for name in ("Norse", "snnparams")]
    ax.barh((1, 0), times, color=(COLORS["other"], COLORS["spikes"]), height=0.6)
    ax.set(xlim=(0, None), ylim=(-0.7, 1.7))


DRAWN: dict[str, Callable[[plt.Figure], None]] = {
    "1_lif_neuron": lif_neuron,
    "2_heterogeneity": heterogeneity,
    "4_mnist": mnist,
    "5_conditioning": conditioning,
    "6_benefit": benefit,
    "7_adjoint": adjoint,
    "8_own_neuron": own_neuron,
    "9_delays": delays,
    "10_speed": speed,
}


def thumbnails() -> Iterator[tuple[str, plt.Figure]]:
    """Yield each chapter's name and its small picture: no letters, no numbers, no frame."""
    for name, draw in DRAWN.items():
        with plt.rc_context():
            plot.use_style()
            fig = plt.figure(figsize=SIZE, layout="constrained")
            draw(fig)
            for ax in fig.axes:
                ax.set(xticks=[], yticks=[])
                ax.minorticks_off()
                ax.grid(visible=False)
                ax.spines[:].set_visible(False)
        yield name, fig


def save(fig: plt.Figure, file) -> None:
    """Write a small picture as PNG, with all of its colours."""
    with plt.rc_context():
        plot.use_style()  # colours such as C0 are looked up when they are drawn
        plt.rcParams["savefig.bbox"] = "standard"
        fig.savefig(file, format="png", dpi=DPI)
    plt.close(fig)


def screenshot() -> None:
    """Take README.md's picture: the first screen of the built book."""
    from playwright.sync_api import sync_playwright

    built = ROOT / "_build" / "html" / "book" / "index.html"
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport=SCREEN, color_scheme="light")
        page.goto(built.as_uri(), wait_until="load")
        page.evaluate("() => document.fonts.ready")
        page.screenshot(path=STATIC / "book.png")
        browser.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["screenshot"]:
        screenshot()
    else:
        for chapter, picture in thumbnails():
            save(picture, FOLDER / f"{chapter}.png")
