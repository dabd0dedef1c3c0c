"""``hierarchy_block`` on the GPU: the composition of the other ops' Triton kernels and PyTorch's matrix products."""

from __future__ import annotations

from torch import Tensor

from ..._derived import derived
from . import reference


def hierarchy_block(x, weights, joints, heads) -> Tensor:
    """As ``reference.inference``."""
    key = ("hierarchy_block constants", tuple(joints))
    given = derived(key, lambda: reference.constants(weights, joints), *weights)
    return reference.hierarchy_block(x, weights, joints, heads, "triton", given)


AOT = []  # no kernel of its own
