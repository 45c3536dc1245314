"""LIF networks in continuous time: from event to event in closed form, spikes by root finding, no grid, float64.

Between events voltage and current of a neuron are sums of exponentials. An event is an input spike, or the first
crossing of a threshold in the network; recurrent spikes arrive at once, which is what one step later means as the step
goes to zero. A feed-forward stack of layers is a network whose recurrent weights are block-triangular.
"""

import dataclasses

import numpy as np
from numba import njit

PARAMETERS = ("tau_mem_inv", "tau_syn_inv", "v_leak", "v_th", "v_reset")


@njit(cache=True)
def kernel(s, a, b):
    """Voltage over current that a unit of current has caused after s, divided by a."""
    return s * np.exp(-a * s) if abs(a - b) < 1e-9 * a else (np.exp(-b * s) - np.exp(-a * s)) / (a - b)


@njit(cache=True)
def voltage(s, v, i, a, b, v_leak):
    return v_leak + (v - v_leak) * np.exp(-a * s) + i * a * kernel(s, a, b)


@njit(cache=True)
def root(low, high, v, i, a, b, v_leak, v_th):
    """Solve voltage(s) = v_th in low..high, where the voltage rises: Newton's method, kept in by bisection."""
    s = 0.5 * (low + high)
    for _ in range(200):
        value = voltage(s, v, i, a, b, v_leak) - v_th
        if value > 0:
            high = s
        else:
            low = s
        slope = a * (v_leak - value - v_th + i * np.exp(-b * s))
        new = s - value / slope if slope > 0 else low
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - s) <= 1e-17 or new in (low, high):
            return new
        s = new
    return s


@njit(cache=True)
def crossing(v, i, a, b, v_leak, v_th, horizon):
    """Return when the voltage first rises through the threshold, or infinity if not before the horizon."""
    turn = np.inf  # the voltage has at most one extremum
    if i != 0:
        if abs(a - b) < 1e-9 * a:
            turn = (i - (v - v_leak)) / (a * i)
        else:
            ratio = (i * a - (v - v_leak) * (a - b)) / (b * i)
            turn = np.log(ratio) / (a - b) if ratio > 0 else np.inf
    if not 0 < turn < horizon:
        turn = horizon
    low, before = 0.0, v
    for high in (turn, horizon):
        after = voltage(high, v, i, a, b, v_leak)
        if before <= v_th < after:
            return root(low, high, v, i, a, b, v_leak, v_th)
        low, before = high, after
    return np.inf


@njit(cache=True)
def simulate(arrivals, sources, w_in, w_rec, a, b, v_leak, v_th, v_reset, v_0, duration, most=100_000):
    """Return times, neurons and slopes (1/s) of all spikes before `duration`."""
    v, i = v_0.copy(), np.zeros_like(v_0)
    times, neurons, slopes = np.empty(most), np.empty(most, np.int64), np.empty(most)
    now, k, count = 0.0, 0, 0
    while count < most:
        horizon = (arrivals[k] if k < len(arrivals) else duration) - now
        first, who = np.inf, -1
        for n in range(len(v)):
            s = crossing(v[n], i[n], a[n], b[n], v_leak[n], v_th[n], horizon)
            if s < first:
                first, who = s, n
        step = min(first, horizon)
        for n in range(len(v)):
            v[n] = voltage(step, v[n], i[n], a[n], b[n], v_leak[n])
            i[n] *= np.exp(-b[n] * step)
        now += step
        if who >= 0:
            times[count], neurons[count] = now, who
            slopes[count] = a[who] * (v_leak[who] - v_th[who] + i[who])
            count += 1
            v[who] = v_reset[who]
            i += w_rec[:, who]
        elif k < len(arrivals):
            i += w_in[:, sources[k]]
            k += 1
        else:
            break
    return times[:count], neurons[:count], slopes[:count]


@dataclasses.dataclass
class Network:
    """A network, its input (times in s and indices, in order of time) and its duration in s.

    The first voltage is data, not a function of `v_leak`.
    """

    arrivals: np.ndarray
    sources: np.ndarray
    w_in: np.ndarray  # (H, I)
    w_rec: np.ndarray  # (H, H)
    tau_mem_inv: np.ndarray
    tau_syn_inv: np.ndarray
    v_leak: np.ndarray
    v_th: np.ndarray
    v_reset: np.ndarray
    v_0: np.ndarray
    duration: float

    def run(self):
        """Return times, neurons and slopes (1/s) of the spikes."""
        p = (getattr(self, name) for name in PARAMETERS)
        return simulate(self.arrivals, self.sources, self.w_in, self.w_rec, *p, self.v_0, self.duration)

    def counts(self):
        """Return the number of spikes of each neuron."""
        return np.bincount(self.run()[1], minlength=len(self.v_0))


def readout(times, neurons, w_out, a, b, at):
    """Return the voltages (len(at), O) of leaky integrators with rest 0 that the spikes drive, at the given times."""
    late = np.maximum(np.asarray(at)[:, None] - times, 0)  # (A, spikes)
    unit = late * np.exp(-a * late) if a == b else (np.exp(-b * late) - np.exp(-a * late)) / (a - b)
    return a * unit @ w_out.T[neurons]


def central_differences(network, loss, name, step=1e-6):
    """Return the gradient of loss(times, neurons) by one array of the network, and whether all spike counts held.

    Args:
        network: is restored.
        loss: function of times and neurons of all spikes.
        name: of the array.
        step: of each value, relative to it or, if larger, to a hundredth of the largest value.
    """
    values = getattr(network, name)
    counts, gradient, held = network.counts(), np.zeros_like(values), True
    for index in np.ndindex(values.shape):
        kept = values[index]
        if name == "w_rec" and index[0] == index[1]:
            continue
        h = step * max(abs(kept), 0.01 * np.abs(values).max(), 1e-3)
        results = []
        for sign in (1, -1):
            values[index] = kept + sign * h
            times, neurons, _ = network.run()
            held &= bool((np.bincount(neurons, minlength=len(counts)) == counts).all())
            results.append(loss(times, neurons))
        values[index] = kept
        gradient[index] = (results[0] - results[1]) / (2 * h)
    return gradient, held
