"""A grid of conditions and seeds, run cell by cell; each result is kept at once, and a stopped run goes on.

A cell is a dictionary of what JSON can hold. The function that computes cells takes a list of them and returns a list
of results, again such dictionaries; it must depend on nothing but the cells. Where it runs is a matter of one argument:
here, in several processes, or on an executor, such as that of a Dask cluster:
`run(function, cells, folder, executor=Client(address).get_executor())`.

Processes of this machine share nothing with each other: each has a pipe to the one that started them. So one that dies
takes only the call with it that it was at, which another one tries again.
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
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import torch

import snnparams
from snnparams.training import progress_bar

FORMAT = 1  # of the files in a results folder
HEADER = "grid.json"
POLL = 0.05  # s between two looks at an executor's futures
GRACE = 10.0  # s that a process may take to end
MEMORY = "a system that runs out of memory kills processes"
ATTEMPTS = 3  # calls whose process dies, after which their cells count as failed

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


def _plain(value):
    """Return what JSON can hold in place of a number or an array of NumPy or PyTorch."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return value.tolist()
    raise TypeError(
        f"expected what JSON can hold (numbers, text, None, lists, dictionaries), or numbers and arrays of NumPy and "
        f"PyTorch, got {type(value).__name__}, which is not JSON serializable"
    )


def _text(value) -> str:
    """Return a value as JSON, one text for equal values; NaN has none."""
    return json.dumps(value, sort_keys=True, allow_nan=False, default=_plain)


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
    inner = function.func if isinstance(function, functools.partial) else function
    try:
        file = None if inner is None else inspect.getsourcefile(inner)
    except (TypeError, OSError):  # defined where there is no file, as in a notebook
        file = None
    if file is None or not Path(file).is_file():
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


def _outcome(call: Callable):
    """Return what a call returns, or its error."""
    try:
        return call()
    except (Exception, concurrent.futures.CancelledError) as error:
        return error


Outcomes = Generator[tuple[list[Cell], list | Exception], None, None]  # lists of cells with their results, or an error


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class WorkerTraceback(Exception):
    """Where an error came from in another process: the cause of the error that arrives."""

    def __str__(self) -> str:
        return "\n" + self.args[0]


def _without_exit(call: Callable, *arguments):
    """Return what a call returns; if it wants to end the process, that is a failure, which no other try would mend."""
    try:
        return call(*arguments)
    except SystemExit as error:
        raise RuntimeError(f"function: expected results, got sys.exit({error.code!r})") from error


def _call(function_and_cells: bytes) -> list[dict]:
    function, cells = pickle.loads(function_and_cells)
    return _without_exit(function, cells)


def _answer(outcome) -> bytes:
    """Return an outcome and the text of its traceback, ready to be sent."""
    text = "".join(traceback.format_exception(outcome)) if isinstance(outcome, Exception) else ""
    try:
        answer = pickle.dumps((outcome, text))
        pickle.loads(answer)  # some errors can be pickled and not be read again
        return answer
    except Exception as error:
        kept = f"{type(outcome).__name__}: {outcome}" if isinstance(outcome, Exception) else f"results: {error}"
        return pickle.dumps((RuntimeError(f"what cannot be sent from one process to another: {kept}"), text))


def _work(connection) -> None:
    """Answer calls until the process that started this one closes the pipe, or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: who started this process will end it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(b"ready")
        while True:
            connection.send_bytes(_answer(_outcome(functools.partial(_call, connection.recv_bytes()))))


def _received(answer: bytes):
    """Return the outcome in an answer; an error is caused by what happened over there."""
    content = _outcome(functools.partial(pickle.loads, answer))
    if isinstance(content, Exception):
        return content
    outcome, text = content
    if text:
        outcome.__cause__ = WorkerTraceback(text)
    return outcome


class _Worker:
    """A process that answers one call at a time, and the number of the call that it is at."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # threads, which PyTorch has, do not survive a fork
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,))
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.ready = False
        self.at: int | None = None

    @property
    def idle(self) -> bool:
        return self.ready and self.at is None

    def begin(self, at: int, call: bytes) -> None:
        self.at = at
        with contextlib.suppress(OSError):  # it died just now, which the next look at it will show
            self.connection.send_bytes(call)

    def receive(self) -> bytes | None:
        """Return the answer, or None if the process died, maybe in the middle of it."""
        try:
            answer = self.connection.recv_bytes()
        except (EOFError, OSError):
            return None
        self.ready, self.at = True, None
        return answer

    def end(self, seconds: float) -> str:
        """End the process, unless it does so itself in that time, and return how it did."""
        self.connection.close()  # at which an idle one ends
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        return f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"


def _in_processes(function: Function, groups: list[list[Cell]], count: int) -> Outcomes:
    """Yield outcomes as they come from processes of this machine."""
    calls = [pickle.dumps((function, cells)) for cells in groups]
    waiting, deaths, failed_starts = deque(range(len(calls))), [0] * len(calls), 0
    workers = [_Worker() for _ in range(min(count, len(calls)))]
    try:
        while waiting or any(worker.at is not None for worker in workers):
            expected = {worker.connection: worker for worker in workers if not worker.idle}
            for connection in wait(list(expected)):
                worker = expected[connection]
                at, answer = worker.at, worker.receive()
                if answer is not None:
                    failed_starts = 0
                    if at is not None:
                        yield groups[at], _received(answer)
                    continue
                how = worker.end(GRACE)
                if at is None:
                    failed_starts += 1
                else:
                    deaths[at] += 1
                    if deaths[at] < ATTEMPTS:
                        waiting.append(at)
                    else:
                        times = f"{ATTEMPTS} times, the last time {how}"
                        yield groups[at], RuntimeError(f"its process ended {times}; {MEMORY}")
                if failed_starts == ATTEMPTS:
                    raise RuntimeError(
                        f"processes: {ATTEMPTS} in a row ended before they began, the last one {how}. A script that "
                        f'calls run must do so below if __name__ == "__main__"; other reasons are printed above'
                    )
                workers[workers.index(worker)] = _Worker()
            for worker in workers:
                if waiting and worker.idle:
                    at = waiting.popleft()
                    worker.begin(at, calls[at])
    finally:
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end(GRACE if worker.idle else 0)


def _on_executor(function: Function, groups: list[list[Cell]], executor) -> Outcomes:
    """Yield outcomes as they come from an executor."""
    waiting = []
    try:
        for cells in groups:
            future = _outcome(functools.partial(executor.submit, function, cells))
            if isinstance(future, Exception):  # an executor that is broken or was shut down
                yield cells, future
            else:
                waiting.append((future, cells))
        while waiting:
            done = [pair for pair in waiting if pair[0].done()]  # what every kind of future has
            waiting = [pair for pair in waiting if pair not in done]
            for future, cells in done:
                yield cells, _outcome(functools.partial(_without_exit, future.result))
            if not done:
                time.sleep(POLL)
    finally:
        for future, _ in waiting:
            future.cancel()


def _outcomes(function: Function, groups: list[list[Cell]], processes: int, executor) -> Outcomes:
    """Yield each list of cells with its results or its error, in the order in which they come."""
    if executor is not None:
        yield from _on_executor(function, groups, executor)
    elif processes > 1 and groups:
        yield from _in_processes(function, groups, processes)
    else:
        for cells in groups:
            yield cells, _outcome(functools.partial(function, cells))


def _function_name(function: Function) -> str:
    """Return what tells a function from others: where it is found, and what functools.partial gave it."""
    inner, given = function, ""
    if isinstance(function, functools.partial):
        inner = function.func
        try:
            given = f" with {_text([*function.args])[1:-1]} {_text(function.keywords)}"
        except (TypeError, ValueError) as error:
            raise TypeError(f"function: arguments of functools.partial are part of the experiment; {error}") from None
    if not callable(inner) or not hasattr(inner, "__qualname__"):
        raise TypeError(f"function: expected a function, or functools.partial of one, got {type(inner).__name__}")
    return f"{inner.__module__}.{inner.__qualname__}{given}"


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
        function: takes a list of cells, returns a list of as many results; numbers and arrays of NumPy and PyTorch in
            them become plain ones. For processes and executors it must be one that can be imported there. It may be a
            `functools.partial`, whose arguments, which JSON must be able to hold, are then part of the experiment.
        cells: the grid, see `grid`; all different.
        folder: where results are kept, a file for each cell, written when the cell is done. If it holds results of
            the same grid, function and version, only missing cells are computed.
        processes: how many processes of this machine work; 1 is this process itself. One that dies (for want of memory,
            say) is replaced, and its cells are tried again, `ATTEMPTS` times in all.
        executor: who works instead: a `concurrent.futures.Executor`, or something with its `submit`, whose futures have
            `done`, `result` and `cancel`.
        together: names of axes. Cells that differ in nothing else come in one call: an ensemble on a GPU, say.
        progress: whether to show a progress bar over cells.

    Returns:
        The results, in the order of the cells.

    Raises:
        ValueError: if there are no cells or two equal ones, `processes` is no positive integer or more than 1 with an
            executor, or `together` names what no cell has.
        TypeError: if a cell holds what JSON does not, `together` is a string, or `function` is no function, or with
            several processes one that they cannot import.
        ResultsError: if the folder holds files that are cut off, or of another grid or version.
        RuntimeError: if cells failed, after all others are done and kept; its cause is the first failure. To call
            sys.exit is one, but in this process. At once, if no process can be started.
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
    name = _function_name(function)
    if processes > 1:
        try:
            pickle.dumps(function)
        except Exception as error:
            raise TypeError(f"function: expected one that other processes can import, got {name}: {error}") from None
    header = {"format": FORMAT, "versions": versions(function), "function": name, "together": together, "cells": cells}
    _open(folder, header)
    results = {_text(cell): result for cell in cells if (result := _kept(folder, cell)) is not None}
    # a group that is kept in part is computed as a whole: its cells get the numbers that they would have got
    missing = [group for group in _groups(cells, together) if any(_text(cell) not in results for cell in group)]
    failures = []
    with contextlib.closing(_outcomes(function, missing, processes, executor)) as outcomes:
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
