"""How large chapter 6's experiment is, and what its stages say of accuracies."""

import dataclasses

import benefit_design as design


@dataclasses.dataclass(frozen=True)
class Grid:
    """How large everything is."""

    size: int = 16_000
    validation: int = 1000
    test: int = 2000
    epochs: int = 8  # of tuning
    natural_epochs: int = 10
    most_epochs: int = 32
    most_natural_epochs: int = 160  # 32 at first: from 20 to 40 most kinds improved
    most_spoken_epochs: int = 160  # of delays on spoken digits; 40, then 80 at first: equal delays still improved
    tries: int = 24
    most_tries: int = 54
    control_tries: int = 20
    delay_tries: int = 6
    core_seeds: int = 20
    seeds: int = 10
    repetitions: int = 2
    splits: int = 5
    gradient_seeds: int = 10
    reference_seeds: int = 3
    sizes: tuple[int, ...] = design.SIZES
    tuning_seeds: tuple[int, ...] = design.TUNING_SEEDS
    flat_seeds: tuple[int, ...] = design.FLAT_SEEDS
    dial_seeds: tuple[int, ...] = design.DIAL_SEEDS
    quick: bool = False


GRIDS = {
    "default": Grid(),
    "quick": Grid(
        *(200, 60, 60, 1, 1, 4, 4, 4, 2, 2, 2, 2),
        core_seeds=2,
        seeds=2,
        splits=2,
        gradient_seeds=2,
        reference_seeds=1,
        sizes=(12, 3),
        tuning_seeds=design.TUNING_SEEDS[:1],
        flat_seeds=design.FLAT_SEEDS[:1],
        dial_seeds=design.DIAL_SEEDS[:1],
        quick=True,
    ),
}


def mean(numbers) -> float:
    """Return the mean of some numbers."""
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def validation_accuracy(line: dict) -> float:
    """Return the accuracy on the validation split; of a network that could not be built or trained, 0."""
    return line["result"].get("validation", {}).get("accuracy", 0.0)
