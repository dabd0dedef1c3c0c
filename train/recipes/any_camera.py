"""The lifter that comes with the project: a small Strided Transformer for keypoints of any person seen by any camera.

Ours, no paper's. A lifter trained on the cameras of one laboratory expects those cameras; ``posekernels lift`` meets
phones. So every training window is made anew: a stretch of real motion at 25 to 90 frames per second, of a body with
other proportions, mirrored or not, seen from somewhere by a phone, by a detector that errs as detectors do: a bias per
joint, errors that last, limbs taken for something else or left for right, joints that are not seen and that
``posekernels lift`` fills in. How much was measured (``bench.detector_errors``). The input is centred and scaled on the
person (``posekernels.pose.keypoints.centre_on_person``), so neither focal length nor place in the image matter much;
the answer is in the axes of a camera that looks straight at the person. Trunk, head and the lengths of bones are as
detectors see them, in what is learned and what is lifted; knees that a capture never straightens are straightened
(``train.data.legs``).

    python -m train.data.open_motion motion
    python -m train.data.cmu_to_h36m CMU_TEXT --out cmu
    python -m train.h36m --model any_camera --motion motion --data-root cmu -k gt --add-starter --out runs/any_camera

It learns from poses alone: the 2D files of the data set serve the test only.
"""

from __future__ import annotations

import functools
import math
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from posekernels import models
from posekernels.models.lifting import lift_both_ways, pace
from posekernels.pose.camera import camera_to_world, looking_at, project
from posekernels.pose.keypoints import centre_on_person, guess_unseen, one_trunk
from posekernels.pose.metrics import PoseScores, mpjpe, n_mpjpe, p_mpjpe
from posekernels.pose.skeleton import H36M_17

from ..data import open_motion
from ..data.clips import Clip
from ..data.legs import straight_legs
from ..data.motion import load_starter
from ..evaluate import Report, evaluate_clips
from . import Recipe, add_start, start_with

# Bones of an adult of about 1.75 m, metres, from each joint's parent, between the places that detectors call joints:
# their hips are lower and wider apart than the hip joints, so legs are 1.5 trunks long and no longer (where pose2sim's
# OpenSim model has the markers of OpenPose, COCO and BlazePose). A body is these, each varied. How bodies vary:
# standard deviations of the logarithm, of each bone and of groups of them together.
ADULT = torch.tensor(
    [0, 0.105, 0.385, 0.41, 0.105, 0.385, 0.41, 0.265, 0.265, 0.154, 0.138, 0.2, 0.295, 0.24, 0.2, 0.295, 0.24]
)
ALONE = torch.tensor([0, 0.15, *2 * [0.05], 0.15, *2 * [0.05], 0.04, 0.04, 0.05, 0.05, *2 * [0.12, 0.05, 0.06]])
LEGS, ARMS, TRUNK = [2, 3, 5, 6], [12, 13, 15, 16], [7, 8, 9, 10]
CHILD = torch.ones(17)  # legs are shorter and heads larger for their size
CHILD[LEGS], CHILD[[9, 10]] = 0.9, 1.2

# How much detectors err, per joint, as ``bench.detector_errors`` measured them: errors that stay, that last for some
# frames, and of a single frame; relative to the sizes in ``detected``. Every window is of one of the two.
BLAZEPOSE = (
    (0, 1.3, 0.9, 0.9, 1.3, 0.9, 0.9, 0, 0, 0.5, 0.5, 0.9, 1.1, 0.9, 0.9, 1.1, 0.9),
    (0, 0.8, 1, 1, 0.8, 1, 1, 0, 0, 0.7, 0.8, 0.95, 1.3, 1.3, 0.95, 1.3, 1.3),
    (0, 0.7, 0.6, 1, 0.7, 0.6, 1, 0, 0, 0.9, 0.9, 0.7, 1.3, 2, 0.7, 1.3, 2),
)
OPENPOSE = (  # of pictures only: how long its errors last is BlazePose's
    (0, 0.2, 0.5, 0.9, 0.2, 0.5, 0.9, 0, 0, 0.6, 0.7, 0.4, 0.3, 0.4, 0.4, 0.3, 0.4),
    (0, 0.5, 0.6, 0.9, 0.5, 0.6, 0.9, 0, 0, 0.5, 0.5, 0.5, 0.6, 0.8, 0.5, 0.6, 0.8),
    (0, 0.5, 0.5, 0.7, 0.5, 0.5, 0.7, 0, 0, 0.5, 0.5, 0.5, 0.7, 1, 0.5, 0.7, 1),
)
ERRORS = torch.tensor([BLAZEPOSE, OPENPOSE])
APART, SPAN = (1, 2, 3), 27  # frames of a window are so far apart, each window's own; within so many frames in all
NETWORKS = "strided_transformer", "mixste", "rie", "htnet"
HIDDEN = 64  # width from which a layer is a hidden one: joints have 34 or 51 numbers
CHAINS = ((1, 2, 3), (4, 5, 6), (11, 12, 13), (14, 15, 16))
OFTEN = torch.tensor([0.04, 0.04, 0.1, 0.1])  # of windows, a leg or an arm is taken for something else, or not seen
ASTRAY = torch.zeros(4, 17)  # how far each joint goes along when a limb is taken for something else
for _limb, _chain in enumerate(CHAINS):
    ASTRAY[_limb, list(_chain)] = torch.tensor([0.15, 0.6, 1.0])
UNSEEN = (
    (2, 3, 5, 6),
    (3, 6),
    (1, 2, 3, 4, 5, 6),
    (12, 13),
    (15, 16),
    (13,),
    (16,),
    (9, 10),
)  # out of the image, hidden
REACH = torch.zeros(17, 17)  # [j, b] = 1 where bone b lies between the root and joint j
for _joint in range(17):
    _at = _joint
    while H36M_17.parents[_at] >= 0:
        REACH[_joint, _at] = 1
        _at = H36M_17.parents[_at]
PARENTS = [max(p, 0) for p in H36M_17.parents]


def with_head(points: Tensor, trunk: Tensor | float, turn: Tensor | float = 0.0) -> Tensor:
    """[..., 17, 3] with nose and head where detectors' joints put them (``posekernels.pose.layouts``).

    Skeletons end at the base of the skull or at the crown. Here the head is 0.55 trunks above the shoulders, the way
    the skeleton's head is, and "nose" 0.29 above and 0.14 before them.

    Args:
        trunk: [...] its length, in the unit of points. turn: [...] radians, of the head to the person's left.
    """
    thorax = points[..., 8, :]
    up = torch.nn.functional.normalize(points[..., 10, :] - thorax, dim=-1)
    left = torch.nn.functional.normalize(points[..., 11, :] - points[..., 14, :], dim=-1)
    ahead = torch.nn.functional.normalize(torch.linalg.cross(left, up), dim=-1)
    turn, trunk = (torch.as_tensor(v, dtype=points.dtype)[..., None] for v in (turn, trunk))
    face = turn.cos() * ahead + turn.sin() * left
    points = points.clone()
    points[..., 9, :] = thorax + trunk * (0.29 * up + 0.14 * face)
    points[..., 10, :] = thorax + trunk * 0.55 * up
    return points


def clips_by_performer(clips: list[Clip]) -> dict[str, list[Clip]]:
    """Clips by performer; the starter set's subjects are "performer/owner of the cameras"."""
    found: dict[str, list[Clip]] = {}
    for clip in clips:
        found.setdefault(clip.subject.partition("/")[0], []).append(clip)
    return found


def recordings_by_performer(recordings: Iterable[open_motion.Recording]) -> dict[tuple[str, str], list[np.ndarray]]:
    """Recordings [T, 17, 3] by set and performer."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for recording in recordings:
        found.setdefault((recording.set, recording.subject), []).append(recording.points)
    return found


def straightened(performers: dict[tuple[str, str], list[np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """Recordings [T, 17, 3] by set, of performers by set and name; their knees come to be straight."""
    sets: dict[str, list[np.ndarray]] = {}
    for (name, _), recordings in performers.items():
        sets.setdefault(name, []).extend(straight_legs(recordings))
    return sets


def motions(clips: list[Clip]) -> list[np.ndarray]:
    """The recordings behind clips, each once, [T, 17, 3] metres in the world, z up.

    Several cameras of one recording show the same motion: the longest view is kept.
    """
    longest: dict[tuple[str, str], Clip] = {}
    for clip in clips:
        key = clip.subject.partition("/")[0], clip.action
        if key not in longest or len(clip.keypoints) > len(longest[key].keypoints):
            longest[key] = clip
    found = []
    for clip in longest.values():
        if clip.positions is None or clip.orientation is None:
            raise ValueError(f"any_camera: {clip.subject} {clip.action} has no 3D positions, or its camera no place")
        points = clip.positions.copy()
        points[:, 1:] += points[:, :1]
        found.append(camera_to_world(points, clip.orientation, clip.translation))
    return found


def looking(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """[B, 3, 3] rotations from the world (z up) to cameras (x right, y down, z away); pitch > 0 looks down. Radians."""
    level = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    return about(2, roll) @ about(0, pitch) @ level @ about(2, yaw)


def about(axis: int, angle: Tensor) -> Tensor:
    """[B, 3, 3] rotations about a coordinate axis, radians [B]."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.zeros(len(angle), 3, 3)
    matrix[:, axis, axis] = 1
    matrix[:, a, a] = matrix[:, b, b] = angle.cos()
    matrix[:, a, b], matrix[:, b, a] = -angle.sin(), angle.sin()
    return matrix


class Draws:
    """Random numbers of a batch [B, *shape] from one generator."""

    def __init__(self, random: torch.Generator, batch: int):
        self.random, self.batch = random, batch

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(self.batch, *shape, generator=self.random)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, generator=self.random)

    def chance(self, of: float | Tensor, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, generator=self.random) < of


def turned(draw: Draws) -> Tensor:
    """[B, 3, 3] rotations from the world to cameras, as people hold them."""
    pitch = torch.deg2rad((10 + 13 * draw.normal()).clamp(-10, 45))
    return looking(draw.uniform(0, 2 * math.pi), pitch, torch.deg2rad(4 * draw.normal()))


def bones_of(world: Tensor) -> Tensor:
    """[17] metres, of each joint from its parent, on average over a recording [T, 17, 3] with ``one_trunk``."""
    return (world - world[:, PARENTS]).norm(dim=-1).mean(0)


def in_other_bodies(points: Tensor, bones: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
    """Motion of an adult's or a child's bones instead of the performer's, each longer or shorter.

    Args:
        points: [B, F, 17, 3] metres, z up. bones: [B, 17] the performers' (``bones_of``).
    Returns:
        [B, F, 17, 3] relative to the root, and the root's path [B, F, 1, 3] from where it is in the middle.
    """
    F = points.shape[1]
    alone = ALONE * draw.normal(17)
    alone = (alone + alone[:, list(H36M_17.mirrored)]) / 2**0.5 + 0.01 * draw.normal(17)
    wide = torch.where(draw.chance(0.2, 1), 3, 1)  # somebody unusual, or detected by another convention
    for group in (LEGS, ARMS, TRUNK):
        alone[:, group] += 0.05 * wide * draw.normal(1)
    child = draw.chance(0.12)
    size = torch.where(child, draw.uniform(0.55, 0.85), (0.06 * draw.normal()).exp())[:, None]
    lengths = ADULT * alone.exp() * size * torch.where(child[:, None], CHILD, 1)
    ratio = lengths / bones.clamp_min(0.02)
    shape = one_trunk(REACH @ ((points - points[:, :, PARENTS]) * ratio[:, None, :, None]))
    shape = shape - shape[:, :, :1]
    root = (points[:, :, :1] - points[:, F // 2, None, :1]) * ratio[:, LEGS].mean(1)[:, None, None, None]
    looks = draw.uniform(-0.7, 0.7, 1) + 0.3 * draw.normal(1) * torch.linspace(-1, 1, F)
    return with_head(shape, (lengths[:, 7] + lengths[:, 8])[:, None], looks), root


class Views:
    """Endless random views of recordings, as the loop's ``Loader``.

    Args:
        recordings: [T, 17, 3] metres, z up, 50 per second.
        frames: F of a window, each some frames of the video after the one before (``APART``). batch_size: over all
            processes. steps: batches in an epoch.
        seed: with epoch and step it fixes a batch, whichever process asks.
        shares: how often each recording's frames are drawn, relative to others'; by default all alike.
    """

    def __init__(
        self,
        recordings: list[np.ndarray],
        frames: int,
        batch_size: int,
        steps: int,
        seed: int,
        rank: int,
        world: int,
        shares: list[float] | None = None,
    ):
        lengths = torch.tensor([len(r) for r in recordings])
        parts, bones, often = [], [], []
        for recording, share in zip(recordings, shares or [1.0] * len(recordings), strict=True):
            points = one_trunk(torch.from_numpy(np.ascontiguousarray(recording)).float())
            bones.append(bones_of(points))
            parts.append((points * 1000).round().to(torch.int32))
            trunk, knees = points[:, 8] - points[:, 0], (points[:, [3, 6]] - points[:, [1, 4]]).norm(dim=-1).amin(1)
            leant = trunk[:, 2] < 0.7 * trunk.norm(dim=-1)  # by more than 45 degrees
            bent = knees < 0.8 * (bones[-1][2] + bones[-1][3])  # a knee by more than 74 degrees
            often.append(share * (1 + 2 * leant + bent))
        self.points, self.bones = torch.cat(parts), torch.stack(bones)
        self.often = torch.cat(often).double().cumsum(0)
        self.recording = torch.arange(len(lengths)).repeat_interleave(lengths)
        ends = lengths.cumsum(0)
        self.first, self.last = ends - lengths, ends - 1
        self.window, self.batch_size, self.steps = frames, batch_size, steps
        self.apart = torch.tensor([n for n in APART if n == 1 or n * (frames - 1) < SPAN])
        self.frames = frames = int(self.apart[-1]) * (frames - 1) + 1  # of the video
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(self.steps):
            random = torch.Generator().manual_seed((self.seed * 100_003 + self.epoch) * 10_007 + step)
            keypoints, poses = self.batch(random)
            yield keypoints[self.rank :: self.world], poses[self.rank :: self.world]

    def batch(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Keypoints [B, F, 17, 2] on the person, and poses [B, F, 17, 3] in metres, root at 0."""
        draw = Draws(random, self.batch_size)
        image, poses = self.seen(draw)
        image, poses = self.ended(*self.picked(detected(image, draw), poses, draw), draw)
        keypoints, _, _ = centre_on_person(image, spread=self.window)
        return keypoints * draw.uniform(0.9, 1.1, 1, 1, 1), poses

    def bodies(self, draw: Draws) -> tuple[Tensor, Tensor]:
        """[B, F, 17, 3] relative to the root, and the root's path [B, F, 1, 3], metres, z up."""
        F = self.frames
        # time: 25 to 90 frames per second, as seen from 50, of people a little quicker or slower
        picked = draw.uniform(0, 1).double() * self.often[-1]
        centre = torch.searchsorted(self.often, picked).clamp_max(len(self.points) - 1)
        which = self.recording[centre]
        speed = 50 / draw.log_uniform(25, 90) * draw.uniform(0.85, 1.2)
        at = centre[:, None] + speed[:, None] * (torch.arange(F) - (F - 1) / 2)
        at = torch.minimum(torch.maximum(at, self.first[which][:, None]), self.last[which][:, None])
        below = at.floor().long()
        above = torch.minimum(below + 1, self.last[which][:, None])
        points = torch.lerp(self.points[below].float(), self.points[above].float(), (at - below)[:, :, None, None])
        points = points / 1000
        shape, root = in_other_bodies(points, self.bones[which], draw)
        # some lie, or are turned in the air as no recording is
        tip = about(0, draw.uniform(-2, 2) * draw.chance(0.06))[:, None].mT
        shape, root = shape @ tip, root @ tip
        flip, mirror = draw.chance(0.5)[:, None, None, None], torch.tensor([-1.0, 1, 1])
        shape = torch.where(flip, shape[:, :, list(H36M_17.mirrored)] * mirror, shape)
        return shape, torch.where(flip, root * mirror, root)

    def seen(self, draw: Draws) -> tuple[Tensor, Tensor]:
        """Image [B, F, 17, 2] at focal length 1, and poses [B, F, 17, 3] as of a camera that looks at the person."""
        shape, root = self.bodies(draw)
        turn = turned(draw)[:, None].mT
        away = torch.tensor([0.0, 0, 1]) * draw.log_uniform(1.8, 12)[:, None, None, None]
        # somewhere in the image of a phone: up to 33 degrees off its middle
        aside = (draw.normal(2) * torch.tensor([0.28, 0.15])).clamp(-0.65, 0.65)[:, None]
        camera = looking_at(shape @ turn + root @ turn + away, aside)
        camera[..., 2].clamp_min_(0.4)
        image = camera[..., :2] / camera[..., 2:]
        return image, looking_at(camera - camera[:, :, :1], -image[:, :, 0])

    def picked(self, image: Tensor, poses: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
        """Both in the frames of windows: around the middle, ``apart`` from each other."""
        apart = self.apart[torch.randint(len(self.apart), (len(image), 1), generator=draw.random)]
        rows = self.frames // 2 + apart * (torch.arange(self.window) - self.window // 2)
        which = torch.arange(len(image))[:, None]
        return image[which, rows], poses[which, rows]

    def ended(self, image: Tensor, poses: Tensor, draw: Draws) -> tuple[Tensor, Tensor]:
        """Both as at the ends of a clip, and live: frames that never were, or are yet to come, repeat the nearest."""
        middle = self.window // 2
        ahead = torch.where(draw.chance(0.25), (draw.uniform(0, 1) ** 2 * (middle + 1)).long(), middle)
        behind = torch.where(draw.chance(0.08), (draw.uniform(0, 1) * (middle + 1)).long(), middle)
        rows = torch.arange(self.window).expand(len(image), -1)
        rows = torch.minimum(torch.maximum(rows, middle - behind[:, None]), middle + ahead[:, None])
        which = torch.arange(len(image))[:, None]
        return image[which, rows], poses[which, rows]


@functools.cache
def lasting(frames: int) -> Tensor:
    """[5, F, F]: errors that last a frame, some, or all of a window; each turns white noise into itself."""
    apart = (torch.arange(frames)[:, None] - torch.arange(frames)).abs()
    return torch.stack(
        [torch.linalg.cholesky(torch.exp(-apart / tau) + 1e-4 * torch.eye(frames)) for tau in (0.5, 2, 3.5, 7, 20)]
    )


def detected(image: Tensor, draw: Draws) -> Tensor:
    """[B, F, 17, 2] as a detector might see it, and ``posekernels lift`` fill it where it saw nothing."""
    B, F = image.shape[:2]
    unit = (image - image[:, :, :1]).norm(dim=-1).mean((1, 2))[:, None, None, None]
    white = draw.normal(F, 2 * 17)
    noise = lasting(F)
    error = (noise[torch.randint(len(noise), (B,), generator=draw.random)] @ white).view(B, F, 17, 2)
    heavy = (0.5 * draw.normal(1, 17, 1)).exp()  # in this recording, of this joint
    detector = ERRORS[torch.randint(len(ERRORS), (B,), generator=draw.random)]
    stays, lasts, shakes = detector[:, :, None, :, None].unbind(1)  # [B, 1, 17, 1]
    error = lasts * error * heavy * draw.log_uniform(0.01, 0.08)[:, None, None, None]
    error = error + shakes * draw.log_uniform(0.002, 0.02)[:, None, None, None] * draw.normal(F, 17, 2)
    error = error + stays * 0.035 * draw.uniform(0, 1.5, 1, 1, 1) * draw.normal(1, 17, 2)
    image = image + unit * error
    # a limb taken for something else, for a while
    spell = during(draw, F, 2, F, 4)  # [B, F, 4]
    lost = spell & draw.chance(OFTEN, 1, 4)
    drift = 0.35 * draw.normal(1, 4, 2) + 0.1 * draw.normal(F, 4, 2)
    image = image + unit * torch.einsum("bflc,lj->bfjc", drift * lost[..., None], ASTRAY)
    # left and right exchanged for some frames, of legs, arms or both; or both limbs seen on one of the two
    legs, arms = [1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16]
    spell = during(draw, F, 1, 9, 4)
    both = draw.chance(0.03, 1)
    for n, joints in enumerate((legs, arms)):
        limb = image[:, :, joints]
        swapped = spell[..., n] & (draw.chance(0.05, 1) | both)
        limb = torch.where(swapped[..., None, None], limb[:, :, [3, 4, 5, 0, 1, 2]], limb)
        onto = limb[:, :, [1, 2]] + 0.03 * unit * draw.normal(F, 2, 2)
        same = spell[..., 2 + n] & draw.chance(0.03, 1)
        image[:, :, joints] = limb
        image[:, :, [joints[4], joints[5]]] = torch.where(same[..., None, None], onto, limb[:, :, [4, 5]])
    image = bridged(image, draw)
    # never seen
    gone = torch.zeros(B, 17, dtype=torch.bool)
    for joints, chance in zip(UNSEEN, (0.02, 0.01, 0.02, 0.015, 0.015, 0.015, 0.015, 0.03), strict=True):
        gone[:, list(joints)] |= draw.chance(chance)[:, None]
    pixels = image.clone()
    return one_trunk(guess_unseen(pixels, ~gone[:, None].expand(B, F, 17)))


def during(draw: Draws, frames: int, shortest: float, longest: float, kinds: int) -> Tensor:
    """[B, F, kinds] bool: one stretch of each kind, of so many frames, that touches the window."""
    length = draw.uniform(shortest, longest, 1, kinds)
    start = draw.uniform(0, 1, 1, kinds) * (frames + length) - length
    times = torch.arange(frames)[:, None]
    return (times >= start) & (times < start + length)


def bridged(image: Tensor, draw: Draws) -> Tensor:
    """Limbs that are not seen for a while: their offset from the joint above goes straight from before to after."""
    B, F = image.shape[:2]
    gone = during(draw, F, 2, 15, 4) & draw.chance(OFTEN, 1, 4)
    if not gone.any():
        return image
    times = torch.arange(F)[:, None].expand(F, 4)
    before = torch.where(gone, -1, times).cummax(1).values
    after = torch.where(gone, F, times).flip(1).cummin(1).values.flip(1)
    before, after = torch.where(before < 0, after.clamp_max(F - 1), before), torch.where(after >= F, before, after)
    before = before.clamp_min(0)
    part = ((times - before) / (after - before).clamp_min(1))[..., None]
    image, was = image.clone(), image
    for limb, (top, *rest) in enumerate(CHAINS):
        above = top
        for joint in rest:
            offset = was[:, :, joint] - was[:, :, above]
            first, last = (
                offset.gather(1, at[..., limb, None].expand(B, F, 2)) for at in (before, after.clamp(0, F - 1))
            )
            image[:, :, joint] = image[:, :, above] + torch.lerp(first, last, part[:, :, limb])
            above = joint
    return image


def detectors_joints(world: Tensor) -> Tensor:
    """A recording [T, 17, 3] metres, z up, with trunk and head where detectors see them."""
    world = one_trunk(world)
    return with_head(world, (world[:, 8] - world[:, 0]).norm(dim=-1).median())


def shares(sets: Iterable[list[np.ndarray]]) -> list[float]:
    """How often a frame of each recording is drawn: the root of its set's length counts.

    So an hour of basketball does not drown ten minutes of dance.
    """
    return [sum(map(len, found)) ** -0.5 for found in sets for _ in found]


def as_detected(clip: Clip, projected: bool) -> Clip:
    """A clip with trunk and head where detectors see them: what the network learns, and is tested on.

    Args:
        projected: the keypoints are projections of the positions, and move with them; else only their trunk does.
    """
    world = torch.from_numpy(clip.positions.copy())
    world[:, 1:] += world[:, :1].clone()
    world = detectors_joints(world)
    keypoints = project(world, torch.from_numpy(clip.intrinsics)) if projected else one_trunk(clip.keypoints[..., :2])
    world[:, 1:] -= world[:, :1].clone()
    return replace(clip, positions=world.numpy(), keypoints=np.asarray(keypoints))


def error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance of joints [..., 17, 3], mostly after the best scale, or after the best rotation and shift too.

    How large somebody is no image tells, and where "up" is a short window hardly does. Where these are off, all
    joints are, and a distance's gradient points there: what can be learnt would be drowned by what cannot.
    """
    return 0.1 * mpjpe(predicted, target) + 0.4 * n_mpjpe(predicted, target) + 0.5 * p_mpjpe(predicted, target)


class AnyCameraRecipe(Recipe):
    sees = "person"
    reads = ("start",)
    architecture = ("network", "strides", "layers", "channels", "hidden", "heads")
    clip_norm = 1.0
    held_out: tuple[str, ...] = open_motion.HELD_OUT  # subjects that nothing is learnt from

    @property
    def network(self) -> str:
        return self.options.network

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--motion", metavar="DIR", help="what python -m train.data.open_motion wrote, beside the rest"
        )
        parser.add_argument("--add-starter", action="store_true", help="the starter set beside --data-root")
        parser.add_argument("--network", choices=NETWORKS, default="strided_transformer")
        parser.add_argument("--strides", type=int, nargs="+", default=[3, 3], help="their product is the window")
        parser.add_argument("--layers", type=int, default=3, help="before the strided ones, or in all")
        parser.add_argument("--channels", type=int, default=192)
        parser.add_argument("--hidden", type=int, default=512)
        parser.add_argument("--heads", type=int, default=6)
        parser.add_argument("--steps", type=int, default=100, metavar="N", help="batches in an epoch")
        add_start(parser)

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        return {"epochs": 30, "batch_size": 128, "lr": 1e-3, "eval_every": 30}

    @functools.cached_property
    def test_clips(self) -> list[Clip]:
        """What to test on; with the starter set, each of its test clips in one view."""
        test = [as_detected(clip, self.options.keypoints in (None, "gt")) for clip in self.data.test]
        if self.options.add_starter and self.options.data_root is not None:
            test += [as_detected(clip, True) for clip in load_starter().test if clip.camera == 0]
        return test

    @functools.cached_property
    def recordings(self) -> list[open_motion.Recording]:
        return open_motion.load(self.options.motion) if self.options.motion else []

    def config(self) -> dict:
        """Sizes of the network. No dropout: windows never repeat, so there is nothing to overfit with."""
        o = self.options
        if o.network == "rie":
            sizes = {"filter_widths": tuple(o.strides), "stage": 2, "latent": o.hidden, "channels": o.channels}
            return sizes | {"dropout": 0.0, "fc_dropout": 0.0}
        if o.network == "htnet":
            sizes = {"depth": o.layers, "channels": o.channels, "hidden": o.hidden}
            return sizes | {"dropout": 0.0, "drop_path": (0.0, 0.0)}
        sizes = {"channels": o.channels, "heads": o.heads}
        if o.network == "mixste":
            ratio = o.hidden / o.channels
            return sizes | {"frames": math.prod(o.strides), "depth": o.layers, "mlp_ratio": ratio}
        sizes |= {"strides": list(o.strides), "layers": o.layers, "hidden": o.hidden}
        return sizes | {"dropout": 0.0, "embedding_dropout": 0.0}

    def make_model(self) -> nn.Module:
        net = models.create(self.network, **self.config())
        net.sees = self.sees  # by which ``pace`` tells whose frames may be apart
        if self.options.start:
            start_with(net, self.options.start, self.network, self.config())
        return net

    def make_loader(self, rank: int, world: int) -> Views:
        o = self.options
        performers = {("", name): motions(clips) for name, clips in clips_by_performer(self.data.train).items()}
        if o.add_starter and o.data_root is not None:
            performers |= {
                ("starter", name): motions(clips) for name, clips in clips_by_performer(load_starter().train).items()
            }
        performers |= recordings_by_performer(r for r in self.recordings if r.subject not in self.held_out)
        sets = straightened(performers)
        recordings = [recording for found in sets.values() for recording in found]
        often = shares(sets.values())
        return Views(recordings, self.model.frames, o.batch_size, o.steps, o.seed, rank, world, often)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for matrices between hidden layers, at three times the rate, AdamW for the rest."""
        linear = {m.weight for m in self.model.modules() if isinstance(m, nn.Linear)}
        hidden = {p for p in linear if p.requires_grad and min(p.shape) >= HIDDEN}
        trained = [p for p in self.model.parameters() if p.requires_grad]
        rate = self.options.lr
        found = [torch.optim.AdamW([p for p in trained if p not in hidden], lr=rate, weight_decay=0.01)]
        if hidden:
            how = {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"}  # moves a matrix as far as AdamW does
            found.append(torch.optim.Muon([p for p in trained if p in hidden], lr=3 * rate, **how))
        return found

    def lr_factor(self, epoch: int, step: int) -> float:
        """Warm-up over 100 batches, then half a cosine."""
        done = step / (self.options.epochs * self.options.steps)
        return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2)

    def loss_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        keypoints, poses = (tensor.to(self.place.device) for tensor in batch)
        middle = poses[:, poses.shape[1] // 2, None]
        if self.network == "strided_transformer":
            single, full = self.model(keypoints, full=True)
            return error(single, middle) + 0.5 * error(full, poses)
        found = self.model(keypoints)
        return error(found, poses if found.shape[1] == poses.shape[1] else middle)

    @torch.no_grad()
    def predict(self, clip: Clip) -> Tensor:
        """[T, 17, 3] metres, camera axes, root at 0."""
        keypoints = torch.from_numpy(np.ascontiguousarray(clip.keypoints[..., :2]))
        _, apart = pace(self.model, clip.fps)
        person, centre, _ = centre_on_person(keypoints, spread=apart * self.model.frames | 1)
        poses = models.lift(self.model, person.to(self.place.device), apart=apart).cpu()
        focal, principal = torch.from_numpy(clip.intrinsics).split((2, 7))
        return looking_at(poses, (centre - principal[:2]) / focal)

    @torch.no_grad()
    def detected_scores(self, subjects: tuple[str, ...] = open_motion.HELD_OUT, batches: int = 8) -> PoseScores:
        """Of random views of these subjects, with a detector's errors."""
        performers = recordings_by_performer(r for r in self.recordings if r.subject in subjects)
        held = [recording for found in performers.values() for recording in straight_legs(found)]
        frames = self.model.frames
        scores = PoseScores()
        for keypoints, poses in Views(held, frames, 128, batches, 1234, 0, 1):
            found = lift_both_ways(self.model, keypoints.to(self.place.device), H36M_17.mirror).cpu()
            found = found[:, found.shape[1] // 2]
            found[:, 0] = 0
            scores.add(found, poses[:, frames // 2], "held-out")
        return scores

    def evaluate(self, place) -> Report:
        report = Report.of(evaluate_clips(self.predict, self.test_clips, place))
        if any(r.subject in open_motion.HELD_OUT for r in self.recordings):
            rows = Report.of(self.detected_scores()).rows  # of frames that do not follow each other
            report.rows |= {name: row | {"MPJVE": math.nan} for name, row in rows.items()}
        return report


RECIPE = AnyCameraRecipe
