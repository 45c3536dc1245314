"""A run that ends while it writes its checkpoint, or draws in spawned workers, goes on with the same numbers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_fit import adam, data, everything, model, one_thread  # noqa: F401, the last is a fixture
from torch.utils.data import DataLoader, Dataset

import snnparams as sp

# ends itself at a moment of the checkpoint of epoch 3, by a signal that no program can answer
SCRIPT = """
import os, signal, sys
sys.path[:0] = {paths!r}
import torch
from test_fit import everything, model

path, moment = sys.argv[1:]
save, replace, epochs = torch.save, os.replace, 0

def end():
    os.kill(os.getpid(), signal.SIGKILL)

def saving(state, file):
    global epochs
    epochs = len(state["history"]["accuracies"])
    save(state, file)
    if epochs == 3 and moment == "half of it is written":
        os.truncate(file, os.path.getsize(file) // 2)
        end()

def replacing(source, target):
    if os.fspath(target) != path:
        return replace(source, target)
    if epochs == 3 and moment == "it is not in its place":
        end()
    replace(source, target)
    if epochs == 3:
        end()

torch.save, os.replace = saving, replacing
torch.set_num_threads(1)
everything(model(), path)
"""
MOMENTS = {"half of it is written": 2, "it is not in its place": 2, "it is in its place": 3}  # epochs that are kept


@pytest.fixture(scope="module")
def whole():
    """Return a run that nobody killed, and its model."""
    threads, module = torch.get_num_threads(), model()
    torch.set_num_threads(1)
    history = everything(module, None)[0]
    torch.set_num_threads(threads)
    return history, module


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_killed_while_it_writes_keeps_a_whole_checkpoint(moment, whole, tmp_path, one_thread):  # noqa: F811
    paths = [str(Path(__file__).parent), str(Path(sp.__file__).parents[1])]
    path = tmp_path / "run.pt"
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(paths=paths), path, moment], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    history, expected = whole
    assert torch.load(path)["history"]["accuracies"] == history.accuracies[: MOMENTS[moment]]
    assert (tmp_path / "run.pt.partial").exists() == (moment != "it is in its place")
    resumed = model(seed=5)
    assert everything(resumed, path)[0] == history
    for (name, value), got in zip(expected.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, got), name
    assert os.listdir(tmp_path) == ["run.pt"]  # what was half written has been written over, and moved


class DrawnInWorkers(Dataset):
    """Spikes drawn where they are asked for: by the process's generator, and by one that each worker makes itself."""

    own = None

    def __len__(self):
        return 20

    def __getitem__(self, k):
        if self.own is None:
            self.own = torch.Generator().manual_seed(torch.initial_seed() + 1)
        chance = torch.cat([torch.rand(12, 2), torch.rand(12, 2, generator=self.own)], dim=1)
        rates = torch.tensor([0.6, 0.1, 0.6, 0.1] if k % 2 else [0.1, 0.6, 0.1, 0.6])
        return (chance < rates).double(), torch.tensor(k % 2)


def ended(module, history):
    if history.epochs == 2:
        raise KeyboardInterrupt


def never(module, history):
    pass


@pytest.mark.slow
def test_spawned_workers_draw_on_as_if_the_run_had_not_stopped(tmp_path):
    def run(checkpoint, last, seed=3):
        module = model(seed)
        order = torch.Generator().manual_seed(seed)  # a resumed run replaces it by that of the checkpoint
        workers = {"num_workers": 2, "multiprocessing_context": "spawn"}
        loader = DataLoader(DrawnInWorkers(), 5, shuffle=True, generator=order, **workers)
        options = {"checkpoint": checkpoint, "callbacks": [last], "progress": False}
        return sp.fit(module, loader, data(30, 2), adam(module), 2, **options)

    whole = run(None, never)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run.pt", ended)
    assert run(tmp_path / "run.pt", never, seed=9) == whole
    assert run(None, never, seed=9) != whole
    assert len(set(whole.train_losses)) == len(whole.train_losses) == 8
