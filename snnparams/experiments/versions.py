"""What results depend on besides what was asked for: versions, and the source that computed them."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch

import snnparams


def _file_of(module: str) -> Path | None:
    """Return the file of a module of the package, or None if there is none of that name."""
    base = Path(snnparams.__file__).parent.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _installed(path: Path) -> bool:
    """Return whether a file belongs to Python or to what was installed for it."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    inside = any(path.is_relative_to(Path(folder).resolve()) for folder in folders)
    return inside or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _source_of(name: str) -> Path | None:
    """Return the file of source of a module of the user's own, or None."""
    try:
        loaded = sys.modules.get(name)
        found = loaded.__spec__ if loaded is not None else importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):  # no module of that name, or one that was made by hand
        return None
    path = Path(found.origin).resolve() if found is not None and found.origin else None
    return path if path is not None and path.suffix == ".py" and path.is_file() and not _installed(path) else None


def own_files(path: Path, package: str = "") -> set[Path]:
    """Return the files of the user's own modules that a source file imports, and of those that these import.

    They are what is neither Python's, nor installed, nor of this package.

    Args:
        path: a file of Python source.
        package: in which it lies, for imports that begin with a dot.
    """
    found: set[Path] = set()
    waiting = [(Path(path).resolve(), package)]
    while waiting:
        file, inside = waiting.pop()
        names: list[str] = []
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (inside or not node.level):
                relative = "." * node.level + (node.module or "")
                try:
                    base = importlib.util.resolve_name(relative, inside) if node.level else relative
                except ImportError:  # more dots than there are packages
                    continue
                names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] == snnparams.__name__:
                continue
            for part in [name[:k] for k in [*(i for i, c in enumerate(name) if c == "."), len(name)]]:
                own = _source_of(part)
                if own is not None and own not in found and own != Path(path).resolve():
                    found.add(own)
                    waiting.append((own, part if own.name == "__init__.py" else part.rpartition(".")[0]))
    return found


def imported_modules(path: Path) -> set[str]:
    """Return the modules of this package that a source file imports, anywhere in it, and those that these import.

    Of `from snnparams import name` it is the module in which that name is defined; of `import snnparams` all modules. A
    text that is a module's name counts as its import: kernels are loaded by name.

    Args:
        path: a file of Python source.
    """
    package, root = snnparams.__name__, Path(snnparams.__file__)
    exports = {
        alias.asname or alias.name: node.module
        for node in ast.parse(root.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found: set[str] = set()
    waiting = [Path(path)]
    while waiting:
        names: list[str] = []
        for node in ast.walk(ast.parse(waiting.pop().read_text())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == package:
                inside = ((alias.name, f"{package}.{alias.name}") for alias in node.names)
                names += [own if _file_of(own) else exports.get(name, package) for name, own in inside]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.append(node.value if node.value.startswith(f"{package}.") else "")
        if package in names:
            everything = (file.relative_to(root.parent).with_suffix("") for file in root.parent.rglob("*.py"))
            parts = ([package, *(part for part in file.parts if part != "__init__")] for file in everything)
            return {".".join(part) for part in parts if len(part) > 1}
        for name in names:
            if name.split(".")[0] == package and name not in found and (file := _file_of(name)) is not None:
                found.add(name)
                waiting.append(file)
    return found


def versions(function: Callable | None = None) -> dict[str, str]:
    """Return what results depend on besides the trial: versions, and a hash of source.

    Args:
        function: what computes the results. Then the source is that of its module, and of those modules of your own and
            of this package that it imports, directly or not; a change to another one changes nothing, nor does one to
            what is installed. None for all of this package, which also stands for a function that is defined where
            there is no file, as in a notebook: change the name of the results when you change such a function.
    """
    package = Path(snnparams.__file__).parent
    inner = function.func if isinstance(function, functools.partial) else function
    try:
        file = None if inner is None else inspect.getsourcefile(inner)
    except (TypeError, OSError):  # defined where there is no file, as in a notebook
        file = None
    if file is None or not Path(file).is_file():
        paths = sorted(package.rglob("*.py"))
    else:
        own = own_files(Path(file), getattr(sys.modules.get(inner.__module__), "__package__", "") or "")
        modules = sorted(set().union(*(imported_modules(path) for path in (Path(file), *own))))
        paths = [Path(file), *(path for module in modules if (path := _file_of(module)) is not None), *sorted(own)]
    source = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
    return {"snnparams": snnparams.__version__, "source": source.hexdigest()[:16], "torch": torch.__version__}
