import numpy as np
import pytest
import torch

from posekernels.pose.skeleton import H36M_17
from posekernels.train.data import Clip, DataError
from posekernels.train.data import windows as w

SIDES = ((H36M_17.left, H36M_17.right), (H36M_17.left, H36M_17.right))


def clips(*lengths):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return [Clip("S1", str(i), 0, draw(n, 17, 2), draw(n, 17, 3), draw(9)) for i, n in enumerate(lengths)]


def one_window(clip, first, end, mirrored, pad, shift):
    """The published generator, window by window."""
    frames = np.arange(first - pad - shift, end + pad - shift).clip(0, len(clip.keypoints) - 1)
    keypoints, poses = (
        clip.keypoints[frames].copy(),
        clip.positions[np.arange(first, end).clip(0, len(clip.positions) - 1)].copy(),
    )
    camera = clip.intrinsics.copy()
    if mirrored:
        for a in (keypoints, poses):
            a[..., 0] *= -1
            a[:, list(H36M_17.left + H36M_17.right)] = a[:, list(H36M_17.right + H36M_17.left)]
        camera[[2, 7]] *= -1
    return keypoints, poses, camera


@pytest.mark.parametrize(("chunk", "pad", "shift"), [(1, 0, 0), (1, 4, 0), (1, 4, 4), (3, 2, 0), (5, 2, 2)])
def test_windows_equal_the_published_loop(chunk, pad, shift):
    data = clips(7, 1, 12)
    windows = w.TrainWindows(data, 5, *SIDES, chunk_length=chunk, pad=pad, causal_shift=shift, augment=True)
    seen = set()
    for batch in windows:
        for i, (clip, first, end, mirrored) in enumerate(batch.rows.tolist()):
            seen.add((clip, first, end, mirrored))
            want = one_window(data[clip], first, end, mirrored, pad, shift)
            for got, expected in zip((batch.keypoints[i], batch.poses[i], batch.cameras[i]), want):
                np.testing.assert_array_equal(got.numpy(), expected)
    assert len(seen) == 2 * sum(-(-n // chunk) for n in (7, 1, 12))


def test_epochs_differ_and_repeat_with_the_seed():
    def epochs(seed, count=2):
        windows = w.TrainWindows(clips(30), 8, *SIDES, seed=seed)
        return [np.concatenate([b.rows[:, 1] for b in windows]).tolist() for _ in range(count)]

    first, second = epochs(1234)
    assert first == np.random.RandomState(1234).permutation(30).tolist()
    assert first != second and epochs(1234) == [first, second] and epochs(1)[0] != first


def test_an_epoch_can_be_resumed():
    a = w.TrainWindows(clips(30), 8, *SIDES)
    list(a)
    b = w.TrainWindows(clips(30), 8, *SIDES)
    b.random.set_state(a.random.get_state())
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.keypoints, y.keypoints)


def test_ranks_together_see_the_batches_of_one_process():
    whole = list(w.TrainWindows(clips(10, 7), 4, *SIDES, pad=1, augment=True))
    ranks = [list(w.TrainWindows(clips(10, 7), 4, *SIDES, pad=1, augment=True, rank=r, world=3)) for r in range(3)]
    for i, batch in enumerate(whole):
        for r in range(3):
            assert torch.equal(ranks[r][i].keypoints, batch.keypoints[r::3])
            assert ranks[r][i].total == len(batch.rows)
    assert len(whole[-1].rows) == 2 and ranks[2][-1].keypoints.shape == (0, 3, 17, 2)


def test_batches_are_fresh_memory():
    windows = w.TrainWindows(clips(10), 5, *SIDES, augment=True)
    batches = list(windows)
    kept = batches[0].keypoints.clone()
    batches[1].keypoints.zero_()
    batches[1].poses.zero_()
    assert torch.equal(batches[0].keypoints, kept)
    assert windows.frames.keypoints.abs().min() > 0


def test_mirroring_undoes_itself():
    points = torch.randn(3, 17, 3)
    mirrored = w.mirror_points(points, *SIDES[0])
    assert torch.equal(w.mirror_points(mirrored, *SIDES[0]), points)
    assert torch.equal(mirrored[:, 4, 0], -points[:, 1, 0]) and torch.equal(mirrored[:, 4, 1], points[:, 1, 1])


def test_refusals():
    with pytest.raises(DataError, match="no clips"):
        w.TrainWindows([], 4, *SIDES)
    with pytest.raises(DataError, match="no frames"):
        w.TrainWindows(clips(3, 0), 4, *SIDES)
    with pytest.raises(ValueError, match="batch_size"):
        w.TrainWindows(clips(3), 0, *SIDES)
    with pytest.raises(ValueError, match="rank"):
        w.TrainWindows(clips(3), 4, *SIDES, rank=2, world=2)
    with pytest.raises(DataError, match="no 3D positions"):
        w.TrainWindows([Clip("v", "custom", 0, np.zeros((3, 17, 2), np.float32), None)], 4, *SIDES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_on_a_device_equal_those_on_the_cpu():
    here = w.TrainWindows(clips(30, 5), 8, *SIDES, pad=3, augment=True)
    there = w.TrainWindows(clips(30, 5), 8, *SIDES, pad=3, augment=True, device="cuda")
    for a, b in zip(here, there, strict=True):
        assert b.keypoints.is_cuda and torch.equal(a.keypoints, b.keypoints.cpu())
        assert torch.equal(a.poses, b.poses.cpu()) and torch.equal(a.cameras, b.cameras.cpu())
