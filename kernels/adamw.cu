// adamw: one update of all trained tensors (Loshchilov & Hutter 2019, algorithm 2, as PyTorch's fused AdamW does it)
//   norm      sqrt(sum of g^2 over all tensors),  clip = min(1, max_norm / (norm + 1e-6)),  g = clip g
//   update    m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
//             p = p - lr weight_decay p - lr (m / correction1) / (sqrt(v / correction2) + eps),  correction = 1 - beta^step
//   tables    tensors: six numbers per tensor, the addresses of param (bf16), master, grad, m, v (f32) and the count of elements
//             rates: lr and weight_decay per tensor   chunks: tensor and index of the chunk in it, for every kChunk elements
//             partial: one f64 per chunk   norm: one f32
//   launch    adamw_squares: grid (any), then adamw_step: grid (any); blocks take chunks in turn. Every block of adamw_step first
//             adds all of `partial`, so a few blocks per multiprocessor are better than one per chunk.
//   numerics  squares are summed in f64, threads, chunks and blocks in one order whatever the grid; the update in f32 on the
//             master copy, whose rounding (to nearest even) is written to param in the same pass. max_norm = infinity clips
//             nothing. If the norm is not finite, no tensor is changed; norm[0] tells.
#include "ptx.cuh"
#include "reduce.cuh"
#include "stream.cuh"

constexpr int kThreads = 256;
constexpr int kChunk = 16384;
constexpr int kFields = 6;

// A chunk of one tensor: what is left of the tensor from the chunk's first element on, and its pointers there.
struct Chunk {
    bf16* param;
    float *master, *grad, *m, *v;
    uint32_t tensor;
    int64_t left;

    DEV Chunk(const uint64_t* tensors, const uint32_t* chunks, int chunk) : tensor(chunks[2 * chunk]) {
        const int64_t first = (int64_t)chunks[2 * chunk + 1] * kChunk;
        const uint64_t* t = tensors + (int64_t)tensor * kFields;
        param = (bf16*)t[0] + first;
        master = (float*)t[1] + first;
        grad = (float*)t[2] + first;
        m = (float*)t[3] + first;
        v = (float*)t[4] + first;
        left = (int64_t)t[5] - first;
    }
};

KERNEL(kThreads) adamw_squares(double* partial, const uint64_t* tensors, const uint32_t* chunks, int count) {
    for (int chunk = blockIdx.x; chunk < count; chunk += gridDim.x) {
        const Chunk c(tensors, chunks, chunk);
        double sum = 0.0;
        #pragma unroll 4
        for (int at = threadIdx.x * kWideF32; at < kChunk; at += kThreads * kWideF32) {
            float g[kWideF32];
            take(g, c.grad + at, c.left - at);
            #pragma unroll
            for (int i = 0; i < kWideF32; i++) sum += (double)g[i] * (double)g[i];
        }
        sum = block_sum<kThreads>(sum);
        if (threadIdx.x == 0) partial[chunk] = sum;
    }
}

KERNEL(kThreads) adamw_step(float* norm, const double* partial, const uint64_t* tensors, const float* rates,
                            const uint32_t* chunks, int count, float beta1, float beta2, float eps, float correction1,
                            float correction2, float max_norm) {
    double squares = 0.0;
    for (int i = threadIdx.x; i < count; i += kThreads) squares += partial[i];
    const float total = (float)sqrt(block_sum<kThreads>(squares));
    if (blockIdx.x == 0 && threadIdx.x == 0) norm[0] = total;
    const float clip = fminf(1.0f, max_norm / (total + 1e-6f));
    const float root = 1.0f / correction2;
    const int chunks_done = total < INFINITY ? count : 0;  // false for NaN, too
    for (int chunk = blockIdx.x; chunk < chunks_done; chunk += gridDim.x) {
        const Chunk c(tensors, chunks, chunk);
        const float lr = rates[2 * c.tensor], keep = 1.0f - lr * rates[2 * c.tensor + 1], rate = lr / correction1;
        for (int at = threadIdx.x * kWideF32; at < kChunk && at < c.left; at += kThreads * kWideF32) {
            const int64_t left = c.left - at;
            float p[kWideF32], g[kWideF32], m[kWideF32], v[kWideF32];
            take(p, c.master + at, left);
            take(g, c.grad + at, left);
            take(m, c.m + at, left);
            take(v, c.v + at, left);
            #pragma unroll
            for (int i = 0; i < kWideF32; i++) {
                g[i] *= clip;
                m[i] = beta1 * m[i] + (1.0f - beta1) * g[i];
                v[i] = beta2 * v[i] + (1.0f - beta2) * (g[i] * g[i]);
                p[i] = keep * p[i] - rate * (m[i] / (sqrtf(v[i] * root) + eps));
            }
            put(c.master + at, p, left);
            put(c.m + at, m, left);
            put(c.v + at, v, left);
            put(c.param + at, p, left);
        }
    }
}
