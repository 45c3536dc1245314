"""Gradients of all neuron parameters against central finite differences.

The spikes of `method="sigmoid"` are smooth, so that the derivative exists: what is compared is the true gradient.
"""

import copy
import os

import pytest
import torch
from test_constraints import VALUES, constraint_for, fields
from test_modules import KINDS

import snnparams as sp

F64 = torch.float64
TRITON = ["triton"] if os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available() else []
CASES = [(kind, None) for kind in KINDS if kind.endswith("Cell")]
CASES += [(kind, kernel) for kind in KINDS if not kind.endswith("Cell") for kernel in ("reference", "cpu", *TRITON)]
DEVICE = {"triton": "cuda" if torch.cuda.is_available() else "cpu"}


def build(kind, kernel, how):
    spread = torch.linspace(0.8, 1.2, 3, dtype=F64)
    declared = {}
    for name in fields(kind):
        constraint = "none" if how == "decay" and not name.startswith("tau") else constraint_for(how, name)
        declared[name] = sp.Learned(VALUES[name] * spread, constraint)
    options = {"dtype": F64} | ({} if kernel is None else {"kernel": kernel})
    if not kind.startswith("LIF"):
        return getattr(sp, kind)(sp.LIParameters(**declared), size=3, **options)
    p = sp.LIFParameters(**declared, method="sigmoid", alpha=5.0)
    if "Recurrent" not in kind:
        return getattr(sp, kind)(p, size=3, **options)
    weights = {"input_weights": torch.rand(3, 4, dtype=F64) + 0.5, "recurrent_weights": torch.randn(3, 3, dtype=F64)}
    return getattr(sp, kind)(4, 3, p, **weights, autapses=True, detach_reset=False, **options)


def loss(module, kind, x, mask):
    """Return a number that depends on every output and the last state, from a state that no parameter changes."""
    start = torch.full_like(mask[0], 0.1)
    if not kind.startswith("LIF"):
        state = sp.LIState(start, start)
    else:
        state = sp.LIFState(start, start, start) if "Recurrent" in kind else sp.LIFFeedForwardState(start, start)
    if kind.endswith("Cell"):
        outputs = []
        for current in x:
            out, state = module(current, state)
            outputs.append(out)
        out = torch.stack(outputs)
    else:
        out, state = module(x, state)
    return (mask * out).sum() + sum(s.square().sum() for s in state)


@pytest.mark.parametrize("how", ["none", "log", "softplus", "decay", "interval"])
@pytest.mark.parametrize(("kind", "kernel"), CASES)
def test_gradients_against_central_finite_differences(kind, kernel, how):
    if kernel == "triton" and how not in ("none", "log"):
        pytest.skip("the interpreter is slow, and what a constraint adds does not depend on the kernel")
    device = DEVICE.get(kernel, "cpu")
    module = build(kind, kernel, how).to(device)
    x = 2 * torch.rand(15, 2, 4 if "Recurrent" in kind else 3, dtype=F64).to(device)
    mask = torch.randn(15, 2, 3, dtype=F64).to(device)
    loss(module, kind, x, mask).backward()
    for name in fields(kind):
        stored = module.p.raw(name)
        differences = torch.zeros(3, dtype=F64)
        for k in range(3):
            h = 1e-5 * max(1.0, stored[k].abs().item())
            ends = []
            for sign in (1, -1):
                other = copy.deepcopy(module)
                with torch.no_grad():
                    other.p.raw(name)[k] += sign * h
                    ends.append(loss(other, kind, x, mask).item())
            differences[k] = (ends[0] - ends[1]) / (2 * h)
        error = (stored.grad.cpu() - differences).abs().max() / differences.abs().max()
        assert differences.abs().min() > 0, name
        assert error <= 1e-6, f"{name}: relative error {error:.1e}"
