"""Chapter 4's training epoch beside the original page's on Norse; writes book/results/mnist_epoch.json.

Run from the repository root, one to two minutes on two cores: python tests/benchmarks/mnist_epoch.py
Both train on the same batches in memory, from images to updated weights, encoder included; the time of some batches is
scaled up to that of 60,000 images. Each library has processes of its own, in turns, so that neither profits from what
the other sets.
With --device cuda, the same on a GPU. Results of the other device, and of CPUs with other registers, stay.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import stored
import torch

import snnparams as sp
from snnparams.training.models import PixelCurrents, decode, mnist_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from norse.torch import ConstantCurrentLIFEncoder, LICell, LIFRecurrentCell
    from norse.torch import LIFParameters as NorseParameters


LAYOUT = {"cpu": torch.sparse_coo, "cuda": torch.strided}  # of the encoded images


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
    ours = mnist_model(sp.LIFParameters(**learned, alpha=1.0), spike_layout=LAYOUT[args.device])
    with torch.no_grad():
        ours.snn.hidden.input_weights.copy_(reference.cell.input_weights)
        ours.snn.hidden.recurrent_weights.copy_(reference.cell.recurrent_weights.clone().fill_diagonal_(0.0))
        reference.cell.recurrent_weights.fill_diagonal_(0.0)
        ours.snn.fc_out.weight.copy_(reference.fc_out.weight)
    return {"Norse": reference.to(args.device), "snnparams": ours.to(args.device)}


def measure(name: str) -> list[float]:
    """Return the seconds per epoch of one library, turn by turn, in this process."""
    mnist = sp.load_mnist()
    if mnist.name != "MNIST":
        raise SystemExit("this benchmark needs the real MNIST")
    model = models()[name]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    images, labels = mnist.train.inputs.to(args.device), mnist.train.labels.to(args.device)
    size, seconds = args.batches * 256, []
    for turn in range(args.turns + 1):
        split = sp.Split(images[turn * size : (turn + 1) * size], labels[turn * size : (turn + 1) * size])
        start = time.perf_counter()
        sp.train(model, split, optimizer, progress=False)
        if args.device == "cuda":
            torch.cuda.synchronize()
        if turn:  # the first one compiles and warms up
            seconds.append(round((time.perf_counter() - start) / args.batches * 60_000 / 256, 3))
    return seconds


def in_own_process(name: str) -> list[float]:
    """Return `measure(name)` of a process of its own."""
    given = ["--device", args.device, "--batches", str(args.batches), "--turns", str(args.turns)]
    command = [sys.executable, __file__, *given, "--only", name]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def difference() -> float:
    """Return the largest difference between the outputs of the two networks before training."""
    images = sp.load_mnist().train.inputs[:256].to(args.device)
    with torch.no_grad():
        norse_out, ours = (model(images) for model in models().values())
    return (norse_out - ours).abs().max().item()


def main() -> None:
    """Measure and store."""
    if args.only:
        print(json.dumps(measure(args.only)))
        return
    epoch = {"Norse": [], "snnparams": []}
    for _ in range(args.rounds):
        for name in epoch:
            epoch[name] += in_own_process(name)
            print(name, epoch[name], flush=True)
    median = {name: round(statistics.median(values), 3) for name, values in epoch.items()}
    results = stored.parts(args.output, *stored.CPUS, "cuda")
    results["command"] = "python tests/benchmarks/mnist_epoch.py"
    where = torch.cuda.get_device_name() if args.device == "cuda" else stored.processor()
    results[stored.part(args.device)] = stored.header_of_device(where, "torch", "numba", "norse") | {
        "largest_difference_of_log_probabilities_before_training": difference(),
        "seconds_per_epoch": {name: {"median": median[name], "turns": epoch[name]} for name in epoch},
        "ratio": round(median["Norse"] / median["snnparams"], 2),
    }
    stored.write(args.output, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batches", type=int, default=40, help="batches of 256 in each turn")
    parser.add_argument("--turns", type=int, default=3, help="per process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each library")
    parser.add_argument("--output", type=Path, default=Path("book/results/mnist_epoch.json"))
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    main()
