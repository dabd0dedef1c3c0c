"""From clips to batches of windows: the generators of the lifting papers, in their exact order, gathered at once.

All frames live in one tensor; a batch is one indexed read of it, so every batch is fresh memory. Source: data_h36m
section 7; the quirks in its list (edge frames that count twice, the root mirrored too, p2 left alone) are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from posekernels.archive import DataError

from .clips import Clip
from .shared import end_to_end


def mirror_order(count: int, left: Sequence[int], right: Sequence[int]) -> list[int]:
    """The point that each of ``count`` points becomes in a mirror."""
    order = list(range(count))
    for l, r in zip(left, right, strict=True):
        order[l], order[r] = r, l
    return order


def mirror_points(points: Tensor, left: Sequence[int], right: Sequence[int]) -> Tensor:
    """Mirror keypoints [..., K, >= 2] or poses [..., J, 3]: x negated, left and right exchanged. Its own inverse."""
    points = points[..., mirror_order(points.shape[-2], left, right), :]
    return torch.cat((-points[..., :1], points[..., 1:]), -1)


def mirror_camera(vector: Tensor) -> Tensor:
    """Mirror camera vectors [..., 9]: cx and p1 negated (not p2: published)."""
    sign = torch.ones(9, dtype=vector.dtype, device=vector.device)
    sign[[2, 7]] = -1
    return vector * sign


@dataclass
class Batch:
    """Windows of clips.

    Args:
        keypoints: [B, W, K, C] 2D windows, screen units; W = chunk length + 2 pad.
        poses: [B, L, J, 3] metres, joint 0 the absolute trajectory; None where the clips have no ground truth.
        cameras: [B, 9].
        rows: [B, 4] int64 on the CPU: clip, first frame, end frame (may lie outside the clip), mirrored (0 or 1).
        total: rows of the batch over all processes (B on a single one): weigh a loss by B * world / total.
    """

    keypoints: Tensor
    poses: Tensor | None
    cameras: Tensor
    rows: np.ndarray
    total: int


class _Frames:
    """The frames of many clips end to end, and windows of them, plain or mirrored."""

    def __init__(
        self,
        clips: Sequence[Clip],
        keypoint_sides: tuple[Sequence[int], Sequence[int]],
        joint_sides: tuple[Sequence[int], Sequence[int]],
        device: torch.device | str,
    ):
        if not clips:
            raise DataError("windows: no clips; expected at least one")
        self.lengths = np.array([len(c.keypoints) for c in clips])
        if not self.lengths.all():
            empty = clips[int(np.argmin(self.lengths))]
            raise DataError(f"windows: {empty.subject} {empty.action} camera {empty.camera} has no frames")
        have = [c.positions is not None for c in clips]
        if any(have) and not all(have):
            raise DataError(f"windows: {sum(have)} of {len(clips)} clips have 3D positions; expected all or none")
        self.starts = np.concatenate(([0], np.cumsum(self.lengths)[:-1]))
        self.device, self.keypoint_sides, self.joint_sides = device, keypoint_sides, joint_sides
        self.keypoints = torch.from_numpy(end_to_end([c.keypoints for c in clips])).to(device)
        self.cameras = torch.from_numpy(np.stack([c.intrinsics for c in clips])).to(device)
        self.poses = None
        if all(have):
            self.poses = torch.from_numpy(end_to_end([c.positions for c in clips])).to(device)

    def keypoints_of(self, clips: np.ndarray, first: np.ndarray, width: int, mirrored: np.ndarray) -> Tensor:
        """[B, width, K, C] from frame ``first`` on; frames outside a clip repeat its first or last one."""
        return self._mirrored(self._read(self.keypoints, clips, first, width), mirrored, self.keypoint_sides)

    def poses_of(self, clips: np.ndarray, first: np.ndarray, width: int, mirrored: np.ndarray) -> Tensor:
        """[B, width, J, 3], as ``keypoints_of``."""
        return self._mirrored(self._read(self.poses, clips, first, width), mirrored, self.joint_sides)

    def _read(self, frames: Tensor, clips: np.ndarray, first: np.ndarray, width: int) -> Tensor:
        inside = (first[:, None] + np.arange(width)).clip(0, self.lengths[clips][:, None] - 1)
        index = torch.from_numpy(inside + self.starts[clips][:, None]).to(self.device)
        return frames.index_select(0, index.reshape(-1)).unflatten(0, index.shape)

    def _mirrored(self, windows: Tensor, mirrored: np.ndarray, sides) -> Tensor:
        turned = torch.from_numpy(np.flatnonzero(mirrored)).to(self.device)
        if len(turned):
            windows[turned] = mirror_points(windows[turned], *sides)
        return windows

    def batch(self, rows: np.ndarray, pad: int, shift: int, length: int, total: int) -> Batch:
        clips, first, mirrored = rows[:, 0], rows[:, 1], rows[:, 3]
        keypoints = self.keypoints_of(clips, first - pad - shift, length + 2 * pad, mirrored)
        poses = None if self.poses is None else self.poses_of(clips, first, length, mirrored)
        cameras = self.cameras[torch.from_numpy(clips).to(self.device)]
        turned = torch.from_numpy(np.flatnonzero(mirrored)).to(self.device)
        cameras[turned] = mirror_camera(cameras[turned])
        return Batch(keypoints, poses, cameras, rows, total)


def _chunks(lengths: np.ndarray, chunk: int, augment: bool) -> np.ndarray:
    """[N, 4] rows (clip, first, end, mirrored): per clip its chunks plain, then mirrored; centred on the clip."""
    rows = []
    for clip, frames in enumerate(lengths):
        count = -(-frames // chunk)
        first = np.arange(count) * chunk - (count * chunk - frames) // 2
        for mirrored in (0, 1)[: 1 + augment]:
            rows.append(np.stack((np.full(count, clip), first, first + chunk, np.full(count, mirrored)), 1))
    return np.concatenate(rows).astype(np.int64)


class TrainWindows:
    """Shuffled windows for training; iterating is one epoch, and each epoch has its own order.

    Args:
        clips: with 3D positions.
        batch_size: windows in a batch over all processes.
        keypoint_sides, joint_sides: (left, right) of the 2D points and of the 3D joints.
        chunk_length: L, target frames in a window. pad: extra input frames on each side.
        causal_shift: 0, or ``pad`` for windows that look only back.
        shuffle, seed: NumPy's legacy ``RandomState(seed).permutation``, whose state (``random``) goes on from epoch to
            epoch: save and restore it to resume.
        augment: every window a second time, mirrored.
        rank, world: this process reads rows rank, rank + world, ... of each batch, so that all processes together see
            the batches of a single one. The last batch may have none for some ranks (B = 0).
        device: where the frames are kept and the batches come out.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        batch_size: int,
        keypoint_sides: tuple[Sequence[int], Sequence[int]],
        joint_sides: tuple[Sequence[int], Sequence[int]],
        *,
        chunk_length: int = 1,
        pad: int = 0,
        causal_shift: int = 0,
        shuffle: bool = True,
        seed: int = 1234,
        augment: bool = False,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ):
        if batch_size < 1 or chunk_length < 1 or pad < 0:
            raise ValueError(
                f"windows: batch_size and chunk_length must be at least 1 and pad at least 0, got {batch_size}, "
                f"{chunk_length}, {pad}"
            )
        if not 0 <= rank < world:
            raise ValueError(f"windows: rank must be in [0, world), got rank {rank}, world {world}")
        self.frames = _Frames(clips, keypoint_sides, joint_sides, device)
        if self.frames.poses is None:
            raise DataError("TrainWindows: the clips have no 3D positions to learn from")
        self.batch_size, self.chunk_length, self.pad, self.causal_shift = batch_size, chunk_length, pad, causal_shift
        self.shuffle, self.rank, self.world = shuffle, rank, world
        self.random = np.random.RandomState(seed)
        self.rows = _chunks(self.frames.lengths, chunk_length, augment)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows) // self.batch_size)

    @property
    def frames_reported(self) -> int:
        """What the published programs print as the number of training frames: batches times batch size."""
        return len(self) * self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        rows = self.rows[self.random.permutation(len(self.rows))] if self.shuffle else self.rows
        for start in range(0, len(rows), self.batch_size):
            whole = rows[start : start + self.batch_size]
            mine = whole[self.rank :: self.world]
            yield self.frames.batch(mine, self.pad, self.causal_shift, self.chunk_length, len(whole))
