"""Stretches of lifted people, for a forecaster to learn from."""

import numpy as np
import pytest
import torch

from posekernels.archive import DataError, read_npz
from posekernels.models.forecasting import in_one_frame
from posekernels.people.lifter import load_lifter
from posekernels.train import any_motion, lifted_motion
from posekernels.train.data.motion import load_starter
from posekernels.train.recipes.any_camera import Draws, detectors_joints, motions
from posekernels.train.recipes.any_motion import LiftedStretches, Stretches


@pytest.fixture(scope="module")
def recordings():
    return [detectors_joints(torch.from_numpy(m.copy()).float()).numpy() for m in motions(load_starter().train)]


def test_cameras_see_people_whole_and_know_up(recordings):
    draw = Draws(torch.Generator().manual_seed(0), 64)
    world = Stretches(recordings, 20, 10, 64, 1, 0, fps=25).people(draw)
    camera, up = lifted_motion.filmed(world, draw)
    assert camera[..., 2].min() > 0.4 and (camera[..., 2].mean((1, 2)) < 20).all()
    heights = torch.einsum("bfjc,bc->bfj", camera, up)
    torch.testing.assert_close(heights - heights[:, :1, :1], world[..., 2] - world[:, :1, :1, 2], atol=1e-3, rtol=0)


def test_the_past_is_as_lifted_and_the_future_goes_on_from_it(recordings):
    """In the same axes: who is found to go somewhere goes on there, and heads are above feet."""
    found = lifted_motion.stretches(recordings, [1.0] * len(recordings), load_lifter(), 0)
    pairs = [next(found) for _ in range(40)]
    past, future = (np.stack(part) for part in zip(*pairs))
    assert past.shape == future.shape == (40, 25, 17, 3) and np.abs(past[:, -1, 0]).max() == 0
    off = np.linalg.norm(future[:, 0] - past[:, -1], axis=-1)
    assert 0.02 < np.median(off) < 0.15, "a lifter's errors, and no others"
    for whole in (past, future):
        assert np.median(whole[:, :, 10, 2] - whole[:, :, [3, 6], 2].mean(-1)) > 1
    across = past[:, -1, 0, 0] - past[:, -6, 0, 0], future[:, 4, 0, 0]  # the image, where it is known best
    assert np.corrcoef(*across)[0, 1] > 0.5


def test_a_forecaster_learns_from_them(tmp_path, capsys):
    file, run = tmp_path / "lifted.npz", tmp_path / "run"
    assert lifted_motion.main([str(file), "--count", "6"]) == 0
    data = read_npz(file, "past", "future", "unit")
    assert data["past"].shape == (6, 25, 17, 3) and data["past"].dtype == np.int16
    sizes = ["--past", "5", "--future", "4", "--blocks", "2", "-e", "1", "--steps", "2", "-b", "4"]
    assert any_motion.main([*sizes, "--lifted", str(file), "--out", str(run)]) == 0
    assert "standing still" in capsys.readouterr().out
    with pytest.raises(DataError, match="25 and 25 frames, before and after; wanted are 30 and 4"):
        any_motion.main(["--past", "30", *sizes[2:], "--lifted", str(file), "--out", str(tmp_path / "other")])


def test_most_of_a_batch_is_lifted(recordings):
    past, future = np.full((1, 5, 17, 3), 3.0, np.float32), np.full((1, 5, 17, 3), 4.0, np.float32)
    past[0, -1, 0], future[..., 2] = 0, 7.0
    lifted = LiftedStretches(past, future)
    seen, came = Stretches(recordings, 5, 5, 20, 1, 1, lifted=lifted).batch(torch.Generator().manual_seed(0))
    assert seen.shape == came.shape == (20, 5, 17, 3)
    heights = in_one_frame(came)[..., 2]
    of_file = (heights > 6).flatten(1).all(1)
    assert of_file.sum() == 17
    torch.testing.assert_close(heights[of_file].amax((1, 2)), heights[of_file].amin((1, 2)))  # turned about up alone
    assert heights[of_file].amin() > 7 * 0.9 - 1e-3 and heights[of_file].amax() < 7 * 1.1 + 1e-3
