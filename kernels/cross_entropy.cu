// cross_entropy: loss and gradient of rows of logits, and the packing of the rows that count
//   forward   nll[n] = log sum_v exp z[n,v] - z[n, targets[n]],   loss = scale * sum_n weights[n] nll[n]
//   backward  dz[n,v] = scale weights[n] (exp z[n,v] / sum exp z[n] - [v = targets[n]])
//   packing   embedding_fwd gathers the rows that count; scatter_rows and scatter_values: dst[index[n]] = src[n], others untouched
//   shapes    z: (rows, V) f32   dz: (rows, V)   both with rows padded to a multiple of 8, as matmul reads and writes them
//             targets, weights, nll, index: (rows), packed: only rows that count   loss: (1)
//             src, dst: (.., cols), cols a multiple of 8
//   launch    grid (rows): a block per row, which it reads twice (cross_entropy_rows) or once (cross_entropy_nll);
//             scatter_values: a thread per value; weighted_sum: one block
//   numerics  one pass gives maximum and sum, each thread rescaling its sum when its maximum rises; f32; dz is rounded once, its
//             padding is zero; the loss is summed in f64. Every order is fixed by V and rows alone.
#include "ptx.cuh"
#include "reduce.cuh"
#include "vec8.cuh"

constexpr int kThreads = 256;

struct Softmax {
    float max, sum;
};

// Eight logits, of which `left` are in the row; -inf for the others, which adds nothing to either statistic.
DEV void load_logits(float (&f)[kVec], const float* z, int left) {
    const float4 v = *(const float4*)z, w = *(const float4*)(z + 4);
    f[0] = v.x, f[1] = v.y, f[2] = v.z, f[3] = v.w;
    f[4] = w.x, f[5] = w.y, f[6] = w.z, f[7] = w.w;
    #pragma unroll
    for (int i = 0; i < kVec; i++) f[i] = i < left ? f[i] : -INFINITY;
}

DEV Softmax row_softmax(const float* z, int vocab) {
    Softmax s = {-INFINITY, 0.0f};
    #pragma unroll 2
    for (int c = threadIdx.x * kVec; c < vocab; c += kThreads * kVec) {
        float f[kVec];
        load_logits(f, z + c, vocab - c);
        float top = s.max;
        #pragma unroll
        for (int i = 0; i < kVec; i++) top = fmaxf(top, f[i]);
        s.sum *= expf(s.max - top);
        #pragma unroll
        for (int i = 0; i < kVec; i++) s.sum += expf(f[i] - top);
        s.max = top;
    }
    const float max = block_max<kThreads>(s.max);
    return {max, block_sum<kThreads>(s.sum * expf(s.max - max))};
}

DEV void store_nll(float* nll, const Softmax& s, const float* z, uint32_t target) {
    if (threadIdx.x == 0) nll[blockIdx.x] = logf(s.sum) + s.max - z[target];
}

KERNEL(kThreads) cross_entropy_rows(bf16* __restrict__ dz, float* __restrict__ nll, const float* __restrict__ z,
                                    const uint32_t* __restrict__ targets, const float* __restrict__ weights, int vocab,
                                    float scale) {
    const int64_t row = (int64_t)blockIdx.x * padded(vocab);
    const int target = (int)targets[blockIdx.x];
    const Softmax s = row_softmax(z + row, vocab);
    store_nll(nll, s, z + row, target);
    const float factor = scale * weights[blockIdx.x], over = factor / s.sum;
    #pragma unroll 2
    for (int c = threadIdx.x * kVec; c < vocab; c += kThreads * kVec) {
        float f[kVec];
        load_logits(f, z + row + c, vocab - c);
        #pragma unroll
        for (int i = 0; i < kVec; i++) {
            f[i] = expf(f[i] - s.max) * over;
            if (c + i == target) f[i] -= factor;
        }
        store8(dz + row + c, pack8(f));
    }
}

KERNEL(kThreads) cross_entropy_nll(float* __restrict__ nll, const float* __restrict__ z, const uint32_t* __restrict__ targets,
                                   int vocab) {
    const float* row = z + (int64_t)blockIdx.x * padded(vocab);
    store_nll(nll, row_softmax(row, vocab), row, targets[blockIdx.x]);
}

KERNEL(kThreads) weighted_sum(float* __restrict__ loss, const float* __restrict__ nll, const float* __restrict__ weights,
                              int rows, float scale) {
    double sum = 0.0;
    for (int n = threadIdx.x; n < rows; n += kThreads) sum += (double)nll[n] * (double)weights[n];
    sum = block_sum<kThreads>(sum);
    if (threadIdx.x == 0) *loss = (float)(sum * (double)scale);
}

KERNEL(kThreads) scatter_rows(bf16* __restrict__ dst, const bf16* __restrict__ src, const uint32_t* __restrict__ index,
                              int cols) {
    bf16* to = dst + (int64_t)index[blockIdx.x] * cols;
    const bf16* from = src + (int64_t)blockIdx.x * cols;
    #pragma unroll 2
    for (int c = threadIdx.x * kVec; c < cols; c += kThreads * kVec) store8(to + c, load8(from + c));
}

KERNEL(kThreads) scatter_values(float* __restrict__ dst, const float* __restrict__ src, const uint32_t* __restrict__ index,
                                int rows) {
    const int64_t n = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (n < rows) dst[index[n]] = src[n];
}
