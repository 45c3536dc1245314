"""The recipes of book/using.md, run one after the other as a reader would."""

import re

import torch
from notebooks import ROOT


def test_every_recipe_runs_and_what_it_claims_is_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    text = (ROOT / "book" / "using.md").read_text()
    recipes = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(recipes) == text.count("\n```python\n") >= 8
    threads, scope = torch.get_num_threads(), {"folder": tmp_path, "__name__": "using"}
    for recipe in recipes:
        exec(compile(recipe, "using.md", "exec"), scope)
    assert (tmp_path / "run.pt").exists()
    assert torch.get_num_threads() == threads
