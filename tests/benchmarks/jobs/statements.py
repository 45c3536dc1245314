"""Count the statements of a script: what its author had to decide, however it is broken into lines.

After a run of the jobs, `python tests/benchmarks/jobs/statements.py` prints the table for book/using.md.
"""

import ast
import json
from pathlib import Path

HERE = Path(__file__).parent
LIBRARIES = {"norse": "norse", "snntorch": "snntorch", "spikingjelly": "spikingjelly", "ours": "snnparams"}
# in the order of the table's columns
NAMES = {"ours": "here", "norse": "Norse", "snntorch": "snnTorch", "spikingjelly": "SpikingJelly"}
JOBS = {
    "three_layers": "three layers",
    "convolution": "a convolutional network",
    "spoken_digits": "spoken digits, a schedule, a killed process that goes on",
    "lengths": "sequences of different lengths",
    "streaming": "a stream, truncated backpropagation",
    "ensembles": "six networks for a mean",
    "lightning_module": "training by Lightning",
    "own_neuron": "a neuron of one's own, a time constant for each",
    "delays": "learned delays",
    "export": "to a file of NIR and back",
}
NO_SCRIPT = {
    ("delays", "norse"): "has no delays",
    ("delays", "snntorch"): "has no delays",
    ("delays", "spikingjelly"): "has one delay for a whole layer, which is not learned",
}


NOT_RUN = "not run yet"


def _is_of_data(node: ast.stmt, functions: set[str]) -> bool:
    """Return whether a statement does nothing else than to call a function of the data, or to take the one batch."""
    value = getattr(node, "value", None)
    is_call = isinstance(value, ast.Call) and isinstance(value.func, ast.Name)
    return is_call and (value.func.id in functions or ast.unparse(value).startswith("next(iter("))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def count(text: str) -> int:
    """Return the number of statements, compound ones and those within them, of a script.

    Imports do not count, nor docstrings, nor what only gets data: a call of a function that comes from `job_data`, and
    `next(iter(loader))`. A function, a class or a loop is one statement and those of its body.
    """
    tree = ast.parse(text)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "job_data"]
    functions = {alias.asname or alias.name for node in imports for alias in node.names}
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    free = (ast.Import, ast.ImportFrom)
    return sum(not (isinstance(node, free) or _is_text(node) or _is_of_data(node, functions)) for node in statements)


def scripts() -> dict[str, dict[str, Path]]:
    """Return the scripts of each job, by library."""
    found = {job: {library: HERE / job / f"{library}.py" for library in LIBRARIES} for job in JOBS}
    return {job: {library: path for library, path in of.items() if path.exists()} for job, of in found.items()}


def counted() -> dict[str, dict[str, int]]:
    """Return the number of statements of each script."""
    return {job: {library: count(path.read_text()) for library, path in of.items()} for job, of in scripts().items()}


def table(jobs: dict[str, dict]) -> str:
    """Return the table of "Using the package": statements by job and library, the least in bold.

    Args:
        jobs: the entry of that name of book/results/jobs.json.
    """
    lines = ["| | " + " | ".join(NAMES.values()) + " |", "|---|" + "--:|" * len(NAMES)]
    for job, title in JOBS.items():
        numbers = {library: jobs[job][library].get("statements") for library in NAMES}
        least = min(number for number in numbers.values() if number is not None)
        cells = []
        for library, number in numbers.items():
            cell = "\N{EN DASH}" if number is None else f"**{number}**" if number == least else f"{number}"
            cells.append(cell if number is None or "result" in jobs[job][library] else f"{cell} ({NOT_RUN})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(json.loads(Path("book/results/jobs.json").read_text())["jobs"]))
