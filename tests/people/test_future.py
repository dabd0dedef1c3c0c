"""Forecasts on bones that stay as long and feet that stand, of motion that was held out."""

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.models.forecasting import with_path, without_path
from posekernels.models.pkd import roll_out
from posekernels.people.commands.forecast import resampled
from posekernels.people.future import as_long, believable, held, in_the_air
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import detectors_joints, motions

FPS, ANKLES = 25.0, [3, 6]


@pytest.fixture(scope="module")
def recordings():
    """[T, 17, 3] at 25 frames per second, which no training of ours saw."""
    return [detectors_joints(torch.from_numpy(r[::2].copy()).float()) for r in motions(load_starter().test)]


@pytest.fixture(scope="module")
def forecasts(recordings):
    """Past, truth and forecast, [N, T, 17, 3], every 30 frames."""
    return forecast_of(recordings, 30)


def forecast_of(recordings, step: int, chosen=lambda past: slice(None)):
    """Past, truth and forecast of windows every ``step`` frames, of those ``chosen`` by their past [N, T, 17, 3]."""
    net = models.load("forecaster")
    length = net.history + 25
    windows = torch.cat([r.unfold(0, length, step).movedim(-1, 1) for r in recordings if len(r) >= length])
    windows = windows[chosen(windows[:, : net.history].numpy())]
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
    walk &= np.array([in_the_air(p, FPS) is None for p in past.astype(float)])  # of whoever flies no foot is quiet
    assert walk.sum() > 3
    quieter = [speeds(past[walk], x[walk]).min(-1).mean() for x in (found, better)]  # of the two feet
    assert quieter[1] < 0.5 * quieter[0]
    off = [np.linalg.norm(x - truth, axis=-1).mean() for x in (found, better)]
    assert off[1] < 1.02 * off[0]
    start = np.linalg.norm(better[:, 0] - past[:, -1], axis=-1).mean()
    assert start < 1.3 * np.linalg.norm(found[:, 0] - past[:, -1], axis=-1).mean(), "no leap at the last frame seen"
    bones = np.linalg.norm(better - better[:, :, [max(p, 0) for p in H36M_17.parents]], axis=-1)
    assert bones.std(1).max() < 1e-4


def test_legs_go_on_and_do_not_leap(recordings):
    """From the last frame seen, and where another foot stands than before, as fast as the network has them go."""
    past, _, found = forecast_of(recordings, 12, lambda past: [in_the_air(p, FPS) is None for p in past.astype(float)])
    steps = [
        np.linalg.norm(np.diff(np.concatenate((past[:, -1:], x), 1)[:, :, [2, 3, 5, 6]], axis=1), axis=-1)
        for x in (found, np.stack([believable(p, f, FPS) for p, f in zip(past, found)]))
    ]
    assert len(past) > 30
    assert steps[1].max() < 1.2 * steps[0].max() and (steps[1] - steps[0]).max() < 0.1
    assert (steps[1] - steps[0] > 0.05).any(-1).mean() < 0.01


def test_whoever_sways_stays_where_they_stand(forecasts):
    past = np.repeat(forecasts[0][:1, -1:], 25, 1)[0]
    future = past.copy()
    future[..., 0] += 0.06 * np.sin(np.arange(1, 26) / 5)[:, None]  # all of the body, feet too
    found = believable(past, future, FPS)
    assert np.abs(found - past[0])[:, ANKLES].max() < 0.02 < np.abs(future - past[0])[:, ANKLES].max()
    assert np.abs(found - future)[:, 8].max() < 0.07, "and the trunk goes its way"


def standing_still(past: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Without gravity."""
    return held(past.astype(float), as_long(future.astype(float), past[-1]), FPS)


def test_whoever_jumps_comes_down(recordings):
    """Jumps of the starter set; who climbs or swings is high up too, and does not fall."""

    def flying(past):
        return np.array([in_the_air(p, FPS) is not None for p in past.astype(float)])

    past, truth, found = forecast_of(recordings, 2, flying)
    assert len(past) > 4
    hips = {}
    for how in (standing_still, lambda p, f: believable(p, f, FPS)):
        made = np.stack([how(p, f) for p, f in zip(past, found)])
        hips[how is standing_still] = np.abs(made - truth)[:, :, 0, 2].mean(0)
    assert hips[False].mean() < 0.7 * hips[True].mean() and hips[False][4] < 0.4 * hips[True][4], hips
    floor = np.percentile(past[:, :, ANKLES, 2].min(-1), 10, axis=1)
    lowest = made[:, :, ANKLES, 2].min(-1) - floor[:, None]
    assert lowest.min() > -0.03 and np.abs(lowest[:, -1]).max() < 0.06, "on the floor, not below it"
    step = np.linalg.norm(np.diff(np.concatenate((past[:, -1:], made), 1)[:, :, 0], axis=1), axis=-1) * FPS
    assert step.max() < 1.3 * np.linalg.norm(np.diff(past[:, :, 0], axis=1), axis=-1).max() * FPS, "nothing leaps"
    bones = np.linalg.norm(made - made[:, :, [max(p, 0) for p in H36M_17.parents]], axis=-1)
    assert bones.std(1).max() < 1e-4


@pytest.mark.parametrize("fps", [25.0, 60.0])
def test_a_body_that_is_thrown_flies_a_parabola(recordings, fps):
    """One pose all the time, 2.5 m/s upwards since 0.2 s ago, which the network takes to hang there."""
    pose, since = recordings[0][0].numpy().astype(float), 0.2
    pose[..., 2] -= pose[ANKLES, 2].min()
    t = np.arange(-round(fps), round(fps)) / fps + 1 / fps
    rise = np.where(t + since > 0, 2.5 * (t + since) - 9.81 / 2 * (t + since) ** 2, 0)
    whole = pose + np.maximum(rise, 0)[:, None, None] * np.array([0, 0, 1.0])
    now = round(fps)
    made = believable(whole[:now], np.repeat(whole[now - 1 : now], now, 0), fps)
    in_air = rise[now:] > 0
    np.testing.assert_allclose(made[in_air][:-1, 0, 2], whole[now:][in_air][:-1, 0, 2], atol=0.02)
    after = made[~in_air]
    assert np.abs(after[:, ANKLES, 2]).max() < 0.15 and after[:, ANKLES, 2].min() > -0.01
    assert after[:, 0, 2].min() < pose[0, 2] - 0.02 and abs(after[-1, 0, 2] - pose[0, 2]) < 0.01, "knees give a moment"


def test_a_somersault_does_not_end_below_the_floor(recordings):
    """Upside down in the last frame seen, where the network has the body stay."""
    pose = recordings[0][0].numpy().astype(float)
    pose[..., 2] -= pose[ANKLES, 2].min()
    since = np.maximum(np.arange(-24, 1) / FPS + 0.24, 0)  # seconds in the air
    angle, rise = 2 * np.pi * since / 0.65, 3.2 * since - 9.81 / 2 * since**2
    c, s, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 1 + 0 * angle
    turn = np.stack((one, zero, zero, zero, c, -s, zero, s, c), -1).reshape(-1, 3, 3)
    past = np.einsum("tij,kj->tki", turn, pose - pose[0]) + pose[0] + rise[:, None, None] * (0, 0, 1.0)
    assert past[-1, 10, 2] < past[-1, 0, 2] and in_the_air(past, FPS) is not None
    made = believable(past, np.repeat(past[-1:], 25, 0), FPS)
    assert abs(made[..., 2].min()) < 0.01 and abs(made[-1, :, 2].min()) < 0.01


def test_whoever_touches_the_floor_does_not_fall(forecasts):
    past, _, found = forecasts
    ankles = past[:, :, ANKLES, 2].min(-1)
    near = ankles[:, -1] < np.percentile(ankles, 10, axis=1) + 0.06
    assert near.sum() > 10
    for p, f in zip(past[near], found[near]):
        assert (believable(p, f, FPS) == standing_still(p, f).astype(f.dtype)).all()
    crouch = past[near][0].copy()
    crouch[-8:, :, 2] -= 4.9 * (np.arange(8)[:, None] / FPS) ** 2  # hips go down as fast as they fall, feet too
    assert in_the_air(crouch.astype(float), FPS) is None


def test_who_is_seen_for_half_a_second_was_before_as_at_first(forecasts):
    past, _, _ = forecasts
    count = past.shape[1]
    brief = past[:, -13:]
    longer = np.stack([resampled(p, FPS, FPS, count, 12) for p in brief])
    assert np.array_equal(longer[:, -13:], brief) and (longer[:, : count - 13] == brief[:, :1]).all()
    uneven = resampled(np.arange(20.0)[:, None], 30.0, 25.0, 20, 19)[:, 0]
    np.testing.assert_allclose(uneven, np.maximum(19 - 1.2 * np.arange(20)[::-1], 0))


def test_a_bone_without_a_direction_stays_finite():
    poses = np.zeros((2, 17, 3))
    assert np.isfinite(as_long(poses, np.random.default_rng(0).normal(size=(17, 3)))).all()
