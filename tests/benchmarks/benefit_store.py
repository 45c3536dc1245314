"""Runs of chapter 6's experiment as lines of JSON: kept as they come, and found again by what they depend on.

Each line is one run: stage, task, condition, seed, cell, result, seconds, and with what it was made. A run is known
by its cell, its function, the source of the modules that the function imports, and the version of PyTorch.
"""

import concurrent.futures
import hashlib
import json
import math
import multiprocessing
import os
import platform
import threading
import time
from pathlib import Path

import stored
import torch
from benefit_side_by_side import run_trials
from benefit_stacked import size_of

from snnparams.experiments.drift import run_drift
from snnparams.experiments.experiment import versions
from snnparams.experiments.reference_levels import run_reference
from snnparams.experiments.trial import run_raster, run_trial

MEMBERS = 100  # trials computed side by side, at most: they fill a GPU, and little is lost when one is stopped
JOBS = {"trial": run_trial, "reference": run_reference, "gradients": run_drift, "raster": run_raster}


def processor() -> str:
    """Return the name of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "model\t"))]
    return " model ".join(dict.fromkeys(reversed(names))) or platform.processor() or platform.machine()


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


def _start_gpu_worker() -> None:
    _start_worker()
    torch.cuda.init()


def compute(runs: list[tuple[str, dict]], side_by_side: str | None) -> tuple[list[dict], float]:
    """Return the results of some runs, and the seconds that they took.

    Args:
        runs: job and cell of each.
        side_by_side: device on which trials, then of one size, are computed at once; None for one after the other.
    """
    start = time.perf_counter()
    if side_by_side and runs[0][0] == "trial":
        results = run_trials([cell for _, cell in runs], side_by_side)
    else:
        results = [JOBS[job](cell) for job, cell in runs]
    results = [json.loads(json.dumps(shortened(result), allow_nan=False)) for result in results]
    return results, time.perf_counter() - start


class Store:
    """All runs that are kept in a folder, one file of lines for each stage.

    Args:
        folder: where the files are.
        processes: how many runs are computed at once, each in one thread.
        accept_older: whether runs of other source or another PyTorch count. Each line says with what it was made.
        device: "cpu", or "cuda" to compute trials of one size side by side on a GPU. References, gradients and rasters
            are computed on the CPU all the same.
        members: trials computed side by side, at most.

    Raises:
        SystemExit: if there are such runs and they do not count.
    """

    def __init__(
        self, folder: Path, processes: int, accept_older: bool = False, device: str = "cpu", members: int = MEMBERS
    ) -> None:
        self.folder, self.processes, self.device, self.members = folder, processes, device, members
        self.together = device != "cpu"
        self.pool: concurrent.futures.Executor | None = None
        self.made_by = {job: {k: v for k, v in versions(f).items() if k != "snnparams"} for job, f in JOBS.items()}
        self.here = {
            "commit": stored.commit(),
            "processor": processor() if device == "cpu" else torch.cuda.get_device_name(),
        }
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

    def has(self, job: str, cell: dict) -> bool:
        """Return whether a run is kept."""
        return key_of(job, cell) in self.runs

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

    def _pool(self) -> concurrent.futures.Executor:
        if self.pool is None:
            context = multiprocessing.get_context("spawn")
            start = _start_worker if self.device == "cpu" else _start_gpu_worker
            self.pool = concurrent.futures.ProcessPoolExecutor(self.processes, context, initializer=start)
        return self.pool

    def close(self, wait: bool) -> None:
        """End the processes, and wait until they have ended or not; what they have not begun is dropped."""
        if self.pool is not None:
            self.pool.shutdown(wait=wait, cancel_futures=True)
            self.pool = None

    def _groups(self, missing: dict[str, dict]) -> list[list[str]]:
        """Return the keys of runs that are computed in one go: each alone, but trials of one size on a GPU."""
        if not self.together:
            return [[key] for key in missing]
        of_size: dict[str, list[str]] = {}
        for key, run in missing.items():
            of_size.setdefault(size_of(run["cell"]) if run["job"] == "trial" else key, []).append(key)
        groups = []
        for keys in of_size.values():
            parts = math.ceil(len(keys) / self.members)
            groups += [keys[len(keys) * k // parts : len(keys) * (k + 1) // parts] for k in range(parts)]
        return groups[::-1]  # those that take longest stand last

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
        # a search picks settings by means over its seeds: it contrasts no pair of runs, and goes on where it stopped
        again = set() if stage.endswith("tuning") else self._elsewhere(planned)
        missing = {}
        for run in planned:
            key = key_of(run["job"], run["cell"])
            if key not in self.runs or key in again:
                missing.setdefault(key, run)
        seconds, count = 0.0, 0
        if missing:
            pool = self._pool()
            waiting = {
                pool.submit(compute, [(missing[key]["job"], missing[key]["cell"]) for key in keys], device): keys
                for device in [self.device if self.together else None]
                for keys in self._groups(missing)
            }
            try:
                for future in concurrent.futures.as_completed(waiting):
                    keys, (results, took) = waiting[future], future.result()
                    for key, result in zip(keys, results, strict=True):
                        run = missing[key]
                        line = {"stage": stage, **run, "result": result, "seconds": round(took / len(keys), 3)}
                        line |= self.made_by[run["job"]] | self.here
                        self._write(stage, line)
                        self.runs[key] = line
                    seconds += took
                    if (count + len(keys)) // 50 > count // 50:
                        print(f"  {stage}: {count + len(keys)} of {len(missing)} runs", flush=True)
                    count += len(keys)
            except BaseException:
                self.close(wait=False)
                raise
            if self.device == "cpu":
                self.close(wait=True)  # a pool on a GPU has recorded and compiled what the next stage needs
        if missing:
            took = time.perf_counter() - start
            each = seconds / len(missing)
            print(f"{stage}: {len(missing)} runs of {each:.1f} s, {took / 60:.1f} minutes", flush=True)
        found = [self.runs[key_of(run["job"], run["cell"])] for run in planned]
        return [
            {**line, **{k: run[k] for k in ("task", "condition", "seed")}}
            for line, run in zip(found, planned, strict=True)
        ]
