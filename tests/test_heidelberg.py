"""SHD from files of the user: small ones of the same layout stand in for them."""

import importlib.util

import numpy as np
import pytest
import torch

from snnparams.data.heidelberg import spiking_heidelberg_digits
from snnparams.data.mnist import CorruptDataError

h5py = pytest.importorskip("h5py")


def write(path, count, seed, **replaced):
    rng = np.random.default_rng(seed)
    content = {
        "times": [rng.uniform(0, 1.2, 30).astype("float16") for _ in range(count)],
        "units": [rng.integers(0, 700, 30).astype("uint16") for _ in range(count)],
        "labels": np.arange(count) % 20,
    } | replaced
    with h5py.File(path, "w") as file:
        for name, kind in (("times", "float16"), ("units", "uint16")):
            made = file.create_dataset(f"spikes/{name}", (len(content[name]),), dtype=h5py.vlen_dtype(np.dtype(kind)))
            for k, row in enumerate(content[name]):
                made[k] = row
        if content["labels"] is not None:
            file["labels"] = content["labels"].astype("uint16")
    return content


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "shd_train.h5", 60, 0)
    write(tmp_path / "shd_test.h5", 20, 1)
    return tmp_path


def test_bits_are_the_spikes_of_the_file(folder):
    task = spiking_heidelberg_digits(folder, steps=50, pool=7)
    assert [len(s.labels) for s in (task.train, task.validation, task.test)] == [54, 6, 20]
    assert (task.steps, task.features, task.outputs) == (50, 100, 20)
    content = write(folder / "again.h5", 20, 1)
    assert task.test.labels.tolist() == content["labels"].tolist()
    for row, times, units in zip(task.test.inputs, content["times"], content["units"], strict=True):
        expected = {(int(float(t) * 50), int(u) // 7) for t, u in zip(times, units, strict=True) if float(t) < 1}
        assert {tuple(x) for x in row.nonzero().tolist()} == expected
    spikes = task.encode(task.test.inputs[:3])
    assert spikes.shape == (50, 3, 100)
    assert torch.equal(spikes[:, 1], task.test.inputs[1].float())


def test_the_seed_chooses_the_validation_split(folder):
    a, b, c = (spiking_heidelberg_digits(folder, seed=seed).validation.inputs for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_what_is_missing_or_damaged_is_named(folder, monkeypatch):
    (folder / "shd_test.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"shd_test\.h5, which is not there\. Get it: curl -L https://.*gunzip"):
        spiking_heidelberg_digits(folder)
    (folder / "shd_test.h5").write_bytes(b"not HDF5")
    with pytest.raises(CorruptDataError, match=r"shd_test\.h5: expected spikes/times, spikes/units and labels"):
        spiking_heidelberg_digits(folder)
    write(folder / "shd_test.h5", 20, 1, labels=None)
    with pytest.raises(CorruptDataError, match=r"shd_test\.h5: expected spikes/times, spikes/units and labels"):
        spiking_heidelberg_digits(folder)
    write(folder / "shd_test.h5", 20, 1, labels=np.arange(5))
    with pytest.raises(CorruptDataError, match="expected as many times, units and labels, got 20, 20 and 5"):
        spiking_heidelberg_digits(folder)
    write(folder / "shd_test.h5", 1, 1, units=[np.full(30, 700)])
    with pytest.raises(CorruptDataError, match="expected channels 0 to 699, got 700"):
        spiking_heidelberg_digits(folder)
    for given in ({"pool": 9}, {"steps": 0}, {"seconds": 0}, {"validation": 1}):
        with pytest.raises(ValueError, match="steps, seconds, pool, validation: expected positive numbers"):
            spiking_heidelberg_digits(folder, **given)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"h5py to read HDF5 files: pip install 'h5py>=3.8,<4'"):
        spiking_heidelberg_digits(folder)
