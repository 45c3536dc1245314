"""What the results of chapter 6's experiment are called, how they are drawn, and which contrasts were declared.

The contrasts of `DECLARED` were written down before there were results.
"""

import re
from pathlib import Path

from benefit_design import ALL, EQUAL, LEARNS, MEM, SHARED, SYN, core_problems

FOLDER = Path(__file__).resolve().parents[2] / "book" / "results" / "benefit"  # the one place that says where
MARGIN = 1.0  # points of accuracy: the largest difference that counts as none
COLLAPSED = 10.0  # points below the median of its condition at which a run has collapsed
SPLITS = {"spoken digits": 600 / 2100, "sequential mnist": 2000 / 10_000}  # inputs for test over those for training
TASKS = tuple(core_problems(1, 1, 1, 1))
CORE_SEEDS, SEEDS = 20, 10  # of the core, and of what stands beside it
DELAY_STAGES = ("delays", "delays_later", "delays_equal_spikes", "delays_spoken")
BESIDE_THE_CORE = ("causes", "adaptation", "delays", "delays_later")
FLAT_EPOCHS = 32  # the longer of the two trainings that are compared there
ALL_FROM_EQUAL = "all learned"
TITLE = {
    EQUAL: "equal",
    SYN: "different τ syn",  # one for all synapses of a neuron
    MEM: "different τ mem",
    LEARNS: "τ syn learned",
    SHARED: "shared τ syn learned",
    ALL: "different, all learned",
    ALL_FROM_EQUAL: "all learned",
}
LEVELS = {
    "chance": "chance",
    "counts": "counts",
    "linear filters": "one linear filter",
    "linear": "all bins",
    "gru": "GRU",
}
NATURAL = ("spoken digits", "sequential mnist", "spoken digits, recurrent", "sequential mnist, recurrent")
TASK_WORDS = {
    "windows 12": "twelve windows",
    "windows 2": "two windows",
    "windows 4": "four windows",
    "windows 6": "six windows",
    "xor": "XOR",
    "mnist": "MNIST",
}
COLOR = {EQUAL: "0.35", SYN: "C0", MEM: "C1", LEARNS: "C2", SHARED: "C3", ALL: "C4", ALL_FROM_EQUAL: "C5"}

# What is asked of the results, by name: stage, and the weight of each condition at four windows without recurrence
DECLARED = {
    "values differ": ("causes", {SYN: 0.5, ALL: 0.5, EQUAL: -0.5, ALL_FROM_EQUAL: -0.5}),
    "values are learned": ("causes", {ALL_FROM_EQUAL: 0.5, ALL: 0.5, EQUAL: -0.5, SYN: -0.5}),
    "interaction of the two": ("causes", {ALL: 1, EQUAL: 1, SYN: -1, ALL_FROM_EQUAL: -1}),
    "recurrence, on the gain": (
        "core",
        {
            ("windows 4, recurrent", SYN): 1,
            ("windows 4, recurrent", EQUAL): -1,
            ("windows 4", SYN): -1,
            ("windows 4", EQUAL): 1,
        },
    ),
}


def as_shown(claim: str) -> str:
    """Return a prediction, written down before there were results, in the words of the book."""
    claim = re.sub(r"\b(different|learned) synapses", r"\1 synaptic time constants", claim, flags=re.IGNORECASE)
    claim = re.sub(r"\b(different|shortens) membranes", r"\1 membrane time constants", claim, flags=re.IGNORECASE)
    return claim.replace("the dial has left few neurons", "tasks were made hard by leaving few neurons")


def task_name(task: str) -> str:
    """Return the name of a task in the words of the book: "four windows, recurrent" for "windows 4, recurrent"."""
    return re.sub("|".join(map(re.escape, TASK_WORDS)), lambda found: TASK_WORDS[found[0]], task)
