"""Processes in which Triton compiles: in the tests' own process its kernels are defined for the interpreter."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor


def _start() -> None:
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # what users have; it also silences a warning


def workers() -> ProcessPoolExecutor:
    """As many as there are cores, up to 4."""
    count = min(4, os.cpu_count() or 1)
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_start)
