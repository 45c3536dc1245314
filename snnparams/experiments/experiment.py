"""A grid of conditions and seeds, run trial by trial; each result is kept at once, and a stopped run goes on.

A trial is a dictionary of what JSON can hold. The function that computes trials takes a list of them and returns a list
of results, again such dictionaries; it must depend on nothing but the trials. Where it runs is a matter of one
argument: here, in several processes (see `snnparams.experiments.processes`), or on an executor, such as that of a Dask
cluster:
`run(function, trials, folder, executor=Client(address).get_executor())`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from snnparams.experiments.processes import ATTEMPTS as ATTEMPTS  # the reference names it
from snnparams.experiments.processes import Function, Trial, outcomes
from snnparams.experiments.versions import versions
from snnparams.parameters.settings import check_counts
from snnparams.training.loop import progress_bar

FORMAT = 1  # of the files in a results folder
HEADER = "grid.json"
LONGEST_TEXT = 200  # characters of a result in a message


class ResultsError(ValueError):
    """A results folder is damaged or belongs to another experiment."""


def grid(**axes: Iterable) -> list[Trial]:
    """Return all combinations of the values of the axes, the last axis fastest.

    Args:
        axes: values by name, for instance `grid(tau=[4, 8], seed=range(10))`.

    Raises:
        TypeError: if there are no values to go through: text alone is one, in a list of its own.
    """
    for name, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"{name}: expected a list of values, got {values!r}")
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


def _name(trial: Trial) -> str:
    return f"cell-{hashlib.sha256(_text(trial).encode()).hexdigest()[:16]}.json"


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


def _header(function: Function, trials: Sequence[Trial], together: list[str]) -> dict:
    """Return what a folder of results says of them all."""
    name = _function_name(function)
    return {"format": FORMAT, "versions": versions(function), "function": name, "together": together, "cells": trials}


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
        got = f"{len(found['cells'])} trials, of which {sum(c in header['cells'] for c in found['cells'])} are the same"
        raise ResultsError(f"{folder} holds another grid: expected {len(header['cells'])} trials, got {got}. {advice}")


def _kept(folder: Path, trial: Trial) -> dict | None:
    """Return the result of a trial that is in the folder."""
    path = folder / _name(trial)
    if not path.exists():
        return None
    content = _read(path, {"cell", "result"})
    if content["cell"] != trial:
        raise ResultsError(f"{path}: expected the trial {trial}, got {content['cell']}. Delete it and run again")
    return content["result"]


def _groups(trials: Sequence[Trial], together: Sequence[str]) -> list[list[Trial]]:
    """Divide trials into lists for one call each: single ones, or those that differ only in what `together` names."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        rest = {name: value for name, value in trial.items() if name not in together}
        groups.setdefault(_text(rest if together else trial), []).append(trial)
    return list(groups.values())


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


def _checked_axes(trials: Sequence[Trial], together: Sequence[str]) -> list[str]:
    """Return the names of axes that trials of one call may differ in, checked."""
    if isinstance(together, str):
        raise TypeError(f"together: expected a list of names of axes, got {together!r}")
    axes = list(dict.fromkeys(axis for trial in trials for axis in trial))
    if unknown := [axis for axis in together if axis not in axes]:
        raise ValueError(f"together: expected names among {', '.join(axes)}, got {unknown[0]!r}")
    return list(together)


def _check_arguments(function: Function, trials: Sequence[Trial], processes: int, executor) -> None:
    """Check what `run` is given."""
    if not trials or len({_text(trial) for trial in trials}) < len(trials):
        raise ValueError(f"trials: expected at least one and all different, got {len(trials)}, or some twice")
    check_counts(processes=processes)
    if executor is not None and processes > 1:
        raise ValueError(f"processes: expected 1 with an executor, which does the work, got {processes}")
    if processes > 1:
        try:
            pickle.dumps(function)
        except Exception as error:
            name = _function_name(function)
            raise TypeError(f"function: expected one that other processes can import, got {name}: {error}") from None


def _plain_results(trials: list[Trial], outcome: list | Exception) -> list[dict]:
    """Return the results of some trials as they will be read again, or raise what came instead."""
    if isinstance(outcome, Exception):
        raise outcome
    if not isinstance(outcome, (list, tuple)):
        raise TypeError(f"function: expected a list of {len(trials)} results, got {type(outcome).__name__}")
    if len(outcome) != len(trials):
        raise ValueError(f"function: expected {len(trials)} results, got {len(outcome)}")
    try:
        return json.loads(_text(outcome))
    except ValueError as error:
        raise ValueError(f"function: expected results of finite numbers, got {_shortened(outcome)}") from error


def _shortened(outcome) -> str:
    """Return results as a text that is no longer than a message should be."""
    text = repr(outcome)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def run(
    function: Function,
    trials: Sequence[Trial],
    folder: str | os.PathLike,
    *,
    processes: int = 1,
    executor=None,
    together: Sequence[str] = (),
    progress: bool = True,
) -> list[dict]:
    """Compute all trials of a grid that have no result yet.

    Args:
        function: takes a list of trials, returns as many results; numbers and arrays of NumPy and PyTorch become plain
            ones. Others must be able to import it. Arguments of a `functools.partial` are part of the experiment.
        trials: the grid, see `grid`; all different.
        folder: where results are kept, a file for each trial, written when the trial is done. If it holds results of
            the same grid, function and version, only missing trials are computed. The version is that of this package
            and of PyTorch, and the source of the function's module and of what it imports of your own, see
            `snnparams.experiments.versions`.
        processes: how many processes of this machine work; 1 is this one. One that dies (for want of memory, say) is
            replaced, and its trials are tried again, `ATTEMPTS` times in all.
        executor: who works instead: a `concurrent.futures.Executor`, or something with its `submit`, whose futures have
            `done`, `result` and `cancel`.
        together: names of axes. Trials that differ in nothing else come in one call: an ensemble on a GPU, say.
        progress: whether to show a progress bar over trials.

    Returns:
        The results, in the order of the trials.

    Raises:
        ValueError: if there are no trials or two equal ones, one holds a number that is not finite, `processes` is no
            positive integer or more than 1 with an executor, or `together` names what no trial has.
        TypeError: if a trial holds what JSON does not, `together` is a string, or `function` is no function, or with
            several processes one that they cannot import.
        ResultsError: if the folder holds files that are cut off, or of another grid or version.
        RuntimeError: if trials failed, by sys.exit in another process too, after all others are done and kept; its
            cause is the first failure. At once, if no process can be started.
    """
    folder, together = Path(folder), _checked_axes(trials, together)
    trials = json.loads(_text(list(trials)))  # as they will be read again: lists, no tuples
    _check_arguments(function, trials, processes, executor)
    _open(folder, _header(function, trials, together))
    results = {_text(trial): result for trial in trials if (result := _kept(folder, trial)) is not None}
    # a group that is kept in part is computed as a whole: its trials get the numbers that they would have got
    missing, failures = [g for g in _groups(trials, together) if any(_text(t) not in results for t in g)], []
    with contextlib.closing(outcomes(function, missing, processes, executor)) as found:
        for group, outcome in progress_bar(found, progress, total=len(missing)):
            try:
                computed = _plain_results(group, outcome)
            except Exception as error:
                failures.append((group[0], error))
                continue
            for trial, result in zip(group, computed, strict=True):
                if _text(trial) not in results:
                    _write(folder / _name(trial), {"cell": trial, "result": result})
                    results[_text(trial)] = result
    if failures:
        (trial, cause), failed = failures[0], f"{len(trials) - len(results)} of {len(trials)} trials failed"
        again = f"the others are kept in {folder}, and the next run tries the failed ones again"
        raise RuntimeError(f"{failed}; {again}. First: {trial}: {type(cause).__name__}: {cause}") from cause
    return [results[_text(trial)] for trial in trials]
