// intrinsics.h: CUDA's built-in functions that kernels may use
#pragma once
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>

#include "block.h"

// ---- barriers and fences ----

namespace simt::SIMT_VARIANT {
extern const Collective kSyncWarp, kShuffle, kBallot;
void memory_fence();
}  // namespace simt::SIMT_VARIANT

static inline void __syncthreads() { simt::barrier(0, 0, true); }
static inline void __syncwarp(uint32_t mask = simt::kFullMask) { simt::meet(simt::kSyncWarp, mask, nullptr); }
static inline void __threadfence() { simt::memory_fence(); }
static inline void __threadfence_block() {}

// ---- shuffles and votes ----

namespace simt::SIMT_VARIANT {

struct ShuffleArgs {
    uint64_t value, result;
    uint32_t source;
};

struct BallotArgs {
    uint32_t vote, result;
};

static inline uint32_t lane_id() { return here.fiber->lane; }

template <class T>
static inline T shuffle(uint32_t mask, T value, uint32_t source) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a shuffle moves at most eight bytes");
    ShuffleArgs args{0, 0, source};
    memcpy(&args.value, &value, sizeof(T));
    meet(kShuffle, mask, &args);
    memcpy(&value, &args.result, sizeof(T));
    return value;
}

}  // namespace simt::SIMT_VARIANT

// `width`, a power of two, cuts the warp into segments; a lane whose source is outside its segment keeps its value.
template <class T>
static inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
    const uint32_t lane = simt::lane_id(), within = width - 1;
    return simt::shuffle(mask, value, (lane & ~within) | (source & within));
}

template <class T>
static inline T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32) {
    const uint32_t lane = simt::lane_id(), source = lane ^ bits;
    return simt::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source);
}

template <class T>
static inline T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
    const uint32_t lane = simt::lane_id();
    return simt::shuffle(mask, value, (lane & (width - 1)) + delta >= (unsigned)width ? lane : lane + delta);
}

template <class T>
static inline T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
    const uint32_t lane = simt::lane_id();
    return simt::shuffle(mask, value, (lane & (width - 1)) < delta ? lane : lane - delta);
}

static inline uint32_t __ballot_sync(uint32_t mask, int vote) {
    simt::BallotArgs args{vote != 0, 0};
    simt::meet(simt::kBallot, mask, &args);
    return args.result;
}

static inline int __any_sync(uint32_t mask, int vote) { return __ballot_sync(mask, vote) != 0; }
static inline int __all_sync(uint32_t mask, int vote) { return __ballot_sync(mask, !vote) == 0; }

// ---- atomics: blocks run on several OS threads ----

namespace simt::SIMT_VARIANT {

// In the runtime, out of reach of the race detector's instruments.
uint32_t atomic_load(const uint32_t* p);
uint64_t atomic_load(const uint64_t* p);
bool atomic_replace(uint32_t* p, uint32_t* before, uint32_t after);
bool atomic_replace(uint64_t* p, uint64_t* before, uint64_t after);

template <class To, class From>
static inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "a value of the same size");
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}

template <class T, class F>
static inline T read_modify_write(T* p, F change) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics have four or eight bytes");
    using Word = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    saw(p, sizeof(T), Access::Atomic);
    Word before = atomic_load((Word*)p);
    while (!atomic_replace((Word*)p, &before, bits_as<Word>(change(bits_as<T>(before))))) {
    }
    return bits_as<T>(before);
}

template <class T>
using Same = std::common_type_t<T>;  // keeps an argument out of deduction

}  // namespace simt::SIMT_VARIANT

#define SIMT_ATOMIC(name, after)                                                \
    template <class T>                                                          \
    static inline T name(T* p, simt::Same<T> v) {                               \
        return simt::read_modify_write(p, [=](T old) -> T { return after; });   \
    }
SIMT_ATOMIC(atomicAdd, old + v)
SIMT_ATOMIC(atomicSub, old - v)
SIMT_ATOMIC(atomicMin, v < old ? v : old)
SIMT_ATOMIC(atomicMax, old < v ? v : old)
SIMT_ATOMIC(atomicExch, (void(old), v))
SIMT_ATOMIC(atomicAnd, old & v)
SIMT_ATOMIC(atomicOr, old | v)
SIMT_ATOMIC(atomicXor, old ^ v)
SIMT_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef SIMT_ATOMIC

template <class T>
static inline T atomicCAS(T* p, simt::Same<T> expected, simt::Same<T> v) {
    return simt::read_modify_write(p, [=](T old) -> T { return old == expected ? v : old; });
}

// ---- loads and stores with a hint ----

#define SIMT_LOAD(name)                  \
    template <class T>                   \
    static inline T name(const T* p) {   \
        return *p;                       \
    }
#define SIMT_STORE(name)                                  \
    template <class T>                                    \
    static inline void name(T* p, simt::Same<T> v) {      \
        *p = v;                                           \
    }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_LOAD
#undef SIMT_STORE

// ---- bits ----

static inline float __uint_as_float(uint32_t u) { return simt::bits_as<float>(u); }
static inline float __int_as_float(int i) { return simt::bits_as<float>(i); }
static inline uint32_t __float_as_uint(float f) { return simt::bits_as<uint32_t>(f); }
static inline int __float_as_int(float f) { return simt::bits_as<int>(f); }
static inline double __longlong_as_double(long long i) { return simt::bits_as<double>(i); }
static inline long long __double_as_longlong(double d) { return simt::bits_as<long long>(d); }
static inline int __popc(uint32_t x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __mulhi(int a, int b) { return (int)(((int64_t)a * b) >> 32); }
static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return (uint32_t)(((uint64_t)a * b) >> 32); }
static inline int64_t __mul64hi(int64_t a, int64_t b) { return (int64_t)(((__int128)a * b) >> 64); }
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return (uint64_t)(((unsigned __int128)a * b) >> 64); }

static inline uint32_t __brev(uint32_t x) {
    uint32_t r = 0;
    for (int i = 0; i < 32; i++) {
        r |= (x >> i & 1) << (31 - i);
    }
    return r;
}

static inline uint32_t __funnelshift_l(uint32_t lo, uint32_t hi, uint32_t shift) {
    return (uint32_t)(((uint64_t)hi << 32 | lo) << (shift & 31) >> 32);
}

static inline uint32_t __funnelshift_r(uint32_t lo, uint32_t hi, uint32_t shift) {
    return (uint32_t)(((uint64_t)hi << 32 | lo) >> (shift & 31));
}

static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
    const uint64_t both = (uint64_t)y << 32 | x;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) {
        r |= (uint32_t)(both >> ((selector >> (4 * i) & 7) * 8) & 0xff) << (8 * i);
    }
    return r;
}

// ---- minimum and maximum: of two types, the one that holds more ----

#define SIMT_MIN_MAX(T)                                            \
    static inline T min(T a, T b) { return b < a ? b : a; }        \
    static inline T max(T a, T b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX

template <class A, class B, class = std::enable_if_t<std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, B>>>
static inline std::common_type_t<A, B> min(A a, B b) {
    return min((std::common_type_t<A, B>)a, (std::common_type_t<A, B>)b);
}

template <class A, class B, class = std::enable_if_t<std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, B>>>
static inline std::common_type_t<A, B> max(A a, B b) {
    return max((std::common_type_t<A, B>)a, (std::common_type_t<A, B>)b);
}

static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// ---- mathematics: what <math.h> has not, or has under CUDA's name for something else ----
// Macros where a C library may have a function of that name.

namespace simt::SIMT_VARIANT {

constexpr double kPi = 3.14159265358979323846;

// sin and cos of pi x. The whole turns are taken off first, and near a zero the distance from it is taken, which is exact: so
// zeros are zeros, and pi's own rounding is nowhere larger than the result's.
template <class T>
static inline void sin_cos_pi(T x, T* sine, T* cosine) {
    const double half_turns = (double)(x - 2 * rint(x / 2)), size = fabs(half_turns);
    *sine = (T)copysign(sin(kPi * (size > 0.5 ? 1 - size : size)), half_turns);
    *cosine = (T)(size > 0.25 ? sin(kPi * (0.5 - size)) : cos(kPi * size));
}

static inline float sin_pi(float x) {
    float s, c;
    sin_cos_pi(x, &s, &c);
    return s;
}

static inline float cos_pi(float x) {
    float s, c;
    sin_cos_pi(x, &s, &c);
    return c;
}

}  // namespace simt::SIMT_VARIANT

#define rsqrtf(x) (1.0f / sqrtf(x))
#define rsqrt(x) (1.0 / sqrt(x))
#define sincospif(x, s, c) simt::sin_cos_pi((float)(x), s, c)
#define sincospi(x, s, c) simt::sin_cos_pi((double)(x), s, c)
#define sinpif(x) simt::sin_pi(x)
#define cospif(x) simt::cos_pi(x)
#define __expf(x) expf(x)
#define __exp10f(x) powf(10.0f, x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __sincosf(x, s, c) sincosf(x, s, c)

static inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
// Beyond 2^126 the device's divisor has no reciprocal: the quotient is 0, and NaN of an infinity.
static inline float __fdividef(float a, float b) { return fabsf(b) > 0x1p126f ? a * 0.0f : a / b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frsqrt_rn(float a) { return 1.0f / sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __double2float_rn(double x) { return (float)x; }

// Stops the kernel with an error, as on the device.
static inline void __trap() { simt::fail("__trap() was called"); }
