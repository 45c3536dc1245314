"""A training run as a file: all that it needs to go on with the same numbers."""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import pickle
import random
import re
import struct
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from snnparams.layers.calls import HasState
from snnparams.layers.checks import check_module
from snnparams.parameters.settings import check_bool
from snnparams.training.ensemble import Ensemble
from snnparams.training.history import History
from snnparams.training.members import give_back, take_over


class Run:
    """What changes during a training run.

    Args:
        model: the model.
        optimizer: its optimiser.
        generators: of the order of the data, but for the global one.
        scheduler: of the learning rate, or None.
        callbacks: called after each epoch.
        keep_best: whether to keep the values of the epoch of the lowest test loss, in `best`; of an ensemble, of each
            member's own.

    Raises:
        TypeError: if a scheduler or callback is none.
        ValueError: if the scheduler is one of another optimiser.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        generators: list[torch.Generator],
        scheduler: Any = None,
        callbacks: Sequence = (),
        keep_best: bool = False,
    ) -> None:
        check_module(model)
        check_optimizer(model, optimizer)
        check_bool(restore_best=keep_best)
        if scheduler is not None and not all(hasattr(scheduler, name) for name in ("step", "state_dict", "optimizer")):
            raise TypeError(f"scheduler: expected one of torch.optim.lr_scheduler, got {type(scheduler).__name__}")
        if scheduler is not None and scheduler.optimizer is not optimizer:
            raise ValueError("scheduler: expected one of the optimiser that is given, got one of another")
        if not isinstance(callbacks, (list, tuple)):
            raise TypeError(f"callbacks: expected a list of functions, got {type(callbacks).__name__}")
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(f"callbacks: expected functions of model and history, got {type(callback).__name__}")
        self.model, self.optimizer, self.generators = model, optimizer, generators
        self.scheduler, self.callbacks, self.keep_best = scheduler, list(callbacks), keep_best
        self.history = History()
        self.best: dict[str, Any] | None = None
        self.reads = False  # whether a checkpoint of this run has been read again

    def end_epoch(self, test_loss: Any) -> None:
        """Do what is to be done after the evaluation of an epoch."""
        if self.keep_best:
            self._keep_best()
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(sum(test_loss) / len(test_loss) if isinstance(test_loss, list) else test_loss)
        elif self.scheduler is not None:
            self.scheduler.step()
        for callback in self.callbacks:
            if _is_true(callback(self.model, self.history)) and not self.history.stopped:
                self.history.stopped = getattr(callback, "__name__", type(callback).__name__)

    def _keep_best(self) -> None:
        """Keep the values of a model, or of those members of an ensemble, of which this was the best epoch so far."""
        history = self.history
        if not isinstance(self.model, Ensemble):
            if history.best_epoch == history.epochs:
                self.best = copy.deepcopy(self.model.state_dict())
            return
        best = [k for k in range(self.model.size) if history.member(k).best_epoch == history.epochs]
        self.best = {} if self.best is None else self.best
        take_over(self.model, self.best, best)

    def restore_best(self) -> None:
        """Give the model the values of its best epoch, each member of an ensemble those of its own."""
        if self.best is not None and isinstance(self.model, Ensemble):
            give_back(self.model, self.best)
        elif self.best is not None:
            self.model.load_state_dict(self.best)

    def save(self, path: Path, epochs: int) -> None:
        """Write a checkpoint beside its place, then move it there: a killed run leaves the last whole one.

        Of several processes that train one model the first writes, also what is the others' own.
        """
        first, *others = _of_all_processes(self._of_this_process())
        if _process() > 0:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            **first,
            "others": others,
            "epochs": int(epochs),  # that are wanted
            "model": self.model.state_dict(),
            "settings": _settings(self.model),
            "optimizer": _plain(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else _plain(self.scheduler.state_dict()),
            "kind of scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "callbacks": [_plain(c.state_dict()) if hasattr(c, "state_dict") else None for c in self.callbacks],
            "best": self.best,
            "halted": sorted(self.model.halted) if isinstance(self.model, Ensemble) else [],
        }
        temporary = path.with_name(path.name + ".partial")
        torch.save(state, temporary)
        if not self.reads:
            _check_readable(temporary, state)
            self.reads = True
        os.replace(temporary, path)

    def _of_this_process(self) -> dict[str, Any]:
        """Return its losses, and where its generators stand: PyTorch's, and those that a data set may use."""
        of_numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002, the global one, which a data set may use
        key = torch.from_numpy(of_numpy["state"]["key"].astype(np.int64))  # a file that loads as weights has tensors
        return {
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
            "random_python": random.getstate(),
            "random_numpy": {**of_numpy, "state": {**of_numpy["state"], "key": key}},
            "order": [generator.get_state() for generator in self.generators],
            "history": dataclasses.asdict(self.history),
        }

    def _draw_on(self, state: dict[str, Any], order: list) -> None:
        """Let the generators of this process go on from there."""
        torch.set_rng_state(state["random"])
        torch.cuda.set_rng_state_all(state["random_cuda"][: torch.cuda.device_count()])
        if "random_python" in state:  # else of an earlier version
            random.setstate(state["random_python"])
            of_numpy = state["random_numpy"]
            key = of_numpy["state"]["key"].numpy().astype(np.uint32)
            np.random.set_state({**of_numpy, "state": {**of_numpy["state"], "key": key}})  # noqa: NPY002
        for generator, saved in zip(self.generators, order, strict=True):
            generator.set_state(saved)

    def resume(self, path: Path, epochs: int) -> None:
        """Go on where a checkpoint was written. If it is refused, the model is as it was.

        Raises:
            ValueError: if it holds more epochs than are wanted, or was written by another kind of run or by another
                number of processes.
            RuntimeError: if it is of another model.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, EOFError, RuntimeError, OSError, struct.error) as error:
            raise ValueError(f"checkpoint: expected a file that fit has written, got {path}, not readable") from error
        if not isinstance(state, dict) or not {"model", "optimizer", "order", "history"} <= state.keys():
            raise ValueError(f"checkpoint: expected a file that fit has written, got {path}, which has other entries")
        written, processes = 1 + len(state.get("others", [])), _processes()
        if written != processes:
            raise ValueError(f"checkpoint: expected the {written} processes that wrote {path}, got {processes}")
        if _process() > 0:
            state |= state["others"][_process() - 1]
        order = state["order"] if isinstance(state["order"], list) else [state["order"]]  # of 0.1.0: one or None
        order = [saved for saved in order if saved is not None]
        self._check_kind(path, state, order)
        self._check_settings(path, state.get("settings"))
        history = History(**state["history"])
        if history.epochs > epochs:
            raise ValueError(f"epochs: expected at least the {history.epochs} of the checkpoint {path}, got {epochs}")
        if epochs > state.get("epochs", epochs):  # more than were wanted when a callback ended the run
            history.stopped = ""
        before = copy.deepcopy(self.model.state_dict())
        buffers = [(module._buffers, dict(module._buffers)) for module in self.model.modules()]
        try:
            self.model.load_state_dict(state["model"])
            self._check_constraints(path, state["model"])
            _check_optimizer(path, self.optimizer, state["optimizer"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
            for callback, saved in zip(self.callbacks, state.get("callbacks", []), strict=True):
                if saved is not None:
                    callback.load_state_dict(saved)
        except Exception:  # of whatever kind: modules of a user's own load as they like
            for present, kept in buffers:  # one value may have become one for each neuron, in another tensor
                present.update(kept)
            self.model.load_state_dict(before)
            raise
        if isinstance(self.model, Ensemble):
            for k in state.get("halted", []):
                self.model.halt(k)
        self._draw_on(state, order)
        self.history, self.best = history, state.get("best")

    def _check_kind(self, path: Path, state: dict, order: list) -> None:
        kind = state.get("kind of scheduler")
        pairs = {
            "generator": (len(order), len(self.generators)),
            "scheduler": (state.get("scheduler") is not None, self.scheduler is not None),
            "kind of scheduler": (kind, type(self.scheduler).__name__ if kind else None),
            "callbacks": (
                [saved is not None for saved in state.get("callbacks", [])],
                [hasattr(callback, "state_dict") for callback in self.callbacks],
            ),
            "restore_best": (state.get("best") is not None, self.keep_best),
        }
        for name, (expected, got) in pairs.items():
            if expected != got:
                raise ValueError(f"{name}: expected one as in the checkpoint {path} ({expected}), got {got}")

    def _check_settings(self, path: Path, saved: dict[str, str] | None) -> None:
        """Check what changes numbers and is no part of a module's state; a file of version 0.1.0 has none of it."""
        now = _settings(self.model)
        saved = now if saved is None else saved
        for name, got in now.items():
            if (expected := saved.get(name)) != got:
                expected = f"the settings of the checkpoint {path} ({expected})"
                raise ValueError(f"{name or 'model'}: expected {expected}, got {got}")

    def _check_constraints(self, path: Path, state: dict) -> None:
        for name, parameter in self.model.named_parameters():
            module, _, last = name.rpartition(".")
            saved = None if f"{module}.parametrizations.{last}.original" in state else state.get(name)
            if saved is None or not torch.equal(parameter.detach(), saved.to(parameter)):
                raise ValueError(
                    f"{name}: expected the constraint, its range and time step of the checkpoint {path}, got others, "
                    "for which its optimiser state has no meaning; to start from its values, load its 'model' alone"
                )


def _settings(model: nn.Module) -> dict[str, str]:
    """Return the neuron and the time step of each cell, layer and delay, and how gradients are computed."""
    names = ("dt", "gradient", "detach_reset", "autapses")
    found = {}
    for path, part in model.named_modules():
        if isinstance(part, HasState):
            texts = [f"{name}={getattr(part, name)!r}" for name in names if hasattr(part, name)]
            if isinstance(neuron := getattr(part, "neuron", None), type):
                # of a neuron of the user's own the step, too, which may have changed under the same name
                own = "" if neuron.__module__.startswith("snnparams.") else f" {getattr(neuron, 'program', '')}"
                texts.insert(0, f"neuron={neuron.__qualname__}{own}")
            found[path] = ", ".join(texts)
    return found


def _is_true(found: Any) -> bool:
    """Return whether a callback has returned True, which comparing NumPy's numbers or tensors makes one of theirs."""
    if isinstance(found, torch.Tensor):
        return found.dtype == torch.bool and found.numel() == 1 and bool(found)
    return isinstance(found, (bool, np.bool_)) and bool(found)


def _plain(state: Any) -> Any:
    """Return a state with NumPy's numbers as Python's, which `torch.load` reads as weights."""
    if isinstance(state, np.generic):
        return state.item()
    if type(state) in (dict, OrderedDict, Counter):
        made = {_plain(key): _plain(value) for key, value in state.items()}
        return made if type(state) is dict else type(state)(made)
    if type(state) in (list, tuple):
        return type(state)(map(_plain, state))
    return state


def _check_readable(path: Path, state: dict[str, Any]) -> None:
    """Check that a checkpoint can be read again, before days of training depend on it.

    Raises:
        TypeError: with the entry that cannot.
    """
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of whatever kind: pickles have many
        path.unlink()
        for name, part in state.items():
            buffer = io.BytesIO()
            torch.save(part, buffer)
            buffer.seek(0)
            try:
                torch.load(buffer, map_location="cpu", weights_only=True)
            except Exception as own:
                expected = f"{name}: expected a state of numbers, texts, tensors, lists and dictionaries"
                raise TypeError(f"{expected}, which a checkpoint can hold, got another: {_reason(own)}") from None
        raise TypeError(f"checkpoint: expected one that can be read again, got {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return what `torch.load` could not read, without its advice to read it unsafely."""
    found = re.search(r"Unsupported \w+: (.*?)(?: was not|\n|$)|GLOBAL (\S+)", str(error))
    return next(filter(None, found.groups()), str(error)) if found else str(error).partition("\n")[0]


def check_optimizer(model: nn.Module, optimizer: Any) -> None:
    """Check that an optimiser is one, and one of this model.

    Raises:
        TypeError: if it is none.
        ValueError: if it has no parameter of the model, which then would learn nothing.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected one of torch.optim, got {type(optimizer).__name__}")
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError("optimizer: expected parameters of the model, got none of them; was it made for another one?")


def _processes() -> int:
    """Return how many processes train one model."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _process() -> int:
    return torch.distributed.get_rank() if _processes() > 1 else 0


def _of_all_processes(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each of the processes has found."""
    every: list[Any] = [found] * _processes()
    if len(every) > 1:
        torch.distributed.all_gather_object(every, found)
    return every


def _check_optimizer(path: Path, optimizer, saved: dict) -> None:
    """Check that an optimiser is of the kind whose state a checkpoint holds."""

    def kind(groups) -> list[tuple]:
        return [(len(group["params"]), *sorted(set(group) - {"params", "initial_lr"})) for group in groups]

    expected, got = kind(saved["param_groups"]), kind(optimizer.state_dict()["param_groups"])
    if expected != got:
        raise ValueError(
            f"optimizer: expected one as in the checkpoint {path}, with groups of {expected} (number of parameters, "
            f"options), got {got}"
        )
