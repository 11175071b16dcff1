// A CUDA driver without a GPU, for tests: the functions of libcuda.so.1 that ltrain calls, on host memory.
//
// It is as late as a driver may be. Copies, memsets and kernels are queued and run when somebody waits, so that pinned memory that
// is reused too early, or an argument that is not copied, gives wrong numbers. It refuses what the real one allows and ltrain
// should not do (uploads from memory that is not pinned, calls on a thread without a context), counts what is not given back, and
// fails where it is told to.
//
// Kernels run through functions that the test gives it: the emulation's.

#include <sstream>

#include "device.h"

// ---- what the test tells the driver

EXPORT void fake_runs_on(Alloc alloc, Free free, Launch launch) {
    driver().alloc = alloc;
    driver().free = free;
    driver().launch = launch;
}

EXPORT void fake_fail(const char* call, int nth, int code) { driver().failures.push_back({call, nth, code}); }

EXPORT void fake_capacity(size_t bytes) { driver().capacity = bytes; }

EXPORT int fake_calls(const char* call) { return driver().calls[call]; }

EXPORT uint64_t fake_threshold() { return driver().threshold; }

// Bytes that the memory pool has, in use or not.
EXPORT size_t fake_held() { return driver().held; }

// What was not given back.
EXPORT int fake_live() {
    Driver& d = driver();
    return int(d.memory.size() + d.pinned.size()) + d.contexts + d.streams + d.events + d.modules;
}

EXPORT void fake_reset() {
    Driver& d = driver();
    for (auto& [size, block] : d.spare) d.free(block);
    d.spare.clear();
    d.queue.clear();
    d.failures.clear();
    d.calls.clear();
    d.done = d.queued = d.held = d.used = 0;
    d.lost = kSuccess;
    d.memory.clear();
    d.pinned.clear();
    d.capacity = size_t(1) << 30;
    d.contexts = d.streams = d.events = d.modules = 0;
}

// ---- finding devices

EXPORT int cuInit(unsigned) { return int(setting("FAKE_INIT", kSuccess)); }

EXPORT int cuDriverGetVersion(int* version) {
    *version = int(setting("FAKE_VERSION", 13000));
    return kSuccess;
}

EXPORT int cuDeviceGetCount(int* count) {
    *count = int(setting("FAKE_COUNT", 1));
    return kSuccess;
}

EXPORT int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return kSuccess;
}

EXPORT int cuDeviceGetName(char* name, int length, int) {
    snprintf(name, length, "NVIDIA Imaginary");
    return kSuccess;
}

EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) {
    *bytes = size_t(80) << 30;
    return kSuccess;
}

EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
    long capability = setting("FAKE_CAPABILITY", 80);
    switch (attribute) {
        case 75: *value = int(capability / 10); break;
        case 76: *value = int(capability % 10); break;
        case 97: *value = 160 << 10; break;  // shared memory per block, at most
        case 115: *value = 1; break;         // memory pools
        default: return kInvalidValue;
    }
    return kSuccess;
}

// ---- contexts, streams, events

EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
    if (int code = injected("cuDevicePrimaryCtxRetain")) return code;
    static int primary;
    driver().contexts++;
    *context = &primary;
    return kSuccess;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int) {
    driver().contexts--;
    return kSuccess;
}

EXPORT int cuCtxGetCurrent(void** context) {
    *context = current;
    return kSuccess;
}

EXPORT int cuCtxSetCurrent(void* context) {
    current = context;
    return kSuccess;
}

EXPORT int cuCtxSynchronize() {
    ENTER("cuCtxSynchronize");
    run_until(d.queued);
    return d.lost;
}

EXPORT int cuStreamCreate(void** stream, unsigned) {
    ENTER("cuStreamCreate");
    static int only;
    d.streams++;
    *stream = &only;
    return kSuccess;
}

EXPORT int cuStreamDestroy_v2(void*) {
    driver().streams--;
    return kSuccess;
}

EXPORT int cuStreamSynchronize(void*) {
    ENTER("cuStreamSynchronize");
    run_until(d.queued);
    if (d.held > d.threshold) release();
    return d.lost;
}

EXPORT int cuEventCreate(void** event, unsigned) {
    ENTER("cuEventCreate");
    d.events++;
    *event = new Event;
    return kSuccess;
}

EXPORT int cuEventRecord(void* event, void*) {
    ENTER("cuEventRecord");
    ((Event*)event)->after = d.queued;
    return kSuccess;
}

EXPORT int cuEventSynchronize(void* event) {
    ENTER("cuEventSynchronize");
    run_until(((Event*)event)->after);
    return d.lost;
}

// Whatever was queued between both took a millisecond each.
EXPORT int cuEventElapsedTime_v2(float* ms, void* from, void* to) {
    ENTER("cuEventElapsedTime_v2");
    *ms = float(((Event*)to)->after - ((Event*)from)->after);
    return d.lost;
}

EXPORT int cuEventDestroy_v2(void* event) {
    driver().events--;
    delete (Event*)event;
    return kSuccess;
}

// ---- memory: what is given back is handed out again at once, the last block first

EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER("cuMemGetInfo_v2");
    *free = d.capacity - d.held;
    *total = d.capacity;
    return kSuccess;
}

EXPORT int cuDeviceGetDefaultMemPool(void** pool, int) {
    ENTER("cuDeviceGetDefaultMemPool");
    static int only;
    *pool = &only;
    return kSuccess;
}

EXPORT int cuMemPoolSetAttribute(void*, int attribute, void* value) {
    ENTER("cuMemPoolSetAttribute");
    if (attribute != 4) return kInvalidValue;
    memcpy(&d.threshold, value, sizeof d.threshold);
    return kSuccess;
}

EXPORT int cuMemPoolTrimTo(void*, size_t) {
    ENTER("cuMemPoolTrimTo");
    // What nobody waited for counts as outstanding.
    if (d.done < d.queued) return kSuccess;
    release();
    return kSuccess;
}

EXPORT int cuMemAllocAsync(uint64_t* address, size_t bytes, void*) {
    ENTER("cuMemAllocAsync");
    if (bytes == 0) return kInvalidValue;
    char* block = nullptr;
    auto [first, last] = d.spare.equal_range(bytes);
    if (first != last) {
        block = std::prev(last)->second;
        d.spare.erase(std::prev(last));
    } else {
        if (d.held + bytes > d.capacity) return kOutOfMemory;
        block = (char*)d.alloc(bytes);
        d.held += bytes;
    }
    d.memory[block] = bytes;
    d.used += bytes;
    *address = uint64_t(block);
    return kSuccess;
}

EXPORT int cuMemFreeAsync(uint64_t address, void*) {
    ENTER("cuMemFreeAsync");
    auto block = d.memory.find((char*)address);
    if (block == d.memory.end()) return kInvalidValue;
    d.spare.insert({block->second, block->first});
    d.used -= block->second;
    d.memory.erase(block);
    return kSuccess;
}

EXPORT int cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    ENTER("cuMemHostAlloc");
    *memory = malloc(bytes);
    d.pinned[(char*)*memory] = bytes;
    return kSuccess;
}

EXPORT int cuMemFreeHost(void* memory) {
    driver().pinned.erase((char*)memory);
    free(memory);
    return kSuccess;
}

EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
    ENTER("cuMemcpyHtoDAsync_v2");
    if (!inside(d.pinned, from, bytes) || !inside(d.memory, (void*)to, bytes)) return kInvalidValue;
    enqueue([=] { return memcpy((void*)to, from, bytes), kSuccess; });
    return kSuccess;
}

EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
    ENTER("cuMemcpyDtoHAsync_v2");
    if (!inside(d.memory, (void*)from, bytes)) return kInvalidValue;
    enqueue([=] { return memcpy(to, (void*)from, bytes), kSuccess; });
    return kSuccess;
}

EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
    ENTER("cuMemcpyDtoDAsync_v2");
    if (!inside(d.memory, (void*)from, bytes) || !inside(d.memory, (void*)to, bytes)) return kInvalidValue;
    enqueue([=] { return memcpy((void*)to, (void*)from, bytes), kSuccess; });
    return kSuccess;
}

EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void*) {
    ENTER("cuMemsetD8Async");
    if (!inside(d.memory, (void*)to, bytes)) return kInvalidValue;
    enqueue([=] { return memset((void*)to, value, bytes), kSuccess; });
    return kSuccess;
}

// ---- kernels: a module's code is a line per kernel, its name and the sizes of its parameters

EXPORT int cuModuleLoadData(void** module, const void* image) {
    ENTER("cuModuleLoadData");
    const char* text = (const char*)image;
    if (strncmp(text, "fake\n", 5) != 0) return kNoBinary;
    auto* loaded = new Module;
    std::istringstream lines(text + 5);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        auto* function = new Function;
        words >> function->name;
        for (size_t size; words >> size;) function->sizes.push_back(size);
        loaded->functions.push_back(function);
    }
    d.modules++;
    *module = loaded;
    return kSuccess;
}

EXPORT int cuModuleUnload(void* module) {
    driver().modules--;
    for (Function* function : ((Module*)module)->functions) delete function;
    delete (Module*)module;
    return kSuccess;
}

EXPORT int cuModuleGetFunction(void** function, void* module, const char* name) {
    ENTER("cuModuleGetFunction");
    for (Function* f : ((Module*)module)->functions) {
        if (f->name == name) {
            *function = f;
            return kSuccess;
        }
    }
    return kNotFound;
}

EXPORT int cuFuncSetAttribute(void* function, int attribute, int value) {
    ENTER("cuFuncSetAttribute");
    if (attribute != 8 || value < 0 || value > 160 << 10) return kInvalidValue;
    ((Function*)function)->most_shared = uint32_t(value);
    return kSuccess;
}

EXPORT int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                          unsigned shared, void*, void** params, void**) {
    ENTER("cuLaunchKernel");
    auto* f = (Function*)function;
    if (!x || !y || !z || y > 65535 || z > 65535 || !tx || tx * ty * tz > 1024 || shared > f->most_shared) return kInvalidValue;
    // The caller's arguments are gone when the kernel runs.
    std::vector<std::vector<char>> values;
    for (size_t i = 0; i < f->sizes.size(); i++) values.emplace_back((char*)params[i], (char*)params[i] + f->sizes[i]);
    enqueue([=]() mutable {
        if (int code = injected("kernel")) return code;
        if (!driver().launch) return int(kSuccess);
        std::vector<void*> args;
        for (auto& value : values) args.push_back(value.data());
        const uint32_t grid[3] = {x, y, z};
        return driver().launch(f->name.c_str(), grid, args.data());
    });
    return kSuccess;
}

// ---- errors

EXPORT int cuGetErrorName(int code, const char** text) {
    static const std::map<int, const char*> names = {{1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"},
                                                     {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"}, {700, "CUDA_ERROR_ILLEGAL_ADDRESS"}};
    auto found = names.find(code);
    *text = found == names.end() ? "CUDA_ERROR" : found->second;
    return kSuccess;
}

EXPORT int cuGetErrorString(int, const char** text) {
    *text = "as the test wanted";
    return kSuccess;
}
