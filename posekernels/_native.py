"""Loads the compiled module ``posekernels._native_core``, or knows why it cannot.

The module takes pointers and sizes, and knows no PyTorch. Where PyTorch has brought its OpenMP pool, the native
kernels are run on that same pool (two pools spinning against each other cost more than they bring).
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch

_RECORD = Path(__file__).with_name("_build.json")  # what setup.py did: written at every build


def build_record() -> dict:
    """What the last build did: ``{"cpu": reason or None, "cuda": reason or None, ...}``; {} before any build."""
    try:
        return json.loads(_RECORD.read_text())
    except FileNotFoundError:
        return {}


def _load():
    try:
        return importlib.import_module("posekernels._native_core"), None
    except ModuleNotFoundError as error:
        if error.name != "posekernels._native_core":
            raise
        reason = build_record().get("cpu") or "the native module was not built: run `pip install -e .`"
        return None, reason
    except ImportError as error:  # built, but broken: a different thing from not built
        return None, f"the native module is there but does not load ({error}): rebuild with `pip install -e .`"


core, why_missing = _load()


def _share_thread_pool() -> str:
    """Make the native kernels run on the OpenMP pool PyTorch uses. Returns the pool's name, for ``info``."""
    if core is None or not sys.platform.startswith("linux"):
        return "own threads"
    maps = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split()[-1] for line in maps if "gomp" in line.rpartition("/")[2]}
    torch_home = str(Path(torch.__file__).parent)
    for path in sorted(paths, key=lambda p: not p.startswith(torch_home)):
        if core.adopt_openmp(path):
            return f"PyTorch's OpenMP ({Path(path).name})"
    return "own threads"


thread_pool = _share_thread_pool()


def no_cpu() -> str | None:
    """Why the C++ kernels are not on this machine, or None."""
    return why_missing


def no_cuda() -> str | None:
    """Why the CUDA C++ kernels are not on this machine, or None."""
    if core is None:
        return why_missing
    if not core.has_cuda:
        return build_record().get("cuda") or "built without CUDA"
    return None if torch.cuda.is_available() else "compiled, but there is no CUDA device"
