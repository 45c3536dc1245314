"""What the README and CONTRIBUTING.md say is so: the example, the links, the commands."""

import re

import pytest
from notebooks import ROOT

import snnparams as sp

pages = pytest.mark.parametrize("text", [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")])


def test_the_example(capsys):
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(example, "README.md", "exec"), {})
    promised = re.search(r"^# (\[.*\])$", example, re.M)[1]
    assert capsys.readouterr().out.strip() == promised


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
