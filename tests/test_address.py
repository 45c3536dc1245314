"""The public address: one command sets it everywhere, and a notebook alone fetches its project from there."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import address
import nbformat
import pytest
from commands import run
from notebooks import ROOT

GITHUB = "https://github.com/someone/something"
NOTEBOOKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "book").glob("*.ipynb"))
PLACES = [*address.PLACES, *NOTEBOOKS]


@pytest.fixture
def copy(tmp_path):
    """A copy of every file that can hold the address."""
    for name in PLACES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def contents(root):
    return {name: (root / name).read_text() for name in PLACES}


def test_all_places_say_what_config_says(copy):
    address.write(address.current(), copy)
    assert contents(copy) == contents(ROOT), "run `make address` with the address of _config.yml"


def test_it_is_set_everywhere_and_taken_away_without_a_trace(copy):
    address.write("", copy)
    without = contents(copy)
    assert not [name for name, text in without.items() if "someone" in text]
    address.write(f"{GITHUB}.git", copy)
    found = contents(copy)
    assert [name for name, text in found.items() if GITHUB in text and f"{GITHUB}.git" not in text] == PLACES
    assert address.current(copy) == GITHUB
    address.write(GITHUB, copy)
    assert contents(copy) == found
    address.write("https://gitlab.com/another/one", copy)
    assert not [name for name, text in contents(copy).items() if "someone" in text or "binder.org" in text]
    address.write("", copy)
    assert contents(copy) == without


@pytest.mark.parametrize(
    "bad",
    [
        "owner/name",
        "http://github.com/owner/name",
        "git@github.com:owner/name",
        "https://example.org/owner/name",
        "https://github.com/owner",
        "https://github.com/owner/name/more",
        'https://github.com/owner/na"me',
        "file://relative",
    ],
)
def test_what_is_no_address_is_refused(copy, bad):
    before = contents(copy)
    with pytest.raises(ValueError, match="expected https://"):
        address.write(bad, copy)
    assert contents(copy) == before


# What happens on Colab


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """An interpreter that sees PyTorch, pip and Jupyter, but not the package, and the variables it needs."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    (folder / "packages").mkdir()
    for packages in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(packages).iterdir():
            if not entry.name.startswith(("snnparams", "__editable__")):
                (folder / "packages" / entry.name).symlink_to(entry)
    # no index, so that nothing but the project is installed; setuptools is there already
    quiet = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    variables = os.environ | quiet | {"PYTHONPATH": str(folder / "packages")}
    return folder / "venv" / "bin" / "python", variables


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A repository with the files as they are now, which knows that it is its own public address."""
    repository = tmp_path_factory.mktemp("served") / "project"
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = "git -c safe.directory=* ls-files -z --cached --others --exclude-standard"
    for name in run(*command.split(), cwd=ROOT).split("\0"):
        if (ROOT / name).is_file():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, repository / name)
    run(sys.executable, "tests/address.py", f"file://{repository}", cwd=repository)
    run("git", "init", "--quiet", cwd=repository)
    run("git", "add", "--all", cwd=repository)
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    run("git", *who, "commit", "--quiet", "--message", "all", cwd=repository)
    return repository


EXECUTE = """
import nbclient, nbformat, sys
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
"""


@pytest.mark.slow
def test_a_notebook_alone_fetches_its_project_and_runs(elsewhere, served, tmp_path):
    python, variables = elsewhere
    notebook = nbformat.read(served / "book" / "3_registering.ipynb", as_version=4)
    here = "import snnparams\nfrom pathlib import Path\nassert Path('results/layers.json').exists()\n"
    here += f"assert Path(snnparams.__file__).is_relative_to({str(python.parents[1])!r})"
    notebook.cells.append(nbformat.v4.new_code_cell(here))
    alone = tmp_path / "alone.ipynb"
    nbformat.write(notebook, alone)
    for _ in range(2):  # the second time, the package is installed and the kernel begins beside the notebook again
        run(python, "-c", EXECUTE, alone, cwd=tmp_path, env=variables)
    run(python, "-m", "pip", "uninstall", "--yes", "snnparams", env=variables)


def test_without_an_address_it_says_what_to_do(elsewhere, tmp_path):
    python, variables = elsewhere
    command = [python, "-c", address.setup("")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables)
    assert "ImportError: snnparams: run `pip install .` in a checkout" in done.stderr
    assert not list(tmp_path.iterdir())
