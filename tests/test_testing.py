"""The assertion helpers can fail: each is shown one case it accepts and one it refuses."""

import pytest
import torch

from posekernels.testing import assert_within_budget, guarded


@pytest.mark.parametrize("strided", [False, True])
def test_guarded_surrounds_with_nan(strided):
    tensor = torch.randn(3, 4, 5, requires_grad=True)
    view = guarded(tensor, strided=strided)
    assert torch.equal(view, tensor) and view.requires_grad and view.is_leaf
    assert view.is_contiguous() != strided
    memory = torch.as_strided(view.detach(), (1,), (1,), view.storage_offset() - 1)
    assert memory.isnan().all()


def test_guarded_of_nothing():
    assert guarded(torch.empty(0, 3)).shape == (0, 3)


def test_budget():
    want = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert_within_budget(want.float() * (1 + 5e-6), want)
    with pytest.raises(AssertionError, match="relative error"):
        assert_within_budget(want.float() * (1 + 5e-5), want)
    with pytest.raises(AssertionError, match="shape"):
        assert_within_budget(want[:1].float(), want)
    with pytest.raises(AssertionError, match="NaN"):
        assert_within_budget(torch.tensor([3.0, float("nan")]), want)
