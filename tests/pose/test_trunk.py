"""One trunk for training and lifting, and where joints are that nobody saw."""

import numpy as np
import pytest
import torch

from posekernels.pose.keypoints import STANDING, guess_unseen, one_trunk
from posekernels.pose.skeleton import H36M_17


def test_trunk_is_between_hips_and_shoulders():
    points = np.random.default_rng(0).normal(size=(4, 17, 3))
    found = one_trunk(points)
    np.testing.assert_allclose(found[:, 0], (points[:, 1] + points[:, 4]) / 2)
    np.testing.assert_allclose(found[:, 8], (points[:, 11] + points[:, 14]) / 2)
    np.testing.assert_allclose(found[:, 7], (found[:, 0] + found[:, 8]) / 2)
    others = [j for j in range(17) if j not in (0, 7, 8)]
    np.testing.assert_array_equal(found[:, others], points[:, others])
    np.testing.assert_allclose(one_trunk(found), found)
    with pytest.raises(ValueError, match=r"\[\.\.\., 17, C\], got \[4, 16, 3\]"):
        one_trunk(torch.zeros(4, 16, 3))


@pytest.mark.parametrize(
    ("gone", "within"),
    [([2, 3, 5, 6], 1e-4), ([0, 1, 2, 3, 4, 5, 6, 7], 2.0), ([12, 13], 1e-4), ([16], 1e-4), ([9, 10], 1e-4)],
)
def test_what_is_not_seen_of_a_standing_person_is_found(gone, within):
    person = 100 * STANDING + torch.tensor([640.0, 360])
    seen = torch.ones(17, dtype=torch.bool)
    seen[gone] = False
    hidden = torch.where(seen[:, None], person, torch.nan)
    found = guess_unseen(hidden, seen)
    assert (found - person).norm(dim=-1).max() < within
    from_behind = guess_unseen(H36M_17.mirror(hidden), seen[list(H36M_17.mirrored)])
    assert (from_behind - H36M_17.mirror(person)).norm(dim=-1).max() < within, "left and right the other way round"


def test_guesses_are_as_large_as_the_person_and_nothing_comes_of_nothing():
    person = torch.stack((50 * STANDING, 200 * STANDING))
    seen = torch.ones(2, 17, dtype=torch.bool)
    seen[:, [3, 6]] = False
    torch.testing.assert_close(guess_unseen(person, seen), person)
    assert (guess_unseen(person, torch.zeros(2, 17, dtype=torch.bool)) == 0).all()
