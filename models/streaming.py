"""Networks of windows on videos: every frame of a clip at once (``lift``), or frames as they come (``stream``)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def windows(frames: Tensor, size: int, first: int = 0, last: int | None = None, target: int | None = None) -> Tensor:
    """[T, ...] -> [last - first, size, ...]: the window of each frame; beyond the ends the edge frame repeats.

    Args:
        first, last: which frames.
        target: where a frame lies in its window; by default in the middle.
    """
    targets = torch.arange(first, len(frames) if last is None else last, device=frames.device)
    offsets = torch.arange(size, device=frames.device) - ((size - 1) // 2 if target is None else target)
    return frames[(targets[:, None] + offsets).clamp(0, len(frames) - 1)]


def _check(op: str, net: nn.Module) -> None:
    for attribute, what in (("frames", "a number of frames"), ("target", "one frame that it answers for")):
        if not isinstance(getattr(net, attribute, None), int):
            raise TypeError(f"{op}: {type(net).__name__} is not a network of windows (it lacks {what})")
    if net.training:
        raise ValueError(f"{op}: the network is in training mode; call net.eval() first")


def _check_joints(op: str, net: nn.Module, joints: int, mirrored: bool) -> None:
    if net.skeleton is None:
        if mirrored:
            raise ValueError(f"{op}: left and right of this network's joints are not known; pass mirrored=False")
    elif joints != net.skeleton.num_joints:
        raise ValueError(f"{op}: keypoints must have {net.skeleton.num_joints} joints, got {joints}")


@torch.no_grad()
def lift(net: nn.Module, keypoints: Tensor, *, mirrored: bool = True, batch: int = 64) -> Tensor:
    """The 3D pose of every frame of a clip, each from its own window; windows go through the network in batches.

    What the network does with a frame by itself (``net.embedding``) is done once per frame, not once per window.

    Args:
        net: in eval mode, [B, F, J, 2] -> [B, 1, J, 3], with ``frames``, ``target`` (the frame of the window whose pose
            comes out) and ``skeleton`` (None where its joints cannot be mirrored).
        keypoints: [T, J, 2] normalised screen units, T >= 1.
        mirrored: average with the un-mirrored result of the mirrored clip, as the published evaluation does.
        batch: windows at a time (mirrored ones not counted).
    Returns:
        [T, J, 3] metres, the root at 0.
    Raises:
        TypeError: a network of single frames, or one that answers for every frame of its window.
        ValueError: keypoints of another shape, a network in training mode or of more than one frame in the end.
    """
    _check("lift", net)
    if keypoints.dim() != 3 or keypoints.shape[2] != 2 or not len(keypoints):
        raise ValueError(f"lift: keypoints must be [T >= 1, J, 2], got {list(keypoints.shape)}")
    _check_joints("lift", net, keypoints.shape[1], mirrored)
    views = [keypoints, net.skeleton.mirror(keypoints)] if mirrored else [keypoints]
    if hasattr(net, "sequence"):  # knows better what its windows share
        found = [net.sequence(view) for view in views]
        poses = (found[0] + net.skeleton.mirror(found[1])) / 2 if mirrored else found[0]
        poses[:, 0] = 0
        return poses
    cached = hasattr(net, "embedding")
    views = [net.embedding(view[None])[0] if cached else view for view in views]
    run = net.encode if cached else net
    poses = []
    for first in range(0, len(keypoints), batch):
        last = min(first + batch, len(keypoints))
        seen = torch.cat([windows(view, net.frames, first, last, net.target) for view in views])
        found = run(seen)[:, 0].chunk(len(views))
        poses.append((found[0] + net.skeleton.mirror(found[1])) / 2 if mirrored else found[0])
    poses = torch.cat(poses)
    poses[:, 0] = 0
    return poses


class Stream:
    """Frames in, one at a time; poses out, ``latency`` frames later. From ``stream``."""

    def __init__(self, net: nn.Module, latency: int, mirrored: bool):
        self.net, self.latency, self.mirrored = net, latency, mirrored
        self.cached = hasattr(net, "embedding")
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a new video."""
        self.seen = 0
        self.given = 0
        self.rows: Tensor | None = None  # the latest frames, embedded: [1 or 2 views, B, frames, ...]

    @torch.no_grad()
    def push(self, keypoints: Tensor) -> Tensor | None:
        """Take the next frame, [J, 2] or [B, J, 2] (B people, or videos, side by side), normalised screen units.

        Returns:
            [J, 3] or [B, J, 3] metres, root at 0: the pose ``latency`` frames back; None for the first ``latency``.
        """
        net = self.net
        single = keypoints.dim() == 2
        frame = keypoints[None] if single else keypoints
        if frame.dim() != 3 or frame.shape[-1] != 2:
            raise ValueError(f"stream: a frame must be [J, 2] or [B, J, 2], got {list(keypoints.shape)}")
        _check_joints("stream", net, frame.shape[1], self.mirrored)
        if self.rows is not None and self.rows.shape[1] != len(frame):
            raise ValueError(f"stream: earlier frames held {self.rows.shape[1]} people, this one holds {len(frame)}")
        self.single = single
        views = torch.stack([frame, net.skeleton.mirror(frame)] if self.mirrored else [frame])[:, :, None]
        if self.cached:
            views = net.embedding(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        keep = net.target + self.latency  # no window reaches further back
        self.rows = (
            views
            if self.rows is None
            else torch.cat((self.rows[:, :, -keep:] if keep else self.rows[:, :, :0], views), 2)
        )
        self.seen += 1
        return self._pose() if self.seen - self.given > self.latency else None

    def finish(self) -> list[Tensor]:
        """The poses of the frames still awaited at the end of the video; then ``reset``."""
        poses = []
        while self.given < self.seen:
            poses.append(self._pose())
        self.reset()
        return poses

    @torch.no_grad()
    def _pose(self) -> Tensor:
        """The pose of frame ``given``, the earliest not yet answered; frames not there yet repeat the latest one."""
        net, rows = self.net, self.rows
        first = self.seen - rows.shape[2]  # number of the earliest frame kept
        offsets = torch.arange(net.frames, device=rows.device) - net.target
        index = (self.given - first + offsets).clamp(0, rows.shape[2] - 1)
        window = rows[:, :, index].flatten(0, 1)
        found = (net.encode(window) if self.cached else net(window))[:, 0].chunk(len(rows))
        pose = (found[0] + net.skeleton.mirror(found[1])) / 2 if self.mirrored else found[0].clone()
        pose[:, 0] = 0
        self.given += 1
        return pose[0] if self.single else pose


def stream(net: nn.Module, latency: int | None = None, *, mirrored: bool = False) -> Stream:
    """Lift a video frame by frame: ``pose = stream.push(frame)``, and ``stream.finish()`` after the last one.

    Equal to ``lift`` on the same window: of the frame answered for, with the frames up to the latest one pushed; later
    frames of the window, which have not come yet, repeat the latest one. With the full ``latency``, of the frames that
    the network sees after the one it answers for, that is the offline result.

    Cached from frame to frame is the embedding, which sees one frame at a time (with its mirror image). Nothing else
    can be, exactly: a position embedding is added next, so a frame that moves along in the window changes every later
    activation, keys and values included.

    Args:
        net: as for ``lift``.
        latency: frames to wait, 0 to F - 1 - ``net.target`` ((F - 1) / 2, but 0 where the network is causal); by
            default as many, the most accurate.
        mirrored: average with the un-mirrored result of the mirrored window (twice the work).
    Raises:
        ValueError: a latency outside the range, or a network in training mode.
        TypeError: as for ``lift``.
    """
    _check("stream", net)
    after = net.frames - 1 - net.target
    latency = after if latency is None else latency
    if not isinstance(latency, int) or not 0 <= latency <= after:
        raise ValueError(
            f"stream: latency must be 0 to {after} (frames that the network sees after the one it answers for), "
            f"got {latency}"
        )
    return Stream(net, latency, mirrored)
