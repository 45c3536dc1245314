"""Imports inside the package point one way: towards what knows less."""

import ast

import pytest
from notebooks import ROOT

PACKAGE = ROOT / "snnparams"
# what may be imported by all that stand behind it, and by itself
ORDER = ("folders", "parameters", "neurons", "kernels", "layers", "data", "training", "experiments", "interop", "plot")
WITH_ROOT = {"experiments.versions"}  # hashes all sources


def dotted(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def read_by_type_checkers_alone(tree):
    """Return the nodes below `if TYPE_CHECKING`."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {id(node) for block in blocks for node in ast.walk(block)}


def imported(path):
    """Return the modules of the package that a file imports, anywhere in it; "" stands for the package itself."""
    tree, found = ast.parse(path.read_text()), set()
    skipped = read_by_type_checkers_alone(tree)
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: expected full names, got a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name.removeprefix("snnparams.") in MODULES else node.module for name in inside}
    names = {name for name in found if name.split(".")[0] == "snnparams"}
    return {name.removeprefix("snnparams").removeprefix(".") for name in names}


def test_every_module_has_its_place_in_the_order():
    assert {name.split(".")[0] for name in MODULES if name} <= set(ORDER)


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_point_upward(module):
    place = ORDER.index(module.split(".")[0])
    for name in imported(MODULES[module]):
        if name == "" and module in WITH_ROOT:
            continue
        assert name != "", f"{module} imports the whole package"
        assert ORDER.index(name.split(".")[0]) <= place, f"{module} imports {name}, which stands behind it"


def test_a_climbing_import_would_be_found(tmp_path):
    path = tmp_path / "some.py"
    path.write_text("def f():\n    from snnparams.data import mnist\n    import snnparams.plot\n")
    assert imported(path) == {"data.mnist", "plot"}
