"""The definition of ``dropout``: plain differentiable PyTorch."""

from __future__ import annotations

from torch import Tensor

from ... import _dropout


def dropout(x: Tensor, rate: float, seed: _dropout.Seed) -> Tensor:
    """``x`` under the mask of ``_dropout.keep_mask``, stream 0."""
    return _dropout.dropout(x, rate, seed).contiguous()
