"""How float32 products on a GPU are made: as PyTorch's setting has it, set by its older interface or its newer one."""

import contextlib

import pytest
import torch

from posekernels import _cuda
from posekernels._adapters import allows_tf32


@contextlib.contextmanager
def kept():
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    try:
        yield products
    finally:
        products.fp32_precision = before


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("tf32", [False, True])
def test_both_interfaces_count(newer, tf32):
    _triton = pytest.importorskip("posekernels._triton")
    with kept() as products:
        if newer:
            products.fp32_precision = "tf32" if tf32 else "ieee"
        else:
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        assert allows_tf32() == tf32
        assert _cuda.math_of(torch.ones(1)) == int(tf32)
        assert _triton.dot_precision(torch.float32) == ("tf32" if tf32 else "tf32x3")
