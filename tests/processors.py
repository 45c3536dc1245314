"""Test the kernels as they are on other processors, with one thread and with two: `make test-processors`.

Numba and PyTorch are told to use no more than generic x86-64 has, AVX2, or AVX-512 where this machine has it: the width
of registers, the order of sums and the rounding are then those of such a processor. Elsewhere than on x86-64 only the
number of threads changes.
"""

import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from llvmlite.binding import get_host_cpu_features
from notebooks import ROOT

NAMES = "vectors", "kernels", "derive", "adjoint", "norse_parity"
TESTS = [f"tests/test_{name}.py" for name in NAMES]
# neither Triton's interpreter nor a limit of small steps depends on the processor
CHOICE = ["-k", "not triton and not gpu and not GPU and not converge", "-m", "not slow"]

# what Numba compiles for; what PyTorch, oneDNN and MKL may use
PROCESSORS = {
    "generic": {
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
    "avx2": {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "avx512": {
        "NUMBA_CPU_NAME": "skylake-avx512",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl",
        "ATEN_CPU_CAPABILITY": "avx512",
    },
}


def here() -> dict[str, dict[str, str]]:
    """Return the processors as which this one can work."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {"this processor": {}}
    features = get_host_cpu_features()
    needed = {"generic": [], "avx2": ["avx2", "fma"]}
    needed["avx512"] = [f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl")]
    return {name: PROCESSORS[name] for name, names in needed.items() if all(features.get(f) for f in names)}


def run(name: str, variables: dict[str, str], threads: str, cache: str) -> str | None:
    """Run the tests in one setting and print what they said; return its name if one failed."""
    count = {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "NUMBA")}
    environment = os.environ | variables | count | {"NUMBA_CACHE_DIR": cache, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHOICE, *TESTS]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(f"\n=== {name}, {threads} thread{'s' * (threads != '1')}\n{done.stdout.decode()}", flush=True)
    return f"{name} with {threads}" if done.returncode else None


def main() -> None:
    """Run the tests in all settings, two at once, to the end even if one fails."""
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(2) as pool:  # compiled once for each processor
        settings = [(*processor, threads, cache) for threads in ("1", "2") for processor in here().items()]
        failed = [name for name in pool.map(run, *zip(*settings, strict=True)) if name]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
