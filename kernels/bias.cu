// bias: of a projection (Qwen2's q, k and v)
//   forward   y = x + b
//   backward  db = sum over rows dy  (dx = dy: nothing to do)
//   shapes    x, y, dy: (rows, cols)   b: (cols)   partial: (parts, cols) f32; cols a multiple of 8
//   launch    as in columns.cuh; sum_rows adds the parts
//   numerics  f32; y is rounded once. A sum's order depends on cols, rows and parts only.
#include "ptx.cuh"
#include "columns.cuh"
#include "vec8.cuh"

constexpr int kThreads = 256;

KERNEL(kThreads) bias_fwd(bf16* __restrict__ y, const bf16* __restrict__ x, const bf16* __restrict__ b, int rows, int cols,
                          int team) {
    const Columns<kThreads> c(rows, cols, team);
    float add[8] = {};
    if (c.col < cols) unpack8(add, load8(b + c.col));
    #pragma unroll 4
    for (int64_t row = c.first; row < c.last; row += c.teams) {
        float f[8];
        unpack8(f, load8(x + row * cols + c.col));
        #pragma unroll
        for (int i = 0; i < 8; i++) f[i] += add[i];
        store8(y + row * cols + c.col, pack8(f));
    }
}

KERNEL(kThreads) bias_bwd(float* __restrict__ partial, const bf16* __restrict__ dy, int rows, int cols, int team) {
    const Columns<kThreads> c(rows, cols, team);
    float sum[8] = {};
    #pragma unroll 4
    for (int64_t row = c.first; row < c.last; row += c.teams) {
        float f[8];
        unpack8(f, load8(dy + row * cols + c.col));
        #pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += f[i];
    }
    c.store_sums(partial, sum);
}
