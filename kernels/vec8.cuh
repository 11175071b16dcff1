// vec8: eight neighbouring bf16 values as one 16-byte access, or four as one of 8 bytes
#pragma once
#include "ptx.cuh"

constexpr int kVec = 8;
constexpr int kValueBytes = 2;  // of a bf16

// Elements from one row of a matrix to the next where rows are whole vectors: what the kernels of matmul read and write.
DEV int padded(int width) { return (width + kVec - 1) / kVec * kVec; }

DEV uint4 load8(const bf16* p) { return *(const uint4*)p; }
DEV void store8(bf16* p, uint4 v) { *(uint4*)p = v; }

DEV void unpack8(float (&f)[8], uint4 v) {
    f[0] = bf_lo(v.x), f[1] = bf_hi(v.x), f[2] = bf_lo(v.y), f[3] = bf_hi(v.y);
    f[4] = bf_lo(v.z), f[5] = bf_hi(v.z), f[6] = bf_lo(v.w), f[7] = bf_hi(v.w);
}

// Rounds to nearest even.
DEV uint4 pack8(const float (&f)[8]) {
    return make_uint4(pack_bf16(f[0], f[1]), pack_bf16(f[2], f[3]), pack_bf16(f[4], f[5]), pack_bf16(f[6], f[7]));
}

DEV uint2 load4(const bf16* p) { return *(const uint2*)p; }
DEV void store4(bf16* p, uint2 v) { *(uint2*)p = v; }
DEV void unpack4(float (&f)[4], uint2 v) { f[0] = bf_lo(v.x), f[1] = bf_hi(v.x), f[2] = bf_lo(v.y), f[3] = bf_hi(v.y); }
DEV uint2 pack4(const float (&f)[4]) { return make_uint2(pack_bf16(f[0], f[1]), pack_bf16(f[2], f[3])); }
