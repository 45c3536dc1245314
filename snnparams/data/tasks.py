"""Classification tasks for controlled experiments, as tensors in memory, with fixed splits.

Each function returns a `Task`: three splits that do not overlap and depend on nothing but the arguments, and a function
that turns a batch of inputs into spikes. Explained in chapter 6.
"""

from __future__ import annotations

import functools
import math

import torch
from torch.nn.functional import avg_pool2d

from snnparams.data.encoding import constant_current_lif_encode, integrate_and_fire, threshold_crossings
from snnparams.data.memory_tasks import multi_timescale_xor as multi_timescale_xor  # part of this module for its users
from snnparams.data.memory_tasks import windows as windows
from snnparams.data.mnist import DEVIATION, MEAN, Split, load_mnist
from snnparams.data.spoken_digits import SPEAKERS, load_spoken_digits, loudness
from snnparams.data.task import Task
from snnparams.data.yin_yang import yin_yang as yin_yang
from snnparams.parameters.settings import check_counts


def _order(count: int, seed: int) -> torch.Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _take(name: str, split: Split, order: torch.Tensor, first: int, count: int) -> Split:
    """Return `count` inputs in that order from the first one on, and refuse more than there are."""
    if not 0 < count <= len(order) - first:
        raise ValueError(f"{name}: expected 1 to {len(order) - first} inputs, got {count}")
    chosen = order[first : first + count]
    return Split(split.inputs[chosen], split.labels[chosen])


def _mnist_splits(train: int, validation: int, test: int, seed: int) -> tuple[Split, Split, Split]:
    """Return parts of MNIST: the validation split comes from the training images, whatever the size of `train`."""
    data = load_mnist()
    if data.name != "MNIST":
        raise FileNotFoundError(
            f"expected MNIST, which the experiment needs, got {data.name}. Let it be downloaded, or put its files into "
            "MNIST/raw in the folder that SNNPARAMS_DATA names"
        )
    order = _order(len(data.train.labels), seed)
    return (
        _take("train", data.train, order, validation, train),
        _take("validation", data.train, order, 0, validation),
        _take("test", data.test, _order(len(data.test.labels), seed), 0, test),
    )


def _encode_currents(images: torch.Tensor, steps: int) -> torch.Tensor:
    currents = (images.flatten(1).float() / 255 - MEAN) / DEVIATION
    return constant_current_lif_encode(currents, steps, layout=torch.strided if images.is_cuda else torch.sparse_coo)


def mnist(train: int = 50_000, validation: int = 10_000, test: int = 10_000, steps: int = 32, seed: int = 0) -> Task:
    """MNIST as in chapter 4: every pixel is a constant current that makes an input neuron spike.

    Args:
        train: number of images to learn from; at most 60,000 together with `validation`.
        validation: number of images for choices.
        test: number of images for the last measurement, at most 10,000.
        steps: number of time steps.
        seed: of the choice of images.

    Raises:
        ValueError: if there are not as many images.
        FileNotFoundError: if there is no MNIST.
    """
    encode = functools.partial(_encode_currents, steps=steps)
    return Task("mnist", *_mnist_splits(train, validation, test, seed), encode, 28 * 28, steps)


def _encode_pixels(pixels: torch.Tensor, levels: int) -> torch.Tensor:
    edges = 255 * (torch.arange(levels, device=pixels.device) + 0.5) / levels
    return threshold_crossings(pixels.T, edges)


def sequential_mnist(
    train: int = 50_000,
    validation: int = 10_000,
    test: int = 10_000,
    size: int = 14,
    permuted: bool = False,
    levels: int = 8,
    seed: int = 0,
) -> Task:
    """MNIST pixel by pixel, one in each time step; an input spikes when the brightness crosses its level.

    Args:
        train: number of images to learn from; at most 60,000 together with `validation`.
        validation: number of images for choices.
        test: number of images for the last measurement, at most 10,000.
        size: side of the images in pixels, 28 or 14 (means of 2 x 2 pixels); there are size² time steps.
        permuted: whether the pixels come in a random order, the same for all images, instead of line by line.
        levels: number of levels of brightness, each with an input for a rise and one for a fall.
        seed: of the choice of images and the order of pixels.

    Raises:
        ValueError: if there are not as many images, or of another size.
        FileNotFoundError: if there is no MNIST.
    """
    if size not in (14, 28):
        raise ValueError(f"size: expected 14 or 28, got {size}")
    splits = _mnist_splits(train, validation, test, seed)
    order = _order(size * size, seed) if permuted else torch.arange(size * size)

    def pixels(split: Split) -> Split:
        images = split.inputs
        if size == 14:
            images = avg_pool2d(images[:, None].float(), 2)[:, 0].round().to(torch.uint8)
        return Split(images.flatten(1)[:, order], split.labels)

    encode = functools.partial(_encode_pixels, levels=levels)
    name = "permuted sequential mnist" if permuted else "sequential mnist"
    learn, choose, measure = map(pixels, splits)
    return Task(name, learn, choose, measure, encode, 2 * levels, size * size)


def _encode_sound(levels: torch.Tensor, most: float) -> torch.Tensor:
    return integrate_and_fire(levels.transpose(0, 1).to(torch.float64) * (most / 255)).to(torch.float32)


def spoken_digits(
    speaker: str | None = None,
    steps: int = 200,
    bands: int = 32,
    most: float = 0.5,
    seed: int = 0,
    fold: int | None = None,
) -> Task:
    """Spoken digits (FSDD): a spike train for each frequency band, the denser the louder.

    The official split: of each speaker's 50 repetitions of a digit, 0 to 4 are the test split; here 5 random ones of
    the others are for validation. With a `speaker`, all recordings of that one are the test split and all of the
    next one, in alphabetical order, for validation, so that both ask for voices never heard. With a `fold`, repetitions
    10 `fold` to 10 `fold` + 9 are the test split: the five folds test every recording once, and any two of their
    training splits share about two thirds. How loud the bands are is computed once and kept, see
    `snnparams.data.spoken_digits.loudness`.

    Args:
        speaker: the speaker to leave out, or None for the official split.
        steps: number of time steps, of 5 ms; 20 of the 3,000 recordings are longer than 200 and are cut off.
        bands: number of frequency bands.
        most: spikes per time step of the loudest band, at most 1.
        seed: of the choice of validation recordings in the official split and in folds.
        fold: 0 to 4, or None for the official split.

    Raises:
        ValueError: if there is no such speaker or fold, both are given, or `most` is out of range.
    """
    if fold is not None and (speaker is not None or isinstance(fold, bool) or fold not in range(5)):
        raise ValueError(f"fold: expected 0 to 4 and no speaker, got {fold!r} and speaker {speaker!r}")
    if speaker is not None and speaker not in SPEAKERS:
        raise ValueError(f"speaker: expected one of {', '.join(SPEAKERS)}, got {speaker!r}")
    if not 0 < most <= 1:
        raise ValueError(f"most: expected more than 0 and at most 1 spike per time step, got {most}")
    recordings = load_spoken_digits()
    levels = loudness(recordings.waves, steps, bands)  # (N, T, bands)
    if speaker is None:
        first, count = (0, 5) if fold is None else (10 * fold, 10)  # repetitions of the test split
        rank = torch.stack([_order(50 - count, seed * 60 + group) for group in range(60)])  # of all others
        group = recordings.digits * len(SPEAKERS) + recordings.speakers
        test = (recordings.indices >= first) & (recordings.indices < first + count)
        place = (recordings.indices - first - count) % 50  # among the others; of the test split, beyond them
        validation = ~test & (rank[group, place.clamp(max=49 - count)] < 5)
    else:
        k = SPEAKERS.index(speaker)
        test = recordings.speakers == k
        validation = recordings.speakers == (k + 1) % len(SPEAKERS)
    masks = (~test & ~validation, validation, test)
    learn, choose, measure = (Split(levels[m], recordings.digits[m]) for m in masks)
    name = "spoken digits" if speaker is None else f"spoken digits without {speaker}"
    name = name if fold is None else f"spoken digits, fold {fold}"
    return Task(name, learn, choose, measure, functools.partial(_encode_sound, most=most), bands, steps)


def _encode_times(times: torch.Tensor, steps: int) -> torch.Tensor:
    spikes = torch.zeros(steps, *times.shape, device=times.device)
    return spikes.scatter_(0, times.long()[None], 1.0)


def smooth_random_manifolds(
    train: int = 5_000,
    validation: int = 2_000,
    test: int = 2_000,
    classes: int = 10,
    features: int = 20,
    dimensions: int = 2,
    smoothness: float = 1.0,
    steps: int = 100,
    seed: int = 0,
) -> Task:
    r"""Classes of spike times on smooth random manifolds (Zenke & Vogels, 2021); nothing is downloaded.

    Every input spikes once, at a time that is a smooth random function of a point :math:`x` in the unit cube, with
    functions of its own for each class,

    .. math:: \prod_d \sum_k k^{-\alpha} a_{dk} \sin(2\pi (k b_{dk} x_d + c_{dk}))

    with :math:`a, b, c` uniform in [0, 1], scaled to the whole duration. Only the times tell the classes apart: all
    inputs have equal spike counts.

    Args:
        train: number of samples to learn from.
        validation: number of samples for choices.
        test: number of samples for the last measurement.
        classes: number of classes.
        features: number of inputs I.
        dimensions: of the manifolds.
        smoothness: the exponent :math:`\alpha`; the larger, the smoother and the easier.
        steps: number of time steps T.
        seed: of manifolds and samples.

    Raises:
        ValueError: if a split is empty, there are fewer than two samples for each class, or a number is not positive.
    """
    check_counts(classes=classes, features=features, dimensions=dimensions, steps=steps)
    generator = torch.Generator().manual_seed(seed)
    count, k = train + validation + test, torch.arange(1, 1001, dtype=torch.float64)  # harmonics
    if count < 2 * classes:
        raise ValueError(f"train, validation, test: expected at least {2 * classes} samples in all, got {count}")
    labels = torch.arange(count) % classes
    points = torch.rand(count, dimensions, dtype=torch.float64, generator=generator)
    times = torch.empty(count, features, dtype=torch.float64)
    for label in range(classes):
        x = points[labels == label]
        for unit in range(features):
            a, b, c = torch.rand(3, dimensions, len(k), dtype=torch.float64, generator=generator)
            waves = torch.sin(2 * math.pi * (x[:, :, None] * (k * b) + c))
            value = (waves * (a * k**-smoothness)).sum(dim=-1)
            times[labels == label, unit] = value.prod(dim=1)
        of_class = times[labels == label]
        low, high = of_class.amin(dim=0), of_class.amax(dim=0)
        times[labels == label] = (of_class - low) / (high - low)
    everything = Split((times * (steps - 1)).round().to(torch.int16), labels)
    order = _order(count, seed)
    parts = (("train", 0, train), ("validation", train, validation), ("test", train + validation, test))
    learn, choose, measure = (_take(name, everything, order, first, size) for name, first, size in parts)
    encode = functools.partial(_encode_times, steps=steps)
    return Task("smooth random manifolds", learn, choose, measure, encode, features, steps, classes)


def __dir__() -> list[str]:
    return [name for name, value in globals().items() if getattr(value, "__annotations__", {}).get("return") == "Task"]
