"""How the book writes numbers: the same on every page, in the text and in tables."""

import re

import nbformat
import pytest
from notebooks import ROOT

PAGES = sorted([*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book").glob("*.md"), ROOT / "README.md"])
NOT_TEXT = re.compile(  # code in blocks and in a line, formulas, attributes of HTML, addresses
    r"^(`{3,})(?!\{).*?^\1`*$|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$|<[^>]+>|https?://\S+", re.M | re.S
)
SPACES = re.compile(r"(?<![\d.,:])\d{1,3}(?:[ \u00a0\u2009\u202f]|\\,)\d{3}(?![\d.,]*\d)")
BARE = re.compile(r"(?<![\w.,/#:-])\d{5,}(?![\w.])")


def texts(path):
    """Return what a page says: its text, captions, what tables hold and what is printed."""
    if path.suffix == ".md":
        return [NOT_TEXT.sub(" ", path.read_text())]
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            found.append(NOT_TEXT.sub(" ", cell.source))
            continue
        found.append(cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", ""))
        for output in cell.outputs:
            table = output.get("data", {}).get("text/html", "")
            found += re.findall(r">([^<>]+)<", table)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_thousands_have_a_comma_from_five_digits_on(path):
    for text in texts(path):
        assert SPACES.findall(text) == []
        assert BARE.findall(text) == []


def test_the_patterns_see_the_numbers_that_they_are_for():
    for wrong in ("about 26 000 words", "35\u00a0980", r"3\,655\,680", "3 655 680"):
        assert SPACES.search(wrong)
    for right in ("26,000 words", "in 2021 300 of", "30 ms", "0.5 100.0", "windows 4: 100.0 %"):
        assert not SPACES.search(right)
    assert BARE.search("it has 88900 parameters")
    assert not BARE.search("88,900 parameters of 1000, arXiv:2602.09746")
    assert NOT_TEXT.sub("", "a `16000` $10000$ <x y='12345'> b") == "a    b"
