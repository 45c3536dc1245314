"""The reference, book/api.md, names everything that is public."""

import ast
import re

import pytest
from notebooks import ROOT

import snnparams as sp

PACKAGE = ROOT / "snnparams"
# inside the package only: what the public modules share, and how the kernels work
INTERNAL = {
    "checks",
    "checkpoint",
    "likeness",
    "neurons.spike_programs",
    "neurons.step",
    "population",
    "resumption",
    *(f"kernels.{p.stem}" for p in (PACKAGE / "kernels").glob("[!_]*.py")),
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
    """Return what the page lists of every module, by an entry for all of it, None, or for one class."""
    text = (ROOT / "book" / "api.md").read_text()
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
        known |= {module} | (listed or defined(PUBLIC[module]))
    assert set(sp.__all__) <= known
