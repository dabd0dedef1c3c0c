"""Parameter names of the published GCNpose checkpoints (``gcn_xyz_cpn.pth``, ``gcn_xyz_gt.pth``)."""

import torch
from torch import Tensor

from .gcndiff import RENAME, configuration, wrap

__all__ = ["RENAME", "UNUSED", "configuration", "unused", "wrap"]

UNUSED = [r"temb\.dense\.[01]\.(weight|bias)"]  # published quirk: a time embedding is stored, and never read


def unused(net) -> dict[str, Tensor]:
    """What the published program wants stored, though it never reads a value of it."""
    C = net.conv_in.weight.shape[3]
    shapes = {"0.weight": (4 * C, C), "0.bias": (4 * C,), "1.weight": (4 * C, 4 * C), "1.bias": (4 * C,)}
    return {f"temb.dense.{name}": torch.zeros(shape) for name, shape in shapes.items()}
