"""The definition of ``hierarchy_block``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..._tables import table
from ..graph_conv import graph_conv
from ..graph_conv import reference as convolution
from ..joint_attention import joint_attention
from ..joint_attention import reference as attention


class Limbs(NamedTuple):
    """Joints that are read, limb after limb; those that are written; a convolution of them as [C, taps C]."""

    read: Tensor
    written: Tensor
    weight: Tensor


class Constants(NamedTuple):
    """What follows from the weights and the limbs alone: the mixing of both convolutions, the two limb branches."""

    mixing: tuple[Tensor, Tensor]
    limbs: tuple[Limbs, Limbs]


def mixing(adjacency: Tensor, offset: Tensor) -> Tensor:
    """[2, J, J]: the symmetrised sum of the fixed and the learnt matrix, its diagonal and the rest apart."""
    matrix = adjacency + offset
    matrix = (matrix + matrix.mT) / 2
    diagonal = torch.diag_embed(matrix.diagonal())
    return torch.stack((diagonal, matrix - diagonal))


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _graph_conv(h, weight, adjacency, bias, modulation, activation: str, backend: str) -> Tensor:
    if backend == "reference":  # itself, not the public op: what a compiler traces in a backward pass checks nothing
        return convolution.graph_conv(h, weight, adjacency, bias, modulation, None, None, None, activation, False)[0]
    return graph_conv(h, weight, adjacency, bias, modulation=modulation, activation=activation, backend=backend)


def _mlp(x: Tensor, fc1: Tensor, bias1: Tensor, fc2: Tensor, bias2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, fc1, bias1)), fc2, bias2)


def _limbs(joints: list[list[int]], weight: Tensor) -> Limbs:
    """``weight``: [C, C, taps]."""
    read = table([j for limb in joints for j in limb], weight.device)
    written = table([j for limb in joints for j in limb[1:]], weight.device)
    return Limbs(read, written, weight.permute(0, 2, 1).flatten(1))


def constants(weights: list[Tensor], joints: list[int]) -> Constants:
    """``weights`` and ``joints`` as for ``hierarchy_block``."""
    adjacency, *w = weights
    three = [list(joints[i : i + 3]) for i in range(0, len(joints), 3)]
    limbs = _limbs(three, w[14]), _limbs([limb[1:] for limb in three], w[24])
    return Constants((mixing(adjacency, w[4]), mixing(adjacency, w[8])), limbs)


def limb_branch(u: Tensor, limbs: Limbs, w: list[Tensor]) -> Tensor:
    """[B, J, C]: norm(u), the outer joints of every limb replaced by one vector made of all its joints."""
    v = _norm(u, w[0], w[1])
    taps = limbs.weight.shape[1] // v.shape[2]
    joined = v.index_select(1, limbs.read).unflatten(1, (-1, taps)).flatten(2)  # [B, limbs, taps C]
    limb = F.gelu(F.linear(joined, limbs.weight, w[3]))
    limb = limb + _mlp(_norm(limb, w[4], w[5]), *w[6:10])
    return v.index_copy(1, limbs.written, limb.repeat_interleave(taps - 1, dim=1))


def hierarchy_block(
    x: Tensor,
    weights: list[Tensor],
    joints: list[int],
    heads: int,
    backend: str = "reference",
    given: Constants | None = None,
) -> Tensor:
    """[B, J, 3 C]; ``weights`` in the order of ``PARAMETERS``, ``joints`` [limbs, 3] flat, the body's end first.

    ``backend`` runs the graph convolutions and the attention; ``given``: ``constants`` where they are kept.
    """
    w = list(weights[1:])
    (first, second), (three, two) = given or constants(weights, joints)
    joint, part, body = x.chunk(3, dim=-1)
    h = _norm(joint, *w[0:2])
    h = _graph_conv(h, w[2], first, w[5], w[3], "gelu", backend)
    h = _graph_conv(h, w[6], second, w[9], w[7], "none", backend)
    joint = joint + _norm(h, *w[10:12])
    u = part + joint
    part = limb_branch(u, three, w[12:22]) + limb_branch(u, two, w[22:32]) + u
    t = body + part
    q, k, v = F.linear(_norm(t, *w[32:34]), *w[34:36]).unflatten(-1, (3, heads, -1)).unbind(-3)
    if backend == "reference":  # takes heads of any width
        mixed = attention.joint_attention(q, k, v, None, q.shape[-1] ** -0.5)
    else:
        mixed = joint_attention(q, k, v, backend=backend)
    body = t + F.linear(mixed.flatten(-2), *w[36:38])
    x = torch.cat((joint, part, body), dim=-1)
    return x + _mlp(_norm(x, *w[38:40], eps=1e-6), *w[40:44])


def by_block(weights: list[Tensor], blocks: int) -> list[list[Tensor]]:
    """The weights of ``blocks`` blocks, one after the other -> those of each."""
    each = len(weights) // blocks
    return [weights[i : i + each] for i in range(0, len(weights), each)]


def hierarchy_network(
    x: Tensor,
    weights: list[Tensor],
    joints: list[int],
    heads: int,
    ends: list[Tensor],
    blocks: int,
    block: Callable[..., Tensor] = hierarchy_block,
) -> Tensor:
    """[B, J, in] -> [B, J, out]: a linear layer and a position per joint, the blocks, a norm and a linear layer.

    ``ends``: embed weight [3 C, in], embed bias, position [J, 3 C] or [1, J, 3 C], norm gain and shift, head
    weight [out, 3 C], head bias. ``block`` runs one.
    """
    embed, bias, position, gain, shift, head, head_bias = ends
    x = F.linear(x, embed, bias) + position
    for own in by_block(weights, blocks):
        x = block(x, own, joints, heads)
    return F.linear(_norm(x, gain, shift, eps=1e-6), head, head_bias)
