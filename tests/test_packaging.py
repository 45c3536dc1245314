"""What is built can be installed, is complete, and works away from this folder."""

import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from commands import run
from notebooks import ROOT

USE = """
import snnparams as sp, torch
from snnparams import plot
from snnparams.kernels import cpu
plot.use_style()
p = sp.LIFParameters(tau_mem=sp.Learned(0.01), v_th=sp.Learned(0.5))
layer = sp.LIFRecurrent(5, 4, p, kernel="reference")  # the compiled kernel would be compiled anew
out, state = layer((torch.rand(20, 3, 5) < 0.5).float())
out.sum().backward()
assert all(p.grad is not None for p in layer.parameters())
print(sp.__file__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, built from a copy: setuptools writes beside the source."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "snnparams", source / "snnparams", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", source / "dist", source)
    (wheel,) = (source / "dist").glob("*.whl")
    (sdist,) = (source / "dist").glob("*.tar.gz")
    return wheel, sdist


def modules():
    return {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "snnparams").rglob("*")
        if p.suffix in (".py", ".mplstyle", ".typed")
    }


def test_the_wheel_has_every_module(built):
    names = {name for name in zipfile.ZipFile(built[0]).namelist() if name.startswith("snnparams/")}
    assert names == modules()
    assert {"snnparams/kernels/cpu.py", "snnparams/snnparams.mplstyle", "snnparams/py.typed"} <= names


def test_the_source_distribution_has_every_module_and_the_licence(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml"} | modules() <= names


def test_the_installed_package_works(built, tmp_path):
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target]
    run(*install, "--disable-pip-version-check", built[0])
    where = run(sys.executable, "-c", USE, cwd=elsewhere, env=os.environ | {"PYTHONPATH": str(target)})
    assert where.strip() == str(target / "snnparams" / "__init__.py")


KERNEL = """
import torch, snnparams as sp
from snnparams.kernels import sparse
sparse.compress((torch.rand(30, 5, 6) < 0.3).to_sparse())
print(sp.__file__)
"""

GONE = "import importlib.util; print(importlib.util.find_spec('snnparams'))"


def test_nothing_is_left_to_import_when_the_package_is_uninstalled(built, tmp_path):
    """Compiled kernels lie elsewhere: a folder of them in the package would outlive it, and be a package itself."""
    run(sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    (packages,) = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").split()
    others = [path for path in sys.path if path.endswith("-packages")]
    Path(packages, "others.pth").write_text("\n".join(others))  # PyTorch, and pip
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
    variables |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    pip = [python, "-m", "pip"]
    where = {"cwd": tmp_path, "env": variables}
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", built[0], **where)
    assert run(python, "-c", KERNEL, **where).strip() == str(Path(packages, "snnparams", "__init__.py"))
    assert list((tmp_path / "cache" / "snnparams" / "compiled").iterdir())
    run(*pip, "uninstall", "--quiet", "--yes", "snnparams", **where)
    assert not Path(packages, "snnparams").exists()
    # what is left of it on the path, where the project itself is not installed in the other packages
    found = run(python, "-S", "-c", f"import sys; sys.path.append({packages!r}); {GONE}", **where)
    assert found.strip() == "None"
