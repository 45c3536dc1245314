"""Files and functions of the package stay as long as one can read at a time."""

import ast

import pytest
from notebooks import ROOT

FILES = sorted((ROOT / "snnparams").rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 350, 60
WITHOUT_LIMIT = {"cpu.py": {"_backward"}, "training.py": {"fit"}, "initialisation.py": {"fluctuation_driven_"}}
TO_BE_DIVIDED = {"delay.py", "ensemble.py", "exchange.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long(path):
    if path.name in TO_BE_DIVIDED:
        pytest.skip("known to be too long")
    text = path.read_text()
    first = text.splitlines()[0]
    if "enerated by" in first:  # printed by a program, and read where it is made
        return
    assert text.count("\n") <= LONGEST_FILE
    long = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - min(part.lineno for part in (node, *node.decorator_list)) + 1
            if lines > LONGEST_FUNCTION and node.name not in WITHOUT_LIMIT.get(path.name, ()):
                long[node.name] = lines
    assert not long
