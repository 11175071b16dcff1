// shared.cpp: a block's shared memory, and memory that blocks share by atomics
#include <cstring>

#include "runtime.h"

namespace simt::SIMT_VARIANT {

uint32_t shared_address(const void* p) {
    const Block& b = *here.block;
    const uint64_t address = (const uint8_t*)p - b.shared;
    if (address > b.shared_end) {
        fail("the pointer %p is not one to shared memory", p);
    }
    return (uint32_t)address;
}

uint8_t* shared_at(uint32_t address, uint32_t bytes) {
    const Block& b = *here.block;
    if ((uint64_t)address + bytes > b.shared_end) {
        fail("shared address 0x%x + %u is beyond the block's shared memory, which ends at 0x%x", address, bytes, b.shared_end);
    }
    return b.shared + address;
}

void* static_shared(const void* key, uint32_t bytes, uint32_t align) {
    constexpr uint32_t kGap = 32;  // between two arrays, so that a step beyond one is not a step into the next
    Worker& w = worker();
    Block& b = w.block;
    for (uint32_t i = 0; i < w.static_count; i++) {
        if (w.statics[i].key == key) {
            return b.shared + w.statics[i].at;
        }
    }
    const uint32_t at = (w.static_end + align - 1) / align * align;
    if (w.static_count == kMaxStatics || (uint64_t)at + bytes > b.dynamic_at) {
        fail("static shared memory takes more than %u bytes beside %u dynamic ones", b.dynamic_at, b.shared_end - b.dynamic_at);
    }
    w.statics[w.static_count++] = {key, at, bytes};
    w.static_end = at + bytes + kGap;
    memset(b.shared + at, kPoison, bytes);
    race_shared(at, bytes);
    return b.shared + at;
}

// ---- atomics ----

void memory_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

uint32_t atomic_load(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
uint64_t atomic_load(const uint64_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }

bool atomic_replace(uint32_t* p, uint32_t* before, uint32_t after) {
    return __atomic_compare_exchange_n(p, before, after, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

bool atomic_replace(uint64_t* p, uint64_t* before, uint64_t after) {
    return __atomic_compare_exchange_n(p, before, after, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

}  // namespace simt::SIMT_VARIANT
