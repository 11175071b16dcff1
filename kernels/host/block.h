// block.h: the emulated block as its threads see it, and how the lanes of a warp meet
//
// A CUDA thread is a fiber; a block's fibers share one OS thread and take turns. A fiber that must wait is switched away and
// stays away until somebody marks it ready. Nothing here allocates, and nothing has a destructor: when a block fails, its
// fibers are abandoned where they stand.
#pragma once
#include "types.h"
#include "variant.h"

namespace simt::SIMT_VARIANT {

constexpr uint32_t kWarpSize = 32;
constexpr uint32_t kFullMask = ~0u;
constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kMaxWarps = kMaxThreads / kWarpSize;
constexpr uint32_t kMaxBarriers = 16;

// An operation that lanes perform together. The last lane of the mask to arrive runs it on everybody's arguments.
struct Collective {
    const char* name;
    void (*run)(void* const* args, uint32_t mask);
};

// One cache line.
struct alignas(64) Fiber {
    void* sp;
    uint3 tid;
    uint32_t thread, warp, lane;
    const char* waits_in;         // for the deadlock report, with what it waits for:
    uint32_t object, detail;      // a mask, a barrier's id, or an mbarrier's address and parity
    uint32_t copies, copy_group;  // cp.async: in flight, and the open group
};

// Lanes that wait in one collective. Free when the mask is 0.
struct Meeting {
    uint32_t mask, arrived;
    const Collective* what;
    void* args[kWarpSize];
};

constexpr int kMeetings = 4;  // masks that may be under way in one warp at a time

struct Warp {
    uint32_t ready;   // lanes that can run
    uint32_t exists;  // lanes that the block has
    uint32_t live;    // lanes that have not returned
    uint32_t open;    // meetings under way
    Meeting meeting[kMeetings];
};

struct Worker;

// The block that an OS thread runs.
struct Block {
    Worker* worker;
    Fiber* fibers;
    uint8_t* shared;  // address 0 of its shared memory: static, then dynamic
    uint32_t shared_end, dynamic_at;
    uint32_t threads, warps, live;
    uint3 id;
    dim3 dim, grid;
    bool lazy, random;
    uint64_t rng;
    uint64_t switches, collectives;
    Warp warp[kMaxWarps];
};

struct Context {
    Block* block;
    Fiber* fiber;  // null outside a kernel
};

// __thread rather than thread_local: constant initialisation, so no call on every access.
extern __thread Context here __attribute__((tls_model("initial-exec")));

// Ends the block with an error that names kernel, block and thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Switches away until another thread marks this one ready.
void block_on(const char* name, uint32_t object, uint32_t detail);

void meet_slowly(const Collective& op, uint32_t mask, void* args);

extern "C" void SIMT_C(switch)(void** save_sp, void* load_sp);

// Saves this fiber and continues another. The frame has the layout of the function above: six registers, then where to go on.
static inline __attribute__((always_inline)) void switch_stack(void** save_sp, void* load_sp) {
#if defined(__x86_64__)
    // Inline, the compiler saves only what it needs. It skips the red zone, keeps rbp and rbx itself, and declares the rest lost.
    asm volatile(
        "leaq -128(%%rsp), %%rsp\n\t"
        "pushq %%rbp\n\t"
        "pushq %%rbx\n\t"
        "leaq 1f(%%rip), %%rax\n\t"
        "pushq %%rax\n\t"
        "subq $48, %%rsp\n\t"
        "movq %%rsp, (%0)\n\t"
        "movq %1, %%rsp\n\t"
        "popq %%r15\n\t"
        "popq %%r14\n\t"
        "popq %%r13\n\t"
        "popq %%r12\n\t"
        "popq %%rbx\n\t"
        "popq %%rbp\n\t"
        "popq %%rax\n\t"
        "jmpq *%%rax\n"
        "1:\t"
        "popq %%rbx\n\t"
        "popq %%rbp\n\t"
        "leaq 128(%%rsp), %%rsp"
        : "+D"(save_sp), "+S"(load_sp)
        :
        : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc", "xmm0", "xmm1", "xmm2",
          "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#if defined(__AVX512F__)
          ,
          "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28",
          "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#endif
    );
#else
    SIMT_C(switch)(save_sp, load_sp);
#endif
}

// Meets the other lanes of `mask`. Fast where they come in turn to the same operation; everything else, and every mistake, is
// the slow path's.
SIMT_NOT_INSTRUMENTED static inline void meet(const Collective& op, uint32_t mask, void* args) {
    Context& at = here;
    Fiber* fiber = at.fiber;
    Block* block = at.block;
    Warp& warp = block->warp[fiber->warp];
    Meeting& m = warp.meeting[0];
    const uint32_t lane = fiber->lane, bit = 1u << lane;
    if (warp.open == 0 && mask == warp.live && !block->random) {
        warp.open = 1;
        m.mask = mask;
        m.arrived = 0;
        m.what = &op;
    }
    if (__builtin_expect(m.mask == mask && m.what == &op && !block->random, 1)) {
        const uint32_t arrived = m.arrived | bit;
        if (arrived == mask) {
            m.args[lane] = args;
            m.arrived = arrived;
            op.run(m.args, mask);
            m.mask = 0;
            warp.open--;
            warp.ready |= mask;
            block->collectives++;
            return;
        }
        const uint32_t others = warp.ready & ~bit;
        if (__builtin_expect(others != 0, 1)) {
            m.args[lane] = args;
            m.arrived = arrived;
            fiber->waits_in = op.name;
            fiber->object = mask;
            fiber->detail = 0;
            warp.ready = others;
            block->switches++;
            const uint32_t later = others & -(bit << 1);
            Fiber* next = fiber + ((int)__builtin_ctz(later ? later : others) - (int)lane);
            at.fiber = next;
            switch_stack(&fiber->sp, next->sp);
            return;
        }
    }
    meet_slowly(op, mask, args);
}

// ---- shared memory ----

// The same memory for every thread that names the same key.
void* static_shared(const void* key, uint32_t bytes, uint32_t align);

static inline void* dynamic_shared() { return here.block->shared + here.block->dynamic_at; }

// ---- barriers ----

// count 0: all threads of the block
void barrier(uint32_t id, uint32_t count, bool wait);

// ---- the race detector, which looks at every access; nothing in the plain build ----

enum class Access { Read, Write, Atomic };

#ifdef SIMT_SAN
void saw(const void* p, uint32_t bytes, Access access);
#else
static inline void saw(const void*, uint32_t, Access) {}
#endif

}  // namespace simt::SIMT_VARIANT
