"""The lifter that comes with the project: a small Strided Transformer for keypoints of any person seen by any camera.

Ours, no paper's. A lifter trained on the cameras of one laboratory expects those cameras; ``posekernels lift`` meets
phones. So every training window is made anew: a stretch of real motion, played slower or faster, of a body with other
proportions, mirrored or not, seen from a camera with another heading, pitch, roll and distance, by a detector that errs
as detectors do (a bias per joint and clip, a tremor, joints that go astray for a while). The input is centred and
scaled on the person (``posekernels.pose.keypoints.centre_on_person``), so neither focal length nor place in the image
matter; the answer is in the axes of a camera that looks straight at the person.

    python -m train.data.cmu_to_h36m CMU_TEXT --out cmu
    python -m train.h36m --model any_camera --data-root cmu -k gt --add-starter --out runs/any_camera

It learns from poses alone: the 2D files of the data set serve the test only.
"""

from __future__ import annotations

import functools
import math
from argparse import ArgumentParser
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from posekernels import models
from posekernels.pose.camera import camera_to_world, looking_at
from posekernels.pose.keypoints import centre_on_person
from posekernels.pose.skeleton import H36M_17

from ..data.clips import Clip
from ..data.motion import load_starter
from ..evaluate import Report, evaluate_clips
from . import Recipe

# Standard deviation of a detector's bias, per joint, in units of the person (mean distance of a joint from the pelvis,
# about half a metre). Pelvis, spine, thorax, nose and head are not what detectors call so: their bias is larger.
BIAS = torch.full((17, 1), 0.04)
BIAS[[0, 1, 4, 8]] = 0.06
BIAS[[7, 9, 10]] = 0.09
REACH = torch.zeros(17, 17)  # [j, b] = 1 where bone b lies between the root and joint j
for _joint in range(17):
    _at = _joint
    while H36M_17.parents[_at] >= 0:
        REACH[_joint, _at] = 1
        _at = H36M_17.parents[_at]


def motions(clips: list[Clip]) -> list[np.ndarray]:
    """The recordings behind clips, each once, [T, 17, 3] metres in the world, z up.

    Several cameras of one recording show the same motion: the longest view is kept.
    """
    longest: dict[tuple[str, str], Clip] = {}
    for clip in clips:
        key = clip.subject.partition("/")[0], clip.action  # "performer/owner of the cameras" in the starter set
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

    def about(axis: int, angle: Tensor) -> Tensor:
        a, b = (axis + 1) % 3, (axis + 2) % 3
        matrix = torch.zeros(len(angle), 3, 3)
        matrix[:, axis, axis] = 1
        matrix[:, a, a] = matrix[:, b, b] = angle.cos()
        matrix[:, a, b], matrix[:, b, a] = -angle.sin(), angle.sin()
        return matrix

    level = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    return about(2, roll) @ about(0, pitch) @ level @ about(2, yaw)


class Views:
    """Endless random views of recordings, as the loop's ``Loader``.

    Args:
        recordings: [T, 17, 3] metres, z up, 50 per second.
        frames: F of a window. batch_size: over all processes. steps: batches in an epoch.
        seed: with epoch and step it fixes a batch, whichever process asks.
    """

    def __init__(
        self, recordings: list[np.ndarray], frames: int, batch_size: int, steps: int, seed: int, rank: int, world: int
    ):
        lengths = torch.tensor([len(r) for r in recordings])
        self.points = torch.from_numpy(np.concatenate(recordings)).float()
        ends = lengths.cumsum(0)
        self.first, self.last = (ends - lengths).repeat_interleave(lengths), (ends - 1).repeat_interleave(lengths)
        self.frames, self.batch_size, self.steps = frames, batch_size, steps
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
        B, F = self.batch_size, self.frames

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(*shape, generator=random)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random)

        # time: 25 to 90 frames per second, as seen from 50
        centre = torch.randint(len(self.points), (B,), generator=random)
        speed = uniform(math.log(0.55), math.log(2.0), B).exp()
        at = centre[:, None] + speed[:, None] * (torch.arange(F) - (F - 1) / 2)
        at = torch.minimum(torch.maximum(at, self.first[centre][:, None]), self.last[centre][:, None])
        below = at.floor().long()
        above = torch.minimum(below + 1, self.last[centre][:, None])
        points = torch.lerp(self.points[below], self.points[above], (at - below)[:, :, None, None])
        # body: proportions and size
        parents = [max(p, 0) for p in H36M_17.parents]
        stretch = 1 + 0.06 * normal(B, 17)
        stretch = (stretch + stretch[:, list(H36M_17.mirrored)]) / 2 * uniform(0.9, 1.1, B, 1)
        bones = (points - points[:, :, parents]) * stretch[:, None, :, None]
        root = points[:, :, :1] - points[:, F // 2, None, :1]
        shape = REACH @ bones
        flip = torch.rand(B, generator=random) < 0.5
        mirrored = shape[:, :, list(H36M_17.mirrored)] * torch.tensor([-1.0, 1, 1])
        shape = torch.where(flip[:, None, None, None], mirrored, shape)
        root = torch.where(flip[:, None, None, None], root * torch.tensor([-1.0, 1, 1]), root)
        # camera
        pitch = torch.deg2rad((8 + 10 * normal(B)).clamp(-20, 45))
        turn = looking(uniform(0, 2 * math.pi, B), pitch, torch.deg2rad(4 * normal(B)))[:, None].mT
        poses = shape @ turn
        seen = poses + root @ turn
        seen[..., 2] += uniform(math.log(2.2), math.log(12.0), B).exp()[:, None, None]
        image = seen[..., :2] / seen[..., 2:].clamp_min(0.5)
        # detector
        unit = (image - image[:, :, :1]).norm(dim=-1).mean((1, 2))[:, None, None, None]
        tremor = uniform(math.log(0.004), math.log(0.05), B).exp()[:, None, None, None]
        error = BIAS * normal(B, 1, 17, 2) * uniform(0, 1.5, B, 1, 1, 1) + tremor * normal(B, F, 17, 2)
        start, length = uniform(-F / 2, F, B, 1), uniform(2, F, B, 1)
        during = (torch.arange(F) > start) & (torch.arange(F) < start + length)
        astray = during[:, :, None, None] & (torch.rand(B, 1, 17, 1, generator=random) < 0.03)
        error = error + astray * 0.3 * normal(B, 1, 17, 2)
        keypoints, _, _ = centre_on_person(image + unit * error, spread=F)
        return keypoints * uniform(0.9, 1.1, B, 1, 1, 1), poses


class AnyCameraRecipe(Recipe):
    network = "strided_transformer"
    architecture = ("strides", "layers", "channels", "hidden", "heads")

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--add-starter", action="store_true", help="the starter set beside --data-root")
        parser.add_argument("--strides", type=int, nargs="+", default=[3, 3, 3], help="their product is the window")
        parser.add_argument("--layers", type=int, default=2, help="vanilla layers before the strided ones")
        parser.add_argument("--channels", type=int, default=64)
        parser.add_argument("--hidden", type=int, default=192)
        parser.add_argument("--heads", type=int, default=4)
        parser.add_argument("--steps", type=int, default=100, metavar="N", help="batches in an epoch")

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        return {"epochs": 30, "batch_size": 128, "lr": 2e-3, "eval_every": 30}

    @functools.cached_property
    def clips(self) -> tuple[list[Clip], list[Clip]]:
        """What to learn from, and what to test on; with the starter set, each of its test clips in one view."""
        train, test = self.data.train, self.data.test
        if self.options.add_starter and self.options.data_root is not None:
            starter = load_starter()
            train, test = train + starter.train, test + [c for c in starter.test if c.camera == 0]
        return train, test

    def config(self) -> dict:
        o = self.options
        return {
            "strides": list(o.strides),
            "layers": o.layers,
            "channels": o.channels,
            "hidden": o.hidden,
            "heads": o.heads,
            "dropout": 0.0,  # the windows never repeat: nothing to overfit with so few parameters
            "embedding_dropout": 0.0,
        }

    def make_model(self) -> nn.Module:
        return models.create(self.network, **self.config())

    def make_loader(self, rank: int, world: int) -> Views:
        o = self.options
        frames = math.prod(o.strides)
        return Views(motions(self.clips[0]), frames, o.batch_size, o.steps, o.seed, rank, world)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return [torch.optim.AdamW(trained, lr=self.options.lr, weight_decay=0.01)]

    def lr_factor(self, epoch: int, step: int) -> float:
        """Warm-up over 100 batches, then half a cosine."""
        done = step / (self.options.epochs * self.options.steps)
        return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2)

    def loss_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        keypoints, poses = (tensor.to(self.place.device) for tensor in batch)
        single, full = self.model(keypoints, full=True)
        middle = poses[:, poses.shape[1] // 2]
        return (single[:, 0] - middle).norm(dim=-1).mean() + 0.5 * (full - poses).norm(dim=-1).mean()

    @torch.no_grad()
    def predict(self, clip: Clip) -> Tensor:
        """[T, 17, 3] metres, camera axes, root at 0."""
        keypoints = torch.from_numpy(np.ascontiguousarray(clip.keypoints[..., :2]))
        person, centre, _ = centre_on_person(keypoints, spread=self.model.frames)
        poses = models.lift(self.model, person.to(self.place.device)).cpu()
        focal, principal = torch.from_numpy(clip.intrinsics).split((2, 7))
        return looking_at(poses, (centre - principal[:2]) / focal)

    def evaluate(self, place) -> Report:
        return Report.of(evaluate_clips(self.predict, self.clips[1], place))


RECIPE = AnyCameraRecipe
