// watch.cpp: the calls that -fsanitize=thread puts before every access of a kernel (only in the race detector's build)
//
// The compiler's own runtime is not linked; these are all of its functions that kernels can call. Accesses to global memory are
// looked at here: two blocks of one launch have no order, so what one of them wrote is nothing for another.
#include "runtime.h"

#ifdef SIMT_SAN

#include <sys/mman.h>

#include <cstdio>
#include <cstring>

namespace simt::SIMT_VARIANT {

namespace {

constexpr uint32_t kCell = 2;           // bytes that are looked at as one
constexpr uint32_t kManyBlocks = 0xFFFFF;

// What the last launch did to a place. Blocks are counted from 1; 0 is none.
struct Touch {
    uint64_t launch : 23;
    uint64_t atomic : 1;
    uint64_t writer : 20;
    uint64_t reader : 20;
};
static_assert(sizeof(Touch) == sizeof(uint64_t), "one word, so that it changes at once");

std::atomic<uint64_t>* touches;  // for all of the heap's addresses; pages that nobody touched cost nothing

constexpr uint64_t touch_bytes(uint64_t heap_bytes) { return heap_bytes / kCell * sizeof(uint64_t); }

[[noreturn]] void race_between_blocks(const uint8_t* p, Access access, const char* earlier, uint64_t block) {
    char place[200], other[40] = "other blocks";
    describe_address(p, place, sizeof(place));
    if (block != kManyBlocks) {
        snprintf(other, sizeof(other), "block #%llu", (unsigned long long)block - 1);
    }
    const char* name = access == Access::Read ? "read" : access == Access::Write ? "write" : "atomic";
    fail("RACE on global memory %s: this %s and a %s by %s of the same launch have no order", place, name, earlier, other);
}

void look_at_global(const uint8_t* p, uint32_t bytes, Access access) {
    const Worker& w = worker();
    const Block& b = w.block;
    const uint64_t index = ((uint64_t)b.id.z * b.grid.y + b.id.y) * b.grid.x + b.id.x;
    const uint64_t me = index % (kManyBlocks - 1) + 1, launch = w.launch->number & 0x7fffff;
    const bool is_atomic = access == Access::Atomic;
    const uint64_t first = (uint64_t)(p - heap_base());
    for (uint64_t i = first / kCell; i < (first + bytes + kCell - 1) / kCell; i++) {
        uint64_t before = touches[i].load(std::memory_order_relaxed), after;
        do {
            Touch t;
            memcpy(&t, &before, sizeof(t));
            if (t.launch != launch) {
                t = Touch{launch, 0, 0, 0};
            }
            if (t.writer && t.writer != me && !(is_atomic && t.atomic)) {
                race_between_blocks(p, access, "write", t.writer);
            }
            if (access == Access::Read) {
                t.reader = t.reader == 0 || t.reader == me ? me : kManyBlocks;
            } else {
                if (t.reader && t.reader != me) {
                    race_between_blocks(p, access, "read", t.reader);
                }
                t.writer = me;
                t.atomic = is_atomic;
            }
            memcpy(&after, &t, sizeof(after));
        } while (before != after && !touches[i].compare_exchange_weak(before, after, std::memory_order_relaxed));
    }
}

// The allocations that this OS thread's kernels used last. A freed one need not leave: its addresses are gone for good.
constexpr int kRemembered = 8;
__thread Allocation remembered[kRemembered];
__thread int oldest;

bool inside(const Allocation& a, const uint8_t* p, uint32_t bytes) { return p >= a.start && p + bytes <= a.start + a.bytes; }

void global_access(const uint8_t* p, uint32_t bytes, Access access) {
    for (const Allocation& a : remembered) {
        if (inside(a, p, bytes)) {
            look_at_global(p, bytes, access);
            return;
        }
    }
    Allocation found;
    if (!find_allocation(p, &found) || !inside(found, p, bytes)) {
        char place[200];
        describe_address(p, place, sizeof(place));
        fail("illegal global %s of %u bytes at %p: %s", access == Access::Read ? "read" : "write", bytes, p, place);
    }
    remembered[oldest++ % kRemembered] = found;
    look_at_global(p, bytes, access);
}

}  // namespace

bool race_heap(uint64_t bytes) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* p = mmap(nullptr, touch_bytes(bytes), PROT_READ | PROT_WRITE, flags, -1, 0);
    if (p == MAP_FAILED) {
        return false;
    }
    touches = (std::atomic<uint64_t>*)p;
    return true;
}

void race_freed(const void* p, size_t bytes) {
    const uint64_t first = touch_bytes((uint64_t)((const uint8_t*)p - heap_base())), page = page_size();
    const uint64_t from = (first + page - 1) / page * page, to = (first + touch_bytes(bytes)) / page * page;
    if (from < to) {
        madvise((uint8_t*)touches + from, to - from, MADV_DONTNEED);
    }
}

void saw(const void* address, uint32_t bytes, Access access) {
    if (!here.fiber) {
        return;
    }
    const uint8_t* p = (const uint8_t*)address;
    const Worker& w = worker();
    if (p >= w.arena && p < w.arena + kArena + page_size()) {
        race_shared_access(p, bytes, access);
    } else if (in_heap(p)) {
        global_access(p, bytes, access);
    } else if (access != Access::Read && !(p >= w.stacks && p < w.stacks + stack_stride() * kMaxThreads)) {
        fail("illegal write of %u bytes to %p: not a device address", bytes, address);
    }
}

}  // namespace simt::SIMT_VARIANT

using simt::Access;
using simt::saw;

#define SIMT_WATCH(n)                                                             \
    void __tsan_read##n(void* p) { saw(p, n, Access::Read); }                     \
    void __tsan_write##n(void* p) { saw(p, n, Access::Write); }                   \
    void __tsan_unaligned_read##n(void* p) { saw(p, n, Access::Read); }           \
    void __tsan_unaligned_write##n(void* p) { saw(p, n, Access::Write); }         \
    void __tsan_volatile_read##n(void* p) { saw(p, n, Access::Read); }            \
    void __tsan_volatile_write##n(void* p) { saw(p, n, Access::Write); }

extern "C" {

SIMT_WATCH(1)
SIMT_WATCH(2)
SIMT_WATCH(4)
SIMT_WATCH(8)
SIMT_WATCH(16)

void __tsan_read_range(void* p, size_t bytes) { saw(p, (uint32_t)bytes, Access::Read); }
void __tsan_write_range(void* p, size_t bytes) { saw(p, (uint32_t)bytes, Access::Write); }

void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    saw(from, (uint32_t)bytes, Access::Read);
    saw(to, (uint32_t)bytes, Access::Write);
    return memcpy(to, from, bytes);
}

void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    saw(from, (uint32_t)bytes, Access::Read);
    saw(to, (uint32_t)bytes, Access::Write);
    return memmove(to, from, bytes);
}

void* __tsan_memset(void* to, int value, size_t bytes) {
    saw(to, (uint32_t)bytes, Access::Write);
    return memset(to, value, bytes);
}

void __tsan_init(void) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}

}  // extern "C"

#endif
