"""Derived backward passes against autograd, SymPy and what is committed; fused kernels of any step."""

import pickle
import re

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_neurons import NOTEBOOK, TABLE, AdaptiveLIF, Counting, Exact, Holding

import snnparams as sp
from snnparams import kernels
from snnparams.kernels import derive, elementwise, fused_sequence, reference
from snnparams.neurons import spike_programs
from snnparams.neurons.step import PROGRAMS
from snnparams.neurons.surrogate import DERIVATIVES, Surrogate

F32, F64 = torch.float32, torch.float64
DT = 1e-3


def notebook():
    cell = {"__name__": "__main__"}
    exec(NOTEBOOK, cell)
    return cell["Integrator"]


class Dividing(sp.Neuron):
    """Takes quotients of all kinds, whole numbers, and constants that are no tensors."""

    state = ("v", "u")
    tau_inv = sp.rate(50.0, time="tau")
    v_th = sp.voltage(0.4)

    def constants(dt, tau_inv):
        return {"a": dt * tau_inv, "h": dt}

    def step(x, v, u, a, h, v_th, spike, reset, where):
        v = v - a * v + 3 * x / 7 + h
        share = 1 / (2 + u * u) + 5 / (4 - -v * v)
        z = spike(v * share, v_th)
        u = (u + v / (1 + u * u)) / 3 - z / (1 + v * v)
        return z * v, where(z, v - v_th, v) * (2 - reset(z)), -u


NEURONS = {name: row.neuron for name, row in TABLE.items()}
NEURONS |= {"of a notebook": notebook(), "counting": Counting, "holding": Holding, "dividing": Dividing}
each = pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)


# ------------------------------------------------------------------------------------------------- what is derived


def test_what_is_committed_is_what_make_derive_writes():
    there = {path: path.read_text() for path in derive.DERIVED.glob("[!_]*.py")}
    assert there == derive.files()
    assert {path.stem for path in there} >= {"lif", "li"}


def functions_of(neuron, detach_reset=False):
    """Return the printed functions, ready to be called by name."""
    program, space = PROGRAMS[neuron.program], {}
    exec(derive.text(program, "forward", "Step."), space)
    exec(derive.text(derive.backward(program, detach_reset), "backward", "Derivative."), space)
    return program, space["forward"], space["backward"]


def call(function, given):
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return function(*(given[name] for name in names))


@each
@pytest.mark.parametrize("detach_reset", [False, True])
def test_the_printed_functions_are_the_step_and_what_autograd_makes_of_it(neuron, detach_reset):
    program, forward, backward = functions_of(neuron, detach_reset)
    names = (*program.kept, *program.parameters)
    values = {name: torch.rand(50, dtype=F64, requires_grad=True) for name in names}
    means = {
        "where": lambda z, a, b: torch.where(z > 0.5, torch.as_tensor(a, dtype=F64), torch.as_tensor(b, dtype=F64))
    }
    means["spike"] = lambda v, v_th: Surrogate("super", 3.0)(v - v_th)
    means["reset"] = torch.Tensor.detach if detach_reset else lambda z: z
    means["surrogate"] = lambda g, v, v_th: g * sp.surrogate_derivative(v - v_th, "super", 3.0)
    expected = neuron.step(*((values | means)[name] for name in neuron.arguments))
    for found, right in zip(call(forward, values | means), expected, strict=True):
        assert torch.equal(found, right)
    weights = torch.rand(len(expected), 50, dtype=F64)
    loss = sum((weight * value).sum() for weight, value in zip(weights, expected, strict=True))
    gradients = torch.autograd.grad(loss, list(values.values()), allow_unused=True)
    of_returned = dict(zip(derive.backward(program).arguments[len(program.arguments) :], weights, strict=True))
    with torch.no_grad():
        found = call(backward, values | means | of_returned)
    for name, ours, right in zip(names, found, gradients, strict=True):
        right = torch.zeros(50, dtype=F64) if right is None else right
        torch.testing.assert_close(torch.as_tensor(ours, dtype=F64).expand(50), right, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("neuron", [sp.LIFParameters, sp.LIParameters, AdaptiveLIF, notebook()])
def test_the_printed_derivative_is_that_of_sympy(neuron):
    """With a smooth spike, of which SymPy knows the derivative."""
    program, _, backward = functions_of(neuron)
    names = (*program.kept, *program.parameters)
    symbols = {name: sympy.Symbol(name) for name in names}
    means = {"spike": lambda v, v_th: 1 / (1 + sympy.exp(v_th - v)), "reset": lambda z: z}
    returned = neuron.step(*((symbols | means)[name] for name in neuron.arguments))
    of_returned = derive.backward(program).arguments[len(program.arguments) :]
    numbers = {name: float(value) for name, value in zip(names, torch.rand(len(names), dtype=F64), strict=True)}
    weights = {name: 0.3 + 0.4 * k for k, name in enumerate(of_returned)}

    def passed(g, v, v_th):
        s = means["spike"](v, v_th)
        return g * s * (1 - s)

    found = call(backward, numbers | means | weights | {"surrogate": passed})
    total = sum(weights[name] * value for name, value in zip(of_returned, returned, strict=True))
    for name, value in zip(names, found, strict=True):
        expected = sympy.diff(total, symbols[name]).evalf(30, subs={symbols[key]: numbers[key] for key in names})
        assert abs(float(value) - float(expected)) <= 1e-13 * (1 + abs(float(expected)))


# --------------------------------------------------------------------------------------------- kernels of any step


def random_step(seed):
    """Return a neuron whose step is drawn: sums, products and quotients of bounded values, a spike, and two states."""
    draw = torch.Generator().manual_seed(seed)

    def one_of(choices):
        return choices[torch.randint(len(choices), (), generator=draw).item()]

    names, lines = ["x", "v", "u", "p", "q", "v_th"], []
    for k in range(6):
        a, b = one_of(names), one_of(names)
        form = one_of(["{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} / (1 + {b} * {b})", "-{a} + 2 * {b}", "1 - {a} / 3"])
        lines.append(f"t{k} = {form.format(a=a, b=b)}")
        names.append(f"t{k}")
    total = "(x + v + u + p + q + " + " + ".join(names[-6:]) + ")"
    lines.append(f"total = {total} / (1 + {total} * {total})")
    lines.append(f"z = spike({one_of(names)} + total, v_th)")
    lines.append(f"v = where(z, {one_of(names)} - v_th, total)" if one_of([0, 1]) else "v = total - reset(z) * v_th")
    lines.append("v = v / (1 + v * v)")
    lines.append(f"u = total + {one_of(names)} * {one_of(['z', 'v', '0.5'])}")
    output = one_of(["z", "z * total", "v"])
    lines.append(f"return {output}, v + 0 * z, u / (1 + u * u)")
    functions = [name for name in ("spike", "reset", "where") if f"{name}(" in "\n".join(lines)]
    receives = one_of(["", "v"])
    arguments = [name for name in ("x", "v", "u", "p", "q", "v_th") if name != "x" or not receives]
    body = "\n        ".join(lines)
    if receives:
        body = body.replace("x", "v")
    code = f"""
class Drawn(sp.Neuron):
    state = ("v", "u")
    receives = {receives!r}
    p, q, v_th = sp.voltage(0.3), sp.voltage(-0.4), sp.voltage(0.2)

    def step({", ".join([*arguments, *functions])}):
        {body}
"""
    space = {"sp": sp}
    exec(code, space)
    return space["Drawn"]


def problem(neuron, seed, steps, rows, neurons, dtype, recurrent, per_neuron=True, gain=4.0, **options):
    draw = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(shape, dtype=F64, generator=draw).to(dtype)

    values = {}
    for name, parameter in neuron.parameters.items():
        value = (parameter.default or 0.1) * (0.8 + 0.4 * random(*((neurons,) if per_neuron else ())))
        values[name] = torch.nn.Parameter(value)
    p = neuron(**values, **(options if neuron.spiking else {}))
    kind = neuron.RecurrentState if recurrent else neuron.State
    state = kind(*(0.2 * random(rows, neurons).requires_grad_() for _ in kind._fields))
    x = (gain * (random(steps, rows, neurons) - 0.2)).requires_grad_()
    weights = (random(neurons, neurons) - 0.5).requires_grad_() if recurrent else None
    return x, state, p, weights


def solve(how, neuron, given, detach_reset, seed=0):
    """Return outputs and last state, and all gradients of a random sum of them."""
    x, state, p, weights = given
    if how == "reference":
        out, last = reference.sequence(neuron, x, state, p, DT, detach_reset, weights)
    else:
        out, last = kernels.derived_sequence(neuron, x, state, p, DT, detach_reset, how, weights)
    draw = torch.Generator().manual_seed(seed)
    loss = sum((torch.rand(t.shape, dtype=F64, generator=draw).to(t) * t).sum() for t in (out, *last))
    leaves = [x, *state, *(getattr(p, name) for name in neuron.neuron_fields)]
    leaves += [] if weights is None else [weights]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    zeros = (torch.zeros_like(leaf) for leaf in leaves)
    return [out, *last], [zero if g is None else g for g, zero in zip(gradients, zeros, strict=True)]


def assert_same(neuron, given, detach_reset, exact, kernel="cpu"):
    results, gradients = solve(kernel, neuron, given, detach_reset)
    expected, right = solve("reference", neuron, given, detach_reset)
    for ours, theirs in zip(results, expected, strict=True):
        if exact:
            assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    for ours, theirs in zip(gradients, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * (1 + theirs.abs().max().item()))


sizes = {
    "seed": st.integers(0, 2**20),
    "steps": st.sampled_from([1, 2, 9]),
    "rows": st.sampled_from([1, 3, 4, 6]),
    "neurons": st.sampled_from([1, 3, 8, 17, 33]),
    "recurrent": st.booleans(),
    "detach_reset": st.booleans(),
}


@settings(deadline=None, max_examples=100)
@given(
    name=st.sampled_from(list(NEURONS)), method=st.sampled_from(list(DERIVATIVES)), per_neuron=st.booleans(), **sizes
)
def test_any_neuron_has_the_outputs_and_gradients_of_the_reference(
    name, method, per_neuron, seed, steps, rows, neurons, recurrent, detach_reset
):
    neuron, how = NEURONS[name], {"per_neuron": per_neuron, "method": method, "alpha": 2.0}
    given = problem(neuron, seed, steps, rows, neurons, F64, recurrent, **how)
    assert_same(neuron, given, detach_reset, exact=not recurrent and method != "sigmoid")


@settings(deadline=None, max_examples=40)
@given(step=st.integers(0, 2**20), **sizes)
def test_any_step_has_the_outputs_and_gradients_of_the_reference(
    step, seed, steps, rows, neurons, recurrent, detach_reset
):
    neuron = random_step(step)
    detach_reset = detach_reset and "reset" in neuron.arguments
    given = problem(neuron, seed, steps, rows, neurons, F64, recurrent, alpha=2.0)
    assert_same(neuron, given, detach_reset, exact=not recurrent)


@each
def test_float32_has_the_bits_of_pytorch(neuron):
    """Every operation is rounded like PyTorch's: no fused multiply-add, no float64 in between."""
    given = problem(neuron, 1, 40, 5, 33, F32, recurrent=False)
    (out, *last), gradients = solve("cpu", neuron, given, False)
    (expected, *state), right = solve("reference", neuron, given, False)
    for ours, theirs in zip((out, *last), (expected, *state), strict=True):
        assert ours.dtype == F32
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(gradients, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * (1 + theirs.abs().max().item()))


def test_any_neuron_takes_the_fused_kernel():
    x = torch.rand(100, 2, 3)  # too long for what computes short sequences of few neurons
    for neuron in (Exact, AdaptiveLIF):
        for kernel in (None, "cpu"):
            out, _ = sp.Layer(neuron(v_th=sp.Learned(0.5)), size=3, kernel=kernel)(x)
            assert "sequence" in str(out.grad_fn.next_functions)
    with pytest.raises(ValueError, match=r"kernel='cpu': expected torch.float32 or torch.float64, got torch.bfloat16"):
        sp.Layer(Exact(), kernel="cpu", dtype=torch.bfloat16)(x.bfloat16())


@pytest.mark.parametrize("neuron", [Exact, AdaptiveLIF])
def test_registered_operator(neuron):
    program = PROGRAMS[neuron.program]
    x, state = (
        torch.randn(1, 4, 3, 2, dtype=F64, requires_grad=True),
        torch.zeros(1, len(program.state), 3, 2, dtype=F64),
    )
    p = torch.rand(1, len(program.parameters), 2, dtype=F64)
    given = x, state, torch.randn(1, 2, 2, dtype=F64), p, neuron.program, "super", 2.0, True, True, "cpu"
    torch.library.opcheck(torch.ops.snnparams.sequence, given, test_utils=("test_schema", "test_faketensor"))


def test_weights_and_gradients_that_are_not_finite_reach_what_they_reach_in_the_reference():
    *_, weights = given = problem(AdaptiveLIF, 3, 6, 2, 5, F64, recurrent=True)
    with torch.no_grad():
        weights[2, 3] = torch.inf
    ours, theirs = (solve(how, AdaptiveLIF, given, True) for how in ("cpu", "reference"))
    for a, b in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        assert torch.equal(a.isnan(), b.isnan())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own forward mode uses it
def test_a_fused_kernel_has_one_derivative():
    x = torch.rand(5, 2, 3, requires_grad=True)
    _, state = sp.Layer(AdaptiveLIF())(x)
    (g,) = torch.autograd.grad(state.v.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative: a fused kernel has none; use kernel='reference'"):
        g.sum().backward()
    refused = pytest.raises(NotImplementedError, match="forward-mode derivative: a fused kernel has none")
    with refused, torch.autograd.forward_ad.dual_level():
        sp.Layer(AdaptiveLIF())(torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x)))


@pytest.mark.parametrize("method", DERIVATIVES)
def test_spike_functions_are_read_from_their_one_definition(method):
    x = torch.linspace(-2, 2, 41, dtype=F64)
    space = {"exp": torch.exp, "tanh": torch.tanh, "sqrt": torch.sqrt, "abs": torch.abs, "relu": torch.relu}
    exec(derive.text(spike_programs.derivative_of(method), "derivative", "Derivative."), space)
    names = space["derivative"].__code__.co_varnames[: space["derivative"].__code__.co_argcount]
    found = space["derivative"](x, 1.7, *(space[name] for name in names[2:]))
    expected = sp.surrogate_derivative(x, method, 1.7)
    torch.testing.assert_close(torch.as_tensor(found, dtype=F64).expand(41), expected, rtol=1e-13, atol=1e-15)


def bell(x, alpha):
    return 1 / (1 + (alpha * x) ** 2) ** 1.5


def half_wave(x, alpha):
    return torch.tanh(torch.relu(alpha * x))


def half_wave_slope(x, alpha):
    return alpha * (1 - torch.tanh(torch.relu(alpha * x)) ** 2) * (torch.relu(x) / (x.abs() + 1e-9))


@pytest.mark.parametrize("functions", [{"derivative": bell}, {"derivative": half_wave_slope, "value": half_wave}])
@pytest.mark.parametrize("neuron", [sp.LIFParameters, AdaptiveLIF])
def test_a_spike_function_of_ones_own_is_computed_by_the_kernel(neuron, functions):
    x, found = 4 * torch.rand(12, 3, 17, dtype=F64), []
    gradient = pickle.loads(pickle.dumps(sp.Surrogate("mine", 2.0, **functions)))
    for kernel in ("cpu", "reference"):
        torch.manual_seed(0)
        layer = sp.RecurrentLayer(17, 17, neuron(v_th=sp.Learned(0.4)), gradient=gradient, kernel=kernel, dtype=F64)
        out, _ = layer(x)
        found.append([out, *torch.autograd.grad(out.cos().sum(), list(layer.parameters()))])
    assert 0 < found[0][0].sum() < found[0][0].numel()
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_spike_function_that_no_kernel_can_compute_takes_the_reference():
    x = torch.rand(4, 2, 3)
    gradient = sp.Surrogate("mine", derivative=lambda x, alpha: torch.erf(x))
    assert sp.LIF(gradient=gradient)(x)[0].shape == x.shape
    with pytest.raises(ValueError, match=r"kernel='cpu': .* expected a spike function made of .*, got erf; use"):
        sp.LIF(gradient=gradient, kernel="cpu")(x)


def test_code_is_written_once_per_class():
    before = elementwise.forward.cache_info().misses
    for _ in range(3):
        sp.Layer(notebook()())(torch.rand(2, 1, 3))
    assert elementwise.forward.cache_info().misses - before <= 2
    assert notebook().program == notebook().program
    assert re.fullmatch("[0-9a-f]{16}", AdaptiveLIF.program)
    assert fused_sequence.BACKENDS["cpu"] == "snnparams.kernels.cpu"


@pytest.mark.parametrize(("of_currents", "of_state"), [(F32, F64), (F64, F32)])
def test_currents_and_states_of_two_precisions_are_computed_in_the_higher(of_currents, of_state):
    x = torch.rand(20, 3, 5, generator=torch.Generator().manual_seed(1)).to(of_currents)
    state = sp.LIFParameters.State(*torch.zeros(2, 3, 5, dtype=of_state))
    p = sp.LIFParameters(v_th=0.3)
    got, expected = (kernels.sequence(sp.LIFParameters, x, state, p, DT, kernel=k) for k in ("cpu", "reference"))
    for a, b in zip((got[0], *got[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-12, atol=1e-12)
    assert got[1].v.dtype == F64


def test_a_kernel_reads_no_memory_of_another_dtype():
    x, state, p = torch.zeros(1, 4, 3, 5), torch.zeros(1, 2, 3, 5, dtype=F64), torch.zeros(1, 5, 5)
    with pytest.raises(ValueError, match=r"got torch\.float32, torch\.float64, torch\.float32"):
        fused_sequence.sequence(x, state, None, p, sp.LIFParameters.program, "super", 1.0, True, False, "cpu")
