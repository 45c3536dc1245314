"""What a task is: three splits, and how a batch of its inputs becomes spikes. Explained in chapter 6."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from snnparams.data.mnist import Split


def encode_bits(bits: torch.Tensor) -> torch.Tensor:
    """Return bits (B, T, I) as spikes (T, B, I)."""
    return bits.transpose(0, 1).float()


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task: one label for each input, or several binary answers.

    Args:
        name: what it is called.
        train: inputs (N, ...) and labels to learn from: (N,), or 0 and 1, (N, A), where there are A answers.
        validation: those for choices.
        test: those for the one last measurement.
        encode: turns a batch of inputs (B, ...) into spikes (T, B, I).
        features: number of inputs I of the network.
        steps: number of time steps T.
        classes: number of classes.
        answers: where each input asks for several binary answers, time step and output (from 0) of each of them.
            `()` where it asks for one class.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    encode: Callable[[torch.Tensor], torch.Tensor]
    features: int
    steps: int
    classes: int = 10
    answers: tuple[tuple[int, int], ...] = ()

    @property
    def outputs(self) -> int:
        """Number of outputs that a network needs, one for each class or those that the answers name."""
        return max(output for _, output in self.answers) + 1 if self.answers else self.classes

    def to(self, device: torch.device | str) -> Task:
        """Return the task on another device."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return dataclasses.replace(self, **splits)

    @property
    def chance(self) -> float:
        """Accuracy on the test split of the best answer that does not look at the input; a mean over answers."""
        if self.answers:
            ones = self.test.labels.double().mean(dim=0)
            return torch.maximum(ones, 1 - ones).mean().item()
        return self.test.labels.bincount().max().item() / len(self.test.labels)
