// heap.cpp: device memory, in which every step outside an allocation is a fault
//
// An allocation ends at a page that nobody may touch (but for the 15 bytes that round its size up) and begins behind another;
// what is left of its first page is looked at when it is freed. Its addresses are never used again, its pages go back.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "runtime.h"

namespace simt::SIMT_VARIANT {

namespace {

constexpr size_t kGrain = 16;
constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE of Linux 5.14, which older headers lack

struct Record {
    uint8_t* start;
    size_t bytes : 63;
    size_t freed : 1;
};

struct Heap {
    std::mutex lock;
    uint8_t* base = nullptr;
    uint8_t* top = nullptr;
    uint64_t reserved = 0;
    std::vector<Record> records;  // addresses only rise, so it is sorted

    // The last record that starts at or below p.
    Record* below(const void* p) {
        auto after = std::upper_bound(records.begin(), records.end(), (uint8_t*)p,
                                      [](uint8_t* address, const Record& r) { return address < r.start; });
        return after == records.begin() ? nullptr : &*(after - 1);
    }

    bool open() {
        for (uint64_t size = kHeapReserve; size >= kHeapReserveLeast; size /= 2) {
            void* p = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (p == MAP_FAILED) {
                continue;
            }
            if (race_heap(size)) {
                base = top = (uint8_t*)p;
                reserved = size;
                return true;
            }
            munmap(p, size);
        }
        return false;
    }
};

// Never destroyed: a program may end while other threads still use it.
Heap& heap() {
    static Heap* const only = new Heap();
    return *only;
}

bool is_poison(const uint8_t* from, const uint8_t* end) {
    for (; from < end; from++) {
        if (*from != kPoison) {
            return false;
        }
    }
    return true;
}

size_t rounded(size_t bytes) { return bytes == 0 ? kGrain : (bytes + kGrain - 1) / kGrain * kGrain; }

}  // namespace

uint8_t* heap_base() { return heap().base; }

bool in_heap(const void* p) {
    const Heap& h = heap();
    return h.base && (uint8_t*)p >= h.base && (uint8_t*)p < h.base + h.reserved;
}

bool find_allocation(const void* p, Allocation* found) {
    Heap& h = heap();
    std::lock_guard<std::mutex> guard(h.lock);
    const Record* r = h.below(p);
    if (!r || r->freed || (uint8_t*)p >= r->start + r->bytes) {
        return false;
    }
    *found = {r->start, r->bytes};
    return true;
}

void describe_address(const void* p, char* text, size_t size) {
    constexpr long kNear = 1 << 20;
    Heap& h = heap();
    std::lock_guard<std::mutex> guard(h.lock);
    const Record* r = h.below(p);
    const Record* next = r ? r + 1 : h.records.data();
    const Record* end = h.records.data() + h.records.size();
    const long into = r ? (long)((uint8_t*)p - r->start) : 0;
    if (r && into < (long)r->bytes) {
        const char* state = r->freed ? "use after free, " : "";
        snprintf(text, size, "%s%ld bytes into an allocation of %zu bytes", state, into, (size_t)r->bytes);
    } else if (next < end && next->start - (uint8_t*)p < (r ? into - (long)r->bytes : kNear)) {
        const long before = (long)(next->start - (uint8_t*)p);
        snprintf(text, size, "%ld bytes before an allocation of %zu bytes", before, (size_t)next->bytes);
    } else if (r) {
        snprintf(text, size, "%ld bytes into an allocation of %zu bytes", into, (size_t)r->bytes);
    } else {
        snprintf(text, size, "no allocation near");
    }
}

}  // namespace simt::SIMT_VARIANT

using namespace simt;

void* SIMT_C(malloc)(size_t bytes) {
    Heap& h = heap();
    const size_t page = page_size(), used = rounded(bytes), pages = (used + page - 1) / page * page;
    uint8_t* start;
    {
        std::lock_guard<std::mutex> guard(h.lock);
        if (!h.base && !h.open()) {
            set_error("no address space for device memory: %s", strerror(errno));
            return nullptr;
        }
        if (pages > h.reserved || h.top + pages + 2 * page > h.base + h.reserved) {
            set_error("no room for %zu bytes: all %llu bytes of addresses were given out", bytes, (unsigned long long)h.reserved);
            return nullptr;
        }
        uint8_t* const opened = h.top + page;
        if (mprotect(opened, pages, PROT_READ | PROT_WRITE) != 0) {
            set_error("no room for %zu bytes: %s", bytes, strerror(errno));
            return nullptr;
        }
        h.top = opened + pages;
        start = h.top - used;
        h.records.push_back({start, bytes, 0});
    }
    // All pages in one call rather than in one fault each; systems that do not know how fault.
    uint8_t* const first = start + used - pages;
    if (pages > page) {
        madvise(first, pages, kPopulateWrite);
    }
    memset(first, kPoison, pages);
    return start;
}

int SIMT_C(free)(void* p) {
    Heap& h = heap();
    const size_t page = page_size();
    std::lock_guard<std::mutex> guard(h.lock);
    Record* r = h.below(p);
    if (!r || r->start != p || r->freed) {
        set_error("%p is not the start of memory in use, so it cannot be freed", p);
        return SIMT_INVALID;
    }
    r->freed = 1;
    const size_t bytes = r->bytes;
    uint8_t* first = (uint8_t*)((uintptr_t)p & ~(page - 1));
    uint8_t* end = (uint8_t*)p + rounded(bytes);
    const bool clean = is_poison(first, r->start) && is_poison(r->start + bytes, end);
    race_freed(p, bytes);
    // A new mapping rather than mprotect: it melts into its neighbours, so the process's memory map stays short.
    if (mmap(first, end - first, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
        set_error("freed memory cannot be closed: %s", strerror(errno));
        return SIMT_INVALID;
    }
    if (!clean) {
        set_error("something wrote just before or behind the freed allocation of %zu bytes at %p", bytes, p);
        return SIMT_INVALID;
    }
    return SIMT_OK;
}

int SIMT_C(check_range)(const void* p, size_t bytes, int write) {
    Allocation found;
    if (bytes == 0) {
        return SIMT_OK;
    }
    if (!find_allocation(p, &found)) {
        char text[200];
        describe_address(p, text, sizeof(text));
        set_error("a copy %s %zu bytes at %p: %s", write ? "to" : "of", bytes, p, text);
        return SIMT_INVALID;
    }
    const size_t into = (uint8_t*)p - found.start;
    if (bytes > found.bytes - into) {
        set_error("a copy %s %zu bytes that begin %zu bytes into an allocation of %zu bytes", write ? "to" : "of", bytes, into,
                  found.bytes);
        return SIMT_INVALID;
    }
    return SIMT_OK;
}
