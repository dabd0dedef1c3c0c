"""MixSTE (Zhang et al., CVPR 2022): whole chunks in and out, AdamW, three loss terms (diffpose section 4)."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser

import torch
from torch import Tensor, nn

from posekernels import models
from posekernels._tables import table
from posekernels.limits import free_memory
from posekernels.models.lifting import chunked

from ..data.clips import Clip
from ..data.windows import Batch
from ..evaluate import Report, evaluate_clips
from ..options import not_negative, positive, share
from ._lifting import LiftingRecipe, Windows, target_of_batch
from ._published import add_refused, add_videopose3d_arguments, add_without_effect, boolean

# Published weights of Human3.6M's 17 joints: limbs count more the farther they are from the body.
JOINT_WEIGHTS = (1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4)
SMOOTHNESS, VELOCITY = 0.5, 2.0


WITHOUT_EFFECT = {  # published options that the published program never reads, or that are called otherwise here
    "-l --log": "see --out",
    "--nolog": "see --out",
    "-gpu --gpu": "see --device",
    "-sun --subjects-unlabeled": "never read",
    "-mloss --min_loss": "never read",
    "-drop --dropout": "never read; see --drop_path",
    "-arc --architecture": "never read; see --depth",
    "-ch": "never read; see -cs",
}
REFUSED = {
    "--causal": "MixSTE sees whole chunks, what comes after a frame too; --model rie --causal looks only back",
    "--coverlr": "give --lr beside --resume",
    "--ft --ftpath --ftchk": "--resume goes on from a run of ours, with another --lr; published files are to test",
    "--compare -comchk": "--render draws one network; run it once for each and compare the pages",
}


def mixste_loss(predicted: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The three terms, and ``loss``, their weighted sum.

    Args:
        predicted, target: [B, T, 17, 3] metres.
    Returns:
        ``position``: distance, weighted by joint; ``smoothness``: squared frame difference of the prediction, weighted
        by joint; ``velocity``: distance of the frame differences. Means over everything; 0 for T = 1.
    """
    weights = table(JOINT_WEIGHTS, predicted.device, predicted.dtype)
    position = (weights * (predicted - target).norm(dim=-1)).mean()
    if predicted.shape[1] < 2:
        smoothness = velocity = torch.zeros_like(position)
    else:
        moved, should = predicted.diff(dim=1), target.diff(dim=1)
        smoothness = (weights[:, None] * moved.square()).mean()
        velocity = (moved - should).norm(dim=-1).mean()
    total = position + SMOOTHNESS * smoothness + VELOCITY * velocity
    return {"loss": total, "position": position, "smoothness": smoothness, "velocity": velocity}


def with_repeats(clip: Clip, frames: int) -> Clip:
    """The clip with its frames as its chunks hold them, one after the other: some of them twice."""
    rows = chunked(torch.arange(len(clip.keypoints)).view(-1, 1, 1), frames).flatten().numpy()
    positions = None if clip.positions is None else clip.positions[rows]
    return dataclasses.replace(clip, keypoints=clip.keypoints[rows], positions=positions)


def tested_clips(recipe: LiftingRecipe) -> list[Clip]:
    """The test clips, as ``--published_repeated_frames`` wants them."""
    o, clips = recipe.options, recipe.data.test
    return [with_repeats(clip, o.frames) for clip in clips] if o.published_repeated_frames else clips


class MixSTERecipe(LiftingRecipe):
    tested_apart = "MixSTE is tested clip by clip"
    architecture = ("frames", "channels", "depth", "heads")

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        add_network_arguments(parser)
        add_videopose3d_arguments(parser)
        parser.add_argument("-s", "--stride", type=positive, metavar="T", help="published: as --frames, or refused")
        parser.add_argument("--drop_path", type=share, default=0.1, help="stochastic depth of the last block")
        parser.add_argument(
            "-lrd", "--lr_decay", "--lr-decay", type=not_negative, default=0.99, help="rate factor after every epoch"
        )
        parser.add_argument("--weight_decay", type=not_negative, default=0.1)
        parser.add_argument(
            "--seeded_gradient",
            type=boolean,
            default=True,
            metavar="BOOL",
            help="gradients times the loss: published, as its backward pass is seeded with the loss itself",
        )
        add_without_effect(parser, WITHOUT_EFFECT)
        add_refused(parser, REFUSED)

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        usual = {"epochs": 3, "lr": 1e-3} if starter else {"epochs": 120, "lr": 4e-5}
        return network_defaults(starter) | usual

    def __init__(self, options, data):
        super().__init__(options, data)
        if options.stride not in (None, options.frames):
            raise ValueError(
                f"--stride {options.stride}: chunks follow one another, --stride must be --frames, {options.frames}"
            )
        if options.batch_size is None:
            options.batch_size = max(options.frames, batch_frames(options.data_root is None))
        elif options.batch_size < options.frames and not options.evaluate:
            raise ValueError(
                f"--batch-size {options.batch_size}: counts frames, and a chunk has {options.frames} (runs from before "
                "count chunks: they cannot go on)"
            )
        self.chunks = chunks_in_batch(options, options.batch_size)
        self.counted = options.frames
        check_memory(options, self.chunks, "--batch-size")

    def make_model(self) -> nn.Module:
        return models.create("mixste", **network_sizes(self.options, self.data), drop_path=self.options.drop_path)

    def make_loader(self, rank: int, world: int) -> Windows:
        return make_chunks(self, self.chunks, rank, world)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        o = self.options
        return [torch.optim.AdamW(self.model.parameters(), lr=o.lr, weight_decay=o.weight_decay)]

    def lr_factor(self, epoch: int, step: int) -> float:
        return self.options.lr_decay**epoch

    def predict(self, clip: Clip) -> Tensor:
        """[T, J, 3] metres. Its program comes from VideoPose3D: the root's own prediction stays, measured against 0."""
        return self.poses(clip)

    def evaluate(self, place) -> Report:
        return Report.of(evaluate_clips(self.predict, tested_clips(self), place))

    def loss_step(self, batch: Batch) -> dict[str, Tensor]:
        losses = mixste_loss(self.model(batch.keypoints[..., :2]), target_of_batch(batch))
        if not self.options.seeded_gradient:
            return losses
        # Of the whole batch: each process scaling by the loss of its own part would weigh the parts differently.
        shown = self.place.mean(losses["loss"].detach() * self.share(batch))
        return losses | {"loss": losses["loss"] * shown, "sum": shown}


def add_network_arguments(parser: ArgumentParser) -> None:
    """Sizes of MixSTE, which DiffPose's video setting has too."""
    parser.add_argument("-f", "--frames", "--number-of-frames", type=positive, metavar="T", help="frames of a chunk")
    parser.add_argument("-cs", "--channels", type=positive, metavar="C", help="width of MixSTE")
    parser.add_argument("-dep", "--depth", type=positive, help="pairs of spatial and temporal blocks")
    parser.add_argument("--heads", type=positive, help="of MixSTE's attention")
    parser.add_argument(
        "--published_repeated_frames",
        action="store_true",
        help="figures as published: frames that two chunks share, and those that fill a short one, count twice",
    )


def network_defaults(starter: bool) -> dict:
    """The published sizes, or ones for two cores."""
    if starter:
        return {"frames": 27, "channels": 64, "depth": 3, "heads": 4}
    return {"frames": 243, "channels": 512, "depth": 8, "heads": 8}


def batch_frames(starter: bool) -> int:
    """Frames in a batch where --batch-size does not say: as published, or some for two cores."""
    return 432 if starter else 1024


def chunks_in_batch(options, frames: int) -> int:
    """Chunks in a batch of so many frames, as published: 1024 are 4 chunks of 243."""
    return max(1, frames // options.frames)


def training_bytes(options, chunks: int) -> int:
    """About what a training step on so many chunks holds at its height, in float32: mostly what backward reads."""
    values = chunks * options.frames * len(JOINT_WEIGHTS) * options.channels
    scores = 2 * options.frames**2 * torch.get_num_threads()  # of one head, while its attention goes backward
    return 4 * (18 * 2 * options.depth * values + scores)  # 18 for each block: measured, 17.3 to 18.8


def check_memory(options, chunks: int, option: str) -> None:
    """Refuse a training that this machine's memory cannot hold; a GPU's driver says so itself.

    Raises:
        ValueError: tells what it needs, what there is, and how many chunks would fit.
    """
    free = free_memory()
    if options.evaluate or free is None or (options.device != "cpu" and torch.cuda.is_available()):
        return
    need = training_bytes(options, chunks)
    if need > free:
        fit = max((n for n in range(1, chunks) if training_bytes(options, n) <= free), default=0)
        raise ValueError(
            f"{option}: {chunks} chunks of {options.frames} frames need about {need / 2**30:.1f} GiB of memory "
            f"to train on, and {free / 2**30:.1f} GiB are free: "
            + (f"at most {fit} fit" if fit else "not even one fits, take fewer --frames, --channels or --depth")
        )


def network_sizes(options, data) -> dict:
    """Arguments of ``create("mixste")``."""
    joints = data.skeleton.num_joints
    if joints != len(JOINT_WEIGHTS):
        raise ValueError(f"mixste: made for the {len(JOINT_WEIGHTS)} joints of Human3.6M, the data has {joints}")
    return {name: getattr(options, name) for name in ("frames", "channels", "depth", "heads")}


def make_chunks(recipe: LiftingRecipe, batch_size: int, rank: int, world: int) -> Windows:
    """Chunks of ``frames`` frames, plain and mirrored, shuffled."""
    return Windows(
        recipe.data.train,
        batch_size,
        *recipe.data.sides,
        chunk_length=recipe.options.frames,
        seed=recipe.shuffle_seed,
        augment=recipe.augment,
        rank=rank,
        world=world,
        device=recipe.place.device,
    )


RECIPE = MixSTERecipe
