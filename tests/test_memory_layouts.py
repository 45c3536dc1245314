"""Kernels read raw memory: whatever a tensor's strides, sharing or flags are, the numbers are those that it shows."""

import re

import numpy as np
import pytest
import torch
from test_equivalence import DEVICE, F64, KERNELS, LAYERS, build, inputs, weighted

import snnparams as sp


def strided(x):
    return x.transpose(0, 2).contiguous().transpose(0, 2)


def offset(x):
    return torch.cat([torch.full_like(x[:1], 9.0), x])[1:]


def every_other(x):
    return torch.stack([x, torch.full_like(x, 7.0)], dim=-1)[..., 0]


def flipped(x):
    return torch.flip(x.contiguous(), (1,)).flip(1)


def negated(x):
    """Return a view that PyTorch negates when it is read: the imaginary part of a conjugate is one."""
    view = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert view.is_neg()
    return view


def from_numpy(x):
    """Return memory that NumPy owns, read backwards there and so copied by NumPy, at an odd place."""
    raw = np.empty(x.numel() * x.element_size() + 1, np.uint8)[1:].view(np.float64 if x.dtype == F64 else np.float32)
    raw[:] = x.contiguous().numpy().ravel()
    return torch.from_numpy(raw.reshape(x.shape))


VIEWS = [strided, offset, every_other, flipped, negated, from_numpy]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_view_gives_the_numbers_of_its_copy(kind, kernel, view):
    if view is from_numpy and DEVICE[kernel] != "cpu":
        pytest.skip("memory of a CPU")
    layer, x = build(kind, kernel), inputs(kind).to(DEVICE[kernel])
    same = view(x)
    assert torch.equal(same, x)
    states = type(layer(x)[1])(*(0.1 * torch.rand_like(t) for t in layer(x)[1]))
    views = type(states)(*(view(t[None])[0] if view is not negated else view(t) for t in states))
    out, state = layer(x, states)
    expected = torch.autograd.grad(weighted((out, *state)), list(layer.parameters()))
    out_same, state_same = layer(same, views)
    found = torch.autograd.grad(weighted((out_same, *state_same)), list(layer.parameters()))
    # All give the same bits but one: the reference of a recurrent layer multiplies by MKL, which on some processors
    # adds in another order where memory begins at another place.
    moved = kernel == "reference" and kind == "LIFRecurrent" and view is offset
    last_bits = 1e-14 if moved else 0.0
    for a, b in zip((out_same, *state_same, *found), (out, *state, *expected), strict=True):
        torch.testing.assert_close(a, b, rtol=last_bits, atol=last_bits * (1 + b.abs().max().item()))


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_expanded_input_and_expanded_gradients(kernel):
    layer, x = build("LIF", kernel), inputs("LIF").to(DEVICE[kernel])[:1, :1]
    wide = x.expand(6, 4, -1)
    leaf, copied = wide.clone().requires_grad_(), wide.requires_grad_()
    for given in (leaf, copied):
        layer(given)[0].sum().backward()  # the gradient of a sum is one number, expanded
    torch.testing.assert_close(copied.grad, leaf.grad)
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_expanded_parameters(kernel):
    outputs = []
    for value in (torch.tensor(0.25).expand(5), torch.full((5,), 0.25), torch.full((10,), 0.25)[::2]):
        p = sp.LIFParameters(v_th=value, tau_mem_inv=torch.tensor([90.0]).expand(5), alpha=2.0)
        outputs.append(sp.LIF(p, dtype=F64, device=DEVICE[kernel], kernel=kernel)(inputs("LIF").to(DEVICE[kernel]))[0])
    assert outputs[0].sum() > 0
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def sparse_views(x):
    """Return valid sparse COO tensors of the same numbers whose indices and values lie in memory in many ways."""
    events = x.nonzero().contiguous()  # one row (t, b, i) for each spike
    ones = torch.ones((), dtype=x.dtype).expand(len(events))
    wide = torch.stack([events.T, events.T + 1000], dim=-1)[..., 0]  # every other number
    shuffled = torch.randperm(len(events))
    options = {"check_invariants": True, "is_coalesced": True}
    return {
        "transposed indices": torch.sparse_coo_tensor(events.T, ones.clone(), x.shape, **options),
        "expanded values": torch.sparse_coo_tensor(events.T.contiguous(), ones, x.shape, **options),
        "every other index": torch.sparse_coo_tensor(wide, ones.clone(), x.shape, **options),
        "negated values": torch.sparse_coo_tensor(events.T.contiguous(), negated(ones.clone()), x.shape, **options),
        "not coalesced": torch.sparse_coo_tensor(events[shuffled].T, ones.clone(), x.shape, check_invariants=True),
        "in two halves": torch.sparse_coo_tensor(
            events.T.repeat(1, 2), ones.repeat(2) / 2, x.shape, check_invariants=True
        ),
    }


@pytest.mark.parametrize("kernel", ["reference", "cpu"])
@pytest.mark.parametrize("how", sorted(sparse_views(torch.eye(3)[None])))
def test_sparse_spikes_count_whatever_their_memory_looks_like(kernel, how):
    x = inputs("LIFRecurrent")
    expected_layer, layer = build("LIFRecurrent", kernel), build("LIFRecurrent", kernel)
    expected, expected_state = expected_layer(x)
    out, state = layer(sparse_views(x)[how])
    for a, b in zip((out, *state), (expected, *expected_state), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    weighted((out, *state)).backward()
    weighted((expected, *expected_state)).backward()
    for a, b in zip(layer.parameters(), expected_layer.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)
    assert layer.input_weights.grad.abs().sum() > 0


@pytest.mark.parametrize("kernel", ["reference", "cpu"])
def test_sparse_input_without_any_spike(kernel):
    x, layer = torch.zeros(4, 3, 4, dtype=F64), build("LIFRecurrent", kernel)
    out, state = layer(x.to_sparse())
    expected, expected_state = layer(x)
    for a, b in zip((out, *state), (expected, *expected_state), strict=True):
        assert torch.equal(a, b)
    state.i.sum().backward()
    assert not layer.input_weights.grad.any()


def unchecked(indices, values, shape):
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False, is_coalesced=True)


@pytest.mark.parametrize(
    "indices",
    [[[0, 9], [0, 0], [0, 0]], [[0, 1], [0, 3], [0, 0]], [[0, 1], [0, 0], [0, 4]], [[0, -1], [0, 0], [0, 0]],
     [[1, 0], [0, 0], [0, 0]]],
    ids=["step too large", "row too large", "column too large", "negative", "out of order"],
)  # fmt: skip
def test_indices_that_are_not_what_the_tensor_says_are_refused(indices):
    spikes = unchecked(torch.tensor(indices), torch.ones(2, dtype=F64), (9, 3, 4))
    for kernel in ("cpu", "reference"):
        with pytest.raises(ValueError, match=re.escape("expected indices within (9, 3, 4) in the order of rows, got ")):
            build("LIFRecurrent", kernel)(spikes)
    one_step = unchecked(torch.tensor(indices)[[0, 2]].clamp(max=9), torch.ones(2, dtype=F64), (9, 4))
    if one_step.is_coalesced() and (torch.tensor(indices)[1] < 3).all():
        with pytest.raises(ValueError, match=re.escape("expected indices within (9, 4) in the order of rows, got ")):
            build("LIFRecurrentCell")(one_step)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_other_ways_to_store_an_input_are_refused_by_name():
    x = (torch.rand(4, 3, 4) < 0.3).double()
    regular = torch.eye(3, 4, dtype=F64).expand(4, 3, 4)  # equally many numbers in each matrix, as CSR wants
    layer = build("LIFRecurrent")
    dense_or_coo = re.escape("expected a dense tensor, or a sparse COO one with all axes of (T, B, I) sparse, got ")
    with pytest.raises(TypeError, match=dense_or_coo + r"torch.sparse_csr; use .to_dense\(\)"):
        layer(regular.to_sparse_csr())
    with pytest.raises(TypeError, match=dense_or_coo + r"torch.sparse_csr; use .to_dense\(\)"):
        layer(regular[0].to_sparse_csr())  # without a batch
    with pytest.raises(TypeError, match=dense_or_coo + r"torch.sparse_coo with 2 sparse axes of 3; use .to_dense\(\)"):
        layer(x.to_sparse(2))
    for kind in ("LIF", "LI"):
        with pytest.raises(TypeError, match=r"expected a dense tensor, got torch.sparse_coo with 3 sparse axes of 3"):
            build(kind)(inputs(kind).to_sparse())
    for kind in ("LIFCell", "LICell"):
        with pytest.raises(TypeError, match=r"expected a dense tensor, got torch.sparse_coo with 2 sparse axes of 2"):
            build(kind)(inputs(kind).to_sparse())


@pytest.mark.parametrize("kernel", ["loop", "triton"])
def test_an_encoder_under_vmap_and_compilation(kernel):
    x = 5 * torch.rand(3, 7, dtype=F64)
    expected = sp.constant_current_lif_encode(x, 5)
    assert expected.sum() > 0
    if kernel == "triton":
        device = DEVICE["triton"]
        values = [torch.full((), v, dtype=F64, device=device) for v in (0.1, 0.0, 1.0, 0.0)]
        each = torch.vmap(lambda row: sp.kernels.dense_spikes(row, 5, *values))(x.to(device))
        assert torch.equal(each.transpose(0, 1).cpu(), expected)
        return
    assert torch.equal(torch.vmap(lambda row: sp.constant_current_lif_encode(row, 5))(x).transpose(0, 1), expected)
    with pytest.raises(ValueError, match=r"expected dense spikes under torch\.vmap, got sparse ones"):
        torch.vmap(lambda row: sp.constant_current_lif_encode(row, 5, layout=torch.sparse_coo))(x)
    x[1, 2] = float("nan")
    with pytest.raises(ValueError, match="input: expected finite values, got 1 that are not"):
        torch.vmap(lambda row: sp.constant_current_lif_encode(row, 5))(x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_an_encoder_has_a_forward_derivative_or_refuses():
    x, tangent = 3 * torch.rand(3, 4, dtype=F64), torch.ones(3, 4, dtype=F64)

    def loss(x, layout):
        spikes = sp.ConstantCurrentLIFEncoder(20, layout=layout)(x)
        return (spikes.to_dense() if spikes.is_sparse else spikes).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, torch.strided), leaf)
    dense = torch.func.jvp(lambda x: loss(x, torch.strided), (x,), (tangent,))[1]
    assert dense.item() == pytest.approx(gradient.sum().item(), rel=1e-12)
    assert dense > 0
    with pytest.raises(NotImplementedError, match="sparse spikes have none; use dense ones"):
        torch.func.jvp(lambda x: loss(x, torch.sparse_coo), (x,), (tangent,))


def test_a_sparse_encoder_says_which_types_it_takes():
    encode = sp.ConstantCurrentLIFEncoder(4, layout=torch.sparse_coo)
    with pytest.raises(TypeError, match=r"layout: expected float32 or float64 on a CPU for torch.sparse_coo, got"):
        encode(torch.ones(2, 3, dtype=torch.bfloat16))


@pytest.mark.parametrize("method", ["super", "adjoint"])
@pytest.mark.parametrize("shape", [(3, 2, 0), (3, 2, 4, 0), (3, 2, 0, 4)])
def test_a_population_without_neurons_is_refused(shape, method):
    with pytest.raises(ValueError, match=re.escape(f"expected at least one neuron in shape (T, B, ...), got {shape}")):
        sp.LIF(sp.LIFParameters(method=method))(torch.zeros(shape))


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_an_encoder_compiles_in_one_graph():
    x, encode = 5 * torch.rand(3, 7), sp.ConstantCurrentLIFEncoder(5)
    compiled = torch.compile(encode, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), encode(x))
    x[1, 2] = float("inf")
    with pytest.raises(RuntimeError, match="input: expected finite values, got some that are not"):
        compiled(x)
