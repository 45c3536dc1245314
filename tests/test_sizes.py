"""Files and functions of the package and of its benchmarks stay as long as one can read at a time."""

import ast

import pytest
from notebooks import ROOT

FOLDERS = ("snnparams", "tests/benchmarks")
FILES = sorted({path for f in FOLDERS for path in (ROOT / f).rglob("*.py")})
LONGEST_FILE, LONGEST_FUNCTION = 350, 60  # lines, of a function without its docstring


def lines_of(function):
    """Return how many lines a function has besides its docstring."""
    first, *rest = function.body
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    described = first.end_lineno - first.lineno + 1 if is_text and isinstance(first.value.value, str) and rest else 0
    return function.end_lineno - min(part.lineno for part in (function, *function.decorator_list)) + 1 - described


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long(path):
    text = path.read_text()
    if "enerated by" in text.splitlines()[0]:  # printed by a program, and read where it is made
        return
    assert text.count("\n") <= LONGEST_FILE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert not {f.name: lines_of(f) for f in functions if lines_of(f) > LONGEST_FUNCTION}


def test_a_function_that_is_too_long_would_be_found():
    text = 'def f():\n    """Say\n    what."""\n' + "    pass\n" * 60
    assert lines_of(ast.parse(text).body[0]) == 61
