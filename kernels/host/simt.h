// simt.h: CUDA for a host compiler, as far as kernels may use it ("SIMT on host")
//
// ptx.cuh brings this in where nvcc is not the compiler. A kernel file becomes host code by a generated stub, which closes it
// off, so that no two files can meet in a name, and exports its kernels:
//
//     #include "ptx.cuh"
//     namespace {
//     #include "x.cu"
//     }
//     SIMT_EXPORT(x_fwd, 128, 0)
//
// A generated table lists them all. (Registration by constructors would be dropped from a static library.)
//
//     #include "simt.h"
//     namespace simt::SIMT_VARIANT {
//     extern const Kernel simt_kernel_x_fwd;
//     extern const Kernel* const kernel_table[] = {&simt_kernel_x_fwd, nullptr};
//     }
#pragma once
#include <utility>

#include "block.h"
#include "intrinsics.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

#define DEV inline
#define KERNEL(...) KERNEL_OF(__VA_ARGS__, 0, 0, 0)
#define KERNEL_OF(threads, bytes, blocks, ...)                                                                     \
    static_assert((threads) <= 1024 && (bytes) <= 232448, "a block has at most 1024 threads and 227 KB of memory"); \
    static void

#define threadIdx (::simt::here.fiber->tid)
#define blockIdx (::simt::here.block->id)
#define blockDim (::simt::here.block->dim)
#define gridDim (::simt::here.block->grid)
#define warpSize 32

// A reference to an array rather than a pointer: then the compiler checks its indices. The lambda's variable is the key by
// which all threads find the same memory.
#define SIMT_SHARED_ALIGN(T) (alignof(T) > 16 ? alignof(T) : 16)
#define SHARED(T, name, n)                                     \
    T(&name)[n] = *(T(*)[n])::simt::static_shared(             \
        [] {                                                   \
            static const char key = 0;                         \
            return (const void*)&key;                          \
        }(),                                                   \
        sizeof(T) * (n), SIMT_SHARED_ALIGN(T))
#define SHARED_DYN(name) uint8_t* name = (uint8_t*)::simt::dynamic_shared()

namespace simt::SIMT_VARIANT {

constexpr uint32_t kMaxParams = 32;

// What the runtime knows about a kernel.
struct Kernel {
    const char* name;
    void (*run)(void* const* params);
    uint32_t threads, dynamic_shared;
    uint32_t params;
    uint32_t param_size[kMaxParams];
};

extern const Kernel* const kernel_table[];  // ends with null

// Calls F with parameters that are given by their addresses, as cuLaunchKernel takes them.
template <auto F>
struct Entry;

template <class... Args, void (*F)(Args...)>
struct Entry<F> {
    // The address need not have the type's alignment, so the value is copied.
    template <class T>
    static T load(const void* p) {
        T value;
        memcpy(&value, p, sizeof(T));
        return value;
    }

    template <size_t... I>
    static void unpack(void* const* params, std::index_sequence<I...>) {
        (void)params;
        F(load<std::remove_const_t<Args>>(params[I])...);
    }

    static void run(void* const* params) { unpack(params, std::index_sequence_for<Args...>()); }

    static constexpr Kernel kernel(const char* name, uint32_t threads, uint32_t dynamic_shared) {
        static_assert(sizeof...(Args) <= kMaxParams, "a kernel has at most kMaxParams parameters");
        return Kernel{name, run, threads, dynamic_shared, sizeof...(Args), {sizeof(Args)...}};
    }
};

}  // namespace simt::SIMT_VARIANT

#define SIMT_EXPORT(name, threads, dynamic_shared)                                                                     \
    namespace simt::SIMT_VARIANT {                                                                                     \
    extern const Kernel simt_kernel_##name;                                                                            \
    constexpr Kernel simt_kernel_##name = Entry<&::name>::kernel(#name, threads, dynamic_shared);                      \
    }
