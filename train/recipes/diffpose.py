"""DiffPose (Gong et al., CVPR 2023): GCNdiff learns the noise; a pose network gives the guess it refines.

With ``--model_pose_path`` the pose network (MixSTE, or GCNpose in the frame setting) is read from that checkpoint and
one stage trains GCNdiff. Without it, a first stage trains the pose network. Diffpose spec, sections 6 to 12.
"""

from __future__ import annotations

import dataclasses
import math
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from posekernels import models
from posekernels._tables import table
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.models.diffpose import PUBLISHED_SAMPLING, Diffusion, Sampling
from posekernels.models.gcndiff import GCNdiff
from posekernels.models.lifting import Lifts
from posekernels.models.load import fill, is_run, recognise, unwrap

from ..data.clips import Clip, LiftingData
from ..data.mixture import clip_mixtures, jitter, mixture_file, mixture_of
from ..data.windows import Batch
from ..evaluate import Report, evaluate_pairs
from ..options import not_negative, positive, share
from ..place import tell
from ..published_folders import CHECKPOINTS, find_file
from . import BATCH, _diffpose_yaml, is_last_stage, mixste
from ._lifting import LiftingRecipe, target_of_batch
from ._published import add_without_effect

WITHOUT_EFFECT = {  # published options that the published programs never read, or that are called otherwise here
    "--train": "it trains unless there is a checkpoint to test",
    "--exp --doc": "see --out",
    "--ni": "see --overwrite",
    "--verbose": "see --progress",
    "--sequence": "never read",
    "--dim_model": "never read; see --hid_dim",
    "--n_layer": "never read; see --num_layer",
    "-sun --subjects-unlabeled": "never read",
    "-mloss --min_loss": "never read",
}
VIDEO_NOISE = (0.5, 0.5, 1.0, 1.0, 1.0)  # scale of the noise on u, v, x, y, z in the video setting


def pick_components(mixture: Tensor, uniform: Tensor) -> Tensor:
    """Index of the mixture component each joint draws: how many cumulative weights are <= the uniform number.

    Args:
        mixture: [B, J, M, 5] rows of (weight, u, v, scale u, scale v).
        uniform: [B, J] in [0, 1).
    Returns:
        [B, J] int64, at most M - 1 (weights that sum to a little less than 1 must not overflow).
    """
    cumulative = mixture[..., 0].cumsum(-1)
    return (cumulative <= uniform[..., None]).sum(-1).clamp(max=mixture.shape[2] - 1)


def training_poses(mixture: Tensor, pose: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """([B, J, 5] uv of the drawn component and xyz relative to the root, [B, J, 5] its noise scale).

    Args:
        mixture, uniform: as in ``pick_components``.
        pose: [B, J, 3] metres, any origin.
    """
    index = pick_components(mixture, uniform)[..., None, None].expand(-1, -1, 1, 5)
    drawn = mixture.gather(2, index).squeeze(2)
    xyz = pose - pose[:, :1]
    return torch.cat((drawn[..., 1:3], xyz), -1), torch.cat((drawn[..., 3:5], torch.ones_like(xyz)), -1)


def drawn(clips: list[Clip], mixtures: list[np.ndarray], seed: int) -> list[Clip]:
    """The clips with one component of every keypoint's mixture for its 2D, as the published frame setting tests."""
    generator, found = torch.Generator().manual_seed(seed), []
    for clip, mixture in zip(clips, map(torch.from_numpy, mixtures), strict=True):
        index = pick_components(mixture, torch.rand(mixture.shape[:2], generator=generator))
        keypoints = mixture[..., 1:3].take_along_dim(index[..., None, None], 2).squeeze(2).numpy()
        found.append(dataclasses.replace(clip, keypoints=keypoints))
    return found


def timestep_pairs(half: Tensor, timesteps: int, count: int) -> Tensor:
    """[count] timesteps: ``half`` (count // 2 + 1 draws) and their mirror images T - 1 - t."""
    return torch.cat((half, timesteps - 1 - half))[:count]


def denoising_loss(
    net: GCNdiff, diffusion: Diffusion, x: Tensor, unit_noise: Tensor, scale: Tensor, t: Tensor
) -> dict[str, Tensor]:
    """Squared error of the predicted noise, summed over joints and channels, mean over the batch.

    Args:
        x: [B, J, 5] clean poses.
        unit_noise: [B, J, 5] drawn from N(0, 1).
        scale: [B, J, 5] or [5]; the target is the *scaled* noise.
        t: [B] timesteps.
    Returns:
        ``loss``, and ``x_t``, ``noise``, ``predicted`` [B, J, 5].
    """
    noise = unit_noise * scale
    x_t = diffusion.add_noise(x, noise, t)
    predicted = net(x_t, t)
    loss = (noise - predicted).square().sum((1, 2)).mean()
    return {"loss": loss, "x_t": x_t, "noise": noise, "predicted": predicted}


def setting_of(path: str) -> str:
    """The setting whose pose network a checkpoint holds; "video" where it does not tell, or is not there."""
    if not Path(path).is_file():
        return "video"
    checkpoint = read_checkpoint(path)
    if is_run(checkpoint):
        return checkpoint["options"].get("setting", "video") if checkpoint["model"] == "diffpose" else "video"
    try:
        return "frame" if recognise(unwrap(checkpoint, path), path).network == "gcnpose" else "video"
    except CheckpointError:  # of a width that does not tell its heads, or of another network: loading says so
        return "video"


@dataclass
class PoseBatch:
    """Single frames: mixture [B, J, M, 5], pose [B, J, 3] metres; ``total`` of them over all processes."""

    mixture: Tensor
    pose: Tensor
    total: int


class Poses:
    """The loop's ``Loader`` of single frames, shuffled anew every epoch; no mirrored copies.

    Args:
        data: training clips with ground truth.
        mixtures: [T, J, M, 5] of every clip.
        batch_size: over all processes. every: only every n-th frame of a clip.
    """

    def __init__(
        self,
        data: LiftingData,
        mixtures: list[np.ndarray],
        batch_size: int,
        *,
        every: int = 1,
        seed: int = 1,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ):
        poses = []
        for clip in data.train:
            if clip.positions is None:
                raise ValueError(f"{clip.subject} {clip.action}, camera {clip.camera}: no ground truth to learn from")
            pose = clip.positions[::every].copy()
            pose[:, 0] = 0  # it holds the trajectory; the others are relative to it already
            poses.append(pose)
        self.poses = torch.from_numpy(np.concatenate(poses)).to(device)
        self.mixtures = torch.from_numpy(np.concatenate([m[::every] for m in mixtures])).to(device)
        self.batch_size, self.seed, self.rank, self.world = batch_size, seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.poses), self.batch_size)
        return whole + (rest >= self.world)

    def __iter__(self) -> Iterator[PoseBatch]:
        order = torch.from_numpy(np.random.default_rng((self.seed, self.epoch)).permutation(len(self.poses)))
        for step in range(len(self)):
            whole = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = whole[self.rank :: self.world].to(self.poses.device)
            yield PoseBatch(self.mixtures[mine], self.poses[mine], len(whole))


class DiffPoseRecipe(LiftingRecipe):
    architecture = (
        *("setting", "hid_dim", "num_layer", "n_head", "beta_schedule", "beta_start", "beta_end"),
        *("num_diffusion_timesteps", "frames", "channels", "depth", "heads"),
    )
    fixed = (*LiftingRecipe.fixed, "mixture", "pose_batch_size", "optimizer", "amsgrad")
    reads = ("model_pose_path",)
    clip_norm = 1.0

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add(
            "--setting",
            choices=("video", "frame"),
            help="MixSTE on clips, or GCNpose on frames (default: as --model_pose_path; video)",
        )
        add("--config", action=_diffpose_yaml.Load, metavar="YAML", help="a configuration of the published programs")
        add("--model_pose_path", metavar="FILE", help="checkpoint of the pose network; without it, it is trained first")
        add("--mixture", metavar="NAME", help="2D source to learn from: data_2d_h36m_NAME_gmm.npz")
        add(
            "--test_mixture",
            metavar="NAME",
            help="test on drawn components of data_2d_h36m_NAME_gmm.npz (frame setting)",
        )
        add("--pose_epochs", type=positive, help="epochs of the pose network's stage")
        add("--pose_batch_size", type=positive, help="its batch size: chunks (video) or frames")
        add("--pose_lr", type=not_negative, help="its learning rate")
        add("--lr_gamma", type=not_negative, default=0.9, help="rate factor after every --decay epochs")
        add("--decay", type=positive, default=60, help="epochs between them")
        add("--hid_dim", type=positive, help="channels of GCNdiff and GCNpose")
        add("--num_layer", type=positive, help="their layers")
        add("--n_head", type=positive, help="of their attention")
        add("--dropout", type=share, help="on their sub-layers")
        add("--ema_rate", type=share, help="of the running mean of the weights, kept beside them; 0 for none")
        add("--beta_schedule", choices=models.diffpose.SCHEDULES)
        add("--beta_start", type=float)
        add("--beta_end", type=float)
        add("--num_diffusion_timesteps", type=positive, metavar="T")
        add("--optimizer", choices=("Adam", "RMSProp", "SGD"))
        add("--optim_eps", type=not_negative, help="eps of Adam and RMSProp")
        add("--weight_decay", type=not_negative)
        add("--amsgrad", action="store_true", default=None)
        add("--test_times", type=positive, metavar="R", help="hypotheses, averaged")
        add("--test_timesteps", type=positive, metavar="S", help="denoising steps")
        add(
            "--test_num_diffusion_timesteps",
            type=positive,
            metavar="N",
            help="they are spread over the first N timesteps",
        )
        add("--skip_type", choices=models.diffpose.SKIPS, default="uniform")
        add("--eta", type=float, default=0.0, help="0: deterministic steps; 1: as much noise as DDPM")
        add("--model_diff_path", dest="evaluate", metavar="FILE", help="as published: test this GCNdiff, as --evaluate")
        mixste.add_network_arguments(parser)
        add_without_effect(parser, WITHOUT_EFFECT)

    @classmethod
    def complete(cls, options) -> None:
        """The kind of ``--model_pose_path`` tells the setting; the 2D that ``--config`` names is read where it is."""
        o = options
        if o.model_pose_path:
            o.model_pose_path = str(find_file(o.model_pose_path, CHECKPOINTS))
        o.setting = o.setting or (setting_of(o.model_pose_path) if o.model_pose_path else "video")
        train, test = (getattr(o, name, None) for name in _diffpose_yaml.FILES.values())
        if o.data_root is None or not (train or test):
            return

        def there(source: str | None) -> bool:
            return source is not None and (Path(o.data_root) / f"data_2d_h36m_{source}.npz").is_file()

        plain = test and test.removesuffix("_gmm")
        whole = (o.downsample, o.subset) == (1, 1)  # as mixtures must be
        if whole and o.setting == "frame" and test != plain and there(test):
            o.test_mixture = o.test_mixture or plain
        if whole and o.mixture is None and train and train.endswith("_gmm") and there(train):
            o.mixture = train.removesuffix("_gmm")
        if o.keypoints is None:
            o.keypoints = next((source for source in (plain, test) if there(source)), None)
        read = {"-k": o.keypoints, "--mixture": o.mixture, "--test_mixture": o.test_mixture}
        told = ", ".join(f"{name} {value}" for name, value in read.items() if value)
        tell(f"--config: names the 2D {train} to learn from, {test} to test on; using {told or 'neither: not there'}")

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        published = {"hid_dim": 96, "num_layer": 5, "n_head": 4, "dropout": 0.25, "ema_rate": 0.999}
        published |= {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 1e-3, "num_diffusion_timesteps": 51}
        published |= {"optimizer": "Adam", "optim_eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "test_times": 1}
        published |= mixste.network_defaults(starter)
        if starter:  # sized for two cores
            sizes = {"epochs": 12, "batch_size": 256, "lr": 1e-3, "every": 10, "eval_every": 12}
            sizes |= {"hid_dim": 64, "num_layer": 3, "dropout": 0.1}
            return published | sizes
        return published | {"epochs": 80, "batch_size": 1024, "lr": 1e-3, "every": 1}

    def __init__(self, options, data: LiftingData):
        self.video = options.setting == "video"
        self.tested_apart = "the video setting is tested clip by clip" if self.video else ""
        super().__init__(options, data)
        o = options
        self.ema_rate = o.ema_rate or None
        self.stages = 1 if o.model_pose_path else 2
        self.refining = True  # False while the pose network is trained
        if o.pose_epochs is None:
            o.pose_epochs = 60 if o.data_root else 2 if self.video else 8
        tested = o.test_mixture
        source = "gt" if (tested or o.keypoints) in ("gt", "gt_gmm") else "cpn"
        published = PUBLISHED_SAMPLING[o.setting, source]
        self.sampling = Sampling(
            steps=o.test_timesteps or published.steps,
            limit=o.test_num_diffusion_timesteps or published.limit,
            skip=o.skip_type,
            eta=o.eta,
            hypotheses=o.test_times,
        )
        if data.skeleton.num_joints != 17:
            raise ValueError(f"diffpose: made for 17 joints, the data has {data.skeleton.num_joints}")
        if o.published_repeated_frames and not self.video:
            raise ValueError("--published_repeated_frames is for --setting video: single frames are not repeated")
        if (o.mixture or tested) and (o.data_root is None or o.downsample != 1 or o.subset != 1):
            raise ValueError(
                "--mixture needs --data-root, and neither --downsample nor --subset; so does --test_mixture"
            )
        if o.mixture and not o.evaluate:
            mixture_file(o.data_root, o.mixture)  # it is read in the last stage, and missed now
        if tested and self.video:
            raise ValueError("--test_mixture is for --setting frame, as published: the video setting tests on plain 2D")
        if tested and data.test:
            mixtures = clip_mixtures(mixture_file(o.data_root, tested), data.test)
            self.data = dataclasses.replace(data, test=drawn(data.test, mixtures, o.seed))
        self.chunks = o.pose_batch_size or mixste.chunks_in_batch(o, mixste.batch_frames(o.data_root is None))
        if self.video and self.stages == 2:
            mixste.check_memory(o, self.chunks, "--pose_batch_size")
        Diffusion(**self.schedule()).coefficients(self.sampling)  # refuses timesteps that the schedule does not have

    def schedule(self) -> dict:
        """Arguments of ``Diffusion``."""
        o = self.options
        ends = {"start": o.beta_start, "end": o.beta_end}
        return {"schedule": o.beta_schedule, **ends, "timesteps": o.num_diffusion_timesteps}

    @property
    def batch_option(self) -> str:
        return BATCH if self.refining else "--pose_batch_size"

    @property
    def unfinished(self) -> str | None:
        return None if self.refining else "of the stage before GCNdiff was trained"

    def make_model(self) -> nn.Module:
        o = self.options
        sizes = {"channels": o.hid_dim, "layers": o.num_layer, "heads": o.n_head, "dropout": o.dropout}
        return models.create(
            "diffpose",
            setting=o.setting,
            initial=mixste.network_sizes(o, self.data) if self.video else sizes,
            denoiser=sizes,
            diffusion=self.schedule(),
            sampling=dataclasses.asdict(self.sampling),
            seed=o.seed,
        )

    @property
    def lifter(self) -> Lifts:
        return self.model.initial

    def start_stage(self, index: int, best: dict[str, Tensor] | None) -> None:
        self.refining = index == self.stages - 1
        if best is not None:
            fill(self.model, best, "best weights of the stage before", ours=True)
        if index == 0 and self.options.model_pose_path and not self.options.resume:
            self.load_pose(self.options.model_pose_path)
        self.model.initial.requires_grad_(not self.refining)
        self.model.denoiser.requires_grad_(self.refining)

    def load_pose(self, path: str) -> None:
        """Fill the pose network from a published checkpoint, or from a run of ``--model mixste`` or of this recipe."""
        checkpoint, name = read_checkpoint(path), "mixste" if self.video else "gcnpose"
        if not is_run(checkpoint):
            models.load(path, self.model.initial)
            return
        weights = checkpoint["weights"]
        if checkpoint["model"] == "diffpose":
            weights = {n.removeprefix("initial."): t for n, t in weights.items() if n.startswith("initial.")}
        elif checkpoint["model"] != name:
            raise CheckpointError(f"{path}: a checkpoint of --model {checkpoint['model']}, expected {name} or diffpose")
        fill(self.model.initial, weights, path, ours=True)

    def load_weights(self, path) -> None:
        """Ours hold both networks; a published one is GCNdiff, and ``--model_pose_path`` names the other."""
        checkpoint = read_checkpoint(path)
        if is_run(checkpoint):
            super().load_weights(path)
            self.refining = is_last_stage(checkpoint)  # before, GCNdiff has learnt nothing
            return
        if not self.options.model_pose_path:
            raise CheckpointError(f"{path}: holds GCNdiff only; name the pose network with --model_pose_path")
        models.load(path, self.model.denoiser)
        self.load_pose(self.options.model_pose_path)

    def epochs(self, stage: int) -> int:
        return self.options.epochs if stage == self.stages - 1 else self.options.pose_epochs

    def make_loader(self, rank: int, world: int):
        o = self.options
        if not self.refining and self.video:
            return mixste.make_chunks(self, self.chunks, rank, world)
        if self.refining and o.mixture:
            mixtures = clip_mixtures(mixture_file(o.data_root, o.mixture), self.data.train)
        else:
            tracks = [c.keypoints[..., :2] for c in self.data.train]
            mixtures = [mixture_of(t, jitter(t)) for t in tracks]
        size = o.batch_size if self.refining else o.pose_batch_size or o.batch_size
        place = {"rank": rank, "world": world, "device": self.place.device}
        return Poses(self.data, mixtures, size, every=o.every or 1, seed=o.seed, **place)

    def share(self, batch) -> float:
        count = len(batch.rows) if isinstance(batch, Batch) else len(batch.pose)
        return count * self.place.world / batch.total

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        o = self.options
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if not self.refining:
            return [torch.optim.AdamW(trained, lr=o.pose_lr or 1e-3, weight_decay=0.01)]
        if o.optimizer == "RMSProp":
            return [torch.optim.RMSprop(trained, lr=o.lr, eps=o.optim_eps, weight_decay=o.weight_decay)]
        if o.optimizer == "SGD":
            return [torch.optim.SGD(trained, lr=o.lr, momentum=0.9)]
        adam = {"eps": o.optim_eps, "weight_decay": o.weight_decay, "amsgrad": o.amsgrad}
        return [torch.optim.Adam(trained, lr=o.lr, **adam)]

    def lr_factor(self, epoch: int, step: int) -> float:
        if not self.refining:
            return 0.5 * (1 + math.cos(math.pi * epoch / max(self.options.pose_epochs, 1)))
        # Published: set at the end of epochs 0, decay, 2 decay, ..., so it first drops in epoch decay + 1.
        return self.options.lr_gamma ** (max(epoch - 1, 0) // self.options.decay)

    def loss_step(self, batch) -> Tensor | dict[str, Tensor]:
        if not self.refining:
            if self.video:
                return mixste.mixste_loss(self.model.initial(batch.keypoints[..., :2]), target_of_batch(batch))
            return (self.model.initial(batch.mixture[:, :, 0, 1:3]) - batch.pose).norm(dim=-1).mean()
        uniform = torch.rand(batch.pose.shape[:2], device=batch.pose.device)
        x, scale = training_poses(batch.mixture, batch.pose, uniform)
        if self.video:
            scale = table(VIDEO_NOISE, scale.device, scale.dtype)
        diffusion = self.model.diffusion
        half = torch.randint(diffusion.timesteps, (len(x) // 2 + 1,), device=x.device)
        t = timestep_pairs(half, diffusion.timesteps, len(x))
        return denoising_loss(self.model.denoiser, diffusion, x, torch.randn_like(x), scale, t)["loss"]

    @torch.no_grad()
    def estimates(self, clip: Clip, sampling: Sampling | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
        """([T, J, 3] the pose network's estimate, [R, T, J, 3] the refined hypotheses), metres, roots at 0."""
        sampling = self.sampling if sampling is None else sampling
        keypoints = torch.from_numpy(clip.keypoints[..., :2]).to(self.place.device)
        if self.video:
            initial = self.poses(clip)
        else:
            initial = self.model.initial.lift(keypoints).float()
            initial = initial - initial[:, :1]
        noise = {"seed": seed} if sampling.eta > 0 else {}
        refined = self.model.refine(keypoints, initial, sampling, **noise)[..., 2:]
        return initial - initial[:, :1], refined - refined[..., :1, :]

    def predictions(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """[T, J, 3] twice: the estimate before it is refined, and the mean of the refined hypotheses."""
        initial, refined = self.estimates(clip, seed=self.options.seed)
        return initial, refined.mean(0)

    def predict(self, clip: Clip) -> Tensor:
        return self.predictions(clip)[self.refining]

    def evaluate(self, place) -> Report:
        """With a column for the estimate before it is refined."""
        clips = mixste.tested_clips(self)
        before, report = map(Report.of, evaluate_pairs(self.predictions, clips, place, self.published_batch))
        if not self.refining:
            return before
        _add_before(report, before)
        return report


def _add_before(report: Report, before: Report) -> None:
    column = "P1 before"
    report.figures[column] = before.figures["P1"]
    for name, row in report.rows.items():
        row[column] = before.rows[name]["P1"]
    for subject, alone in report.by_subject.items():
        _add_before(alone, before.by_subject[subject])


RECIPE = DiffPoseRecipe
