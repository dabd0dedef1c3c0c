"""siMLPe: PKD's base, one branch and one optimiser step on a batch, loss position + velocity."""

from __future__ import annotations

from argparse import ArgumentParser

from torch import nn

from posekernels import models

from ._published import add_without_effect
from .pkd import PKDRecipe, second_losses


class SiMLPeRecipe(PKDRecipe):
    architecture = (*(a for a in PKDRecipe.architecture if a != "distill_layer_num"), "temporal_only")

    @classmethod
    def add_own_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--temporal-only", action="store_true", help="input and output layers map over time")
        add_without_effect(parser, {"--weight": "in the published program too"})

    def make_model(self) -> nn.Module:
        return models.create("simlpe", temporal_only=self.options.temporal_only, **self.config())

    def loss_steps(self):
        return (lambda batch: second_losses(self.model, *batch),)

    def forecast_options(self) -> dict:
        return {}


RECIPE = SiMLPeRecipe
