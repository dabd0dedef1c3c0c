"""``hierarchy_block`` in Triton: five launches, the last two of which are the MLP on ``graph_conv``'s kernel.

``graph``: norm and both graph convolutions, the hidden channels shared among programs; ``limbs``: both limb branches,
their hidden channels shared likewise; ``body``: all that happens in a pose, attention included. Parts of a sum over
hidden channels are added by who reads them, in order: no atomics, same inputs same bits. What a row's joint level
comes to, ``limbs`` and ``body`` find again from those parts, which is cheaper than a launch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import (
    PRECISIONS,
    Compilation,
    activate,
    add_pieces,
    block_diagonal,
    compilation,
    dot_precision,
    launch_on,
    load_rows,
    load_tile,
    mix_joints,
    power_of_2,
    round_pieces,
    row_vector,
    splits,
    store_rows,
)
from ...prepared import derived
from ..graph_conv import triton as graph_conv
from . import reference

_HIDDEN = {"graph": 64, "limbs": 128}  # channels that make a program worth its while
# Bytes of a thread where float32 is three TF32 products: operands of the matrix units are there twice. Else none.
_SPILLS = {"graph": 216, "limbs": 32, "body": 56}


@triton.jit
def _columns(C: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr):
    """Channels in pieces, the first LO wide, the others HI: 80 are 64 and 16, not 128. What follows has pieces too."""
    column = (tl.arange(0, LO),)
    for i in tl.static_range((C - LO + HI - 1) // HI):
        column = column + (LO + i * HI + tl.arange(0, HI),)
    return column


@triton.jit
def _zeros(M: tl.constexpr, column):
    y = ()
    for i in tl.static_range(len(column)):
        y = y + (tl.zeros((M, column[i].shape[0]), tl.float32),)
    return y


@triton.jit
def _rows(ptr, stride, row, N, column, C):
    """[len(row), len(piece)] float32 of each piece; 0 outside."""
    y = ()
    for i in tl.static_range(len(column)):
        y = y + (load_rows(ptr, stride, row, N, column[i], C),)
    return y


@triton.jit
def _put(ptr, stride, x, row, N, column, C):
    """Writes what ``_rows`` reads."""
    for i in tl.static_range(len(column)):
        store_rows(ptr, stride, x[i], row, N, column[i], C)


@triton.jit
def _vector(ptr, column, C):
    y = ()
    for i in tl.static_range(len(column)):
        y = y + (row_vector(ptr, column[i], C),)
    return y


@triton.jit
def _where(there, x):
    """x, and 0 elsewhere."""
    y = ()
    for i in tl.static_range(len(x)):
        y = y + (tl.where(there, x[i], 0.0),)
    return y


@triton.jit
def _gelu(x):
    y = ()
    for i in tl.static_range(len(x)):
        y = y + (activate(x[i], "gelu"),)
    return y


@triton.jit
def _scaled(x, weight_ptr, bias_ptr, mean, inverse, column, C):
    """(x - mean) * inverse * weight + bias, for [len(row)] mean and inverse."""
    y = ()
    for i in tl.static_range(len(x)):
        weight, bias = row_vector(weight_ptr, column[i], C), row_vector(bias_ptr, column[i], C)
        y = y + ((x[i] - mean[:, None]) * inverse[:, None] * weight + bias,)
    return y


@triton.jit
def _total(x):
    """[len(row)]"""
    total = tl.sum(x[0], 1)
    for i in tl.static_range(1, len(x)):
        total += tl.sum(x[i], 1)
    return total


@triton.jit
def _squares(x, mean, column, C):
    """[len(row)]: the sum of squared distances from the mean."""
    total = tl.zeros_like(mean)
    for i in tl.static_range(len(x)):
        apart = tl.where((column[i] < C)[None, :], x[i] - mean[:, None], 0.0)
        total += tl.sum(apart * apart, 1)
    return total


@triton.jit
def _norm(x, weight_ptr, bias_ptr, column, C, eps):
    """PyTorch's layer norm."""
    mean = _total(x) / C
    return _scaled(x, weight_ptr, bias_ptr, mean, 1.0 / tl.sqrt(_squares(x, mean, column, C) / C + eps), column, C)


@triton.jit
def _from(x, weight_ptr, column, C, hidden, H, PRECISION: tl.constexpr):
    """[len(row), len(hidden)]: pieces times [C, H]."""
    y = tl.zeros((x[0].shape[0], hidden.shape[0]), tl.float32)
    for i in tl.static_range(len(x)):
        y = tl.dot(x[i], load_tile(weight_ptr, H, column[i], C, hidden, H), y, input_precision=PRECISION)
    return y


@triton.jit
def _into(y, h, weight_ptr, hidden, H, column, C, PRECISION: tl.constexpr):
    """The pieces y + h times [H, C]."""
    z = ()
    for i in tl.static_range(len(y)):
        z = z + (tl.dot(h, load_tile(weight_ptr, C, hidden, H, column[i], C), y[i], input_precision=PRECISION),)
    return z


@triton.jit
def _graph_kernel(
    x_ptr,  # [N, 3 C]
    norm_weight_ptr, norm_bias_ptr,  # [C]
    weight1_ptr,  # [2, C, G]
    modulation1_ptr,  # [J, G]
    mixing1_ptr,  # [2, J, J]: a diagonal matrix, and one with a diagonal of zeros
    bias1_ptr,  # [G]
    weight2_ptr,  # [2, G, C]
    modulation2_ptr,  # [J, C]
    mixing2_ptr,  # [2, J, J]
    graph_ptr,  # [parts, N, C] float32: of G2(gelu(G1(norm(joint)))), without its bias
    N, G, blocks, eps,
    J: tl.constexpr, C: tl.constexpr,
    BLOCK_M: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, BLOCK_G: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # grid (tiles of whole poses, parts of G): each part has `blocks` blocks of BLOCK_G
    place = tl.arange(0, BLOCK_M)
    joint, whole = place % J, place // J < BLOCK_M // J
    row = tl.where(whole, tl.program_id(0).to(tl.int64) * (BLOCK_M // J * J) + place, N)
    column = _columns(C, LO, HI)
    dtype = x_ptr.dtype.element_ty
    x = _rows(x_ptr, 3 * C, row, N, column, C)
    mean = _total(x) / C
    inverse = 1.0 / tl.sqrt(_squares(x, mean, column, C) / C + eps)
    x = round_pieces(_scaled(x, norm_weight_ptr, norm_bias_ptr, mean, inverse, column, C), dtype)
    itself = tl.load(mixing1_ptr + joint * (J + 1)).to(tl.float32)[:, None]
    matrix, diagonal, dense = block_diagonal(mixing1_ptr + J * J, J, BLOCK_M, False)
    own, others = _zeros(BLOCK_M, column), _zeros(BLOCK_M, column)
    for block in tl.range(0, blocks, disable_licm=True):
        hidden = (tl.program_id(1) * blocks + block) * BLOCK_G + tl.arange(0, BLOCK_G)
        modulation = load_tile(modulation1_ptr, G, joint, J, hidden, G).to(tl.float32)
        if PRECISION == "tf32x3":  # its parts would fill the registers: read again, from where no compiler can know
            x = _rows(x_ptr + block // blocks, 3 * C, row, N, column, C)
            x = _scaled(x, norm_weight_ptr, norm_bias_ptr, mean, inverse, column, C)
        h = _from(x, weight1_ptr, column, C, hidden, G, PRECISION) * (modulation * itself)
        mixed = _from(x, weight1_ptr + C * G, column, C, hidden, G, PRECISION) * modulation
        h = mix_joints(h, matrix, diagonal, dense, mixed, J, BLOCK_M, PRECISION) + row_vector(bias1_ptr, hidden, G)
        h = activate(h, "gelu").to(dtype)
        own = _into(own, h, weight2_ptr, hidden, G, column, C, PRECISION)
        others = _into(others, h, weight2_ptr + G * C, hidden, G, column, C, PRECISION)
    itself = tl.load(mixing2_ptr + joint * (J + 1)).to(tl.float32)[:, None]
    matrix, diagonal, dense = block_diagonal(mixing2_ptr + J * J, J, BLOCK_M, False)
    graph_ptr += tl.program_id(1).to(tl.int64) * N * C
    for i in tl.static_range(len(column)):
        modulation = load_tile(modulation2_ptr, C, joint, J, column[i], C).to(tl.float32)
        y = mix_joints(
            own[i] * (modulation * itself), matrix, diagonal, dense, others[i] * modulation, J, BLOCK_M, PRECISION
        )
        store_rows(graph_ptr, C, y, row, N, column[i], C)


@triton.jit
def _parts(y, ptr, row, there, column, C, parts, apart):
    """The pieces y + rows of ``parts`` float32 matrices, ``apart`` rows from one to the next; ``row`` is int64."""
    for part in tl.range(0, parts, disable_licm=True):
        z = ()
        for i in tl.static_range(len(y)):
            mask = there[:, None] & (column[i] < C)[None, :]
            at = (ptr + (row + part * apart) * C)[:, None] + column[i][None, :]
            z = z + (y[i] + tl.load(at, mask=mask, other=0.0),)
        y = z
    return y


@triton.jit
def _joint(x_ptr, graph_ptr, bias_ptr, weight_ptr, shift_ptr, row, N, column, C, parts, eps):
    """joint' = joint + norm(h) of rows [len(row)] int64: h is the sum of ``graph_ptr``'s parts and a bias."""
    h = add_pieces(_zeros(row.shape[0], column), _vector(bias_ptr, column, C))
    h = _norm(_parts(h, graph_ptr, row, row < N, column, C, parts, N), weight_ptr, shift_ptr, column, C, eps)
    return add_pieces(_rows(x_ptr, 3 * C, row, N, column, C), h)


@triton.jit
def _limbs_kernel(
    x_ptr,  # [N, 3 C]
    graph_ptr,  # [graph parts, N, C] float32
    graph_bias_ptr, norm_out_weight_ptr, norm_out_bias_ptr,  # [C]
    read_ptr,  # [limbs, 3] int32: joints, of which branch 1 takes the last two
    norm_weight_ptr, norm_bias_ptr,  # [2, C], of both branches, as all that follows
    conv_weight_ptr,  # [2, 3, C, C]: of every joint of a limb
    conv_bias_ptr, norm_mlp_weight_ptr, norm_mlp_bias_ptr,  # [2, C]
    fc1_weight_ptr,  # [2, C, H]
    fc1_bias_ptr,  # [2, H]
    fc2_weight_ptr,  # [2, H, C]
    fc2_bias_ptr,  # [2, C]
    limbs_ptr,  # [parts, 2, B limbs, C] float32: of limb + mlp(norm(limb))
    rows,  # B limbs
    N, H, limbs, graph_parts, blocks, eps,
    J: tl.constexpr, C: tl.constexpr,
    BLOCK_R: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, BLOCK_H: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # grid (blocks of limbs, parts of H, branches): each part has `blocks` blocks of BLOCK_H; the limb, all find
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = _columns(C, LO, HI)
    part, branch = tl.program_id(1), tl.program_id(2)
    own = branch * C
    dtype = x_ptr.dtype.element_ty
    limb = _zeros(BLOCK_R, column)
    for tap in tl.range(branch, 3, disable_licm=True):
        at = tl.where(row < rows, row // limbs * J + tl.load(read_ptr + row % limbs * 3 + tap), N)
        u = _joint(
            x_ptr, graph_ptr, graph_bias_ptr, norm_out_weight_ptr, norm_out_bias_ptr, at, N, column, C, graph_parts, eps
        )
        u = add_pieces(u, _rows(x_ptr + C, 3 * C, at, N, column, C))
        u = _norm(u, norm_weight_ptr + own, norm_bias_ptr + own, column, C, eps)
        for i in tl.static_range(len(column)):
            weight_ptr = conv_weight_ptr + (branch * 3 + tap) * C * C
            limb = _into(limb, u[i].to(dtype), weight_ptr, column[i], C, column, C, PRECISION)
    limb = _gelu(add_pieces(limb, _vector(conv_bias_ptr + own, column, C)))
    h = _norm(limb, norm_mlp_weight_ptr + own, norm_mlp_bias_ptr + own, column, C, eps)
    h = round_pieces(h, dtype)
    y = _where(part == 0, add_pieces(limb, _vector(fc2_bias_ptr + own, column, C)))
    for block in tl.range(0, blocks, disable_licm=True):
        hidden = (part * blocks + block) * BLOCK_H + tl.arange(0, BLOCK_H)
        g = _from(h, fc1_weight_ptr + own * H, column, C, hidden, H, PRECISION)
        g = activate(g + row_vector(fc1_bias_ptr + branch * H, hidden, H), "gelu").to(dtype)
        y = _into(y, g, fc2_weight_ptr + own * H, hidden, H, column, C, PRECISION)
    _put(limbs_ptr + (part * 2 + branch).to(tl.int64) * rows * C, C, y, row, rows, column, C)


@triton.jit
def _branch(u, limbs_ptr, of_ptr, weight_ptr, bias_ptr, branch, pose, joint, J, rows, column, C, limbs, parts, eps):
    """The norm of u, a limb's vector in place of its outer joints."""
    limb = tl.load(of_ptr + branch * J + joint, mask=joint < J, other=-1)
    outer = limb >= 0
    own = _norm(u, weight_ptr + branch * C, bias_ptr + branch * C, column, C, eps)
    return _parts(
        _where(~outer[:, None], own), limbs_ptr, branch * rows + pose * limbs + limb, outer, column, C, parts, 2 * rows
    )


@triton.jit
def _projected(h, weight_ptr, bias_ptr, first, dim, D, column, C, PRECISION: tl.constexpr):
    """[len(row), len(dim)] of the dtype of h: a head's queries, keys or values; ``weight_ptr`` [3 C, C]."""
    found = tl.zeros((h[0].shape[0], dim.shape[0]), tl.float32)
    for i in tl.static_range(len(h)):
        weight = load_tile(weight_ptr + first * C, C, dim, D, column[i], C)
        found = tl.dot(h[i], tl.trans(weight), found, input_precision=PRECISION)
    return (found + row_vector(bias_ptr + first, dim, D)).to(h[0].dtype)


@triton.jit
def _body_kernel(
    x_ptr,  # [N, 3 C]
    graph_ptr,  # [graph parts, N, C] float32
    graph_bias_ptr, norm_out_weight_ptr, norm_out_bias_ptr,  # [C]
    limbs_ptr,  # [limb parts, 2, B limbs, C] float32
    of_ptr,  # [2, J] int32: the limb whose vector a joint takes in a branch, or -1
    branch_weight_ptr, branch_bias_ptr,  # [2, C] norms of u
    body_weight_ptr, body_bias_ptr,  # [C] norm of t
    qkv_weight_ptr,  # [3 C, C]
    qkv_bias_ptr,  # [3 C]
    proj_weight_ptr,  # [C, C], turned
    proj_bias_ptr,  # [C]
    weight_ptr, bias_ptr,  # [3 C] norm of the whole row
    out_ptr,  # [N, 3 C]: joint', part' = three(u) + two(u) + u, body' = t + mixed, for t = body + part'
    normed_ptr,  # [N, 3 C]: norm of the whole row
    rows,  # B limbs
    N, heads, limbs, graph_parts, limb_parts, scale, eps, row_eps,
    J: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    BLOCK_J: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # grid (poses,): a NaN stays in its own
    pose, place = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK_J)
    row = tl.where(place < J, pose * J + place, N)
    column = _columns(C, LO, HI)
    joint = _joint(
        x_ptr, graph_ptr, graph_bias_ptr, norm_out_weight_ptr, norm_out_bias_ptr, row, N, column, C, graph_parts, eps
    )
    _put(out_ptr, 3 * C, joint, row, N, column, C)
    u = add_pieces(joint, _rows(x_ptr + C, 3 * C, row, N, column, C))
    part = u
    for branch in tl.static_range(2):
        part = add_pieces(part, _branch(
            u, limbs_ptr, of_ptr, branch_weight_ptr, branch_bias_ptr, branch, pose, place, J, rows, column, C, limbs,
            limb_parts, eps,
        ))  # fmt: skip
    _put(out_ptr + C, 3 * C, part, row, N, column, C)
    body = add_pieces(part, _rows(x_ptr + 2 * C, 3 * C, row, N, column, C))
    h = _norm(body, body_weight_ptr, body_bias_ptr, column, C, eps)
    dtype = x_ptr.dtype.element_ty
    h = round_pieces(h, dtype)
    body = add_pieces(body, _vector(proj_bias_ptr, column, C))
    dim = tl.arange(0, BLOCK_D)
    for head in tl.range(0, heads, disable_licm=True):
        q = _projected(h, qkv_weight_ptr, qkv_bias_ptr, head * D, dim, D, column, C, PRECISION)
        k = _projected(h, qkv_weight_ptr, qkv_bias_ptr, C + head * D, dim, D, column, C, PRECISION)
        v = _projected(h, qkv_weight_ptr, qkv_bias_ptr, 2 * C + head * D, dim, D, column, C, PRECISION)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where((place < J)[None, :], scores, float("-inf"))
        weights = tl.exp(scores - tl.max(scores, 1)[:, None])
        mixed = tl.dot(weights.to(dtype), v, input_precision=PRECISION) / tl.sum(weights, 1)[:, None]
        body = _into(body, mixed.to(dtype), proj_weight_ptr + head * D * C, dim, D, column, C, PRECISION)
    _put(out_ptr + 2 * C, 3 * C, body, row, N, column, C)
    tl.debug_barrier()  # joint' and part' are read again: kept through the attention, registers would not be enough
    mean, squares = tl.zeros((BLOCK_J,), tl.float32), tl.zeros((BLOCK_J,), tl.float32)
    for level in tl.range(0, 3, disable_licm=True):
        mean += _total(_rows(out_ptr + level * C, 3 * C, row, N, column, C))
    mean = mean / (3 * C)
    for level in tl.range(0, 3, disable_licm=True):
        squares += _squares(_rows(out_ptr + level * C, 3 * C, row, N, column, C), mean, column, C)
    inverse = 1.0 / tl.sqrt(squares / (3 * C) + row_eps)
    for level in tl.range(0, 3, disable_licm=True):
        own = level * C
        y = _scaled(
            _rows(out_ptr + own, 3 * C, row, N, column, C), weight_ptr + own, bias_ptr + own, mean, inverse, column, C
        )
        _put(normed_ptr + own, 3 * C, y, row, N, column, C)


class _Kept(NamedTuple):
    """What follows from the weights and the limbs alone. Matrices are [in, out]."""

    mixing: tuple[Tensor, Tensor]
    read: Tensor  # [limbs, 3] int32
    limb_of: Tensor  # [2, J] int32, of the three- and the two-joint branch, as what follows
    norm: list[Tensor]  # [2, C] each
    limb: list[Tensor]  # from the convolution's weight [2, 3, C, C] on, as ``_limbs_kernel`` takes them
    proj: Tensor
    mlp: list[Tensor]


def _keep(weights: list[Tensor], joints: list[int], J: int) -> _Kept:
    given, w = reference.constants(weights, joints), weights[1:]
    three, two = w[12:22], w[22:32]
    C, device = w[0].shape[0], w[0].device
    limb_of = torch.full((2, J), -1, dtype=torch.int32, device=device)
    for of, limbs, taps in zip(limb_of, given.limbs, (3, 2)):
        own = torch.arange(len(limbs.read) // taps, dtype=torch.int32, device=device)
        of[limbs.written] = own.repeat_interleave(taps - 1)
    conv = w[0].new_zeros(2, 3, C, C)
    conv[0], conv[1, 1:] = three[2].permute(2, 1, 0), two[2].permute(2, 1, 0)
    limb = [torch.stack((a.t(), b.t()) if a.dim() == 2 else (a, b)) for a, b in zip(three[3:], two[3:])]
    return _Kept(
        given.mixing,
        given.limbs[0].read.int(),
        limb_of,
        [torch.stack((three[i], two[i])) for i in (0, 1)],
        [conv, *limb],
        w[36].t().contiguous(),
        [w[i].t().contiguous() for i in (40, 42)],
    )


def _plan(kernel: str, precision: str, C: int, rows: int, J: int, D: int) -> dict[str, int]:
    """Tile sizes and warps of ``kernel`` ("graph", "limbs", "body"); no card has tuned them.

    Args:
        rows: of joints, or of limbs.
    """
    three, pose = precision == "tf32x3", power_of_2(J, 16, 32)  # every operand twice in registers
    LO = 16 if three else max(16, triton.next_power_of_2(C + 1) // 2)
    HI = 16 if three else power_of_2(C - LO, 16, 64)
    plan = {"J": J, "C": C, "LO": LO, "HI": HI, "num_stages": 1, "PRECISION": precision}
    if kernel == "graph":
        tile = {"BLOCK_M": pose if three else power_of_2(rows, pose, 64), "BLOCK_G": 16}
    elif kernel == "limbs":
        tile = {"BLOCK_R": power_of_2(rows, 16, 32), "BLOCK_H": 32 if precision == "ieee" else 16}
    else:
        tile = {"BLOCK_J": pose, "D": D, "BLOCK_D": power_of_2(D, 16, 128)}
    # 16 rows a warp: more warps would repeat each other's products, as Triton lays them along the rows of a chain.
    return plan | tile | {"num_warps": next(iter(tile.values())) // 16}


def _shared(like: Tensor, kernel: str, hidden: int, block: int, programs: int) -> tuple[int, int]:
    """(parts of the hidden channels, blocks of them in each)."""
    parts = splits(like, triton.cdiv(hidden, _HIDDEN[kernel]), programs)
    blocks = triton.cdiv(triton.cdiv(hidden, block), parts)
    return triton.cdiv(hidden, block * blocks), blocks


def hierarchy_block(x, weights, joints, heads) -> Tensor:
    """As ``reference.hierarchy_block``."""
    (B, J, channels), w = x.shape, [t.contiguous() for t in weights[1:]]
    x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel() == 0:
        return out
    N, C, limbs, precision = B * J, channels // 3, len(joints) // 3, dot_precision(x.dtype)
    D, rows, G, H = C // heads, B * limbs, w[2].shape[-1], w[40].shape[0]
    kept = derived(("hierarchy_block in Triton", tuple(joints)), lambda: _keep(weights, joints, J), *weights)
    normed = torch.empty_like(out).view(N, channels)

    plan = _plan("graph", precision, C, N, J, D)
    tiles = triton.cdiv(B, plan["BLOCK_M"] // J)
    graph_parts, blocks = _shared(x, "graph", G, plan["BLOCK_G"], tiles)
    graph = torch.empty(graph_parts, N, C, dtype=torch.float32, device=x.device)
    joint = (graph, w[9], *w[10:12])
    with launch_on(x):
        _graph_kernel[(tiles, graph_parts)](
            x, *w[0:2], w[2], w[3], kept.mixing[0], w[5], w[6], w[7], kept.mixing[1], graph, N, G, blocks, 1e-5,
            **plan,
        )  # fmt: skip
        plan = _plan("limbs", precision, C, rows, J, D)
        tiles = triton.cdiv(rows, plan["BLOCK_R"])
        limb_parts, blocks = _shared(x, "limbs", H, plan["BLOCK_H"], 2 * tiles)
        vectors = torch.empty(limb_parts, 2, rows, C, dtype=torch.float32, device=x.device)
        _limbs_kernel[(tiles, limb_parts, 2)](
            x, *joint, kept.read, *kept.norm, *kept.limb, vectors, rows, N, H, limbs, graph_parts, blocks, 1e-5,
            **plan,
        )  # fmt: skip
        _body_kernel[(B,)](
            x, *joint, vectors, kept.limb_of, *kept.norm, *w[32:34], *w[34:36], kept.proj, w[37], *w[38:40], out,
            normed, rows, N, heads, limbs, graph_parts, limb_parts, D**-0.5, 1e-5, 1e-6,
            **_plan("body", precision, C, N, J, D),
        )  # fmt: skip
    h = graph_conv.linear(normed, kept.mlp[0], w[41], activation="gelu")
    return graph_conv.linear(h, kept.mlp[1], w[43], out.view(N, channels)).view(x.shape)


def hierarchy_network(*args) -> Tensor:
    """As ``reference.hierarchy_network``."""
    return reference.hierarchy_network(*args, hierarchy_block)


def _compilations(C: int = 80, hidden: int = 1024, J: int = 17, D: int = 10) -> list[Compilation]:
    """Every kernel at the published size."""
    found = []
    types = dict.fromkeys(("read_ptr", "of_ptr"), "*i32:16") | dict.fromkeys(("graph_ptr", "limbs_ptr"), "*fp32:16")
    types |= {"G": "i32:16", "H": "i32:16"} | dict.fromkeys(("eps", "row_eps", "scale"), "fp32")
    for dtype, precision in PRECISIONS:
        for name, kernel in (("graph", _graph_kernel), ("limbs", _limbs_kernel), ("body", _body_kernel)):
            plan = _plan(name, precision, C, 400 * J, J, D)
            spills = _SPILLS[name] if precision == "tf32x3" else 0
            found.append(compilation(f"hierarchy_block/{name}", kernel, dtype, plan, types, spills_accepted=spills))
    found += graph_conv.linear_compilations("hierarchy_block", 3 * C, hidden, "gelu", False)
    return found + graph_conv.linear_compilations("hierarchy_block", hidden, 3 * C, "none", True)


AOT = _compilations()
