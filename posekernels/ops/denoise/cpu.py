"""The C++ kernel of ``denoise``: ``csrc/denoise/denoise_cpu.cpp``."""

from __future__ import annotations

import torch

from ... import _native
from ..._adapters import addresses, contiguous
from ..._dispatch import not_on
from ...prepared import derived


def refuses(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep) -> str | None:
    """Why the kernel cannot take these, or None."""
    if x.dtype != torch.float32:
        return f"needs x in float32 (with weights in float32 or bfloat16), got {x.dtype}"
    if weights[2].dtype not in (torch.float32, torch.bfloat16):  # in_weight: the matrices' dtype
        return f"needs weights in float32 or bfloat16, got {weights[2].dtype}"
    return not_on("cpu", x, shifts, coefficients, noise, weights[2])  # all weights are where one is


def _packed(weights, heads) -> torch.Tensor:
    core, threads = _native.core, torch.get_num_threads()
    sizes = _sizes(weights, heads)
    packed = torch.empty(core.denoise_packed_size(threads, *sizes), dtype=torch.uint8)
    flat = [t.detach().float().contiguous() for t in weights]
    core.denoise_pack(threads, *addresses(*flat, packed), *sizes)
    return packed


def _sizes(weights, heads) -> tuple:
    (K, Cin, C), (L, J), Cout = weights[2].shape, weights[1].shape[:2], weights[-1].shape[0]
    return J, K, L, Cin, C, Cout, heads, weights[2].dtype == torch.bfloat16


def denoise(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep, derived=derived):
    """See ``reference.loop``; with ``coefficients`` None, ``reference.network``."""
    packed = derived(("denoise", heads), lambda: _packed(weights, heads), *weights)
    x, shifts, coefficients, noise = contiguous(x, shifts, coefficients, noise)
    sizes = _sizes(weights, heads)
    B, S = x.shape[0], 1 if coefficients is None else coefficients.shape[0]
    y = x.new_empty(B, sizes[0], sizes[5])
    history = [x.new_empty((S, *x.shape) if keep else (0,)) for _ in range(2)]
    _native.core.denoise(
        torch.get_num_threads(),
        *addresses(x, packed, shifts, coefficients, noise, y, *(history if keep else (None, None))),
        seed is not None,
        seed or 0,
        first_pose,
        B,
        S,
        *sizes,
    )
    return y, *history
