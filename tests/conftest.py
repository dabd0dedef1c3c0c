"""Set up before any test module is imported.

Triton reads ``TRITON_INTERPRET`` when a kernel is defined. Where there is no GPU its kernels run in the interpreter
(float32 and float16; ``posekernels.testing.device_of`` knows); on a GPU machine they run as compiled. Ahead-of-time
compilation needs the variable unset and therefore a process of its own (tests/ops/test_aot.py).
"""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def float32_products():
    """Every test begins with exact products: PyTorch's two interfaces to that setting do not undo one another."""
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "ieee"
