import numpy as np
import pytest
import torch

from posekernels.pose import kinematics as k


@pytest.mark.parametrize("body", [k.H36M_BODY, k.CMU_BODY], ids=["h36m", "cmu"])
def test_bones_keep_their_lengths_and_the_root_is_ignored(body):
    rows = torch.randn(6, body.columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = k.forward_kinematics(rows, body)
    parents = torch.tensor(body.skeleton.parents[1:])
    lengths = (got[:, 1:] - got[:, parents]).norm(dim=-1)
    want = torch.tensor(np.linalg.norm(body.offsets_mm, axis=-1)[1:])
    torch.testing.assert_close(lengths, want.expand(6, -1), atol=1e-6, rtol=1e-5)
    moved = rows.clone()
    moved[:, :6] = 9
    torch.testing.assert_close(k.forward_kinematics(moved, body), got)


def test_turning_the_root_turns_the_whole_body():
    rows = torch.randn(4, 117, dtype=torch.float64)
    rows[:, 3:6] = 0
    straight = k.forward_kinematics(rows, k.CMU_BODY, root="rotated")
    rows[:, 3:6] = torch.tensor([0.3, -0.2, 0.9])
    turned = k.forward_kinematics(rows, k.CMU_BODY, root="rotated")
    torch.testing.assert_close(turned, straight @ k.rotation_matrix(rows[0, 3:6]))


def test_rotation_matrix_is_a_rotation():
    vectors = torch.tensor([[0, 0, 0], [np.pi, 0, 0], [0.1, -2, 3], [1e-9, 0, 0]], dtype=torch.float64)
    R = k.rotation_matrix(vectors)
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand(4, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0)


def test_numpy_and_refusals():
    assert isinstance(k.forward_kinematics(np.zeros((2, 99), np.float32), k.H36M_BODY), np.ndarray)
    assert k.forward_kinematics(torch.zeros(0, 99), k.H36M_BODY).shape == (0, 32, 3)
    with pytest.raises(ValueError, match="117 columns"):
        k.forward_kinematics(torch.zeros(2, 99), k.CMU_BODY)
    with pytest.raises(ValueError, match="root must be"):
        k.forward_kinematics(torch.zeros(2, 99), k.H36M_BODY, root="moved")
