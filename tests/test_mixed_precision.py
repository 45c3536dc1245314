"""Autocast before and after cells, layers and encoders, by hand and in the loops of Lightning and Accelerate."""

import warnings

import pytest
import torch
from test_equivalence import CELLS, KERNELS, LAYERS
from torch import nn
from torch.nn.functional import nll_loss

import snnparams as sp
from snnparams.training.models import decode, mnist_model

HALF = [torch.bfloat16, torch.float16]


def build(kind, kernel=None, method="super"):
    torch.manual_seed(0)
    options = {} if kind.endswith("Cell") else {"kernel": kernel}
    times = {"tau_mem": sp.Learned(0.01 + 0.01 * torch.rand(5)), "tau_syn": sp.Learned(5e-3)}
    if kind in ("LI", "LICell"):
        return getattr(sp, kind)(sp.LIParameters(**times), size=5, **options)
    p = sp.LIFParameters(**times, v_th=sp.Learned(0.2), method=method, alpha=2.0)
    if "Recurrent" in kind:
        return getattr(sp, kind)(5, 5, p, input_weights=3 * torch.rand(5, 5), **options)
    return getattr(sp, kind)(p, size=5, **options)


def gradients(module, x, dtype=None):
    """Return outputs and gradients, the forward pass under autocast to a type, the backward pass outside of it."""
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        out, state = module(leaf)
    loss = sum((t.flatten() * torch.arange(t.numel()).cos()).sum() for t in (out, *state))
    return [out, *state], torch.autograd.grad(loss, [leaf, *module.parameters()])


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("method", ["super", "adjoint"])
@pytest.mark.parametrize(
    ("kind", "kernel"), [(kind, kernel) for kind in LAYERS for kernel in KERNELS] + [(kind, None) for kind in CELLS]
)
def test_under_autocast_an_input_of_half_precision_counts_as_the_same_numbers_in_full(kind, kernel, method, dtype):
    if method == "adjoint" and kind in ("LI", "LICell"):
        pytest.skip("there is no such adjoint")
    if kernel == "triton" and torch.cuda.is_available():
        pytest.skip("this one is about CPUs")
    module = build(kind, kernel, method)
    x = 2 * torch.rand(7, 3, 5).to(dtype)
    x = x[0] if kind.endswith("Cell") else x
    expected, expected_gradients = gradients(module, x.float())
    found, found_gradients = gradients(module, x, dtype)
    assert {t.dtype for t in found} == {torch.float32}
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
    assert found_gradients[0].dtype == dtype
    assert torch.equal(found_gradients[0], expected_gradients[0].to(dtype))
    for a, b in zip(found_gradients[1:], expected_gradients[1:], strict=True):
        assert torch.equal(a, b)
    with pytest.raises(TypeError, match=f"input: expected torch.float32, the type of the parameters, got {dtype}"):
        module(x)
    with torch.autocast("cpu", dtype=dtype), pytest.raises(TypeError, match=r"got torch\.float64"):
        module(x.double())
    with torch.autocast("cpu", dtype=dtype), pytest.raises(TypeError, match=r"got torch\.int64"):
        module(x.long())


@pytest.mark.parametrize("kind", LAYERS + CELLS)
def test_a_state_that_a_product_of_half_precision_made_is_widened_too(kind):
    module, x = build(kind), torch.rand(7, 3, 5)
    x = x[0] if kind.endswith("Cell") else x
    states = type(module(x)[1])
    half = [torch.rand(3, 5).bfloat16() for _ in states._fields]
    expected, _ = module(x, states(*(t.float() for t in half)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(x, states(*half))[0], expected)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo])
def test_an_encoder_behind_a_product_of_half_precision(layout, dtype):
    linear, encode = nn.Linear(6, 4), sp.ConstantCurrentLIFEncoder(20, sp.LIFParameters(v_th=0.2), layout=layout)
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        currents = linear(3 * torch.rand(2, 6))
        spikes = encode(currents)
    assert currents.dtype == dtype
    assert spikes.dtype == torch.float32
    assert torch.equal(spikes.to_dense(), encode(currents.float()).to_dense())
    assert spikes.to_dense().sum() > 0


class Classifier(nn.Module):
    """Products before, between and behind layers, so that autocast meets each."""

    def __init__(self):
        super().__init__()
        p = sp.LIFParameters(tau_mem=sp.Learned(10e-3), v_th=sp.Learned(0.3), alpha=5.0)
        self.first, self.hidden = nn.Linear(12, 16), sp.LIF(p, size=16)
        self.recurrent = sp.LIFRecurrent(16, 16, p)
        self.last, self.out = nn.Linear(16, 3), sp.LI()

    def forward(self, x):
        z, _ = self.hidden(self.first(x).expand(10, -1, -1))
        z, _ = self.recurrent(z)
        return decode(self.out(self.last(z))[0])


def data():
    """Return three clouds of points that a small network learns to tell apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 3
    return torch.randn(96, 12, generator=generator) + 3 * nn.functional.one_hot(labels, 12), labels


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_lightning_trains_in_mixed_precision(tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.losses = Classifier(), []

        def training_step(self, batch, _):
            loss = nll_loss(self.net(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(sp.parameter_groups(self.net, lr=1e-2))

    torch.manual_seed(0)
    module = Module()
    before = module.net.hidden.p.tau_mem.clone()
    trainer = lightning.Trainer(
        accelerator="cpu", precision="bf16-mixed", max_epochs=15, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=32))
    assert sum(module.losses[-3:]) < 0.5 * sum(module.losses[:3])
    assert (module.net.hidden.p.tau_mem != before).any()
    assert module.net.hidden.p.tau_mem.dtype == torch.float32


@pytest.mark.filterwarnings("ignore")  # Accelerate's own
def test_accelerate_trains_in_mixed_precision():
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    net = Classifier()
    optimizer = torch.optim.Adam(sp.parameter_groups(net, lr=1e-2))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=32)
    net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    losses = []
    for _ in range(15):
        for x, labels in loader:
            optimizer.zero_grad()
            loss = nll_loss(net(x), labels)
            accelerator.backward(loss)
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_a_gradient_scaler_scales_and_unscales():
    """What float16 needs on a GPU; here by hand, with its factor, because a CPU has no such scaler in all versions."""
    net, (x, labels) = Classifier(), data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autocast("cpu", dtype=torch.float16):
            loss = nll_loss(net(x), labels)
    plain = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    scaled = torch.autograd.grad(1024 * loss, list(net.parameters()))
    for a, b in zip(scaled, plain, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a / 1024, b, rtol=2e-2, atol=2e-2 * b.abs().max().item() + 1e-6)


def test_chapter_4s_model_runs_under_autocast():
    model = mnist_model(sp.LIFParameters(v_th=0.3), hidden_features=8, seq_length=4)
    images = torch.randint(256, (2, 28, 28), dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_p = model(images)
    assert log_p.shape == (2, 10)
    torch.testing.assert_close(log_p.float().exp().sum(dim=1), torch.ones(2), rtol=1e-2, atol=1e-2)
