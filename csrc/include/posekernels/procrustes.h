// The best rotation of one 3 x 3 moment matrix, on scalars or vectors: shared by the CPU kernel (a pose per lane) and
// the CUDA kernel (a pose per thread). Horn, JOSA A 1987: the rotation as a unit quaternion maximises q' K q for a
// symmetric 4 x 4 matrix K, whose largest eigenvector Jacobi's method finds without branches.
#pragma once

#if defined(__CUDACC__)
#define POSEKERNELS_ROTATION __host__ __device__ __forceinline__
#else
#define POSEKERNELS_ROTATION inline __attribute__((always_inline))
#endif

namespace posekernels {
namespace procrustes {

constexpr int sweeps = 6;  // converges quadratically: 4 reach float precision from anywhere, the rest is margin

// Math: root(x), select(condition, a, b), absolute(x) on Real.
// M[3 a + b] = sum over joints of pose[a] target[b], both centred; any scale. R[3 a + b]: pose R comes nearest target.
template <class Real, class Math>
POSEKERNELS_ROTATION void rotation(const Real M[9], Real R[9]) {
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
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC unroll 4
#endif
        for (int p = 0; p < 3; ++p) {
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC unroll 4
#endif
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

}  // namespace procrustes
}  // namespace posekernels
