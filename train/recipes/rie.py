"""RIE (Shan et al., ACM MM 2021): three stages of AdamW on the mean joint distance (rie section 8).

1. Everything, without the fusion of the parts.
2. Fusion and decoders, new, on the frozen encoders of stage 1. Published: the frozen part stays in training mode, so
   its dropout acts and its running statistics move.
3. Everything of stage 2, at half the learning rate.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser
from pathlib import Path

import torch
from torch import Tensor, nn

from posekernels import models
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.models.load import fill, is_run

from ..data.clips import Clip
from ..data.windows import Batch
from ..options import not_negative, share
from ..published_folders import CHECKPOINTS, find_file
from ._lifting import LiftingRecipe, numbers, target_of_batch
from ._published import add_videopose3d_arguments

ENCODERS = ("encoders.", "whole_body.")  # what stage 2 takes over and freezes: by name, which works for any widths
LR = {1: 1e-3, 2: 1e-3, 3: 5e-4}


class RIERecipe(LiftingRecipe):
    architecture = ("stage", "architecture", "channels", "latent_features_dim", "causal")
    least = 2  # a batch norm cannot learn from one row
    tested_apart = "RIE is tested action by action"

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--stage", choices=("1", "2", "3", "all"), default="all", help="all: one after the other")
        parser.add_argument("-arc", "--architecture", type=numbers, metavar="W,W,...", help="odd filter widths")
        parser.add_argument("-ch", "--channels", type=int, help="of the temporal convolutions")
        parser.add_argument("-lfd", "--latent-features-dim", type=int, help="width of a feature vector")
        parser.add_argument("-drop", "--dropout", type=share, default=0.2, help="of the temporal encoders")
        parser.add_argument("-s", "--stride", type=int, default=1, help="frames per training sample; only 1")
        parser.add_argument("--causal", action="store_true", help="windows end at the frame they answer for")
        parser.add_argument("-lrd", "--lr-decay", type=not_negative, default=0.95, help="rate factor after every epoch")
        parser.add_argument("-p", "--pretrain", metavar="FILE", help="stage 1 checkpoint for --stage 2")
        parser.add_argument("-ft", "--finetune", metavar="FILE", help="stage 2 checkpoint for --stage 3")
        add_videopose3d_arguments(parser)

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        if starter:  # sized for two cores
            small = {"architecture": (3, 3, 3), "channels": 64, "latent_features_dim": 64}
            return {"epochs": 4, "batch_size": 256, "every": 10} | small
        published = {"architecture": (3, 3, 3, 3, 3), "channels": 256, "latent_features_dim": 256}
        return {"epochs": 80, "batch_size": 1024, "every": 1} | published

    def __init__(self, options, data):
        super().__init__(options, data)
        if options.stride != 1:
            raise ValueError(f"--stride: only 1 works (in the published program too), got {options.stride}")
        self.numbers = (1, 2, 3) if options.stage == "all" else (int(options.stage),)
        self.stages = len(self.numbers)
        self.number = self.numbers[0]
        frames = math.prod(options.architecture)
        self.pad = (frames - 1) // 2
        self.causal_shift = self.pad if options.causal else 0
        for stage, option, name in (("2", "-p/--pretrain", "pretrain"), ("3", "-ft/--finetune", "finetune")):
            file = getattr(options, name)
            if file:
                file = str(find_file(file, (options.checkpoint, *CHECKPOINTS)))
                setattr(options, name, file)
            training = not options.evaluate and not options.resume
            if training and options.stage == stage and not file:
                raise ValueError(f"--stage {stage} needs {option} FILE, a checkpoint of stage {int(stage) - 1}")
            if file and options.stage != stage:
                raise ValueError(f"{option} is for --stage {stage}, got --stage {options.stage}")
            if file and training and not Path(file).is_file():
                raise ValueError(f"{option}: no such file {file}")

    def build(self, stage: int) -> nn.Module:
        o = self.options
        return models.create(
            "rie",
            filter_widths=o.architecture,
            stage=stage,
            latent=o.latent_features_dim,
            channels=o.channels,
            dropout=o.dropout,
            causal=o.causal,
            skeleton=self.data.skeleton,
        )

    def make_model(self) -> nn.Module:
        return self.build(self.numbers[-1] if self.options.evaluate else self.numbers[0])

    def load_weights(self, path: str | Path) -> None:
        """A run of all three stages keeps the best of each: the network of that stage takes it."""
        checkpoint = read_checkpoint(path)
        if is_run(checkpoint) and checkpoint["model"] == self.name and self.options.stage == "all":
            self.number = self.numbers[checkpoint["stage"]]
            self.model = self.build(self.number).to(self.place.device)
        super().load_weights(path)

    def start_stage(self, index: int, best: dict[str, Tensor] | None) -> None:
        self.number = self.numbers[index]
        if self.number == 1:
            return
        if index > 0:
            self.model = self.build(self.number)
        file = self.options.pretrain if self.number == 2 else self.options.finetune
        if file and not self.options.resume:
            best = self.read(file, self.number - 1)
        if best is not None:  # None when a run is resumed: its weights follow
            wanted = ENCODERS if self.number == 2 else ("",)
            taken = {n: t for n, t in best.items() if n.startswith(wanted)}
            fill(self.model, self.model.state_dict() | taken, file or "best weights of the stage before", ours=True)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self.number == 3 or not name.startswith(ENCODERS))

    def read(self, file: str, stage: int) -> dict[str, Tensor]:
        """Weights of one of our checkpoints, or of a published one of ``stage``, under our names."""
        checkpoint = read_checkpoint(file)
        if not is_run(checkpoint):
            return models.load(file, self.build(stage)).state_dict()
        if checkpoint["model"] != "rie":
            raise CheckpointError(f"{file}: a checkpoint of --model {checkpoint['model']}, not of rie")
        fused = any(name.startswith("fusions.") for name in checkpoint["weights"])
        if fused != (stage > 1):
            raise CheckpointError(f"{file}: a checkpoint of stage {'2 or 3' if fused else '1'}, expected stage {stage}")
        return checkpoint["weights"]

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return [torch.optim.AdamW(trained, lr=self.options.lr or LR[self.number], amsgrad=True)]

    def lr_factor(self, epoch: int, step: int) -> float:
        return self.options.lr_decay**epoch

    def start_epoch(self, epoch: int) -> None:
        # Published: the norms of the temporal encoders settle, those of the fully connected networks stay at 0.1.
        momentum = 0.1 * math.exp(-epoch / self.epochs(self.number) * math.log(0.1 / 0.001))
        for module in self.model.encoders.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = momentum

    def predict(self, clip: Clip) -> Tensor:
        """[T, J, 3] metres. Published: the root's own prediction stays, and counts in every figure (quirk 6)."""
        return self.poses(clip)

    def loss_step(self, batch: Batch) -> Tensor:
        # The root is a free output, pulled to 0 by its share of the loss.
        return (self.model(batch.keypoints[..., :2]) - target_of_batch(batch)).norm(dim=-1).mean()


RECIPE = RIERecipe
