"""Processes in which Triton compiles: in the tests' own process its kernels are defined for the interpreter."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor

# pytest-xdist runs tests side by side itself, and each of its processes collects them all.
SIDE_BY_SIDE = "PYTEST_XDIST_WORKER" in os.environ


def _start() -> None:
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # what users have; it also silences a warning


def workers() -> ProcessPoolExecutor:
    """As many as there are cores, up to 4; one where tests run side by side."""
    count = 1 if SIDE_BY_SIDE else min(4, os.cpu_count() or 1)
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_start)


class Answers:
    """What a function makes of cases, each run once: all ahead, or, where tests run side by side, as asked for."""

    def __init__(self, pool: Executor, function: Callable, cases: Iterable[tuple], ahead: bool = not SIDE_BY_SIDE):
        self._submit = lambda case: pool.submit(function, *case)
        self._begun = {case: self._submit(case) for case in cases} if ahead else {}

    def __getitem__(self, case: tuple):
        if case not in self._begun:
            self._begun[case] = self._submit(case)
        return self._begun[case].result()
