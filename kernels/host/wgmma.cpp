// wgmma.cpp: asynchronous products of a warpgroup
//
// Each warp computes its own 16 rows. Fixed order: at once. Lazy mode: when the warp waits for it; until then its accumulators
// hold a NaN with a mark in it, by which a kernel that touches them is found.
#include <cstring>

#include "tile.h"

namespace simt::SIMT_VARIANT {

constexpr uint32_t kInFlight = 0x7FA0DEAD;  // a signalling NaN
constexpr int kDepth = 16;                  // of one product

static WgmmaWarp& state() { return worker().wgmma[here.fiber->warp]; }

// ---- operands ----

// Where the operand's 8 neighbouring values lie: of row `mn` at k = 8 `k`, or, transposed, at depth `k` from column `mn` on.
static uint32_t operand_address(uint64_t desc, uint32_t mn, uint32_t k, bool transposed) {
    const uint32_t start = (uint32_t)(desc & 0x3fff) << 4;
    const uint32_t leading = (uint32_t)(desc >> 16 & 0x3fff) << 4;
    const uint32_t stride = (uint32_t)(desc >> 32 & 0x3fff) << 4;
    const uint32_t mode = (uint32_t)(desc >> 62);                           // 1: 128 bytes, 2: 64, 3: 32
    const uint32_t swizzle = mode == 1 ? 3 : mode == 3 ? 1 : mode;          // as in tensor maps
    const uint32_t row = 16u << swizzle;                                    // bytes of a row of the pattern
    if (desc >> 49 & 7) {
        fail("wgmma: a descriptor with a base offset, which the emulation has not");
    }
    uint32_t address;
    if (!transposed) {
        address = start + mn / 8 * stride + mn % 8 * row + k * (swizzle ? 16 : leading);
    } else if (!swizzle) {
        address = start + mn / 8 * stride + k % 8 * 16 + k / 8 * leading;
    } else {
        address = start + mn * 2 / row * leading + mn * 2 % row + k % 8 * row + k / 8 * stride;
    }
    return swizzled(address, swizzle);
}

static void load8(float* out, int out_stride, uint32_t address) {
    uint32_t pair[4];
    memcpy(pair, shared_at(address, sizeof(pair)), sizeof(pair));
    for (int i = 0; i < 4; i++) {
        out[2 * i * out_stride] = bf_lo(pair[i]);
        out[(2 * i + 1) * out_stride] = bf_hi(pair[i]);
    }
}

// Calls f(address, row of a or b, first column) for every 8 values that this warp reads: a by rows, b by depth.
template <class F>
static void each_of_a(const WgmmaOp& op, F f) {
    const uint32_t first = here.fiber->warp % kWarpsPerGroup * 16;
    for (uint32_t row = 0; row < 16; row++) {
        for (uint32_t half = 0; half < 2; half++) {
            f(operand_address(op.desc_a, first + row, half, false), row, half * 8);
        }
    }
}

template <int N, bool kTransposed, class F>
static void each_of_b(const WgmmaOp& op, F f) {
    if constexpr (kTransposed) {
        for (uint32_t k = 0; k < kDepth; k++) {
            for (uint32_t column = 0; column < N; column += 8) {
                f(operand_address(op.desc_b, column, k, true), k, column);
            }
        }
    } else {
        for (uint32_t column = 0; column < N; column++) {
            for (uint32_t half = 0; half < 2; half++) {
                f(operand_address(op.desc_b, column, half, false), half * 8, column);
            }
        }
    }
}

// ---- the product ----

// Lane l holds of each 8 columns the two at 2 (l % 4) in row l / 4, then those in row l / 4 + 8.
template <int N, class F>
static void each_accumulator_pair(float* const* lanes, float (*d)[N], F f) {
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        for (int column = 0; column < N / 8; column++) {
            float* held = lanes[lane] + column * 4;
            float* matrix = &d[lane / 4][column * 8 + lane % 4 * 2];
            f(held, matrix);
            f(held + 2, matrix + 8 * N);
        }
    }
}

template <int N, bool kTransposed>
static void multiply(const WgmmaOp& op) {
    float a[16][kDepth];
    alignas(32) float b[kDepth][N], d[16][N];
    each_of_a(op, [&](uint32_t address, uint32_t row, uint32_t k) { load8(&a[row][k], 1, address); });
    each_of_b<N, kTransposed>(
        op, [&](uint32_t address, uint32_t k, uint32_t column) { load8(&b[k][column], kTransposed ? 1 : N, address); });
    if (op.accumulate) {
        each_accumulator_pair<N>(op.d, d, [](const float* held, float* matrix) { memcpy(matrix, held, 2 * sizeof(float)); });
    } else {
        memset(d, 0, sizeof(d));
    }
    for (int row = 0; row < 16; row += 8) {
        for (int column = 0; column < N; column += 8) {
            multiply_tile(&a[row], &b[0][column], N, &d[row][column], N);
        }
    }
    each_accumulator_pair<N>(op.d, d, [](float* held, const float* matrix) { memcpy(held, matrix, 2 * sizeof(float)); });
}

// ---- in flight ----

static void take_away(WgmmaOp& op) {
    op.saved.reserve((size_t)op.registers * kWarpSize);
    for (float* d : op.d) {
        op.saved.insert(op.saved.end(), d, d + op.registers);
        for (uint32_t i = 0; i < op.registers; i++) {
            memcpy(&d[i], &kInFlight, sizeof(kInFlight));
        }
    }
}

static void give_back(WgmmaOp& op) {
    if (op.saved.empty()) {
        return;
    }
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        float* d = op.d[lane];
        for (uint32_t i = 0; i < op.registers; i++) {
            if (memcmp(&d[i], &kInFlight, sizeof(kInFlight)) != 0) {
                fail("wgmma: accumulator %u of lane %u was written while a product that uses it was in flight", i, lane);
            }
        }
        memcpy(d, &op.saved[(size_t)lane * op.registers], op.registers * sizeof(float));
    }
}

// Of the products in flight that use the same accumulators, the first holds their values.
static void take_away_from_first(std::vector<WgmmaOp>& queue) {
    for (size_t i = 0; i < queue.size(); i++) {
        bool first = queue[i].saved.empty();
        for (size_t j = 0; j < i; j++) {
            first &= queue[j].d[0] != queue[i].d[0];
        }
        if (first) {
            take_away(queue[i]);
        }
    }
}

template <int N, bool kTransposed>
static void issue(void* const* args, uint32_t mask) {
    constexpr uint32_t kGroup = kWarpsPerGroup * kWarpSize;
    Block& b = *here.block;
    const uint32_t warp = here.fiber->warp;
    WgmmaWarp& s = state();
    if (mask != kFullMask || warp / kWarpsPerGroup >= b.threads / kGroup) {
        fail("wgmma needs whole warpgroups of %u threads", kGroup);
    }
    if (!s.fenced) {
        fail("wgmma.mma_async without a wgmma.fence since the group was opened");
    }
    const WgmmaArgs& first = *(const WgmmaArgs*)args[0];
    WgmmaOp op{multiply<N, kTransposed>, first.desc_a, first.desc_b, {}, first.accumulate != 0, s.group, N / 2, {}};
    for (uint32_t lane = 0; lane < kWarpSize; lane++) {
        const WgmmaArgs& a = *(const WgmmaArgs*)args[lane];
        if (a.desc_a != first.desc_a || a.desc_b != first.desc_b || (a.accumulate != 0) != op.accumulate) {
            fail("wgmma: the lanes of a warp differ in descriptors or in whether to accumulate");
        }
        op.d[lane] = a.d;
    }
    s.products++;
    const uint32_t agent = kFirstProductAgent + warp;
    s.clock = race_agent_starts(agent);
    if constexpr (kRace) {
        const auto read = [&](uint32_t address, uint32_t, uint32_t) { race_agent_access(agent, address, 16, false); };
        each_of_a(op, read);
        each_of_b<N, kTransposed>(op, read);
    }
    if (!b.lazy) {
        op.run(op);
        return;
    }
    s.queue.push_back(std::move(op));
    take_away_from_first(s.queue);
}

static void fence(void* const*, uint32_t) { state().fenced = true; }

static void commit(void* const*, uint32_t) {
    WgmmaWarp& s = state();
    s.fenced = false;
    s.closed[s.group++ % kGroupsKept] = s.clock;
}

static void wait(void* const* args, uint32_t mask) {
    WgmmaWarp& s = state();
    const uint32_t groups = *(const uint32_t*)args[__builtin_ctz(mask)];
    if (s.group <= groups) {
        return;
    }
    size_t done = 0;
    for (; done < s.queue.size() && s.queue[done].group + groups < s.group; done++) {
        give_back(s.queue[done]);
        s.queue[done].run(s.queue[done]);
    }
    s.queue.erase(s.queue.begin(), s.queue.begin() + (long)done);
    take_away_from_first(s.queue);
    race_agent_done(kFirstProductAgent + here.fiber->warp, s.closed[(s.group - 1 - groups) % kGroupsKept], kFullMask);
}

void wgmma_block_begins(Worker& w) {
    for (uint32_t i = 0; i < w.block.warps; i++) {
        WgmmaWarp& s = w.wgmma[i];
        s.fenced = false;
        s.products = s.group = s.clock = 0;
        s.queue.clear();
    }
}

// A product is the whole warpgroup's: on the device it would have waited for the fourth warp for ever.
void wgmma_block_ends(Worker& w) {
    for (uint32_t i = 0; i < w.block.warps; i++) {
        const uint32_t leader = i / kWarpsPerGroup * kWarpsPerGroup;
        if (w.wgmma[i].products != w.wgmma[leader].products) {
            fail("wgmma: warp %u issued %u products, but warp %u of the same warpgroup %u", leader, w.wgmma[leader].products, i,
                 w.wgmma[i].products);
        }
        if (!w.wgmma[i].queue.empty()) {
            fail("the block ends with a wgmma that warp %u never waited for", i);
        }
    }
}

extern const Collective kWgmmaM64N64K16{"wgmma.mma_async", issue<64, false>};
extern const Collective kWgmmaM64N64K16TransB{"wgmma.mma_async", issue<64, true>};
extern const Collective kWgmmaFence{"wgmma.fence", fence};
extern const Collective kWgmmaCommit{"wgmma.commit_group", commit};
extern const Collective kWgmmaWait{"wgmma.wait_group", wait};

}  // namespace simt::SIMT_VARIANT
