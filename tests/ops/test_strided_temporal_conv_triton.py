"""``strided_temporal_conv`` on Triton: in its interpreter where there is no GPU, compiled where there is one."""

import pytest
import torch

from posekernels.ops import strided_temporal_conv
from posekernels.testing import assert_within_budget, guarded, require

# B, frames out, width, channels in per group, channels out per group
SIZES = [
    (1, 1, 1, (34,), (130,)),
    (3, 7, 3, (30, 18, 18), (96, 33, 17)),
    (2, 5, 5, (7, 1), (13, 33)),
    (0, 3, 3, (6,), (4,)),
    (131, 1, 1, (64,), (15,)),
]


def inputs(B, frames, width, cin, cout, dtype, stride=3):
    g = torch.Generator().manual_seed(0)

    def make(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=g)).to(dtype)

    groups = list(zip(cin, cout))
    return {
        "x": [make(B, frames * width, c) for c, _ in groups],
        "weight": [make(n, c, width, scale=(c * width) ** -0.5) for c, n in groups],
        "bias": [make(n) for _, n in groups],
        "scale": [make(n) for _, n in groups],
        "shift": [make(n) for _, n in groups],
        "residual": [make(B, frames * stride, n) for _, n in groups],
    }


def dtypes():
    return [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])


OPTIONS = {"residual_stride": 3, "residual_tap": 1}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", dtypes())
def test_result(size, dtype):
    device = require("strided_temporal_conv", "triton")
    values = inputs(*size, dtype)
    exact = {n: [t.double() for t in v] for n, v in values.items()}
    mine = {n: [guarded(t.to(device), strided=n == "x") for t in v] for n, v in values.items()}
    for names, slope in ((("x", "weight"), 1.0), (tuple(values), 0.2)):
        options = OPTIONS if "residual" in names else {}
        want = strided_temporal_conv(
            **{n: exact[n] for n in names}, negative_slope=slope, backend="reference", **options
        )
        got = strided_temporal_conv(**{n: mine[n] for n in names}, negative_slope=slope, backend="triton", **options)
        for a, b in zip(got, want, strict=True):
            assert a.is_contiguous() and a.dtype == dtype
            assert_within_budget(a, b)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", dtypes())
def test_gradients_and_same_bits(size, dtype):
    device = require("strided_temporal_conv", "triton")
    values = {n: v for n, v in inputs(*size, dtype).items() if n in ("x", "weight", "bias")}

    def gradients(values, backend):
        leaves = {n: [t.detach().requires_grad_() for t in v] for n, v in values.items()}
        y = strided_temporal_conv(**leaves, backend=backend)
        upstream = [torch.linspace(-1, 2, t.numel()).reshape(t.shape).to(t.device, dtype).to(t.dtype) for t in y]
        return torch.autograd.grad(y, [t for v in leaves.values() for t in v], upstream)

    want = gradients({n: [t.double() for t in v] for n, v in values.items()}, "reference")
    mine = {n: [guarded(t.to(device)) for t in v] for n, v in values.items()}
    first, second = gradients(mine, "triton"), gradients(mine, "triton")
    for a, b, again in zip(first, want, second, strict=True):
        assert_within_budget(a, b)
        assert torch.equal(a, again)


def test_more_groups_than_a_launch_takes():
    device = require("strided_temporal_conv", "triton")
    values = inputs(2, 1, 1, range(1, 19), range(18, 0, -1), torch.float32)
    want = strided_temporal_conv([x.double() for x in values["x"]], [w.double() for w in values["weight"]])
    got = strided_temporal_conv(
        [x.to(device) for x in values["x"]], [w.to(device) for w in values["weight"]], backend="triton"
    )
    for a, b in zip(got, want, strict=True):
        assert_within_budget(a, b)
