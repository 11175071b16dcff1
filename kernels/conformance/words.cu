// words: one kernel per word of ptx.cuh, whose results a test computes from the PTX ISA's own definitions
//   forward   each kernel says what it writes; nothing is computed that is not the word's own doing
//   shapes    arrays of 32-bit words, floats, or per-lane registers in order of lanes
//   launch    grid (1) of one warp or one block, but for atomics and indices
//   numerics  exact, but for the approximate functions
// The same tests run on the emulation and on a device: that both agree is what lets the one stand for the other.
#include "ptx.cuh"

constexpr int kWarp = 32;
constexpr int kBlock = 128;
constexpr int kWords = 4;  // 32-bit words in 16 bytes
constexpr int kGroups = 3;
constexpr int kShift = 7;

// narrow[i] = bf16(x[i]), packed[i] = (x[i], x[i + 1]), wide[i] = both halves of packed[i] and the value of narrow[i]
KERNEL(kWarp) conform_bf16(uint32_t* narrow, uint32_t* packed, float* wide, const float* x, int n) {
    for (int i = threadIdx.x; i < n; i += kWarp) {
        const bf16 b = f2bf(x[i]);
        const uint32_t pair = pack_bf16(x[i], x[(i + 1) % n]);
        narrow[i] = b.x;
        packed[i] = pair;
        wide[3 * i] = bf_lo(pair);
        wide[3 * i + 1] = bf_hi(pair);
        wide[3 * i + 2] = bf2f(b);
    }
}

// y[i] = 2^x[i], 1 / x[i]
KERNEL(kWarp) conform_approximate(float* y, const float* x, int n) {
    for (int i = threadIdx.x; i < n; i += kWarp) {
        y[2 * i] = ex2(x[i]);
        y[2 * i + 1] = rcp(x[i]);
    }
}

// y[i] = x[2 i] / x[2 i + 1]
KERNEL(kWarp) conform_division(float* y, const float* x, int n) {
    for (int i = threadIdx.x; i < n; i += kWarp) y[i] = __fdividef(x[2 * i], x[2 * i + 1]);
}

// y[0] = alignment of dynamic shared memory, y[1 + i] = distance of a thread's element from the first
KERNEL(kWarp, 1024) conform_shared(uint32_t* y) {
    SHARED(uint64_t, fixed, kWarp);
    SHARED_DYN(dynamic);
    if (threadIdx.x == 0) y[0] = smem_u32(dynamic) % 1024;
    y[1 + threadIdx.x] = smem_u32(&fixed[threadIdx.x]) - smem_u32(fixed);
    y[1 + kWarp + threadIdx.x] = smem_u32(dynamic + threadIdx.x) - smem_u32(dynamic);
}

// x: 32 rows of 16 bytes, lane l names row rows[l]; y[8 l + j] = register j of lane l, y[8 l + 4 + j] the transposed one
KERNEL(kWarp) conform_ldmatrix(uint32_t* y, const uint32_t* x, const uint32_t* rows) {
    SHARED(uint32_t, s, kWarp * kWords);
    const int lane = threadIdx.x;
    for (int i = lane; i < kWarp * kWords; i += kWarp) s[i] = x[i];
    __syncthreads();
    uint32_t straight[4], transposed[4];
    ldmatrix_x4(straight, smem_u32(&s[rows[lane] * kWords]));
    ldmatrix_x4_trans(transposed, smem_u32(&s[rows[lane] * kWords]));
    for (int j = 0; j < 4; j++) {
        y[8 * lane + j] = straight[j];
        y[8 * lane + 4 + j] = transposed[j];
    }
}

// Fragments in order of lanes: a four registers, b two, c and d four
KERNEL(kWarp) conform_mma(float* d, const uint32_t* a, const uint32_t* b, const float* c) {
    const int lane = threadIdx.x;
    uint32_t fragment[4];
    float sum[4];
    for (int i = 0; i < 4; i++) {
        fragment[i] = a[4 * lane + i];
        sum[i] = c[4 * lane + i];
    }
    mma_m16n8k16_bf16(sum, fragment, b[2 * lane], b[2 * lane + 1]);
    for (int i = 0; i < 4; i++) d[4 * lane + i] = sum[i];
}

// Three groups of one copy per lane, of bytes[g, lane] bytes; each is read by the neighbour when it must have come.
// y[g, lane] = what copy g of lane ^ 1 left in 16 bytes that were all ones
KERNEL(kWarp) conform_cp_async(uint32_t* y, const uint32_t* x, const uint32_t* bytes) {
    SHARED(uint32_t, s, kGroups * kWarp * kWords);
    const int lane = threadIdx.x;
    for (int i = lane; i < kGroups * kWarp * kWords; i += kWarp) s[i] = ~0u;
    __syncwarp();
    #pragma unroll
    for (int g = 0; g < kGroups; g++) {
        const int at = g * kWarp + lane;
        cp_async_16(smem_u32(&s[at * kWords]), x + at * kWords, bytes[at]);
        cp_async_commit();
    }
    #pragma unroll
    for (int g = 0; g < kGroups; g++) {
        if (g == 0) cp_async_wait<2>();
        if (g == 1) cp_async_wait<1>();
        if (g == 2) cp_async_wait<0>();
        __syncwarp();
        const int at = g * kWarp + lane;
        for (int k = 0; k < kWords; k++) y[at * kWords + k] = s[(at ^ 1) * kWords + k];
    }
}

// Threads 0-63 write and arrive, threads 64-127 wait and read, rotated; then the readers alone meet and rotate once more.
KERNEL(kBlock) conform_named_barriers(uint32_t* y, const uint32_t* x) {
    constexpr int kHalf = kBlock / 2;
    SHARED(uint32_t, first, kHalf);
    SHARED(uint32_t, second, kHalf);
    const int i = threadIdx.x;
    if (i < kHalf) {
        first[i] = x[i];
        named_bar_arrive(1, kBlock);
    } else {
        const int j = i - kHalf;
        named_bar_sync(1, kBlock);
        second[j] = first[(j + kShift) % kHalf];
        named_bar_sync(2, kHalf);
        y[j] = second[(j + kShift) % kHalf];
    }
}

// y[k, lane]: __shfl_sync from 5 lane + 3, xor 5, up 3, down 3, in segments of `width`; xor 2 among even lanes only; the first
// and the last lane exchanged while all others wait for both
KERNEL(kWarp) conform_shuffles(uint32_t* y, const uint32_t* x, int width) {
    constexpr uint32_t kEven = 0x55555555, kEnds = 0x80000001;
    const int lane = threadIdx.x;
    const uint32_t v = x[lane];
    y[lane] = __shfl_sync(~0u, v, 5 * lane + 3, width);
    y[kWarp + lane] = __shfl_xor_sync(~0u, v, 5, width);
    y[2 * kWarp + lane] = __shfl_up_sync(~0u, v, 3, width);
    y[3 * kWarp + lane] = __shfl_down_sync(~0u, v, 3, width);
    uint32_t even = v;
    if (lane % 2 == 0) even = __shfl_xor_sync(kEven, v, 2);
    y[4 * kWarp + lane] = even;
    uint32_t ends = v;
    if (lane == 0 || lane == kWarp - 1) ends = __shfl_xor_sync(kEnds, v, kWarp - 1);
    __syncwarp();
    y[5 * kWarp + lane] = ends;
}

// y[k, lane]: ballot, any, all of x[lane] != 0, then the ballot of lanes below 16 only
KERNEL(kWarp) conform_votes(uint32_t* y, const uint32_t* x) {
    constexpr uint32_t kLow = 0xFFFF;
    const int lane = threadIdx.x;
    y[lane] = __ballot_sync(~0u, x[lane] != 0);
    y[kWarp + lane] = __any_sync(~0u, x[lane] != 0);
    y[2 * kWarp + lane] = __all_sync(~0u, x[lane] != 0);
    uint32_t low = 0;
    if (lane < 16) low = __ballot_sync(kLow, x[lane] != 0);
    y[3 * kWarp + lane] = low;
}

// Every thread of the grid does each operation on one place: y add, sub, min, max, and, or, xor, inc, swapped by one thread
// of all (two places), dec; sums of f and u.
KERNEL(kWarp) conform_atomics(uint32_t* y, float* f, uint64_t* u, const uint32_t* x, uint32_t wrap) {
    const uint32_t v = x[blockIdx.x * kWarp + threadIdx.x];
    atomicAdd(&y[0], v);
    atomicSub(&y[1], v);
    atomicMin(&y[2], v);
    atomicMax(&y[3], v);
    atomicAnd(&y[4], v);
    atomicOr(&y[5], v);
    atomicXor(&y[6], v);
    atomicInc(&y[7], wrap);
    atomicAdd(f, (float)(v % 16));
    atomicAdd((unsigned long long*)u, (unsigned long long)v << 20);
    if (atomicCAS(&y[8], 0u, 1u) == 0u) atomicExch(&y[9], 1u);
    atomicDec(&y[10], wrap);
}

// For each pair a = x[2 i], b = x[2 i + 1], 16 results
KERNEL(kWarp) conform_integers(uint64_t* y, const uint64_t* x, int n) {
    for (int i = threadIdx.x; i < n; i += kWarp) {
        const uint64_t a = x[2 * i], b = x[2 * i + 1];
        const uint32_t p = (uint32_t)a, q = (uint32_t)b;
        uint64_t* out = y + 16 * i;
        out[0] = __popc(p);
        out[1] = __popcll(a);
        out[2] = __clz((int)p);
        out[3] = __clzll((long long)a);
        out[4] = __ffs((int)p);
        out[5] = __ffsll((long long)a);
        out[6] = __umul64hi(a, b);
        out[7] = (uint64_t)(int64_t)__mulhi((int)p, (int)q);
        out[8] = __umulhi(p, q);
        out[9] = __brev(p);
        out[10] = __byte_perm(p, q, 0x5140);
        out[11] = __funnelshift_l(p, q, (uint32_t)(b >> 32));
        out[12] = __funnelshift_r(p, q, (uint32_t)(b >> 32));
        out[13] = min(p, q);
        out[14] = (uint64_t)max((int64_t)a, (int64_t)b);
        out[15] = (uint64_t)(int64_t)min((int)p, (int)q);
    }
}

// For each x[i], 16 results
KERNEL(kWarp) conform_functions(float* y, const float* x, int n) {
    for (int i = threadIdx.x; i < n; i += kWarp) {
        const float v = x[i], positive = fabsf(v) + 0.125f;
        float* out = y + 16 * i;
        out[0] = expf(v);
        out[1] = logf(positive);
        out[2] = exp2f(v);
        out[3] = log2f(positive);
        out[4] = rsqrtf(positive);
        out[5] = sqrtf(positive);
        out[6] = sinf(v);
        out[7] = cosf(v);
        sincospif(v, &out[8], &out[9]);
        out[10] = fmaf(v, v, -1.0f);
        out[11] = fminf(v, 0.5f);
        out[12] = fmaxf(v, 0.5f);
        out[13] = tanhf(v);
        out[14] = rintf(v);
        out[15] = __int_as_float(__float_as_int(v) ^ 0x80000000);
    }
}

// y[block, thread] = thread, and the block's three indices, each in eight bits
KERNEL(kBlock) conform_indices(uint32_t* y) {
    const uint32_t block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    y[block * blockDim.x + threadIdx.x] = threadIdx.x | blockIdx.x << 8 | blockIdx.y << 16 | blockIdx.z << 24;
}

// Copies of 16, 8 and 4 bytes with every hint: y = x, n a multiple of 4 words
KERNEL(kWarp) conform_hints(uint32_t* y, const uint32_t* x, int n) {
    for (int i = threadIdx.x; i < n / kWords; i += kWarp) {
        const uint4 all = __ldg((const uint4*)x + i);
        const uint2 half = __ldcs((const uint2*)x + 2 * i);
        const uint32_t third = __ldcg(x + 4 * i + 2);
        __stcs((uint2*)y + 2 * i, make_uint2(half.x, all.y));
        __stcg(y + 4 * i + 2, third);
        __stwt(y + 4 * i + 3, all.w);
    }
}
