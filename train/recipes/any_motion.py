"""The forecasters that come with the project: small siMLPe over Human3.6M's 17 joints and the path of the root.

Ours: PKD's network and two-part loss (position and velocity; not its two-step schedule) on motion in level axes, as
``posekernels lift`` makes it. Joint 0, which relative poses leave at 0, carries the root's way from the last frame
seen, so that where a person goes is forecast with how. Every window is turned, mirrored, played slower or
faster, stretched, and its past shaken a little; half of the bodies are the lifter's, and knees come to be straight as
its do. What lifting errs by, and how, is learnt from people who were lifted (``--lifted``).

    python -m train.data.open_motion motion
    python -m train.data.cmu_to_h36m CMU_TEXT --out cmu
    python -m train.any_motion --motion motion --data-root cmu --out runs/any_motion
    python -m train.lifted_motion lifted.npz --motion motion --data-root cmu
    python -m train.any_motion --motion motion --data-root cmu --lifted lifted.npz --out runs/lifted
"""

from __future__ import annotations

import math
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from posekernels import models
from posekernels.archive import DataError, read_npz
from posekernels.models.forecasting import FPS, in_one_frame, with_path
from posekernels.pose.skeleton import H36M_17

from . import Recipe, add_start, start_with
from .any_camera import Draws, about, bones_of, in_other_bodies
from .pkd import position_loss, velocity_loss

SOURCE_FPS = 50.0
LIFTED = 0.85  # of a batch, where there are lifted people


class Stretches:
    """Endless random stretches of recordings, as the loop's ``Loader``; a batch is (past, future).

    Half of them are of other bodies than the performer's, as the lifter learns them.

    Args:
        recordings: [T, 17, 3] metres, z up, 50 per second, each longer than a window, with ``detectors_joints``.
        past, future: frames at ``fps``.
        shares: how often each recording's frames are drawn, relative to others'; by default all alike.
        lifted: stretches as lifting finds them, of which a part ``LIFTED`` of each batch is made.
    """

    def __init__(
        self,
        recordings: list[np.ndarray],
        past: int,
        future: int,
        batch_size: int,
        steps: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        shares: list[float] | None = None,
        fps: float = FPS,
        lifted: LiftedStretches | None = None,
    ):
        self.past, self.length, self.fps, self.lifted = past, past + future, fps, lifted
        self.reach = math.ceil((self.length - 1) * SOURCE_FPS / fps * 1.25) + 2  # source frames of the quickest window
        often = [s for r, s in zip(recordings, shares or [1.0] * len(recordings), strict=True) if len(r) > self.reach]
        recordings = [r for r in recordings if len(r) > self.reach]
        if not recordings:
            raise ValueError(f"any_motion: no recording is longer than {self.reach / SOURCE_FPS:.1f} s")
        self.points = torch.from_numpy(np.concatenate(recordings)).float()
        self.bones = torch.stack([bones_of(torch.from_numpy(r)) for r in recordings]).float()
        lengths = [len(r) for r in recordings]
        firsts = np.cumsum([0, *lengths[:-1]])
        starts = [first + np.arange(n - self.reach) for first, n in zip(firsts, lengths)]
        self.starts = torch.from_numpy(np.concatenate(starts))
        self.recording = torch.from_numpy(np.repeat(np.arange(len(starts)), [len(s) for s in starts]))
        self.often = torch.from_numpy(np.repeat(often, [len(s) for s in starts]).cumsum())
        self.batch_size, self.steps, self.seed, self.rank, self.world = batch_size, steps, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(self.steps):
            random = torch.Generator().manual_seed((self.seed * 100_003 + self.epoch) * 10_007 + step)
            past, future = self.batch(random)
            yield past[self.rank :: self.world], future[self.rank :: self.world]

    def batch(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """[B, past, 17, 3] and [B, future, 17, 3] metres, as ``with_path`` writes them."""
        lifted = round(LIFTED * self.batch_size) if self.lifted else 0
        draw = Draws(random, self.batch_size - lifted)
        motion = with_path(varied(self.people(draw), draw), self.past - 1)
        past, future = motion[:, : self.past], motion[:, self.past :]
        shake = draw.uniform(0, 0.006, 1, 1, 1) * draw.normal(*past.shape[1:])
        wave = torch.nn.functional.avg_pool1d(shake.flatten(2).mT, 5, 1, 2, count_include_pad=False).mT
        past = past + wave.view(past.shape)
        if not lifted:
            return past, future
        both = zip((past, future), self.lifted.batch(Draws(random, lifted)))
        return tuple(torch.cat(parts) for parts in both)

    def people(self, draw: Draws) -> Tensor:
        """[B, past + future, 17, 3] metres, z up, of somebody a little quicker or slower, half of other bodies."""
        picked = torch.searchsorted(self.often, draw.uniform(0, 1).double() * self.often[-1])
        picked = picked.clamp_max(len(self.starts) - 1)
        at = draw.uniform(0.8, 1.25, 1) * torch.arange(self.length) * SOURCE_FPS / self.fps
        below = at.floor().long()
        index = self.starts[picked, None] + below
        world = torch.lerp(self.points[index], self.points[index + 1], (at - below)[:, :, None, None])
        shape, root = in_other_bodies(world, self.bones[self.recording[picked]], draw)
        return torch.where(draw.chance(0.5, 1, 1, 1), shape + root, world)


class LiftedStretches:
    """What ``train.lifted_motion`` wrote: stretches of motion whose past is as ``posekernels lift`` finds it.

    Args:
        past, future: [N, P, 17, 3], [N, S, 17, 3] metres, z up; the middle of the hips of the last frame seen is at 0
            in both, as it was found and as it was.
    """

    def __init__(self, past: np.ndarray, future: np.ndarray):
        self.past = past.shape[1]
        self.motion = torch.from_numpy(np.concatenate((past, future), 1))

    @classmethod
    def read(cls, path: str, past: int, future: int) -> LiftedStretches:
        """The last ``past`` frames seen, and the first ``future`` ones after them. Raises DataError for fewer."""
        data = read_npz(Path(path), "past", "future", "unit")
        seen, came = (data[name].astype(np.float32) * np.float32(data["unit"]) for name in ("past", "future"))
        if seen.shape[1] < past or came.shape[1] < future:
            there = f"{seen.shape[1]} and {came.shape[1]}"
            raise DataError(f"{path}: stretches of {there} frames, before and after; wanted are {past} and {future}")
        return cls(seen[:, -past:], came[:, :future])

    def batch(self, draw: Draws) -> tuple[Tensor, Tensor]:
        """[B, P, 17, 3] and [B, S, 17, 3] metres, as ``with_path`` writes them."""
        which = torch.randint(len(self.motion), (draw.batch,), generator=draw.random)
        motion = varied(self.motion[which], draw)
        motion = torch.cat((motion[:, :, :1], motion[:, :, 1:] - motion[:, :, :1]), 2)
        return motion[:, : self.past], motion[:, self.past :]


def varied(world: Tensor, draw: Draws) -> Tensor:
    """[B, T, 17, 3] turned about the vertical, a little larger or smaller, half of them mirrored."""
    turn = about(2, draw.uniform(0, 2 * math.pi))[:, None]
    world = world @ turn * draw.uniform(0.9, 1.1, 1, 1, 1)
    mirrored = world[:, :, list(H36M_17.mirrored)] * torch.tensor([-1.0, 1, 1])
    return torch.where(draw.chance(0.5, 1, 1, 1), mirrored, world)


def score(predicted: Tensor, target: Tensor) -> list[float]:
    """Millimetres at each future frame, [S]: mean over windows and joints, where they are in the world."""
    return ((in_one_frame(predicted) - in_one_frame(target)).norm(dim=-1).mean((0, 2)) * 1000).tolist()


class AnyMotionRecipe(Recipe):
    task = "people in motion"
    fps = FPS
    watched = "mean_mm"
    reads = ("start",)
    architecture = ("network", "past", "future", "blocks", "distill_blocks")

    @property
    def network(self) -> str:
        return self.options.network

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--network", choices=("pkd", "simlpe"), default="simlpe")
        parser.add_argument("--past", type=int, default=25, help="frames seen, 25 per second")
        parser.add_argument("--future", type=int, default=25, help="frames forecast")
        parser.add_argument("--blocks", type=int, default=24)
        parser.add_argument("--distill-blocks", type=int, default=6, help="of pkd")
        parser.add_argument("--steps", type=int, default=500, metavar="N", help="batches in an epoch")
        add_start(parser)
        parser.add_argument(
            "--lifted", metavar="FILE", help="what python -m train.lifted_motion wrote, beside the rest"
        )

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        return {"epochs": 20, "batch_size": 128, "lr": 1e-3, "eval_every": 1}

    def config(self) -> dict:
        o = self.options
        sizes = {"joints": 17, "history": o.past, "future": o.future}
        return sizes | {"blocks": o.blocks} | ({"distill_blocks": o.distill_blocks} if o.network == "pkd" else {})

    def make_model(self) -> nn.Module:
        net = models.create(self.network, **self.config())
        if self.options.start:
            start_with(net, self.options.start, self.network, self.config())
        return net

    def make_loader(self, rank: int, world: int) -> Stretches:
        o = self.options
        sizes = o.past, o.future, o.batch_size, o.steps, o.seed, rank, world
        lifted = LiftedStretches.read(o.lifted, o.past, o.future) if o.lifted else None
        return Stretches(self.data.train, *sizes, self.data.shares, lifted=lifted)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.AdamW(self.model.parameters(), lr=self.options.lr, weight_decay=1e-4)]

    def lr_factor(self, epoch: int, step: int) -> float:
        """Warm-up over 100 batches, then half a cosine."""
        done = step / (self.options.epochs * self.options.steps)
        return min(1.0, (step + 1) / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1))) / 2)

    def loss_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        past, future = (tensor.to(self.place.device) for tensor in batch)
        found, future = in_one_frame(self.model(past)), in_one_frame(future)
        return position_loss(found, future) + velocity_loss(found, future)

    def test_windows(self) -> tuple[Tensor, Tensor]:
        """Windows of the held-out recordings, as they are: every half second, at 25 per second."""
        o, step = self.options, int(SOURCE_FPS / FPS)
        length = (o.past + o.future) * step
        worlds = [
            torch.from_numpy(r[first : first + length : step]).float()
            for r in self.data.test
            for first in range(0, len(r) - length + 1, int(SOURCE_FPS / 2))
        ]
        if not worlds:
            raise ValueError(f"any_motion: no test recording is longer than {length / SOURCE_FPS:.1f} s")
        motion = with_path(torch.stack(worlds), o.past - 1)
        return motion[:, : o.past], motion[:, o.past :]

    @torch.no_grad()
    def evaluate(self, place):
        """Millimetres after 80, 160, 320, 400, 560, 1000 ms where forecast so far; beside it, of standing still."""
        past, future = self.test_windows()
        found = torch.cat([self.model(part.to(place.device)).cpu() for part in past.split(256)])
        still = past[:, -1:].expand_as(future)
        from ..evaluate import Report

        def row(values: list[float]) -> dict[str, float]:
            at = {
                f"{ms} ms": values[round(ms / 1000 * FPS) - 1]
                for ms in (80, 160, 320, 400, 560, 1000)
                if round(ms / 1000 * FPS) <= len(values)
            }
            return at | {"mean_mm": float(np.mean(values))}

        model, rest = row(score(found, future)), row(score(still, future))
        return Report({"forecast": model, "standing still": rest}, model)


RECIPE = AnyMotionRecipe
