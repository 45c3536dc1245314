"""What an import of the package does: it loads nothing heavy but PyTorch, and changes nothing in the process."""

import sys

import pytest
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
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_an_import_loads_nothing_heavy_and_changes_nothing():
    before = run(
        sys.executable, "-c", "import sys, torch; print(*(n for n in sys.argv[1:] if n in sys.modules))", *HEAVY
    )
    after = run(sys.executable, "-c", CHANGES, *HEAVY)
    assert set(after.split()) == set(before.split())


@pytest.mark.parametrize("kernel", ["reference", "cpu"])
def test_a_layer_loads_no_compiler_that_it_does_not_use(kernel):
    code = (
        "import sys, torch, snnparams as sp\n"
        f"sp.LIF(kernel={kernel!r})(torch.rand(3, 2, 4))\n"
        "print(*(name for name in sys.argv[1:] if name in sys.modules))"
    )
    loaded = set(run(sys.executable, "-c", code, *HEAVY).split())
    assert not loaded & {"triton", "matplotlib", "sklearn", "pandas", "torchvision"}
    assert ("numba" in loaded) == (kernel == "cpu")
