// matrix.cpp: ldmatrix and mma.sync
//
// Fragments are those of the PTX ISA: lane l holds, of an 8x8 matrix, the two neighbours (l / 4, 2 (l % 4)) and one further.
#include <cstring>

#include "tile.h"

namespace simt::SIMT_VARIANT {

template <bool kTranspose>
static void ldmatrix(void* const* args, uint32_t mask) {
    constexpr uint32_t kRowBytes = 16;
    if (mask != kFullMask) {
        fail("ldmatrix needs all lanes of the warp");
    }
    for (int matrix = 0; matrix < 4; matrix++) {
        const uint16_t* row[8];
        for (int i = 0; i < 8; i++) {
            const uint32_t address = ((LdmatrixArgs*)args[matrix * 8 + i])->addr;
            if (address % kRowBytes != 0) {
                fail("ldmatrix: the row address 0x%x of lane %d is not 16-byte aligned", address, matrix * 8 + i);
            }
            row[i] = (const uint16_t*)shared_at(address, kRowBytes);
            saw(row[i], kRowBytes, Access::Read);
        }
        for (uint32_t lane = 0; lane < kWarpSize; lane++) {
            const uint32_t i = lane / 4, j = lane % 4 * 2;
            const uint32_t lo = kTranspose ? row[j][i] : row[i][j];
            const uint32_t hi = kTranspose ? row[j + 1][i] : row[i][j + 1];
            ((LdmatrixArgs*)args[lane])->r[matrix] = lo | hi << 16;
        }
    }
}

static void mma(void* const* args, uint32_t mask) {
    if (mask != kFullMask) {
        fail("mma needs all lanes of the warp");
    }
    float a[16][16];
    alignas(32) float b[16][8], d[16][8];
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        const MmaArgs& x = *(const MmaArgs*)args[lane];
        const uint32_t g = lane / 4, t = lane % 4 * 2;
        split(&a[g][t], x.a[0]);
        split(&a[g + 8][t], x.a[1]);
        split(&a[g][t + 8], x.a[2]);
        split(&a[g + 8][t + 8], x.a[3]);
        b[t][g] = bf_lo(x.b0);
        b[t + 1][g] = bf_hi(x.b0);
        b[t + 8][g] = bf_lo(x.b1);
        b[t + 9][g] = bf_hi(x.b1);
        memcpy(&d[g][t], &x.d[0], 2 * sizeof(float));
        memcpy(&d[g + 8][t], &x.d[2], 2 * sizeof(float));
    }
    multiply_tile(&a[0], &b[0][0], 8, &d[0][0], 8);
    multiply_tile(&a[8], &b[0][0], 8, &d[8][0], 8);
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        const MmaArgs& x = *(const MmaArgs*)args[lane];
        const uint32_t g = lane / 4, t = lane % 4 * 2;
        memcpy(&x.d[0], &d[g][t], 2 * sizeof(float));
        memcpy(&x.d[2], &d[g + 8][t], 2 * sizeof(float));
    }
}

extern const Collective kLdmatrix{"ldmatrix", ldmatrix<false>};
extern const Collective kLdmatrixTrans{"ldmatrix.trans", ldmatrix<true>};
extern const Collective kMma{"mma.sync", mma};

}  // namespace simt::SIMT_VARIANT
