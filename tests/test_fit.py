"""What `fit` does besides training: schedules, early stopping, best values, callbacks, data of every kind."""

import copy
import math
import random
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

import snnparams as sp


def model(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    p = sp.LIFParameters(tau_mem=sp.Learned(0.02), v_th=0.3, alpha=5.0)
    return Steps(sp.Sequential(sp.LIFRecurrent(4, 8, p), nn.Dropout(dropout), nn.Linear(8, 2), sp.LI())).double()


class Steps(nn.Module):
    """Turns inputs (B, T, I) into log-probabilities (B, 2)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.transpose(0, 1))[0].amax(0).log_softmax(1)


class Raw(Steps):
    """Returns voltages, which are no log-probabilities."""

    def forward(self, x):
        return self.network(x.transpose(0, 1))[0].amax(0)


def data(n=60, seed=1):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    rates = torch.tensor([[0.6, 0.6, 0.1, 0.1], [0.1, 0.1, 0.6, 0.6]])[labels]
    spikes = torch.rand(n, 12, 4, generator=generator) < rates[:, None]
    return sp.Split(spikes.double(), labels)


def adam(module):
    return torch.optim.Adam(module.parameters(), lr=1e-2)


def fit(module, epochs=4, **more):
    optimizer = more.pop("optimizer", None) or adam(module)
    more.setdefault("generator", torch.Generator().manual_seed(7))
    return sp.fit(module, data(), data(30, 2), optimizer, epochs, batch_size=20, progress=False, **more)


class Count:
    """A callback with a state."""

    def __init__(self):
        self.seen = []

    def __call__(self, module, history):
        self.seen.append(history.test_losses[-1])

    def state_dict(self):
        return {"seen": list(self.seen)}

    def load_state_dict(self, state):
        self.seen = state["seen"]


SCRIPT = """
import os, signal, sys
sys.path[:0] = {paths!r}
import torch
from test_fit import Count, adam, everything, fit, model

def kill(module, history):
    if history.epochs == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
everything(model(), sys.argv[1], last=kill)
"""


@pytest.fixture
def one_thread():
    """Compute as the process that is killed does: sums of several threads are added in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def everything(module, checkpoint, epochs=5, last=None):
    """Fit with all that has a state, and return the history, the scheduler and a callback that has one."""
    optimizer, count = adam(module), Count()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.5)
    callbacks = [count, last or (lambda module, history: None)]
    torch.manual_seed(11)
    history = fit(
        module,
        epochs,
        optimizer=optimizer,
        scheduler=scheduler,
        clip=0.5,
        restore_best=True,
        patience=4,
        callbacks=callbacks,
        checkpoint=checkpoint,
    )
    return history, scheduler, count


@pytest.mark.slow
def test_a_killed_process_goes_on_with_the_same_numbers(tmp_path, one_thread):
    whole_model, killed_model = model(), model(seed=5)
    whole, scheduler, count = everything(whole_model, None)
    paths = [str(__import__("pathlib").Path(__file__).parent), str(__import__("pathlib").Path(sp.__file__).parents[1])]
    script, path = SCRIPT.format(paths=paths), tmp_path / "run.pt"
    killed = subprocess.run([sys.executable, "-c", script, path, "3"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert torch.load(path)["history"]["accuracies"] == whole.accuracies[:2]
    resumed, other_scheduler, other_count = everything(killed_model, path)
    assert resumed == whole
    assert other_count.seen == count.seen == whole.test_losses
    assert other_scheduler.state_dict() == scheduler.state_dict()
    for (name, expected), got in zip(whole_model.state_dict().items(), killed_model.state_dict().values(), strict=True):
        assert torch.equal(expected, got), name
    assert len({tuple(rates) for rates in whole.learning_rates}) > 1


def test_a_schedule_and_a_norm_of_gradients():
    module = model(dropout=0.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.2)
    scheduler = lr_scheduler.StepLR(optimizer, 2, 0.1)
    norms = []

    def before_step(*_):
        norms.append(nn.utils.get_total_norm([p.grad for p in module.parameters()]))

    optimizer.register_step_pre_hook(before_step)
    history = fit(module, 3, optimizer=optimizer, scheduler=scheduler, clip=0.01)
    assert [rates[0] for rates in history.learning_rates] == pytest.approx([0.2, 0.2, 0.02])
    assert torch.stack(norms).max() == pytest.approx(0.01, rel=1e-3)


def test_patience_ends_a_run_and_the_best_values_come_back(tmp_path):
    module, values = model(dropout=0.0), []

    def worse(module, history):
        values.append(copy.deepcopy(module.state_dict()))
        if history.epochs >= 2:  # from here on it gets worse
            module.network[2].weight.data.mul_(-3)

    history = fit(module, 12, callbacks=[worse], patience=3, restore_best=True, checkpoint=tmp_path / "run.pt")
    best = history.best_epoch
    assert history.epochs == best + 3 < 12
    saved = torch.load(tmp_path / "run.pt")
    for name, value in module.state_dict().items():
        assert torch.equal(value, values[best - 1][name])
        assert torch.equal(saved["best"][name], value)
    loss = sp.evaluate(module, data(30, 2)).loss
    assert loss == pytest.approx(min(history.test_losses))
    again = fit(model(), 12, callbacks=[worse], patience=3, restore_best=True, checkpoint=tmp_path / "run.pt")
    assert again == history  # a run that has stopped stays so


def test_a_callback_can_end_a_run(tmp_path):
    def enough(module, history):
        return history.epochs == 2

    history = fit(model(), 5, callbacks=[enough], checkpoint=tmp_path / "run.pt")
    assert (history.epochs, history.stopped) == (2, "enough")
    assert "stopped by enough" in repr(history)
    assert fit(model(), 5, callbacks=[enough], checkpoint=tmp_path / "run.pt") == history
    again = fit(model(), np.int64(6), callbacks=[enough], checkpoint=tmp_path / "run.pt")  # who asks for more gets more
    assert (again.epochs, again.stopped) == (6, "")
    assert again == fit(model(), 6)


def test_a_run_that_was_ended_a_second_time_stays_ended_too(tmp_path):
    for epochs, reached in ((5, 1), (7, 2), (7, 2), (8, 3)):
        history = fit(model(), epochs, callbacks=[lambda *_: True], checkpoint=tmp_path / "run.pt")
        assert (history.epochs, history.stopped) == (reached, "<lambda>")


class Pairs(Dataset):
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split.labels)

    def __getitem__(self, k):
        return self.split.inputs[k], self.split.labels[k]


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*data(), strict=True)


def test_tensors_data_sets_and_loaders_give_the_same_numbers(tmp_path):
    train, test = data(), data(30, 2)

    def run(train, test, generator, epochs=2, **more):
        module = model(dropout=0.0)
        found = sp.fit(module, train, test, adam(module), epochs, generator, 20, progress=False, **more)
        return found.train_losses, found.test_losses

    def generator():
        return torch.Generator().manual_seed(7)

    of_sets = run(TensorDataset(*train), Pairs(test), generator())
    shuffled = DataLoader(TensorDataset(*train), 20, shuffle=True, generator=generator())
    assert run(shuffled, DataLoader(Pairs(test), 30), None)[0] == of_sets[0]
    in_order = DataLoader(Pairs(train), 20)
    assert run(in_order, test, None) == run(DataLoader(Stream(), 20), test, None) == run(Stream(), test, None)
    assert run(Pairs(train), test, generator())[1] == pytest.approx(of_sets[1], rel=1e-12)

    loader = DataLoader(TensorDataset(*train), 20, shuffle=True, generator=generator())
    run(loader, test, None, 1, checkpoint=tmp_path / "run.pt")
    fresh = DataLoader(TensorDataset(*train), 20, shuffle=True, generator=torch.Generator().manual_seed(99))
    resumed = run(fresh, test, None, 2, checkpoint=tmp_path / "run.pt")
    whole = DataLoader(TensorDataset(*train), 20, shuffle=True, generator=generator())
    assert resumed == run(whole, test, None, 2)


def test_a_loss_of_ones_own_and_numbers_in_place_of_classes():
    spikes, _ = data()
    targets = spikes.mean((1, 2))
    torch.manual_seed(0)
    network = sp.Sequential(sp.LIFRecurrent(4, 8), nn.Linear(8, 1), sp.LI()).double()

    def decode(out):
        return out[0].mean(0)[:, 0]

    def loss(outputs, labels):
        return (outputs - labels).square().mean()

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x.transpose(0, 1))

    module = First()
    split = sp.Split(spikes, targets)
    history = sp.fit(module, split, split, adam(module), 3, progress=False, loss=loss, decode=decode)
    assert math.isnan(history.accuracies[-1])
    assert "accuracy" not in repr(history)
    with torch.no_grad():
        expected = loss(decode(module(spikes)), targets).item()
    assert history.test_losses[-1] == pytest.approx(expected)
    raw = First()
    raw.network = model().network
    cross_entropy = {"loss": nn.functional.cross_entropy, "decode": lambda out: out[0].amax(0)}
    crossed = sp.fit(raw, data(), data(), adam(raw), 1, progress=False, **cross_entropy)
    assert 0 <= crossed.accuracies[0] <= 1


def test_the_history_prints_in_a_line_and_plots_itself():
    history = sp.History([0.9, 0.8, 0.5, 0.4], [0.6, 0.7], [0.75, 0.5])
    assert repr(history) == "History(2 epochs, test loss 0.7, accuracy 50.0%; lowest test loss 0.6 in epoch 1)"
    assert repr(sp.History()) == "History(no epoch)"
    losses, accuracies = history.plot()
    batches, test = losses.lines
    assert batches.get_xydata().tolist() == [[0.5, 0.9], [1.0, 0.8], [1.5, 0.5], [2.0, 0.4]]
    assert test.get_xydata().tolist() == [[1, 0.6], [2, 0.7]]
    assert accuracies.lines[0].get_xydata().tolist() == [[1, 75], [2, 50]]
    plt.close(losses.figure)
    of_two = sp.History([[0.9, 0.7]], [[0.6, 0.5]], [[0.75, 1.0]])
    assert of_two.member(1) == sp.History([0.7], [0.5], [1.0])
    assert repr(of_two).startswith("History(1 epochs of 2 members, test loss 0.5 to 0.6, accuracy 75.0% to 100.0%;")
    assert len(of_two.plot()[0].lines) == 4
    plt.close("all")
    with pytest.raises(ValueError, match="expected at least one epoch, got none"):
        sp.History().plot()
    with pytest.raises(ValueError, match=r"got the history of an ensemble; use member\(k\)"):
        of_two.best_epoch  # noqa: B018
    with pytest.raises(ValueError, match="expected the history of an ensemble, got that of one model"):
        history.member(0)


class OfItsOwn(sp.Sequential):
    """A network whose class might exchange axes: only what it returns can show that it does not."""


def test_outputs_that_are_no_log_probabilities():
    module = Raw(model().network)
    with pytest.raises(ValueError, match="expected log-probabilities, of probabilities whose sum is 1, got a sum of"):
        fit(module)
    with pytest.raises(ValueError, match=r"loss=nn\.functional\.cross_entropy"):
        sp.evaluate(module, data())
    with pytest.raises(TypeError, match=r"expected log-probabilities \(B, classes\), got tuple; give decode="):
        sp.evaluate(OfItsOwn(sp.LIF()).double(), data())
    for loss in (nn.functional.cross_entropy, nn.CrossEntropyLoss()):
        with pytest.raises(TypeError, match=r"expected a tensor of scores .*, got tuple; give decode="):
            sp.evaluate(OfItsOwn(sp.LIF()).double(), data(), loss=loss)
        first = r"got shape \(60,\); the model returned .* of which the first axis has to be the batch"
        with pytest.raises(ValueError, match=first):
            sp.evaluate(OfItsOwn(*model().network), data(), loss=loss, decode=lambda out: out[0].amax(0))


def test_bad_input(tmp_path):
    module = model()
    other = torch.optim.SGD(model().parameters(), lr=0.1)
    for more, error, message in (
        ({"clip": 0}, ValueError, "clip: expected a positive, finite norm or None, got 0"),
        ({"clip": math.nan}, ValueError, "clip: expected a positive, finite norm or None, got nan"),
        ({"patience": 0}, ValueError, "patience: expected a positive number of epochs or None, got 0"),
        ({"scheduler": "cosine"}, TypeError, "scheduler: expected one of torch.optim.lr_scheduler, got str"),
        ({"scheduler": lr_scheduler.StepLR(other, 1)}, ValueError, "scheduler: expected one of the optimiser that is"),
        ({"callbacks": [3]}, TypeError, "callbacks: expected functions of model and history, got int"),
        ({"loss": "mse"}, TypeError, "loss: expected a function of outputs and labels, got str"),
        (
            {"loss": lambda out, y: out},
            TypeError,
            r"expected it to return one number as a tensor.* got shape \(20, 2\)",
        ),
        (
            {"loss": lambda out, y: torch.tensor(1.0)},
            ValueError,
            "loss: expected a number with a gradient, got one that",
        ),
        ({"decode": lambda out: out.detach()}, ValueError, "loss: expected a number with a gradient, got one that"),
        ({"generator": [torch.Generator()]}, ValueError, "generator: expected one generator for one model, got 1"),
    ):
        with pytest.raises(error, match=message):
            fit(module, **more)
    loader = DataLoader(TensorDataset(*data()), 20)
    for given, generator, error, message in (
        (loader, torch.Generator(), ValueError, "generator: expected None with a DataLoader, which draws the order"),
        (
            Stream(),
            torch.Generator(),
            ValueError,
            "generator: expected None with an IterableDataset, which comes in its",
        ),
        (data().inputs, None, TypeError, "data: expected a Split, a Dataset or a DataLoader, got Tensor"),
        (DataLoader(data().inputs, 20), None, TypeError, "expected batches of two, inputs and labels, got Tensor"),
        (DataLoader(TensorDataset(data().inputs), 9), None, TypeError, "expected batches of two, .* got 1 of them"),
    ):
        with pytest.raises(error, match=message):
            sp.train(module, given, adam(module), generator, progress=False)
    with pytest.raises(ValueError, match="data: expected at least one batch, got none"):
        sp.evaluate(module, DataLoader(TensorDataset(*data()), 100, drop_last=True))

    fit(model(), 1, checkpoint=tmp_path / "run.pt", callbacks=[Count()])
    for more, name in (
        ({"callbacks": []}, "callbacks"),
        ({"callbacks": [Count()], "restore_best": True}, "restore_best"),
        ({"callbacks": [Count()], "generator": None}, "generator"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected one as in the checkpoint .* got"):
            fit(module, checkpoint=tmp_path / "run.pt", **more)
    optimizer = adam(module)
    with pytest.raises(ValueError, match="scheduler: expected one as in the checkpoint"):
        fit(
            module,
            optimizer=optimizer,
            scheduler=lr_scheduler.StepLR(optimizer, 1),
            callbacks=[Count()],
            checkpoint=tmp_path / "run.pt",
        )


class Drawn(Dataset):
    """Spikes that are drawn anew whenever they are asked for, by PyTorch, NumPy or Python."""

    def __init__(self, by):
        self.by = by

    def __len__(self):
        return 30

    def __getitem__(self, k):
        if self.by == "torch":
            chance = torch.rand(12, 4)
        elif self.by == "numpy":
            chance = torch.from_numpy(np.random.rand(12, 4))  # noqa: NPY002, the global one, as others use it
        else:
            chance = torch.tensor([[random.random() for _ in range(4)] for _ in range(12)])
        rates = torch.tensor([0.6, 0.6, 0.1, 0.1] if k % 2 else [0.1, 0.1, 0.6, 0.6])
        return (chance < rates).double(), torch.tensor(k % 2)


def stopped(module, history):
    if history.epochs == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("by", ["torch", "numpy", "python"])
def test_random_data_go_on_as_well(tmp_path, by, own, workers):
    if workers and sys.platform != "linux":
        pytest.skip("these workers are forked")

    def run(checkpoint, last, seed=3):
        module = model(seed)
        np.random.seed(4)  # noqa: NPY002
        random.seed(5)
        loaders = []
        for k in range(2):
            how = {"generator": torch.Generator().manual_seed(k)} if own else {}
            loaders.append(DataLoader(Drawn(by), 10, shuffle=not k, num_workers=workers, **how))
        options = {"checkpoint": checkpoint, "callbacks": [lambda module, history: None, last], "progress": False}
        return sp.fit(module, *loaders, adam(module), 3, **options)

    def never(module, history):
        pass

    whole = run(None, never)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run.pt", stopped)
    assert run(tmp_path / "run.pt", never, seed=9) == whole


def test_a_distributed_sampler_draws_another_order_in_every_epoch():
    tensors, orders = TensorDataset(*data()), []

    class Seen(DistributedSampler):
        def __iter__(self):
            orders.append(list(super().__iter__()))
            return iter(orders[-1])

    loader = DataLoader(tensors, 20, sampler=Seen(tensors, num_replicas=2, rank=0))
    module = model()
    sp.fit(module, loader, data(30, 2), adam(module), 3, progress=False)
    assert len(orders) == 3
    assert orders[0] != orders[1] != orders[2] != orders[0]


DISTRIBUTED = """
import sys
sys.path[:0] = {paths!r}
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
import snnparams as sp
from test_fit import adam, data, model

torch.distributed.init_process_group("gloo")
torch.set_num_threads(1)
rank = torch.distributed.get_rank()


def run(epochs, checkpoint):
    network = DistributedDataParallel(model())
    torch.manual_seed(rank)  # dropout differs between the processes
    tensors = TensorDataset(*data())
    loader = DataLoader(tensors, 10, sampler=DistributedSampler(tensors))
    return sp.fit(network, loader, data(30, 2), adam(network), epochs, progress=False, checkpoint=checkpoint)


whole = run(4, None)
run(2, sys.argv[1])
torch.distributed.barrier()
again = run(4, sys.argv[1])
assert again == whole
state = torch.load(sys.argv[1])
assert len(state["others"]) == 1
assert not torch.equal(state["random"], state["others"][0]["random"])
print("the same")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_several_processes_go_on_with_the_same_numbers(tmp_path):
    paths = [str(Path(__file__).parent), str(Path(sp.__file__).parents[1])]
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED.format(paths=paths))
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run([sys.executable, *launch, script, tmp_path / "run.pt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same") == 2
    with pytest.raises(ValueError, match=r"checkpoint: expected the 2 processes that wrote .*run.pt, got 1"):
        fit(model(), checkpoint=tmp_path / "run.pt")


class Best(Count):
    """A callback whose state is a number of NumPy's."""

    def __call__(self, module, history):
        self.seen = [np.max(history.accuracies)]


@pytest.mark.parametrize("kind", ["optimizer", "scheduler", "callback"])
def test_numbers_of_numpy_are_kept(kind, tmp_path):
    def run(epochs, path):
        module = model()
        rate = np.logspace(-3, -1, 3)[1] if kind == "optimizer" else 1e-2
        optimizer = torch.optim.Adam(module.parameters(), lr=rate)
        at = np.array([1, 2]) if kind == "scheduler" else [1, 2]
        schedule = lr_scheduler.MultiStepLR(optimizer, at)
        return fit(module, epochs, optimizer=optimizer, scheduler=schedule, callbacks=[Best()], checkpoint=path)

    run(2, tmp_path / "run.pt")
    assert run(4, tmp_path / "run.pt") == run(4, None)
    torch.load(tmp_path / "run.pt", weights_only=True)


class Holder(Count):
    """A callback with a given state."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def state_dict(self):
        return {"seen": self.state}


@pytest.mark.parametrize(("state", "reason"), [(np.array([1.0]), "numpy"), (defaultdict(int, {1: 2}), "defaultdict")])
def test_a_state_that_no_file_can_hold_is_refused_in_the_first_epoch_by_name(tmp_path, state, reason):
    with pytest.raises(TypeError, match=f"callbacks: expected a state of numbers, .* got another: .*{reason}"):
        fit(model(), checkpoint=tmp_path / "run.pt", callbacks=[Holder(state)])
    assert not (tmp_path / "run.pt").exists()


def test_a_run_does_not_go_on_with_another_kind_of_scheduler(tmp_path):
    def run(kind, **options):
        module = model()
        optimizer = adam(module)
        fit(module, 3, optimizer=optimizer, scheduler=kind(optimizer, **options), checkpoint=tmp_path / "run.pt")

    run(lr_scheduler.StepLR, step_size=2)
    with pytest.raises(ValueError, match=r"kind of scheduler: expected .* \(StepLR\), got CosineAnnealingLR"):
        run(lr_scheduler.CosineAnnealingLR, T_max=4)
    state = torch.load(tmp_path / "run.pt")
    del state["kind of scheduler"]  # as an earlier version wrote it
    torch.save(state, tmp_path / "run.pt")
    run(lr_scheduler.StepLR, step_size=2)


@pytest.mark.parametrize("kind", [np.bool_, torch.tensor, bool])
def test_a_comparison_of_any_kind_ends_the_run(kind):
    history = fit(model(), callbacks=[lambda module, history: kind(history.epochs == 2)])
    assert (history.epochs, history.stopped) == (2, "<lambda>")


@pytest.mark.parametrize("found", [1, "yes", torch.ones(2), torch.tensor(1.0)])
def test_only_true_ends_the_run(found):
    assert fit(model(), 2, callbacks=[lambda module, history: found]).epochs == 2


def test_a_test_loss_that_is_no_number_ends_the_run():
    def loss(outputs, labels):  # of training batches of 20 alone
        return nn.functional.nll_loss(outputs, labels) * (1.0 if len(labels) == 20 else math.nan)

    with pytest.raises(FloatingPointError, match="epoch 1: expected a finite test loss, got nan"):
        fit(model(), loss=loss, patience=3, restore_best=True)


def test_gradients_of_what_the_optimiser_does_not_hold_are_no_leftovers():
    def norms(train):
        module, found = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Linear(5, 2), nn.LogSoftmax(1)).double(), []
        torch.manual_seed(3)
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        optimizer = torch.optim.SGD(module[2].parameters(), lr=0.1)
        optimizer.register_step_pre_hook(
            lambda *_: found.append([p.grad.norm().item() for p in (module[1].weight, module[2].weight)])
        )
        train(module, optimizer)
        return found

    def by_hand(module, optimizer):
        generator, split = torch.Generator().manual_seed(7), data()
        for rows in torch.randperm(60, generator=generator).split(20):
            module.zero_grad()
            nn.functional.nll_loss(module(split.inputs[rows]), split.labels[rows]).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            optimizer.step()

    def by_train(module, optimizer):
        order = torch.Generator().manual_seed(7)
        sp.train(module, data(), optimizer, order, batch_size=20, progress=False, clip=0.5)

    assert norms(by_train) == norms(by_hand)


class Named(Dataset):
    """Labels in a dictionary."""

    def __init__(self):
        self.split = data(7)

    def __len__(self):
        return 7

    def __getitem__(self, k):
        return self.split.inputs[k], {"class": self.split.labels[k], "weight": torch.tensor(float(k))}


def test_a_mean_over_labels_in_a_dictionary_weighs_inputs_and_not_entries():
    def loss(outputs, labels):
        return labels["weight"].mean() + 0 * outputs.sum()

    found = [sp.evaluate(model(), Named(), batch_size, loss=loss)[0] for batch_size in (7, 5, 4, 2)]
    assert found == pytest.approx([3.0] * 4)


def test_a_module_that_computes_the_likelihood_checks_probabilities_as_the_function_does():
    raw = Raw(model().network)
    with pytest.raises(ValueError, match="expected log-probabilities"):
        fit(raw, loss=nn.NLLLoss())
    fit(model(), 1, loss=nn.NLLLoss())
    places = nn.Sequential(nn.Unflatten(1, (2, 6)), nn.LogSoftmax(1)).double()  # (B, 12, 4) to (B, 2, 6, 4)
    split = sp.Split(data().inputs, torch.zeros(60, 6, 4, dtype=torch.int64))
    assert math.isfinite(sp.evaluate(places, split, loss=nn.NLLLoss())[0])
