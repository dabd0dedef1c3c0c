"""A recipe small enough to train in a test, with everything a training loop could get wrong: dropout, a global random
number, two losses per batch, stages, a shadow, figures. ``python -m tests.train.toy OUT`` trains it under torchrun."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import torch
from torch import nn

from posekernels.models.lifting import LiftsFrames
from posekernels.pose.skeleton import H36M_17
from posekernels.train.loop import fit
from posekernels.train.options import add_training_arguments
from posekernels.train.place import run_place
from posekernels.train.recipes._lifting import LiftingRecipe, target_of_batch
from posekernels.train.run_folder import open_folder
from tests.train.synthetic import synthetic


class Net(LiftsFrames):
    def __init__(self, dropout: float):
        super().__init__()
        self.skeleton = H36M_17
        self.body = nn.Sequential(nn.Flatten(1), nn.Linear(34, 24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, 51))

    def forward(self, x):
        return self.body(x).view(-1, 1, 17, 3)


class Toy(LiftingRecipe):
    name = "toy"
    architecture = ("dropout",)
    ema_rate = 0.9
    clip_norm = 1.0

    def __init__(self, options, data):
        super().__init__(options, data)
        self.stages = getattr(options, "stages", 1)
        self.seen, self.hook = [], lambda step: None

    @classmethod
    def defaults(cls, starter):
        return {"epochs": 3, "batch_size": 32, "lr": 5e-3}

    def make_model(self):
        return Net(self.options.dropout)

    def start_stage(self, index, best):
        self.seen.append((index, best is not None))
        if index == 1:
            for parameter in self.model.body[1].parameters():
                parameter.requires_grad_(False)
            if best:
                self.model.load_state_dict(best)

    def make_optimizers(self):
        free = [p for p in self.model.parameters() if p.requires_grad]
        return [torch.optim.Adam([{"params": free[:1]}, {"params": free[1:], "lr": 1e-3}], lr=self.options.lr)]

    def lr_factor(self, epoch, step):
        return 0.9**epoch * min(1, (step + 1) / 4)

    def loss_step(self, batch):
        loss = (self.model(batch.keypoints) - target_of_batch(batch)).norm(dim=-1).mean()
        return {"loss": loss, "twice": 2 * loss}

    def second(self, batch):
        return self.model(batch.keypoints).square().mean() * 1e-3

    def loss_steps(self):
        return (self.loss_step, self.second) if self.options.two_losses else (self.loss_step,)

    def after_step(self, step):
        self.hook(step)


def options(out, **changes) -> Namespace:
    parser = toy_parser()
    parsed = parser.parse_args(["--out", str(out), "--no-progress"])
    defaults = Toy.defaults(starter=True) | {"dropout": 0.2, "two_losses": True, "every": 1}
    return Namespace(**{**vars(parsed), **defaults, **changes})


def toy_parser():
    from posekernels.cli import Parser

    parser = Parser()
    add_training_arguments(parser)
    return parser


def train(out, hook=None, **changes):
    """(recipe, history) of a run in ``out``."""
    chosen = options(out, **changes)
    with run_place(chosen.device) as place:
        recipe = Toy(chosen, synthetic())
        if hook:
            recipe.hook = hook
        folder = open_folder(chosen, place, "toy")
        return recipe, fit(recipe, chosen, place, folder)


if __name__ == "__main__":
    train(Path(sys.argv[1]), dropout=0.0, batch_size=31)
