"""Triton kernels of ``best_hypothesis``: a program takes one sample and walks over its hypotheses."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import TYPE_NAMES, Compilation, launch_on, power_of_2


@triton.jit
def _coordinate(ptr, offset, mask):
    """float32; 0 outside."""
    return tl.load(ptr + offset, mask=mask, other=0.0).to(tl.float32)


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
    tx = _coordinate(target_ptr, place, joint < J)
    ty = _coordinate(target_ptr, place + 1, joint < J)
    tz = _coordinate(target_ptr, place + 2, joint < J)
    best = float("inf")
    winner = 0
    for start in range(0, S, BLOCK_S):
        sample = start + tl.arange(0, BLOCK_S)
        mask = (sample < S)[:, None] & (joint < J)[None, :]
        offset = ((b * S + sample) * (3 * J))[:, None] + (3 * joint)[None, :]
        x = _coordinate(poses_ptr, offset, mask) - tx[None, :]
        y = _coordinate(poses_ptr, offset + 1, mask) - ty[None, :]
        z = _coordinate(poses_ptr, offset + 2, mask) - tz[None, :]
        distance = tl.sqrt_rn(x * x + y * y + z * z)
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
    tx = _coordinate(target_ptr, place, joint < J)
    ty = _coordinate(target_ptr, place + 1, joint < J)
    tz = _coordinate(target_ptr, place + 2, joint < J)
    sum_x = tl.zeros((BLOCK_J,), tl.float32)
    sum_y = tl.zeros((BLOCK_J,), tl.float32)
    sum_z = tl.zeros((BLOCK_J,), tl.float32)
    for start in range(0, S, BLOCK_S):
        sample = start + tl.arange(0, BLOCK_S)
        mask = (sample < S)[:, None] & (joint < J)[None, :]
        offset = ((b * S + sample) * (3 * J))[:, None] + (3 * joint)[None, :]
        x = _coordinate(poses_ptr, offset, mask) - tx[None, :]
        y = _coordinate(poses_ptr, offset + 1, mask) - ty[None, :]
        z = _coordinate(poses_ptr, offset + 2, mask) - tz[None, :]
        distance = tl.sqrt_rn(x * x + y * y + z * z)
        share = _coordinate(grad_ptr, b * S + sample, sample < S) / J
        weight = tl.where(distance == 0.0, 0.0, share[:, None] / tl.where(distance == 0.0, 1.0, distance))
        weight = tl.where(mask, weight, 0.0)
        x *= weight
        y *= weight
        z *= weight
        tl.store(grad_poses_ptr + offset, x, mask=mask)
        tl.store(grad_poses_ptr + offset + 1, y, mask=mask)
        tl.store(grad_poses_ptr + offset + 2, z, mask=mask)
        # Outside the mask stands -target * 0: nothing, unless that joint's target is not finite anyway.
        sum_x += tl.sum(x, 0)
        sum_y += tl.sum(y, 0)
        sum_z += tl.sum(z, 0)
    tl.store(grad_target_ptr + place, -sum_x, mask=joint < J)
    tl.store(grad_target_ptr + place + 1, -sum_y, mask=joint < J)
    tl.store(grad_target_ptr + place + 2, -sum_z, mask=joint < J)


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


def _compilations() -> list[Compilation]:
    """Both kernels at 17 joints and 200 hypotheses."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for name, kernel in (("fwd", _best_hypothesis_fwd_kernel), ("bwd", _best_hypothesis_bwd_kernel)):
            plan = _plan(200, 17)
            constants = {n: c for n, c in plan.items() if n != "num_warps"}
            types = {}
            for argument in kernel.arg_names:
                if argument in constants:
                    types[argument] = "constexpr"
                elif argument == "index_ptr":
                    types[argument] = "*i64:16"
                else:
                    types[argument] = f"*{TYPE_NAMES[dtype]}:16" if argument.endswith("_ptr") else "i32"
            label = f"best_hypothesis/{name}/{TYPE_NAMES[dtype]}"
            found.append(Compilation(label, kernel, types, constants, plan["num_warps"], matrix_units=False))
    return found


AOT = _compilations()
