"""Nothing needs float64 on the device of a layer: Apple's GPUs (MPS) have none.

A stand-in shows it without such a GPU: tensors that are computed on the CPU, say that they are on "mps", and refuse to
be float64. What a computation returns is on the device of its arguments, unless it moves them to the CPU by name.
"""

import io

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_any, tree_map

import snnparams as sp
from snnparams.parameters.constraints import Interval
from snnparams.parameters.distributions import TruncatedNormal, gamma, log_normal, uniform

MPS = torch.device("mps")


class OnDevice(torch.Tensor):
    """A tensor on the stand-in; its numbers lie on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class StandIn(TorchFunctionMode):
    """Makes PyTorch behave as if it had a device without float64; counts the tensors that were made there."""

    made = 0
    is_default = False  # whether new tensors lie there

    def wrapped(self, result):
        if not isinstance(result, torch.Tensor) or type(result) not in (torch.Tensor, nn.Parameter, OnDevice):
            return result
        if result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        self.made += 1
        if isinstance(result, OnDevice):
            return result
        wrapped = result.as_subclass(OnDevice)
        wrapped._is_param = isinstance(result, nn.Parameter)
        return wrapped

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        there = tree_any(lambda x: isinstance(x, OnDevice), (args, kwargs))
        name = getattr(function, "__name__", "")
        if function == torch.Tensor.device.__get__:
            return MPS if there else function(*args, **kwargs)
        if function == torch.Tensor.is_cpu.__get__:
            return not there
        if self.is_default and function in _device_constructors() and kwargs.get("device") is None:
            kwargs["device"] = MPS
        devices = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, (str, torch.device))]
        devices = [torch.device(x).type for x in devices if isinstance(x, torch.device) or x in ("cpu", "mps", "meta")]
        if devices and devices[-1] == "mps":
            there = True
        elif devices or name in ("cpu", "tolist", "item", "numpy"):
            there = False
        cpu = torch.device("cpu")
        args, kwargs = tree_map(lambda x: cpu if isinstance(x, torch.device) and x.type == "mps" else x, (args, kwargs))
        kwargs = {key: "cpu" if key == "device" and value == "mps" else value for key, value in kwargs.items()}
        args = tuple("cpu" if isinstance(x, str) and x == "mps" else x for x in args)
        result = function(*args, **kwargs)
        if there:
            return tree_map(self.wrapped, result)
        if name in ("to", "cpu") and isinstance(result, OnDevice):
            return result.as_subclass(torch.Tensor)
        return result


@pytest.fixture
def device():
    with StandIn() as stand_in:
        yield stand_in
    assert stand_in.made


def test_the_stand_in_refuses_float64_and_nothing_else(device):
    x = torch.ones(3, device="mps")
    assert x.device == MPS
    assert (2 * x + 1).device == MPS
    assert x.sum().item() == 3.0
    for attempt in (
        lambda: x.double(),
        lambda: x.to(torch.float64),
        lambda: torch.zeros(2, dtype=torch.float64, device="mps"),
        lambda: torch.zeros(2, dtype=torch.float64).to(MPS),
    ):
        with pytest.raises(TypeError, match="doesn't support float64"):
            attempt()
    on_cpu = x.cpu()
    assert on_cpu.device.type == "cpu"
    assert on_cpu.double().dtype == torch.float64
    assert x.to("cpu").double().to(torch.float32).to(MPS).device == MPS


DECLARED = {
    "numbers": lambda: {"tau_mem": 0.02, "v_th": 0.4},
    "tensors of float64": lambda: {"tau_mem": torch.full((3,), 0.02, dtype=torch.float64), "v_th": 0.4},
    "log": lambda: {"tau_mem": sp.Learned(0.02), "v_th": sp.Learned(0.4, "log")},
    "softplus": lambda: {"tau_mem": sp.Learned(0.02, "softplus"), "v_th": sp.Learned(0.4, "softplus", shared=True)},
    "decay": lambda: {"tau_mem": sp.Learned(0.02, "decay"), "v_th": sp.Learned(0.4, Interval(0.1, 1.0))},
    "none": lambda: {"tau_mem": sp.Learned(0.02, "none"), "v_th": nn.Parameter(torch.full((3,), 0.4, device="mps"))},
    "drawn": lambda: {
        "tau_mem": log_normal(median=0.02, variation=0.3),
        "tau_syn": gamma(median=5e-3, variation=0.2),
        "v_th": uniform(mean=0.4, variation=0.2),
        "v_leak": TruncatedNormal(0.0, 0.05, -0.1, 0.1),
    },
    "learned and drawn": lambda: {
        "tau_mem": sp.Learned(log_normal(mean=0.02, variation=0.3)),
        "v_th": sp.Learned(TruncatedNormal(0.4, 0.1, 0.2, 0.6), Interval(0.1, 1.0)),
    },
}


@pytest.mark.parametrize("what", DECLARED)
def test_a_layer_is_built_used_changed_saved_and_loaded(device, what):
    declared = DECLARED[what]()
    layer = sp.LIFRecurrent(4, 3, sp.LIFParameters(**declared), device="mps")
    assert {t.device for t in layer.state_dict().values()} == {MPS}
    assert {t.dtype for t in layer.state_dict().values()} == {torch.float32}
    assert "tau_mem=" in repr(layer)

    x = (torch.rand(12, 2, 4, device="mps") < 0.6).float()
    spikes, state = layer(x)
    (spikes.sum() + state.v.sum()).backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())

    layer.p.tau_mem = 0.015
    layer.p.tau_syn = torch.tensor([4e-3, 5e-3, 6e-3], dtype=torch.float64)
    layer.p.validate()
    assert layer.p.tau_syn.tolist() == pytest.approx([4e-3, 5e-3, 6e-3], rel=1e-5)
    buffer = io.BytesIO()
    torch.save({name: t.cpu() for name, t in layer.state_dict().items()}, buffer)
    buffer.seek(0)
    stored = torch.load(buffer, weights_only=True)
    for how in (
        declared,
        {"tau_mem": sp.Learned(0.01, "decay"), "v_th": 0.3},
        {"tau_mem": sp.Learned(0.01), "v_th": 0.3},
    ):
        other = sp.LIFRecurrent(4, 3, sp.LIFParameters(**how), device="mps")
        other.load_state_dict(stored)
        assert other.p.tau_mem.flatten().tolist() == pytest.approx([0.015] * other.p.tau_mem.numel(), rel=1e-5)
        assert torch.equal(other(x)[0].cpu(), layer(x)[0].cpu())
        assert {t.device for t in other.state_dict().values()} == {MPS}
    for value in (sp.Learned(0.02, "softplus"), sp.Learned(log_normal(median=0.02, variation=0.2)), sp.Fixed(0.03)):
        layer.p.tau_mem = value
        assert layer.p.tau_mem_inv.device == MPS


@pytest.mark.parametrize("build", [sp.LIF, sp.LIFCell], ids=["LIF", "LIFCell"])
def test_under_a_default_device_without_float64(device, build, monkeypatch):
    monkeypatch.setattr(device, "is_default", True)
    monkeypatch.setattr(torch, "get_default_device", lambda: MPS)
    drawn = log_normal(median=0.02, variation=0.3)
    p = sp.LIFParameters(tau_mem=sp.Learned(drawn), tau_syn=sp.Fixed(5e-3), v_th=sp.Learned(0.4, "softplus"))
    module = build(p, size=3)
    assert {t.device for t in module.state_dict().values()} == {MPS}
    x = torch.rand(2, 3) if build is sp.LIFCell else torch.rand(4, 2, 3)
    assert x.device == MPS
    module(x)[0].sum().backward()
    module.p.tau_mem = gamma(mean=0.03, variation=0.1)
    assert module.p.tau_mem_inv.device == MPS


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = sp.ConstantCurrentLIFEncoder(8)
        p = sp.LIFParameters(tau_mem=sp.Learned(0.02), v_th=sp.Learned(0.4, Interval(0.1, 1.0)), method="tanh", alpha=1)
        self.hidden = sp.LIFRecurrent(5, 6, p, device="mps")
        self.readout = nn.Linear(6, 2, device="mps")
        self.out = sp.LI(sp.LIParameters(tau_syn=sp.Learned(6e-3, "decay", shared=True)), device="mps")

    def forward(self, images):
        voltages, _ = self.out(self.readout(self.hidden(self.encode(images))[0]))
        return torch.log_softmax(voltages.amax(0), dim=1)


def test_training_diagnostics_and_optimiser_groups(device, tmp_path):
    model = Classifier()
    split = sp.Split(3 * torch.rand(8, 5, device="mps"), (torch.arange(8) % 2).to("mps"))
    groups = sp.parameter_groups(model, 1e-3, {"tau_mem_inv": 1e-2})
    assert [group["name"] for group in groups] == ["weights", "tau_syn", "tau_mem", "v_th"]
    optimizer = torch.optim.SGD(groups)
    history = sp.fit(model, split, split, optimizer, 2, batch_size=4, progress=False)
    assert history.epochs == 2
    sp.validate_neuron_parameters(model)
    values = sp.learned_values(model)
    assert {value.device for value in values.values()} == {MPS}
    model(split.inputs).sum().backward()
    assert set(sp.gradient_to_value(model)) <= {name for name, _ in model.named_parameters()}
    assert set(sp.zero_gradients(model)) == set(values)
    spikes, _ = model.hidden(model.encode(split.inputs))
    assert sp.activity(spikes).neurons == 6


def test_distributions_answer_for_tensors_on_the_device(device):
    distribution = TruncatedNormal(0.4, 0.1, 0.2, 0.6)
    x = torch.tensor([0.1, 0.4, 0.7], device="mps")
    assert distribution.cdf(x).device == MPS
    assert distribution.cdf(x).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert distribution.icdf(torch.tensor([0.5], device="mps")).tolist() == pytest.approx([0.4])
    assert distribution.log_prob(x).tolist()[1] > 0
