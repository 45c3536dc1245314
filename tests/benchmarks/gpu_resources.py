"""What the Triton kernels need on each generation of GPUs; writes book/results/gpu_resources.json. No GPU is needed.

Run from the repository root, about five minutes of one core, and less again, because Triton keeps what it compiled:
python tests/benchmarks/gpu_resources.py
They are those of LIF; with `--derived` those of the adaptive LIF, derived from its step like them, and of the adjoint
method, and the file is book/results/gpu_resources_derived.json.

Triton is told of a GPU that is not there. Then the package launches its kernels, as on any other: it chooses, Triton
compiles, compares with what there is, and would start. NVIDIA's `cuobjdump`, which comes with Triton, reads the
registers from the compiled kernel. Nothing is timed.
"""

import argparse
import itertools
import os
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget

from snnparams.kernels import gpu_adjoint, gpu_encoder, gpu_sequence
from snnparams.neurons import AdaptiveLIF, LIFParameters
from snnparams.neurons.step import PROGRAMS

TARGETS = {75: 65536, 80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}  # shared memory, bytes
MULTIPROCESSORS = {75: 40, 80: 108, 86: 72, 89: 58, 90: 132, 100: 148, 120: 170}  # T4, A100, A10, L4, H100, B200, 5090
NEURONS = (1, 10, 64, 65, 100, 128, 129, 256, 512, 1024)
BATCHES = (1, 256)
PRECISIONS = (("float32", "highest"), ("float32", "high"), ("float64", "highest"))  # "high" allows TF32
KERNELS = ("feed-forward forward", "feed-forward backward", "recurrent forward", "recurrent backward", "encoder")
ADJOINT = ("adjoint, feed-forward backward", "adjoint, recurrent backward")  # forward it is LIF's kernel
DERIVED = (*(f"derived, {kernel}" for kernel in KERNELS[:4]), *ADJOINT)
SIZES_OF_DERIVED = {"neurons": (64, 128, 512), "batches": (256,)}
PATHS = {"recurrent_forward": "on chip", "recurrent_backward": "on chip"}
PATHS |= {"tiled_forward": "tiles", "tiled_backward": "tiles"}
STEPS = 100
REGISTERS = 65536  # of a multiprocessor, 32 bits each


def resources(binary: bytes) -> tuple[int, int]:
    """Return how many registers and how many bytes of the stack, to which others are spilled, a thread takes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(binary)
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text).groups()
    return int(registers), int(stack)


class AbsentGPU:
    """What Triton asks its driver, answered for a GPU that is not there. Launches are noted instead of made."""

    numbers = itertools.count()  # Triton keeps what it compiled by the number of the device

    def __init__(self, capability: int, shared_memory: int) -> None:
        self.number, self.shared_memory = next(self.numbers), shared_memory
        self.target, self.utils = GPUTarget("cuda", capability, 32), self
        self.launched = []

    def get_current_device(self):
        return self.number

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return self.target

    def get_device_properties(self, device):
        return {"max_shared_mem": self.shared_memory, "multiprocessor_count": MULTIPROCESSORS[self.target.arch]}

    def load_binary(self, name, binary, shared, device):
        """Return the module, a handle, here the resources, and what Triton's check of threads wants."""
        registers, stack = resources(binary)
        threads = REGISTERS // (8 * -(-registers // 8)) // 32 * 32
        needed = {"registers": registers, "spilled_bytes": stack, "shared_bytes": shared}
        return self, (name, needed), registers, stack, min(1024, threads)

    def unload_module(self, module):
        pass

    def launcher_cls(self, source, metadata):
        return lambda *arguments: self.launched.append(arguments[4])  # after the grid and the stream: the handle

    def __enter__(self):
        triton.runtime.driver.set_active(self)
        return self

    def __exit__(self, *error):
        pass  # Triton asks for a driver, any, when it forgets a kernel


def launch(kernel: str, sizes: tuple, dtype: torch.dtype, method: str = "super", with_out: bool = True) -> None:
    """Let the package launch a kernel; tensors without storage do, since nobody computes with them.

    Args:
        kernel: one of KERNELS or DERIVED.
        sizes: networks, time steps, batch, neurons.
        dtype: of all tensors.
        method: the spike function.
        with_out: see `launch_derived`.
    """
    if kernel == "encoder":
        values = torch.empty(sizes[0] * sizes[2], sizes[3], dtype=dtype, device="meta")
        gpu_encoder.encode(values, sizes[1], *[values] * 4)
    elif kernel in ADJOINT:
        launch_adjoint(kernel, sizes[1:], dtype, with_out)
    else:
        neuron = AdaptiveLIF if kernel in DERIVED else LIFParameters
        launch_derived(kernel.removeprefix("derived, "), sizes, dtype, method, with_out, neuron)


def launch_adjoint(kernel: str, sizes: tuple, dtype: torch.dtype, with_out: bool) -> None:
    """Let the package launch the backward pass of the adjoint method; see `launch`; sizes are without networks."""
    steps, batch, neurons = sizes
    recurrent = "recurrent" in kernel

    def empty(*shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    state, w = [empty(batch, neurons)] * 2, empty(neurons, neurons) if recurrent else None
    grad_out = empty(*sizes) if with_out else None
    kept, p = empty(2, *sizes), empty(5, neurons)
    gpu_adjoint.backward(grad_out, None, *state, empty(4, *sizes[1:]), [kept], w, p, steps, with_out, recurrent)


def launch_derived(kernel: str, sizes: tuple, dtype: torch.dtype, method: str, with_out: bool, neuron):
    """Let the package launch a kernel that it derives; see `launch`.

    Args:
        kernel: one of KERNELS.
        sizes: networks, time steps, batch, neurons.
        dtype: of all tensors.
        method: the spike function.
        with_out: whether the output has a gradient, and the parameters get one; if not, nothing is kept for any.
        neuron: class of the neurons.
    """
    members, _, batch, neurons = sizes
    program, recurrent = PROGRAMS[neuron.program], kernel.startswith("recurrent")

    def empty(*shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    x, state = empty(*sizes), empty(members, len(program.state), batch, neurons)
    p = empty(members, len(program.parameters), neurons)
    w = empty(members, neurons, neurons) if recurrent else None
    if kernel.endswith(" forward"):
        gpu_sequence.sequence_forward(x, state, w, p, neuron.program, method, 1.0, with_out)
    else:
        kept, how = empty(members, len(program.kept), *sizes[1:]), (neuron.program, method, 1.0)
        grad_out = x if with_out else None
        gpu_sequence.sequence_backward(grad_out, state, kept, w, p, *how, recurrent, with_out, recurrent)


def row(device: AbsentGPU, kernel: str, neurons: int, batch: int, dtype: str, precision: str) -> dict:
    """Return what the package would launch, what that needs, and whether Triton lets it start."""
    asked = {"kernel": kernel, "target": f"sm_{device.target.arch}", "neurons": neurons, "batch": batch}
    asked |= {"dtype": dtype, "precision": precision, "shared_limit": device.shared_memory}
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        launch(kernel, (1, STEPS, batch, neurons), getattr(torch, dtype))
    except RuntimeError as error:
        return asked | {"path": "none", "starts": False, "error": str(error)}
    finally:
        torch.set_float32_matmul_precision(before)
    name, needed = device.launched.pop()
    return asked | {"path": PATHS.get(name, "blocks"), "starts": True} | needed


def rows(targets=tuple(TARGETS), kernels=KERNELS, neurons=NEURONS, batches=BATCHES, precisions=PRECISIONS):
    """Yield the rows for all combinations."""
    for target in targets:
        with AbsentGPU(target, TARGETS[target]) as device:
            for kernel, of_precision, *sizes in itertools.product(kernels, precisions, neurons, batches):
                yield row(device, kernel, *sizes, *of_precision)


if __name__ == "__main__":
    import stored

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--derived", action="store_true", help="those of any neuron, and of the adjoint method")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    name = "gpu_resources_derived" if given.derived else "gpu_resources"
    output = given.output or Path(f"book/results/{name}.json")
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise SystemExit("TRITON_INTERPRET: expected to be unset, the interpreter compiles nothing")
    try:
        triton.knobs.nvidia.cuobjdump.path  # noqa: B018
    except RuntimeError as error:
        raise SystemExit(f"{error}; set TRITON_CUOBJDUMP_PATH to that of a CUDA toolkit") from None
    found = []
    for k, new in enumerate(rows(kernels=DERIVED, **SIZES_OF_DERIVED) if given.derived else rows()):
        found.append(new)
        if k % 50 == 0:
            print(new, flush=True)
    command = "gpu_resources.py --derived" if given.derived else "gpu_resources.py"
    head = stored.header(command, machine=f"{stored.CPU}, the compiler alone", triton=triton.__version__)
    stored.write(output, head | {"rows": found}, indent=None)
