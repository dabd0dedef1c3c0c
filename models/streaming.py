"""Networks of windows on frames as they come: ``stream``."""

from __future__ import annotations

import torch
from torch import Tensor

from posekernels.graphs import Replays

from .lifting import LiftsWindows, both_ways, check_lifts, check_tensor, merged, mirror_of


class Stream:
    """Frames in, one at a time; poses out, ``latency`` frames later. From ``stream``."""

    def __init__(self, net: LiftsWindows, latency: int, mirrored: bool):
        self.net, self.latency = net, latency
        self.mirror = mirror_of("stream", net) if mirrored else None
        self._replays = Replays()
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a new video."""
        self.seen = 0
        self.given = 0
        self.rows: Tensor | None = None  # the latest frames, embedded: [1 or 2 views, B, frames, ...]

    @torch.no_grad()
    def push(self, keypoints: Tensor) -> Tensor | None:
        """Take the next frame, [J, 2] or [B, J, 2] (B people, or videos, side by side), as the network ``sees`` it.

        Returns:
            [J, 3] or [B, J, 3] metres, root at 0: the pose ``latency`` frames back; None for the first ``latency``.
        Raises:
            TypeError: a frame that is no tensor, or of another dtype than the weights.
            ValueError: a frame of another shape, or a first one that cannot be what the network ``sees`` (pixels).
        """
        net = self.net
        check_tensor("stream", keypoints)
        single = keypoints.dim() == 2
        frame = keypoints[None] if single else keypoints
        if frame.dim() != 3 or frame.shape[-1] != 2:
            raise ValueError(f"stream: a frame must be [J, 2] or [B, J, 2], got {list(keypoints.shape)}")
        net.check_joints("stream", frame.shape[1])
        if self.rows is not None and self.rows.shape[1] != len(frame):
            raise ValueError(f"stream: earlier frames held {self.rows.shape[1]} people, this one holds {len(frame)}")
        net.check_dtype("stream", frame)
        if not self.seen:
            net.check_units("stream", frame[:, None])
        self.single = single
        views = (both_ways(frame, self.mirror) if self.mirror else frame[None])[:, :, None]
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
        window = rows[:, :, index]
        found = self._replays(None, net.encode, window.flatten(0, 1))[:, 0].unflatten(0, window.shape[:2])
        pose = merged(found, self.mirror) if self.mirror else found[0].clone()
        pose[:, 0] = 0
        self.given += 1
        return pose[0] if self.single else pose


def stream(net: LiftsWindows, latency: int | None = None, *, mirrored: bool = False) -> Stream:
    """Lift a video frame by frame: ``pose = stream.push(frame)``, and ``stream.finish()`` after the last one.

    Equal to ``lift`` on the same window: of the frame answered for, with the frames up to the latest one pushed; later
    frames of the window, which have not come yet, repeat the latest one. With the full ``latency``, of the frames that
    the network sees after the one it answers for, that is the offline result.

    Cached from frame to frame is the embedding, which sees one frame at a time (with its mirror image). Nothing else
    can be, exactly: a position embedding is added next, so a frame that moves along in the window changes every later
    activation, keys and values included.

    Args:
        net: of windows, in eval mode.
        latency: frames to wait, 0 to F - 1 - ``net.target`` ((F - 1) / 2, but 0 where the network is causal); by
            default as many, the most accurate.
        mirrored: average with the un-mirrored result of the mirrored window (twice the work).
    Raises:
        ValueError: a latency outside the range, or a network in training mode.
        TypeError: a network that is not of windows.
    """
    check_lifts("stream", net, LiftsWindows)
    net.check_mode("stream")
    after = net.frames - 1 - net.target
    latency = after if latency is None else latency
    if not isinstance(latency, int) or not 0 <= latency <= after:
        raise ValueError(
            f"stream: latency must be 0 to {after} (frames that the network sees after the one it answers for), "
            f"got {latency}"
        )
    return Stream(net, latency, mirrored)
