"""What the README and CONTRIBUTING.md say is so: the example, the links, the commands."""

import ast
import re

import pytest
from notebooks import ROOT

import snnparams as sp

pages = pytest.mark.parametrize("text", [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")])


EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.mark.parametrize("example", EXAMPLES, ids=["layer", "training"])
def test_the_examples_print_what_they_promise(example, capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    *_, last = example.strip().splitlines()
    assert capsys.readouterr().out.strip() == last.removeprefix("# ")


def test_the_training_is_ten_statements():
    after_imports = [line for line in ast.parse(EXAMPLES[1]).body if not isinstance(line, ast.Import | ast.ImportFrom)]
    assert len(after_imports) <= 10


@pages
def test_every_link_leads_somewhere(text):
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


@pages
def test_the_commands_are_targets(text):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    commands = re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M) + re.findall(r"^\| `([a-z-]+)` \|", text, re.M)
    assert commands
    for command in commands:
        assert command in targets, command
    assert {"book", "test", "help"} <= set(targets)


def test_the_citation_is_of_this_version():
    (cited,) = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited == sp.__version__
