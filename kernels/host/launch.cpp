// launch.cpp: from a kernel's name and parameters to blocks on OS threads
#include <algorithm>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <deque>
#include <numeric>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "runtime.h"

namespace simt::SIMT_VARIANT {

namespace {

thread_local std::string last_error;
std::atomic<uint64_t> all_switches, all_collectives, launches;

// A kernel, and how long one of its blocks took lately.
struct Listed {
    const Kernel* kernel;
    std::atomic<uint32_t> block_ns;
};

using Table = std::unordered_map<std::string_view, Listed>;

Table& table() {
    static Table* const all = [] {
        auto* t = new Table();
        for (const Kernel* const* k = kernel_table; *k; k++) {
            (*t)[(*k)->name].kernel = *k;
        }
        return t;
    }();
    return *all;
}

// ---- workers: one per OS thread that runs blocks ----

struct Workers {
    std::mutex lock;
    std::vector<Worker*> idle;

    Worker* take() {
        {
            std::lock_guard<std::mutex> guard(lock);
            if (!idle.empty()) {
                Worker* w = idle.back();
                idle.pop_back();
                return w;
            }
        }
        return new Worker();
    }

    void give(Worker* w) {
        std::lock_guard<std::mutex> guard(lock);
        idle.push_back(w);
    }
};

Workers& workers() {
    static Workers* const all = new Workers();
    return *all;
}

void run_blocks(Launch& launch) {
    catch_faults();
    Worker* w = workers().take();
    uint64_t switches = 0, collectives = 0;
    for (uint64_t i; (i = launch.next.fetch_add(1, std::memory_order_relaxed)) < launch.blocks;) {
        const uint64_t block = launch.mode.random ? (i * launch.stride + launch.mode.seed % launch.blocks) % launch.blocks : i;
        const bool good = run_block(*w, launch, block);
        switches += w->block.switches;
        collectives += w->block.collectives;
        if (!good) {
            std::lock_guard<std::mutex> guard(launch.error_lock);
            if (launch.error.empty()) {
                launch.error = w->message;
            }
            launch.next = launch.blocks;
        }
    }
    all_switches += switches;
    all_collectives += collectives;
    workers().give(w);
}

// ---- helpers: OS threads that stay, and take blocks of whatever is launched ----

class Helpers {
public:
    // Runs the launch here, with so many helpers if they come in time.
    void run(Launch& launch, uint32_t helpers) {
        launch.helpers_wanted = helpers;
        launch.helpers_running = 0;
        {
            std::lock_guard<std::mutex> guard(lock);
            queue.push_back(&launch);
            for (; threads < helpers; threads++) {
                std::thread([this] { serve(); }).detach();
            }
        }
        for (uint32_t i = 0; i < helpers; i++) {
            work.notify_one();
        }
        run_blocks(launch);
        std::unique_lock<std::mutex> guard(lock);
        for (auto it = queue.begin(); it != queue.end(); ++it) {
            if (*it == &launch) {
                queue.erase(it);
                break;
            }
        }
        done.wait(guard, [&] { return launch.helpers_running == 0; });
    }

private:
    void serve() {
        std::unique_lock<std::mutex> guard(lock);
        for (;;) {
            work.wait(guard, [this] { return !queue.empty(); });
            Launch& launch = *queue.front();
            if (--launch.helpers_wanted == 0) {
                queue.pop_front();
            }
            launch.helpers_running++;
            guard.unlock();
            run_blocks(launch);
            guard.lock();
            if (--launch.helpers_running == 0) {
                done.notify_all();
            }
        }
    }

    std::mutex lock;
    std::condition_variable work, done;
    std::deque<Launch*> queue;  // those that want more helpers
    uint32_t threads = 0;
};

// Never destroyed, because its threads never end.
Helpers& helpers() {
    static Helpers* const all = new Helpers();
    return *all;
}

uint64_t now_ns() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

// A step through all blocks: any number without a common divisor.
uint64_t coprime_near(uint64_t wanted, uint64_t count) {
    uint64_t stride = wanted % count + 1;
    while (std::gcd(stride, count) != 1) {
        stride++;
    }
    return stride;
}

int check(const Kernel& k, const uint32_t grid[3], uint32_t nparams, const uint32_t* sizes) {
    constexpr uint32_t kMaxGridX = 0x7fffffff, kMaxGridYZ = 65535;
    if (nparams != k.params) {
        set_error("kernel %s takes %u parameters, got %u", k.name, k.params, nparams);
        return SIMT_INVALID;
    }
    for (uint32_t i = 0; i < nparams; i++) {
        if (sizes[i] != k.param_size[i]) {
            set_error("kernel %s: parameter %u has %u bytes, got %u", k.name, i, k.param_size[i], sizes[i]);
            return SIMT_INVALID;
        }
    }
    if (k.threads == 0 || k.threads > kMaxThreads || k.dynamic_shared > kSharedMax) {
        set_error("kernel %s: %u threads and %u bytes of dynamic shared memory, of at most %u and %u", k.name, k.threads,
                  k.dynamic_shared, kMaxThreads, kSharedMax);
        return SIMT_INVALID;
    }
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[0] > kMaxGridX || grid[1] > kMaxGridYZ || grid[2] > kMaxGridYZ) {
        set_error("kernel %s: a grid of (%u,%u,%u) is not possible", k.name, grid[0], grid[1], grid[2]);
        return SIMT_INVALID;
    }
    return SIMT_OK;
}

}  // namespace

void set_error(const char* format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    last_error = text;
}

}  // namespace simt::SIMT_VARIANT

using namespace simt;

const char* SIMT_C(last_error)(void) { return last_error.c_str(); }

void SIMT_C(stats)(uint64_t* switches, uint64_t* collectives) {
    *switches = all_switches.exchange(0);
    *collectives = all_collectives.exchange(0);
}

int SIMT_C(launch)(const char* name, const uint32_t grid[3], void** params, uint32_t nparams, const uint32_t* param_sizes,
                   const simt_mode* mode) {
    const auto found = table().find(name);
    if (found == table().end()) {
        set_error("there is no kernel named %s", name);
        return SIMT_NOT_FOUND;
    }
    const Kernel& kernel = *found->second.kernel;
    if (const int status = check(kernel, grid, nparams, param_sizes)) {
        return status;
    }
    Launch launch{};
    launch.kernel = &kernel;
    launch.params = params;
    launch.grid = {grid[0], grid[1], grid[2]};
    launch.blocks = (uint64_t)grid[0] * grid[1] * grid[2];
    launch.mode = mode ? *mode : simt_mode{};
    launch.number = ++launches;
    launch.stride = coprime_near(launch.mode.seed * 0x9E3779B97F4A7C15ull >> 32, launch.blocks);

    // Waking a helper costs about as much as a small launch takes.
    constexpr uint64_t kWorthHelp = 50000;
    static const uint32_t cores = std::max(1u, std::thread::hardware_concurrency());
    const uint64_t most = std::min<uint64_t>(launch.mode.threads ? launch.mode.threads : cores, launch.blocks);
    std::atomic<uint32_t>& block_ns = found->second.block_ns;
    const uint64_t usual = block_ns.load(std::memory_order_relaxed);
    const uint64_t threads = usual == 0 || usual * launch.blocks > kWorthHelp ? most : 1;
    const uint64_t start = now_ns();
    if (threads > 1) {
        helpers().run(launch, (uint32_t)threads - 1);
    } else {
        run_blocks(launch);
    }
    const uint64_t each = (now_ns() - start) * threads / launch.blocks;
    block_ns.store((uint32_t)std::min<uint64_t>(each + 1, UINT32_MAX), std::memory_order_relaxed);
    if (!launch.error.empty()) {
        last_error = launch.error;
        return SIMT_FAILED;
    }
    return SIMT_OK;
}
