"""People lifted as their frames come: ``Live``, and ``LivePerson`` for each of them."""

from __future__ import annotations

import tempfile
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posekernels import models
from posekernels.pose.camera import normalise_screen
from posekernels.pose.keypoints import centre_on_person
from posekernels.pose.smoothing import OneEuro, savitzky_golay

from .bodies import Bones, agreeing, one_skeleton, unswapped
from .keypoint_files import Keypoints
from .lifter import ENOUGH, Lifter, Person, Shelf, filled, focal_of, in_h36m, turned_to_camera
from .rows import Rows
from .tracking import Track

LOOK_BACK = 40  # frames that tell left from right
HALF = 0.125  # seconds before and after a frame over which its points are smoothed, where these frames are there
LATEST = 0.5  # seconds: nothing is gained by waiting for longer
AHEAD = 0.05  # seconds; a network that sees so far shakes less
CALM, QUICK = (1.5, 3.0), (3.0, 8.0)  # the filter's Hz at rest, and what it gains per m/s, without and with them


class LivePerson:
    """One person's frames as they come; each pose ``latency`` frames late.

    What ``lift_person`` does with all frames is done with those so far: left and right by the last ``LOOK_BACK``,
    joints where the image shows them, bones as long as all poses tell.

    Args:
        latency: frames after which a pose is answered: the network looks ahead as many, at most half its window, which
            in a fast video takes every ``apart``-th frame (``Lifter.pace``). At most these or half a second.
        size: (width, height) of the image. smooth: One-Euro filter on the way out.
    """

    def __init__(
        self,
        lifter: Lifter,
        latency: int,
        *,
        size: tuple[int, int] | None,
        focal: float | None,
        fps: float,
        smooth: bool,
    ):
        lifter.check_size(size)
        self.lifter, self.size, self.focal, self.latency = lifter, size, focal, latency
        self.ours = lifter.net.sees == "person"  # published ones answer as published
        _, self.apart = lifter.pace(fps)
        after = lifter.net.frames - 1 - lifter.net.target  # frames of its own that the network sees after the pose's
        most = max((after + 1) * self.apart - 1, round(LATEST * fps))
        if not 0 <= latency <= most:
            raise ValueError(f"--latency must be 0 to {most} at {fps:g} frames/s with these weights, got {latency}")
        ahead = min(latency // self.apart, after)
        self.streams = [models.stream(lifter.net, ahead) for _ in range(self.apart)]  # taking turns
        self.pushed = 0
        self.ready: deque[Tensor] = deque()  # poses that are answered when ``latency`` frames have come after them
        self.filter = None if not smooth else OneEuro(fps, *(CALM if ahead * self.apart < AHEAD * fps else QUICK))
        self.recent: list[float] = []  # sizes of the person in the latest frames
        self.came: list[np.ndarray] = []  # the latest frames, as they came
        self.points: list[np.ndarray] = []  # of frames not yet answered, and as many before
        self.waiting: list[np.ndarray] = []  # scores of frames not yet answered
        self.half = min(latency, round(HALF * fps)) if smooth else 0
        self.bones = Bones()

    def push(self, points: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray | None:
        """The next frame; the pose of ``latency`` frames ago, [17, 3] metres, camera axes, or None at first.

        Args:
            points: [17, 2] pixels without NaN. scores: [17], 0 where a joint was not seen; by default all were.
        """
        scores = np.ones(len(points), np.float32) if scores is None else scores
        if self.ours:
            self.came = [*self.came[1 - LOOK_BACK :], points]
            points = unswapped(np.stack(self.came))[-1]
        self.points = [*self.points[-2 * self.latency :], points] if self.latency else [points]
        self.waiting.append(scores)
        keypoints = torch.from_numpy(np.ascontiguousarray(points, np.float32))
        if self.ours:
            person, _, own = centre_on_person(keypoints[None], spread=1)
            self.recent = [*self.recent[1 - self.apart * self.lifter.net.frames :], float(own[0])]
            seen = person[0] * (float(own[0]) / max(float(np.mean(self.recent)), 1e-9))
        else:
            seen = normalise_screen(keypoints, *self.size)
        pose = self.streams[self.pushed % self.apart].push(seen.to(self.lifter.device))
        self.pushed += 1
        if pose is not None:
            self.ready.append(pose)
        return self._answer(self.ready.popleft()) if len(self.waiting) > self.latency else None

    def finish(self) -> list[np.ndarray]:
        """The poses still awaited after the last frame."""
        left = [stream.finish() for stream in self.streams]
        turn = (self.pushed - sum(map(len, left))) % self.apart  # whose is the earliest frame that is left
        in_turn = zip_longest(*left[turn:], *left[:turn])
        self.ready += (pose for poses in in_turn for pose in poses if pose is not None)
        return [self._answer(self.ready.popleft()) for _ in range(len(self.waiting))]

    def _answer(self, pose: Tensor) -> np.ndarray:
        at, found = len(self.points) - len(self.waiting), pose.float().cpu().numpy()[None]
        reach = min(at, len(self.waiting) - 1, self.half)
        around = np.stack(self.points[at - reach : at + reach + 1])
        points, scores = savitzky_golay(around, 2 * reach + 1)[reach], self.waiting.pop(0)
        if self.ours:
            found = turned_to_camera(found, points[None, 0], self.size, self.focal)
            self.bones.add(found)
            focal, bones = focal_of(self.size, self.focal), self.bones.lengths
            if focal is None or self.size is None:
                found = one_skeleton(found, bones)
            else:
                found = agreeing(found, points[None], scores[None], self.size, focal, lengths=bones)
        return self.filter(found[0]) if self.filter else found[0]


POSE = [("frame", "<i8"), ("points", "<f4", (17, 2)), ("scores", "<f4", (17,)), ("pose", "<f4", (17, 3))]


class Live:
    """Frames of people as they come; every pose ``latency`` frames later, gathered into ``Person``.

    Poses go to a file as they are finished, so that frames may come without end.

    Args:
        bridge: frames that somebody may be out of sight for. folder: of that file, which goes with the process.
        joints: that are detected, where ``Person.detected`` is to keep them; 0 for none. how: as for ``LivePerson``.
    """

    def __init__(
        self, lifter: Lifter, latency: int, bridge: int, folder: Path | None = None, *, joints: int = 0, **how
    ):
        self.joints = joints
        self.dtype = np.dtype([*POSE, *([("detected", "<f4", (joints, 3))] if joints else [])])
        self.lifter, self.latency, self.bridge, self.how = lifter, latency, bridge, how
        self.lifters: dict[int, LivePerson] = {}
        self.last: dict[int, tuple[np.ndarray, int]] = {}  # points, and the frame in which the person was last seen
        self.asked: dict[int, list[int]] = {}  # frames whose poses are awaited
        self.seen: dict[int, dict[int, dict[str, np.ndarray]]] = {}  # what was seen in them
        self.folder = folder or Path(tempfile.gettempdir())
        self.poses, self.rows = Rows.nameless(self.dtype, self.folder), {}  # of everybody; whose are which
        self.frame = 0
        LivePerson(lifter, latency, **how)  # refuses a latency it cannot have

    def push(self, people: list[tuple[int, np.ndarray, np.ndarray, *tuple[np.ndarray, ...]]]) -> None:
        """The next frame: (identity, points [17, 2] with NaN, scores [17]) of everybody in it.

        With ``joints``, also [joints, 3], x, y and score of all that were detected.
        """
        for identity, points, scores, *detected in people:
            if (scores > 0).sum() < ENOUGH:
                continue
            before = [self.last[identity][0]] if identity in self.last else []
            points = filled(np.stack([*before, points]))[-1]  # a joint out of sight keeps its offset from its neighbour
            self.last[identity] = points, self.frame
            seen = {"points": points, "scores": scores} | ({"detected": detected[0]} if self.joints else {})
            self.seen.setdefault(identity, {})[self.frame] = seen
        for identity, (points, last) in list(self.last.items()):
            if self.frame - last > self.bridge:  # gone: the next sighting starts afresh
                self._end(identity)
                continue
            lifter = self.lifters.get(identity)
            if lifter is None:
                lifter = self.lifters[identity] = LivePerson(self.lifter, self.latency, **self.how)
            self.asked.setdefault(identity, []).append(self.frame)
            seen = self.seen.get(identity, {}).get(self.frame)
            self._answer(identity, lifter.push(points, np.zeros(17, np.float32) if seen is None else seen["scores"]))
        self.frame += 1

    def _answer(self, identity: int, pose: np.ndarray | None) -> None:
        if pose is None:
            return
        frame = self.asked[identity].pop(0)
        there = self.seen[identity].pop(frame, None)
        if there is not None:  # frames between sightings are not claimed
            self.rows.setdefault(identity, array("q")).append(len(self.poses))
            record = np.zeros(1, self.dtype)
            for name, value in {"frame": frame, "pose": pose, **there}.items():
                record[name] = value
            self.poses.append(record)

    def _end(self, identity: int) -> None:
        for pose in self.lifters.pop(identity).finish():
            self._answer(identity, pose)
        del self.last[identity]

    def finish(self, groups: list[list[int]] | None = None) -> Shelf:
        """Everybody, who was there longest first.

        Args:
            groups: identities that turned out to be one person's; who is in none of them is left out. By default
                each is somebody.
        """
        for identity in list(self.lifters):
            self._end(identity)
        groups = [[identity] for identity in self.rows] if groups is None else groups
        whole = [np.concatenate([np.array(self.rows.get(i, ()), np.int64) for i in group]) for group in groups]
        people = Shelf(self.folder)
        for rows, group in sorted(zip(whole, groups), key=lambda item: -len(item[0])):
            if len(rows):
                found = self.poses[rows]
                frames = found["frame"].copy()
                of = (found[n].copy() for n in ("points", "scores", "pose"))
                detected = found["detected"].copy() if self.joints else None
                people.append(Person(group[0], *of, frames=frames, detected=detected))
        return people


def pushed(track: Track, came: Track, row: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """What ``Live.push`` takes of somebody in one frame: in Human3.6M's joints, and as they came."""
    seen = np.column_stack((came.points[row], came.scores[row])) if came.detected is None else came.detected[row]
    return track.identity, track.points[row], track.scores[row], seen


def frames_of(
    keypoints: Keypoints, people: int, sees: str
) -> Iterator[list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]]:
    """A keypoints file as if its frames came one by one; at most ``people`` in each, the first ones."""
    came = list(keypoints.people)
    tracks = [in_h36m(track, keypoints.layout, sees) for track in came]
    at = [0] * len(tracks)
    coming: dict[int, list[int]] = {}  # whose turn it is in a frame
    for i, track in enumerate(tracks):
        coming.setdefault(int(track.frames[0]), []).append(i)
    for frame in range(keypoints.frames):
        found = []
        for i in sorted(coming.pop(frame, ())):
            track, row = tracks[i], at[i]
            if len(found) < people and (track.scores[row] > 0).sum() >= ENOUGH:
                found.append(pushed(track, came[i], row))
            at[i] += 1
            if at[i] < len(track.frames):
                coming.setdefault(int(track.frames[at[i]]), []).append(i)
        yield found
