"""Generated tasks with dials, in which something has to be remembered: for how long, and how many things at once.

Part of `snnparams.data.tasks`, from where they are used. Explained in chapter 6.
"""

from __future__ import annotations

import torch

from snnparams.data.mnist import Split
from snnparams.data.task import Task, encode_bits
from snnparams.parameters.settings import check_counts


def _generated(name: str, bits: torch.Tensor, labels: torch.Tensor, sizes: dict[str, int], answers: list) -> Task:
    """Return a task from generated spikes (N, T, I) and labels (N, A), the splits one after the other."""
    parts = zip(bits.split(list(sizes.values())), labels.split(list(sizes.values())), strict=True)
    learn, choose, measure = (Split(*part) for part in parts)
    steps, inputs = bits.shape[1:]
    return Task(name, learn, choose, measure, encode_bits, inputs, steps, classes=2, answers=tuple(answers))


def _check_rates(low: float, high: float) -> None:
    if not 0 <= low < high <= 1:
        raise ValueError(f"low, high: expected 0 <= low < high <= 1 spike per time step, got {low} and {high}")


def windows(
    count: int = 4,
    length: int = 20,
    train: int = 4000,
    validation: int = 1000,
    test: int = 2000,
    group: int = 12,
    low: float = 0.02,
    high: float = 0.10,
    seed: int = 0,
) -> Task:
    """Windows to remember: what happened in each of several windows of time, asked at the end. Generated.

    In each window one of two groups of inputs is active, by chance. At the last step K outputs say which group it was,
    one for each window: K binary answers, of which the first needs the longest memory. A population that has one time
    constant sees one weighted sum of the past for each input, in which the windows cannot be told apart; that
    is what this task is made for. *Windows remembered*, the sum over windows of 2 x accuracy - 1, lies between 0 and K.

    A task of this kind, with a memory that has to hold every item, is old (Jaeger 2001, "Short term memory in echo
    state networks", measures the same for continuous signals); windows and rates are this book's.

    Args:
        count: number of windows K.
        length: time steps in a window; there are K x `length` time steps.
        train: number of sequences to learn from.
        validation: number of sequences for choices.
        test: number of sequences for the last measurement.
        group: inputs in each of the two groups; there are twice as many.
        low: spikes per time step and input of the group that is not active.
        high: the same of the active group.
        seed: of all sequences.

    Returns:
        A task whose inputs are bits (N, T, I) and whose labels are 0 and 1, uint8, (N, K): the active group.

    Raises:
        ValueError: if a number is not a positive integer, or not 0 <= low < high <= 1.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    check_counts(count=count, length=length, group=group, **sizes)
    _check_rates(low, high)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (sum(sizes.values()), count), generator=generator, dtype=torch.uint8)
    active = torch.stack([labels == 0, labels == 1], dim=2)  # (N, K, 2)
    rates = torch.where(active, high, low).repeat_interleave(length, dim=1).repeat_interleave(group, dim=2)
    bits = torch.rand(rates.shape, generator=generator) < rates
    answers = [(count * length - 1, output) for output in range(count)]
    return _generated("windows", bits, labels, sizes, answers)


def multi_timescale_xor(
    cues: int = 6,
    slow: int = 10,
    fast: int = 10,
    gap: int = 5,
    delay: int = 2,
    train: int = 4000,
    validation: int = 1000,
    test: int = 2000,
    group: int = 12,
    low: float = 0.04,
    high: float = 0.20,
    seed: int = 0,
) -> Task:
    """A slow cue, then many fast ones; at each of them, say the exclusive or of the two. Generated.

    First one group of inputs is active at a low or a high rate: the slow cue, to be remembered to the end. Then the
    other group gives fast cues, low or high, with silence between them. The label at each is 1 if exactly one of slow
    and fast cue is high. So a network must hold one thing long and take up others quickly.

    After the multi-timescale spiking XOR of Zheng et al. (2024), doi 10.1038/s41467-023-44614-z, for dendrites.

    Args:
        cues: number of fast cues A.
        slow: time steps of the slow cue.
        fast: time steps of a fast cue.
        gap: silent time steps before each fast cue.
        delay: time steps after the last one of a fast cue at which its answer is due; at most `gap`.
        train: number of sequences to learn from.
        validation: number of sequences for choices.
        test: number of sequences for the last measurement.
        group: inputs in each of the two groups.
        low: spikes per time step and input of a low cue.
        high: the same of a high one.
        seed: of all sequences.

    Returns:
        A task whose inputs are bits (N, T, I) and whose labels are 0 and 1, uint8, (N, A), all of them answered by one
        output. T = `slow` + A x (`gap` + `fast`) + `delay`.

    Raises:
        ValueError: if a number is not a positive integer, `delay` is not 1 to `gap`, or not 0 <= low < high <= 1.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    check_counts(cues=cues, slow=slow, fast=fast, gap=gap, delay=delay, group=group, **sizes)
    _check_rates(low, high)
    if delay > gap:
        raise ValueError(f"delay: expected at most gap, {gap}, got {delay}: the next cue would have begun")
    generator = torch.Generator().manual_seed(seed)
    count, steps = sum(sizes.values()), slow + cues * (gap + fast) + delay
    slow_high = torch.randint(2, (count, 1), generator=generator, dtype=torch.uint8)
    fast_high = torch.randint(2, (count, cues), generator=generator, dtype=torch.uint8)
    rates = torch.zeros(count, steps, 2)  # of each group
    rates[:, :slow, 0] = torch.where(slow_high == 1, high, low)
    begin = [slow + k * (gap + fast) + gap for k in range(cues)]
    for k, first in enumerate(begin):
        rates[:, first : first + fast, 1] = torch.where(fast_high[:, k : k + 1] == 1, high, low)
    answers = [(first + fast - 1 + delay, 0) for first in begin]
    bits = torch.rand(count, steps, 2 * group, generator=generator) < rates.repeat_interleave(group, dim=2)
    return _generated("multi-timescale xor", bits, slow_high ^ fast_high, sizes, answers)
