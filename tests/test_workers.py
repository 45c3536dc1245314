"""Layers and encoders in other processes: workers of a DataLoader, forked or spawned, and other forks.

OpenMP's threads do not survive a fork, and PyTorch's own products wait for them for ever, where MKL divides them among
threads: on some processors small ones too. So dense input, whose currents are PyTorch's product, is given to a forked
process with threads only where PyTorch answers. Sparse input and all else there are products of this package's kernels.
"""

import functools
import os
import signal
import subprocess
import sys

import pytest
import torch
from commands import run
from torch.utils.data import DataLoader, Dataset

import snnparams as sp

THREADS = 3
pytestmark = pytest.mark.slow


PRODUCT = """
import os, torch
torch.set_num_threads(3)
torch.rand(2**22).exp_()  # OpenMP has threads now
print("ready", flush=True)
child = os.fork()
if child == 0:
    torch.set_num_threads(3)
    torch.mm(torch.rand(140, 5, dtype=torch.float64), torch.rand(5, 6, dtype=torch.float64))
    torch.mm(torch.rand(6, 140), torch.rand(140, 5))
    os._exit(0)
os.waitpid(child, 0)
"""


@functools.cache
def pytorch_multiplies_in_a_fork():
    """Say whether PyTorch's products of these tests return in a forked process with threads."""
    process = subprocess.Popen([sys.executable, "-c", PRODUCT], start_new_session=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"  # only then time counts: a busy machine imports slowly
        return process.wait(timeout=10) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # the child too, which waits for ever
            process.wait()
        process.stdout.close()


def numbers(seed, threads=None, layouts=(torch.strided, torch.sparse_coo)):
    """Return what encoder and layers compute of a random input, and gradients: a list of tensors on the CPU."""
    if threads is not None:
        torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(seed)
    values = 2 * torch.rand(7, 5, generator=generator, dtype=torch.float64)
    found = []
    for method in ("super", "adjoint"):
        p = sp.LIFParameters(tau_mem=sp.Learned(0.01), v_th=0.05, method=method, alpha=2.0)
        torch.manual_seed(seed)
        hidden, out = (
            sp.LIFRecurrent(5, 6, p, dtype=torch.float64, kernel="cpu"),
            sp.LI(dtype=torch.float64, kernel="cpu"),
        )
        for layout in layouts:
            z, _ = hidden(sp.ConstantCurrentLIFEncoder(20, layout=layout)(values))
            v, _ = out(z)
            hidden.zero_grad()
            v.square().sum().backward()
            found += [z.detach(), v.detach(), *(parameter.grad for parameter in hidden.parameters())]
    return found


class Numbers(Dataset):
    def __init__(self, threads, layouts):
        self.threads, self.layouts = threads, layouts

    def __len__(self):
        return 4

    def __getitem__(self, seed):
        return numbers(seed, self.threads, self.layouts), os.getpid()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("threads", [None, THREADS], ids=["one thread", "threads in the worker"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(start, threads):
    if start not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start}")
    layouts = (torch.strided, torch.sparse_coo)
    if start == "fork" and threads is not None and not pytorch_multiplies_in_a_fork():
        layouts = (torch.sparse_coo,)
    before = torch.get_num_threads()
    try:  # with threads: the workers are copies without them
        expected = [numbers(seed, THREADS, layouts) for seed in range(4)]
    finally:
        torch.set_num_threads(before)
    given = {"batch_size": None, "num_workers": 2, "multiprocessing_context": start, "timeout": 200}
    found = list(DataLoader(Numbers(threads, layouts), **given))
    assert os.getpid() not in {pid for _, pid in found}
    for (tensors, _), wanted in zip(found, expected, strict=True):
        assert wanted[0].sum() > 0
        for a, b in zip(tensors, wanted, strict=True):
            # products are added in another order by another number of threads; float64, so that no spike differs
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * (1 + b.abs().max().item()))


FORK = """
import os, sys, threading, torch, snnparams as sp
torch.set_num_threads(3)
torch.rand(2**22).exp_()  # OpenMP has threads now
if sys.argv[1] == "kernels loaded":
    from snnparams.kernels import cpu
    held = threading.Event()
    def hold():  # another thread is in a kernel
        with cpu.run.__globals__["one_at_a_time"]:
            held.set()
            threading.Event().wait()
    threading.Thread(target=hold, daemon=True).start()
    held.wait()
child = os.fork()
if child == 0:
    torch.set_num_threads(3)
    spikes = (torch.rand(20, 7, 5) < 0.5).float()
    layer = sp.LIFRecurrent(5, 6, sp.LIFParameters(v_th=0.05), kernel="cpu")
    z, _ = layer(spikes if sys.argv[2] == "dense" else spikes.to_sparse())
    os._exit(7 if z.sum() > 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("before", ["kernels loaded", "not loaded"])
def test_a_forked_process_neither_ends_nor_waits(before, layout):
    if layout == "dense" and not pytorch_multiplies_in_a_fork():
        pytest.skip("PyTorch's own products wait for ever in a forked process with threads on this processor")
    run(sys.executable, "-c", FORK, before, layout, timeout=240)
