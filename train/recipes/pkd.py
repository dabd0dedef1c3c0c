"""What the PKD paper and program say about training and evaluation (siMLPe: the same without the posterior)."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from posekernels import models
from posekernels.archive import CheckpointError, read_checkpoint
from posekernels.models.load import is_run, recognise, unwrap
from posekernels.models.pkd import roll_out

from ..data.forecasting import OBSERVED, TRAINED, Layout, TrainingLoader, Windows, evaluation_windows, training_windows
from ..evaluate import Report
from ..options import not_negative, positive
from . import Recipe
from ._published import add_without_effect

EVALUATION_BATCH = 128
LEARNING_RATE, LOW_RATE = 3e-4, 1e-5


def make_optimizer(net) -> torch.optim.Adam:
    """Adam with L2 decay in the gradient, all parameters in one group; both steps of an iteration share it."""
    return torch.optim.Adam(net.parameters(), LEARNING_RATE, weight_decay=1e-4)


def rate_factor(iteration: int, drop: int) -> float:
    """Of ``LEARNING_RATE`` in an iteration, from 0: low in the very first, and again once one past ``drop`` is done.

    Published: the rate is set *after* an iteration, so the drop takes effect one later. No warm-up, no cosine.
    """
    return LOW_RATE / LEARNING_RATE if iteration == 0 or iteration - 1 > drop else 1.0


# -- losses ----------------------------------------------------------------------------------------------------------
def position_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance over clips, frames and joints; [..., 3] metres. The subgradient of a zero distance is 0."""
    return (predicted - target).norm(dim=-1).mean()


def velocity_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean distance of frame-to-frame steps inside the future; the step out of the last observed frame is not in it."""
    return (predicted.diff(dim=1) - target.diff(dim=1)).norm(dim=-1).mean()


def first_losses(net, observed: Tensor, target: Tensor, similar_weight: float, agreeing: bool = False) -> dict:
    """The first step's loss: the prediction alone, and a similarity that ties the posterior to its error.

    Published quirk: the last frame is added to the posterior too, so it cancels in ``P - K`` and the posterior is
    asked for (raw displacement - *absolute* target), where the second step asks it for (target - P).

    Args:
        agreeing: in place of that, similarity ``|P - Y + G k|``, which agrees with the second step.
    """
    prediction, posterior = net.branches(observed)  # each [B, S, J, 3], relative to the last frame
    P = prediction + observed[:, -1:]
    residue = P - target + posterior if agreeing else prediction - target - posterior
    parts = {"position": position_loss(P, target), "velocity": velocity_loss(P, target)}
    parts["similarity"] = residue.norm(dim=-1).mean()
    return {"loss": parts["position"] + parts["velocity"] + similar_weight * parts["similarity"], **parts}


def second_losses(net, observed: Tensor, target: Tensor) -> dict:
    """The second step's loss, on the sum of the branches: also siMLPe's only one. The last frame is added once."""
    E = sum(net.branches(observed)) + observed[:, -1:]
    parts = {"position": position_loss(E, target), "velocity": velocity_loss(E, target)}
    return {"loss": parts["position"] + parts["velocity"], **parts}


# -- evaluation ------------------------------------------------------------------------------------------------------
@dataclass
class ForecastErrors:
    """Sums over windows of the mean error over joints, per future frame, in millimetres.

    Args:
        total, used: [F] float64: over all joints of the skeleton (published), over those that the network forecasts.
        windows: how many.
    """

    total: np.ndarray
    used: np.ndarray
    windows: int

    def __add__(self, other: ForecastErrors) -> ForecastErrors:
        return ForecastErrors(self.total + other.total, self.used + other.used, self.windows + other.windows)

    @property
    def mpjpe_mm(self) -> np.ndarray:
        """[F] at each frame alone."""
        return self.total / self.windows

    @property
    def used_mpjpe_mm(self) -> np.ndarray:
        return self.used / self.windows


def errors_of(predicted: Tensor, window: Tensor, layout: Layout) -> ForecastErrors:
    """Score a forecast of the used joints against whole-skeleton windows.

    Args:
        predicted: [B, F, U, 3] metres.
        window: [B, 50 + F, J, 3] metres.
    """
    truth = window[:, window.shape[1] - predicted.shape[1] :]
    distance = 1000 * (layout.restore(predicted.to(truth.dtype), truth) - truth).norm(dim=-1).double()  # [B, F, J]
    totals = (distance[..., joints].mean(-1).sum(0).numpy() for joints in (slice(None), list(layout.used)))
    return ForecastErrors(*totals, len(window))


def repeat_last(observed: Tensor, frames: int) -> Tensor:
    """The baseline: the last observed pose, again and again."""
    return observed[:, -1:].expand(-1, frames, -1, -1)


@torch.no_grad()
def score(forecast, windows: Windows, layout: Layout, which=None) -> ForecastErrors:
    """Errors of ``forecast(observed [B, 50, U, 3], frames) -> [B, frames, U, 3]`` over ``windows`` (or some)."""
    which = np.arange(len(windows)) if which is None else np.asarray(which)
    future = windows.length - OBSERVED
    result = ForecastErrors(np.zeros(future), np.zeros(future), 0)
    for start in range(0, len(which), EVALUATION_BATCH):
        window = windows.take(which[start : start + EVALUATION_BATCH])
        observed = window[:, :OBSERVED, list(layout.used)]
        result += errors_of(forecast(observed, future).cpu(), window, layout)
    return result


def network_forecast(net, **options):
    """``score``'s ``forecast`` by a network: chunks of its own horizon, fed back; float64 clips are cast for it."""

    def forecast(observed: Tensor, frames: int) -> Tensor:
        parameter = next(net.parameters())
        return roll_out(net, observed.to(parameter.device, parameter.dtype), frames, **options)

    return forecast


def report_of(groups: dict[str, ForecastErrors], layout: Layout, averaged: bool = False, used: bool = False) -> Report:
    """A table by action, and the figures over all: of the actions' means, or of all windows pooled, as published.

    Args:
        averaged: each figure is the mean of all frames up to its own, not the error at that frame alone.
        used: over the joints that the network forecasts, instead of all of the skeleton.
    """

    def row(mpjpe: np.ndarray) -> dict[str, float]:
        if averaged:
            mpjpe = np.cumsum(mpjpe) / np.arange(1, len(mpjpe) + 1)
        values = {label: float(mpjpe[f - 1]) for f, label in zip(layout.reported, layout.labels)}
        return values | {"mean": float(np.mean(list(values.values())))}

    def errors(part: ForecastErrors) -> np.ndarray:
        return part.used_mpjpe_mm if used else part.mpjpe_mm

    groups = {name: part for name, part in groups.items() if part.windows}
    if layout.per_action:
        overall = np.mean([errors(part) for part in groups.values()], axis=0)
    else:
        overall = errors(sum(list(groups.values())[1:], start=list(groups.values())[0]))
    return Report({name: row(errors(part)) for name, part in groups.items()}, row(overall))


# -- the recipe ------------------------------------------------------------------------------------------------------
class PKDRecipe(Recipe):
    """Two optimiser steps on each batch: one on the prediction and the similarity, one on the sum of both branches.

    The published program evaluates every 100 iterations (500 on Human3.6M) and keeps the state with the lowest error
    *on the test set*; that is what best.pt is. The table after training is of the last iteration.
    """

    task = "motion"
    watched = "mean"
    network = "pkd"
    architecture = ("num", "distill_layer_num", "spatial_fc", "layer_norm_axis", "with_normalization")

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--blocks",
            "--num",
            dest="num",
            type=positive,
            default=48,
            metavar="M",
            help="blocks; torchrun takes --num for its own unless -- stands before the program: torchrun ... -m -- ...",
        )
        cls.add_own_arguments(parser)
        parser.add_argument("--iter", type=positive, metavar="N", help="iterations; published: 40000 on Human3.6M")
        parser.add_argument(
            "--drop", type=positive, metavar="N", help="the rate falls from 3e-4 to 1e-5 after iteration N (from 0)"
        )
        parser.add_argument(
            "--every", type=positive, metavar="N", help="iterations between savings; --eval-every counts these"
        )
        parser.add_argument("--spatial-fc", action="store_true", help="a block's last map is over coordinates")
        parser.add_argument("--layer-norm-axis", choices=("spatial", "temporal", "all"), default="spatial")
        parser.add_argument(
            "--with-normalization", action=BooleanOptionalAction, default=True, help="the norm at a block's end"
        )
        add_without_effect(parser, {"--exp-name": "runs are named by --out"})
        parser.add_argument(
            "--reversal", action=BooleanOptionalAction, default=True, help="half of the training windows backwards"
        )

    @classmethod
    def add_own_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--distill_layer_num", type=positive, metavar="L", help="distiller blocks (12; CMU, 3DPW: 6)"
        )
        parser.add_argument("--similar_weight", type=not_negative, default=0.1, metavar="W", help="of the similarity")
        parser.add_argument(
            "--agreeing-similarity",
            action="store_true",
            help="similarity |P - Y + G k|, which agrees with the second step; published: |P - Y - K|, which does not",
        )
        parser.add_argument(
            "--preliminary", action="store_true", help="evaluate the prediction alone, without the posterior"
        )
        add_without_effect(parser, dict.fromkeys(("--temporal-only", "--weight"), "in the published program too"))

    @classmethod
    def defaults(cls, starter: bool) -> dict:
        if starter:
            return {"batch_size": 128, "lr": LEARNING_RATE, "iter": 600, "drop": 500, "every": 100}
        return {"batch_size": 256, "lr": LEARNING_RATE}

    def __init__(self, options, data):
        super().__init__(options, data)
        options.joints = len(data.layout.used)  # for the checkpoint
        if options.epochs:
            options.iter = options.epochs * options.every
        self.windows = None
        self.tested = None

    def epochs(self, stage: int) -> int:
        return -(-self.options.iter // self.options.every)

    def config(self) -> dict:
        o = self.options
        norm = o.layer_norm_axis if o.with_normalization else "none"
        size = {"joints": len(self.data.layout.used), "history": OBSERVED, "future": TRAINED, "blocks": o.num}
        return size | {"norm": norm, "mix": "spatial" if o.spatial_fc else "temporal"}

    def make_model(self) -> nn.Module:
        return models.create("pkd", distill_blocks=self.options.distill_layer_num, **self.config())

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        optimizer = make_optimizer(self.model)
        for group in optimizer.param_groups:
            group["lr"] = self.options.lr
        return [optimizer]

    def make_loader(self, rank: int, world: int) -> TrainingLoader:
        o = self.options
        self.windows = self.windows or training_windows(self.data)
        return TrainingLoader(
            self.windows, o.batch_size, OBSERVED, o.every, o.seed, o.iter, rank, world, reverse=o.reversal
        )

    def lr_factor(self, epoch: int, step: int) -> float:
        return rate_factor(step, self.options.drop)

    def loss_steps(self):
        o, net = self.options, self.model

        def first(batch):
            return first_losses(net, *batch, o.similar_weight, o.agreeing_similarity)

        return first, lambda batch: second_losses(net, *batch)

    # -- evaluation --------------------------------------------------------------------------------------------------
    def forecast_options(self) -> dict:
        return {"posterior": False} if self.options.preliminary else {}

    def test_windows(self) -> dict[str, Windows]:
        self.tested = self.tested or evaluation_windows(self.data, self.options.sampling)
        return self.tested

    def errors(self, place, forecast=None) -> dict[str, ForecastErrors]:
        """By action; ``place``'s share is scored here, the rest elsewhere. Of the network, or of ``forecast``."""
        forecast = forecast or network_forecast(self.model, **self.forecast_options())
        mine = {
            action: score(forecast, windows, self.data.layout, np.arange(len(windows))[place.rank :: place.world])
            for action, windows in self.test_windows().items()
        }
        parts = place.gather(mine)
        return {action: sum((p[action] for p in parts[1:]), start=parts[0][action]) for action in mine}

    def evaluate(self, place) -> Report:
        with torch.autocast(place.device.type, enabled=False):
            return report_of(self.errors(place), self.data.layout, self.options.averaged)


def published_options(path) -> dict:
    """The options that a published checkpoint's shapes imply, "model" and "joints" among them; {} for one of ours.

    Raises:
        CheckpointError: a checkpoint of another network.
    """
    checkpoint = read_checkpoint(path)
    if is_run(checkpoint):
        return {}
    about = recognise(unwrap(checkpoint, str(path)), path)
    name, config = about.network, about.config
    if name not in ("pkd", "simlpe"):
        raise CheckpointError(f"{path}: weights of {name}, not of pkd or simlpe")
    options = {"model": name, "joints": config["joints"], "num": config["blocks"]}
    options |= {"spatial_fc": config["mix"] == "spatial", "with_normalization": config["norm"] != "none"}
    if config["norm"] != "none":
        options["layer_norm_axis"] = config["norm"]
    if name == "pkd":
        return options | {"distill_layer_num": config["distill_blocks"]}
    return options | {"temporal_only": config["temporal_only"]}


RECIPE = PKDRecipe
