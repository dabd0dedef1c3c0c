"""Special builds of the native module, for tests: instrumented, or of changed sources."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(name: str, *, csrc: Path = ROOT / "csrc", isas: str = "generic", sanitize: str = "") -> Path:
    """The module built under ``build/NAME`` with light optimisation, incrementally; the file.

    Args:
        csrc: the sources.
        isas: instruction sets, separated by semicolons.
        sanitize: sanitizers, separated by semicolons.
    Raises:
        FileNotFoundError: no CMake or Ninja.
        RuntimeError: it does not compile; the compiler's words.
    """
    folder = ROOT / "build" / name
    configure = ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1"]
    configure += [f"-DPOSEKERNELS_CSRC={csrc}", f"-DPOSEKERNELS_ISAS={isas}", f"-DPOSEKERNELS_SANITIZE={sanitize}"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where pip puts them
    if shutil.which("cmake", path=search) is None or shutil.which("ninja", path=search) is None:
        raise FileNotFoundError("cmake and ninja are not installed")
    for command in (configure, ["cmake", "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": search})
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return folder / "_native_core.abi3.so"


def load(path: str | Path):
    """Let this process use the module at ``path``; call it before anything imports posekernels."""
    if "posekernels" in sys.modules:
        raise RuntimeError("posekernels is imported already, with the usual native module")
    loader = importlib.machinery.ExtensionFileLoader("posekernels._native_core", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    sys.modules[loader.name] = module
    return module


def printed_by(code: str, isa: str) -> str:
    """What Python ``code`` prints in a process of its own whose kernels are those of the instruction set ``isa``.

    Skips the running test where this CPU does not run it; fails it where the code does.
    """
    import pytest

    environment = {**os.environ, "POSEKERNELS_ISA": isa}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    if "one this CPU runs" in done.stderr:
        pytest.skip(f"this CPU does not run {isa}")
    assert done.returncode == 0, done.stderr
    return done.stdout
