// barrier.cpp: __syncthreads, named barriers, and what lanes of a warp do together without memory
#include "runtime.h"

namespace simt::SIMT_VARIANT {

void barrier(uint32_t id, uint32_t count, bool wait) {
    Worker& w = worker();
    Block& b = w.block;
    Fiber* f = here.fiber;
    const char* name = count == 0 ? "__syncthreads" : wait ? "bar.sync" : "bar.arrive";
    if (id >= kMaxBarriers) {
        fail("%s %u: there are %u barriers", name, id, kMaxBarriers);
    }
    if (count % kWarpSize != 0 || count > b.threads) {
        fail("%s %u: a count of %u threads in a block of %u; it must be a multiple of 32", name, id, count, b.threads);
    }
    if (count == 0) {
        if (b.live < b.threads) {
            fail("__syncthreads after %u threads of the block have returned", b.threads - b.live);
        }
        count = b.threads;
    }
    NamedBarrier& n = w.barriers[id];
    if (n.arrived && n.expected != count) {
        fail("%s %u: a count of %u, but earlier threads said %u", name, id, count, n.expected);
    }
    n.expected = count;
    n.arrived++;
    race_release(w.barrier_clocks[id]);
    if (wait) {
        n.waiting[f->warp] |= 1u << f->lane;
    }
    if (n.arrived < count) {
        if (wait) {
            block_on(name, id, count);
        }
        return;
    }
    for (uint32_t i = 0; i < b.warps; i++) {
        b.warp[i].ready |= n.waiting[i];
        for (uint32_t lane = 0; lane < kWarpSize; lane++) {
            if (n.waiting[i] >> lane & 1) {
                race_acquire(i * kWarpSize + lane, w.barrier_clocks[id]);
            }
        }
        n.waiting[i] = 0;
    }
    w.barrier_clocks[id].clear();
    n.arrived = 0;
    n.expected = 0;
    if (b.random && wait) {
        give_turn(b);
    }
}

// ---- a warp ----

static void sync_warp(void* const*, uint32_t mask) { race_sync_warp(mask); }

static void nothing(void* const*, uint32_t) {}

static void shuffle_all(void* const* args, uint32_t mask) {
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        if (!(mask >> lane & 1)) {
            continue;
        }
        ShuffleArgs& a = *(ShuffleArgs*)args[lane];
        if (!(mask >> a.source & 1)) {
            fail("a shuffle of lane %u reads lane %u, which is not in the mask 0x%08x", lane, a.source, mask);
        }
        a.result = ((ShuffleArgs*)args[a.source])->value;
    }
}

static void ballot(void* const* args, uint32_t mask) {
    uint32_t votes = 0;
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        if (mask >> lane & 1) {
            votes |= ((BallotArgs*)args[lane])->vote << lane;
        }
    }
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        if (mask >> lane & 1) {
            ((BallotArgs*)args[lane])->result = votes;
        }
    }
}

extern const Collective kSyncWarp{"__syncwarp", sync_warp};
extern const Collective kShuffle{"__shfl_sync", shuffle_all};
extern const Collective kBallot{"__ballot_sync", ballot};
extern const Collective kElect{"elect.sync", nothing};
extern const Collective kSetMaxRegisters{"setmaxnreg", nothing};

}  // namespace simt::SIMT_VARIANT
