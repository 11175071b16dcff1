// runtime.h: what the files of the runtime share; kernels do not see it
#pragma once
#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "../ptx.cuh"
#include "simt_rt.h"

namespace simt::SIMT_VARIANT {

#ifdef SIMT_SAN
constexpr bool kRace = true;
#else
constexpr bool kRace = false;
#endif

constexpr size_t kStackSize = 64 << 10;           // of a fiber, its colour and its guard page not counted
constexpr uint32_t kSharedMax = 227 << 10;        // what a block can have on Hopper
constexpr uint32_t kStaticMax = 48 << 10;         // of it static
constexpr uint32_t kSharedAlign = 1024;           // of dynamic shared memory
constexpr uint32_t kArena = kSharedMax + kSharedAlign;
constexpr uint32_t kCopiesInFlight = 128;         // cp.async per thread
constexpr uint32_t kGroupsKept = 8;               // one more than wait_group can leave unfinished
constexpr uint32_t kMaxStatics = 64;              // SHARED arrays per kernel
constexpr uint32_t kWarpsPerGroup = 4;
constexpr int kPoison = 0xFF;                     // bytes of memory that nobody wrote: NaN in bf16 and f32

// What a tensor map holds here: the driver's rules about it are checked where it is made.
struct HostTensorMap {
    uint64_t magic;
    uint8_t* base;
    uint32_t rank, element_size;
    uint64_t dim[5], stride[4];  // innermost first; strides in bytes, without the innermost
    uint32_t box[5];
    uint32_t swizzle;            // 0: none, 1: 32 bytes, 2: 64, 3: 128
};
static_assert(sizeof(HostTensorMap) <= sizeof(TensorMap), "it must fit the driver's");
constexpr uint64_t kTensorMapMagic = 0x746573656e6f7274;

// Agents are who works in the background; to the race detector they are threads beyond the block's own.
constexpr uint32_t kLoadAgents = 16, kStoreAgents = 16;
constexpr uint32_t kFirstLoadAgent = 0, kFirstProductAgent = kLoadAgents;
constexpr uint32_t kFirstStoreAgent = kFirstProductAgent + kMaxWarps;
constexpr uint32_t kAgents = kFirstStoreAgent + kStoreAgents;

struct Copy {
    void* dst;
    const void* src;
    uint32_t bytes, group;
};

struct TmaOp {
    HostTensorMap map;
    int32_t x, y;
    uint32_t shared;
    uint32_t bar;            // a load's barrier
    uint32_t thread, group;  // a store's owner
    uint32_t agent, clock;
    bool load;
};

struct WgmmaOp {
    void (*run)(const WgmmaOp&);
    uint64_t desc_a, desc_b;
    float* d[kWarpSize];
    bool accumulate;
    uint32_t group, registers;   // accumulators per lane
    std::vector<float> saved;    // those of all lanes, if this is the first in flight to use them
};

// wgmma of one warp, which computes 16 of the 64 rows.
struct WgmmaWarp {
    bool fenced;
    uint32_t products;            // since the block began
    uint32_t group, clock;        // the open group, and the last product's clock
    uint32_t closed[kGroupsKept]; // the clocks of closed groups
    std::vector<WgmmaOp> queue;   // lazy mode
};

using Clocks = std::vector<uint32_t>;  // of the race detector; empty in the plain build

struct NamedBarrier {
    uint32_t arrived, expected;
    uint32_t waiting[kMaxWarps];
};

struct MBarrier {
    uint32_t address, count, pending, phase;
    int64_t bytes;
    Clocks arriving, arrived;  // race detector: what those knew who arrived in this and in the last phase
};

struct Static {
    const void* key;
    uint32_t at, bytes;
};

// Groups of TMA stores of a thread: the open one, and the clock of the last store in each that was closed.
struct StoreGroups {
    uint32_t open, clock;
    uint32_t closed[kGroupsKept];
};

struct Launch {
    const Kernel* kernel;
    void* const* params;
    dim3 grid;
    uint64_t blocks;
    simt_mode mode;
    uint64_t number;  // counts launches, for the race detector
    uint64_t stride;  // of the random order of blocks
    std::atomic<uint64_t> next;
    std::mutex error_lock;
    std::string error;
    uint32_t helpers_wanted, helpers_running;
};

struct Race;

// What one OS thread needs to run blocks. Made once, then used again.
struct Worker {
    Worker();

    Block block;
    Fiber fibers[kMaxThreads];
    uint8_t* stacks;      // of kMaxThreads fibers, each below the next one's guard page
    uint32_t stacks_open; // so many of them have their pages
    uint8_t* arena;       // shared memory between two guard pages
    void* main_sp;
    void* lost_sp;        // of a fiber that never comes back
    const Launch* launch;

    NamedBarrier barriers[kMaxBarriers];
    Clocks barrier_clocks[kMaxBarriers];
    std::vector<MBarrier> mbarriers;
    std::vector<Fiber*> mbarrier_waiters;
    Static statics[kMaxStatics];
    uint32_t static_count, static_end;

    Copy (*copies)[kCopiesInFlight];  // of each thread; untouched pages cost nothing
    std::vector<TmaOp> tma;
    StoreGroups stores[kMaxThreads];
    WgmmaWarp wgmma[kMaxWarps];

    Race* race;

    bool failed;
    char message[8192];
    alignas(16) uint8_t fault_stack[32 << 10];
};

static inline Worker& worker() { return *here.block->worker; }

// ---- fiber.cpp ----
size_t page_size();
size_t stack_stride();
void open_stacks(Worker& w, uint32_t count);
void prepare_fiber(Worker& w, uint32_t index, void (*entry)());

// ---- schedule.cpp ----
bool run_block(Worker& w, const Launch& launch, uint64_t index);
uint32_t random_bits(Block& block);
void give_turn(Block& block);
void append(Worker& w, const char* format, ...) __attribute__((format(printf, 2, 3)));
void append_where(Worker& w);
[[noreturn]] void abandon(Worker& w);

// ---- shared.cpp ----
uint8_t* shared_at(uint32_t address, uint32_t bytes);

// ---- mbarrier.cpp ----
MBarrier& mbarrier_at(uint32_t address);
void mbarrier_complete_bytes(uint32_t address, uint32_t bytes, uint32_t agent, uint32_t clock);

// ---- tma.cpp ----
bool tma_step(Worker& w);
void tma_thread_exits(Worker& w);
void tma_block_ends(Worker& w);
uint32_t swizzled(uint32_t address, uint32_t mode);

// ---- wgmma.cpp ----
void wgmma_block_begins(Worker& w);
void wgmma_block_ends(Worker& w);

// ---- copy.cpp ----
void copy_thread_exits(Worker& w);

// ---- heap.cpp ----
void describe_address(const void* p, char* text, size_t size);
bool in_heap(const void* p);
struct Allocation {
    uint8_t* start;
    size_t bytes;
};
bool find_allocation(const void* p, Allocation* found);
uint8_t* heap_base();
constexpr uint64_t kHeapReserve = 1ull << 42;  // addresses, of which less is taken where they are short
constexpr uint64_t kHeapReserveLeast = 1ull << 36;

// ---- fault.cpp ----
void catch_faults();

// ---- launch.cpp ----
void set_error(const char* format, ...) __attribute__((format(printf, 1, 2)));

// ---- race.cpp, watch.cpp ----
#ifdef SIMT_SAN
void race_copy_starts(uint32_t address, uint32_t bytes);
void race_copy_lands(const void* p, uint32_t bytes);
void race_shared_access(const uint8_t* p, uint32_t bytes, Access access);
void race_block(Worker& w);
void race_shared(uint32_t address, uint32_t bytes);  // shared memory that begins to exist
void race_release(Clocks& into);
void race_acquire(uint32_t thread, const Clocks& from);
void race_sync_warp(uint32_t mask);
uint32_t race_agent_starts(uint32_t agent);
void race_agent_access(uint32_t agent, uint32_t address, uint32_t bytes, bool write);
void race_agent_done(uint32_t agent, uint32_t clock, uint32_t lanes);
void race_agent_arrives(Clocks& into, uint32_t agent, uint32_t clock);
bool race_heap(uint64_t bytes);  // makes room for what is known about so much device memory
void race_freed(const void* p, size_t bytes);
#else
static inline void race_block(Worker&) {}
static inline void race_shared(uint32_t, uint32_t) {}
static inline void race_release(Clocks&) {}
static inline void race_acquire(uint32_t, const Clocks&) {}
static inline void race_copy_starts(uint32_t, uint32_t) {}
static inline void race_copy_lands(const void*, uint32_t) {}
static inline void race_sync_warp(uint32_t) {}
static inline uint32_t race_agent_starts(uint32_t) { return 0; }
static inline void race_agent_access(uint32_t, uint32_t, uint32_t, bool) {}
static inline void race_agent_done(uint32_t, uint32_t, uint32_t) {}
static inline void race_agent_arrives(Clocks&, uint32_t, uint32_t) {}
static inline bool race_heap(uint64_t) { return true; }
static inline void race_freed(const void*, size_t) {}
#endif

}  // namespace simt::SIMT_VARIANT
