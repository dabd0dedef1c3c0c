"""What all public ops have in common: the backend is a thread's own, arrays come by name, gradients are differentiated
once, errors are not rounded."""

import threading

import numpy as np
import pytest
import torch

from posekernels import use_backend
from posekernels._dispatch import requested
from posekernels.ops import procrustes_error, sample_hypotheses
from posekernels.pose.metrics import mpjpe, p_mpjpe


def test_a_named_backend_is_the_threads_own():
    found = []

    def look():
        found.append(requested(None))

    with use_backend("reference"):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        look()
    look()
    assert found == ["auto", "reference", "auto"]


def test_compiled_code_follows_the_named_backend():
    x = torch.zeros(2)
    which = torch.compile(lambda x: x + ("auto", "reference").index(requested(None)), fullgraph=True, backend="eager")
    assert which(x)[0] == 0
    with use_backend("reference"):
        assert which(x)[0] == 1
    assert which(x)[0] == 0


def test_arrays_by_name_in_any_order():
    keypoints, sigma = np.random.rand(2, 2, 17, 2).astype(np.float32), np.ones((2, 2, 17), np.float32)
    want = sample_hypotheses(keypoints, sigma, 3, alpha=0.1, seed=5)
    got = sample_hypotheses(alpha=0.1, samples=3, seed=5, sigma=sigma, keypoints=keypoints)
    assert isinstance(got, np.ndarray) and np.array_equal(got, want)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'predicted'"):
        mpjpe(target=keypoints)
    with pytest.raises(TypeError, match="must be a torch.Tensor"):
        mpjpe(None, target=keypoints)


def test_errors_keep_the_targets_precision_under_autocast():
    target = torch.randn(50, 17, 3)
    predicted = (target + 0.01 * torch.randn(50, 17, 3)).bfloat16()
    for metric in (mpjpe, p_mpjpe, procrustes_error):
        with torch.autocast("cpu", torch.bfloat16):
            got = metric(predicted, target)
        assert got.dtype == torch.float32 and torch.equal(got, metric(predicted.float(), target))
