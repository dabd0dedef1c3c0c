"""Every broken GPU kernel of ``mutants.py`` is rejected, and for the reason it should be."""

import re

import pytest

pytest.importorskip("triton")

from tests.ptx import mutants, nvcc  # noqa: E402


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_broken_kernel_is_rejected(pool, name):
    if mutants.MUTANTS[name].backend == "cuda" and nvcc.compiler() is None:
        pytest.skip("no nvcc here (pip install nvidia-cuda-nvcc nvidia-cuda-cccl)")
    why = pool.submit(mutants.rejected, name).result()
    assert why is not None, "nothing rejects it"
    assert re.search(mutants.MUTANTS[name].message, why), why
