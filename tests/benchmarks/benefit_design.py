"""What chapter 6's experiment compares: tasks, kinds of networks and their knobs, and controls."""

import dataclasses
from collections.abc import Mapping

from snnparams.experiments.tuning import Knob, Place

LEARNED = ("tau_mem", "tau_syn", "v_th")
TUNING_SEEDS = (1001, 1002)  # used for nothing else
FLAT_SEEDS = (1101, 1102, 1103)
DIAL_SEEDS = (1201, 1202)
EASY, HARD = 0.85, 0.75  # accuracy of equal neurons that a dial aims at; tuning and more epochs add some points to it
SIZES = (48, 32, 24, 16, 12, 8, 6, 5, 4, 3, 2)  # neurons of recurrent networks: the dial
RATE = {"low": 0.1, "high": 0.1}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of network: what is fixed, which knobs it may turn, and where its search begins."""

    knobs: Mapping[str, Knob]
    fixed: Mapping = dataclasses.field(default_factory=dict)

    @property
    def first(self) -> list[Place]:
        """Six places: the middle, and one step from it along each knob in turn, up and down."""
        count = len(self.knobs)
        names = list(self.knobs)
        steps = [(0, 0), (names.index(self.main), 1), (names.index(self.main), -1), (names.index("learning_rate"), 1)]
        other = 1 if self.main == names[0] else 0
        steps += [(other, 1), (names.index(self.last), -1)]
        return [tuple(step if k == which else 0 for k in range(count)) for which, step in steps]

    @property
    def main(self) -> str:
        """The time that differs or is learned; that of the synapse, of adaptation or of travel, where none is."""
        if "delay" in self.knobs:
            return "delay"
        if "tau_adapt" in self.knobs:
            return "tau_adapt"
        return "tau_mem" if "spread_mem" in self.knobs else "tau_syn"

    @property
    def last(self) -> str:
        """The knob that only this kind has, or the learning rate."""
        extra = [name for name in self.knobs if name.startswith(("spread", "neuron"))]
        return extra[0] if extra else "learning_rate"


MEMBRANE, SYNAPSE, MIDDLE = Knob(4, 2, low=1.1), Knob(4, 2, low=1.1), Knob(20, 2, low=1.1)
RATE_OF_WEIGHTS, RATE_OF_NEURONS, SPREAD = Knob(0.01), Knob(0.03, 3), Knob(7, 2, low=1)
_EQUAL = {"tau_mem": MEMBRANE, "tau_syn": MIDDLE, "learning_rate": RATE_OF_WEIGHTS}
EQUAL, SYN, MEM, LEARNS, SHARED, ALL = (
    "equal",
    "different tau_syn",
    "different tau_mem",
    "tau_syn learned",
    "shared tau_syn learned",
    "different tau_syn, all learned",
)
KINDS = {
    EQUAL: Kind(_EQUAL),
    SYN: Kind({**_EQUAL, "spread_syn": SPREAD}),
    MEM: Kind({"tau_mem": MIDDLE, "tau_syn": SYNAPSE, "learning_rate": RATE_OF_WEIGHTS, "spread_mem": SPREAD}),
    LEARNS: Kind({**_EQUAL, "neuron_learning_rate": RATE_OF_NEURONS}, {"learned": ("tau_syn",)}),
    SHARED: Kind({**_EQUAL, "neuron_learning_rate": RATE_OF_NEURONS}, {"learned": ("tau_syn",), "shared": True}),
}
ALL_LEARNED = Kind({**_EQUAL, "spread_syn": SPREAD, "neuron_learning_rate": RATE_OF_NEURONS}, {"learned": LEARNED})
ALL_FROM_EQUAL = Kind({**_EQUAL, "neuron_learning_rate": RATE_OF_NEURONS}, {"learned": LEARNED})

# thresholds that adapt, on two tasks of the core
_ADAPTIVE = {
    **{"tau_mem": MEMBRANE, "tau_syn": Knob(10, 2, low=1.1), "tau_adapt": MIDDLE, "beta": Knob(0.3)},
    "learning_rate": RATE_OF_WEIGHTS,
}
ADAPT, ADAPT_DIFFERENT, ADAPT_LEARNS = "equal tau_adapt", "different tau_adapt", "tau_adapt learned"
ADAPTIVE = {
    ADAPT: Kind(_ADAPTIVE),
    ADAPT_DIFFERENT: Kind({**_ADAPTIVE, "spread_adapt": SPREAD}),
    ADAPT_LEARNS: Kind({**_ADAPTIVE, "neuron_learning_rate": RATE_OF_NEURONS}, {"learned": ("tau_adapt",)}),
}
BESIDE = (EQUAL, SYN, LEARNS)  # kinds of the core that adaptation is compared with
ADAPTATION_TASKS = ("windows 4", "windows 12, recurrent")

# spikes that arrive late at the readout; searches begin where that of equal neurons on four windows ended
_DELAYED = {"tau_mem": Knob(32, 2, low=1.1), "tau_syn": Knob(10, 2, low=1.1), "learning_rate": Knob(0.08)}
EQUAL_DELAYS, DELAYS, DELAYS_LEARN, DELAYS_DIFFERENT_LEARN = (
    "equal delays",
    "different delays",
    "delays learned from equal",
    "delays learned from different",
)
_LEARNED_DELAYS = {"neuron_learning_rate": RATE_OF_NEURONS}
DELAYED = {
    EQUAL_DELAYS: Kind({**_DELAYED, "delay": Knob(5)}),
    DELAYS: Kind({**_DELAYED, "delay": Knob(30, 4 / 3, high=40)}, {"different_delays": True}),
    DELAYS_LEARN: Kind({**_DELAYED, "delay": Knob(20, high=40), **_LEARNED_DELAYS}, {"learned": ("delay",)}),
    DELAYS_DIFFERENT_LEARN: Kind(
        {**_DELAYED, "delay": Knob(30, 4 / 3, high=40), **_LEARNED_DELAYS},
        {"learned": ("delay",), "different_delays": True},
    ),
}
DELAY_TASK, LATER_DELAY_TASKS = "windows 4", ("windows 6", "xor", "xor, recurrent", "windows 12, recurrent")
# which delays solve within 6 tries and the epochs of tuning
EASY_DELAY_TASKS = ("windows 4", "windows 6")
DELAY_RATE = 0.1  # spikes per neuron and time step where delays are compared at equal spikes: the middle of three
SPOKEN = "spoken digits"
# there, too, searches begin where that of equal neurons ended
_SPOKEN_DELAYED = {"tau_mem": Knob(2, 2, low=1.1), "tau_syn": Knob(10, 2, low=1.1), "learning_rate": Knob(0.02)}
DELAYED_SPOKEN = {name: Kind({**kind.knobs, **_SPOKEN_DELAYED}, kind.fixed) for name, kind in DELAYED.items()}


def delayed_from(found: Mapping[str, float]) -> dict[str, Kind]:
    """Return the kinds with delays, whose searches begin at the settings that equal neurons of a task ended with."""
    begun = {name: dataclasses.replace(knob, start=found[name]) for name, knob in _DELAYED.items()}
    reach = {name: Knob(5 if name == EQUAL_DELAYS else 20, high=40) for name in DELAYED}
    return {name: Kind({**k.knobs, **begun, "delay": reach[name]}, k.fixed) for name, k in DELAYED.items()}


def from_equal(kind: Kind, found: Mapping[str, float]) -> Kind:
    """Return a kind of different time constants whose search begins at the settings that equal neurons ended with."""
    begun = {name: dataclasses.replace(knob, start=found[name]) for name, knob in kind.knobs.items() if name in found}
    spread = {name: Knob(3.5, 2, low=1) for name in kind.knobs if name.startswith("spread")}
    return dataclasses.replace(kind, knobs={**kind.knobs, **begun, **spread})


def with_distinct(count: int) -> Kind:
    """Return different tau_syn of so many distinct values."""
    return Kind(KINDS[SYN].knobs, {"distinct": count})


# condition of the causes: its kind, and what its architecture has instead of the usual
CAUSES: dict[str, tuple[Kind, dict]] = {
    **{
        f"{name}, {title}": (KINDS[name], change)
        for title, change in {
            "reset by subtraction": {"reset": "subtraction"},
            "no reset": {"reset": "none"},
            "synapse cleared": {"clear_synapse": True},
            "no reset, synapse cleared": {"reset": "none", "clear_synapse": True},
        }.items()
        for name in (EQUAL, SYN, MEM)
    },
    **{f"{SYN}, {n} values": (with_distinct(n), {}) for n in (1, 2, 3, 4, 8, 48)},
    **{f"{EQUAL}, {n} neurons": (KINDS[EQUAL], {"hidden": n}) for n in (96, 192)},
    **{f"{SYN}, {n} neurons": (KINDS[SYN], {"hidden": n}) for n in (12, 24)},
    **{
        f"{name}, readout {title}": (KINDS[name], {"readout_tau": tau})
        for title, tau in (("40 steps", 40.0), ("per output", "per output"))
        for name in (EQUAL, SYN)
    },
    **{f"{name}, surrogate slope {a}": (KINDS[name], {"alpha": float(a)}) for a in (1, 20) for name in (EQUAL, SYN)},
    "all learned": (ALL_FROM_EQUAL, {}),
    ALL: (ALL_LEARNED, {}),
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A task with the architecture and training that all kinds share.

    `by_seed` names the option that a run's seed sets: generated tasks are new for every seed.
    """

    task: dict
    architecture: dict = dataclasses.field(default_factory=dict)
    training: dict = dataclasses.field(default_factory=dict)
    by_seed: bool = True


def core_problems(size: int, epochs: int, validation: int, test: int) -> dict[str, Problem]:
    """Return the problems of the core experiment; the size of most recurrent networks is still to be found.

    Two windows are solved by two recurrent neurons: there no size makes room for a difference, and 48 show the ceiling.
    Twelve windows are there so that one recurrent network has more than a handful of neurons.

    Args:
        size: training sequences.
        epochs: passes over them, to begin with.
        validation: validation sequences.
        test: test sequences.
    """
    sizes = {"train": size, "validation": validation, "test": test}
    training = {"epochs": epochs}
    xor = {"name": "multi-timescale xor", **sizes}
    found = {f"windows {k}": Problem({"name": "windows", "count": k, **sizes}, {}, training) for k in (2, 4, 6)}
    found |= {
        f"windows {k}, recurrent": Problem(
            {"name": "windows", "count": k, **sizes}, {"recurrent": True, **size}, training
        )
        for k, size in ((2, {"hidden": 48}), (4, {}), (6, {}), (12, {}))
    }
    return found | {
        "xor": Problem(xor, {}, training),
        "xor, recurrent": Problem(xor, {"recurrent": True}, training),
        "xor, two layers": Problem(xor, {"layers": 2}, training),
    }


def natural_problems(quick: bool, epochs: int) -> dict[str, Problem]:
    """Return the problems of spoken digits (official split) and sequential MNIST, without and with recurrence."""
    sizes = (
        {"train": 300, "validation": 100, "test": 100} if quick else {"train": 10_000, "validation": 2000, "test": 2000}
    )
    spoken = {"name": "spoken digits", "steps": 60 if quick else 200}
    found = {}
    for title, recurrent in (("", {}), (", recurrent", {"recurrent": True})):
        hidden = {"hidden": 16 if quick else 64, "readout": "max", **recurrent}
        for name, task in (("spoken digits", spoken), ("sequential mnist", {"name": "sequential mnist", **sizes})):
            training = {"epochs": epochs, "batch_size": 64}
            found[f"{name}{title}"] = Problem(task, hidden, training, by_seed=False)
    return found


def cell_of(problem: Problem, kind: Kind, knobs: Mapping[str, float], seed: int, test: bool, **change) -> dict:
    """Return the cell of a run.

    Args:
        problem: task, architecture and training.
        kind: what is fixed of the neurons.
        knobs: value of each knob of the kind.
        seed: of the run, and of a generated task.
        test: whether to measure on the test split.
        change: what task, architecture or training have instead, as `training={...}`.
    """
    rates = {name: value for name, value in knobs.items() if name.endswith("learning_rate")}
    neurons = {name: value for name, value in knobs.items() if name not in rates}
    task = {**problem.task, **change.pop("task", {})}
    cell = {
        "task": task | ({"seed": seed} if problem.by_seed else {}),
        "neurons": {**kind.fixed, **neurons},
        "architecture": {**problem.architecture, **change.pop("architecture", {})},
        "training": {**problem.training, **rates, **change.pop("training", {})},
        "seed": seed,
        "test": test,
        **change,
    }
    return {name: list(x) if isinstance(x, tuple) else x for name, x in cell.items()}
