"""Networks that hand states along, against their parts called one by one."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import snnparams as sp
from snnparams.layers import states


def double_spikes(*shape, share=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator, dtype=torch.float64) < share).double()


def learned(size=None, **more):
    return sp.LIFParameters(tau_mem=sp.Learned(0.02, shared=size is None), v_th=0.3, alpha=5.0, **more)


def recurrent_network(seed=0):
    torch.manual_seed(seed)
    return sp.Sequential(
        sp.LIFRecurrent(5, 7, learned(7), dtype=torch.float64),
        nn.Linear(7, 6, dtype=torch.float64),
        nn.Dropout(0.0),
        sp.LIF(learned(6), size=6, dtype=torch.float64),
        nn.Linear(6, 3, dtype=torch.float64),
        sp.LI(dtype=torch.float64),
    )


def convolutional_network(seed=0):
    torch.manual_seed(seed)
    return sp.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        sp.LIF(learned(), size=(4, 1, 1)),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 3),
        sp.LI(),
    ).double()


def test_a_network_of_layers_is_its_parts_one_after_the_other():
    network, x = recurrent_network(), double_spikes(12, 4, 5)
    first, linear, _, second, readout, integrator = network
    z, first_state = first(x)
    z, second_state = second(linear(z))
    v, last_state = integrator(readout(z))
    voltages, state = network(x)
    assert torch.equal(voltages, v)
    assert len(state) == 6
    assert state[1] == state[2] == state[4] == ()
    for own, expected in ((state[0], first_state), (state[3], second_state), (state[5], last_state)):
        assert type(own) is type(expected)
        assert all(torch.equal(a, b) for a, b in zip(own, expected, strict=True))


@pytest.mark.parametrize("chunk", [1, 7, 25])
def test_chunks_are_the_whole_forward_and_backward(chunk):
    network, x = recurrent_network(), double_spikes(50, 4, 5)
    whole, last = network(x)
    whole.square().sum().backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    outputs, state = [], None
    for part in x.split(chunk):
        output, state = network(part, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)
    torch.cat(outputs).square().sum().backward()
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-9, atol=1e-11, msg=name)


def test_truncated_backpropagation_cuts_between_chunks():
    network, x = recurrent_network(), double_spikes(30, 4, 5)
    with torch.no_grad():
        _, middle = network(x[:15])
    network(x[15:], middle)[0].square().sum().backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    _, middle = network(x[:15])
    network(x[15:], states.detach(middle))[0].square().sum().backward()
    for name, p in network.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-12, atol=1e-12, msg=name)


def test_cells_compute_what_layers_do():
    network, x = recurrent_network(), double_spikes(12, 4, 5)
    cells = sp.Sequential(
        sp.LIFRecurrentCell(5, 7, learned(7), dtype=torch.float64),
        *(copy.deepcopy(network[k]) for k in (1, 2)),
        sp.LIFCell(learned(6), size=6, dtype=torch.float64),
        copy.deepcopy(network[4]),
        sp.LICell(dtype=torch.float64),
    )
    cells.load_state_dict(network.state_dict())
    expected, last = network(x)
    state = None
    for step, output in zip(x, expected, strict=True):
        voltages, state = cells(step, state)
        torch.testing.assert_close(voltages, output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)


def test_a_convolutional_network_sees_every_step():
    network, x = convolutional_network(), double_spikes(9, 4, 2, 6, 6)
    conv, norm, lif, pool, flatten, linear, li = copy.deepcopy(network)
    currents = torch.stack([conv(step) for step in x])
    mean, variance = (f(currents.transpose(0, 2).flatten(1)) for f in (lambda c: c.mean(1), lambda c: c.var(1)))
    biased = currents.transpose(0, 2).flatten(1).var(1, unbiased=False)
    shape = (4, 1, 1)
    currents = (currents - mean.view(shape)) / (biased.view(shape) + norm.eps).sqrt()
    z, _ = lif(currents)
    v, _ = li(torch.stack([linear(flatten(pool(step))) for step in z]))
    voltages, _ = network(x)
    torch.testing.assert_close(voltages, v, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network[1].running_var, 0.9 + 0.1 * variance)
    assert voltages.shape == (9, 4, 3)


def test_over_time_copies_nothing_and_takes_several_modules():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x

    x = torch.rand(5, 3, 2, 4, 4)
    lifted = sp.OverTime(Watch(), nn.Conv2d(2, 6, 3), nn.MaxPool2d(2))
    output = lifted(x)
    assert seen[0].data_ptr() == x.data_ptr()
    assert seen[0].shape == (15, 2, 4, 4)
    torch.testing.assert_close(output, torch.stack([lifted[2](lifted[1](step)) for step in x]))
    spikes = x > 0.5
    torch.testing.assert_close(sp.OverTime(lifted[1])(spikes), torch.stack([lifted[1](s.float()) for s in spikes]))


def test_a_module_of_ones_own_takes_part():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = sp.LIF(dtype=torch.float64)

        def forward(self, x, state=None):
            return self.layer(2 * x, state)

    x = double_spikes(20, 3, 4)
    voltages, state = sp.Sequential(Twice(), sp.Sequential(sp.LI(dtype=torch.float64)))(x)
    z, own = sp.LIF(dtype=torch.float64)(2 * x)
    torch.testing.assert_close(voltages, sp.LI(dtype=torch.float64)(z)[0])
    torch.testing.assert_close(state[0], own)
    assert type(state[1]) is tuple


def test_spikes_of_a_plain_sequential_and_boolean_ones():
    network = sp.Sequential(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten()), nn.Linear(64, 2), sp.LI())
    spikes = torch.rand(5, 3, 2, 6, 6) < 0.5
    expected, _ = network(spikes.float())
    for dtype in (torch.bool, torch.uint8):
        single = sp.Sequential(nn.Conv2d(2, 4, 3), *network[0][1:], *network[1:])
        single[0].load_state_dict(network[0][0].state_dict())
        torch.testing.assert_close(single(spikes.to(dtype))[0], expected)


@pytest.mark.parametrize("make", [recurrent_network, convolutional_network])
def test_an_initial_state_changes_nothing(make):
    network = make()
    x = double_spikes(6, 4, *((5,) if make is recurrent_network else (2, 6, 6)))
    before = copy.deepcopy(network.state_dict())
    random = torch.get_rng_state()
    begin = states.initial(network, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), network.state_dict().values(), strict=True))
    assert all(module.training for module in network.modules())
    network.eval()
    assert torch.equal(network(x, begin)[0], network(x)[0])


def test_an_ensemble_and_a_compiled_network_give_the_same_numbers():
    networks, x = [recurrent_network(seed) for seed in range(3)], double_spikes(8, 4, 5)
    for network in networks:
        network.eval()
    out, state = sp.Ensemble(networks)(x)
    for k, network in enumerate(networks):
        expected, last = network(x)
        torch.testing.assert_close(out[k], expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(torch.utils._pytree.tree_map(lambda s, k=k: s[k], state), last)
    compiled = torch.compile(networks[0], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], networks[0](x)[0])


def test_autocast():
    network = sp.Sequential(nn.Conv2d(2, 4, 3), sp.LIF(), nn.Flatten(), nn.Linear(64, 2), sp.LI())
    x = (torch.rand(5, 3, 2, 6, 6) < 0.5).float()
    with torch.autocast("cpu", torch.bfloat16):
        out, state = network(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, network(x)[0], rtol=0.1, atol=0.05)
    assert state[1].v.dtype == torch.float32


class Block(nn.Module):
    """Keeps a layer whose state it throws away."""

    def __init__(self):
        super().__init__()
        self.layer = sp.LIF()

    def forward(self, x):
        return self.layer(x)[0]


class Pair(nn.Module):
    def forward(self, x, state=None):
        return x


def test_bad_input():
    x = torch.rand(4, 3, 5)
    network = sp.Sequential(nn.Linear(5, 6), sp.LIF())
    for state, error, message in (
        ([], TypeError, "state: expected a tuple with the state of each module, or None, got list"),
        ((), ValueError, "state: expected 2 parts, one for each module, got 0"),
        ((torch.zeros(3), None), ValueError, r"expected \(\) for module 0 \(Linear\), which has none, got Tensor"),
    ):
        with pytest.raises(error, match=message):
            network(x, state)
    mixed = sp.Sequential(nn.Linear(5, 6), sp.LIFCell(), sp.LI())
    with pytest.raises(TypeError, match=r"expected either cells, for one step, or layers, .* got LIFCell and LI"):
        mixed(x)
    with pytest.raises(TypeError, match="got LIFCell and OverTime"):
        sp.Sequential(sp.OverTime(nn.Flatten()), sp.LIFCell())(x)
    for inside in (nn.Sequential(nn.Linear(5, 6), sp.LIF()), nn.Sequential(sp.LIF(), nn.Linear(5, 6))):
        for deeper in (inside, nn.Sequential(nn.ReLU(), nn.Sequential(inside))):
            with pytest.raises(TypeError, match=r"module 0 \(Sequential\): expected a Sequential of snnparams"):
                sp.Sequential(deeper, sp.LI())(x)
    with pytest.raises(TypeError, match=r"module 0 \(GRU\): expected a tensor, or an argument `state`.* got tuple"):
        sp.Sequential(nn.GRU(5, 6), sp.LIF())(x)
    with pytest.raises(TypeError, match=r"module 0 \(Pair\): expected it to return a tensor and its state, got Tensor"):
        sp.Sequential(Pair())(x)
    with pytest.raises(ValueError, match=r"input: expected a dense tensor of shape \(T, B, ...\) for module 0 \(Flat"):
        sp.Sequential(nn.Flatten(), sp.LIF())(torch.rand(4, 3))
    losing = sp.Sequential(Block(), sp.LI())
    _, state = losing(x)
    with pytest.raises(ValueError, match=r"module 0 \(Block\): expected an argument `state` of what holds a LIF"):
        losing(x, state)

    for step in (1e-3, 5e-4):
        sp.Sequential(sp.Delay(2e-3, size=5, dt=step), nn.Linear(5, 6), sp.LIF(dt=step), sp.OverTime(nn.Flatten()))
    with pytest.raises(ValueError, match=r"expected one time step dt, got 0\.0005 s of LIF and 0\.001 s of LI"):
        sp.Sequential(nn.Linear(5, 6), sp.LIF(dt=5e-4), nn.Sequential(nn.ReLU(), sp.LI()))

    for modules, message in (
        ((), "expected at least one, got none"),
        ((torch.relu,), "expected modules, got builtin_function_or_method"),
        ((sp.LIF(),), "expected modules that know no time, got LIF, which carries a state"),
        ((nn.Linear(5, 5), Block()), "expected modules that know no time, got Block"),
    ):
        with pytest.raises(TypeError, match=message):
            sp.OverTime(*modules)
    with pytest.raises(TypeError, match=r"input: expected a tensor of shape .*, got tuple"):
        sp.OverTime(nn.ReLU())((x, ()))
    with pytest.raises(ValueError, match=r"OverTime\(Unflatten\): expected it to return a tensor of shape \(12, ...\)"):
        sp.OverTime(nn.Unflatten(0, (2, 6)))(x)
    with pytest.raises(ValueError, match=r"expected a dense tensor .* got the layout torch.sparse_coo"):
        sp.OverTime(nn.ReLU())(x.to_sparse())


def test_a_dictionary_names_the_modules():
    network = sp.Sequential({"hidden": sp.LIF(size=3), "out": sp.LI()})
    assert [name for name, _ in network.named_children()] == ["hidden", "out"]


def test_states_of_all_kinds_are_saved_as_their_tensors(tmp_path):
    modules = {
        "a user's neuron": sp.Layer(sp.neurons.AdaptiveLIF(), size=4),
        "delays inside": sp.DelayedRecurrentLayer(4, 4, sp.LIFParameters(), delay=2e-3),
        "a network": sp.Sequential(sp.Delay(2e-3), sp.LIFRecurrent(4, 3), nn.Dropout(), nn.Linear(3, 2), sp.LI()),
    }
    x = (torch.rand(6, 2, 4) < 0.5).float()
    for name, module in modules.items():
        _, state = module.eval()(x)
        torch.save(sp.states.tensors(sp.states.detach(state)), tmp_path / "state.pt")
        tensors = torch.load(tmp_path / "state.pt", weights_only=True)
        again = sp.states.of_tensors(sp.states.initial(module, x), tensors)
        assert torch.equal(module(x, again)[0], module(x, state)[0]), name
        with pytest.raises(ValueError, match=f"tensors: expected {len(tensors)}, as in the given state, got 0"):
            sp.states.of_tensors(state, [])
    with pytest.raises(TypeError, match="state: expected tensors, or tuples of them, got int"):
        sp.states.of_tensors(state, [1])


def test_an_initial_state_behind_an_encoder_has_the_batch_of_the_images_and_draws_nothing():
    network, images = sp.Sequential(sp.PoissonEncoder(20), sp.LIFRecurrent(4, 3)), torch.rand(5, 4)
    before = torch.get_rng_state()
    begin = states.initial(network, images)
    assert torch.equal(torch.get_rng_state(), before)
    assert begin[1].z.shape == (5, 3)
    network(images, begin)


def test_an_initial_state_for_sparse_spikes_in_any_order():
    where = torch.tensor([[9, 0, 5, 0, 3], [0, 1, 0, 0, 1], [2, 0, 1, 1, 0]])
    spikes = torch.sparse_coo_tensor(where, torch.ones(5), (10, 2, 3), check_invariants=True)
    network = sp.Sequential(sp.LIFRecurrent(3, 4))
    begin = states.initial(network, spikes)
    torch.testing.assert_close(network(spikes, begin)[0], network(spikes)[0])


def test_what_is_done_to_states():
    state = recurrent_network()(double_spikes(6, 4, 5))[1]
    v = state[0].v
    assert v.requires_grad
    assert not states.detach(state)[0].v.requires_grad
    assert states.detach(None) is None  # before the first chunk
    assert states.to(state, dtype=torch.float32)[3].v.dtype == torch.float32
    assert states.to(state, "meta")[3].v.is_meta
    rows = torch.tensor([2, 0])
    for given in (rows, [2, 0]):
        assert torch.equal(states.select(state, given)[0].v, v[rows])
    ended = torch.tensor([True, False, False, True])
    assert torch.equal(states.select(state, ended)[5].v, state[5].v[ended])
    begin = states.initial(recurrent_network(), double_spikes(6, 4, 5))
    mixed = states.where(ended, begin, state)
    assert type(mixed[0]) is sp.LIFState
    assert mixed[1] == ()
    assert torch.equal(mixed[0].v, torch.where(ended[:, None], begin[0].v, v))
    for module, x in ((sp.LIFCell(), torch.rand(4, 5)), (sp.LIF(), torch.rand(6, 4, 5))):
        assert states.initial(module, x).v.shape == (4, 5)

    with pytest.raises(TypeError, match=r"model: expected a cell, a layer or a Sequential, .* got Linear"):
        states.initial(nn.Linear(2, 2), torch.rand(3, 2))
    with pytest.raises(TypeError, match="state: expected tensors, or tuples of them, got NoneType"):
        states.detach((None, state))
    with pytest.raises(TypeError, match="rows: expected several indices"):
        states.select(state, 1)
    with pytest.raises(IndexError):
        states.select(state, [4])
    with pytest.raises(TypeError, match=r"mask: expected a tensor of type bool and shape \(B,\), got torch.float32"):
        states.where(ended.float(), begin, state)
    with pytest.raises(ValueError, match="other: expected the structure of state"):
        states.where(ended, begin, state[:3])
    with pytest.raises(ValueError, match="a batch of 3, the length of the mask"):
        states.where(ended[:3], begin, state)


@pytest.fixture
def compiler():
    """The compiler, which what it could not compile here is not to reach elsewhere."""
    torch._dynamo.reset()
    yield torch.compile
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_network_names_its_container_too(compiler):
    network = sp.Sequential(nn.Sequential(nn.Sequential(sp.LIF(), nn.Linear(5, 6)), nn.ReLU()), sp.LI())
    with pytest.raises(TypeError, match=r"module 0 \(Sequential\): expected a Sequential of snnparams"):
        compiler(network, backend="eager")(torch.rand(4, 3, 5))
    with pytest.raises(TypeError, match=r"got tuple; is it the output and the state of a layer\? snnparams.Sequential"):
        compiler(nn.Sequential(sp.LIF(), sp.LI()), backend="eager")(torch.rand(4, 3, 5))


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("following", [nn.Linear(5, 2), nn.ReLU(), nn.Flatten()])
def test_a_container_of_pytorch_does_not_run_compiled_and_is_named_without_the_compiler(compiler, following):
    network = nn.Sequential(sp.LIF(), following)
    with pytest.raises(Exception):  # noqa: B017, PT011, PyTorch's own: a layer that is compiled has no frame to look at
        compiler(network, backend="eager")(torch.rand(4, 3, 5))
    kind = type(following).__name__
    with pytest.raises(TypeError, match=rf"LIF: expected snnparams\.Sequential as its container, .* give {kind} both"):
        network(torch.rand(4, 3, 5))


def test_a_container_of_ones_own_that_returns_a_tensor_may_be_in_it():
    class Hidden(sp.Sequential):
        def forward(self, x):
            return super().forward(x)[0]

    torch.manual_seed(0)
    x, hidden = torch.rand(4, 3, 5), Hidden(nn.Linear(5, 6), sp.LIF())
    out, state = sp.Sequential(hidden, sp.LI())(x)
    assert torch.equal(out, sp.LI()(hidden(x))[0])
    assert state[0] == ()


@pytest.mark.parametrize(
    "delay", [lambda: sp.Delay(torch.full((4,), 2e-3), size=4), lambda: sp.DelayedLinear(4, 4, 2e-3)]
)
def test_delays_take_sequences_and_no_cells_beside_them(delay):
    """A cell's input is one step, (B, I): a delay would read its batch as time."""
    for network in (
        sp.Sequential(delay(), sp.LIFCell(size=4)),
        sp.Sequential(sp.Sequential(delay()), sp.Sequential(sp.LIFCell(size=4))),
    ):
        with pytest.raises(TypeError, match=r"either cells, .* or layers, .* got LIFCell and Delay"):
            network(torch.zeros(5, 4))


def test_numbers_of_channels_are_applied_to_channels():
    slopes = torch.tensor([0.1, 0.5, 0.9])
    rectify = nn.PReLU(3)
    rectify.weight.data = slopes
    network = sp.Sequential(nn.Linear(4, 3), rectify, sp.LI())
    x = torch.randn(6, 3, 4)  # as many rows as channels, so that a wrong axis fits
    currents = network[0](x)
    expected, _ = network[2](torch.where(currents > 0, currents, slopes * currents))
    torch.testing.assert_close(network(x)[0], expected)
    one = sp.Sequential(nn.PReLU(), sp.LI())
    assert one(torch.randn(6, 3))[0].shape == (6, 3)  # without a batch


ENCODERS = (lambda dt: sp.ConstantCurrentLIFEncoder(9, dt=dt), lambda dt: sp.PoissonEncoder(9, dt=dt))


@pytest.mark.parametrize(
    "other", [*ENCODERS, lambda dt: sp.SpikeLatencyLIFEncoder(9, dt=dt), lambda dt: sp.DelayedLinear(4, 4, 5e-2, dt=dt)]
)
def test_all_that_counts_steps_has_one_step(other):
    network = sp.Sequential(other(2e-3), sp.LIF(dt=2e-3))
    message = r"modules: expected one time step dt, got 0.002 s of .* and 0.001 s of "
    for add in (
        lambda: sp.Sequential(*network, sp.LI()),
        lambda: network.append(sp.LI()),
        lambda: network.insert(1, sp.LI()),
        lambda: network.__setitem__(0, other(1e-3)),
        lambda: network.extend([sp.LI()]),
    ):
        with pytest.raises(ValueError, match=message):
            add()
        assert [part.dt for part in network] == [2e-3, 2e-3]
    sp.Sequential(*network, sp.LI(dt=0.1 * 3 * 1e-2 - 1e-3))  # but for rounding
    network[1] = sp.LI(dt=2e-3)
    network.append(sp.LI(dt=2e-3)).insert(1, nn.Identity())
    assert [type(part).__name__ for part in network][1:] == ["Identity", "LI", "LI"]
    alone = sp.Sequential(sp.LIF())
    alone[0] = sp.LIF(dt=4e-3)
    assert alone[0].dt == 4e-3
    with pytest.raises(TypeError):
        network.append("LI")


def test_a_slice_has_the_chunks_of_the_whole():
    network = sp.Sequential(sp.LIF(), sp.LI(), chunk=5)
    assert (network[:1].chunk, network[0].chunk) == (5, None)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_values_are_not_cut_into_chunks(encoder):
    values = torch.rand(6, 4)
    network = sp.Sequential(encoder(1e-3), sp.LIF(), chunk=3)
    with pytest.raises(ValueError, match=r"chunk=3: expected spikes \(T, B, ...\), got .*Encoder to make them"):
        network(values)
    network.chunk = None
    assert network(values)[0].shape == (9, 6, 4)


def test_the_state_before_sparse_spikes_is_that_before_dense_ones():
    network, x = sp.Sequential(sp.LIFRecurrent(4, 3), nn.Linear(3, 2), sp.LI()), (torch.rand(6, 5, 4) < 0.3).float()
    for given in (x.to_sparse(), (torch.zeros_like(x)).to_sparse()):
        for found, expected in zip(states.initial(network, given), states.initial(network, x), strict=True):
            assert len(found) == len(expected)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_rows_of_a_state():
    _, state = sp.LI()(torch.rand(4, 5, 3))
    for rows in ([1, 3], (1, 3), np.array([1, 3]), torch.tensor([1, 3]), range(1, 4, 2), slice(1, 4, 2)):
        assert torch.equal(states.select(state, rows).v, state.v[[1, 3]])
    for rows in (np.int64(2), 2, torch.tensor(2), np.array(2)):
        with pytest.raises(TypeError, match="rows: expected several indices"):
            states.select(state, rows)
