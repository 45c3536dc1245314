"""A grid of conditions and seeds, run cell by cell; each result is kept at once, and a stopped run goes on.

A cell is a dictionary of what JSON can hold. The function that computes cells takes a list of them and returns a list
of results, again such dictionaries; it must depend on nothing but the cells. Where it runs is a matter of one argument:
here, in several processes, or on an executor, such as that of a Dask cluster:
`run(function, cells, folder, executor=Client(address).get_executor())`.
"""

from __future__ import annotations

import ast
import concurrent.futures
import contextlib
import functools
import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

import torch

import snnparams
from snnparams.training import progress_bar

FORMAT = 1  # of the files in a results folder
HEADER = "grid.json"
POLL = 0.05  # s between two looks at an executor's futures

Cell = dict
Function = Callable[[list[Cell]], list[dict]]


class ResultsError(ValueError):
    """A results folder is damaged or belongs to another experiment."""


def grid(**axes: Iterable) -> list[Cell]:
    """Return all combinations of the values of the axes, the last axis fastest.

    Args:
        axes: values by name, for instance `grid(tau=[4, 8], seed=range(10))`.
    """
    axes = {name: list(values) for name, values in axes.items()}
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _text(value) -> str:
    """Return a value as JSON, one text for equal values; NaN has none."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _name(cell: Cell) -> str:
    return f"cell-{hashlib.sha256(_text(cell).encode()).hexdigest()[:16]}.json"


def _file_of(module: str) -> Path | None:
    """Return the file of a module of the package, or None if there is none of that name."""
    base = Path(snnparams.__file__).parent.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported_modules(path: Path) -> set[str]:
    """Return the modules of this package that a source file imports, anywhere in it, and those that these import.

    Of `from snnparams import name` it is the module in which that name is defined; of `import snnparams` all modules. A
    text that is a module's name counts as its import: kernels are loaded by name.

    Args:
        path: a file of Python source.
    """
    package, root = snnparams.__name__, Path(snnparams.__file__)
    exports = {
        alias.asname or alias.name: node.module
        for node in ast.parse(root.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found: set[str] = set()
    waiting = [Path(path)]
    while waiting:
        names: list[str] = []
        for node in ast.walk(ast.parse(waiting.pop().read_text())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == package:
                inside = ((alias.name, f"{package}.{alias.name}") for alias in node.names)
                names += [own if _file_of(own) else exports.get(name, package) for name, own in inside]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.append(node.value if node.value.startswith(f"{package}.") else "")
        if package in names:
            everything = (file.relative_to(root.parent).with_suffix("") for file in root.parent.rglob("*.py"))
            parts = ([package, *(part for part in file.parts if part != "__init__")] for file in everything)
            return {".".join(part) for part in parts if len(part) > 1}
        for name in names:
            if name.split(".")[0] == package and name not in found and (file := _file_of(name)) is not None:
                found.add(name)
                waiting.append(file)
    return found


def versions(function: Callable | None = None) -> dict[str, str]:
    """Return what results depend on besides the cell: versions, and a hash of source.

    Args:
        function: what computes the results. Then the source is that of its module and of those modules of this package
            that it imports, directly or not; a change to another one changes nothing. None for all of the package.
    """
    package = Path(snnparams.__file__).parent
    file = None if function is None else inspect.getsourcefile(function)
    if file is None:
        paths = sorted(package.rglob("*.py"))
    else:
        modules = sorted(imported_modules(Path(file)))
        paths = [Path(file), *(path for module in modules if (path := _file_of(module)) is not None)]
    source = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
    return {"snnparams": snnparams.__version__, "source": source.hexdigest()[:16], "torch": torch.__version__}


def _write(path: Path, content: dict) -> None:
    """Write a file beside its place, then move it there: whoever reads it finds all of it or none."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with temporary.open("w") as file:
        file.write(json.dumps(content, allow_nan=False, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _read(path: Path, fields: set[str]) -> dict:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no text at all
        raise ResultsError(f"{path} is cut off or damaged ({error}). Delete it, and run again what it held") from None
    if not isinstance(content, dict) or not fields <= set(content):
        raise ResultsError(f"{path}: expected {', '.join(sorted(fields))}, got something else. Delete it and run again")
    return content


def _open(folder: Path, header: dict) -> None:
    """Make a new folder of results, or check that the one that is there has the same header."""
    path = folder / HEADER
    advice = f"Give another folder, or move {folder} away"
    if not path.exists():
        if folder.is_dir() and any(not file.name.endswith(".partial") for file in folder.iterdir()):
            raise ResultsError(f"{folder}: expected an empty folder or one with {HEADER}, got other files. {advice}")
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, header)
        return
    found = _read(path, set(header))
    for field in ("format", "versions", "function", "together"):
        if found[field] != header[field]:
            raise ResultsError(
                f"{folder} holds results of another version: expected {field} {header[field]}, got {found[field]}. "
                f"{advice}"
            )
    if found["cells"] != header["cells"]:
        got = f"{len(found['cells'])} cells, of which {sum(c in header['cells'] for c in found['cells'])} are the same"
        raise ResultsError(f"{folder} holds another grid: expected {len(header['cells'])} cells, got {got}. {advice}")


def _kept(folder: Path, cell: Cell) -> dict | None:
    """Return the result of a cell that is in the folder."""
    path = folder / _name(cell)
    if not path.exists():
        return None
    content = _read(path, {"cell", "result"})
    if content["cell"] != cell:
        raise ResultsError(f"{path}: expected the cell {cell}, got {content['cell']}. Delete it and run again")
    return content["result"]


def _groups(cells: Sequence[Cell], together: Sequence[str]) -> list[list[Cell]]:
    """Divide cells into lists for one call each: single ones, or those that differ only in what `together` names."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        rest = {name: value for name, value in cell.items() if name not in together}
        groups.setdefault(_text(rest if together else cell), []).append(cell)
    return list(groups.values())


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _start_worker() -> None:
    """Let a worker end when the process that started it is killed; it would wait for work forever."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _outcome(call: Callable[[], list[dict]]) -> list[dict] | Exception:
    try:
        return call()
    except (Exception, concurrent.futures.CancelledError) as error:
        return error


def _outcomes(
    function: Function, groups: list[list[Cell]], executor
) -> Generator[tuple[list[Cell], list | Exception], None, None]:
    """Yield each list of cells with its results or its error, in the order in which they come."""
    if executor is None:
        for cells in groups:
            yield cells, _outcome(functools.partial(function, cells))
        return
    waiting = []
    try:
        waiting += [(executor.submit(function, cells), cells) for cells in groups]
        while waiting:
            done = [pair for pair in waiting if pair[0].done()]  # what every kind of future has
            waiting = [pair for pair in waiting if pair not in done]
            for future, cells in done:
                yield cells, _outcome(future.result)
            if not done:
                time.sleep(POLL)
    finally:
        for future, _ in waiting:
            future.cancel()


def run(
    function: Function,
    cells: Sequence[Cell],
    folder: str | os.PathLike,
    *,
    processes: int = 1,
    executor=None,
    together: Sequence[str] = (),
    progress: bool = True,
) -> list[dict]:
    """Compute all cells of a grid that have no result yet.

    Args:
        function: takes a list of cells, returns a list of as many results. For processes and executors it must be one
            that can be imported there.
        cells: the grid, see `grid`; all different.
        folder: where results are kept, a file for each cell, written when the cell is done. If it holds results of
            the same grid, function and version, only missing cells are computed.
        processes: how many processes of this machine work; 1 is this process itself.
        executor: who works instead: a `concurrent.futures.Executor`, or something with its `submit`, whose futures have
            `done`, `result` and `cancel`.
        together: names of axes. Cells that differ in nothing else come in one call: an ensemble on a GPU, say.
        progress: whether to show a progress bar over cells.

    Returns:
        The results, in the order of the cells.

    Raises:
        ValueError: if there are no cells or two equal ones, `processes` is no positive integer or more than 1 with an
            executor, or `together` names what no cell has.
        TypeError: if a cell holds what JSON does not, or `together` is a string.
        ResultsError: if the folder holds files that are cut off, or of another grid or version.
        RuntimeError: if cells failed, after all others are done and kept; its cause is the first failure.
    """
    if isinstance(together, str):
        raise TypeError(f"together: expected a list of names of axes, got {together!r}")
    folder, together = Path(folder), list(together)
    cells = json.loads(_text(list(cells)))  # as they will be read again: lists, no tuples
    if not cells or len({_text(cell) for cell in cells}) < len(cells):
        raise ValueError(f"cells: expected at least one and all different, got {len(cells)}, or some twice")
    if isinstance(processes, bool) or not isinstance(processes, int) or processes < 1:
        raise ValueError(f"processes: expected a positive integer, got {processes!r}")
    if executor is not None and processes > 1:
        raise ValueError(f"processes: expected 1 with an executor, which does the work, got {processes}")
    axes = list(dict.fromkeys(axis for cell in cells for axis in cell))
    if unknown := [axis for axis in together if axis not in axes]:
        raise ValueError(f"together: expected names among {', '.join(axes)}, got {unknown[0]!r}")
    name = f"{function.__module__}.{function.__qualname__}"
    _open(
        folder,
        {"format": FORMAT, "versions": versions(function), "function": name, "together": together, "cells": cells},
    )
    results = {_text(cell): result for cell in cells if (result := _kept(folder, cell)) is not None}
    # a group that is kept in part is computed as a whole: its cells get the numbers that they would have got
    missing = [group for group in _groups(cells, together) if any(_text(cell) not in results for cell in group)]
    failures = []
    with contextlib.ExitStack() as stack:
        if executor is None and processes > 1 and missing:
            context = multiprocessing.get_context("spawn")  # threads, which PyTorch has, do not survive a fork
            pool = concurrent.futures.ProcessPoolExecutor(processes, context, initializer=_start_worker)
            executor = stack.enter_context(pool)
        outcomes = stack.enter_context(contextlib.closing(_outcomes(function, missing, executor)))
        for group, outcome in progress_bar(outcomes, progress, total=len(missing)):
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                if len(outcome) != len(group):
                    raise ValueError(f"function: expected {len(group)} results, got {len(outcome)}")
                outcome = json.loads(_text(outcome))
            except Exception as error:
                failures.append((group[0], error))
                continue
            for cell, result in zip(group, outcome, strict=True):
                if _text(cell) not in results:
                    _write(folder / _name(cell), {"cell": cell, "result": result})
                    results[_text(cell)] = result
    if failures:
        cell, cause = failures[0]
        raise RuntimeError(
            f"{len(cells) - len(results)} of {len(cells)} cells failed; the others are kept in {folder}, and the next "
            f"run tries the failed ones again. First: {cell}: {type(cause).__name__}: {cause}"
        ) from cause
    return [results[_text(cell)] for cell in cells]
