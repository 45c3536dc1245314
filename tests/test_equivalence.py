"""Whatever a fused kernel computes, the reference computes, in all that a user can see, not in numbers only."""

import copy
import io
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snnparams as sp
from snnparams.kernels import cpu
from snnparams.neurons.surrogate import DERIVATIVES

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),  # PyTorch's own forward mode uses it
    pytest.mark.filterwarnings("ignore:invalid value encountered"),  # NumPy's, on infinities in Triton's interpreter
]
F64 = torch.float64
DEVICE = {"reference": "cpu", "cpu": "cpu", "triton": "cuda" if torch.cuda.is_available() else "cpu"}
KERNELS, FUSED = list(DEVICE), ["cpu", "triton"]
LAYERS, CELLS = ["LIF", "LIFRecurrent", "LI"], ["LIFCell", "LIFRecurrentCell", "LICell"]
STEPS, BATCH, NEURONS, INPUTS = 9, 3, 5, 4


def build(kind, kernel=None, method="super", seed=0, **options):
    """Return a layer or cell of float64 whose neurons differ and are learned."""
    torch.manual_seed(seed)
    options |= {"dtype": F64, "device": DEVICE[kernel] if kernel else "cpu"}
    if not kind.endswith("Cell"):
        options["kernel"] = kernel
    times = {"tau_mem": sp.Learned(0.01 + 0.01 * torch.rand(NEURONS)), "tau_syn": sp.Learned(5e-3)}
    if kind.startswith("LI") and not kind.startswith("LIF"):
        return getattr(sp, kind)(sp.LIParameters(**times), size=NEURONS, **options)
    threshold = sp.Learned(0.2 + 0.1 * torch.rand(NEURONS))
    p = sp.LIFParameters(**times, v_th=threshold, v_reset=sp.Learned(-0.1), method=method, alpha=2.0)
    if "Recurrent" not in kind:
        return getattr(sp, kind)(p, size=NEURONS, **options)
    weights = {"input_weights": 3 * torch.rand(NEURONS, INPUTS), "recurrent_weights": torch.randn(NEURONS, NEURONS)}
    return getattr(sp, kind)(INPUTS, NEURONS, p, **weights, autapses=True, **options)


def inputs(kind, seed=1):
    generator = torch.Generator().manual_seed(seed)
    if "Recurrent" in kind:
        x = (torch.rand(STEPS, BATCH, INPUTS, generator=generator) < 0.4).double()
    else:
        x = 2 * torch.rand(STEPS, BATCH, NEURONS, generator=generator, dtype=F64)
    return x[0] if kind.endswith("Cell") else x


def weighted(outputs):
    """Return a loss in which every number of the outputs counts, each with another weight."""
    return sum((torch.arange(t.numel(), dtype=F64).cos().to(t).view(t.shape) * t).sum() for t in outputs)


# -------------------------------------------------------------------------------------------- tensors of their own


@pytest.mark.parametrize(
    ("kind", "kernel"), [(kind, kernel) for kind in LAYERS for kernel in KERNELS] + [(kind, None) for kind in CELLS]
)
@pytest.mark.parametrize("method", ["super", "adjoint"])
def test_no_output_is_a_part_of_another(kind, kernel, method):
    if method == "adjoint" and kind in ("LI", "LICell"):
        pytest.skip("there is no such adjoint")
    options = {} if method == "adjoint" or kind.startswith("LIC") or kind == "LI" else {"detach_reset": True}
    module = build(kind, kernel, method, **options)
    x = inputs(kind).to(DEVICE[kernel or "cpu"])
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            out, state = module(x)
            tensors = [out, *state]
            assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)
            assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in tensors)
            given = type(state)(*(torch.rand_like(t) for t in state))
            later, new = module(x, given)
            assert not {t.untyped_storage().data_ptr() for t in given} & {
                t.untyped_storage().data_ptr() for t in (later, *new)
            }


@pytest.mark.parametrize("kernel", KERNELS)
def test_to_drop_spikes_in_place_changes_nothing_that_comes_later(kernel):
    layer, x = build("LIFRecurrent", kernel), inputs("LIFRecurrent").to(DEVICE[kernel])
    with torch.no_grad():
        whole, _ = layer(x)
        state, chunks = None, []
        for chunk in x.split(4):
            z, state = layer(chunk, state)
            chunks.append(z.clone())
            z.zero_()
    assert whole.sum() > 10
    assert torch.equal(torch.cat(chunks), whole)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_saved_state_has_its_own_size(kind):
    states = []
    for steps in (2, 400):
        file = io.BytesIO()
        with torch.no_grad():
            torch.save(tuple(build(kind, "cpu")(inputs(kind)[:1].expand(steps, -1, -1))[1]), file)
        states.append(len(file.getvalue()))
    assert states[0] == states[1]


def in_place(kind, kernel, what):
    """Return the gradients after something was changed in place between forward and backward, or the refusal."""
    layer = build(kind, kernel, detach_reset=False) if kind != "LI" else build(kind, kernel)
    x = inputs(kind).to(DEVICE[kernel]).requires_grad_(what != "input")
    with torch.no_grad():
        kept = type(layer(x)[1])(*(t.clone() for t in layer(x)[1]))
    out, state = layer(x, kept)
    loss = weighted((out, *state))
    target = {
        "nothing": [],
        "output": [out],
        "last state": list(state),
        "given state": list(kept),
        "input": [x],
        "neuron parameters": [layer.p.raw(name) for name in layer.p.neuron_fields],
        "input weights": [layer.input_weights] if kind == "LIFRecurrent" else [],
        "recurrent weights": [layer.recurrent_weights] if kind == "LIFRecurrent" else [],
    }[what]
    with torch.no_grad():
        for tensor in target:
            tensor.mul_(0.5)
    try:
        gradients = torch.autograd.grad(loss, [*layer.parameters(), *([] if what == "input" else [x])])
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return "refused"
    return [g.cpu() for g in gradients]


CHANGES = ["output", "last state", "given state", "input", "neuron parameters", "input weights", "recurrent weights"]


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("kind", LAYERS)
def test_changes_in_place_before_the_backward_pass_are_refused_by_all_or_change_nothing(kind, what):
    of = {kernel: in_place(kind, kernel, what) for kernel in KERNELS}
    for kernel in FUSED:
        assert (of[kernel] == "refused") == (of["reference"] == "refused"), kernel
    for kernel, gradients in of.items():
        if gradients != "refused":
            unchanged = in_place(kind, kernel, "nothing")[: len(gradients)]
            if what != "neuron parameters":  # a constraint's own derivative is taken where the value is now
                torch.testing.assert_close(gradients, unchanged, rtol=1e-12, atol=1e-12)


def test_values_that_change_before_the_backward_pass_leave_the_gradients_of_fixed_neurons():
    for kernel in KERNELS:
        x = inputs("LIF").to(DEVICE[kernel]).requires_grad_()
        values = {"v_th": torch.tensor(0.2), "v_leak": torch.tensor(0.05), "v_reset": torch.tensor(-0.1)}
        p = sp.LIFParameters(**values, tau_mem_inv=nn.Parameter(torch.tensor(90.0, dtype=F64)), alpha=2.0)
        gradients = []
        for change in (False, True):
            layer = sp.LIF(p, dtype=F64, device=DEVICE[kernel], kernel=kernel)
            out, state = layer(x)
            loss = weighted((out, *state))
            if change:
                layer.p.v_th, layer.p.v_leak, layer.p.v_reset = 0.7, -0.3, 0.1
            gradients.append(torch.autograd.grad(loss, x)[0])
        assert torch.equal(*gradients)


def test_sparse_spikes_that_change_before_the_backward_pass_leave_the_gradient():
    x = inputs("LIFRecurrent")
    gradients = []
    for change in (False, True):
        spikes = x.to_sparse()
        layer = build("LIFRecurrent", "cpu")
        loss = weighted(layer(spikes)[:1])
        if change:
            spikes._values().zero_()
            spikes._indices().zero_()
        loss.backward()
        gradients.append(layer.input_weights.grad)
    assert torch.equal(*gradients)


# ------------------------------------------------------------------------------------------- infinities and NaN


@st.composite
def broken(draw):
    """Return where a number that is not finite enters."""
    return {
        "kind": draw(st.sampled_from(LAYERS)),
        "method": draw(st.sampled_from(sorted(DERIVATIVES))),
        "value": draw(st.sampled_from([float("nan"), float("inf"), -float("inf")])),
        "where": draw(st.sampled_from(["input", "input weights", "recurrent weights", "state", "gradient"])),
        "sparse": draw(st.booleans()),
        "detach_reset": draw(st.booleans()),
        "steps": draw(st.sampled_from([1, 2, STEPS])),
        "seed": draw(st.integers(0, 2**20)),
    }


def solve_broken(problem, kernel):
    kind, where = problem["kind"], problem["where"]
    options = {} if kind == "LI" else {"detach_reset": problem["detach_reset"]}
    layer = build(kind, kernel, problem["method"], problem["seed"], **options)
    generator = torch.Generator().manual_seed(problem["seed"])

    def spoil(tensor):
        place = torch.randint(tensor.numel(), (), generator=generator)
        with torch.no_grad():
            tensor.view(-1)[place] = problem["value"]

    x = inputs(kind, problem["seed"])[: problem["steps"]].to(DEVICE[kernel])
    if where == "input":
        spoil(x)
    if kind == "LIFRecurrent":
        if where == "input weights":
            spoil(layer.input_weights)
        elif where == "recurrent weights":
            spoil(layer.recurrent_weights)
        if problem["sparse"]:
            x = x.to_sparse()
    state = None
    if where == "state":
        with torch.no_grad():
            state = layer(torch.zeros(x.shape).to(x))[1]
            spoil(state.v)
    leaves = list(layer.parameters()) + ([] if x.is_sparse else [x.requires_grad_()])
    outputs = [t for out, last in [layer(x, state)] for t in (out, *last)]
    weights = [torch.rand(t.shape, generator=generator, dtype=F64) for t in outputs]
    if where == "gradient":
        spoil(weights[-1])
    pairs = [(t, w.to(t)) for t, w in zip(outputs, weights, strict=True) if t.requires_grad]
    gradients = torch.autograd.grad([t for t, _ in pairs], leaves, [w for _, w in pairs], allow_unused=True)
    return [t.detach().cpu() for t in outputs], [
        torch.zeros_like(leaf).cpu() if g is None else g.cpu() for leaf, g in zip(leaves, gradients, strict=True)
    ]


@pytest.mark.parametrize("kernel", FUSED)
@settings(deadline=None, max_examples=300)
@given(problem=broken())
def test_infinities_and_nan_go_where_they_go_in_the_reference(kernel, problem):
    for ours, theirs in zip(solve_broken(problem, kernel), solve_broken(problem, "reference"), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)


@settings(deadline=None, max_examples=100)
@given(problem=broken())
def test_infinities_and_nan_go_where_they_go_in_the_reference_in_large_populations(problem):
    with mock.patch.object(cpu, "LARGE", 1):
        found = solve_broken(problem, "cpu")
    for ours, theirs in zip(found, solve_broken(problem, "reference"), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("where", ["input", "recurrent weights"])
def test_infinities_and_nan_in_the_forward_pass_of_the_adjoint(where):
    outputs = []
    for kernel in ("reference", "cpu"):
        layer, x = build("LIFRecurrent", kernel, "adjoint"), inputs("LIFRecurrent")
        with torch.no_grad():
            (x if where == "input" else layer.recurrent_weights).view(-1)[3] = float("inf")
        out, state = layer(x)
        outputs.append([out, *state])
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert any(t.isnan().any() for t in outputs[0])


@pytest.mark.parametrize("kind", ["LIF", "LIFRecurrent"])
def test_an_infinite_input_leaves_the_same_gradients_of_the_adjoint(kind):
    found = []
    for kernel in ("reference", "cpu"):
        layer, x = build(kind, kernel, "adjoint"), inputs(kind)
        x[3, 1, 2] = float("inf")
        (layer(x.requires_grad_())[0] * torch.linspace(0, 1, STEPS)[:, None, None]).sum().backward()
        found.append([x.grad, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9, equal_nan=True)


# ------------------------------------------------------------------------------------------------------ heaviside


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["LIF", "LIFRecurrent"])
def test_spikes_of_a_step_without_derivative_are_constants(kind, kernel):
    layer = build(kind, kernel, "heaviside")
    z, state = layer(inputs(kind).to(DEVICE[kernel]))
    assert z.sum() > 0
    assert not z.requires_grad
    assert state.v.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        z.sum().backward()


# ----------------------------------------------------------------------------------------------------- torch.func


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", LAYERS)
def test_reverse_transforms_give_the_gradients_of_autograd(kind, kernel):
    layer, x = build(kind, kernel), inputs(kind).to(DEVICE[kernel])
    names, values = zip(*layer.named_parameters(), strict=True)

    def loss(parameters, x):
        out, state = torch.func.functional_call(layer, parameters, (x,))
        return weighted((out, *state))

    of_parameters, of_x = torch.func.grad(loss, argnums=(0, 1))(dict(layer.named_parameters()), x)
    leaf = x.clone().requires_grad_()
    out, state = layer(leaf)
    expected = torch.autograd.grad(weighted((out, *state)), [*values, leaf])
    for found, right in zip([*(of_parameters[name] for name in names), of_x], expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    assert expected[0].abs().sum() > 0

    some = torch.stack([x, x.flip(0), 0.5 * x])
    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(dict(layer.named_parameters()), some)
    for k, one in enumerate(some):
        alone = torch.func.grad(loss)(dict(layer.named_parameters()), one)
        for name in names:
            torch.testing.assert_close(each[name][k], alone[name], rtol=1e-11, atol=1e-11)

    rows = torch.func.jacrev(lambda x: layer(x)[1].v.sum(dim=0))(x)
    leaf = x.clone().requires_grad_()
    v = layer(leaf)[1].v.sum(dim=0)
    for k in range(len(v)):
        (row,) = torch.autograd.grad(v[k], leaf, retain_graph=True)
        torch.testing.assert_close(rows[k], row, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", FUSED)
@pytest.mark.parametrize("kind", LAYERS)
def test_what_a_fused_kernel_has_no_derivative_for_is_refused_by_a_message_that_names_the_reference(kind, kernel):
    layer, x = build(kind, kernel, "sigmoid"), inputs(kind).to(DEVICE[kernel])

    def loss(x):
        out, state = layer(x)
        return (out**2).sum() + state.v.sum()

    refused = pytest.raises(NotImplementedError, match=r"forward-mode derivative: .*use kernel='reference'")
    with refused:
        torch.func.jvp(loss, (x,), (torch.ones_like(x),))
    with refused:
        torch.func.jacfwd(loss)(x)
    with refused, torch.autograd.forward_ad.dual_level():
        loss(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
    with pytest.raises(NotImplementedError, match=r"(second|forward-mode) derivative: .*use kernel='reference'"):
        torch.func.hessian(loss)(x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"second derivative: .*use kernel='reference'"):
        gradient.sum().backward()


@pytest.fixture
def compiler_forgets():
    """Let later tests compile anew what torch.compile gave up in the middle here."""
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_transforms_under_compilation_are_right_or_refused(compiler_forgets):
    layer, x = build("LIF", "cpu", "sigmoid"), inputs("LIF")

    def loss(x):
        out, state = layer(x)
        return (out**2).sum() + state.v.sum()

    def compiled(function):
        torch._dynamo.reset()
        return torch.compile(function, backend="aot_eager")

    expected = torch.func.grad(loss)(x)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(compiled(torch.func.grad(loss))(x), expected)
    torch.testing.assert_close(compiled(torch.vmap(torch.func.grad(loss)))(x[None])[0], expected)
    with pytest.raises(Exception, match="use kernel='reference'"):
        compiled(lambda x, t: torch.func.jvp(loss, (x,), (t,))[1])(x, torch.ones_like(x))


@pytest.mark.parametrize("method", sorted(DERIVATIVES))
@pytest.mark.parametrize("kind", LAYERS)
def test_the_reference_has_all_derivatives(kind, method):
    layer = build(kind, "reference", method, **({} if kind == "LI" else {"detach_reset": False}))
    x = inputs(kind)
    t = torch.randn(x.shape, dtype=F64, generator=torch.Generator().manual_seed(3))

    def loss(x):
        out, state = layer(x)
        return weighted((out, *state)) + (state.v**2).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    assert torch.func.jvp(loss, (x,), (t,))[1].item() == pytest.approx((gradient * t).sum().item(), rel=1e-9)
    second = torch.autograd.grad((gradient * t).sum(), leaf)[0] if gradient.requires_grad else None
    if method == "sigmoid" or kind == "LI":  # smooth, so that a difference knows
        h = 1e-5
        ahead, behind = (torch.func.grad(loss)(x + s * h * t) for s in (1, -1))
        torch.testing.assert_close(second, (ahead - behind) / (2 * h), rtol=1e-4, atol=1e-5)


def test_sparse_products_have_all_derivatives():
    x = inputs("LIFRecurrent").to_sparse()
    layer = build("LIFRecurrent", "cpu")

    def currents(w):
        return sp.kernels.input_currents(x, w, "cpu")

    w, t = layer.input_weights.detach(), torch.randn(NEURONS, INPUTS, dtype=F64)
    dense = lambda w: x.to_dense() @ w.T  # noqa: E731
    for transform in (
        lambda f: torch.func.jvp(f, (w,), (t,))[1],
        lambda f: torch.func.jacrev(f)(w),
        lambda f: torch.func.jacfwd(f)(w),
        lambda f: torch.func.hessian(lambda w: (f(w) ** 3).sum())(w),
        lambda f: torch.vmap(torch.func.grad(lambda w: (f(w) ** 2).sum()))(torch.stack([w, t])),
    ):
        torch.testing.assert_close(transform(currents), transform(dense), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", ["reference", "cpu"])
@pytest.mark.parametrize("kind", ["LIF", "LIFRecurrent"])
def test_transforms_of_the_adjoint(kind, kernel):
    layer, x = build(kind, kernel, "adjoint"), inputs(kind)
    readout = sp.LI(dtype=F64)

    def loss(x):
        return (readout(layer(x)[0])[0][-1] ** 2).sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(torch.func.grad(loss)(x), expected, rtol=1e-12, atol=1e-12)
    rows = torch.func.jacrev(lambda x: readout(layer(x)[0])[0][-1, 0])(x)
    leaf = x.clone().requires_grad_()
    v = readout(layer(leaf)[0])[0][-1, 0]
    for k in range(NEURONS):
        torch.testing.assert_close(rows[k], torch.autograd.grad(v[k], leaf, retain_graph=True)[0])
    with pytest.raises(NotImplementedError, match=r"second derivative: the adjoint method.*kernel='reference'"):
        expected.sum().backward()
    with pytest.raises(NotImplementedError, match=r"forward-mode derivative: the adjoint method has none"):
        torch.func.jvp(loss, (x,), (x,))
    with pytest.raises(NotImplementedError, match=r"rule of torch.vmap: the adjoint method has none"):
        torch.vmap(loss)(torch.stack([x, x]))


# ------------------------------------------------------------------------------------------- torch.utils.checkpoint


@pytest.mark.parametrize("method", ["super", "adjoint"])
@pytest.mark.parametrize("kernel", ["reference", "cpu"])
def test_checkpointed_layers_have_the_same_gradients(kernel, method):
    layer, x = build("LIFRecurrent", kernel, method), inputs("LIFRecurrent").requires_grad_()
    out, state = layer(x)
    expected = torch.autograd.grad(weighted((out, *state)), [x, *layer.parameters()])
    out, state = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    weighted((out, *state)).backward()
    for found, right in zip([x, *layer.parameters()], expected, strict=True):
        torch.testing.assert_close(found.grad, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS + CELLS)
def test_a_reentrant_checkpoint_is_refused(kind):
    module, x = build(kind), inputs(kind).requires_grad_()
    with pytest.raises(RuntimeError, match=r"checkpoint: expected use_reentrant=False, got True.*gradient by a pop"):
        torch.utils.checkpoint.checkpoint(module, x, use_reentrant=True)


# --------------------------------------------------------------------------------------------------- adjoint state


@pytest.mark.parametrize("cell", [False, True])
def test_a_state_of_the_adjoint_is_an_ordinary_tuple(cell):
    x, weights = inputs("LIF"), torch.rand(STEPS, BATCH, NEURONS, dtype=F64)
    layer = build("LIF", None, "adjoint")
    steps = sp.LIFCell(sp.LIFParameters(method="adjoint"), dtype=F64)
    steps.p = layer.p

    def gradient(rebuild):
        leaf = x.clone().requires_grad_()
        if rebuild is None:
            z = layer(leaf)[0]
        elif cell:
            state, z = None, []
            for x_t in leaf:
                z_t, state = steps(x_t, state)
                z.append(z_t)
                state = rebuild(state)
            z = torch.stack(z)
        else:
            first, state = layer(leaf[:4])
            z = torch.cat([first, layer(leaf[4:], rebuild(state))[0]])
        voltages = sp.LI(dtype=F64)(z)[0]
        return torch.autograd.grad((voltages * weights).sum(), leaf)[0]

    expected = gradient(None)
    assert expected.abs().sum() > 0
    for rebuild in (
        lambda s: s,
        lambda s: type(s)(*s),
        lambda s: s._replace(i=s.i),
        lambda s: torch.utils._pytree.tree_map(lambda t: t.to(F64), s),
        lambda s: copy.copy(s),
        lambda s: type(s)(**s._asdict()),
    ):
        torch.testing.assert_close(gradient(rebuild), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        state = layer(x)[1]
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert type(loaded) is type(state)
    assert all(torch.equal(a, b) for a, b in zip(loaded, state, strict=True))
    with pytest.raises(TypeError, match=r"state\.z: expected a tensor, got NoneType"):
        layer(x, state._replace(z=None))
    with pytest.raises(TypeError, match="state: expected LIFFeedForwardState or None, got AdjointState"):
        build("LIF")(x, state)
