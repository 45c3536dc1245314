"""LIF and LI compute what they computed before there was one definition of a neuron."""

from collections import Counter

import numpy as np
import pytest
from oracles import lif_and_li
from oracles.lif_and_li import KINDS, MARGIN, problems, unpack

STORED = np.load(lif_and_li.FILE)
LAYERS = [kind for kind in KINDS if not kind.endswith("Cell")]
CASES = [(kind, "reference") for kind in KINDS] + [(kind, "cpu") for kind in LAYERS]


def test_there_are_many_problems_and_some_of_every_kind():
    assert len(STORED.files) > 200
    assert set(STORED.files) == {f"{kind} {seed}" for kind in KINDS for seed in problems(kind)}


@pytest.mark.parametrize(("kind", "kernel"), CASES)
def test_outputs_states_and_gradients_are_those_of_before(kind, kernel):
    spikes, told = 0, Counter()
    for seed, problem in problems(kind).items():
        assert problem.distance() > MARGIN
        found = problem.solve(kernel)
        expected = unpack(STORED[f"{kind} {seed}"], found)
        for name, value in expected.items():
            hard = name in ("outputs", "last z") and problem.spiking and problem.how["method"] != "sigmoid"
            bound = 0 if hard else 1e-12 * value.abs().max().item()
            assert (found[name] - value).abs().max() <= bound, (seed, name)
        spikes += int((expected["outputs"] > 0.5).sum())
        told.update(name for name, value in expected.items() if value.any())
    assert spikes > 300
    assert min(told[name] for name in expected) > 30  # each output and gradient says something
