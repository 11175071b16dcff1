// fiber.cpp: stacks, and the switch between them
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "runtime.h"

#define SIMT_TEXT_OF(x) #x
#define SIMT_TEXT(x) SIMT_TEXT_OF(x)
#define SIMT_SWITCH_NAME SIMT_TEXT(SIMT_C(switch))

// void switch(void** save_sp, void* load_sp): pushes what a callee must keep, changes the stack, pops it.
#if defined(__x86_64__)
asm(".text\n"
    ".globl " SIMT_SWITCH_NAME "\n"
    ".type " SIMT_SWITCH_NAME ", @function\n" SIMT_SWITCH_NAME ":\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size " SIMT_SWITCH_NAME ", . - " SIMT_SWITCH_NAME "\n");
#elif defined(__aarch64__)
asm(".text\n"
    ".globl " SIMT_SWITCH_NAME "\n"
    ".type " SIMT_SWITCH_NAME ", %function\n" SIMT_SWITCH_NAME ":\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp]\n"
    "    stp x21, x22, [sp, #16]\n"
    "    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n"
    "    stp x27, x28, [sp, #64]\n"
    "    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n"
    "    stp d10, d11, [sp, #112]\n"
    "    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n"
    "    str x9, [x0]\n"
    "    mov sp, x1\n"
    "    ldp x19, x20, [sp]\n"
    "    ldp x21, x22, [sp, #16]\n"
    "    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n"
    "    ldp x27, x28, [sp, #64]\n"
    "    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n"
    "    ldp d10, d11, [sp, #112]\n"
    "    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n"
    "    ret\n"
    ".size " SIMT_SWITCH_NAME ", . - " SIMT_SWITCH_NAME "\n");
#else
#error "the emulation knows the stacks of x86_64 and aarch64 only"
#endif

namespace simt::SIMT_VARIANT {

// Stacks that all begin at the same offset would share a few cache lines' sets.
constexpr uint32_t kColour = 320, kColours = 16384;

__thread Context here __attribute__((tls_model("initial-exec")));

size_t page_size() {
    static const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    return size;
}

size_t stack_stride() {
    static const size_t stride = kStackSize + kColours + page_size();
    return stride;
}

static uint8_t* reserve(size_t bytes, int protection, const char* what) {
    void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror(what);
        abort();
    }
    return (uint8_t*)p;
}

Worker::Worker() : stacks_open(0), failed(false) {
    stacks = reserve(stack_stride() * kMaxThreads, PROT_NONE, "simt: stacks");
    const size_t page = page_size(), inside = (kArena + page - 1) / page * page;
    uint8_t* guarded = reserve(inside + 2 * page, PROT_NONE, "simt: shared memory");
    mprotect(guarded + page, inside, PROT_READ | PROT_WRITE);
    arena = guarded + page + inside - kArena;
    void* queues = reserve(sizeof(Copy) * kCopiesInFlight * kMaxThreads, PROT_READ | PROT_WRITE, "simt: copies");
    copies = (Copy(*)[kCopiesInFlight])queues;
    race = nullptr;
}

// Only as many as a kernel needs: each is two entries in the process's memory map, of which Linux allows 65530.
void open_stacks(Worker& w, uint32_t count) {
    for (; w.stacks_open < count; w.stacks_open++) {
        uint8_t* stack = w.stacks + w.stacks_open * stack_stride() + page_size();
        if (mprotect(stack, kStackSize + kColours, PROT_READ | PROT_WRITE) != 0) {
            perror("simt: stack of a fiber");
            abort();
        }
    }
}

void prepare_fiber(Worker& w, uint32_t index, void (*entry)()) {
    uint8_t* top = w.stacks + (index + 1) * stack_stride() - 64 - index * kColour % kColours;
    uint64_t* sp = (uint64_t*)((uintptr_t)top & ~(uintptr_t)15);
#if defined(__x86_64__)
    *--sp = 0;                // where entry would return to
    *--sp = (uint64_t)entry;  // where the switch returns to
    sp -= 6;                  // registers
#else
    constexpr int kFrame = 20, kLinkRegister = 11;  // in words
    sp -= kFrame;
    sp[kLinkRegister] = (uint64_t)entry;
#endif
    w.fibers[index].sp = sp;
}

}  // namespace simt::SIMT_VARIANT
