// tma.cpp: bulk tensor copies
//
// Fixed order: a copy happens at once. Lazy mode: a load when nobody else can run, or at random; a store when its thread waits
// for it.
#include <cstring>

#include "runtime.h"

namespace simt::SIMT_VARIANT {

constexpr uint32_t kChunk = 16;  // swizzling moves chunks of 16 bytes

uint32_t swizzled(uint32_t address, uint32_t mode) {
    constexpr uint32_t kBits[] = {0, 0x10, 0x30, 0x70};  // what moves for 32, 64 and 128 bytes
    return address ^ (address >> 3 & kBits[mode & 3]);
}

static const HostTensorMap& host_map(const TensorMap* map) {
    const HostTensorMap& host = *(const HostTensorMap*)map;
    if (host.magic != kTensorMapMagic) {
        fail("%p is not a tensor map of the emulation", (const void*)map);
    }
    if (host.rank != 2) {
        fail("a two-dimensional copy with a tensor map of %u dimensions", host.rank);
    }
    return host;
}

static uint32_t box_bytes(const HostTensorMap& m) { return m.box[0] * m.box[1] * m.element_size; }

void tma_check(const TensorMap* map) { host_map(map); }

// The part of one chunk, `bytes` of `count` elements, that is inside the tensor; the rest is zero for a load.
static void copy_chunk(const TmaOp& op, uint8_t* shared, int64_t x, int64_t y) {
    const HostTensorMap& m = op.map;
    const int64_t size = m.element_size, count = kChunk / size;
    int64_t first = x < 0 ? -x : 0, last = (int64_t)m.dim[0] - x;
    last = last > count ? count : last;
    if (y < 0 || y >= (int64_t)m.dim[1] || first >= last) {
        first = last = 0;
    }
    uint8_t* global = m.base + y * (int64_t)m.stride[0] + x * size;
    const size_t skip = first * size, bytes = (last - first) * size;
    if (bytes) {
        saw(global + skip, (uint32_t)bytes, op.load ? Access::Read : Access::Write);
    }
    if (op.load) {
        memset(shared, 0, kChunk);
        if (bytes) {
            memcpy(shared + skip, global + skip, bytes);
        }
    } else if (bytes) {
        memcpy(global + skip, shared + skip, bytes);
    }
}

static void perform(const TmaOp& op) {
    const HostTensorMap& m = op.map;
    const uint32_t row_bytes = m.box[0] * m.element_size;
    uint8_t* shared = here.block->shared;
    for (uint32_t row = 0; row < m.box[1]; row++) {
        for (uint32_t at = 0; at < row_bytes; at += kChunk) {
            uint8_t* chunk = shared + swizzled(op.shared + row * row_bytes + at, m.swizzle);
            copy_chunk(op, chunk, op.x + (int64_t)(at / m.element_size), op.y + (int64_t)row);
        }
    }
    if (op.load) {
        mbarrier_complete_bytes(op.bar, box_bytes(m), op.agent, op.clock);
    }
}

static TmaOp checked(const TensorMap* map, uint32_t shared, int x, int y) {
    constexpr uint32_t kAlign = 128;
    TmaOp op{};
    op.map = host_map(map);
    op.x = x;
    op.y = y;
    op.shared = shared;
    op.thread = here.fiber->thread;
    // The swizzle takes bits of the address itself, so a tile begins where its pattern does.
    const uint32_t align = kAlign << op.map.swizzle;
    if (shared % align != 0) {
        fail("TMA: the shared address 0x%x is not %u-byte aligned", shared, align);
    }
    shared_at(shared, box_bytes(op.map));
    return op;
}

void tma_load(uint32_t dst, const TensorMap* map, int x, int y, uint32_t bar) {
    Worker& w = worker();
    TmaOp op = checked(map, dst, x, y);
    const uint32_t index = (uint32_t)(&mbarrier_at(bar) - w.mbarriers.data());
    op.load = true;
    op.bar = bar;
    op.agent = kFirstLoadAgent + index % kLoadAgents;
    op.clock = race_agent_starts(op.agent);
    const uint32_t bytes = box_bytes(op.map);
    race_agent_access(op.agent, dst, bytes, true);
    if (!w.block.lazy) {
        perform(op);
        return;
    }
    memset(shared_at(dst, bytes), kPoison, bytes);
    w.tma.push_back(op);
}

void tma_store(const TensorMap* map, uint32_t src, int x, int y) {
    Worker& w = worker();
    TmaOp op = checked(map, src, x, y);
    op.load = false;
    op.group = w.stores[op.thread].open;
    op.agent = kFirstStoreAgent + here.fiber->warp % kStoreAgents;
    op.clock = race_agent_starts(op.agent);
    race_agent_access(op.agent, src, box_bytes(op.map), false);
    w.stores[op.thread].clock = op.clock;
    if (!w.block.lazy) {
        perform(op);
        return;
    }
    w.tma.push_back(op);
}

void tma_commit() {
    StoreGroups& mine = worker().stores[here.fiber->thread];
    mine.closed[mine.open++ % kGroupsKept] = mine.clock;
}

void tma_wait(uint32_t groups) {
    Worker& w = worker();
    const uint32_t thread = here.fiber->thread;
    StoreGroups& mine = w.stores[thread];
    if (mine.open <= groups) {
        return;
    }
    for (size_t i = 0; i < w.tma.size();) {
        const TmaOp op = w.tma[i];
        if (op.load || op.thread != thread || op.group + groups >= mine.open) {
            i++;
            continue;
        }
        w.tma.erase(w.tma.begin() + (long)i);
        perform(op);
    }
    const uint32_t clock = mine.closed[(mine.open - 1 - groups) % kGroupsKept];
    race_agent_done(kFirstStoreAgent + here.fiber->warp % kStoreAgents, clock, 1u << here.fiber->lane);
}

// One load that is under way comes to its end. False if there is none.
bool tma_step(Worker& w) {
    size_t loads = 0;
    for (const TmaOp& op : w.tma) {
        loads += op.load;
    }
    if (loads == 0) {
        return false;
    }
    size_t skip = w.block.random ? random_bits(w.block) % loads : 0;
    for (size_t i = 0; i < w.tma.size(); i++) {
        if (w.tma[i].load && skip-- == 0) {
            const TmaOp op = w.tma[i];
            w.tma.erase(w.tma.begin() + (long)i);
            perform(op);
            return true;
        }
    }
    return false;
}

void tma_block_ends(Worker& w) {
    if (!w.tma.empty()) {
        fail("the block ends with a TMA load that nobody waited for");
    }
}

void tma_thread_exits(Worker& w) {
    const uint32_t thread = here.fiber->thread;
    for (const TmaOp& op : w.tma) {
        if (!op.load && op.thread == thread) {
            fail("the thread returns with a TMA store that it never waited for");
        }
    }
}

}  // namespace simt::SIMT_VARIANT

using namespace simt;

int SIMT_C(tensor_map)(void* map, void* base, uint32_t element_size, uint64_t columns, uint64_t rows, uint64_t row_stride,
                       uint32_t box_columns, uint32_t box_rows, uint32_t swizzle) {
    constexpr uint64_t kMaxSize = 1ull << 32, kMaxStride = 1ull << 40;
    constexpr uint32_t kMaxBox = 256, kAlign = 16;
    const char* wrong = nullptr;
    if (element_size != 1 && element_size != 2 && element_size != 4 && element_size != 8) {
        wrong = "elements have 1, 2, 4 or 8 bytes";
    } else if ((uintptr_t)base % kAlign != 0 || row_stride % kAlign != 0) {
        wrong = "the base and the stride of rows are multiples of 16 bytes";
    } else if (columns == 0 || rows == 0 || columns > kMaxSize || rows > kMaxSize || row_stride >= kMaxStride) {
        wrong = "sizes are 1 to 2^32, the stride is below 2^40 bytes";
    } else if (row_stride < columns * element_size) {
        wrong = "a row is not longer than the stride of rows";
    } else if (box_columns == 0 || box_rows == 0 || box_columns > kMaxBox || box_rows > kMaxBox) {
        wrong = "a box has 1 to 256 columns and rows";
    } else if (box_columns * element_size % kAlign != 0) {
        wrong = "a row of the box is a multiple of 16 bytes";
    } else if (swizzle > 3 || (swizzle != 0 && box_columns * element_size > 16u << swizzle)) {
        wrong = "a row of the box is not longer than what is swizzled";
    }
    if (wrong) {
        set_error("tensor map: %s", wrong);
        return SIMT_INVALID;
    }
    if (SIMT_C(check_range)(base, (rows - 1) * row_stride + columns * element_size, 0)) {
        return SIMT_INVALID;
    }
    HostTensorMap host{};
    host.magic = kTensorMapMagic;
    host.base = (uint8_t*)base;
    host.rank = 2;
    host.element_size = element_size;
    host.dim[0] = columns;
    host.dim[1] = rows;
    host.stride[0] = row_stride;
    host.box[0] = box_columns;
    host.box[1] = box_rows;
    host.swizzle = swizzle;
    memset(map, 0, sizeof(TensorMap));
    memcpy(map, &host, sizeof(host));
    return SIMT_OK;
}
