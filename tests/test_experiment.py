"""Grids: kept cell by cell, resumed after whatever ended them, refused where they do not belong together."""

import concurrent.futures
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import snnparams.experiment as ex
from snnparams.experiment import ResultsError, grid, run

POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def note(cell, what):
    """Append a line to the log file that the cell names: what was computed, by which process."""
    with open(cell["log"], "a") as file:
        file.write(json.dumps([cell["x"], what, os.getpid()]) + "\n")


def square(cells):
    """Compute cells slowly enough to be interrupted."""
    results = []
    for cell in cells:
        note(cell, "start")
        time.sleep(cell["seconds"])
        note(cell, "end")
        results.append({"square": cell["x"] ** 2, "third": cell["x"] / 3})
    return results


def picky(cells):
    if Path(cells[0]["log"]).exists() or cells[0]["x"] != 3:
        return [{"square": cell["x"] ** 2} for cell in cells]
    raise RuntimeError("not a three")


def how_many(cells):
    return [{"together": len(cells), "with": [cell["x"] for cell in cells]} for _ in cells]


def cells_of(tmp_path, count, seconds=0.0):
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


def test_results_come_in_the_order_of_cells_and_are_computed_once(tmp_path):
    cells = cells_of(tmp_path, 5)[::-1]
    first = run(square, cells, tmp_path / "results")
    assert first == expected(5)[::-1]
    before = kept(tmp_path / "results")
    assert len(before) == 5
    assert run(square, cells, tmp_path / "results") == first
    assert kept(tmp_path / "results") == before
    assert sorted(log(tmp_path)) == [0, 1, 2, 3, 4]
    assert not list((tmp_path / "results").glob("*.partial"))


def test_a_result_is_there_as_soon_as_its_cell_is_done(tmp_path, monkeypatch):
    found = []

    def spy(cells):
        found.append(len(kept(tmp_path / "results")))
        return square(cells)

    run(spy, cells_of(tmp_path, 4), tmp_path / "results")
    assert found == [0, 1, 2, 3]


def test_cells_together(tmp_path):
    cells = grid(seed=[0, 1], x=[5, 6, 7])
    results = run(how_many, cells, tmp_path / "results", together=["x"])
    assert [r["with"] for r in results] == [[5, 6, 7]] * 6
    next((tmp_path / "results").glob("cell-*.json")).unlink()
    assert run(how_many, cells, tmp_path / "results", together=["x"]) == results  # the whole group is computed again
    assert [r["together"] for r in run(how_many, cells, tmp_path / "alone")] == [1] * 6


def test_a_cell_that_fails_does_not_stop_the_others(tmp_path):
    cells = cells_of(tmp_path, 6)
    message = r"1 of 6 cells failed; the others are kept in .*results.*First: .*'x': 3.*RuntimeError: not a three"
    with pytest.raises(RuntimeError, match=message) as caught:
        run(picky, cells, tmp_path / "results")
    assert str(caught.value.__cause__) == "not a three"
    assert len(kept(tmp_path / "results")) == 5
    (tmp_path / "log").touch()  # what makes it work
    assert [r["square"] for r in run(picky, cells, tmp_path / "results")] == [0, 1, 4, 9, 16, 25]


@pytest.mark.parametrize("workers", [1, 2])
def test_in_processes_and_on_an_executor(tmp_path, workers):
    cells = cells_of(tmp_path, 6)
    if workers == 2:
        assert run(square, cells, tmp_path / "results", processes=2) == expected(6)
    else:
        with concurrent.futures.ThreadPoolExecutor(3) as executor:
            assert run(square, cells, tmp_path / "results", executor=executor) == expected(6)
    assert sorted(log(tmp_path)) == list(range(6))


def test_an_executor_whose_futures_are_its_own(tmp_path):
    class Job:  # what submitit's jobs have
        def __init__(self, function, cells):
            self.call, self.asked = (function, cells), 0

        def done(self):
            self.asked += 1
            return self.asked > self.call[1][0]["x"] % 3

        def result(self):
            return self.call[0](self.call[1])

        def cancel(self):
            raise AssertionError("nothing is left to cancel")

    class Jobs:
        submit = Job

    assert run(square, cells_of(tmp_path, 6), tmp_path / "results", executor=Jobs) == expected(6)


@POSIX
def test_killed_at_random_moments_it_loses_and_repeats_nothing(tmp_path):
    cells, folder, rng, kills = cells_of(tmp_path, 60, seconds=0.004), tmp_path / "results", random.Random(0), 0
    longest = 0.02  # s; on a slow machine runs get longer until they achieve something
    while True:
        before = kept(folder) if folder.exists() else {}
        computed = len(log(tmp_path))
        with warnings.catch_warnings():  # forking with threads is fine for a function that uses none
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            try:
                run(square, cells, folder, progress=False)
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
    assert run(square, cells, folder) == expected(60)


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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_when_the_run_is_killed_its_processes_end_and_it_goes_on(tmp_path):
    cells, folder = cells_of(tmp_path, 40, seconds=0.1), tmp_path / "results"
    code = (
        "import sys, json; from test_experiment import *\n"
        "if __name__ == '__main__': run(square, json.loads(sys.argv[1]), sys.argv[2], processes=2)"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen([sys.executable, script, json.dumps(cells), folder], env=environment)
    for _ in range(600):
        if folder.exists() and len(kept(folder)) >= 5:
            break
        time.sleep(0.1)
    pids = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert {json.loads(line)[2] for line in (tmp_path / "log").read_text().splitlines()} <= set(pids)
    for _ in range(600):
        if not any(map(alive, pids)):
            break
        time.sleep(0.1)
    assert not any(map(alive, pids))
    before = kept(folder)
    assert 5 <= len(before) < 40
    (tmp_path / "log").unlink()
    assert run(square, [{**cell} for cell in cells], folder) == expected(40)
    assert len(log(tmp_path)) == 40 - len(before)
    assert {path: kept(folder)[path] for path in before} == before


@pytest.mark.filterwarnings("ignore")  # Dask's own, and those of killing its worker
def test_dask_workers_of_which_one_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    cells, folder = cells_of(tmp_path, 30, seconds=0.1), tmp_path / "results"
    killed = []

    def kill_one():
        while not (folder.exists() and len(kept(folder)) >= 5):
            time.sleep(0.02)
        killed.append(json.loads((tmp_path / "log").read_text().splitlines()[-1])[2])
        os.kill(killed[0], signal.SIGKILL)

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with (
        distributed.LocalCluster(**options, local_directory=str(tmp_path)) as cluster,
        distributed.Client(cluster) as client,
        concurrent.futures.ThreadPoolExecutor(1) as background,
    ):
        killer = background.submit(kill_one)
        results = run(square, cells, folder, executor=client.get_executor())
        killer.result(timeout=1)
    assert results == expected(30)
    assert len(kept(folder)) == 30
    assert killed[0] != os.getpid()
    assert len(set(log(tmp_path, "end"))) == 30


# ------------------------------------------------------------------------------------------------------ refusals


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def done(tmp_path):
    cells = cells_of(tmp_path, 3)
    run(square, cells, tmp_path / "results")
    return cells, tmp_path / "results"


def test_files_that_are_cut_off_are_refused_and_left_alone(done):
    cells, folder = done
    for path in sorted(folder.iterdir()):
        whole = path.read_text()
        for damaged in (whole[: len(whole) // 2], "", "[]", '{"cell": 1}', "\x00" * 40):
            path.write_text(damaged)
            before = everything(folder)
            with pytest.raises(ResultsError, match=rf"{path.name}.*Delete it,? and run again"):
                run(square, cells, folder)
            assert everything(folder) == before
        path.write_text(whole)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ResultsError, match="cut off or damaged"):
        run(square, cells, folder)


def test_results_of_another_version_are_refused(done, monkeypatch):
    cells, folder = done
    before = everything(folder)
    for field, value in (("snnparams", "9.9"), ("source", "0123"), ("torch", "1.0")):
        changed = ex.versions(square) | {field: value}
        monkeypatch.setattr(ex, "versions", lambda function, changed=changed: changed)
        with pytest.raises(
            ResultsError, match=rf"of another version: expected versions .*{value}.*Give another folder"
        ):
            run(square, cells, folder)
        monkeypatch.undo()
    monkeypatch.setattr(ex, "FORMAT", 2)
    with pytest.raises(ResultsError, match="expected format 2, got 1"):
        run(square, cells, folder)
    monkeypatch.undo()
    with pytest.raises(ResultsError, match=r"expected function .*how_many, got .*square"):
        run(how_many, cells, folder)
    with pytest.raises(ResultsError, match=r"expected together \['x'\], got \[\]"):
        run(square, cells, folder, together=["x"])
    assert everything(folder) == before
    assert run(square, cells, folder) == expected(3)


def test_results_of_another_grid_are_refused(done, tmp_path):
    cells, folder = done
    before = everything(folder)
    for other in (cells[:2], cells_of(tmp_path, 4), cells_of(tmp_path, 3, seconds=0.1), cells[::-1]):
        with pytest.raises(ResultsError, match=rf"another grid: expected {len(other)} cells, got 3 cells, of which \d"):
            run(square, other, folder)
    names = sorted(path.name for path in folder.glob("cell-*.json"))
    (folder / names[0]).write_bytes((folder / names[1]).read_bytes())
    with pytest.raises(ResultsError, match=r"expected the cell \{.*\}, got \{.*\}\. Delete it"):
        run(square, cells, folder)
    (folder / names[0]).write_bytes(before[names[0]])
    assert everything(folder) == before


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(ResultsError, match=r"expected an empty folder or one with grid\.json, got other files"):
        run(square, cells_of(tmp_path, 2), tmp_path)
    assert everything(tmp_path) == {"precious.txt": b"x"}


def test_the_source_of_the_package_is_part_of_the_version(tmp_path, monkeypatch):
    before = ex.versions()
    package = tmp_path / "snnparams"
    package.mkdir()
    for path in Path(ex.__file__).parent.glob("*.py"):
        (package / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(ex.snnparams, "__file__", str(package / "__init__.py"))
    copied = ex.versions()
    (package / "training.py").write_text("# changed\n")
    assert len({before["source"], copied["source"], ex.versions()["source"]}) == 3


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
    monkeypatch.setattr(ex.snnparams, "__file__", str(package / "__init__.py"))
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
        assert ex.imported_modules(tmp_path / "own.py") == found, text

    own = tmp_path / "own.py"
    own.write_text("from snnparams import thing")
    monkeypatch.setattr(ex.inspect, "getsourcefile", lambda function: str(own))
    before = ex.versions(nothing)
    (package / "unused.py").write_text("# changed")
    assert ex.versions(nothing) == before
    assert ex.versions()["source"] != before["source"]
    for path in (package / "inner" / "named.py", own):
        last = ex.versions(nothing)
        path.write_text(path.read_text() + "\n# changed")
        assert ex.versions(nothing)["source"] != last["source"]


def nothing(cells):
    return []


def not_a_number(cells):
    return [{"loss": float("nan")} for _ in cells]


def test_bad_input(tmp_path):
    cells = cells_of(tmp_path, 2)
    with pytest.raises(ValueError, match="at least one and all different, got 0"):
        run(square, [], tmp_path / "a")
    with pytest.raises(ValueError, match="at least one and all different, got 4"):
        run(square, cells + cells, tmp_path / "a")
    with pytest.raises(ValueError, match="processes: expected a positive integer, got 0"):
        run(square, cells, tmp_path / "a", processes=0)
    with pytest.raises(ValueError, match="processes: expected 1 with an executor, which does the work, got 2"):
        run(square, cells, tmp_path / "a", processes=2, executor=concurrent.futures.Executor())
    with pytest.raises(TypeError, match="together: expected a list of names of axes, got 'x'"):
        run(square, cells, tmp_path / "a", together="x")
    with pytest.raises(ValueError, match="together: expected names among log, seconds, x, got 'seed'"):
        run(square, cells, tmp_path / "a", together=["x", "seed"])
    with pytest.raises(TypeError, match="not JSON serializable"):
        run(square, [{"x": object()}], tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(RuntimeError, match="expected 1 results, got 0"):
        run(nothing, cells, tmp_path / "b")
    with pytest.raises(RuntimeError, match=r"2 of 2 cells failed.*not JSON compliant"):
        run(not_a_number, cells, tmp_path / "c")
    assert not kept(tmp_path / "c")
