"""What each network of the registry is called with, for tracing and for parity checks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def inputs_of(name: str, net: nn.Module, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs of the sizes that ``net`` wants; the first axis of each is ``batch``."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return 0.3 * torch.randn(batch, *shape, generator=random)

    skeleton = getattr(net, "skeleton", None)
    joints = getattr(net, "joints", 17) if skeleton is None else skeleton.num_joints
    if name in ("pkd", "simlpe"):
        return (normal(net.history, net.joints, 3),)
    if name == "gcndiff":
        return normal(joints, net.conv_in.weight.shape[2]), torch.arange(batch) % 50
    if name == "gcnpose":
        return (normal(joints, net.conv_in.weight.shape[2]),)
    if name == "strided_refine":
        return normal(1, joints, 3), normal(1, joints, 3)
    return (normal(getattr(net, "frames", 1), joints, getattr(net, "in_channels", 2)),)


def names_of(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the inputs and of the outputs in an exported file."""
    if name in ("pkd", "simlpe"):
        return ("history",), ("future",)
    if name == "gcndiff":
        return ("noisy", "timestep"), ("noise",)
    if name == "strided_refine":
        return ("prediction", "projected"), ("poses",)
    return ("keypoints",), ("sigma" if name.startswith("variance") else "poses",)
