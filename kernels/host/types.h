// types.h: the vector types of CUDA, with its alignments
#pragma once
#include <stdint.h>

#define SIMT_VEC2(T, name, align)                   \
    struct alignas(align) name {                    \
        T x, y;                                     \
    };                                              \
    static inline name make_##name(T x, T y) {      \
        return {x, y};                              \
    }

#define SIMT_VEC3(T, name)                          \
    struct name {                                   \
        T x, y, z;                                  \
    };                                              \
    static inline name make_##name(T x, T y, T z) { \
        return {x, y, z};                           \
    }

#define SIMT_VEC4(T, name, align)                        \
    struct alignas(align) name {                         \
        T x, y, z, w;                                    \
    };                                                   \
    static inline name make_##name(T x, T y, T z, T w) { \
        return {x, y, z, w};                             \
    }

SIMT_VEC2(signed char, char2, 2)
SIMT_VEC2(unsigned char, uchar2, 2)
SIMT_VEC2(short, short2, 4)
SIMT_VEC2(unsigned short, ushort2, 4)
SIMT_VEC2(int, int2, 8)
SIMT_VEC2(unsigned, uint2, 8)
SIMT_VEC2(long long, longlong2, 16)
SIMT_VEC2(unsigned long long, ulonglong2, 16)
SIMT_VEC2(float, float2, 8)
SIMT_VEC2(double, double2, 16)

SIMT_VEC3(int, int3)
SIMT_VEC3(unsigned, uint3)
SIMT_VEC3(float, float3)

SIMT_VEC4(signed char, char4, 4)
SIMT_VEC4(unsigned char, uchar4, 4)
SIMT_VEC4(short, short4, 8)
SIMT_VEC4(unsigned short, ushort4, 8)
SIMT_VEC4(int, int4, 16)
SIMT_VEC4(unsigned, uint4, 16)
SIMT_VEC4(float, float4, 16)

#undef SIMT_VEC2
#undef SIMT_VEC3
#undef SIMT_VEC4

struct dim3 {
    unsigned x, y, z;
};
