"""The definition of ``hierarchy_block``: plain differentiable PyTorch, any device, float32 and float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph_conv import reference as graph
from ..joint_attention import reference as attention


def mixing(adjacency: Tensor, offset: Tensor) -> Tensor:
    """[2, J, J]: the symmetrised sum of the fixed and the learnt matrix, its diagonal and the rest apart."""
    matrix = adjacency + offset
    matrix = (matrix + matrix.mT) / 2
    diagonal = torch.diag_embed(matrix.diagonal())
    return torch.stack((diagonal, matrix - diagonal))


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _conv(x: Tensor, adjacency: Tensor, weight: Tensor, modulation: Tensor, offset: Tensor, bias: Tensor) -> Tensor:
    return graph.linear(x, weight, mixing(adjacency, offset), bias, modulation)


def _mlp(x: Tensor, fc1: Tensor, bias1: Tensor, fc2: Tensor, bias2: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, fc1, bias1)), fc2, bias2)


def limb_branch(u: Tensor, limbs: list[list[int]], w: list[Tensor]) -> Tensor:
    """[B, J, C]: norm(u), the outer joints of every limb replaced by one vector made of all its joints."""
    v = _norm(u, w[0], w[1])
    taps = len(limbs[0])
    read = torch.tensor([j for limb in limbs for j in limb], device=u.device)
    written = torch.tensor([j for limb in limbs for j in limb[1:]], device=u.device)
    joined = v.index_select(1, read).unflatten(1, (len(limbs), taps)).flatten(2)  # [B, limbs, taps C]
    limb = F.gelu(F.linear(joined, w[2].permute(0, 2, 1).flatten(1), w[3]))
    limb = limb + _mlp(_norm(limb, w[4], w[5]), *w[6:10])
    return v.index_copy(1, written, limb.repeat_interleave(taps - 1, dim=1))


def hierarchy_block(x: Tensor, weights: list[Tensor], joints: list[int], heads: int) -> Tensor:
    """[B, J, 3 C]; ``weights`` in the order of ``PARAMETERS``, ``joints`` [limbs, 3] flat, the body's end first."""
    w = list(weights)
    adjacency, w = w[0], w[1:]
    joint, part, body = x.chunk(3, dim=-1)
    h = F.gelu(_conv(_norm(joint, *w[0:2]), adjacency, *w[2:6]))
    joint = joint + _norm(_conv(h, adjacency, *w[6:10]), *w[10:12])
    u = part + joint
    three = [list(joints[i : i + 3]) for i in range(0, len(joints), 3)]
    part = limb_branch(u, three, w[12:22]) + limb_branch(u, [limb[1:] for limb in three], w[22:32]) + u
    t = body + part
    C = t.shape[-1]
    q, k, v = F.linear(_norm(t, *w[32:34]), *w[34:36]).unflatten(-1, (3, heads, C // heads)).unbind(-3)
    mixed = attention.joint_attention(q, k, v, None, (C // heads) ** -0.5).flatten(-2)
    body = t + F.linear(mixed, *w[36:38])
    x = torch.cat((joint, part, body), dim=-1)
    return x + _mlp(_norm(x, *w[38:40], eps=1e-6), *w[40:44])
