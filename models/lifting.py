"""The contract of every network that lifts: ``net.lift(keypoints)``, a pose for every frame, whatever it does inside.

A network says what it wants to see (``sees``, ``frames``, ``skeleton``) and derives from the class that tells how it
looks at a clip: ``LiftsFrames``, ``LiftsWindows`` or ``LiftsChunks``; a system of several networks from ``Lifts``.
``lift(net, keypoints)`` puts mirroring around any of them.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from posekernels.checks import check_integer
from posekernels.pose.skeleton import Skeleton
from posekernels.prepared import captured

RATE = 50.0  # frames per second that lifters are trained at
SLOW = 25.0  # under which they miss much between two frames
SPAN = 0.5  # seconds that a window of ours spans, at no more than ``RATE`` frames per second
FRAMES, WINDOWS, CHUNK_FRAMES = 512, 128, 1024  # at once, in inference: enough to keep a machine busy
SIZES = 0.2, 5.0  # of a person who is scaled to 1, averaged over a clip: what is beyond was not scaled
FAR = 4.0  # screen units: half of all coordinates beyond are pixels; an image ends at 1
CENTRED = "centre_on_person(coco_to_h36m(k))[0] of posekernels.pose.keypoints makes them from COCO's pixels"
SCREEN = "normalise_screen(pixels, width, height) of posekernels.pose.camera makes them"
_looked_at: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # networks whose first keypoints on a card were checked


class Lifts(nn.Module):
    """A network, or a system of them, that turns 2D keypoints into 3D poses.

    Attributes:
        sees: what its weights were trained on: "screen" (``pose.camera.normalise_screen``: x from -1 to 1 across the
            image) or "person" (``pose.keypoints.centre_on_person``: the root at 0, joints about 1 from it).
        frames: F, seen at once; 1 for single frames.
        target: the frame of the F that its pose is of; None where a pose of each of them comes out.
        mirrors: whether it averages with the mirror image by itself.
        skeleton: of input and output; None where left and right of its joints are not known.
        in_channels, outputs: numbers per joint that go in and come out.
    """

    sees = "screen"
    frames = 1
    target: int | None = None
    mirrors = False
    skeleton: Skeleton | None
    in_channels, outputs = 2, 3

    def takes(self, skeleton: Skeleton) -> bool:
        """Whether it turns 2D joints of ``skeleton`` into its 3D joints."""
        return self.skeleton is skeleton and (self.in_channels, self.outputs) == (2, 3)

    @torch.no_grad()
    def lift(self, keypoints: Tensor) -> Tensor:
        """The 3D pose of every frame of a clip, or of B clips of one length.

        Args:
            keypoints: [T, J, 2] or [B, T, J, 2], T >= 1, in the units of ``sees``. NaN, a joint that was not seen,
                makes NaN of every pose whose frames hold one: ``people`` fills such gaps before.
        Returns:
            [T, J, 3] or [B, T, J, 3] metres; the root as the network predicts it. A network of several frames sees the
            clip's first and last one repeated beyond its ends.
        Raises:
            TypeError: keypoints that are no tensor, or of another dtype than the weights.
            ValueError: keypoints of another shape, or that cannot be what the network ``sees`` (pixels); a network in
                training mode, or one of windows that answers for several of their frames.
        Warns:
            UserWarning: keypoints centred on a person, for a network that sees the screen.
        """
        self.check_clips(keypoints)
        return self.lift_checked(keypoints)

    @torch.no_grad()
    def lift_checked(self, keypoints: Tensor) -> Tensor:
        """``lift`` after its checks."""
        clips = keypoints if keypoints.dim() == 4 else keypoints[None]
        poses = self.every_frame(clips) if len(clips) else clips.new_empty(*clips.shape[:-1], 3)
        return poses if keypoints.dim() == 4 else poses[0]

    def check_clips(self, keypoints: Tensor) -> None:
        """Raises TypeError or ValueError for what ``lift`` does not take."""
        check_tensor("lift", keypoints)
        if keypoints.dim() not in (3, 4) or keypoints.shape[-1] != 2 or not keypoints.shape[-3]:
            raise ValueError(f"lift: keypoints must be [T >= 1, J, 2] or [B, T, J, 2], got {list(keypoints.shape)}")
        self.check_mode("lift")
        self.check_joints("lift", keypoints.shape[-2])
        self.check_dtype("lift", keypoints)
        self.check_units("lift", keypoints)

    def check_mode(self, op: str) -> None:
        """Raises ValueError in training mode."""
        if self.training:
            raise ValueError(f"{op}: the network is in training mode; call net.eval() first")

    def check_joints(self, op: str, joints: int) -> None:
        """Raises ValueError where the skeleton has not so many joints."""
        if self.skeleton is not None and joints != self.skeleton.num_joints:
            raise ValueError(f"{op}: keypoints must have {self.skeleton.num_joints} joints, got {joints}")

    def check_dtype(self, op: str, keypoints: Tensor) -> None:
        """Raises TypeError for another dtype than the weights', which autocast would change."""
        weights = next((p.dtype for p in self.parameters()), keypoints.dtype)
        if keypoints.dtype != weights and not torch.is_autocast_enabled(keypoints.device.type):
            want, got = (str(dtype).removeprefix("torch.") for dtype in (weights, keypoints.dtype))
            raise TypeError(f"{op}: keypoints must be {want} as the weights, got {got}")

    def check_units(self, op: str, keypoints: Tensor) -> None:
        """Raises ValueError for keypoints [..., T, J, 2] that cannot be what the network ``sees``; warns where they
        were hardly meant for it. Joints that are NaN, unseen, tell nothing and are passed over.

        On a GPU only the first ones of a network are looked at, and none while calls are recorded: reading values
        stalls a GPU, and no graph holds it.
        """
        if not keypoints.numel() or not _readable(self, keypoints):
            return
        keypoints = keypoints.float()
        root = keypoints[..., 0, :]
        off = root.abs().nan_to_num(-1, torch.inf).amax().item()  # -1 where it is never seen
        if self.sees == "screen":
            middle = keypoints.abs().nanmedian().item()
            if middle > FAR:
                raise ValueError(
                    f"{op}: this network sees the screen, x from -1 to 1 across the image; half of these coordinates "
                    f"are beyond {middle:.3g}, as in pixels. {SCREEN}"
                )
            if off == 0 and middle > 0 and keypoints.shape[-3] > 1:
                warnings.warn(
                    f"{op}: this network sees the screen, where a person walks about, but joint 0 is at 0 in every "
                    f"frame, as centre_on_person leaves it. {SCREEN}",
                    stacklevel=4,
                )
            return
        size = (keypoints - root[..., None, :]).norm(dim=-1).nanmean().item()
        if off > 0.01 or 0 < size < SIZES[0] or size > SIZES[1]:
            raise ValueError(
                f"{op}: this network sees a person with joint 0 at 0 and the joints about 1 from it; these have joint "
                f"0 up to {off:.3g} off, and the joints {size:.3g} from it. {CENTRED}"
            )

    def every_frame(self, clips: Tensor) -> Tensor:
        """[B >= 1, T, J, 2] -> [B, T, J, 3]: what ``lift`` does after its checks."""
        raise NotImplementedError


class LiftsFrames(Lifts):
    """Each frame by itself: ``forward`` is [B, T, J, 2] -> [B, T, J, 3]."""

    def every_frame(self, clips: Tensor) -> Tensor:
        poses = [self.poses(part) for part in clips.flatten(0, 1).split(FRAMES)]
        return torch.cat(poses).unflatten(0, clips.shape[:2])

    def poses(self, keypoints: Tensor) -> Tensor:
        """[N, J, 2] -> [N, J, 3]."""
        return self(keypoints[:, None])[:, 0]


class LiftsWindows(Lifts):
    """One frame, ``target``, from a window of F: ``forward`` is [B, F, J, 2] -> [B, 1, J, 3].

    ``forward`` is ``encode(embedding(window))``. ``embedding`` sees each frame by itself: done once per frame, not once
    per window.
    """

    target: int

    def embedding(self, keypoints: Tensor) -> Tensor:
        """[B, T, J, 2] -> [B, T, ...], each frame by itself."""
        return keypoints

    def encode(self, embedded: Tensor) -> Tensor:
        """[B, F, ...] -> [B, 1, J, 3]."""
        return self(embedded)

    def every_frame(self, clips: Tensor) -> Tensor:
        length, seen = clips.shape[1], self.embedding(clips)
        rows = window_rows(length, self.frames, self.target, clips.device)
        frames = torch.arange(len(clips) * length, device=clips.device)
        poses = [self.encode(seen[(n // length)[:, None], rows[n % length]])[:, 0] for n in frames.split(WINDOWS)]
        return torch.cat(poses).unflatten(0, clips.shape[:2])


class LiftsChunks(Lifts):
    """All frames of a chunk of F at once: ``forward`` is [B, F, J, 2] -> [B, F, J, 3]."""

    def every_frame(self, clips: Tensor) -> Tensor:
        chunks = chunked(clips, self.frames)
        parts = chunks.flatten(0, 1).split(max(1, CHUNK_FRAMES // self.frames))
        return stitched(torch.cat([self(part) for part in parts]).unflatten(0, chunks.shape[:2]), clips.shape[1])


def check_tensor(op: str, keypoints) -> None:
    """Raises TypeError for what is no tensor."""
    if not isinstance(keypoints, Tensor):
        kind = type(keypoints)
        raise TypeError(f"{op}: keypoints must be a torch.Tensor, got {kind.__module__}.{kind.__qualname__}")


def _readable(net: nn.Module, keypoints: Tensor) -> bool:
    """Whether values may be read on the host; on a GPU once for each network."""
    if keypoints.device.type == "meta" or captured():
        return False
    if keypoints.device.type == "cpu":
        return True
    if net in _looked_at or keypoints.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    _looked_at.add(net)
    return True


# -- mirroring -------------------------------------------------------------------------------------------------------
def both_ways(keypoints: Tensor, mirror: Callable[[Tensor], Tensor]) -> Tensor:
    """[2, ...]: keypoints and their mirror image."""
    return torch.stack((keypoints, mirror(keypoints)))


def merged(poses: Tensor, mirror: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of the first of two poses [2, ...] and of the second, mirrored back."""
    return (poses[0] + mirror(poses[1])) / 2


def lift_both_ways(
    lift: Callable[[Tensor], Tensor],
    keypoints: Tensor,
    mirror: Callable[[Tensor], Tensor],
    mirror_back: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``lift`` of [T, J, 2] or [B, T, J, 2] and of the mirror image, merged; ``mirror_back`` where poses differ."""
    views = both_ways(keypoints, mirror)
    return merged(lift(views.flatten(0, -4)).unflatten(0, views.shape[:-3]), mirror_back or mirror)


def lift(net: Lifts, keypoints: Tensor | np.ndarray, *, mirrored: bool = True, apart: int = 1) -> Tensor | np.ndarray:
    """The 3D pose of every frame of a clip, as published evaluations take it: ``net.lift``, mirrored and averaged.

    Args:
        net: in eval mode.
        keypoints: as for ``net.lift``, NaN too; or a NumPy array, which goes to the network's device and dtype.
        mirrored: average with the un-mirrored result of the mirrored clip (twice the work).
        apart: windows take every ``apart``-th frame, for videos of more frames per second than the network learnt from
            (``pace``). A network that draws noise draws the same for each of the ``apart`` clips that this makes.
    Returns:
        [T, J, 3] or [B, T, J, 3] metres, the root at 0, in the kind of ``keypoints``; float32 of an array.
    Raises:
        TypeError: a network that does not lift, keypoints that are neither, ``apart`` that is no integer.
        ValueError: as ``net.lift``; to mirror joints of which left and right are not known; ``apart`` below 1.
    """
    check_lifts("lift", net)
    if isinstance(keypoints, np.ndarray):
        given = torch.from_numpy(np.array(keypoints, np.float32, order="C")).to(next(net.parameters()))
        return lift(net, given, mirrored=mirrored, apart=apart).float().cpu().numpy()
    net.check_clips(keypoints)  # before they are mirrored
    apart = check_integer("lift", "apart", apart, least=1)
    once = net.lift_checked
    if mirrored and not net.mirrors:
        once = functools.partial(lift_both_ways, net.lift_checked, mirror=mirror_of("lift", net))
    parts = [once(keypoints[..., first::apart, :, :]) for first in range(min(apart, keypoints.shape[-3]))]
    poses = parts[0].new_empty(*keypoints.shape[:-2], *parts[0].shape[-2:])
    for first, part in enumerate(parts):
        poses[..., first::apart, :, :] = part
    poses[..., 0, :] = 0
    return poses


def pace(net: Lifts, fps: float) -> tuple[int, int]:
    """How to show a video of ``fps`` frames per second: (steps, apart).

    Where frames are too far apart for the network, ``steps`` of its own go from one to the next; where they are too
    close, its windows take every ``apart``-th. Published networks answer as published, but for slow videos.
    """
    if net.frames == 1:
        return 1, 1
    if net.sees == "screen":
        return max(1, round(RATE / fps)) if fps < SLOW else 1, 1
    rate = min(RATE, net.frames / SPAN)
    return max(1, round(rate / fps)), max(1, round(fps / rate))


def check_lifts(op: str, net: nn.Module, kind: type = Lifts) -> None:
    """Raises TypeError for a network that does not lift as ``kind`` does."""
    if not isinstance(net, kind):
        what = "a network of windows" if kind is LiftsWindows else "a network that lifts"
        raise TypeError(f"{op}: {type(net).__name__} is not {what}")


def mirror_of(op: str, net: Lifts) -> Callable[[Tensor], Tensor]:
    """What mirrors keypoints and poses of ``net``."""
    if net.skeleton is None:
        raise ValueError(f"{op}: left and right of this network's joints are not known; pass mirrored=False")
    return net.skeleton.mirror


# -- windows and chunks ----------------------------------------------------------------------------------------------
def window_rows(length: int, size: int, target: int, device: torch.device | str = "cpu") -> Tensor:
    """[length, size]: the frames in the window of each frame; beyond the ends the edge frame repeats.

    Args:
        target: where a frame lies in its window.
    """
    frames = torch.arange(length, device=device)
    return (frames[:, None] + torch.arange(size, device=device) - target).clamp(0, length - 1)


def windows(frames: Tensor, size: int) -> Tensor:
    """[T, ...] -> [T, size, ...]: the window around each frame."""
    return frames[window_rows(len(frames), size, (size - 1) // 2, frames.device)]


def chunked(clip: Tensor, frames: int) -> Tensor:
    """[..., n, J, C] -> [..., k, frames, J, C], k = ceil(n / frames).

    Published quirk: the last chunk is the clip's last ``frames`` frames, so it overlaps the one before; a clip shorter
    than one chunk repeats its last frame.

    Raises:
        ValueError: an empty clip.
    """
    if clip.dim() < 3 or not clip.shape[-3]:
        raise ValueError(f"clip must be [n, J, C] with at least one frame, got {list(clip.shape)}")
    n = clip.shape[-3]
    starts = (torch.arange(max(1, -(-n // frames)), device=clip.device) * frames).clamp(max=max(n - frames, 0))
    rows = (starts[:, None] + torch.arange(frames, device=clip.device)).clamp(max=n - 1)
    return clip[..., rows, :, :]


def stitched(chunks: Tensor, n: int) -> Tensor:
    """[..., k, F, J, C] -> [..., n, J, C]: the inverse of ``chunked``; the overlap comes from the earlier chunk."""
    frames = chunks.shape[-3]
    if n <= frames:
        return chunks[..., 0, :n, :, :]
    rest = n - (chunks.shape[-4] - 1) * frames
    return torch.cat((chunks[..., :-1, :, :, :].flatten(-4, -3), chunks[..., -1, frames - rest :, :, :]), -3)
