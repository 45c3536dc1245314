"""A plugin for pytest: keep what notebooks show when nbval has run them, so that `make book` need not run them again.

Only a notebook whose cells have all run and passed is kept, in `_build/executed`, which `make book` empties when the
package, the results or the data are others.
"""

import nbformat
from notebooks import EXECUTED

failed = set()  # paths of notebooks


def pytest_runtest_makereport(item, call):
    """Remember notebooks that have a cell which failed."""
    if call.excinfo is not None:
        failed.add(item.path)


def pytest_runtest_teardown(item, nextitem):
    """Write a notebook with what its cells gave, after the last of them."""
    path = item.path
    last = nextitem is None or nextitem.path != path
    if path.suffix != ".ipynb" or not last or path in failed:
        return
    given = [cell.test_outputs for cell in item.session.items if cell.path == path]
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if len(given) != len(code) or any(outputs is None for outputs in given):
        return  # only some of its cells were asked for
    for count, (cell, outputs) in enumerate(zip(code, given, strict=True), start=1):
        cell.outputs, cell.execution_count = outputs, count
    EXECUTED.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, EXECUTED / path.name)
