"""NumPy's and CuPy's arrays in place of tensors."""

import contextlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from posekernels.arrays import accepts_arrays


class Array:
    """Stands in for CuPy's, where there is no GPU: a tensor behind DLPack."""

    device = SimpleNamespace(id=3)

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__()

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


Array.__module__ = "cupy"


def test_cupys_arrays_share_memory_and_its_current_stream(monkeypatch):
    streams = []

    @contextlib.contextmanager
    def inside(stream):
        streams.append(stream)
        yield
        streams.pop()

    cuda = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=64))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, from_dlpack=Array))
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda pointer, device: (pointer, device))
    monkeypatch.setattr(torch.cuda, "stream", inside)
    seen = []

    @accepts_arrays
    def double(x, y):
        seen.append((x.data_ptr(), y.data_ptr(), *streams))
        return x.mul_(2), y

    x, y = torch.ones(3), torch.zeros(3)
    first, second = double(Array(x), y=Array(y))
    assert seen == [(x.data_ptr(), y.data_ptr(), (64, 3))] and not streams
    assert isinstance(first, Array) and first.tensor.data_ptr() == x.data_ptr() and x.eq(2).all()
    assert second.tensor.data_ptr() == y.data_ptr()
    double(np.ones(3), np.ones(3))
    assert len(seen[-1]) == 2  # no stream of CuPy's for NumPy


def test_the_example_with_cupy(capsys):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not torch.cuda.is_available() or not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "with_cupy.py"))
    assert "cupy array (4096, 17, 3)" in capsys.readouterr().out
