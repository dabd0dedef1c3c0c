"""One copy of a data set for all processes of a machine."""

import numpy as np
import pytest
import torch

from posekernels.archive import DataError
from posekernels.train.data import shared
from posekernels.train.data.windows import TrainWindows
from posekernels.train.place import Place
from tests.train.synthetic import synthetic


class Machine:
    """Two processes of one machine, one after the other: what the first hands over is kept for the second."""

    world = 2

    def __init__(self, rank: int, handed: list):
        self.rank, self.handed = rank, handed

    def gather(self, value):
        if self.rank == 0:
            self.handed.append(value)
        return [self.handed[0] if value is not None else None, value]


def both(monkeypatch, load):
    handed, found = [], []
    monkeypatch.setattr(shared.Path, "unlink", lambda self, missing_ok=False: None)  # the second has yet to open it
    for rank in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        found.append(shared.load_once(load if rank == 0 else pytest.fail, Machine(rank, handed)))
    return found


def test_processes_share_the_memory_of_the_clips(monkeypatch):
    data = synthetic()
    first, second = both(monkeypatch, lambda: data)
    for one in (first, second):
        assert one.skeleton is data.skeleton and one.name == data.name
        for a, b in zip([*data.train, *data.test], [*one.train, *one.test], strict=True):
            assert (a.subject, a.action, a.camera) == (b.subject, b.action, b.camera)
            np.testing.assert_array_equal(a.keypoints, b.keypoints)
            np.testing.assert_array_equal(a.positions, b.positions)
    windows = [TrainWindows(d.train, 16, *d.sides, pad=3, augment=True) for d in (data, first)]
    assert windows[1].frames.keypoints.data_ptr() == first.train[0].keypoints.ctypes.data, "no copy of its own"
    for a, b in zip(*windows, strict=True):
        assert torch.equal(a.keypoints, b.keypoints) and torch.equal(a.poses, b.poses)


def test_what_the_first_process_refuses_all_refuse(monkeypatch):
    def load():
        raise DataError("x.npz: no such file")

    handed = []
    for rank in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        with pytest.raises(DataError, match="no such file"):
            shared.load_once(load, Machine(rank, handed))


def test_one_process_just_loads():
    assert shared.load_once(lambda: "data", Place()) == "data"
