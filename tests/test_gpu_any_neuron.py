"""Triton kernels of any neuron against the reference; without a GPU, Triton's interpreter computes them."""

import contextlib
import dataclasses
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_derive import DT, F32, F64, NEURONS, assert_same, problem, random_step, solve

import snnparams as sp
from snnparams import kernels
from snnparams.kernels import fused_sequence, gpu, gpu_steps
from snnparams.neurons.step import PROGRAMS
from snnparams.neurons.surrogate import DERIVATIVES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PATHS = ("without recurrence", "on chip", "tiles")
SOME = ("LIF", "LI", "adaptive LIF", "of a notebook", "dividing")


def as_on(path):
    """Read weights in tiles that would fit on the chip, as on a device without memory there, which takes few rows."""
    without = gpu.Device(75, shared_memory=0, multiprocessors=3)
    return mock.patch.object(gpu, "device_of", return_value=without) if path == "tiles" else contextlib.nullcontext()


def problem_on_device(neuron, seed, steps, rows, neurons, dtype, path, **options):
    x, state, p, weights = problem(neuron, seed, steps, rows, neurons, dtype, path != "without recurrence", **options)

    def moved(tensor):
        return None if tensor is None else tensor.detach().to(DEVICE).requires_grad_()

    values = {name: torch.nn.Parameter(moved(getattr(p, name))) for name in neuron.neuron_fields}
    return moved(x), type(state)(*map(moved, state)), dataclasses.replace(p, **values), moved(weights)


sizes = {
    "seed": st.integers(0, 2**20),
    "steps": st.sampled_from([1, 2, 5]),
    "rows": st.sampled_from([1, 3, 17]),
    "neurons": st.sampled_from([1, 5, 17]),
    "path": st.sampled_from(PATHS),
    "detach_reset": st.booleans(),
}


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(list(NEURONS)), method=st.sampled_from(list(DERIVATIVES)), per_neuron=st.booleans(), **sizes
)
def test_any_neuron_has_the_outputs_and_gradients_of_the_reference(
    name, method, per_neuron, seed, steps, rows, neurons, path, detach_reset
):
    neuron, how = NEURONS[name], {"per_neuron": per_neuron, "method": method, "alpha": 2.0}
    given = problem_on_device(neuron, seed, steps, rows, neurons, F64, path, **how)
    with as_on(path):
        assert_same(neuron, given, detach_reset, path == PATHS[0] and method != "sigmoid", "triton")


@settings(deadline=None, max_examples=15)
@given(step=st.integers(0, 2**20), **sizes)
def test_any_step_has_the_outputs_and_gradients_of_the_reference(step, seed, steps, rows, neurons, path, detach_reset):
    neuron = random_step(step)
    given = problem_on_device(neuron, seed, steps, rows, neurons, F64, path, alpha=2.0)
    with as_on(path):
        assert_same(neuron, given, detach_reset and "reset" in neuron.arguments, path == PATHS[0], "triton")


@pytest.mark.parametrize("name", SOME)
def test_each_neuron_in_several_blocks_and_tiles(name):
    for path, size in zip(PATHS, ((3, 9, 33), (3, 18, 5), (3, 2, 70)), strict=True):
        given = problem_on_device(NEURONS[name], 1, *size, F64, path)
        with as_on(path):
            assert_same(NEURONS[name], given, False, path == PATHS[0], "triton")


@pytest.mark.parametrize("name", SOME)
def test_float32_has_the_bits_of_pytorch(name):
    """Without recurrence; products of float32 depend on the order of their sums."""
    given = problem_on_device(NEURONS[name], 1, 20, 3, 9, F32, PATHS[0])
    (out, *last), gradients = solve("triton", NEURONS[name], given, False)
    (expected, *state), right = solve("reference", NEURONS[name], given, False)
    for ours, theirs in zip((out, *last), (expected, *state), strict=True):
        assert ours.dtype == F32
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(gradients, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * (1 + theirs.abs().max().item()))


class Confusing(sp.Neuron):
    """Names its values as the text that is printed for Triton names its own."""

    state = ("current", "kept")
    tl, fire, kind = sp.voltage(0.3), sp.voltage(0.6), sp.voltage(0.4)

    def step(x, current, kept, tl, fire, kind, spike):
        current = current + tl * (x - current)
        z = spike(current, fire)
        return z, current - z * kind, kept * kind + current


@pytest.mark.parametrize("path", PATHS)
def test_a_neuron_of_a_user_may_give_its_values_any_names(path):
    with as_on(path):
        assert_same(Confusing, problem_on_device(Confusing, 1, 4, 3, 5, F64, path), False, path == PATHS[0], "triton")


@pytest.mark.parametrize("value", [None, lambda x, alpha: torch.sigmoid(3 * alpha * x)])
def test_a_spike_function_of_a_user(value):
    gradient = sp.Surrogate("mine", 2.0, derivative=lambda x, alpha: (1 + (alpha * x) ** 2) ** -1.5, value=value)
    x = torch.randn(6, 3, 4, dtype=F64, device=DEVICE)
    recurrent, declared = torch.randn(4, 4, dtype=F64, device=DEVICE), {"tau_mem": sp.Learned(0.01)}
    found = []
    for kernel in ("triton", "reference"):
        kwargs = {"input_weights": 3 * torch.eye(4), "recurrent_weights": recurrent, "autapses": True}
        how = {"gradient": gradient, "kernel": kernel, "dtype": F64, "device": DEVICE}
        layer = sp.LIFRecurrent(4, 4, sp.LIFParameters(**declared), **kwargs, **how)
        out, state = layer(x)
        found.append([out, *state, *torch.autograd.grad(out.sum() + state.v.sum(), list(layer.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_weights_that_are_not_finite_reach_what_they_reach_in_the_reference():
    for path in PATHS[1:]:
        *_, weights = given = problem_on_device(NEURONS["adaptive LIF"], 3, 6, 2, 5, F64, path)
        with torch.no_grad():
            weights[2, 3] = torch.inf
        with as_on(path):
            ours, theirs = (solve(how, NEURONS["adaptive LIF"], given, True) for how in ("triton", "reference"))
        for a, b in zip(ours[0], theirs[0], strict=True):
            assert torch.equal(a.isnan(), b.isnan())


@pytest.mark.parametrize("path", PATHS)
def test_networks_side_by_side_are_computed_each_by_itself(path):
    neuron = NEURONS["adaptive LIF"]
    program = PROGRAMS[neuron.program]

    def random(*shape):
        return (torch.rand(shape, dtype=F64, device=DEVICE) - 0.2).requires_grad_()

    x, state, p = random(3, 4, 2, 5), random(3, len(program.state), 2, 5), random(3, len(program.parameters), 5)
    w = None if path == PATHS[0] else random(3, 5, 5)
    leaves = [leaf for leaf in (x, state, w, p) if leaf is not None]

    def run(*given):
        with as_on(path):
            out, last, _ = fused_sequence.sequence(*given, neuron.program, "super", 2.0, False, True, "triton")
        return out, last

    together = run(x, state, w, p)
    with as_on(path):
        gradients = torch.autograd.grad(sum((t * t).sum() for t in together), leaves)
    for e in range(3):
        alone = run(*(None if leaf is None else leaf[e : e + 1] for leaf in (x, state, w, p)))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[e], b[0])
        with as_on(path):
            expected = torch.autograd.grad(sum((t * t).sum() for t in alone), leaves)
        for a, b in zip(gradients, expected, strict=True):
            torch.testing.assert_close(a[e], b[e])


def test_any_layer_takes_the_kernel():
    x = torch.rand(4, 2, 3, device=DEVICE)
    for name in SOME:
        out, _ = sp.Layer(NEURONS[name](), size=3, kernel="triton", device=DEVICE)(x.requires_grad_())
        expected, _ = sp.Layer(NEURONS[name](), size=3, kernel="reference", device=DEVICE)(x)
        torch.testing.assert_close(out, expected)
        assert torch.autograd.grad(out.sum(), x)[0].shape == x.shape or NEURONS[name].spiking
    refused = sp.Surrogate("other", derivative=lambda x, alpha: torch.atan(alpha * x))
    with pytest.raises(ValueError, match=r"kernel='triton': .*got atan; use kernel='reference' or None"):
        sp.LIF(gradient=refused, kernel="triton", device=DEVICE)(x)


def test_gradients_are_the_same_where_parameters_need_none():
    neuron = NEURONS["adaptive LIF"]
    for path in PATHS:
        x, state, p, weights = problem_on_device(neuron, 1, 3, 2, 5, F64, path)
        fixed = dataclasses.replace(p, **{name: getattr(p, name).detach() for name in neuron.neuron_fields})
        found = []
        for values in (p, fixed):
            with as_on(path):
                out, _ = kernels.derived_sequence(neuron, x, state, values, DT, False, "triton", weights)
                found.append(torch.autograd.grad(out.sum(), x)[0])
        assert torch.equal(*found)


def test_text_is_written_once_per_step():
    first = gpu_steps.backward(NEURONS["LI"].program, "heaviside", False)
    assert gpu_steps.backward(NEURONS["LI"].program, "heaviside", False) is first
    assert fused_sequence.BACKENDS["triton"] == "snnparams.kernels.gpu_sequence"
