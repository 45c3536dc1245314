"""What the extension of this name makes of a line of text: nothing that belongs together is torn apart, or lost."""

import sys

from docutils import nodes
from docutils.utils import new_document
from notebooks import ROOT

sys.path.insert(0, str(ROOT / "book" / "_extensions"))
import typography


def kept_together(*parts):
    document = new_document("page")
    paragraph = nodes.paragraph("", "", *parts)
    document += paragraph
    typography.KeepTogether(document).run()
    return paragraph


def test_a_formula_keeps_its_own_mark():
    a, b = (nodes.math("", text) for text in "ab")
    code = [nodes.literal("", name) for name in ("x", "y")]
    line = kept_together(
        code[0], nodes.Text(", "), code[1], nodes.Text(" are "), a, nodes.Text(", "), b, nodes.Text(".")
    )
    assert line.astext() == "x, y are a, b."
    assert [box.astext() for box in line.findall(nodes.inline) if "together" in box["classes"]] == ["a,", "b."]


def test_a_number_keeps_its_unit():
    line = kept_together(nodes.Text("5 % of 20 ms, 3 members"), nodes.literal("", "x = 5 % 2"), nodes.Text("5 % of it"))
    assert line.astext() == "5\u00a0% of 20\u00a0ms, 3 membersx = 5 % 25\u00a0% of it"
