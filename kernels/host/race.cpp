// race.cpp: the race detector of one block (only in its own build)
//
// Vector clocks. A thread's own clock goes up at each release (a barrier, an mbarrier's arrival, __syncwarp), and who acquires
// learns what the releaser knew. Who works in the background (a TMA copy, a warp's wgmma) is an agent with a clock of its own,
// which threads learn by waiting for it. Two accesses to one place, one of them a write, are a race if the later one's thread
// does not know the earlier one's clock. Shuffles and matrix instructions order no memory, here as on the device.
#include "runtime.h"

#ifdef SIMT_SAN

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace simt::SIMT_VARIANT {

namespace {

constexpr uint32_t kCell = 2;  // bytes that are looked at as one; neighbours within them count as one place

struct Read {
    uint32_t reader, clock;
};

struct Cell {
    uint32_t write_clock;
    uint16_t writer;  // the last one
    bool written_async, written_atomic, in_flight;
    std::vector<Read> reads;  // since then, one of a reader, without those that a later one knew of
};

}  // namespace

struct Race {
    uint32_t stride;               // entries of one thread's clocks
    Clocks known;                  // of thread t: known[t * stride ...]
    Clocks fenced;                 // the same at its last fence.proxy.async; empty before the first of the block
    uint32_t agent_clock[kAgents];
    Cell cells[kArena / kCell + 1];

    uint32_t* of(uint32_t thread) { return &known[(size_t)thread * stride]; }
};

static void written(Cell& c, uint32_t by, uint32_t clock, bool async, bool atomic) {
    c.writer = (uint16_t)by;
    c.write_clock = clock;
    c.written_async = async;
    c.written_atomic = atomic;
    c.in_flight = false;
    c.reads.clear();
}

// Reads that this one knew of need not stay: who does not come after them does not come after this one either.
static void add_read(Cell& c, uint32_t by, uint32_t clock, const uint32_t* known) {
    if (c.reads.empty() || c.reads.back().reader != by) {
        const auto gone = [&](const Read& read) { return read.reader == by || read.clock <= known[read.reader]; };
        c.reads.erase(std::remove_if(c.reads.begin(), c.reads.end(), gone), c.reads.end());
        c.reads.push_back({by, clock});
    }
    c.reads.back().clock = clock;
}

static void forget(Race& r, uint32_t address, uint32_t bytes) {
    for (uint32_t i = address / kCell; i <= (address + bytes) / kCell; i++) {
        written(r.cells[i], 0, 0, false, false);
    }
}

void race_block(Worker& w) {
    if (!w.race) {
        w.race = new Race();
    }
    Race& r = *w.race;
    const uint32_t threads = w.block.threads;
    r.stride = threads + kAgents;
    r.known.assign((size_t)threads * r.stride, 0);
    r.fenced.clear();
    for (uint32_t i = 0; i < threads; i++) {
        r.of(i)[i] = 1;
    }
    memset(r.agent_clock, 0, sizeof(r.agent_clock));
    for (Clocks& c : w.barrier_clocks) {
        c.clear();
    }
    forget(r, w.block.dynamic_at, w.block.shared_end - w.block.dynamic_at);
}

void race_shared(uint32_t address, uint32_t bytes) { forget(*worker().race, address, bytes); }

// ---- who knows what ----

static void join(uint32_t* into, const uint32_t* from, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        into[i] = into[i] < from[i] ? from[i] : into[i];
    }
}

void race_release(Clocks& into) {
    Race& r = *worker().race;
    const uint32_t thread = here.fiber->thread;
    into.resize(r.stride);
    join(into.data(), r.of(thread), r.stride);
    r.of(thread)[thread]++;
}

void race_acquire(uint32_t thread, const Clocks& from) {
    Race& r = *worker().race;
    join(r.of(thread), from.data(), (uint32_t)from.size());
}

void race_sync_warp(uint32_t mask) {
    Race& r = *worker().race;
    const uint32_t first = here.fiber->warp * kWarpSize;
    static thread_local Clocks all;
    all.assign(r.stride, 0);
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        if (mask >> lane & 1) {
            join(all.data(), r.of(first + lane), r.stride);
        }
    }
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        if (mask >> lane & 1) {
            memcpy(r.of(first + lane), all.data(), r.stride * sizeof(uint32_t));
            r.of(first + lane)[first + lane]++;
        }
    }
}

uint32_t race_agent_starts(uint32_t agent) { return ++worker().race->agent_clock[agent]; }

void race_agent_done(uint32_t agent, uint32_t clock, uint32_t lanes) {
    Worker& w = worker();
    const uint32_t first = here.fiber->warp * kWarpSize;
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        if (lanes >> lane & 1) {
            uint32_t& known = w.race->of(first + lane)[w.block.threads + agent];
            known = known < clock ? clock : known;
        }
    }
}

void race_agent_arrives(Clocks& into, uint32_t agent, uint32_t clock) {
    Worker& w = worker();
    into.resize(w.race->stride);
    uint32_t& known = into[w.block.threads + agent];
    known = known < clock ? clock : known;
}

// What this thread knows of generic writes is visible to asynchronous accesses that come after it.
void proxy_fence() {
    Race& r = *worker().race;
    const uint32_t thread = here.fiber->thread;
    r.fenced.resize(r.known.size());
    memcpy(&r.fenced[(size_t)thread * r.stride], r.of(thread), r.stride * sizeof(uint32_t));
    r.of(thread)[thread]++;  // later writes are not covered
}

// ---- shared memory ----

static void place_of(uint32_t address, char* text, size_t size) {
    const Worker& w = worker();
    if (address >= w.block.dynamic_at) {
        snprintf(text, size, "dynamic shared memory, byte %u", address - w.block.dynamic_at);
        return;
    }
    for (uint32_t i = 0; i < w.static_count; i++) {
        const Static& s = w.statics[i];
        if (address >= s.at && address < s.at + s.bytes) {
            snprintf(text, size, "static shared memory, byte %u of array %u of %u bytes", address - s.at, i, s.bytes);
            return;
        }
    }
    snprintf(text, size, "shared address 0x%x", address);
}

[[noreturn]] static void race_on_shared(const char* access, const char* earlier, uint32_t address, uint32_t who) {
    char place[100], other[60];
    place_of(address, place, sizeof(place));
    const uint32_t threads = worker().block.threads;
    if (who < threads) {
        snprintf(other, sizeof(other), "thread %u", who);
    } else {
        const uint32_t agent = who - threads;
        const bool load = agent < kFirstProductAgent, product = !load && agent < kFirstStoreAgent;
        snprintf(other, sizeof(other), "%s", load ? "a TMA load" : product ? "a wgmma" : "a TMA store");
    }
    fail("RACE on %s: this %s and an earlier %s by %s have no order", place, access, earlier, other);
}

static void look(uint32_t address, uint32_t bytes, Access access, uint32_t me, uint32_t clock, bool async) {
    Race& r = *worker().race;
    const uint32_t thread = here.fiber->thread;
    const uint32_t* known = r.of(thread);
    const bool writes = access != Access::Read;
    const char* name = access == Access::Read ? (async ? "background read" : "read") : async ? "background write" : "write";
    for (uint32_t i = address / kCell; i < (address + bytes + kCell - 1) / kCell; i++) {
        Cell& c = r.cells[i];
        if (c.in_flight) {
            char place[100];
            place_of(i * kCell, place, sizeof(place));
            fail("RACE on %s: this %s while a cp.async of thread %u to it is in flight", place, name, c.writer);
        }
        const bool both_atomic = access == Access::Atomic && c.written_atomic;
        if (c.write_clock && c.writer != me && c.write_clock > known[c.writer] && !both_atomic) {
            race_on_shared(name, "write", i * kCell, c.writer);
        }
        if (async && c.write_clock && !c.written_async) {
            const bool fences = !r.fenced.empty();
            const uint32_t by_writer = fences ? r.fenced[(size_t)c.writer * r.stride + c.writer] : 0;
            const uint32_t by_this = fences ? r.fenced[(size_t)thread * r.stride + c.writer] : 0;
            if (c.write_clock > by_writer && c.write_clock > by_this) {
                char place[100];
                place_of(i * kCell, place, sizeof(place));
                fail("missing fence.proxy.async: a background access to %s, which thread %u wrote", place, c.writer);
            }
        }
        if (writes) {
            for (const Read& read : c.reads) {
                if (read.reader != me && read.clock > known[read.reader]) {
                    race_on_shared(name, "read", i * kCell, read.reader);
                }
            }
            written(c, me, clock, async, access == Access::Atomic);
        } else {
            add_read(c, me, clock, known);
        }
    }
}

void race_agent_access(uint32_t agent, uint32_t address, uint32_t bytes, bool write) {
    Worker& w = worker();
    look(address, bytes, write ? Access::Write : Access::Read, w.block.threads + agent, w.race->agent_clock[agent], true);
}

// From here on nobody may touch the place, this thread included, until this thread has waited.
void race_copy_starts(uint32_t address, uint32_t bytes) {
    Race& r = *worker().race;
    const uint32_t thread = here.fiber->thread;
    look(address, bytes, Access::Write, thread, r.of(thread)[thread], false);
    for (uint32_t i = address / kCell; i < (address + bytes) / kCell; i++) {
        r.cells[i].in_flight = true;
    }
}

// The write counts as done now, so that only what this thread releases from here on tells others of it.
void race_copy_lands(const void* p, uint32_t bytes) {
    Worker& w = worker();
    const uint32_t thread = here.fiber->thread, address = shared_address(p);
    for (uint32_t i = address / kCell; i < (address + bytes) / kCell; i++) {
        w.race->cells[i].in_flight = false;
        w.race->cells[i].write_clock = w.race->of(thread)[thread];
    }
}

void race_shared_access(const uint8_t* p, uint32_t bytes, Access access) {
    Worker& w = worker();
    const int64_t address = p - w.block.shared;
    if (address < 0 || address + bytes > w.block.shared_end) {
        fail("illegal access to shared address %lld + %u, beyond the block's %u bytes", (long long)address, bytes,
             w.block.shared_end);
    }
    if (address < w.block.dynamic_at) {
        bool inside = false;
        for (uint32_t i = 0; i < w.static_count; i++) {
            inside |= address >= w.statics[i].at && address + bytes <= w.statics[i].at + w.statics[i].bytes;
        }
        if (!inside) {
            fail("illegal access to static shared address %lld + %u, which is in no SHARED array", (long long)address, bytes);
        }
    }
    const uint32_t thread = here.fiber->thread;
    look((uint32_t)address, bytes, access, thread, w.race->of(thread)[thread], false);
}

}  // namespace simt::SIMT_VARIANT

#endif
