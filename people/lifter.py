"""A person in 2D to a person in 3D: gaps, the network, the camera.

``lift_all`` takes whole tracks; ``people.live`` takes frames as they come. ``people.world`` puts the lifted people on
the floor of one world.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posekernels import models
from posekernels.models.lifting import Lifts
from posekernels.models.registry import where_is
from posekernels.pose.camera import looking_at, normalise_screen
from posekernels.pose.keypoints import centre_on_person, coco_to_h36m, guess_unseen, one_trunk
from posekernels.pose.layouts import scores_to_h36m, to_h36m
from posekernels.pose.skeleton import H36M_17
from posekernels.pose.smoothing import savitzky_golay

from .bodies import agreeing, one_skeleton, unswapped
from .keypoint_files import Keypoints
from .tracking import Track

SURE = 0.2  # score from which a joint is believed
ENOUGH = 6  # joints believed that make a person present
ANY_CAMERA = "any_camera"  # the recipe of the lifter that comes with the project, which --model may name
RATE = 50.0  # frames per second that lifters are trained at
SLOW = 25.0  # under which they miss much between two frames
FOCAL = 1.2  # of an unknown camera, in units of the image's longer side: about 45 degrees across


# -- 2D: gaps --------------------------------------------------------------------------------------------------------
def in_h36m(track: Track, layout: str, sees: str = "person") -> Track:
    """The track with Human3.6M's 17 joints; joints of a low score are taken out.

    Args:
        sees: of the lifter. "screen" ones were trained on Human3.6M's own keypoints: COCO's joints are converted as the
            published demos do for them, where all that this takes is seen.
    """
    seen = np.where((track.scores >= SURE)[..., None], track.points, np.nan).astype(np.float32)
    scores, points = scores_to_h36m(track.scores, layout), to_h36m(seen, layout)
    if sees == "screen" and layout == "coco-17":
        published = coco_to_h36m(seen)
        points = np.where(np.isfinite(published), published, points)
    if sees == "person":
        trunk = one_trunk(points)
        points = np.where(np.isfinite(trunk), trunk, points)
    return Track(track.identity, points, np.where(scores >= SURE, scores, 0).astype(np.float32))


def stretches(present: np.ndarray, bridge: int) -> list[slice]:
    """Where a person is there, from the first to the last frame of each stretch; gaps up to ``bridge`` do not count."""
    frames = np.flatnonzero(present)
    if not len(frames):
        return []
    cuts = np.flatnonzero(np.diff(frames) > bridge + 1)
    first, last = np.r_[frames[0], frames[cuts + 1]], np.r_[frames[cuts], frames[-1]]
    return [slice(int(a), int(b) + 1) for a, b in zip(first, last)]


def filled(points: np.ndarray) -> np.ndarray:
    """[T, 17, 2] without NaN: a joint out of sight moves with its neighbour; one never seen is a standing person's.

    Nose and head, of which detectors miss one in profile or from behind, tell each other: the nose lies half way
    between thorax and head. For the others, the joint seen most is the anchor, and goes straight over time where it is
    not seen; from there outwards, what is interpolated (and held at the ends) is a joint's offset from the next one
    towards the anchor.
    """
    points = points.copy()
    thorax, nose, head = points[:, 8], points[:, 9], points[:, 10]  # views
    nose[:] = np.where(np.isfinite(nose), nose, (thorax + head) / 2)
    head[:] = np.where(np.isfinite(head), head, 2 * nose - thorax)
    seen = np.isfinite(points).all(-1)
    never, times = ~seen.any(0), np.arange(len(points))
    bones = [(joint, parent) for joint, parent in enumerate(H36M_17.parents) if parent >= 0]
    order, base = [int(seen.sum(0).argmax())], {}
    for joint in order:  # grows as it goes, from the anchor to the tips
        for bone in bones:
            other = sum(bone) - joint
            if joint in bone and other not in order:
                order.append(other)
                base[other] = base.get(joint) if never[joint] else joint
    for joint in order:
        gaps = ~seen[:, joint]
        if gaps.any() and not never[joint]:
            origin = points[:, base[joint]] if joint in base else np.zeros_like(points[:, joint])
            offset = points[:, joint] - origin
            for axis in (0, 1):
                at = np.interp(times[gaps], times[~gaps], offset[~gaps, axis])
                points[gaps, joint, axis] = origin[gaps, axis] + at
    return guess_unseen(points, np.broadcast_to(~never, points.shape[:2])) if never.any() else points


# -- the network -----------------------------------------------------------------------------------------------------
@dataclass
class Lifter:
    """A lifting network, and its pixels in and metres out.

    Args:
        net: in eval mode. name: of the network.
    """

    net: Lifts
    name: str

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def check_size(self, size: tuple[int, int] | None) -> None:
        """Raises ValueError where the image's size is needed and not known."""
        if self.net.sees == "screen" and size is None:
            raise ValueError(f"--size WIDTHxHEIGHT: {self.name} with these weights must know the size of the image")

    def check_live(self) -> None:
        """Raises ValueError for a network that cannot answer frames as they come."""
        if self.net.frames == 1:
            raise ValueError(f"--latency: {self.name} looks at single frames; there is nothing to wait for")
        if self.net.target is None:
            frames = self.net.frames
            raise ValueError(f"--latency: {self.name} answers for {frames} frames at once, when all are there")

    def __call__(self, points: np.ndarray, size: tuple[int, int] | None, focal: float | None) -> np.ndarray:
        """[T, 17, 2] pixels without NaN to [T, 17, 3] metres, camera axes, root at 0."""
        keypoints = torch.from_numpy(np.ascontiguousarray(points, np.float32))
        if self.net.sees == "screen":
            self.check_size(size)
            return self._lift(normalise_screen(keypoints, *size))
        person, centre, _ = centre_on_person(keypoints, spread=self.net.frames | 1)
        return turned_to_camera(self._lift(person), centre.numpy(), size, focal)

    def _lift(self, keypoints: Tensor) -> np.ndarray:
        return models.lift(self.net, keypoints.to(self.device)).float().cpu().numpy()


def focal_of(size: tuple[int, int] | None, focal: float | None) -> float | None:
    """Focal length in pixels: as given, else a guess from the image's size, else None."""
    return focal or (FOCAL * max(size) if size else None)


def turned_to_camera(
    poses: np.ndarray, centre: np.ndarray, size: tuple[int, int] | None, focal: float | None
) -> np.ndarray:
    """Poses as seen by a camera that looks at the person, [T, 17, 3], in the axes of the real one.

    Args:
        centre: [T, 2] pixels, where the person's root is. Without a size nothing is turned.
    """
    focal = focal_of(size, focal)
    if focal is None or size is None:
        return poses
    return looking_at(poses, ((centre - np.array(size) / 2) / focal).astype(np.float32))


def load_lifter(model: str | None = None, weights: str | Path | None = None, device: str = "cpu") -> Lifter:
    """A lifter by name and file.

    Args:
        model: name of a network; None where ``weights`` says what it is.
        weights: what ``models.load`` takes; None for the weights that come with the project.
    Raises:
        ValueError: weights of another network, no weights for this network, a network that lifts no 17 joints.
    """
    if weights is None and model not in (None, ANY_CAMERA):
        where_is(model)
        raise ValueError(f"--weights: none come with --model {model}; give a file, or leave --model out")
    net = models.load(weights or "lifter", None if model == ANY_CAMERA else model, device)
    if not isinstance(net, Lifts) or not net.takes(H36M_17):
        raise ValueError(f"--model: {net.about.network} does not lift 17 keypoints to 17 joints")
    return Lifter(net, net.about.network)


# -- people ----------------------------------------------------------------------------------------------------------
@dataclass
class Person:
    """One lifted person over all frames of the video; NaN where absent.

    Args:
        points: [T, 17, 2] pixels, gaps bridged. scores: [T, 17]; 0 where a joint was not seen.
        poses: [T, 17, 3] metres, camera axes (x right, y down, z away), root at 0.
        world: [T, 17, 3] metres, z up, with the root's path; from ``people.world.stand``.
        off: pixels, the median distance of the joints seen from the pose projected back; from ``stand``.
    """

    identity: int
    points: np.ndarray
    scores: np.ndarray
    poses: np.ndarray
    world: np.ndarray | None = None
    off: float | None = None

    @property
    def present(self) -> np.ndarray:
        """[T] frames with a pose."""
        return np.isfinite(self.poses).all((1, 2))


def denser(fps: float) -> int:
    """Into how many steps of about ``RATE`` to cut the time from one frame to the next, for lifting."""
    return max(1, round(RATE / fps))


def between(points: np.ndarray, steps: int) -> np.ndarray:
    """[T, 17, 2] as [(T - 1) * steps + 1, 17, 2], straight on between the frames."""
    at, last = np.arange((len(points) - 1) * steps + 1) / steps, max(len(points) - 2, 0)
    before = np.minimum(at.astype(int), last)
    part = (at - before)[:, None, None].astype(np.float32)
    return points[before] * (1 - part) + points[np.minimum(before + 1, len(points) - 1)] * part


def lift_person(
    lifter: Lifter,
    track: Track,
    *,
    size: tuple[int, int] | None,
    focal: float | None = None,
    fps: float = RATE,
    bridge: int = 15,
    smooth: int = 1,
) -> Person:
    """Lift one track of H36M-17 joints (``in_h36m``).

    Args:
        fps: frames per second; networks that look at several frames see about ``RATE`` of them a second, published ones
            where there are fewer than ``SLOW``.
        bridge: gaps of at most so many frames are filled; longer ones stay empty.
        smooth: frames of the Savitzky-Golay window; 1 for none.
    """
    points, ours = np.full_like(track.points, np.nan), lifter.net.sees == "person"  # published ones answer as published
    poses = np.full((*track.points.shape[:2], 3), np.nan, np.float32)
    steps = denser(fps) if lifter.net.frames > 1 and (ours or fps < SLOW) else 1
    for part in stretches((track.scores > 0).sum(-1) >= ENOUGH, bridge):
        seen = unswapped(track.points[part]) if ours else track.points[part]
        points[part] = filled(seen)
        poses[part] = savitzky_golay(lifter(between(points[part], steps), size, focal)[::steps], smooth)
        if ours and size is not None:
            scores = track.scores[part]
            poses[part] = agreeing(poses[part], points[part], scores, size, focal_of(size, focal), smooth)
    present = np.isfinite(poses).all((1, 2))
    if ours and present.any():
        poses[present] = one_skeleton(poses[present])
    return Person(track.identity, points, track.scores, poses)


def lift_all(lifter: Lifter, keypoints: Keypoints, people: int | None = None, **options) -> list[Person]:
    """The first ``people`` tracks that hold a person at all, lifted; options as for ``lift_person``."""
    tracks = [in_h36m(track, keypoints.layout, lifter.net.sees) for track in keypoints.people]
    tracks = [track for track in tracks if ((track.scores > 0).sum(-1) >= ENOUGH).any()]
    if not tracks:
        raise ValueError(f"nobody to lift: no frame shows {ENOUGH} joints of one person with a score of {SURE} or more")
    if people is not None and len(tracks) > people:
        least = f"{len(tracks) - people} seen least left out; --people {len(tracks)} keeps them"
        keypoints.notes.append(f"{len(tracks)} people: {least}")
    return [lift_person(lifter, track, size=keypoints.size, **options) for track in tracks[:people]]
