"""What Numba compiles: for which processor, where it is kept, and that it compiles for arm64 as well."""

import gc
import os
import platform
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from commands import run
from notebooks import ROOT

from snnparams.kernels import compiled, threads, vectors

# A recurrent layer against the reference. What is printed: hits and misses of the cache, bytes of a register.
USE = """
import pathlib, sys
if "homeless" in sys.argv:
    def home(cls):
        raise RuntimeError("Could not determine home directory.")
    pathlib.Path.home = classmethod(home)
import torch, snnparams as sp
torch.set_num_threads(1)
torch.manual_seed(0)
layer = sp.LIFRecurrent(6, 20, sp.LIFParameters(v_th=0.3), dtype=torch.float64, kernel="cpu")
reference = sp.LIFRecurrent(6, 20, sp.LIFParameters(v_th=0.3), dtype=torch.float64, kernel="reference")
reference.load_state_dict(layer.state_dict())
x = (torch.rand(30, 5, 6) < 0.3).double()
with torch.no_grad():
    z = layer(x)[0]
    assert 0 < z.mean() < 1 and torch.equal(z, reference(x)[0])
from snnparams.kernels import cpu, vectors
hits, misses = cpu._forward.stats.cache_hits, cpu._forward.stats.cache_misses
print(sum(hits.values()), sum(misses.values()), vectors.REGISTER)
"""

# A function that is compiled fast.
SMALL = """
import torch
from snnparams.kernels import sparse
torch.set_num_threads(1)
spikes = (torch.rand(30, 5, 6) < 0.3).to_sparse()
row_start, column, values = sparse.compress(spikes)
assert row_start[-1] == len(column) == len(values)
hits, misses = sparse._compress.stats.cache_hits, sparse._compress.stats.cache_misses
print(sum(hits.values()), sum(misses.values()))
"""


def environment(**variables):
    """Return the environment with other variables, and without those that choose a folder or a processor."""
    chosen = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
    kept = {name: value for name, value in os.environ.items() if name not in chosen}
    return kept | {"PYTHONPATH": str(ROOT)} | variables


def use(code=USE, **variables):
    return run(sys.executable, "-W", "error", "-c", code, env=environment(**variables)).split()


GENERIC = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
AVX512 = {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx512f,+avx512vl"}


@pytest.mark.parametrize(("processor", "expected"), [(GENERIC, (16, 2)), (AVX2, (32, 2)), (AVX512, (64, 4))])
def test_registers_are_those_of_the_processor_that_numba_compiles_for(processor, expected):
    code = "from snnparams.kernels import vectors; print(vectors.REGISTER, vectors.REGISTERS)"
    found = run(sys.executable, "-c", code, env=environment(**processor))
    assert tuple(map(int, found.split())) == expected


def test_numba_may_be_told_to_use_no_avx():
    code = "from snnparams.kernels import vectors; print(vectors.REGISTER)"
    assert run(sys.executable, "-c", code, env=environment(NUMBA_ENABLE_AVX="0")).strip() == "16"


def test_registers_without_features_of_intel():
    assert vectors._registers({"neon", "fullfp16"}) == (16, 4)


@pytest.mark.slow
def test_one_folder_serves_several_processors(tmp_path):
    """Code for other registers would read weights in another order."""
    host = str(vectors.REGISTER)
    for times in range(2):
        assert use(NUMBA_CACHE_DIR=str(tmp_path)) == [str(times), str(1 - times), host]
        if vectors.REGISTER > 16:
            assert use(NUMBA_CACHE_DIR=str(tmp_path), **GENERIC) == [str(times), str(1 - times), "16"]
    folders = [path.name for path in tmp_path.iterdir()]
    assert len(folders) == (2 if vectors.REGISTER > 16 else 1)
    assert all(name.startswith("snnparams-") for name in folders)


@pytest.mark.slow
def test_two_processes_at_once_and_damaged_files(tmp_path):
    variables = environment(XDG_CACHE_HOME=str(tmp_path))
    both = [subprocess.Popen([sys.executable, "-c", SMALL], env=variables, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    for process in both:
        process.stdout.close()
    assert use(SMALL, XDG_CACHE_HOME=str(tmp_path)) == ["1", "0"]
    (folder,) = (tmp_path / "snnparams" / "compiled").iterdir()
    assert folder.name == compiled._folder().name
    for pattern, content in (("*.nbi", b""), ("*.nbc", b"no pickle")):  # the index, what it names
        for path in folder.glob(pattern):
            path.write_bytes(content)
        assert use(SMALL, XDG_CACHE_HOME=str(tmp_path)) == ["0", "1"]
        assert use(SMALL, XDG_CACHE_HOME=str(tmp_path)) == ["1", "0"]


def test_a_change_of_any_source_or_register_leads_to_another_folder(tmp_path, monkeypatch):
    for path in (ROOT / "snnparams" / "kernels").glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    names = {compiled._folder.__wrapped__().name}
    assert names == {compiled._folder().name}  # where the package lies does not matter
    monkeypatch.setattr(compiled, "REGISTER", 8)
    names.add(compiled._folder.__wrapped__().name)
    with (tmp_path / "vectors.py").open("a") as file:
        file.write("# changed\n")
    names.add(compiled._folder.__wrapped__().name)
    assert len(names) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs modes of files")
@pytest.mark.parametrize("home", ["none", "homeless"])
def test_a_read_only_installation_without_a_home_works_and_says_what_to_set(tmp_path, home):
    shutil.copytree(ROOT / "snnparams", tmp_path / "snnparams", ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(tmp_path.rglob("*"))
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-W", "error", "-c", USE, home]
    if os.geteuid() == 0:  # root may write everything, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("root without setpriv")
        command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *command]
    variables = environment(PYTHONPATH=str(tmp_path), HOME="/proc/none")
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Compiled kernels cannot be kept") == 1
    assert "Set NUMBA_CACHE_DIR to a folder that can be written" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


# Every kernel in LLVM's own language, as made for a processor with registers of 16 bytes, goes to a compiler for arm64.
ARM = """
import re, sys, llvmlite.binding as llvm, torch, snnparams as sp
from numba.core.dispatcher import Dispatcher
from snnparams.kernels import adjoint_cpu, cpu, sparse, vectors

assert vectors.REGISTER == 16
torch.set_num_threads(1)
for dtype in (torch.float32, torch.float64):
    for method in ("super", "adjoint"):
        p = sp.LIFParameters(tau_mem=sp.Learned(0.01), method=method)
        layer = sp.LIFRecurrent(5, 6, p, dtype=dtype, kernel="cpu")
        for layout in (torch.strided, torch.sparse_coo):
            x = sp.ConstantCurrentLIFEncoder(3, layout=layout)(2 * torch.rand(2, 5, dtype=dtype))
            for cpu.LARGE in (1, 1024):
                layer(x)[0].sum().backward()
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
for triple, processor in (("aarch64-unknown-linux-gnu", "neoverse-n1"), ("arm64-apple-macosx", "apple-m1")):
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
    for module in (adjoint_cpu, cpu, sparse):
        for name, function in vars(module).items():
            if not isinstance(function, Dispatcher):
                continue
            assert function.signatures, name
            for text in function.inspect_llvm().values():
                text = re.sub("^target (triple|datalayout) = .*$", "", text, flags=re.M)
                # Numba's own counting of references has become an instruction of the host
                text = text.replace("llvm.x86.atomic.sub.cc", "atomic_sub_is_zero").replace(" immarg", "")
                assert "llvm.x86" not in text, name
                parsed = llvm.parse_assembly(text)
                parsed.triple, parsed.data_layout = triple, str(machine.target_data)
                parsed.verify()
                print(triple, module.__name__, name, machine.emit_object(parsed)[:4].hex(),
                      len(re.findall(r"\\bfmla(?:\\.[24][sd])?\\b", machine.emit_assembly(parsed))))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_kernel_compiles_for_arm64(tmp_path):
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the other tests run the kernels on this processor")
    lines = run(sys.executable, "-c", ARM, env=environment(NUMBA_CACHE_DIR=str(tmp_path), **GENERIC), timeout=800)
    rows = [line.split() for line in lines.splitlines()]
    kinds = {"aarch64-unknown-linux-gnu": b"\x7fELF".hex(), "arm64-apple-macosx": "cffaedfe"}
    assert {row[0] for row in rows} == set(kinds)
    assert all(row[3] == kinds[row[0]] for row in rows)
    for triple in kinds:
        for module in ("adjoint_cpu", "cpu", "sparse"):
            assert [row for row in rows if row[0] == triple and row[1].endswith(module)]
    of_products = [row for row in rows if row[2] in ("_product", "_outer_products")]
    assert len(of_products) == 8  # two functions, types and systems
    assert all(int(row[4]) > 0 for row in of_products)  # multiply-add of whole registers


# Trains a little, with all that changes from one call to another: what is printed is what was compiled by then.
TRAIN = """
import sys, torch, snnparams as sp
sys.path.insert(0, sys.argv[1])
from first_call import compiled

def train(rows, steps, threads, p, layout=torch.sparse_coo, with_x=False):
    torch.set_num_threads(threads)
    layer = sp.LIFRecurrent(8, 40, p, kernel="cpu")
    x = sp.ConstantCurrentLIFEncoder(steps, layout=layout)(2 * torch.rand(rows, 8)).requires_grad_(with_x)
    layer(x)[0].sum().backward()

train(64, 20, 2, sp.LIFParameters(tau_mem=sp.Learned(0.01)))
first = compiled()
with torch.no_grad():
    sp.LIFRecurrent(8, 40, kernel="cpu")(torch.rand(64, 20, 8))
for rows, steps, threads in ((65, 21, 2), (300, 20, 3), (64, 30, 1), (2, 64, 2)):
    train(rows, steps, threads, sp.LIFParameters())
    train(rows, steps, threads, sp.LIFParameters(v_th=sp.Learned(0.3), method="tanh", alpha=3.0))
    train(rows, steps, threads, sp.LIFParameters(), torch.strided, with_x=True)
later = compiled()
assert later == first, (first, later)
print(*first)
"""


@pytest.mark.slow
def test_nothing_is_compiled_again_for_another_batch_thread_neuron_or_flag_nor_in_another_process(tmp_path):
    arguments = sys.executable, "-c", TRAIN, str(ROOT / "tests" / "benchmarks")
    variables = environment(NUMBA_CACHE_DIR=str(tmp_path))
    assert {"_forward", "_backward", "_in_threads"} <= set(run(*arguments, env=variables).split())
    assert run(*arguments, env=variables).split() == []


@pytest.mark.slow
def test_a_folder_of_another_version_is_left_alone(tmp_path):
    other = tmp_path / "snnparams-0123456789abcdef"
    other.mkdir()
    for name in ("sparse._compress-17.py311.nbi", "sparse._compress-17.py311.1.nbc"):
        (other / name).write_bytes(b"of a version that nobody has any more")
    assert use(SMALL, NUMBA_CACHE_DIR=str(tmp_path)) == ["0", "1"]
    assert use(SMALL, NUMBA_CACHE_DIR=str(tmp_path)) == ["1", "0"]
    assert {path.read_bytes() for path in other.iterdir()} == {b"of a version that nobody has any more"}


def test_other_versions_of_numba_and_python_have_folders_of_their_own(monkeypatch):
    names = {compiled._folder.__wrapped__().name}
    monkeypatch.setattr(compiled.numba, "__version__", "0.1")
    names.add(compiled._folder.__wrapped__().name)
    monkeypatch.setattr(compiled.platform, "python_version", lambda: "3.99.0")
    names.add(compiled._folder.__wrapped__().name)
    assert len(names) == 3


@pytest.mark.parametrize("bars", ["0", "1"])
def test_says_once_that_compiling_takes_long_but_not_where_bars_are_switched_off(monkeypatch, caplog, bars):
    said = threading.Event()
    compiled._say_that_it_takes_long.cache_clear()
    monkeypatch.setenv("TQDM_DISABLE", bars)

    class AtOnce:
        """A timer whose time has come."""

        def __init__(self, seconds, function):
            assert seconds == 1.0
            self.start, self.cancel = function, said.set

    monkeypatch.setattr(compiled.threading, "Timer", AtOnce)
    for _ in range(2):
        with compiled.while_compiling():
            assert not gc.isenabled()
    assert gc.isenabled()
    assert said.is_set()
    compiled._say_that_it_takes_long.cache_clear()
    if bars == "1":
        assert not caplog.records
        return
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["Compiling kernels for this processor"]
    assert str(compiled._folder()) in caplog.text


def test_says_nothing_when_compiling_is_fast(caplog):
    with compiled.while_compiling():
        pass
    assert not caplog.records


def test_arrays_with_gaps_are_refused():
    with pytest.raises(ValueError, match="one after the other"):
        threads._pack(np.zeros((4, 4))[:, ::2])
