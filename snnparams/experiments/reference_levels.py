"""What others reach on a task: the levels that an accuracy has to be seen beside. Explained in chapter 6.

`counts` and `all_bins` say what the input contains for a linear classifier; `linear_filters` what a population
of equal linear neurons would pass on; `gru` what a trained recurrent network of the same size can do.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.signal import lfilter
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from snnparams.data.mnist import Split
from snnparams.data.task import Task
from snnparams.experiments.designs import FAST
from snnparams.experiments.trial import Training, make_task, measure, one_thread, train_module

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the logistic regression: the larger, the weaker its penalty
Features = Callable[[np.ndarray, int], np.ndarray]  # of spikes (T, B, I), and the step at which an answer is due


def _features(task: Task, split: Split, features: Features, due: int) -> np.ndarray:
    parts = [features(task.encode(x).to_dense().numpy(), due) for x in split.inputs.split(500)]
    return np.concatenate(parts)


def _logistic(task: Task, features: Features) -> dict:
    """Return the accuracy on validation and test split of logistic regression, one for each answer."""
    dues = [due for due, _ in task.answers] if task.answers else [task.steps - 1]
    cache: dict[int, list[np.ndarray]] = {}
    results = []
    for k, due in enumerate(dues):
        if due not in cache:
            x = [_features(task, split, features, due) for split in (task.train, task.validation, task.test)]
            scaler = StandardScaler().fit(x[0])
            cache = {due: [scaler.transform(part) for part in x]}  # only the last one is needed again
        x = cache[due]
        y = [s.labels[:, k] if task.answers else s.labels for s in (task.train, task.validation, task.test)]
        fits = []
        for strength in STRENGTHS:
            with warnings.catch_warnings():  # nearly converged is as good, and validation chooses
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = LogisticRegression(C=strength, max_iter=200).fit(x[0], y[0].numpy())
            fits.append((model.score(x[1], y[1].numpy()), model.score(x[2], y[2].numpy()), strength))
        results.append(max(fits, key=lambda fit: fit[0]))  # of equally good ones the strongest penalty
    validation, test, strengths = (list(column) for column in zip(*results, strict=True))
    return {"validation": float(np.mean(validation)), "test": float(np.mean(test)), "strength": strengths}


def counts(task: Task) -> dict:
    """Return what logistic regression reaches on the number of spikes of each input, until the answer is due.

    Args:
        task: its penalty is chosen on the validation split, the strongest of equally good ones.

    Returns:
        Accuracy on the `validation` and on the `test` split, and the `strength` of the penalty for each answer.
    """
    return _logistic(task, lambda x, due: x[: due + 1].sum(axis=0))


def all_bins(task: Task, bins: int = 20) -> dict:
    """Return what logistic regression reaches on the spikes of each input in each of several bins of time.

    On a generated task it may exceed every network; on recordings a network below it is no judge of anything.

    Args:
        task: its penalty is chosen on the validation split.
        bins: number of equal parts of the time until the answer is due.

    Returns:
        As `counts`.

    Raises:
        ValueError: if there are more bins than time steps, or none.
    """
    if not 1 <= bins <= task.steps:
        raise ValueError(f"bins: expected 1 to {task.steps}, the time steps of the task, got {bins}")

    def binned(x: np.ndarray, due: int) -> np.ndarray:
        edges = np.unique(np.arange(bins) * (due + 1) // bins)
        return np.add.reduceat(x[: due + 1], edges).transpose(1, 0, 2).reshape(x.shape[1], -1)

    return _logistic(task, binned)


def linear_filters(
    task: Task, tau_mem: Sequence[float] = (2, 4, 10, 30), tau_syn: Sequence[float] = (5, 10, 20, 40, 80)
) -> dict:
    """Return what the networks' readout reaches on equal linear neurons, as many as one likes.

    Equal linear neurons give a readout the inputs through one filter, and any weighted sum of these. So logistic
    regression on the filtered inputs stands for a network of any number of them. For a task with classes
    the readout is a mean over time.

    Args:
        task: time constants and penalty are chosen on the validation split.
        tau_mem: membrane time constants to choose from, in time steps.
        tau_syn: synaptic ones.

    Returns:
        As `counts`, with the chosen `tau_mem` and `tau_syn`.
    """
    found = []
    for mem, syn in itertools.product(tau_mem, tau_syn):
        kernel = lfilter([1 / mem], [1, -(1 - 1 / mem)], np.eye(1, task.steps)[0])
        kernel = lfilter([1], [1, -(1 - 1 / syn)], kernel)
        kernel = lfilter([1], [1, -(1 - 1 / FAST)], kernel)

        def filtered(x: np.ndarray, due: int, kernel=kernel) -> np.ndarray:
            by_lag = kernel[: due + 1] if task.answers else kernel.cumsum()[: due + 1]
            return np.tensordot(by_lag[::-1], x[: due + 1], axes=1)

        found.append(_logistic(task, filtered) | {"tau_mem": mem, "tau_syn": syn})
    return max(found, key=lambda result: result["validation"])


class GRU(nn.Module):
    """A gated recurrent unit with the interface of `snnparams.experiments.networks.Network`; its "spikes" are empty.

    Args:
        task: what it shall do.
        hidden: number of units.
        readout: what classes are read from: the "mean" over time, or the maximum, "max".

    Raises:
        ValueError: if the readout is another.
    """

    def __init__(self, task: Task, hidden: int, readout: str = "mean") -> None:
        super().__init__()
        if readout not in ("mean", "max"):
            raise ValueError(f"readout: expected 'mean' or 'max', got {readout!r}")
        self.gru, self.out = nn.GRU(task.features, hidden), nn.Linear(hidden, task.outputs)
        self.answers, self.readout = task.answers, readout

    def forward(self, spikes: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return logits, (B, A) or (B, O), and no hidden spikes."""
        outputs = self.out(self.gru(spikes)[0])
        if not self.answers:
            return outputs.mean(dim=0) if self.readout == "mean" else outputs.amax(dim=0), []
        return torch.stack([outputs[due, :, output] for due, output in self.answers], dim=1), []


def gru_size(task: Task, parameters: int) -> int:
    """Return the largest number of units with which a GRU has no more than so many learned numbers, at least 1."""
    inputs, outputs = task.features, task.outputs
    b = inputs + 2 + outputs / 3
    return max(1, math.floor((-b + math.sqrt(b**2 + 4 * (parameters - outputs) / 3)) / 2))


def gru(
    task: Task,
    parameters: int,
    seed: int,
    learning_rates: Sequence[float] = (3e-3, 1e-2, 3e-2),
    epochs: int = 15,
    batch_size: int = 100,
    readout: str = "mean",
) -> dict:
    """Return what a GRU of a given size reaches, with the learning rate that does best on the validation split.

    Args:
        task: what it shall do.
        parameters: learned numbers that it may have.
        seed: of weights and order.
        learning_rates: to choose from.
        epochs: passes over the training split.
        batch_size: inputs in a batch.
        readout: of classes, "mean" or "max" over time.

    Returns:
        Accuracy on the `validation` and the `test` split, `hidden` units, the `learning_rate`, and `curve`, the
        accuracy on the validation split after each epoch.
    """
    found = []
    for learning_rate in learning_rates:
        torch.manual_seed(seed)
        network = GRU(task, gru_size(task, parameters), readout)
        curve: list[float] = []
        training = Training(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)

        def after_epoch(network=network, curve=curve) -> None:
            curve.append(measure(network, task, task.validation)["accuracy"])

        train_module(network, [list(network.parameters())], [learning_rate], task, training, seed, after_epoch)
        found.append(
            {
                "validation": curve[-1],
                "test": measure(network, task, task.test)["accuracy"],
                "hidden": network.gru.hidden_size,
                "learning_rate": learning_rate,
                "curve": curve,
            }
        )
    return max(found, key=lambda result: result["validation"])


def run_reference(cell: dict) -> dict:
    """Return one reference level of a task.

    Args:
        cell: `task`, its name and options; `level`, "chance", "counts", "linear", "linear filters" or "gru"; and
            `options` of that level: the number of `parameters` and the `seed` of a GRU, say.

    Raises:
        ValueError: if there is no such level.
    """
    levels: dict[str, Callable[..., dict]] = {
        "counts": counts,
        "linear": all_bins,
        "linear filters": linear_filters,
        "gru": gru,
    }
    with one_thread():
        task = make_task(json.dumps(cell["task"], sort_keys=True))
        if cell["level"] == "chance":
            return {"test": task.chance}
        if cell["level"] not in levels:
            raise ValueError(f"level: expected chance, {', '.join(levels)}, got {cell['level']!r}")
        return levels[cell["level"]](task, **cell["options"])
