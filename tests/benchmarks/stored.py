"""What the result files in book/results have in common: how, when, where and with what they were made."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import torch

CPUS = ("cpu, avx512f", "cpu, avx2")  # of which results are wanted, as `part` names them
CPU = f"{platform.machine()}, {os.cpu_count()} cores"


def commit() -> str:
    """Return the commit of the working tree, with a + if files that matter have changed since, or "unknown"."""
    try:
        found = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        paths = ["snnparams", "tests/benchmarks"]
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *paths], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + ("+" if changed else "")


def header(command: str, machine: str = f"{CPU}, CPU", **versions: str) -> dict:
    """Return what a file begins with.

    Args:
        command: the script in this folder, and its options.
        machine: where it ran.
        versions: those of more than Python and PyTorch.
    """
    return {
        "command": f"python tests/benchmarks/{command}",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine,
        "versions": {"python": platform.python_version(), "torch": torch.__version__} | versions,
    }


def header_of_device(machine: str, *packages: str) -> dict:
    """Return what the part of one device begins with, in a file that holds several."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine,
        "threads": torch.get_num_threads(),
        "versions": versions,
    }


def _cpuinfo(field: str) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(field)), "")


def registers() -> str:
    """Return the name of the processor's widest registers, where the system tells it."""
    return next((name for name in ("avx512f", "avx2") if name in _cpuinfo("flags").split()), "narrower")


def processor() -> str:
    """Return the name of the processor and its widest registers, where the system tells them."""
    return f"{CPU}, {_cpuinfo('model name') or 'unknown processor'}, {registers()}"


def part(device: str) -> str:
    """Return under which name a file that holds several devices has this one: CPUs differ by their registers."""
    return f"cpu, {registers()}" if device == "cpu" else device


def parts(path: Path, *unmeasured: str) -> dict:
    """Return what such a file holds, with "not measured" for each of the names that it does not have."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found | {name: "not measured" for name in unmeasured if name not in found}


def write_as_it_comes(path: Path, results: dict, name: str, found: Iterable) -> None:
    """Write what is found so far, again and again, beside what the file has; only all of it replaces part `name`."""
    unfinished = f"{name}, unfinished"
    for so_far in found:
        results[unfinished] = so_far
        write(path, results)
    results[name] = results.pop(unfinished)
    write(path, results)


def kept_runs(path: Path, versions: dict) -> dict:
    """Return the runs that a file holds, to go on from; those of other versions are refused."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    if found["versions"] != versions:
        raise SystemExit(
            f"{path} holds runs of {found['versions']}, this is {versions}: delete it or give another --output"
        )
    return found["runs"]


def write(path: Path, content: dict, indent: int | None = 1) -> None:
    """Write a file beside its place, then move it there: a stopped run leaves the last whole one."""
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(json.dumps(content, indent=indent) + "\n")
    os.replace(temporary, path)
