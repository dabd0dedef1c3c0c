"""The C++ kernel of ``hierarchy_block``: ``csrc/hierarchy_block/hierarchy_block_cpu.cpp``."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ... import _native
from ..._derived import derived
from ..._dispatch import not_on
from ..._packing import packed
from .reference import mixing


def missing() -> str | None:
    return _native.no_cpu("hierarchy_block")


def refuses(x, weights, joints, heads) -> str | None:
    """Why the kernel cannot take these, or None."""
    if x.dtype not in (torch.float32, torch.bfloat16):
        return f"needs float32 or bfloat16, got {x.dtype}"
    return not_on("cpu", x, weights[0])


def _taps_first(weight: Tensor) -> Tensor:
    """[taps Cin, Cout] of a convolution's [Cout, Cin, taps]."""
    return weight.permute(2, 1, 0).flatten(0, 1)


def _constants(weights: list[Tensor]) -> Tensor:
    """Everything but the matrices, one after the other as the kernel reads it; float32."""
    adjacency, *w = (t.detach().float() for t in weights)

    def conv(_weight, modulation, offset, bias):
        diagonal, others = mixing(adjacency, offset)
        return diagonal.diagonal()[:, None] * modulation, modulation, others, bias

    def branch(norm_w, norm_b, _conv, bias, mlp_w, mlp_b, _fc1, bias1, _fc2, bias2):
        return norm_w, norm_b, bias, mlp_w, mlp_b, bias1, bias2

    parts = (*w[0:2], *conv(*w[2:6]), *conv(*w[6:10]), *w[10:12], *branch(*w[12:22]), *branch(*w[22:32]))
    parts += (w[32], w[33], w[35], w[37], w[38], w[39], w[41], w[43])
    return torch.cat([t.reshape(-1) for t in parts])


@functools.lru_cache
def _joints(joints: tuple[int, ...]) -> Tensor:
    """[limbs, 3], then the outer two of each limb."""
    three = torch.tensor(joints).view(-1, 3)
    return torch.cat((three.flatten(), three[:, 1:].flatten()))


def _prepare(weights: list[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The constants and the twelve packed matrices."""
    w = weights[1:]
    plain = {"dtype": dtype}
    linear = plain | {"transposed": True}
    convolution = plain | {"arrange": _taps_first}
    matrices = ((2, plain), (6, plain), (14, convolution), (18, linear), (20, linear), (24, convolution))
    matrices += ((28, linear), (30, linear), (34, linear), (36, linear), (40, linear), (42, linear))
    return _constants(weights), *(packed(w[i], **how) for i, how in matrices)


def hierarchy_block(x, weights, joints, heads):
    """See ``reference.hierarchy_block``."""
    x = x.contiguous()
    y = torch.empty_like(x)
    ready = derived(("hierarchy_block", x.dtype), lambda: _prepare(weights, x.dtype), *weights)
    limbs = _joints(tuple(joints))
    _native.core.hierarchy_block(
        torch.get_num_threads(),
        x.data_ptr(),
        y.data_ptr(),
        x.shape[0],
        x.shape[1],
        x.shape[2] // 3,
        weights[3].shape[2],
        weights[-4].shape[0],
        heads,
        len(joints) // 3,
        limbs.data_ptr(),
        *(t.data_ptr() for t in ready),
        1e-5,
        1e-6,
        x.dtype is torch.bfloat16,
    )
    return y
