"""Layers and encoders in other processes: workers of a DataLoader, forked or spawned, and other forks."""

import os
import sys

import pytest
import torch
from commands import run
from torch.utils.data import DataLoader, Dataset

import snnparams as sp

THREADS = 3


def numbers(seed, threads=None):
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
        for layout in (torch.strided, torch.sparse_coo):
            z, _ = hidden(sp.ConstantCurrentLIFEncoder(20, layout=layout)(values))
            v, _ = out(z)
            hidden.zero_grad()
            v.square().sum().backward()
            found += [z.detach(), v.detach(), *(parameter.grad for parameter in hidden.parameters())]
    return found


class Numbers(Dataset):
    def __init__(self, threads):
        self.threads = threads

    def __len__(self):
        return 4

    def __getitem__(self, seed):
        return numbers(seed, self.threads), os.getpid()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("threads", [None, THREADS], ids=["one thread", "threads in the worker"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(start, threads):
    if start not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {start}")
    before = torch.get_num_threads()
    try:
        expected = [numbers(seed, THREADS) for seed in range(4)]  # with threads: the workers are copies without them
    finally:
        torch.set_num_threads(before)
    given = {"batch_size": None, "num_workers": 2, "multiprocessing_context": start, "timeout": 200}
    found = list(DataLoader(Numbers(threads), **given))
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
    z, _ = sp.LIFRecurrent(5, 6, sp.LIFParameters(v_th=0.05), kernel="cpu")((torch.rand(20, 7, 5) < 0.5).float())
    os._exit(7 if z.sum() > 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("before", ["kernels loaded", "not loaded"])
def test_a_forked_process_neither_ends_nor_waits(before):
    run(sys.executable, "-c", FORK, before, timeout=240)
