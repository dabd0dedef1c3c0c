"""The assertion helpers can fail: each is shown one case it accepts and one it refuses."""

import pytest
import torch

from posekernels.testing import assert_within_budget, guarded, poisoned


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


def test_poisoned_memory_is_nan_between_bands_that_must_last():
    with poisoned():
        made = torch.empty(3, 4).new_empty(5), torch.empty_like(torch.zeros(2, 3).mT), torch.empty(2, dtype=torch.int64)
    assert made[0].isnan().all() and made[1].isnan().all() and made[1].stride() == (1, 3) and made[2].max() < -(2**62)
    with pytest.raises(AssertionError, match="written outside a tensor of 5 elements"), poisoned():
        torch.as_strided(torch.empty(5), (6,), (1,)).zero_()
