"""What every 2D-to-3D lifting recipe shares: windows of keypoints, mirroring, prediction of whole clips, evaluation."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from posekernels.models.lifting import Lifts, lift_both_ways

from ..data.clips import Clip, LiftingData
from ..data.windows import Batch, TrainWindows, mirror_points
from ..evaluate import Report, evaluate_clips
from ..options import not_negative, positive
from . import Recipe
from ._published import boolean


def numbers(text: str) -> tuple[int, ...]:
    """``3,3,3`` as numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"expected numbers separated by commas, such as 3,3,3; got {text!r}") from None


def add_decay_arguments(parser: ArgumentParser) -> None:
    """The options of ``decayed``."""
    parser.add_argument("-lrd", "--lr_decay", type=not_negative, default=0.95, help="rate factor after every epoch")
    parser.add_argument("--lr_decay_large", type=not_negative, default=0.5, help="instead, every --large_decay_epoch")
    parser.add_argument("--large_decay_epoch", type=positive, default=5)


def decayed(options: Namespace, epoch: int) -> float:
    """Rate factor of an epoch, from 0, as HTNet, WS-ANL and the Strided Transformer have it."""
    large = epoch // options.large_decay_epoch
    return options.lr_decay ** (epoch - large) * options.lr_decay_large**large


def add_published_p2(parser: ArgumentParser) -> None:
    """A published flaw on demand; the same option for every system."""
    parser.add_argument(
        "--published_p2",
        action="store_true",
        help="P2 with a published flaw: in a test batch (--batch-size) of several actions each pose has the mean P2",
    )


class Windows(TrainWindows):
    """``TrainWindows`` as the loop's ``Loader``: any epoch's order can be asked for, no process is left without work.

    Args:
        every: only every n-th frame of a clip is a sample; the context stays dense. For chunk length 1.
        least: samples that every process needs; a last batch with fewer is left out.
    Raises:
        ValueError: batches so small that every one would be left out.
    """

    def __init__(
        self, clips: list[Clip], batch_size: int, *sides, every: int = 1, least: int = 1, seed: int = 1234, **options
    ):
        super().__init__(clips, batch_size, *sides, seed=seed, **options)
        self.seed, self.least = seed, least
        if batch_size < self.world * least:
            raise ValueError(
                f"--batch-size {batch_size}: expected {self.world * least} at least, as every process needs {least} "
                f"samples of a batch (processes: {self.world})"
            )
        self.rows = self.rows[self.rows[:, 1] % every == 0]

    def set_epoch(self, epoch: int) -> None:
        """The published generator draws one permutation per epoch from a state that runs on: run it up to ``epoch``."""
        self.random = np.random.RandomState(self.seed)
        for _ in range(epoch if self.shuffle else 0):
            self.random.permutation(len(self.rows))

    def __len__(self) -> int:
        whole, rest = divmod(len(self.rows), self.batch_size)
        return whole + (rest >= self.world * self.least)

    def __iter__(self) -> Iterator[Batch]:
        return (batch for batch in super().__iter__() if batch.total >= self.world * self.least)


def target_of_batch(batch: Batch) -> Tensor:
    """[B, L, J, 3] metres: the poses with joint 0, which holds the trajectory, at 0."""
    target = batch.poses.clone()
    target[..., 0, :] = 0
    return target


class LiftingRecipe(Recipe):
    """A recipe for a lifter that sees a window of keypoints and answers for its middle (or, causal, its last) frame.

    A subclass gives ``make_model``, ``make_optimizers``, ``loss_step`` and, unless the model itself lifts, ``lifter``.
    Its constructor may change the attributes. A network that answers for whole chunks overrides ``make_loader``.

    Attributes:
        pad, causal_shift: of the windows, as in ``TrainWindows``: W = 1 + 2 pad frames.
        augment: mirrored training samples. test_augment: average with the mirrored prediction.
        shuffle_seed: of the training windows. least: samples of a batch that every process needs.
        tested_apart: why the published test never puts two actions into a batch; "" where it does.
    """

    task = "lifting"
    pad = causal_shift = 0
    shuffle_seed = 1234
    least = 1
    tested_apart = ""

    def __init__(self, options, data: LiftingData):
        super().__init__(options, data)
        self.published_p2 = getattr(options, "published_p2", False)
        if self.published_p2 and self.tested_apart:
            raise ValueError(
                f"--published_p2: nothing to reproduce, {self.tested_apart}; P2 is as published without it"
            )
        self.augment = getattr(options, "data_augmentation", True)
        self.test_augment = getattr(options, "test_augmentation", True)

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--data_augmentation", type=boolean, default=True, metavar="BOOL", help="mirrored training samples"
        )
        parser.add_argument(
            "--test_augmentation", type=boolean, default=True, metavar="BOOL", help="mirrored copy at test, averaged"
        )
        add_published_p2(parser)

    def make_loader(self, rank: int, world: int) -> Windows:
        return Windows(
            self.data.train,
            self.options.batch_size,
            *self.data.sides,
            pad=self.pad,
            causal_shift=self.causal_shift,
            seed=self.shuffle_seed,
            augment=self.augment,
            every=getattr(self.options, "every", None) or 1,
            least=self.least,
            rank=rank,
            world=world,
            device=self.place.device,
        )

    def share(self, batch: Batch) -> float:
        return len(batch.rows) * self.place.world / batch.total

    @property
    def lifter(self) -> Lifts:
        """What ``poses`` lifts with."""
        return self.model

    @torch.no_grad()
    def poses(self, clip: Clip) -> Tensor:
        """[T, J, 3] metres, roots as predicted; the mean with those of the mirror image if ``test_augment``."""
        keypoints = torch.from_numpy(clip.keypoints[..., :2]).to(self.place.device)

        def lift(keypoints: Tensor) -> Tensor:
            return self.lifter.lift(keypoints).float()

        if not self.test_augment:
            return lift(keypoints)
        mirror, mirror_back = (partial(mirror_points, left=left, right=right) for left, right in self.data.sides)
        return lift_both_ways(lift, keypoints, mirror, mirror_back)

    def predict(self, clip: Clip) -> Tensor:
        """[T, J, 3] metres, root at 0."""
        pose = self.poses(clip)
        pose[:, 0] = 0
        return pose

    @property
    def published_batch(self) -> int | None:
        """Frames in a test batch of the published program, where ``--published_p2`` asks for its P2."""
        return self.options.batch_size if self.published_p2 else None

    def evaluate(self, place) -> Report:
        return Report.of(evaluate_clips(self.predict, self.data.test, place, self.published_batch))
