"""Chapter 5's comparison of ways to learn a time constant; writes book/results/conditioning.json.

Run from the repository root, less than 15 minutes on two cores: python tests/benchmarks/conditioning.py
The counts of frozen neurons in the stored file were made later, from its time constants: with the clamp, and with no
other map, those at a bound.

Two experiments, each with six conditions that differ in nothing but how the membrane time constants are learned.
*Recovery*: students have a teacher's weights, one time constant and one threshold for all neurons, and are trained to
match the spike trains of the teacher, whose neurons all differ. *Recall*: a network must say after a delay which group
of inputs was active. Each condition has one learning rate, chosen among the same six by the loss on validation
data and on seeds that are not used again.
"""

import argparse
import math
from pathlib import Path

import stored
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import snnparams as sp

DT = 1e-3  # s
RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]  # learning rates to choose from
SEEDS, TUNING_SEEDS = range(10), range(1000, 1002)


class Clamp(nn.Module):
    """What snnTorch and others do: learn the share of the way in one step, and clamp it at every use."""

    def forward(self, x):
        return x.clamp(1e-3, 0.999) / DT

    def right_inverse(self, value):
        return value * DT


CONDITIONS = {  # the constraint of the time constants, and their learning rate in multiples of the others'
    "raw, shared rate": ("none", 1.0),
    "raw, own rate": ("none", 100.0),  # as much as 1/tau is larger than a threshold
    "clamp": (Clamp(), 1.0),
    "softplus": ("softplus", 1.0),
    "decay": ("decay", 1.0),
    "log": ("log", 1.0),
}


def optimizer(model: nn.Module, lr: float, ratio: float, steps: int):
    """Return Adam, with a learning rate of their own for time constants, and a schedule that ends at zero."""
    adam = torch.optim.Adam(sp.parameter_groups(model, lr, {"tau_mem_inv": ratio * lr}))
    return adam, torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)


# Recovery

NEURONS, INPUTS, STEPS, BATCH, TRAINING, VALIDATION = 24, 64, 200, 8, 64, 16
START = {"tau_mem": 15e-3, "v_th": 0.5}  # s, -


def teachers(seeds) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return time constants (seeds, N), thresholds and input currents (T, sequences, seeds, N)."""
    all_tau, all_v_th, all_currents = [], [], []
    for seed in seeds:
        torch.manual_seed(seed)
        tau = sp.distributions.log_normal(median=START["tau_mem"], variation=0.5).sample((NEURONS,))
        v_th = sp.distributions.log_normal(median=START["v_th"], variation=0.3).sample((NEURONS,))
        weights = 0.05 + 0.35 * torch.randn(NEURONS, INPUTS)
        spikes = (torch.rand(STEPS, TRAINING + VALIDATION, INPUTS) < 0.03).to(weights.dtype)
        all_tau.append(tau.clamp(3 * DT, 0.1))
        all_v_th.append(v_th)
        all_currents.append(spikes @ weights.T)
    return torch.stack(all_tau), torch.stack(all_v_th), torch.stack(all_currents, dim=2)


def recover(constraint, ratio: float, lr: float, seeds, epochs: int) -> dict[str, torch.Tensor]:
    """Train students of all seeds at once: their neurons are independent, so that is training each alone."""
    tau, v_th, currents = teachers(seeds)
    smooth = sp.LI(sp.LIParameters(tau_mem=5e-3, tau_syn=5e-3))  # of spike trains
    teacher = sp.LIF(sp.LIFParameters(tau_mem=tau, v_th=v_th))
    with torch.no_grad():
        target = smooth(teacher(currents)[0])[0]
    learned = {"tau_mem": sp.Learned(START["tau_mem"], constraint), "v_th": sp.Learned(START["v_th"])}
    student = sp.LIF(sp.LIFParameters(**learned, alpha=10.0), size=tuple(tau.shape))
    adam, schedule = optimizer(student, lr, ratio, epochs * TRAINING // BATCH)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for batch in torch.randperm(TRAINING, generator=order).split(BATCH):
            adam.zero_grad()
            out, _ = smooth(student(currents[:, batch])[0])
            loss = (out - target[:, batch]).square().mean((0, 1))
            loss.sum().backward()
            adam.step()
            schedule.step()
    stored_numbers = student.p.raw("tau_mem_inv")
    (slope,) = torch.autograd.grad(student.p.tau_mem_inv.sum(), stored_numbers)
    frozen = (slope == 0).sum(-1)  # whatever the data: a gradient of zero in one batch may be that of no spikes
    with torch.no_grad():
        out, _ = smooth(student(currents[:, TRAINING:])[0])
        loss = (out - target[:, TRAINING:]).square().mean((0, 1, 3))
        rate = student.p.tau_mem_inv.clone()
        return {"loss": loss, "tau_mem": 1 / rate, "v_th": student.p.v_th.clone(), "true_tau_mem": tau,
                "true_v_th": v_th, "frozen": frozen, "invalid": (~((rate > 0) & (rate * DT < 1))).sum(-1)}  # fmt: skip


# Recall

GROUPS, WIDTH, HIDDEN, DELAY, CUE = 4, 10, 32, 80, 20


def cues(batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return spikes (T, B, I) and classes (B,): one group of inputs is active at first, then all are equally noisy."""
    labels = torch.randint(GROUPS, (batch,), generator=generator)
    rate = torch.full((CUE + DELAY, batch, GROUPS, WIDTH), 0.01)
    rate[:CUE, torch.arange(batch), labels] = 0.15
    return torch.bernoulli(rate, generator=generator).flatten(2), labels


class Recall(nn.Module):
    """Two layers of neurons with learned membranes; the voltages at the end decide."""

    def __init__(self, constraint) -> None:
        super().__init__()
        learned = sp.Learned(10e-3, constraint)
        self.fc_in = nn.Linear(GROUPS * WIDTH, HIDDEN, bias=False)
        self.hidden = sp.LIF(sp.LIFParameters(tau_mem=learned, v_th=sp.Learned(0.5), alpha=10.0), size=HIDDEN)
        self.fc_out = nn.Linear(HIDDEN, GROUPS, bias=False)
        self.out = sp.LI(sp.LIParameters(tau_mem=learned), size=GROUPS)
        with torch.no_grad():
            self.fc_in.weight.mul_(4)

    def forward(self, spikes: torch.Tensor) -> torch.Tensor:
        """Return voltages after the last step (B, O)."""
        z, _ = self.hidden(self.fc_in(spikes))
        return self.out(self.fc_out(z))[0][-1]


def recall(constraint, ratio: float, lr: float, seeds, steps: int) -> dict[str, torch.Tensor]:
    """Train networks of all seeds at once; they differ in their weights."""
    members = []
    for seed in seeds:
        torch.manual_seed(seed)
        members.append(Recall(constraint))
    networks = sp.Ensemble(members)
    adam, schedule = optimizer(networks, lr, ratio, steps)
    data = torch.Generator().manual_seed(min(seeds))
    for _ in range(steps):
        spikes, labels = cues(32, data)
        adam.zero_grad()
        sum(cross_entropy(out, labels) for out in networks(spikes)).backward()
        for parameter in networks.parameters():  # so that a network of NaNs does not stop the others
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
        adam.step()
        schedule.step()
    with torch.no_grad():
        spikes, labels = cues(500, torch.Generator().manual_seed(min(seeds) + 1))
        out = networks(spikes)
        loss = torch.stack([cross_entropy(o, labels) for o in out])
        tau = 1 / networks.stacked.hidden.p.tau_mem_inv
        slowest = 1 / networks.stacked.out.p.tau_mem_inv
        return {"loss": loss, "accuracy": (out.argmax(-1) == labels).double().mean(-1),
                "tau_mem_hidden": tau.median(-1).values, "tau_mem_readout": slowest.median(-1).values}  # fmt: skip


# Both


def interval(values: torch.Tensor, draws: int = 10_000) -> list[float]:
    """Return the mean over seeds and the ends of its 95 % bootstrap interval."""
    sample = values[torch.randint(len(values), (draws, len(values)), generator=torch.Generator().manual_seed(0))]
    ends = sample.mean(1).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype))
    return [round(x, 5) for x in (values.mean().item(), *ends.tolist())]


def choose_rate(experiment, constraint, ratio: float, length: int) -> tuple[float, dict[str, float]]:
    """Return the learning rate with the smallest mean validation loss, and all of them."""
    losses = {}
    for lr in RATES:
        loss = experiment(constraint, ratio, lr, TUNING_SEEDS, length)["loss"].mean().item()
        losses[lr] = loss if math.isfinite(loss) else math.inf
    return min(losses, key=losses.get), {f"{lr:g}": round(loss, 5) for lr, loss in losses.items() if loss < math.inf}


def rounded(x: torch.Tensor) -> list:
    """Return a tensor of at most two axes as lists of four significant digits; null for what is not finite."""
    if x.dim() == 2:
        return [rounded(row) for row in x]
    return [float(f"{v:.4g}") if math.isfinite(v) else None for v in x.tolist()]


def summary_of_recovery(found: dict[str, torch.Tensor]) -> dict:
    """Return the median relative errors of each seed, their mean and its interval, and the values themselves."""
    result = {name: rounded(found[name]) for name in ("tau_mem", "v_th", "true_tau_mem", "true_v_th")}
    for name in ("tau_mem", "v_th"):
        error = (found[name] / found["true_" + name] - 1).abs().nan_to_num(math.inf).median(-1).values
        result[f"error_{name}"] = {"of seeds": rounded(error), "mean and interval": interval(error)}
    return result | {"frozen": found["frozen"].tolist(), "invalid": found["invalid"].tolist()}


def summary_of_recall(found: dict[str, torch.Tensor]) -> dict:
    """Return accuracies and time constants of each seed, and the mean accuracy and its interval."""
    result = {name: rounded(found[name]) for name in ("accuracy", "tau_mem_hidden", "tau_mem_readout")}
    return result | {"mean accuracy and interval": interval(found["accuracy"])}


EXPERIMENTS = {"recovery": (recover, summary_of_recovery, 30), "recall": (recall, summary_of_recall, 150)}


def main() -> None:
    """Run both experiments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("book/results/conditioning.json"))
    args = parser.parse_args()
    results = stored.header("conditioning.py", snnparams=sp.__version__)
    results |= {"seeds": list(SEEDS), "tuning_seeds": list(TUNING_SEEDS)}
    for name, (experiment, summary, length) in EXPERIMENTS.items():
        results[name] = {}
        for condition, (constraint, ratio) in CONDITIONS.items():
            lr, losses = choose_rate(experiment, constraint, ratio, length)
            found = summary(experiment(constraint, ratio, lr, SEEDS, length))
            results[name][condition] = {"learning_rate": lr, "ratio": ratio, "validation_losses": losses} | found
            print(f"{name}: {condition}, rate {lr:g}, validation loss {losses[f'{lr:g}']}", flush=True)
    stored.write(args.output, results)


if __name__ == "__main__":
    main()
