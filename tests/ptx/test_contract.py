"""The contract of every op, on its compiled Triton kernels."""

import pytest

pytest.importorskip("triton")

from tests.ptx import contract  # noqa: E402


@pytest.fixture(scope="module")
def results(request, pool):
    """Of every case that will be asked for, side by side."""
    chosen = [item.callspec.params["case"] for item in request.session.items if item.module is request.module]
    return {case: pool.submit(contract.check, *case) for case in chosen}


@pytest.mark.parametrize("case", contract.cases(), ids=" ".join)
def test_compiled_kernels_keep_the_contract(results, case):
    results[case].result()
