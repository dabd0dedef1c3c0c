"""A person in 2D to a person in 3D: gaps, the network, the camera.

``lift_all`` takes whole tracks; ``people.live`` takes frames as they come. ``people.world`` puts the lifted people on
the floor of one world.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from posekernels import models
from posekernels.archive import DataError
from posekernels.models.lifting import RATE, Lifts, pace
from posekernels.models.registry import where_is
from posekernels.pose.camera import looking_at, normalise_screen
from posekernels.pose.keypoints import centre_on_person, coco_to_h36m, guess_unseen, one_trunk
from posekernels.pose.layouts import scores_to_h36m, to_h36m
from posekernels.pose.skeleton import H36M_17, skeleton
from posekernels.pose.smoothing import savitzky_golay

from .bodies import agreeing, bone_lengths, one_skeleton, unswapped
from .keypoint_files import Keypoints
from .rows import cuts
from .tracking import Track

SURE = 0.2  # score from which a joint is believed
ENOUGH = 6  # joints believed that make a person present
ANY_CAMERA = "any_camera"  # the recipe of the lifter that comes with the project, which --model may name
BRIDGED = 15  # frames of a gap that is filled, by default
LONGEST, MARGIN = 16384, 512  # frames: of a piece of a longer stretch, and looked at beyond its ends
ROOM = 128 << 20  # bytes of lifted people that are held in memory; more go to a file
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
    if sees == "screen" and layout in ("coco-17", "coco-133"):  # the latter begins with the former
        published = coco_to_h36m(seen[:, :17])
        points = np.where(np.isfinite(published), published, points)
    if sees == "person":
        trunk = one_trunk(points)
        points = np.where(np.isfinite(trunk), trunk, points)
    return Track(track.identity, points, np.where(scores >= SURE, scores, 0).astype(np.float32), track.frames)


@dataclass
class Liftable:
    """A track as a lifter takes it, ``in_h36m``, made piece by piece.

    Args:
        layout: of the track's joints; None where it is in Human3.6M's already. sees: of the lifter.
    """

    track: Track
    layout: str | None = None
    sees: str = "person"

    @property
    def frames(self) -> np.ndarray:
        return self.track.frames

    def between(self, first: int, last: int) -> Track:
        """The frames from ``first`` to ``last``, both included."""
        came = self.track.between(first, last)
        return came if self.layout is None else in_h36m(came, self.layout, self.sees)

    def there(self) -> np.ndarray:
        """The frames in which so many joints are believed that the person is present."""
        found = [np.zeros(0, bool)]
        for rows in cuts(len(self.frames)):
            scores = self.track.scores[rows]
            believed = scores > 0 if self.layout is None else scores_to_h36m(scores, self.layout) >= SURE
            found.append(believed.sum(-1) >= ENOUGH)
        return self.frames[np.concatenate(found)]


def stretches(present: np.ndarray, bridge: int) -> list[slice]:
    """Where a person is there, from the first to the last frame of each stretch; gaps up to ``bridge`` do not count."""
    return runs(np.flatnonzero(present), bridge)


def runs(frames: np.ndarray, bridge: int) -> list[slice]:
    """``stretches`` of the frames in which a person is there, in order."""
    if not len(frames):
        return []
    cuts = np.flatnonzero(np.diff(frames) > bridge + 1)
    first, last = np.r_[frames[0], frames[cuts + 1]], np.r_[frames[cuts], frames[-1]]
    return [slice(int(a), int(b) + 1) for a, b in zip(first, last)]


def pieces(whole: slice, longest: int, margin: int) -> Iterator[tuple[slice, slice]]:
    """A long stretch in parts: (what to look at, what to keep of it), so that memory does not grow with its length."""
    count = max(1, -(-(whole.stop - whole.start) // longest))
    cuts = np.linspace(whole.start, whole.stop, count + 1).astype(int).tolist()
    for start, stop in zip(cuts, cuts[1:]):
        yield slice(max(whole.start, start - margin), min(whole.stop, stop + margin)), slice(start, stop)


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

    def pace(self, fps: float) -> tuple[int, int]:
        """``posekernels.models.lifting.pace``."""
        return pace(self.net, fps)

    def check_size(self, size: tuple[int, int] | None) -> None:
        """Raises ValueError where the image's size is needed and not known."""
        if self.net.sees == "screen" and size is None:
            raise ValueError(
                f"--size WIDTHxHEIGHT is missing: {self.name} with these weights needs the size of the image"
            )

    def check_live(self) -> None:
        """Raises ValueError for a network that cannot answer frames as they come."""
        if self.net.frames == 1:
            raise ValueError(f"--latency: {self.name} looks at single frames; there is nothing to wait for")
        if self.net.target is None:
            frames = self.net.frames
            raise ValueError(f"--latency: {self.name} needs {frames} frames at once, and cannot lift them live")

    def __call__(
        self, points: np.ndarray, size: tuple[int, int] | None, focal: float | None, fps: float = RATE
    ) -> np.ndarray:
        """[T, 17, 2] pixels without NaN to [T, 17, 3] metres, camera axes, root at 0."""
        steps, apart = self.pace(fps)
        keypoints = torch.from_numpy(np.ascontiguousarray(between(points, steps), np.float32))
        if self.net.sees == "screen":
            self.check_size(size)
            return self._lift(normalise_screen(keypoints, *size), 1)[::steps]
        person, centre, _ = centre_on_person(keypoints, spread=apart * self.net.frames | 1)
        return turned_to_camera(self._lift(person, apart), centre.numpy(), size, focal)[::steps]

    def _lift(self, keypoints: Tensor, apart: int) -> np.ndarray:
        return models.lift(self.net, keypoints.to(self.device), apart=apart).float().cpu().numpy()


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
        raise ValueError(
            f"--model {model}: no weights of it come with the project; give --weights FILE, or leave --model out"
        )
    net = models.load(weights or "lifter", None if model == ANY_CAMERA else model, device)
    if not isinstance(net, Lifts) or not net.takes(H36M_17):
        raise ValueError(f"--model: {net.about.network} does not lift 17 keypoints to 17 joints")
    return Lifter(net, net.about.network)


# -- people ----------------------------------------------------------------------------------------------------------
class Nobody(DataError):
    """Nobody is there to lift."""


@dataclass
class Person:
    """One lifted person in N frames; NaN where absent.

    Args:
        points: [N, 17, 2] pixels, gaps bridged. scores: [N, 17]; 0 where a joint was not seen.
        poses: [N, 17, 3] metres, camera axes (x right, y down, z away), root at 0.
        world: [N, 17, 3] metres, z up, with the root's path; from ``people.world.stand``.
        off: pixels, the median distance of the joints seen from the pose projected back; from ``stand``.
        frames: [N] their numbers in the video, in order; by default all from 0 on.
        detected: [N, J, 3] x, y and score of all J joints that were detected, as they came, where these are more than
            the 17 lifted (feet, hands, a face); NaN where the person was not seen.
        planted: whether the legs of ``poses`` reach for where feet stand already; from ``stand``.
    """

    identity: int
    points: np.ndarray
    scores: np.ndarray
    poses: np.ndarray
    world: np.ndarray | None = None
    off: float | None = None
    frames: np.ndarray | None = None
    detected: np.ndarray | None = None
    planted: bool = False

    def __post_init__(self):
        if self.frames is None:
            self.frames = np.arange(len(self.poses))

    @property
    def present(self) -> np.ndarray:
        """[N] frames with a pose."""
        found = [np.isfinite(self.poses[rows]).all((1, 2)) for rows in cuts(len(self.frames))]
        return np.concatenate([np.zeros(0, bool), *found])

    def begin_world(self) -> None:
        """Room for ``world``, to be filled."""
        self.world = np.empty(self.poses.shape, np.float32)

    def over(self, name: str, frames: int, start: int = 0) -> np.ndarray:
        """[frames - start, 17, ...]: points, scores, poses, world or detected in every frame from ``start`` on."""
        first, last = np.searchsorted(self.frames, (start, frames)).tolist()
        values, at = getattr(self, name)[first:last], self.frames[first:last] - start
        if len(at) == frames - start:
            return values
        whole = np.full((frames - start, *values.shape[1:]), 0 if name == "scores" else np.nan, np.float32)
        whole[at] = values
        return whole

    def until(self, end: int) -> Person:
        """The frames before ``end``."""
        return self._part(slice(0, int(np.searchsorted(self.frames, end))))

    def since(self, start: int) -> Person:
        """The frames from ``start`` on."""
        return self._part(slice(int(np.searchsorted(self.frames, start)), None))

    def _part(self, rows: slice) -> Person:
        world = None if self.world is None else self.world[rows]
        detected = None if self.detected is None else self.detected[rows]
        of = self.points[rows], self.scores[rows], self.poses[rows]
        return Person(self.identity, *of, world, self.off, self.frames[rows], detected, self.planted)


class Kept(Person):
    """A person whose arrays are in a file. Each of them is a map of it, made anew whenever it is asked for: whoever
    takes a piece of one holds the memory of that piece alone.

    Args:
        file: open to read and write; it grows by the arrays, whose values are 0 at first.
        joints: of ``detected``; 0 for none.
    """

    def __init__(self, identity: int, frames: np.ndarray, file: BinaryIO, joints: int = 0):
        self.identity, self.frames, self.off = identity, frames, None
        self.file, self.places = file, {}  # where an array begins in the file, and its shape
        for name, width in Shelf.WIDTHS.items():
            self._begin(name, width)
        if joints:
            self._begin("detected", (joints, 3))

    def _begin(self, name: str, width: tuple[int, ...]) -> None:
        """Room in the file, taken now: to a map, a full disk would be a bus error."""
        shape = (len(self.frames), *width)
        left, zeros = 4 * int(np.prod(shape)), bytes(1 << 20)
        self.places[name] = self.file.seek(0, os.SEEK_END), shape
        while left:
            left -= self.file.write(memoryview(zeros)[:left])
        self.file.flush()

    def _array(self, name: str) -> np.ndarray | None:
        if name not in self.places:
            return None
        at, shape = self.places[name]
        return np.asarray(np.memmap(self.file, "<f4", "r+", at, shape))

    points = property(lambda self: self._array("points"))
    scores = property(lambda self: self._array("scores"))
    poses = property(lambda self: self._array("poses"))
    world = property(lambda self: self._array("world"))
    detected = property(lambda self: self._array("detected"))

    def begin_world(self) -> None:
        if "world" not in self.places:
            self._begin("world", (17, 3))


class Shelf(Sequence):
    """People, in memory as long as they are few, the others ``Kept`` in a file.

    Args:
        folder: of the file, which goes with the process, however that ends. room: bytes in memory.
    """

    WIDTHS = {"points": (17, 2), "scores": (17,), "poses": (17, 3)}
    ROW = 8 + 4 * 17 * (2 + 1 + 3 + 3)  # bytes of somebody in a frame, with its number and ``world``
    DETECTED = 12  # bytes of a joint that was detected

    def __init__(self, folder: Path | None = None, room: int | None = None):
        self.folder, self.room, self.file = folder, ROOM if room is None else room, None
        self.people: list[Person] = []

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int | slice) -> Person | list[Person]:
        return self.people[index]

    def begin(self, identity: int, frames: np.ndarray, joints: int = 0) -> Person:
        """Room for somebody in these frames, to be filled: points, scores, poses, and detected where it has joints."""
        self.room -= len(frames) * (self.ROW + joints * self.DETECTED)
        if self.room >= 0 or not len(frames):
            found = {name: np.empty((len(frames), *width), np.float32) for name, width in self.WIDTHS.items()}
            found["detected"] = np.empty((len(frames), joints, 3), np.float32) if joints else None
            person = Person(identity, frames=frames, **found)
        else:
            if self.file is None:
                self.file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 (as long as the shelf)
            person = Kept(identity, frames, self.file, joints)
        self.people.append(person)
        return person

    def append(self, person: Person) -> None:
        """A copy of somebody, who is not in the world yet."""
        names = [*self.WIDTHS, *(["detected"] if person.detected is not None else [])]
        joints = 0 if person.detected is None else person.detected.shape[1]
        own = self.begin(person.identity, person.frames, joints)
        for rows in cuts(len(person.frames)):
            for name in names:
                getattr(own, name)[rows] = getattr(person, name)[rows]


def more_than_lifted(layout: str) -> int:
    """How many joints a layout has, where these are more than the 17 that are lifted; else 0."""
    joints = skeleton(layout).num_joints
    return joints if joints > H36M_17.num_joints else 0


def as_detected(track: Track, frames: np.ndarray) -> np.ndarray:
    """``Person.detected`` of a track, in these frames."""
    track = track.between(frames[0], frames[-1])
    own = np.isin(track.frames, frames)
    if track.detected is None:
        seen = np.dstack((track.points[own], track.scores[own]))
    else:
        seen = track.detected[own]
    found = np.full((len(frames), *seen.shape[1:]), np.nan, np.float32)
    found[np.searchsorted(frames, track.frames[own])] = seen
    return found


def between(points: np.ndarray, steps: int) -> np.ndarray:
    """[T, 17, 2] as [(T - 1) * steps + 1, 17, 2], straight on between the frames."""
    at, last = np.arange((len(points) - 1) * steps + 1) / steps, max(len(points) - 2, 0)
    before = np.minimum(at.astype(int), last)
    part = (at - before)[:, None, None].astype(np.float32)
    return points[before] * (1 - part) + points[np.minimum(before + 1, len(points) - 1)] * part


def lift_person(
    lifter: Lifter,
    track: Track | Liftable,
    *,
    size: tuple[int, int] | None,
    focal: float | None = None,
    fps: float = RATE,
    bridge: int = BRIDGED,
    smooth: int = 1,
    shelf: Shelf | None = None,
    joints: int = 0,
) -> Person:
    """Lift one track of H36M-17 joints (``in_h36m``), piece by piece.

    Args:
        fps: frames per second; how many of them a network sees: ``Lifter.pace``.
        bridge: gaps of at most so many frames are filled; longer ones stay empty.
        smooth: frames of the Savitzky-Golay window; 1 for none.
        shelf: to put the person on. joints: of ``detected``, which is left to be filled.
    """
    track, shelf = track if isinstance(track, Liftable) else Liftable(track), Shelf() if shelf is None else shelf
    ours = lifter.net.sees == "person"  # published ones answer as published
    parts = runs(track.there(), bridge)
    frames = np.unique(np.concatenate([track.frames, *(np.arange(part.start, part.stop) for part in parts)]))
    person = shelf.begin(track.track.identity, frames, joints)

    def seen(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Points and scores in some of the frames."""
        own = frames[rows]
        part = track.between(own[0], own[-1])
        points, scores = np.full((len(own), 17, 2), np.nan, np.float32), np.zeros((len(own), 17), np.float32)
        at = np.searchsorted(own, part.frames)
        points[at], scores[at] = part.points, part.scores
        return points, scores

    for rows in cuts(len(frames)):
        person.points[rows], person.poses[rows], person.scores[rows] = np.nan, np.nan, seen(rows)[1]
    for part in parts:
        for whole, own in pieces(slice(*np.searchsorted(frames, (part.start, part.stop)).tolist()), LONGEST, MARGIN):
            some, scores = seen(whole)
            some = filled(unswapped(some) if ours else some)
            found = savitzky_golay(lifter(some, size, focal, fps), smooth)
            if ours and size is not None:
                found = agreeing(found, some, scores, size, focal_of(size, focal), smooth)
            keep = slice(own.start - whole.start, own.stop - whole.start)
            person.points[own], person.poses[own] = some[keep], found[keep]
    present = np.flatnonzero(person.present)
    if ours and len(present):
        lengths = bone_lengths(person.poses[present[rows]] for rows in cuts(len(present)))
        for rows in cuts(len(present)):
            own = present[rows]
            person.poses[own] = one_skeleton(person.poses[own], lengths)
    return person


def lift_all(
    lifter: Lifter, keypoints: Keypoints, people: int | None = None, folder: Path | None = None, **options
) -> Shelf:
    """Everybody who is a person at all, lifted; options as for ``lift_person``.

    Args:
        people: at most so many at one moment, of those who are there the first ones; None for no limit.
        folder: for what is too much for memory.
    """
    there = np.zeros((2, keypoints.frames), np.int32)  # people in each frame: all of them, and those who are kept
    lifted, bridge, whole, cut = Shelf(folder), options.get("bridge", BRIDGED), 0, 0
    more = more_than_lifted(keypoints.found)
    for came in keypoints.people:
        track = Liftable(came, keypoints.layout, lifter.net.sees)
        frames = track.there()
        if not len(frames):
            continue
        whole += 1
        for part in runs(frames, bridge):
            there[0, part] += 1
        if people is not None:
            kept = without_a_crowd(frames, there[1] < people, bridge)
            if len(kept) < len(frames):
                cut += 1
                track.track = came.part(np.isin(came.frames, kept))
                frames = kept
            if not len(frames):
                continue
        for part in runs(frames, bridge):
            there[1, part] += 1
        person = lift_person(lifter, track, size=keypoints.size, shelf=lifted, joints=more, **options)
        for rows in cuts(len(person.frames)) if more else ():
            person.detected[rows] = as_detected(came, person.frames[rows])
    if not whole:
        raise Nobody(f"nobody to lift: no frame shows {ENOUGH} joints of one person with a score of {SURE} or more")
    if cut:
        most = int(there[0].max())
        keypoints.notes.append(
            f"up to {most} people at one moment: where there are more than {people}, those seen least are left out, "
            f"{cut} of {whole}; --people {most} keeps everybody"
        )
    return lifted


def without_a_crowd(frames: np.ndarray, free: np.ndarray, bridge: int) -> np.ndarray:
    """The frames of a person in which there is room for one more; of those, no stretch that lasts hardly a moment.

    Args:
        free: [T] whether there is room.
    """
    if free[frames[0] : frames[-1] + 1].all():
        return frames
    kept = []
    for part in runs(frames, bridge):
        for run in stretches(free[part], 0):
            if run.stop - run.start > bridge or run.stop - run.start == part.stop - part.start:
                own = (frames >= part.start + run.start) & (frames < part.start + run.stop)
                kept.append(frames[own])
    return np.concatenate(kept) if kept else frames[:0]
