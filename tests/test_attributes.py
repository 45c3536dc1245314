"""What is assigned after a module was built is checked as when it was built, with the same message."""

import copy
import inspect
import pickle
import re

import pytest
import torch
from torch import nn

import snnparams as sp
from snnparams.layers.delay_parameters import DelayParameters

X = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0))
MODULES = {
    "LIF": lambda **how: sp.LIF(size=3, **how),
    "LIF of channels": lambda **how: sp.LIF(channels=2, **how),
    "LIF, adjoint": lambda **how: sp.LIF(gradient=sp.Adjoint(), **how),
    "LIFRecurrent": lambda **how: sp.LIFRecurrent(3, 4, **how),
    "LI": lambda **how: sp.LI(**how),
    "LIFCell": lambda **how: sp.LIFCell(**how),
    "LIFRecurrentCell": lambda **how: sp.LIFRecurrentCell(3, 4, **how),
    "LICell": lambda **how: sp.LICell(**how),
    "Delay": lambda **how: sp.Delay(2e-3, size=3, **how),
    "DelayedLinear": lambda **how: sp.DelayedLinear(3, 4, sp.Learned(2e-3), max_delay=5e-3, **how),
    "DelayedRecurrentLayer": lambda **how: sp.DelayedRecurrentLayer(3, 4, sp.LIFParameters(), delay=2e-3, **how),
    "Sequential": lambda **how: sp.Sequential(nn.Linear(3, 4), sp.LIF(), **how),
    "ConstantCurrentLIFEncoder": lambda **how: sp.ConstantCurrentLIFEncoder(5, **how),
    "SpikeLatencyLIFEncoder": lambda **how: sp.SpikeLatencyLIFEncoder(5, **how),
    "PoissonEncoder": lambda **how: sp.PoissonEncoder(5, **how),
    "Ensemble": lambda **how: sp.Ensemble([sp.LIF(), sp.LIF()], **how),
    "NeuronParameters": lambda: sp.LIF(size=3).p,
    "DelayParameters": lambda: sp.Delay(2e-3, size=3).p,
}
OF_PYTORCH = {"training"}
OF_THE_PACKAGE = {"stacked_buffers"}  # which the ensemble extends when a buffer appears


def attributes(module):
    """Return the public names under which a module keeps what it was built with, or computes from that."""
    arguments = [name for name in inspect.signature(type(module).__init__).parameters if name != "self"]
    kept = {name for name in vars(module) if not name.startswith("_")}
    given = {name for name in arguments if hasattr(module, name) and not inspect.ismethod(getattr(module, name))}
    return sorted(kept | given | module.checked.keys())


@pytest.mark.parametrize("name", MODULES)
def test_nothing_that_means_something_takes_anything(name):
    module = MODULES[name]()
    names = [n for n in attributes(module) if n not in OF_PYTORCH | OF_THE_PACKAGE]
    assert names
    for attribute in names:
        before = getattr(module, attribute)
        with pytest.raises((TypeError, ValueError, AttributeError, IndexError), match=f"{attribute}|members: "):
            setattr(module, attribute, "nonsense")
        assert getattr(module, attribute) is before or getattr(module, attribute) == before


BAD = {"detach_reset": ("x", 1, True), "kernel": ("cpuu", "triton"), "chunk": (-1, 2.5)}
OF_LAYERS = [
    (name, attribute, value)
    for name in ("LIF", "LIF, adjoint", "LIFRecurrent", "LI", "DelayedRecurrentLayer")
    for attribute, values in BAD.items()
    for value in values
]


@pytest.mark.parametrize(("name", "attribute", "value"), [*OF_LAYERS, ("Sequential", "chunk", 0)])
def test_the_message_is_that_of_the_constructor(name, attribute, value):
    module = MODULES[name]()
    try:
        MODULES[name](**{attribute: value})
    except (TypeError, ValueError) as expected:
        with pytest.raises(type(expected), match=re.escape(str(expected))):
            setattr(module, attribute, value)
    else:
        setattr(module, attribute, value)
        assert getattr(module, attribute) == value


def test_what_is_valid_can_be_assigned_and_counts():
    layer, other = sp.LIF(size=3), sp.LIF(size=3)
    layer.kernel, layer.chunk, layer.detach_reset = "reference", 2, True
    assert (layer.kernel, layer.chunk, layer.detach_reset) == ("reference", 2, True)
    layer.detach_reset = None  # the choice of the class
    assert layer.detach_reset is False
    recurrent = sp.LIFRecurrent(3, 4)
    recurrent.detach_reset = None
    assert recurrent.detach_reset is True
    layer.p = other.p  # both have one from here on
    assert layer.p is other.p
    ensemble = sp.Ensemble([sp.LIF(), sp.LIF()])
    ensemble.halted = {1}
    assert ensemble.halted == frozenset({1})
    with pytest.raises(IndexError, match="members: expected integers from 0 to 1, got 2"):
        ensemble.halted = {2}


def test_parameters_of_another_neuron_time_step_or_gradient_are_refused():
    layer = sp.LIF(size=3)
    for p, got in (
        (sp.LIFParameters(), "LIFParameters"),
        (sp.LI(size=3).p, "NeuronParameters"),
        (sp.LIF(size=3, dt=5e-4).p, "NeuronParameters"),
        (sp.LIF(size=3, gradient=sp.Surrogate("tanh")).p, "NeuronParameters"),
    ):
        with pytest.raises(TypeError, match=f"p: expected NeuronParameters of the same neuron, .* got {got}; assign"):
            layer.p = p
    recurrent = MODULES["DelayedRecurrentLayer"]()
    with pytest.raises(TypeError, match="delays: expected DelayParameters of the same neuron, time step"):
        recurrent.delays = sp.Delay(2e-3, size=3).p
    assert isinstance(recurrent.delays, DelayParameters)


def test_delays_are_not_set_beside_their_parameters():
    with pytest.raises(AttributeError, match=r"delay: expected an assignment to layer\.p\.delay, got one to layer\."):
        MODULES["Delay"]().delay = 1e-3
    with pytest.raises(AttributeError, match=r"delay: expected an assignment to layer\.delays\.delay, got one to"):
        MODULES["DelayedRecurrentLayer"]().delay = 1e-3


def test_weights_keep_their_shape():
    layer, weights = sp.LIFRecurrent(3, 4), nn.Parameter(torch.zeros(4, 3))
    layer.input_weights = weights
    assert layer.input_weights is weights
    linear = MODULES["DelayedLinear"]()
    for module, name in ((layer, "input_weights"), (layer, "recurrent_weights"), (linear, "weight")):
        with pytest.raises(ValueError, match=rf"{name}: expected weights of shape \(4, .\), got \(7, 7\)"):
            setattr(module, name, nn.Parameter(torch.zeros(7, 7)))


@pytest.mark.parametrize("name", ["LIF", "LIFRecurrent", "Delay", "DelayedRecurrentLayer", "Sequential", "Ensemble"])
def test_copies_and_files_are_as_before(name):
    torch.manual_seed(0)
    module = MODULES[name]()
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(again(X)[0], module(X)[0])
        with pytest.raises((TypeError, ValueError, AttributeError)):
            setattr(again, "size" if name == "Ensemble" else "chunk" if name == "Sequential" else "dt", -1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sp.LIFRecurrent(3, 4, autapses="no"), "autapses: expected True or False, got 'no'"),
        (
            lambda: sp.DelayedRecurrentLayer(3, 4, sp.LIFParameters(), delay=2e-3, per_synapse=1),
            "per_synapse: expected True or False, got 1",
        ),
    ],
)
def test_choices_are_yes_or_no(build, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        build()


UNIFORM = torch.distributions.Uniform(5.0, 20.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sp.Delay(20), "delay: expected a delay in s, at most 1 s, got 20 s; were milliseconds meant, 0.02 s?"),
        (lambda: sp.Delay(torch.tensor([1e-2, 20.0])), "delay: expected a delay in s, at most 1 s, got 20 s; were"),
        (lambda: sp.Delay(sp.Fixed(UNIFORM), size=3), "delay: expected a delay in s, at most 1 s, got 20 s; were"),
        (
            lambda: sp.Delay(sp.Learned(20.0), max_delay=25),
            "max_delay: expected a delay in s, at most 1 s, got 25 s; were",
        ),
        (
            lambda: sp.Delay(sp.Learned(10.0, sp.parameters.constraints.Interval(0.0, 25.0))),
            "constraint: expected a delay in s, at most 1 s, got 25 s; were milliseconds meant, 0.025 s?",
        ),
        (lambda: sp.DelayedLinear(2, 3, 20), "delay: expected a delay in s, at most 1 s, got 20 s; were"),
        (
            lambda: sp.DelayedRecurrentLayer(2, 3, sp.LIFParameters(), delay=20),
            "delay: expected a delay in s, at most 1 s, got 20 s; were milliseconds meant, 0.02 s?",
        ),
        (lambda: setattr(sp.Delay(2e-3).p, "delay", 20), "delay: expected values below 0.002 s, got 20 s"),
        (lambda: sp.LIF(dt=1), "dt: expected a time step in s, below 1 s, got 1 s; were milliseconds meant, 0.001 s?"),
        (lambda: sp.LIFRecurrent(2, 3, dt=0.5e3), "dt: expected a time step in s, below 1 s, got 500 s; were millisec"),
        (lambda: sp.Delay(2e-3, dt=1.0), "dt: expected a time step in s, below 1 s, got 1 s; were milliseconds meant"),
        (
            lambda: sp.PoissonEncoder(3, 0.1, dt=1),
            "dt: expected a time step in s, below 1 s, got 1 s; were milliseconds",
        ),
        (
            lambda: sp.poisson_encode(X, 3, 0.1, dt=1),
            "dt: expected a time step in s, below 1 s, got 1 s; were millisec",
        ),
        (lambda: sp.spike_times(X, 1.0), "dt: expected a time step in s, below 1 s, got 1 s; were milliseconds meant"),
        (
            lambda: sp.li_feed_forward_step(X, sp.LIState(X, X), dt=1),
            "dt: expected a time step in s, below 1 s, got 1 s; were milliseconds meant, 0.001 s?",
        ),
        (
            lambda: sp.reach_rate_([X], lambda: X, rate=0.5, dt=1),
            "dt: expected a time step in s, below 1 s, got 1 s; were milliseconds meant, 0.001 s?",
        ),
    ],
)
def test_times_in_seconds_that_look_like_milliseconds_are_asked_about(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


@pytest.mark.parametrize("dt", ["1 ms", None, [1e-3]])
def test_a_time_step_is_a_number(dt):
    with pytest.raises(TypeError, match=re.escape(f"dt: expected a time step in s, got {dt!r}")):
        sp.LIF(dt=dt)


def test_a_second_is_a_time_as_any_other():
    assert sp.Delay(1.0, size=2).remembered == 1001
    assert sp.LIF(sp.LIFParameters(tau_mem=1.0, tau_syn=1.0), dt=0.5).dt == 0.5
