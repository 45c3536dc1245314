"""The data of the jobs, the same for every library, time first; and the killing of a process.

Loaders give pairs of inputs and labels; the one of the test split gives all of it as one batch.
"""

import multiprocessing
import signal
import time
from pathlib import Path

import sklearn.datasets
import torch
from torch.nn.functional import pad
from torch.utils.data import DataLoader, TensorDataset

from snnparams.data.encoding import integrate_and_fire
from snnparams.data.spoken_digits import SPEAKERS, load_spoken_digits, mel_levels

STEPS = 60  # of 10 ms, the longest spoken digits
HOP = 80  # samples in a step


class DataError(Exception):
    """The spoken digits could not be had."""


def _time_first(pairs):
    inputs, labels = zip(*pairs, strict=True)
    return torch.stack(inputs, dim=1), torch.stack(labels)


def _loaders(inputs, labels, is_test, batch_size, collate=_time_first):
    """Return loaders of the training and the test split of inputs (N, T, ...)."""
    train = TensorDataset(inputs[~is_test], labels[~is_test])
    test = TensorDataset(inputs[is_test], labels[is_test])
    order = torch.Generator().manual_seed(0)
    how = {"collate_fn": collate}
    return DataLoader(train, batch_size, shuffle=True, generator=order, **how), DataLoader(test, len(test), **how)


def _digits():
    """Return spikes (N, 15, 1, 8, 8), the more the brighter, of scikit-learn's digits, labels, and which are a test."""
    digits = sklearn.datasets.load_digits()
    rates = torch.tensor(digits.images, dtype=torch.float32)[:, None, None] / 16
    spikes = torch.rand(len(rates), 15, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < rates
    return spikes.float(), torch.tensor(digits.target), torch.arange(len(rates)) % 5 == 0


def images():
    """Return handwritten digits, 1437 to learn from and 360 for the test: spikes (T, B, 1, 8, 8)."""
    return _loaders(*_digits(), 64)


def rows():
    """Return the same as spikes (T, B, 64)."""
    spikes, digits, is_test = _digits()
    return _loaders(spikes.flatten(2), digits, is_test, 64)


def _spoken(speakers):
    """Return spikes of 20 frequency bands (N, T, 20), digits, lengths in steps, and which are of the test split."""
    try:
        recordings = load_spoken_digits()
    except FileNotFoundError as error:
        raise DataError(str(error)) from None
    chosen = sum(recordings.speakers == SPEAKERS.index(name) for name in speakers).bool()
    waves = [wave for wave, take in zip(recordings.waves, chosen.tolist(), strict=True) if take]
    levels = mel_levels(waves, STEPS, bands=20, hop=HOP).transpose(0, 1).double()
    spikes = integrate_and_fire(levels / 2).transpose(0, 1).float()
    lengths = torch.tensor([len(wave) // HOP for wave in waves]).clamp(10, STEPS)
    return spikes, recordings.digits[chosen], lengths, recordings.indices[chosen] < 10


def spoken_digits():
    """Return spoken digits of two speakers, 800 to learn from and 200 for the test: spikes (T, B, 20)."""
    spikes, digits, _, is_test = _spoken(["george", "jackson"])
    return _loaders(spikes, digits, is_test, 50)


def _cut(pairs):
    """Return sequences (T, B, I) filled up with NaN, their lengths, and labels."""
    inputs, both = zip(*pairs, strict=True)
    labels, lengths = torch.stack(both).unbind(1)
    whole = [pad(x[:n], (0, 0, 0, lengths.max() - n), value=torch.nan) for x, n in zip(inputs, lengths, strict=True)]
    return torch.stack(whole, dim=1), lengths, labels


def spoken_digits_of_any_length():
    """Return the same, each recording as long as it is: (T, B, 20), NaN after its end; lengths (B,); labels (B,)."""
    spikes, digits, lengths, is_test = _spoken(["george", "jackson"])
    return _loaders(spikes, torch.stack([digits, lengths], dim=1), is_test, 50, _cut)


def stream(steps, seed):
    """Return 16 streams (T, B, 20), and which half of the inputs spikes more often at each step, 0 or 1: (T, B).

    It changes by chance, every 100 steps or so. With rates of 0.2 and 0.1, one step alone tells in 73 of 100 cases.
    """
    generator = torch.Generator().manual_seed(seed)
    side = (torch.rand(steps, 16, generator=generator) < 0.01).cumsum(dim=0) % 2
    sign = 2.0 * side[..., None] - 1
    rates = 0.15 + 0.05 * torch.cat([-sign, sign], dim=2).repeat(1, 1, 10)
    return (torch.rand(rates.shape, generator=generator) < rates).float(), side


def offsets(steps=40):
    """Return spikes (T, B, 6) of 2000 sequences in two classes that differ only in when their inputs spike.

    Each input spikes once. In class 1 all would meet, if each waited as long as the last is later; in class 0 they
    come at random.
    """
    generator = torch.Generator().manual_seed(0)
    lead = torch.tensor([0, 3, 6, 9, 12, 15])
    labels = torch.arange(2000) % 2
    begin = torch.randint(2, 8, (2000, 1), generator=generator)
    at_random = torch.randint(0, 16, (2000, 6), generator=generator)
    times = begin + torch.where(labels[:, None] == 1, lead.expand(2000, 6), at_random)
    spikes = torch.zeros(2000, steps, 6).scatter_(1, times[:, None], 1.0)
    return _loaders(spikes, labels, torch.arange(2000) % 5 == 0, 50)


def run_and_kill(function, file):
    """Call a function in another process, which writes checkpoints into a file, and kill it behind the second one."""
    spoken_digits()  # what cannot be had is said here, not in a process whose end says nothing
    file = Path(file)
    process = multiprocessing.get_context("fork").Process(target=function, args=(file,))
    process.start()
    seen, last = 0, None
    while process.is_alive() and seen < 2:
        written = file.stat().st_mtime_ns if file.exists() else None
        seen, last = seen + (written != last), written
        time.sleep(0.01)
    time.sleep(0.1)  # a file that is being written is not what this is about
    process.kill()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise RuntimeError(f"expected a process that could be killed, got one that had ended with {process.exitcode}")
