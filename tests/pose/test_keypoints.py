import numpy as np
import pytest
import torch

from posekernels.pose.keypoints import centre_on_person, coco_scores_to_h36m, coco_to_h36m, detected, revise_legs


def test_nobody_stays_nobody():
    out = coco_to_h36m(np.zeros((3, 17, 2), np.float32))
    assert isinstance(out, np.ndarray) and not out.any()
    assert not detected(out).any()


def test_moves_with_the_picture():
    pose = torch.randn(5, 17, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.tensor([30.0, -12.0], dtype=torch.float64)
    torch.testing.assert_close(coco_to_h36m(pose + shift), coco_to_h36m(pose) + shift)
    torch.testing.assert_close(coco_to_h36m(pose * 3), coco_to_h36m(pose) * 3)


@pytest.mark.parametrize("low, changed", [((3,), {3: 2}), ((2, 3, 6), {2: 1, 3: 1, 6: 5}), ((2,), {}), ((), {})])
def test_legs_are_revised_by_pattern(low, changed):
    keypoints = torch.arange(1.0, 35).view(1, 17, 2)
    scores = torch.ones(1, 17)
    scores[:, list(low)] = 0.29
    want = keypoints.clone()
    for joint, source in changed.items():
        want[:, joint] = keypoints[:, source]
    assert torch.equal(revise_legs(keypoints, scores), want)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"\[17, 2\], got \[5, 16, 2\]"):
        coco_to_h36m(torch.zeros(5, 16, 2))
    with pytest.raises(ValueError, match=r"\[17\], got \[5, 18\]"):
        coco_scores_to_h36m(torch.zeros(5, 18))


def test_people_are_centred_as_tensors_and_as_arrays():
    keypoints = torch.rand(5, 17, 2, generator=torch.Generator().manual_seed(0))
    for array, tensor in zip(centre_on_person(keypoints.numpy()), centre_on_person(keypoints), strict=True):
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, tensor.numpy())
    with pytest.raises(TypeError, match=r"centre_on_person: keypoints must be a torch.Tensor, numpy.ndarray"):
        centre_on_person([[[0.0, 0.0]]])
