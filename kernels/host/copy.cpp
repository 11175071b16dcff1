// copy.cpp: cp.async
#include <cstring>

#include "runtime.h"

namespace simt::SIMT_VARIANT {

constexpr uint32_t kCopyBytes = 16;

static void perform(const Copy& c) {
    memcpy(c.dst, c.src, c.bytes);
    memset((uint8_t*)c.dst + c.bytes, 0, kCopyBytes - c.bytes);
}

// At once, or, in lazy mode, when this thread waits for it. To the race detector nobody may touch the place until then.
void copy_async(uint32_t dst, const void* src, uint32_t bytes) {
    if (dst % kCopyBytes != 0 || (uintptr_t)src % kCopyBytes != 0) {
        fail("cp.async: a misaligned address (shared 0x%x, global %p)", dst, src);
    }
    if (bytes > kCopyBytes) {
        fail("cp.async: %u bytes of at most 16", bytes);
    }
    uint8_t* to = shared_at(dst, kCopyBytes);
    race_copy_starts(dst, kCopyBytes);
    if (bytes != 0) {
        saw(src, bytes, Access::Read);
    }
    Fiber* f = here.fiber;
    const Copy copy{to, src, bytes, f->copy_group};
    if (here.block->lazy) {
        memset(to, kPoison, kCopyBytes);
    } else {
        perform(copy);
    }
    if (!here.block->lazy && !kRace) {
        return;
    }
    if (f->copies == kCopiesInFlight) {
        fail("more than %u cp.async of one thread in flight", kCopiesInFlight);
    }
    worker().copies[f->thread][f->copies++] = copy;
}

void copy_commit() { here.fiber->copy_group++; }

void copy_wait(uint32_t groups) {
    Fiber* f = here.fiber;
    Copy* queue = worker().copies[f->thread];
    uint32_t left = 0;
    for (uint32_t i = 0; i < f->copies; i++) {
        if (queue[i].group + groups < f->copy_group) {
            if (here.block->lazy) {
                perform(queue[i]);
            }
            race_copy_lands(queue[i].dst, kCopyBytes);
        } else {
            queue[left++] = queue[i];
        }
    }
    f->copies = left;
}

void copy_thread_exits(Worker&) {
    if (here.fiber->copies) {
        fail("the thread returns with %u cp.async that it never waited for", here.fiber->copies);
    }
}

}  // namespace simt::SIMT_VARIANT
