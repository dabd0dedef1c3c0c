// What the CUDA kernels over poses share: rows of joints on their way through shared memory, rows side by side.
#pragma once

#include "posekernels/gpu_products.h"

POSEKERNELS_BEGIN

constexpr int window = 17;                // joints in shared memory at a time: a skeleton
constexpr int window_pitch = 3 * window;  // odd, so that lanes with a row each meet in no bank

// f(place in the window, offset in the array) for joints first .. first + window of `rows` poses [rows, J, 3], by
// `threads` threads of which this is number `thread`; neighbours get neighbouring addresses.
template <class F>
DEVICE void each_number(int rows, int J, int first, int thread, int threads, F f) {
    const int n = 3 * (J - first < window ? J - first : window), down = threads / n, along = threads % n;
    for (int row = thread / n, column = thread % n; row < rows;) {
        f(row * window_pitch + column, row * 3 * J + 3 * first + column);
        row += down;
        column += along;
        if (column >= n) {
            column -= n;
            ++row;
        }
    }
}

// Numbers in 16 bytes, or 1 where `p` does not begin at a multiple of that.
template <class T>
DEVICE bool takes_packets(const T* p, int J) {
    return J == window && reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// The window of `rows` poses into shared memory, as float32; no barrier.
template <class T>
DEVICE void stage_joints(float* to, const T* poses, int rows, int J, int first, int thread, int threads) {
    constexpr int most = 16 / sizeof(T);
    if (takes_packets(poses, J)) {  // window and array are the same run of numbers
        const int n = rows * window_pitch, whole = n / most * most;
#pragma unroll 4
        for (int i = thread * most; i < whole; i += threads * most) {
            const Packet<T, most> given = packet<most>(poses + i);
#pragma unroll
            for (int e = 0; e < most; e += 4)
                packet<4>(to + i + e) = {to_float(given.v[e]), to_float(given.v[e + 1]), to_float(given.v[e + 2]),
                                         to_float(given.v[e + 3])};
        }
        for (int i = whole + thread; i < n; i += threads) to[i] = to_float(poses[i]);
    } else {
        each_number(rows, J, first, thread, threads, [&](int place, int at) { to[place] = to_float(poses[at]); });
    }
}

// And back.
template <class T>
DEVICE void unstage_joints(const float* from, T* poses, int rows, int J, int first, int thread, int threads) {
    constexpr int most = 16 / sizeof(T);
    if (takes_packets(poses, J)) {
        const int n = rows * window_pitch, whole = n / most * most;
        for (int i = thread * most; i < whole; i += threads * most) {
            Packet<T, most> given;
#pragma unroll
            for (int e = 0; e < most; ++e) given.v[e] = from_float<T>(from[i + e]);
            packet<most>(poses + i) = given;
        }
        for (int i = whole + thread; i < n; i += threads) poses[i] = from_float<T>(from[i]);
    } else {
        each_number(rows, J, first, thread, threads,
                    [&](int place, int at) { poses[at] = from_float<T>(from[place]); });
    }
}

// A block over rows of n numbers, as many rows side by side as it has threads for: f(place in the row, first row of
// this thread, rows to its next). What depends on the place alone is worked out once per thread.
template <class F>
DEVICE void rows_abreast(int n, F f) {
    const int rows = n < Tile::threads ? Tile::threads / n : 1;
    for (int i = threadIdx.x; i < rows * n; i += Tile::threads) f(i % n, i / n, rows);
}

// Rows for each of enough blocks to fill a large device several times, a multiple of `abreast`.
inline int64_t rows_per_block(int64_t rows, int64_t abreast) {
    const int64_t rounds = rows / (abreast * 4096);
    return abreast * (rounds < 1 ? 1 : rounds > 8 ? 8 : rounds);
}

POSEKERNELS_END
