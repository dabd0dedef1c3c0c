"""``hierarchy_block`` in Triton: every norm, sum and activation is in a kernel; PyTorch gathers limbs and projects.

Of the three levels of a row, [joint | part | body], each is written into its place as soon as it is known; the kernel
that writes it makes the sums and norms that follow. Products with an activation or a residual run on ``graph_conv``'s.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import Compilation, compilation, launch_on, layer_norm_rows, load_rows, row_plan, store_rows
from ...prepared import derived
from ..annotated_norm.triton import layer_norm, layer_norm_compilations
from ..graph_conv import triton as graph_conv
from ..joint_attention import triton as attention
from . import reference


@triton.jit
def _joint_kernel(
    h_ptr,  # [N, C] after both convolutions
    x_ptr,  # [N, 3 C]
    norm_weight_ptr, norm_bias_ptr, three_weight_ptr, three_bias_ptr, two_weight_ptr, two_bias_ptr,  # [C]
    out_ptr,  # [N, 3 C]: joint' = joint + norm(h)
    u_ptr,  # [N, C]: joint' + part
    three_ptr,  # [N, C]: norms of u, for both limb branches
    two_ptr,
    N, C, eps,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of rows,)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.arange(0, BLOCK_C)
    h = load_rows(h_ptr, C, row, N, column, C)
    joint = load_rows(x_ptr, 3 * C, row, N, column, C)
    joint += layer_norm_rows(h, norm_weight_ptr, norm_bias_ptr, column, C, eps)
    store_rows(out_ptr, 3 * C, joint, row, N, column, C)
    u = joint + load_rows(x_ptr + C, 3 * C, row, N, column, C)
    store_rows(u_ptr, C, u, row, N, column, C)
    store_rows(three_ptr, C, layer_norm_rows(u, three_weight_ptr, three_bias_ptr, column, C, eps), row, N, column, C)
    store_rows(two_ptr, C, layer_norm_rows(u, two_weight_ptr, two_bias_ptr, column, C, eps), row, N, column, C)


@triton.jit
def _branch(normed_ptr, limb_ptr, limb_of_ptr, row, N, column, C, J, limbs):
    """[len(row), len(column)] float32: the norm of u, a limb's vector in place of its outer joints."""
    limb = tl.load(limb_of_ptr + row % J)
    there = (row < N)[:, None] & (column < C)[None, :]
    outer = (limb >= 0)[:, None]
    own = tl.load((normed_ptr + row * C)[:, None] + column[None, :], mask=there & (limb < 0)[:, None], other=0.0)
    at = (limb_ptr + (row // J * limbs + limb) * C)[:, None] + column[None, :]
    return own.to(tl.float32) + tl.load(at, mask=there & outer, other=0.0).to(tl.float32)


@triton.jit
def _part_kernel(
    x_ptr,  # [N, 3 C]
    u_ptr,  # [N, C]
    three_ptr, two_ptr,  # [N, C] norms of u
    three_limb_ptr, two_limb_ptr,  # [B, limbs, C]
    three_of_ptr, two_of_ptr,  # [J] int32: the limb whose vector a joint takes, or -1
    weight_ptr, bias_ptr,  # [C]
    out_ptr,  # [N, 3 C]: part' = three(u) + two(u) + u
    t_ptr,  # [N, C]: body + part'
    normed_ptr,  # [N, C]: norm(t)
    N, C, J, limbs, eps,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of rows,)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.arange(0, BLOCK_C)
    part = load_rows(u_ptr, C, row, N, column, C)
    part += _branch(three_ptr, three_limb_ptr, three_of_ptr, row, N, column, C, J, limbs)
    part += _branch(two_ptr, two_limb_ptr, two_of_ptr, row, N, column, C, J, limbs)
    store_rows(out_ptr + C, 3 * C, part, row, N, column, C)
    t = part + load_rows(x_ptr + 2 * C, 3 * C, row, N, column, C)
    store_rows(t_ptr, C, t, row, N, column, C)
    store_rows(normed_ptr, C, layer_norm_rows(t, weight_ptr, bias_ptr, column, C, eps), row, N, column, C)


@triton.jit
def _body_kernel(
    t_ptr,  # [N, C]
    mixed_ptr,  # [N, C], projected
    weight_ptr, bias_ptr,  # [3 C]
    out_ptr,  # [N, 3 C]: joint' and part' are there, body' = t + mixed comes
    normed_ptr,  # [N, 3 C]: norm of the whole row
    N, C, eps,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # grid (blocks of rows,)
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.arange(0, BLOCK_C)
    of_body = (row < N)[:, None] & ((column >= 2 * C) & (column < 3 * C))[None, :]
    at = (row * C)[:, None] + (column - 2 * C)[None, :]
    body = tl.load(t_ptr + at, mask=of_body, other=0.0).to(tl.float32)
    body += tl.load(mixed_ptr + at, mask=of_body, other=0.0).to(tl.float32)
    tl.store((out_ptr + row * 3 * C)[:, None] + column[None, :], body, mask=of_body)
    total = body + load_rows(out_ptr, 3 * C, row, N, column, 2 * C)
    store_rows(
        normed_ptr, 3 * C, layer_norm_rows(total, weight_ptr, bias_ptr, column, 3 * C, eps), row, N, column, 3 * C
    )


class _Kept(NamedTuple):
    """What follows from the weights and the limbs alone. Weights are [in, out], as ``graph_conv.linear`` takes them."""

    mixing: tuple[Tensor, Tensor]
    read: tuple[Tensor, Tensor]  # of the three- and the two-joint branch
    limb_of: tuple[Tensor, Tensor]
    limb_layers: tuple[list[Tensor], list[Tensor]]
    mlp: list[Tensor]


def _keep(weights: list[Tensor], joints: list[int], J: int) -> _Kept:
    given, w = reference.constants(weights, joints), weights[1:]

    def turned(*matrices: Tensor) -> list[Tensor]:
        return [m.t().contiguous() for m in matrices]

    tables = []
    for limbs, taps in zip(given.limbs, (3, 2)):
        of = torch.full((J,), -1, dtype=torch.int32, device=w[0].device)
        of[limbs.written] = torch.arange(
            len(limbs.read) // taps, dtype=torch.int32, device=of.device
        ).repeat_interleave(taps - 1)
        tables.append(of)
    layers = tuple(turned(limbs.weight, w[i + 6], w[i + 8]) for limbs, i in zip(given.limbs, (12, 22)))
    return _Kept(given.mixing, tuple(limbs.read for limbs in given.limbs), tuple(tables), layers, turned(w[40], w[42]))


def _limb_vectors(normed: Tensor, read: Tensor, layers: list[Tensor], w: list[Tensor]) -> Tensor:
    """[B, J, C] -> [B limbs, C]: one vector of all of a limb's joints; ``w`` as for ``reference.limb_branch``."""
    joined = normed.index_select(1, read).view(-1, layers[0].shape[0])
    limb = graph_conv.linear(joined, layers[0], w[3], activation="gelu")
    h, _ = layer_norm(limb, w[4], w[5], 1e-5)
    h = graph_conv.linear(h, layers[1], w[7], activation="gelu")
    return graph_conv.linear(h, layers[2], w[9], limb)


def hierarchy_block(x, weights, joints, heads) -> Tensor:
    """As ``reference.hierarchy_block``."""
    (B, J, channels), w = x.shape, [t.contiguous() for t in weights[1:]]
    x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        return out
    N, C, limbs = B * J, channels // 3, len(joints) // 3
    kept = derived(("hierarchy_block in Triton", tuple(joints)), lambda: _keep(weights, joints, J), *weights)
    u, t, h_body = (x.new_empty(N, C) for _ in range(3))
    three, two = (x.new_empty(B, J, C) for _ in range(2))
    narrow, wide = row_plan(C), row_plan(channels)
    grid = (triton.cdiv(N, narrow["BLOCK_R"]),)

    h, _ = layer_norm(x.view(N, channels)[:, :C], w[0], w[1], 1e-5)
    h, _ = graph_conv.graph_conv(h.view(B, J, C), w[2], kept.mixing[0], w[5], w[3], None, None, None, "gelu", False)
    h, _ = graph_conv.graph_conv(h, w[6], kept.mixing[1], w[9], w[7], None, None, None, "none", False)
    with launch_on(x):
        _joint_kernel[grid](h, x, *w[10:14], *w[22:24], out, u, three, two, N, C, 1e-5, **narrow)
    vectors = (
        _limb_vectors(normed, read, layers, w[i : i + 10])
        for normed, read, layers, i in zip((three, two), kept.read, kept.limb_layers, (12, 22))
    )
    with launch_on(x):
        _part_kernel[grid](
            x, u, three, two, *vectors, *kept.limb_of, *w[32:34], out, t, h_body, N, C, J, limbs, 1e-5, **narrow
        )
    q, k, v = F.linear(h_body, *w[34:36]).view(B, J, 3, heads, C // heads).unbind(2)
    mixed = attention.joint_attention(q, k, v, None, (C // heads) ** -0.5).view(N, C)
    mixed, h = F.linear(mixed, *w[36:38]), torch.empty_like(x).view(N, channels)
    with launch_on(x):
        _body_kernel[(triton.cdiv(N, wide["BLOCK_R"]),)](t, mixed, *w[38:40], out, h, N, C, 1e-6, **wide)
    h = graph_conv.linear(h, kept.mlp[0], w[41], activation="gelu")
    return graph_conv.linear(h, kept.mlp[1], w[43], out.view(N, channels)).view(x.shape)


def hierarchy_network(*args) -> Tensor:
    """As ``reference.hierarchy_network``."""
    return reference.hierarchy_network(*args, hierarchy_block)


def _compilations(C: int = 80, hidden: int = 1024) -> list[Compilation]:
    """Every kernel at the published size."""
    found = layer_norm_compilations("hierarchy_block", C, sums=False)
    types = dict.fromkeys(("three_of_ptr", "two_of_ptr"), "*i32:16") | {"C": "i32:16", "eps": "fp32"}
    for dtype in (torch.float32, torch.bfloat16):
        for name, kernel in (("joint", _joint_kernel), ("part", _part_kernel), ("body", _body_kernel)):
            plan = row_plan(3 * C if name == "body" else C)
            label = f"hierarchy_block/{name}"
            found.append(compilation(label, kernel, dtype, plan, types, matrix_units=False))
    found += graph_conv.linear_compilations("hierarchy_block", 3 * C, hidden, "gelu", False)
    return found + graph_conv.linear_compilations("hierarchy_block", hidden, 3 * C, "none", True)


AOT = _compilations()
