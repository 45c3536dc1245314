"""Every Triton kernel fits every GPU from the T4 on: by the stored results, and by compiling some again here."""

import itertools
import json
import os
import re
import sys
import types

import pytest
import torch
import triton
from commands import run
from notebooks import ROOT
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.runtime.errors import OutOfResources, PTXASError

from snnparams import kernels
from snnparams.kernels import gpu

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import gpu_resources

STORED = json.loads((ROOT / "book" / "results" / "gpu_resources.json").read_text())
ROWS = STORED["rows"]
DERIVED = json.loads((ROOT / "book" / "results" / "gpu_resources_derived.json").read_text())


def arrangement(row):
    """Return how the package computes a recurrent population on the GPU of a row."""
    capability = int(row["target"].removeprefix("sm_"))
    device = gpu.Device(capability, row["shared_limit"], gpu_resources.MULTIPROCESSORS[capability])
    sizes = 1, row["batch"], row["neurons"]
    return gpu.arrangements(device, *sizes, getattr(torch, row["dtype"]), row["precision"] == "high")[0]


def check(row):
    """Check that what the package takes starts, and is what it expected to fit."""
    assert row["starts"], row
    assert row["shared_bytes"] <= row["shared_limit"]
    assert row["registers"] <= 255
    if "recurrent" in row["kernel"]:
        how = arrangement(row)
        assert row["path"] == how.path
        assert row["shared_bytes"] <= gpu.shared_memory(how, getattr(torch, row["dtype"]).itemsize)
    else:
        assert row["path"] == "blocks"


def test_stored_results_are_complete():
    def key(row):
        return tuple(row[name] for name in ("target", "kernel", "dtype", "precision", "neurons", "batch"))

    targets = [f"sm_{target}" for target in (75, 80, 86, 89, 90, 100, 120)]
    of_numbers = [("float32", "highest"), ("float32", "high"), ("float64", "highest")]
    sizes = (1, 10, 64, 65, 100, 128, 129, 256, 512, 1024), (1, 256)
    expected = {
        (target, kernel, *numbers, neurons, batch)
        for target, kernel, numbers, neurons, batch in itertools.product(
            targets, gpu_resources.KERNELS, of_numbers, *sizes
        )
    }
    assert {key(row) for row in ROWS} == expected
    assert len(ROWS) == len(expected)
    assert {"python", "torch", "triton"} <= set(STORED["versions"])
    assert STORED["command"] == "python tests/benchmarks/gpu_resources.py"


def test_every_path_taken_starts():
    for row in ROWS:
        check(row)


def test_kernels_without_recurrence_and_on_chip_up_to_64_neurons_spill_little():
    """Float64 spills more where its products run on ordinary units."""
    for row in ROWS:
        if row["path"] == "blocks" or (row["dtype"] == "float32" and row["neurons"] <= 64):
            assert row["spilled_bytes"] <= 64, row


def test_on_a_t4_nothing_is_spilled_up_to_128_neurons_of_float32():
    of_t4 = [row for row in ROWS + DERIVED["rows"] if row["target"] == "sm_75" and row["dtype"] == "float32"]
    assert len(of_t4) == 200 + 36
    for row in of_t4:
        assert row["spilled_bytes"] == 0 or row["neurons"] > 128, row


def test_kernels_of_an_adaptive_neuron_and_of_the_adjoint_method_start_and_spill_little():
    """Up to 64 neurons of float32, and without recurrence, nothing at all; those of LIF are held to 64 bytes."""
    assert DERIVED["command"] == "python tests/benchmarks/gpu_resources.py --derived"
    found = {(row["target"], row["kernel"], row["dtype"], row["precision"], row["neurons"]) for row in DERIVED["rows"]}
    targets = [f"sm_{target}" for target in gpu_resources.TARGETS]
    numbers = [("float32", "highest"), ("float32", "high"), ("float64", "highest")]
    of_kernels = itertools.product(targets, gpu_resources.DERIVED, numbers, (64, 128, 512))
    assert found == {(target, kernel, *of, neurons) for target, kernel, of, neurons in of_kernels}
    assert len(DERIVED["rows"]) == len(found)
    for row in DERIVED["rows"]:
        check(row)
        if row["path"] == "blocks" or (row["dtype"] == "float32" and row["neurons"] <= 64):
            assert row["spilled_bytes"] == 0, row


@pytest.mark.parametrize(("target", "path"), [(75, "tiles"), (80, "on chip"), (86, "tiles"), (89, "tiles"),
                                              (90, "on chip"), (100, "on chip"), (120, "tiles")])  # fmt: skip
def test_a_hundred_neurons_stay_on_the_chip_where_there_is_room(target, path):
    device = gpu.Device(target, gpu_resources.TARGETS[target], gpu_resources.MULTIPROCESSORS[target])
    chosen, *others = gpu.arrangements(device, 1, 256, 100, torch.float32, tf32=False)
    assert chosen.path == path
    assert {how.path for how in others} == {"tiles"}  # what is left if Triton needs more than expected
    assert gpu.arrangements(device, 1, 256, 64, torch.float32, tf32=False)[0].path == "on chip"
    assert gpu.arrangements(device, 1, 256, 129, torch.float32, tf32=False)[0].path == "tiles"
    assert chosen.precision == ("ieee" if target == 75 else "tf32x3")  # a T4 has no tensor cores for float32


@pytest.mark.parametrize(
    ("target", "members", "batch", "rows", "programs"),
    [(75, 1, 256, 8, 32), (75, 1, 80, 2, 40), (75, 1, 81, 4, 21), (75, 20, 8, 4, 40), (75, 1, 1, 2, 1),
     (75, 1, 4096, 16, 256), (80, 1, 256, 16, 16), (90, 1, 256, 16, 16)],
)  # fmt: skip
def test_without_tensor_cores_programs_take_the_fewest_rows_with_which_all_run_at_once(
    target, members, batch, rows, programs
):
    device = gpu.Device(target, gpu_resources.TARGETS[target], gpu_resources.MULTIPROCESSORS[target])
    for neurons, path in ((64, "on chip"), (512, "tiles")):
        chosen = gpu.arrangements(device, members, batch, neurons, torch.float32, tf32=False)[0]
        assert (chosen.path, chosen.rows, members * triton.cdiv(batch, chosen.rows)) == (path, rows, programs)


COMPILE = """
import json, re, sys
import torch
from unittest import mock
sys.path.insert(0, "tests/benchmarks")
import gpu_resources
from gpu_resources import DERIVED, KERNELS, TARGETS, AbsentGPU, launch, launch_derived, row
from snnparams.kernels import gpu, gpu_any_neuron, gpu_encoder
from snnparams.neurons.surrogate import DERIVATIVES
import snnparams as sp

class Own(sp.Neuron):
    state = ("v", "u")
    tau_inv, v_th = sp.rate(50.0, time="tau"), sp.voltage(0.4)

    def step(x, v, u, tau_inv, v_th, spike, reset, where):
        v = (v + 3 * x / 7) / (2 + u * u)
        z = spike(v, v_th)
        return z * v, where(z, v - v_th, v) * (2 - reset(z)), u * tau_inv - v

found = {"rows": [], "fused": [], "forward": 0, "products": []}
for target, neurons, dtype, precision in (
    (75, 64, "float32", "highest"), (75, 100, "float32", "highest"), (75, 128, "float64", "highest"),
    (86, 128, "float32", "highest"), (120, 100, "float32", "high"), (90, 128, "float64", "highest"),
):
    with AbsentGPU(target, TARGETS[target]) as device:
        for kernel in ("recurrent forward", "recurrent backward", "adjoint, recurrent backward"):
            found["rows"].append(row(device, kernel, neurons, 1, dtype, precision))
one = [(1, 1, 1, 1), (1, 1, 3, 5), (1, 3, 1, 5), (1, 3, 5, 1), (1, 1, 3, 200), (1, 3, 1, 200), (2, 3, 16, 256)]
with AbsentGPU(90, TARGETS[90]) as device:
    for sizes in one:
        for kernel in KERNELS:
            launch(kernel, sizes, torch.float32)
    for method in DERIVATIVES:
        for kernel in KERNELS[:2]:
            launch(kernel, (1, 3, 5, 7), torch.float64, method, with_out=method != "heaviside")
    for kernel in KERNELS[2:4]:
        launch(kernel, (1, 3, 5, 7), torch.float64, "sigmoid", with_out=False)
    for sizes in one[3:]:
        for kernel in DERIVED:
            launch(kernel, sizes, torch.float32)
    for kernel in KERNELS[:4]:
        launch_derived(kernel, (1, 3, 5, 7), torch.float64, "sigmoid", False, Own)
        launch_derived(kernel, (1, 3, 5, 7), torch.float32, "tanh", True, Own)
        launch_derived(kernel, (1, 3, 5, 7), torch.float64, "super", True, Own)
for target in TARGETS:
    with AbsentGPU(target, TARGETS[target]) as device:
        for kernel in DERIVED:
            found["rows"].append(row(device, kernel, 64, 256, "float32", "highest"))
for cache, *_ in gpu_any_neuron.forward.device_caches.values():
    for compiled in cache.values():
        if "math.exp" not in compiled.asm["ttir"]:  # which is computed with fused multiply-add
            found["forward"] += 1
            found["fused"] += re.findall("fma.rn|div.full", compiled.asm["ptx"])
for module in (gpu_any_neuron, gpu_encoder):
    for kernel in vars(module).values():
        for cache, *_ in getattr(kernel, "device_caches", {}).values():
            for compiled in cache.values():
                found["products"] += re.findall("arith.muli .* : (.*i[0-9]+)", compiled.asm["ttir"])
with AbsentGPU(80, 100_000) as device, mock.patch.object(gpu, "shared_memory", return_value=0):
    found["wrong"] = row(device, "recurrent forward", 100, 1, "float32", "highest")
with AbsentGPU(75, 1000) as device:
    found["none"] = row(device, "recurrent backward", 100, 1, "float32", "highest")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def compiled():
    """Return what comes of kernels that are compiled now, by another process: this one may interpret them."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return json.loads(run(sys.executable, "-c", COMPILE, env=environment, cwd=ROOT))


def test_what_is_compiled_now_starts(compiled):
    assert len(compiled["rows"]) == 18 + 6 * len(gpu_resources.TARGETS)
    for row in compiled["rows"]:
        check(row)
        assert row["spilled_bytes"] == 0 or row["neurons"] > 64


def test_a_derived_step_is_rounded_as_pytorch_does(compiled):
    """The instructions for a GPU have no fused multiply-add, and no division that is not exact."""
    assert compiled["forward"] > len(gpu_resources.TARGETS)
    assert compiled["fused"] == []


def test_every_size_can_be_one_and_no_offset_has_32_bits(compiled):
    """That it got here says that all kernels compiled; the products are those in Triton's intermediate language."""
    assert len(compiled["products"]) > 100
    assert {re.sub(r"tensor<(\d+x)+", "", product) for product in compiled["products"]} == {"i64"}


def test_another_arrangement_is_taken_if_triton_needs_more_than_expected(compiled):
    assert compiled["wrong"]["starts"]
    assert compiled["wrong"]["path"] == "tiles"
    assert compiled["wrong"]["shared_bytes"] <= compiled["wrong"]["shared_limit"] < 147456


def test_a_failed_launch_says_what_was_needed_and_what_to_use(compiled):
    assert not compiled["none"]["starts"]
    assert re.fullmatch(
        r"kernel='triton': a program needs \d+ bytes of shared memory, a GPU of compute capability 7.5 has 1000; "
        r"use kernel='reference'",
        compiled["none"]["error"],
    )


class Kernel:
    """A kernel that notes the current device when it is launched, or fails."""

    def __init__(self, current=None, error=None):
        self.current, self.error, self.devices = current, error, []

    def __getitem__(self, grid):
        return self

    def __call__(self):
        if self.error:
            raise self.error
        self.devices.append(list(self.current))


def test_kernels_run_on_the_device_of_their_tensors(monkeypatch):
    current = []

    class OnDevice:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            current.append(self.device)

        def __exit__(self, *error):
            current.pop()

    monkeypatch.setattr(torch.cuda, "device", OnDevice)
    monkeypatch.setattr(gpu, "device_of", lambda x: gpu.Device(90, 232448, 132))
    with FakeTensorMode():
        x = torch.empty(2, device="cuda:1")
    kernel = Kernel(current)
    gpu.launch(x, lambda device: [(kernel, 1, (), {})])
    assert kernel.devices == [[torch.device("cuda:1")]]
    assert not current


def test_errors_of_triton_name_the_reference():
    x = torch.empty(2)
    full = Kernel(error=OutOfResources(512, 256, "threads"))
    with pytest.raises(RuntimeError, match=r"needs 512 threads, a GPU of .* has 256; use kernel='reference'") as error:
        gpu.launch(x, lambda device: [(full, 1, (), {})])
    assert error.value.__cause__ is full.error
    unknown = Kernel(error=PTXASError("no such target"))
    message = f"PTXASError of Triton {re.escape(triton.__version__)} for a GPU of .*; use kernel='reference'"
    with pytest.raises(RuntimeError, match=message):
        gpu.launch(x, lambda device: [(unknown, 1, (), {}), (Kernel([]), 1, (), {})])


def on_a_gpu():
    with FakeTensorMode():
        return torch.empty(2, 3, device="cuda:0")


def test_under_rocm_the_reference_is_chosen(monkeypatch):
    assert kernels.choose(None, on_a_gpu()) == kernels.choose("triton", on_a_gpu()) == "triton"
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert kernels.choose(None, on_a_gpu()) == "reference"
    with pytest.raises(ValueError, match=r"kernel='triton': expected a GPU by NVIDIA, .* ROCm, .* kernel='reference'"):
        kernels.choose("triton", on_a_gpu())


@pytest.mark.parametrize(("major", "minor", "chosen"), [(6, 1, "reference"), (7, 0, "reference"), (7, 5, "triton"),
                                                        (9, 0, "triton"), (12, 0, "triton")])  # fmt: skip
def test_on_a_gpu_older_than_a_t4_the_reference_is_chosen(monkeypatch, major, minor, chosen):
    properties = types.SimpleNamespace(major=major, minor=minor, name="this GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert kernels.choose(None, on_a_gpu()) == chosen
    if chosen == "reference":
        message = f"expected a GPU of compute capability 7.5 or more, got {major}.{minor} (this GPU)"
        with pytest.raises(ValueError, match=re.escape(message)):
            kernels.choose("triton", on_a_gpu())
