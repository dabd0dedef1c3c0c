"""Loads the compiled modules ``posekernels._native_core`` and ``_native_cuda``, or knows why it cannot.

The modules take pointers and sizes, and know no PyTorch. Where PyTorch has brought its OpenMP pool, the kernels run on
that same pool (two pools in turn stand in each other's way); ``parallel.h`` says when not.

An adapter calls ``core.KERNEL(torch.get_num_threads(), *addresses(tensor, ...), size, ...)``: see ``csrc/README.md``.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import json
import sys
from pathlib import Path

import torch

REBUILD = "run `pip install -e .`"
_RECORD = Path(__file__).with_name("_build.json")  # what setup.py did: written at every build


@functools.cache
def build_record() -> dict:
    """What the last build did: ``{"cpu": reason or None, "cuda": reason or None, ...}``; {} before any build."""
    try:
        return json.loads(_RECORD.read_text())
    except FileNotFoundError:
        return {}


def build_age() -> str:
    """When the last build was and what it left out; and whether the sources, where they are at hand, changed since."""
    record = build_record()
    if not record:
        return "never: run `pip install -e .`"
    parts = [f"{part}: {record[part] or 'built'}" for part in ("cpu", "cuda") if part in record]
    csrc = Path(__file__).parents[1] / "csrc"
    newest = max((p.stat().st_mtime for p in csrc.rglob("*.*")), default=0.0) if csrc.is_dir() else 0.0
    changed = newest > datetime.datetime.fromisoformat(record["when"]).timestamp()
    stale = f"; csrc changed since: {REBUILD}" if changed else ""
    return f"{record['when']}, {'; '.join(parts)}{stale}"


def _load(part: str, module: str):
    """(the module or None, why it is missing or None)."""
    try:
        return importlib.import_module(f"posekernels.{module}"), None
    except ModuleNotFoundError as error:
        if error.name != f"posekernels.{module}":
            raise
        return None, build_record().get(part) or f"the native module was not built: {REBUILD}"
    except ImportError as error:  # built, but broken: a different thing from not built
        return None, f"the native module is there but does not load ({error}): {REBUILD}"


core, _no_core = _load("cpu", "_native_core")


@functools.cache
def _cuda():
    return _load("cuda", "_native_cuda")


def cuda():
    """The module of CUDA kernels, loaded when first asked for, or None."""
    return _cuda()[0]


def _adopt_openmp() -> None:
    """Let the native kernels run on the OpenMP pool that PyTorch uses."""
    if core is None or not sys.platform.startswith("linux"):
        return
    maps = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split()[-1] for line in maps if "gomp" in line.rpartition("/")[2]}
    torch_home = str(Path(torch.__file__).parent)
    any(core.adopt_openmp(path) for path in sorted(paths, key=lambda p: not p.startswith(torch_home)))


_adopt_openmp()


def no_cpu(*kernels: str) -> str | None:
    """Why these C++ kernels are not on this machine, or None."""
    if core is None:
        return _no_core
    for kernel in kernels:
        if not hasattr(core, kernel):
            return f"the native module is older than its kernel {kernel}: {REBUILD}"
    return None


def no_cuda(*kernels: str) -> str | None:
    """Why these CUDA C++ kernels are not on this machine, or None."""
    module, reason = _cuda()
    if module is None:
        return reason
    for kernel in kernels:
        if not hasattr(module, kernel):
            return f"the native CUDA module is older than its kernel {kernel}: {REBUILD}"
    return None if torch.cuda.is_available() else "compiled, not run: there is no CUDA device"
