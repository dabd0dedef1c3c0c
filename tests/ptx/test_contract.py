"""The contract of every op, on its compiled Triton kernels."""

import pytest

pytest.importorskip("triton")

from tests.ptx import build, contract  # noqa: E402
from tests.ptx.workers import workers  # noqa: E402


@pytest.fixture(scope="module")
def results(request):
    """Of every case that will be asked for: in a process of their own, side by side."""
    if build.compiler() is None:
        pytest.skip("no C++ compiler for the executor of PTX")
    build.library()  # once, before the workers want it
    chosen = [item.callspec.params["case"] for item in request.session.items if item.module is request.module]
    with workers() as pool:
        yield {case: pool.submit(contract.check, *case) for case in chosen}


@pytest.mark.parametrize("case", contract.cases(), ids=" ".join)
def test_compiled_kernels_keep_the_contract(results, case):
    results[case].result()
