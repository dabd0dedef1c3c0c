import math

import numpy as np
import pytest
import torch

from posekernels.pose import metrics as m
from posekernels.pose.hypotheses import auc, pck


def poses(*shape, seed=0):
    return torch.randn(*shape, 17, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def procrustes_one(p, g):
    """The published formula, frame by frame."""
    mp, mg = p.mean(0), g.mean(0)
    p0, g0 = p - mp, g - mg
    n_p, n_g = np.linalg.norm(p0), np.linalg.norm(g0)
    U, S, Vt = np.linalg.svd((g0 / n_g).T @ (p0 / n_p))
    V = Vt.T
    R = V @ U.T
    if np.linalg.det(R) < 0:
        V[:, -1] *= -1
        S[-1] *= -1
        R = V @ U.T
    a = S.sum() * n_g / n_p
    return np.linalg.norm(a * p @ R + (mg - a * mp @ R) - g, axis=-1).mean()


def test_procrustes_matches_the_formula_reflections_too():
    p, g = poses(6, 5), poses(6, 5, seed=1)
    p[0, 0] = g[0, 0] * torch.tensor([-1.0, 1, 1])
    want = [[procrustes_one(p[i, j].numpy(), g[i, j].numpy()) for j in range(5)] for i in range(6)]
    torch.testing.assert_close(m.p_mpjpe(p, g, per_frame=True), torch.tensor(want, dtype=torch.float64))


def test_procrustes_ignores_similarities_and_sees_reflections():
    g = poses(9)
    R = torch.linalg.qr(poses(1)[0, :3])[0]
    R = R * torch.linalg.det(R).sign()
    assert m.p_mpjpe(3 * g @ R + 1, g) < 1e-12
    assert m.p_mpjpe(g * torch.tensor([-1.0, 1, 1]), g) > 0.1


def test_degenerate_and_nan_frames():
    p, g = poses(4), poses(4, seed=1)
    p[1] = 2.0
    g[2] = 1.0
    p[3, 0, 0] = math.nan
    got = m.p_mpjpe(p, g, per_frame=True)
    torch.testing.assert_close(got[1], (g[1] - g[1].mean(0)).norm(dim=-1).mean())
    assert got[2] == 0 and got[3].isnan() and got[0] > 0
    published = m.p_mpjpe(p, g, per_frame=True, published_degenerate=True)
    assert published.isnan().tolist() == [False, True, True, True]
    zero = m.n_mpjpe(torch.zeros(1, 17, 3), g[:1].float(), per_frame=True)
    torch.testing.assert_close(zero, g[:1].float().norm(dim=-1).mean(-1))


def test_other_metrics():
    p, g = poses(7), poses(7, seed=1)
    assert m.n_mpjpe(2 * g, g) < 1e-12
    torch.testing.assert_close(m.mean_velocity_error(p + 5, p), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(m.weighted_mpjpe(p, g, torch.full((7, 17), 2.0)), 2 * m.mpjpe(p, g))
    assert isinstance(m.mpjpe(p.numpy(), g.numpy()), np.ndarray)
    with pytest.raises(ValueError, match="at least 2 frames"):
        m.mean_velocity_error(p[:1], g[:1])
    with pytest.raises(ValueError, match="predicted and target"):
        m.mpjpe(p, g[:, :16])
    with pytest.raises(ValueError, match="weights"):
        m.weighted_mpjpe(p, g, torch.ones(7, 16))


def test_scores_average_over_frames_then_groups():
    scores = m.PoseScores()
    target = torch.zeros(1, 17, 3)
    for mm, frames, action, subject in [
        (10, 3, "Walking", "S9"),
        (30, 1, "Walking 1", "S11"),
        (50, 2, "Sitting", "S9"),
    ]:
        scores.add(
            (target + torch.tensor([mm / 1000, 0, 0])).repeat(frames, 1, 1),
            target.repeat(frames, 1, 1),
            action,
            subject,
        )
    table = scores.per_action()
    assert list(table) == ["Sitting", "Walking"]
    assert table["Walking"]["P1"] == pytest.approx(15)
    assert table["Walking"]["MPJVE"] == pytest.approx(
        0, abs=1e-6
    )  # the single frame has no velocity and does not count
    assert scores.average()["P1"] == pytest.approx(32.5)
    assert scores.frame_average()["P1"] == pytest.approx((3 * 10 + 30 + 2 * 50) / 6)
    assert scores.by_subject()["S11"]["Walking"]["P1"] == pytest.approx(30)
    assert scores.frames() == 6
    with pytest.raises(ValueError, match="T >= 1"):
        scores.add(target[:0], target[:0], "Walking")


def test_order_and_split_change_no_digit():
    whole, parts = m.PoseScores(), [m.PoseScores(), m.PoseScores()]
    for i in range(9):
        pair = poses(i + 1, seed=i), poses(i + 1, seed=i + 50)
        whole.add(*pair, "A")
        parts[i % 2].add(*pair, "A")
    parts[1].merge(parts[0])
    assert parts[1].average() == whole.average()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_metrics_run_on_the_device_of_their_input():
    p, g = poses(500).float(), poses(500, seed=1).float()
    p[0, 0] = g[0, 0] * torch.tensor([-1.0, 1, 1])
    p[3] = math.nan
    for metric in (m.mpjpe, m.p_mpjpe, m.n_mpjpe):
        got = metric(p.cuda(), g.cuda(), per_frame=True)
        assert got.is_cuda
        torch.testing.assert_close(got.cpu(), metric(p, g, per_frame=True), equal_nan=True)


def test_reach_of_poses_with_nan_is_nan():
    poses, target = torch.zeros(2, 3, 17, 3), torch.zeros(2, 17, 3)
    poses[1, 2, 4, 0] = torch.nan
    for score in (pck, auc):
        got = score(poses, target)
        assert got[1, 2].isnan() and got.isnan().sum() == 1 and got[0, 0] > 0.9
