// The device behind driver.cpp: its memory, its queue of work, and what it was told to do wrong.

#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

enum { kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kInvalidContext = 201, kNoBinary = 209, kNotFound = 500 };

using Alloc = void* (*)(size_t);
using Free = void (*)(void*);
using Launch = int (*)(const char*, const uint32_t*, void**);

struct Function {
    std::string name;
    std::vector<size_t> sizes;
    uint32_t most_shared = 48 << 10;
};

struct Module {
    std::vector<Function*> functions;
};

struct Event {
    uint64_t after = 0;
};

struct Failure {
    std::string call;
    int nth, code;
};

struct Driver {
    std::recursive_mutex mutex;
    Alloc alloc = malloc;
    Free free = ::free;
    Launch launch = nullptr;
    std::deque<std::function<int()>> queue;
    uint64_t done = 0, queued = 0;
    int lost = kSuccess;
    std::vector<Failure> failures;
    std::map<std::string, int> calls;
    std::map<char*, size_t> memory, pinned;
    std::multimap<size_t, char*> spare;
    size_t used = 0, held = 0, capacity = size_t(1) << 30;
    int contexts = 0, streams = 0, events = 0, modules = 0;
    uint64_t threshold = 0;
};

Driver& driver() {
    static Driver* d = new Driver;
    return *d;
}

thread_local void* current = nullptr;

long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}

int injected(const char* call) {
    Driver& d = driver();
    d.calls[call]++;
    int code = kSuccess;
    for (Failure& f : d.failures) {
        if (f.call == call && --f.nth == 0) code = f.code;
    }
    return code;
}

void run_until(uint64_t count) {
    Driver& d = driver();
    while (d.done < count) {
        auto work = std::move(d.queue.front());
        d.queue.pop_front();
        d.done++;
        if (!d.lost) d.lost = work();
    }
}

void enqueue(std::function<int()> work) {
    Driver& d = driver();
    d.queue.push_back(std::move(work));
    d.queued++;
}

bool inside(const std::map<char*, size_t>& ranges, const void* at, size_t bytes) {
    auto next = ranges.upper_bound((char*)at);
    if (next == ranges.begin()) return false;
    auto range = std::prev(next);
    return (char*)at + bytes <= range->first + range->second;
}

// Gives unused memory back to the system.
void release() {
    Driver& d = driver();
    for (auto& [size, block] : d.spare) {
        d.held -= size;
        d.free(block);
    }
    d.spare.clear();
}

}  // namespace

// Every function that works on a context. A lost context answers everything with what lost it.
#define ENTER(name)                                                    \
    std::lock_guard<std::recursive_mutex> lock(driver().mutex);        \
    Driver& d = driver();                                              \
    (void)d;                                                           \
    if (int code = injected(name)) return code >= 700 ? d.lost = code : code; \
    if (d.lost) return d.lost;                                         \
    if (!current) return kInvalidContext

#define EXPORT extern "C" __attribute__((visibility("default")))
