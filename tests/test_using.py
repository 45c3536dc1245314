"""The recipes of book/using.md, run one after the other as a reader would."""

import os
import re
import sys
import tempfile
from pathlib import Path

import commands
import pytest
import torch
from notebooks import ROOT

from snnparams.data.spoken_digits import load_spoken_digits

TEXT = (ROOT / "book" / "using.md").read_text()
EXTRAS = ("submitit", "distributed", "lightning", "norse", "onnxruntime")  # packages of some recipes
# what left as a file runs where this package is not, and as ONNX without PyTorch
LOAD = """
import sys
if sys.argv[1].endswith(".onnx"):
    import numpy, onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1])
    sizes = [(given.name, given.shape[1]) for given in session.get_inputs()]
    out, *state = session.run(None, {name: numpy.ones((5, size), numpy.float32) for name, size in sizes})
    assert "torch" not in sys.modules
else:
    import torch
    step = torch.export.load(sys.argv[1]).module()
    out, *state = step(*(torch.ones(5, size) for size in (16, 32, 32, 32, 2, 2)))
assert out.shape == (5, 2) and len(state) == 5
assert not [name for name in sys.modules if name.startswith("snnparams")]
"""


NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _shown(recipe):
    """Return what the comment at the end of a recipe says that it prints."""
    comment = re.search(r"(?:^# .*\n)*\Z", recipe, re.M).group()
    return " ".join(re.sub("^# ", "", comment, flags=re.M).split())


def _assert_printed(recipe, printed):
    """Compare with what is shown: word by word, but numbers of what has learned depend on the processor."""
    shown, printed = _shown(recipe), " ".join(printed.split())
    if "sp.fit(" not in recipe:
        assert printed == shown
        return
    assert NUMBER.sub("", printed) == NUMBER.sub("", shown)
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, shown)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.5)


def _spoken_digits_are_there():
    try:
        return bool(load_spoken_digits().waves)
    except FileNotFoundError:
        return False


@pytest.mark.filterwarnings("ignore")  # those of the packages that recipes are about
def test_every_recipe_runs_and_what_it_claims_is_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))  # for jobs of their own
    recipes = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
    assert len(recipes) == TEXT.count("\n```python\n") >= 8
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads, scope = torch.get_num_threads(), {"__name__": "using"}
    there = _spoken_digits_are_there()
    for recipe in recipes:
        for extra in EXTRAS:
            if re.search(rf"^import {extra}\b", recipe, re.M):
                pytest.importorskip(extra)
        if "load_spoken_digits" in recipe and not there:
            continue  # no other recipe needs what this one makes
        capsys.readouterr()
        exec(compile(recipe, "using.md", "exec"), scope)
        printed = capsys.readouterr().out
        assert ("print(" in recipe) == bool(_shown(recipe))
        if _shown(recipe):
            _assert_printed(recipe, printed)
    folder = scope["folder"]
    assert (folder / "run.pt").exists()
    assert folder.parent == tmp_path
    assert torch.get_num_threads() == threads
    beside = os.pathsep.join(path for path in sys.path if path and not (Path(path) / "snnparams").exists())
    for name in ("step.pt2", "step.onnx"):
        variables = os.environ | {"PYTHONPATH": beside}
        commands.run(sys.executable, "-c", LOAD, folder / name, env=variables, cwd=tmp_path, timeout=120)
    if not there:
        pytest.skip("the spoken digits could not be had; all other recipes ran")


@pytest.mark.slow
def test_the_script_for_several_processes(tmp_path):
    (code,) = re.findall(r"^```\{code-block\} python\n(.*?)^```$", TEXT, re.M | re.S)
    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join(path for path in sys.path if path)
    variables = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    commands.run(sys.executable, *launch, script, env=variables, timeout=300)
