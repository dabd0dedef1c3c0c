"""Strided Transformer (Li et al., IEEE TMM 2022): what its paper and program say about training and evaluation.

Stage one trains the transformer on every frame of its windows and on their centre frame. Stage two (``--refine``) goes
on from the best of stage one with the refine module, which sees the camera and the true depth of the root: its figures
are not comparable with those of lifters that do not, and the table shows both.
"""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from posekernels import models
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.models.load import fill, is_run
from posekernels.models.strided_refine import back_project
from posekernels.pose.metrics import mpjpe

from ..data.clips import Clip
from ..data.windows import Batch
from ..evaluate import Report, evaluate_pairs
from ..place import tell
from ._lifting import (
    LiftingRecipe,
    Windows,
    add_decay_arguments,
    decayed,
    numbers,
)
from ._published import add_refused, add_without_effect, as_evaluate, boolean

# Published options that the published program never reads, or that say here what cannot be otherwise.
WITHOUT_EFFECT = {
    "--train": "see --test",
    "--lr_refine": "never read; give --lr",
    "--pad": "always (frames - 1) / 2",
    "--workers": "windows are gathered in memory",
    "--gpu": "see --device",
    "--n_joints": "the data's",
    "--out_joints": "the data's",
    "--in_channels": "2",
    "--out_channels": "3",
    "--checkpoint": "see --out",
    "-previous_best_threshold": "see --resume",
    "-previous_name": "see --resume",
    "-previous_refine_name": "see --resume",
}


class WholeWindows(Windows):
    """``Windows`` whose poses cover the whole window, [B, F, J, 3]; frames outside a clip repeat its edge.

    Args:
        reverse: every window a second time, backwards in time.
    """

    def __init__(self, *args, reverse: bool = False, **options):
        super().__init__(*args, **options)
        rows = [np.concatenate((self.rows, np.full((len(self.rows), 1), r)), 1) for r in (0, 1)[: 1 + reverse]]
        self.rows = np.concatenate(rows)  # (clip, first, end, mirrored, reversed)

    def __iter__(self) -> Iterator[Batch]:
        frames = self.frames
        for batch in super().__iter__():
            clips, first, _, mirrored, backwards = batch.rows.T
            poses = frames.poses_of(clips, first - self.pad, 2 * self.pad + 1, mirrored)
            keypoints = batch.keypoints
            if backwards.any():
                which = torch.from_numpy(np.flatnonzero(backwards)).to(poses.device)
                poses[which], keypoints[which] = poses[which].flip(1), keypoints[which].flip(1)
            yield dataclasses.replace(batch, poses=poses)


class Refined(nn.Module):
    """The transformer and its refine module, trained together in stage two."""

    def __init__(self, lifter: nn.Module, refine: nn.Module):
        super().__init__()
        self.lifter, self.refine = lifter, refine


def find_checkpoint(folder: str, letter: str, what: str) -> Path:
    """The first ``*.pth`` of a folder, by name, that begins with ``letter``, as the published program chooses."""
    if not Path(folder).is_dir():
        raise CheckpointError(f"--previous_dir {folder}: no such folder")
    found = sorted(p for p in Path(folder).glob("*.pth") if p.name.startswith(letter))
    if not found:
        have = ", ".join(sorted(p.name for p in Path(folder).glob("*.pth"))) or "no .pth files"
        raise CheckpointError(f"--previous_dir {folder}: no {what} ({letter}*.pth) in it; it has {have}")
    tell(f"--previous_dir: using {found[0]}")
    return found[0]


class StridedTransformerRecipe(LiftingRecipe):
    architecture = ("frames", "strides", "layers", "channel", "d_hid", "refine")
    reads = ("previous_dir",)
    least = 2  # the norm of the single head takes no statistics of one row

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add("--frames", type=int, help="window: 27, 81, 243, 351 (published default), or any odd number with --strides")
        add("--strides", type=numbers, metavar="S,S,...", help="of the strided layers; they must leave one frame")
        add("--layers", type=int, default=3, help="vanilla transformer layers")
        add("--channel", type=int, default=256, help="channels")
        add("--d_hid", type=int, default=512, help="width of the feed-forward blocks")
        add("--reverse_augmentation", type=boolean, default=False, metavar="BOOL", help="windows backwards in time too")
        add_decay_arguments(parser)
        add("--refine", action="store_true", help="stage two: train the refine module too (needs camera and root)")
        add("--reload", action="store_true", help="start from the n*.pth (no_refine_*) in --previous_dir")
        add("--refine_reload", action="store_true", help="and the refine module from its r*.pth (refine_*)")
        add("--previous_dir", metavar="DIR", help="folder of published files, or one of our checkpoints")
        add("--test", action="store_true", help="evaluate --previous_dir instead of training")
        add("-s", "--stride", type=int, default=1, help="of the training windows; only 1")
        add("--out_all", type=int, default=1, help="targets for all frames of a window; only 1")
        add("--crop_uv", type=int, default=0, help="input without normalisation; only 0")
        add_without_effect(parser, WITHOUT_EFFECT)
        add_refused(parser, {"--video": "posekernels lift FILE lifts videos of one's own"})

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        if starter:  # 27 frames, 48,000 windows: some four minutes of two cores
            return {"frames": 27, "epochs": 6, "batch_size": 64, "every": 20, "eval_every": 3}
        return {"frames": 351, "epochs": 20, "batch_size": 256, "every": 1}

    def __init__(self, options, data):
        super().__init__(options, data)
        o = options
        for name, only in (("stride", 1), ("out_all", 1), ("crop_uv", 0)):
            if getattr(o, name) != only:
                raise ValueError(f"--{name}: only {only} works (in the published program too), got {getattr(o, name)}")
        if (o.reload or o.refine_reload or o.test) and not o.previous_dir:
            raise ValueError("--reload, --refine_reload and --test need --previous_dir, what to load from")
        if o.test:
            as_evaluate(o, "--test", o.previous_dir)
        if o.refine_reload and not o.refine:
            raise ValueError("--refine_reload is for --refine")
        if o.lr is None:
            o.lr = 1e-5 if o.refine else 1e-3
        self.unused_parameters = o.refine  # the full head learns nothing in stage two
        for clip in (*data.train, *data.test) if o.refine else ():
            if clip.positions is None or not clip.intrinsics[:2].all():
                raise ValueError(
                    f"--refine: {clip.subject} {clip.action} has no {'root' if clip.positions is None else 'camera'}; "
                    "the refine module needs the intrinsics and the true depth of the root"
                )
        self.pad = (o.frames - 1) // 2

    # -- networks
    def make_model(self) -> nn.Module:
        o = self.options
        lifter = models.create(
            "strided_transformer",
            frames=o.frames,
            strides=o.strides,
            layers=o.layers,
            channels=o.channel,
            hidden=o.d_hid,
            joints=self.data.train[0].keypoints.shape[1] if self.data.train else self.data.skeleton.num_joints,
            out_joints=self.data.skeleton.num_joints,
        )
        assert lifter.target == self.pad  # raises where the strides leave more than one frame
        if not o.refine:
            return lifter
        return Refined(lifter, models.create("strided_refine", joints=self.data.skeleton.num_joints))

    @property
    def lifter(self) -> nn.Module:
        return self.model.lifter if self.options.refine else self.model

    def start_stage(self, index: int, best: dict[str, Tensor] | None) -> None:
        o = self.options
        if o.resume:
            return  # the run's own weights follow
        if o.reload:
            self.load_lifter(o.previous_dir)
        if o.refine_reload:
            self.load_refine(o.previous_dir)

    def load_lifter(self, source: str) -> None:
        """From a folder of published files, one published file, or one of our checkpoints (of either stage)."""
        path = Path(source) if Path(source).is_file() else find_checkpoint(source, "n", "transformer")
        checkpoint = read_checkpoint(path)
        if not is_run(checkpoint):
            models.load(path, self.lifter)
            return
        weights = checkpoint["weights"]
        if any(n.startswith("lifter.") for n in weights):
            weights = {n.removeprefix("lifter."): t for n, t in weights.items() if n.startswith("lifter.")}
        fill(self.lifter, weights, path, ours=True)

    def load_refine(self, source: str) -> None:
        path = Path(source) if Path(source).is_file() else find_checkpoint(source, "r", "refine module")
        checkpoint = read_checkpoint(path)
        if not is_run(checkpoint):
            models.load(path, self.model.refine)
            return
        weights = {n.removeprefix("refine."): t for n, t in checkpoint["weights"].items() if n.startswith("refine.")}
        fill(self.model.refine, weights, path, ours=True)

    def load_weights(self, path: str | Path) -> None:
        if Path(path).is_dir():
            self.load_lifter(str(path))
            if self.options.refine:
                self.load_refine(str(path))
        elif is_run(read_checkpoint(path)):
            super().load_weights(path)
        else:
            self.load_lifter(str(path))
            if self.options.refine:
                raise CheckpointError(f"{path}: --refine needs two published files; name their folder")

    # -- training
    def make_loader(self, rank: int, world: int) -> WholeWindows:
        o = self.options
        return WholeWindows(
            self.data.train,
            o.batch_size,
            *self.data.sides,
            pad=self.pad,
            seed=self.shuffle_seed,
            augment=self.augment,
            every=getattr(o, "every", None) or 1,
            least=self.least,
            rank=rank,
            world=world,
            device=self.place.device,
            reverse=o.reverse_augmentation,
        )

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return [torch.optim.Adam(trained, lr=self.options.lr, amsgrad=True)]

    def lr_factor(self, epoch: int, step: int) -> float:
        return decayed(self.options, epoch)

    def loss_step(self, batch: Batch) -> dict[str, Tensor]:
        windows, target = batch.keypoints[..., :2], batch.poses.clone()
        target[:, :, 0] = 0  # the predicted root is not zeroed: training pulls it to 0
        centre = target[:, self.pad, None]
        if self.options.refine:
            single = self.model.lifter(windows)
            root = batch.poses[:, self.pad, None, 0]
            projected = back_project(single, windows[:, self.pad, None], batch.cameras, root)
            return {"loss": mpjpe(self.model.refine(single, projected), centre)}
        single, every = self.model(windows, full=True)
        losses = {"full": mpjpe(every, target), "single": mpjpe(single, centre)}
        return {"loss": losses["full"] + losses["single"]} | losses

    # -- evaluation
    @torch.no_grad()
    def predictions(self, clip: Clip) -> tuple[Tensor, Tensor | None]:
        """([T, J, 3] of the transformer, [T, J, 3] refined or None), metres, root at 0."""
        results = [self.poses(clip), None]
        if self.options.refine:
            pose, device = results[0][:, None], self.place.device
            seen = torch.from_numpy(clip.keypoints[:, None, :, :2]).to(device)
            cameras = torch.from_numpy(clip.intrinsics).to(device).expand(len(pose), -1)
            root = torch.from_numpy(clip.positions[:, None, 0]).to(device)
            results[1] = self.model.refine(pose, back_project(pose, seen, cameras, root))[:, 0]
        for poses in results:
            if poses is not None:
                poses[:, 0] = 0
        return tuple(results)

    def predict(self, clip: Clip) -> Tensor:
        plain, refined = self.predictions(clip)
        return plain if refined is None else refined

    def evaluate(self, place) -> Report:
        if not self.options.refine:
            return super().evaluate(place)
        plain, report = map(Report.of, evaluate_pairs(self.predictions, self.data.test, place, self.published_batch))
        for mine, other in ((report.figures, plain.figures), *((r, plain.rows[a]) for a, r in report.rows.items())):
            mine |= {f"{name} unrefined": other[name] for name in ("P1", "P2")}
        return report


RECIPE = StridedTransformerRecipe
