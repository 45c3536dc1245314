"""Chapter 7's experiment on the Yin-Yang data set: weights alone, and neuron parameters as well.

Writes book/results/yin_yang.json, five seeds each.

Run from the repository root, about ten minutes on two cores: python tests/benchmarks/yin_yang.py
A run that was stopped goes on where it was: finished ones are kept in the results file, if they are of the same code.
"""

import argparse
import multiprocessing
import os
from pathlib import Path

import stored
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import snnparams as sp
from snnparams.data.yin_yang import yin_yang
from snnparams.experiments import experiment

CONDITIONS = {
    "weights and parameters": {"learned": True},
    "weights": {"learned": False},
}
STEPS, DT = 120, 0.5e-3  # -, s
HIDDEN, BATCH, LEARNING_RATE, DECAY, CLIP = 200, 50, 0.005, 0.95, 0.5  # decay of the rate per epoch
RATES = {"tau_mem_inv": 1 / 20e-3, "tau_syn_inv": 1 / 5e-3}  # 1/s


class Net(nn.Module):
    """Five inputs, one hidden LIF layer, three leaky integrators whose largest voltages are the scores."""

    def __init__(self, learned: bool, method: str = "adjoint") -> None:
        super().__init__()
        self.fc_in, self.fc_out = nn.Linear(5, HIDDEN, bias=False), nn.Linear(HIDDEN, 3, bias=False)
        nn.init.normal_(self.fc_in.weight, 2.5, 1.5)
        nn.init.normal_(self.fc_out.weight, 0.0, 0.1)
        values = RATES | {"v_th": 1.0}
        if learned:  # time constants through their logarithms, one value per neuron
            values = {name: sp.Learned(value) for name, value in values.items()}
        p = sp.LIFParameters(**values, method=method, alpha=10.0)
        self.hidden, self.out = sp.LIF(p, dt=DT, size=HIDDEN), sp.LI(sp.LIParameters(**RATES), dt=DT)

    def forward(self, spikes):
        z, _ = self.hidden(self.fc_in(spikes))
        voltages, _ = self.out(self.fc_out(z))
        return 20 * voltages.amax(dim=0)


def run(seed: int, learned: bool, epochs: int) -> dict:
    """Train once and return the accuracy on test data, that on validation data, and what was learned."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    task = yin_yang(STEPS, DT)
    parts = {part: getattr(task, part) for part in ("train", "validation", "test")}
    spikes = {part: task.encode(data.inputs) for part, data in parts.items()}
    model = Net(learned)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, DECAY)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(parts["train"].labels), generator=order).split(BATCH):
            optimizer.zero_grad()
            loss = cross_entropy(model(spikes["train"][:, batch]), parts["train"].labels[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)  # spikes that graze the threshold
            optimizer.step()
        schedule.step()
    result = {}
    with torch.no_grad():
        for part in ("validation", "test"):
            right = model(spikes[part]).argmax(dim=1) == parts[part].labels
            result[part] = round(right.float().mean().item(), 4)
        p = model.hidden.p
        for name, scale in (("tau_mem_inv", 1e3), ("tau_syn_inv", 1e3)):
            quantiles = (scale / getattr(p, name)).expand(HIDDEN).quantile(torch.tensor([0.05, 0.5, 0.95]))
            result[name.replace("_inv", " (ms)").replace("_", " ")] = [round(q, 2) for q in quantiles.tolist()]
        quantiles = p.v_th.expand(HIDDEN).quantile(torch.tensor([0.05, 0.5, 0.95]))
        result["threshold"] = [round(q, 3) for q in quantiles.tolist()]
    return result


def _run(job):
    key, seed, condition, epochs = job
    return key, run(seed, epochs=epochs, **condition)


def main() -> None:
    """Run what is missing from the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("book/results/yin_yang.json"))
    args = parser.parse_args()
    header = stored.header("yin_yang.py", **experiment.versions())
    runs, jobs = stored.kept_runs(args.output, header["versions"]), []
    for name, condition in CONDITIONS.items():
        for seed in args.seeds:
            key = f"{name}, seed {seed}, {args.epochs} epochs"
            if key not in runs:
                jobs.append((key, seed, condition, args.epochs))
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for key, result in pool.imap_unordered(_run, jobs):
            runs[key] = result
            print(key, result["test"], flush=True)
            stored.write(args.output, header | {"runs": dict(sorted(runs.items()))})


if __name__ == "__main__":
    main()
