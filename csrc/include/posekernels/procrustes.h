// The best rotation of one 3 x 3 moment matrix and its gradient, on scalars or vectors: shared by the CPU kernel (a
// pose per lane) and the CUDA kernel (a pose per thread). Horn, JOSA A 1987: the rotation as a unit quaternion
// maximises q' K q for a symmetric 4 x 4 matrix K, whose largest eigenvector Jacobi's method finds without branches.
#pragma once

#include "posekernels/isa.h"

namespace posekernels {
namespace procrustes {

constexpr int sweeps = 6;  // converges quadratically: 4 reach float precision from anywhere, the rest is margin

// Math: root(x), select(condition, a, b), absolute(x) on Real.
// M[3 a + b] = sum over joints of pose[a] target[b], both centred; any scale. R[3 a + b]: pose R comes nearest target.
template <class Real, class Math>
POSEKERNELS_BOTH void rotation(const Real M[9], Real R[9]) {
    // K's upper triangle, for the rotation that takes the pose onto the target.
    Real k[4][4];
    k[0][0] = M[0] + M[4] + M[8];
    k[0][1] = M[5] - M[7];
    k[0][2] = M[6] - M[2];
    k[0][3] = M[1] - M[3];
    k[1][1] = M[0] - M[4] - M[8];
    k[1][2] = M[1] + M[3];
    k[1][3] = M[2] + M[6];
    k[2][2] = M[4] - M[0] - M[8];
    k[2][3] = M[5] + M[7];
    k[3][3] = M[8] - M[0] - M[4];
    const Real zero = M[0] * 0.0f, one = zero + 1.0f;
    Real v[4][4];  // columns: eigenvectors
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) v[i][j] = i == j ? one : zero;
    for (int sweep = 0; sweep < sweeps; ++sweep) {
        POSEKERNELS_UNROLL(16)
        for (int p = 0; p < 3; ++p) {
            POSEKERNELS_UNROLL(16)
            for (int q = p + 1; q < 4; ++q) {
                // The tangent of the smaller angle that makes k[p][q] zero, without dividing by k[p][q].
                const Real off = k[p][q], half = (k[q][q] - k[p][p]) * 0.5f;
                const Real length = Math::root(half * half + off * off);
                const Real below = Math::absolute(half) + length;
                const Real signed_off = Math::select(half < zero, -off, off);
                const Real t = signed_off / Math::select(below == zero, one, below);
                const Real c = one / Math::root(t * t + one), s = t * c;
                k[p][p] = k[p][p] - t * off;
                k[q][q] = k[q][q] + t * off;
                k[p][q] = zero;
                for (int i = 0; i < 4; ++i) {
                    if (i != p && i != q) {
                        Real& a = i < p ? k[i][p] : k[p][i];
                        Real& b = i < q ? k[i][q] : k[q][i];
                        const Real x = c * a - s * b, y = s * a + c * b;
                        a = x;
                        b = y;
                    }
                    const Real x = c * v[i][p] - s * v[i][q], y = s * v[i][p] + c * v[i][q];
                    v[i][p] = x;
                    v[i][q] = y;
                }
            }
        }
    }
    Real best = k[0][0], w = v[0][0], x = v[1][0], y = v[2][0], z = v[3][0];
    for (int i = 1; i < 4; ++i) {
        const auto more = k[i][i] > best;
        best = Math::select(more, k[i][i], best);
        w = Math::select(more, v[0][i], w);
        x = Math::select(more, v[1][i], x);
        y = Math::select(more, v[2][i], y);
        z = Math::select(more, v[3][i], z);
    }
    // Row vectors: target = pose R, so R is the transpose of the usual matrix of (w, x, y, z).
    R[0] = w * w + x * x - y * y - z * z;
    R[1] = (x * y + w * z) * 2.0f;
    R[2] = (x * z - w * y) * 2.0f;
    R[3] = (x * y - w * z) * 2.0f;
    R[4] = w * w - x * x + y * y - z * z;
    R[5] = (y * z + w * x) * 2.0f;
    R[6] = (x * z + w * y) * 2.0f;
    R[7] = (y * z - w * x) * 2.0f;
    R[8] = w * w - x * x - y * y + z * z;
}

// R and a of y = a P R + mean(T), from M = P' T and square = |P|^2, P and T centred.
template <class Real, class Math>
POSEKERNELS_BOTH void fit(const Real M[9], Real square, Real R[9], Real& scale) {
    const Real one = Real{} + 1.0f;
    // The rotation does not depend on M's size, but the squares inside its search may not underflow or overflow.
    Real largest{};
    for (int i = 0; i < 9; ++i) {
        const Real size = Math::absolute(M[i]);
        largest = Math::select(largest > size, largest, size);
    }
    const Real unit = one / Math::select(largest > 0.0f, largest, one);
    Real scaled[9];
    for (int i = 0; i < 9; ++i) scaled[i] = M[i] * unit;
    rotation<Real, Math>(scaled, R);
    Real trace{};
    for (int i = 0; i < 9; ++i) trace += R[i] * M[i];
    // A pose that is a single point has no size to scale: it goes to the target's centre.
    scale = trace / Math::select(square == 0.0f, one, square);
}

// What reaches M and |P|^2 through R and a, given H = P' G, G what reaches y. The math is in the op's README.
template <class Real, class Math>
POSEKERNELS_BOTH void fit_gradient(const Real M[9], Real square, const Real R[9], Real scale, const Real H[9],
                                   Real grad_M[9], Real& grad_square) {
    Real grad_a{};
    for (int i = 0; i < 9; ++i) grad_a += H[i] * R[i];
    const Real each = grad_a / Math::select(square == 0.0f, Real{} + 1.0f, square);
    // a = tr(R' M) / |P|^2
    Real grad_R[9];
    for (int i = 0; i < 9; ++i) {
        grad_M[i] = each * R[i];
        grad_R[i] = scale * H[i] + each * M[i];
    }
    grad_square = Math::select(square == 0.0f, Real{}, -each * scale);
    // dR = R [w]x, w = (tr Q I - Q)^-1 axis(R' dM - dM' R), Q = R' M.
    Real Q[9], A[9];
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) {
            Real q{}, r{};
            for (int i = 0; i < 3; ++i) {
                q += R[3 * i + a] * M[3 * i + b];
                r += R[3 * i + a] * grad_R[3 * i + b];
            }
            Q[3 * a + b] = q;
            A[3 * a + b] = r;
        }
    const Real trace = Q[0] + Q[4] + Q[8];
    const Real axis[3] = {A[7] - A[5], A[2] - A[6], A[3] - A[1]};
    // The symmetric system, by its adjugate.
    const Real a = trace - Q[0], b = trace - Q[4], c = trace - Q[8];
    const Real d = (Q[1] + Q[3]) * -0.5f, e = (Q[2] + Q[6]) * -0.5f, f = (Q[5] + Q[7]) * -0.5f;
    const Real C00 = b * c - f * f, C01 = e * f - d * c, C02 = d * f - b * e;
    const Real C11 = a * c - e * e, C12 = d * e - a * f, C22 = a * b - d * d;
    const Real inverse = 1.0f / (a * C00 + d * C01 + e * C02);
    const Real u[3] = {(C00 * axis[0] + C01 * axis[1] + C02 * axis[2]) * inverse,
                       (C01 * axis[0] + C11 * axis[1] + C12 * axis[2]) * inverse,
                       (C02 * axis[0] + C12 * axis[1] + C22 * axis[2]) * inverse};
    // axis(R' dM - dM' R) . u = <R [u]x, dM>
    const Real cross[9] = {Real{}, -u[2], u[1], u[2], Real{}, -u[0], -u[1], u[0], Real{}};
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 3; ++k) grad_M[3 * i + j] += R[3 * i + k] * cross[3 * k + j];
}

}  // namespace procrustes
}  // namespace posekernels
