"""Joint layouts to and from Human3.6M's 17, and back."""

import numpy as np
import pytest
import torch

from posekernels.pose import layouts
from posekernels.pose.skeleton import H36M_17, SKELETONS
from posekernels.train.data.motion import load_starter

LIMBS = [j for j, name in enumerate(H36M_17.joints) if name.startswith(("left", "right"))]


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    """[T, 17, 3] real poses, metres."""
    poses = load_starter().test[0].positions[::20].copy()
    poses[:, 0] = 0
    return poses


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_there_and_back(people, layout):
    other = layouts.from_h36m(people, layout)
    assert other.shape == (len(people), SKELETONS[layout].num_joints, 3) and np.isfinite(other).all()
    back = layouts.to_h36m(other, layout)
    np.testing.assert_allclose(back[:, LIMBS], people[:, LIMBS], atol=1e-6)
    distance = np.linalg.norm(back - people, axis=-1)
    assert distance.max() < 0.12, "pelvis, spine, thorax, nose and head come back within 12 cm"
    assert np.median(distance[:, [0, 7, 8, 9, 10]]) < 0.05


@pytest.mark.parametrize("layout", layouts.LAYOUTS)
def test_left_stays_left_in_a_mirror(people, layout):
    there = SKELETONS[layout]
    mirrored = people[:, list(H36M_17.mirrored)] * (-1, 1, 1)
    expected = layouts.from_h36m(people, layout)[:, list(there.mirrored)] * (-1, 1, 1)
    np.testing.assert_allclose(layouts.from_h36m(mirrored, layout), expected, atol=1e-6)


@pytest.mark.parametrize("name", SKELETONS)
def test_names_of_a_pair_differ_in_the_side_and_so_do_their_parents(name):
    body = SKELETONS[name]
    assert body.parents.count(-1) == 1
    for left, right in zip(body.left, body.right):
        assert body.joints[left].replace("left", "right") == body.joints[right]
        assert body.mirrored[body.parents[left]] == body.parents[right]


def test_scores_are_the_lowest_and_a_missing_joint_spoils_only_its_own():
    scores = torch.ones(17)
    scores[11] = 0.2  # left hip
    got = layouts.scores_to_h36m(scores, "coco-17")
    assert got[[0, 4, 7]].tolist() == pytest.approx([0.2] * 3) and got[[1, 2, 8, 9, 10]].min() == 1
    points = torch.ones(17, 2)
    points[9] = torch.nan  # left wrist
    assert layouts.to_h36m(points, "coco-17").isnan().any(-1).nonzero().flatten().tolist() == [13]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="did you mean 'coco-17'"):
        layouts.to_h36m(torch.zeros(17, 2), "coco17")
    with pytest.raises(ValueError, match="no rule between humaneva-15"):
        layouts.to_h36m(torch.zeros(15, 2), "humaneva-15")
    with pytest.raises(ValueError, match=r"\[..., 17, C\]"):
        layouts.to_h36m(torch.zeros(16, 2), "coco-17")
