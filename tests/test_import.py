"""What an import of the package does: it loads nothing heavy but PyTorch, and changes nothing in the process."""

import sys

from commands import run

HEAVY = ("torch._dynamo", "numba", "llvmlite", "triton", "matplotlib", "scipy", "sklearn", "pandas", "torchvision")

CHANGES = """
import os, socket, sys, threading, warnings, logging, signal
import numpy, torch
def state():
    return (dict(os.environ), threading.active_count(), list(warnings.filters), torch.get_num_threads(),
            torch.get_default_dtype(), torch.get_rng_state().tolist(), list(sys.meta_path), sys.excepthook,
            signal.getsignal(signal.SIGINT), socket.getdefaulttimeout(), logging.getLogger().handlers[:],
            numpy.random.get_state()[1].tolist(), numpy.geterr(), sys.getswitchinterval())
before = state()
import snnparams
assert state() == before
"""


def loaded(code):
    """Return which of the heavy packages are loaded after some code."""
    code += "\nimport sys; print(*(name for name in sys.argv[1:] if name in sys.modules))"
    return set(run(sys.executable, "-c", code, *HEAVY).split())


def test_an_import_loads_nothing_heavy_but_torch_and_changes_nothing():
    assert loaded(CHANGES) == loaded("import torch")


def test_a_layer_loads_a_compiler_when_it_uses_one():
    use = "import torch, snnparams as sp\nsp.LIF(kernel={!r})(torch.rand(3, 2, 4))"
    assert loaded(use.format("reference")) == loaded("import torch")
    assert "numba" in loaded(use.format("cpu"))
