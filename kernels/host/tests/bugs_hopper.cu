// bugs_hopper: as bugs.cu, for the instructions of Hopper
//   forward   c = a b^T, by a ring of stages that TMA fills and wgmma empties (store_*: y = x, by a TMA store)
//   shapes    a, b: (64, 64 steps) bf16   c: (64, 64) f32   x: (64, 64) bf16   y: (64, 64) bf16
//   launch    grid (1): threads 0-127 load, threads 128-255 multiply; tensor maps of a and b have boxes of (64, 64), swizzled by
//             128 bytes, that of y is not swizzled
//   numerics  sums in f32
// <mistake>_right is one kernel for all mistakes of the ring, ring_right.
#include "ptx.cuh"

constexpr int kGroup = 128;  // threads of a warpgroup
constexpr int kThreads = 2 * kGroup;
constexpr int kTile = 64;
constexpr int kDepth = 16;  // of one wgmma
constexpr int kStages = 2;
constexpr int kTileBytes = 8192;  // 64 rows of 64 bf16
constexpr int kStageBytes = 2 * kTileBytes;
constexpr int kRingBytes = kStages * kStageBytes;
constexpr int kBarrierBytes = 64;
constexpr int kSharedBytes = kRingBytes + kBarrierBytes;

enum class Mistake {
    None,
    EmptyWait,      // a stage is filled again without waiting until it is empty. Race build: RACE. Late-async: wrong
    FullWait,       // a stage is read without waiting until it is full. Race build: RACE. Late-async: NaN
    EarlyRelease,   // a stage is given back before its products are done. Race build: RACE
    TouchInFlight,  // an accumulator is changed while a product uses it. Late-async: an error
    NoFence,        // no wgmma.fence before the products. Every mode: an error
    TooManyBytes,   // a barrier waits for more bytes than come. Every mode: DEADLOCK
    WrongParity,    // the consumer waits for the wrong phase. Every mode: an error or a wrong result
    NotInitialised, // the barriers are never initialised. Every mode: an error
    NoProductWait,  // the accumulators are read before the products are waited for. Late-async: NaN or an error
    HalfGroup,      // two of the four warps skip the last product. Every mode: an error or DEADLOCK
};

template <Mistake kMistake>
DEV void produce(const TensorMap* a, const TensorMap* b, uint32_t ring, uint32_t full, uint32_t empty, int steps) {
    constexpr int kExtra = kMistake == Mistake::TooManyBytes ? 16 : 0;
    for (int step = 0; step < steps; step++) {
        const int stage = step % kStages, round = step / kStages & 1;
        const uint32_t to = ring + stage * kStageBytes, bar = full + 8 * stage;
        if (kMistake != Mistake::EmptyWait) mbar_wait(empty + 8 * stage, round ^ 1);
        mbar_arrive_expect_tx(bar, kStageBytes + kExtra);
        tma_load_2d(to, a, step * kTile, 0, bar);
        tma_load_2d(to + kTileBytes, b, step * kTile, 0, bar);
    }
}

template <Mistake kMistake>
DEV void consume(float (&d)[32], uint32_t ring, uint32_t full, uint32_t empty, int steps) {
    const int warp = threadIdx.x / 32 % 4;
    for (int step = 0; step < steps; step++) {
        const int stage = step % kStages, round = step / kStages & 1;
        const uint32_t from = ring + stage * kStageBytes;
        if (kMistake != Mistake::FullWait) mbar_wait(full + 8 * stage, kMistake == Mistake::WrongParity ? round ^ 1 : round);
        if (kMistake == Mistake::HalfGroup && step == steps - 1 && warp >= 2) continue;
        const uint64_t a = wgmma_desc_sw128(from), b = wgmma_desc_sw128(from + kTileBytes);
        if (kMistake != Mistake::NoFence) wgmma_fence();
        #pragma unroll
        for (int k = 0; k < kTile / kDepth; k++) wgmma_m64n64k16(d, a + 2 * k, b + 2 * k, 1);
        wgmma_commit();
        if (kMistake == Mistake::TouchInFlight) d[0] += 1.0f;
        if (kMistake == Mistake::EarlyRelease) mbar_arrive(empty + 8 * stage);
        if (kMistake != Mistake::NoProductWait || step < steps - 1) wgmma_wait<0>();
        if (kMistake != Mistake::EarlyRelease) mbar_arrive(empty + 8 * stage);
    }
}

template <Mistake kMistake>
DEV void ring(float* c, const TensorMap* a, const TensorMap* b, int steps) {
    SHARED_DYN(bytes);
    const uint32_t base = smem_u32(bytes), full = base + kRingBytes, empty = full + 8 * kStages;
    if (kMistake != Mistake::NotInitialised && threadIdx.x == 0) {
        for (int stage = 0; stage < kStages; stage++) {
            mbar_init(full + 8 * stage, 1);
            mbar_init(empty + 8 * stage, kGroup);
        }
        fence_mbar_init();
    }
    __syncthreads();
    if (threadIdx.x < kGroup) {
        if (threadIdx.x / 32 == 0 && elect_one()) produce<kMistake>(a, b, base, full, empty, steps);
    } else {
        float d[32] = {};
        consume<kMistake>(d, base, full, empty, steps);
        const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        const int row = warp * kDepth + lane / 4, column = lane % 4 * 2;
        #pragma unroll
        for (int i = 0; i < 32; i++) c[(row + i / 2 % 2 * 8) * kTile + i / 4 * 8 + column + i % 2] = d[i];
        if (kMistake == Mistake::NoProductWait) wgmma_wait<0>();
    }
}

enum class Slip {
    None,
    Fence,    // no proxy fence between writing shared memory and the store. Race build: missing fence
    Barrier,  // no barrier between them. Race build: RACE. Random order: wrong
    Wait,     // shared memory is written again before the store has read it. Race build: RACE. Late-async: wrong
    NoWait,   // the thread returns without waiting for its store. Late-async: an error
};

template <Slip kSlip>
DEV void store(const TensorMap* y, const bf16* x) {
    SHARED_DYN(bytes);
    bf16* s = (bf16*)bytes;
    for (int i = threadIdx.x; i < kTile * kTile; i += kGroup) s[i] = x[i];
    if (kSlip != Slip::Fence) fence_proxy_async();
    if (kSlip != Slip::Barrier) __syncthreads();
    if (threadIdx.x == 0) {
        tma_store_2d(y, smem_u32(s), 0, 0);
        tma_store_commit();
        if (kSlip != Slip::Wait && kSlip != Slip::NoWait) tma_store_wait<0>();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        s[0] = f2bf(-1.0f);
        if (kSlip == Slip::Wait) tma_store_wait<0>();
    }
}

KERNEL(kThreads, kSharedBytes)
ring_right(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::None>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_empty_wait_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::EmptyWait>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_full_wait_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::FullWait>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_early_release_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::EarlyRelease>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_touch_in_flight_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::TouchInFlight>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_no_fence_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::NoFence>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_too_many_bytes_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::TooManyBytes>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_wrong_parity_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::WrongParity>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_not_initialised_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::NotInitialised>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_no_product_wait_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::NoProductWait>(c, &a, &b, steps);
}
KERNEL(kThreads, kSharedBytes)
ring_half_group_wrong(float* c, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int steps) {
    ring<Mistake::HalfGroup>(c, &a, &b, steps);
}
KERNEL(kGroup, kTileBytes) store_right(const bf16* x, const __grid_constant__ TensorMap y) {
    store<Slip::None>(&y, x);
}
KERNEL(kGroup, kTileBytes) store_fence_wrong(const bf16* x, const __grid_constant__ TensorMap y) {
    store<Slip::Fence>(&y, x);
}
KERNEL(kGroup, kTileBytes) store_barrier_wrong(const bf16* x, const __grid_constant__ TensorMap y) {
    store<Slip::Barrier>(&y, x);
}
KERNEL(kGroup, kTileBytes) store_wait_wrong(const bf16* x, const __grid_constant__ TensorMap y) {
    store<Slip::Wait>(&y, x);
}
KERNEL(kGroup, kTileBytes) store_no_wait_wrong(const bf16* x, const __grid_constant__ TensorMap y) {
    store<Slip::NoWait>(&y, x);
}
