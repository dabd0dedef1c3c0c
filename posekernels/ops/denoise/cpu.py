"""The C++ kernel of ``denoise`` (``csrc/denoise/denoise_cpu.cpp``). Poses of 16 bits are computed in float32."""

from __future__ import annotations

import torch

from ... import _native
from ..._adapters import addresses, wide
from ..._dispatch import not_on
from ...prepared import derived
from .._cpu import not_narrow


def refuses(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep) -> str | None:
    """Why the kernel cannot take these, or None."""
    return not_narrow(x, weights[2]) or not_on("cpu", shifts, coefficients, noise)  # in_weight: the matrices' dtype


def _packed(weights, heads) -> torch.Tensor:
    core, threads = _native.core, torch.get_num_threads()
    sizes = _sizes(weights, heads)
    flat = [t.detach().float().contiguous() for t in weights]
    packed = flat[0].new_empty(core.denoise_packed_size(threads, *sizes), dtype=torch.uint8)
    core.denoise_pack(threads, *addresses(*flat, packed), *sizes)
    return packed


def _sizes(weights, heads) -> tuple:
    (K, Cin, C), (L, J), Cout = weights[2].shape, weights[1].shape[:2], weights[-1].shape[0]
    return J, K, L, Cin, C, Cout, heads, weights[2].dtype == torch.bfloat16


def denoise(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep, derived=derived):
    """See ``reference.loop``; with ``coefficients`` None, ``reference.network``."""
    packed = derived(("denoise", heads), lambda: _packed(weights, heads), *weights)
    dtype, (x, shifts, coefficients, noise) = x.dtype, wide(x, shifts, coefficients, noise)
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
        shifts is not None and shifts.dim() == 4,
        *sizes,
    )
    return y.to(dtype), *(t.to(dtype) for t in history)
