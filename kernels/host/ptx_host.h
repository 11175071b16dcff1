// ptx_host.h: the host meaning of every wrapper in ptx.cuh, which includes this file instead of its own bodies
//
// What several lanes do together, and what goes on in the background, is in the runtime: matrix.cpp, copy.cpp, tma.cpp,
// wgmma.cpp, barrier.cpp and mbarrier.cpp.
#pragma once
#include "simt.h"

// ---- bf16: rounded to nearest even, NaN to the one NaN that the device writes ----

static inline uint16_t simt_bf16_bits(float f) {
    const uint32_t u = __float_as_uint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fff;
    }
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float bf_lo(uint32_t pair) { return __uint_as_float(pair << 16); }
static inline float bf_hi(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
static inline float bf2f(bf16 b) { return __uint_as_float((uint32_t)b.x << 16); }
static inline bf16 f2bf(float f) { return bf16{simt_bf16_bits(f)}; }
static inline uint32_t pack_bf16(float lo, float hi) { return simt_bf16_bits(lo) | (uint32_t)simt_bf16_bits(hi) << 16; }

// ---- approximate functions, here exact to the last place; operands and results lose their denormals, as .ftz says ----

static inline float simt_flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }

static inline float ex2(float x) { return simt_flushed(exp2f(simt_flushed(x))); }
static inline float rcp(float x) { return simt_flushed(1.0f / simt_flushed(x)); }

// ---- shared memory and matrix instructions of a warp ----

namespace simt::SIMT_VARIANT {

struct LdmatrixArgs {
    uint32_t* r;
    uint32_t addr;
};

struct MmaArgs {
    float* d;
    const uint32_t* a;
    uint32_t b0, b1;
};

extern const Collective kLdmatrix, kLdmatrixTrans, kMma;

uint32_t shared_address(const void* p);

}  // namespace simt::SIMT_VARIANT

static inline uint32_t smem_u32(const void* p) { return simt::shared_address(p); }

static inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t addr) {
    simt::LdmatrixArgs args{r, addr};
    simt::meet(simt::kLdmatrix, simt::kFullMask, &args);
}

static inline void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t addr) {
    simt::LdmatrixArgs args{r, addr};
    simt::meet(simt::kLdmatrixTrans, simt::kFullMask, &args);
}

static inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    simt::MmaArgs args{d, a, b0, b1};
    simt::meet(simt::kMma, simt::kFullMask, &args);
}

// ---- copies in the background ----

namespace simt::SIMT_VARIANT {

void copy_async(uint32_t dst, const void* src, uint32_t bytes);
void copy_commit();
void copy_wait(uint32_t groups);

}  // namespace simt::SIMT_VARIANT

static inline void cp_async_16(uint32_t dst, const void* src, uint32_t n = 16) { simt::copy_async(dst, src, n); }
static inline void cp_async_commit() { simt::copy_commit(); }

template <int N>
static inline void cp_async_wait() {
    static_assert(N >= 0 && N < 8, "wait_group takes 0 to 7");
    simt::copy_wait(N);
}

// ---- named barriers ----

static inline void named_bar_sync(uint32_t id, uint32_t n) { simt::barrier(id, n, true); }
static inline void named_bar_arrive(uint32_t id, uint32_t n) { simt::barrier(id, n, false); }

// ---- Hopper ----

namespace simt::SIMT_VARIANT {

extern const Collective kElect, kSetMaxRegisters, kWgmmaFence, kWgmmaCommit;

struct WgmmaArgs {
    float* d;
    uint64_t desc_a, desc_b;
    int accumulate;
};

extern const Collective kWgmmaM64N64K16, kWgmmaM64N64K16TransB, kWgmmaWait;

void mbarrier_init(uint32_t bar, uint32_t count);
void mbarrier_arrive(uint32_t bar, uint32_t expect_bytes);
void mbarrier_wait(uint32_t bar, uint32_t parity);
void proxy_fence();

void tma_check(const TensorMap* map);
void tma_load(uint32_t dst, const TensorMap* map, int x, int y, uint32_t bar);
void tma_store(const TensorMap* map, uint32_t src, int x, int y);
void tma_commit();
void tma_wait(uint32_t groups);

}  // namespace simt::SIMT_VARIANT

// The device may choose any lane; it chooses the lowest.
static inline bool elect_one() {
    simt::meet(simt::kElect, simt::kFullMask, nullptr);
    return simt::lane_id() == 0;
}

static inline void mbar_init(uint32_t bar, uint32_t count) { simt::mbarrier_init(bar, count); }
static inline void fence_mbar_init() {}
static inline void mbar_arrive(uint32_t bar) { simt::mbarrier_arrive(bar, 0); }
static inline void mbar_arrive_expect_tx(uint32_t bar, uint32_t bytes) { simt::mbarrier_arrive(bar, bytes); }
static inline void mbar_wait(uint32_t bar, uint32_t parity) { simt::mbarrier_wait(bar, parity); }
static inline void fence_proxy_async() { simt::proxy_fence(); }

template <int N>
static inline void setmaxnreg_inc() {
    static_assert(N % 8 == 0 && N >= 24 && N <= 256, "setmaxnreg takes a multiple of 8 from 24 to 256");
    simt::meet(simt::kSetMaxRegisters, simt::kFullMask, nullptr);
}

template <int N>
static inline void setmaxnreg_dec() {
    setmaxnreg_inc<N>();
}

static inline void tma_prefetch(const TensorMap* m) { simt::tma_check(m); }
static inline void tma_store_2d(const TensorMap* m, uint32_t src, int x, int y) { simt::tma_store(m, src, x, y); }
static inline void tma_store_commit() { simt::tma_commit(); }

static inline void tma_load_2d(uint32_t dst, const TensorMap* m, int x, int y, uint32_t bar) {
    simt::tma_load(dst, m, x, y, bar);
}

template <int N>
static inline void tma_store_wait() {
    static_assert(N >= 0 && N < 8, "wait_group takes 0 to 7");
    simt::tma_wait(N);
}

static inline void wgmma_fence() { simt::meet(simt::kWgmmaFence, simt::kFullMask, nullptr); }
static inline void wgmma_commit() { simt::meet(simt::kWgmmaCommit, simt::kFullMask, nullptr); }

template <int N>
static inline void wgmma_wait() {
    static_assert(N >= 0 && N < 8, "wait_group takes 0 to 7");
    uint32_t groups = N;
    simt::meet(simt::kWgmmaWait, simt::kFullMask, &groups);
}

static inline void wgmma_m64n64k16(float (&d)[32], uint64_t desc_a, uint64_t desc_b, int accumulate) {
    simt::WgmmaArgs args{d, desc_a, desc_b, accumulate};
    simt::meet(simt::kWgmmaM64N64K16, simt::kFullMask, &args);
}

static inline void wgmma_m64n64k16_tb(float (&d)[32], uint64_t desc_a, uint64_t desc_b, int accumulate) {
    simt::WgmmaArgs args{d, desc_a, desc_b, accumulate};
    simt::meet(simt::kWgmmaM64N64K16TransB, simt::kFullMask, &args);
}
