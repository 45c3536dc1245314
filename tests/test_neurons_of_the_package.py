"""What is special to each neuron of `snnparams.neurons`; what holds of all stands in test_neurons.py."""

import math

import pytest
import torch

import snnparams as sp

F64 = torch.float64
DT = 1e-3


def test_adaptation_of_no_strength_is_none_and_more_of_it_means_fewer_spikes():
    x = 2 + 2 * torch.rand(200, 4, 3, dtype=F64)
    counts = []
    for beta in (0.0, 0.1, 0.4):
        out, state = sp.Layer(sp.neurons.AdaptiveLIF(beta=beta, tau_adapt=0.05), dtype=F64)(x)
        counts.append(out.sum().item())
        if not beta:
            expected, last = sp.LIF(dtype=F64, kernel="reference")(x)
            assert torch.equal(out, expected)
            assert torch.equal(state.v, last.v)
    assert counts[0] > counts[1] > counts[2] > 0
    decay = (1 - DT / 0.05) ** torch.arange(199, -1, -1, dtype=F64)  # of a spike until the end
    torch.testing.assert_close(state.adaptation, (out * decay[:, None, None]).sum(0))


def test_an_exact_neuron_does_not_depend_on_the_time_step():
    """Input arrives at common times; forward Euler steps are wrong by an amount that falls with the step."""
    errors = {}
    for kind in (sp.neurons.ExactLIF, sp.LIFParameters):
        p, ends = kind(tau_mem=0.02, tau_syn=0.005, v_th=100.0), []
        for finer in (1, 4, 16):
            x = torch.zeros(40 * finer, 1, 1, dtype=F64)
            x[:: 10 * finer] = 1.0
            ends.append(sp.Layer(p, dt=1e-3 / finer, dtype=F64)(x)[1].v.item())
        errors[kind.__name__] = [abs(end - ends[-1]) for end in ends[:2]]
    assert max(errors["ExactLIF"]) < 1e-15
    assert errors["LIFParameters"][0] > 3 * errors["LIFParameters"][1] > 1e-4


@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-4, 0.04, 0.06, 3.0, 30.0])
def test_what_a_current_adds_is_right_for_time_constants_that_are_equal_nearly_or_far_apart(apart):
    """With its derivatives, against the exponential of the matrix and its own."""
    for order in (1, -1):
        rates = torch.tensor([200.0, 200.0 + apart / DT][::order], dtype=F64)

        def moved(r):
            zero = torch.zeros((), dtype=F64)
            matrix = torch.stack([torch.stack([-r[0], r[0]]), torch.stack([zero, -r[1]])])
            return torch.linalg.matrix_exp(DT * matrix)[0, 1]

        def ours(r):
            return sp.neurons.ExactLIF.constants(DT, r[0], r[1])["c"]

        torch.testing.assert_close(ours(rates), moved(rates), rtol=1e-11, atol=1e-300)
        jacobians = (torch.autograd.functional.jacobian(f, rates) for f in (ours, moved))
        torch.testing.assert_close(*jacobians, rtol=1e-7, atol=1e-14)


def test_reset_by_subtraction_keeps_what_lay_above_the_threshold():
    p = {"tau_mem": 0.002, "v_th": 1.0, "v_reset": 0.25}
    for kind, after in ((sp.LIFParameters, 0.25), (sp.neurons.SubtractiveLIF, 0.75)):
        state = sp.LIFFeedForwardState(torch.tensor([[1.0]]), torch.tensor([[2.0]]))
        z, state = sp.neuron_step(kind, torch.zeros(1, 1), state, p=kind(**p))
        assert (z.item(), state.v.item()) == (1.0, after)  # it was at 1.5


def spectral_radius(kind, p, dt=DT):
    """Return the largest modulus of the eigenvalues of a neuron's step below threshold, by its Jacobian."""

    def step(v, w):
        _, state = sp.neuron_step(kind, torch.zeros(1, dtype=F64), kind.State(v, w), p=p, dt=dt)
        return torch.stack([state.v[0], state.w[0]])

    parts = torch.autograd.functional.jacobian(step, (torch.zeros(1, dtype=F64), torch.zeros(1, dtype=F64)))
    return torch.linalg.eigvals(torch.cat(parts, dim=1)).abs().max().item()


@pytest.mark.parametrize(("tau_mem", "tau_adapt"), [(0.005, 0.06), (0.015, 0.18), (0.025, 0.3), (0.0005, 0.002)])
def test_the_symplectic_form_is_stable_where_the_euler_form_explodes(tau_mem, tau_adapt):
    """Both limits of the documentation, by eigenvalues, and what a membrane does on either side of one."""
    alpha, beta = math.exp(-DT / tau_mem), math.exp(-DT / tau_adapt)
    limits = {
        sp.neurons.EFAdLIF: (1 - alpha * beta) / ((1 - alpha) * (1 - beta)),
        sp.neurons.SEAdLIF: (1 + alpha) * (1 + beta) / ((1 - alpha) * (1 - beta)),
    }
    assert limits[sp.neurons.SEAdLIF] > 1.9 * limits[sp.neurons.EFAdLIF]
    for kind, limit in limits.items():
        for share, stable in ((0.98, True), (1.02, False)):
            p = kind(tau_mem=tau_mem, tau_adapt=tau_adapt, a=share * limit, v_th=1e30)
            assert (spectral_radius(kind, p) < 1) == stable
        assert spectral_radius(kind, kind(tau_mem=tau_mem, tau_adapt=tau_adapt, a=-0.98, v_th=1e30)) < 1
        with pytest.raises(ValueError, match="a: expected values above -1, got -1"):
            kind(a=-1.0)
    ends = {}
    for kind in limits:
        p = kind(tau_mem=tau_mem, tau_adapt=tau_adapt, a=1.5 * limits[sp.neurons.EFAdLIF], v_th=1e30)
        if kind is sp.neurons.EFAdLIF:
            steps = math.ceil(20 / math.log(spectral_radius(kind, p)))  # the longest mode grows by e^20
        x = torch.zeros(steps, 1, 1, dtype=F64)
        x[0] = 1.0
        ends[kind] = max(value.abs().item() for value in sp.Layer(p, dt=DT, dtype=F64)(x)[1])
    assert ends[sp.neurons.SEAdLIF] < 1e-6
    assert ends[sp.neurons.EFAdLIF] > 1e6
