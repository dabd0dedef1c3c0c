"""``encoder_layer`` on the GPU: the composition of the other ops' CUDA kernels and PyTorch's matrix products."""

from __future__ import annotations

from . import reference


def encoder_layer(z, position, parameters, heads, stride, eps):
    """As ``reference.encoder_layer``."""
    return reference.encoder_layer(z, position, parameters, heads, stride, eps, backend="cuda")
