"""HTNet (Cai et al., ICASSP 2023): one frame, mean joint distance, Adam with amsgrad (ws_anl section 12)."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import torch
from torch import Tensor, nn

from posekernels import models

from ..data.windows import Batch
from ..options import positive
from ..place import tell
from ._lifting import LiftingRecipe, add_decay_arguments, decayed, target_of_batch
from ._published import add_refused, add_single_frame_arguments, add_without_effect, as_evaluate

# Published options that the published programs never read, or that say here what cannot be otherwise; WS-ANL's too.
WITHOUT_EFFECT = {
    "--workers": "windows are gathered in memory",
    "--gpu": "see --device",
    "--drop": "never read",
    "--min_lr": "never read",
    "--lr_min": "never read",
    "--out_all": "frames are seen one by one",
}
HTNET_WITHOUT_EFFECT = WITHOUT_EFFECT | {
    "--frames": "frames are seen one by one",
    "--test": "it tests after every epoch",
    "-n --model_name": "see --out",
    "--n_joints": "the data's",
    "--out_joints": "the data's",
    "--in_channels": "2",
    "--out_channels": "3",
    "--viz": "never read",
    "--previous": "never read",
    "-previous_best_threshold": "see --resume",
    "-previous_name": "see --resume",
    "--refine": "never called there; the Strided Transformer has a refine stage",
    "--lr_refine --refine_train_reload --refine_test_reload": "never read",
    "--previous_refine_name -previous_refine_name": "never read",
}
REFUSED = {"--figure --video": "posekernels lift FILE lifts pictures and videos of one's own"}


class HTNetRecipe(LiftingRecipe):
    architecture = ("layers", "channel", "d_hid")

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--layers", type=positive, default=3, help="blocks")
        parser.add_argument("--channel", type=positive, default=240, help="channels, a multiple of 24")
        parser.add_argument("--d_hid", type=positive, default=1024, help="hidden width of the MLPs")
        parser.add_argument("--reload", action="store_true", help="as published: test the file in --previous_dir")
        parser.add_argument("--train", action="store_true", help="published: with --reload, train on from that file")
        parser.add_argument("--previous_dir", metavar="DIR", help="of --reload: its first .pth file in sorted order")
        add_decay_arguments(parser)
        add_single_frame_arguments(parser)
        add_without_effect(parser, HTNET_WITHOUT_EFFECT)
        add_refused(parser, REFUSED)

    def __init__(self, options, data):
        super().__init__(options, data)
        self.start = None
        if options.reload and not (options.train and options.resume):
            files = sorted(Path(options.previous_dir or "").glob("*.pth"))
            if not options.previous_dir or not files:
                raise ValueError(f"--reload: no .pth file in --previous_dir {options.previous_dir}")
            self.start = str(files[0])
            if not options.train:
                as_evaluate(options, "--reload", self.start)
            tell(f"--reload: {self.start}")

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        # Published: 300 epochs in the options, though the reported result is reached at epoch 15.
        if starter:  # 80,000 poses in 2,500 steps: about two and a half minutes on two cores
            return {"epochs": 5, "batch_size": 32, "lr": 1e-3, "every": 10, "eval_every": 5}
        return {"epochs": 15, "batch_size": 512, "lr": 5e-4, "every": 1}

    def make_model(self) -> nn.Module:
        o = self.options
        return models.create("htnet", depth=o.layers, channels=o.channel, hidden=o.d_hid)

    def start_stage(self, index: int, best: dict[str, Tensor] | None) -> None:
        if self.start and not self.options.resume:  # else the run's own weights follow
            models.load(self.start, self.model)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.model.parameters(), lr=self.options.lr, amsgrad=True)]

    def lr_factor(self, epoch: int, step: int) -> float:
        return decayed(self.options, epoch)

    def loss_step(self, batch: Batch) -> Tensor:
        # The predicted root is not zeroed: training pulls it to 0.
        return (self.model(batch.keypoints[..., :2]) - target_of_batch(batch)).norm(dim=-1).mean()


RECIPE = HTNetRecipe
