"""Ten ordinary jobs, each written for every library that can do it: run them, count their statements, store both.

Run from the repository root, about five minutes on one core:

    pip install -r tests/benchmarks/requirements.txt
    python tests/benchmarks/jobs
    python tests/benchmarks/jobs --job lengths export --library ours norse

Every script asserts its own result, that it learns well above chance or that two things are equal. Each is written into
book/results/jobs.json as soon as it is there, with what could not be run here, and why; others stay as they are.
"""

import argparse
import importlib.util
import json
import os
import platform
import runpy
import sys
import tempfile
import warnings
from pathlib import Path

import statements
import torch
from job_data import DataError

sys.path.insert(1, str(Path(__file__).parents[1]))
import stored


def run(path: Path) -> float:
    """Run a script in an empty folder and return its result."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries warn of is theirs
        os.chdir(folder)
        try:
            return round(float(runpy.run_path(str(path))["result"]), 4)
        finally:
            os.chdir(before)


def measured(job: str, library: str) -> dict:
    """Return the number of statements of a script, and its result, or why it is missing."""
    path = statements.scripts()[job].get(library)
    if path is None:
        return {"missing": statements.NO_SCRIPT[job, library]}
    row = {"statements": statements.count(path.read_text())}
    if importlib.util.find_spec(statements.LIBRARIES[library]) is None:
        return row | {"missing": "not installed"}
    try:
        return row | {"result": run(path)}
    except DataError as error:
        return row | {"missing": str(error)}


def store(output: Path, job: str, library: str, row: dict) -> None:
    """Write one row into the file, and leave the others as they are."""
    kept = json.loads(output.read_text())["jobs"] if output.exists() else {}
    kept.setdefault(job, {})[library] = row
    packages = (*statements.LIBRARIES.values(), "lightning", "nir")
    versions = stored.header_of_device("", *packages)["versions"]
    header = stored.header("jobs", f"{platform.machine()}, CPU, one thread", **versions)
    jobs = {job: {name: kept[job][name] for name in statements.LIBRARIES if name in kept[job]} for job in kept}
    stored.write(output, header | {"jobs": {job: jobs[job] for job in statements.JOBS if job in jobs}})


def main() -> None:
    """Run and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", nargs="+", choices=statements.JOBS, default=list(statements.JOBS))
    parser.add_argument("--library", nargs="+", choices=statements.LIBRARIES, default=list(statements.LIBRARIES))
    parser.add_argument("--output", type=Path, default=Path("book/results/jobs.json"))
    args = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    torch.set_num_threads(1)  # one process is split in two, which threads would not survive
    for job in args.job:
        for library in args.library:
            row = measured(job, library)
            store(args.output, job, library, row)
            print(job, library, row, flush=True)


if __name__ == "__main__":
    main()
