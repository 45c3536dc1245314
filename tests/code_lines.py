"""Count the package's lines of code, without blank lines, comments and docstrings.

    python tests/code_lines.py [REVISION]          of each module, at a revision of git (HEAD)
    python tests/code_lines.py REVISION --since S  and which commits since S brought those that are there

Generated files are counted apart. A line belongs to the commit that last changed more of it than white space; one that
was moved, to that which wrote it.
"""

import argparse
import ast
import collections
import io
import re
import subprocess
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = "snnparams/kernels/derived/"
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DESCRIBED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(text):
    """Return the numbers of the lines of a Python source that hold code."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DESCRIBED) and ast.get_docstring(node) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def git(*args):
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def modules(revision):
    """Return the lines with code of each module at a revision."""
    names = git("ls-tree", "-r", "--name-only", revision, "snnparams").split()
    return {name: code_lines(git("show", f"{revision}:{name}")) for name in names if name.endswith(".py")}


def brought(found, revision, since):
    """Count the lines that each commit has brought, those of before under the name of that revision."""
    counts = collections.Counter()
    for name, lines in found.items():
        blamed = git("blame", "-s", "-w", "-M", "-C", f"{since}..{revision}", "--", name).splitlines()
        for number, line in enumerate(blamed, 1):
            if number in lines:
                counts[since if line.startswith("^") else re.match(r"\w{7}", line)[0]] += 1
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", nargs="?", default="HEAD")
    parser.add_argument("--since", metavar="S")
    options = parser.parse_args()
    found = modules(options.revision)
    generated = {name: found.pop(name) for name in list(found) if name.startswith(GENERATED)}
    if options.since:
        for commit, count in brought(found, options.revision, options.since).most_common():
            print(f"{count:6} {git('log', '-1', '--format=%h %ad %s', '--date=short', commit).strip()}")
    else:
        for name, lines in found.items():
            print(f"{len(lines):6} {name}")
    print(f"{sum(map(len, found.values())):6} written by hand, and {sum(map(len, generated.values()))} generated")
