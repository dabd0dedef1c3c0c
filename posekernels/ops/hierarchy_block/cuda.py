"""Both ops on the GPU: the composition of the other ops' CUDA kernels and PyTorch's matrix products."""

from __future__ import annotations

from torch import Tensor

from ...prepared import derived
from . import reference


def hierarchy_block(x, weights, joints, heads) -> Tensor:
    """As ``reference.hierarchy_block``."""
    key = ("hierarchy_block constants", tuple(joints))
    given = derived(key, lambda: reference.constants(weights, joints), *weights)
    return reference.hierarchy_block(x, weights, joints, heads, "cuda", given)


def hierarchy_network(*args) -> Tensor:
    """As ``reference.hierarchy_network``."""
    return reference.hierarchy_network(*args, hierarchy_block)
