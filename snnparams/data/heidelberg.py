"""Spiking Heidelberg Digits (SHD): spoken digits as spikes of 700 channels of an artificial ear, from one's own file.

Nothing is downloaded, and nothing in the book needs the data: a grid entry for it is there for who has them.

References:
    B. Cramer, Y. Stradmann, J. Schemmel and F. Zenke (2022), "The Heidelberg spiking data sets for the systematic
    evaluation of spiking neural networks", IEEE TNNLS 33, doi 10.1109/TNNLS.2020.3044364.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch

from snnparams.data.mnist import CorruptDataError, Split
from snnparams.data.task import Task, encode_bits

CHANNELS, CLASSES = 700, 20
ADDRESS = "https://zenkelab.org/datasets"


def _read(path: Path, steps: int, seconds: float, pool: int) -> Split:
    """Return the bits and labels of a file."""
    import h5py

    if not path.is_file():
        hint = f"curl -L {ADDRESS}/{path.name}.gz | gunzip > {path}"
        raise FileNotFoundError(f"expected the Spiking Heidelberg Digits in {path}, which is not there. Get it: {hint}")
    try:
        with h5py.File(path, "r") as file:
            times, units = file["spikes"]["times"][:], file["spikes"]["units"][:]
            labels = file["labels"][:]
    except (OSError, KeyError) as error:
        raise CorruptDataError(f"{path}: expected spikes/times, spikes/units and labels: {error}") from None
    if not len(times) == len(units) == len(labels):
        found = f"{len(times)}, {len(units)} and {len(labels)}"
        raise CorruptDataError(f"{path}: expected as many times, units and labels, got {found}")
    bits = torch.zeros(len(labels), steps, CHANNELS // pool, dtype=torch.bool)
    for row, time, unit in zip(bits, times, units, strict=True):
        step = (torch.as_tensor(time, dtype=torch.float64) * (steps / seconds)).long()
        channel = torch.as_tensor(unit.astype("int64"))
        if len(channel) and not 0 <= int(channel.min()) <= int(channel.max()) < CHANNELS:
            raise CorruptDataError(f"{path}: expected channels 0 to {CHANNELS - 1}, got {int(channel.max())}")
        inside = step < steps
        row[step[inside], channel[inside] // pool] = True
    return Split(bits, torch.as_tensor(labels.astype("int64")))


def spiking_heidelberg_digits(
    folder: str | os.PathLike,
    steps: int = 100,
    seconds: float = 1.0,
    pool: int = 10,
    validation: float = 0.1,
    seed: int = 0,
) -> Task:
    """Spiking Heidelberg Digits, from the files `shd_train.h5` and `shd_test.h5` of the user.

    Args:
        folder: where the two files are.
        steps: number of time steps T.
        seconds: how much of each recording is taken; what comes later is cut off.
        pool: neighbouring channels that become one input, a divisor of 700. Spikes that fall into one step become one.
        validation: share of the training recordings kept for choices, chosen at random. The official test split has
            two speakers that are in no other.
        seed: of that choice.

    Raises:
        ModuleNotFoundError: if h5py is not installed: `pip install 'h5py>=3.8,<4'`.
        FileNotFoundError: if a file is not there; the message says how to get it.
        CorruptDataError: if a file holds something else.
        ValueError: if an argument is out of range.
    """
    if steps < 1 or not seconds > 0 or pool < 1 or CHANNELS % pool or not 0 < validation < 1:
        raise ValueError(
            f"steps, seconds, pool, validation: expected positive numbers, a divisor of {CHANNELS} and a share, got "
            f"{steps}, {seconds}, {pool}, {validation}"
        )
    if importlib.util.find_spec("h5py") is None:
        raise ModuleNotFoundError("expected the package h5py to read HDF5 files: pip install 'h5py>=3.8,<4'")
    split = _read(Path(folder) / "shd_train.h5", steps, seconds, pool)
    test = _read(Path(folder) / "shd_test.h5", steps, seconds, pool)
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))
    count = max(1, round(validation * len(order)))
    learn, choose = (Split(split.inputs[rows], split.labels[rows]) for rows in (order[count:], order[:count]))
    return Task("spiking heidelberg digits", learn, choose, test, encode_bits, CHANNELS // pool, steps, CLASSES)
