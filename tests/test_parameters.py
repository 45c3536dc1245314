"""Declared neuron parameters in PyTorch's machinery: saved, copied, moved, shared, compiled, distributed, stacked."""

import copy
import io
import re

import pytest
import torch
from test_constraints import LEARNED, RATES, VALUES, build, fields
from test_modules import KINDS, inputs, run
from torch import nn

import snnparams as sp
from snnparams.constraints import Interval, Log
from snnparams.distributions import log_normal

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
    second.p.share("tau_mem_inv", first.p)
    model = nn.Sequential(nn.ModuleDict({"a": first, "b": second}))
    assert list(model.parameters()) == [first.p.stored("tau_mem_inv")]
    x = 3 * torch.rand(10, 2, 3)
    separate = []
    for layer in (first, second):
        model.zero_grad()
        layer(x)[1].v.sum().backward()
        separate.append(first.p.stored("tau_mem_inv").grad.clone())
    model.zero_grad()
    (first(x)[1].v.sum() + second(x)[1].v.sum()).backward()
    torch.testing.assert_close(first.p.stored("tau_mem_inv").grad, sum(separate))
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
        return sp.LIF(sp.LIFParameters(tau_mem_inv=sp.Learned(value, constraint), tau_syn_inv=1.0), dt, size=3).p

    with pytest.raises(ValueError, match=r"tau_mem_inv: expected dt \* tau_mem_inv < 1, that is values below 500 1/s"):
        p("none", 2e-3, 100.0).share("tau_mem_inv", p("none", 1e-3))
    one, other = (p(Log(1.0, 950.0, unit), 1e-3) for unit in (1.0, 100.0))
    with pytest.raises(ValueError, match=r"'1 to 950'.*'1 to 950, unit 100\.0'"):
        one.share("tau_mem_inv", other)


def test_what_a_layer_is_built_with_stays():
    layer = build("LIF", {"tau_mem_inv": "log"})
    for name, value in (("dt", 2e-3), ("method", "tanh"), ("alpha", 3.0)):
        before = getattr(layer.p, name)
        for p in (layer.p, copy.deepcopy(layer).p):
            with pytest.raises(AttributeError, match=rf"{name}: expected {before!r} as built, got {value!r}; build"):
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


def test_two_processes_give_the_gradients_of_one(tmp_path):
    torch.multiprocessing.spawn(work, ("log", str(tmp_path)), nprocs=2)
    model, x = model_and_data("log")
    out, state = model(x)
    ((out.sum() + state.v.sum()) / 2).backward()  # DDP averages over processes
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), gradients(model), rtol=1e-10, atol=1e-12)


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
    place = module.p.stored("tau_mem_inv")
    for value in (12e-3, torch.tensor([9e-3, 11e-3, 13e-3])):
        module.p.tau_mem = value
        torch.testing.assert_close(module.p.tau_mem.detach(), torch.as_tensor(value).expand(3), rtol=1e-5, atol=0)
        torch.testing.assert_close(module.p.tau_mem_inv * module.p.tau_mem, torch.ones(3))
    module.p.tau_syn_inv = 160.0
    torch.testing.assert_close(module.p.tau_syn.detach(), torch.full((3,), 1 / 160))
    module.p.v_th = torch.tensor(0.45)
    torch.testing.assert_close(module.p.v_th.detach(), torch.full((3,), 0.45))
    assert module.p.stored("tau_mem_inv") is place
    before = {name: x.clone() for name, x in module.state_dict().items()}
    for name, bad, message in (
        ("tau_mem", -1.0, "tau_mem: expected positive, finite times in s, got -1"),
        ("tau_mem", 0, "tau_mem: expected positive, finite times in s, got 0"),
        ("tau_syn", 1e-3, "tau_syn_inv: expected dt * tau_syn_inv < 1"),
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
    with pytest.raises(ValueError, match=r"tau_mem_inv: expected the size of the population.* give size="):
        build_(declaration(tau_mem=drawn))
    one = build_(declaration(tau_mem=sp.Fixed(drawn, shared=True)))
    assert one.p.tau_mem.shape == ()
    assert not isinstance(one.p.stored("tau_mem_inv"), nn.Parameter)


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
