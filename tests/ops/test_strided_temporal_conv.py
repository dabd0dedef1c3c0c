"""strided_temporal_conv: every backend against float64, its epilogue, its gradients, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

from posekernels import BackendError, use_backend
from posekernels.ops import strided_temporal_conv
from posekernels.testing import assert_within_budget, guarded, require

BACKENDS = ["reference", "cpu"]
# B, frames out, width, channels in per group, channels out per group
SIZES = [
    (1, 1, 1, (34,), (1024,)),
    (3, 9, 3, (30, 18, 18), (96, 96, 96)),
    (2, 5, 5, (7, 1), (13, 33)),
    (0, 3, 3, (6,), (4,)),
    (257, 1, 1, (64, 64), (15, 9)),
]


def inputs(B, frames, width, cin, cout, stride=1, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)

    def make(*shape):
        return guarded(torch.randn(*shape, generator=g).to(dtype))

    groups = list(zip(cin, cout))
    return {
        "x": [make(B, frames * width, c) for c, _ in groups],
        "weight": [make(n, c, width) for c, n in groups],
        "bias": [make(n) for _, n in groups],
        "scale": [make(n) for _, n in groups],
        "shift": [make(n) for _, n in groups],
        "residual": [make(B, frames * stride, n) for _, n in groups],
    }


def exact(values, **options):
    """float64, group by group, written as a convolution."""
    stride, tap = options.get("residual_stride", 1), options.get("residual_tap", 0)
    results = []
    for x, w, b, scale, shift, residual in zip(*(map(torch.Tensor.double, v) for v in values.values())):
        y = (
            F.conv1d(x.mT, w, b, stride=w.shape[2]).mT
            if x.shape[0]
            else x.new_zeros(0, residual.shape[1] // stride, len(b))
        )
        y = F.leaky_relu(y * scale + shift, options.get("negative_slope", 1.0))
        results.append(y + residual[:, tap::stride])
    return results


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_against_float64(backend, size, dtype):
    require("strided_temporal_conv", backend)
    options = {"negative_slope": 0.2, "residual_stride": 3, "residual_tap": 1}
    values = inputs(*size, stride=3, dtype=dtype)
    got = strided_temporal_conv(**values, **options, backend=backend)
    for g, want in zip(got, exact(values, **options)):
        assert g.dtype == dtype
        assert_within_budget(g, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_epilogue_and_plain_weights(backend):
    require("strided_temporal_conv", backend)
    values = inputs(4, 1, 1, (20,), (31,))
    got = strided_temporal_conv(values["x"], [w[:, :, 0] for w in values["weight"]], backend=backend)[0]
    assert_within_budget(got, values["x"][0].double() @ values["weight"][0][:, :, 0].double().T)


def test_weights_are_packed_again_when_they_change():
    require("strided_temporal_conv", "cpu")
    values = inputs(2, 2, 3, (8,), (12,))
    weight = torch.nn.Parameter(values["weight"][0].contiguous())
    with torch.no_grad(), use_backend("cpu"):
        before = strided_temporal_conv(values["x"], [weight])[0]
        weight.mul_(2)
        torch.testing.assert_close(strided_temporal_conv(values["x"], [weight])[0], 2 * before)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_gradients(backend):
    values = inputs(3, 4, 3, (5, 6), (7, 8))
    names = list(values)
    leaves = [t.detach().clone().requires_grad_() for v in values.values() for t in v]
    groups = len(values["x"])
    named = {n: leaves[i * groups : (i + 1) * groups] for i, n in enumerate(names)}
    y = strided_temporal_conv(**named, negative_slope=0.2, backend=backend)
    grads = torch.autograd.grad(sum(t.square().sum() for t in y), leaves)
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    named = {n: doubles[i * groups : (i + 1) * groups] for i, n in enumerate(names)}
    y = exact(named, negative_slope=0.2)
    for got, want in zip(grads, torch.autograd.grad(sum(t.square().sum() for t in y), doubles)):
        assert_within_budget(got, want)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weight": [torch.randn(4, 5, 3)]}, r"weight\[0\] must be \[4, 6, 3\]"),
        ({"x": [torch.randn(2, 7, 6)]}, "multiple of the weight's width 3, got T=7"),
        ({"bias": [torch.randn(5)]}, r"bias\[0\] must be \[4\]"),
        ({"bias": [torch.randn(4)] * 2}, "bias must hold 1 groups or none, got 2"),
        ({"residual_tap": 1}, "residual_tap must lie in"),
        ({"weight": []}, "same number of groups"),
    ],
)
def test_refuses(change, message):
    good = {"x": [torch.randn(2, 6, 6)], "weight": [torch.randn(4, 6, 3)]}
    with pytest.raises(ValueError, match=message):
        strided_temporal_conv(**good | change)


def test_a_named_backend_is_not_swapped():
    require("strided_temporal_conv", "cpu")
    x, w = torch.randn(1, 3, 2, dtype=torch.float64), torch.randn(4, 2, 3, dtype=torch.float64)
    with pytest.raises(BackendError, match="float32"):
        strided_temporal_conv([x], [w], backend="cpu")
