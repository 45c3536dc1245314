"""Runs of chapter 6's experiment as lines of JSON: kept as they come, and found again by what they depend on.

Each line is one run: stage, task, condition, seed, cell, result, seconds, and with what it was made. A run is known
by its cell, its function, the source of the modules that the function imports, and the version of PyTorch.
"""

import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import platform
import subprocess
import threading
import time
from pathlib import Path

import torch

from snnparams.drift import run_drift
from snnparams.experiment import versions
from snnparams.reference_levels import run_reference
from snnparams.trial import run_raster, run_trial

JOBS = {"trial": run_trial, "reference": run_reference, "gradients": run_drift, "raster": run_raster}


def processor() -> str:
    """Return the name of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "model\t"))]
    return " model ".join(dict.fromkeys(reversed(names))) or platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit of the working tree, with a + if files that matter have changed since, or "unknown"."""
    try:
        found = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        paths = ["snnparams", "tests/benchmarks"]
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *paths], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + ("+" if changed else "")


def rounded(value, digits: int = 5):
    """Return a result whose floating-point numbers have so many digits."""
    if isinstance(value, dict):
        return {name: rounded(x, digits) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(x, digits) for x in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def key_of(job: str, cell: dict) -> str:
    """Return what a run is known by, but for versions."""
    return hashlib.sha256(json.dumps([job, cell], sort_keys=True).encode()).hexdigest()[:20]


def shortened(result: dict) -> dict:
    """Return a result without what a page does not need: values that nobody learned follow from the cell."""
    result = dict(result)
    before, after = result.pop("before", None), result.pop("after", None)
    if after is not None:
        result["learned"] = {name: x for name, x in after.items() if x != before[name]}
    return rounded(result)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _start_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()  # a killed run leaves no worker behind
    torch.set_num_threads(1)


def compute(job: str, cell: dict) -> tuple[dict, float]:
    """Return the result of a run and the seconds that it took."""
    start = time.perf_counter()
    result = JOBS[job](cell)
    return json.loads(json.dumps(shortened(result), allow_nan=False)), time.perf_counter() - start


class Store:
    """All runs that are kept in a folder, one file of lines for each stage.

    Args:
        folder: where the files are.
        processes: how many runs are computed at once, each in one thread.
        accept_older: whether runs of other source or another PyTorch count. Each line says with what it was made.

    Raises:
        SystemExit: if there are such runs and they do not count.
    """

    def __init__(self, folder: Path, processes: int, accept_older: bool = False) -> None:
        self.folder, self.processes = folder, processes
        self.made_by = {job: {k: v for k, v in versions(f).items() if k != "snnparams"} for job, f in JOBS.items()}
        self.here = {"commit": commit(), "processor": processor()}
        self.runs: dict[str, dict] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.jsonl")):
            for line in self._whole_lines(path):
                made_by = {name: line[name] for name in ("source", "torch")}
                if made_by != self.made_by[line["job"]] and not accept_older:
                    raise SystemExit(
                        f"{path} holds runs of {made_by}, this is {self.made_by[line['job']]}: move it away to run "
                        "them again, or say --accept-older if what changed since does not change results"
                    )
                self.runs[key_of(line["job"], line["cell"])] = line

    def hours(self) -> dict[str, float]:
        """Return the hours of one core that the kept runs of each stage took."""
        found: dict[str, float] = {}
        for line in self.runs.values():
            found[line["stage"]] = found.get(line["stage"], 0.0) + line["seconds"] / 3600
        return rounded(found, 3)

    @staticmethod
    def _whole_lines(path: Path) -> list[dict]:
        """Return the lines of a file; a last one that is cut off, by a crash, is cut away."""
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            path.write_bytes(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def _write(self, stage: str, line: dict) -> None:
        with (self.folder / f"{stage}.jsonl").open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _elsewhere(self, planned: list[dict]) -> set[str]:
        """Return keys of kept runs of a seed that was begun on another processor: all its kinds run on one."""
        groups: dict[tuple, list[str]] = {}
        for run in planned:
            groups.setdefault((run["task"], run["seed"]), []).append(key_of(run["job"], run["cell"]))
        again = set()
        for keys in groups.values():
            kept = [key for key in keys if key in self.runs]
            if len(kept) < len(keys):
                again |= {key for key in kept if self.runs[key]["processor"] != self.here["processor"]}
        return again

    def run(self, stage: str, planned: list[dict]) -> list[dict]:
        """Compute what is missing of a stage and return the lines of all its runs, in order.

        Args:
            stage: names the file.
            planned: runs, each with `task`, `condition`, `seed`, `job` and `cell`.

        Raises:
            RuntimeError: if a run fails; what was done is kept.
        """
        start = time.perf_counter()
        again = self._elsewhere(planned)
        missing = {}
        for run in planned:
            key = key_of(run["job"], run["cell"])
            if key not in self.runs or key in again:
                missing.setdefault(key, run)
        seconds = 0.0
        if missing:
            context = multiprocessing.get_context("spawn")
            pool = concurrent.futures.ProcessPoolExecutor(self.processes, context, initializer=_start_worker)
            with pool:
                waiting = {pool.submit(compute, run["job"], run["cell"]): key for key, run in missing.items()}
                try:
                    for count, future in enumerate(concurrent.futures.as_completed(waiting), start=1):
                        run, (result, took) = missing[waiting[future]], future.result()
                        line = {"stage": stage, **run, "result": result, "seconds": round(took, 2)}
                        line |= self.made_by[run["job"]] | self.here
                        self._write(stage, line)
                        self.runs[waiting[future]] = line
                        seconds += took
                        if count % 50 == 0:
                            print(f"  {stage}: {count} of {len(missing)} runs", flush=True)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        if missing:
            took = time.perf_counter() - start
            each = seconds / len(missing)
            print(f"{stage}: {len(missing)} runs of {each:.1f} s, {took / 60:.1f} minutes", flush=True)
        found = [self.runs[key_of(run["job"], run["cell"])] for run in planned]
        return [
            {**line, **{k: run[k] for k in ("task", "condition", "seed")}}
            for line, run in zip(found, planned, strict=True)
        ]
