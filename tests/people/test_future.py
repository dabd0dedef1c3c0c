"""Forecasts on bones that stay as long and feet that stand, of motion that was held out."""

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.models.forecasting import with_path, without_path
from posekernels.models.pkd import roll_out
from posekernels.people.future import as_long, believable
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import detectors_joints, motions

FPS, ANKLES = 25.0, [3, 6]


@pytest.fixture(scope="module")
def forecasts():
    """Past, truth and forecast, [N, T, 17, 3]."""
    net = models.load("forecaster")
    length = net.history + 25
    recordings = [torch.from_numpy(r[::2].copy()).float() for r in motions(load_starter().test)]
    windows = [detectors_joints(r).unfold(0, length, 30).movedim(-1, 1) for r in recordings if len(r) >= length]
    windows = torch.cat(windows)
    past, truth = windows[:, : net.history], windows[:, net.history :]
    with torch.no_grad():
        found = without_path(roll_out(net, with_path(past, net.history - 1), 25), past[:, -1, 0])
    return past.numpy(), truth.numpy(), found.numpy()


def speeds(past: np.ndarray, future: np.ndarray) -> np.ndarray:
    """[N, T, 2] m/s of the ankles."""
    whole = np.concatenate((past[:, -1:], future), 1)[:, :, ANKLES]
    return np.linalg.norm(np.diff(whole, axis=1), axis=-1) * FPS


def test_feet_slide_less_and_nothing_else_gets_worse(forecasts):
    past, truth, found = forecasts
    better = np.stack([believable(p, f, FPS) for p, f in zip(past, found)])
    assert better.dtype == found.dtype and better.shape == found.shape
    planted = speeds(past, truth) < 0.1
    assert speeds(past, better)[planted].mean() < 0.9 * speeds(past, found)[planted].mean()
    walk = np.linalg.norm(truth[:, -1, 0] - past[:, -1, 0], axis=-1) > 0.5
    assert walk.sum() > 3
    quieter = [speeds(past[walk], x[walk]).min(-1).mean() for x in (found, better)]  # of the two feet
    assert quieter[1] < 0.5 * quieter[0]
    off = [np.linalg.norm(x - truth, axis=-1).mean() for x in (found, better)]
    assert off[1] < 1.02 * off[0]
    start = np.linalg.norm(better[:, 0] - past[:, -1], axis=-1).mean()
    assert start < 1.3 * np.linalg.norm(found[:, 0] - past[:, -1], axis=-1).mean(), "no leap at the last frame seen"
    bones = np.linalg.norm(better - better[:, :, [max(p, 0) for p in H36M_17.parents]], axis=-1)
    assert bones.std(1).max() < 1e-4


def test_whoever_sways_stays_where_they_stand(forecasts):
    past = np.repeat(forecasts[0][:1, -1:], 25, 1)[0]
    future = past.copy()
    future[..., 0] += 0.06 * np.sin(np.arange(1, 26) / 5)[:, None]  # all of the body, feet too
    found = believable(past, future, FPS)
    assert np.abs(found - past[0])[:, ANKLES].max() < 0.02 < np.abs(future - past[0])[:, ANKLES].max()
    assert np.abs(found - future)[:, 8].max() < 0.07, "and the trunk goes its way"


def test_a_bone_without_a_direction_stays_finite():
    poses = np.zeros((2, 17, 3))
    assert np.isfinite(as_long(poses, np.random.default_rng(0).normal(size=(17, 3)))).all()
