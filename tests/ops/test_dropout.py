"""dropout: the mask itself, and when PyTorch draws it; the rest is in ``test_contract``."""

import pytest
import torch

from posekernels._dropout import keep_mask, threshold
from posekernels.ops import dropout
from posekernels.testing import device_of, require
from tests.cuda_emulation import cuda_device, modules

device = cuda_device("dropout")


def test_the_mask_is_the_definitions():
    require("dropout", "cpu")
    x = torch.randn(5, 1700, 3)
    want = torch.where(keep_mask(tuple(x.shape), 0.3, 11, 0, "cpu"), x / 0.7, torch.zeros(()))
    torch.testing.assert_close(dropout(x, 0.3, seed=11, backend="cpu"), want)
    torch.testing.assert_close(dropout(x, 0.3, seed=11, backend="reference"), want)


def test_a_rate_next_to_one_drops_nearly_everything():
    """Its share of 2**32 rounds to 2**32, which 32 bits do not hold."""
    rate = 1 - 2.0**-34
    assert 0 < threshold(rate) < 2**32
    require("dropout", "cpu")
    for backend in ("cpu", "reference"):
        assert not dropout(torch.ones(1000), rate, seed=3, backend=backend).any()


@pytest.mark.parametrize("seed", [0, 16, 2**62 + 1, -3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_gpu_kernels_draw_the_same_mask(device, seed, dtype):
    x = torch.rand(5, 173, 3, device=device).add_(1).to(dtype)
    keep = keep_mask(tuple(x.shape), 0.3, seed, 1, device)
    cuda, _ = modules("dropout")
    assert torch.equal(cuda.dropout(x, 0.3, seed, 1) != 0, keep)
    if device == device_of("triton"):
        from posekernels.ops.dropout import triton

        assert torch.equal(triton.dropout(x, 0.3, seed, 1) != 0, keep)
        assert torch.equal(triton.dropout(x, 0.3, torch.tensor(seed, device=device), 1) != 0, keep)


def test_without_a_seed_the_share_is_right_and_the_gradient_has_the_same_mask():
    x = torch.rand(400, 1000).add_(1).requires_grad_()
    torch.manual_seed(0)
    y = dropout(x, 0.1)
    assert abs((y == 0).float().mean().item() - 0.1) < 3e-3
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, (y != 0) / 0.9)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.1), y) and not torch.equal(dropout(x, 0.1), y), "manual_seed fixes it"


def test_reference_and_captured_graphs_are_pytorchs():
    x = torch.ones(64, 64)
    torch.manual_seed(3)
    want = torch.nn.functional.dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5, backend="reference"), want)
    compiled = torch.compile(lambda x: dropout(x, 0.5), fullgraph=True, backend="aot_eager")(x)
    assert 0.4 < (compiled == 0).float().mean() < 0.6
    assert dropout(x, 0.0) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_refuses_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="rate must be at least 0 and below 1"):
        dropout(torch.ones(3), rate)
