"""People in 2D to people in 3D: what ``posekernels lift`` does between reading and writing.

``Lifter`` holds a network and knows what it wants to see; ``lift_person`` takes a whole track, ``LiveLifter`` frames as
they come. ``stand`` puts lifted people on the floor of one world.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from posekernels import models
from posekernels._checks import nearest
from posekernels.models.diffpose import Sampling, chunked, stitched
from posekernels.models.pretrained import load_weights, pretrained
from posekernels.pose.camera import looking_at, normalise_screen
from posekernels.pose.keypoints import centre_on_person, coco_to_h36m, guess_unseen, one_trunk
from posekernels.pose.layouts import scores_to_h36m, to_h36m
from posekernels.pose.skeleton import H36M_17
from posekernels.pose.smoothing import OneEuro, savitzky_golay
from posekernels.train import recipes

from .keypoint_files import Keypoints
from .tracking import Track

SURE = 0.2  # score from which a joint is believed
ENOUGH = 6  # joints believed that make a person present
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
    """A lifting network and what its keypoints must look like.

    Args:
        net: in eval mode, on ``device``. name: of the network.
        sees: "person" for keypoints centred and scaled on the person, "screen" for normalised screen units (needs the
            image size).
        sampling: how DiffPose refines; for its networks only. seed: of its noise.
    """

    net: nn.Module
    name: str
    sees: str
    device: torch.device
    sampling: Sampling | None = None
    seed: int = 0

    @property
    def frames(self) -> int:
        """Frames that the network sees at once; 1 for networks of single frames."""
        return getattr(self.net, "frames", 1)

    @property
    def whole_chunks(self) -> bool:
        """Whether the network answers for every frame of a chunk at once, not for one frame of a window."""
        return hasattr(self.net, "frames") and not hasattr(self.net, "target")

    def check_size(self, size: tuple[int, int] | None) -> None:
        """Raises ValueError where the image's size is needed and not known."""
        if self.sees == "screen" and size is None:
            raise ValueError(f"--size WIDTHxHEIGHT: {self.name} with these weights must know the size of the image")

    @torch.no_grad()
    def __call__(self, points: np.ndarray, size: tuple[int, int] | None, focal: float | None) -> np.ndarray:
        """[T, 17, 2] pixels without NaN to [T, 17, 3] metres, camera axes, root at 0."""
        keypoints = torch.from_numpy(np.ascontiguousarray(points, np.float32))
        if self.sees == "screen":
            self.check_size(size)
            return self._run(normalise_screen(keypoints, *size))
        person, centre, _ = centre_on_person(keypoints, spread=self.frames | 1)
        return turned_to_camera(self._run(person), centre.numpy(), size, focal)

    def _run(self, keypoints: Tensor) -> np.ndarray:
        keypoints = keypoints.to(self.device)
        if self.sampling is not None:
            return self._refined(keypoints).float().cpu().numpy()
        if hasattr(self.net, "frames") and not self.whole_chunks:
            return models.lift(self.net, keypoints).float().cpu().numpy()
        both = torch.stack((keypoints, H36M_17.mirror(keypoints)))
        if self.whole_chunks:
            poses = torch.stack([self._in_chunks(view) for view in both])
        elif self.name == "gcnpose":  # its poses are a batch, not frames
            poses = torch.cat([self.net(part) for part in both.flatten(0, 1).split(512)]).unflatten(0, both.shape[:2])
        else:
            poses = torch.cat([self.net(chunk) for chunk in both.split(256, 1)], 1)
        poses = (poses[0] + H36M_17.mirror(poses[1])) / 2
        poses[:, 0] = 0
        return poses.float().cpu().numpy()

    def _refined(self, keypoints: Tensor) -> Tensor:
        """[T, 17, 2] -> [T, 17, 3] by DiffPose, as its paper tests it."""
        chunks = chunked(keypoints, self.frames).split(4) if self.whole_chunks else keypoints.split(512)
        found = [self.net(part, self.sampling, seed=self.seed + i).xyz for i, part in enumerate(chunks)]
        return stitched(torch.cat(found), len(keypoints)) if self.whole_chunks else torch.cat(found)

    def _in_chunks(self, keypoints: Tensor) -> Tensor:
        """[T, 17, 2] -> [T, 17, 3]; a clip shorter than a chunk repeats its last frame."""
        return stitched(self.net.in_pieces(chunked(keypoints, self.frames)), len(keypoints))


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
        model: name of a network; None where ``weights`` is a file of ours that names its network.
        weights: a ``.safetensors`` file of ours, a checkpoint of ``train.h36m``, or a published checkpoint of
            ``model``; None for the weights that come with the project.
    Raises:
        ValueError: weights of another network, no weights for this network, an unreadable file.
    """
    chosen, run = torch.device(device), None if weights is None else recipes.run_of(weights)
    if run is not None and run.name == "diffpose":
        if model not in (None, "diffpose"):
            raise ValueError(f"{weights}: a run of diffpose, not of --model {model}")
        if not run.refining:
            raise ValueError(f"{weights}: of the stage before GCNdiff was trained; let the run finish (--resume)")
        return Lifter(run.model.to(chosen), "diffpose", "screen", chosen, run.sampling, run.options.seed)
    if weights is None:
        if model not in (None, recipes.ANY_CAMERA):
            known = [*models.names(), "diffpose"]
            if model not in known:
                raise ValueError(f"--model: no network named {model!r}{nearest(model, known)}")
            raise ValueError(f"--weights: none come with --model {model}; give a file, or leave --model out")
        net, about = pretrained("lifter")
    elif run is not None:
        net, about = recipes.network_of(run, weights)
        if model not in (None, about.network, recipes.ANY_CAMERA):
            raise ValueError(f"{weights}: weights of {about.network}, not of --model {model}")
    elif model == "diffpose":
        raise ValueError(f"{weights}: --model diffpose takes best.pt of python -m train.h36m --model diffpose")
    else:
        net, about = load_weights(weights, None if model == recipes.ANY_CAMERA else model)
    lifter = Lifter(net.to(chosen).eval(), about.network, about.sees, chosen)
    if lifter.whole_chunks:
        fits = (getattr(net, "joints", 0), getattr(net, "in_channels", 0)) == (17, 2)
    else:
        joints = getattr(getattr(net, "skeleton", None), "num_joints", 0)
        fits = getattr(net, "outputs", 3) == 3 and joints == 17
    if not fits:
        raise ValueError(f"--model: {about.network} does not lift 17 keypoints to 17 joints")
    return lifter


# -- people ----------------------------------------------------------------------------------------------------------
@dataclass
class Person:
    """One lifted person over all frames of the video; NaN where absent.

    Args:
        points: [T, 17, 2] pixels, gaps bridged. scores: [T, 17]; 0 where a joint was not seen.
        poses: [T, 17, 3] metres, camera axes (x right, y down, z away), root at 0.
        world: [T, 17, 3] metres, z up, with the root's path; from ``stand``.
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


def lift_person(
    lifter: Lifter,
    track: Track,
    *,
    size: tuple[int, int] | None,
    focal: float | None = None,
    bridge: int = 15,
    smooth: int = 1,
) -> Person:
    """Lift one track of H36M-17 joints (``in_h36m``).

    Args:
        bridge: gaps of at most so many frames are filled; longer ones stay empty.
        smooth: frames of the Savitzky-Golay window; 1 for none.
    """
    points = np.full_like(track.points, np.nan)
    poses = np.full((*track.points.shape[:2], 3), np.nan, np.float32)
    for part in stretches((track.scores > 0).sum(-1) >= ENOUGH, bridge):
        points[part] = filled(track.points[part])
        poses[part] = savitzky_golay(lifter(points[part], size, focal), smooth)
    return Person(track.identity, points, track.scores, poses)


def lift_all(lifter: Lifter, keypoints: Keypoints, people: int | None = None, **options) -> list[Person]:
    """The first ``people`` tracks that hold a person at all, lifted; options as for ``lift_person``."""
    tracks = [in_h36m(track, keypoints.layout, lifter.sees) for track in keypoints.people]
    tracks = [track for track in tracks if ((track.scores > 0).sum(-1) >= ENOUGH).any()]
    if not tracks:
        raise ValueError(f"nobody to lift: no frame shows {ENOUGH} joints of one person with a score of {SURE} or more")
    if people is not None and len(tracks) > people:
        least = f"{len(tracks) - people} seen least left out; --people {len(tracks)} keeps them"
        keypoints.notes.append(f"{len(tracks)} people: {least}")
    return [lift_person(lifter, track, size=keypoints.size, **options) for track in tracks[:people]]


class LiveLifter:
    """One person's frames as they come; each pose ``latency`` frames late.

    Args:
        latency: frames that the network may look ahead, 0 to half its window.
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
        self.lifter, self.size, self.focal = lifter, size, focal
        self.stream = models.stream(lifter.net, latency)
        self.filter = OneEuro(fps) if smooth else None
        self.recent: list[float] = []  # sizes of the person in the latest frames
        self.waiting: list[np.ndarray] = []  # roots of frames not yet answered

    def push(self, points: np.ndarray) -> np.ndarray | None:
        """[17, 2] pixels without NaN; [17, 3] metres, camera axes, of ``latency`` frames ago, or None at first."""
        keypoints = torch.from_numpy(np.ascontiguousarray(points, np.float32))
        if self.lifter.sees == "screen":
            seen = normalise_screen(keypoints, *self.size)
        else:
            person, _, own = centre_on_person(keypoints[None], spread=1)
            self.recent = [*self.recent[1 - self.lifter.frames :], float(own[0])]
            seen = person[0] * (float(own[0]) / max(float(np.mean(self.recent)), 1e-9))
        self.waiting.append(points[0])
        return self._answer(self.stream.push(seen.to(self.lifter.device)))

    def finish(self) -> list[np.ndarray]:
        """The poses still awaited after the last frame."""
        return [self._answer(pose) for pose in self.stream.finish()]

    def _answer(self, pose: Tensor | None) -> np.ndarray | None:
        if pose is None:
            return None
        found, root = pose.float().cpu().numpy(), self.waiting.pop(0)
        if self.lifter.sees == "person":
            found = turned_to_camera(found[None], root[None], self.size, self.focal)[0]
        return self.filter(found) if self.filter else found


# -- the world -------------------------------------------------------------------------------------------------------
def root_path(person: Person, size: tuple[int, int], focal: float) -> np.ndarray:
    """[T, 3] metres, camera axes: where the root must be for the pose to project onto the keypoints.

    Least squares over the joints, weighted by their scores: f (X + x) = u (Z + z) and the same with y.
    """
    ray = (person.points - np.array(size) / 2) / focal  # [T, 17, 2]
    weight = np.sqrt(np.maximum(person.scores, 0.05))[..., None]
    zero = np.zeros_like(ray[..., 0])
    rows_x = np.stack((zero + 1, zero, -ray[..., 0]), -1) * weight
    rows_y = np.stack((zero, zero + 1, -ray[..., 1]), -1) * weight
    right = (ray * person.poses[..., 2:] - person.poses[..., :2]) * weight
    matrix, right = np.concatenate((rows_x, rows_y), 1), np.concatenate((right[..., 0], right[..., 1]), 1)
    present = person.present
    path = np.full((len(ray), 3), np.nan)
    normal = np.einsum("tni,tnj->tij", matrix[present], matrix[present]) + 1e-9 * np.eye(3)
    path[present] = np.linalg.solve(normal, np.einsum("tni,tn->ti", matrix[present], right[present])[..., None])[..., 0]
    path[..., 2] = np.maximum(path[..., 2], 0.5)  # in front of the camera, whatever the fit says
    return path


def upright(people: list[Person]) -> np.ndarray:
    """[3, 3] rotation from camera axes to z-up axes, so that people stand upright on average and face as filmed.

    Up is the median direction from ankles to neck, which gravity decides for whoever walks or stands.
    """
    poses = np.concatenate([p.poses[p.present] for p in people])
    spine = poses[:, 8] - (poses[:, 3] + poses[:, 6]) / 2
    up = np.median(spine / np.maximum(np.linalg.norm(spine, axis=-1, keepdims=True), 1e-9), axis=0)
    if up[1] > -0.5:  # lying or upside down on average: no telling; a level camera then
        up = np.array([0.0, -1, 0])
    up /= np.linalg.norm(up)
    away = np.array([0.0, 0, 1]) - up[2] * up
    away /= np.linalg.norm(away)
    return np.stack((np.cross(away, up), away, up))


def stand(
    people: list[Person],
    size: tuple[int, int] | None,
    focal: float | None = None,
    *,
    ground: str = "clip",
    tilt: str | float = "auto",
    smooth: int = 1,
) -> None:
    """Give every person ``world``, metres, z up, floor at 0, everybody in the same world; and ``off``.

    Args:
        ground: "clip" puts the lowest points of each person's whole path on the floor, "frame" those of every frame,
            "none" keeps heights relative to the camera.
        tilt: of the camera, degrees downwards; "auto" decides by the people (``upright``).
        smooth: frames of the Savitzky-Golay window over the path, which is rougher than the pose.
    """
    if tilt == "auto":
        turn = upright(people)
    else:
        a = np.radians(float(tilt))
        turn = np.array([[1, 0, 0], [0, -np.sin(a), np.cos(a)], [0, -np.cos(a), -np.sin(a)]])
    reach = focal_of(size, focal)
    for person in people:
        path, person.off = np.zeros((len(person.poses), 3)), None
        if size is not None and reach is not None:
            path = root_path(person, size, reach)
            for part in stretches(person.present, 0):
                path[part] = savitzky_golay(path[part], smooth, 1)
            placed = person.poses + path[:, None]
            projected = placed[..., :2] / placed[..., 2:] * reach + np.array(size) / 2
            off = np.linalg.norm(projected - person.points, axis=-1)[(person.scores > 0) & person.present[:, None]]
            person.off = float(np.median(off)) if len(off) else None
        world = (person.poses + path[:, None]) @ turn.T
        if ground != "none":
            lowest = world[..., 2].min(-1)
            floor = lowest if ground == "frame" else np.nanpercentile(lowest, 10)
            world[..., 2] -= np.reshape(floor, (-1, 1))
        person.world = world.astype(np.float32)


@dataclass
class Lifted:
    """All that a run of ``posekernels lift`` found out, as files hold it."""

    people: list[Person]
    fps: float
    size: tuple[int, int] | None
    source: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return len(self.people[0].poses)
