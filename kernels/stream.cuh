// stream: element-wise passes over n values, however many: 16-byte accesses for whole groups, single ones for the tail
//   group     eight values where all tensors are bf16, four where one is f32
//   launch    grid (ceil(n / (kThreads kGroups kWide))), kWide as below; a thread reads kGroups groups before it writes the first
#pragma once
#include "ptx.cuh"
#include "vec8.cuh"

constexpr int kGroups = 2;
constexpr int kWideBf16 = 8;
constexpr int kWideF32 = 4;

DEV void load_group(float (&f)[8], const bf16* p) { unpack8(f, load8(p)); }
DEV void store_group(bf16* p, const float (&f)[8]) { store8(p, pack8(f)); }

DEV void load_group(float (&f)[4], const bf16* p) { unpack4(f, load4(p)); }
DEV void store_group(bf16* p, const float (&f)[4]) { store4(p, pack4(f)); }

DEV void load_group(float (&f)[4], const float* p) {
    const float4 v = *(const float4*)p;
    f[0] = v.x, f[1] = v.y, f[2] = v.z, f[3] = v.w;
}
DEV void store_group(float* p, const float (&f)[4]) { *(float4*)p = make_float4(f[0], f[1], f[2], f[3]); }

DEV void load_group(float (&f)[8], const float* p) {
    const float4 v = *(const float4*)p, w = *(const float4*)(p + 4);
    f[0] = v.x, f[1] = v.y, f[2] = v.z, f[3] = v.w;
    f[4] = w.x, f[5] = w.y, f[6] = w.z, f[7] = w.w;
}
DEV void store_group(float* p, const float (&f)[8]) {
    *(float4*)p = make_float4(f[0], f[1], f[2], f[3]);
    *(float4*)(p + 4) = make_float4(f[4], f[5], f[6], f[7]);
}

DEV float widen(bf16 v) { return bf2f(v); }
DEV float widen(float v) { return v; }
DEV void narrow(bf16* p, float v) { *p = f2bf(v); }
DEV void narrow(float* p, float v) { *p = v; }

// The first `left` of a group's values at p, zeros for the rest; nothing when left <= 0.
template <int kWide, class T> DEV void take(float (&f)[kWide], const T* p, int64_t left) {
    if (left >= kWide) {
        load_group(f, p);
    } else {
        #pragma unroll
        for (int i = 0; i < kWide; i++) f[i] = i < left ? widen(p[i]) : 0.0f;
    }
}

template <int kWide, class T> DEV void put(T* p, const float (&f)[kWide], int64_t left) {
    if (left >= kWide) {
        store_group(p, f);
    } else {
        #pragma unroll
        for (int i = 0; i < kWide; i++) {
            if (i < left) narrow(p + i, f[i]);
        }
    }
}

// First element of this thread's group g.
template <int kThreads, int kWide> DEV int64_t group_at(int g) {
    return (((int64_t)blockIdx.x * kGroups + g) * kThreads + threadIdx.x) * kWide;
}

// y[i] = f(x[0][i], x[1][i], ...); y may be one of the x.
template <int kThreads, int kWide, int kInputs, class Out, class In, class F>
DEV void each(Out* y, const In* const (&x)[kInputs], int64_t n, F f) {
    float v[kGroups][kInputs][kWide];
    #pragma unroll
    for (int g = 0; g < kGroups; g++) {
        const int64_t at = group_at<kThreads, kWide>(g);
        #pragma unroll
        for (int k = 0; k < kInputs; k++) take(v[g][k], x[k] + at, n - at);
    }
    #pragma unroll
    for (int g = 0; g < kGroups; g++) {
        const int64_t at = group_at<kThreads, kWide>(g);
        float result[kWide];
        #pragma unroll
        for (int i = 0; i < kWide; i++) {
            float column[kInputs];
            #pragma unroll
            for (int k = 0; k < kInputs; k++) column[k] = v[g][k][i];
            result[i] = f(column);
        }
        put(y + at, result, n - at);
    }
}
