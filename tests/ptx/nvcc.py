"""The CUDA C++ kernels of ``csrc`` as nvcc compiles them, and how a call from Python reaches them.

The host side of a kernel (sizes, grids, which template) is the same source compiled as plain C++
(``tests/cuda_emulation.py``); its launches are taken over and given the kernel of the same name that nvcc made.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests import cuda_emulation
from tests.native import ROOT

from . import program

_FLAGS = ["-ptx", "-std=c++17", "-O3", "--expt-relaxed-constexpr", "-DPOSEKERNELS_ISA=cuda", "-lineinfo"]


def compiler() -> tuple[str, list[str]] | None:
    """nvcc, and where its headers are when it came from PyPI (nvidia-cuda-nvcc); None: there is none here."""
    own = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if own:
        return own, []
    package = importlib.util.find_spec("nvidia")
    for folder in package.submodule_search_locations if package else ():
        for home in sorted(Path(folder).glob("cu*")):
            if (home / "bin" / "nvcc").is_file():
                return str(home / "bin" / "nvcc"), [f"-I{home / 'include'}"]
    return None


@functools.cache
def text(op: str, target: int) -> str:
    """PTX of ``csrc/<op>/<op>_cuda.cu``, compiled once per state of the sources (under ``build/``).

    Raises:
        FileNotFoundError: no nvcc here.
        RuntimeError: it does not compile; the compiler's words.
    """
    source = ROOT / "csrc" / op / f"{op}_cuda.cu"
    headers = ROOT / "csrc" / "include"
    digest = hashlib.sha256(" ".join([*_FLAGS, str(target)]).encode())
    for path in (source, *sorted(headers.rglob("*.h"))):
        digest.update(path.read_bytes())
    built = ROOT / "build" / f"ptx-{op}-{digest.hexdigest()[:16]}.ptx"
    if not built.exists():
        found = compiler()
        if found is None:
            raise FileNotFoundError("no nvcc here (from PyPI: nvidia-cuda-nvcc)")
        nvcc, more = found
        built.parent.mkdir(exist_ok=True)
        fresh = built.with_suffix(f".{os.getpid()}.ptx")
        command = [nvcc, *_FLAGS, f"-arch=sm_{target}", f"-I{headers}", *more, str(source), "-o", str(fresh)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{source.name}: {done.stderr[-3000:]}")
        os.replace(fresh, built)
    return built.read_text()


def _plain(symbol: str) -> str:
    """A mangled name as C++ writes it, whichever compiler's number types are in it."""
    demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    demangle.restype, demangle.argtypes = ctypes.c_char_p, [ctypes.c_char_p] + [ctypes.c_void_p] * 3
    known = symbol.replace("DF16_", "g")  # older libraries know no _Float16: let it be a __float128
    name = (demangle(known.encode(), None, None, None) or symbol.encode()).decode()
    return name.replace("__float128", "__half").replace("posekernels::bf16_t", "__nv_bfloat16")


@functools.cache
def _kernels(source: str) -> dict[str, program.Kernel]:
    return {_plain(symbol): kernel for symbol, kernel in program.module(source).kernels.items()}


@functools.cache
def _source_of(function: str) -> str:
    """The op whose sources register a function for Python."""
    for path in (ROOT / "csrc").glob("*/*_cuda.cu"):
        if f"POSEKERNELS_KERNEL({function})" in path.read_text():
            return path.parent.name
    raise LookupError(f"no csrc/*/*_cuda.cu has {function}")


class _Place(ctypes.Structure):  # Dl_info
    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("at", ctypes.c_void_p),
    ]


@functools.cache
def _symbol(address: int) -> str:
    found = _Place()
    if not ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(found)) or not found.name:
        raise RuntimeError(f"no function at {address:#x}")
    return found.name.decode()


_RUNNER = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_int64),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_int64),
    ctypes.c_int,
)
Run = Callable[[program.Kernel, tuple[int, int, int], int, bytes, int], None]


class Module(cuda_emulation.EmulatedModule):
    """Stands in for ``posekernels._native_cuda``.

    Args:
        run: is given the kernel, grid, threads, parameters and bytes of dynamic shared memory of each launch.
        target: what nvcc compiles for, 80 for sm_80.
        change: PTX -> PTX, before it runs.
    """

    def __init__(self, run: Run, target: int, change: Callable[[str], str] | None):
        self._run, self._target, self._change = run, target, change

    def __getattr__(self, name: str):
        call = super().__getattr__(name)
        errors: list[BaseException] = []

        def take(address, shape, values, sizes, count) -> int:
            try:
                self._launch(name, address, shape, values[:count], sizes[:count])
            except BaseException as error:  # it must not cross the C++ between here and there
                errors.append(error)
                return 1
            return 0

        def checked(*args):
            library, runner = cuda_emulation.library(), _RUNNER(take)
            library.emulation_runner(runner)
            try:
                return call(*args)
            except RuntimeError:
                if errors:
                    raise errors[0] from None
                raise
            finally:
                library.emulation_runner(ctypes.cast(None, _RUNNER))

        return checked

    def _launch(self, function: str, address: int, shape, values, sizes) -> None:
        source = text(_source_of(function), self._target)
        kernel = _kernels(source if self._change is None else self._change(source))[_plain(_symbol(address))]
        block = bytearray(kernel.parameter_bytes)
        for (at, size), value, given in zip(kernel.parameters.values(), values, sizes, strict=True):
            if size != given:
                raise RuntimeError(f"{kernel.name}: a parameter of {size} bytes is given {given}")
            block[at : at + size] = ctypes.string_at(value, size)
        self._run(kernel, tuple(shape[:3]), shape[3], bytes(block), shape[4])
