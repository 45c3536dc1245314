"""What may differ between the members of an ensemble, and what is refused by name."""

import copy
import functools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snnparams as sp

F64 = torch.float64


class Net(nn.Module):
    """A small network with a part of every kind."""

    def __init__(self, seed=0, tied=False, norm=True):
        super().__init__()
        torch.manual_seed(seed)
        p = {"tau_mem": sp.Learned(8e-3 + 2e-3 * seed), "v_reset": nn.Parameter(torch.zeros(4, dtype=F64))}
        # without a bias before a normalisation: its gradient, zero but for rounding, is noise that Adam enlarges
        self.first, self.second = (nn.Linear(4, 4, bias=bias, dtype=F64) for bias in (not norm, False))
        self.norm = nn.BatchNorm1d(4, dtype=F64) if norm else None
        self.hidden = sp.LIF(sp.LIFParameters(**p, v_th=0.3 + 0.1 * seed, alpha=5.0), size=4, dtype=F64)
        self.readout = sp.LI(sp.LIParameters(tau_mem=sp.Learned(15e-3)), size=4, dtype=F64)
        if tied:
            self.second.weight = self.first.weight
            self.readout.p.share("tau_mem_inv", self.hidden.p)

    def forward(self, x):
        currents = 5 * self.first(x)
        if self.norm is not None:
            currents = self.norm(currents.flatten(0, 1)).view_as(currents)
        return self.readout(self.second(self.hidden(currents)[0]))


def spikes(steps=8, batch=3):
    return (torch.rand(steps, batch, 4) < 0.5).to(F64)


def train(model, make_optimizer, inputs):
    optimizer = make_optimizer(model.parameters())
    for x in inputs:
        optimizer.zero_grad()
        voltages, state = model(x)
        (voltages.square().mean(dim=(-3, -2, -1)).sum() + (state.v - 1).square().sum()).backward()
        optimizer.step()


def assert_same(member, alone):
    """The member of an ensemble is what the same network is that was trained alone."""
    assert [name for name, _ in member.named_parameters()] == [name for name, _ in alone.named_parameters()]
    for (name, a), b in zip(member.named_parameters(), alone.parameters(), strict=True):
        assert a.requires_grad == b.requires_grad, name
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
    for module in (member, alone):
        module.state_dict()  # for which buffers of values under constraints are computed
    for (name, a), b in zip(member.named_buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
    assert [m.training for m in member.modules()] == [m.training for m in alone.modules()]


OPTIMIZERS = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1),
    "Adam": functools.partial(torch.optim.Adam, lr=0.02, weight_decay=0.1),
    "AdamW": functools.partial(torch.optim.AdamW, lr=0.02, weight_decay=0.5),
    "RMSprop": functools.partial(torch.optim.RMSprop, lr=0.01, momentum=0.5),
}


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    size=st.integers(1, 3),
    tied=st.booleans(),
    norm=st.sampled_from(["none", "training", "evaluation"]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    data=st.data(),
)
def test_members_train_as_they_would_alone_whatever_is_frozen_or_shared(seed, size, tied, norm, optimizer, data):
    members = [Net(k, tied, norm != "none") for k in range(size)]
    for member in members:
        if norm == "evaluation":
            member.norm.eval()
            member.norm.running_mean.normal_()
        for name, parameter in member.named_parameters():
            parameter.requires_grad_(name == "first.weight" or data.draw(st.booleans(), label=name))
    frozen = [{n: p.detach().clone() for n, p in m.named_parameters() if not p.requires_grad} for m in members]
    ensemble = sp.Ensemble(members)
    torch.manual_seed(seed)
    inputs = [spikes() for _ in range(4)]
    for model in (ensemble, *members):
        train(model, OPTIMIZERS[optimizer], inputs)
    for k, alone in enumerate(members):
        member = ensemble.member(k)
        assert_same(member, alone)
        for name, value in frozen[k].items():
            assert torch.equal(member.get_parameter(name), value), name
    out = ensemble(inputs[0])[0]
    for k, alone in enumerate(members):
        torch.testing.assert_close(out[k], alone(inputs[0])[0], rtol=1e-6, atol=1e-8)


def test_what_is_frozen_in_one_member_has_no_gradient_and_no_place_in_the_optimizer():
    members = [Net(k) for k in range(3)]
    members[1].hidden.p.raw("tau_mem_inv").requires_grad_(False)
    ensemble = sp.Ensemble(members)
    stored = ensemble.stacked.hidden.p.raw("tau_mem_inv")
    assert stored.shape == (2, 4)
    x = spikes()
    for model in (ensemble, *members):
        model(x)[1].v.sum().backward()
    for row, k in enumerate((0, 2)):
        torch.testing.assert_close(stored.grad[row], members[k].hidden.p.raw("tau_mem_inv").grad)
    assert [ensemble.member(k).hidden.p.raw("tau_mem_inv").requires_grad for k in range(3)] == [True, False, True]
    assert torch.equal(ensemble.member(-2).hidden.p.tau_mem, members[1].hidden.p.tau_mem)
    # what looks at learned neuron parameters sees those that are learned
    learned = [members[k].hidden.p.tau_mem_inv for k in (0, 2)]
    torch.testing.assert_close(sp.learned_values(ensemble)["stacked.hidden.p.tau_mem_inv"], torch.stack(learned))
    silent = sum(sp.zero_gradients(members[k])["hidden.p.tau_mem_inv"] for k in (0, 2))
    assert sp.zero_gradients(ensemble)["stacked.hidden.p.tau_mem_inv"] == silent
    groups = {group["name"]: group["params"] for group in sp.parameter_groups(ensemble, 1e-3, {"tau_mem_inv": 1e-2})}
    assert any(parameter is stored for parameter in groups["tau_mem"])
    assert sum(len(params) for params in groups.values()) == len(list(ensemble.parameters()))
    sp.validate_neuron_parameters(ensemble)


def test_all_frozen_is_frozen():
    members = [Net(k).requires_grad_(False) for k in range(2)]
    ensemble = sp.Ensemble(members)
    assert not any(p.requires_grad for p in ensemble.parameters())
    assert not any(p.requires_grad for p in ensemble.member(1).parameters())
    assert not ensemble(spikes())[0].requires_grad


def test_a_partly_frozen_ensemble_is_copied_converted_saved_and_trained_on(tmp_path):
    def build(frozen=1):
        members = [Net(k) for k in range(3)]
        members[frozen].hidden.requires_grad_(False)
        return sp.Ensemble(members)

    make, inputs = OPTIMIZERS["Adam"], [spikes() for _ in range(4)]
    whole, first = build(), build()
    train(first, make, inputs[:2])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    again = build()
    with torch.no_grad():
        for values in (*again.parameters(), *again.frozen.parameters()):
            values.add_(1)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for model in (first, again, copied := copy.deepcopy(first)):
        train(model, make, inputs[2:])
    for k in range(3):
        for model in (again, copied):
            assert_same(model.member(k), first.member(k))
    assert torch.equal(again.member(1).hidden.p.tau_mem, whole.member(1).hidden.p.tau_mem)
    single = copied.to(torch.float32)
    assert single(inputs[0].float())[0].dtype == torch.float32
    assert single.member(1).hidden.p.tau_mem.dtype == torch.float32
    before = copy.deepcopy(again.state_dict())
    with pytest.raises(ValueError, match=r"expected frozen members \[1\] in the state, got \[2\]"):
        again.load_state_dict(build(frozen=2).state_dict())
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())


def test_fixed_in_one_member_and_learned_in_the_other_is_refused_with_a_way_out():
    fixed, learned = sp.LIFParameters(tau_mem=10e-3), sp.LIFParameters(tau_mem=sp.Learned(10e-3))
    for pair in ((fixed, learned), (learned, fixed)):
        with pytest.raises(ValueError, match=r"parameter p.tau_mem_inv as .* learned \(log\).*; declare it as Learned"):
            sp.Ensemble([sp.LIF(p, size=3) for p in pair])
    other = sp.LIFParameters(tau_mem=sp.Learned(10e-3, "softplus"))
    with pytest.raises(ValueError, match=r"tau_mem_inv as .* 0, learned \(log\), got learned \(softplus\) in member 1"):
        sp.Ensemble([sp.LIF(p, size=3) for p in (learned, other)])
    narrow = sp.LIFParameters(v_th=sp.Learned(0.5, sp.constraints.Interval(0, 1)))
    wide = sp.LIFParameters(v_th=sp.Learned(0.5, sp.constraints.Interval(0, 1.0000001)))
    with pytest.raises(ValueError, match=r"expected p\.parametrizations\.v_th\.0\.bounds as in member 0"):
        sp.Ensemble([sp.LIF(p, size=3) for p in (narrow, wide)])


def test_each_module_has_its_own_mode():
    members = [Net(k) for k in range(2)]
    for member in members:
        member.norm.eval()
    ensemble = sp.Ensemble(members)
    assert ensemble.training
    assert not ensemble.stacked.norm.training
    assert not ensemble.member(0).norm.training

    def compare():
        x = spikes()
        out = ensemble(x)[0]
        for k, member in enumerate(members):
            torch.testing.assert_close(out[k], member(x)[0])
            assert_same(ensemble.member(k), member)

    compare()
    for change in (nn.Module.train, nn.Module.eval):
        for model in (ensemble, *members):
            change(model)
        compare()
    ensemble.stacked.norm.train()  # of one module alone
    for member in members:
        member.norm.train()
    compare()
    assert not ensemble.training
    assert not sp.Ensemble(members).training
    members[1].norm.eval()
    with pytest.raises(ValueError, match="mode of module 'norm' as in member 0, training, got evaluation in member 1"):
        sp.Ensemble(members)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_of_fresh_networks_are_those_of_each_member(momentum):
    def build(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum), nn.Linear(4, 2)).double()

    members = [build(0), build(1)]
    ensemble = sp.Ensemble(members)
    for _ in range(3):
        x = torch.randn(6, 3, dtype=F64)
        for model in (ensemble, *members):
            model(x)
    assert ensemble.stacked[1].running_mean.shape == (2, 4)
    for k, member in enumerate(members):
        assert int(ensemble.member(k)[1].num_batches_tracked) == 3
        assert_same(ensemble.member(k), member)


class Trace(nn.Module):
    """Replaces one buffer by another tensor, changes one in place, and counts."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.fc = nn.Linear(3, 2, dtype=F64)
        self.register_buffer("mean", torch.zeros(2, dtype=F64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("total", torch.zeros(2, dtype=F64))
        self.register_buffer("empty", None)

    def forward(self, x):
        y = self.fc(x)
        with torch.no_grad():
            self.mean = 0.5 * self.mean + y.mean(0)
            self.total += y.sum(0)
            self.calls += 1
        return y + self.mean


def test_buffers_that_a_forward_pass_changes_or_replaces():
    members = [Trace(0), Trace(1)]
    ensemble = sp.Ensemble(members)
    assert not any("calls" in name for name in ensemble.state_dict())
    for _ in range(3):
        x = torch.randn(4, 3, dtype=F64)
        out = ensemble(x)
        for k, member in enumerate(members):
            torch.testing.assert_close(out[k], member(x))
            assert_same(ensemble.member(k), member)
    assert ensemble.member(1).empty is None
    assert len(ensemble.state_dict()) == len(members[0].state_dict())


def test_buffers_that_modules_share_stay_one():
    class Shared(Trace):
        def __init__(self, seed=0):
            super().__init__(seed)
            self.other = nn.Module()
            self.other.register_buffer("total", self.total)

        def forward(self, x):
            return super().forward(x) + self.other.total

    members = [Shared(0), Shared(1)]
    ensemble, x = sp.Ensemble(members), torch.randn(4, 3, dtype=F64)
    torch.testing.assert_close(ensemble(x), torch.stack([member(x) for member in members]))
    alone = ensemble.member(0)
    assert alone.total is alone.other.total


def test_a_state_with_one_buffer_for_all_members_is_loaded():
    ensemble = sp.Ensemble([nn.BatchNorm1d(2) for _ in range(3)])
    state = ensemble.state_dict()
    state["stacked.running_mean"] = torch.tensor([1.0, 2.0])
    ensemble.load_state_dict(state)
    assert ensemble.stacked.running_mean.tolist() == [[1.0, 2.0]] * 3
    assert state["stacked.running_mean"].shape == (2,)


def test_tensors_that_are_one_in_some_members_only():
    with pytest.raises(ValueError, match=r"of second.weight as in member 0, that of first.weight, got its own in"):
        sp.Ensemble([Net(0, tied=True), Net(1)])
    with pytest.raises(ValueError, match=r"of second.weight as in member 0, its own, got that of first.weight in"):
        sp.Ensemble([Net(0), Net(1, tied=True)])


def test_tensors_of_two_members():
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    two.weight = one.weight
    with pytest.raises(ValueError, match="learned parameters of their own, got weight shared by members 0 and 1"):
        sp.Ensemble([one, two])
    with pytest.raises(ValueError, match="got weight shared by members 0 and 2"):
        sp.Ensemble([one, nn.Linear(3, 2), one])
    one.requires_grad_(False)
    two.requires_grad_(False)
    assert len(sp.Ensemble([one, two])) == 2  # nobody changes it


def test_one_memory_under_two_names_is_refused():
    def view():
        net = nn.Linear(3, 3)
        net.register_buffer("transposed", net.weight.detach().t())
        return net

    with pytest.raises(ValueError, match=r"memory of their own, got (weight and transposed|transposed and weight) of"):
        sp.Ensemble([view()])

    def listed(tensor):
        net = nn.Linear(3, 3)
        net.known = [tensor(net)]
        return net

    for tensor in (lambda net: net.weight, lambda net: net.weight.detach()[1:]):
        with pytest.raises(ValueError, match="weight to be used under this name only, got it in known of member 0"):
            sp.Ensemble([listed(tensor)])
    with pytest.raises(ValueError, match="is learned to be registered, got a tensor that requires a gradient in known"):
        sp.Ensemble([listed(lambda net: nn.Parameter(torch.ones(2)))])
    with pytest.raises(ValueError, match="used under this name only, got it in _flat_weights of member 0"):
        sp.Ensemble([nn.GRU(3, 3)])


class Plain(nn.Module):
    """Holds whatever it is given."""

    def __init__(self, **attributes):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.scale = lambda x, factor=2.0: factor * x
        self.again = self.forward  # refers to the module itself
        vars(self).update(attributes)

    def forward(self, x):
        return self.scale(self.fc(x))


class Activation:
    """An ordinary object without equality."""

    def __init__(self, slope, more=None):
        self.slope, self.more = slope, more

    def __call__(self, x):
        return self.slope * x


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class SaysEqual(Activation):
    """Its equality leaves out what changes numbers."""

    def __eq__(self, other):
        return True

    __hash__ = None


def linear(value):
    net = nn.Linear(2, 2).requires_grad_(False)
    nn.init.constant_(net.weight, value)
    nn.init.zeros_(net.bias)
    return net


def closure(value):
    return lambda x: value * x


DIFFERENT = {
    "number": (0.5, 0.25),
    "not a number": (0.5, float("nan")),
    "string": ("mean", "sum"),
    "truth": (True, False),
    "none": (None, 0.0),
    "tuple": ((1, 2), (1, 3)),
    "longer": ([1, 2], [1, 2, 3]),
    "dictionary": ({"a": [1, 2]}, {"a": [1, 3]}),
    "set": ({1, 2}, {1, 3}),
    "type": (1, 1.0),
    "dtype": (torch.float32, torch.float64),
    "class": (nn.ReLU, nn.Tanh),
    "builtin": (torch.exp, torch.tanh),
    "builtin of one name": (torch.exp, np.random.default_rng(0).random),
    "lambda": (lambda x: x, lambda x: 2 * x),
    "closure": (closure(1.0), closure(2.0)),
    "default": (lambda x, f=1.0: f * x, lambda x, f=2.0: f * x),
    "partial": (functools.partial(torch.clamp, min=0), functools.partial(torch.clamp, min=1)),
    "tensor": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])),
    "sparse tensor": (torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse()),
    "array": (np.array([1.0, 2.0]), np.array([1.0, 3.0])),
    "array of objects": (np.array([Activation(1.0)]), np.array([Activation(2.0)])),
    "object": (Activation(1.0), Activation(2.0)),
    "nested object": (Activation(1.0, [Activation(1.0)]), Activation(1.0, [Activation(2.0)])),
    "method": (Activation(1.0).__call__, Activation(2.0).__call__),
    "slots": (Slotted(1.0), Slotted(2.0)),
    "careless equality": (SaysEqual(1.0), SaysEqual(2.0)),
    "distribution": (torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, 2.0)),
    "random state": (np.random.default_rng(0), np.random.default_rng(1)),
    "generator of Python": (random.Random(0), random.Random(1)),
    "module in a list": ([linear(1.0)], [linear(2.0)]),
    "iterator": (iter(map(str, [1])), iter(map(str, [2]))),
}


@pytest.mark.parametrize("values", DIFFERENT.values(), ids=DIFFERENT)
def test_attributes_that_differ_are_refused_by_name_and_equal_ones_are_not(values):
    for name in ("gain", "_gain"):
        with pytest.raises(ValueError, match=rf"members: expected {name} as in member 0, .*, got .* in member 1"):
            sp.Ensemble([Plain(**{name: value}) for value in values])
    if not isinstance(values[0], map):
        sp.Ensemble([Plain(gain=value) for value in (values[0], copy.deepcopy(values[0]))])


def test_what_the_same_code_builds_is_alike():
    def build(seed):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        net = Plain(generator=generator, nothing=float("nan"), size=torch.Size([2]), inner=closure([Activation(1.0)]))
        net.register_forward_hook(lambda module, args, out: 2 * out)
        net.layers = [net.fc, net]
        return net

    members = [build(k) for k in range(3)]
    x = torch.randn(5, 3)
    torch.testing.assert_close(sp.Ensemble(members)(x), torch.stack([member(x) for member in members]))


def test_a_module_without_registration_has_to_be_equal_in_all():
    members = [Plain(layers=[linear(1.0)]) for _ in range(2)]
    assert len(sp.Ensemble(members)) == 2
    members[1].layers[0].eval()
    with pytest.raises(ValueError, match="expected layers as in member 0"):
        sp.Ensemble(members)


@pytest.mark.parametrize(
    "option", [{"detach_reset": True}, {"kernel": "reference"}, {"p": sp.LIFParameters(alpha=7.0)}]
)
def test_options_of_layers_that_differ_are_refused_by_name(option):
    name = "p.gradient" if "p" in option else next(iter(option))
    with pytest.raises(ValueError, match=rf"members: expected 0.{name} as in member 0, .*, got .* in member 2"):
        sp.Ensemble([nn.Sequential(sp.LIF(**o)) for o in ({}, {}, option)])


def test_autapses_that_differ_are_refused_by_name():
    with pytest.raises(ValueError, match="members: expected autapses as in member 0, False, got True in member 1"):
        sp.Ensemble([sp.LIFRecurrent(2, 3, autapses=autapses) for autapses in (False, True)])


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_hooks_of_one_member_are_refused(kind):
    members = [nn.Linear(2, 2) for _ in range(2)]
    getattr(members[1], f"register_{kind}")(lambda *args: None)
    name = kind.removeprefix("full_")
    with pytest.raises(ValueError, match=rf"members: expected _{name}s as in member 0, \[\], got .* in member 1"):
        sp.Ensemble(members)


def test_what_one_member_lacks_is_refused():
    with pytest.raises(ValueError, match=r"expected bias as in member 0, a parameter \(2,\).*, got none in member 1"):
        sp.Ensemble([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)])
    x = torch.randn(3, 2)
    members = [nn.Linear(2, 2, bias=False) for _ in range(2)]
    torch.testing.assert_close(sp.Ensemble(members)(x), torch.stack([member(x) for member in members]))
    for value in (1, None, "none"):
        members[1].extra = value
        with pytest.raises(ValueError, match=f"expected extra as in member 0, none, got {value} in member 1"):
            sp.Ensemble(members)
    with pytest.raises(ValueError, match=r"expected weight as in member 0, .*float32.* got .*float64.* in member 1"):
        sp.Ensemble([nn.Linear(2, 2), nn.Linear(2, 2).double()])
    with pytest.raises(TypeError, match="members: expected modules, got str as member 1"):
        sp.Ensemble([nn.Linear(2, 2), "linear"])


def test_members_without_values_of_their_own():
    x = torch.randn(6, 2, 3)
    ensemble = sp.Ensemble([sp.LIF(), sp.LIF()])
    out, state = ensemble(x)
    expected, last = sp.LIF()(x)
    for k in range(2):
        assert torch.equal(out[k], expected)
        assert torch.equal(state.v[k], last.v)
    out[0] = 7.0  # the outputs of members are independent
    assert torch.equal(out[1], expected)
    assert torch.equal(sp.Ensemble([nn.ReLU()])(x)[0], x.relu())
    assert sp.Ensemble([nn.Identity(), nn.Identity()])(x).shape == (2, 6, 2, 3)


def test_random_numbers_are_refused_with_what_to_do():
    members = [nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)) for _ in range(2)]
    ensemble, x = sp.Ensemble(members), torch.randn(4, 3)
    with pytest.raises(RuntimeError, match=r"no random numbers, .*\(stacked.1 in training mode\); call .eval\(\)"):
        ensemble(x)
    ensemble.stacked[1].eval()
    torch.testing.assert_close(ensemble(x), torch.stack([member[0](x) for member in members]))
    noisy = Plain(scale=lambda y: y + torch.rand_like(y))
    with pytest.raises(RuntimeError, match="expected a forward pass that draws no random numbers, got one that does; "):
        sp.Ensemble([noisy])(x)


class Keeps(nn.Module):
    """Keeps its output somewhere."""

    def __init__(self, place):
        super().__init__()
        self.fc, self.place = nn.Linear(3, 2), place
        self.register_buffer("buffer", None)

    def forward(self, x):
        y = self.fc(x)
        if self.place == "attribute":
            self.kept = {"last": [y]}
        elif self.place == "buffer":
            self.buffer = y
        elif self.place == "fc.weight":
            self.fc.weight = nn.Parameter(self.fc.weight + 1)
        else:
            with torch.no_grad():
                self.fc.bias.mul_(0.5)
        return y


@pytest.mark.parametrize(("place", "name"), [("attribute", "kept"), ("buffer", "buffer"), ("fc.weight", "fc.weight")])
def test_a_forward_pass_that_keeps_a_tensor_is_refused_by_name(place, name):
    ensemble = sp.Ensemble([Keeps(place), Keeps(place)])
    with pytest.raises(RuntimeError, match=f"keeps tensors in buffers only, got one in {name}; return it, or register"):
        ensemble(torch.randn(4, 3))


def test_a_forward_pass_that_changes_parameters_in_place():
    members = [Keeps("fc.bias"), Keeps("fc.bias")]
    ensemble, x = sp.Ensemble(members), torch.randn(4, 3)
    ensemble(x)
    for k, member in enumerate(members):
        member(x)
        assert_same(ensemble.member(k), member)
    members[0].fc.bias.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"keeps tensors in buffers only, got one in fc\.bias"):
        sp.Ensemble(members)(x)


def test_nested_containers_and_outputs():
    class Nested(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.parts = nn.ModuleDict({"in": nn.ModuleList([nn.Linear(4, 4, dtype=F64)])})
            self.weights = nn.ParameterList([nn.Parameter(torch.randn(4, dtype=F64))])
            self.cell = sp.LIF(sp.LIFParameters(v_th=0.2, tau_mem=sp.Learned(10e-3)), size=4, dtype=F64)

        def forward(self, x, state=None):
            z, state = self.cell(self.parts["in"][0](x) * self.weights[0], state)
            return {"spikes": z, "more": [state, z.mean(dim=0)]}

    members, x = [Nested(k) for k in range(2)], spikes()
    ensemble = sp.Ensemble(members)
    out = ensemble(x)
    for k, member in enumerate(members):
        alone = member(x)
        assert torch.equal(out["spikes"][k], alone["spikes"])
        assert type(out["more"][0]) is type(alone["more"][0])
        for a, b in zip(out["more"][0], alone["more"][0], strict=True):
            torch.testing.assert_close(a[k], b)


def frozen_ensemble(constraint, dt=1e-3, tau_mem=0.02):
    """Three members, of which the second does not learn its time constants."""
    members = []
    for k in range(3):
        tau = sp.Learned(torch.tensor([1.0, 1.1, 1.2]) * (tau_mem + 1e-3 * k), constraint)
        members.append(sp.LI(sp.LIParameters(tau_mem=tau), dt=dt, size=3))
    members[1].requires_grad_(False)
    return sp.Ensemble(members)


@pytest.mark.parametrize("there", ["none", "log", "softplus", "decay"])
@pytest.mark.parametrize("here", ["none", "log", "softplus", "decay"])
def test_frozen_values_keep_their_meaning_under_another_constraint_and_time_step(here, there):
    source, target = frozen_ensemble(there), frozen_ensemble(here, dt=5e-4, tau_mem=0.03)
    report = target.load_state_dict(source.state_dict())
    assert report == ([], [])
    for k in range(3):
        torch.testing.assert_close(target.member(k).p.tau_mem, source.member(k).p.tau_mem)
    again = frozen_ensemble(here, dt=5e-4)
    again.load_state_dict(target.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.frozen.buffers(), target.frozen.buffers(), strict=True))


def test_frozen_values_that_are_invalid_are_refused():
    state, target = frozen_ensemble("none").state_dict(), frozen_ensemble("none")
    key = "frozen.stacked/p/tau_mem_inv.values"
    with pytest.raises(ValueError, match=r"tau_mem: expected positive values, got -0\.2 s"):
        target.load_state_dict(state | {key: torch.full((1, 3), -5.0)})
    with pytest.raises(ValueError, match=r"tau_mem: expected dt / tau_mem < 1"):
        frozen_ensemble("log", dt=4e-3).load_state_dict(frozen_ensemble("none", tau_mem=1.5e-3).state_dict())


class Scaled(nn.Module):
    """A user's constraint with a number of its own, that uses all neurons of a population."""

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x):
        return self.scale * x / x.mean()

    def right_inverse(self, value):
        return value / self.scale


def test_a_users_constraint_is_that_of_each_member_in_a_checkpoint():
    def build(scales=(50.0, 80.0, 110.0)):
        shape = torch.tensor([0.5, 1.0, 1.5])
        members = [sp.LI(sp.LIParameters(tau_mem_inv=sp.Learned(s * shape, Scaled(s))), size=3) for s in scales]
        members[1].requires_grad_(False)
        return sp.Ensemble(members)

    source, target = build(), build((60.0, 90.0, 100.0))
    state = source.state_dict()
    expected = torch.tensor([[25.0, 50.0, 75.0], [55.0, 110.0, 165.0]])
    torch.testing.assert_close(state["stacked.p.tau_mem_inv"], expected)
    target.load_state_dict(state)
    for k in range(3):
        torch.testing.assert_close(target.member(k).p.tau_mem_inv, source.member(k).p.tau_mem_inv)


def test_what_is_declared_anew_is_refused_in_an_ensemble():
    ensemble = sp.Ensemble([sp.LI(sp.LIParameters(tau_mem=sp.Learned(0.02)), size=2) for _ in range(2)])
    p = ensemble.stacked.p
    for value in (sp.Learned(0.1), sp.Fixed(0.1), torch.distributions.Uniform(0.1, 0.2), nn.Parameter(torch.ones(2))):
        with pytest.raises(ValueError, match=r"v_leak: expected a number or values .*; build the members anew"):
            p.v_leak = value
    p.tau_mem = 0.03
    torch.testing.assert_close(ensemble.member(1).p.tau_mem, torch.full((2,), 0.03))
    alone = ensemble.member(0)
    alone.p.v_leak = sp.Learned(0.1)
    assert isinstance(alone.p.v_leak, nn.Parameter)


def test_hooks_of_parameters_are_refused_by_name():
    for register in (nn.Parameter.register_hook, nn.Parameter.register_post_accumulate_grad_hook):
        members = [nn.Linear(2, 2) for _ in range(2)]
        handle = register(members[1].weight, lambda gradient: None)
        with pytest.raises(ValueError, match=r"parameters without hooks.* got one on weight of member 1"):
            sp.Ensemble(members)
        handle.remove()
        assert len(sp.Ensemble(members)) == 2
