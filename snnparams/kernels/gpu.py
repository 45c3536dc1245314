"""Whole sequences on a GPU: which Triton kernel computes them, in blocks of what size, and its launch.

Without recurrence a program takes a block of neurons through all time steps. With it, a program takes sixteen rows of
the batch. Up to 128 neurons of float32, or 64 of float64, their weights stay on the chip, if the device has the memory
for them there; otherwise they are read in tiles, as large as fit. What a program needs is known before it is compiled
(`shared_memory`), what there is the device reports (`device_of`), and `arrangements` chooses.

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
ROWS = 16  # of a program with recurrence: the least that a tensor core multiplies
RESIDENT_BYTES = 512  # in a row of weights that stay on the chip, at most: the registers must hold all that goes along
TILE_BYTES = 256  # in a row of a tile of the weights, at most: 64 neurons in float32, 32 in float64
TENSOR_CORES = 80  # the compute capability, times ten, from which they multiply float32, and loads run ahead of use


class Device(NamedTuple):
    """What of a GPU decides how a kernel is launched.

    Args:
        capability: compute capability, times ten: 75 for a T4.
        shared_memory: what one program may have on the chip, in bytes.
    """

    capability: int
    shared_memory: int


INTERPRETED = Device(90, 227 * 1024)  # the interpreter has no limits: it computes what an H100 would


@functools.cache
def _reported(index: int) -> Device:
    driver = triton.runtime.driver.active
    limit = driver.utils.get_device_properties(index)["max_shared_mem"]
    return Device(driver.get_current_target().arch, limit)


def device_of(x: torch.Tensor) -> Device:
    """Return what Triton's driver reports of the device of a tensor, which must be the current one."""
    return INTERPRETED if x.device.type == "cpu" else _reported(triton.runtime.driver.active.get_current_device())


class Arrangement(NamedTuple):
    """How programs compute a recurrent population.

    Args:
        path: where the weights are: `"on chip"` or `"tiles"`.
        block: neurons, with what fills them up to a power of two, or the size of a tile.
        precision: of products, as Triton names it.
        warps: how many compute one program.
        stages: how many tiles, at most, are on their way at once.
    """

    path: str
    block: int
    precision: str
    warps: int
    stages: int

    def options(self) -> dict:
        """Return the options of the launch."""
        sizes = {"N": self.block, "ROWS": ROWS, "PRECISION": self.precision}
        return sizes | {"num_warps": self.warps, "num_stages": self.stages}


def shared_memory(how: Arrangement, itemsize: int) -> int:
    """Return how many bytes on the chip a program needs, at most: for a block of weights and of what it multiplies.

    Three passes of TF32 keep both twice, the leading digits and the others. Loads that run ahead need room once more.
    """
    copies = 1 + (how.precision == "tf32x3") + (how.path == "tiles" and how.stages > 1)
    return copies * (how.block + ROWS) * how.block * itemsize


def arrangements(device: Device, neurons: int, dtype: torch.dtype, tf32: bool) -> list[Arrangement]:
    """Return the ways to compute a recurrent population that fit a device, the fastest first.

    Args:
        device: what they must fit.
        neurons: of the population.
        dtype: `torch.float32` or `torch.float64`.
        tf32: whether products of float32 may round as TF32 does. If not, three passes of it give float32, and where
            tensor cores do not know it, ordinary arithmetic does.
    """
    tensor_cores = device.capability >= TENSOR_CORES
    precision = "ieee"
    if dtype == torch.float32 and tensor_cores:
        precision = "tf32" if tf32 else "tf32x3"

    def arrangement(path: str, block: int) -> Arrangement:
        warps = 4 if block * dtype.itemsize <= 128 else 8  # so that the registers of each hold its part
        return Arrangement(path, block, precision, warps, stages=3 if tensor_cores else 1)

    possible = (
        [arrangement("on chip", max(16, triton.next_power_of_2(neurons)))]
        if neurons * dtype.itemsize <= RESIDENT_BYTES
        else []
    )
    possible += [arrangement("tiles", tile) for tile in (64, 32, 16) if tile * dtype.itemsize <= TILE_BYTES]
    fitting = [how for how in possible if shared_memory(how, dtype.itemsize) <= device.shared_memory]
    return fitting or possible[-1:]


def arrangements_for(device: Device, x: torch.Tensor) -> list[Arrangement]:
    """Return the ways to compute a recurrent population with inputs x, the fastest first."""
    return arrangements(device, x.shape[-1], x.dtype, tf32=torch.get_float32_matmul_precision() != "highest")


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
