"""Chapter 4's experiment over three seeds and three conditions; writes book/results/mnist_accuracy.json.

Run from the repository root, nine runs of one to two minutes on two cores: python tests/benchmarks/mnist_accuracy.py
A run that was stopped goes on where it was: finished ones are kept in the results file, if of the same versions.
"""

import argparse
from pathlib import Path

import stored
import torch

import snnparams as sp
from snnparams.training.models import mnist_model

CONDITIONS = {
    "learned, alpha 1": {"learned": True, "alpha": 1.0},
    "fixed, alpha 1": {"learned": False, "alpha": 1.0},
    "learned, alpha 100": {"learned": True, "alpha": 100.0},
}


def run(seed: int, learned: bool, alpha: float, epochs: int, mnist: sp.Digits) -> dict:
    """Train the model once, as chapter 4 does, and return what it reports."""
    torch.manual_seed(seed)
    register = torch.nn.Parameter if learned else torch.Tensor.clone
    tau_mem_inv = register(100.0 + 20.0 * torch.randn(100))  # 1/s
    v_th = register(0.5 + 0.1 * torch.randn(100))
    model = mnist_model(sp.LIFParameters(tau_mem_inv=tau_mem_inv, v_th=v_th, alpha=alpha))
    p = model.snn.hidden.p
    before = p.tau_mem_inv.detach().clone(), p.v_th.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    history = sp.fit(model, mnist.train, mnist.test, optimizer, epochs, torch.Generator().manual_seed(seed))
    return {
        "accuracy": [round(a, 4) for a in history.accuracies],
        "largest_change_tau_mem_inv": round((p.tau_mem_inv - before[0]).abs().max().item(), 3),
        "largest_change_v_th": round((p.v_th - before[1]).abs().max().item(), 3),
    }


def main() -> None:
    """Run what is missing from the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("book/results/mnist_accuracy.json"))
    args = parser.parse_args()
    mnist = sp.load_mnist()
    if mnist.name != "MNIST":
        raise SystemExit("this experiment needs the real MNIST")
    header = stored.header("mnist_accuracy.py")
    runs = stored.kept_runs(args.output, header["versions"])
    for seed in args.seeds:
        for name, condition in CONDITIONS.items():
            key = f"{name}, seed {seed}, {args.epochs} epochs"
            if key in runs:
                continue
            runs[key] = run(seed, epochs=args.epochs, mnist=mnist, **condition)
            print(key, runs[key]["accuracy"][-1], flush=True)
            stored.write(args.output, header | {"runs": runs})


if __name__ == "__main__":
    main()
