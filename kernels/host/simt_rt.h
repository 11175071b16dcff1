// simt_rt.h: the emulated device as its driver sees it (C, called from Rust)
//
// Each function exists twice: simt_launch of the plain build, simt_race_launch of the race detector's, and so on. They share
// nothing: memory of one is not memory of the other. All may be called from any thread, launches also at the same time.
#pragma once
#include "variant.h"

extern "C" {

// How a launch runs.
struct simt_mode {
    uint64_t seed;     // of the random order
    uint32_t random;   // 1: lanes, warps, blocks and background work take turns at random; 0: in a fixed order
    uint32_t lazy;     // 1: background copies and products happen as late as they may, with NaN in their place until then
    uint32_t threads;  // OS threads at most; 0: as many as there are cores
};

// What the functions return, with CUDA's numbers. The text of an error is in simt_last_error.
enum simt_status {
    SIMT_OK = 0,
    SIMT_INVALID = 1,     // arguments, with which nothing was started
    SIMT_NOT_FOUND = 500, // no kernel of that name
    SIMT_FAILED = 700,    // the kernel did something wrong
};

// Runs a kernel to its end. `params` holds the addresses of `nparams` values of `param_sizes` bytes, which must be the kernel's
// own; threads and dynamic shared memory are the kernel's, too. `mode` null: fixed order, nothing late, all cores.
int SIMT_C(launch)(const char* name, const uint32_t grid[3], void** params, uint32_t nparams, const uint32_t* param_sizes,
                   const struct simt_mode* mode);

// Why this thread's last call that failed did so. Valid until its next call.
const char* SIMT_C(last_error)(void);

// Device memory: filled with 0xFF, which is NaN, and ending at a page that nobody may touch; the start is 16-byte aligned. It is
// plain memory for the host. Addresses are never given out twice. Null if there is no room.
void* SIMT_C(malloc)(size_t bytes);

// Also an error, with the memory freed, if somebody wrote just outside of it where no page guards it.
int SIMT_C(free)(void* p);

// An error unless all of [p, p + bytes) lies in one allocation. `write` only chooses the words.
int SIMT_C(check_range)(const void* p, size_t bytes, int write);

// Writes a two-dimensional tensor map, the 128 bytes that a kernel takes as TensorMap, with the rules of cuTensorMapEncodeTiled:
// `columns` by `rows` elements, rows `row_stride` bytes apart, copied in boxes of `box_columns` by `box_rows`. `swizzle`: 0 none,
// 1, 2, 3 for 32, 64, 128 bytes.
int SIMT_C(tensor_map)(void* map, void* base, uint32_t element_size, uint64_t columns, uint64_t rows, uint64_t row_stride,
                       uint32_t box_columns, uint32_t box_rows, uint32_t swizzle);

// Switches between fibers and meetings of warps since the last call.
void SIMT_C(stats)(uint64_t* switches, uint64_t* collectives);

}  // extern "C"
