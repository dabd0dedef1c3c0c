"""The strided transformer's ops in CUDA C++: emulated on the CPU thread by thread, and as they are where a GPU is."""

import pytest
import torch

from posekernels.testing import assert_within_budget, guarded
from tests.cuda_emulation import compare, cuda_device, draw, exact, modules

DTYPES = [torch.float32, torch.bfloat16]
device = cuda_device("temporal_attention")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(2, 5, 70, 2, 17), (1, 66, 13, 1, 32), (1, 9, 9, 1, 96)])
@pytest.mark.parametrize("causal, padded, rate", [(False, False, 0.0), (True, True, 0.0), (False, True, 0.3)])
def test_temporal_attention(device, dtype, size, causal, padded, rate):
    cuda, reference = modules("temporal_attention")
    B, T, S, H, D = size
    q, k, v, grad = (draw(B, n, H, D, seed=i, dtype=dtype, device=device) for i, n in enumerate((T, S, S, T)))
    padding = (draw(B, S, seed=9, device=device) > 0.6) if padded else None
    options = (padding, D**-0.5, causal, rate, 2**35 + 1)
    out, peaks = cuda.temporal_attention(*map(guarded, (q, k, v)), *options)
    want, want_peaks = reference.temporal_attention(*exact(q, k, v), *options)
    assert_within_budget(out, want)
    assert_within_budget(peaks, want_peaks, bound=1e-5 if dtype == torch.float32 else 1e-2)
    got = cuda.temporal_attention_backward(grad, out, peaks, q, k, v, *options)
    compare(got, reference.temporal_attention_backward(*exact(grad, want, want_peaks, q, k, v), *options), "gradient")


@pytest.mark.parametrize("scale", [30.0, -30.0])
def test_temporal_attention_of_large_scores(device, scale):
    """A key or two have all the weight of a query: their weights still add up to 1 in the backward pass."""
    cuda, reference = modules("temporal_attention")
    q, k, v, grad = (draw(1, 70, 2, 17, seed=i, device=device) for i in range(4))
    options = (None, scale, False, 0.0, 0)
    saved = cuda.temporal_attention(10 * q, 10 * k, v, *options)
    want = reference.temporal_attention(*exact(10 * q, 10 * k, v), *options)
    assert_within_budget(saved[0], want[0])
    got = cuda.temporal_attention_backward(grad, *saved, 10 * q, 10 * k, v, *options)
    want = reference.temporal_attention_backward(*exact(grad, *want, 10 * q, 10 * k, v), *options)
    assert_within_budget(got[2], want[2], what="gradient of v")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(2, 11, 7, 13, 9, 3, 3), (1, 12, 40, 70, 65, 3, 1), (2, 9, 5, 8, 6, 3, 7)])
@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.2, 0.4)])
def test_strided_feed_forward(device, dtype, size, rates):
    cuda, reference = modules("strided_feed_forward")
    B, T, C, N, O, taps, stride = size
    shapes = ((B, T, C), (N, C), (N,), (O, N, taps), (O,), (B, T, O))
    x, w1, b1, w2, b2, residual = (draw(*s, seed=i, dtype=dtype, device=device) for i, s in enumerate(shapes))
    w1, w2 = w1 / C**0.5, w2 / (N * taps) ** 0.5
    options = (stride, *rates, 5)
    y, hidden = cuda.strided_feed_forward(*map(guarded, (x, w1, b1, w2, b2, residual)), *options, True)
    want, want_hidden = reference.strided_feed_forward(*exact(x, w1, b1, w2, b2, residual), *options, True)
    assert_within_budget(y, want)
    grad = draw(*y.shape, seed=8, dtype=dtype, device=device)
    needs = [True] * 5
    got = cuda.strided_feed_forward_backward(grad, hidden, x, w1, w2, *options, needs)
    wanted = reference.strided_feed_forward_backward(*exact(grad, hidden, x, w1, w2), *options, needs)
    compare(got, wanted, "gradient")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, channels", [(5, 2), (3, 130), (300, 9)])
@pytest.mark.parametrize("rate", [None, 0.0, 0.3])
def test_annotated_norm(device, dtype, rows, channels, rate):
    cuda, reference = modules("annotated_norm")
    x, residual, grad, grad_total = (draw(rows, channels, seed=i, dtype=dtype, device=device) for i in range(4))
    gain, shift = (1 + 0.3 * draw(channels, seed=i, dtype=dtype, device=device) for i in (5, 6))
    residual = None if rate is None else residual
    options = (1e-6, rate or 0.0, 77)
    y, total = cuda.annotated_norm(x, residual, gain, shift, *options)
    want, want_total = reference.annotated_norm(*exact(x, residual, gain, shift), *options)
    assert_within_budget(y, want, bound=2e-2 if dtype == torch.bfloat16 else None)  # the sum is rounded before the norm
    if channels == 2:
        return  # the gradient cancels to rounding
    total = x if rate is None else total
    given = (grad, None if rate is None else grad_total, total, gain)
    needs = [True, rate is not None, True, True]
    got = cuda.annotated_norm_backward(*given, *options, needs)
    compare(got, reference.annotated_norm_backward(*exact(*given), *options, needs), "gradient")
