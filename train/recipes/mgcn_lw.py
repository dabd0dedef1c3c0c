"""MGCN_lw, WS-ANL's light lifter. Its own training was never published; this is Modulated GCN's (ws_anl section 12.3).

Loss 0.99 times the mean joint distance plus 0.01 times the mean absolute difference, without the refine stage.
"""

from __future__ import annotations

from argparse import ArgumentParser

import torch
from torch import Tensor, nn

from posekernels import models

from ..data.windows import Batch
from ..options import not_negative, positive
from ._lifting import LiftingRecipe, target_of_batch


class MgcnLwRecipe(LiftingRecipe):
    architecture = ("hid_dim", "num_layers")

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--hid_dim", type=positive, default=128, help="channels")
        parser.add_argument("--num_layers", type=int, default=4, help="residual layers")
        parser.add_argument(
            "-lrd", "--lr_decay", type=not_negative, default=0.9, help="rate factor every --decay_epochs"
        )
        parser.add_argument("--decay_epochs", type=positive, default=4)

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        if starter:
            return {"epochs": 15, "batch_size": 128, "lr": 5e-3, "every": 5}
        return {"epochs": 30, "batch_size": 256, "lr": 5e-3, "every": 1}

    def make_model(self) -> nn.Module:
        return models.create("mgcn_lw", hidden=self.options.hid_dim, depth=self.options.num_layers)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(self.model.parameters(), lr=self.options.lr, amsgrad=True)]

    def lr_factor(self, epoch: int, step: int) -> float:
        return self.options.lr_decay ** (epoch // self.options.decay_epochs)

    def loss_step(self, batch: Batch) -> Tensor:
        difference = self.model(batch.keypoints[..., :2]) - target_of_batch(batch)
        return 0.99 * difference.norm(dim=-1).mean() + 0.01 * difference.abs().mean()


RECIPE = MgcnLwRecipe
