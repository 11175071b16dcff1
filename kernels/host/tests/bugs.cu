// bugs: one mistake per kernel, which a mode of the emulation must find, beside the same kernel without it
//   forward   y[b, i] = x[(i + kShift) % n], a rotation, by whatever way the mistake needs
//   shapes    x: (n) f32   y: (blocks, n) f32   n = kThreads
//   launch    grid (2): a block b per row of y, a thread i per column
//   numerics  values are moved, not changed
// <mistake>_right is correct and passes in every mode; <mistake>_wrong is found as its comment says.
#include "ptx.cuh"

constexpr int kThreads = 128;
constexpr int kHalf = kThreads / 2;
constexpr int kWarp = 32;
constexpr int kVector = 4;   // f32 in 16 bytes
constexpr int kShift = 37;
constexpr int kBytes = 512;  // of kThreads f32
constexpr int kDeep = 15000;  // f32 in a little less than the 64 KB of a stack
constexpr int kHuge = 65536;

DEV int shifted(int i) { return (i + kShift) % kThreads; }

DEV float* row(float* y) { return y + blockIdx.x * kThreads; }

// Background copies are read before they are waited for. Late-async: the result is NaN. Race build: RACE.
template <bool kRight>
DEV void copy_wait(float* y, const float* x, int i, int n) {
    SHARED_DYN(bytes);
    float* s = (float*)bytes;
    if (i < n / kVector) cp_async_16(smem_u32(s + i * kVector), x + i * kVector);
    cp_async_commit();
    if (kRight) cp_async_wait<0>();
    __syncthreads();
    const float v = s[shifted(i)];
    cp_async_wait<0>();
    y[i] = v;
}

// The newest copies are read, but only older ones are waited for. Late-async: the result is NaN. Race build: RACE.
template <bool kRight>
DEV void copy_group(float* y, const float* x, int i) {
    SHARED_DYN(bytes);
    float* s = (float*)bytes;
    for (int half = 0; half < 2; half++) {
        const int at = half * kHalf + i * kVector;
        if (i < kHalf / kVector) cp_async_16(smem_u32(s + at), x + at);
        cp_async_commit();
    }
    cp_async_wait<kRight ? 0 : 1>();
    __syncthreads();
    const float v = s[shifted(i)];
    cp_async_wait<0>();
    y[i] = v;
}

// Shared memory is read without a barrier after it was written. Race build: RACE.
template <bool kRight>
DEV void barrier(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    s[i] = x[i];
    if (kRight) __syncthreads();
    y[i] = s[shifted(i)];
}

// Shared memory is written again without a barrier after it was read. Race build: RACE.
template <bool kRight>
DEV void barrier_after(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    s[i] = 2.0f * x[i];
    __syncthreads();
    const float twice = s[shifted(i)];
    if (kRight) __syncthreads();
    s[i] = x[i];
    __syncthreads();
    y[i] = twice - s[shifted(i)];
}

// Shared memory is written again after a barrier without the first of its many readers; that it is the same is luck. Race build:
// RACE.
template <bool kRight>
DEV void first_reader(float* y, const float* x, int i) {
    SHARED(float, s, 1);
    if (i == 0) s[0] = 1.0f;
    __syncthreads();
    y[i] = s[0] * x[shifted(i)];
    if (kRight) {
        named_bar_sync(1, kThreads);
    } else if (i >= kWarp) {
        named_bar_sync(1, kThreads - kWarp);
    }
    if (i == kThreads - 1) s[0] = 1.0f;
}

// Half of the threads read without the barrier that the others wait at. Race build: RACE.
template <bool kRight>
DEV void named_barrier(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    s[i] = x[i];
    if (kRight) {
        named_bar_sync(1, kThreads);
    } else if (i < kHalf) {
        named_bar_arrive(1, kThreads);
    } else {
        named_bar_sync(1, kThreads);
    }
    y[i] = s[shifted(i)];
}

// Lanes rely on running in step. Race build: RACE.
template <bool kRight>
DEV void in_step(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    s[i ^ 1] = x[shifted(i ^ 1)];
    if (kRight) __syncwarp();
    y[i] = s[i];
}

// All threads write one place; that they write the same is luck. Race build: RACE.
template <bool kRight>
DEV void same_place(float* y, const float* x, int i) {
    SHARED(float, s, 1);
    if (!kRight || i == 0) s[0] = 1.0f;
    __syncthreads();
    y[i] = s[0] * x[shifted(i)];
}

// Shared memory is read that nobody wrote. Every mode: the result is NaN in one place.
template <bool kRight>
DEV void unwritten(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    if (kRight || i != kShift) s[i] = x[i];
    __syncthreads();
    y[i] = s[shifted(i)];
}

// A store behind the end of the last row. Every mode: illegal.
template <bool kRight>
DEV void store_beyond(float* y, const float* x, int i) {
    y[i + (kRight ? 0 : 1)] = x[shifted(i)];
}

// A load before the start. Race build: illegal. Every other mode: the result is NaN in one place.
template <bool kRight>
DEV void load_before(float* y, const float* x, int i) {
    y[i] = x[kRight || i != 0 ? shifted(i) : -8];
}

// A store through a null pointer. Every mode: illegal.
template <bool kRight>
DEV void null(float* y, const float* x, int i) {
    float* to = kRight ? y : (float*)(uint64_t)(x[0] - x[0]);
    to[i] = x[shifted(i)];
}

// A vector load that is not aligned. Plain build: TRAP.
template <bool kRight>
DEV void misaligned(float* y, const float* x, int i, int n) {
    if (i < n / kVector) {
        const float* from = x + i * kVector;
        const bool last = i == n / kVector - 1;
        const float4 v = *(const float4*)(kRight || last ? from : from + 1);
        const float all[kVector] = {v.x, v.y, v.z, v.w};
        for (int k = 0; k < kVector; k++) y[(i * kVector + k + n - kShift) % n] = all[k];
    }
}

// An index beyond a thread's own array. Plain build: TRAP.
template <bool kRight>
DEV void local_index(float* y, const float* x, int i, int n) {
    float v[kVector] = {};
    const int last = n / (kThreads / kVector) - 1;
    for (int k = 0; k <= (kRight ? last : last + 1); k++) v[k] = x[shifted(i)] * (k == 0);
    y[i] = v[i % kVector] + v[0] * (i % kVector != 0);
}

// An index beyond a shared array. Plain build: TRAP. Race build: illegal.
template <bool kRight>
DEV void shared_index(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    s[i + (kRight ? 0 : 1)] = x[i];
    __syncthreads();
    y[i] = s[kRight ? shifted(i) : shifted(i) + 1];
}

// The same by a pointer, which the traps do not see. Race build: illegal.
template <bool kRight>
DEV void shared_pointer(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    float* p = s;
    p[i] = x[i];
    if (i == 0 && !kRight) p[kThreads] = x[i];
    __syncthreads();
    y[i] = s[shifted(i)];
}

// Half of the threads return before a barrier. Every mode: an error.
template <bool kRight>
DEV void return_early(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    s[i] = x[i];
    if (!kRight && i >= kHalf) return;
    __syncthreads();
    y[i] = s[shifted(i)];
}

// A named barrier waits for more threads than come. Every mode: DEADLOCK.
template <bool kRight>
DEV void barrier_count(float* y, const float* x, int i) {
    SHARED(float, s, kThreads);
    s[i] = x[i];
    __syncthreads();
    if (i < kHalf) named_bar_sync(3, kRight ? kHalf : kThreads);
    y[i] = s[shifted(i)];
}

// Half of a warp shuffles while the other half synchronises. Every mode: an error.
template <bool kRight>
DEV void divergent(float* y, const float* x, int i) {
    float v = x[shifted(i ^ 1)];
    if (kRight || i % kWarp < kWarp / 2) {
        v = __shfl_xor_sync(~0u, v, 1);
    } else {
        __syncwarp();
    }
    y[i] = v;
}

// A shuffle names a lane that returns without it. Every mode: an error or DEADLOCK.
template <bool kRight>
DEV void shuffle_mask(float* y, const float* x, int i) {
    if (!kRight && i % kWarp == kWarp - 1) return;
    y[i] = __shfl_xor_sync(~0u, x[shifted(i ^ 1)], 1);
}

// Two blocks write one place. Race build: RACE.
template <bool kRight>
DEV void blocks_write(float* y, const float* x, int i) {
    y[i] = x[shifted(i)];
    if (!kRight && blockIdx.x != 0) (y - kThreads)[i] = x[shifted(i)];
}

// A block reads what another block of the launch writes. Race build: RACE.
template <bool kRight>
DEV void blocks_read(float* y, const float* x, int i) {
    y[i] = x[shifted(i)];
    if (!kRight && blockIdx.x != 0) y[i] = (y - kThreads)[i];
}

// A local array that is larger than the stack. Every mode: an error.
template <bool kRight>
DEV void stack(float* y, const float* x, int i, int n) {
    constexpr int kSize = kRight ? kDeep : kHuge;
    volatile float all[kSize];
    for (int k = 0; k < kSize; k++) all[k] = x[shifted(i)];
    y[i] = all[i * n % kSize];
}

KERNEL(kThreads, kBytes) copy_wait_right(float* y, const float* x, int n) {
    if (n == kThreads) copy_wait<true>(row(y), x, threadIdx.x, n);
}
KERNEL(kThreads, kBytes) copy_wait_wrong(float* y, const float* x, int n) {
    if (n == kThreads) copy_wait<false>(row(y), x, threadIdx.x, n);
}
KERNEL(kThreads, kBytes) copy_group_right(float* y, const float* x, int n) {
    if (n == kThreads) copy_group<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads, kBytes) copy_group_wrong(float* y, const float* x, int n) {
    if (n == kThreads) copy_group<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) barrier_right(float* y, const float* x, int n) {
    if (n == kThreads) barrier<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) barrier_wrong(float* y, const float* x, int n) {
    if (n == kThreads) barrier<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) barrier_after_right(float* y, const float* x, int n) {
    if (n == kThreads) barrier_after<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) barrier_after_wrong(float* y, const float* x, int n) {
    if (n == kThreads) barrier_after<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) first_reader_right(float* y, const float* x, int n) {
    if (n == kThreads) first_reader<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) first_reader_wrong(float* y, const float* x, int n) {
    if (n == kThreads) first_reader<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) named_barrier_right(float* y, const float* x, int n) {
    if (n == kThreads) named_barrier<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) named_barrier_wrong(float* y, const float* x, int n) {
    if (n == kThreads) named_barrier<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) in_step_right(float* y, const float* x, int n) {
    if (n == kThreads) in_step<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) in_step_wrong(float* y, const float* x, int n) {
    if (n == kThreads) in_step<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) same_place_right(float* y, const float* x, int n) {
    if (n == kThreads) same_place<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) same_place_wrong(float* y, const float* x, int n) {
    if (n == kThreads) same_place<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) unwritten_right(float* y, const float* x, int n) {
    if (n == kThreads) unwritten<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) unwritten_wrong(float* y, const float* x, int n) {
    if (n == kThreads) unwritten<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) store_beyond_right(float* y, const float* x, int n) {
    if (n == kThreads) store_beyond<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) store_beyond_wrong(float* y, const float* x, int n) {
    if (n == kThreads) store_beyond<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) load_before_right(float* y, const float* x, int n) {
    if (n == kThreads) load_before<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) load_before_wrong(float* y, const float* x, int n) {
    if (n == kThreads) load_before<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) null_right(float* y, const float* x, int n) {
    if (n == kThreads) null<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) null_wrong(float* y, const float* x, int n) {
    if (n == kThreads) null<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) misaligned_right(float* y, const float* x, int n) {
    if (n == kThreads) misaligned<true>(row(y), x, threadIdx.x, n);
}
KERNEL(kThreads) misaligned_wrong(float* y, const float* x, int n) {
    if (n == kThreads) misaligned<false>(row(y), x, threadIdx.x, n);
}
KERNEL(kThreads) local_index_right(float* y, const float* x, int n) {
    if (n == kThreads) local_index<true>(row(y), x, threadIdx.x, n);
}
KERNEL(kThreads) local_index_wrong(float* y, const float* x, int n) {
    if (n == kThreads) local_index<false>(row(y), x, threadIdx.x, n);
}
KERNEL(kThreads) shared_index_right(float* y, const float* x, int n) {
    if (n == kThreads) shared_index<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) shared_index_wrong(float* y, const float* x, int n) {
    if (n == kThreads) shared_index<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) shared_pointer_right(float* y, const float* x, int n) {
    if (n == kThreads) shared_pointer<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) shared_pointer_wrong(float* y, const float* x, int n) {
    if (n == kThreads) shared_pointer<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) return_early_right(float* y, const float* x, int n) {
    if (n == kThreads) return_early<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) return_early_wrong(float* y, const float* x, int n) {
    if (n == kThreads) return_early<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) barrier_count_right(float* y, const float* x, int n) {
    if (n == kThreads) barrier_count<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) barrier_count_wrong(float* y, const float* x, int n) {
    if (n == kThreads) barrier_count<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) divergent_right(float* y, const float* x, int n) {
    if (n == kThreads) divergent<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) divergent_wrong(float* y, const float* x, int n) {
    if (n == kThreads) divergent<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) shuffle_mask_right(float* y, const float* x, int n) {
    if (n == kThreads) shuffle_mask<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) shuffle_mask_wrong(float* y, const float* x, int n) {
    if (n == kThreads) shuffle_mask<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) blocks_write_right(float* y, const float* x, int n) {
    if (n == kThreads) blocks_write<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) blocks_write_wrong(float* y, const float* x, int n) {
    if (n == kThreads) blocks_write<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) blocks_read_right(float* y, const float* x, int n) {
    if (n == kThreads) blocks_read<true>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) blocks_read_wrong(float* y, const float* x, int n) {
    if (n == kThreads) blocks_read<false>(row(y), x, threadIdx.x);
}
KERNEL(kThreads) stack_right(float* y, const float* x, int n) {
    if (n == kThreads) stack<true>(row(y), x, threadIdx.x, n);
}
KERNEL(kThreads) stack_wrong(float* y, const float* x, int n) {
    if (n == kThreads) stack<false>(row(y), x, threadIdx.x, n);
}
