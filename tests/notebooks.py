"""Run notebooks from the first cell to the last and store what they show: `make notebooks`.

Each stored notebook carries a stamp of the code that made its outputs, its own and the package's. nbval does not
compare pictures; the stamp lets a test say that a stored one may be out of date.
"""

import ast
import base64
import hashlib
import json
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "snnparams"
COVER = {"fig-population": ROOT / "book" / "_static" / "population.png"}  # figures that index.md shows as well


def without_docstrings(source: str) -> str:
    """Return what a module does, whatever its comments and docstrings say."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def stamp(notebook) -> str:
    """Return a hash of the notebook's code cells and of the package."""
    cells = [without_docstrings(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    modules = {p.relative_to(ROOT).as_posix(): without_docstrings(p.read_text()) for p in PACKAGE.rglob("*.py")}
    style = (PACKAGE / "snnparams.mplstyle").read_text()
    return hashlib.sha256(json.dumps([cells, sorted(modules.items()), style]).encode()).hexdigest()[:16]


def run(path: Path) -> None:
    """Execute one notebook in place."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times differ at every run
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        if name in COVER:
            COVER[name].write_bytes(base64.b64decode(cell.outputs[0].data["image/png"]))
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "snnparams_stamp": stamp(notebook),
        }
    )
    nbformat.write(notebook, path)
    print(f"{path}: done", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "run":
        raise SystemExit("usage: python tests/notebooks.py run NOTEBOOK [NOTEBOOK ...]")
    for name in sys.argv[2:]:
        run(Path(name))
