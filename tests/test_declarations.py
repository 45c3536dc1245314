"""What a declaration and a built layer show, what is handed on, and what is asked about before it is accepted."""

import copy
import dataclasses
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

import snnparams as sp

SLOW = sp.distributions.log_normal(median=0.02, variation=0.2)


def lines(module):
    """Return what a layer shows of its parameters, by the names that it shows."""
    return dict(line.strip().split("=", 1) for line in repr(module.p).splitlines()[1:-1])


def test_a_declaration_shows_what_was_given_in_the_unit_in_which_it_was_given():
    p = sp.LIFParameters(
        tau_mem=sp.Learned(SLOW, "decay"),
        tau_syn=sp.Fixed(sp.distributions.gamma(mean=0.01, variation=0.5), shared=True),
        v_th=sp.Learned(0.5, shared=True),
        v_leak=nn.Parameter(torch.zeros(3)),
        v_reset=torch.tensor(0.25),
    )
    assert repr(p) == (
        "LIFParameters(tau_syn=Fixed(Gamma(mean=0.01, variation=0.5), shared=True), "
        "tau_mem=Learned(LogNormal(median=0.02, variation=0.2), 'decay'), v_leak=nn.Parameter of shape (3,), "
        "v_th=Learned(0.5, shared=True), v_reset=tensor(0.25))"
    )
    assert repr(sp.LIParameters(tau_mem_inv=SLOW)).startswith("LIParameters(tau_syn_inv=200, tau_mem_inv=Fixed(LogN")
    assert repr(dataclasses.replace(p, v_th=2.0)) == repr(p).replace("Learned(0.5, shared=True)", "2")
    assert "tau_mem_inv=40" in repr(dataclasses.replace(p, tau_mem_inv=40.0))
    assert repr(sp.LIFParameters(method="tanh", alpha=3)).endswith("v_reset=0, method='tanh', alpha=3.0)")


def test_a_layer_shows_what_is_fixed_learned_shared_or_frozen_in_the_unit_of_its_declaration():
    p = sp.LIFParameters(
        tau_mem=sp.Learned(torch.tensor([0.01, 0.02, 0.04])), v_th=sp.Learned(0.5, shared=True), v_leak=0.1
    )
    layer = sp.LIF(p, size=3)
    shown = lines(layer)
    assert shown["tau_mem"].startswith("3 values, median 0.02, 0.01 to 0.04 s (learned, log")
    assert shown["tau_syn_inv"] == "200 1/s (fixed)"
    assert shown["v_th"] == "0.5 (learned, shared)"
    assert shown["v_leak"] == "0.1 (fixed)"
    layer.p.tau_mem_inv = torch.tensor([50.0, 20.0, 25.0])
    layer.p.tau_syn = 5e-3
    layer.p.requires_grad_(False)
    shown = lines(layer)
    assert shown["tau_mem_inv"].startswith("3 values, median 25, 20 to 50 1/s (learned, frozen, log")
    assert shown["tau_syn"] == "0.005 s (fixed)"
    assert shown["v_th"] == "0.5 (learned, frozen, shared)"


@pytest.mark.parametrize(
    ("distribution", "text"),
    [
        (torch.distributions.Uniform(0.5, 1.5), "Uniform(0.5, 1.5)"),
        (sp.distributions.TruncatedNormal(1, 0.5, 0), "TruncatedNormal(loc=1, scale=0.5, low=0, high=inf)"),
        (sp.distributions.reciprocal(SLOW), "1 / LogNormal(median=0.02, variation=0.2)"),
        (torch.distributions.HalfNormal(2.0), "HalfNormal()"),
    ],
)
def test_distributions_are_shown_by_where_they_lie_and_how_wide_they_are(distribution, text):
    assert repr(sp.Fixed(distribution)) == f"Fixed({text})"


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (10, "10"),
        (torch.tensor([5.0, 20.0, 30.0]), "20"),
        (sp.Learned(5.0), "5"),
        (sp.Fixed(torch.distributions.Uniform(5.0, 15.0)), "10"),
        (torch.distributions.Gamma(4.0, 0.5), "8"),
    ],
)
@pytest.mark.parametrize("kind", [sp.LIFParameters, sp.LIParameters])
def test_a_time_constant_that_looks_like_milliseconds_is_asked_about(kind, value, got):
    with pytest.raises(
        ValueError, match=rf"tau_mem: expected a time constant in s, at most 1 s, got {got} s; were milli"
    ):
        kind(tau_mem=value)
    p = sp.LI(size=2).p
    if not isinstance(value, torch.Tensor | sp.Learned) and not hasattr(value, "value"):
        with pytest.raises(ValueError, match="is declared by its rate, tau_syn_inv="):
            p.tau_syn = value
    assert kind(tau_mem=1.0, tau_syn_inv=0.1).tau_syn == pytest.approx(10.0)  # asked for by its rate
    assert kind(tau_mem=torch.tensor([0.01, 0.02, 20.0])).tau_mem[2] == 20  # one slow neuron among others


def test_learned_is_another_thing_than_fixed():
    assert not isinstance(sp.Learned(1.0), sp.Fixed)
    assert not isinstance(sp.Fixed(1.0), sp.Learned)
    with pytest.raises(
        ValueError, match=re.escape("expected one of log, softplus, decay, none, or constraints.Interval(")
    ):
        sp.Learned(1.0, "interval")


def test_parameters_of_a_layer_can_be_handed_on_and_are_then_one():
    layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(SLOW), v_th=0.3), size=4, gradient=sp.Surrogate("tanh"))
    cell, again = sp.LIFCell(layer.p), sp.LIF(layer.p, size=4, gradient=sp.Surrogate("tanh"))
    assert cell.p is layer.p is again.p
    assert cell.gradient == layer.gradient
    x = 3 * torch.rand(5, 2, 4)
    (z, _), state = layer(x), None
    for t in range(5):
        z_t, state = cell(x[t], state)
        assert torch.equal(z_t, z[t])
    recurrent = sp.LIFRecurrent(3, 4, layer.p)
    assert len(list(nn.ModuleList([layer, cell, recurrent]).parameters())) == 3  # tau_mem once, and weights
    for build, message in (
        (lambda: sp.LIF(layer.p, dt=5e-4), "p: expected parameters of dt 0.0005, got those of a layer of dt 0.001"),
        (lambda: sp.LIF(layer.p, dtype=torch.float64), "p: expected parameters of dtype torch.float64, got those of"),
        (lambda: sp.LIF(layer.p, size=3), "tau_mem: expected one value, or values that fit a population of (3,)"),
        (
            lambda: sp.LIFRecurrent(3, 5, layer.p),
            "tau_mem: expected one value, or one per neuron of shape (5,), got",
        ),
        (lambda: sp.LIF(layer.p, gradient=sp.Adjoint()), "gradient: expected Surrogate('tanh', alpha=100), as method"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            build()
    with pytest.raises(TypeError, match="p: expected LIParameters, got LIFParameters"):
        sp.LI(layer.p)


def test_learning_rates_are_named_as_the_parameters_are_declared():
    layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(SLOW), v_th=sp.Learned(1.0)), size=3)
    by_time, by_rate = (
        {group["name"]: group["lr"] for group in sp.parameter_groups(layer, 1.0, {name: 0.5})}
        for name in ("tau_mem", "tau_mem_inv")
    )
    assert by_time == by_rate == {"tau_mem": 0.5, "v_th": 1.0}
    layer.p.tau_mem_inv = 50.0  # from here on it is a rate
    assert [group["name"] for group in sp.parameter_groups(layer, 1.0)] == ["tau_mem_inv", "v_th"]
    with pytest.raises(ValueError, match="neuron_lr: expected either tau_mem_inv or its inverse, got both"):
        sp.parameter_groups(layer, 1.0, {"tau_mem": 0.5, "tau_mem_inv": 0.5})


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.01, 0.02, 0.04]),
        np.array([0.01, 0.02, 0.04], np.float32),
        np.array([0.04, 0.02, 0.01])[::-1],
        np.array([0.01, 0.02, 0.04], ">f8"),
    ],
    ids=["float64", "float32", "strided", "big-endian"],
)
def test_arrays_of_numpy_are_tensors(array):
    expected = torch.tensor([0.01, 0.02, 0.04])
    declared = {
        "array": sp.LIFParameters(tau_mem=array),
        "fixed": sp.LIFParameters(tau_mem=sp.Fixed(array)),
        "learned": sp.LIFParameters(tau_mem=sp.Learned(array)),
    }
    for p in declared.values():
        torch.testing.assert_close(sp.LIF(p, size=3).p.tau_mem, expected)
    layer = sp.LIF(sp.LIFParameters(v_th=sp.Learned(array)), size=3)
    kept = layer.p.v_th.detach().clone()
    array[0] = 0.5  # a copy was taken
    assert torch.equal(layer.p.v_th, kept)
    layer.p.v_th = array + 1
    assert layer.p.v_th[0].item() == 1.5
    layer.p.tau_mem = array
    assert layer.p.tau_mem[0].item() == 0.5
    assert sp.Delay(np.array([0.001, 0.003]), dt=1e-3).p.delay.tolist() == pytest.approx([0.001, 0.003])


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64])
def test_numbers_of_numpy_are_numbers(kind):
    p = sp.LIFParameters(v_th=kind(2), v_reset=sp.Learned(kind(1), shared=True), tau_mem_inv=kind(50))
    assert type(p.v_th) is float
    layer = sp.LIF(p)
    layer.p.v_th = kind(3)
    assert (layer.p.v_th.item(), layer.p.v_reset.item(), layer.p.tau_mem.item()) == pytest.approx((3, 1, 0.02))
    assert sp.LIFParameters(tau_mem=np.array(0.02)).tau_mem_inv.item() == pytest.approx(50)


def test_whole_numbers_of_numpy_are_sizes_and_counts():
    three, x = np.int64(3), torch.rand(5, 3, 4)
    for layer in (sp.LIF(size=np.int64(4)), sp.LIF(channels=np.uint8(4)), sp.LIFRecurrent(np.int32(4), three)):
        z, _ = layer(x, lengths=np.array([5, 1, 2]))
        assert torch.equal(z, layer(x, lengths=[np.int64(5), 1, 2])[0])
    assert sp.LIF(size=(three, three)).p.size == (3, 3)
    weights = np.arange(12.0).reshape(3, 4)
    assert torch.equal(sp.LIFRecurrent(4, 3, input_weights=weights).input_weights, torch.arange(12.0).view(3, 4))
    assert sp.PoissonEncoder(three)(torch.rand(2)).shape == (3, 2)
    assert sp.constant_current_lif_encode(torch.rand(2), three).shape == (3, 2)
    sp.fluctuation_driven_(torch.empty(3, 4), sp.LIF(), np.float32(20), share=np.float32(0.5))
    ensemble = sp.Ensemble([nn.Linear(2, 2) for _ in range(3)])
    ensemble.halt(np.int64(1))
    assert ensemble.select(np.array([1, 2])).halted == {0}
    data = sp.Split(np.linspace(0, 1, 36, dtype=np.float32).reshape(9, 4), np.arange(9) % 2)
    model = nn.Sequential(nn.Linear(4, 2), nn.LogSoftmax(1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    history = sp.fit(model, data, data, optimizer, three, batch_size=np.int64(5), patience=np.int64(9), progress=False)
    assert history.epochs == 3
    for build in (lambda n: sp.LIF(size=n), lambda n: sp.PoissonEncoder(n), lambda n: sp.LIFRecurrent(4, n)):
        for wrong in (np.int64(0), np.float64(3), np.bool_(True), np.array(3)):
            with pytest.raises(ValueError, match="expected a positive integer"):
                build(wrong)
    with pytest.raises(TypeError, match=r"split\.labels: expected a tensor, got list"):
        sp.evaluate(model, sp.Split(data.inputs, [0] * 9))


def test_arrays_are_shown_as_what_they_are():
    assert repr(sp.LIFParameters(tau_mem=np.full(1000, 0.02))).count("tau_mem=tensor of shape (1000,)") == 1
    assert "tau_mem=0.02," in repr(sp.LIFParameters(tau_mem=np.float64(0.02)))


def test_a_distribution_of_the_package_prints_as_it_was_asked_for():
    assert repr(SLOW) == repr(copy.deepcopy(SLOW)) == repr(pickle.loads(pickle.dumps(SLOW)))
    assert repr(SLOW) == "LogNormal(median=0.02, variation=0.2)"
    assert repr(SLOW.expand((3,))) == "LogNormal of shape (3,)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0.5e-3, "tau_mem: expected dt / tau_mem < 1, that is values above 0.001 s at dt = 0.001 s, got 0.0005 s"),
        (torch.tensor([0.02, 0.5e-3, 0.02]), "got 0.0005 s at neuron 1 (1 of 3 values are invalid)"),
        (sp.Learned(0.5e-3), "tau_mem: expected dt / tau_mem < 1"),
        (
            sp.distributions.log_normal(median=0.5e-3, variation=0.5),
            "tau_mem: expected a distribution of values from 0.001 to 1e+09 s, got LogNormal(median=0.0005, var",
        ),
        (torch.full((4,), 0.02), "tau_mem: expected one value, or values that fit a population of (3,), got (4,)"),
        (
            sp.Learned(0.02, sp.constraints.Interval(0.01, 0.05)),
            "tau_mem: expected values within the range of interval 0.01 to 0.05, 0.0100002 to 0.0499998, got 50; a "
            "constraint is one of the rate, in 1/s",
        ),
    ],
)
def test_errors_about_what_was_declared_in_seconds_speak_of_seconds(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sp.LIF(sp.LIFParameters(tau_mem=given), size=3)
    by_rate = sp.LIF(sp.LIFParameters(tau_mem_inv=50.0))
    with pytest.raises(ValueError, match=r"tau_mem_inv: expected dt \* tau_mem_inv < 1, .* got 2000 1/s"):
        by_rate.p.tau_mem_inv = 2000.0
    with pytest.raises(ValueError, match=r"tau_mem: expected dt / tau_mem < 1, .* got 0\.0005 s"):
        by_rate.p.tau_mem = 0.5e-3


def test_a_parameter_is_not_set_beside_the_parameters():
    for layer in (sp.LIF(), sp.LIFRecurrentCell(3, 2), sp.Layer(sp.neurons.AdaptiveLIF())):
        for name in ("tau_mem", "tau_mem_inv", "v_th"):
            with pytest.raises(AttributeError, match=f"{name}: expected an assignment to layer.p.{name}"):
                setattr(layer, name, 0.5)
        layer.note = "anything else"


def test_functions_and_encoders_refuse_what_are_no_parameters_of_theirs_by_full_name():
    class LIFParameters:  # of another library
        tau_mem_inv, v_leak, v_th, v_reset, method, alpha = 100.0, 0.0, 1.0, 0.0, "super", 100.0

    LIFParameters.__module__ = "norse.somewhere"
    x, state = torch.rand(2, 3), sp.LIFFeedForwardState(torch.zeros(2, 3), torch.zeros(2, 3))
    for use in (
        lambda p: sp.lif_feed_forward_step(x, state, p),
        lambda p: sp.lif_step(x, sp.LIFState(x, x, x), torch.eye(3), torch.eye(3), p),
        lambda p: sp.constant_current_lif_encode(x, 5, p),
        lambda p: sp.spike_latency_lif_encode(x, 5, p),
        lambda p: sp.ConstantCurrentLIFEncoder(5, p),
        lambda p: sp.SpikeLatencyLIFEncoder(5, p),
        lambda p: sp.NeuronParameters(p, dt=1e-3),
    ):
        with pytest.raises(TypeError, match=r"got norse\.somewhere\..*LIFParameters; snnparams\.from_norse converts"):
            use(LIFParameters())
    for p in (sp.LIParameters(), sp.LI().p):
        with pytest.raises(TypeError, match="p: expected LIFParameters or others with v_reset, v_th, got LIParameters"):
            sp.lif_feed_forward_step(x, state, p)
    for wrong in (None, x, (x,)):
        with pytest.raises(TypeError, match="state: expected LIFFeedForwardState, got"):
            sp.lif_feed_forward_step(x, wrong)
    other = type("LIFFeedForwardState", (tuple,), {"__module__": "norse.somewhere"})
    with pytest.raises(TypeError, match=r"expected LIFFeedForwardState or None, got norse\.somewhere\.LIFFeed"):
        sp.LIF()(torch.rand(4, 2, 3), other((x, x)))


def test_other_arrays_of_numpy_are_refused():
    for array in (np.array([1, 2]), np.array([True]), np.array(["1"]), np.array([1j]), np.array([None])):
        message = re.escape(f"expected an array of float16, float32 or float64, got one of {array.dtype}")
        with pytest.raises(TypeError, match=f"v_th: {message}"):
            sp.LIFParameters(v_th=array)
        with pytest.raises(TypeError, match=f"value: {message}"):
            sp.Learned(array)
    with pytest.raises(TypeError, match="v_th: expected a number or a floating-point tensor, got bool"):
        sp.LIFParameters(v_th=np.bool_(True))
    with pytest.raises(ValueError, match=r"tau_mem: expected a time constant in s, .* got 20 s; were millisec"):
        sp.LIFParameters(tau_mem=np.array([10.0, 20.0, 30.0]))
