"""The fused kernels against the reference: the loop over `snnparams.neurons.dynamics`, differentiated by autograd."""

import re
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snnparams as sp
from snnparams import kernels
from snnparams.kernels import cpu, gpu
from snnparams.neurons.surrogate import DERIVATIVES

F32, F64 = torch.float32, torch.float64
DEVICES = {"reference": "cpu", "cpu": "cpu", "triton": "cuda" if torch.cuda.is_available() else "cpu"}
ROUNDINGS = 8  # of a number in each step
FUSED = ["cpu", "cpu, large", "triton", "triton in tiles"]
LAYERS = {"LIF": sp.LIF, "LIFRecurrent": sp.LIFRecurrent, "LI": sp.LI}


@st.composite
def problems(draw):
    kind = draw(st.sampled_from(sorted(LAYERS)))
    return {
        "kind": kind,
        "seed": draw(st.integers(0, 2**20)),
        "steps": draw(st.sampled_from([1, 2, 3, 17])),
        "batch": draw(st.sampled_from([1, 2, 3, 4, 5, 9])),
        "neurons": draw(st.sampled_from([1, 2, 5, 8, 33])),
        "method": draw(st.sampled_from(sorted(DERIVATIVES))),
        "per_neuron": draw(st.booleans()),
        "learned": draw(st.booleans()),
        "with_state": draw(st.booleans()),
        "detach_reset": draw(st.booleans()),
        "layout": draw(st.sampled_from(["plain", "not contiguous", "sparse"] if kind == "LIFRecurrent" else ["plain"])),
        "drive": draw(st.sampled_from([0.0, 1.0, 50.0])),  # silent, mixed, every neuron in every step
    }


def solve(problem, kernel, dtype, nudge=None):
    """Return outputs, last state and all gradients of one problem.

    With a `nudge`, the seed of random signs, each given number is rounded to float32 and changed by one such rounding;
    0 only rounds.
    """
    generator, device = torch.Generator().manual_seed(problem["seed"]), DEVICES[kernel]

    def random(*shape):
        return torch.rand(shape, dtype=F64, generator=generator).to(device)

    signs = torch.Generator().manual_seed(nudge or 0)

    def given(value):
        if nudge is not None:
            value = value.to(F32).double()
        if nudge:
            change = 2.0 * torch.randint(2, value.shape, generator=signs).to(device) - 1
            value = value * (1 + torch.finfo(F32).eps / 2 * change)
        return value.to(dtype)

    kind, neurons, steps, batch = (problem[k] for k in ("kind", "neurons", "steps", "batch"))
    shape = (neurons,) if problem["per_neuron"] else ()
    values = {"tau_syn_inv": 100 + 300 * random(*shape), "tau_mem_inv": 50 + 300 * random(*shape)}
    values |= {"v_leak": 0.2 * random(*shape) - 0.1}
    if kind != "LI":
        values |= {"v_th": 0.3 + 0.3 * random(*shape), "v_reset": 0.2 * random(*shape) - 0.2}
    register = nn.Parameter if problem["learned"] else torch.clone
    values = {name: register(given(value)) for name, value in values.items()}
    inputs = 6
    if kind == "LI":
        layer = sp.LI(sp.LIParameters(**values), dtype=dtype, device=device, kernel=kernel)
    else:
        p = sp.LIFParameters(**values, method=problem["method"], alpha=2.0)
        options = {"detach_reset": problem["detach_reset"], "dtype": dtype, "device": device, "kernel": kernel}
        if kind == "LIF":
            layer = sp.LIF(p, **options)
        else:
            w_in = given(problem["drive"] * (random(neurons, inputs) - 0.2))
            w_rec = given(random(neurons, neurons) - 0.5 + 0.1 * problem["drive"])
            layer = sp.LIFRecurrent(
                inputs, neurons, p, input_weights=w_in, recurrent_weights=w_rec, autapses=True, **options
            )
    if kind == "LIFRecurrent":
        x = (random(steps, batch, inputs) < 0.3).to(dtype)
    else:
        x = given(problem["drive"] * (random(steps, batch, neurons) - 0.2))
    if problem["layout"] == "sparse":
        x = x.to_sparse()
    elif problem["layout"] == "not contiguous":
        x = x.transpose(0, 2).contiguous().transpose(0, 2)
    leaves = [] if x.is_sparse else [x.requires_grad_()]
    state = None
    if problem["with_state"]:
        parts = [given(random(batch, neurons)).requires_grad_() for _ in range(3 if kind == "LIFRecurrent" else 2)]
        leaves += parts
        _, plain = layer(torch.zeros_like(x))
        state = type(plain)(*parts)
    out, last = layer(x, state)
    loss = sum((given(random(*part.shape) - 0.5) * part).sum() for part in (out, *last))
    leaves += list(layer.parameters())
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad else []
    return [out.detach().cpu(), *(part.detach().cpu() for part in last)], [
        torch.zeros_like(leaf).cpu() if g is None else g.cpu()
        for leaf, g in zip(leaves, gradients, strict=bool(gradients))
    ]


def solve_fused(problem, kernel, dtype):
    """Solve by a fused kernel.

    In tiles, weights that would fit on the chip are read as on one without memory. "cpu, large" takes every recurrent
    population as a large one.
    """
    if kernel == "cpu, large":
        with mock.patch.object(cpu, "LARGE", 1):
            return solve(problem, "cpu", dtype)
    if kernel != "triton in tiles":
        return solve(problem, kernel, dtype)
    return solve_as_on(gpu.Device(90, shared_memory=0, multiprocessors=2), problem, dtype)


def solve_as_on(device, problem, dtype):
    """Solve by what the Triton kernel would be on another device."""
    with mock.patch.object(gpu, "device_of", return_value=device):
        return solve(problem, "triton", dtype)


@pytest.mark.parametrize("kernel", FUSED)
@settings(deadline=None, max_examples=400)
@given(problem=problems())
def test_same_spikes_and_gradients_as_the_reference_in_float64(kernel, problem):
    (out, *last), gradients = solve(problem, "reference", F64)
    (out_fused, *last_fused), gradients_fused = solve_fused(problem, kernel, F64)
    if problem["kind"] == "LI" or problem["method"] == "sigmoid":
        torch.testing.assert_close(out_fused, out, rtol=1e-11, atol=1e-11)
    else:
        assert torch.equal(out_fused, out)
    for a, b in zip(last_fused, last, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    for a, b in zip(gradients_fused, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * (1 + b.abs().max().item()))


@pytest.mark.parametrize("kernel", FUSED)
@settings(deadline=None, max_examples=100)
@given(problem=problems())
def test_float32_is_close_to_the_reference_where_the_spikes_are_the_same(kernel, problem):
    """A membrane within rounding of its threshold may go either way; gradients then differ, and rightly so.

    How far from float64 a result in float32 may be follows from the problem: by how much the result in float64 changes
    if each number that is given changes by one rounding of float32, or by the rounding of a 1, from which a spike
    function may subtract. A kernel rounds a few times in every step, so that as many such changes are allowed as there
    are steps, times ROUNDINGS.
    """
    exact, *nudged = ([*o, *g] for o, g in (solve(problem, "reference", F64, nudge) for nudge in range(5)))
    out, gradients = solve_fused(problem, kernel, F32)
    found = [*out, *gradients]
    hard = problem["kind"] != "LI" and problem["method"] != "sigmoid"
    if hard and not all(torch.equal(other[0], exact[0]) for other in (*nudged, [found[0].double()])):
        assert (found[0] != exact[0]).float().mean() < 0.02
        return
    for right, ours, *others in zip(exact, found, *nudged, strict=True):
        if right.numel() and right.abs().max() < 1e30:  # which float32 can hold on the way, too
            change = max(torch.finfo(F32).eps, *((other - right).abs().max().item() for other in others))
            assert (ours - right).abs().max() <= ROUNDINGS * (problem["steps"] + 1) * change


def recurrent(kernel=None, dtype=F32):
    torch.manual_seed(0)
    p = sp.LIFParameters(tau_mem_inv=nn.Parameter(90 + 20 * torch.rand(20, dtype=dtype)), v_th=0.3)
    return sp.LIFRecurrent(6, 20, p, dtype=dtype, kernel=kernel)


def kept_bytes(layer, x):
    """Return how many bytes autograd keeps beyond input, output, weights and parameters."""
    storages = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: storages.setdefault(t.untyped_storage().data_ptr(), t) is None or t, lambda t: t
    ):
        out, _ = layer(x)
    known = {t.untyped_storage().data_ptr() for t in (x, out, *layer.parameters(), *layer.buffers())}
    return sum(t.untyped_storage().nbytes() for pointer, t in storages.items() if pointer not in known)


@pytest.mark.parametrize("steps", [200, 400])
def test_at_most_eight_bytes_are_kept_per_neuron_and_step(steps):
    x, batch = (torch.rand(steps, 8, 6) < 0.1).float(), 8
    once = 3 * 20 * 20 * 4 + 12 * batch * 20 * 4  # masked weights, parameters and states, which do not grow with T
    assert 8 * steps * batch * 20 <= kept_bytes(recurrent("cpu"), x) <= 8 * steps * batch * 20 + once
    assert kept_bytes(recurrent("reference"), x) > 16 * steps * batch * 20


@pytest.mark.parametrize(
    "layer", [sp.LIF(sp.LIFParameters(v_th=0.1)), sp.LI(), recurrent("cpu")], ids=["LIF", "LI", "LIFRecurrent"]
)
def test_the_same_without_gradient(layer):
    x = torch.rand(50, 8, 6)
    with torch.no_grad():
        out, state = layer(x)
    assert not out.requires_grad
    expected, expected_state = layer(x)
    for a, b in zip((out, *state), (expected, *expected_state), strict=True):
        assert torch.equal(a, b)


def test_thread_count_changes_rounding_only():
    x, threads = (torch.rand(30, 13, 6, dtype=F64) < 0.3).double(), torch.get_num_threads()
    gradients = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            layer = recurrent("cpu", F64)
            layer(x)[0].sum().backward()
            gradients.append([p.grad for p in layer.parameters()])
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_many_networks_at_once_by_vmap():
    layers = [recurrent("cpu", F64) for _ in range(3)]
    for k, layer in enumerate(layers):
        nn.init.normal_(layer.input_weights, std=1.0 + k)
    x = (torch.rand(12, 5, 6, dtype=F64) < 0.3).double()
    parameters, buffers = torch.func.stack_module_state(layers)
    out = torch.vmap(lambda p, b: torch.func.functional_call(layers[0], (p, b), (x,))[0])(parameters, buffers)
    out.sum().backward()
    for k, layer in enumerate(layers):
        z, _ = layer(x)
        z.sum().backward()
        assert torch.equal(out[k], z)
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(parameters[name].grad[k], parameter.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", ["reference", "cpu", "triton"])
@pytest.mark.parametrize("connected", [False, True])
def test_no_rows_give_no_outputs_and_no_gradients(kernel, connected):
    """Layers refuse an empty batch; what computes for them has an answer."""
    device = DEVICES[kernel]
    v_th, x = torch.rand(4, device=device, requires_grad=True), torch.rand(5, 0, 4, device=device, requires_grad=True)
    weights = torch.rand(4, 4, device=device, requires_grad=True) if connected else None
    kind = sp.LIFParameters.RecurrentState if connected else sp.LIFParameters.State
    state = kind(*(torch.zeros(0, 4, device=device) for _ in kind._fields))
    z, last = kernels.sequence(sp.LIFParameters, x, state, sp.LIFParameters(v_th=v_th), 1e-3, False, kernel, weights)
    z.sum().backward()
    assert z.shape == x.grad.shape == (5, 0, 4)
    assert all(part.shape == (0, 4) for part in last)
    assert v_th.grad.count_nonzero() == 0
    assert weights is None or weights.grad.count_nonzero() == 0


def test_what_a_kernel_cannot_do_is_refused():
    with pytest.raises(
        ValueError, match=re.escape("unknown kernel='gpu'; expected None or one of reference, cpu, triton")
    ):
        sp.LIF(kernel="gpu")
    with pytest.raises(ValueError, match=re.escape("expected torch.float32 or torch.float64, got torch.bfloat16")):
        sp.LIF(kernel="cpu", dtype=torch.bfloat16)(torch.zeros(2, 1, 3, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="expected a tensor on a CUDA GPU, got one on meta"):
        sp.LIF(kernel="triton", device="meta")(torch.zeros(2, 1, 3, device="meta"))
    with pytest.raises(ValueError, match="expected a tensor on a CPU, got one on meta"):
        sp.LIF(kernel="cpu", device="meta")(torch.zeros(2, 1, 3, device="meta"))
    with pytest.raises(ValueError, match="expected sparse spikes without gradient"):
        recurrent()(torch.ones(2, 1, 6).to_sparse().requires_grad_())
    out, _ = sp.LIF(dtype=torch.bfloat16)(torch.zeros(2, 1, 3, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16  # left to choose, the layer takes the reference


def test_second_derivatives_are_refused():
    x = torch.rand(5, 2, 3, requires_grad=True)
    voltages, _ = sp.LI(sp.LIParameters(tau_mem_inv=nn.Parameter(torch.tensor(100.0))))(x)
    (g,) = torch.autograd.grad(voltages.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        g.sum().backward()


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from([(), (7,), (0, 5), (3, 5), (2, 3, 4)]),
    steps=st.integers(1, 40),
    v_th=st.sampled_from([-0.2, 0.5, 1.0]),
    v_reset=st.sampled_from([-0.3, 0.0, 1.5]),
    dtype=st.sampled_from([F32, F64]),
)
def test_sparse_encoding_gives_the_spikes_of_the_dense_one(seed, shape, steps, v_th, v_reset, dtype):
    x = 1.5 * torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    p = sp.LIFParameters(v_th=v_th, v_reset=v_reset, v_leak=0.1)
    dense = sp.constant_current_lif_encode(x, steps, p)
    sparse = sp.constant_current_lif_encode(x, steps, p, layout=torch.sparse_coo)
    assert sparse.is_coalesced()
    assert torch.equal(sparse.to_dense(), dense)
    assert torch.equal(sparse.indices(), dense.to_sparse().indices())


def test_sparse_encoding_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="expected values and parameters without gradient"):
        sp.constant_current_lif_encode(torch.ones(3, requires_grad=True), 4, layout=torch.sparse_coo)
    with pytest.raises(ValueError, match=re.escape("layout: expected torch.strided or torch.sparse_coo")):
        sp.ConstantCurrentLIFEncoder(4, layout=torch.sparse_csr)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("v_reset", [-0.3, 0.0, 1.5])
def test_the_encoder_of_the_gpu_gives_the_spikes_of_the_loop(dtype, v_reset):
    x, p = 2 * torch.randn(3, 100, dtype=dtype), sp.LIFParameters(v_th=0.5, v_reset=v_reset, v_leak=0.1)
    expected = sp.constant_current_lif_encode(x, 30, p)
    device = DEVICES["triton"]
    values = (torch.tensor(value, dtype=dtype, device=device) for value in (0.001 * p.tau_mem_inv, 0.1, 0.5, v_reset))
    z = kernels.dense_spikes(x.to(device), 30, *values)
    assert torch.equal(z.cpu(), expected)
