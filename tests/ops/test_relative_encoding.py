"""relative_encoding: every backend against the definition, its gradient, and what it refuses."""

import pytest
import torch

from posekernels.models.rie import PARTS
from posekernels.ops import relative_encoding
from posekernels.testing import guarded

PARTS_17 = tuple(PARTS["h36m-17"].values())


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(
    "B, T, J, parts", [(3, 9, 17, PARTS_17), (1, 1, 17, PARTS_17), (2, 600, 5, ((4, 0), (1,))), (0, 3, 17, PARTS_17)]
)
def test_channels_are_raw_then_root_then_middle(backend, B, T, J, parts):
    x = guarded(torch.randn(B, T, J, 2))
    for part, got in zip(parts, relative_encoding(x, parts, backend=backend)):
        want = [x[:, :, j, c] for j in part for c in range(2)]
        want += [x[:, :, j, c] - x[:, :, 0, c] for j in part for c in range(2)]
        want += [x[:, :, j, c] - x[:, T // 2, None, j, c] for j in part for c in range(2)]
        assert torch.equal(got, torch.stack(want, dim=-1))


def test_bfloat16_is_what_the_reference_rounds_to():
    x = torch.randn(3, 9, 17, 2).bfloat16()
    for got, want in zip(
        relative_encoding(x, PARTS_17, backend="cpu"), relative_encoding(x, PARTS_17, backend="reference")
    ):
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_gradient(backend):
    x = torch.randn(2, 9, 17, 2)
    weights = [torch.randn(2, 9, 6 * len(p)) for p in PARTS_17]
    grads = []
    for dtype, with_backend in ((torch.float32, backend), (torch.float64, "reference")):
        leaf = x.to(dtype).requires_grad_()
        loss = sum(
            (y * w.to(dtype)).sum() for y, w in zip(relative_encoding(leaf, PARTS_17, backend=with_backend), weights)
        )
        grads.append(torch.autograd.grad(loss, leaf)[0])
    torch.testing.assert_close(grads[0], grads[1].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parts", [((0, 17),), ((-1,),), ()])
def test_refuses_joints_that_are_not_there(parts):
    with pytest.raises(ValueError, match=r"joints in \[0, 17\)"):
        relative_encoding(torch.randn(1, 3, 17, 2), parts)
