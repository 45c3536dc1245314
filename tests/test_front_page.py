"""What the first page of the book says is so: findings, code, chapters and their times, pictures."""

import io
import re
import sys

import nbformat
import notebooks
import numpy as np
import pytest
import torch
from notebooks import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import benefit_analysis as analysis
from benefit_design import LEARNS, MEM, SHARED, SYN

TEXT = (ROOT / "book" / "index.md").read_text()
CHAPTERS = re.findall(r"- file: (book/\d\w+)", (ROOT / "_toc.yml").read_text())
CARDS = re.findall(r":::\{grid-item-card\} (\d+)\. .*?\n:link: (.+?)\n.*?:img-top: (.+?)\n(.*?)\n:::", TEXT, re.S)
RESULTS = analysis.Results()


def read(chapter):
    return nbformat.read(ROOT / f"{chapter}.ipynb", as_version=4)


def gain(kind):
    return RESULTS.difference(RESULTS.stage("windows 4"), "windows 4", kind).contrast


def test_the_findings_are_those_of_the_experiment():
    text = " ".join(TEXT.split())
    synapses = gain(SYN)
    assert f"Different synapses gain {synapses.mean:.1f} points over a tuned network" in text
    assert f"(95 % interval {synapses.low:.1f} to {synapses.high:.1f}, {synapses.n} seeds)" in text
    assert f"from equal values ({gain(LEARNS).mean:.1f} points)" in text
    assert f"gains nothing ({gain(SHARED).mean:.1f})".replace("-", "\u2212") in text
    assert gain(SHARED).low < 0 or abs(gain(SHARED).mean) < 1
    assert f"matter more than membranes** ({gain(MEM).mean:.1f} points)" in text
    assert gain(MEM).high < synapses.low


def test_what_its_figure_is_said_to_show_is_so():
    def remembered(kind):
        return RESULTS.mean(RESULTS.stage("windows 6"), "windows 6", kind, "remembered")

    assert max(remembered(analysis.EQUAL), remembered(SHARED)) < 3
    assert min(remembered(SYN), remembered(LEARNS)) > 4


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
    assert [int(number) for number, *_ in CARDS] == list(range(1, len(CHAPTERS) + 1))
    for chapter, (_, label, picture, _) in zip(CHAPTERS, CARDS, strict=True):
        assert read(chapter).cells[0].source.startswith(f"({label})=\n")
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
    promised = int(re.search(r"about ([\d ]+) words", TEXT)[1].replace(" ", ""))
    assert words == pytest.approx(promised, rel=0.1)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_pictures_are_those_of_the_notebooks(chapter):
    path = ROOT / f"{chapter}.ipynb"
    found = notebooks.figures(read(chapter))
    for name in found.keys() & notebooks.COVER.keys():
        assert notebooks.COVER[name].read_bytes() == found[name], "run `make notebooks`"
    if found:
        stored = notebooks.STATIC / "thumbnails" / f"{path.stem}.png"
        assert stored.stat().st_size < 30_000
        name = notebooks.THUMBNAIL.get(path.stem, next(iter(found)))
        pictures = [stored, io.BytesIO(notebooks.thumbnail(found[name]))]
        stored, made = (np.asarray(Image.open(picture).convert("L"), dtype=float) for picture in pictures)
        assert stored.shape == made.shape
        assert np.abs(stored - made).mean() < 2, "run `make notebooks`"  # of 255: other versions round otherwise


def test_every_cover_is_a_figure_of_a_chapter():
    names = {name for chapter in CHAPTERS for name in notebooks.figures(read(chapter))}
    assert names >= {*notebooks.COVER, *notebooks.THUMBNAIL.values()}
