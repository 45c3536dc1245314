"""Chapter 6's experiment: when do different and learned time constants help?

Run from the repository root; about 19 hours on two cores: python tests/benchmarks/benefit.py
With --device cuda, trials of one size are computed side by side on a GPU, which takes minutes instead of hours.
Every run is one line in book/results/benefit/, kept as it comes: stop it whenever you like, and start it again with the
same command. --stage runs one stage and what it needs; --grid quick exercises everything in ten minutes and writes to
_build/benefit_quick instead. Each process computes in one thread.

The stages, in this order:

dial         how many neurons a recurrent network gets: as many as leave the best of a few equal ones at most 85 %
tuning       every kind gets equally many tries over its own knobs, and more where one ends at an edge
flat         doubling the epochs gains no kind of a task half a point on the validation split, or all get twice as many,
             at most 32
core         five kinds, ten tasks, 20 seeds
again        different time constants whose search ended below equal neurons, which they contain: searched again from
             the settings of those, 10 seeds beside equal neurons; see benefit_again_stages.py
causes       controls at four windows without recurrence, each tuned by itself, 10 seeds
equal_spikes three rates, the same for all kinds
adaptation   thresholds that adapt: equal, different and learned time constants of theirs, on four windows and on twelve
             recurrent ones, tuned like the kinds of the core, 10 seeds, beside equal neurons and synapses; chapter 8
             reads it
delays       spikes that travel: equal, different and learned delays to the readout, on four windows; each kind gets
             6 tries, and 8 epochs instead of the 32 of those without delays, which favours the latter. 20 seeds of
             different delays beside equal neurons, 10 of the other kinds; chapter 9 reads it
delays_later the same on six windows, on XOR, and with recurrence, which itself stays without delays, 10 seeds; on XOR
             and with recurrence kinds with delays begin where equal neurons ended, with as many tries and epochs
delays_equal_spikes: delays beside equal neurons and synapses on four windows at one rate, the same for all, 10 seeds
delays_spoken: delays on spoken digits, official split, without recurrence: 6 tries for each kind with delays, as many
             epochs as are flat for all kinds, 10 seeds
natural      spoken digits and sequential MNIST, tuned, trained for at most 160 epochs, then the official split with 10
             seeds, and 5 splits x 2 seeds. Folds use what was tuned on the official split, whose recordings are in
             them: a favour to all kinds alike
gradients    where the gradients of equal networks push their time constants and thresholds
references   chance, counts, linear classifiers, a GRU with as many parameters
rasters      hidden spikes of two trained networks
summary      choices, reference levels, power and the fate of the predictions, in book/results/benefit/summary.json

What was tried before: about thirty single networks, by hand, with seed 0, whose test accuracies were printed. Windows,
K = 4, equal and different synapses and learned ones, at learning rates of 0.005 to 0.02, 4,000 and 16,000 sequences
and 6 to 60 epochs; recurrent networks of 48 to 2 neurons, equal and different; XOR, of which networks with one
layer and no recurrence learned next to nothing at cues of 0.02 and 0.10 spikes per step, so that cues have 0.04 and
0.20; two layers of different synapses on it; spoken digits with both readouts (maximum over time 96.7 %, mean 95.3 %:
the maximum was taken); one different network at a held rate. That chose sizes, rates of cues, where searches begin,
and nothing else.

The plan: runs x seconds, in seconds of one core that has other work beside it; alone it takes about two thirds. An
epoch of 16,000 sequences takes 0.7 s (two windows), 1.0 s (four), 1.3 s (six, or XOR), 2.4 s (two layers), 0.7 to 1.1 s
(small recurrent networks), 2.9 s (a reset of choice: a loop in PyTorch); one of spoken digits 0.7 s, of sequential
MNIST 2.9 s. Epochs of results are what `flat` finds; 32 and 40 are supposed here.

dial            100 x  6 s                                                                     0.2 hours
tuning         3000 x 10 s    5 kinds x 10 tasks x about 30 tries x 2 seeds, 8 epochs          8
flat            300 x 30 s    16 against 32 epochs; more where that is not flat                3 to 6
core           1000 x 40 s                                                                    11
causes_tuning  1500 x 13 s    32 controls x about 22 tries x 2 seeds                           5
causes          370 x 50 s    32 controls and 5 kinds x 10 seeds                               5
equal_spikes    210 x 33 s                                                                     2
adaptation      450 x 40 s    3 kinds x 2 tasks x about 30 tries x 2 seeds; 6 kinds x 2 tasks x 10 seeds of 32 epochs;
                              an epoch takes 1.5 s with fused kernels, 4 s without                     5
delays          100 x 10 s    4 kinds x 6 tries x 2 seeds, then 50 runs of 8 epochs, both stages together     0.3 to 3
delays_equal_spikes  70 x 30 s                                                                 0.6
delays_spoken   160 x 20 s    4 kinds x 6 tries x 2 seeds; 6 kinds x 3 seeds, twice; 6 kinds x 10 seeds 1
natural_tuning 1000 x 18 s    6 kinds x 4 tasks x about 20 tries x 2 seeds, 10 epochs          5
natural_flat    144 x 54 s    20 against 40 epochs                                             2
natural         360 x 70 s                                                                     7
gradients        50 x 60 s                                                                     1
references      150 x 60 s                                                                     3

About 55 hours of such a core, 37 of one that is left alone, half of that on two. Each stage says how long it took.

What was run differently from this plan: searches went on for up to 54 tries, because many first ended at an edge; 60
were meant at first. While they ran, a rule was added that does not continue them from 98 %. Read with it, two windows
first kept, in `flat` and `core`, what equal neurons and one for all had found in 30 of their 48 tries; all tries count,
and those runs were repeated with the best of them. Sizes, tuning (also of natural tasks) and flatness, 6,826 runs, were
computed on one H100 in eleven minutes; later the rest of the core, causes, equal spikes, the searches of adaptation and
of delays, and delays on XOR, 4,776 runs, in eight, with 100 trials side by side. The rest ran on CPUs, as lines say.

Networks on natural tasks were allowed at most 32 epochs at first, so that 20 were compared with 40. They gained up to
21 points from that; 160 are allowed since, before any of their results was run. Spoken digits have been trained until
that gained little and tested, on a CPU, which also repeated their 40: without recurrence 160 epochs, with it 40.

Kinds with delays were meant to get 6 tries and 8 epochs on all generated tasks, and their searches to begin where that
of equal neurons on four windows ended. Four and six windows are solved by that. On XOR five seeds were at 55 to 57 %,
below equal neurons, because searches had begun at settings of another task. Those runs are gone; since then delays get
as many tries and epochs on XOR and with recurrence as equal neurons had, and begin where those ended. XOR without
recurrence ran with seeds 1 to 4 on a CPU, with the others on an H100, with recurrence on that alone; twelve windows
were searched on both and run on a CPU. Spoken digits were given 40 epochs at first; 80 when seven seeds had been run
and five read, because equal neurons gained 2.2 points from 20 to 40; 160 before any run with 80 was read, as equal
delays gained 1.6 more. 80 were enough, on the validation split.
"""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import benefit_design as design
import stored
from benefit_adaptation_stages import AdaptationStages
from benefit_again_stages import AgainStages
from benefit_delay_stages import DelayStages
from benefit_design import CAUSES, EQUAL, KINDS, MEM, SYN, Kind, Problem, cell_of
from benefit_grid import GRIDS
from benefit_natural_stages import NaturalStages
from benefit_reference_stages import ReferenceStages
from benefit_settings import Settings
from benefit_store import MEMBERS, Store

from snnparams.experiments.predictions import decide
from snnparams.experiments.statistics import smallest_effect

STRENGTHS = (1.0, 10.0, 100.0)  # of the loss term that holds rates
RATES = (0.05, 0.1, 0.2)
WITHIN = 0.025  # share of the rate within which a strength must bring all kinds
NOT_RUN = {"spiking heidelberg digits": "not run: it needs the user's own file, see snnparams.data.heidelberg"}


class Experiment(Settings, AgainStages, AdaptationStages, DelayStages, NaturalStages, ReferenceStages):
    """The stages; each returns what later ones need, from kept runs where there are any."""

    def core(self) -> list[dict]:
        """Return the lines of the core experiment; all kinds of a seed after each other."""
        tuned = self.stage("tuning")
        planned = [
            (task, name, seed, cell_of(self.final(task), kind, tuned[task, name]["knobs"], seed, True))
            for task in self.asked(self.problems)
            for seed in range(1, self.grid.core_seeds + 1)
            for name, kind in KINDS.items()
        ]
        return self.trials("core", planned)

    def control_tuning(self) -> dict:
        """Return the knobs of each control: each begins where the kind that it varies ended."""
        task, tuned = "windows 4", self.stage("tuning")
        entries = {}
        for name, (kind, change) in CAUSES.items():
            base = next((tuned[task, k]["place"] for k, other in KINDS.items() if other.knobs == kind.knobs), None)
            first = kind.first if base is None else [base, *kind.first[:1]]
            entries[task, name] = (self.problem(task), kind, list(dict.fromkeys(first)), change)
        return self.search("causes_tuning", entries, self.grid.control_tries)

    def causes(self) -> list[dict]:
        """Return the lines of the controls, and of the kinds that they vary."""
        task, tuned = "windows 4", self.stage("control_tuning")
        base = self.stage("tuning")
        everything = {name: (KINDS[name], {}, base[task, name]["knobs"]) for name in KINDS}
        everything |= {name: (kind, change, tuned[task, name]["knobs"]) for name, (kind, change) in CAUSES.items()}
        planned = [
            (task, name, seed, cell_of(self.final(task), kind, knobs, seed, True, architecture=change))
            for seed in range(1, self.grid.seeds + 1)
            for name, (kind, change, knobs) in everything.items()
        ]
        return self.trials("causes", planned)

    def at_rates(self, stage: str, task: str, entries: dict[str, tuple[Problem, Kind, dict]], rates) -> list[dict]:
        """Return the lines of some kinds at equal rates; the weakest strength that holds all of them serves all.

        Args:
            stage: names the file; strengths are chosen on tuning seeds, in a file of their own.
            task: without the rate.
            entries: by condition: problem, kind, and knobs.
            rates: spikes per neuron and time step.
        """

        def runs(strength: float, seeds, test: bool) -> list:
            return [
                (f"{task}, rate {rate:g}", name, seed, cell)
                for rate in rates
                for seed in seeds
                for name, (problem, kind, knobs) in entries.items()
                for bounds in [{"rate_low": 0.99 * rate, "rate_high": 1.01 * rate, "rate_strength": strength}]
                for cell in [cell_of(problem, kind, knobs, seed, test, training=bounds)]
            ]

        for strength in STRENGTHS:
            lines = self.trials(f"{stage}_tuning", runs(strength, self.grid.tuning_seeds, False))
            trained = [x for x in lines if "failed" not in x["result"]]
            off = [abs(x["result"]["validation"]["rate"][0] / float(x["task"].split()[-1]) - 1) for x in trained]
            if max(off) <= WITHIN:
                break
        print(f"  {stage}: strength {strength:g}, rates within {max(off):.1%} on tuning seeds")
        self.done[f"strength of {stage}"] = strength
        return self.trials(stage, runs(strength, range(1, self.grid.seeds + 1), True))

    def equal_spikes(self) -> list[dict]:
        """Return the lines at three equal rates."""
        task, tuned = "windows 4", self.stage("tuning")
        entries = {name: (self.final(task), kind, tuned[task, name]["knobs"]) for name, kind in KINDS.items()}
        return self.at_rates("equal_spikes", task, entries, RATES)

    def gradients(self) -> list[dict]:
        """Return where the gradients of equal networks push."""
        tuned = self.stage("tuning")
        planned = [
            (task, EQUAL, seed, cell_of(self.final(task), KINDS[EQUAL], tuned[task, EQUAL]["knobs"], seed, False))
            for task in self.asked(("windows 4", "windows 4, recurrent", "xor, two layers"))
            for seed in range(1, self.grid.gradient_seeds + 1)
        ]
        recordings = self.asked(("spoken digits", "spoken digits, recurrent"))
        for task in recordings if recordings and self.natural_is_there() else ():
            problem, natural = self.natural_problems[task], self.stage("natural_tuning")
            training = {"epochs": self.stage("natural_flat")[task]}
            planned += [
                (
                    task,
                    EQUAL,
                    seed,
                    cell_of(problem, KINDS[EQUAL], natural[task, EQUAL]["knobs"], seed, False, training=training),
                )
                for seed in range(1, self.grid.gradient_seeds + 1)
            ]
        return self.trials("gradients", planned, "gradients")

    def rasters(self) -> list[dict]:
        """Return the hidden spikes of a trained equal and a trained different network."""
        task, tuned = "windows 4", self.stage("tuning")
        planned = [
            (task, name, 1, cell_of(self.final(task), KINDS[name], tuned[task, name]["knobs"], 1, False, input=0))
            for name in (EQUAL, SYN, MEM, design.LEARNS)
        ]
        return self.trials("rasters", planned, "raster")

    def summary(self) -> dict:
        """Return choices, reference levels, power, and what became of the predictions."""
        rows, failed = [], []
        for stage in ("core", "causes", "equal_spikes"):
            for line in self.stage(stage):
                if "failed" in line["result"]:
                    failed.append({name: line[name] for name in ("stage", "task", "condition", "seed")})
                    continue
                test = line["result"]["test"]
                answers = test.get("answers", [test["accuracy"]])
                measures = {"accuracy": 100 * test["accuracy"], "remembered": sum(2 * a - 1 for a in answers)}
                named = {name: line[name] for name in ("task", "condition", "seed")}
                rows.append({"stage": stage.replace("_", " "), **named, **measures})
        for line in self.stage("gradients"):
            for name, value in line["result"].items():
                named = {"stage": "gradients", "task": line["task"], "seed": line["seed"]}
                rows.append({**named, "condition": name, "derivative": value})
        predictions = json.loads(Path("book/results/predictions.json").read_text())["predictions"]
        reference: dict[str, dict] = {}
        for line in self.stage("references"):
            reference.setdefault(line["task"], {}).setdefault(line["condition"], []).append(line["result"]["test"])
        outcomes = {}
        for prediction in predictions:
            verdict, contrast = decide(prediction, rows)
            outcomes[prediction["id"]] = {"verdict": verdict, **(contrast._asdict() if contrast else {})}
        tuned = {"tuning": self.stage("tuning"), "causes": self.stage("control_tuning")}
        epochs = dict(self.stage("flat"))
        if self.natural_is_there():
            tuned["natural"], epochs = self.stage("natural_tuning"), epochs | self.stage("natural_flat")
        return {
            "tasks": {name: self.final(name).task["name"] for name in self.problems},
            "grid": dataclasses.asdict(self.grid),
            "neurons": self.stage("dial"),
            "epochs": epochs,
            "rate strength": self.done.get("strength of equal_spikes"),
            "tuned": [
                {"stage": stage, "task": task, "condition": condition, **found}
                for stage, entries in tuned.items()
                for (task, condition), found in entries.items()
            ],
            "reference": reference,
            "power": {f"{n} seeds": smallest_effect(n) for n in (self.grid.core_seeds, self.grid.seeds)},
            "predictions": outcomes,
            "failed": failed,
            "core hours": self.store.hours(),
            **({} if self.natural_is_there() else {"natural tasks": "not run"}),
            **NOT_RUN,
        }


STAGES = (
    *("dial", "tuning", "flat", "core", "again_tuning", "again", "control_tuning", "causes", "equal_spikes"),
    *("adaptation_tuning", "adaptation"),
    *("delays", "delays_later", "delays_equal_spikes", "delays_spoken"),
    *("natural_tuning", "natural_flat", "natural", "gradients", "references", "rasters", "summary"),
)


def main() -> None:
    """Run what is missing of the stages that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=GRIDS, default="default")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--stage", choices=STAGES, action="append", help="only these, and what they need")
    parser.add_argument("--folder", type=Path, help="where runs are kept")
    parser.add_argument("--accept-older", action="store_true", help="use kept runs of other source, too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: trials side by side")
    parser.add_argument("--members", type=int, default=MEMBERS, help="trials side by side, at most")
    parser.add_argument("--task", action="append", help="only these, where a stage has several; no summary")
    args = parser.parse_args()
    folder = args.folder or Path("book/results/benefit" if args.grid == "default" else "_build/benefit_quick")
    store = Store(folder, args.processes, args.accept_older, args.device, args.members)
    experiment = Experiment(GRIDS[args.grid], store)
    experiment.only = args.task
    known = [*experiment.problems, *experiment.natural_problems]
    if args.task and (unknown := set(args.task) - set(known)):
        parser.error(f"--task: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    stages = [name for name in args.stage or STAGES if not (args.task and name == "summary")]
    for name in stages:
        if name.startswith("natural") and not experiment.natural_is_there():
            continue
        start = time.perf_counter()
        found = experiment.stage(name)
        print(f"{name}: done, {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
        if name == "summary":
            command = f"benefit.py --grid {args.grid}"
            about = stored.header(
                command, f"{stored.CPU}, {experiment.store.here['processor']}", **experiment.store.here
            )
            stored.write(folder / "summary.json", about | found)


if __name__ == "__main__":
    main()
