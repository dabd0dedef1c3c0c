"""``models.forecast``: any skeleton in, the same kind of array out."""

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.models.forecasting import CMU_USED
from posekernels.models.pkd import roll_out
from posekernels.pose.skeleton import CMU_38
from posekernels.train.data.forecasting import CMU


def history(frames=50, joints=38, seed=0):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(size=(frames, joints, 3)) * 0.01, 0).astype(np.float32) + 0.5


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = models.create("simlpe", joints=4, history=12, future=3, blocks=2)
    return torch.nn.init.normal_(net.head.weight, 0, 0.05) is not None and net


def test_metres_in_whole_numbers_are_refused(net):
    with pytest.raises(TypeError, match="history must be metres in floating point, got torch.int64"):
        models.forecast(np.zeros((12, 4, 3), np.int64), net, 3)


def test_is_the_roll_out_relative_to_the_root(net):
    past = torch.from_numpy(history(15, 4))
    got = models.forecast(past, net, 7)
    relative = past[-12:] - past[-12:, :1]
    with torch.no_grad():
        want = roll_out(net, relative[None], 7)[0]
    assert torch.allclose(got, want + past[-1, 0], atol=1e-6)
    assert models.forecast(past.numpy(), net, 7).shape == (7, 4, 3)
    assert torch.equal(models.forecast(torch.stack((past, past)), net, 7)[1], got)
    step = past[-1, 0] - past[-2, 0]
    straight = models.forecast(past, net, 7, trajectory="straight")
    assert torch.allclose(straight[-1], got[-1] + 7 * step, atol=1e-5)


def test_shipped_network():
    past = history()
    past[:, 16] = past[:, 15]  # a copy, as in the data
    future = models.forecast(past)
    assert isinstance(future, np.ndarray) and future.shape == (25, 38, 3) and np.isfinite(future).all()
    assert np.array_equal(future[:, 16], future[:, 15])
    assert np.allclose(future[:, [0, 1, 7]], past[-1, [0, 1, 7]])  # hang on the root: the body stands where it was
    assert CMU.used == CMU_USED and CMU_38.num_joints == 38


@pytest.mark.parametrize(
    "change, words",
    [
        ({"history": history(11, 4)}, r"must be \[T >= 12, 4, 3\]"),
        ({"history": history(12, 5)}, "the network takes 4 joints; used names 5 of 5"),
        ({"history": history(12, 5), "used": (0, 1, 2, 9)}, "used names 4 of 5"),
        ({"frames": 0}, "frames must be 1 or more"),
        ({"trajectory": "curved"}, "trajectory one of still, straight"),
        ({"history": np.full((12, 4, 3), np.nan, np.float32)}, "NaN"),
    ],
)
def test_refusals(net, change, words):
    given = {"history": history(12, 4), "net": net} | change
    with pytest.raises(ValueError, match=words):
        models.forecast(**given)
