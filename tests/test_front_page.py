"""What the first page of the book says is so: findings, code, chapters and their times, pictures."""

import io
import re
import sys

import first_page
import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from first_page import ROOT
from PIL import Image

from snnparams import load_mnist, plot

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import benefit_analysis as analysis
import benefit_front
from benefit_design import DELAY_TASK, DELAYS, EQUAL, LEARNS, MEM, SHARED, SYN

TEXT = (ROOT / "book" / "index.md").read_text()
CHAPTERS = re.findall(r"- file: (book/\d\w+)", (ROOT / "_toc.yml").read_text())
CARDS = re.findall(r":::\{grid-item-card\} (\d+\. .*?)\n:link: (.+?)\n.*?:img-top: (.+?)\n(.*?)\n:::", TEXT, re.S)
RESULTS = analysis.Results()


def read(chapter):
    return nbformat.read(ROOT / f"{chapter}.ipynb", as_version=4)


def gain(kind, task="windows 4"):
    return RESULTS.difference(RESULTS.stage(task), task, kind).contrast


def test_the_findings_are_those_of_the_experiment():
    text = " ".join(TEXT.split())
    synapses = gain(SYN)
    gains = f"to keep things apart in time: {synapses.mean:.1f} percentage points"
    assert f"**Different synaptic time constants help** {gains}" in text
    assert f"(95 % interval {synapses.low:.1f} to {synapses.high:.1f})" in text
    assert f"constants gain a small spiking network {synapses.mean:.1f} percentage points, and learning finds" in text
    assert f"Dots are {synapses.n} seeds" in text
    assert f"from equal ones ({gain(LEARNS).mean:.1f} points)" in text
    assert f"than the best fixed one ({gain(SHARED).mean:.1f} points)".replace("-", "\u2212") in text
    assert gain(SHARED).high < 1
    assert f"**Membrane ones are worth less** here ({gain(MEM).mean:.1f} points)" in text
    assert gain(MEM).high < synapses.low
    late = RESULTS.difference("delays", DELAY_TASK, DELAYS).contrast
    assert f"different {{ref}}`delays <ch-delays>` gain {late.mean:.1f} points, and solve this task" in text
    assert RESULTS.mean("delays", DELAY_TASK, DELAYS) > 99.9
    few = gain(SYN, "windows 4, recurrent")
    many = RESULTS.difference("core", "windows 12, recurrent", SYN, SHARED).contrast
    assert f"24 of them with different synaptic time constants are {many.mean:.1f} points better than with one" in text
    assert few.low < 0 < few.high < 1
    digits = {k: RESULTS.difference("natural", "spoken digits", k).contrast for k in (SYN, LEARNS, MEM, SHARED)}
    different, learned, _, _ = digits.values()
    words = f"constants gain {different.mean:.1f} points ({different.low:.1f} to {different.high:.1f}) and learned"
    best = RESULTS.mean("natural", "spoken digits", SYN)
    assert f"{words} ones {learned.mean:.1f}, up to {best:.1f} %" in text
    assert f"counts alone get {RESULTS.level('spoken digits', 'counts'):.0f} % right" in text
    connected = RESULTS.reached("spoken digits, recurrent")
    assert f"With recurrence equal ones reach {connected[EQUAL]:.1f} %, and no kind was seen to be better." in text
    for kind in set(connected) - {EQUAL}:
        assert RESULTS.difference("natural", "spoken digits, recurrent", kind).contrast.low < 0
    assert min(different.low, learned.low) > 0
    assert all(digits[kind].low < 0 < digits[kind].high for kind in (MEM, SHARED))
    six = gain(SYN, "windows 6, recurrent")
    assert six.low < 0 < six.high
    syn, mem = (RESULTS.difference("core", "xor, two layers", kind, SHARED).contrast.mean for kind in (SYN, MEM))
    assert f"constants gain {syn:.1f} points over one learned value for each layer" in text
    assert f"membrane ones are worth as much ({mem:.1f})" in text
    for kind in (SYN, MEM):  # "in networks without one, both kinds reach 96 %"
        assert round(RESULTS.mean("causes", DELAY_TASK, f"{kind}, no reset")) == 96
    assert RESULTS.difference("causes", DELAY_TASK, f"{EQUAL}, 192 neurons").contrast.high < 1
    held = [RESULTS.difference("equal_spikes", f"{DELAY_TASK}, rate {r:g}", SYN).contrast for r in (0.05, 0.1, 0.2)]
    assert (
        f"different synaptic ones gain {min(x.mean for x in held):.1f} to {max(x.mean for x in held):.1f} points"
        in text
    )
    assert all(x.low < synapses.mean < x.high for x in held)


def test_as_many_figures_compute_as_it_says():
    moving = {path.stem for path in (ROOT / "book" / "_static" / "live").glob("*.js")} - {"live"}
    assert len(moving) == 7
    assert "and seven figures, such as" in TEXT


def test_its_figure_shows_the_findings():
    drawn = benefit_front.front(RESULTS)
    said = {text.get_text() for ax in drawn.axes for text in ax.texts}
    means = [gain(kind).mean for kind in (SYN, MEM, LEARNS, SHARED)]
    assert said >= {f"{mean:+.1f}".replace("-", "\u2212") for mean in means}
    assert "equal neurons, tuned: 84 % right" in said
    (alt,) = re.findall(r"verdict.png\n:alt: (.*)", TEXT)
    assert "84 per cent" in alt
    assert all(f"{abs(mean):.1f}" in alt for mean in means)
    file = io.BytesIO()
    with plt.rc_context():
        plot.use_style()
        benefit_front.front(RESULTS).savefig(file, dpi=220)
    pictures = [Image.open(picture).convert("L") for picture in (file, benefit_front.PICTURE)]
    made, stored = (np.asarray(picture, dtype=float) for picture in pictures)
    assert made.shape == stored.shape
    assert np.abs(made - stored).mean() < 2, "run `python tests/benchmarks/benefit_front.py`"
    plt.close("all")


def test_just_the_package(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names = {}
    exec(compile(code, "index.md", "exec"), names)
    assert len(list(names["layer"].parameters())) == 4
    for name, parameter in names["layer"].named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    printed = capsys.readouterr().out
    assert printed.startswith("tensor([0.0")
    tau_mem = names["layer"].p.tau_mem
    assert tau_mem.shape == (100,)
    assert 5e-3 < torch.as_tensor(tau_mem).median() < 20e-3


def test_every_chapter_has_its_card_in_order():
    for number, (chapter, (title, label, picture, _)) in enumerate(zip(CHAPTERS, CARDS, strict=True), start=1):
        assert read(chapter).cells[0].source.startswith(f"({label})=\n# {title.removeprefix(f'{number}. ')}\n")
        assert picture.rpartition(".")[0] == f"_static/thumbnails/{chapter.removeprefix('book/')}"
        assert (ROOT / "book" / picture).exists()


def test_times_are_those_of_the_chapters():
    for chapter, (_, _, _, text) in zip(CHAPTERS, CARDS, strict=True):
        said = "\n".join(cell.source for cell in read(chapter).cells if cell.cell_type == "markdown")
        (time,) = re.findall(r"\*\*Time to run:\*\* (.*?) on two\s", said)
        assert f"*Runs {time}.*" in text, chapter


def test_as_long_to_read_as_it_says():
    cells = [cell for chapter in CHAPTERS for cell in read(chapter).cells if cell.cell_type == "markdown"]
    words = sum(len(cell.source.split()) for cell in cells)
    promised = int(re.search(r"about ([\d,]+) words", TEXT)[1].replace(",", ""))
    assert words == pytest.approx(promised, rel=0.1)


@pytest.fixture(scope="module")
def small_pictures():
    """The pictures of the cards, as they are drawn now."""
    return {name: fig for name, fig in first_page.thumbnails()}


def test_every_card_has_a_small_picture_or_a_diagram():
    drawn = {f"_static/thumbnails/{name}.png" for name in first_page.DRAWN}
    shown = {picture for _, _, picture, _ in CARDS}
    assert drawn < shown
    assert {picture.rpartition(".")[2] for picture in shown - drawn} == {"svg"}
    stored = {path.relative_to(ROOT / "book").as_posix() for path in first_page.FOLDER.iterdir()}
    assert stored == shown


@pytest.mark.parametrize("name", first_page.DRAWN)
def test_small_pictures_are_those_that_are_stored(small_pictures, name):
    if name == "4_mnist" and load_mnist().name != "MNIST":
        pytest.skip("MNIST is not at hand")
    path = first_page.FOLDER / f"{name}.png"
    assert path.stat().st_size < 40_000
    file = io.BytesIO()
    first_page.save(small_pictures[name], file)
    stored, made = (np.asarray(Image.open(p).convert("L"), dtype=float) for p in (path, file))
    assert stored.shape == made.shape == (324, 576)
    assert np.abs(stored - made).mean() < 2, "run `make stills`"  # of 255: other versions round otherwise


def test_small_pictures_have_nothing_that_is_too_small_to_be_read(small_pictures):
    for name, fig in small_pictures.items():
        fig.draw_without_rendering()
        texts = fig.findobj(matplotlib.text.Text)
        assert [text.get_text() for text in texts if text.get_text() and text.get_visible()] == [], name
        assert [tick for ax in fig.axes for tick in (*ax.get_xticks(), *ax.get_yticks())] == [], name


def test_small_pictures_keep_colours_apart():
    for name, meanings in {
        "1_lif_neuron": ("synapse", "membrane"),
        "5_conditioning": ("learned", "shared"),
        "6_benefit": ("synapse", "membrane", "learned", "shared"),
        "8_own_neuron": ("membrane", "delay"),
    }.items():
        with Image.open(first_page.FOLDER / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=float).reshape(-1, 3)
        for meaning in meanings:
            wanted = 255 * np.array(first_page.rgb(meaning))
            assert (np.abs(pixels - wanted).max(axis=1) < 2).sum() > 100, (name, meaning)
