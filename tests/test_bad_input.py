"""Bad input never passes silently: each case raises, and says what was expected and what came."""

import math
import re

import pytest
import torch
from torch import nn

import snnparams as sp
from snnparams.layers.neuron_parameters import NeuronParameters

X = torch.zeros(4, 2, 3)  # (T, B, I)
LIF, LI, Learned, Fixed = sp.LIFParameters, sp.LIParameters, sp.Learned, sp.Fixed


def expect(error, message):
    return pytest.raises(error, match=re.escape(message))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"tau_mem_inv": -5}, ValueError, "tau_mem_inv: expected positive values, got -5 1/s"),
        ({"tau_syn_inv": 0.0}, ValueError, "tau_syn_inv: expected positive values, got 0 1/s"),
        ({"tau_mem_inv": math.nan}, ValueError, "tau_mem_inv: expected finite values, got nan 1/s"),
        ({"v_th": math.inf}, ValueError, "v_th: expected finite values, got inf"),
        (
            {"v_reset": torch.tensor([0.0, math.nan, math.nan])},
            ValueError,
            "v_reset: expected finite values, got nan at neuron 1 (2 of 3 values are invalid)",
        ),
        (
            {"tau_mem_inv": nn.Parameter(torch.tensor([90.0, -1.0]))},
            ValueError,
            "tau_mem_inv: expected positive values, got -1 1/s at neuron 1 (1 of 2 values are invalid)",
        ),
        ({"v_leak": torch.tensor(1)}, TypeError, "v_leak: expected a floating-point tensor, got torch.int64"),
        ({"v_leak": torch.tensor(1j)}, TypeError, "v_leak: expected a floating-point tensor, got torch.complex64"),
        ({"v_leak": 1j}, TypeError, "v_leak: expected a number or a floating-point tensor, got complex"),
        ({"v_leak": True}, TypeError, "v_leak: expected a number or a floating-point tensor, got bool"),
        ({"v_leak": "0"}, TypeError, "v_leak: expected a number or a floating-point tensor, got str"),
        ({"alpha": "7"}, TypeError, "alpha: expected a number, which is not learned, got str"),
        ({"alpha": True}, TypeError, "alpha: expected a number, which is not learned, got bool"),
        (
            {"alpha": nn.Parameter(torch.tensor(5.0))},
            TypeError,
            "alpha: expected a number, which is not learned",
        ),
        ({"alpha": 0}, ValueError, "alpha: expected a positive, finite number, got 0"),
        ({"alpha": math.nan}, ValueError, "alpha: expected a positive, finite number, got nan"),
        ({"method": "super_spike"}, ValueError, "unknown spike function method='super_spike'; expected one of"),
    ],
)
def test_declarations(fields, error, message):
    with expect(error, message):
        sp.LIFParameters(**fields)


@pytest.mark.parametrize("build", [sp.LIFCell, sp.LIF, lambda p, **kw: sp.LIFRecurrent(3, 2, p, **kw)])
def test_time_step_too_large_for_a_time_constant(build):
    message = "tau_mem_inv: expected dt * tau_mem_inv < 1, that is values below 1000 1/s at dt = 0.001 s, got 1000 1/s"
    with expect(ValueError, message):
        build(sp.LIFParameters(tau_mem_inv=1000.0))
    with expect(ValueError, "tau_syn_inv: expected dt * tau_syn_inv < 1, that is values below 100 1/s"):
        build(sp.LIFParameters(), dt=0.01)
    build(sp.LIFParameters(tau_mem_inv=999.0))
    for dt in (0, -1e-3, math.nan, math.inf):
        with expect(ValueError, f"dt: expected a positive, finite time step in s, got {dt}"):
            build(sp.LIFParameters(), dt=dt)


@pytest.mark.parametrize(
    ("declare", "error", "message"),
    [
        (
            lambda: LIF(tau_ref=1e-3),
            TypeError,
            "LIFParameters: unknown tau_ref; expected one of tau_syn_inv, ",
        ),
        (
            lambda: LI(v_th=Learned(1.0)),
            TypeError,
            "LIParameters: unknown v_th; expected one of tau_syn_inv",
        ),
        (
            lambda: Learned(1.0, "exp"),
            ValueError,
            "unknown constraint='exp'; expected one of log, softplus, decay, none, or",
        ),
        (lambda: Learned(1.0, "interval"), ValueError, "or constraints.Interval(low, high) with its bounds"),
        (
            lambda: Learned(1.0, nn.Identity()),
            TypeError,
            "expected a name or an nn.Module with a right_inverse, got Id",
        ),
        (lambda: Learned(1.0, 3), TypeError, "expected a name or an nn.Module with a right_inverse, got int"),
        (lambda: Learned("1"), TypeError, "value: expected a number or a floating-point tensor, got str"),
        (lambda: Fixed(nn.Parameter(torch.ones(2))), TypeError, "got an nn.Parameter; give it itself"),
        (
            lambda: Learned(torch.ones(3), shared=True),
            ValueError,
            "value: expected one value to share, got shape (3,)",
        ),
        (lambda: LIF(v_th=Learned(math.nan)), ValueError, "v_th: expected finite values, got nan"),
        (
            lambda: LIF(tau_mem=-1e-3),
            ValueError,
            "tau_mem: expected positive, finite times in s, got -0.001",
        ),
        (
            lambda: LIF(tau_mem=Learned(0.0)),
            ValueError,
            "tau_mem: expected positive, finite times in s",
        ),
        (
            lambda: LIF(tau_mem_inv=50.0, tau_mem=0.02),
            ValueError,
            "tau_mem: expected either it or tau_mem_inv",
        ),
        (
            lambda: LIF(tau_mem=nn.Parameter(torch.ones(2))),
            TypeError,
            "tau_mem: expected Learned(tau_mem)",
        ),
        (
            lambda: LIF(v_th=Learned(1.0, "decay")),
            ValueError,
            "v_th: expected a constraint for voltages",
        ),
        (
            lambda: LIF(tau_mem_inv=torch.distributions.Normal(100.0, 20.0)),
            ValueError,
            "tau_mem_inv: expected a distribution of positive values, got Normal(loc: 100.0, scale: 20.0) from -inf on",
        ),
        (
            lambda: LIF(tau_mem=Learned(torch.distributions.Normal(0.01, 0.002))),
            ValueError,
            "tau_mem: expected a distribution of positive values, got Normal",
        ),
        (
            lambda: Fixed(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))),
            ValueError,
            "value: expected a distribution of single numbers, got MultivariateNormal",
        ),
    ],
)
def test_declarations_of_distributions_constraints_and_times(declare, error, message):
    with expect(error, message):
        declare()


def test_declarations_that_do_not_fit_a_module():
    def layer(**fields):
        return sp.LIF(sp.LIFParameters(**fields), size=4)

    with expect(ValueError, "v_th: expected one value, or values that fit a population of (4,), got (3,)"):
        layer(v_th=sp.Learned(torch.ones(3)))
    with expect(ValueError, "v_th: expected one value, or one per neuron of shape (4,), got (3,)"):
        sp.LIFRecurrent(2, 4, sp.LIFParameters(v_th=sp.Learned(torch.ones(3))))
    with expect(ValueError, "tau_mem_inv: expected dt * tau_mem_inv < 1"):
        layer(tau_mem_inv=sp.Learned(1000.0))
    with expect(ValueError, "tau_mem_inv: expected values within the range of log, 1e-09 to 999.9, got 999.95"):
        layer(tau_mem_inv=sp.Learned(999.95))
    with expect(ValueError, "constraint interval 50 to 2000: tau_mem_inv: expected dt * tau_mem_inv < 1"):
        layer(tau_mem_inv=sp.Learned(100.0, sp.constraints.Interval(50.0, 2000.0)))
    with expect(
        ValueError, "tau_mem_inv: expected a distribution of values from 50.0006 to 149.999 1/s, got LogNormal"
    ):
        wide = sp.distributions.log_normal(median=100.0, variation=0.5)
        layer(tau_mem_inv=sp.Learned(wide, sp.constraints.Interval(50.0, 150.0)))
    with expect(ValueError, "interval: expected finite bounds with low < high, got"):
        sp.constraints.Interval(2.0, 1.0)
    for size in (0, -1, 2.5, True, (3, 0), "3"):
        with expect(ValueError, f"size: expected a positive integer or a tuple of them, got {size!r}"):
            sp.LIF(size=size)


def test_values_that_become_invalid_later():
    model = nn.Sequential(sp.LIF(sp.LIFParameters(tau_mem_inv=nn.Parameter(torch.tensor(100.0)))))
    state = model.state_dict()
    state["0.p.tau_mem_inv"] = torch.tensor(-3.0)
    with expect(ValueError, "tau_mem_inv: expected positive values, got -3 1/s"):
        model.load_state_dict(state)
    assert model[0].p.tau_mem_inv == 100  # the valid value is still there
    with torch.no_grad():
        model[0].p.tau_mem_inv.fill_(-3)
    with expect(ValueError, "0.p.tau_mem_inv: expected positive values, got -3 1/s"):
        sp.validate_neuron_parameters(model)


@pytest.mark.parametrize("module", [sp.LIFRecurrentCell, sp.LIFRecurrent])
def test_values_that_do_not_fit_a_recurrent_population(module):
    for bad in (torch.ones(4), torch.ones(5, 1), torch.ones(1)):
        message = f"v_th: expected one value, or one per neuron of shape (5,), got {tuple(bad.shape)}"
        with expect(ValueError, message):
            module(3, 5, sp.LIFParameters(v_th=bad))
    for size in (0, -1, 2.0, True):
        with expect(ValueError, f"hidden_size: expected a positive integer, got {size!r}"):
            module(3, size)
        with expect(ValueError, f"input_size: expected a positive integer, got {size!r}"):
            module(size, 3)
    with expect(ValueError, "input_weights: expected shape (5, 3), got (3, 5)"):
        module(3, 5, input_weights=torch.ones(3, 5))
    with expect(TypeError, "input_weights: expected a floating-point tensor, got torch.int64"):
        module(3, 5, input_weights=torch.ones(5, 3, dtype=torch.int64))
    with expect(ValueError, "recurrent_weights: expected finite values, got 25 that are not"):
        module(3, 5, recurrent_weights=torch.full((5, 5), math.nan))
    with expect(TypeError, "input_weights: expected a parameter of type torch.float32, got torch.float64"):
        module(3, 5, input_weights=nn.Parameter(torch.ones(5, 3, dtype=torch.float64)))
    with expect(TypeError, "input_weights: expected an nn.Parameter or a tensor without gradient"):
        module(3, 5, input_weights=torch.ones(5, 3, requires_grad=True))


def test_values_whose_gradient_or_type_would_be_lost():
    log_tau = nn.Parameter(torch.tensor([4.0]))
    with expect(TypeError, "tau_mem_inv: expected an nn.Parameter or a tensor without gradient, got a tensor that"):
        sp.LIFCell(sp.LIFParameters(tau_mem_inv=log_tau.exp()))
    with expect(TypeError, "v_th: expected a parameter of type torch.float32, got torch.float64"):
        sp.LIFCell(sp.LIFParameters(v_th=nn.Parameter(torch.ones(2, dtype=torch.float64))))


def test_wrong_declaration():
    for build in (sp.LIFCell, sp.LIF, lambda p: sp.LIFRecurrent(3, 2, p), lambda p: sp.LIFRecurrentCell(3, 2, p)):
        with expect(TypeError, "p: expected LIFParameters, got LIParameters"):
            build(sp.LIParameters())
        with expect(TypeError, "p: expected LIFParameters, got dict"):
            build({"v_th": 1.0})
    for build in (sp.LICell, sp.LI):
        with expect(TypeError, "p: expected LIParameters, got LIFParameters"):
            build(sp.LIFParameters())
    with expect(TypeError, "p: expected the parameters of a neuron, got NoneType"):
        NeuronParameters(None, dt=1e-3)


MODULES = {
    "LIFCell": (lambda: sp.LIFCell(), "(B, ...)", X[0]),
    "LICell": (lambda: sp.LICell(), "(B, ...)", X[0]),
    "LIFRecurrentCell": (lambda: sp.LIFRecurrentCell(3, 5), "(B, I)", X[0]),
    "LIF": (lambda: sp.LIF(), "(T, B, ...)", X),
    "LI": (lambda: sp.LI(), "(T, B, ...)", X),
    "LIFRecurrent": (lambda: sp.LIFRecurrent(3, 5), "(T, B, I)", X),
}


@pytest.mark.parametrize("name", MODULES)
def test_inputs(name):
    build, layout, x = MODULES[name]
    module = build()
    least = x.dim() - ("..." in layout)
    fewer = 1 if "..." in layout else 2  # one axis less is an input without a batch
    flat = x[(0,) * (x.dim() - least + fewer)]
    with expect(ValueError, f"input: expected shape {layout}, got {flat.dim()} dimensions, {tuple(flat.shape)}"):
        module(flat)
    if "..." not in layout:
        with expect(ValueError, f"input: expected shape {layout}, got {x.dim() + 1} dimensions"):
            module(x[None])
        with expect(ValueError, f"input: expected 3 features in shape {layout}, got {(*x.shape[:-1], 7)}"):
            module(torch.zeros(*x.shape[:-1], 7))
    empty = x[..., :0, :]
    with expect(ValueError, f"input: expected a batch of at least one in shape {layout}, got {tuple(empty.shape)}"):
        module(empty)
    if layout.startswith("(T"):
        with expect(ValueError, f"input: expected at least one time step in shape {layout}, got (0, 2, 3)"):
            module(x[:0])
    for dtype in (torch.int64, torch.complex64, torch.float64, torch.int8):
        with expect(TypeError, f"input: expected torch.float32, the type of the parameters, got {dtype}"):
            module(x.to(dtype))
    with expect(ValueError, "input: expected device cpu, that of the parameters, got meta"):
        module(x.to("meta"))
    with expect(TypeError, f"input: expected a tensor of shape {layout}, got list"):
        module([0.0])


@pytest.mark.parametrize("name", MODULES)
def test_states(name):
    build, _, x = MODULES[name]
    module = build()
    _, state = module(x)
    neurons = state.v.shape[-1]
    kind = type(state)
    first = kind._fields[0]
    with expect(ValueError, f"state.{first}: expected shape (2, {neurons}), got (3, {neurons})"):
        module(x, kind(*(torch.zeros(3, neurons) for _ in kind._fields)))
    with expect(ValueError, f"state.{first}: expected device cpu, that of the input, got meta"):
        module(x, kind(*(value.to("meta") for value in state)))
    with expect(TypeError, f"state.{first}: expected torch.float32, the type of the input, got torch.float64"):
        module(x, kind(*(value.double() for value in state)))
    with expect(TypeError, f"state: expected {kind.__name__} or None, got tuple"):
        module(x, tuple(state))


@pytest.mark.parametrize("module", [sp.LIFCell, sp.LIF])
def test_parameters_that_do_not_fit_the_input(module):
    x = X[0] if module is sp.LIFCell else X
    for bad in (torch.ones(4), torch.ones(2, 3)):
        with expect(
            ValueError, f"input: expected a population that the values of v_th, {(*bad.shape,)}, fit, got (3,)"
        ):
            module(sp.LIFParameters(v_th=bad))(x)


def test_encoder():
    for bad in (0, -1, 1.5, True, "32"):
        with expect(ValueError, f"seq_length: expected a positive integer, got {bad!r}"):
            sp.ConstantCurrentLIFEncoder(bad)
        with expect(ValueError, f"seq_length: expected a positive integer, got {bad!r}"):
            sp.constant_current_lif_encode(torch.ones(1), bad)
    encode = sp.ConstantCurrentLIFEncoder(4)
    for dtype in (torch.uint8, torch.int64, torch.complex64):
        with expect(TypeError, f"input: expected a floating-point tensor, got {dtype}"):
            encode(torch.ones(2, dtype=dtype))
    with expect(TypeError, "input: expected a floating-point tensor, got list"):
        encode([1.0])
    with expect(ValueError, "tau_mem_inv: expected dt * tau_mem_inv < 1"):
        sp.ConstantCurrentLIFEncoder(4, sp.LIFParameters(tau_mem_inv=2000.0))
    for dt in (0, -1e-3, math.nan):
        with expect(ValueError, f"dt: expected a positive, finite time step in s, got {dt}"):
            sp.constant_current_lif_encode(torch.ones(1), 4, dt=dt)
    for p in (sp.LIFParameters(tau_mem_inv=300.0), sp.LIFCell(sp.LIFParameters(tau_mem_inv=300.0)).p):
        with expect(ValueError, "tau_mem_inv: expected dt * tau_mem_inv < 1, that is values below 200 1/s"):
            sp.constant_current_lif_encode(torch.ones(1), 4, p, dt=5e-3)
    for bad in (torch.ones(4, 1), torch.ones(5)):
        with expect(ValueError, "v_th: expected one value, or values that fit a population of (4,)"):
            sp.constant_current_lif_encode(torch.ones(4), 3, sp.LIFParameters(v_th=bad))
    for bad in (math.nan, math.inf):
        with expect(ValueError, "input: expected finite values, got 1 that are not"):
            encode(torch.tensor([1.0, bad]))


@pytest.mark.parametrize(
    ("declared", "got"),
    [
        ({"tau_mem": Learned(0.02)}, "tau_mem_inv: expected a number or a tensor, because a function uses values as"),
        ({"v_leak": Learned(torch.zeros(3), "none")}, "v_leak: expected a number or a tensor"),
        (
            {"tau_syn_inv": Fixed(150.0)},
            "tau_syn_inv: expected a number or a tensor, because a function uses values as",
        ),
        (
            {"tau_mem": sp.distributions.log_normal(median=0.02, variation=0.2)},
            "tau_mem_inv: expected a number or a tensor",
        ),
    ],
)
def test_functions_take_values_and_not_what_a_layer_makes_of_them(declared, got):
    x, w, kind = X[0], torch.zeros(3, 3), next(iter(declared.values()))
    lif, lif_state = LIF(**declared), sp.LIFState(X[0], X[0], X[0])
    calls = [
        lambda: sp.lif_step(x, lif_state, w, w, lif),
        lambda: sp.lif_feed_forward_step(x, sp.LIFFeedForwardState(x, x), lif),
        lambda: sp.li_step(x, sp.LIState(x, x), w, LI(**declared)),
        lambda: sp.li_feed_forward_step(x, sp.LIState(x, x), LI(**declared)),
        lambda: sp.constant_current_lif_encode(x, 4, LIF(**declared)),
    ]
    for call in calls[:-1] if "v_leak" not in declared else calls:
        with expect(TypeError, got) as caught:
            call()
        what = f"{type(kind).__name__}(" if isinstance(kind, Fixed | Learned) else "Fixed(1 / LogNormal(median=0.02"
        assert f"got {what}" in str(caught.value)
        assert "build a cell or layer with this declaration and give its .p" in str(caught.value)
    sp.lif_feed_forward_step(x, sp.LIFFeedForwardState(x, x), sp.LIF(lif, size=3).p)


def test_one_batch_with_nan_ruins_weights_behind_a_finite_loss_unless_gradients_are_looked_at():
    """What the guide says of a loop of one's own, and the cure that it names."""
    p = sp.LIFParameters(tau_mem=sp.Learned(20e-3), v_th=0.5)
    for cure in (False, True):
        torch.manual_seed(0)
        network = sp.Sequential(sp.LIFRecurrent(8, 6, p), nn.Linear(6, 2), sp.LI())
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        x = (torch.rand(40, 5, 8) < 0.3).float()
        x[3, 2, 7] = math.nan
        network(x)[0].square().mean().backward()
        if cure:
            with pytest.raises(RuntimeError, match="non-finite"):
                nn.utils.clip_grad_norm_(network.parameters(), 1.0, error_if_nonfinite=True)
            continue
        optimizer.step()
        assert network[0].input_weights.isnan().any()
        assert network[0].p.tau_mem.isnan().any()
        assert network(x.nan_to_num())[0].square().mean().isfinite()


def test_a_distribution_that_does_not_fit_says_what_limits_it():
    drawn = sp.distributions.uniform(mean=2e-3, variation=0.5)
    with expect(ValueError, "of which 21.14% lie outside; the time step is 0.001 s, and a constraint is one of"):
        sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(drawn)), size=3)
    with pytest.raises(ValueError, match=r"% lie outside; the time step is 0\.001 s$"):
        sp.LIF(sp.LIFParameters(tau_mem=drawn), size=3)
