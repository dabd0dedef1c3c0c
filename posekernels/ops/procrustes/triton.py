"""Triton kernels of ``procrustes``: a pose per thread, joints one after the other. README.md has the math.

Every name of a 3 x 3 matrix ends in its row and column; every value is [BLOCK] float32, one number per pose.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._triton import TYPE_NAMES, Compilation, launch_on


@triton.jit
def _point(ptr, start, j, there):
    """x, y, z of joint j; 0 outside."""
    at = ptr + start + 3 * j
    x = tl.load(at, mask=there, other=0.0).to(tl.float32)
    y = tl.load(at + 1, mask=there, other=0.0).to(tl.float32)
    z = tl.load(at + 2, mask=there, other=0.0).to(tl.float32)
    return x, y, z


@triton.jit
def _store_point(ptr, start, j, there, x, y, z):
    at = ptr + start + 3 * j
    tl.store(at, x, mask=there)
    tl.store(at + 1, y, mask=there)
    tl.store(at + 2, z, mask=there)


@triton.jit
def _centre(ptr, start, J, there, zero):
    """Mean of the joints."""
    mx, my, mz = zero, zero, zero
    for j in range(J):
        x, y, z = _point(ptr, start, j, there)
        mx += x
        my += y
        mz += z
    return mx / J, my / J, mz / J


@triton.jit
def _tangent(pp, qq, pq):
    """(t, c, s): tangent, cosine and sine of the smaller angle that makes pq zero, without dividing by pq."""
    half = (qq - pp) * 0.5
    below = tl.abs(half) + tl.sqrt_rn(half * half + pq * pq)
    t = tl.where(half < 0.0, -pq, pq) / tl.where(below == 0.0, 1.0, below)
    c = 1.0 / tl.sqrt_rn(t * t + 1.0)
    return t, c, t * c


@triton.jit
def _turn(a, b, c, s):
    return c * a - s * b, s * a + c * b


@triton.jit
def _jacobi(pp, qq, pq, ap, aq, bp, bq, v0p, v0q, v1p, v1q, v2p, v2q, v3p, v3q):
    """One rotation in the plane (p, q); a and b are the other two axes, v the eigenvectors so far."""
    t, c, s = _tangent(pp, qq, pq)
    pp, qq, pq = pp - t * pq, qq + t * pq, pq * 0.0
    ap, aq = _turn(ap, aq, c, s)
    bp, bq = _turn(bp, bq, c, s)
    v0p, v0q = _turn(v0p, v0q, c, s)
    v1p, v1q = _turn(v1p, v1q, c, s)
    v2p, v2q = _turn(v2p, v2q, c, s)
    v3p, v3q = _turn(v3p, v3q, c, s)
    return pp, qq, pq, ap, aq, bp, bq, v0p, v0q, v1p, v1q, v2p, v2q, v3p, v3q


@triton.jit
def _larger(best, w, x, y, z, k, vw, vx, vy, vz):
    more = k > best
    return (
        tl.where(more, k, best), tl.where(more, vw, w), tl.where(more, vx, x),
        tl.where(more, vy, y), tl.where(more, vz, z),
    )  # fmt: skip


@triton.jit
def _rotation(m00, m01, m02, m10, m11, m12, m20, m21, m22, SWEEPS: tl.constexpr):
    """The rotation that brings a pose nearest its target, from their moment matrix: csrc's procrustes.h."""
    # Its size does not matter, but squares may not underflow or overflow.
    largest = tl.maximum(tl.maximum(tl.abs(m00), tl.abs(m01)), tl.maximum(tl.abs(m02), tl.abs(m10)))
    largest = tl.maximum(largest, tl.maximum(tl.maximum(tl.abs(m11), tl.abs(m12)), tl.abs(m20)))
    largest = tl.maximum(largest, tl.maximum(tl.abs(m21), tl.abs(m22)))
    unit = 1.0 / tl.where(largest > 0.0, largest, 1.0)
    k00 = (m00 + m11 + m22) * unit
    k01 = (m12 - m21) * unit
    k02 = (m20 - m02) * unit
    k03 = (m01 - m10) * unit
    k11 = (m00 - m11 - m22) * unit
    k12 = (m01 + m10) * unit
    k13 = (m02 + m20) * unit
    k22 = (m11 - m00 - m22) * unit
    k23 = (m12 + m21) * unit
    k33 = (m22 - m00 - m11) * unit
    o = k00 * 0.0
    v00, v01, v02, v03 = o + 1.0, o, o, o
    v10, v11, v12, v13 = o, o + 1.0, o, o
    v20, v21, v22, v23 = o, o, o + 1.0, o
    v30, v31, v32, v33 = o, o, o, o + 1.0
    for _ in range(SWEEPS):
        k00, k11, k01, k02, k12, k03, k13, v00, v01, v10, v11, v20, v21, v30, v31 = _jacobi(
            k00, k11, k01, k02, k12, k03, k13, v00, v01, v10, v11, v20, v21, v30, v31
        )
        k00, k22, k02, k01, k12, k03, k23, v00, v02, v10, v12, v20, v22, v30, v32 = _jacobi(
            k00, k22, k02, k01, k12, k03, k23, v00, v02, v10, v12, v20, v22, v30, v32
        )
        k00, k33, k03, k01, k13, k02, k23, v00, v03, v10, v13, v20, v23, v30, v33 = _jacobi(
            k00, k33, k03, k01, k13, k02, k23, v00, v03, v10, v13, v20, v23, v30, v33
        )
        k11, k22, k12, k01, k02, k13, k23, v01, v02, v11, v12, v21, v22, v31, v32 = _jacobi(
            k11, k22, k12, k01, k02, k13, k23, v01, v02, v11, v12, v21, v22, v31, v32
        )
        k11, k33, k13, k01, k03, k12, k23, v01, v03, v11, v13, v21, v23, v31, v33 = _jacobi(
            k11, k33, k13, k01, k03, k12, k23, v01, v03, v11, v13, v21, v23, v31, v33
        )
        k22, k33, k23, k02, k03, k12, k13, v02, v03, v12, v13, v22, v23, v32, v33 = _jacobi(
            k22, k33, k23, k02, k03, k12, k13, v02, v03, v12, v13, v22, v23, v32, v33
        )
    best, w, x, y, z = _larger(k00, v00, v10, v20, v30, k11, v01, v11, v21, v31)
    best, w, x, y, z = _larger(best, w, x, y, z, k22, v02, v12, v22, v32)
    best, w, x, y, z = _larger(best, w, x, y, z, k33, v03, v13, v23, v33)
    # Row vectors: target = pose R, so R is the transpose of the usual matrix of (w, x, y, z).
    r00, r01, r02 = w * w + x * x - y * y - z * z, (x * y + w * z) * 2.0, (x * z - w * y) * 2.0
    r10, r11, r12 = (x * y - w * z) * 2.0, w * w - x * x + y * y - z * z, (y * z + w * x) * 2.0
    r20, r21, r22 = (x * z + w * y) * 2.0, (y * z - w * x) * 2.0, w * w - x * x - y * y + z * z
    return r00, r01, r02, r10, r11, r12, r20, r21, r22


@triton.jit
def _row(x, y, z, a0, a1, a2, b0, b1, b2, c0, c1, c2):
    """(x, y, z) times the matrix of rows a, b, c."""
    return x * a0 + y * b0 + z * c0, x * a1 + y * b1 + z * c1, x * a2 + y * b2 + z * c2


@triton.jit
def _moments(poses_ptr, target_ptr, pose, truth, J, there, px, py, pz, tx, ty, tz, zero):
    """M = Pᵀ T (nine numbers, row by row) and |P|², P and T centred."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    square = zero
    for j in range(J):
        ax, ay, az = _point(poses_ptr, pose, j, there)
        bx, by, bz = _point(target_ptr, truth, j, there)
        ax, ay, az, bx, by, bz = ax - px, ay - py, az - pz, bx - tx, by - ty, bz - tz
        square += ax * ax + ay * ay + az * az
        m00 += ax * bx
        m01 += ax * by
        m02 += ax * bz
        m10 += ay * bx
        m11 += ay * by
        m12 += ay * bz
        m20 += az * bx
        m21 += az * by
        m22 += az * bz
    return m00, m01, m02, m10, m11, m12, m20, m21, m22, square


@triton.jit
def _procrustes_fwd_kernel(
    poses_ptr,  # [N, J, 3] contiguous, N = B S
    target_ptr,  # [B, J, 3] contiguous
    aligned_ptr,  # [N, J, 3] or None
    errors_ptr,  # [N]
    N,
    S,
    J,
    SWEEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grid (blocks of poses,)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = n < N
    pose, truth = n * (3 * J), n // S * (3 * J)
    zero = tl.zeros((BLOCK,), tl.float32)
    px, py, pz = _centre(poses_ptr, pose, J, there, zero)
    tx, ty, tz = _centre(target_ptr, truth, J, there, zero)
    m00, m01, m02, m10, m11, m12, m20, m21, m22, square = _moments(
        poses_ptr, target_ptr, pose, truth, J, there, px, py, pz, tx, ty, tz, zero
    )
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(m00, m01, m02, m10, m11, m12, m20, m21, m22, SWEEPS)
    trace = r00 * m00 + r01 * m01 + r02 * m02 + r10 * m10 + r11 * m11 + r12 * m12 + r20 * m20 + r21 * m21 + r22 * m22
    scale = trace / tl.where(square == 0.0, 1.0, square)  # a single point goes to the target's centre
    error = zero
    for j in range(J):
        x, y, z = _point(poses_ptr, pose, j, there)
        bx, by, bz = _point(target_ptr, truth, j, there)
        x, y, z = _row(x - px, y - py, z - pz, r00, r01, r02, r10, r11, r12, r20, r21, r22)
        x, y, z = scale * x, scale * y, scale * z
        if aligned_ptr is not None:
            _store_point(aligned_ptr, pose, j, there, x + tx, y + ty, z + tz)
        dx, dy, dz = x - (bx - tx), y - (by - ty), z - (bz - tz)
        error += tl.sqrt_rn(dx * dx + dy * dy + dz * dz)
    tl.store(errors_ptr + n, error / J, mask=there)


@triton.jit
def _reaching(
    grad_aligned_ptr, share, pose, j, there, ax, ay, az, bx, by, bz, scale,
    r00, r01, r02, r10, r11, r12, r20, r21, r22,
):  # fmt: skip
    """Of joint j, centred: the gradient of the aligned pose, and what the distance alone contributes to it."""
    x, y, z = _row(ax, ay, az, r00, r01, r02, r10, r11, r12, r20, r21, r22)
    x, y, z = scale * x - bx, scale * y - by, scale * z - bz
    distance = tl.sqrt_rn(x * x + y * y + z * z)
    weight = tl.where(distance == 0.0, 0.0, share / tl.where(distance == 0.0, 1.0, distance))
    x, y, z = x * weight, y * weight, z * weight
    gx, gy, gz = x, y, z
    if grad_aligned_ptr is not None:
        fx, fy, fz = _point(grad_aligned_ptr, pose, j, there)
        gx, gy, gz = gx + fx, gy + fy, gz + fz
    return gx, gy, gz, x, y, z


@triton.jit
def _procrustes_bwd_kernel(
    grad_aligned_ptr,  # [N, J, 3] contiguous, or None
    grad_errors_ptr,  # [N] contiguous, or None
    poses_ptr,  # [N, J, 3] contiguous, N = B S
    target_ptr,  # [B, J, 3] contiguous
    grad_poses_ptr,  # [N, J, 3]
    grad_target_ptr,  # [N, J, 3] float32: its sum over the poses of a target is the target's gradient
    N,
    S,
    J,
    SWEEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grid (blocks of poses,)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = n < N
    pose, truth = n * (3 * J), n // S * (3 * J)
    zero = tl.zeros((BLOCK,), tl.float32)
    share = zero
    if grad_errors_ptr is not None:
        share = tl.load(grad_errors_ptr + n, mask=there, other=0.0).to(tl.float32) / J
    px, py, pz = _centre(poses_ptr, pose, J, there, zero)
    tx, ty, tz = _centre(target_ptr, truth, J, there, zero)
    m00, m01, m02, m10, m11, m12, m20, m21, m22, square = _moments(
        poses_ptr, target_ptr, pose, truth, J, there, px, py, pz, tx, ty, tz, zero
    )
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(m00, m01, m02, m10, m11, m12, m20, m21, m22, SWEEPS)
    trace = r00 * m00 + r01 * m01 + r02 * m02 + r10 * m10 + r11 * m11 + r12 * m12 + r20 * m20 + r21 * m21 + r22 * m22
    point = square == 0.0
    inverse_square = 1.0 / tl.where(point, 1.0, square)
    scale = trace * inverse_square

    # H = Pᵀ G, G what reaches the aligned pose a (P R) + mean(T)
    h00, h01, h02, h10, h11, h12, h20, h21, h22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    gx_sum, gy_sum, gz_sum = zero, zero, zero
    for j in range(J):
        ax, ay, az = _point(poses_ptr, pose, j, there)
        bx, by, bz = _point(target_ptr, truth, j, there)
        ax, ay, az, bx, by, bz = ax - px, ay - py, az - pz, bx - tx, by - ty, bz - tz
        gx, gy, gz, _dx, _dy, _dz = _reaching(
            grad_aligned_ptr, share, pose, j, there, ax, ay, az, bx, by, bz, scale,
            r00, r01, r02, r10, r11, r12, r20, r21, r22,
        )  # fmt: skip
        gx_sum += gx
        gy_sum += gy
        gz_sum += gz
        h00 += ax * gx
        h01 += ax * gy
        h02 += ax * gz
        h10 += ay * gx
        h11 += ay * gy
        h12 += ay * gz
        h20 += az * gx
        h21 += az * gy
        h22 += az * gz
    # a = tr(Rᵀ M) / |P|²
    grad_a = h00 * r00 + h01 * r01 + h02 * r02 + h10 * r10 + h11 * r11 + h12 * r12 + h20 * r20 + h21 * r21 + h22 * r22
    each = grad_a * inverse_square
    grad_square = tl.where(point, 0.0, -each * scale)
    # Q = Rᵀ M, symmetric; F = Rᵀ dL/dR, of which only the axis of F - Fᵀ counts (and that of RᵀM is nil)
    q00 = r00 * m00 + r10 * m10 + r20 * m20
    q11 = r01 * m01 + r11 * m11 + r21 * m21
    q22 = r02 * m02 + r12 * m12 + r22 * m22
    d = -0.5 * (r00 * m01 + r10 * m11 + r20 * m21 + r01 * m00 + r11 * m10 + r21 * m20)
    e = -0.5 * (r00 * m02 + r10 * m12 + r20 * m22 + r02 * m00 + r12 * m10 + r22 * m20)
    f = -0.5 * (r01 * m02 + r11 * m12 + r21 * m22 + r02 * m01 + r12 * m11 + r22 * m21)
    wx = scale * (r02 * h01 + r12 * h11 + r22 * h21 - r01 * h02 - r11 * h12 - r21 * h22)
    wy = scale * (r00 * h02 + r10 * h12 + r20 * h22 - r02 * h00 - r12 * h10 - r22 * h20)
    wz = scale * (r01 * h00 + r11 * h10 + r21 * h20 - r00 * h01 - r10 * h11 - r20 * h21)
    # (tr(Q) I - Q) u = w, by the adjugate
    a, b, c = q11 + q22, q00 + q22, q00 + q11
    c00, c01, c02 = b * c - f * f, e * f - d * c, d * f - b * e
    c11, c12, c22 = a * c - e * e, d * e - a * f, a * b - d * d
    inverse = 1.0 / tl.where(there, a * c00 + d * c01 + e * c02, 1.0)
    ux = (c00 * wx + c01 * wy + c02 * wz) * inverse
    uy = (c01 * wx + c11 * wy + c12 * wz) * inverse
    uz = (c02 * wx + c12 * wy + c22 * wz) * inverse
    # dL/dM = each R + R [u]x
    n00, n01, n02 = each * r00 + r01 * uz - r02 * uy, each * r01 - r00 * uz + r02 * ux, each * r02 + r00 * uy - r01 * ux
    n10, n11, n12 = each * r10 + r11 * uz - r12 * uy, each * r11 - r10 * uz + r12 * ux, each * r12 + r10 * uy - r11 * ux
    n20, n21, n22 = each * r20 + r21 * uz - r22 * uy, each * r21 - r20 * uz + r22 * ux, each * r22 + r20 * uy - r21 * ux

    # P is centred, so its part of dL/dT sums to nil over the joints; and T's of dL/dP. What is left to centre is G's.
    sx, sy, sz = _row(gx_sum, gy_sum, gz_sum, r00, r10, r20, r01, r11, r21, r02, r12, r22)
    for j in range(J):
        ax, ay, az = _point(poses_ptr, pose, j, there)
        bx, by, bz = _point(target_ptr, truth, j, there)
        ax, ay, az, bx, by, bz = ax - px, ay - py, az - pz, bx - tx, by - ty, bz - tz
        gx, gy, gz, dx, dy, dz = _reaching(
            grad_aligned_ptr, share, pose, j, there, ax, ay, az, bx, by, bz, scale,
            r00, r01, r02, r10, r11, r12, r20, r21, r22,
        )  # fmt: skip
        gx, gy, gz = _row(gx, gy, gz, r00, r10, r20, r01, r11, r21, r02, r12, r22)  # G Rᵀ
        ox, oy, oz = _row(bx, by, bz, n00, n10, n20, n01, n11, n21, n02, n12, n22)  # T (dL/dM)ᵀ
        ox += scale * (gx - sx / J) + 2.0 * grad_square * ax
        oy += scale * (gy - sy / J) + 2.0 * grad_square * ay
        oz += scale * (gz - sz / J) + 2.0 * grad_square * az
        _store_point(grad_poses_ptr, pose, j, there, ox, oy, oz)
        ox, oy, oz = _row(ax, ay, az, n00, n01, n02, n10, n11, n12, n20, n21, n22)  # P (dL/dM)
        # The aligned pose carries mean(T); the distance meets T itself.
        _store_point(grad_target_ptr, pose, j, there, ox + gx_sum / J - dx, oy + gy_sum / J - dy, oz + gz_sum / J - dz)


_PLAN = {"SWEEPS": 6, "BLOCK": 64, "num_warps": 2}  # Jacobi: 4 sweeps reach float precision, the rest is margin


def procrustes(poses, target, align) -> tuple[Tensor, Tensor]:
    """As ``reference.procrustes``."""
    B, S, J, _ = poses.shape
    poses, target = poses.contiguous(), target.contiguous()
    aligned = torch.empty_like(poses) if align else None
    errors = poses.new_empty(B, S)
    if errors.numel():
        with launch_on(poses):
            _procrustes_fwd_kernel[(triton.cdiv(B * S, _PLAN["BLOCK"]),)](
                poses, target, aligned, errors, B * S, S, J, **_PLAN
            )
    return poses.new_empty(0) if aligned is None else aligned, errors


def procrustes_backward(grad_aligned, grad_errors, poses, target) -> tuple[Tensor, Tensor]:
    """As ``reference.procrustes_backward``. The target's gradient is summed over the hypotheses here."""
    B, S, J, _ = poses.shape
    grad_aligned, grad_errors, poses, target = (
        t if t is None else t.contiguous() for t in (grad_aligned, grad_errors, poses, target)
    )
    grad_poses = torch.empty_like(poses)
    grad_target = torch.empty(poses.shape, dtype=torch.float32, device=poses.device)
    if B * S:
        with launch_on(poses):
            _procrustes_bwd_kernel[(triton.cdiv(B * S, _PLAN["BLOCK"]),)](
                grad_aligned, grad_errors, poses, target, grad_poses, grad_target, B * S, S, J, **_PLAN
            )
    return grad_poses, grad_target.sum(1).to(target.dtype)


def _compilations() -> list[Compilation]:
    """Both kernels with everything asked for."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for name, kernel in (("fwd", _procrustes_fwd_kernel), ("bwd", _procrustes_bwd_kernel)):
            constants = {n: c for n, c in _PLAN.items() if n != "num_warps"}
            types = {}
            for argument in kernel.arg_names:
                if argument in constants:
                    types[argument] = "constexpr"
                elif argument == "grad_target_ptr":
                    types[argument] = "*fp32:16"
                else:
                    types[argument] = f"*{TYPE_NAMES[dtype]}:16" if argument.endswith("_ptr") else "i32"
            label = f"procrustes/{name}/{TYPE_NAMES[dtype]}"
            found.append(Compilation(label, kernel, types, constants, _PLAN["num_warps"], matrix_units=False))
    return found


AOT = _compilations()
