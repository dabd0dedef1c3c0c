"""What the PKD paper and program say about training and evaluation (siMLPe: the same without the posterior)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.pkd import roll_out

from ..data.forecasting import OBSERVED, Layout, Windows

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
        total, used: [F] float64: over all joints of the skeleton (published), over those that can be wrong.
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
    totals = (distance[..., joints].mean(-1).sum(0).numpy() for joints in (slice(None), layout.moving))
    return ForecastErrors(*totals, len(window))


def repeat_last(observed: Tensor, frames: int) -> Tensor:
    """The baseline: the last observed pose, again and again."""
    return observed[:, -1:].expand(-1, frames, -1, -1)


@torch.no_grad()
def evaluate(forecast, windows: Windows, layout: Layout, which=None) -> ForecastErrors:
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
    """``evaluate``'s ``forecast`` by a network: chunks of its own horizon, fed back; float64 clips are cast for it."""

    def forecast(observed: Tensor, frames: int) -> Tensor:
        parameter = next(net.parameters())
        return roll_out(net, observed.to(parameter.device, parameter.dtype), frames, **options)

    return forecast
