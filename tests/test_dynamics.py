"""The step functions against closed forms, which know nothing of their code."""

import math

import pytest
import torch

import snnparams as sp

F64 = torch.float64


def run_lif(current, p, dt, steps):
    state = sp.LIFFeedForwardState(torch.zeros(1, dtype=F64), torch.zeros(1, dtype=F64))
    voltages, spikes = [], []
    for t in range(steps):
        z, state = sp.lif_feed_forward_step(current(t), state, p, dt=dt)
        voltages.append(state.v.item())
        spikes.append(z.item())
    return voltages, spikes


def test_membrane_charges_as_the_discrete_closed_form():
    dt, tau_mem_inv = 1e-3, 80.0
    # a current that is constant: after the first step, add what the synapse loses
    p = sp.LIFParameters(tau_mem_inv=tau_mem_inv, tau_syn_inv=200.0, v_th=10.0)
    voltages, _ = run_lif(lambda t: torch.tensor([1.0 if t == 0 else 0.2], dtype=F64), p, dt, 50)
    expected = [1 - (1 - dt * tau_mem_inv) ** n for n in range(1, 51)]
    assert voltages == pytest.approx(expected, rel=1e-12)


def test_converges_to_the_continuous_response_to_one_spike():
    # v(t) = tau_syn / (tau_mem - tau_syn) * (exp(-t / tau_mem) - exp(-t / tau_syn)) for a current jump of 1
    tau_mem, tau_syn, t_end = 10e-3, 5e-3, 12e-3
    exact = tau_syn / (tau_mem - tau_syn) * (math.exp(-t_end / tau_mem) - math.exp(-t_end / tau_syn))
    errors = []
    for dt in (1e-4, 1e-5):
        p = sp.LIParameters(tau_syn_inv=1 / tau_syn, tau_mem_inv=1 / tau_mem)
        state = sp.LIState(torch.zeros(1, dtype=F64), torch.zeros(1, dtype=F64))
        for t in range(round(t_end / dt)):
            v, state = sp.li_feed_forward_step(torch.tensor([1.0 if t == 0 else 0.0], dtype=F64), state, p, dt=dt)
        errors.append(abs(v.item() - exact))
    assert errors[0] < 0.01 * exact
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.1)  # first order


def test_firing_period_under_constant_current_is_the_closed_form():
    dt, tau_mem, v_th, current = 1e-3, 10e-3, 1.0, 1.5
    p = sp.LIFParameters(tau_mem_inv=1 / tau_mem, v_th=v_th)
    steps = math.floor(math.log(1 - v_th / current) / math.log(1 - dt / tau_mem)) + 1  # first n above threshold
    spikes = sp.constant_current_lif_encode(torch.tensor([current], dtype=F64), 10 * steps, p, dt=dt)
    assert spikes.nonzero()[:, 0].tolist() == [n * steps - 1 for n in range(1, 11)]


def test_reset_goes_to_v_reset():
    p = sp.LIFParameters(v_th=0.5, v_reset=-0.3)
    voltages, spikes = run_lif(lambda t: torch.tensor([50.0], dtype=F64), p, 1e-3, 5)
    assert spikes == [1] * 5
    assert voltages == [-0.3] * 5


def test_recurrent_step_by_hand():
    state = sp.LIFState(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.2, 0.4]]), torch.tensor([[0.5, 0.0]]))
    w_in, w_rec = torch.tensor([[2.0], [3.0]]), torch.tensor([[0.0, 1.0], [4.0, 0.0]])
    p = sp.LIFParameters(tau_mem_inv=100.0, tau_syn_inv=200.0, v_leak=0.1, v_th=0.6)
    z, new = sp.lif_step(torch.ones(1, 1), state, w_in, w_rec, p, dt=1e-3)
    jump = [0.5 + 2.0 + 0.0, 0.0 + 3.0 + 4.0]
    v = [0.2 + 0.1 * (0.1 - 0.2 + jump[0]), 0.4 + 0.1 * (0.1 - 0.4 + jump[1])]  # 0.44, 1.07
    assert z.tolist() == [[0.0, 1.0]]
    torch.testing.assert_close(new.v, torch.tensor([[v[0], 0.0]]))
    torch.testing.assert_close(new.i, torch.tensor([[0.8 * jump[0], 0.8 * jump[1]]]))


def test_detach_reset_cuts_only_the_surrogate_path_through_the_reset():
    def gradient(detach):
        v = torch.tensor([[0.9]], dtype=F64, requires_grad=True)
        state = sp.LIFFeedForwardState(v, torch.tensor([[5.0]], dtype=F64))
        p = sp.LIFParameters(alpha=2.0, v_reset=0.1)
        z, new = sp.lif_feed_forward_step(torch.zeros(1, 1, dtype=F64), state, p, dt=1e-3, detach_reset=detach)
        assert z.item() == 1
        return torch.autograd.grad(new.v.sum(), v)[0].item()

    assert gradient(True) == 0  # after a spike the voltage is v_reset, whatever it was
    v_before_reset = 0.9 + 0.1 * (5 - 0.9)
    surrogate = 1 / (1 + 2.0 * (v_before_reset - 1)) ** 2
    assert gradient(False) == pytest.approx(0.9 * surrogate * (0.1 - v_before_reset))


def test_defaults_and_input_weights_of_the_leaky_integrator():
    state = sp.LIState(torch.zeros(2, 3), torch.zeros(2, 3))
    x, w = torch.ones(2, 4), torch.full((3, 4), 0.25)
    v, new = sp.li_step(x, state, w)
    torch.testing.assert_close(v, torch.full((2, 3), 0.1))
    torch.testing.assert_close(new.i, torch.full((2, 3), 0.8))
    z, _ = sp.lif_feed_forward_step(torch.full((1, 1), 20.0), sp.LIFFeedForwardState(v[:1, :1], v[:1, :1]))
    assert z.item() == 1
