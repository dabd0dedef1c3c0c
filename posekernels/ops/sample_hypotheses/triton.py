"""Triton kernel of ``sample_hypotheses``: the integers of ``posekernels._philox``, normals to 1e-6 of its.

A program draws for a run of counters of one pose; a counter is four neighbouring numbers, stored together. Written
once, read never: nothing is shared between programs, so the cut into programs shows nowhere.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..._triton import TYPE_NAMES, compilation, launch_on, power_of_2
from .reference import WORDS


@triton.jit
def _box_muller(a, b):
    """Two standard normals, float32, of two random words (uint32): see README.md."""
    # exact: 1 to 2**24 in units of 2**-24
    u = ((a >> 8) + 1).to(tl.float32) * 5.9604644775390625e-08
    radius = tl.sqrt_rn(tl.maximum(-2.0 * tl.log(u), 0.0))
    # The angle is ``quarter`` right angles and d of 2**24 turns, |d| <= 2**21: no argument is ever large.
    word = (b >> 8).to(tl.int32)
    quarter = (word + 2097152) >> 22
    d = (word - (quarter << 22)).to(tl.float32) * 5.9604644775390625e-08
    x = d * d
    sine = (((41.47289065 * x - 76.69786815) * x + 81.60520473) * x - 41.34170215) * x + 6.283185307
    sine *= d
    cosine = (((59.22028813 * x - 85.44284840) * x + 64.93931617) * x - 19.73920865) * x + 1.0
    swapped = (quarter & 1) != 0
    first = tl.where(swapped, sine, cosine)
    second = tl.where(swapped, cosine, sine)
    # quarters 1, 2: the cosine is negative; 2, 3: the sine is
    first = tl.where(((quarter + 1) & 2) != 0, -first, first)
    second = tl.where((quarter & 2) != 0, -second, second)
    return radius * first, radius * second


@triton.jit(do_not_specialize=["seed", "first_pose", "first_sample"])
def _sample_hypotheses_kernel(
    keypoints_ptr,  # [B, V, J, 2] contiguous
    sigma_ptr,  # [B, V, J] contiguous
    out_ptr,  # [B, S, V, J, 2]
    numbers,  # 2 V J: numbers of one hypothesis
    counters,  # of one hypothesis: numbers / 4, rounded up
    samples,
    tiles,  # programs for one pose
    alpha,
    seed,
    first_pose,
    first_sample,
    BLOCK: tl.constexpr,
):
    # grid (B tiles,)
    pose = (tl.program_id(0) // tiles).to(tl.int64)
    index = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    sample = index // counters
    counter = index - sample * counters
    zero = tl.zeros((BLOCK,), tl.int64)
    number_of_pose = zero + (pose + first_pose)
    a, b, c, d = tl.philox(
        seed,
        counter.to(tl.uint32),
        (zero + sample + first_sample).to(tl.uint32),
        (number_of_pose & 0xFFFFFFFF).to(tl.uint32),
        (number_of_pose >> 32).to(tl.uint32),
    )
    first, second = _box_muller(a.to(tl.uint32, bitcast=True), b.to(tl.uint32, bitcast=True))
    third, fourth = _box_muller(c.to(tl.uint32, bitcast=True), d.to(tl.uint32, bitcast=True))
    noise = tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (BLOCK, 4))

    number = counter[:, None] * 4 + tl.arange(0, 4)[None, :]
    mask = (sample < samples)[:, None] & (number < numbers)
    x = tl.load(keypoints_ptr + pose * numbers + number, mask=mask, other=0.0).to(tl.float32)
    sigma = tl.load(sigma_ptr + pose * (numbers // 2) + number // 2, mask=mask, other=0.0).to(tl.float32)
    spread = alpha * tl.where(sigma < 1.0, 1.0, sigma)  # NaN stays
    out = (pose * samples + sample)[:, None] * numbers + number
    tl.store(out_ptr + out, x + spread * noise, mask=mask)


def sample_hypotheses(keypoints, sigma, samples, alpha, seed, first_pose, first_sample) -> Tensor:
    """As ``reference.sample_hypotheses``."""
    B, V, J = sigma.shape
    keypoints, sigma = keypoints.contiguous(), sigma.contiguous()
    y = keypoints.new_empty(B, samples, V, J, 2)
    if y.numel():
        counters = -(-2 * V * J // WORDS)
        BLOCK = power_of_2(samples * counters, 32, 256)
        tiles = triton.cdiv(samples * counters, BLOCK)
        with launch_on(keypoints):
            _sample_hypotheses_kernel[(B * tiles,)](
                keypoints, sigma, y, 2 * V * J, counters, samples, tiles, alpha, seed, first_pose, first_sample,
                BLOCK=BLOCK, num_warps=4,
            )  # fmt: skip
    return y


AOT = [  # WS-ANL: two views of 17 joints
    compilation(
        "sample_hypotheses/fwd", _sample_hypotheses_kernel, dtype, {"BLOCK": 256}, {"alpha": "fp32", "seed": "i64"},
        matrix_units=False,
    )
    for dtype in TYPE_NAMES
]  # fmt: skip
