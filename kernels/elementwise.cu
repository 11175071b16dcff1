// elementwise: arithmetic that no fused op covers
//   add         y = a + b                    add_assign  sum = sum + x
//   scale       y = factor x                 convert     y = x as f32
//   sum_rows    out[i] = sum over p of partial[p, i]
//   shapes      all (n), except partial: (parts, n). y may be a or x itself.
//   launch      as in stream.cuh.
//               sum_rows: grid (ceil(n / kColumns)); a block's kRanks threads per column take its parts in turn.
//   numerics    f32, rounded once where y is bf16. sum_rows adds the parts r, r + kRanks, ... for every rank r, then the ranks:
//               the order depends on `parts` only.
#include "ptx.cuh"
#include "stream.cuh"

constexpr int kThreads = 256;
constexpr int kColumns = 32;
constexpr int kRanks = kThreads / kColumns;

template <int kWide, class T> DEV void add_to(T* y, const T* a, const T* b, int64_t n) {
    each<kThreads, kWide>(y, {a, b}, n, [](const float (&x)[2]) { return x[0] + x[1]; });
}

template <int kWide, class T> DEV void scale_to(T* y, const T* x, int64_t n, float factor) {
    each<kThreads, kWide>(y, {x}, n, [factor](const float (&v)[1]) { return factor * v[0]; });
}

KERNEL(kThreads) add_bf16(bf16* y, const bf16* a, const bf16* b, int64_t n) { add_to<kWideBf16>(y, a, b, n); }

KERNEL(kThreads) add_f32(float* y, const float* a, const float* b, int64_t n) { add_to<kWideF32>(y, a, b, n); }

KERNEL(kThreads) add_assign_bf16(bf16* sum, const bf16* x, int64_t n) { add_to<kWideBf16>(sum, sum, x, n); }

KERNEL(kThreads) add_assign_f32(float* sum, const float* x, int64_t n) { add_to<kWideF32>(sum, sum, x, n); }

KERNEL(kThreads) scale_bf16(bf16* y, const bf16* x, int64_t n, float factor) { scale_to<kWideBf16>(y, x, n, factor); }

KERNEL(kThreads) scale_f32(float* y, const float* x, int64_t n, float factor) { scale_to<kWideF32>(y, x, n, factor); }

KERNEL(kThreads) convert_bf16_f32(float* y, const bf16* x, int64_t n) {
    each<kThreads, kWideF32>(y, {x}, n, [](const float (&v)[1]) { return v[0]; });
}

KERNEL(kThreads) sum_rows(float* __restrict__ out, const float* __restrict__ partial, int parts, int64_t n) {
    const int column = threadIdx.x % kColumns, rank = threadIdx.x / kColumns;
    const int64_t at = (int64_t)blockIdx.x * kColumns + column;
    SHARED(float, sums, kThreads);
    float sum = 0.0f;
    if (at < n) {
        #pragma unroll 4
        for (int p = rank; p < parts; p += kRanks) sum += partial[p * n + at];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (rank == 0 && at < n) {
        for (int r = 1; r < kRanks; r++) sum += sums[r * kColumns + column];
        out[at] = sum;
    }
}
