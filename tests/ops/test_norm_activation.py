"""norm_activation: result, statistics and gradients against float64 under the same mask; what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from posekernels.ops import norm_activation
from posekernels.testing import assert_within_budget, guarded, require
from tests.cuda_emulation import compare, cuda_device, draw, exact, modules

device = cuda_device("norm_activation")
SIZES = [(5, 1), (7, 33), (300, 64), (1031, 130), (129, 1024)]


def inputs(rows, C):
    g = torch.Generator().manual_seed(rows)
    x = 3 + 2 * torch.randn(rows, C, generator=g)
    return guarded(x), 1 + 0.3 * torch.randn(C, generator=g), 0.5 * torch.randn(C, generator=g)


def run(tensors, backend, **options):
    leaves = [t.detach().requires_grad_() for t in tensors]
    y, mean, var = norm_activation(*leaves, negative_slope=0.2, backend=backend, **options)
    upstream = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view_as(y).to(y.dtype)
    return (y.detach(), mean, var, *torch.autograd.grad(y, leaves, upstream))


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_against_float64(backend, size, rate):
    device = require("norm_activation", backend)
    tensors = inputs(*size)
    want = run([t.double() for t in tensors], "reference", dropout=rate, seed=5)
    got = run([t.to(device) for t in tensors], backend, dropout=rate, seed=5)
    for found, wanted in zip(got, want, strict=True):
        assert_within_budget(found, wanted)


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_float16_on_triton(rate):
    """Mean and variance are returned in 16 bits; the gradient does not come from those."""
    device = require("norm_activation", "triton")
    tensors = [t.half() for t in inputs(71, 70)]
    want = run([t.double() for t in tensors], "reference", dropout=rate, seed=5)
    got = run([t.to(device) for t in tensors], "triton", dropout=rate, seed=5)
    for found, wanted in zip(got, want, strict=True):
        assert found.dtype == torch.float16
        assert_within_budget(found, wanted)


def check_cuda_kernels(device, dtype, tensors, rate):
    cuda, reference = modules("norm_activation")
    x, weight, bias = (t.to(device, dtype) for t in tensors)
    grad, options = draw(*x.shape, seed=4, dtype=dtype, device=device), (1e-5, 0.2, rate, 2**62 + 5)
    y, mean, var = cuda.norm_activation(x, weight, bias, *options)
    want = reference.norm_activation(*exact(x, weight, bias), *options)
    compare((y, mean, var), want, "result")
    assert torch.equal(y == 0, want[0] == 0), "the mask is the definition's"
    got = cuda.norm_activation_backward(grad, x, weight, bias, mean, var, *options)
    compare(got, reference.norm_activation_backward(*exact(grad, x, weight, bias, mean, var), *options), "gradient")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(5, 1), (7, 33), (131, 70)])
@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_cuda_kernels(device, dtype, size, rate):
    check_cuda_kernels(device, dtype, inputs(*size), rate)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_cuda_kernels_that_read_16_bytes_at_a_time(device, dtype, rate):
    """Which takes columns that fill packets of 16 bytes, more of them than one block has, at addresses that do too."""
    tensors = [t.clone() for t in inputs(131, 72)]
    assert all(t.data_ptr() % 16 == 0 for t in tensors)
    check_cuda_kernels(device, dtype, tensors, rate)


def test_definition_is_pytorchs_layers():
    x, weight, bias = (t.double() for t in inputs(50, 9))
    y, mean, var = norm_activation(x, weight, bias, negative_slope=0.2, backend="reference", seed=0)
    torch.testing.assert_close(y, F.leaky_relu(F.batch_norm(x, None, None, weight, bias, True), 0.2))
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(var, x.var(0, correction=0))


def test_dropout_keeps_its_share_and_follows_the_seed():
    tensors = inputs(2000, 100)
    torch.manual_seed(3)
    first = norm_activation(*tensors, negative_slope=0.2, dropout=0.25)[0]
    assert abs((first == 0).float().mean().item() - 0.25) < 0.01
    torch.manual_seed(3)
    assert torch.equal(norm_activation(*tensors, negative_slope=0.2, dropout=0.25)[0], first)
    assert not torch.equal(norm_activation(*tensors, negative_slope=0.2, dropout=0.25)[0], first)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_a_bit(threads):
    tensors = inputs(501, 200)
    before = torch.get_num_threads()
    want = run(tensors, "cpu", dropout=0.1, seed=1)
    try:
        torch.set_num_threads(threads)
        got = run(tensors, "cpu", dropout=0.1, seed=1)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(got, want))


def test_a_dead_channel_still_teaches_its_bias():
    """All inputs equal and no bias: z is exactly 0, where the leaky ReLU has a slope and dropout keeps its scale."""
    tensors = torch.full((8, 3), 2.0), torch.ones(3), torch.zeros(3)
    want = run([t.double() for t in tensors], "reference", dropout=0.5, seed=2)
    for got, wanted in zip(run(tensors, "cpu", dropout=0.5, seed=2), want):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-4)
    assert want[-1].abs().max() > 0


def test_refuses():
    x, weight, bias = inputs(4, 6)
    with pytest.raises(ValueError, match="at least 2 rows"):
        norm_activation(x[:1], weight, bias)
    with pytest.raises(ValueError, match=r"bias must be \[6\]"):
        norm_activation(x, weight, bias[:5])
    with pytest.raises(ValueError, match="dropout"):
        norm_activation(x, weight, bias, dropout=1.0)
