"""Where MNIST comes from, and what happens when it does not."""

import functools
import gzip
import hashlib
import http.server
import os
import socketserver
import struct
import threading
from pathlib import Path

import pytest
import torch
import torchvision

from snnparams import CorruptDataError, load_mnist
from snnparams.data import mnist as data


def idx_files():
    """Return the four files of a very small MNIST."""
    files = {}
    for prefix, n in (("train", 30), ("t10k", 10)):
        images = torch.randint(0, 256, (n, 28, 28), dtype=torch.uint8)
        labels = torch.arange(n, dtype=torch.uint8) % 10
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">IIII", 0x803, n, 28, 28) + images.numpy().tobytes()
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, n) + labels.numpy().tobytes()
    return files


@pytest.fixture
def files(monkeypatch, tmp_path):
    """A small MNIST that counts as the real one, no data folder, an empty cache and no network."""
    content = idx_files()
    monkeypatch.setattr(data, "MNIST_MD5", {name: hashlib.md5(x).hexdigest() for name, x in content.items()})
    monkeypatch.delenv("SNNPARAMS_DATA", raising=False)
    monkeypatch.delenv("SNNPARAMS_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    return content


def write(folder, content):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        (raw / name).write_bytes(value)
    return raw


@pytest.fixture
def server(files, monkeypatch, tmp_path):
    """A mirror on this machine."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    resources = []
    for name, value in files.items():
        packed = gzip.compress(value)
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    address = ("127.0.0.1", 0)
    with http.server.ThreadingHTTPServer(address, functools.partial(Handler, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{httpd.server_port}/"])
        monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
        yield requests
        httpd.shutdown()
        thread.join()


def test_the_data_folder_comes_first(files, monkeypatch, tmp_path, capsys):
    write(tmp_path / "given", files)
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path / "given"))
    mnist = load_mnist()
    assert mnist.name == "MNIST"
    assert mnist.train.inputs.shape == (30, 28, 28)
    assert mnist.train.inputs.dtype == torch.uint8
    assert mnist.test.labels.tolist() == list(range(10))
    assert mnist.test.labels.dtype == torch.int64
    start = files["t10k-images-idx3-ubyte"][16 : 16 + 784]
    assert bytes(mnist.test.inputs[0].flatten().tolist()) == start
    assert capsys.readouterr().out == ""


def test_download_fills_the_cache_and_the_cache_is_used(server, tmp_path):
    assert load_mnist().name == "MNIST"
    assert len(set(server)) == 4
    assert sorted(os.listdir(tmp_path / "cache" / "snnparams" / "MNIST" / "raw")) == sorted(data.MNIST_MD5)
    server.clear()
    assert load_mnist().name == "MNIST"
    assert server == []


@pytest.mark.skipif(os.name != "posix", reason="asks the list of users for a home")
def test_without_a_home_it_says_what_to_set(monkeypatch):
    import pwd

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "SNNPARAMS_DATA"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match=r"cache: expected a folder, got none \(.* Set XDG_CACHE_HOME to one"):
        load_mnist()


def test_the_cache_folder_can_be_chosen(server, tmp_path):
    assert load_mnist(cache=tmp_path / "elsewhere").name == "MNIST"
    assert (tmp_path / "elsewhere" / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_corrupt_cache_is_downloaded_again(server, files, tmp_path, capsys, damage):
    raw = write(tmp_path / "cache" / "snnparams", files)
    path = raw / "train-images-idx3-ubyte"
    if damage == "truncated":
        path.write_bytes(files[path.name][:1000])
    elif damage == "altered":
        path.write_bytes(files[path.name][:-1] + b"\0\0")
    else:
        path.unlink()
    assert load_mnist().name == "MNIST"
    assert (
        f"The cached MNIST in {raw} is incomplete or corrupt, and is not used but replaced by a download."
        in capsys.readouterr().out
    )
    assert path.read_bytes() == files[path.name]


def test_a_mirror_that_serves_something_else_does_not_reach_the_cache(server, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(data.MNIST_MD5, "train-labels-idx1-ubyte", "0" * 32)
    assert load_mnist().name == "digits"
    assert "the download is not MNIST" in capsys.readouterr().out
    assert not list((tmp_path / "cache" / "snnparams" / "MNIST" / "raw").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_corrupt_files_in_the_data_folder_are_named_and_left_alone(files, monkeypatch, tmp_path, damage):
    raw = write(tmp_path, files)
    path = raw / "t10k-images-idx3-ubyte"
    if damage == "truncated":
        path.write_bytes(files[path.name][:1000])
        message = r"t10k-images-idx3-ubyte is corrupt or truncated: expected md5 \w{32}, got \w{32}, 1000 bytes"
    else:
        path.unlink()
        message = "t10k-images-idx3-ubyte is missing"
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path))
    with pytest.raises(CorruptDataError, match=rf"{message}\. Copy the files anew, or unset SNNPARAMS_DATA"):
        load_mnist()
    assert not path.exists() or path.stat().st_size == 1000


def test_a_data_folder_that_is_not_there_or_not_readable(files, monkeypatch, tmp_path):
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"SNNPARAMS_DATA: expected a folder, but .*nowhere does not exist"):
        load_mnist()
    (tmp_path / "file").touch()
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path / "file"))
    with pytest.raises(NotADirectoryError, match=r"SNNPARAMS_DATA: expected a folder, but .*file is a file"):
        load_mnist()
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path))
    monkeypatch.setattr(data.os, "access", lambda *_: False)  # root may read everything, so permissions prove little
    with pytest.raises(PermissionError, match=r"SNNPARAMS_DATA: .* cannot be read; check its permissions"):
        load_mnist()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every folder")
def test_a_data_folder_without_permission(files, monkeypatch, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0)
    monkeypatch.setenv("SNNPARAMS_DATA", str(folder))
    with pytest.raises(PermissionError, match="cannot be read; check its permissions"):
        load_mnist()


def test_a_data_folder_with_other_data_only(server, monkeypatch, tmp_path, capsys):
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("SNNPARAMS_DATA", str(tmp_path / "given"))
    assert load_mnist().name == "MNIST"
    assert len(set(server)) == 4
    assert "given has no folder MNIST/raw; looking elsewhere" in capsys.readouterr().out


def test_without_a_network_the_bundled_digits_stand_in_with_a_notice(files, capsys, monkeypatch):
    digits = load_mnist()
    assert digits.name == "digits"
    notice = capsys.readouterr().out
    assert notice.startswith("NOTICE: MNIST could not be had (the download failed: ")
    assert "are then not MNIST's" in notice
    monkeypatch.setenv("SNNPARAMS_OFFLINE", "1")
    load_mnist()
    assert "NOTICE: MNIST could not be had (SNNPARAMS_OFFLINE is set)." in capsys.readouterr().out
    train, test = digits.train, digits.test
    assert len(train.labels) + len(test.labels) == 1797
    assert train.inputs.shape[1:] == (28, 28)
    assert train.inputs.dtype == torch.uint8
    assert train.inputs.max() > 200
    for split in digits[1:]:
        assert split.labels.bincount(minlength=10).min() > 0.09 * len(split.labels)  # all classes, balanced
    assert not set(map(tuple, train.inputs.flatten(1).tolist())) & set(map(tuple, test.inputs.flatten(1).tolist()))


def test_a_login_page_in_place_of_a_mirror_is_no_mirror(files, monkeypatch, capsys):
    class Portal(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"<html>please log in</html>\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Portal) as portal:
        thread = threading.Thread(target=portal.serve_forever)
        thread.start()
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{portal.server_address[1]}/"])
        assert load_mnist().name == "digits"
        portal.shutdown()
        thread.join()
    assert "the download failed" in capsys.readouterr().out


def test_offline_uses_a_cache_that_is_there(files, monkeypatch, tmp_path):
    write(tmp_path / "cache" / "snnparams", files)
    monkeypatch.setenv("SNNPARAMS_OFFLINE", "1")
    assert load_mnist().name == "MNIST"


def test_the_real_mnist():
    if not (Path(os.environ.get("SNNPARAMS_DATA") or "nowhere") / "MNIST" / "raw").is_dir():
        pytest.skip("SNNPARAMS_DATA names no folder with MNIST")
    mnist = load_mnist()
    assert mnist.name == "MNIST"
    assert mnist.train.inputs.shape == (60_000, 28, 28)
    assert mnist.test.inputs.shape == (10_000, 28, 28)
    assert mnist.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.train.inputs.float().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert mnist.train.inputs.float().std().item() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert mnist.test.to("cpu").labels.shape == (10_000,)
