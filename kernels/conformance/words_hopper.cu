// words_hopper: as words.cu, for the instructions of Hopper (sm_90a only)
//   forward   each kernel says what it writes
//   shapes    arrays of 32-bit words, floats, or per-thread registers in order of threads; images of shared memory as they lie
//   launch    grid (1)
//   numerics  exact, but for sums of products in f32
#include "ptx.cuh"

constexpr int kWarp = 32;
constexpr int kGroup = 128;         // threads of a warpgroup
constexpr int kTileBytes = 8192;    // 64 rows of 64 bf16, an operand of four wgmma
constexpr int kTileWords = 2048;
constexpr int kOperands = 16384;    // two tiles
constexpr int kBoxBytes = 65536;    // at most, of a TMA copy
constexpr int kBoxShared = 65600;   // and a barrier
constexpr int kRegisters = 32;      // accumulators of a thread

// y[thread] = whether it was elected
KERNEL(kGroup) conform_elect(uint32_t* y) { y[threadIdx.x] = elect_one() ? 1 : 0; }

// Warp 0 hands `rounds` rows of x to warp 1, which reverses them, through one buffer that is full or empty.
KERNEL(64) conform_mbarrier(uint32_t* y, const uint32_t* x, int rounds) {
    SHARED(uint64_t, bars, 2);
    SHARED(uint32_t, s, kWarp);
    const uint32_t full = smem_u32(&bars[0]), empty = smem_u32(&bars[1]);
    const int lane = threadIdx.x % kWarp;
    if (threadIdx.x == 0) {
        mbar_init(full, kWarp);
        mbar_init(empty, kWarp);
        fence_mbar_init();
    }
    __syncthreads();
    for (int round = 0; round < rounds; round++) {
        if (threadIdx.x < kWarp) {
            mbar_wait(empty, (round & 1) ^ 1);  // of a new barrier the phase before the first counts as over
            s[lane] = x[round * kWarp + lane];
            mbar_arrive(full);
        } else {
            mbar_wait(full, round & 1);
            y[round * kWarp + lane] = s[kWarp - 1 - lane];
            mbar_arrive(empty);
        }
    }
}

// y = the words of shared memory, which were all ones, after the box at (column, row) was loaded
KERNEL(kGroup, kBoxShared)
conform_tma_load(uint32_t* y, const __grid_constant__ TensorMap m, int column, int row, int words) {
    SHARED_DYN(bytes);
    uint32_t* s = (uint32_t*)bytes;
    const uint32_t bar = smem_u32(bytes) + kBoxBytes;
    for (int i = threadIdx.x; i < words; i += kGroup) s[i] = ~0u;
    fence_proxy_async();
    if (threadIdx.x == 0) {
        tma_prefetch(&m);
        mbar_init(bar, 1);
        fence_mbar_init();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        mbar_arrive_expect_tx(bar, words * 4);
        tma_load_2d(smem_u32(s), &m, column, row, bar);
    }
    mbar_wait(bar, 0);
    for (int i = threadIdx.x; i < words; i += kGroup) y[i] = s[i];
}

// Stores the words of x, as they lie in shared memory, to the box at (column, row); then a second group changes the first 16
// bytes and stores again.
KERNEL(kGroup, kBoxBytes)
conform_tma_store(const uint32_t* x, const __grid_constant__ TensorMap m, int column, int row, int words) {
    SHARED_DYN(bytes);
    uint32_t* s = (uint32_t*)bytes;
    for (int i = threadIdx.x; i < words; i += kGroup) s[i] = x[i];
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        tma_store_2d(&m, smem_u32(s), column, row);
        tma_store_commit();
        tma_store_wait<0>();
        for (int i = 0; i < 4; i++) s[i] = ~s[i];
        fence_proxy_async();
        tma_store_2d(&m, smem_u32(s), column, row);
        tma_store_commit();
        tma_store_wait<0>();
    }
}

DEV uint32_t load_operands(const uint32_t* a, const uint32_t* b, uint8_t* bytes) {
    uint32_t* s = (uint32_t*)bytes;
    for (int i = threadIdx.x; i < kTileWords; i += kGroup) {
        s[i] = a[i];
        s[kTileWords + i] = b[i];
    }
    fence_proxy_async();
    __syncthreads();
    return smem_u32(bytes);
}

DEV void load_sums(float (&sum)[kRegisters], const float* c) {
    #pragma unroll
    for (int i = 0; i < kRegisters; i++) sum[i] = c[threadIdx.x * kRegisters + i];
    wgmma_fence();
}

DEV void store_sums(float* d, float (&sum)[kRegisters]) {
    wgmma_commit();
    wgmma_wait<0>();
    #pragma unroll
    for (int i = 0; i < kRegisters; i++) d[threadIdx.x * kRegisters + i] = sum[i];
}

// a, b: images of 64 rows of 64 bf16, swizzled by 128 bytes; c, d: accumulators in order of threads. The product of step k takes
// the columns 16 k to 16 k + 15 of both; accumulate 0 forgets c.
KERNEL(kGroup, kOperands)
conform_wgmma(float* d, const uint32_t* a, const uint32_t* b, const float* c, int k, int accumulate) {
    SHARED_DYN(bytes);
    const uint32_t base = load_operands(a, b, bytes);
    float sum[kRegisters];
    load_sums(sum, c);
    wgmma_m64n64k16(sum, wgmma_desc_sw128(base) + 2 * k, wgmma_desc_sw128(base + kTileBytes) + 2 * k, accumulate);
    store_sums(d, sum);
}

// The same, b stored as 64 rows of k with 64 columns of n: step k takes its rows 16 k to 16 k + 15.
KERNEL(kGroup, kOperands)
conform_wgmma_tb(float* d, const uint32_t* a, const uint32_t* b, const float* c, int k, int accumulate) {
    SHARED_DYN(bytes);
    const uint32_t base = load_operands(a, b, bytes);
    float sum[kRegisters];
    load_sums(sum, c);
    wgmma_m64n64k16_tb(sum, wgmma_desc_sw128(base) + 2 * k, wgmma_desc_sw128(base + kTileBytes) + 128 * k, accumulate);
    store_sums(d, sum);
}

// All four steps in two groups of two, of which the first is waited for alone. d = the sums after the first, then after both
KERNEL(kGroup, kOperands) conform_wgmma_groups(float* d, const uint32_t* a, const uint32_t* b) {
    SHARED_DYN(bytes);
    const uint32_t base = load_operands(a, b, bytes);
    const uint64_t da = wgmma_desc_sw128(base), db = wgmma_desc_sw128(base + kTileBytes);
    float first[kRegisters], second[kRegisters];
    wgmma_fence();
    wgmma_m64n64k16(first, da, db, 0);
    wgmma_m64n64k16(first, da + 2, db + 2, 1);
    wgmma_commit();
    wgmma_fence();
    wgmma_m64n64k16(second, da + 4, db + 4, 0);
    wgmma_m64n64k16(second, da + 6, db + 6, 1);
    wgmma_commit();
    wgmma_wait<1>();
    #pragma unroll
    for (int i = 0; i < kRegisters; i++) d[threadIdx.x * kRegisters + i] = first[i];
    wgmma_wait<0>();
    float* both = d + kGroup * kRegisters;
    #pragma unroll
    for (int i = 0; i < kRegisters; i++) both[threadIdx.x * kRegisters + i] = first[i] + second[i];
}

// One warpgroup of three starts with 168 registers a thread, as the others, and gives 128 of them away, 64 to each: only then can
// those go on. y[thread] = x[thread] + 1
KERNEL(3 * kGroup, 0, 1) conform_setmaxnreg(uint32_t* y, const uint32_t* x) {
    if (threadIdx.x < kGroup) {
        setmaxnreg_dec<40>();
        y[threadIdx.x] = x[threadIdx.x] + 1;
    } else {
        setmaxnreg_inc<232>();
        y[threadIdx.x] = x[threadIdx.x] + 1;
    }
}
