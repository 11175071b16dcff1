// swiglu: the gate of Llama's MLP
//   forward   y = silu(g) u,  silu(g) = g s,  s = 1 / (1 + exp(-g))
//   backward  du = dy g s,  dg = dy u s (1 + g (1 - s))
//   shapes    all (n); n has 64 bits: tokens times the width of the MLP soon exceed 32
//   launch    as in stream.cuh
//   numerics  f32, one rounding per result (silu(g) is not rounded on its own). exp and the reciprocal are the hardware's, each
//             within 2^-22 of the value; below g = -87 the sum leaves the range of f32 and s is 0, its limit.
#include "ptx.cuh"
#include "stream.cuh"

constexpr int kThreads = 256;

DEV float sigmoid(float g) { return rcp(1.0f + ex2(-kLog2e * g)); }

KERNEL(kThreads) swiglu_fwd(bf16* __restrict__ y, const bf16* __restrict__ gate, const bf16* __restrict__ up, int64_t n) {
    each<kThreads, kWideBf16>(y, {gate, up}, n, [](const float (&x)[2]) { return x[0] * sigmoid(x[0]) * x[1]; });
}

KERNEL(kThreads) swiglu_bwd(bf16* __restrict__ dgate, bf16* __restrict__ dup, const bf16* __restrict__ dy,
                            const bf16* __restrict__ gate, const bf16* __restrict__ up, int64_t n) {
    float d[kGroups][kWideBf16], g[kGroups][kWideBf16], u[kGroups][kWideBf16];
    #pragma unroll
    for (int k = 0; k < kGroups; k++) {
        const int64_t at = group_at<kThreads, kWideBf16>(k);
        take(d[k], dy + at, n - at);
        take(g[k], gate + at, n - at);
        take(u[k], up + at, n - at);
    }
    #pragma unroll
    for (int k = 0; k < kGroups; k++) {
        const int64_t at = group_at<kThreads, kWideBf16>(k);
        float dg[kWideBf16], du[kWideBf16];
        #pragma unroll
        for (int i = 0; i < kWideBf16; i++) {
            const float x = g[k][i], s = sigmoid(x);
            du[i] = d[k][i] * (x * s);
            dg[i] = d[k][i] * u[k][i] * (s * (1.0f + x * (1.0f - s)));
        }
        put(dgate + at, dg, n - at);
        put(dup + at, du, n - at);
    }
}
