"""Every op on sizes, options, strides and dtypes that hypothesis draws.

15 examples for every op and backend, always the same ones; ``POSEKERNELS_FUZZ_SECONDS=60`` takes a minute for each.
"""

import itertools
import os
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from posekernels.testing import require
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
        max_examples=5, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    for round in itertools.count():  # hypothesis knows no time limit
        hypothesis.seed(round)(settings(hypothesis.given(st.data())(one)))()
        if round + 1 >= ROUNDS and time.monotonic() >= end:
            break
