"""Data sets as tensors in memory.

MNIST is 55 MB of bytes: load it once, index it per batch. `load_mnist` looks in this order: the folder that
the environment variable `SNNPARAMS_DATA` names; the local cache; torchvision's download into that cache; and,
only where MNIST cannot be had, scikit-learn's bundled 8x8 digits, announced in a notice. Explained in chapter 4.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from snnparams.folders import cache_folder, given_folder

MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""The four files of MNIST, uncompressed, and their MD5 checksums."""

MEAN, DEVIATION = 0.1307, 0.3081  # of its pixels, from 0 to 1

DIGITS_NOTICE = (
    "NOTICE: MNIST could not be had ({reason}). Using scikit-learn's bundled 8x8 digits (1,797 images) scaled to "
    "28x28 instead: the figures and accuracies below are then not MNIST's."
)

DOWNLOAD_TIMEOUT = 30.0  # s without an answer, after which a mirror counts as unreachable


class Split(NamedTuple):
    """Inputs and labels of one part of a data set."""

    inputs: torch.Tensor  # (N, ...): images, sound, spike times
    labels: torch.Tensor  # int64, (N,)

    def to(self, device: torch.device | str) -> Split:
        """Return the split on another device."""
        return Split(self.inputs.to(device), self.labels.to(device))


class Digits(NamedTuple):
    """A data set of handwritten digits: what it is, and its two parts."""

    name: str  # "MNIST", or "digits" for the bundled substitute
    train: Split
    test: Split


class CorruptDataError(RuntimeError):
    """A data file is missing, truncated or not what it should be."""


def _faults(raw: Path) -> list[str]:
    """Return what is wrong with the four MNIST files in `raw`, one line for each."""
    faults = []
    for name, expected in MNIST_MD5.items():
        path = raw / name
        if not path.is_file():
            faults.append(f"{path} is missing")
            continue
        content = path.read_bytes()
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != expected:
            faults.append(f"{path} is corrupt or truncated: expected md5 {expected}, got {found}, {len(content)} bytes")
    return faults


def _read(raw: Path) -> Digits:
    from torchvision.datasets.mnist import read_image_file, read_label_file  # torchvision is slow to import

    def split(prefix: str) -> Split:
        return Split(
            read_image_file(str(raw / f"{prefix}-images-idx3-ubyte")),
            read_label_file(str(raw / f"{prefix}-labels-idx1-ubyte")),
        )

    return Digits("MNIST", split("train"), split("t10k"))


@contextlib.contextmanager
def _timeout(seconds: float):
    """Give sockets a time limit: torchvision sets none, and an unanswered connection would block for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download(raw: Path) -> None:
    """Download MNIST with torchvision, check it, and only then move it into `raw`, file by file."""
    from torchvision.datasets import MNIST

    raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw.parent) as folder, _timeout(DOWNLOAD_TIMEOUT):
        MNIST(folder, train=True, download=True)
        fresh = Path(folder) / "MNIST" / "raw"
        if faults := _faults(fresh):
            raise CorruptDataError("the download is not MNIST: " + "; ".join(faults))
        for name in MNIST_MD5:
            os.replace(fresh / name, raw / name)


def _bundled_digits() -> Digits:
    """Return scikit-learn's digits as 28x28 bytes; of each class the last fifth is the test part."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16  # (N, 1, 8, 8), 0 to 1
    large = torch.nn.functional.interpolate(small, size=20, mode="bilinear", align_corners=False)
    images = (torch.nn.functional.pad(large, (4, 4, 4, 4))[:, 0] * 255).round().to(torch.uint8)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        members = (labels == digit).nonzero().flatten()
        is_test[members[-(len(members) // 5) :]] = True
    return Digits("digits", Split(images[~is_test], labels[~is_test]), Split(images[is_test], labels[is_test]))


def _raw_folder(root: Path) -> Path:
    return root / "MNIST" / "raw"


def load_mnist(cache: str | os.PathLike | None = None) -> Digits:
    """Load MNIST as tensors.

    Args:
        cache: folder for the download, instead of `cache_folder()`. Nothing is downloaded where the environment
            variable `SNNPARAMS_OFFLINE` is set.

    Returns:
        A `Digits` with `train` (60,000) and `test` (10,000), each `inputs` (uint8, (N, 28, 28)) and `labels`
        (int64, (N,)). Its `name` is "MNIST", or "digits" where the bundled digits stand in for it; then a notice
        has been printed.

    Raises:
        FileNotFoundError: if `SNNPARAMS_DATA` names a folder that does not exist. (One without `MNIST/raw` is
            announced and passed over: it may hold other data sets.)
        NotADirectoryError: if it names a file.
        PermissionError: if a data folder cannot be read.
        CorruptDataError: if the files in `SNNPARAMS_DATA` are incomplete or not MNIST's. They are left alone. A
            corrupt cache is downloaded again instead.
        RuntimeError: if no cache is given and there is no home directory for one.
    """
    root = given_folder()
    if root is not None:
        raw = _raw_folder(root)
        if raw.is_dir():  # a folder with other data sets only is no mistake
            if faults := _faults(raw):
                hint = "Copy the files anew, or unset SNNPARAMS_DATA to download them"
                raise CorruptDataError(f"{'; '.join(faults)}. {hint}.")
            return _read(raw)
        print(f"SNNPARAMS_DATA: {root} has no folder MNIST/raw; looking elsewhere.")

    raw = _raw_folder(cache_folder() if cache is None else Path(cache))
    if not _faults(raw):
        return _read(raw)
    if raw.is_dir() and any(raw.iterdir()):
        print(f"The cached MNIST in {raw} is incomplete or corrupt, and is not used but replaced by a download.")
    reason = "SNNPARAMS_OFFLINE is set"
    if not os.environ.get("SNNPARAMS_OFFLINE"):
        try:
            _download(raw)
            return _read(raw)
        except (OSError, RuntimeError, http.client.HTTPException) as error:  # no network, no mirror, no room
            reason = f"the download failed: {(str(error) or type(error).__name__).splitlines()[0]}"
    print(DIGITS_NOTICE.format(reason=reason))
    return _bundled_digits()
