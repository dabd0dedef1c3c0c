"""bench.forecast: figures of forecasts whose errors are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench import forecast, people
from posekernels.people.lifter import Person, load_lifter
from posekernels.people.world import Lifted
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import motions


@pytest.fixture(scope="module")
def recording():
    return max(motions(load_starter().test), key=len)[:150]


class Stiff(torch.nn.Module):
    """A forecaster of people who do not move."""

    history, future, about = 25, 25, SimpleNamespace(fps=25.0)

    def forward(self, past):
        return past[:, -1:].expand(-1, self.future, -1, -1)


def clip_of(recording: np.ndarray, speed: float, size: float = 1.0) -> forecast.Clip:
    """Somebody stiff who glides along x, metres a second; found a little larger or smaller than they are."""
    pose = recording[0] - recording[0, 0]
    seen, ahead = round(forecast.SEEN * people.FPS), round(forecast.AHEAD * people.FPS)
    times = np.arange(-seen + 1, ahead + 1) / people.FPS
    world = pose + times[:, None, None] * (speed, 0, 0)
    track = np.zeros((seen, 17, 2), np.float32)
    found = (size * pose + times[:seen, None, None] * (speed, 0, 0)).astype(np.float32)
    person = Person(1, track, np.ones((seen, 17), np.float32), found - found[:, :1], found)
    return forecast.Clip(Lifted([person], people.FPS, people.SIZE, length=seen), world[seen - 1 :])


def test_errors_of_who_stays_and_of_who_goes_on(recording):
    goes = clip_of(recording, 1.0)
    stays = forecast.figures([goes], forecast.stays)
    assert set(stays) == {"joints", "moved"}, "nobody stays"
    for row in stays.values():
        assert row == pytest.approx({f"{ms} ms": ms for ms in forecast.MILLISECONDS}, abs=0.1)
    on = forecast.figures([goes], forecast.goes_on)
    assert max(on["joints"].values()) < 0.1 and max(on["moved"].values()) < 0.1
    both = forecast.figures([goes, clip_of(recording, 0.2)], forecast.stays)
    assert both["joints"]["1000 ms"] == pytest.approx(600, abs=0.1)
    assert both["stay"]["1000 ms"] == pytest.approx(200, abs=0.1)


def test_a_wrong_size_counts_for_joints_and_not_for_what_moved(recording):
    larger = forecast.figures([clip_of(recording, 0.0, 1.1)], forecast.stays)
    assert 30 < larger["joints"]["80 ms"] < 80 and larger["moved"]["80 ms"] < 0.1


def test_clips_are_lifted_up_to_now_and_forecast_from_there(recording):
    (case,) = people.synthetic([("starter", recording)])
    clip = forecast.lifted(case, load_lifter())
    assert clip.lifted.frames == 100 and clip.truth.shape == (51, 17, 3)
    assert np.linalg.norm(clip.pose[-1] - clip.truth[0], axis=-1).mean() < 0.15, "the same axes"
    assert np.abs(clip.truth[0, 0]).max() == 0 and clip.pose[-1, 10, 2] > 0.3
    still, stiff = forecast.figures([clip], forecast.stays), forecast.figures([clip], forecast.forecast_by(Stiff()))
    for row in still:
        assert stiff[row] == pytest.approx(still[row], abs=10), "nothing but feet and bones is put right"
