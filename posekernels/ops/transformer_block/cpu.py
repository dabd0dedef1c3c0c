"""The C++ kernel of ``transformer_block``: ``csrc/transformer_block/transformer_block_cpu.cpp``."""

from __future__ import annotations

import torch

from ... import _native
from ..._adapters import address, strided_address
from ..._packing import packed
from ...prepared import derived
from .._cpu import not_float32

# From this many tokens on, weights are put into panels anew at every call: it costs 1 % then, and no second copy of
# the weights stays in memory.
PACK_AT_EVERY_CALL = 4096


def refuses(x, weights, heads, scale, eps) -> str | None:
    """Why the kernel cannot take these, or None."""
    if x.dim() > 4:
        return f"needs at most two axes of groups, got x with {x.dim()} axes"
    return not_float32(x, *weights, or_bfloat16=True)


def _floats(bias: torch.Tensor) -> torch.Tensor:
    if bias.dtype == torch.float32:
        return bias.contiguous()
    return derived("floats", lambda: bias.detach().float().contiguous(), bias)


def transformer_block(x, weights, heads, scale, eps):
    """See ``reference.transformer_block``; the result lies in memory as ``x`` does."""
    gain1, shift1, qkv, qkv_bias, proj, proj_bias, gain2, shift2, fc1, fc1_bias, fc2, fc2_bias, gain3, shift3 = weights
    half = x.dtype == torch.bfloat16
    y = torch.empty_like(x)  # dense in the order of x's axes where x is dense, contiguous otherwise
    if y.stride() != x.stride() or y.stride(-1) != 1:
        x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        return y
    C, hidden, tokens = x.shape[-1], fc1.shape[0], x.numel() // x.shape[-1]
    given = [t for t in (gain1, shift1, gain2, shift2, gain3, shift3) if t is not None]
    norms = derived("norms", lambda: torch.cat([t.detach().float() for t in given]), *given)
    keep = not half and tokens >= PACK_AT_EVERY_CALL
    layers = []
    for weight, bias in ((qkv, qkv_bias), (proj, proj_bias), (fc1, fc1_bias), (fc2, fc2_bias)):
        panels = None if keep else packed(weight, transposed=True, dtype=x.dtype)
        layers.append((weight.contiguous() if keep else None, panels, None if bias is None else _floats(bias)))
    groups = list(zip(x.shape[:-2], x.stride()[:-2]))
    groups = [(1, 0)] * (2 - len(groups)) + groups
    _native.core.transformer_block(
        torch.get_num_threads(),
        strided_address(x),
        strided_address(y),
        groups[0][0],
        groups[1][0],
        groups[0][1],
        groups[1][1],
        x.shape[-2],
        x.stride(-2),
        C,
        heads,
        hidden,
        address(norms),
        *(address(t) for layer in layers for t in layer),
        gain3 is not None,
        half,
        scale,
        eps,
    )
    return y
