"""Triton kernels of ``procrustes``: a pose per thread, joints one after the other. README.md has the math.

A point is [x, y, z], a matrix the list of its rows; every number in them is [BLOCK] float32, one per pose.
Triton keeps a comprehension's variable after it, so none may share its name with a value of a loop around it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..._adapters import contiguous
from ..._triton import compilation, launch_on


@triton.jit
def _point(ptr, start, j, there):
    """Joint j; 0 outside."""
    return [tl.load(ptr + start + 3 * j + i, mask=there, other=0.0).to(tl.float32) for i in (0, 1, 2)]


@triton.jit
def _store_point(ptr, start, j, there, point):
    for i in tl.static_range(3):
        tl.store(ptr + start + 3 * j + i, point[i], mask=there)


@triton.jit
def _plus(a, b):
    return [a[i] + b[i] for i in (0, 1, 2)]


@triton.jit
def _minus(a, b):
    return [a[i] - b[i] for i in (0, 1, 2)]


@triton.jit
def _times(scale, a):
    return [scale * x for x in a]


@triton.jit
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
def _inner(A, B):
    """Sum of the element-wise products of two matrices."""
    return _dot(A[0], B[0]) + _dot(A[1], B[1]) + _dot(A[2], B[2])


@triton.jit
def _columns(A):
    """The transpose."""
    return [[A[0][i], A[1][i], A[2][i]] for i in (0, 1, 2)]


@triton.jit
def _product(A, B):
    """A Bᵀ, of as many rows as A has."""
    return [[_dot(a, b) for b in B] for a in A]


@triton.jit
def _plus_outer(A, a, b):
    """A + aᵀ b"""
    return [[A[i][k] + a[i] * b[k] for k in (0, 1, 2)] for i in (0, 1, 2)]


@triton.jit
def _centre(ptr, start, J, there, zero):
    """Mean of the joints, and by what to multiply the rest: a power of two that makes it about 1, for squares and cubes
    of tiny or huge numbers leave float32."""
    total = [zero, zero, zero]
    low, high = [zero + float("inf") for _ in total], [zero - float("inf") for _ in total]
    for j in range(J):
        point = _point(ptr, start, j, there)
        total = _plus(total, point)
        low = [tl.minimum(low[i], point[i]) for i in (0, 1, 2)]
        high = [tl.maximum(high[i], point[i]) for i in (0, 1, 2)]
    mean, top = [t / J for t in total], zero
    for k in tl.static_range(3):
        top = tl.maximum(top, tl.maximum(high[k] - mean[k], mean[k] - low[k]))
    exponent = top.to(tl.int32, bitcast=True) & 0x7F800000
    exponent = tl.where((exponent == 0) | (exponent == 0x7F800000), 0x3F800000, exponent)  # 1, of a point or of NaN
    return mean, 1.0 / exponent.to(tl.float32, bitcast=True)


@triton.jit
def _centred(ptr, start, j, there, mean, by):
    """Joint j without the mean, in units that make the whole about 1."""
    return _times(by, _minus(_point(ptr, start, j, there), mean))


@triton.jit
def _turn(a, b, c, s):
    return c * a - s * b, s * a + c * b


@triton.jit
def _jacobi(pp, qq, pq, ap, aq, bp, bq, vp, vq):
    """One rotation in the plane (p, q); a and b are the other two axes, v the eigenvectors so far."""
    # Tangent, cosine and sine of the smaller angle that makes pq zero, without dividing by pq.
    half = (qq - pp) * 0.5
    below = tl.abs(half) + tl.sqrt_rn(half * half + pq * pq)
    t = tl.where(half < 0.0, -pq, pq) / tl.where(below == 0.0, 1.0, below)
    c = 1.0 / tl.sqrt_rn(t * t + 1.0)
    s = t * c
    ap, aq = _turn(ap, aq, c, s)
    bp, bq = _turn(bp, bq, c, s)
    turned = [_turn(vp[i], vq[i], c, s) for i in (0, 1, 2, 3)]
    return pp - t * pq, qq + t * pq, pq * 0.0, ap, aq, bp, bq, [u[0] for u in turned], [u[1] for u in turned]


@triton.jit
def _larger(k, v, other_k, other_v):
    """The larger eigenvalue and its vector."""
    more = other_k > k
    return tl.where(more, other_k, k), [tl.where(more, other_v[i], v[i]) for i in (0, 1, 2, 3)]


@triton.jit
def _rotation(M, SWEEPS: tl.constexpr):
    """The rotation that brings a pose nearest its target, from their moment matrix: csrc's procrustes.h."""
    # Its size does not matter, but squares may not underflow or overflow.
    largest = tl.abs(M[0][0])
    for i in tl.static_range(1, 9):
        largest = tl.maximum(largest, tl.abs(M[i // 3][i % 3]))
    m = [_times(1.0 / tl.where(largest > 0.0, largest, 1.0), row) for row in M]
    k00, k11 = m[0][0] + m[1][1] + m[2][2], m[0][0] - m[1][1] - m[2][2]
    k22, k33 = m[1][1] - m[0][0] - m[2][2], m[2][2] - m[0][0] - m[1][1]
    k01, k02, k03 = m[1][2] - m[2][1], m[2][0] - m[0][2], m[0][1] - m[1][0]
    k12, k13, k23 = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    o = k00 * 0.0
    e = o + 1.0
    v0, v1, v2, v3 = [e, o, o, o], [o, e, o, o], [o, o, e, o], [o, o, o, e]
    for _ in range(SWEEPS):
        k00, k11, k01, k02, k12, k03, k13, v0, v1 = _jacobi(k00, k11, k01, k02, k12, k03, k13, v0, v1)
        k00, k22, k02, k01, k12, k03, k23, v0, v2 = _jacobi(k00, k22, k02, k01, k12, k03, k23, v0, v2)
        k00, k33, k03, k01, k13, k02, k23, v0, v3 = _jacobi(k00, k33, k03, k01, k13, k02, k23, v0, v3)
        k11, k22, k12, k01, k02, k13, k23, v1, v2 = _jacobi(k11, k22, k12, k01, k02, k13, k23, v1, v2)
        k11, k33, k13, k01, k03, k12, k23, v1, v3 = _jacobi(k11, k33, k13, k01, k03, k12, k23, v1, v3)
        k22, k33, k23, k02, k03, k12, k13, v2, v3 = _jacobi(k22, k33, k23, k02, k03, k12, k13, v2, v3)
    k, v = _larger(k00, v0, k11, v1)
    k, v = _larger(k, v, k22, v2)
    k, v = _larger(k, v, k33, v3)
    w, x, y, z = v
    # Row vectors: target = pose R, so R is the transpose of the usual matrix of (w, x, y, z).
    return (
        (w * w + x * x - y * y - z * z, (x * y + w * z) * 2.0, (x * z - w * y) * 2.0),
        ((x * y - w * z) * 2.0, w * w - x * x + y * y - z * z, (y * z + w * x) * 2.0),
        ((x * z + w * y) * 2.0, (y * z - w * x) * 2.0, w * w - x * x - y * y + z * z),
    )


@triton.jit
def _fit(poses_ptr, target_ptr, pose, truth, J, there, zero, SWEEPS: tl.constexpr):
    """The means of pose and target and their units, M = Pᵀ T and |P|² of what is left in these, the rotation and the
    scale between them."""
    p_mean, p_by = _centre(poses_ptr, pose, J, there, zero)
    t_mean, t_by = _centre(target_ptr, truth, J, there, zero)
    M = [[zero, zero, zero], [zero, zero, zero], [zero, zero, zero]]
    square = zero
    for j in range(J):
        p = _centred(poses_ptr, pose, j, there, p_mean, p_by)
        M = _plus_outer(M, p, _centred(target_ptr, truth, j, there, t_mean, t_by))
        square += _dot(p, p)
    R = _rotation(M, SWEEPS)
    scale = _inner(R, M) / tl.where(square == 0.0, 1.0, square)  # a single point goes to the target's centre
    return p_mean, p_by, t_mean, t_by, M, square, R, scale


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
    error = tl.zeros((BLOCK,), tl.float32)
    p_mean, p_by, t_mean, t_by, M, square, R, scale = _fit(poses_ptr, target_ptr, pose, truth, J, there, error, SWEEPS)
    columns = _columns(R)
    for j in range(J):
        p = _centred(poses_ptr, pose, j, there, p_mean, p_by)
        y = [scale * _dot(p, column) for column in columns]
        if aligned_ptr is not None:
            _store_point(aligned_ptr, pose, j, there, _plus(_times(1.0 / t_by, y), t_mean))
        off = _minus(y, _centred(target_ptr, truth, j, there, t_mean, t_by))
        error += tl.sqrt_rn(_dot(off, off))
    tl.store(errors_ptr + n, error / J / t_by, mask=there)


@triton.jit
def _reaching(grad_aligned_ptr, share, pose, j, there, p, t, scale, columns):
    """Of joint j, centred: the gradient of the aligned pose, and what the distance alone contributes to it."""
    off = [scale * _dot(p, columns[i]) - t[i] for i in (0, 1, 2)]
    distance = tl.sqrt_rn(_dot(off, off))
    off = _times(tl.where(distance == 0.0, 0.0, share / tl.where(distance == 0.0, 1.0, distance)), off)
    g = off
    if grad_aligned_ptr is not None:
        g = _plus(off, _point(grad_aligned_ptr, pose, j, there))
    return g, off


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
    p_mean, p_by, t_mean, t_by, M, square, R, scale = _fit(poses_ptr, target_ptr, pose, truth, J, there, zero, SWEEPS)
    columns = _columns(R)

    # H = Pᵀ G, G what reaches the aligned pose a (P R) + mean(T)
    H = [[zero, zero, zero], [zero, zero, zero], [zero, zero, zero]]
    g_mean = [zero, zero, zero]
    for j in range(J):
        p = _centred(poses_ptr, pose, j, there, p_mean, p_by)
        t = _centred(target_ptr, truth, j, there, t_mean, t_by)
        g, off = _reaching(grad_aligned_ptr, share, pose, j, there, p, t, scale, columns)
        g_mean = _plus(g_mean, g)
        H = _plus_outer(H, p, g)
    g_mean = [total / J for total in g_mean]
    # a = tr(Rᵀ M) / |P|²
    each = _inner(H, R) / tl.where(square == 0.0, 1.0, square)
    grad_square = tl.where(square == 0.0, 0.0, -each * scale)
    # Q = Rᵀ M, symmetric; F = Rᵀ dL/dR, of which only the axis of F - Fᵀ counts (and that of RᵀM is nil)
    Q = _product(columns, _columns(M))
    F = _product(columns, _columns(H))
    wx, wy, wz = scale * (F[2][1] - F[1][2]), scale * (F[0][2] - F[2][0]), scale * (F[1][0] - F[0][1])
    # (tr(Q) I - Q) u = w, by the adjugate
    a, b, c = Q[1][1] + Q[2][2], Q[0][0] + Q[2][2], Q[0][0] + Q[1][1]
    d, e, f = -0.5 * (Q[0][1] + Q[1][0]), -0.5 * (Q[0][2] + Q[2][0]), -0.5 * (Q[1][2] + Q[2][1])
    c00, c01, c02 = b * c - f * f, e * f - d * c, d * f - b * e
    c11, c12, c22 = a * c - e * e, d * e - a * f, a * b - d * d
    inverse = 1.0 / tl.where(there, a * c00 + d * c01 + e * c02, 1.0)
    ux = (c00 * wx + c01 * wy + c02 * wz) * inverse
    uy = (c01 * wx + c11 * wy + c12 * wz) * inverse
    uz = (c02 * wx + c12 * wy + c22 * wz) * inverse
    # dL/dM = each R + R [u]x
    grad_M = [
        [each * r[0] + r[1] * uz - r[2] * uy, each * r[1] - r[0] * uz + r[2] * ux, each * r[2] + r[0] * uy - r[1] * ux]
        for r in R
    ]

    # G is in the target's own unit; per unit of P it counts as often as that unit has the target's.
    # P is centred, so its part of dL/dT sums to nil over the joints; and T's of dL/dP. What is left to centre is G's.
    for j in range(J):
        p = _centred(poses_ptr, pose, j, there, p_mean, p_by)
        t = _centred(target_ptr, truth, j, there, t_mean, t_by)
        g, off = _reaching(grad_aligned_ptr, share, pose, j, there, p, t, scale, columns)
        from_fit = _plus(_times(2.0 * grad_square, p), [_dot(t, row) for row in grad_M])  # T (dL/dM)ᵀ
        centred = _minus(g, g_mean)
        from_fit = _plus(from_fit, [scale * _dot(centred, row) for row in R])  # G Rᵀ
        _store_point(grad_poses_ptr, pose, j, there, _times(p_by / t_by, from_fit))
        from_fit = [_dot(p, column) for column in _columns(grad_M)]  # P (dL/dM)
        # The aligned pose carries mean(T); the distance meets T itself.
        _store_point(grad_target_ptr, pose, j, there, _plus(from_fit, _minus(g_mean, off)))


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
    grad_aligned, grad_errors, poses, target = contiguous(grad_aligned, grad_errors, poses, target)
    grad_poses = torch.empty_like(poses)
    grad_target = torch.empty(poses.shape, dtype=torch.float32, device=poses.device)
    if B * S:
        with launch_on(poses):
            _procrustes_bwd_kernel[(triton.cdiv(B * S, _PLAN["BLOCK"]),)](
                grad_aligned, grad_errors, poses, target, grad_poses, grad_target, B * S, S, J, **_PLAN
            )
    return grad_poses, grad_target.sum(1).to(target.dtype)


_SPILLS = {torch.float32: 0, torch.bfloat16: 8}  # of the backward kernel, on sm_90: two registers
AOT = [  # everything asked for
    compilation(
        f"procrustes/{name}",
        kernel,
        dtype,
        _PLAN,
        {"grad_target_ptr": "*fp32:16"},
        matrix_units=False,
        spills_accepted=_SPILLS[dtype] if name == "bwd" else 0,
    )
    for dtype in (torch.float32, torch.bfloat16)
    for name, kernel in (("fwd", _procrustes_fwd_kernel), ("bwd", _procrustes_bwd_kernel))
]
