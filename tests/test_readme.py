"""The README's example runs and prints what it says."""

import re

from notebooks import ROOT

import snnparams as sp


def test_the_example(capsys):
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(example, "README.md", "exec"), {})
    promised = re.search(r"^# (\[.*\])$", example, re.M)[1]
    assert capsys.readouterr().out.strip() == promised


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_the_commands_are_targets():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for command in re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.M):
        assert command in targets, command
    assert {"book", "test", "help"} <= set(targets)


def test_the_citation_is_of_this_version():
    (cited,) = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited == sp.__version__
