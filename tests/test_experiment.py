"""Grids: kept trial by trial, resumed after whatever ended them, refused where they do not belong together."""

import concurrent.futures
import functools
import importlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import commands
import numpy as np
import pytest
import torch

import snnparams
import snnparams.experiments.experiment as ex
from snnparams.experiments import versions
from snnparams.experiments.experiment import ResultsError, grid, run
from snnparams.experiments.processes import in_processes

POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def note(trial, what):
    """Append a line to the log file that the trial names: what was computed, by which process."""
    with open(trial["log"], "a") as file:
        file.write(json.dumps([trial["x"], what, os.getpid()]) + "\n")


def square(trials):
    """Compute trials slowly enough to be interrupted."""
    results = []
    for trial in trials:
        note(trial, "start")
        time.sleep(trial["seconds"])
        note(trial, "end")
        results.append({"square": trial["x"] ** 2, "third": trial["x"] / 3})
    return results


def picky(trials):
    if Path(trials[0]["log"]).exists() or trials[0]["x"] != 3:
        return [{"square": trial["x"] ** 2} for trial in trials]
    raise RuntimeError("not a three")


def how_many(trials):
    return [{"together": len(trials), "with": [trial["x"] for trial in trials]} for _ in trials]


def trials_of(tmp_path, count, seconds=0.0):
    return grid(log=[str(tmp_path / "log")], seconds=[seconds], x=range(count))


def expected(count):
    return [{"square": x**2, "third": x / 3} for x in range(count)]


def log(tmp_path, what="start"):
    path = tmp_path / "log"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [x for x, found, _ in lines if found == what]


def kept(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("cell-*.json")}


def test_grid():
    assert grid(tau=[4, 8], seed=range(2)) == [
        {"tau": 4, "seed": 0},
        {"tau": 4, "seed": 1},
        {"tau": 8, "seed": 0},
        {"tau": 8, "seed": 1},
    ]


def test_results_come_in_the_order_of_trials_and_are_computed_once(tmp_path):
    trials = trials_of(tmp_path, 5)[::-1]
    first = run(square, trials, tmp_path / "results")
    assert first == expected(5)[::-1]
    before = kept(tmp_path / "results")
    assert len(before) == 5
    assert run(square, trials, tmp_path / "results") == first
    assert kept(tmp_path / "results") == before
    assert sorted(log(tmp_path)) == [0, 1, 2, 3, 4]
    assert not list((tmp_path / "results").glob("*.partial"))


def test_a_result_is_there_as_soon_as_its_trial_is_done(tmp_path, monkeypatch):
    found = []

    def spy(trials):
        found.append(len(kept(tmp_path / "results")))
        return square(trials)

    run(spy, trials_of(tmp_path, 4), tmp_path / "results")
    assert found == [0, 1, 2, 3]


def test_trials_together(tmp_path):
    trials = grid(seed=[0, 1], x=[5, 6, 7])
    results = run(how_many, trials, tmp_path / "results", together=["x"])
    assert [r["with"] for r in results] == [[5, 6, 7]] * 6
    next((tmp_path / "results").glob("cell-*.json")).unlink()
    assert run(how_many, trials, tmp_path / "results", together=["x"]) == results  # the whole group is computed again
    assert [r["together"] for r in run(how_many, trials, tmp_path / "alone")] == [1] * 6


def test_a_trial_that_fails_does_not_stop_the_others(tmp_path):
    trials = trials_of(tmp_path, 6)
    message = r"1 of 6 trials failed; the others are kept in .*results.*First: .*'x': 3.*RuntimeError: not a three"
    with pytest.raises(RuntimeError, match=message) as caught:
        run(picky, trials, tmp_path / "results")
    assert str(caught.value.__cause__) == "not a three"
    assert len(kept(tmp_path / "results")) == 5
    (tmp_path / "log").touch()  # what makes it work
    assert [r["square"] for r in run(picky, trials, tmp_path / "results")] == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("workers", [1, 2])
def test_in_processes_and_on_an_executor(tmp_path, workers):
    trials = trials_of(tmp_path, 6)
    if workers == 2:
        assert run(square, trials, tmp_path / "results", processes=2) == expected(6)
    else:
        with concurrent.futures.ThreadPoolExecutor(3) as executor:
            assert run(square, trials, tmp_path / "results", executor=executor) == expected(6)
    assert sorted(log(tmp_path)) == list(range(6))


def test_an_executor_whose_futures_are_its_own(tmp_path):
    class Job:  # what submitit's jobs have
        def __init__(self, function, trials):
            self.call, self.asked = (function, trials), 0

        def done(self):
            self.asked += 1
            return self.asked > self.call[1][0]["x"] % 3

        def result(self):
            return self.call[0](self.call[1])

        def cancel(self):
            raise AssertionError("nothing is left to cancel")

    class Jobs:
        submit = Job

    assert run(square, trials_of(tmp_path, 6), tmp_path / "results", executor=Jobs) == expected(6)


def in_script(code, tmp_path, *arguments, **variables):
    """Run code that knows this module's names as a script: a process without threads can fork, pytest's cannot."""
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nfrom test_experiment import *\nif __name__ == '__main__': {code}\n")
    variables |= {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OPENBLAS_NUM_THREADS": "1"}
    return commands.run(sys.executable, script, *arguments, env=os.environ | variables, timeout=300)


class Screen(io.StringIO):
    """Where a progress bar is drawn."""

    def isatty(self):
        return True


def kill_at_random_moments(tmp_path):
    """Run a grid in processes that are killed; one is not, in the end."""
    assert threading.active_count() == 1
    trials, folder, rng, kills = trials_of(tmp_path, 60, seconds=0.004), tmp_path / "results", random.Random(0), 0
    os.environ.pop("TQDM_DISABLE", None)
    sys.stderr = Screen()
    longest = 0.02  # s; on a slow machine runs get longer until they achieve something
    while True:
        before = kept(folder) if folder.exists() else {}
        computed = len(log(tmp_path))
        list(snnparams.progress_bar(range(3)))  # so that there is a lock, if it is one that processes share
        child = os.fork()
        if child == 0:
            try:
                run(square, trials, folder)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, longest))
        finished, _ = os.waitpid(child, os.WNOHANG)
        if not finished:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
        now = kept(folder) if folder.exists() else {}
        assert {path: now[path] for path in before} == before  # nothing lost, nothing written again
        assert len(log(tmp_path)) - computed <= len(now) - len(before) + 1  # at most the one it was at
        assert all(json.loads(path.read_text()) for path in now)  # each file is whole
        if finished:
            break
        longest *= 1.0 if len(now) > len(before) else 1.2
    assert kills >= 3
    assert run(square, trials, folder) == expected(60)


@POSIX
def test_killed_at_random_moments_it_loses_and_repeats_nothing(tmp_path):
    in_script("kill_at_random_moments(Path(sys.argv[1]))", tmp_path, tmp_path)


class Deadly(Screen):
    """A screen that kills whoever draws on it."""

    def write(self, text):
        os.kill(os.getpid(), signal.SIGKILL)


def kill_while_drawing():
    """Draw a bar beside a process that was killed while it did, and in one forked while a thread did."""
    os.environ.pop("TQDM_DISABLE", None)
    sys.stderr = screen = Screen()
    list(snnparams.progress_bar(range(3)))
    assert screen.getvalue()
    child = os.fork()
    if child == 0:
        sys.stderr = Deadly()
        list(snnparams.progress_bar(range(3)))
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    list(snnparams.progress_bar(range(3)))
    assert threading.active_count() == 1  # no thread watches the bars: it would wait for the lock as well

    lock = type(snnparams.progress_bar([], show=False)).get_lock()
    holds, release = threading.Event(), threading.Event()

    def hold():
        with lock:
            holds.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait()
    child = os.fork()
    if child == 0:
        list(snnparams.progress_bar(range(3)))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    release.set()
    thread.join()
    print("drawn")


@POSIX
def test_who_dies_while_drawing_a_bar_stops_nobody_else(tmp_path):
    assert in_script("kill_while_drawing()", tmp_path).strip() == "drawn"


def test_a_bar_leaves_tqdm_as_it_was():
    code = (
        "import tqdm, snnparams\n"
        "list(snnparams.progress_bar(range(3)))\n"
        "assert not hasattr(tqdm.std.TqdmDefaultWriteLock, 'mp_lock') and not hasattr(tqdm.tqdm, '_lock')\n"
        "assert tqdm.tqdm.monitor is None and tqdm.tqdm.monitor_interval == 10"
    )
    commands.run(sys.executable, "-c", code)


def dies(trials):
    """End the process that computes the trial 3, and once, while it draws a bar, the one at the trial 5."""
    note(trials[0], "start")
    if trials[0]["x"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if trials[0]["x"] == 5 and log(Path(trials[0]["log"]).parent).count(5) < 2:
        os.environ.pop("TQDM_DISABLE", None)
        sys.stderr = Deadly()
        list(snnparams.progress_bar(range(3)))
    time.sleep(0.05)
    note(trials[0], "end")
    return [{"square": trial["x"] ** 2} for trial in trials]


@pytest.mark.slow
@POSIX
def test_a_process_that_dies_stops_neither_the_others_nor_the_run(tmp_path):
    trials = trials_of(tmp_path, 8)
    message = r"1 of 8 trials failed.*First: .*'x': 3.*its process ended 3 times, the last time by signal 9 \(Killed\)"
    with pytest.raises(RuntimeError, match=message):
        run(dies, trials, tmp_path / "results", processes=2)
    assert len(kept(tmp_path / "results")) == 7
    assert sorted(log(tmp_path)) == [0, 1, 2, 3, 3, 3, 4, 5, 5, 6, 7]  # only what died is tried again
    assert sorted(log(tmp_path, "end")) == [0, 1, 2, 4, 5, 6, 7]
    assert not multiprocessing.active_children()


def exits(trials):
    note(trials[0], "start")
    if trials[0]["x"] == 1:
        sys.exit("no more")
    return [{"x": trial["x"]} for trial in trials]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["processes", "executor"])
def test_a_function_that_wants_to_end_its_process_fails_once(tmp_path, workers):
    trials, message = trials_of(tmp_path, 4), r"1 of 4 trials failed.*First: .*'x': 1.*got sys\.exit\('no more'\)"
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        how = {"processes": 2} if workers == "processes" else {"executor": executor}
        with pytest.raises(RuntimeError, match=message):
            run(exits, trials, tmp_path / "results", **how)
    assert sorted(log(tmp_path)) == [0, 1, 2, 3]
    assert len(kept(tmp_path / "results")) == 3


@pytest.mark.slow
@POSIX
def test_a_process_that_is_killed_from_outside_is_replaced(tmp_path):
    trials, folder, killed = trials_of(tmp_path, 12, seconds=0.2), tmp_path / "results", []

    def kill():
        wait_until(lambda: len(log(tmp_path)) >= 3)
        killed.append(json.loads((tmp_path / "log").read_text().splitlines()[-1])[2])
        os.kill(killed[0], signal.SIGKILL)

    with concurrent.futures.ThreadPoolExecutor(1) as background:
        killer = background.submit(kill)
        assert run(square, trials, folder, processes=2) == expected(12)
        killer.result(timeout=1)
    assert killed[0] != os.getpid()
    assert len(log(tmp_path)) <= 13
    assert sorted(log(tmp_path, "end")) == list(range(12))


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from snnparams.experiments.experiment import run\n"
        "def nothing(trials): return [{}]\n"
        f"run(nothing, [{{'x': k}} for k in range(50)], {str(tmp_path / 'results')!r}, processes=2)"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "processes: 3 in a row ended before they began, the last one with exit code 1. A script" in done.stderr
    assert 'if __name__ == "__main__"' in done.stderr.splitlines()[-1]


def awkward(trials):
    """Raise, or return, what cannot be sent from one process to another."""
    if trials[0]["x"] == 0:
        return [{"y": threading.Lock()}]
    if trials[0]["x"] == 1:
        raise json.JSONDecodeError("cut off", "text", 3)  # an error with arguments of its own
    if trials[0]["x"] == 2:

        class Local(Exception):
            pass

        raise Local("nobody knows it")
    return [{"y": 1}]


def test_errors_keep_their_traceback_and_what_cannot_be_sent_is_said(tmp_path):
    found = {trials[0]["x"]: outcome for trials, outcome in in_processes(awkward, [[{"x": x}] for x in range(4)], 2)}
    assert "cannot be sent from one process to another: results: " in str(found[0])
    assert type(found[1]) is json.JSONDecodeError
    assert "cannot be sent from one process to another: Local: nobody knows it" in str(found[2])
    assert "in awkward" in str(found[2].__cause__)
    assert found[3] == [{"y": 1}]


def test_an_executor_that_breaks_does_not_stop_the_run(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:

        class Broken:
            def submit(self, function, trials):
                if trials[0]["x"] == 2:
                    raise concurrent.futures.BrokenExecutor("out of order")
                return executor.submit(function, trials)

        with pytest.raises(RuntimeError, match=r"1 of 4 trials failed.*'x': 2.*BrokenExecutor: out of order"):
            run(square, trials_of(tmp_path, 4), tmp_path / "results", executor=Broken())
    assert len(kept(tmp_path / "results")) == 3


def scaled(factor, trials, *, offset=0):
    return [{"y": factor * trial["x"] + offset} for trial in trials]


def of_other_types(trials):
    return [{"a": np.float32(0.1), "b": np.arange(3), "c": torch.tensor([[1, 2]]), "d": np.bool_(True)} for _ in trials]


def test_numbers_and_arrays_become_plain_ones(tmp_path):
    plain = {"a": float(np.float32(0.1)), "b": [0, 1, 2], "c": [[1, 2]], "d": True}
    for _ in range(2):  # computed, then read
        assert run(of_other_types, [{"x": np.int64(3)}], tmp_path / "results") == [plain]
    with pytest.raises(RuntimeError, match=r"expected what JSON can hold .*, got set, which is not JSON serializable"):
        run(a_set, [{"x": 1}], tmp_path / "other")


def a_set(trials):
    return [{"y": {1}} for _ in trials]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_partial_function_is_known_by_its_arguments(tmp_path, processes):
    trials, folder = grid(x=[1, 2]), tmp_path / "results"
    twice = functools.partial(scaled, 2, offset=1)
    assert run(twice, trials, folder, processes=processes) == [{"y": 3}, {"y": 5}]
    assert run(functools.partial(functools.partial(scaled, 2), offset=1), trials, folder) == [{"y": 3}, {"y": 5}]
    for other in (functools.partial(scaled, 3, offset=1), functools.partial(scaled, 2, offset=2), scaled):
        with pytest.raises(ResultsError, match=r"expected function .*scaled.*, got .*scaled with 2 \{\"offset\": 1\}"):
            run(other, trials, folder)
    with pytest.raises(TypeError, match=r"function: arguments of functools.partial are part of .*, got object"):
        run(functools.partial(scaled, object()), trials, tmp_path / "other")


def test_what_is_no_function_or_cannot_be_sent_is_refused(tmp_path):
    class Callable:
        def __call__(self, trials):
            return [{} for _ in trials]

    for given, name in ((Callable(), "Callable"), (functools.partial(Callable()), "Callable"), ("square", "str")):
        with pytest.raises(TypeError, match=f"function: expected a function, or functools.partial of one, got {name}"):
            run(given, [{"x": 1}], tmp_path / "a")
    with pytest.raises(TypeError, match=r"function: expected one that other processes can import, got .*<lambda>"):
        run(lambda trials: [{}], [{"x": 1}, {"x": 2}], tmp_path / "a", processes=2)
    assert not (tmp_path / "a").exists()


def wait_until(condition, seconds=120):
    """Wait until something is so; a run that failed must not keep its test waiting."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def status(pid):
    """Return the state and the parent of a process, as /proc knows them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return ["X", None]


def alive(pid):
    return status(pid)[0] not in "ZX"


def children(pid):
    """Return all processes that a process started, also those that have not written to the log yet."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if status(path.name)[1] == str(pid)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_when_the_run_is_killed_its_processes_end_and_it_goes_on(tmp_path):
    trials, folder = trials_of(tmp_path, 40, seconds=0.1), tmp_path / "results"
    code = (
        "import sys, json; from test_experiment import *\n"
        "if __name__ == '__main__': run(square, json.loads(sys.argv[1]), sys.argv[2], processes=2)"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen([sys.executable, script, json.dumps(trials), folder], env=environment)
    wait_until(lambda: folder.exists() and len(kept(folder)) >= 5)
    pids = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert {json.loads(line)[2] for line in (tmp_path / "log").read_text().splitlines()} <= set(pids)
    wait_until(lambda: not any(map(alive, pids)))
    before = kept(folder)
    assert 5 <= len(before) < 40
    (tmp_path / "log").unlink()
    assert run(square, [{**trial} for trial in trials], folder) == expected(40)
    assert len(log(tmp_path)) == 40 - len(before)
    assert {path: kept(folder)[path] for path in before} == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Dask's own, and those of killing its worker
def test_dask_workers_of_which_one_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    trials, folder = trials_of(tmp_path, 30, seconds=0.1), tmp_path / "results"
    killed = []

    def kill_one():
        wait_until(lambda: folder.exists() and len(kept(folder)) >= 5)
        killed.append(json.loads((tmp_path / "log").read_text().splitlines()[-1])[2])
        os.kill(killed[0], signal.SIGKILL)

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with (
        distributed.LocalCluster(**options, local_directory=str(tmp_path)) as cluster,
        distributed.Client(cluster) as client,
        concurrent.futures.ThreadPoolExecutor(1) as background,
    ):
        killer = background.submit(kill_one)
        results = run(square, trials, folder, executor=client.get_executor())
        killer.result(timeout=1)
        alive = client.run(os.getpid).values()
    assert results == expected(30)
    assert len(kept(folder)) == 30
    assert killed[0] != os.getpid()
    assert killed[0] not in alive
    assert len(set(log(tmp_path, "end"))) == 30


# ------------------------------------------------------------------------------------------------------ refusals


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def done(tmp_path):
    trials = trials_of(tmp_path, 3)
    run(square, trials, tmp_path / "results")
    return trials, tmp_path / "results"


def test_files_that_are_cut_off_are_refused_and_left_alone(done):
    trials, folder = done
    for path in sorted(folder.iterdir()):
        whole = path.read_text()
        for damaged in (whole[: len(whole) // 2], "", "[]", '{"cell": 1}', "\x00" * 40):
            path.write_text(damaged)
            before = everything(folder)
            with pytest.raises(ResultsError, match=rf"{path.name}.*Delete it,? and run again"):
                run(square, trials, folder)
            assert everything(folder) == before
        path.write_text(whole)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ResultsError, match="cut off or damaged"):
        run(square, trials, folder)


def test_results_of_another_version_are_refused(done, monkeypatch):
    trials, folder = done
    before = everything(folder)
    for field, value in (("snnparams", "9.9"), ("source", "0123"), ("torch", "1.0")):
        changed = versions.versions(square) | {field: value}
        monkeypatch.setattr(ex, "versions", lambda function, changed=changed: changed)
        with pytest.raises(
            ResultsError, match=rf"of another version: expected versions .*{value}.*Give another folder"
        ):
            run(square, trials, folder)
        monkeypatch.undo()
    monkeypatch.setattr(ex, "FORMAT", 2)
    with pytest.raises(ResultsError, match="expected format 2, got 1"):
        run(square, trials, folder)
    monkeypatch.undo()
    with pytest.raises(ResultsError, match=r"expected function .*how_many, got .*square"):
        run(how_many, trials, folder)
    with pytest.raises(ResultsError, match=r"expected together \['x'\], got \[\]"):
        run(square, trials, folder, together=["x"])
    assert everything(folder) == before
    assert run(square, trials, folder) == expected(3)


def test_results_of_another_grid_are_refused(done, tmp_path):
    trials, folder = done
    before = everything(folder)
    for other in (trials[:2], trials_of(tmp_path, 4), trials_of(tmp_path, 3, seconds=0.1), trials[::-1]):
        with pytest.raises(ResultsError, match=rf"another grid: expected {len(other)} trials, got 3 trials, of wh"):
            run(square, other, folder)
    names = sorted(path.name for path in folder.glob("cell-*.json"))
    (folder / names[0]).write_bytes((folder / names[1]).read_bytes())
    with pytest.raises(ResultsError, match=r"expected the trial \{.*\}, got \{.*\}\. Delete it"):
        run(square, trials, folder)
    (folder / names[0]).write_bytes(before[names[0]])
    assert everything(folder) == before


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(ResultsError, match=r"expected an empty folder or one with grid\.json, got other files"):
        run(square, trials_of(tmp_path, 2), tmp_path)
    assert everything(tmp_path) == {"precious.txt": b"x"}


def test_the_source_of_the_package_is_part_of_the_version(tmp_path, monkeypatch):
    before = versions.versions()
    package = tmp_path / "snnparams"
    package.mkdir()
    for path in Path(ex.__file__).parent.glob("*.py"):
        (package / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(versions.snnparams, "__file__", str(package / "__init__.py"))
    copied = versions.versions()
    (package / "training.py").write_text("# changed\n")
    assert len({before["source"], copied["source"], versions.versions()["source"]}) == 3


def test_a_version_covers_what_the_function_imports_and_nothing_else(tmp_path, monkeypatch):
    package = tmp_path / "snnparams"
    source = {
        "__init__": "from snnparams.a import thing",
        "a": "from snnparams.b import other\ndef thing(): ...",
        "b": "import math\ndef other():\n    from snnparams.inner import deep",
        "unused": "from snnparams import a",
        "inner/__init__": "NAMES = {'x': 'snnparams.inner.named'}",
        "inner/deep": "",
        "inner/named": "",
        "inner/alone": "",
    }
    for name, text in source.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(versions.snnparams, "__file__", str(package / "__init__.py"))
    used = {"snnparams.a", "snnparams.b", "snnparams.inner", "snnparams.inner.deep", "snnparams.inner.named"}
    for text, found in {
        "from snnparams import thing": used,  # by the module that defines it
        "from snnparams import a": used,
        "from snnparams.a import thing": used,
        "import snnparams.b": used - {"snnparams.a"},
        "from snnparams.inner import alone": {"snnparams.inner", "snnparams.inner.alone", "snnparams.inner.named"},
        "import math": set(),
        "import snnparams as sp": {*used, "snnparams.unused", "snnparams.inner.alone"},
    }.items():
        (tmp_path / "own.py").write_text(text)
        assert versions.imported_modules(tmp_path / "own.py") == found, text

    own = tmp_path / "own.py"
    own.write_text("from snnparams import thing")
    monkeypatch.setattr(versions.inspect, "getsourcefile", lambda function: str(own))
    before = versions.versions(nothing)
    (package / "unused.py").write_text("# changed")
    assert versions.versions(nothing) == before
    assert versions.versions()["source"] != before["source"]
    for path in (package / "inner" / "named.py", own):
        last = versions.versions(nothing)
        path.write_text(path.read_text() + "\n# changed")
        assert versions.versions(nothing)["source"] != last["source"]


def test_a_version_covers_modules_of_the_users_own(tmp_path, monkeypatch):
    source = {
        "grids/__init__.py": "",
        "grids/first.py": "from . import second\ndef later():\n    import numpy, nothing\n    from ..... import x",
        "grids/second.py": "from scale_of_grids import SCALE",
        "grids/alone.py": "",
        "scale_of_grids.py": "import snnparams.data\nSCALE = 1.0",
        "run_grids.py": "import grids.first\ndef function(trials):\n    return trials",
    }
    for name, text in source.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("run_grids")
    found = versions.own_files(tmp_path / "run_grids.py")
    assert found == {tmp_path / name for name in source if name not in ("run_grids.py", "grids/alone.py")}
    before = versions.versions(module.function)
    (tmp_path / "grids/alone.py").write_text("# changed")
    assert versions.versions(module.function) == before
    (tmp_path / "scale_of_grids.py").write_text("import snnparams.data\nSCALE = 2.0")
    assert versions.versions(module.function)["source"] != before["source"]


def nothing(trials):
    return []


def not_a_number(trials):
    return [{"loss": float("nan")} for _ in trials]


def test_bad_input(tmp_path):
    trials = trials_of(tmp_path, 2)
    with pytest.raises(ValueError, match="at least one and all different, got 0"):
        run(square, [], tmp_path / "a")
    with pytest.raises(ValueError, match="at least one and all different, got 4"):
        run(square, trials + trials, tmp_path / "a")
    with pytest.raises(ValueError, match="processes: expected a positive integer, got 0"):
        run(square, trials, tmp_path / "a", processes=0)
    with pytest.raises(ValueError, match="processes: expected 1 with an executor, which does the work, got 2"):
        run(square, trials, tmp_path / "a", processes=2, executor=concurrent.futures.Executor())
    with pytest.raises(TypeError, match="together: expected a list of names of axes, got 'x'"):
        run(square, trials, tmp_path / "a", together="x")
    with pytest.raises(ValueError, match="together: expected names among log, seconds, x, got 'seed'"):
        run(square, trials, tmp_path / "a", together=["x", "seed"])
    with pytest.raises(TypeError, match="not JSON serializable"):
        run(square, [{"x": object()}], tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(RuntimeError, match="expected 1 results, got 0"):
        run(nothing, trials, tmp_path / "b")
    with pytest.raises(RuntimeError, match=r"2 of 2 trials failed.*expected results of finite numbers"):
        run(not_a_number, trials, tmp_path / "c")
    assert not kept(tmp_path / "c")


def uses_up(trials):
    """Change trials, as a careless function does."""
    return [{"seed used": trial.pop("seed"), "rate": trial.setdefault("lr", 0.1)} for trial in trials]


@pytest.mark.parametrize("how", ["here", "threads"])
def test_a_function_may_change_its_trials(how, tmp_path):
    trials = grid(kind=["a"], seed=range(3))
    expected = [{"seed used": seed, "rate": 0.1} for seed in range(3)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        more = {"executor": pool} if how == "threads" else {}
        assert run(uses_up, trials, tmp_path, progress=False, **more) == expected
        assert len(list(tmp_path.glob("*.json"))) == 3 + 1  # and the file about the grid
        assert run(uses_up, trials, tmp_path, progress=False, **more) == expected
    assert trials == grid(kind=["a"], seed=range(3))


def one_for_all(trials):
    return {"accuracy": 0.5}


def says_it(trials):
    return "x" * len(trials)


def no_number(trials):
    return [{"accuracy": float("nan")} for _ in trials]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (one_for_all, "function: expected a list of 1 results, got dict"),
        (says_it, "function: expected a list of 1 results, got str"),
        (no_number, r"function: expected results of finite numbers, got \[{'accuracy': nan}\]"),
    ],
)
def test_what_is_no_list_of_results_is_refused(function, message, tmp_path):
    with pytest.raises(RuntimeError, match=message):
        run(function, grid(x=[1]), tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.json"]
