"""WS-ANL (Zeng et al., 2024): the variance model learns how far the frozen lifter is off; the test samples hypotheses.

Without ``--lifter-checkpoint`` a first stage trains the lifter by its own recipe. Source: ws_anl sections 9 to 11.
"""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posekernels import models
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.files import check_writable, save_checkpoint, write_aside
from posekernels.models.lifting import Lifts
from posekernels.models.load import is_run
from posekernels.models.ws_anl import ALPHA, CHUNK, WsAnl, with_mirror
from posekernels.ops import best_hypothesis, procrustes_error
from posekernels.pose.hypotheses import HypothesisScores, by_reprojection, spread

from ..data.clips import Clip
from ..data.windows import Batch, mirror_points
from ..evaluate import Report, target_of
from ..options import positive
from ..place import tell
from ..published_folders import DATA
from . import BATCH, is_last_stage
from ._lifting import LiftingRecipe, add_decay_arguments, add_published_p2, decayed
from ._published import add_single_frame_arguments, add_without_effect
from .htnet import WITHOUT_EFFECT, HTNetRecipe
from .mgcn_lw import MgcnLwRecipe

LIFTERS = {"htnet": HTNetRecipe, "mgcn_lw": MgcnLwRecipe}
CURVE = (1, 5, 10, 50, 200)  # numbers of hypotheses along --curve


def sigma_targets(target: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the variance model learns: a joint's error relative to the mean error of the whole set.

    Args:
        target: [N, 1, J, 3] metres, root-relative but for joint 0, which may be anything: it counts as 0.
        predicted: the same shape, as the lifter gave it. Published quirk: its root is *not* set to 0, so the root's
            error is the length of the predicted root, and enters the mean.
    Returns:
        distance [N, 1, J, 1] metres; their mean, a scalar; distance / mean.
    """
    target = target.clone()
    target[..., 0, :] = 0
    distance = (target - predicted).norm(dim=-1, keepdim=True)
    mean = distance.mean()
    return distance, mean, distance / mean


@dataclass
class SigmaBatch:
    """keypoints [B, 1, J, 2], target [B, 1, J, 1]; ``total`` rows over all processes."""

    keypoints: Tensor
    target: Tensor
    total: int


class SigmaLoader:
    """Shuffled batches of (keypoints, sigma target), a new order each epoch; the last one may be smaller."""

    def __init__(self, keypoints: Tensor, target: Tensor, batch_size: int, seed: int, rank: int, world: int):
        self.keypoints, self.target, self.batch_size, self.seed = keypoints, target, batch_size, seed
        self.rank, self.world, self.epoch = rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.keypoints), self.batch_size)
        return whole + (rest >= self.world)  # a rest of fewer samples than processes is left out

    def __iter__(self) -> Iterator[SigmaBatch]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.keypoints), generator=generator)
        for rows in list(order.split(self.batch_size))[: len(self)]:
            mine = rows[self.rank :: self.world]
            yield SigmaBatch(self.keypoints[mine], self.target[mine], len(rows))


def samples_type(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"expected at least 1 hypothesis, got {text}")
    return value


samples_type.__name__ = "number of hypotheses"


def alpha_type(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"expected a noise scale of at least 0, got {text}")
    return value


alpha_type.__name__ = "noise scale"


def add_sampling_arguments(parser: ArgumentParser) -> None:
    """The options of the test, which ``train.mpi_inf_3dhp`` has too."""
    parser.add_argument(
        "--multihyp_test",
        "--mutilhyp_test",
        action="store_true",
        help="test with noise: best of --samples hypotheses; without --train nothing is trained",
    )
    parser.add_argument("--samples", "--sample_nums", type=samples_type, default=10, help="hypotheses per pose")
    parser.add_argument("--alpha", type=alpha_type, help="noise scale (default 0.005; 0.01 on 3DHP)")
    parser.add_argument("--noise_seed", type=int, default=1, help="of the hypotheses")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="poses lifted at once: bounds the memory")
    add_published_p2(parser)


def find_pair(options: Namespace) -> None:
    """Let a test that names no files find those of the published program, ``ckpt/shhpe_model_<lifter>.pth`` and so on.

    They are looked for here and in the folders of data. The variance model is needed where there are hypotheses.

    Raises:
        ValueError: one is neither named nor there.
    """
    for option in ("lifter_checkpoint", *["variance_checkpoint"] * bool(options.multihyp_test or options.curve)):
        if not getattr(options, option) and (missing := find_published(options, option)):
            raise ValueError(
                f"this command line tests, and there is {missing}: name the file with --{option}, or a run with "
                "--evaluate; --train trains first"
            )


def find_published(options: Namespace, option: str) -> str:
    """Let ``option`` name the published file of its network, and say so; returns what is missing, or ""."""
    file = f"ckpt/{'shhpe' if option == 'lifter_checkpoint' else 'avg'}_model_{options.lifter}.pth"
    folders = dict.fromkeys((Path(), *map(Path, (options.data_root or ".", *DATA))))
    found = next((folder / file for folder in folders if (folder / file).is_file()), None)
    if found is None:
        return f"no {file} (looked in {', '.join(map(str, folders))})"
    tell(f"no --{option}: using {found}")
    setattr(options, option, str(found))
    return ""


class WsAnlRecipe(LiftingRecipe):
    architecture = ("lifter", "layers", "channel", "d_hid")
    reads = ("lifter_checkpoint", "variance_checkpoint")

    def __init__(self, options: Namespace, data):
        options.lifter = options.shhpe_model or options.lifter
        # As published: hypotheses, and the published name of the lifter, are for a test unless --train is there.
        asked = options.multihyp_test or options.shhpe_model or not data.train
        self.only_tests = bool(asked) and not (options.train or options.evaluate or options.resume)
        if self.only_tests:
            find_pair(options)
        named = options.lifter_checkpoint or options.evaluate or options.resume
        published = options.shhpe_model and options.train and not named  # around the lifter that lies there
        if published and (missing := find_published(options, "lifter_checkpoint")):
            tell(f"no --lifter_checkpoint, and {missing}: the lifter is trained first")
        super().__init__(options, data)
        self.stages = 1 if options.lifter_checkpoint or options.evaluate else 2
        self.alpha = ALPHA["h36m"] if options.alpha is None else options.alpha
        self.variance_stage, self.training = True, False

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--lifter", choices=sorted(LIFTERS), default="htnet")
        parser.add_argument(
            "--shhpe_model", choices=sorted(LIFTERS), help="published: the lifter; tests ckpt/ unless --train is there"
        )
        parser.add_argument("--train", action="store_true", help="before a test with --multihyp_test or --shhpe_model")
        parser.add_argument(
            "--lifter_checkpoint", "--lifter-checkpoint", metavar="FILE", help="frozen lifter, ours or published"
        )
        parser.add_argument(
            "--variance_checkpoint", "--variance-checkpoint", metavar="FILE", help="published variance model, to test"
        )
        parser.add_argument("--layers", type=positive, default=3, help="of an HTNet that is trained here")
        parser.add_argument("--channel", type=positive, default=240, help="of an HTNet that is trained here")
        parser.add_argument("--d_hid", type=positive, default=1024, help="of an HTNet that is trained here")
        parser.add_argument("--lifter_epochs", type=positive, help="of the first stage (default: the lifter's own)")
        parser.add_argument("--lifter_batch_size", type=positive, help="of the first stage (default: the lifter's own)")
        add_decay_arguments(parser)
        parser.add_argument(
            "--sigma_cache", default="runs/sigma-targets", metavar="DIR", help="targets, kept by content"
        )
        parser.add_argument(
            "--curve", metavar="FILE", help=f"also write best-of-S for S = {CURVE} as JSON, with plain noise as control"
        )
        add_sampling_arguments(parser)
        own = {"--reload_sigma": "never read", "--save_ckpt_path": "see --out"}
        own |= {f"--{what}_augmentation": "mirrored copies are part of the method" for what in ("data", "test")}
        add_single_frame_arguments(parser)
        add_without_effect(parser, WITHOUT_EFFECT | own)

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        # Published: 30 in the options, of which 29 are run.
        if starter:
            return {"epochs": 20, "batch_size": 128, "lr": 5e-4, "every": 5}
        return {"epochs": 29, "batch_size": 512, "lr": 5e-4, "every": 1}

    # -- model -------------------------------------------------------------------------------------------------------
    def make_model(self) -> WsAnl:
        o = self.options
        size = {"depth": o.layers, "channels": o.channel, "hidden": o.d_hid} if o.lifter == "htnet" else {}
        model = models.create("ws_anl", lifter=o.lifter, sizes=size)
        if o.resume:
            return model  # the run's own weights follow
        if o.lifter_checkpoint:
            models.load(o.lifter_checkpoint, model.lifter)
        if o.variance_checkpoint:
            models.load(o.variance_checkpoint, model.variance)
        return model

    def load_weights(self, path: str | Path) -> None:
        self.training = False
        checkpoint = read_checkpoint(path)
        if is_run(checkpoint):
            super().load_weights(path)
            if not is_last_stage(checkpoint) and (self.options.multihyp_test or self.options.curve):
                raise CheckpointError(f"{path}: its variance model is not trained yet: no --multihyp_test, no --curve")
        elif not self.options.lifter_checkpoint:
            raise CheckpointError(f"{path}: holds a variance model only; name the lifter with --lifter_checkpoint")
        else:
            models.load(path, self.model.variance)

    @property
    def batch_option(self) -> str:
        return BATCH if self.variance_stage else "--lifter_batch_size"

    @property
    def unfinished(self) -> str | None:
        return None if self.variance_stage else "of the stage before the variance model was trained"

    def lifter_recipe(self) -> LiftingRecipe:
        """The lifter's own recipe around our lifter, with its own defaults."""
        recipe = LIFTERS[self.options.lifter]
        parser = ArgumentParser()
        recipe.add_arguments(parser)
        options = parser.parse_args([])
        for name, value in recipe.defaults(starter=self.options.data_root is None).items():
            setattr(options, name, value)
        options.seed = self.options.seed
        options.epochs = self.options.lifter_epochs or options.epochs
        options.batch_size = self.options.lifter_batch_size or options.batch_size
        inner = recipe(options, self.data)
        inner.model, inner.place = self.model.lifter, self.place
        return inner

    # -- training ----------------------------------------------------------------------------------------------------
    def epochs(self, stage: int) -> int:
        return self.options.epochs if stage == self.stages - 1 else self.lifter_recipe().options.epochs

    def start_stage(self, index: int, best: dict[str, Tensor] | None) -> None:
        if self.place.rank == 0:
            self.make_cache()  # before hours of training, not after
        if best is not None:
            self.model.load_state_dict(best)
        self.variance_stage = index == self.stages - 1
        self.keep_last = self.variance_stage  # as published: no validation, no selection
        self.model.freeze(self.variance_stage)
        self.inner = None if self.variance_stage else self.lifter_recipe()

    def make_cache(self) -> None:
        """The folder ``--sigma_cache``; raises ValueError where none can be."""
        folder = Path(self.options.sigma_cache)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--sigma_cache {folder}: cannot be made ({error.strerror})") from error
        check_writable(folder / "targets.pt", option="--sigma_cache")

    def start_epoch(self, epoch: int) -> None:
        self.training = True

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        if self.inner is not None:
            return self.inner.make_optimizers()
        return [torch.optim.Adam(self.model.variance.parameters(), lr=self.options.lr, amsgrad=True)]

    def lr_factor(self, epoch: int, step: int) -> float:
        if self.inner is not None:
            return self.inner.lr_factor(epoch, step)
        return decayed(self.options, epoch)

    def make_loader(self, rank: int, world: int):
        if self.inner is not None:
            return self.inner.make_loader(rank, world)
        keypoints, target = self.sigma_set(self.data.train, self.options.every or 1)
        return SigmaLoader(keypoints, target, self.options.batch_size, self.options.seed, rank, world)

    def share(self, batch: SigmaBatch | Batch) -> float:
        if self.inner is not None:
            return self.inner.share(batch)
        return len(batch.keypoints) * self.place.world / batch.total

    def loss_step(self, batch: SigmaBatch | Batch) -> Tensor:
        if self.inner is not None:
            return self.inner.loss_step(batch)
        return (self.model.variance(batch.keypoints) - batch.target).square().mean()

    @torch.no_grad()
    def sigma_set(self, clips: list[Clip], every: int) -> tuple[Tensor, Tensor]:
        """Keypoints [N, 1, J, 2] of all frames and of their mirror images, and their sigma targets [N, 1, J, 1].

        The targets are cached in ``--sigma_cache`` under a name made of the lifter's weights and of the data, so that
        another lifter or other data never meets old ones.
        """
        keypoints = torch.from_numpy(np.concatenate([c.keypoints[::every, :, :2] for c in clips]))
        poses = torch.from_numpy(np.concatenate([target_of(c)[::every] for c in clips]))
        keypoints = torch.cat((keypoints, mirror_points(keypoints, *self.data.sides[0])))[:, None].contiguous()
        digest = hashlib.sha256(poses.numpy().tobytes())
        digest.update(keypoints.numpy().tobytes())
        for name, tensor in self.model.lifter.state_dict().items():
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        path = Path(self.options.sigma_cache) / f"{self.options.lifter}-{digest.hexdigest()[:16]}.pt"
        if path.is_file():
            stored = read_checkpoint(path).get("target")
            if isinstance(stored, Tensor) and stored.shape == (*keypoints.shape[:3], 1):
                return keypoints, stored
        lifter, device = self.model.lifter.eval(), self.place.device
        predicted = torch.cat([lifter(part.to(device)).cpu() for part in keypoints.split(CHUNK)])
        mirrored = mirror_points(poses, *self.data.sides[1])
        target = sigma_targets(torch.cat((poses, mirrored))[:, None], predicted)[2]
        if self.place.rank == 0:
            self.make_cache()
            save_checkpoint({"target": target}, path)
        return keypoints, target

    # -- test --------------------------------------------------------------------------------------------------------
    @property
    def lifter(self) -> Lifts:
        return self.model.lifter

    @torch.no_grad()
    def hypotheses(
        self, clip: Clip, first_pose: int, samples: int, sigma=None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(frames, poses [B, S, J, 3], the single pose [B, J, 3]) of one clip, in pieces of bounded memory.

        With ``samples`` 0 the single pose is the one hypothesis.

        Args:
            first_pose: the number of the clip's first frame in the whole test set: it fixes the noise.
            sigma: (views [B, 2, J, 2]) -> [B, 2, J] in place of the variance model.
        """
        o, device = self.options, self.place.device
        step = max(1, 64 * CHUNK // max(samples, 1))  # 13 MB of poses
        for start in range(0, len(clip.keypoints), step):
            frames = slice(start, min(start + step, len(clip.keypoints)))
            views = with_mirror(torch.from_numpy(clip.keypoints[frames, :, :2]).to(device), self.data.skeleton)
            single = self.model.merged(views)
            poses = single[:, None]
            if samples:
                spread = None if sigma is None else sigma(views)
                first = first_pose + start
                poses = self.model(
                    views, samples, alpha=self.alpha, seed=o.noise_seed, first_pose=first, sigma=spread, chunk=o.chunk
                )
            yield frames, poses.cpu(), single.cpu()

    def numbered_clips(self, place) -> Iterator[tuple[Clip, int]]:
        """This process's test clips, each with the number of its first frame in the whole test set."""
        first = np.cumsum([0, *(len(c.keypoints) for c in self.data.test)])
        for index in range(place.rank, len(self.data.test), place.world):
            yield self.data.test[index], int(first[index])

    def evaluate_hypotheses(self, place, **options) -> HypothesisScores:
        """Best of ``--samples`` over the test clips, beside what needs no truth to choose.

        Without ``--multihyp_test`` the single pose is the only hypothesis; with it ``spread`` tells how far apart they
        are, mm, mean over joints. Where the cameras are known there is a column for the pose that reprojection chooses.
        """
        many = self.options.multihyp_test
        seen = many and all((c.intrinsics[:2] > 0).all() for c in self.data.test)
        scores = HypothesisScores(without_truth=many, **options)
        for clip, first in self.numbered_clips(place):
            truth = torch.from_numpy(target_of(clip))
            for frames, poses, single in self.hypotheses(clip, first, self.options.samples if many else 0):
                target = truth[frames]
                alone = 1000 * (single - target).norm(dim=-1).mean(-1).double()
                columns = {"single P1": alone}
                if many:
                    columns["spread"] = 1000 * spread(poses).mean(-1).double()
                if seen:
                    keypoints = torch.from_numpy(clip.keypoints[frames, :, :2])
                    chosen = by_reprojection(poses, keypoints, torch.from_numpy(clip.intrinsics))
                    columns["reprojected P1"] = 1000 * (chosen - target).norm(dim=-1).mean(-1).double()
                scores.add(poses, target, [clip.action] * len(target), first + frames.start, **columns)
        merged = HypothesisScores(self.published_batch)
        for part in place.gather(scores):
            merged.merge(part)
        return merged

    @property
    def report(self) -> None:
        """None: the test is another one than that of the epochs, and is made after them."""

    @report.setter
    def report(self, _of_an_epoch) -> None:
        pass

    def evaluate(self, place) -> Report:
        if self.training and self.variance_stage:
            keypoints, target = self.sigma_set(self.data.test, 1)
            error = sum(
                (self.model.variance(x.to(place.device)).cpu() - y).square().sum().item()
                for x, y in zip(keypoints.split(CHUNK), target.split(CHUNK))
            )
            return Report({}, {"sigma_mse": error / target.numel()})
        if self.options.curve and not self.training:
            self.write_curve(place, Path(self.options.curve))
        if self.options.multihyp_test and not self.training:
            scores = self.evaluate_hypotheses(place)
            return Report(scores.per_action(), scores.average())
        return super().evaluate(place)

    def write_curve(self, place, path: Path) -> None:
        """Best-of-S against S, with the variance model's noise and with plain noise of the same overall size."""
        total, count = 0.0, 0
        for clip, _ in self.numbered_clips(place):
            views = with_mirror(torch.from_numpy(clip.keypoints[..., :2]), self.data.skeleton)
            for part in views.split(CHUNK):
                spread = self.model.sigma(part.to(place.device)).clamp(min=1)
                total, count = total + spread.double().square().sum().item(), count + spread.numel()
        parts = place.gather((total, count))
        size = (sum(p[0] for p in parts) / sum(p[1] for p in parts)) ** 0.5
        curves = {}
        for name, sigma in (
            ("ws_anl", None),
            ("random", lambda views: torch.full(views.shape[:3], size, device=views.device)),
        ):
            sums = {"P1": torch.zeros(len(CURVE)).double(), "P2": torch.zeros(len(CURVE)).double()}
            frames = 0
            for clip, first in self.numbered_clips(place):
                truth = torch.from_numpy(target_of(clip))
                for rows, poses, _ in self.hypotheses(clip, first, max(CURVE), sigma):
                    target = truth[rows]
                    frames += len(target)
                    both = {
                        "P1": best_hypothesis(poses, target).errors,
                        "P2": procrustes_error(poses, target[:, None]),
                    }
                    for column, errors in both.items():  # the first s of S hypotheses are those of a test with s
                        best = errors.cummin(1).values[:, [s - 1 for s in CURVE]]
                        sums[column] += best.double().sum(0)
            parts = place.gather((sums, frames))
            frames = sum(p[1] for p in parts)
            curves[name] = {c: (1000 * sum(p[0][c] for p in parts) / frames).tolist() for c in sums}
        if place.rank == 0:
            content = {
                "data": self.data.name,
                "frames": frames,
                "lifter": self.options.lifter,
                "alpha": self.alpha,
                "noise_seed": self.options.noise_seed,
                "samples": list(CURVE),
                "noise_size": size,
                "unit": "mm, mean over frames",
                **curves,
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(path) as aside:
                aside.write_text(json.dumps(content, indent=1) + "\n")


RECIPE = WsAnlRecipe
