"""The CUDA C++ kernel of ``denoise`` (csrc/denoise/denoise_cuda.cu): tensors in, tensors out.

The kernel reads everything that follows from the weights alone as its matrix units take it, in the order of use.
``_Packed`` makes that once per change of the weights. There, a lane of a warp is 4 g + t, a tile 8 columns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import _cuda
from ..._adapters import addresses, contiguous
from ..._tables import table
from ...prepared import derived
from .reference import _Weights

_WIDTHS = (32, 96)  # channels that the kernel is compiled for; narrower networks are padded
_ROWS = 128  # most of a block, 16 to a warp


class _Sizes(NamedTuple):
    J: int
    K: int
    L: int
    Cin: int
    C: int
    Cout: int
    heads: int

    @property
    def head_tiles(self) -> int:
        return -(-self.C // self.heads // 8)

    @property
    def width(self) -> int:
        """Channels of the widest layer, padded: heads begin at whole tiles, a polynomial's inputs fill half."""
        out = self.K * -(-self.Cout // 8) * 8
        return max(self.C, self.heads * self.head_tiles * 8, 2 * self.Cin, out)


def _sizes(weights, heads) -> _Sizes:
    (K, Cin, C), (L, J), Cout = weights[2].shape, weights[1].shape[:2], weights[-1].shape[0]
    return _Sizes(J, K, L, Cin, C, Cout, heads)


def refuses(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep) -> str | None:
    """Why the kernel cannot take these, or None."""
    if x.dtype != torch.float32:
        return f"needs x in float32 (with weights in float32, bfloat16 or float16), got {x.dtype}"
    if weights[2].dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"needs weights in float32, bfloat16 or float16, got {weights[2].dtype}"
    width = _sizes(weights, heads).width
    if width > _WIDTHS[-1]:
        return f"keeps at most {_WIDTHS[-1]} channels (heads padded to whole 8s) in registers, got {width}"
    return _cuda.refuses(x, weights, shifts, coefficients, noise)


def _rounded(numbers: Tensor) -> Tensor:
    """float32 to the nearest TF32 number."""
    bits = (numbers.view(torch.int32) + 0x1000) & ~0x1FFF
    return torch.where(numbers.isfinite(), bits.view(torch.float32), numbers)


def _windows(J: int, device) -> tuple[Tensor, int]:
    """[warps] the first of the rows, in 16s, that share a pose with rows of a warp; how many 16s that takes at most."""
    first = torch.arange(0, _ROWS, 16)
    begin = first // J * J // 16
    end = (((first + 15) // J + 1) * J).clamp(max=_ROWS).add(15) // 16
    return table(begin.tolist(), device), int((end - begin).max())


def _mixing(matrices: Tensor, narrow: bool) -> tuple[Tensor, int]:
    """Block-diagonal matrices, a block per pose, of [X, J, J]; for every warp the 16s of rows it multiplies with.

    Lane by lane as the left operand of mma.m16n8k16, or (32 bits) of two mma.m16n8k8. Rows of 16 bits are mixed in
    pairs (r, r + 8), as the sums of a warp lie in its threads.
    """
    J, device = matrices.shape[1], matrices.device
    begin, window = _windows(J, device)
    warps = len(begin)
    row = torch.arange(_ROWS, device=device).view(warps, 16, 1)
    source = 16 * begin[:, None, None] + torch.arange(16 * window, device=device)
    dense = matrices[:, row % J, source % J].masked_fill(row // J != source // J, 0)
    if narrow:  # source: 8 e + 4 b + t; word 2 b + h, its halves e
        split = dense.view(-1, warps, 2, 8, window, 2, 2, 4)
        return split.permute(0, 1, 4, 3, 7, 6, 2, 5).contiguous(), window
    split = dense.view(-1, warps, 2, 8, window, 2, 2, 4)  # source: 8 j + 4 b + t; word 2 b + h of j
    return split.permute(0, 1, 4, 3, 7, 5, 6, 2).contiguous(), window


def _operands(rows: Tensor, narrow: bool) -> Tensor:
    """[rows, columns], 16 rows after the other: lane by lane as the right operand of mma."""
    depth, columns = rows.shape
    if narrow:  # row 8 b + 2 t + e, column 16 p + 8 i + g
        split = rows.view(depth // 16, 2, 4, 2, columns // 16, 2, 8)
        return split.permute(0, 4, 6, 2, 5, 1, 3).contiguous()
    split = rows.view(depth // 16, 2, 4, 2, columns // 8, 8)  # row 8 j + 2 t + b, column 8 n + g
    return split.permute(0, 4, 5, 2, 1, 3).contiguous()


def _fitted(numbers: Tensor, *shape: int) -> Tensor:
    """Zeros behind the last dimensions, up to ``shape``."""
    pad = [p for n, have in zip(reversed(shape), reversed(numbers.shape)) for p in (0, n - have)]
    return F.pad(numbers, pad)


class _Packed(NamedTuple):
    """What the kernel reads in place of the weights."""

    weights: Tensor
    mixing: Tensor
    vectors: Tensor
    polynomials: Tensor
    window: int
    tiles: int


def _packed(weights, heads: int) -> _Packed:
    s, w = _sizes(weights, heads), _Weights(*(t.detach() for t in weights), heads)
    kind = w.in_weight.dtype
    narrow, tf32 = kind != torch.float32, _cuda.math_of(w.in_weight) == 1
    width = next(n for n in _WIDTHS if n >= s.width)
    D, padded = s.C // heads, 8 * s.head_tiles

    def by_head(numbers: Tensor) -> Tensor:  # [..., C] -> [..., width], every head from a whole tile on
        return _fitted(_fitted(numbers.unflatten(-1, (heads, D)), padded).flatten(-2), width)

    q, k, v = w.qkv_weight.unflatten(-1, (3, s.C)).unbind(-2)
    squares = [by_head(part) for part in (k, v, q)] + [by_head(w.proj_weight.mT).mT]
    for half in range(2):
        own = slice(half * s.C, (half + 1) * s.C)
        squares += [w.fc1_weight[..., own], w.fc2_weight[:, own]]
    squares += [*w.conv1_weight.unbind(1), *w.conv2_weight.unbind(1)]
    layers = torch.stack([_fitted(m, width, width) for m in squares], dim=1)
    out = _fitted(w.out_weight, -(-s.Cout // 8) * 8).movedim(0, 1).flatten(1)
    parts = [_fitted(w.in_weight, width // 2, width), layers, _fitted(out, width, width)]
    rows = torch.cat([part.reshape(-1, width) for part in parts])
    mixing = torch.cat([w.polynomials, w.graph]).to(kind)
    if tf32:
        rows, mixing = _rounded(rows), _rounded(mixing)
    mixing, window = _mixing(mixing, narrow)

    q, k, v = w.qkv_bias.unflatten(-1, (3, s.C)).unbind(-2)
    vectors = [*w.norm1.unbind(1), by_head(k), by_head(v), by_head(q), w.proj_bias, *w.norm2.unbind(1)]
    vectors += [w.fc1_bias[:, : s.C], w.fc1_bias[:, s.C :], w.fc2_bias, w.conv1_bias, w.conv2_bias]
    layers = torch.stack([_fitted(t, width) for t in vectors], dim=1)
    vectors = torch.cat([_fitted(t, width).reshape(-1) for t in (w.in_bias, layers, w.out_bias)]).float()
    polynomials = w.polynomials.to(kind).contiguous()
    return _Packed(_operands(rows, narrow), mixing, vectors, polynomials, window, width // 8)


def denoise(x, weights, shifts, coefficients, noise, seed, first_pose, heads, keep, derived=derived):
    """See ``reference.loop``; with ``coefficients`` None, ``reference.network``. One launch."""
    s, matrices = _sizes(weights, heads), weights[2]
    p = derived(("denoise_cuda", heads, _cuda.math_of(matrices)), lambda: _packed(weights, heads), *weights)
    x, shifts, coefficients, noise = contiguous(x, shifts, coefficients, noise)
    (B, J, Cin), steps = x.shape, 1 if coefficients is None else coefficients.shape[0]
    y = x.new_empty(B, J, s.Cout)
    per_pose = shifts is not None and shifts.dim() == 4
    history = [x.new_empty((steps, *x.shape) if keep else (0,)) for _ in range(2)]
    if B:
        _cuda.launch(
            "denoise_cuda",
            matrices,
            *addresses(x, p.weights, p.mixing, p.vectors, p.polynomials, shifts, coefficients, noise, y),
            *addresses(*(history if keep else (None, None))),
            *(seed is not None, per_pose, seed or 0, first_pose, B, steps, J, s.K, s.L, Cin, s.C, s.Cout, heads),
            s.head_tiles,
            *(p.window, (s.C // heads) ** -0.5 * math.log2(math.e), p.tiles, *_cuda.limits(x)),
        )
    return y, *history
