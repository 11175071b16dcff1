// ptx.cuh: the words that a kernel may use, and the only file with inline PTX
//
// Every wrapper is one instruction, which its comment names. nvcc compiles the bodies below; a host compiler reads
// host/ptx_host.h instead, where the same functions have the same meaning on the emulated device. A kernel file includes this
// file and own headers, nothing else.
//
//   KERNEL(threads)                  before an entry point: blocks are one-dimensional and have exactly so many threads
//   KERNEL(threads, bytes)           the same with dynamic shared memory
//   KERNEL(threads, bytes, blocks)   the same with a least number of blocks per multiprocessor
//   SHARED(T, name, n)               T name[n] in static shared memory, at least 16-byte aligned
//   SHARED_DYN(name)                 uint8_t* name, the dynamic shared memory, 1024-byte aligned
//   DEV                              before a device function
//
// An address of type uint32_t is a byte offset in shared memory, as smem_u32 returns it.
#pragma once
#include <stdint.h>

// The upper half of an f32. Arithmetic happens in f32.
struct bf16 {
    uint16_t x;
};

constexpr float kLog2e = 1.4426950408889634f;  // for ex2: e^x = 2^(kLog2e x)

// What the tensor memory accelerator needs to know about a tensor. A kernel takes it by value, as
// `const __grid_constant__ TensorMap m`, and passes its address on. On the device it is a CUtensorMap.
struct alignas(64) TensorMap {
    uint64_t opaque[16];
};

#ifndef __CUDACC__
#include "host/ptx_host.h"
#else

#define DEV __device__ __forceinline__
#define KERNEL(...) KERNEL_OF(__VA_ARGS__, 0, 0, 0)
#define KERNEL_OF(threads, bytes, blocks, ...)                                                                    \
    static_assert((threads) <= 1024 && (bytes) <= 232448, "a block has at most 1024 threads and 227 KB of memory"); \
    extern "C" __global__ void __launch_bounds__(threads, blocks)
#define SHARED(T, name, n) __shared__ __align__(alignof(T) > 16 ? alignof(T) : 16) T name[n]
#define SHARED_DYN(name) extern __shared__ __align__(1024) uint8_t name[]

// ---- bf16 ----

DEV float bf_lo(uint32_t pair) { return __uint_as_float(pair << 16); }
DEV float bf_hi(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
DEV float bf2f(bf16 b) { return __uint_as_float((uint32_t)b.x << 16); }

// cvt.rn.bf16.f32
DEV bf16 f2bf(float f) {
    bf16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.x) : "f"(f));
    return r;
}

// cvt.rn.bf16x2.f32, whose first operand is the upper half
DEV uint32_t pack_bf16(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

// ---- approximate functions, off by two units in the last place at most; denormals are zero ----

// 2^x. ex2.approx.ftz.f32
DEV float ex2(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// 1 / x. rcp.approx.ftz.f32
DEV float rcp(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// ---- shared memory and matrix instructions of a warp ----

// cvta.to.shared
DEV uint32_t smem_u32(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Four 8x8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
// ldmatrix.sync.aligned.m8n8.x4.shared.b16
DEV void ldmatrix_x4(uint32_t (&r)[4], uint32_t addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr)
                 : "memory");
}

// The same, each matrix transposed. ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16
DEV void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t addr) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(addr)
                 : "memory");
}

// d (16x8) += a (16x16) b (16x8). mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
DEV void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- copies in the background ----

// Copies the first n of 16 bytes to shared memory and writes zeros after them; dst and src are 16-byte aligned.
// cp.async.cg.shared.global
DEV void cp_async_16(uint32_t dst, const void* src, uint32_t n = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(n) : "memory");
}

// Closes this thread's group of copies. cp.async.commit_group
DEV void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups are unfinished. cp.async.wait_group
template <int N>
DEV void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- named barriers: id 1 to 15, n threads in all, a multiple of 32 ----

// bar.sync
DEV void named_bar_sync(uint32_t id, uint32_t n) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n) : "memory"); }

// Arrives without waiting. bar.arrive
DEV void named_bar_arrive(uint32_t id, uint32_t n) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n) : "memory"); }

// ---- Hopper ----
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

// True in one lane of a full warp. elect.sync
DEV bool elect_one() {
    uint32_t chosen;
    asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}" : "=r"(chosen));
    return chosen;
}

// mbarrier.init: phase 0, `count` arrivals per phase
DEV void mbar_init(uint32_t bar, uint32_t count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}

// Makes initialised barriers visible to asynchronous copies. fence.mbarrier_init.release.cluster
DEV void fence_mbar_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// mbarrier.arrive
DEV void mbar_arrive(uint32_t bar) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory"); }

// Arrives and lets the phase also wait for so many bytes. mbarrier.arrive.expect_tx
DEV void mbar_arrive_expect_tx(uint32_t bar, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

// Waits for the end of the phase of this parity. mbarrier.try_wait.parity in a loop
DEV void mbar_wait(uint32_t bar, uint32_t parity) {
    asm volatile("{.reg .pred p; "
                 "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; "
                 "@p bra DONE; bra AGAIN; DONE: }" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}

// Orders this thread's accesses to shared memory before later asynchronous ones. fence.proxy.async
DEV void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// setmaxnreg.inc: the warpgroup asks for more registers
template <int N>
DEV void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

// setmaxnreg.dec: the warpgroup gives registers back
template <int N>
DEV void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// prefetch.tensormap
DEV void tma_prefetch(const TensorMap* m) { asm volatile("prefetch.tensormap [%0];" ::"l"(m) : "memory"); }

// Loads the box at column x, row y; what lies outside the tensor is zero. The bytes of the whole box count at `bar`.
// cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
DEV void tma_load_2d(uint32_t dst, const TensorMap* m, int x, int y, uint32_t bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(dst), "l"(m), "r"(x), "r"(y), "r"(bar)
                 : "memory");
}

// Stores the box; what lies outside the tensor is left out. cp.async.bulk.tensor.2d.global.shared::cta.bulk_group
DEV void tma_store_2d(const TensorMap* m, uint32_t src, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(m), "r"(src), "r"(x), "r"(y)
                 : "memory");
}

// Closes this thread's group of stores. cp.async.bulk.commit_group
DEV void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups still read shared memory. cp.async.bulk.wait_group.read
template <int N>
DEV void tma_store_wait() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}

// Before the first wgmma, and after accumulators were touched. wgmma.fence
DEV void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes the warpgroup's group of products. wgmma.commit_group
DEV void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most N groups are unfinished. wgmma.wait_group
template <int N>
DEV void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

// d (64x64) = a (64x16) b (16x64) [+ d unless accumulate is 0]; a and b in shared memory, the last digit transposes b.
// wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16
#define PTX_ACC8(o) \
    "+f"(d[o]), "+f"(d[o + 1]), "+f"(d[o + 2]), "+f"(d[o + 3]), "+f"(d[o + 4]), "+f"(d[o + 5]), "+f"(d[o + 6]), "+f"(d[o + 7])
#define PTX_WGMMA_M64N64K16(transpose_b)                                                             \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0; "                                            \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "                             \
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
                 "%32, %33, p, 1, 1, 0, " #transpose_b ";}"                                          \
                 : PTX_ACC8(0), PTX_ACC8(8), PTX_ACC8(16), PTX_ACC8(24)                              \
                 : "l"(desc_a), "l"(desc_b), "r"(accumulate))

// b stored as 64 rows of n, its columns contiguous in k
DEV void wgmma_m64n64k16(float (&d)[32], uint64_t desc_a, uint64_t desc_b, int accumulate) { PTX_WGMMA_M64N64K16(0); }

// b stored as rows of k, contiguous in n
DEV void wgmma_m64n64k16_tb(float (&d)[32], uint64_t desc_a, uint64_t desc_b, int accumulate) { PTX_WGMMA_M64N64K16(1); }
#undef PTX_WGMMA_M64N64K16
#undef PTX_ACC8

#endif  // Hopper
#endif  // __CUDACC__

// Where an operand of wgmma lies in shared memory: rows of 128 bytes, swizzled by 128 bytes, 8 rows after 1024 bytes.
// A step of 16 values along k is + 2 where k is contiguous, and + 128 (16 rows) where it is not.
DEV uint64_t wgmma_desc_sw128(uint32_t addr) {
    constexpr uint64_t kLeading = 1;           // unused by this layout, but must not be 0
    constexpr uint64_t kStride = 1024 >> 4;    // from 8 rows to the next 8
    constexpr uint64_t kSwizzle128 = 1;
    return (uint64_t)((addr & 0x3FFFF) >> 4) | kLeading << 16 | kStride << 32 | kSwizzle128 << 62;
}
