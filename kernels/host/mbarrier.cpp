// mbarrier.cpp: barriers that live in shared memory, with phases and counts of bytes
#include <cstring>

#include "runtime.h"

namespace simt::SIMT_VARIANT {

// Lies in shared memory where the barrier does, so that a buffer that overlaps it is found.
constexpr uint64_t kMark = 0x7265697272616d62;

MBarrier& mbarrier_at(uint32_t address) {
    for (MBarrier& m : worker().mbarriers) {
        if (m.address == address) {
            return m;
        }
    }
    fail("the mbarrier at shared address 0x%x was never initialised", address);
}

// To the race detector the use of a barrier is a read of it, so that its initialisation must come before.
static MBarrier& use(uint32_t address) {
    MBarrier& m = mbarrier_at(address);
    const uint8_t* p = shared_at(address, sizeof(kMark));
    if (memcmp(p, &kMark, sizeof(kMark)) != 0) {
        fail("the mbarrier at shared address 0x%x was overwritten", address);
    }
    saw(p, sizeof(kMark), Access::Read);
    return m;
}

void mbarrier_init(uint32_t address, uint32_t count) {
    if (address % sizeof(kMark) != 0) {
        fail("mbarrier.init: the address 0x%x is not 8-byte aligned", address);
    }
    if (count == 0) {
        fail("mbarrier.init: a count of 0");
    }
    Worker& w = worker();
    uint8_t* p = shared_at(address, sizeof(kMark));
    saw(p, sizeof(kMark), Access::Write);
    memcpy(p, &kMark, sizeof(kMark));
    for (MBarrier& m : w.mbarriers) {
        if (m.address == address) {
            m = MBarrier{address, count, count, 0, 0, {}, {}};
            return;
        }
    }
    w.mbarriers.push_back(MBarrier{address, count, count, 0, 0, {}, {}});
}

// Ends the phase if nothing is missing, and wakes who waits for that.
static void turn_over(MBarrier& m) {
    if (m.pending || m.bytes) {
        return;
    }
    Worker& w = worker();
    m.phase ^= 1;
    m.pending = m.count;
    m.arrived.swap(m.arriving);
    m.arriving.clear();
    auto& waiters = w.mbarrier_waiters;
    for (size_t i = 0; i < waiters.size();) {
        Fiber* f = waiters[i];
        if (f->object != m.address || m.phase == f->detail) {
            i++;
            continue;
        }
        race_acquire(f->thread, m.arrived);
        w.block.warp[f->warp].ready |= 1u << f->lane;
        waiters[i] = waiters.back();
        waiters.pop_back();
    }
}

void mbarrier_arrive(uint32_t address, uint32_t expect_bytes) {
    MBarrier& m = use(address);
    if (m.pending == 0) {
        fail("the mbarrier at shared address 0x%x: more than %u arrivals in one phase", address, m.count);
    }
    m.bytes += expect_bytes;
    m.pending--;
    race_release(m.arriving);
    turn_over(m);
}

void mbarrier_complete_bytes(uint32_t address, uint32_t bytes, uint32_t agent, uint32_t clock) {
    MBarrier& m = mbarrier_at(address);
    m.bytes -= bytes;
    race_agent_arrives(m.arriving, agent, clock);
    turn_over(m);
}

void mbarrier_wait(uint32_t address, uint32_t parity) {
    MBarrier& m = use(address);
    if (m.phase == parity) {
        worker().mbarrier_waiters.push_back(here.fiber);
        block_on("mbarrier.try_wait", address, parity);
        return;
    }
    race_acquire(here.fiber->thread, m.arrived);
}

#ifndef SIMT_SAN
void proxy_fence() {}
#endif

}  // namespace simt::SIMT_VARIANT
