// tile.h: the product that mma and wgmma are made of
#pragma once
#include "runtime.h"

namespace simt::SIMT_VARIANT {

typedef float Row8 __attribute__((vector_size(32)));

static inline void split(float* out, uint32_t pair) {
    out[0] = bf_lo(pair);
    out[1] = bf_hi(pair);
}

// d (8x8) += a (8x16) b (16x8). Eight sums that do not wait for each other.
static inline void multiply_tile(const float (*a)[16], const float* b, int b_stride, float* d, int d_stride) {
    Row8 sum[8];
    for (int i = 0; i < 8; i++) {
        sum[i] = *(const Row8*)(d + i * d_stride);
    }
    for (int k = 0; k < 16; k++) {
        const Row8 row = *(const Row8*)(b + k * b_stride);
        for (int i = 0; i < 8; i++) {
            sum[i] += a[i][k] * row;
        }
    }
    for (int i = 0; i < 8; i++) {
        *(Row8*)(d + i * d_stride) = sum[i];
    }
}

}  // namespace simt::SIMT_VARIANT
