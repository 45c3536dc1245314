"""Tasks: their splits, their spikes, and where spoken digits come from."""

import functools
import hashlib
import http.client
import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from snnparams import CorruptDataError
from snnparams.data import mnist as data
from snnparams.data import spoken_digits as sound
from snnparams.data import tasks
from snnparams.data.encoding import integrate_and_fire, threshold_crossings

SMALL = {"train": 300, "validation": 100, "test": 100}


def recording(samples, rate=8000, channels=1, width=2):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, width, rate, 0, "NONE", ""))
        out.writeframes(samples.tobytes())
    return file.getvalue()


@functools.cache
def recordings():
    """Return a data set of the names and the layout of the real one: short tones whose pitch tells the digit."""
    rng = np.random.default_rng(0)
    found = {}
    for name in sound.RECORDINGS:
        t = np.arange(800 + rng.integers(0, 400)) / 8000
        tone = np.sin(2 * np.pi * (200 + 300 * int(name[0])) * t) + 0.1 * rng.normal(size=len(t))
        found[name] = recording((8000 * tone).astype("<i2"))
    return found


@pytest.fixture
def spoken(monkeypatch, tmp_path):
    """These count as the real ones; no data folder, an empty cache, no network."""
    digest = hashlib.sha256(b"".join(recordings()[name] for name in sound.RECORDINGS)).hexdigest()
    monkeypatch.setattr(sound, "FSDD_SHA256", digest)
    monkeypatch.setattr(sound, "FSDD_URL", "http://127.0.0.1:9/fsdd.tar.gz")  # nobody listens there
    monkeypatch.delenv("SNNPARAMS_DATA", raising=False)
    monkeypatch.delenv("SNNPARAMS_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A folder with all recordings, written once."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, value in recordings().items():
        (folder / name).write_bytes(value)
    return folder


@pytest.fixture
def write(recorded):
    """Put all recordings where a data folder or cache has them."""

    def into(root):
        folder = root / "FSDD" / "recordings"
        folder.parent.mkdir(parents=True)
        return Path(shutil.copytree(recorded, folder, copy_function=os.link))  # unlink before writing

    return into


@pytest.fixture
def server(spoken, monkeypatch, tmp_path):
    """The archive on this machine, with more in it than the recordings."""
    folder = tmp_path / "site"
    folder.mkdir()
    with tarfile.open(folder / "fsdd.tar.gz", "w:gz") as tar:
        others = {"fsdd/README.md": b"words", "../outside.wav": b"x", "fsdd/recordings/other.wav": b"x"}
        for name, value in {**{f"fsdd/recordings/{n}": v for n, v in recordings().items()}, **others}.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value))
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        monkeypatch.setattr(sound, "FSDD_URL", f"http://127.0.0.1:{httpd.server_port}/fsdd.tar.gz")
        yield requests, folder / "fsdd.tar.gz"
        httpd.shutdown()
        thread.join()


# ------------------------------------------------------------------------------------------------------- splits


@functools.cache
def digits():
    """Return a stand-in for MNIST whose images all differ."""
    generator = torch.Generator().manual_seed(0)

    def split(count, first):
        images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        images.view(count, -1)[:, :4] = (torch.arange(first, first + count)[:, None] // 256 ** torch.arange(4)) % 256
        return data.Split(images, torch.randint(0, 10, (count,), generator=generator))

    return data.Digits("MNIST", split(1000, 0), split(200, 1000))


@pytest.fixture
def mnist_stand_in(monkeypatch):
    monkeypatch.setattr(tasks, "load_mnist", digits)


MAKERS = {
    "mnist": functools.partial(tasks.mnist, **SMALL),
    "sequential 14": functools.partial(tasks.sequential_mnist, **SMALL),
    "sequential 28 permuted": functools.partial(tasks.sequential_mnist, size=28, permuted=True, **SMALL),
    "spoken": functools.partial(tasks.spoken_digits, steps=30),
    "spoken without jackson": functools.partial(tasks.spoken_digits, speaker="jackson", steps=30),
    "manifolds": functools.partial(tasks.smooth_random_manifolds, **SMALL),
}


@pytest.fixture
def sounds(spoken, write, monkeypatch, tmp_path):
    write(tmp_path)
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path))


def rows(split):
    return [tuple(row) for row in split.inputs.flatten(1).tolist()]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_splits_are_disjoint_stable_and_what_the_network_gets_fits(make, mnist_stand_in, sounds):
    task, again = make(), make()
    parts = [set(rows(split)) for split in (task.train, task.validation, task.test)]
    for a in range(3):
        assert len(parts[a]) > 0.99 * len((task.train, task.validation, task.test)[a].labels)
        for b in range(a):
            assert not parts[a] & parts[b]
    for split, same in zip(
        (task.train, task.validation, task.test), (again.train, again.validation, again.test), strict=True
    ):
        assert torch.equal(split.inputs, same.inputs)
        assert torch.equal(split.labels, same.labels)
        assert split.labels.bincount(minlength=10).min() > 0
    spikes = task.encode(task.train.inputs[:7]).to_dense()
    assert spikes.shape == (task.steps, 7, task.features)
    assert spikes.dtype == torch.float32
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert 0.1 <= task.chance < 0.2
    assert task.chance == max(task.test.labels.tolist().count(k) for k in range(10)) / len(task.test.labels)


@pytest.mark.parametrize("make", [MAKERS["mnist"], MAKERS["spoken"], MAKERS["manifolds"]])
def test_the_seed_chooses_the_split(make, mnist_stand_in, sounds):
    assert rows(make(seed=1).validation) != rows(make(seed=2).validation)


def test_validation_does_not_depend_on_the_size_of_the_training_split(mnist_stand_in):
    small, large = tasks.mnist(**SMALL), tasks.mnist(**SMALL | {"train": 600})
    assert torch.equal(small.validation.inputs, large.validation.inputs)
    assert torch.equal(small.train.inputs, large.train.inputs[:300])


def test_test_images_are_those_of_mnist(mnist_stand_in):
    task, source = tasks.mnist(**SMALL), digits()
    assert set(rows(task.test)) <= set(rows(source.test))
    assert set(rows(task.train)) | set(rows(task.validation)) <= set(rows(source.train))


def test_official_split_of_spoken_digits(sounds):
    task = tasks.spoken_digits(steps=30)
    everything = sound.load_spoken_digits()
    assert [len(s.labels) for s in (task.train, task.validation, task.test)] == [2400, 300, 300]
    assert torch.equal(task.test.labels, everything.digits[everything.indices < 5])
    tested = [w for w, k in zip(everything.waves, everything.indices, strict=True) if k < 5]
    levels = (255 * sound.mel_levels(tested, steps=30)).round()
    assert torch.equal(task.test.inputs, levels.to(torch.uint8))
    assert (task.validation.labels.bincount() == 30).all()  # five of each speaker and digit
    assert task.chance == 0.1


def test_five_folds_test_every_recording_once(sounds, monkeypatch):
    everything = sound.load_spoken_digits()
    levels = sound.loudness(everything.waves, steps=30)
    monkeypatch.setattr(tasks, "load_spoken_digits", lambda: everything)
    monkeypatch.setattr(tasks, "loudness", lambda *_: levels)
    of = {tuple(row): int(k) for row, k in zip(levels.flatten(1).tolist(), everything.indices, strict=True)}
    tested = []
    for fold in range(5):
        task = tasks.spoken_digits(fold=fold)
        assert task.name == f"spoken digits, fold {fold}"
        assert {of[row] for row in rows(task.test)} == set(range(10 * fold, 10 * fold + 10))
        assert [len(s.labels) for s in (task.train, task.validation, task.test)] == [2100, 300, 600]
        assert (task.validation.labels.bincount() == 30).all()
        assert not set(rows(task.validation)) & (set(rows(task.train)) | set(rows(task.test)))
        tested += rows(task.test)
    assert len(tested) == len(set(tested)) == 3000
    for bad in ({"fold": 5}, {"fold": True}, {"fold": 0, "speaker": "theo"}):
        with pytest.raises(ValueError, match="fold: expected 0 to 4 and no speaker, got"):
            tasks.spoken_digits(**bad)


def test_a_speaker_left_out_is_heard_in_no_other_split(sounds, monkeypatch):
    everything = sound.load_spoken_digits()
    levels = sound.loudness(everything.waves, steps=30)
    monkeypatch.setattr(tasks, "load_spoken_digits", lambda: everything)
    monkeypatch.setattr(tasks, "loudness", lambda *_: levels)
    of = {tuple(row): int(k) for row, k in zip(levels.flatten(1).tolist(), everything.speakers, strict=True)}
    for k, speaker in enumerate(sound.SPEAKERS):
        task = tasks.spoken_digits(speaker=speaker)
        assert {of[row] for row in rows(task.test)} == {k}
        assert {of[row] for row in rows(task.validation)} == {(k + 1) % 6}
        assert {of[row] for row in rows(task.train)} == set(range(6)) - {k, (k + 1) % 6}
        assert len(task.test.labels) == len(task.validation.labels) == 500


# -------------------------------------------------------------------------------------------------------- spikes


def test_threshold_crossings_by_hand():
    values = torch.tensor([[3.0], [1.0], [2.0], [0.0]])  # one value over four steps
    spikes = threshold_crossings(values, torch.tensor([1.0, 2.5]))
    assert spikes[:, 0, 0].tolist() == [1, 0, 0, 0]  # rises to 1: at the first step, 1 is not below
    assert spikes[:, 0, 1].tolist() == [1, 0, 0, 0]
    assert spikes[:, 0, 2].tolist() == [0, 0, 0, 1]  # falls below 1
    assert spikes[:, 0, 3].tolist() == [0, 1, 0, 0]
    with pytest.raises(ValueError, match="expected positive values"):
        threshold_crossings(values, torch.tensor([0.0]))


def test_sequential_mnist_can_be_drawn_from_its_spikes(mnist_stand_in):
    task = tasks.sequential_mnist(**SMALL, levels=255)
    images = task.train.inputs[:5]
    spikes = task.encode(images)
    level = (spikes[..., :255] - spikes[..., 255:]).sum(dim=2).cumsum(dim=0).T
    assert torch.equal(level.to(torch.uint8), images)


def test_permuted_pixels_are_the_same_pixels_in_one_other_order(mnist_stand_in):
    plain, permuted = (tasks.sequential_mnist(**SMALL, permuted=p).test.inputs for p in (False, True))
    assert torch.equal(plain.sort(dim=1).values, permuted.sort(dim=1).values)
    order = tasks._order(196, 0)
    assert torch.equal(plain[:, order], permuted)
    assert not torch.equal(plain, permuted)


def test_small_images_are_means_of_four_pixels(mnist_stand_in):
    large, small = (tasks.sequential_mnist(**SMALL, size=size).test.inputs for size in (28, 14))
    mean = large.view(-1, 14, 2, 14, 2).float().mean(dim=(2, 4)).flatten(1)
    assert (mean - small).abs().max() <= 0.5


def test_integrate_and_fire():
    rates = torch.tensor([0.5, 0.5, 0.25, 0.75, 1.0, 0.0, 1.0])
    assert integrate_and_fire(rates).tolist() == [0, 1, 0, 1, 1, 0, 1]
    assert integrate_and_fire(torch.rand(1000, 3, dtype=torch.float64)).max() == 1
    with pytest.raises(ValueError, match=r"expected 0 to 1 spike per time step, got 0\.5 to 1\.5"):
        integrate_and_fire(torch.tensor([0.5, 1.5]))
    for wrong in ([0.5], torch.tensor([0, 1])):
        with pytest.raises(TypeError, match=r"rates: expected a floating-point tensor, got (list|torch.int64)"):
            integrate_and_fire(wrong)


def test_mel_filters_of_a_tone():
    filters = sound.mel_filters(32, 512)
    assert filters.shape == (257, 32)
    first, last = filters.argmax(dim=0)[[0, -1]] + torch.tensor([1, 0])
    inside = filters[first:last].sum(dim=1)  # neighbouring triangles add up to 1
    torch.testing.assert_close(inside, torch.ones_like(inside))
    tones = [
        (8000 * torch.sin(2 * torch.pi * f * torch.arange(8000) / 8000)).to(torch.int16) for f in (300, 1000, 3000)
    ]
    levels = sound.mel_levels(tones)
    mel = 2595 * np.log10(1 + np.array([300, 1000, 3000]) / 700)
    highest = 2595 * np.log10(1 + 4000 / 700)
    for k, expected in enumerate(mel / highest * 33 - 1):
        assert abs(levels[k].mean(dim=0).argmax() - expected) <= 1
    assert levels.max() == 1
    assert levels.min() == 0
    assert sound.mel_levels([torch.zeros(100, dtype=torch.int16)]).max() == 0  # silence
    with pytest.raises(ValueError, match=r"of which .* are empty"):
        sound.mel_filters(200, 512)


def test_loudness_does_not_matter_and_long_recordings_are_cut(sounds):
    wave = sound.load_spoken_digits().waves[0]
    louder = sound.mel_levels([wave, wave * 2])
    torch.testing.assert_close(louder[0], louder[1])
    assert torch.equal(sound.mel_levels([wave.repeat(30)], steps=20), sound.mel_levels([wave.repeat(40)], steps=20))


@pytest.fixture
def computed(monkeypatch):
    """How often the filters ran."""
    calls, mel_levels = [], sound.mel_levels
    monkeypatch.setattr(sound, "mel_levels", lambda *given: calls.append(given[1:]) or mel_levels(*given))
    return calls


def levels_of(waves, steps=30):
    return (255 * sound.mel_levels(waves, steps, 32)).round().to(torch.uint8)


def test_loudness_is_computed_once_and_kept_beside_the_recordings(sounds, computed, tmp_path):
    waves = sound.load_spoken_digits().waves
    first = sound.loudness(waves, steps=30)
    again = sound.loudness(waves, steps=30)
    assert len(computed) == 1
    assert torch.equal(first, again)
    assert torch.equal(first, levels_of(waves))
    assert sorted(os.listdir(tmp_path / "FSDD")) == ["levels_30_32.bin", "recordings"]
    assert not (tmp_path / "cache").exists()
    again[:] = 0  # the caller's own
    assert torch.equal(sound.loudness(waves, steps=30), first)


def test_loudness_is_kept_in_the_cache_where_the_recordings_are_read_only(sounds, computed, tmp_path):
    waves = sound.load_spoken_digits().waves[:5]
    (tmp_path / "FSDD").chmod(0o555)
    first = sound.loudness(waves, steps=30)
    assert torch.equal(sound.loudness(waves, steps=30), first)
    assert len(computed) == 1
    assert os.listdir(tmp_path / "FSDD") == ["recordings"]
    assert os.listdir(tmp_path / "cache" / "snnparams" / "FSDD") == ["levels_30_32.bin"]
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"")  # no folder can be made here
    assert torch.equal(sound.loudness(waves, steps=30), first)
    assert len(computed) == 2


@pytest.mark.parametrize("damage", ["a bit", "a byte less", "a byte more", "empty", "other recordings", "other code"])
def test_loudness_that_was_kept_is_checked(sounds, computed, monkeypatch, tmp_path, damage):
    waves = sound.load_spoken_digits().waves[:5]
    first = sound.loudness(waves, steps=30)
    path = tmp_path / "FSDD" / "levels_30_32.bin"
    kept = path.read_bytes()
    broken = {
        "a bit": kept[:1000] + bytes([kept[1000] ^ 1]) + kept[1001:],
        "a byte less": kept[1:],
        "a byte more": kept + b"x",
        "empty": b"",
    }
    path.write_bytes(broken.get(damage, kept))
    if damage == "other recordings":
        waves = [waves[0] // 2 + 1, *waves[1:]]
    if damage == "other code":
        monkeypatch.setattr(sound, "__file__", __file__)
    assert torch.equal(sound.loudness(waves, steps=30), levels_of(waves))
    assert torch.equal(sound.loudness(waves, steps=30), levels_of(waves))
    assert len([call for call in computed if call == (30, 32)]) == 2 + 2  # at first, anew, and twice here
    if damage in broken:
        assert path.read_bytes() == kept
        assert torch.equal(sound.loudness(waves, steps=30), first)


def test_processes_that_keep_loudness_at_once_do_not_meet(sounds, tmp_path):
    waves = sound.load_spoken_digits().waves[:5]
    code = f"""
import torch
from snnparams.data import spoken_digits
waves = torch.load({str(tmp_path / "waves.pt")!r})
for _ in range(30):  # each writes the file anew again and again, while the others read it
    levels = spoken_digits.loudness(waves, 30)
    assert spoken_digits._write_levels(next(spoken_digits._folders()) / "levels_30_32.bin",
                                       spoken_digits._made_from(waves, 30, 32), levels)
    spoken_digits.mel_levels = None  # from here on none may be computed
"""
    torch.save(waves, tmp_path / "waves.pt")
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]
    assert sorted(os.listdir(tmp_path / "FSDD")) == ["levels_30_32.bin", "recordings"]
    assert torch.equal(sound.loudness(waves, steps=30), levels_of(waves))


def test_manifolds_are_smooth_and_tell_classes_apart_by_times_only():
    task = tasks.smooth_random_manifolds(**SMALL, steps=1000)
    assert (task.encode(task.train.inputs).sum(dim=0) == 1).all()
    rough, smooth = (
        tasks.smooth_random_manifolds(2000, 10, 10, dimensions=1, smoothness=s, steps=1000) for s in (0.5, 3.0)
    )

    def jump(task):  # between neighbours on the manifold of one class, in its first input
        times = task.train.inputs[task.train.labels == 0].float()
        return torch.cdist(times, times).fill_diagonal_(torch.inf).min(dim=1).values.mean()

    assert jump(smooth) < 0.2 * jump(rough)


def test_bad_arguments(mnist_stand_in, sounds):
    with pytest.raises(ValueError, match="train: expected 1 to 900 inputs, got 901"):
        tasks.mnist(train=901, validation=100, test=100)
    with pytest.raises(ValueError, match="test: expected 1 to 200 inputs, got 0"):
        tasks.mnist(train=10, validation=100, test=0)
    with pytest.raises(ValueError, match="size: expected 14 or 28, got 20"):
        tasks.sequential_mnist(size=20)
    with pytest.raises(ValueError, match=r"expected one of george, .*, got 'bob'"):
        tasks.spoken_digits(speaker="bob")
    with pytest.raises(ValueError, match="most: expected"):
        tasks.spoken_digits(most=1.5)
    with pytest.raises(ValueError, match="train, validation, test: expected at least 20 samples in all, got 19"):
        tasks.smooth_random_manifolds(17, 1, 1)


@pytest.mark.parametrize("make", [tasks.mnist, tasks.sequential_mnist])
def test_digits_that_stand_in_for_mnist_are_refused(make, monkeypatch):
    monkeypatch.setattr(tasks, "load_mnist", lambda: digits()._replace(name="digits"))
    with pytest.raises(FileNotFoundError, match=r"expected MNIST, .*, got digits\. .* SNNPARAMS_DATA names"):
        make(**SMALL)


# ---------------------------------------------------------------------------------------- where recordings come from


def test_download_fills_the_cache_with_nothing_but_recordings(server, tmp_path):
    requests, _ = server
    loaded = sound.load_spoken_digits()
    assert len(loaded.waves) == 3000
    assert loaded.digits.bincount().tolist() == [300] * 10
    assert loaded.speakers.bincount().tolist() == [500] * 6
    first = np.frombuffer(recordings()["0_george_0.wav"][44:], "<i2")
    assert loaded.waves[0].tolist() == first.tolist()
    cache = tmp_path / "cache" / "snnparams"
    assert sorted(os.listdir(cache / "FSDD" / "recordings")) == sorted(sound.RECORDINGS)
    assert sorted(os.listdir(cache / "FSDD")) == ["recordings"]
    assert not list(tmp_path.rglob("outside.wav"))
    sound.load_spoken_digits()
    assert len(requests) == 1  # the second time it is there


def test_the_data_folder_comes_first(spoken, write, monkeypatch, tmp_path):
    write(tmp_path)
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path))
    assert len(sound.load_spoken_digits().waves) == 3000
    assert not (tmp_path / "cache").exists()


def test_a_corrupt_cache_is_downloaded_again(server, write, tmp_path, capsys):
    folder = write(tmp_path / "cache" / "snnparams")
    (folder / "3_theo_7.wav").unlink()
    (folder / "3_theo_7.wav").write_bytes(recordings()["3_theo_7.wav"][:500])
    sound.load_spoken_digits()
    assert "are not used but replaced by a download" in capsys.readouterr().out
    assert (folder / "3_theo_7.wav").read_bytes() == recordings()["3_theo_7.wav"]


@pytest.mark.parametrize("damage", ["cut off", "other", "no archive", "too large", "absent"])
def test_a_download_that_is_something_else_does_not_reach_the_cache(server, monkeypatch, tmp_path, damage):
    _, archive = server
    if damage == "cut off":
        archive.write_bytes(archive.read_bytes()[:-5000])
    elif damage == "other":
        monkeypatch.setattr(sound, "FSDD_SHA256", "0" * 64)
    elif damage == "no archive":
        archive.write_bytes(b"<html>please log in</html>")
    elif damage == "too large":
        monkeypatch.setattr(sound, "LARGEST_DOWNLOAD", 1000)
    else:
        archive.unlink()
    with pytest.raises(FileNotFoundError, match=r"could not be had \(the download failed: .*Unpack http"):
        sound.load_spoken_digits()
    assert list((tmp_path / "cache" / "snnparams" / "FSDD").iterdir()) == []


@pytest.mark.parametrize("error", [http.client.IncompleteRead(b""), zlib.error("invalid distance")], ids=repr)
def test_a_download_that_breaks_off_is_one_that_failed(spoken, monkeypatch, error):
    def urlopen(*_, **__):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(FileNotFoundError, match=re.escape(f"(the download failed: {error})")):
        sound.load_spoken_digits()


def test_offline(spoken, monkeypatch):
    with pytest.raises(FileNotFoundError, match="the download failed"):
        sound.load_spoken_digits()
    monkeypatch.setenv("SNNPARAMS_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="SNNPARAMS_OFFLINE is set"):
        sound.load_spoken_digits()


SAMPLES = np.zeros(1000, "<i2")
DAMAGES = {
    "missing": (None, r"expected 3000 recordings, 1 are missing: 5_lucas_3\.wav"),
    "cut off": (recording(SAMPLES)[:1000], r"5_lucas_3\.wav: expected 1000 samples, got 478; the file is cut off"),
    "cut off in the header": (recording(SAMPLES)[:30], r"5_lucas_3\.wav: expected a WAV file, got 30 bytes"),
    "empty": (b"", r"5_lucas_3\.wav: expected a WAV file, got 0 bytes"),
    "no sound": (recording(SAMPLES[:0]), r"5_lucas_3\.wav: expected 1 samples, got 0"),
    "rate": (recording(SAMPLES, rate=16000), r"5_lucas_3\.wav: expected 1 channel, 16 bits, 8000 Hz, got .* 16000 Hz"),
    "stereo": (recording(SAMPLES, channels=2), r"5_lucas_3\.wav: expected 1 channel.*, got 2 channels"),
    "8 bits": (recording(SAMPLES, width=1), r"5_lucas_3\.wav: expected 1 channel.*, got 1 channels, 8 bits"),
    "another sound": (recording(SAMPLES), r"expected the recordings of v1\.0\.10, sha256 \w{64}, got \w{64}"),
}


@pytest.mark.parametrize(("content", "message"), DAMAGES.values(), ids=DAMAGES)
def test_bad_recordings_are_named_and_left_alone(spoken, write, monkeypatch, tmp_path, content, message):
    path = write(tmp_path) / "5_lucas_3.wav"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path))
    with pytest.raises(CorruptDataError, match=f"{message}.*Copy the recordings anew, or unset SNNPARAMS_DATA"):
        sound.load_spoken_digits()
    assert path.exists() == (content is not None)


def test_the_real_recordings():
    root = data.given_folder()
    if root is None or not (root / "FSDD").is_dir():
        pytest.skip("SNNPARAMS_DATA names no folder with FSDD")
    loaded = sound.load_spoken_digits()
    seconds = torch.tensor([len(w) for w in loaded.waves]) / 8000
    assert seconds.min() == pytest.approx(0.14, abs=0.01)
    assert seconds.max() == pytest.approx(2.28, abs=0.01)
    assert (seconds > 1).sum() == 20  # what the docstring says
    task = tasks.spoken_digits()
    spikes = task.encode(task.test.inputs)
    assert 0.03 < spikes.mean() < 0.12
