import numpy as np
import pytest
import torch

from posekernels.pose import camera as cam


def random_pose(seed=0, shape=(5, 7)):
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(*shape, 3, generator=g, dtype=torch.float64)
    q = torch.randn(4, generator=g, dtype=torch.float64)
    return points, q / q.norm(), torch.randn(3, generator=g, dtype=torch.float64)


def test_world_and_back():
    points, q, t = random_pose()
    seen = cam.world_to_camera(points, q, t)
    torch.testing.assert_close(cam.camera_to_world(seen, q, t), points)
    torch.testing.assert_close(seen.norm(dim=-1), (points - t).norm(dim=-1))  # a rotation about the centre


def test_rotate_quarter_turn_about_z():
    q = torch.tensor([2**-0.5, 0, 0, 2**-0.5])
    torch.testing.assert_close(cam.rotate(torch.tensor([[1.0, 0, 0]]), q), torch.tensor([[0.0, 1, 0]]))


def test_screen_units_keep_the_aspect_and_further_channels():
    pixels = np.array([[0, 0, 0.5], [1000, 1002, 0.25]], np.float32)
    units = cam.normalise_screen(pixels, 1000, 1002)
    np.testing.assert_allclose(units, [[-1, -1.002, 0.5], [1, 1.002, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(cam.denormalise_screen(units, 1000, 1002), pixels, atol=1e-3)
    for width, height, name in ((0, 100, "width"), (100, -1, "height"), (100, float("nan"), "height")):
        for function in (cam.normalise_screen, cam.denormalise_screen):
            with pytest.raises(ValueError, match=f"{function.__name__}: {name}"):
                function(pixels, width, height)


def test_projection_is_differentiable_clamped_and_per_camera():
    points = torch.randn(2, 3, 17, 3, dtype=torch.float64)
    points[..., 2] = points[..., 2].abs() + 1
    cameras = torch.stack([torch.tensor(c.intrinsics, dtype=torch.float64) for c in cam.h36m_cameras("S1")[:2]])
    points.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: cam.project(p, cameras), points[:, :1, :2].detach().requires_grad_())
    both = cam.project(points, cameras)
    torch.testing.assert_close(both[1], cam.project(points[1], cameras[1]))
    far = torch.tensor([[5.0, -5.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        cam.project_linear(far, cameras[0])[0], cameras[0, :2] * torch.tensor([1.0, -1]) + cameras[0, 2:4]
    )


def test_tables():
    for subject in ("S1", "S5", "S6", "S7", "S8", "S9", "S11"):
        cameras = cam.h36m_cameras(subject)
        assert [c.id for c in cameras] == ["54138969", "55011271", "58860488", "60457274"]
        for c in cameras:
            assert c.intrinsics.dtype == c.orientation.dtype == c.translation.dtype == np.float32
            assert abs(np.linalg.norm(c.orientation) - 1) < 1e-6
            assert 1 < np.linalg.norm(c.translation) < 10  # metres
            down = cam.rotate(np.float32([0, 1, 0]), c.orientation)
            assert down[2] < -0.9  # the image's down is the world's down
    assert cam.h36m_cameras("S2")[0].orientation is None
    assert cam.humaneva_cameras("Validate/S2")[1].width == 640
    assert cam.humaneva_cameras("Unlabeled/S4")[0].translation is None
    with pytest.raises(ValueError, match="did you mean 'S11'"):
        cam.h36m_cameras("s11")
    with pytest.raises(ValueError, match="no HumanEva subject"):
        cam.humaneva_cameras("Train/X")


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="points must have 3"):
        cam.project(torch.zeros(4, 2), torch.zeros(9))
    with pytest.raises(ValueError, match="intrinsics must have 9"):
        cam.project(torch.zeros(4, 3), torch.zeros(8))
    with pytest.raises(ValueError, match="quaternion must have 4"):
        cam.rotate(torch.zeros(4, 3), torch.zeros(3))
