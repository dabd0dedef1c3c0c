"""WS-ANL's training: the variance model learns how far the frozen lifter is off, joint by joint."""

from __future__ import annotations

from torch import Tensor


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
