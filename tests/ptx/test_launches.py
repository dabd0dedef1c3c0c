"""Launches of large problems keep to a grid's limits: y and z end at 65,535."""

import math

import pytest

pytest.importorskip("triton")

from tests.ptx import contract  # noqa: E402


@pytest.mark.parametrize("name", contract.LARGE)
def test_large_problems_fit_the_grid(pool, name):
    grids = pool.submit(contract.grids, name).result()
    assert max(math.prod(grid) for grid in grids) > 65535


def test_no_kernel_is_compiled_for_the_value_of_a_seed(pool):
    assert pool.submit(contract.compiled_for_seeds).result() == [1, 1, 1, 1]
