"""Checkpoints keep their meaning: a layer that loads one has the same values afterwards, or it refuses."""

import copy
import io
import json
import re
import warnings

import pytest
import torch
from fixtures.write_checkpoints import FOLDER, TAU, Network, declared, fit, layers, recurrent, values
from torch import nn

import snnparams as sp
from snnparams.parameters.constraints import Interval
from snnparams.parameters.distributions import gamma, log_normal, uniform

EXPECTED = json.loads((FOLDER / "expected.json").read_text())
F64 = torch.float64
RATES = torch.tensor([60.0, 90.0, 150.0])
VOLTAGES = torch.tensor([0.3, 0.5, 0.8])
KEY = "p.parametrizations.tau_mem_inv.original"


def saved(module):
    """What a file of a module's state holds, read without unpickling code."""
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def unchanged(module, before):
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Scaled(nn.Module):
    """A user's constraint, with a number of its own that is saved with it."""

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x):
        return self.scale * torch.exp(x)

    def right_inverse(self, value):
        return torch.log(value / self.scale)


def declare(how, value):
    """Declare a value in one of the ways in which a layer can hold it."""
    if how == "fixed":
        return value
    if how == "parameter":
        return nn.Parameter(value.clone())
    if how == "own":
        return sp.Learned(value, Scaled(3.0))
    if how == "interval":
        return sp.Learned(value, Interval(0.9 * value.min().item(), 1.1 * value.max().item()))
    if how == "wider interval":
        return sp.Learned(value, Interval(0.5 * value.min().item(), 2.0 * value.max().item()))
    return sp.Learned(value, how)


HOW = ["fixed", "parameter", "none", "log", "softplus", "decay", "interval", "wider interval", "own"]


def layer(how, dt=1e-3, factor=1.0, dtype=torch.float32):
    """A layer whose values are `factor` times RATES and VOLTAGES."""
    voltage = "log" if how == "decay" else how
    p = sp.LIFParameters(
        tau_mem_inv=declare(how, (factor * RATES).to(dtype)), v_th=declare(voltage, (factor * VOLTAGES).to(dtype))
    )
    return sp.LIFRecurrent(4, 3, p, dt=dt, dtype=dtype)


# Between layers


@pytest.mark.parametrize("there", HOW)
@pytest.mark.parametrize("here", HOW)
def test_a_layer_has_the_values_of_the_layer_whose_checkpoint_it_loads(here, there):
    source, target = layer(there, dtype=F64), layer(here, dt=5e-4, factor=1.03, dtype=F64)
    learned = [name for name, _ in target.named_parameters()]
    kinds = {name: type(target.p.constraint(name)) for name in ("tau_mem_inv", "v_th")}
    report = target.load_state_dict(saved(source))
    assert not report.missing_keys
    assert not report.unexpected_keys
    torch.testing.assert_close(target.p.tau_mem_inv.detach(), RATES.to(F64), rtol=1e-12, atol=0)
    torch.testing.assert_close(target.p.v_th.detach(), VOLTAGES.to(F64), rtol=1e-12, atol=0)
    assert torch.equal(target.input_weights, source.input_weights)
    assert [name for name, _ in target.named_parameters()] == learned  # what is learned, and how, is the layer's
    assert {name: type(target.p.constraint(name)) for name in kinds} == kinds
    x = (torch.rand(20, 2, 4) < 0.5).to(F64)
    torch.testing.assert_close(target(x)[0], layer_with_dt(source, 5e-4)(x)[0])


def layer_with_dt(source, dt):
    """The network of a layer with fixed values, at another time step."""
    p = sp.LIFParameters(tau_mem_inv=source.p.tau_mem_inv.detach(), v_th=source.p.v_th.detach())
    weights = {name: getattr(source, name).detach() for name in ("input_weights", "recurrent_weights")}
    return sp.LIFRecurrent(4, 3, p, **weights, dt=dt, dtype=source.input_weights.dtype)


@pytest.mark.parametrize("how", ["log", "softplus", "decay", "interval", "wider interval"])
def test_under_the_same_constraint_what_is_stored_is_loaded_to_the_last_bit(how):
    source, target = layer(how), layer(how)
    with torch.no_grad():
        for name in ("tau_mem_inv", "v_th"):
            source.p.raw(name).add_(torch.tensor([-30.0, 0.123456, 40.0]))  # also where the map is nearly flat
    target.load_state_dict(saved(source))
    for name in ("tau_mem_inv", "v_th"):
        assert torch.equal(target.p.raw(name), source.p.raw(name))


def test_values_that_the_layer_cannot_have_are_refused_and_change_nothing():
    fast = sp.LIFRecurrent(4, 3, sp.LIFParameters(tau_mem=sp.Learned(1.5e-3)), dt=1e-3)
    for how, dt, message in (
        ("log", 2e-3, "tau_mem_inv: expected dt * tau_mem_inv < 1, that is values below 500 1/s"),
        ("decay", 2e-3, "tau_mem_inv: expected dt * tau_mem_inv < 1, that is values below 500 1/s"),
        ("fixed", 2e-3, "tau_mem_inv: expected dt * tau_mem_inv < 1, that is values below 500 1/s"),
        ("interval", 1e-3, "tau_mem_inv: expected values within the range of interval 54 to 165"),
    ):
        target = layer(how, dt=dt)
        before = copy.deepcopy(target.p.state_dict())
        with pytest.raises(ValueError, match=re.escape(message)):
            target.load_state_dict(fast.state_dict())
        assert unchanged(target.p, before)


def test_one_value_for_all_neurons_and_one_for_each():
    single = sp.LIFRecurrent(4, 3, sp.LIFParameters(tau_mem=0.02, v_th=sp.Learned(0.4, "log", shared=True)))
    each = layer("log")
    each.load_state_dict(single.state_dict())
    torch.testing.assert_close(each.p.tau_mem.detach(), torch.full((3,), 0.02))
    torch.testing.assert_close(each.p.v_th.detach(), torch.full((3,), 0.4))

    fixed = sp.LIFRecurrent(4, 3, sp.LIFParameters(tau_mem=0.02))
    fixed.load_state_dict(layer("softplus").state_dict())
    torch.testing.assert_close(fixed.p.tau_mem_inv, RATES, rtol=1e-5, atol=0)
    assert not list(fixed.p.parameters())

    for shared in (nn.Parameter(torch.tensor(90.0)), sp.Learned(90.0, "log", shared=True)):
        target = sp.LIFRecurrent(4, 3, sp.LIFParameters(tau_mem_inv=shared))
        with pytest.raises(
            ValueError, match=r"tau_mem_inv: expected one value, which all neurons share, got shape \(3,"
        ):
            target.load_state_dict(layer("log").state_dict())
        torch.testing.assert_close(target.p.tau_mem_inv.item(), 90.0)

    two = torch.ones(2)
    with pytest.raises(RuntimeError, match="size mismatch for"):
        sp.LIFRecurrent(4, 2, sp.LIFParameters(tau_mem_inv=two, v_th=two)).load_state_dict(each.state_dict())
    with pytest.raises(
        ValueError, match=r"tau_mem_inv: expected one value, or one per neuron of shape \(2,\), got \(3,"
    ):
        sp.LIFRecurrent(4, 2).load_state_dict(each.state_dict())


def test_strictness_missing_keys_and_prefixes_are_those_of_pytorch():
    source, target = layer("log"), nn.ModuleDict({"a": nn.ModuleDict({"b": layer("decay", factor=1.1)})})
    state = {f"a.b.{name}": value for name, value in source.state_dict().items()}
    target.load_state_dict(state)
    torch.testing.assert_close(target["a"]["b"].p.tau_mem_inv.detach(), RATES)

    partial = {name: value for name, value in source.state_dict().items() if "tau_mem" not in name} | {"p.more": RATES}
    for how, missing in (("log", KEY), ("none", "p.tau_mem_inv"), ("fixed", "p.tau_mem_inv")):
        target = layer(how, factor=1.1)
        with pytest.raises(RuntimeError, match=rf'Missing key.*"{missing}"(.|\n)*Unexpected key.*"p.more"'):
            target.load_state_dict(partial)
        report = target.load_state_dict(partial, strict=False)
        assert report == ([missing], ["p.more"])
        torch.testing.assert_close(target.p.tau_mem_inv.detach(), 1.1 * RATES)
        torch.testing.assert_close(target.p.v_th.detach(), VOLTAGES)
    with pytest.raises(RuntimeError, match=r"expected torch\.Tensor"):
        layer("fixed").load_state_dict(source.state_dict() | {"p.tau_mem_inv": 3.0})


def test_a_checkpoint_holds_tensors_alone_and_changing_it_does_not_reach_the_layer():
    source = layer("log")
    state = source.state_dict()
    assert all(isinstance(value, torch.Tensor) and not value.requires_grad for value in state.values())
    torch.testing.assert_close(state["p.tau_mem_inv"], RATES)
    assert state[KEY].data_ptr() == source.p.raw("tau_mem_inv").data_ptr()
    halves = {name: value.half() for name, value in state.items()}  # rounding is no other constraint
    target = layer("log", factor=1.1)
    target.load_state_dict(halves)
    assert torch.equal(target.p.raw("tau_mem_inv"), halves[KEY].float())


def test_the_values_count_where_what_is_stored_says_something_else():
    state = layer("log").state_dict()
    for name, parameter in layer("log", factor=1.05).named_parameters():
        state[name] = parameter.detach()
    for how in ("log", "decay"):
        target = layer(how, factor=1.1)
        target.load_state_dict(state)
        torch.testing.assert_close(target.p.tau_mem_inv.detach(), RATES)
    del state["p.tau_mem_inv"]
    target = layer("log", factor=1.1)
    target.load_state_dict(state)
    torch.testing.assert_close(target.p.tau_mem_inv.detach(), 1.05 * RATES)


@pytest.mark.parametrize(
    ("dtype", "ends"),
    [
        (torch.bfloat16, ((0.1, 1.0), (0.1, 1.2))),
        (torch.float16, ((0.1, 1.0), (0.1, 1.2))),
        (torch.float32, ((0.0, 2e-6), (0.0, 4e-6))),
    ],
)
def test_constraints_that_differ_little_do_not_change_the_values(ends, dtype):
    start = torch.tensor([0.3, 0.5, 0.8], dtype=F64) * ends[0][1]

    def build(bounds, values):
        p = sp.LIParameters(v_leak=sp.Learned(values.to(dtype), Interval(*bounds)))
        return sp.LI(p, size=3, dtype=dtype)

    source, target = build(ends[0], start), build(ends[1], 0.9 * start)
    target.load_state_dict(saved(source))
    rounding = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(target.p.v_leak, source.p.v_leak, rtol=rounding, atol=0)


class OfAll(nn.Module):
    """A user's constraint that depends on the whole tensor, and takes positive numbers alone."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        if not x.is_meta and (x <= 0).any():
            raise RuntimeError("expected positive numbers")
        return 100 * x / self.scale(x)

    def right_inverse(self, value):
        return value / 100


def test_users_constraints_that_depend_on_the_whole_tensor():
    def build(scale, values):
        return sp.LI(sp.LIParameters(tau_mem_inv=sp.Learned(values, OfAll(scale))), size=3)

    by_mean, by_largest = torch.tensor([50.0, 100.0, 150.0]), torch.tensor([50.0, 75.0, 100.0])
    source, target = build(torch.mean, by_mean), build(torch.max, by_largest)
    same = build(torch.mean, by_mean.flip(0))
    with torch.no_grad():
        source.p.raw("tau_mem_inv").mul_(3.7)
    same.load_state_dict(saved(source))
    assert torch.equal(same.p.raw("tau_mem_inv"), source.p.raw("tau_mem_inv"))
    with pytest.raises(ValueError, match=r"tau_mem_inv: expected values that the constraint .* can give"):
        target.load_state_dict(saved(source))
    assert torch.equal(target.p.tau_mem_inv.detach(), by_largest)
    other = sp.LI(sp.LIParameters(tau_mem=sp.Learned(0.02)), size=3)
    other.p.tau_mem_inv = torch.tensor([20.0, 90.0, 300.0])
    target = build(torch.max, by_largest)
    with pytest.raises(ValueError, match="can give"):
        target.load_state_dict(saved(other))


def test_a_state_holds_parameters_and_buffers_alone():
    source = layer("log")
    source.p.raw("v_th").requires_grad_(False)
    x = 3 * torch.rand(8, 2, 4)
    expected = source(x)[0]
    state = {name: value.clone() for name, value in source.state_dict().items()}
    registered = dict(source.named_parameters()) | dict(source.named_buffers())
    assert state.keys() == registered.keys()
    other = layer("log", factor=1.3)
    before = copy.deepcopy(other.state_dict())
    assert torch.equal(torch.func.functional_call(other, state, (x,))[0], expected)
    assert unchanged(other, before)
    assert all(parameter.requires_grad for parameter in other.parameters())
    with torch.no_grad():
        source.p.raw("tau_mem_inv").add_(0.5)
    source.p.tau_syn = 0.007
    torch.testing.assert_close(source.state_dict()["p.tau_mem_inv"], source.p.tau_mem_inv.detach())


def test_distributed_checkpoints_load():
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        source, target = layer("log"), layer("log", factor=1.1)
        parallel = nn.parallel.DistributedDataParallel(target)
        set_model_state_dict(parallel, get_model_state_dict(source))
        assert values(target) == values(source)
        x = 3 * torch.rand(8, 2, 4)
        assert torch.equal(parallel(x)[0], source(x)[0])
        assert get_model_state_dict(parallel).keys() == source.state_dict().keys()
    finally:
        distributed.destroy_process_group()


def test_bounds_tell_constraints_apart_that_agree_between_them():
    far = sp.LIFRecurrent(4, 3, sp.LIFParameters(tau_mem=sp.Learned(1.001e-3)))  # where the map bends to its end
    target = layer("log", dt=5e-4)
    target.load_state_dict(saved(far))
    torch.testing.assert_close(target.p.tau_mem.detach(), torch.full((3,), 1.001e-3))
    state = far.state_dict()
    del state["p.tau_mem_inv"]  # only what is stored, as in earlier files
    target.load_state_dict(state)
    assert (target.p.tau_mem < 1.0e-3).all()


def test_a_file_in_which_what_is_stored_is_broken_is_refused():
    source = layer("log")
    with pytest.raises(ValueError, match="tau_mem_inv: expected finite values, got nan"):
        layer("log").load_state_dict(source.state_dict() | {KEY: torch.full((3,), torch.nan)})


def test_a_users_constraint_with_tensors_of_its_own():
    source, target = layer("own"), layer("own", factor=1.1)
    target.p.constraint("tau_mem_inv").scale.fill_(7.0)
    target.load_state_dict(saved(source))
    assert target.p.constraint("tau_mem_inv").scale == 3.0
    assert torch.equal(target.p.raw("tau_mem_inv"), source.p.raw("tau_mem_inv"))


def test_shared_parameters_stay_shared_and_are_converted_once():
    torch.manual_seed(1)
    source, same, other = Network(), Network(), Network(sp.Learned(2 * TAU, "decay"))
    with torch.no_grad():
        source.hidden.p.raw("tau_mem_inv").add_(0.1)
    state = saved(source)
    for target in (same, other):
        target.load_state_dict(state)
        assert target.second.p.raw("tau_mem_inv") is target.hidden.p.raw("tau_mem_inv")
        for part in ("hidden", "second", "out"):
            for name in ("tau_mem_inv", "tau_syn_inv"):
                expected = getattr(getattr(source, part).p, name)
                torch.testing.assert_close(getattr(getattr(target, part).p, name), expected)
    tau = nn.Parameter(RATES.clone())
    tied = nn.ModuleList([sp.LIF(sp.LIFParameters(tau_mem_inv=tau), size=3) for _ in range(2)])
    state = {name: 2 * value for name, value in tied.state_dict().items()}
    tied.load_state_dict(state)
    assert list(tied.parameters()) == [tau]
    assert torch.equal(tau.detach(), 2 * RATES)


def test_an_ensemble_saves_and_loads():
    members = [layer("log", factor=factor) for factor in (1.0, 1.05, 1.1)]
    ensemble = sp.Ensemble(members)
    x = 3 * torch.rand(8, 2, 4)
    again = sp.Ensemble([layer("log", factor=0.95) for _ in members])
    state = {name: value.clone() for name, value in ensemble.state_dict().items()}
    assert torch.equal(torch.func.functional_call(again, state, (x,))[0], ensemble(x)[0])
    for how in ("log", "softplus"):
        other = sp.Ensemble([layer(how, factor=0.95) for _ in members])
        other.load_state_dict(saved(ensemble))
        for k, member in enumerate(members):
            torch.testing.assert_close(other.member(k).p.tau_mem_inv, member.p.tau_mem_inv)
    fixed = sp.Ensemble([layer("fixed", factor=factor) for factor in (0.9, 0.95, 0.97)])
    fixed.load_state_dict(saved(ensemble))
    torch.testing.assert_close(fixed.member(2).p.v_th, 1.1 * VOLTAGES)


@pytest.mark.parametrize("size", [None, 3], ids=["cell", "layer of as many neurons as members"])
def test_what_members_of_a_file_do_not_have_in_common_is_not_taken_for_values_of_neurons(size, tmp_path):
    def ensemble(*thresholds):
        found = [sp.LIFParameters(tau_mem=sp.Learned(torch.full((3,), 0.02)), v_th=v_th) for v_th in thresholds]
        return sp.Ensemble([sp.LIF(p, size=size) for p in found])

    different, alike = ensemble(0.2, 0.5, 0.9), ensemble(0.5, 0.5, 0.5)
    before, expected = copy.deepcopy(alike.state_dict()), r"v_th: expected one value, which all members have in common"
    with pytest.raises(ValueError, match=rf"{expected}, got shape \(3,\); build the ensemble of members that have"):
        alike.load_state_dict(different.state_dict())
    with pytest.raises(ValueError, match=expected):
        alike.load_state_dict(different.state_dict(), assign=True)
    with pytest.raises(ValueError, match=expected):
        alike.stacked.p.v_th = torch.tensor([0.2, 0.5, 0.9])
    run = {"loss": lambda out, labels: out.mean(), "decode": lambda out: out[1].v, "progress": False}
    data = torch.utils.data.TensorDataset(torch.rand(4, 3), torch.zeros(4, dtype=torch.int64))

    def fit(model, epochs):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        return sp.fit(model, data, data, optimizer, epochs, checkpoint=tmp_path / "run.pt", **run)

    fit(different, 1)
    with pytest.raises(ValueError, match=expected):
        fit(alike, 2)
    assert unchanged(alike, before)
    alike.stacked.p.v_th = 0.7
    assert [alike.member(k).p.v_th.item() for k in range(3)] == pytest.approx([0.7] * 3)
    different.load_state_dict(alike.state_dict())
    assert [different.member(k).p.v_th.item() for k in range(3)] == pytest.approx([0.7] * 3)


# Onto other devices and into other types


@pytest.mark.parametrize("there", ["log", "decay", "fixed"])
@pytest.mark.parametrize("here", ["log", "softplus", "none", "fixed"])
def test_assigned_tensors_are_those_of_the_checkpoint(here, there):
    state, x = layer(there, dtype=F64).state_dict(), torch.rand(5, 2, 4, dtype=F64)
    with torch.device("meta"):
        empty = layer(here, factor=1.1)
    for target in (layer(here, factor=1.1), empty):
        learned = [name for name, _ in target.named_parameters()]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            target.load_state_dict(state, assign=True)
        assert {(t.dtype, t.device.type) for t in target.state_dict().values()} == {(F64, "cpu")}
        torch.testing.assert_close(target.p.tau_mem_inv.detach(), RATES.to(F64), rtol=1e-12, atol=0)
        assert [name for name, _ in target.named_parameters()] == learned
        name = "p.tau_syn_inv" if here != there else next(n for n in (KEY, "p.tau_mem_inv") if n in state)
        assert target.state_dict()[name].data_ptr() == state[name].data_ptr()
        spikes, last = target(x)
        assert spikes.dtype == F64
        last.v.sum().backward()
        assert all(parameter.grad is not None for parameter in target.parameters())


def test_one_value_per_neuron_is_assigned_to_a_fixed_one():
    with torch.device("meta"):
        target = sp.LIFRecurrent(4, 3, sp.LIFParameters(v_th=0.5))
    state = layer("log").state_dict()
    target.load_state_dict(state, assign=True)
    assert target.p.v_th.data_ptr() == state["p.v_th"].data_ptr()
    assert target(torch.rand(5, 2, 4))[0].shape == (5, 2, 3)


WITHOUT_MEMORY = {
    "numbers": lambda: {"tau_mem": 0.02, "v_th": 0.5},
    "learned numbers": lambda: {"tau_mem": sp.Learned(0.02), "v_th": sp.Learned(0.5, "softplus")},
    "decay": lambda: {"tau_mem": sp.Learned(0.02, "decay"), "v_th": sp.Learned(0.5, Interval(0.1, 1.0))},
    "no constraint": lambda: {"tau_mem": sp.Learned(0.02, "none"), "v_th": sp.Learned(0.5)},
    "drawn": lambda: {"tau_mem": log_normal(median=0.02, variation=0.3), "v_th": gamma(median=0.5, variation=0.3)},
    "learned and drawn": lambda: {
        "tau_mem": sp.Learned(uniform(mean=0.02, variation=0.3)),
        "v_th": sp.Learned(sp.distributions.TruncatedNormal(0.5, 0.1, 0.2, 0.9), Interval(0.1, 1.0)),
    },
    "shared": lambda: {"tau_mem": sp.Learned(log_normal(mean=0.02, variation=0.3), shared=True)},
    "tensors": lambda: {"tau_mem": torch.full((3,), 0.02), "v_th": sp.Learned(torch.full((3,), 0.5), "log")},
}


@pytest.mark.parametrize("how", ["context", "argument", "default device"])
@pytest.mark.parametrize("what", WITHOUT_MEMORY)
def test_built_on_the_meta_device_and_filled_later(what, how):
    def build(**options):
        return sp.LIFRecurrent(4, 3, sp.LIFParameters(**WITHOUT_MEMORY[what]()), **options)

    source = build()
    targets = []
    for _ in range(2):
        if how == "context":
            with torch.device("meta"):
                targets.append(build())
        elif how == "argument":
            targets.append(build(device="meta"))
        else:
            torch.set_default_device("meta")
            try:
                targets.append(build())
            finally:
                torch.set_default_device(None)
    for target, assign in zip(targets, (True, False), strict=True):
        assert {t.device.type for t in target.state_dict().values()} == {"meta"}
        assert "shape (" in repr(target)
        if not assign:
            target.to_empty(device="cpu")
        target.load_state_dict(saved(source), assign=assign)
        assert values(target) == values(source)
        x = 3 * torch.rand(8, 2, 4)
        assert torch.equal(target(x)[0], source(x)[0])


def test_built_under_a_default_device_that_is_the_cpu():
    torch.set_default_device("cpu")
    try:
        torch.manual_seed(3)
        one = sp.LIFRecurrent(4, 3, sp.LIFParameters(tau_mem=sp.Learned(log_normal(median=0.02, variation=0.3))))
    finally:
        torch.set_default_device(None)
    torch.manual_seed(3)
    other = sp.LIFRecurrent(4, 3, sp.LIFParameters(tau_mem=sp.Learned(log_normal(median=0.02, variation=0.3))))
    assert values(one) == values(other)


def test_invalid_numbers_are_refused_on_the_meta_device_as_well():
    with torch.device("meta"):
        with pytest.raises(ValueError, match="tau_mem_inv: expected positive values, got -5 1/s"):
            sp.LIFParameters(tau_mem_inv=-5.0)
        with pytest.raises(ValueError, match="tau_mem: expected positive, finite times in s, got 0"):
            sp.LIFParameters(tau_mem=0.0)
        with pytest.raises(ValueError, match="tau_mem: expected a distribution of values from"):
            sp.LIF(sp.LIFParameters(tau_mem=log_normal(median=2e-3, variation=1.0)), size=3)
        with pytest.raises(ValueError, match="v_th: expected values within the range of interval"):
            sp.LIF(sp.LIFParameters(v_th=sp.Learned(2.0, Interval(0.0, 1.0))), size=3)


# Of earlier versions


@pytest.mark.parametrize("name", [name for name, _ in layers()])
def test_files_of_earlier_versions_load(name):
    (target,) = (module for other, module in layers() if other == name)
    state = torch.load(FOLDER / f"{name}.pt", weights_only=True)
    report = target.load_state_dict(state)
    assert report == ([], [])
    assert all(torch.equal(target.state_dict()[key], value) for key, value in state.items())
    for key, value in values(target).items():
        torch.testing.assert_close(torch.tensor(value), torch.tensor(EXPECTED[name][key]), rtol=2e-6, atol=1e-7)


def test_values_of_earlier_versions_go_into_any_layer():
    for name in ("fixed", "parameter", "none_per_neuron"):
        for how in ("log", "softplus", "decay", "interval"):
            target = recurrent(how)
            target.load_state_dict(torch.load(FOLDER / f"{name}.pt", weights_only=True))
            expected = torch.tensor(EXPECTED[name]["p.tau_mem_inv"])
            torch.testing.assert_close(target.p.tau_mem_inv.detach(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("how", ["fixed", "none"])
def test_unconstrained_numbers_of_earlier_versions_are_not_taken_for_values(how):
    target, state = recurrent(how), torch.load(FOLDER / "softplus_per_neuron.pt", weights_only=True)
    before = copy.deepcopy(target.state_dict()["p.tau_mem_inv"])
    message = "p.tau_mem_inv: expected values, got a file of an earlier version, which has unconstrained numbers alone"
    with pytest.raises(RuntimeError, match=message):
        target.load_state_dict(state)
    assert torch.equal(target.state_dict()["p.tau_mem_inv"], before)
    with pytest.raises(RuntimeError, match=message):  # the file has a value: it is not one that is missing
        target.load_state_dict(state, strict=False)


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path):
    path = tmp_path / "fit.pt"
    path.write_bytes((FOLDER / "fit.pt").read_bytes())
    history = fit(Network(), path, 3)
    assert history.epochs == 3
    torch.testing.assert_close(history.test_losses[:2], EXPECTED["fit"]["losses"][:2], rtol=1e-6, atol=0)
    model = Network()
    model.load_state_dict(torch.load(FOLDER / "fit.pt", weights_only=True)["model"])
    for key, value in values(model).items():
        torch.testing.assert_close(torch.tensor(value), torch.tensor(EXPECTED["fit"][key]), rtol=2e-6, atol=1e-7)


# The state of an optimiser


def test_a_run_goes_on_bit_by_bit_and_not_under_another_constraint(tmp_path):
    def network(constraint):
        torch.manual_seed(2)
        return Network(sp.Learned(TAU.clone(), constraint))

    whole, halves = network("log"), network("log")
    expected = fit(whole, None, 4)
    fit(halves, tmp_path / "run.pt", 2)
    resumed = network("log")
    assert fit(resumed, tmp_path / "run.pt", 4).train_losses == expected.train_losses
    assert values(resumed) == values(whole)

    for constraint in ("decay", "none"):
        other = network(constraint)
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(ValueError, match=r"tau_mem_inv.*: expected the constraint, its range and .*, got others"):
            fit(other, tmp_path / "run.pt", 5)
        assert unchanged(other, before)


def test_values_near_zero_that_another_processor_rounded_are_those_of_their_interval(tmp_path):
    def network():
        torch.manual_seed(3)
        p = sp.LIParameters(v_leak=sp.Learned(1e-3 * torch.randn(50), Interval(-0.5, 0.5)))
        return sp.Sequential(sp.LI(p, size=50))

    def fit(model, epochs):
        data = torch.utils.data.TensorDataset(torch.rand(4, 3, 50), torch.zeros(4, dtype=torch.int64))
        more = {"loss": lambda out, labels: out[0].square().mean(), "checkpoint": tmp_path / "run.pt"}
        return sp.fit(model, data, data, torch.optim.SGD(model.parameters(), lr=1e-3), epochs, progress=False, **more)

    source = network()
    fit(source, 1)
    state = torch.load(tmp_path / "run.pt")
    key = next(name for name in state["model"] if name.endswith("p.v_leak"))
    stored = source.state_dict()[key.replace("v_leak", "parametrizations.v_leak.original")]
    state["model"][key] += 2**-24  # the last bit of a sigmoid just above 0.5
    torch.save(state, tmp_path / "run.pt")
    target = network()
    assert fit(target, 1).epochs == 1
    assert torch.equal(target.state_dict()[key.replace("v_leak", "parametrizations.v_leak.original")], stored)
    assert fit(network(), 2).epochs == 2


def test_a_run_does_not_go_on_with_another_time_step_or_gradient(tmp_path):
    def network(**changed):
        torch.manual_seed(2)
        found = Network(sp.Learned(TAU.clone(), "none"))
        layer = next(part for part in found.modules() if isinstance(part, sp.LIFRecurrent | sp.LIF))
        for name, value in changed.items():
            object.__setattr__(layer if name == "detach_reset" else layer.p, name, value)
        return found

    fit(network(), tmp_path / "run.pt", 2)
    fit(network(), tmp_path / "run.pt", 3)
    for changed in ({"dt": 5e-4}, {"detach_reset": False}, {"gradient": sp.Surrogate("super", 3.0)}):
        other = network(**changed)
        before = copy.deepcopy(other.state_dict())
        (name,) = changed
        with pytest.raises(ValueError, match=f"expected the settings of the checkpoint .*{name}=.* got .*{name}="):
            fit(other, tmp_path / "run.pt", 5)
        assert unchanged(other, before)
    other = network()
    layer = next(part for part in other.modules() if isinstance(part, sp.LIFRecurrent | sp.LIF))
    layer.p.__dict__["neuron"] = sp.neurons.SubtractiveLIF
    with pytest.raises(ValueError, match=r"settings of .*neuron=LIFParameters, .* got neuron=SubtractiveLIF, "):
        fit(other, tmp_path / "run.pt", 5)
    state = torch.load(tmp_path / "run.pt")
    del state["settings"]  # as an earlier version wrote it
    torch.save(state, tmp_path / "run.pt")
    fit(network(), tmp_path / "run.pt", 4)


@pytest.mark.parametrize("length", [0, 4, -1])
def test_a_file_that_ends_too_early_is_refused_by_name(length, tmp_path):
    torch.manual_seed(2)
    fit(Network(sp.Learned(TAU.clone(), "log")), tmp_path / "run.pt", 1)
    whole = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(whole[: len(whole) // 2 if length < 0 else length])
    with pytest.raises(ValueError, match=r"checkpoint: expected a file that fit has written, got .*, not readable"):
        fit(Network(sp.Learned(TAU.clone(), "log")), tmp_path / "run.pt", 2)


def test_declarations_of_the_fixtures_are_those_of_their_names():
    assert declared("fixed")["v_th"] == 0.7
    assert {type(v) for v in declared("decay").values()} == {sp.Learned}
