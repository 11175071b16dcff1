// fault.cpp: a fault inside a kernel becomes an error of its launch
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstring>

#include "runtime.h"

namespace simt::SIMT_VARIANT {

namespace {

// A trap of the compiler's checks is SIGILL on x86_64 and SIGTRAP on aarch64.
#if defined(__x86_64__)
constexpr int kTrap = SIGILL;
#else
constexpr int kTrap = SIGTRAP;
#endif
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, kTrap};
constexpr int kSignalCount = sizeof(kSignals) / sizeof(kSignals[0]);
constexpr size_t kSignalStack = 64 << 10;

struct sigaction previous[kSignalCount];

__thread void* fault_address;
__thread int fault_signal;

// Where the faulting thread goes on: outside the handler, on a stack of its own, because the fiber's may be full.
void land() {
    Worker& w = worker();
    const uint8_t* p = (const uint8_t*)fault_address;
    w.message[0] = 0;
    append_where(w);
    if (fault_signal == kTrap) {
        append(w, "TRAP: undefined behaviour: a misaligned vector access or an array index out of bounds");
    } else if (fault_signal == SIGFPE) {
        append(w, "TRAP: an integer division by zero");
    } else if (in_heap(p)) {
        char text[200];
        describe_address(p, text, sizeof(text));
        append(w, "illegal access to %p: %s", p, text);
    } else if (p >= w.arena - page_size() && p < w.arena + kArena + page_size()) {
        const long address = (long)(p - w.block.shared);
        append(w, "illegal access to shared address %ld, beyond the block's %u bytes", address, w.block.shared_end);
    } else if (p >= w.stacks && p < w.stacks + stack_stride() * kMaxThreads) {
        append(w, "the thread needs more than its %zu bytes of stack", kStackSize);
    } else {
        append(w, "illegal access to %p: not a device address", p);
    }
    abandon(w);
}

void pass_on(int signal, siginfo_t* info, void* context) {
    for (int i = 0; i < kSignalCount; i++) {
        if (kSignals[i] != signal) {
            continue;
        }
        const struct sigaction& old = previous[i];
        if (old.sa_flags & SA_SIGINFO) {
            old.sa_sigaction(signal, info, context);
        } else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN) {
            sigaction(signal, &old, nullptr);  // the instruction runs again and meets it
            if (info->si_code <= 0) {
                raise(signal);  // unless somebody sent the signal
            }
        } else {
            old.sa_handler(signal);
        }
    }
}

void on_fault(int signal, siginfo_t* info, void* context) {
    // Only what the processor raised: a signal that somebody sent is not the kernel's.
    if (!here.fiber || info->si_code <= 0) {
        pass_on(signal, info, context);
        return;
    }
    fault_address = info->si_addr;
    fault_signal = signal;
    Worker& w = worker();
    const uint64_t top = (uint64_t)(w.fault_stack + sizeof(w.fault_stack)) & ~(uint64_t)15;
    mcontext_t& machine = ((ucontext_t*)context)->uc_mcontext;
#if defined(__x86_64__)
    machine.gregs[REG_RIP] = (greg_t)land;
    machine.gregs[REG_RSP] = (greg_t)(top - 8);  // as after a call
#else
    machine.pc = (uint64_t)land;
    machine.sp = top;
#endif
}

// The handler needs a stack when a fiber's is full. Rust gives one to its threads; others get it here.
struct SignalStack {
    void* memory = nullptr;

    SignalStack() {
        stack_t current;
        if (sigaltstack(nullptr, &current) != 0 || !(current.ss_flags & SS_DISABLE)) {
            return;
        }
        void* p = mmap(nullptr, kSignalStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            return;
        }
        stack_t mine{};
        mine.ss_sp = p;
        mine.ss_size = kSignalStack;
        if (sigaltstack(&mine, nullptr) == 0) {
            memory = p;
        } else {
            munmap(p, kSignalStack);
        }
    }

    ~SignalStack() {
        if (memory) {
            stack_t none{};
            none.ss_flags = SS_DISABLE;
            sigaltstack(&none, nullptr);
            munmap(memory, kSignalStack);
        }
    }
};

}  // namespace

void catch_faults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action;
        memset(&action, 0, sizeof(action));
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < kSignalCount; i++) {
            sigaction(kSignals[i], &action, &previous[i]);
        }
    });
    static thread_local SignalStack stack;
    (void)stack;
}

}  // namespace simt::SIMT_VARIANT
