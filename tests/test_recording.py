"""What is recorded inside a network, against cells that compute it step by step."""

import pytest
import torch
from torch import nn

import snnparams as sp


def network():
    p = sp.LIFParameters(tau_mem=sp.Learned(0.02, shared=True), v_th=0.3, alpha=5.0)
    return sp.Sequential(sp.LIFRecurrent(4, 6, p), nn.Linear(6, 3), sp.LIF(p), sp.LI()).double()


def spikes():
    return (torch.rand(9, 3, 4, dtype=torch.float64) < 0.4).double()


def test_the_traces_are_the_states_of_a_cell():
    layer, x = network()[0], spikes()
    cell = sp.LIFRecurrentCell(4, 6, sp.LIFParameters(tau_mem=sp.Learned(0.02, shared=True), v_th=0.3, alpha=5.0))
    cell.double().load_state_dict(layer.state_dict())
    expected, state = [], None
    for step in x:
        _, state = cell(step, state)
        expected.append(state)
    with sp.record(layer) as recorded, sp.record(cell) as steps:
        layer(x[:4], None)
        state = None
        for step in x:
            _, state = cell(step, state)
    with sp.record(layer) as recorded:
        _, middle = layer(x[:4].to_sparse())
        layer(input=x[4:], state=middle)
    for found in (recorded[""], steps[""]):
        assert type(found.trace) is sp.LIFState
        for name in ("z", "v", "i"):
            values = torch.stack([getattr(state, name) for state in expected])
            torch.testing.assert_close(getattr(found.trace, name), values, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(getattr(found.state, name), values[-1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.output, found.trace.z)


def test_a_recorded_network_returns_what_it_always_does_and_learns_from_the_traces():
    model, x = network(), spikes()
    expected, last = model(x)
    with sp.record(model) as recorded:
        voltages, state = model(x)
    torch.testing.assert_close(voltages, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)
    assert list(recorded) == ["0", "2", "3"]
    torch.testing.assert_close(recorded["3"].trace.v, voltages)
    (recorded["2"].trace.v.square().mean() + recorded["0"].output.mean()).backward()
    assert model[0].input_weights.grad.count_nonzero() > 0
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad(), sp.record(model) as recorded:
        model(x)
    assert not recorded["2"].trace.v.requires_grad


def test_the_gradient_of_a_trace_is_that_of_finite_differences():
    layer = sp.LIF(sp.LIFParameters(tau_mem=sp.Learned(0.02, shared=True), method="sigmoid", alpha=3.0)).double()
    x = torch.rand(8, 2, 3, dtype=torch.float64) + 0.5

    def total():
        with sp.record(layer) as recorded:
            layer(x)
        return recorded[""].trace.v.square().sum()

    stored = layer.p.raw("tau_mem_inv")
    (gradient,) = torch.autograd.grad(total(), stored)
    with torch.no_grad():
        step = 1e-5
        stored += step
        above = total()
        stored -= 2 * step
        below = total()
    torch.testing.assert_close(gradient, (above - below) / (2 * step), rtol=1e-6, atol=1e-9)


def test_shorter_sequences_are_zero_behind_their_end():
    model, x, lengths = network(), spikes(), [9, 2, 5]
    with sp.record(model[0]) as recorded:
        model[0](x)
    with sp.record(model) as shorter:
        model(x, lengths=lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(shorter["0"].trace.v[:length, row], recorded[""].trace.v[:length, row])
        assert (shorter["0"].trace.v[length:, row] == 0).all()


class Trace(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        with sp.record(self.network) as recorded:
            self.network(x)
        return recorded["2"].trace.v


def test_outputs_alone_are_those_of_a_call_that_is_not_watched_and_learn(monkeypatch):
    model, x = network(), spikes()
    hidden = model[0]
    with sp.record(model) as expected:
        model(x)
    sp.rate_bounds_loss(expected["0"].output, 0.6, 0.7).backward()
    gradient, hidden.input_weights.grad = hidden.input_weights.grad, None
    calls, compute = [], type(hidden)._compute
    monkeypatch.setattr(type(hidden), "_compute", lambda *given: calls.append(given) or compute(*given))
    in_chunks = sp.Sequential(*model, chunk=4)
    for watched in (model, in_chunks):
        calls.clear()
        with sp.record(watched, trace=False) as recorded:
            watched(x)
        assert len(calls) == 1, "a layer is computed once, in one piece"
        for name, found in recorded.items():
            torch.testing.assert_close(found.output, expected[name].output, rtol=1e-12, atol=1e-12)
            for what in ("trace", "state"):
                with pytest.raises(RuntimeError, match=f"{name}: expected states that were recorded, .*trace=False"):
                    getattr(found, what)
        sp.rate_bounds_loss(recorded["0"].output, 0.6, 0.7).backward()
        torch.testing.assert_close(hidden.input_weights.grad, gradient, rtol=1e-9, atol=1e-15)
        assert gradient.count_nonzero()
        hidden.input_weights.grad = None
    assert in_chunks.chunk == 4
    with sp.record(model) as expected:
        model(x, lengths=[9, 2, 5])
    with sp.record(model, trace=False) as recorded:
        model(x, lengths=[9, 2, 5])
    torch.testing.assert_close(recorded["0"].output, expected["0"].output, rtol=1e-12, atol=1e-12)


def test_outputs_alone_of_a_cell_are_recorded_step_by_step():
    cell, x, state = sp.LIFCell().double(), spikes(), None
    with sp.record(cell, trace=False) as recorded:
        outputs = []
        for step in x:
            output, state = cell(step, state)
            outputs.append(output)
    assert torch.equal(recorded[""].output, torch.stack(outputs))
    with pytest.raises(RuntimeError, match="LIFCell: expected states that were recorded"):
        recorded[""].state  # noqa: B018


class Rates(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x):
        with sp.record(self.network, trace=False) as recorded:
            self.network(x)
        return recorded["0"].output


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_model_that_records_itself_in_an_ensemble_and_compiled():
    members, x = [Trace(), Trace()], spikes()
    traces = sp.Ensemble(members)(x)
    for member, trace in zip(members, traces, strict=True):
        torch.testing.assert_close(trace, member(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.compile(members[0], backend="eager")(x), members[0](x))
    members = [Rates(), Rates()]
    for member, rates in zip(members, sp.Ensemble(members)(x), strict=True):
        assert torch.equal(rates, member(x))


def test_bad_input():
    x = spikes()
    with pytest.raises(TypeError, match="trace: expected True or False, got 'v'"), sp.record(network(), "v"):
        pass
    with (
        pytest.raises(TypeError, match="expected one with a cell or layer, got Linear without any"),
        sp.record(nn.Linear(2, 2)),
    ):
        pass
    with (
        pytest.raises(TypeError, match=r"expected one network, got an Ensemble; use ensemble.member"),
        sp.record(sp.Ensemble([sp.LIF()])),
    ):
        pass
    compiled = torch.compile(network(), backend="eager")
    with pytest.raises(TypeError, match="expected one that is not compiled"), sp.record(compiled):
        pass
    layer = sp.LIF().double()
    with sp.record(layer) as recorded:
        with pytest.raises(RuntimeError, match="LIF: expected a population that has been called"):
            recorded[""].trace  # noqa: B018
        layer(x)
        with pytest.raises(ValueError, match=r"LIF: expected steps of shape \(3, 4\), .* got \(2, 4\)"):
            layer(x[:, :2])
