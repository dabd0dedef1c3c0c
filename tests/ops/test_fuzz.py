"""Every op on sizes, options, strides and dtypes that hypothesis draws.

15 examples for every op and backend, always the same ones; ``POSEKERNELS_FUZZ_SECONDS=60`` takes a minute for each.
"""

import itertools
import os
import re
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from posekernels.testing import require
from tests import fuzz
from tests.ops.table import LAYOUTS, OPS, Choices, check
from tests.ops.test_contract import KERNELS

SECONDS = float(os.environ.get("POSEKERNELS_FUZZ_SECONDS", "0"))
ROUNDS = 3  # of five examples each, at least


class Drawn(Choices):
    """Hypothesis chooses."""

    def __init__(self, data):
        super().__init__(seed=data.draw(st.integers(0, 99), "seed"))
        self._draw = data.draw

    def batch(self, usual, most=9):
        return self._draw(st.integers(0, most), "batch")

    def size(self, usual, most, least=1):
        return self._draw(st.integers(least, most), "size")

    def of(self, *choices):
        return choices[self._draw(st.integers(0, len(choices) - 1), "choice")]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from Triton's interpreter
@pytest.mark.parametrize("name, backend", KERNELS)
def test_any_problem(name, backend):
    require(name, backend)
    end = time.monotonic() + SECONDS

    def one(data):
        problem = OPS[name].make(Drawn(data))
        dtype = data.draw(st.sampled_from(OPS[name].dtypes(backend)), "dtype")
        layout = data.draw(st.sampled_from(list(LAYOUTS)), "layout")
        # Half a number's digits move a relu across 0, and its gradient with it: training is for float32.
        check(OPS[name], problem, backend, dtype, layout, gradients=dtype.itemsize == 4)

    settings = hypothesis.settings(
        max_examples=5,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],  # a smaller example would take Triton's interpreter many minutes to find
    )
    for round in itertools.count():  # hypothesis knows no time limit
        hypothesis.seed(round)(settings(hypothesis.given(st.data())(one)))()
        if round + 1 >= ROUNDS and time.monotonic() >= end:
            break


def test_calls_with_faults_and_odd_values():
    """A short run of ``python -m tests.fuzz``, in which calls are also faulty."""
    told = []
    assert fuzz.run_calls(200, seed=0, show=told.append) == 0, "\n".join(told)
    assert re.fullmatch(r"200 calls from seed 0: \d+ refused, \d+ right; \d+ s", told[-1])


def test_a_crash_and_a_wrong_value_fail_their_call_alone(monkeypatch):
    """The fuzzer goes on after the process has ended, and says how to repeat a call."""
    until_crash = ["> 7000002", "= right", "> 7000003", "# crashed, status -11"]
    runs = iter([until_crash, ["> 7000004", "! AssertionError: wrong", "> 7000005", "= right"]])
    monkeypatch.setattr(fuzz, "_lines", lambda first, last: next(runs))
    told = []
    assert fuzz.run_calls(4, seed=7, first=2, show=told.append) == 2
    assert told[0].startswith("crashed, status -11\n") and told[0].endswith("--calls 1 --seed 7 --first 3")
    assert told[1] == "AssertionError: wrong\n  python -m tests.fuzz --calls 1 --seed 7 --first 4"
    assert told[2].startswith("4 calls from seed 7: 1 ended, 1 failed, 2 right")
