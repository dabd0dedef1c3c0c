"""``forecast``: past 3D joints of any skeleton to future ones."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from posekernels.pose.skeleton import CMU_25_OF_38, CMU_38, Skeleton

from .load import load
from .pkd import roll_out

CMU_USED = CMU_25_OF_38
TRAJECTORIES = ("still", "straight")
FPS = 25.0  # of the forecaster of people that ships


@cache
def _cmu_network() -> nn.Module:
    """``load("pkd_cmu")``, once: the 25 used joints of CMU's 38, nominal 25 frames per second, y up."""
    return load("pkd_cmu")


@torch.no_grad()
def forecast(
    history: Tensor | np.ndarray,
    net: nn.Module | None = None,
    frames: int = 25,
    *,
    skeleton: Skeleton | None = None,
    used: tuple[int, ...] | None = None,
    trajectory: str = "still",
) -> Tensor | np.ndarray:
    """Where the joints go next.

    Args:
        history: [T, J, 3] or [B, T, J, 3] metres, at least ``net.history`` frames (the latest count), in the axes and
            at the frame rate that the network was trained on.
        net: a PKD or SiMLPe. Without one, the network that ships, for ``CMU_38`` (``load("pkd_cmu")``).
        frames: how many are wanted; beyond the network's own horizon its output is fed back.
        skeleton: of ``history``; its root is what joints are relative to, joint 0 without one.
        used: the joints that the network sees, in its order; all of them by default. The others move as their nearest
            ancestor among them (``skeleton``) does, or stay where they are relative to the root.
        trajectory: networks forecast poses relative to the root, not where the body goes. "still": it stays where it
            was last; "straight": it goes on as it did over the last two frames.
    Returns:
        [frames, J, 3] or [B, frames, J, 3], in the kind and unit of ``history``.
    Raises:
        TypeError: a history of integers. ValueError: too few frames, joints that do not fit the network, or NaN.
    """
    if net is None:
        net, skeleton, used = _cmu_network(), CMU_38, CMU_USED
    given = torch.as_tensor(history)
    if not given.is_floating_point():
        raise TypeError(f"forecast: history must be metres in floating point, got {given.dtype}")
    whole = given if given.dim() == 4 else given[None]
    joints = skeleton.num_joints if skeleton else whole.shape[2] if whole.dim() == 4 else None
    used = tuple(range(joints or 0)) if used is None else tuple(used)
    if whole.dim() != 4 or whole.shape[1] < net.history or whole.shape[2:] != (joints, 3):
        want = f"[T >= {net.history}, {joints or 'J'}, 3]"
        raise ValueError(f"forecast: history must be {want} or [B, T, ...], got {list(given.shape)}")
    if len(used) != net.joints or not all(0 <= j < joints for j in used):
        raise ValueError(f"forecast: the network takes {net.joints} joints; used names {len(used)} of {joints}")
    if frames < 1 or trajectory not in TRAJECTORIES:
        raise ValueError(
            f"forecast: frames must be 1 or more and trajectory one of {', '.join(TRAJECTORIES)}, "
            f"got {frames} and {trajectory!r}"
        )
    whole = whole[:, -net.history :]
    if not torch.isfinite(whole).all():
        raise ValueError("forecast: history holds NaN or infinity")
    parameter = next(net.parameters())
    root = whole[:, :, [skeleton.root if skeleton else 0]]
    relative = (whole - root)[:, :, list(used)]
    pose = roll_out(net, relative.to(parameter.device, parameter.dtype), frames).to(whole.device, whole.dtype)
    moved = pose - relative[:, -1:]  # since the last observed frame
    shift = whole.new_zeros(len(whole), frames, joints, 3)
    place = {joint: i for i, joint in enumerate(used)}
    for joint in range(joints):
        ancestor = joint
        while ancestor >= 0 and ancestor not in place:
            ancestor = skeleton.parents[ancestor] if skeleton else -1
        if ancestor >= 0:
            shift[:, :, joint] = moved[:, :, place[ancestor]]
    future = whole[:, -1:] + shift
    if trajectory == "straight":
        steps = torch.arange(1, frames + 1, dtype=whole.dtype, device=whole.device)
        future += (root[:, -1:] - root[:, -2:-1]) * steps[:, None, None]
    future = future if given.dim() == 4 else future[0]
    return future if isinstance(history, Tensor) else future.numpy()


# -- people in the world, as the forecaster that ships sees them -----------------------------------------------------
def with_path(world: Tensor, last: int) -> Tensor:
    """[..., T, 17, 3] metres, world to root-relative; joint 0 becomes the root relative to that of frame ``last``."""
    root = world[..., :1, :]
    path = root - root[..., last, None, :, :]
    return torch.cat((path, world[..., 1:, :] - root), -2)


def without_path(motion: Tensor, origin: Tensor) -> Tensor:
    """The inverse of ``with_path``: [..., T, 17, 3] back to the world, given the root [..., 3] of frame ``last``."""
    root = motion[..., :1, :] + origin[..., None, None, :]
    return torch.cat((root, motion[..., 1:, :] + root), -2)


def in_one_frame(motion: Tensor) -> Tensor:
    """Every joint where it is, relative to one place for the whole window: a wrong path is wrong for all joints."""
    return torch.cat((motion[..., :1, :], motion[..., 1:, :] + motion[..., :1, :]), -2)
