"""Spoken digits: the Free Spoken Digit Dataset, and sound as spikes of frequency bands.

3,000 recordings of 6 speakers, mono, 8 kHz, 16 bits. `load_spoken_digits` looks in this order: the folder `FSDD` in
the folder that the environment variable `SNNPARAMS_DATA` names; the local cache; a download of the tagged archive
into that cache. All recordings are checked, wherever they come from. What `loudness` makes of them takes longer than
all else, and is kept beside them.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import math
import os
import re
import shutil
import tarfile
import tempfile
import urllib.request
import uuid
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import torch

from snnparams.data.mnist import DOWNLOAD_TIMEOUT, CorruptDataError
from snnparams.folders import cache_folder, given_folder
from snnparams.parameters.settings import check_counts, is_number

FSDD_URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"
FSDD_SHA256 = "ddb17656a0bca4c5ddace082be188ca630516dc2ef1110afe3c4e9cc71173de4"
"""Of the contents of all recordings, one after the other in the order of their names."""
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
RECORDINGS = tuple(sorted(f"{d}_{speaker}_{k}.wav" for d in range(10) for speaker in SPEAKERS for k in range(50)))
SAMPLE_RATE = 8000  # Hz
LARGEST_DOWNLOAD = 200 * 2**20  # bytes; the archive has about 16 MB


class SpokenDigits(NamedTuple):
    """Recordings of spoken digits, in the order of their file names."""

    waves: list[torch.Tensor]  # int16, each (samples,), at 8 kHz
    digits: torch.Tensor  # int64, (N,)
    speakers: torch.Tensor  # int64, (N,), an index into SPEAKERS
    indices: torch.Tensor  # int64, (N,), 0 to 49: which repetition; 0 to 4 are the official test split


def read_wave(content: bytes, name: str) -> torch.Tensor:
    """Return the samples (int16) of a recording, checked.

    Args:
        content: a file in the WAV format.
        name: what to call it in an error.

    Raises:
        CorruptDataError: if it is no WAV file, is cut off or empty, or not mono with 16 bits at 8 kHz.
    """
    try:
        with wave.open(io.BytesIO(content)) as file:
            layout = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            frames, data = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise CorruptDataError(
            f"{name}: expected a WAV file, got {len(content)} bytes that are none ({error})"
        ) from None
    if layout != (1, 16, SAMPLE_RATE):
        got = "{} channels, {} bits, {} Hz".format(*layout)
        raise CorruptDataError(f"{name}: expected 1 channel, 16 bits, {SAMPLE_RATE} Hz, got {got}")
    if not frames or len(data) != 2 * frames:
        raise CorruptDataError(f"{name}: expected {max(frames, 1)} samples, got {len(data) // 2}; the file is cut off")
    return torch.frombuffer(bytearray(data), dtype=torch.int16)


def _read(folder: Path) -> SpokenDigits:
    """Read all recordings of a folder and check them, each by itself and then all together."""
    missing = [name for name in RECORDINGS if not (folder / name).is_file()]
    if missing:
        raise CorruptDataError(
            f"{folder}: expected {len(RECORDINGS)} recordings, {len(missing)} are missing: {missing[0]}, ..."
        )
    contents = {name: (folder / name).read_bytes() for name in RECORDINGS}
    waves = [read_wave(content, str(folder / name)) for name, content in contents.items()]
    digest = hashlib.sha256(b"".join(contents.values())).hexdigest()
    if digest != FSDD_SHA256:
        raise CorruptDataError(f"{folder}: expected the recordings of v1.0.10, sha256 {FSDD_SHA256}, got {digest}")
    parts = [re.split("[_.]", name) for name in RECORDINGS]
    return SpokenDigits(
        waves,
        torch.tensor([int(digit) for digit, *_ in parts]),
        torch.tensor([SPEAKERS.index(speaker) for _, speaker, *_ in parts]),
        torch.tensor([int(index) for _, _, index, _ in parts]),
    )


def _download(folder: Path) -> SpokenDigits:
    """Download the archive, check the recordings in it, and only then move them into their place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        archive, fresh = Path(temporary) / "archive.tar.gz", Path(temporary) / "recordings"
        fresh.mkdir()
        with urllib.request.urlopen(FSDD_URL, timeout=DOWNLOAD_TIMEOUT) as answer, archive.open("wb") as file:
            while block := answer.read(2**20):
                file.write(block)
                if file.tell() > LARGEST_DOWNLOAD:
                    raise CorruptDataError(f"{FSDD_URL}: expected at most {LARGEST_DOWNLOAD} bytes, got more")
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if member.isfile() and member.size < 2**20 and name in RECORDINGS:  # nothing else reaches the disk
                    (fresh / name).write_bytes(cast(IO[bytes], tar.extractfile(member)).read())
        recordings = _read(fresh)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(fresh, folder)
    return recordings


def load_spoken_digits(cache: str | os.PathLike | None = None) -> SpokenDigits:
    """Load the Free Spoken Digit Dataset, version 1.0.10.

    Args:
        cache: folder for the download, instead of `cache_folder()`. Nothing is downloaded where the environment
            variable `SNNPARAMS_OFFLINE` is set.

    Raises:
        FileNotFoundError: if it is nowhere and cannot be downloaded, or `SNNPARAMS_DATA` names no folder.
        NotADirectoryError: if that is a file.
        PermissionError: if a data folder cannot be read.
        CorruptDataError: if recordings in `SNNPARAMS_DATA` are missing, cut off, of another sample rate, or not those
            of version 1.0.10. They are left alone. A corrupt cache is downloaded again instead.
    """
    root = given_folder()
    if root is not None and (root / "FSDD" / "recordings").is_dir():
        try:
            return _read(root / "FSDD" / "recordings")
        except CorruptDataError as error:
            hint = "Copy the recordings anew, or unset SNNPARAMS_DATA to download them"
            raise CorruptDataError(f"{error}. {hint}.") from None
    folder = (cache_folder() if cache is None else Path(cache)) / "FSDD" / "recordings"
    if folder.is_dir():
        try:
            return _read(folder)
        except CorruptDataError as error:
            print(f"The cached recordings are not used but replaced by a download: {error}")
    reason = "SNNPARAMS_OFFLINE is set"
    if not os.environ.get("SNNPARAMS_OFFLINE"):
        try:
            return _download(folder)
        except (OSError, http.client.HTTPException, tarfile.TarError, EOFError, zlib.error, CorruptDataError) as error:
            reason = f"the download failed: {(str(error) or type(error).__name__).splitlines()[0]}"
    raise FileNotFoundError(
        f"the Free Spoken Digit Dataset could not be had ({reason}). Unpack {FSDD_URL} and put its folder `recordings` "
        "into a folder FSDD in the folder that SNNPARAMS_DATA names"
    )


def mel_filters(bands: int, fft_size: int, sample_rate: float = SAMPLE_RATE) -> torch.Tensor:
    r"""Return triangular filters that are equally spaced on the mel scale, :math:`2595 \log_{10}(1 + f / 700)`.

    Args:
        bands: number of filters, from 0 Hz to half the sample rate.
        fft_size: number of samples of the Fourier transform.
        sample_rate: in Hz.

    Returns:
        Weights of the frequencies in each band, float64, shape (fft_size // 2 + 1, bands), at most 1.

    Raises:
        ValueError: if a band is so narrow that no frequency of the Fourier transform lies in it.
    """
    highest = 2595 * math.log10(1 + sample_rate / 2 / 700)
    mel = torch.linspace(0, highest, bands + 2, dtype=torch.float64)
    low, centre, high = (700 * (10 ** (mel / 2595) - 1)).unfold(0, 3, 1).unbind(1)  # Hz, each (bands,)
    f = torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)[:, None]
    filters = torch.minimum((f - low) / (centre - low), (high - f) / (high - centre)).clamp(min=0)
    if (empty := int((filters.sum(dim=0) == 0).sum())) > 0:
        raise ValueError(
            f"bands: expected fewer for an fft_size of {fft_size}, got {bands}, of which {empty} are empty"
        )
    return filters


def _check_recordings(waves: list[torch.Tensor]) -> None:
    for k, samples in enumerate(waves):
        if not isinstance(samples, torch.Tensor) or samples.is_complex() or samples.dtype == torch.bool:
            got = str(samples.dtype) if isinstance(samples, torch.Tensor) else type(samples).__name__
            raise TypeError(f"waves: expected tensors of real numbers, got {got} as number {k}")
        if samples.dim() != 1 or not samples.isfinite().all():
            got = f"shape {tuple(samples.shape)}" if samples.dim() != 1 else "one that is not finite"
            raise ValueError(f"waves: expected finite numbers of shape (samples,), got {got} as number {k}")


def mel_levels(
    waves: list[torch.Tensor],
    steps: int = 200,
    bands: int = 32,
    hop: int = 40,
    window: int = 200,
    decibel: float = 40.0,
    sample_rate: float = SAMPLE_RATE,
) -> torch.Tensor:
    """Return how loud each frequency band of each recording is over time, from 0 to 1.

    1 is the loudest that any band of the recording ever gets, 0 is `decibel` below that or less; linear in decibel
    between them. Recordings are cut off or followed by silence.

    Args:
        waves: recordings, each of shape (samples,), numbers of any scale.
        steps: number of time steps T.
        bands: number of frequency bands, from 0 Hz to half the sample rate.
        hop: samples in a time step: 40 are 5 ms at 8 kHz.
        window: samples that a time step looks at (Hann window), from its beginning on.
        decibel: the dynamic range, positive.
        sample_rate: of the recordings, in Hz.

    Returns:
        Levels, float32, shape (N, T, bands).

    Raises:
        TypeError: if a recording is no tensor of real numbers.
        ValueError: if one has more axes than time (a stereo recording, say) or holds what is not finite, or an argument
            is out of range.
    """
    check_counts(steps=steps, bands=bands, hop=hop, window=window)
    if not (is_number(decibel) and 0 < decibel < math.inf and is_number(sample_rate) and 0 < sample_rate < math.inf):
        got = f"{decibel!r} and {sample_rate!r}"
        raise ValueError(f"decibel, sample_rate: expected positive, finite numbers, got {got}")
    _check_recordings(waves)
    fft_size = 2 ** math.ceil(math.log2(2 * window))
    filters, shape = mel_filters(bands, fft_size, sample_rate), torch.hann_window(window, dtype=torch.float64)
    length = (steps - 1) * hop + window
    levels = torch.zeros(len(waves), steps, bands)
    for first in range(0, len(waves), 100):  # as many at once as fit into the cache
        some = waves[first : first + 100]
        sound = torch.zeros(len(some), length, dtype=torch.float64)
        for row, samples in zip(sound, some, strict=True):
            row[: len(samples)] = samples[:length]
        energy = torch.fft.rfft(sound.unfold(1, window, hop) * shape, fft_size).abs().square() @ filters
        loudest = energy.amax(dim=(1, 2), keepdim=True).clamp(min=1e-300)  # silence stays silent
        levels[first : first + 100] = (1 + 10 * torch.log10(energy / loudest) / decibel).clamp(min=0)
    return levels


def _made_from(waves: list[torch.Tensor], steps: int, bands: int) -> bytes:
    """Return a digest of all on which levels depend: the recordings, what is asked of them, and the code."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(f"{torch.__version__} {steps} {bands} {[len(samples) for samples in waves]}".encode())
    for samples in waves:
        digest.update(samples.numpy().tobytes())
    return digest.digest()


def _folders() -> Iterator[Path]:
    """Name the folders in which levels may be kept: beside the recordings of the user, and in the cache."""
    root = given_folder()
    if root is not None and (root / "FSDD" / "recordings").is_dir():
        yield root / "FSDD"
    with contextlib.suppress(RuntimeError):  # the user has no home
        yield cache_folder() / "FSDD"


def _read_levels(path: Path, made_from: bytes, shape: tuple[int, int, int]) -> torch.Tensor | None:
    """Return the levels that `_write_levels` has written, or None if there are none, damaged ones or others."""
    try:
        content = bytearray(path.read_bytes())
    except OSError:
        return None
    levels, digest = memoryview(content)[:-32], content[-32:]
    if len(levels) != math.prod(shape) or hashlib.sha256(made_from + levels).digest() != digest:
        return None
    return torch.frombuffer(levels, dtype=torch.uint8).view(shape)


def _write_levels(path: Path, made_from: bytes, levels: torch.Tensor) -> bool:
    """Write levels and a digest of them and of what they are made from; return whether that was possible."""
    folder, content = path.parent, levels.numpy().tobytes()
    if folder.is_dir() and not folder.stat().st_mode & 0o222:
        return False  # it is read-only, though root could write there all the same
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex}")  # nobody ever finds half a file under its name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content + hashlib.sha256(made_from + content).digest())
        os.replace(fresh, path)
    except OSError:  # not ours to write, or full
        with contextlib.suppress(OSError):
            fresh.unlink()
        return False
    return True


def loudness(waves: list[torch.Tensor], steps: int = 200, bands: int = 32) -> torch.Tensor:
    """Return `mel_levels` as bytes, 255 for 1, and keep them: computing them takes some ten seconds, reading them one.

    They are kept in the folder `FSDD` in which the recordings lie, or in that of the cache if it cannot be written. A
    file that is damaged, or of other recordings or another version of this package, is replaced.

    Args:
        waves: recordings, each of shape (samples,).
        steps: number of time steps T.
        bands: number of frequency bands.

    Returns:
        Levels, uint8, shape (N, T, bands).

    Raises:
        ValueError: if there are too many bands, see `mel_filters`.
        FileNotFoundError, NotADirectoryError, PermissionError: as `load_spoken_digits`.
    """
    made_from, shape = _made_from(waves, steps, bands), (len(waves), steps, bands)
    paths = [folder / f"levels_{steps}_{bands}.bin" for folder in _folders()]
    for path in paths:
        if (found := _read_levels(path, made_from, shape)) is not None:
            return found
    levels = (255 * mel_levels(waves, steps, bands)).round().to(torch.uint8)
    any(_write_levels(path, made_from, levels) for path in paths)  # into the first folder that takes it
    return levels
