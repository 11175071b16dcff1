// schedule.cpp: whose turn it is, how lanes meet, and how a block begins, ends and fails
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime.h"

namespace simt::SIMT_VARIANT {

// ---- errors ----

// Adds to the worker's message, without allocating: a fiber that fails never frees anything.
void append(Worker& w, const char* format, ...) {
    const size_t used = strlen(w.message);
    va_list args;
    va_start(args, format);
    vsnprintf(w.message + used, sizeof(w.message) - used, format, args);
    va_end(args);
}

void append_where(Worker& w) {
    const Block& b = w.block;
    const Fiber& f = *here.fiber;
    append(w, "kernel %s, block (%u,%u,%u), thread %u [warp %u lane %u]: ", w.launch->kernel->name, b.id.x, b.id.y, b.id.z,
           f.thread, f.warp, f.lane);
}

// Leaves the block for good. The stacks of its fibers are simply used again.
void abandon(Worker& w) {
    w.failed = true;
    SIMT_C(switch)(&w.lost_sp, w.main_sp);
    abort();
}

void fail(const char* format, ...) {
    va_list args;
    va_start(args, format);
    if (!here.fiber) {
        vfprintf(stderr, format, args);
        abort();
    }
    Worker& w = worker();
    w.message[0] = 0;
    append_where(w);
    const size_t used = strlen(w.message);
    vsnprintf(w.message + used, sizeof(w.message) - used, format, args);
    va_end(args);
    abandon(w);
}

static void describe_wait(Worker& w, const Fiber& f) {
    if (strncmp(f.waits_in, "mbarrier", 8) == 0) {
        const MBarrier& m = mbarrier_at(f.object);
        append(w, " at shared address 0x%x, parity %u (phase %u: %u of %u arrivals and %lld bytes are missing)", f.object,
               f.detail, m.phase, m.pending, m.count, (long long)m.bytes);
    } else if (strncmp(f.waits_in, "bar.sync", 8) == 0 || strcmp(f.waits_in, "__syncthreads") == 0) {
        const NamedBarrier& n = w.barriers[f.object];
        append(w, " (barrier %u: %u of %u threads arrived)", f.object, n.arrived, n.expected);
    } else {
        const Warp& warp = w.block.warp[f.warp];
        append(w, " (mask 0x%08x; lanes 0x%08x have returned)", f.object, warp.exists & ~warp.live);
    }
}

// Who waits where, one line for lanes of a warp that wait for the same.
[[noreturn]] static void report_deadlock(Worker& w) {
    const Block& b = w.block;
    w.message[0] = 0;
    append(w, "kernel %s, block (%u,%u,%u): DEADLOCK, no thread can run:\n", w.launch->kernel->name, b.id.x, b.id.y, b.id.z);
    for (uint32_t i = 0; i < b.warps; i++) {
        uint32_t told = ~b.warp[i].live;
        for (uint32_t lane = 0; lane < kWarpSize; lane++) {
            if (told >> lane & 1) {
                continue;
            }
            const Fiber& f = b.fibers[i * kWarpSize + lane];
            uint32_t same = 0;
            for (uint32_t j = lane; j < kWarpSize; j++) {
                const Fiber& g = b.fibers[i * kWarpSize + j];
                if (!(told >> j & 1) && g.waits_in == f.waits_in && g.object == f.object && g.detail == f.detail) {
                    same |= 1u << j;
                }
            }
            told |= same;
            append(w, "  warp %u lanes 0x%08x (thread %u...) wait in %s", i, same, f.thread, f.waits_in);
            describe_wait(w, f);
            append(w, "\n");
        }
    }
    abandon(w);
}

// ---- turns ----

// The upper half of a linear congruential generator: one step per turn must not be noticed.
uint32_t random_bits(Block& b) {
    b.rng = b.rng * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(b.rng >> 32);
}

// The next fiber after this lane that can run, first in the same warp.
static Fiber* pick_from(Block& b, uint32_t warp, uint32_t lane) {
    for (uint32_t i = 0; i < b.warps; i++) {
        if (const uint32_t ready = b.warp[warp].ready) {
            const uint32_t later = i == 0 ? ready & ~((2u << lane) - 1) : 0;
            return &b.fibers[warp * kWarpSize + __builtin_ctz(later ? later : ready)];
        }
        if (++warp == b.warps) {
            warp = 0;
        }
    }
    return nullptr;
}

// Any fiber that can run. A warp keeps its turn for a while, and at times background work has its own.
static Fiber* pick_at_random(Block& b, uint32_t warp) {
    constexpr uint32_t kStay = 8, kBackground = 64;
    uint32_t draw = random_bits(b);
    const uint32_t lane = draw % kWarpSize;
    draw /= kWarpSize;
    if (draw % kBackground == 0) {
        tma_step(*b.worker);
    }
    if (draw % kStay == 1) {
        warp = draw / kBackground % b.warps;
    }
    return pick_from(b, warp, lane);
}

// Gives the turn away. In fixed order background work comes when nobody can run.
void give_turn(Block& b) {
    Fiber* const self = here.fiber;
    Fiber* next;
    while (!(next = b.random ? pick_at_random(b, self->warp) : pick_from(b, self->warp, self->lane))) {
        if (!tma_step(*b.worker)) {
            report_deadlock(*b.worker);
        }
    }
    if (next == self) {
        return;
    }
    b.switches++;
    here.fiber = next;
    switch_stack(&self->sp, next->sp);
}

void block_on(const char* name, uint32_t object, uint32_t detail) {
    Fiber* f = here.fiber;
    f->waits_in = name;
    f->object = object;
    f->detail = detail;
    here.block->warp[f->warp].ready &= ~(1u << f->lane);
    give_turn(*here.block);
}

void meet_slowly(const Collective& op, uint32_t mask, void* args) {
    Fiber* f = here.fiber;
    Block& b = *here.block;
    Warp& warp = b.warp[f->warp];
    if (!(mask >> f->lane & 1)) {
        fail("%s: the lane is not in its own mask 0x%08x", op.name, mask);
    }
    if (mask == kFullMask) {
        mask = warp.exists;  // a warp that the block does not fill
    }
    if (mask & ~warp.live) {
        fail("%s: mask 0x%08x names lanes that have returned or never were (live: 0x%08x)", op.name, mask, warp.live);
    }
    Meeting* m = nullptr;
    for (Meeting& other : warp.meeting) {
        if (other.mask == mask) {
            m = &other;
            break;
        }
        if (!other.mask && !m) {
            m = &other;
        }
    }
    if (!m) {
        fail("%s: more than %d masks under way in one warp", op.name, kMeetings);
    }
    if (!m->mask) {
        warp.open++;
        m->mask = mask;
        m->arrived = 0;
        m->what = &op;
    } else if (m->what != &op) {
        fail("warp divergence: this lane calls %s with mask 0x%08x while lanes 0x%08x wait in %s", op.name, mask, m->arrived,
             m->what->name);
    }
    m->args[f->lane] = args;
    m->arrived |= 1u << f->lane;
    if (m->arrived != mask) {
        block_on(op.name, mask, 0);
        return;
    }
    op.run(m->args, mask);
    m->mask = 0;
    warp.open--;
    warp.ready |= mask;
    b.collectives++;
    if (b.random) {
        give_turn(b);  // otherwise the last to come would always go on first
    }
}

// ---- a block ----

static void fiber_main() {
    Worker& w = worker();
    w.launch->kernel->run(w.launch->params);
    Block& b = w.block;
    Fiber* f = here.fiber;
    copy_thread_exits(w);
    tma_thread_exits(w);
    Warp& warp = b.warp[f->warp];
    warp.live &= ~(1u << f->lane);
    warp.ready &= ~(1u << f->lane);
    if (--b.live == 0) {
        tma_block_ends(w);
        wgmma_block_ends(w);
        SIMT_C(switch)(&w.lost_sp, w.main_sp);
    }
    const NamedBarrier& all = w.barriers[0];
    if (all.arrived && all.expected == b.threads) {
        fail("the thread returns while %u threads wait for it in __syncthreads", all.arrived);
    }
    give_turn(b);
    abort();
}

static void begin(Worker& w, const Launch& launch, uint64_t index) {
    const Kernel& kernel = *launch.kernel;
    Block& b = w.block;
    const dim3 grid = launch.grid;
    b.worker = &w;
    b.fibers = w.fibers;
    b.threads = b.live = kernel.threads;
    b.warps = (kernel.threads + kWarpSize - 1) / kWarpSize;
    b.id = {(unsigned)(index % grid.x), (unsigned)(index / grid.x % grid.y), (unsigned)(index / grid.x / grid.y)};
    b.dim = {kernel.threads, 1, 1};
    b.grid = grid;
    b.lazy = launch.mode.lazy != 0;
    b.random = launch.mode.random != 0;
    b.rng = (launch.mode.seed + index) * 0x9E3779B97F4A7C15ull;
    b.switches = b.collectives = 0;

    // Static memory first, then dynamic, whose end is as near to the guard page as its alignment allows.
    const uint32_t room = (kSharedMax - kernel.dynamic_shared) / kSharedAlign * kSharedAlign;
    b.dynamic_at = room < kStaticMax ? room : kStaticMax;
    b.shared_end = b.dynamic_at + kernel.dynamic_shared;
    b.shared = w.arena + kArena - (b.shared_end + kSharedAlign - 1) / kSharedAlign * kSharedAlign;
    memset(b.shared + b.dynamic_at, kPoison, kernel.dynamic_shared);
    w.static_count = w.static_end = 0;

    memset(w.barriers, 0, sizeof(w.barriers));
    w.mbarriers.clear();
    w.mbarrier_waiters.clear();
    w.tma.clear();
    memset(w.stores, 0, sizeof(w.stores[0]) * kernel.threads);
    w.failed = false;

    open_stacks(w, kernel.threads);
    for (uint32_t i = 0; i < b.warps; i++) {
        Warp& warp = b.warp[i];
        const uint32_t lanes = kernel.threads - i * kWarpSize;
        warp.exists = warp.live = warp.ready = lanes < kWarpSize ? (1u << lanes) - 1 : kFullMask;
        warp.open = 0;
        for (Meeting& m : warp.meeting) {
            m.mask = 0;
        }
    }
    wgmma_block_begins(w);
    for (uint32_t i = 0; i < kernel.threads; i++) {
        Fiber& f = w.fibers[i];
        f.tid = {i, 0, 0};
        f.thread = i;
        f.warp = i / kWarpSize;
        f.lane = i % kWarpSize;
        f.waits_in = "the start";
        f.object = f.detail = f.copies = f.copy_group = 0;
        prepare_fiber(w, i, fiber_main);
    }
    race_block(w);
}

// True if the block came to its end; otherwise the worker's message says why not.
bool run_block(Worker& w, const Launch& launch, uint64_t index) {
    w.launch = &launch;
    begin(w, launch, index);
    here.block = &w.block;
    here.fiber = w.block.random ? pick_at_random(w.block, 0) : &w.fibers[0];
    SIMT_C(switch)(&w.main_sp, here.fiber->sp);
    here.fiber = nullptr;
    here.block = nullptr;
    return !w.failed;
}

}  // namespace simt::SIMT_VARIANT
