"""CUDA kernels on the CPU, for tests: compiled as plain C++, every thread of a block a fiber (csrc/emulation)."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from posekernels import _native
from posekernels.testing import assert_within_budget, require

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def library() -> ctypes.CDLL:
    """Every ``csrc/*/*_cuda.cu`` in one shared library, built under ``build/`` once per state of the sources.

    Skips the running test where there is no C++ compiler.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    sources = sorted((ROOT / "csrc").glob("*/*_cuda.cu"))
    headers = sorted((ROOT / "csrc" / "include").rglob("*.h"))
    digest = hashlib.sha256()
    for path in (ROOT / "csrc" / "emulation" / "emulation.cpp", *sources, *headers):
        digest.update(path.read_bytes())
    built = ROOT / "build" / f"emulation-{digest.hexdigest()[:16]}.so"
    if not built.exists():
        built.parent.mkdir(exist_ok=True)
        fresh = built.with_suffix(f".{os.getpid()}.so")
        flags = [
            "-std=c++17",
            "-O2",
            "-fPIC",
            "-shared",
            "-Wno-psabi",
            "-DPOSEKERNELS_EMULATE",
            "-DPOSEKERNELS_ISA=cuda",
        ]
        command = [compiler, *flags, f"-I{ROOT / 'csrc' / 'include'}", "-x", "c++"]
        command += [str(ROOT / "csrc" / "emulation" / "emulation.cpp"), *map(str, sources), "-o", str(fresh)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        os.replace(fresh, built)
    found = ctypes.CDLL(str(built))
    found.emulation_kinds.restype = found.emulation_error.restype = ctypes.c_char_p
    return found


class EmulatedModule:
    """Stands in for ``posekernels._native_cuda``: the same calls, on the addresses of CPU tensors."""

    def __getattr__(self, name: str):
        kinds = library().emulation_kinds(name.encode())
        if kinds is None:
            raise AttributeError(name)

        def call(_threads: int, *args) -> None:
            assert len(args) == len(kinds), f"{name} takes {len(kinds)} arguments, got {len(args)}"
            slots = (ctypes.c_int64 * len(args))()
            for i, (kind, value) in enumerate(zip(kinds.decode(), args)):
                if kind == "f":
                    slots[i] = ctypes.c_int64.from_buffer(ctypes.c_double(value)).value
                else:
                    slots[i] = value or 0
            if library().emulation_call(name.encode(), slots):
                raise RuntimeError(library().emulation_error().decode())

        return call


def cuda_device(op: str):
    """A fixture, where the CUDA kernels of ``op`` run: emulated, on "cpu", and as they are on a GPU."""

    @pytest.fixture(params=["emulated", "gpu"])
    def device(request, monkeypatch):
        if request.param == "gpu":
            return require(op, "cuda")
        monkeypatch.setattr(_native, "cuda", EmulatedModule)
        return "cpu"

    return device


def modules(op: str):
    """The adapter to the CUDA kernels of ``op``, and its reference."""
    return (importlib.import_module(f"posekernels.ops.{op}.{name}") for name in ("cuda", "reference"))


def draw(*shape, seed=0, dtype=torch.float32, device="cpu"):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def exact(*values):
    """The same in float64."""
    return [t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t for t in values]


def compare(got, want, what):
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert_within_budget(g, w, what=f"{what} {i}")
