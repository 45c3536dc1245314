import io
import math
import os

import pytest
import torch

import snnparams as sp
from snnparams.training import loop


class Classifier(torch.nn.Module):
    """A small spiking classifier of 8x8 images in two classes."""

    def __init__(self, **learned):
        super().__init__()
        self.encoder = sp.ConstantCurrentLIFEncoder(12)
        p = sp.LIFParameters(**learned, v_th=0.5, alpha=1.0)
        self.hidden, self.readout, self.out = sp.LIFRecurrent(64, 12, p), torch.nn.Linear(12, 2), sp.LI()
        self.noise = 0.0

    def forward(self, images):
        currents = images.flatten(1) / 80.0
        z, _ = self.hidden(self.encoder(currents + self.noise * torch.randn_like(currents)))
        v, _ = self.out(self.readout(z))
        return torch.log_softmax(v.max(0).values, dim=1)


def two_classes(n, seed):
    """Bright left halves against bright right halves."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 120, (n, 8, 8), generator=generator)
    labels = torch.arange(n) % 2
    images[labels == 0, :, :4] += 120
    images[labels == 1, :, 4:] += 120
    return sp.Split(images.to(torch.uint8), labels)


@pytest.fixture
def model():
    return Classifier(tau_mem_inv=torch.nn.Parameter(torch.full((12,), 100.0)))


def setup(model, seed=3):
    return torch.optim.Adam(model.parameters(), lr=5e-3), torch.Generator().manual_seed(seed)


def test_learns_a_task_far_above_chance(model):
    optimizer, generator = setup(model)
    tau = model.hidden.p.tau_mem_inv.detach().clone()
    history = sp.fit(model, two_classes(200, 0), two_classes(100, 1), optimizer, 8, generator, batch_size=20)
    assert history.epochs == 8
    assert len(history.train_losses) == 80
    assert history.accuracies[-1] >= 0.95
    assert history.test_losses[-1] < history.test_losses[0]
    assert (model.hidden.p.tau_mem_inv != tau).all()
    (name,) = history.neuron_parameters
    records = torch.tensor(history.neuron_parameters[name])
    assert name == "hidden.p.tau_mem_inv"
    assert records.shape == (9, 12)
    assert torch.equal(records[0], tau)
    assert torch.equal(records[-1], model.hidden.p.tau_mem_inv.detach())


def test_evaluate_against_a_direct_computation(model):
    split = two_classes(37, 2)
    with torch.no_grad():
        log_p = model(split.inputs)
    expected_loss = -log_p[torch.arange(37), split.labels].mean().item()
    result = sp.evaluate(model, split, batch_size=10)
    assert result.loss == pytest.approx(expected_loss, rel=1e-5)
    assert result.accuracy == (log_p.argmax(1) == split.labels).double().mean().item()
    assert model.training
    model.eval()
    sp.evaluate(model, split)
    assert not model.training


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_evaluate_refuses_what_would_make_silent_neurons(model, wrong):
    split = two_classes(37, 2)
    sp.evaluate(model, split)
    with torch.no_grad():
        model.hidden.input_weights[1, 2] = wrong
    with pytest.raises(ValueError, match=r"hidden\.input_weights: expected finite numbers, got one that is not"):
        sp.evaluate(model, split)


def test_evaluate_refuses_a_time_constant_that_has_left_its_range(model):
    model.hidden.p.tau_mem_inv.data.fill_(-50.0)
    with pytest.raises(ValueError, match=r"hidden\.p\.tau_mem_inv: expected positive values, got -50"):
        sp.evaluate(model, two_classes(37, 2))


def test_same_seed_same_numbers():
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        model = Classifier()
        optimizer, generator = setup(model)
        runs.append(sp.train(model, two_classes(60, 0), optimizer, generator, batch_size=16))
    assert runs[0] == runs[1]
    assert len(runs[0]) == math.ceil(60 / 16)


@pytest.mark.parametrize("own_generator", [True, False])
def test_a_killed_run_goes_on_with_the_same_numbers(tmp_path, own_generator):
    def start():
        torch.manual_seed(5)
        model = Classifier(tau_mem_inv=torch.nn.Parameter(torch.full((12,), 100.0)))
        model.noise = 0.1  # draws from the global generator
        optimizer, generator = setup(model)
        return model, optimizer, generator if own_generator else None

    data = two_classes(60, 0), two_classes(20, 1)
    model, optimizer, generator = start()
    whole = sp.fit(model, *data, optimizer, 4, generator)

    path = tmp_path / "runs" / "a.pt"
    first, optimizer, generator = start()
    sp.fit(first, *data, optimizer, 2, generator, checkpoint=path)
    second, optimizer, generator = start()
    torch.manual_seed(99)  # another process has another global state
    resumed = sp.fit(second, *data, optimizer, 4, generator, checkpoint=path)
    assert resumed == whole
    assert torch.equal(second.hidden.p.tau_mem_inv, model.hidden.p.tau_mem_inv)
    assert os.listdir(path.parent) == ["a.pt"]

    with pytest.raises(ValueError, match="epochs: expected at least the 4 of the checkpoint"):
        sp.fit(second, *data, optimizer, 3, generator, checkpoint=path)
    with pytest.raises(ValueError, match="generator: expected one as in the checkpoint"):
        sp.fit(second, *data, optimizer, 4, None if own_generator else setup(model)[1], checkpoint=path)
    other = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="Missing key"):
        sp.fit(other, *data, torch.optim.Adam(other.parameters()), 4, generator, checkpoint=path)


def test_the_checkpoint_of_another_optimiser_is_refused_and_changes_nothing(model, tmp_path):
    data, path = (two_classes(40, 0), two_classes(20, 1)), tmp_path / "run.pt"
    sp.fit(model, *data, setup(model)[0], 1, checkpoint=path)
    other = Classifier(tau_mem_inv=torch.nn.Parameter(torch.full((12,), 80.0)))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    for optimizer in (
        torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9),
        torch.optim.Adam(list(other.parameters())[:-1]),
    ):
        with pytest.raises(ValueError, match=r"optimizer: expected one as in the checkpoint .*run\.pt, with groups of"):
            sp.fit(other, *data, optimizer, 2, checkpoint=path)
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_the_checkpoint_of_a_network_of_another_size_is_refused_and_changes_nothing(tmp_path):
    class OfItsOwn(sp.Sequential):
        """With time as its first axis; its loss needs no batch."""

    def network(hidden):
        neurons = sp.LIF(sp.LIFParameters(v_th=torch.full((hidden,), 0.5) if hidden == 6 else 0.4))
        return OfItsOwn(torch.nn.Linear(4, 3), torch.nn.Linear(3, hidden), neurons, torch.nn.Linear(hidden, 2))

    def fit(module, epochs, callback):
        more = {"checkpoint": tmp_path / "run.pt", "callbacks": [callback], "progress": False}
        data = sp.Split(torch.rand(6, 5, 4), torch.arange(6) % 2)
        sp.fit(
            module,
            data,
            data,
            torch.optim.SGD(module.parameters(), lr=0.1),
            epochs,
            loss=lambda out, labels: out[0].square().mean(),
            **more,
        )

    fit(network(6), 1, Keeping())
    for other, message in ((network(8), "size mismatch"), (network(6), "no state of mine")):
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(RuntimeError, match=message):
            fit(other, 2, Keeping())
        for name, value in other.state_dict().items():
            assert value.shape == before[name].shape
            assert torch.equal(value, before[name]), name


class Keeping:
    """A callback that does not take back what it saved."""

    def __call__(self, module, history):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        raise RuntimeError("no state of mine")


def test_a_crash_while_writing_keeps_the_last_whole_checkpoint(model, tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    optimizer, generator = setup(model)
    data = two_classes(40, 0), two_classes(20, 1)
    sp.fit(model, *data, optimizer, 1, generator, checkpoint=path)
    kept = path.read_bytes()

    def crash(state, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        sp.fit(model, *data, optimizer, 2, generator, checkpoint=path)
    assert path.read_bytes() == kept


def test_progress_bars_are_for_a_screen_and_can_be_switched_off(model, monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    def shown(progress):
        screen = Screen()
        monkeypatch.setattr("sys.stderr", screen)
        optimizer, generator = setup(model)
        sp.fit(model, two_classes(40, 0), two_classes(20, 1), optimizer, 1, generator, progress=progress)
        return screen.getvalue()

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert "accuracy=" in shown(progress=True)
    assert shown(progress=False) == ""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert shown(progress=True) == ""


def test_a_network_of_nans_is_noticed_although_its_loss_is_finite(model):
    optimizer, generator = setup(model)
    with torch.no_grad():
        model.hidden.input_weights.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="batch 1: expected finite gradients, got one that is not for hidden"):
        sp.train(model, two_classes(20, 0), optimizer, generator)


def test_evaluation_restores_every_module_and_a_refused_checkpoint_changes_nothing(model, tmp_path):
    model.norm = torch.nn.BatchNorm1d(3)
    model.norm.eval()
    sp.evaluate(model, two_classes(10, 0))
    assert model.training
    assert not model.norm.training
    with pytest.raises(ValueError, match="input"):
        sp.evaluate(model, sp.Split(torch.zeros(4, 3, 3), torch.zeros(4, dtype=torch.int64)))
    assert model.training
    assert not model.norm.training

    path = tmp_path / "a.pt"
    data = two_classes(40, 0), two_classes(20, 1)
    sp.fit(model, *data, *setup(model)[:1], 2, setup(model)[1], checkpoint=path)
    with torch.no_grad():
        model.readout.weight.zero_()
    with pytest.raises(ValueError, match="epochs: expected at least the 2"):
        sp.fit(model, *data, *setup(model)[:1], 1, setup(model)[1], checkpoint=path)
    assert model.readout.weight.abs().sum() == 0


def test_what_stops_a_training(model):
    optimizer, _ = setup(model)
    split = two_classes(20, 0)
    for bad in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=f"batch_size: expected a positive integer, got {bad}"):
            sp.train(model, split, optimizer, batch_size=bad)
        with pytest.raises(ValueError, match=f"batch_size: expected a positive integer, got {bad}"):
            sp.evaluate(model, split, batch_size=bad)
    with pytest.raises(ValueError, match="expected as many labels as images and at least one, got 20 images and 3"):
        sp.train(model, sp.Split(split.inputs, split.labels[:3]), optimizer)
    with pytest.raises(ValueError, match="got 0 images and 0 labels"):
        sp.evaluate(model, sp.Split(split.inputs[:0], split.labels[:0]))
    broken = split.inputs.float()
    broken[3, 2, :2] = math.nan
    for use in (sp.evaluate, lambda *given: sp.train(*given, optimizer)):
        with pytest.raises(ValueError, match="images: expected finite values, got 2 that are not"):
            use(model, sp.Split(broken, split.labels))
    for bad in (-1, 1.0, True):
        with pytest.raises(ValueError, match=f"epochs: expected an integer of at least 0, got {bad}"):
            sp.fit(model, split, split, optimizer, bad)

    fast = torch.optim.SGD(model.parameters(), lr=1e9)
    with pytest.raises(ValueError, match=r"hidden\.p\.tau_mem_inv: expected"):
        sp.train(model, split, fast)

    with torch.no_grad():
        model.readout.weight.fill_(math.nan)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match="batch 1: expected a finite loss, got nan"):
        sp.train(model, split, optimizer)
    assert all(torch.equal(a, b) or a.isnan().all() for a, b in zip(before, model.parameters(), strict=True))


class Words(torch.nn.Module):
    """A classifier of sequences of words, whose embedding has sparse gradients."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = torch.nn.Embedding(10, 3, sparse=True), sp.LI()

    def forward(self, words):
        return torch.log_softmax(self.out(self.embedding(words).transpose(0, 1))[0][-1], dim=1)


def test_sparse_gradients_are_checked_as_dense_ones_are():
    words = sp.Split(torch.randint(0, 10, (6, 4)), torch.randint(0, 3, (6,)))
    sparse, dense = Words(), Words()
    dense.embedding = torch.nn.Embedding(10, 3, _weight=sparse.embedding.weight.detach().clone())
    losses = []
    for model in (sparse, dense):
        losses.append(sp.train(model, words, torch.optim.SGD(model.parameters(), lr=0.1), torch.Generator()))
    assert losses[0] == losses[1]
    assert sparse.embedding.weight.grad.is_sparse
    torch.testing.assert_close(sparse.embedding.weight, dense.embedding.weight)
    ratios = [sp.gradient_to_value(model)["embedding.weight"] for model in (sparse, dense)]
    assert ratios[0] == pytest.approx(ratios[1])

    half = torch.full((2, 3), torch.finfo(torch.float32).max)  # each is finite, their sum is not
    sparse.embedding.weight.grad = torch.sparse_coo_tensor([[1, 1]], half, (10, 3), check_invariants=True)
    with pytest.raises(FloatingPointError, match=r"batch 4: .* for embedding\.weight"):
        loop._check_gradients(sparse, 4)
