"""What can be made of many hypotheses without the truth."""

import numpy as np
import pytest
import torch

from posekernels.pose.camera import h36m_cameras, project_linear
from posekernels.pose.hypotheses import by_reprojection, fitting_root, median_pose, spread


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("S", [1, 2, 7, 10])
def test_median_and_spread(S):
    poses = normal(2, 3, S, 5, 3)
    np.testing.assert_allclose(median_pose(poses), np.median(poses, axis=2))
    want = (poses.numpy().var(axis=2)).sum(-1) ** 0.5
    np.testing.assert_allclose(spread(poses), want)


def test_reprojection_finds_the_joints_that_fit():
    camera = torch.from_numpy(h36m_cameras("S9")[0].intrinsics).double()
    truth, root = 0.3 * normal(4, 17, 3), torch.tensor([0.3, -0.2, 4.5]).double()
    truth[:, 0] = 0
    keypoints = project_linear(truth + root, camera)
    ray = (keypoints - camera[2:4]) / camera[:2]
    torch.testing.assert_close(fitting_root(truth, ray), root.expand(4, 3))
    poses = truth[:, None] + 0.1 * normal(4, 6, 17, 3)
    right = torch.randint(6, (4, 1, 17, 1), generator=torch.Generator().manual_seed(2)).expand(4, 1, 17, 3)
    poses.scatter_(1, right, truth[:, None])  # every joint is right in one hypothesis
    torch.testing.assert_close(by_reprojection(poses, keypoints, camera, root.expand(4, 3)), truth)
    found = by_reprojection(poses, keypoints, camera.expand(4, 9))  # where the root is, is fitted to noisy poses
    before = (poses - truth[:, None]).norm(dim=-1).mean()
    assert (found - truth).norm(dim=-1).mean() < 0.6 * before
    assert by_reprojection(poses[0], keypoints[0], camera).shape == (17, 3)


def test_reprojection_refuses():
    with pytest.raises(ValueError, match="keypoints"):
        by_reprojection(normal(2, 3, 17, 3), normal(2, 16, 2), torch.ones(9))
    with pytest.raises(ValueError, match="focal lengths"):
        by_reprojection(normal(2, 3, 17, 3), normal(2, 17, 2), torch.zeros(9))
