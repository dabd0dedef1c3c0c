"""Triton kernels of ``merge_hypotheses``: a program takes whole poses, the mirror is a gather within each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._tables import table
from ..._triton import compilation, launch_on, power_of_2


@triton.jit
def _merge_fwd_kernel(
    poses_ptr,  # [N, V, J, 3] contiguous
    mirrored_ptr,  # [J] int32
    out_ptr,  # [N, J, 3]
    N,
    J,
    root,
    VIEWS: tl.constexpr,
    POSES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grid (blocks of poses,)
    pose = tl.program_id(0).to(tl.int64) * POSES + tl.arange(0, POSES)
    place = tl.arange(0, BLOCK)  # 3 joint + coordinate
    joint = place // 3
    mask = (pose < N)[:, None] & (joint < J)[None, :]
    start = (pose * (VIEWS * 3 * J))[:, None]
    y = tl.load(poses_ptr + start + place[None, :], mask=mask, other=0.0).to(tl.float32)
    if VIEWS == 2:
        other = tl.load(mirrored_ptr + joint, mask=joint < J, other=0) * 3 + place % 3
        back = tl.load(poses_ptr + start + 3 * J + other[None, :], mask=mask, other=0.0).to(tl.float32)
        y = 0.5 * (y + tl.where((place % 3 == 0)[None, :], -back, back))
    y = tl.where((joint == root)[None, :], 0.0, y)
    tl.store(out_ptr + (pose * (3 * J))[:, None] + place[None, :], y, mask=mask)


@triton.jit
def _merge_bwd_kernel(
    grad_ptr,  # [N, J, 3] contiguous
    mirrored_ptr,  # [J] int32
    out_ptr,  # [N, V, J, 3]
    N,
    J,
    root,
    VIEWS: tl.constexpr,
    POSES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grid (blocks of poses,)
    pose = tl.program_id(0).to(tl.int64) * POSES + tl.arange(0, POSES)
    place = tl.arange(0, BLOCK)
    joint = place // 3
    mask = (pose < N)[:, None] & (joint < J)[None, :]
    grad_start = (pose * (3 * J))[:, None]
    out = out_ptr + (pose * (VIEWS * 3 * J))[:, None] + place[None, :]
    grad = tl.load(grad_ptr + grad_start + place[None, :], mask=mask, other=0.0).to(tl.float32)
    grad = tl.where((joint == root)[None, :], 0.0, grad)
    if VIEWS == 2:
        twin = tl.load(mirrored_ptr + joint, mask=joint < J, other=0)
        other = twin * 3 + place % 3
        back = tl.load(grad_ptr + grad_start + other[None, :], mask=mask, other=0.0).to(tl.float32)
        back = tl.where((twin == root)[None, :], 0.0, 0.5 * back)
        tl.store(out + 3 * J, tl.where((place % 3 == 0)[None, :], -back, back), mask=mask)
        grad *= 0.5
    tl.store(out, grad, mask=mask)


def _launch(kernel, given: Tensor, mirrored, out: Tensor, N: int, views: int, root: int) -> None:
    J = len(mirrored)
    BLOCK = triton.next_power_of_2(3 * J)
    POSES = power_of_2(2048 // BLOCK, 1, 32)
    with launch_on(given):
        kernel[(triton.cdiv(N, POSES),)](
            given, table(mirrored, given.device, torch.int32), out, N, J, root,
            VIEWS=views, POSES=POSES, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip


def merge_hypotheses(poses, mirrored, root) -> Tensor:
    """As ``reference.merge_hypotheses``."""
    N, V, J, _ = poses.shape
    out = poses.new_empty(N, J, 3)
    if N:
        _launch(_merge_fwd_kernel, poses.contiguous(), mirrored, out, N, V, root)
    return out


def merge_hypotheses_backward(grad, views, mirrored, root) -> Tensor:
    """As ``reference.merge_hypotheses_backward``."""
    N, J, _ = grad.shape
    out = grad.new_empty(N, views, J, 3)
    if N:
        _launch(_merge_bwd_kernel, grad.contiguous(), mirrored, out, N, views, root)
    return out


_TWO_VIEWS = {"VIEWS": 2, "POSES": 32, "BLOCK": 64}
AOT = [  # 17 joints
    compilation(f"merge_hypotheses/{name}", kernel, dtype, _TWO_VIEWS, {"mirrored_ptr": "*i32:16"}, matrix_units=False)
    for dtype in (torch.float32, torch.bfloat16)
    for name, kernel in (("fwd", _merge_fwd_kernel), ("bwd", _merge_bwd_kernel))
]
