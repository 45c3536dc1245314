"""The reference, book/api, names everything that is public, and leads there and back."""

import ast
import re
import sys

import pytest
from notebooks import ROOT

import snnparams as sp

sys.path.insert(0, str(ROOT / "book" / "_extensions"))
import reference

PACKAGE = ROOT / "snnparams"
# inside the package only: what the public modules share, and how the kernels work
SHOWN = {"adjoint", "spike_timing"}  # of the kernels
INTERNAL = {
    "training.batches",
    "layers.calls",
    "layers.checks",
    "layers.checkpoint",
    "layers.contents",
    "layers.likeness",
    "neurons.definition",
    "neurons.spike_programs",
    "neurons.step",
    "training.measures",
    "training.members",
    "layers.population",
    "training.resumption",
    *(f"kernels.{p.stem}" for p in (PACKAGE / "kernels").glob("[!_]*.py") if p.stem not in SHOWN),
    *(f"kernels.derived.{p.stem}" for p in (PACKAGE / "kernels" / "derived").glob("[!_]*.py")),
}


def dotted(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


PUBLIC = {dotted(path): path for path in PACKAGE.rglob("*.py") if dotted(path) not in {"", *INTERNAL}}


def defined(path):
    """Return the names of the public functions and classes that a module defines."""
    nodes = ast.parse(path.read_text()).body
    found = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return {name for name in found if not name.startswith("_")}


def documented():
    """Return what the pages list of every module, by an entry for all of it, None, or for one class."""
    text = "".join(path.read_text() for path in sorted((ROOT / "book" / "api").glob("*.md")))
    entries = re.findall(r"auto(?:module|class):: snnparams\.([a-z_.]+[a-z_])(?:\.([A-Z]\w+))?\n", text)
    assert len(entries) == len(dict(entries)) == text.count(".. auto")
    return {module: {name} if name else None for module, name in entries}


def test_every_public_module_has_its_entry():
    assert set(documented()) == {name for name, path in PUBLIC.items() if defined(path)}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_every_public_name_is_listed(module):
    listed = documented().get(module)
    if listed is not None:
        assert listed == defined(PUBLIC[module])


def test_what_the_package_exports_is_on_the_page():
    pages, known = documented(), {"neurons"}  # a package, of which each module has its entry
    for module, listed in pages.items():
        known |= {module.rpartition(".")[2]} | (listed or defined(PUBLIC[module]))
    assert set(sp.__all__) <= known


def test_every_page_of_the_reference_is_in_the_book():
    pages = {f"book/api/{path.stem}" for path in (ROOT / "book" / "api").glob("*.md")}
    assert pages == set(re.findall(r"- file: (book/api/\w+)", (ROOT / "_toc.yml").read_text()))


@pytest.mark.parametrize(
    ("docstring", "line"),
    [
        ("One `layer` of neurons.\n\nMore.", "One `layer` of neurons."),
        ("Two lines\nof it. And another sentence.", "Two lines of it."),
        (r"Emit a spike: :math:`z = \Theta(x)`.", "Emit a spike."),
        ("State of :class:`~snnparams.LIF` neurons.", "State of snnparams.LIF neurons."),
        ("Ends at 0.5 of it.", "Ends at 0.5 of it."),
    ],
)
def test_the_index_has_the_first_sentence(docstring, line):
    assert reference.summary(docstring.splitlines()) == line


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_the_index_says_all_in_words(module):
    nodes = [node for node in ast.parse(PUBLIC[module].read_text()).body if getattr(node, "name", "_")[0] != "_"]
    said = [reference.summary((ast.get_docstring(node) or "").splitlines()) for node in nodes]
    assert [text for text in said if ":math:" in text or "\\" in text] == []


@pytest.mark.parametrize(
    ("code", "name", "used"),
    [
        ("p = sp.LIFParameters()", "snnparams.neurons.lif.LIFParameters", True),
        ("plot.use_style()", "snnparams.plot.use_style", True),
        (
            "from snnparams.experiments.designs import Architecture, Neurons",
            "snnparams.experiments.designs.Neurons",
            True,
        ),
        (
            "from snnparams.experiments.designs import (\n    Architecture,\n    Neurons,\n)",
            "snnparams.experiments.designs.Neurons",
            True,
        ),
        ("p = sp.neurons.AdaptiveLIF()", "snnparams.neurons.adaptive_lif.AdaptiveLIF", True),
        ("neurons.AdaptiveLIF()", "snnparams.neurons.adaptive_lif.AdaptiveLIF", True),
        ("p = sp.LIFParameters()", "snnparams.layers.layer.LIF", False),
        ("subprocess.run(clone)", "snnparams.experiments.experiment.run", False),
    ],
)
def test_which_names_a_chapter_uses(code, name, used):
    assert reference.uses(code, name) == used


def test_only_what_the_package_has_counts_as_its_own():
    import snnparams.experiments.trial

    assert reference._exported("snnparams.training.loop.train")
    assert hasattr(snnparams.experiments.trial, "train")  # another one
    assert not reference._exported("snnparams.experiments.trial.train")


def test_a_chapter_that_is_named_exists():
    count = len(list((ROOT / "book").glob("[0-9]*.ipynb")))
    for path in PACKAGE.rglob("*.py"):
        for spoken in reference.SPOKEN.findall(path.read_text()):
            assert all(1 <= int(number) <= count for number in re.findall(r"\d+", spoken)), f"{path.name}: {spoken}"
