"""``relative_encoding`` on Triton: in its interpreter where there is no GPU, compiled where there is one."""

import functools

import pytest
import torch

from posekernels.models.rie import PARTS
from posekernels.ops import relative_encoding
from posekernels.testing import assert_within_budget, guarded, require
from tests.ops.calls import working_calls

PARTS_17 = tuple(PARTS["h36m-17"].values())
SHAPES = [
    (3, 9, 17, 2, PARTS_17),
    (1, 1, 17, 2, PARTS_17),
    (2, 70, 5, 3, ((4, 0, 4), (1, 4))),  # the root, and joints named twice
    (0, 3, 17, 2, PARTS_17),
    (2, 3, 5, 2, tuple((i % 5,) * (1 + i % 2) for i in range(18))),  # more than one launch takes
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("B,T,J,F,parts", SHAPES)
def test_result_and_gradient(dtype, B, T, J, F, parts):
    device = require("relative_encoding", "triton")
    g = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, J, F, generator=g).to(dtype)
    upstream = [torch.randn(B, T, 3 * F * len(p), generator=g).to(dtype) for p in parts]
    exact, mine = x.double().requires_grad_(), guarded(x.to(device), strided=True).requires_grad_()
    want = relative_encoding(exact, parts, backend="reference")
    got = relative_encoding(mine, parts, backend="triton")
    for a, b in zip(got, want, strict=True):
        assert a.is_contiguous() and a.dtype == dtype
        assert_within_budget(a, b)
    (first,) = torch.autograd.grad(got, mine, [u.to(device) for u in upstream], retain_graph=True)
    (again,) = torch.autograd.grad(got, mine, [u.to(device) for u in upstream])
    assert_within_budget(first, torch.autograd.grad(want, exact, [u.double() for u in upstream])[0])
    assert torch.equal(first, again)


def test_one_launch_for_all_parts(monkeypatch):
    device = require("relative_encoding", "triton")
    from posekernels.ops.relative_encoding import triton

    x, joints = torch.randn(2, 3, 17, 2).to(device), [joint for part in PARTS_17 for joint in part]
    sent = torch.tensor(joints, dtype=torch.int32, device=device)
    monkeypatch.setattr(triton, "table", lambda *_: sent)  # under a dispatch mode it keeps nothing
    run = functools.partial(triton.relative_encoding, x, joints, [len(part) for part in PARTS_17])
    assert working_calls(run, triton._encoding_fwd_kernel, monkeypatch) == ["encoding_fwd"]
