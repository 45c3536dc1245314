"""Declared neuron parameters in PyTorch's machinery: saved, copied, moved, shared, compiled, distributed, stacked."""

import copy
import dataclasses
import inspect
import io
import math
import pickle
import re

import pytest
import torch
from peers import norse
from test_constraints import LEARNED, RATES, VALUES, build, fields
from test_modules import KINDS, inputs, run
from torch import nn

import snnparams as sp
from snnparams.parameters.constraints import Interval, Log
from snnparams.parameters.distributions import log_normal

F64 = torch.float64
HOW = [*LEARNED, "none"]


def learned(kind, how):
    names = LEARNED[how] if how in LEARNED else dict.fromkeys(VALUES, how)
    return {name: constraint for name, constraint in names.items() if name in fields(kind)}


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_survives_saving_copying_and_conversion(kind, how):
    torch.manual_seed(1)
    module, x = build(kind, learned(kind, how), scale=1.05), inputs(kind)
    torch.manual_seed(1)
    fresh = build(kind, learned(kind, how))
    expected = run(module, kind, x)
    assert run(fresh, kind, x) != expected

    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert run(fresh, kind, x) == expected

    twin = copy.deepcopy(module)
    assert run(twin, kind, x) == expected
    twin.p.tau_mem = 8e-3
    assert run(module, kind, x) == expected != run(twin, kind, x)

    double = twin.to(F64)
    assert {t.dtype for t in double.state_dict().values()} == {F64}
    assert run(double, kind, x.double()).dtype == F64
    torch.testing.assert_close(double.p.tau_mem, torch.full((3,), 8e-3, dtype=F64), rtol=1e-6, atol=0)
    assert {t.device.type for t in copy.deepcopy(module).to("meta").state_dict().values()} == {"meta"}


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_states_are_refused_and_change_nothing(kind):
    module = build(kind, {"tau_mem_inv": "log", "v_leak": "none"})
    before = copy.deepcopy(module.state_dict())
    for key, bad, message in (
        (
            "p.parametrizations.tau_mem_inv.original",
            torch.full((3,), float("nan")),
            "tau_mem_inv: expected finite values",
        ),
        ("p.tau_syn_inv", torch.full((3,), -1.0), "tau_syn_inv: expected positive values, got -1"),
        ("p.v_leak", torch.full((3,), float("inf")), "v_leak: expected finite values, got inf"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            module.load_state_dict(before | {key: bad})
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name])


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_without_a_graph_break(kind, how):
    module, x = build(kind, learned(kind, how)), inputs(kind)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    results = []
    for call in (module, compiled):
        module.zero_grad()
        out, state = call(x)
        (out.sum() + sum(s.sum() for s in state)).backward()
        results.append((out, state, gradients(module)))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("how", HOW)
def test_one_parameter_in_two_layers(how):
    first, second = build("LIF", {"tau_mem_inv": how}), build("LI", {"tau_mem_inv": how}, scale=1.1)
    second.p.share("tau_mem", first.p)  # or tau_mem_inv, what is learned in its place
    model = nn.Sequential(nn.ModuleDict({"a": first, "b": second}))
    assert list(model.parameters()) == [first.p.raw("tau_mem_inv")]
    x = 3 * torch.rand(10, 2, 3)
    separate = []
    for layer in (first, second):
        model.zero_grad()
        layer(x)[1].v.sum().backward()
        separate.append(first.p.raw("tau_mem_inv").grad.clone())
    model.zero_grad()
    (first(x)[1].v.sum() + second(x)[1].v.sum()).backward()
    torch.testing.assert_close(first.p.raw("tau_mem_inv").grad, sum(separate))
    torch.optim.Adam(model.parameters(), lr=0.1).step()
    assert torch.equal(first.p.tau_mem_inv, second.p.tau_mem_inv)
    twin = copy.deepcopy(model)
    assert len(list(twin.parameters())) == 1
    twin.load_state_dict(model.state_dict())


def test_what_cannot_be_shared():
    first, second = build("LIF", {"tau_mem_inv": "log"}), build("LI", {"tau_mem_inv": "decay"})
    for name, other in (("tau_mem_inv", first.p), ("tau_syn_inv", first.p)):
        with pytest.raises(ValueError, match=f"{name}: expected two learned parameters of one kind"):
            second.p.share(name, other)
    with pytest.raises(AttributeError, match="unknown v_th of LIParameters; expected one of tau_syn_inv"):
        second.p.share("v_th", first.p)


def test_values_invalid_at_this_time_step_and_other_units_are_not_shared():
    def p(constraint, dt, value=900.0):
        return sp.LIF(sp.LIFParameters(tau_mem_inv=sp.Learned(value, constraint), tau_syn_inv=1.0), dt=dt, size=3).p

    with pytest.raises(ValueError, match=r"tau_mem_inv: expected dt \* tau_mem_inv < 1, that is values below 500 1/s"):
        p("none", 2e-3, 100.0).share("tau_mem_inv", p("none", 1e-3))
    one, other = (p(Log(1.0, 950.0, unit), 1e-3) for unit in (1.0, 100.0))
    with pytest.raises(ValueError, match=r"'1 to 950'.*'1 to 950, unit 100\.0'"):
        one.share("tau_mem_inv", other)


def test_what_a_layer_is_built_with_stays():
    layer = build("LIF", {"tau_mem_inv": "log"})
    for name, value in (("dt", 2e-3), ("gradient", sp.Surrogate("tanh"))):
        before = getattr(layer.p, name)
        for p in (layer.p, copy.deepcopy(layer).p):
            with pytest.raises(
                AttributeError, match=re.escape(f"{name}: expected {before!r} as built, got {value!r}; build")
            ):
                setattr(p, name, value)
            assert getattr(p, name) == before


def model_and_data(how):
    torch.manual_seed(3)
    model = nn.Sequential(build("LIFRecurrent", learned("LIFRecurrent", how), F64))
    return model, 3 * torch.rand(12, 4, 4, dtype=F64)


def work(rank, how, folder):
    """Compute the gradient of half of the batch in one of two processes."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model, x = model_and_data(how)
    parallel = nn.parallel.DistributedDataParallel(model)  # a name, so that it lives until the backward pass
    out, state = parallel(x[:, 2 * rank : 2 * rank + 2])
    (out.sum() + state.v.sum()).backward()
    torch.save(gradients(model), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    torch.multiprocessing.spawn(work, ("log", str(tmp_path)), nprocs=2)
    model, x = model_and_data("log")
    out, state = model(x)
    ((out.sum() + state.v.sum()) / 2).backward()  # DDP averages over processes
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), gradients(model), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", [*HOW, "fixed"])
def test_a_replica_of_data_parallel_has_its_own_values_and_leaves_the_others_alone(how):
    """What nn.DataParallel does for each GPU but the first, on a CPU."""
    p = build("LIF", {} if how == "fixed" else learned("LIF", how)).p
    versions = [parameter._version for parameter in p.parameters()]
    replica = p._replicate_for_data_parallel()
    for name, child in p.named_children():
        setattr(replica, name, child._replicate_for_data_parallel())
    for name, tensor in [*p._parameters.items(), *p._buffers.items()]:
        setattr(replica, name, tensor.clone())
    stored = {tensor.data_ptr() for tensor in [*p.parameters(), *p.buffers()]}
    for name in p.neuron_fields:
        assert torch.equal(getattr(replica.values(), name), getattr(p, name))
        assert getattr(replica.values(), name).data_ptr() not in stored
    assert [parameter._version for parameter in p.parameters()] == versions


@pytest.mark.parametrize("how", HOW)
def test_an_ensemble_of_constrained_networks_trains_as_its_members(how):
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        members.append(build("LIFRecurrent", learned("LIFRecurrent", how), F64, scale=1 + 0.1 * seed))
    ensemble, x = sp.Ensemble(members), 3 * torch.rand(12, 2, 4, dtype=F64)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (ensemble, *members)]
    for _ in range(3):
        losses = [sum(s.sum() for s in ensemble(x)[1])] + [sum(s.sum() for s in m(x)[1]) for m in members]
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for k, member in enumerate(members):
        alone = ensemble.member(k)
        for name in fields("LIFRecurrent"):
            torch.testing.assert_close(getattr(alone.p, name), getattr(member.p, name), rtol=1e-9, atol=1e-12)
    sp.validate_neuron_parameters(ensemble)


@pytest.mark.parametrize("how", [*HOW, "fixed"])
def test_time_constants_in_seconds_are_read_and_assigned(how):
    module = build("LIF", {} if how == "fixed" else learned("LIF", how))
    place = module.p.raw("tau_mem_inv")
    for value in (12e-3, torch.tensor([9e-3, 11e-3, 13e-3])):
        module.p.tau_mem = value
        torch.testing.assert_close(module.p.tau_mem.detach(), torch.as_tensor(value).expand(3), rtol=1e-5, atol=0)
        torch.testing.assert_close(module.p.tau_mem_inv * module.p.tau_mem, torch.ones(3))
    module.p.tau_syn_inv = 160.0
    torch.testing.assert_close(module.p.tau_syn.detach(), torch.full((3,), 1 / 160))
    module.p.v_th = torch.tensor(0.45)
    torch.testing.assert_close(module.p.v_th.detach(), torch.full((3,), 0.45))
    assert module.p.raw("tau_mem_inv") is place
    before = {name: x.clone() for name, x in module.state_dict().items()}
    for name, bad, message in (
        ("tau_mem", -1.0, "tau_mem: expected positive, finite times in s, got -1"),
        ("tau_mem", 0, "tau_mem: expected positive, finite times in s, got 0"),
        (
            "tau_syn",
            1e-3,
            "tau_syn: expected dt / tau_syn < 1, that is values above 0.001 s at dt = 0.001 s, got",
        ),
        ("tau_mem_inv", float("nan"), "tau_mem_inv: expected finite values, got nan"),
        ("v_th", float("inf"), "v_th: expected finite values, got inf"),
        ("v_th", torch.ones(4), "v_th: expected a number or values of shape (3,), got (4,)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            setattr(module.p, name, bad)
    with pytest.raises(TypeError, match="v_th: expected a number or a floating-point tensor, got str"):
        module.p.v_th = "1"
    for name, x in module.state_dict().items():
        assert torch.equal(x, before[name])
    with pytest.raises(AttributeError, match="unknown v_th of LIParameters"):
        build("LI", {}).p.v_th = 1.0


def test_out_of_the_range_of_a_constraint():
    layer = sp.LIF(sp.LIFParameters(tau_mem_inv=sp.Learned(100.0, Interval(50.0, 150.0))), size=2)
    with pytest.raises(ValueError, match="tau_mem_inv: expected values within the range of interval 50 to 150"):
        layer.p.tau_mem_inv = 160.0
    with pytest.raises(ValueError, match="v_th: expected values within the range of log"):
        sp.LIF(sp.LIFParameters(v_th=sp.Learned(-0.5, "log")), size=2)


def test_declaring_in_seconds():
    p = sp.LIFParameters(tau_mem=20e-3, tau_syn=torch.tensor([4e-3, 5e-3]))
    assert p.tau_mem_inv == 50.0
    torch.testing.assert_close(p.tau_syn_inv, torch.tensor([250.0, 200.0]))
    layer = sp.LI(sp.LIParameters(tau_mem=sp.Learned(torch.tensor([10e-3, 40e-3]))), size=2)
    torch.testing.assert_close(layer.p.tau_mem_inv.detach(), torch.tensor([100.0, 25.0]))
    assert layer.p.constraint("tau_mem_inv").name == "log"  # the default
    assert layer.p.constraint("v_leak") is None


@pytest.mark.parametrize(("kind", "size"), [("LIF", (6, 1, 1)), ("LI", 6), ("LIFCell", 6), ("LICell", (6, 2))])
def test_drawn_and_shared_values_have_the_size_that_was_asked_for(kind, size):
    drawn = log_normal(median=10e-3, variation=0.3)
    declaration = sp.LIFParameters if kind.startswith("LIF") else sp.LIParameters
    build_ = getattr(sp, kind)
    p = build_(declaration(tau_mem=drawn, tau_syn=sp.Learned(drawn, shared=True)), size=size).p
    assert p.tau_mem.shape == ((size,) if isinstance(size, int) else size)
    assert len(p.tau_mem.unique()) > 5
    assert p.tau_syn.shape == ()
    with pytest.raises(ValueError, match=r"tau_mem: expected the size of the population.* give size="):
        build_(declaration(tau_mem=drawn))
    one = build_(declaration(tau_mem=sp.Fixed(drawn, shared=True)))
    assert one.p.tau_mem.shape == ()
    assert not isinstance(one.p.raw("tau_mem_inv"), nn.Parameter)


def test_a_declaration_is_a_recipe():
    p = sp.LIFParameters(tau_mem=sp.Learned(log_normal(median=10e-3, variation=0.3)))
    first, second = sp.LIFRecurrent(3, 5, p), sp.LIFRecurrent(3, 5, p)
    assert not torch.equal(first.p.tau_mem, second.p.tau_mem)
    torch.manual_seed(4)
    third = sp.LIFRecurrent(3, 5, p)
    torch.manual_seed(4)
    assert torch.equal(third.p.tau_mem, sp.LIFRecurrent(3, 5, p).p.tau_mem)


def test_printed_module_says_how_each_parameter_is_treated():
    text = repr(build("LIF", {"tau_mem_inv": "log", "v_th": "none", "v_leak": "interval"}))
    assert "tau_mem_inv=3 values, median 90, 81 to 99 1/s (learned, log)" in text
    assert "v_th=3 values, median 0.4, 0.36 to 0.44 (learned)" in text
    assert "v_leak=3 values, median 0.05, 0.045 to 0.055 (learned, interval 0.025 to 0.1)" in text
    assert "v_reset=3 values, median 0.1, 0.09 to 0.11 (fixed)" in text
    assert "parametrizations" not in text
    assert set(RATES) < set(fields("LI"))


# Assignments do what the same thing does when a layer is built


def registered(p, name):
    """How a parameter is held: as what, under which constraint, and its values."""
    stored, constraint = p.raw(name), p.constraint(name)
    return type(stored), None if constraint is None else repr(constraint), getattr(p, name).tolist()


ASSIGNED = {
    "an nn.Parameter": lambda: nn.Parameter(torch.tensor([60.0, 70.0, 80.0])),
    "one shared nn.Parameter": lambda: nn.Parameter(torch.tensor(60.0)),
    "learned": lambda: sp.Learned(60.0),
    "learned, another constraint": lambda: sp.Learned(torch.tensor([60.0, 70.0, 80.0]), Interval(50.0, 90.0)),
    "learned without constraint": lambda: sp.Learned(60.0, "none"),
    "learned and drawn": lambda: sp.Learned(log_normal(median=60.0, variation=0.1), "decay"),
    "shared": lambda: sp.Learned(60.0, shared=True),
    "fixed": lambda: sp.Fixed(60.0),
    "drawn": lambda: log_normal(median=60.0, variation=0.1),
    "drawn once": lambda: sp.Fixed(log_normal(median=60.0, variation=0.1), shared=True),
}


@pytest.mark.parametrize("what", ASSIGNED)
@pytest.mark.parametrize("before", ["fixed", *HOW])
@pytest.mark.parametrize("kind", ["LIF", "LIFRecurrent"])
def test_what_is_assigned_is_held_as_if_the_layer_had_been_built_with_it(kind, before, what):
    layer = build(kind, {} if before == "fixed" else {"tau_mem_inv": before})
    twin = copy.deepcopy(layer)
    given = ASSIGNED[what]()
    p = sp.LIFParameters(tau_mem_inv=given)
    torch.manual_seed(3)
    expected = (sp.LIF(p, size=3) if kind == "LIF" else sp.LIFRecurrent(4, 3, p)).p
    torch.manual_seed(3)
    layer.p.tau_mem_inv = given
    assert registered(layer.p, "tau_mem_inv") == registered(expected, "tau_mem_inv")
    listed = [name for name, _ in layer.p.named_parameters()]
    assert listed == [name for name, _ in expected.named_parameters()]
    if isinstance(given, nn.Parameter):
        assert layer.p.raw("tau_mem_inv") is given
    result = run(layer, kind, inputs(kind))
    for parameter in layer.p.parameters():
        assert torch.autograd.grad(result, parameter)[0].abs().sum() > 0
    layer.load_state_dict(layer.state_dict())
    # a copy that was made before goes its own way
    assert registered(twin.p, "tau_mem_inv") == registered(build_like(kind, before), "tau_mem_inv")
    run(twin, kind, inputs(kind))


def build_like(kind, before):
    return build(kind, {} if before == "fixed" else {"tau_mem_inv": before}).p


@pytest.mark.parametrize("before", ["fixed", "none"])
def test_a_copy_stays_as_it_is_when_another_parameter_of_its_original_is_replaced(before):
    layer = build("LIF", {"tau_mem_inv": "log"} | ({} if before == "fixed" else {"v_th": before}))
    twin, expected = copy.deepcopy(layer), layer.p.v_th.detach().clone()
    layer.p.v_th = sp.Learned(0.9, "log")
    assert torch.equal(twin.p.v_th, expected)
    assert twin.p.constraint("v_th") is None
    run(twin, "LIF", inputs("LIF"))
    again = copy.deepcopy(layer)
    again.p.v_th = 0.7
    torch.testing.assert_close(layer.p.v_th.detach(), torch.full((3,), 0.9))
    layer.p.tau_mem_inv = 80.0
    layer.p.tau_mem_inv = nn.Parameter(torch.full((3,), 70.0))
    assert again.p.constraint("tau_mem_inv").name == "log"
    torch.testing.assert_close(again.p.tau_mem_inv, twin.p.tau_mem_inv)


def test_time_constants_are_declared_by_assignment_as_well():
    layer = build("LIF", {})
    layer.p.tau_mem = sp.Learned(torch.tensor([0.01, 0.02, 0.04]))
    assert layer.p.constraint("tau_mem_inv").name == "log"
    torch.testing.assert_close(layer.p.tau_mem_inv.detach(), torch.tensor([100.0, 50.0, 25.0]))
    torch.manual_seed(1)
    layer.p.tau_syn = log_normal(median=5e-3, variation=0.2)
    assert len(layer.p.tau_syn.unique()) == 3
    with pytest.raises(
        TypeError, match=r"tau_mem: expected Learned\(tau_mem\) or a value, got an nn.Parameter; give one"
    ):
        layer.p.tau_mem = nn.Parameter(torch.ones(3))
    layer = sp.LIF()
    layer.p.v_th = torch.tensor([0.3, 0.4, 0.5])  # one for each neuron, as when it is built
    assert layer(torch.rand(4, 2, 3))[0].shape == (4, 2, 3)


@pytest.mark.parametrize("before", ["fixed", *HOW])
def test_what_building_refuses_assignment_refuses_and_nothing_changes(before):
    layer = build("LIFRecurrent", {} if before == "fixed" else {"tau_mem_inv": before})
    state = copy.deepcopy(layer.state_dict())
    leaf = torch.full((3,), 0.02, requires_grad=True)
    for name, bad, error, message in (
        ("tau_mem", 1.0 * leaf, TypeError, "tau_mem_inv: expected an nn.Parameter or a tensor without gradient"),
        ("tau_mem_inv", 1000 * leaf, TypeError, "tau_mem_inv: expected an nn.Parameter or a tensor without gradient"),
        ("v_th", leaf, TypeError, "v_th: expected an nn.Parameter or a tensor without gradient"),
        (
            "tau_mem_inv",
            nn.Parameter(torch.ones(3, dtype=F64)),
            TypeError,
            "expected a parameter of type torch.float32",
        ),
        ("tau_mem_inv", nn.Parameter(torch.ones(4)), ValueError, "tau_mem_inv: expected one value, or one per neuron"),
        ("tau_mem_inv", nn.Parameter(torch.full((3,), 2e3)), ValueError, "expected dt * tau_mem_inv < 1"),
        ("tau_mem_inv", sp.Learned(160.0, Interval(50.0, 150.0)), ValueError, "within the range of interval 50 to 150"),
        ("tau_mem_inv", sp.Learned(torch.ones(2)), ValueError, "tau_mem_inv: expected one value, or one per neuron"),
        ("v_th", sp.Learned(1.0, "decay"), ValueError, "v_th: expected a constraint for voltages"),
        ("v_th", sp.Fixed(math.inf), ValueError, "v_th: expected finite values"),
        ("tau_mem_inv", torch.distributions.Normal(100.0, 20.0), ValueError, "expected a distribution of positive"),
        ("v_th", None, TypeError, "v_th: expected a number or a floating-point tensor, got NoneType"),
    ):
        with pytest.raises(error, match=re.escape(message)):
            setattr(layer.p, name, bad)
        assert list(layer.state_dict()) == list(state)
        assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    assert leaf.grad is None


@pytest.mark.parametrize("how", HOW)
def test_what_another_layer_learns_is_tied_or_refused_by_name_and_never_copied(how):
    first, second = build("LIF", {"tau_mem_inv": how}), build("LIF", {"tau_mem_inv": how}, scale=1.1)
    before = second.p.tau_mem_inv.detach().clone()
    if how == "none":  # an nn.Parameter
        second.p.tau_mem_inv = first.p.tau_mem_inv
        assert second.p.raw("tau_mem_inv") is first.p.raw("tau_mem_inv")
        return
    with pytest.raises(TypeError, match=r"NeuronParameters\.share lets two layers learn one parameter"):
        second.p.tau_mem_inv = first.p.tau_mem_inv
    assert torch.equal(second.p.tau_mem_inv, before)
    second.p.tau_mem_inv = first.p.tau_mem_inv.detach()
    torch.testing.assert_close(second.p.tau_mem_inv, first.p.tau_mem_inv)


def test_a_computed_value_is_changed_by_assignment():
    layer = build("LIF", {"tau_mem_inv": "log"})
    with pytest.raises(TypeError, match=r"tau_mem_inv: expected an nn\.Parameter or a tensor without gradient"):
        layer.p.tau_mem *= 2
    tau = layer.p.tau_mem.detach()
    tau[0] = 0.5
    layer.p.tau_mem = tau
    torch.testing.assert_close(layer.p.tau_mem[0].item(), 0.5, rtol=1e-5, atol=0)
    with torch.no_grad():
        layer.p.tau_mem *= 2
    torch.testing.assert_close(layer.p.tau_mem[0].item(), 1.0, rtol=1e-5, atol=0)


def test_a_learned_parameter_that_is_replaced_keeps_its_place_in_the_order():
    layer = build("LIF", {"tau_syn_inv": "none", "v_th": "none"})
    names = [name for name, _ in layer.named_parameters()]
    layer.p.tau_syn_inv = nn.Parameter(torch.full((3,), 120.0))
    assert [name for name, _ in layer.named_parameters()] == names


# Reading and replacing declarations


def test_a_declaration_says_the_time_constants_that_it_was_given():
    p = sp.LIFParameters(tau_mem=0.02)
    assert (p.tau_mem, p.tau_mem_inv, p.tau_syn, p.tau_syn_inv) == (0.02, 50.0, 1 / 200, 200.0)
    learned, drawn = sp.Learned(0.01), log_normal(median=5e-3, variation=0.3)
    p = sp.LIParameters(tau_mem=learned, tau_syn=drawn)
    assert p.tau_mem is learned
    assert p.tau_syn is drawn
    p = sp.LIFParameters(tau_mem_inv=sp.Learned(40.0, "decay", shared=True), tau_syn_inv=torch.tensor([100.0, 250.0]))
    assert (p.tau_mem.value, p.tau_mem.constraint, p.tau_mem.shared) == (1 / 40, "decay", True)
    torch.testing.assert_close(p.tau_syn, torch.tensor([0.01, 0.004]))
    assert sp.LIFParameters(tau_mem_inv=nn.Parameter(torch.ones(2))).tau_mem is None
    assert "tau_mem=" not in repr(p)


@pytest.mark.parametrize("declaration", [sp.LIFParameters, sp.LIParameters])
@pytest.mark.parametrize("given", [{"tau_mem": 0.02}, {"tau_mem_inv": 50.0}, {"tau_mem": sp.Learned(0.02)}, {}])
def test_replacing_means_the_obvious(declaration, given):
    p = declaration(**given)
    for original in (p, copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        changed = dataclasses.replace(original, tau_mem=0.05)
        assert (changed.tau_mem, changed.tau_mem_inv) == (0.05, 20.0)
        changed = dataclasses.replace(changed, tau_mem_inv=10.0)
        assert (changed.tau_mem, changed.tau_mem_inv) == (0.1, 10.0)
        changed = dataclasses.replace(original, v_leak=0.3)
        assert changed.v_leak == 0.3
        assert changed.tau_mem is original.tau_mem
        assert changed.tau_mem_inv is original.tau_mem_inv
        changed = dataclasses.replace(changed, tau_mem=sp.Learned(0.04), tau_syn_inv=150.0)
        assert (changed.tau_mem_inv.value, changed.tau_syn) == (25.0, 1 / 150)
        with pytest.raises(ValueError, match="tau_mem: expected either it or tau_mem_inv, got both"):
            dataclasses.replace(original, tau_mem=0.03, tau_mem_inv=40.0)
        with pytest.raises(ValueError, match="tau_mem: expected positive, finite times in s, got -1"):
            dataclasses.replace(original, tau_mem=-1.0)
    with pytest.raises(ValueError, match="tau_mem: expected either it or tau_mem_inv, got both"):
        declaration(tau_mem=0.02, tau_mem_inv=50.0)
    with pytest.raises(
        TypeError, match=f"{declaration.__name__}: unknown tau_ref; expected one of tau_syn_inv, [^_]*_"
    ):
        dataclasses.replace(p, tau_ref=1.0)
    assert "_source" not in str(inspect.signature(declaration))


def test_the_order_of_a_declarations_fields_is_norses():
    ours = list(inspect.signature(sp.LIFParameters).parameters)
    assert ours[:7] == list(norse.LIFParameters._fields[:7])
    assert sp.LIFParameters(200.0, 90.0, 0.1, 0.9, -0.1, "tanh", 5.0).alpha == 5.0
    with pytest.raises(TypeError):
        sp.LIFParameters(200.0, 90.0, 0.1, 0.9, -0.1, "tanh", 5.0, 0.02)


class Exp(nn.Module):
    """A user's constraint that says nothing of its scale."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return self.scale * torch.exp(x)

    def right_inverse(self, value):
        return torch.log(value / self.scale)


def test_only_equal_constraints_are_shared():
    def build(scale):
        return sp.LI(sp.LIParameters(tau_mem=sp.Learned(0.02, Exp(scale))), size=3)

    first, same, other = build(100.0), build(100.0), build(50.0)
    own = other.p.raw("tau_mem_inv")
    with pytest.raises(ValueError, match="tau_mem_inv: expected two constraints that make the same values"):
        other.p.share("tau_mem_inv", first.p)
    assert other.p.raw("tau_mem_inv") is own
    same.eval()
    same.p.share("tau_mem_inv", first.p)
    assert same.p.raw("tau_mem_inv") is first.p.raw("tau_mem_inv")


def test_what_a_constraint_learns_belongs_to_one_layer_unless_it_is_shared():
    class Scaled(Exp):
        def __init__(self):
            super().__init__(nn.Parameter(torch.tensor(100.0)))

        def right_inverse(self, value):
            return super().right_inverse(value).detach()

    given = Scaled()
    p = sp.LIParameters(tau_mem=sp.Learned(0.02, given))
    first, second = (sp.LI(p, size=3) for _ in range(2))
    assert len({given.scale, *first.parameters(), *second.parameters()}) == 5
    second.p.share("tau_mem", first.p)
    assert list(second.parameters()) == list(first.parameters())
    model = nn.Sequential(first, second)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    (first.p.tau_mem_inv.sum() + second.p.tau_mem_inv.sum()).backward()
    optimizer.step()
    assert first.p.constraint("tau_mem_inv").scale != 100
    assert torch.equal(first.p.tau_mem, second.p.tau_mem)
    assert given.scale == 100


@pytest.mark.parametrize("how", ["log", "none"])
def test_names_that_are_no_parameters_are_refused(how):
    layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(0.02, how)), size=3)
    for value in (0.1, torch.ones(3), nn.Parameter(torch.ones(3))):
        with pytest.raises(AttributeError, match=r"unknown vth of LIFParameters; expected one of .*v_th.*tau_mem"):
            layer.p.vth = value
    with pytest.raises(AttributeError, match="unknown alpha of LIParameters"):
        sp.LI().p.alpha = 5.0
    layer.eval()
    layer.p.training = True
    layer.p._mark = 1
    assert copy.deepcopy(layer).p._mark == 1
    layer.p.v_th = 0.7
    assert layer.p.v_th == 0.7


# Changes in place


CHANGES = {
    "item": lambda value: value.__setitem__(0, 0.02),
    "init": lambda value: nn.init.constant_(value, 0.02),
    "view": lambda value: value.detach()[1:].mul_(2),
    "data": lambda value: value.data.clamp_(max=1e-3),
    "numpy": lambda value: value.detach().numpy().fill(0.02),
}
USES = {
    "forward": lambda layer: layer(torch.rand(3, 2, 3)),
    "read": lambda layer: (layer.p.tau_mem, layer.p.tau_mem_inv),
    "save": lambda layer: layer.state_dict(),
    "validate": lambda layer: layer.p.validate(),
}


def one_layer(how):
    values = torch.full((3,), 0.01)
    return sp.LIF(sp.LIFParameters(tau_mem=values if how == "fixed" else sp.Learned(values, how)), size=3)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("how", "name"), [("log", "tau_mem"), ("log", "tau_mem_inv"), ("none", "tau_mem"), ("fixed", "tau_mem")]
)
def test_a_change_in_place_of_what_is_computed_is_refused(how, name, change, use):
    layer = one_layer(how)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with torch.no_grad():
        CHANGES[change](getattr(layer.p, name))
    with pytest.raises(RuntimeError, match=f"{name}: expected an assignment, as in p.{name} = values, got a change in"):
        USES[use](layer)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())  # it was said once


def test_a_change_in_place_with_a_gradient_is_refused():
    layer = one_layer("log")
    layer.p.tau_mem[0] = 0.02
    with pytest.raises(RuntimeError, match="tau_mem: expected an assignment"):
        copy.deepcopy(layer)(torch.rand(3, 2, 3))
    with pytest.raises(RuntimeError, match="tau_mem: expected an assignment"):
        sp.Ensemble([one_layer("log"), layer])


@pytest.mark.parametrize("how", ["log", "none", "fixed"])
def test_what_is_no_change_of_what_was_read_last_is_allowed(how):
    """Also what is read in the forward pass of another module, compiled, stacked, or with NaN."""
    layer, x = one_layer(how), torch.rand(5, 2, 3)
    milliseconds = 1000 * layer.p.tau_mem.detach()
    milliseconds += 1
    own = layer.p.tau_mem.clone()
    own *= 2
    with torch.inference_mode():
        layer.p.tau_mem.mul_(2)
        layer(x)
    layer.p.tau_mem = 0.02
    rate = layer.p.tau_mem_inv
    layer.double().float()
    for parameter in layer.parameters():
        parameter.data.mul_(1.01)  # as an optimiser does it
    assert rate.isfinite().all()
    layer(x)[0].sum()
    layer.load_state_dict(one_layer(how).state_dict())
    layer.p.validate()


def test_an_assignment_takes_the_place_of_a_change_before_it():
    layer = one_layer("log")
    with torch.no_grad():
        layer.p.tau_mem[0] = 0.05
        layer.p.tau_mem_inv = 40.0
        layer.p.tau_mem *= 2
        layer.p.tau_mem_inv *= 4
    torch.testing.assert_close(layer.p.tau_mem.detach(), torch.full((3,), 2 / 160))
    layer.p.tau_mem.detach().mul_(3)
    layer.load_state_dict(one_layer("log").state_dict())
    layer(torch.rand(3, 2, 3))
    with pytest.raises(TypeError, match=r"tau_mem_inv: expected an nn\.Parameter or a tensor without gradient"):
        layer.p.tau_mem_inv *= 2
    torch.testing.assert_close(layer.p.tau_mem.detach(), torch.full((3,), 0.01))


@pytest.mark.parametrize("how", ["none", "fixed"])
def test_an_invalid_change_in_place_of_what_is_stored_leaves_the_old_values_or_is_found(how):
    layer = one_layer(how)
    p = layer.p
    with torch.no_grad():
        p.tau_mem_inv[1] = 50.0
        place, before = p.tau_mem_inv, p.tau_mem_inv.clone()
        layer(torch.rand(3, 2, 3))
        for factor in (20, float("nan"), -1):
            with pytest.raises(ValueError, match="tau_mem_inv: expected"):
                p.tau_mem_inv *= factor
            assert p.tau_mem_inv is place
            assert torch.equal(place, before)
        place *= 0.5  # of a tensor that was read before
        p.tau_mem_inv = place
        assert torch.equal(p.tau_mem_inv, before / 2)
        p.tau_mem_inv[2] = -5.0
    if how == "fixed":  # of a learned one `snnparams.train` finds it
        with pytest.raises(ValueError, match=r"tau_mem_inv: expected positive values, got -5 1/s at neuron 2"):
            layer(torch.rand(3, 2, 3))
    with pytest.raises(ValueError, match=r"tau_mem_inv: expected positive values, got -5 1/s at neuron 2"):
        layer.p.validate()


class View(nn.Module):
    """A constraint that computes nothing."""

    def forward(self, x):
        return x[:]

    def right_inverse(self, value):
        return value


def test_a_change_of_a_view_is_not_lost():
    layer = sp.LIF(sp.LIFParameters(v_th=sp.Learned(0.5, View())), size=3)
    with torch.no_grad():
        layer.p.v_th[0] = 0.7
    layer(torch.rand(3, 2, 3))
    assert layer.p.v_th.tolist() == pytest.approx([0.7, 0.5, 0.5])


def test_a_parametrization_that_a_user_registers():
    layer = sp.LIF(sp.LIFParameters(v_th=nn.Parameter(torch.full((3,), 0.4))), size=3)
    nn.utils.parametrize.register_parametrization(layer.p, "v_th", View())
    layer(torch.rand(3, 2, 3))
    assert layer.p.values().v_th.tolist() == layer.p.v_th.tolist() == pytest.approx([0.4] * 3)


class Reading(nn.Module):
    """A network that reads neuron parameters in its forward pass."""

    def __init__(self):
        super().__init__()
        self.hidden = one_layer("log")

    def forward(self, x):
        p = self.hidden.p
        return self.hidden(x)[1].v + p.tau_mem + p.tau_mem_inv + p.v_th


def test_what_a_forward_pass_reads_is_read_in_ensembles_and_compiled_code():
    members, x = [Reading(), Reading()], torch.rand(5, 2, 3)
    ensemble, expected = sp.Ensemble(members), members[0](x)
    for model in (ensemble, ensemble, torch.func.functional_call):
        out = model(x)[0] if model is ensemble else model(members[0], dict(members[0].named_parameters()), (x,))
        torch.testing.assert_close(out, expected)
    torch.testing.assert_close(torch.compile(members[1], backend="aot_eager", fullgraph=True)(x), expected)
    members[1].hidden.p.tau_mem_inv.detach().zero_()
    with pytest.raises(RuntimeError, match="tau_mem_inv: expected an assignment"):
        members[1](x)
    ensemble.stacked.hidden.p.tau_mem.detach().zero_()
    with pytest.raises(RuntimeError, match="tau_mem: expected an assignment"):
        ensemble(x)


def test_a_value_that_is_refused_changes_no_name():
    layer = sp.LIF(sp.LIFParameters(tau_mem_inv=100.0))
    before = repr(layer)
    with pytest.raises(ValueError, match="tau_mem: expected"):
        layer.p.tau_mem = 0.5e-3
    assert repr(layer) == before
    layer.p.tau_mem = 20e-3
    after = repr(layer)
    assert "tau_mem=0.02 s" in after
    with pytest.raises(ValueError, match="tau_mem_inv: expected"):
        layer.p.tau_mem_inv = 2000.0
    assert repr(layer) == after
