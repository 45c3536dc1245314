r"""What a population remembers, before any training: its temporal filters, and its linear memory capacity.

A linear neuron is a filter: its voltage is :math:`\sum_k f_k x_{t-k}`, with a shape :math:`f` that its two time
constants fix, times its weights. A readout adds voltages up, so it sees each input through the *span* of the filters.
Equal neurons span one filter, however many there are; :math:`N` neurons with :math:`N` synaptic time constants span
:math:`N`.

**Linear memory capacity** (Jaeger 2001) asks how much of the past a linear readout can give back. The input
is white noise :math:`x_t`; for each delay :math:`k` a readout is fitted to :math:`x_{t-k}`, and
the squared correlations on new data are added up. Under white noise each filter of a linear population brings
exactly 1, whatever its shape, and N linear neurons together at most N. Explained in chapter 6.

References:
    H. Jaeger (2001), "Short term memory in echo state networks", GMD Report 152.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.signal import lfilter

from snnparams.experiments.designs import FAST, Architecture, Neurons, initial_values
from snnparams.experiments.networks import SpikingLayer, reach_rate

RIDGES = tuple(10.0**k for k in range(-10, 1))  # strengths to choose from, as shares of the mean variance of a state
WASHOUT = 150  # first steps of a sequence that do not count
PARTS = (0.5, 0.25, 0.25)  # of the sequences: fit, choice of the ridge, measurement


def _checked(tau_mem: ArrayLike, tau_syn: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    mem, syn = np.broadcast_arrays(np.asarray(tau_mem, float).ravel(), np.asarray(tau_syn, float).ravel())
    for name, tau in (("tau_mem", mem), ("tau_syn", syn)):
        if not (np.isfinite(tau).all() and (tau >= 1).all() and len(tau)):
            raise ValueError(f"{name}: expected time constants of at least 1 time step, got {tau.tolist()}")
    return mem, syn


def temporal_filters(tau_mem: ArrayLike, tau_syn: ArrayLike, steps: int) -> np.ndarray:
    r"""Return what one unit of input current does to the voltage of linear neurons, by lag.

    With :math:`p = 1 - 1/\tau_\mathrm{mem}` and :math:`q = 1 - 1/\tau_\mathrm{syn}`, in steps of the integrator of this
    package: :math:`f_k = (1 - p)(p^{k+1} - q^{k+1}) / (p - q)`, which does not change if p and q trade places, but
    for its height.

    Args:
        tau_mem: membrane time constants in time steps, at least 1, one or (N,).
        tau_syn: synaptic ones, likewise.
        steps: number of lags T.

    Returns:
        Filters (N, T), float64.

    Raises:
        ValueError: if a time constant is below 1 or not finite.
    """
    mem, syn = _checked(tau_mem, tau_syn)
    impulse = np.zeros(steps)
    impulse[0] = 1
    pairs = zip(1 - 1 / mem, 1 - 1 / syn, strict=True)
    return np.stack([lfilter([1 - p], [1, -(p + q), p * q], impulse) for p, q in pairs])


def filter_count(tau_mem: ArrayLike, tau_syn: ArrayLike) -> int:
    r"""Return how many linearly independent filters linear neurons have: what a linear readout can make of them.

    Proof. Exponentials :math:`e_p = (p^{k+1})_k` of different p are independent (Vandermonde). The filter of a neuron
    is, up to its height, :math:`e_p - e_q`, an edge between two vertices of a graph whose vertices are the different
    decays; the rank of such differences is the number of vertices minus that of connected components. A neuron with
    :math:`p = q` has the derivative of :math:`e_p` with respect to p, which is independent of all the rest, and counts
    once for each such p. So N neurons with one tau_mem and N different tau_syn span N filters; with pairs from a of the
    one and b of the other, no more than a + b - 1 (a + b vertices, connected) and not a x b.

    Args:
        tau_mem: membrane time constants in time steps, at least 1, one or (N,).
        tau_syn: synaptic ones, likewise.

    Raises:
        ValueError: if a time constant is below 1 or not finite.
    """
    mem, syn = _checked(tau_mem, tau_syn)
    pairs = set(zip(mem.tolist(), syn.tolist(), strict=True))
    component = {tau: tau for pair in pairs for tau in pair}

    def root(tau: float) -> float:
        while component[tau] != tau:
            tau = component[tau]
        return tau

    edges = [pair for pair in pairs if pair[0] != pair[1]]
    for a, b in edges:
        component[root(a)] = root(b)
    vertices = {tau for pair in edges for tau in pair}
    return len(vertices) - len({root(tau) for tau in vertices}) + len(pairs) - len(edges)


def visible_filters(filters: np.ndarray, noise: float) -> int:
    """Return how many directions in the span of some filters stand out of noise.

    Independent filters can be so alike that no readout tells them apart: exponentials soon are.

    Args:
        filters: (N, T); each is scaled to a sum of squares of 1.
        noise: share of the largest singular value below which a direction is lost, from 0 to 1.

    Raises:
        ValueError: if the noise is out of range.
    """
    if not 0 < noise < 1:
        raise ValueError(f"noise: expected more than 0 and less than 1, got {noise}")
    singular = np.linalg.svd(filters / np.linalg.norm(filters, axis=1, keepdims=True), compute_uv=False)
    return int((singular > noise * singular[0]).sum())


class Capacity(NamedTuple):
    """Linear memory capacity."""

    total: float  # sum over delays
    by_delay: np.ndarray  # squared correlation minus that of chance, for delays 0, 1, 2, ...
    ridge: float  # the strength that was chosen


def memory_capacity(states: np.ndarray, inputs: np.ndarray, delays: int = 100, washout: int = WASHOUT) -> Capacity:
    r"""Return the linear memory capacity of a population from its states under white noise.

    A ridge readout with an intercept is fitted on half of the sequences; a quarter chooses its strength, one for all
    delays; the last quarter measures. There the squared correlation of a readout that knows nothing
    is :math:`1 / (n - 1)` on average, for n time steps, since the input is white. That is subtracted from each delay
    and nothing is cut off at zero, so that ignorance adds up to 0 on average.

    Args:
        states: (S, T, N): sequences, time steps, neurons.
        inputs: white noise (S, T).
        delays: number of delays, from 0 on; at most `washout`.
        washout: first steps of every sequence that do not count.

    Raises:
        ValueError: if shapes do not fit, there are fewer than 4 sequences, or `delays` is not from 1 to `washout`.
    """
    states, inputs = np.asarray(states, float), np.asarray(inputs, float)
    if states.ndim != 3 or states.shape[:2] != inputs.shape or len(states) < 4:
        raise ValueError(
            f"states: expected (S, T, N) with inputs (S, T) and S at least 4, got {states.shape} and {inputs.shape}"
        )
    if not 1 <= delays <= washout < states.shape[1]:
        raise ValueError(f"delays: expected 1 to washout = {washout}, below T = {states.shape[1]}, got {delays}")
    targets = np.stack([inputs[:, washout - k : inputs.shape[1] - k] for k in range(delays)], axis=2)
    ends = np.round(np.cumsum(PARTS) * len(states)).astype(int)
    x = [part.reshape(-1, states.shape[2]) for part in np.split(states[:, washout:], ends[:2])]
    y = [part.reshape(-1, delays) for part in np.split(targets, ends[:2])]
    mean_x, mean_y = x[0].mean(axis=0), y[0].mean(axis=0)
    values, vectors = np.linalg.eigh((x[0] - mean_x).T @ (x[0] - mean_x))
    values = values.clip(min=0)
    projected = vectors.T @ ((x[0] - mean_x).T @ (y[0] - mean_y))
    unit = values.mean() or 1.0

    def squared_correlation(part: int, ridge: float) -> np.ndarray:
        weights = vectors @ (projected / (values + ridge * unit)[:, None])
        guess, target = (x[part] - mean_x) @ weights, y[part] - y[part].mean(axis=0)
        guess = guess - guess.mean(axis=0)
        norms = (guess**2).sum(axis=0) * (target**2).sum(axis=0)
        return np.divide((guess * target).sum(axis=0) ** 2, norms, out=np.zeros(delays), where=norms > 0)

    ridge = max(RIDGES, key=lambda ridge: squared_correlation(1, ridge).sum())
    by_delay = squared_correlation(2, ridge) - 1 / (len(x[2]) - 1)
    return Capacity(float(by_delay.sum()), by_delay, ridge)


def white_noise(sequences: int, steps: int, seed: int) -> np.ndarray:
    """Return inputs (S, T), uniform from -1 to 1."""
    return np.random.default_rng(seed).uniform(-1, 1, (sequences, steps))


def linear_states(
    neurons: Neurons,
    inputs: np.ndarray,
    count: int = 100,
    recurrent: bool = False,
    seed: int = 0,
    radius: float = 0.995,
) -> np.ndarray:
    """Return the voltages (S, T, N) of linear neurons, that is of LIF neurons without a threshold.

    Args:
        neurons: their time constants.
        inputs: (S, T), which each neuron receives through a random weight of its own.
        count: number of neurons N.
        recurrent: whether voltages come back as currents one step later, through random weights.
        seed: of weights and of the pairing of time constants.
        radius: spectral radius of the recurrent network's step: below 1, so that it forgets.

    Raises:
        ValueError: if a neuron by itself forgets more slowly than `radius` says.
    """
    generator = torch.Generator().manual_seed(seed)
    values = {name: x.numpy() for name, x in initial_values(neurons, count, generator).items()}
    rng = np.random.default_rng(seed)
    weights, w = rng.standard_normal(count), rng.standard_normal((count, count)) / np.sqrt(count)
    a, b = 1 / values["tau_mem"], 1 / values["tau_syn"]

    def step_matrix(scale: float) -> np.ndarray:  # of (v, i): i' = i + scale w v, then one step of the integrator
        eye, decay = np.eye(count), np.diag(1 - b)
        return np.block([[np.diag(1 - a) + a[:, None] * scale * w, a[:, None] * eye], [scale * decay @ w, decay]])

    scale = 0.0
    if recurrent:
        slowest = 1 - min(a.min(), b.min())
        if not slowest < radius < 1:
            raise ValueError(
                f"radius: expected more than {slowest:.4f}, what a neuron has alone, and below 1, got {radius}"
            )
        low, high = 0.0, 1e4
        for _ in range(60):
            scale = (low + high) / 2
            inside = np.abs(np.linalg.eigvals(step_matrix(scale))).max() < radius
            low, high = (scale, high) if inside else (low, scale)
        scale = low
    v = i = np.zeros((len(inputs), count))
    found = np.empty((*inputs.shape, count))
    for t in range(inputs.shape[1]):
        i = i + inputs[:, t, None] * weights + scale * v @ w.T
        v, i = v + a * (i - v), i - b * i
        found[:, t] = v
    return found


@torch.no_grad()
def spiking_states(
    neurons: Neurons,
    inputs: np.ndarray,
    count: int = 100,
    recurrent: bool = False,
    seed: int = 0,
    architecture: Architecture | None = None,
) -> np.ndarray:
    """Return what a fast readout sees of LIF neurons: their spikes (S, T, N) through a filter of 8 steps.

    Weights are random and scaled as in the networks that are trained later, to the same rate.

    Args:
        neurons: their time constants.
        inputs: (S, T), which each neuron receives through a random weight of its own.
        count: number of neurons N.
        recurrent: whether the neurons are connected.
        seed: of weights and of the pairing of time constants.
        architecture: rate, reset and share of recurrent input; the default one if None.
    """
    architecture = architecture or Architecture()
    share = architecture.recurrent_share
    generator = torch.Generator().manual_seed(seed)
    values = initial_values(neurons, count, generator)
    weights = torch.randn(count, 1, generator=generator) / inputs.std() * (1 - share if recurrent else 1) ** 0.5
    back = torch.randn(count, count, generator=generator) * (share / (count * architecture.rate)) ** 0.5
    layer = SpikingLayer(weights, back if recurrent else None, values, neurons, architecture)
    spikes = reach_rate(layer, torch.from_numpy(inputs).float().T[..., None], architecture.rate)
    decay = 1 - 1 / FAST
    return lfilter([1.0], [1.0, -decay], spikes.double().numpy(), axis=0).transpose(1, 0, 2)
