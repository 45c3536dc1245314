"""Membrane time constants of cortical neurons, counted from the Allen Cell Types Database for chapter 2.

Needs the database's table of all neurons, `cell_types_specimen_details.csv` (1.4 MB) from https://celltypes.brain-map.org,
reads species and time constant of each, and writes how many there are in every millisecond, and quantiles:

    python tests/benchmarks/time_constants.py cell_types_specimen_details.csv

They were recorded in slices of cortex, in mice often in lines that mark a cell type: the mixture is not the brain's.
Source: Allen Institute for Brain Science (2015), Allen Cell Types Database, celltypes.brain-map.org.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from stored import header, write

OUTPUT = Path(__file__).resolve().parents[2] / "book" / "results" / "time_constants.json"
SPECIES = {"mouse": "Mus musculus", "human": "Homo Sapiens"}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the membrane time constants of each species in ms; neurons without one are left out."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["ef__tau"]]
    if unknown := {row["donor__species"] for row in rows} - set(SPECIES.values()):
        raise SystemExit(f"{path}: expected neurons of {', '.join(SPECIES.values())}, got {', '.join(sorted(unknown))}")
    return {
        species: np.array([float(row["ef__tau"]) for row in rows if row["donor__species"] == name])
        for species, name in SPECIES.items()
    }


def describe(taus: np.ndarray) -> dict:
    """Return counts in every millisecond from 0 on, quantiles, mean and coefficient of variation."""
    counts = np.bincount(taus.astype(int))
    return {
        "neurons": len(taus),
        "counts": counts.tolist(),
        "quantiles": {str(q): round(float(np.quantile(taus, q)), 2) for q in QUANTILES},
        "mean": round(float(taus.mean()), 2),
        "variation": round(float(taus.std(ddof=1) / taus.mean()), 3),
    }


def main() -> None:
    """Count, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="cell_types_specimen_details.csv")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    taus = read(options.table)
    content = header(f"time_constants.py {options.table.name}", numpy=np.__version__)
    content["source"] = "Allen Institute for Brain Science (2015), Allen Cell Types Database, celltypes.brain-map.org"
    content["species"] = {species: describe(values) for species, values in taus.items()}
    content["all"] = describe(np.concatenate(list(taus.values())))
    write(options.output, content, indent=None)


if __name__ == "__main__":
    main()
