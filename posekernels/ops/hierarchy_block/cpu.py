"""The C++ kernel of both ops: ``csrc/hierarchy_block/hierarchy_block_cpu.cpp``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import _native
from ..._adapters import address, addresses
from ..._packing import pack
from ...prepared import derived
from .._cpu import not_float32
from .reference import by_block, mixing


def refuses(x, weights, *_rest) -> str | None:
    """Why the kernel cannot take these, or None."""
    return not_float32(x, weights[0], or_bfloat16=True)


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


def _matrices(weights: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The twelve of a block, packed, in the kernel's order."""
    w = [t.detach() for t in weights[1:]]
    order = (2, 6, 14, 18, 20, 24, 28, 30, 34, 36, 40, 42)
    convolutions = {2: w[2], 6: w[6], 14: _taps_first(w[14]), 24: _taps_first(w[24])}  # the others: of nn.Linear
    return [pack(convolutions.get(i, w[i]), i not in convolutions, dtype).view(-1) for i in order]


class Prepared:
    """What the kernel takes beside x and y, made once per state of the weights.

    Args:
        blocks: of each block its weights, as for ``reference.hierarchy_block``.
        joints, heads: as there.
        ends: as for ``reference.hierarchy_network``; () for blocks alone.
    """

    def __init__(self, blocks: Sequence[list[Tensor]], joints: Sequence[int], heads: int, ends: Sequence[Tensor] = ()):
        first = blocks[0]
        dtype = first[0].dtype
        constants = [_constants(weights) for weights in blocks]
        self.out = 3 * len(first[1])
        if ends:
            embed, bias, position, gain, shift, head, head_bias = (t.detach().float() for t in ends)
            constants = [t.reshape(-1) for t in (embed.T, position + bias, gain, shift, head, head_bias)] + constants
            self.out = len(head)
        self.constants = torch.cat(constants)
        panels = [panel for weights in blocks for panel in _matrices(weights, dtype)]
        self.panels = panels[0].new_empty(sum(map(len, panels)))
        place = address(self.panels)
        _native.core.advise_large_pages(1, place, self.panels.numel() * self.panels.element_size())
        torch.cat(panels, out=self.panels)
        three = torch.tensor(joints, device="cpu").view(-1, 3)
        self.limbs = torch.cat((three.flatten(), three[:, 1:].flatten()))
        sizes = (len(first[1]), first[3].shape[2], first[-4].shape[0], heads, len(three))
        around = (ends[0].shape[1], self.out) if ends else (0, 0)
        made = (address(self.constants), place, 1e-5, 1e-6, dtype is torch.bfloat16)
        self.arguments = (*sizes, address(self.limbs), len(blocks), *around, *made)

    def __call__(self, x: Tensor) -> Tensor:
        """[B, J, in] -> [B, J, out]."""
        x = x.contiguous()
        B, J, _ = x.shape
        y = x.new_empty(B, J, self.out)
        _native.core.hierarchy_network(torch.get_num_threads(), *addresses(x, y), B, J, *self.arguments)
        return y


def hierarchy_block(x, weights, joints, heads):
    """See ``reference.hierarchy_block``."""
    key = ("hierarchy_block", tuple(joints), heads)
    return derived(key, lambda: Prepared([weights], joints, heads), *weights)(x)


def hierarchy_network(x, weights, joints, heads, ends, blocks, derived=derived):
    """See ``reference.hierarchy_network``."""
    key = ("hierarchy_network", tuple(joints), heads)
    return derived(key, lambda: Prepared(by_block(weights, blocks), joints, heads, ends), *ends, *weights)(x)
