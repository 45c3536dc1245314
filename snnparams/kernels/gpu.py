"""Whole sequences on a GPU: which Triton kernel computes them, in blocks of what size, and its launch.

Without recurrence a program takes a block of neurons through all time steps. With it, a program takes some rows of the
batch. Up to 128 neurons of float32, or 64 of float64, their weights stay on the chip, if the device has the memory
for them there; otherwise they are read in tiles, as large as fit. What a program needs is known before it is compiled
(`shared_memory`), what there is the device reports (`device_of`), and `arrangements` chooses.

**How many rows.** One multiprocessor computes a program, and a tensor core multiplies sixteen rows in the time of one:
so programs take sixteen. Where ordinary units multiply, as on a T4, each row costs, so that programs take the fewest
rows with which all of them run at once: 256 rows are 32 programs of 8 on a T4's 40 multiprocessors.

**What was decided from numbers**, all of them predictions: `gpu_predictions.py` among the benchmarks says from which,
and book/results/gpu_predictions.json what comes out. For 256 rows it predicts that 8 rows in a program take a T4 half
the time of 16 from 256 neurons on, and that with tensor cores no other number of rows gains a tenth. Weights in the
registers of all multiprocessors, as FlashRNN keeps them (Pöppel et al., 2024, arXiv 2412.07752), would serve a thousand
neurons and more, but then programs wait for each other in each step, for which Triton has no means. The products around
stay PyTorch's: they take all time steps at once, and a readout of ten neurons takes less than half of what the steps
take.

**What was measured since**, on an H100 alone, stands beside the predictions in that file. Replayed from a CUDA graph, a
pass of a layer takes 1.4 to 2.7 times what was predicted where weights stay on the chip, and 3.6 to 9.3 times where
they are read in tiles. As it is called it takes 0.8 to 1.7 ms more, whatever its size: up to 128 neurons that is most
of it. A readout takes 0.7 to 1.2 ms as it is called. No other number of rows was timed.

With the environment variable `TRITON_INTERPRET=1`, set before the import, Triton computes all this on a CPU, slowly:
so the tests run without a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
import triton
from triton.runtime.errors import OutOfResources, TritonError

BLOCK = 256  # neurons of a program without recurrence
ROWS = 16  # of a program with recurrence, at most: the least that a tensor core multiplies
RESIDENT_BYTES = 512  # in a row of weights that stay on the chip, at most: the registers must hold all that goes along
TILE_BYTES = 256  # in a row of a tile of the weights, at most: 64 neurons in float32, 32 in float64
TENSOR_CORES = 80  # the compute capability, times ten, from which they multiply float32, and loads run ahead of use


class Device(NamedTuple):
    """What of a GPU decides how a kernel is launched.

    Args:
        capability: compute capability, times ten: 75 for a T4.
        shared_memory: what one program may have on the chip, in bytes.
        multiprocessors: how many programs it computes at once, at least.
    """

    capability: int
    shared_memory: int
    multiprocessors: int


INTERPRETED = Device(90, 227 * 1024, 132)  # the interpreter has no limits: it computes what an H100 would


@functools.cache
def _reported(index: int) -> Device:
    driver = triton.runtime.driver.active
    properties = driver.utils.get_device_properties(index)
    capability = driver.get_current_target().arch
    return Device(capability, properties["max_shared_mem"], properties["multiprocessor_count"])


def device_of(x: torch.Tensor) -> Device:
    """Return what Triton's driver reports of the device of a tensor, which must be the current one."""
    return INTERPRETED if x.device.type == "cpu" else _reported(triton.runtime.driver.active.get_current_device())


class Arrangement(NamedTuple):
    """How programs compute a recurrent population.

    Args:
        path: where the weights are: `"on chip"` or `"tiles"`.
        rows: of the batch that a program takes.
        block: neurons, with what fills them up to a power of two, or the size of a tile.
        precision: of products, as Triton names it.
        warps: how many compute one program.
        stages: how many tiles, at most, are on their way at once.
    """

    path: str
    rows: int
    block: int
    precision: str
    warps: int
    stages: int

    def options(self) -> dict:
        """Return the options of the launch."""
        sizes = {"N": self.block, "ROWS": self.rows, "PRECISION": self.precision}
        return sizes | {"num_warps": self.warps, "num_stages": self.stages}


def shared_memory(how: Arrangement, itemsize: int) -> int:
    """Return how many bytes on the chip a program needs, at most: for a block of weights and of what it multiplies.

    Three passes of TF32 keep both twice, the leading digits and the others. Loads that run ahead need room once more.
    """
    copies = 1 + (how.precision == "tf32x3") + (how.path == "tiles" and how.stages > 1)
    return copies * (how.block + how.rows) * how.block * itemsize


def _rows(device: Device, members: int, batch: int) -> int:
    """Return how many rows a program takes."""
    if device.capability >= TENSOR_CORES:
        return ROWS
    at_once = (rows for rows in (2, 4, 8) if members * triton.cdiv(batch, rows) <= device.multiprocessors)
    return next(at_once, ROWS)


def arrangements(
    device: Device, members: int, batch: int, neurons: int, dtype: torch.dtype, tf32: bool
) -> list[Arrangement]:
    """Return the ways to compute a recurrent population that fit a device, the fastest first.

    Args:
        device: what they must fit.
        members: networks that stand side by side.
        batch: rows of each.
        neurons: of the population.
        dtype: `torch.float32` or `torch.float64`.
        tf32: whether products of float32 may round as TF32 does. If not, three passes of it give float32, and where
            tensor cores do not know it, ordinary arithmetic does.
    """
    tensor_cores, rows = device.capability >= TENSOR_CORES, _rows(device, members, batch)
    precision = "ieee"
    if dtype == torch.float32 and tensor_cores:
        precision = "tf32" if tf32 else "tf32x3"

    def arrangement(path: str, block: int) -> Arrangement:
        few = path == "tiles" and rows < ROWS
        warps = 4 if few or block * dtype.itemsize <= 128 else 8  # so that the registers of each hold its part
        return Arrangement(path, rows, block, precision, warps, stages=3 if tensor_cores else 1)

    possible = (
        [arrangement("on chip", max(16, triton.next_power_of_2(neurons)))]
        if neurons * dtype.itemsize <= RESIDENT_BYTES
        else []
    )
    possible += [arrangement("tiles", tile) for tile in (64, 32, 16) if tile * dtype.itemsize <= TILE_BYTES]
    fitting = [how for how in possible if shared_memory(how, dtype.itemsize) <= device.shared_memory]
    return fitting or possible[-1:]


def arrangements_for(device: Device, x: torch.Tensor) -> list[Arrangement]:
    """Return the ways to compute recurrent populations with inputs x (E, T, B, N), the fastest first."""
    members, _, batch, neurons = x.shape[-4:]
    tf32 = torch.get_float32_matmul_precision() != "highest"
    return arrangements(device, members, batch, neurons, x.dtype, tf32)


def launch(x: torch.Tensor, attempts: Callable[[Device], Iterable[tuple]]) -> None:
    """Launch a kernel on the device of a tensor: the first attempt that Triton, having compiled it, finds to fit.

    Args:
        x: the tensor.
        attempts: for a device, the launches to try: kernel, number of programs, arguments, options.

    Raises:
        RuntimeError: if none fits, or one cannot be compiled.
    """
    # PyTorch does not warn of numbers that are not finite, NumPy, by which the interpreter computes, would
    with torch.cuda.device(x.device) if x.is_cuda else np.errstate(all="ignore"):
        device = device_of(x)
        gpu = f"a GPU of compute capability {device.capability / 10}"
        for kernel, programs, arguments, options in attempts(device):
            try:
                kernel[(programs,)](*arguments, **options)
                return
            except OutOfResources as error:  # before anything was computed
                cause: TritonError = error
                name = error.name.replace("shared", "bytes of shared")
                what = f"a program needs {error.required} {name}, {gpu} has {error.limit}"
            except TritonError as error:
                cause = error
                what = f"{type(error).__name__} of Triton {triton.__version__} for {gpu}"
                break
    raise RuntimeError(f"kernel='triton': {what}; use kernel='reference'") from cause
