"""Triton kernels of ``best_hypothesis``: a program takes one sample and walks over its hypotheses."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import compilation, launch_on, power_of_2


@triton.jit
def _points(ptr, offset, mask):
    """[x, y, z], float32; 0 outside."""
    return [tl.load(ptr + offset + i, mask=mask, other=0.0).to(tl.float32) for i in (0, 1, 2)]


@triton.jit
def _apart(poses_ptr, target, offset, mask):
    """What joints are from the target's along x, y and z, and their distances: [BLOCK_S, BLOCK_J] each."""
    poses = _points(poses_ptr, offset, mask)
    off = [poses[i] - target[i][None, :] for i in (0, 1, 2)]
    return off, tl.sqrt_rn(off[0] * off[0] + off[1] * off[1] + off[2] * off[2])


@triton.jit
def _best_hypothesis_fwd_kernel(
    poses_ptr,  # [B, S, J, 3] contiguous
    target_ptr,  # [B, J, 3] contiguous
    error_ptr,  # [B]
    index_ptr,  # [B] int64
    errors_ptr,  # [B, S]
    S,
    J,
    BLOCK_S: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    # grid (B,)
    b = tl.program_id(0).to(tl.int64)
    joint = tl.arange(0, BLOCK_J)
    place = b * J * 3 + joint * 3
    target = _points(target_ptr, place, joint < J)
    best = float("inf")
    winner = 0
    for start in range(0, S, BLOCK_S):
        sample = start + tl.arange(0, BLOCK_S)
        mask = (sample < S)[:, None] & (joint < J)[None, :]
        offset = ((b * S + sample) * (3 * J))[:, None] + (3 * joint)[None, :]
        off, distance = _apart(poses_ptr, target, offset, mask)
        error = (tl.sum(tl.where(mask, distance, 0.0), 1) / J).to(errors_ptr.dtype.element_ty)
        tl.store(errors_ptr + b * S + sample, error, mask=sample < S)
        error = error.to(tl.float32)  # ranked as stored
        key = tl.where(error != error, float("-inf"), error)  # a NaN wins
        key = tl.where(sample < S, key, float("inf"))
        least, place_of_least = tl.min(key, 0, return_indices=True)
        better = (least < best) | (start == 0)  # the first of equals stays
        winner = tl.where(better, start + place_of_least, winner)
        best = tl.where(better, least, best)
    tl.store(index_ptr + b, winner.to(tl.int64))
    tl.store(error_ptr + b, tl.where(best == float("-inf"), float("nan"), best))


@triton.jit
def _best_hypothesis_bwd_kernel(
    grad_ptr,  # [B, S] contiguous: gradient of every error
    poses_ptr,  # [B, S, J, 3] contiguous
    target_ptr,  # [B, J, 3] contiguous
    grad_poses_ptr,
    grad_target_ptr,
    S,
    J,
    BLOCK_S: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    # grid (B,)
    b = tl.program_id(0).to(tl.int64)
    joint = tl.arange(0, BLOCK_J)
    place = b * J * 3 + joint * 3
    target = _points(target_ptr, place, joint < J)
    nothing = tl.zeros((BLOCK_J,), tl.float32)
    total = [nothing, nothing, nothing]
    for start in range(0, S, BLOCK_S):
        sample = start + tl.arange(0, BLOCK_S)
        mask = (sample < S)[:, None] & (joint < J)[None, :]
        offset = ((b * S + sample) * (3 * J))[:, None] + (3 * joint)[None, :]
        off, distance = _apart(poses_ptr, target, offset, mask)
        share = tl.load(grad_ptr + b * S + sample, mask=sample < S, other=0.0).to(tl.float32) / J
        weight = tl.where(distance == 0.0, 0.0, share[:, None] / tl.where(distance == 0.0, 1.0, distance))
        weight = tl.where(mask, weight, 0.0)
        grads = [along * weight for along in off]
        for i in tl.static_range(3):
            tl.store(grad_poses_ptr + offset + i, grads[i], mask=mask)
        # Outside the mask stands -target * 0: nothing, unless that joint's target is not finite anyway.
        total = [total[i] + tl.sum(grads[i], 0) for i in (0, 1, 2)]
    for i in tl.static_range(3):
        tl.store(grad_target_ptr + place + i, -total[i], mask=joint < J)


def _plan(S: int, J: int) -> dict[str, int]:
    """A tile of about 1024 joints."""
    BLOCK_J = triton.next_power_of_2(J)
    return {"BLOCK_S": power_of_2(S, 1, max(1, 1024 // BLOCK_J)), "BLOCK_J": BLOCK_J, "num_warps": 4}


def best_hypothesis(poses, target) -> tuple[Tensor, Tensor, Tensor]:
    """As ``reference.best_hypothesis``."""
    B, S, J, _ = poses.shape
    poses, target = poses.contiguous(), target.contiguous()
    error, errors = poses.new_empty(B), poses.new_empty(B, S)
    index = poses.new_empty(B, dtype=torch.int64)
    if B:
        with launch_on(poses):
            _best_hypothesis_fwd_kernel[(B,)](poses, target, error, index, errors, S, J, **_plan(S, J))
    return error, index, errors


def best_hypothesis_backward(grad, poses, target) -> tuple[Tensor, Tensor]:
    """As ``reference.best_hypothesis_backward``."""
    B, S, J, _ = poses.shape
    grad, poses, target = grad.contiguous(), poses.contiguous(), target.contiguous()
    grad_poses, grad_target = torch.empty_like(poses), torch.empty_like(target)
    if B:
        with launch_on(poses):
            _best_hypothesis_bwd_kernel[(B,)](grad, poses, target, grad_poses, grad_target, S, J, **_plan(S, J))
    return grad_poses, grad_target


AOT = [  # 17 joints, 200 hypotheses
    compilation(f"best_hypothesis/{name}", kernel, dtype, _plan(200, 17), {"index_ptr": "*i64:16"}, matrix_units=False)
    for dtype in (torch.float32, torch.bfloat16)
    for name, kernel in (("fwd", _best_hypothesis_fwd_kernel), ("bwd", _best_hypothesis_bwd_kernel))
]
