"""Run notebooks from the first cell to the last and store what they show: `make notebooks`; or execute them for a book.

Each stored notebook carries a stamp of the code that made its outputs, its own and the package's. nbval does not
compare pictures; the stamp lets a test say that a stored one may be out of date.
"""

import ast
import hashlib
import io
import json
import re
import sys
import tokenize
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from address import current, is_setup, put_setup

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "snnparams"
RESULTS = ROOT / "book" / "results"
EXECUTED = ROOT / "_build" / "executed"  # notebooks as nbval has run them, see kept_outputs.py
SMALLEST_LETTERS = 9.5  # points, in figures: of one that is 5 inches wide a phone shows them 9 pixels high
READERS = [
    ROOT / "tests" / "benchmarks" / f"benefit_{name}.py"
    for name in ("analysis", "results", "terms", "design", "figures", "forest", "beside", "adaptation", "delays")
]


def without_words(source: str) -> str:
    """Return code without docstrings, comments and empty lines: what it does, the same in every Python version."""
    lines = source.splitlines()
    drop = []  # (first line, column, last line, column), lines from 1
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            text = body[0].value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                start = len(lines[text.lineno - 1].encode()[: text.col_offset].decode())  # ast counts bytes
                end = len(lines[text.end_lineno - 1].encode()[: text.end_col_offset].decode())
                drop.append((text.lineno, start, text.end_lineno, end))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            drop.append((*token.start, *token.end))
    for first, start, last, end in sorted(drop, reverse=True):
        lines[first - 1 : last] = [lines[first - 1][:start] + lines[last - 1][end:]]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def reads(code: list[str], path: Path) -> bool:
    """Return whether code names a file of stored results, or the folder that it lies in."""
    names = [path.stem] if path.parent == RESULTS else [path.stem, path.parent.name]
    return any(re.search(rf"\b{name}\b", text) for name in names for text in code)


def stamp(notebook) -> str:
    """Return a hash of the notebook's code cells, of the package, of the results that it reads and of what reads them.

    The setup cell does not count: it does nothing where the package is installed, and holds the public address.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and not is_setup(cell)]
    cells = [without_words(cell.source) for cell in code]
    readers = {path: without_words(path.read_text()) for path in READERS}
    if not any(path.stem in cell for path in READERS for cell in cells):
        readers = {}
    sources = {path: without_words(path.read_text()) for path in PACKAGE.rglob("*.py")} | readers
    modules = {path.relative_to(ROOT).as_posix(): source for path, source in sources.items()}
    results = [path for path in sorted(RESULTS.rglob("*.json*")) if reads([*cells, *readers.values()], path)]
    read = [path.read_text() for path in [PACKAGE / "snnparams.mplstyle", *results]]
    return hashlib.sha256(json.dumps([cells, sorted(modules.items()), read]).encode()).hexdigest()[:16]


def run(path: Path) -> None:
    """Execute one notebook in place."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    put_setup(notebook, current())
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=where, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times differ at every run
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "snnparams_stamp": stamp(notebook),
        }
    )
    nbformat.write(notebook, path)
    print(f"{path}: done", flush=True)


def executed_by_nbval(path: Path, notebook):
    """Return a notebook with the outputs that nbval has kept, or None if its code was another then."""

    def code(notebook):
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    kept = EXECUTED / path.name
    if not kept.exists():
        return None
    there = code(nbformat.read(kept, as_version=4))
    if [cell.source for cell in there] != [cell.source for cell in code(notebook)]:
        return None
    filled = nbformat.from_dict(notebook)
    for cell, old in zip(code(filled), there, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return filled


def execute_into_cache(paths: list[Path], folder: Path) -> None:
    """Execute notebooks, two at a time, into the cache from which a book is built, which would take one at a time.

    What nbval has run and passed is not run again.

    Raises:
        SystemExit: some failed; the tracebacks are printed, and the others are in the cache.
    """
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn
    from jupyter_cache.executors.utils import single_nb_execution

    cache, missing = get_cache(folder), []

    def keep(path, notebook, **data):
        found = CacheBundleIn(notebook, str(path.resolve()), data=data)
        cache.cache_notebook_bundle(found, check_validity=False, overwrite=True)

    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            if (executed := executed_by_nbval(path, notebook)) is not None:
                keep(path, executed)
                print(f"{path}: as nbval has run it", flush=True)
            else:
                missing.append((path, notebook))

    def execute(given):
        path, notebook = given
        print(f"{path}: executing", flush=True)
        return single_nb_execution(notebook, cwd=str(path.parent), timeout=1800, allow_errors=False)

    failed = []
    with ThreadPoolExecutor(2) as pool:
        for (path, _), result in zip(missing, pool.map(execute, missing), strict=True):
            if result.err is not None:
                print(result.exc_string)
                failed.append(path.name)
                continue
            keep(path, result.nb, execution_seconds=result.time)
            print(f"{path}: executed in {result.time:.0f} s", flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("run", "cache"):
        raise SystemExit("usage: python tests/notebooks.py run|cache NOTEBOOK [NOTEBOOK ...]")
    given = list(map(Path, sys.argv[2:]))
    if sys.argv[1] == "cache":
        execute_into_cache(given, ROOT / "_build" / ".jupyter_cache")
    else:
        for path in given:
            run(path)
