"""The executor's library, compiled on first use by the machine's own compiler."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("executor.cpp")
_FLAGS = ["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared"]
_BUILT = Path(__file__).resolve().parents[2] / "build"


def compiler() -> str | None:
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


@functools.cache
def library() -> ctypes.CDLL:
    """``executor.cpp``, built under ``build/`` once per state of the source and kind of CPU.

    Raises:
        FileNotFoundError: no C++ compiler.
        RuntimeError: it does not compile; the compiler's words.
    """
    cpu = platform.processor() + platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu += next((line for line in info.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    digest = hashlib.sha256(_SOURCE.read_bytes() + " ".join([*_FLAGS, cpu]).encode()).hexdigest()[:16]
    built = _BUILT / f"ptx-{digest}.so"
    if not built.exists():
        if compiler() is None:
            raise FileNotFoundError("the executor of PTX needs a C++ compiler (g++ or clang++)")
        built.parent.mkdir(exist_ok=True)
        fresh = built.with_suffix(f".{os.getpid()}.so")
        done = subprocess.run([compiler(), *_FLAGS, str(_SOURCE), "-o", str(fresh)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{_SOURCE.name}: {done.stderr[-3000:]}")
        os.replace(fresh, built)
    found = ctypes.CDLL(str(built))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    found.ptx_error.restype = ctypes.c_char_p
    found.ptx_program.restype = pointer
    found.ptx_program.argtypes = [number] + [ctypes.c_char_p] * 3 + [pointer] * 4 + [number, pointer, number, number]
    found.ptx_program.argtypes += [ctypes.c_int] * 2
    found.ptx_release.argtypes = [pointer]
    found.ptx_run.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_char_p, number, number, number, number]
    found.ptx_run.argtypes += [pointer, pointer, pointer, ctypes.c_int, ctypes.c_int, number]
    return found
