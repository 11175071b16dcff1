// reduce: sums and maxima over the threads of a warp, a team or a block, always in one order
//   warp      butterfly over 32 lanes; every lane gets the same bits
//   team      `team` neighbouring threads, a power of two: several rows per block when rows are short
//   block     all kThreads threads
//   rules     every thread of the block calls, with its neutral value (0, -inf) if it has nothing to add; `team` is one value
//             for the whole block; team_* and block_* hold barriers
#pragma once
#include "ptx.cuh"

constexpr int kWarp = 32;

struct Sum {
    template <class T> static DEV T of(T a, T b) { return a + b; }
};

struct Max {
    template <class T> static DEV T of(T a, T b) { return a < b ? b : a; }
};

// Over groups of min(team, 32) lanes.
template <class Op, class T> DEV T lanes_reduce(T v, int team) {
    #pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
        if (step < team) v = Op::of(v, __shfl_xor_sync(~0u, v, step));
    }
    return v;
}

// Over teams; the warps of one team are added in their order, by each of its threads.
template <class Op, int kThreads, class T> DEV T team_reduce(T v, int team) {
    static_assert(kThreads % kWarp == 0 && kThreads <= 1024, "reduce: blocks are whole warps");
    v = lanes_reduce<Op>(v, team);
    if (team <= kWarp) return v;
    SHARED(T, slots, kThreads / kWarp);
    const int warp = threadIdx.x / kWarp, count = team / kWarp, first = warp & ~(count - 1);
    if (threadIdx.x % kWarp == 0) slots[warp] = v;
    __syncthreads();
    v = slots[first];
    for (int i = 1; i < count; i++) v = Op::of(v, slots[first + i]);
    __syncthreads();  // the next reduction writes the same slots
    return v;
}

template <int kThreads> DEV float team_sum(float v, int team) { return team_reduce<Sum, kThreads>(v, team); }
template <int kThreads, class T> DEV T block_sum(T v) { return team_reduce<Sum, kThreads>(v, kThreads); }
template <int kThreads> DEV float block_max(float v) { return team_reduce<Max, kThreads>(v, kThreads); }
