"""Set the project's public address everywhere, or take it away: `make address URL=https://github.com/owner/name`.

Its one place is `repository.url` in _config.yml. From there follow the buttons of the book, lines of some pages,
CITATION.cff and the first code cell of every notebook, which fetches the project where it is not installed.
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://[\w.-]*(github|gitlab|bitbucket)[\w.-]*(/[\w.-]+){2}|file:///[\w./-]+")
COLAB, BINDER = "https://colab.research.google.com", "https://mybinder.org"
FIRST = "book/1_lif_neuron.ipynb"

# A restarted kernel finds the package installed, and the folder beside the notebook. `find_spec` and not `import`:
# chapter 10 sets variables that PyTorch and Triton read when they are imported.
SETUP = """\
# Where snnparams is not installed, on Colab say, fetch it with all that belongs to it.
import importlib.util
import os
import subprocess
import sys

ADDRESS = ""
FOLDER = "snnparams-book"
if importlib.util.find_spec("snnparams") is None:
    if not ADDRESS:
        raise ImportError("snnparams: run `pip install .` in a checkout of the project")
    if not os.path.isdir(FOLDER):
        clone = ["git", "clone", "--quiet", "--depth", "1", ADDRESS, FOLDER]
        subprocess.run(clone, check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", f"./{FOLDER}"]
    subprocess.run(install, check=True)
    importlib.invalidate_caches()
if os.path.isdir(FOLDER):
    os.chdir(f"{FOLDER}/book")  # where results/ is"""
TAGS = ["remove-cell", "setup"]


def setup(address: str) -> str:
    """Return the code of the cell that fetches the project."""
    return SETUP.replace('ADDRESS = ""', f'ADDRESS = "{address}"')


def is_setup(cell) -> bool:
    """Return whether a cell is the one that fetches the project."""
    return cell.cell_type == "code" and "setup" in cell.metadata.get("tags", [])


def put_setup(notebook, address: str) -> None:
    """Bring the cell that fetches the project up to date; a notebook without one gets it as its first code cell."""
    if not any(map(is_setup, notebook.cells)):
        first = next(k for k, cell in enumerate(notebook.cells) if cell.cell_type == "code")
        cell = nbformat.v4.new_code_cell(id="setup", metadata={"tags": TAGS}, execution_count=0)
        notebook.cells.insert(first, cell)
        for cell in notebook.cells[first:]:  # stored outputs become those of a run with this cell
            for part in (cell, *cell.get("outputs", [])):
                if part.get("execution_count") is not None:
                    part.execution_count += 1
    for cell in filter(is_setup, notebook.cells):
        cell.source = setup(address)


def hosted(address: str) -> bool:
    """Return whether Colab and Binder know the address."""
    return address.startswith("https://github.com/")


def config(text: str, address: str) -> str:
    """Return _config.yml with an address."""
    values = {
        "url": f'"{address}"',
        "colab_url": f'"{COLAB * hosted(address)}"',
        "binderhub_url": f'"{BINDER * hosted(address)}"',
        "use_repository_button": str(bool(address)).lower(),
    }
    for key, value in values.items():
        text, count = re.subn(rf"^(  {key}: ).*$", rf"\g<1>{value}", text, flags=re.M)
        assert count == 1, key
    return text


def citation(text: str, address: str) -> str:
    """Return CITATION.cff with an address."""
    text = re.sub(r"^repository-code:.*\n", "", text, flags=re.M)
    return re.sub(r"(?=^license:)", f'repository-code: "{address}"\n' if address else "", text, count=1, flags=re.M)


def notebook(text: str, address: str) -> str:
    """Return a notebook with an address."""
    content = nbformat.reads(text, as_version=4)
    put_setup(content, address)
    return nbformat.writes(content) + "\n"


def readme(address: str) -> str:
    """Return what README.md says of an address."""
    badges = ""
    if hosted(address):
        name = address.removeprefix("https://github.com/")
        badges = (
            f"[![tests]({address}/actions/workflows/tests.yml/badge.svg)]({address}/actions/workflows/tests.yml)\n"
            f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{name}/blob/main/{FIRST})\n"
            f"[![Open in Binder]({BINDER}/badge_logo.svg)]({BINDER}/v2/gh/{name}/main?urlpath=lab/tree/{FIRST})\n\n"
        )
    return f"{badges}The package alone: `pip install git+{address}`\n"


def contributing(address: str) -> str:
    """Return what CONTRIBUTING.md says of an address."""
    return f"Questions, faults and ideas: {address}/issues. The source: `git clone {address}`.\n"


def index(address: str) -> str:
    """Return what the book's first page says of an address."""
    elsewhere = "The rocket above a chapter opens it on Colab or Binder; nothing to install.\n\n" * hosted(address)
    return f"{elsewhere}The source: `git clone {address}`\n"


def between_marks(say):
    """Return a function that writes what `say` says between a page's two marks, or nothing without an address."""

    def write(text: str, address: str) -> str:
        marks = r"(<!-- address, by make address -->\n).*?(<!-- end of address -->\n)"
        said = f"\n{say(address)}\n" if address else ""
        text, count = re.subn(marks, lambda found: found[1] + said + found[2], text, flags=re.S)
        assert count == 1
        return text

    return write


PLACES = {
    "_config.yml": config,
    "CITATION.cff": citation,
    "README.md": between_marks(readme),
    "CONTRIBUTING.md": between_marks(contributing),
    "book/index.md": between_marks(index),
}


def current(root: Path = ROOT) -> str:
    """Return the address, or an empty string."""
    return re.search(r'^  url: "(.*)"$', (root / "_config.yml").read_text(), re.M)[1]


def write(address: str, root: Path = ROOT) -> None:
    """Write an address, or an empty string, wherever it belongs.

    Raises:
        ValueError: if it is no address of a repository.
    """
    address = address.strip().rstrip("/").removesuffix(".git") if address.startswith("https:") else address
    if address and not ADDRESS.fullmatch(address):
        raise ValueError(f"expected https://github.com/owner/name (or on GitLab or Bitbucket), got {address!r}")
    places = {root / name: change for name, change in PLACES.items()}
    places |= dict.fromkeys(sorted((root / "book").glob("*.ipynb")), notebook)
    for path, change in places.items():
        old = path.read_text()
        new = change(old, address)
        if new != old:
            path.write_text(new)
            print(path.relative_to(root))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tests/address.py URL; an empty one takes the address away")
    try:
        write(sys.argv[1])
    except ValueError as error:
        raise SystemExit(str(error)) from None
