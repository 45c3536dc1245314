"""The recipes of book/using.md, run one after the other as a reader would."""

import os
import re
import sys

import commands
import pytest
import torch
from notebooks import ROOT

TEXT = (ROOT / "book" / "using.md").read_text()
EXTRAS = ("submitit", "distributed", "lightning")  # packages of one recipe each


@pytest.mark.filterwarnings("ignore")  # those of the packages that recipes are about
def test_every_recipe_runs_and_what_it_claims_is_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))  # for jobs of their own
    recipes = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
    assert len(recipes) == TEXT.count("\n```python\n") >= 8
    threads, scope = torch.get_num_threads(), {"folder": tmp_path, "__name__": "using"}
    for recipe in recipes:
        for extra in EXTRAS:
            if f"import {extra}\n" in recipe:
                pytest.importorskip(extra)
        exec(compile(recipe, "using.md", "exec"), scope)
    assert (tmp_path / "run.pt").exists()
    assert torch.get_num_threads() == threads


def test_the_script_for_several_processes(tmp_path):
    (code,) = re.findall(r"^```\{code-block\} python\n(.*?)^```$", TEXT, re.M | re.S)
    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join(path for path in sys.path if path)
    variables = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    commands.run(sys.executable, *launch, script, env=variables, timeout=300)
