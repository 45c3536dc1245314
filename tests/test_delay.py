"""Delays: what arrives when, exactly differentiated, in pieces as at once, and what their gradient can learn."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

import snnparams as sp

DT = 1e-3  # s


pytestmark = pytest.mark.usefixtures("double_in_one_thread")


def arriving(x, delay):
    """Return what arrives of x (T, B, I) after delays (I,) in s, spike by spike."""
    late = torch.zeros_like(x)
    for step, neuron in itertools.product(range(len(x)), range(x.shape[2])):
        time = step + delay[neuron].item() / DT
        whole = math.floor(time)
        for arrives, share in ((whole, 1 - (time - whole)), (whole + 1, time - whole)):
            if arrives < len(x):
                late[arrives, :, neuron] += share * x[step, :, neuron]
    return late


def spikes(*shape, rate=0.2):
    return (torch.rand(shape) < rate).double()


def learned(shape, low=0.0, high=8e-3):
    """Return delays of no whole number of steps, so that finite differences meet no bend."""
    steps = torch.randint(round(low / DT), round(high / DT), shape if isinstance(shape, tuple) else (shape,))
    return DT * (steps + 0.1 + 0.8 * torch.rand(steps.shape))


def modules():
    """Return one module of each kind with learned delays, for input of 5 neurons."""
    p = sp.LIFParameters(v_th=0.3, tau_mem=sp.Learned(torch.linspace(5e-3, 20e-3, 6)))
    weights = {"input_weights": torch.randn(6, 5), "recurrent_weights": 0.5 * torch.randn(6, 6), "autapses": True}
    weights["gradient"] = sp.Surrogate("tanh", 4.0)
    return {
        "axonal": sp.Delay(sp.Learned(learned(5)), max_delay=8e-3, size=5),
        "synaptic": sp.DelayedLinear(5, 6, sp.Learned(learned((6, 5))), max_delay=8e-3, bias=True),
        "recurrent": sp.DelayedRecurrentLayer(
            5, 6, p, delay=sp.Learned(learned(6, low=2 * DT)), max_delay=8e-3, **weights
        ),
        "recurrent, per synapse": sp.DelayedRecurrentLayer(
            5, 6, p, delay=sp.Learned(learned((6, 6), low=DT)), max_delay=8e-3, per_synapse=True, **weights
        ),
    }


KINDS = ("axonal", "synaptic", "recurrent", "recurrent, per synapse")


# --------------------------------------------------------------------------------------------- what arrives when


def test_each_neuron_has_a_delay_of_its_own():
    x, delay = torch.randn(30, 2, 5), learned(5)
    delay[0], delay[1] = 0.0, 3e-3
    late, _ = sp.Delay(delay)(x)
    torch.testing.assert_close(late, arriving(x, delay), rtol=0, atol=1e-12)
    assert torch.equal(late[:, :, 0], x[:, :, 0])
    assert torch.equal(late[3:, :, 1], x[:-3, :, 1])


def test_populations_of_several_axes_and_one_delay_for_all():
    x, delay = torch.randn(20, 2, 3, 4), learned((3, 4))
    late, _ = sp.Delay(delay, size=(3, 4))(x)
    expected = arriving(x.flatten(2), delay.flatten()).view_as(x)
    torch.testing.assert_close(late, expected, rtol=0, atol=1e-12)
    late, _ = sp.Delay(2.5e-3)(x)
    expected = arriving(x.flatten(2), torch.full((12,), 2.5e-3)).view_as(x)
    torch.testing.assert_close(late, expected, rtol=0, atol=1e-12)


def test_each_synapse_has_a_delay_of_its_own():
    x, delay = torch.randn(30, 2, 5), learned((3, 5))
    module = sp.DelayedLinear(5, 3, delay, bias=True)
    expected = [arriving(x, delay[k]) @ module.weight[k] + module.bias[k] for k in range(3)]
    torch.testing.assert_close(module(x)[0], torch.stack(expected, dim=-1), rtol=0, atol=1e-12)
    alike = sp.DelayedLinear(5, 3, delay[0].expand(3, 5))
    alike.weight = module.weight
    torch.testing.assert_close(alike(x)[0], sp.Delay(delay[0])(x)[0] @ module.weight.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dt", [1e-3, 3e-4])
def test_whole_numbers_of_steps_leave_spikes_zeros_and_ones(dtype, dt):
    x, steps = spikes(150, 2, 100).to(dtype), torch.arange(100)
    late, _ = sp.Delay(dt * steps.to(dtype), dt=dt, dtype=dtype)(x)
    expected = torch.zeros_like(x)
    for k in steps.tolist():
        expected[k:, :, k] = x[: 150 - k, :, k]
    assert torch.equal(late, expected)


@pytest.mark.parametrize("per_synapse", [False, True])
@pytest.mark.parametrize("shortest", [1, 4])
def test_recurrent_spikes_arrive_after_their_delay(per_synapse, shortest):
    """Every step by itself, with all spikes of before, against the layer, which takes the shortest delay at once."""
    x, shape = spikes(40, 3, 5), (6, 6) if per_synapse else (6,)
    delay = learned(shape, low=shortest * DT, high=9 * DT)
    weights = {"input_weights": torch.randn(6, 5), "recurrent_weights": 0.5 * torch.randn(6, 6)}
    layer = sp.DelayedRecurrentLayer(
        5, 6, sp.LIFParameters(v_th=0.3), delay=delay, per_synapse=per_synapse, autapses=True, **weights
    )
    z, state = layer(x)
    outputs, neurons = torch.zeros(40, 3, 6), sp.LIFFeedForwardState(torch.zeros(3, 6), torch.zeros(3, 6))
    for t in range(40):
        current = x[t] @ weights["input_weights"].T
        for j, i in itertools.product(range(6), range(6)):
            steps = delay.expand(6, 6)[j, i].item() / DT
            k, f = math.floor(steps), steps - math.floor(steps)
            for back, share in ((k, 1 - f), (k + 1, f)):
                if t >= back:
                    current[:, j] += weights["recurrent_weights"][j, i] * share * outputs[t - back, :, i]
        outputs[t], neurons = sp.lif_feed_forward_step(current, neurons, layer.p, dt=DT)
    assert 0.05 < z.mean() < 0.9
    assert torch.equal(z, outputs)
    torch.testing.assert_close(state.neurons.v, neurons.v, rtol=1e-10, atol=1e-12)


def test_recurrent_spikes_after_one_step_are_those_of_a_recurrent_layer():
    x, p = spikes(40, 3, 5), sp.LIFParameters(v_th=sp.Learned(0.3))
    weights = {"input_weights": torch.randn(6, 5), "recurrent_weights": 0.5 * torch.randn(6, 6), "autapses": True}
    weights["gradient"] = sp.Surrogate("tanh", 4.0)
    layers = sp.LIFRecurrent(5, 6, p, **weights), sp.DelayedRecurrentLayer(5, 6, p, delay=DT, **weights)
    grad, found = torch.randn(40, 3, 6), []
    for layer in layers:
        z, _ = layer(x)
        (grad * z).sum().backward()
        found.append([z, *(q.grad for q in layer.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][0].sum() > 20
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["recurrent", "recurrent, per synapse"])
def test_kernels_and_reference_agree(kind):
    module, x, found = modules()[kind], spikes(50, 3, 5), []
    for kernel in ("cpu", "reference"):
        layer = copy.deepcopy(module)
        layer.kernel = kernel
        z, state = layer(x)
        (z * torch.linspace(-1, 1, 50)[:, None, None]).sum().backward()
        found.append([z, state.z, state.neurons.v, *(q.grad for q in layer.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][0].sum() > 20
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


# -------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("kind", ["axonal", "synaptic", "recurrent", "recurrent, per synapse"])
def test_gradients_are_central_differences(kind):
    if kind.startswith("recurrent"):  # without spikes, so that there is a derivative
        shape = (6, 6) if "synapse" in kind else (6,)
        module = sp.DelayedRecurrentLayer(
            5,
            6,
            sp.LIParameters(tau_mem=5e-3),
            delay=nn.Parameter(learned(shape, low=DT)),
            max_delay=9e-3,
            per_synapse="synapse" in kind,
            recurrent_weights=0.5 * torch.randn(6, 6),
            autapses=True,
        )
    elif kind == "axonal":
        module = sp.Delay(nn.Parameter(learned(5)), max_delay=9e-3)
    else:
        module = sp.DelayedLinear(5, 6, nn.Parameter(learned((6, 5))), max_delay=9e-3, bias=True)
    x = torch.randn(25, 2, 5, requires_grad=True)
    weights = torch.randn(25, 2, 5 if kind == "axonal" else 6)

    def loss():
        y, state = module(x)
        last = state.z if kind.startswith("recurrent") else state.x
        return (weights * y.sin()).sum() + last.square().sum()

    loss().backward()
    for tensor in (x, *module.parameters()):
        step = 1e-7 if tensor.abs().max() < 1e-2 else 1e-5  # of delays, in s
        flat = tensor.detach().view(-1)
        for k in range(0, len(flat), 1 + len(flat) // 20):
            kept, results = flat[k].item(), []
            for sign in (1, -1):
                flat[k] = kept + sign * step
                results.append(loss().item())
            flat[k] = kept
            slope = (results[0] - results[1]) / (2 * step)
            scale = tensor.grad.abs().max().item()
            assert tensor.grad.view(-1)[k].item() == pytest.approx(slope, rel=1e-6, abs=1e-6 * scale)


def test_at_a_whole_number_of_steps_the_derivative_is_that_to_the_right():
    delay = nn.Parameter(torch.tensor([3e-3]))
    x = torch.zeros(10, 1, 1)
    x[2] = 1.0
    late, _ = sp.Delay(delay, max_delay=5e-3)(x)
    late[6, 0, 0].backward()
    assert delay.grad.item() == pytest.approx(1 / DT)
    assert late[6].item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_are_the_whole(kind):
    module, x, results = modules()[kind], spikes(60, 2, 5).requires_grad_(), []
    grad = torch.randn(60, 2, 5 if kind == "axonal" else 6)
    for length in (60, 1, 7, 25):
        state, parts = None, []
        for part in x.split(length):
            y, state = module(part, state)
            parts.append(y)
        y = torch.cat(parts)
        last = state[0]
        gradients = torch.autograd.grad((grad * y).sum() + last.sin().sum(), [x, *module.parameters()])
        results.append([y, last, *gradients])
    assert results[0][0].abs().sum() > 10
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_states_and_inputs_without_a_batch(kind):
    module, x = modules()[kind], spikes(20, 3, 5)
    y, state = module(x, None, [20, 7, 13])
    for row, length in enumerate((20, 7, 13)):
        alone, last = module(x[:length, row])
        torch.testing.assert_close(y[:length, row], alone, rtol=1e-9, atol=1e-10)
        assert y[length:, row].abs().sum() == 0
        for got, expected in zip(sp.states.select(state, slice(row, row + 1))[:1], last[:1], strict=True):
            torch.testing.assert_close(got[0], expected, rtol=1e-9, atol=1e-10)
    first = sp.states.initial(module, x)
    whole, last = module(x, first)
    torch.testing.assert_close(whole, module(x)[0], rtol=0, atol=0)
    continued, _ = module(x, last)
    model = sp.Sequential(module)
    out, states = model(x)
    assert torch.equal(out, whole)
    torch.testing.assert_close(model(x, states)[0], continued, rtol=0, atol=0)


def test_state_and_output_have_memory_of_their_own():
    x = spikes(20, 2, 5)
    module = sp.Delay(2e-3)
    before, state = module(x)
    expected, kept = before.clone(), state.x.clone()
    x.zero_()
    before.zero_()
    assert torch.equal(state.x, kept)
    assert expected.sum() > 0


# ----------------------------------------------------------------------------------------------- sparse and dense


@pytest.mark.parametrize("length", [40, 9, 1])
def test_sparse_spikes_stay_sparse_and_are_the_same(length):
    x, delay = spikes(40, 3, 6), learned(6)
    delay[0], delay[1] = 0.0, 2e-3
    module = sp.Delay(delay)
    dense, last = module(x)
    state, parts = None, []
    for part in x.split(length):
        late, state = module(part.to_sparse(), state)
        assert late.layout == torch.sparse_coo
        assert late.is_coalesced()
        parts.append(late.to_dense())
    torch.testing.assert_close(torch.cat(parts), dense, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.x, last.x, rtol=0, atol=0)
    layer = sp.LIFRecurrent(6, 8, sp.LIFParameters(v_th=0.3))
    assert torch.equal(layer(module(x.to_sparse())[0])[0], layer(dense)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_spikes_and_learned_delays(kind):
    module, x, found = modules()[kind], spikes(30, 2, 5), []
    for given in (x, x.to_sparse()):
        y, _ = module(given)
        gradients = torch.autograd.grad(y.square().sum() + (y * torch.randn(y.shape)).sum() * 0, module.parameters())
        found.append([y, *gradients])
    for dense, sparse in zip(*found, strict=True):
        torch.testing.assert_close(dense, sparse, rtol=1e-9, atol=1e-10)


# ------------------------------------------------------------------------------------ declared, kept, saved, loaded


def test_the_gradient_of_sparse_spikes_is_that_of_dense_ones():
    module, x = sp.Delay(learned(5)), spikes(20, 3, 5)
    weights, found = torch.randn(20, 3, 5), []
    for given in (x, x.to_sparse()):
        late, _ = module(given.requires_grad_())
        (gradient,) = torch.autograd.grad((weights * late).sum(), given)
        found.append(gradient.to_dense() * (x > 0))
    assert found[0].any()
    torch.testing.assert_close(*found)


def test_declarations():
    drawn = sp.Delay(sp.distributions.uniform(mean=5e-3, variation=0.5), size=50).p
    assert drawn.delay.shape == (50,)
    assert drawn.delay.std() > 1e-3
    assert not list(drawn.parameters())
    shared = sp.Delay(sp.Learned(4e-3, shared=True), max_delay=8e-3)
    assert shared.p.delay.shape == ()
    of_interval = sp.Delay(sp.Learned(4e-3, sp.constraints.Interval(1e-3, 6e-3)), size=3)
    assert of_interval.max_delay == 6e-3
    assert of_interval.p.delay.shape == (3,)
    given = nn.Parameter(torch.full((3,), 4e-3))
    assert sp.Delay(given, max_delay=8e-3).p.raw("delay") is given
    assert "max_delay=0.008" in repr(shared)
    assert "delay=0.004 s (learned, shared, interval 0 to 0.008)" in repr(shared)
    synaptic = sp.DelayedLinear(7, 4, sp.Learned(sp.distributions.uniform(mean=5e-3, variation=0.3)), max_delay=0.02)
    assert synaptic.p.delay.shape == synaptic.weight.shape == (4, 7)
    assert synaptic.bias is None


def test_no_step_of_an_optimiser_leaves_the_range():
    module, x = sp.Delay(sp.Learned(4e-3), max_delay=8e-3, size=5), spikes(30, 2, 5)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e6)
    for sign in (1, -1, -1, 1):
        optimizer.zero_grad()
        (sign * torch.arange(30.0)[:, None, None] * module(x)[0]).sum().backward()
        optimizer.step()
        assert ((module.p.delay >= 0) & (module.p.delay <= 8e-3)).all()
        module(x)
    assert module.p.raw("delay").grad.abs().min() > 0


def test_groups_values_and_checkpoints_know_delays():
    model = nn.ModuleDict({name.replace(",", ""): module for name, module in modules().items()})
    groups = {group["name"]: group for group in sp.parameter_groups(model, 1e-3, {"delay": 1e-1})}
    assert len(groups["delay"]["params"]) == 4
    assert groups["delay"]["lr"] == 1e-1
    assert len(groups["weights"]["params"]) == 6
    values = sp.learned_values(model)
    assert torch.equal(values["axonal.p.delay"], model["axonal"].p.delay)
    assert "recurrent.delays.delay" in values
    other = nn.ModuleDict({name.replace(",", ""): module for name, module in modules().items()})
    assert not torch.equal(other["axonal"].p.delay, model["axonal"].p.delay)
    other.load_state_dict(model.state_dict())
    for name, value in sp.learned_values(other).items():
        assert torch.equal(value, values[name])
    # the values count where the room is another
    wide = sp.Delay(sp.Learned(5e-3), max_delay=50e-3, size=5)
    wide.load_state_dict(model["axonal"].state_dict())
    torch.testing.assert_close(wide.p.delay, model["axonal"].p.delay)
    fixed = sp.Delay(0.0, max_delay=8e-3, size=5)
    fixed.load_state_dict(model["axonal"].state_dict())
    torch.testing.assert_close(fixed.p.delay, model["axonal"].p.delay.detach())


def test_values_are_assigned_as_those_of_neurons():
    module = sp.Delay(sp.Learned(4e-3), max_delay=8e-3, size=3)
    module.p.delay = torch.tensor([1e-3, 2.5e-3, 7e-3])
    torch.testing.assert_close(module.p.delay.detach(), torch.tensor([1e-3, 2.5e-3, 7e-3]))
    module.p.delay = sp.Learned(3e-3)
    assert repr(module.p.constraint("delay")) == "interval 0 to 0.008"
    with pytest.raises(ValueError, match=r"delay: expected values below 0\.008 s, got 0\.009 s"):
        module.p.delay = 9e-3
    torch.testing.assert_close(module.p.delay.detach(), torch.full((3,), 3e-3))
    module.p.delay = sp.Fixed(0.0)
    assert torch.equal(module.p.delay, torch.tensor(0.0))
    copied = copy.deepcopy(module)
    copied.p.delay = 1e-3
    assert module.p.delay == 0


@pytest.mark.parametrize("constraint", [None, "none"])
def test_a_delay_that_is_not_a_number_is_refused(constraint):
    delay = sp.Delay(sp.Learned(2e-3, constraint), max_delay=5e-3, size=3)
    with torch.no_grad():
        delay.p.raw("delay")[1] = math.nan
    with pytest.raises(ValueError, match="delay: expected finite values, got 1 that are not"):
        delay(torch.zeros(4, 2, 3))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: sp.Delay(-1e-3), ValueError, r"delay: expected delays of at least 0 s, got -0\.001 s"),
        (
            lambda: sp.Delay(torch.tensor([1e-3, 9e-3]), max_delay=8e-3),
            ValueError,
            r"values below 0\.008 s, got 0\.009 s",
        ),
        (lambda: sp.Delay(math.nan), ValueError, "delay: expected finite values, got nan"),
        (lambda: sp.Delay("1 ms"), TypeError, "delay: expected a number or a floating-point tensor, got str"),
        (lambda: sp.Delay(torch.tensor([1, 2])), TypeError, "delay: expected a floating-point tensor, got torch.int64"),
        (lambda: sp.Delay(sp.Learned(1e-3), size=2), ValueError, "max_delay: expected the longest delay in s"),
        (lambda: sp.Delay(sp.distributions.gamma(mean=1e-3, variation=0.5), size=2), ValueError, "max_delay: expected"),
        (lambda: sp.Delay(sp.Learned(1e-3), max_delay=8e-3), ValueError, "delay: expected the size of the population"),
        (
            lambda: sp.Delay(1e-3, max_delay=-1.0),
            ValueError,
            r"max_delay: expected a finite time .* at least 0, got -1",
        ),
        (
            lambda: sp.Delay(sp.Learned(0.0), max_delay=8e-3, size=2),
            ValueError,
            "within the range of interval 0 to 0.008",
        ),
        (lambda: sp.Delay(1e-3, dt=0.0), ValueError, "dt: expected a positive, finite time step"),
        (lambda: sp.Delay(1e-3, size=0), ValueError, "size: expected a positive integer"),
        (lambda: sp.Delay(torch.full((3,), 1e-3), size=4), ValueError, r"values that fit a population of \(4,\)"),
        (lambda: sp.Delay(torch.distributions.Normal(5e-3, 1e-3), size=2, max_delay=1.0), ValueError, "at least 0 s"),
        (lambda: sp.DelayedLinear(0, 2, 1e-3), ValueError, "in_features: expected a positive integer, got 0"),
        (lambda: sp.DelayedLinear(3, 2, torch.full((3, 2), 1e-3)), ValueError, r"a population of \(2, 3\)"),
        (lambda: sp.DelayedRecurrentLayer(3, 2, sp.LIFParameters(), delay=5e-4), ValueError, "at least 0.001 s"),
        (lambda: sp.Delay(1e-3)(torch.ones(3, 4, 5).long()), TypeError, "expected torch.float64, the type of the par"),
        (lambda: sp.Delay(1e-3)(torch.ones(3, 4, 5).float()), TypeError, "expected torch.float64"),
        (lambda: sp.Delay(torch.full((3,), 1e-3))(torch.ones(3, 4, 5)), ValueError, r"a population of \(5,\)"),
        (lambda: sp.DelayedLinear(3, 2, 1e-3)(torch.ones(3, 4, 5)), ValueError, "expected 3 features"),
        (lambda: sp.Delay(1e-3)(torch.ones(3, 4, 5), torch.ones(4, 2, 5)), TypeError, "state: expected DelayState"),
    ],
)
def test_bad_input_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_states_of_another_kind_or_shape_are_refused():
    module, x = sp.Delay(3e-3), spikes(10, 2, 5)
    _, state = module(x)
    with pytest.raises(ValueError, match=r"state.x: expected shape \(3, 4, 5\), got \(2, 4, 5\)"):
        module(spikes(10, 3, 5), state)
    layer = sp.DelayedRecurrentLayer(5, 6, sp.LIFParameters(), delay=3e-3)
    with pytest.raises(TypeError, match="state: expected DelayedRecurrentState or None, got DelayState"):
        layer(x, state)
    with pytest.raises(TypeError, match="state: expected LIFFeedForwardState or None, got LIState"):
        layer(x, sp.DelayedRecurrentState(torch.zeros(2, 4, 6), sp.LIState(*torch.zeros(2, 2, 6))))


def test_delays_that_nothing_constrains_are_refused_when_they_leave_their_range():
    delay = nn.Parameter(torch.full((5,), 4e-3))
    module, x = sp.Delay(delay, max_delay=8e-3), spikes(10, 2, 5)
    with torch.no_grad():
        delay[2] = 9e-3
    with pytest.raises(ValueError, match=r"delay: expected values below 0.008 s, got 0.009 s at neuron 2"):
        module(x)
    with torch.no_grad():
        delay[2] = -1e-3
    with pytest.raises(ValueError, match=r"delay: expected delays of at least 0 s, got -0.001 s at neuron 2"):
        module(x)


def test_checkpoints_with_longer_delays_are_refused():
    source, module = sp.Delay(torch.full((3,), 9e-3)), sp.Delay(torch.full((3,), 1e-3), max_delay=5e-3)
    with pytest.raises(ValueError, match=r"delay: expected values below 0\.005 s, got 0\.009 s"):
        module.load_state_dict(source.state_dict())
    assert torch.equal(module.p.delay, torch.full((3,), 1e-3))


# ------------------------------------------------------------------------------------------- PyTorch's own machinery


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_gives_the_numbers_of_its_members(kind):
    members, x = [], spikes(25, 2, 5)
    for _ in range(3):
        member = modules()[kind]
        if members:  # equal fixed values
            member.load_state_dict(members[0].state_dict())
            with torch.no_grad():
                for parameter in member.parameters():
                    parameter += 0.3 * torch.randn(parameter.shape)
        members.append(member)
    ensemble = sp.Ensemble(members)
    y, state = ensemble(x)
    grad = torch.randn(y.shape)
    (grad * y).sum().backward()
    stacked = dict(ensemble.stacked.named_parameters())
    for k, member in enumerate(members):
        alone, last = member(x)
        torch.testing.assert_close(y[k], alone, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(state[0][k], last[0], rtol=1e-9, atol=1e-10)
        (grad[k] * alone).sum().backward()
        for name, parameter in member.named_parameters():
            torch.testing.assert_close(stacked[name].grad[k], parameter.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("declared", [sp.Learned, torch.as_tensor])
@pytest.mark.parametrize("differ", [True, False])
def test_sparse_spikes_in_an_ensemble(declared, differ):
    values = [learned(5) for _ in range(2)] if differ else [learned(5)] * 2
    members = [sp.Delay(declared(value), max_delay=9e-3) for value in values]
    x = spikes(20, 3, 5)
    late, state = sp.Ensemble(members)(x.to_sparse())
    for k, member in enumerate(members):
        expected, last = member(x)
        torch.testing.assert_close(late[k], expected)
        assert torch.equal(state.x[k], last.x)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_is_eager(kind):
    module, x = modules()[kind], spikes(6, 2, 5, rate=0.5)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    found = []
    for function in (module, compiled):
        y, state = function(x)
        found.append([y, state[0], *torch.autograd.grad(y.square().sum(), module.parameters())])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_computes_in_the_type_of_the_parameters(kind):
    module, x = modules()[kind].float(), spikes(12, 2, 5).float()
    expected, _ = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = module(x.bfloat16())
    assert y.dtype == torch.float32
    assert torch.equal(y, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("steps", [5, 300, 301, 499, 777])
def test_longest_delays_may_be_rounded_up(dtype, steps):
    """To the nearest number of the type, which has 11 or 8 bits, but to none beyond the longest delay."""
    longest, x = steps * DT, spikes(steps + 5, 2, 1)
    for module in (sp.Delay(longest, dtype=dtype), sp.Delay(longest).to(dtype)):
        late, state = module(x.to(dtype))
        assert state.x.shape == (2, steps + 1, 1)
        (whole,), (fraction,) = (part.view(1) for part in module.p.steps())
        assert abs(whole - steps) <= torch.finfo(dtype).eps * steps
        assert whole <= steps
        assert fraction == 0
        assert torch.equal(late[whole:], x[: len(x) - whole].to(dtype))
    layer = sp.DelayedRecurrentLayer(3, 2, sp.LIFParameters(), delay=longest, dtype=dtype)
    assert layer(spikes(4, 2, 3).to(dtype))[0].dtype == dtype
    assert sp.DelayedRecurrentLayer(3, 2, sp.LIFParameters(), delay=DT, dtype=dtype).delays.steps()[0] == 1


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own forward mode uses it
def test_functional_transforms():
    module, x = modules()["axonal"], torch.randn(4, 12, 2, 5)
    name = "p.parametrizations.delay.original"
    stored = module.p.raw("delay").detach()

    def output(values, inputs):
        return torch.func.functional_call(module, {name: values}, (inputs,))[0]

    jacobian = torch.func.jacrev(output)(stored, x[0])
    forward = torch.func.jacfwd(output)(stored, x[0])
    torch.testing.assert_close(jacobian, forward, rtol=1e-10, atol=1e-10)
    for k in range(5):  # the delay of a neuron concerns that neuron alone
        assert jacobian[:, :, k, k].abs().max() > 0
        assert jacobian[:, :, k, torch.arange(5) != k].abs().max() == 0
    many = torch.func.vmap(output, in_dims=(None, 0))(stored, x)
    torch.testing.assert_close(many, torch.stack([module(one)[0] for one in x]), rtol=0, atol=1e-12)
    assert torch.autograd.gradgradcheck(output, (stored.requires_grad_(), x[0].requires_grad_()))


def test_modules_can_be_saved_whole(tmp_path):
    module, x = sp.Delay(learned(5)), spikes(10, 2, 5)
    torch.save(module, tmp_path / "delay.pt")
    again = torch.load(tmp_path / "delay.pt", weights_only=False)
    assert torch.equal(again(x)[0], module(x)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_delay_in_half_precision_is_not_rounded_to_a_step(dtype):
    delay = sp.Delay(torch.tensor([5.3e-3, 6e-3], dtype=dtype), size=2, dtype=dtype)
    x = torch.zeros(12, 1, 2, dtype=dtype)
    x[1] = 1.0
    late = delay(x)[0][:, 0].double()
    assert late[6, 0] == pytest.approx(0.7, abs=0.02)
    assert late[7, 0] == pytest.approx(0.3, abs=0.02)
    assert late[:, 1].nonzero().flatten().tolist() == [7]


def test_delays_may_be_drawn_from_one_step_to_the_longest():
    for k in range(1, 101):
        dt = 1e-3 * k / 13
        drawn = sp.Learned(sp.distributions.log_uniform(low=dt, high=50 * dt))
        p = sp.LIFParameters(tau_mem=0.5, tau_syn=0.5)
        layer = sp.DelayedRecurrentLayer(3, 4, p, delay=drawn, max_delay=50 * dt, dt=dt)
        assert layer.delays.delay.min() >= 0.99 * dt


def test_the_state_of_delayed_recurrence_in_half_precision_is_widened_under_autocast():
    layer = sp.DelayedRecurrentLayer(3, 4, sp.LIFParameters(v_th=0.2), delay=3e-3, max_delay=5e-3, dtype=torch.float32)
    x = (torch.rand(8, 2, 3) < 0.5).float()
    _, state = layer(x[:5])
    half = sp.states.to(state, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = layer(x[5:], half)
    expected, _ = layer(x[5:], sp.states.to(half, dtype=torch.float32))
    assert torch.equal(found, expected)
