"""Arguments of cells, layers and functions: which are positional, in which order, and how the gradient is given."""

import ast
import dataclasses
import functools
import inspect
import pickle
import re

import pytest
import torch
from notebooks import ROOT

import snnparams as sp

X = torch.zeros(2, 3)
POSITIONAL = ("neuron", "input_size", "hidden_size", "input_spikes", "input_current", "seq_length", "state", "p")
FEED_FORWARD = (sp.Cell, sp.LIFCell, sp.LICell, sp.Layer, sp.LIF, sp.LI)
RECURRENT = (sp.RecurrentCell, sp.LIFRecurrentCell, sp.RecurrentLayer, sp.LIFRecurrent)
FUNCTIONS = (sp.neuron_step, sp.lif_step, sp.lif_feed_forward_step, sp.li_step, sp.li_feed_forward_step)
ENCODERS = (sp.constant_current_lif_encode, sp.ConstantCurrentLIFEncoder)
ORDER = (
    "size",
    "channels",
    "input_weights",
    "recurrent_weights",
    "autapses",
    "dt",
    "gradient",
    "detach_reset",
    "kernel",
    "chunk",
    "layout",
)
ORDER += ("device", "dtype")


@pytest.mark.parametrize("build", [*FEED_FORWARD, *RECURRENT, *FUNCTIONS, *ENCODERS], ids=lambda f: f.__name__)
def test_sizes_state_weights_and_p_are_positional_and_the_rest_is_named_in_one_order(build):
    parameters = list(inspect.signature(build).parameters.values())
    named = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    before = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert [name for name in ORDER if name in named] == named
    assert "dt" in named
    operands = ("input_weights", "recurrent_weights") if build in FUNCTIONS else ()
    assert [name for name in before if name not in (*POSITIONAL, *operands)] == []
    assert before[-1] == "p"


@pytest.mark.parametrize("build", [*FEED_FORWARD, *RECURRENT], ids=lambda kind: kind.__name__)
def test_a_cell_takes_what_a_layer_does_but_how_a_sequence_is_computed(build):
    named = {p.name for p in inspect.signature(build).parameters.values() if p.kind is p.KEYWORD_ONLY}
    shared = {"dt", "gradient", "detach_reset", "device", "dtype"}
    own = {"size", "channels"} if build in FEED_FORWARD else {"input_weights", "recurrent_weights", "autapses"}
    assert named == shared | own | (set() if "Cell" in build.__name__ else {"kernel", "chunk"})


def each(p, **how):
    """Build every cell and layer of LIF neurons."""
    yield from (kind(p, **how) for kind in (sp.Cell, sp.LIFCell, sp.Layer, sp.LIF))
    yield from (kind(3, 2, p, **how) for kind in RECURRENT)


def test_both_spellings_of_a_gradient_mean_the_same():
    for spelling, gradient in (
        ({}, sp.Surrogate("super", 1.0)),
        ({"method": "tanh"}, sp.Surrogate("tanh", 100.0)),
        ({"alpha": 7}, sp.Surrogate(alpha=7.0)),
        ({"method": "adjoint"}, sp.Adjoint()),
    ):
        p = sp.LIFParameters(**spelling)
        for module in (*each(p), *each(sp.LIFParameters(), gradient=gradient), *each(p, gradient=gradient)):
            assert module.gradient == gradient
            assert repr(gradient) in repr(module)
            assert pickle.loads(pickle.dumps(module)).gradient == gradient


def test_two_spellings_that_differ_are_refused():
    for p in (sp.LIFParameters(method="super"), sp.LIFParameters(alpha=1.0), sp.LIFParameters(method="adjoint")):
        for changed in (p, dataclasses.replace(p, v_th=0.5)):
            with pytest.raises(
                ValueError, match=r"gradient: expected .*, as method and alpha of the parameters say, got"
            ):
                next(each(changed, gradient=sp.Surrogate("tanh")))
    plain = dataclasses.replace(sp.LIFParameters(), v_th=0.5)  # has never said anything
    assert sp.LIF(plain, gradient=sp.Surrogate("tanh")).gradient.method == "tanh"
    state = sp.LIFFeedForwardState(X, X)
    with pytest.raises(ValueError, match="as method and alpha of the parameters say"):
        sp.lif_feed_forward_step(X, state, sp.LIFCell(gradient=sp.Adjoint()).p, gradient=sp.Surrogate())


def test_what_is_no_gradient_or_has_none_is_refused():
    with pytest.raises(
        TypeError, match=re.escape("expected a Surrogate or Adjoint(), got 'tanh'; use Surrogate('tanh')")
    ):
        sp.LIF(gradient="tanh")
    for build in (sp.LI, sp.LICell, lambda **how: sp.RecurrentLayer(3, 2, sp.LIParameters(), **how)):
        with pytest.raises(
            ValueError, match="gradient: expected None for LIParameters, which does not spike, got Surr"
        ):
            build(gradient=sp.Surrogate())


def test_the_gradient_of_a_function_is_that_of_a_cell():
    p = sp.LIFParameters(v_th=0.3, v_leak=0.2)
    for gradient in (sp.Surrogate("tanh", 2.0), sp.Surrogate("triangle", 0.5)):
        found = []
        for by_cell in (True, False):
            x, state = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)).requires_grad_(), (X + 0.2, X)
            state = sp.LIFFeedForwardState(*state)
            if by_cell:
                z, _ = sp.LIFCell(p, gradient=gradient)(x, state)
            else:
                z, _ = sp.lif_feed_forward_step(x, state, p, gradient=gradient)
            z.sum().backward()
            found.append(x.grad)
        assert found[0].abs().min() > 0
        assert torch.equal(*found)


def test_detach_reset_is_what_norse_does_and_is_shown():
    for module in each(sp.LIFParameters()):
        recurrent = isinstance(module, RECURRENT)
        assert module.detach_reset is recurrent
        assert f"detach_reset={recurrent}" in repr(module)
        assert "detach_reset" not in repr(
            type(module)(*([3, 2] if recurrent else []), sp.LIFParameters(method="adjoint"))
        )
    for recurrent, detached in ((None, False), (torch.zeros(3, 3), True)):
        v = torch.full((2, 3), 0.9, requires_grad=True)
        state = sp.LIFFeedForwardState(v, X) if recurrent is None else sp.LIFState(X, v, X)
        p = sp.LIFParameters(v_th=0.5, v_reset=0.1)
        _, new = sp.neuron_step(sp.LIFParameters, X, state, recurrent, p)
        new.v.sum().backward()
        assert torch.equal(v.grad == 0, torch.full((2, 3), detached))


@pytest.mark.parametrize("given", [True, False])
def test_the_adjoint_method_refuses_an_explicit_detach_reset_everywhere(given):
    message = f"detach_reset={given}: the adjoint method differentiates the reset; leave detach_reset out"
    for p, how in ((sp.LIFParameters(method="adjoint"), {}), (sp.LIFParameters(), {"gradient": sp.Adjoint()})):
        for kind in (*FEED_FORWARD[:2], *FEED_FORWARD[3:5]):
            with pytest.raises(ValueError, match=message):
                kind(p, **how, detach_reset=given)
        for kind in RECURRENT:
            with pytest.raises(ValueError, match=message):
                kind(3, 2, p, **how, detach_reset=given)
        state = sp.LIFFeedForwardState(X, X)
        for call in (
            functools.partial(sp.lif_feed_forward_step, X, state),
            functools.partial(sp.lif_step, X, sp.LIFState(X, X, X), torch.eye(3), torch.eye(3)),
            functools.partial(sp.neuron_step, sp.LIFParameters, X, state, None),
        ):
            with pytest.raises(ValueError, match=message):
                call(p, **how, detach_reset=given)
    with pytest.raises(TypeError, match="detach_reset: expected True, False or None, got 'no'"):
        sp.LIF(detach_reset="no")


def test_functions_of_the_kernels_say_what_they_take_and_return():
    """All but those that Numba and Triton compile, which have types of their own."""
    for path in sorted((ROOT / "snnparams" / "kernels").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not node.decorator_list:
                untyped = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.annotation is None]
                assert not untyped, f"{path.name}: {node.name}: {untyped}"
                assert node.returns, f"{path.name}: {node.name}"
