"""Chapter 4's training epoch beside the original page's on Norse; writes book/results/mnist_epoch.json.

Run from the repository root, one to two minutes on two cores: python tests/benchmarks/mnist_epoch.py
Both train on the same batches in memory, from images to updated weights, encoder included, in turns within one process.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import time
import warnings
from pathlib import Path

import torch

import snnparams as sp
from snnparams.models import PixelCurrents, decode, mnist_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import norse
    from norse.torch import ConstantCurrentLIFEncoder, LICell, LIFRecurrentCell
    from norse.torch import LIFParameters as NorseParameters


class NorseNetwork(torch.nn.Module):
    """The network of the original page: cells in a loop over time, behind the same scaling of the pixels."""

    def __init__(self, tau_mem_inv: torch.Tensor, v_th: torch.Tensor) -> None:
        super().__init__()
        self.tau_mem_inv, self.v_th = torch.nn.Parameter(tau_mem_inv), torch.nn.Parameter(v_th)
        self.encoder = torch.nn.Sequential(PixelCurrents(), ConstantCurrentLIFEncoder(32))
        p = NorseParameters(tau_mem_inv=self.tau_mem_inv, v_th=self.v_th, alpha=torch.tensor(100.0))
        self.cell = LIFRecurrentCell(784, 100, p=p)
        self.fc_out = torch.nn.Linear(100, 10, bias=False)
        self.out = LICell()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, 10)."""
        s1 = so = None
        voltages = []
        for step in self.encoder(images):
            z, s1 = self.cell(step, s1)
            vo, so = self.out(self.fc_out(z), so)
            voltages.append(vo)
        return decode(torch.stack(voltages))


def models() -> dict[str, torch.nn.Module]:
    """Return the networks, with the same initial values (Norse ignores alpha: its derivative is that of alpha = 1)."""
    torch.manual_seed(0)
    tau_mem_inv, v_th = 100.0 + 20.0 * torch.randn(100), 0.5 + 0.1 * torch.randn(100)
    reference = NorseNetwork(tau_mem_inv.clone(), v_th.clone())
    learned = {"tau_mem_inv": torch.nn.Parameter(tau_mem_inv), "v_th": torch.nn.Parameter(v_th)}
    ours = mnist_model(sp.LIFParameters(**learned, alpha=1.0))
    with torch.no_grad():
        ours.snn.hidden.input_weights.copy_(reference.cell.input_weights)
        ours.snn.hidden.recurrent_weights.copy_(reference.cell.recurrent_weights.clone().fill_diagonal_(0.0))
        reference.cell.recurrent_weights.fill_diagonal_(0.0)
        ours.snn.fc_out.weight.copy_(reference.fc_out.weight)
    return {"Norse": reference, "snnparams": ours}


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=40, help="batches of 256 in each turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("book/results/mnist_epoch.json"))
    args = parser.parse_args()
    mnist = sp.load_mnist()
    if mnist.name != "MNIST":
        raise SystemExit("this benchmark needs the real MNIST")
    networks = models()
    images = mnist.train.images[:256]
    with torch.no_grad():
        outputs = [model(images) for model in networks.values()]
    difference = (outputs[0] - outputs[1]).abs().max().item()
    optimizers = {name: torch.optim.Adam(model.parameters(), lr=2e-3) for name, model in networks.items()}
    per_batch = {name: [] for name in networks}
    for turn in range(args.turns + 1):
        for name, model in networks.items():
            first = turn * args.batches * 256 % 40_000
            split = sp.Split(
                *(part[first : first + args.batches * 256] for part in (mnist.train.images, mnist.train.labels))
            )
            start = time.perf_counter()
            sp.train(model, split, optimizers[name], progress=False)
            if turn:  # the first one compiles and warms up
                per_batch[name].append((time.perf_counter() - start) / args.batches)
    epoch = {name: [round(seconds * 60_000 / 256, 3) for seconds in values] for name, values in per_batch.items()}
    median = {name: statistics.median(values) for name, values in epoch.items()}
    result = {
        "command": "python tests/benchmarks/mnist_epoch.py",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "norse": norse.__version__},
        "largest_difference_of_log_probabilities_before_training": difference,
        "seconds_per_epoch": {name: {"median": median[name], "turns": epoch[name]} for name in epoch},
        "ratio": round(median["Norse"] / median["snnparams"], 2),
        "gpu": "not measured",
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
