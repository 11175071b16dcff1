// variant.h: which of the two builds of the emulation this is
//
// Everything here is compiled twice: plain, and with -DSIMT_SAN as the race detector's build, whose kernels also have
// -fsanitize=thread. Both live in one program. Names of C++ differ by a namespace within simt, names of C by a prefix.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef SIMT_SAN
#define SIMT_VARIANT race
#define SIMT_C(name) simt_race_##name
#define SIMT_NOT_INSTRUMENTED __attribute__((no_sanitize("thread")))
#else
#define SIMT_VARIANT plain
#define SIMT_C(name) simt_##name
#define SIMT_NOT_INSTRUMENTED
#endif

// So that `simt::name` is the name of this build.
namespace simt {
namespace SIMT_VARIANT {}
using namespace SIMT_VARIANT;
}  // namespace simt
