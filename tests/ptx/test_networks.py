"""Whole networks of all five systems on compiled kernels: what they give, and one step of training, as in float64."""

import pytest

pytest.importorskip("triton")

from tests.ptx import networks, nvcc  # noqa: E402
from tests.ptx.workers import Answers  # noqa: E402

CASES = [(name, training) for name, net in networks.NETWORKS.items() for training in (False, True)[: 1 + net.trains]]


@pytest.fixture(scope="module")
def results(request, pool):
    """Of every case that will be asked for."""
    own = [item for item in request.session.items if item.module is request.module]
    return Answers(pool, networks.check, [item.callspec.params["case"] for item in own])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{', training' if case[1] else ''}")
def test_network(results, case):
    if networks.NETWORKS[case[0]].backend == "cuda" and nvcc.compiler() is None:
        pytest.skip("no nvcc here (pip install nvidia-cuda-nvcc nvidia-cuda-cccl)")
    assert "launches" in results[case]
