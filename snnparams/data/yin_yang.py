"""The Yin-Yang data set: three classes in a plane, told apart by a small network, and as input spikes.

Generated, not downloaded: Kriener, Göltz and Petrovici (2022). Used in chapter 7.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from snnparams.data.mnist import Split
from snnparams.data.task import Task
from snnparams.parameters.settings import check_dt

CLASSES = ("yin", "yang", "dot")
SEEDS = {"train": (42, 5000), "validation": (41, 1000), "test": (40, 1000)}  # those of the authors, with the sizes


def classify(x: float, y: float) -> int:
    """Return the class of a point of the disc of radius 0.5 around (0.5, 0.5)."""
    right, left = np.hypot(x - 0.75, y - 0.5), np.hypot(x - 0.25, y - 0.5)
    if min(right, left) < 0.1:
        return 2
    return int(right <= 0.1 or 0.1 < left <= 0.25 or (y > 0.5 and right > 0.25))


def yin_yang_points(part: str) -> Split:
    """Return a part of the data set, with the numbers that the authors' program draws.

    Args:
        part: "train" (5000 points), "validation" (1000) or "test" (1000).

    Returns:
        Points in the plane, float32, (N, 2), from 0 to 1, and their classes, int64, (N,), an index into `CLASSES`. The
        three are about equally frequent.

    Raises:
        ValueError: if there is no such part.
    """
    if part not in SEEDS:
        raise ValueError(f"part: expected one of {', '.join(SEEDS)}, got {part!r}")
    seed, size = SEEDS[part]
    random = np.random.RandomState(seed)  # the authors' generator
    points, labels = np.empty((size, 2)), np.empty(size, np.int64)
    for k in range(size):
        wanted = random.randint(3)
        while True:
            x, y = random.rand(2)
            if np.hypot(x - 0.5, y - 0.5) <= 0.5 and classify(x, y) == wanted:
                break
        points[k], labels[k] = (x, y), wanted
    return Split(torch.from_numpy(points).float(), torch.from_numpy(labels))


def latency_encode(
    points: torch.Tensor, steps: int, dt: float, earliest: float = 0.01, latest: float = 0.04, bias: float = 0.02
) -> torch.Tensor:
    r"""Turn points into spikes whose times are their coordinates.

    Five inputs spike once each: for x, y, 1 - x and 1 - y at
    :math:`t_\mathrm{earliest} + x \, (t_\mathrm{latest} - t_\mathrm{earliest})`, and a bias at a time of its own. A
    spike that falls between two steps is shared between them, more to the nearer one, so that no resolution is lost.

    Args:
        points: coordinates from 0 to 1, shape (B, 2).
        steps: number of time steps T.
        dt: time step in s.
        earliest: time of a coordinate of 0 in s.
        latest: time of a coordinate of 1 in s.
        bias: time of the fifth input's spike in s.

    Returns:
        Spikes, shape (T, B, 5), whose sum over time is 1.

    Raises:
        ValueError: if the shape is another, or a spike would come before the first or after the last step.
    """
    if points.dim() != 2 or points.shape[1] != 2:
        raise ValueError(f"points: expected shape (B, 2), got {tuple(points.shape)}")
    check_dt(dt)
    coordinates = torch.cat([points, 1 - points], dim=1)
    times = torch.nn.functional.pad(earliest + coordinates * (latest - earliest), (0, 1), value=bias) / dt
    step = times.floor().long()
    if step.min() < 0 or step.max() >= steps - 1:
        low, high = times.min().item(), times.max().item()
        raise ValueError(f"points: expected spikes in steps 0 to {steps - 1}, got some from {low:g} to {high:g}")
    share = times - step
    spikes = torch.zeros(steps, *step.shape, dtype=points.dtype, device=points.device)
    return spikes.scatter_(0, torch.stack([step, step + 1]), torch.stack([1 - share, share]))


def yin_yang(steps: int = 120, dt: float = 0.5e-3) -> Task:
    """Yin-Yang: points in the plane, whose coordinates are the times of single spikes; see `latency_encode`. Generated.

    Args:
        steps: number of time steps T.
        dt: time step in s.

    Returns:
        A task whose inputs are points (N, 2): 5000 to learn from, 1000 for choices and 1000 for the last measurement.
    """
    encode = functools.partial(latency_encode, steps=steps, dt=dt)
    train, validation, test = map(yin_yang_points, SEEDS)
    return Task("yin-yang", train, validation, test, encode, features=5, steps=steps, classes=len(CLASSES))
