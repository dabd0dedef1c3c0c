"""``transformer_block`` in Triton: norms, residuals and attention; PyTorch's matrix products between them."""

from __future__ import annotations

from torch import Tensor

from ..annotated_norm import triton as annotated_norm
from . import gpu


def transformer_block(x, weights, heads, scale, eps) -> Tensor:
    """As ``reference.transformer_block``."""
    return gpu.transformer_block(x, weights, heads, scale, eps, "triton", annotated_norm.layer_norm)


AOT = annotated_norm.layer_norm_compilations("transformer_block", 512, sums=True)
