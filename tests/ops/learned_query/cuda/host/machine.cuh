// A card on a host: each thread of a block is a fiber, a barrier a switch to the next one. It stands in for the file of this
// name beside the kernels, and makes of them plain C++.
//
// What would go unnoticed on a card stops the program here: a barrier that some threads never reach, and a number beyond the
// end of shared memory. Shared memory begins as NaN. Threads run one after the other from barrier to barrier, in either
// order, so that a barrier that is missing shows as results that differ between the two.
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct Index {
    unsigned x;
};

static Index threadIdx, blockIdx;

namespace host {

constexpr size_t STACK = 1 << 17;
constexpr int WARP = 32;

enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Fiber {
    ucontext_t context;
    State state;
    int turn; // of two places for what lanes exchange
};

static std::vector<Fiber> fibers;
static std::vector<float> exchanged; // (warp, turn, lane)
static ucontext_t scheduler;
static unsigned char* shared;
static int any, all_of_any; // being gathered at the block's barrier; what it found
static int current;

inline void wait(State at) {
    int self = current;
    fibers[self].state = at;
    swapcontext(&fibers[self].context, &scheduler);
}

inline void fail(const char* words) {
    fprintf(stderr, "block %u: %s\n", blockIdx.x, words);
    abort();
}

// Run all threads of a block to their ends, the last first if `backwards`.
inline void run_block(int threads, bool backwards, void (*body)()) {
    for (int t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_link = &scheduler;
        fiber.state = READY;
        fiber.turn = 0;
        makecontext(&fiber.context, body, 0);
    }
    for (int done = 0; done < threads;) {
        bool moved = false;
        for (int i = 0; i < threads; ++i) {
            current = backwards ? threads - 1 - i : i;
            Fiber& fiber = fibers[current];
            if (fiber.state != READY) continue;
            threadIdx.x = current;
            fiber.state = DONE; // unless it comes to wait
            swapcontext(&scheduler, &fiber.context);
            done += fiber.state == DONE;
            moved = true;
        }
        int at_block = 0;
        for (int w = 0; w < threads; w += WARP) {
            int at_warp = 0;
            for (int t = w; t < w + WARP; ++t) {
                at_warp += fibers[t].state == AT_WARP;
                at_block += fibers[t].state == AT_BLOCK;
            }
            for (int t = w; at_warp == WARP && t < w + WARP; ++t) fibers[t].state = READY, moved = true;
        }
        if (at_block == threads) {
            for (int t = 0; t < threads; ++t) fibers[t].state = READY;
            all_of_any = any;
            any = 0;
            moved = true;
        }
        if (!moved && done < threads) fail("threads wait for others that never come");
    }
}

// Run a kernel's body for every block. Shared memory ends where a page ends that nothing may touch.
inline void run_grid(int blocks, int threads, int bytes, bool backwards, void (*body)()) {
    if (threads % WARP) fail("a block has warps that are not whole");
    size_t page = sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page;
    unsigned char* room = (unsigned char*)mmap(0, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(room + size, page, PROT_NONE);
    shared = room + size - (bytes + 15) / 16 * 16;
    unsigned char* stacks =
        (unsigned char*)mmap(0, STACK * threads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fibers.resize(threads);
    exchanged.assign(threads * 2, 0);
    for (int t = 0; t < threads; ++t) {
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack.ss_sp = stacks + STACK * t;
        fibers[t].context.uc_stack.ss_size = STACK;
    }
    for (int b = 0; b < blocks; ++b) {
        blockIdx.x = b;
        any = 0;
        memset(shared, 0xff, room + size - shared);
        run_block(threads, backwards, body);
    }
    munmap(stacks, STACK * threads);
    munmap(room, size + page);
}

} // namespace host

#define QNA_SHARED(name) unsigned char* name = host::shared

inline void __syncthreads() { host::wait(host::AT_BLOCK); }

inline int __syncthreads_or(int predicate) {
    host::any |= predicate != 0;
    host::wait(host::AT_BLOCK);
    return host::all_of_any;
}

inline float __shfl_xor_sync(unsigned, float x, int mask) {
    int self = host::current, lane = self % host::WARP;
    float* places = host::exchanged.data() + (self - lane) * 2 + host::fibers[self].turn * host::WARP;
    host::fibers[self].turn ^= 1;
    places[lane] = x;
    host::wait(host::AT_WARP);
    return places[lane ^ mask];
}

inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline float __int_as_float(int bits) { return __uint_as_float(unsigned(bits)); }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

// Below the normal numbers it is 0, as there.
inline float power_of_two(float x) { return x < -126 ? 0 : exp2f(x); }

inline float inverse(float x) { return 1 / x; }

// Rounded to the nearest, ties to even.
inline unsigned short to_bfloat16(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline float from_half(unsigned short bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                 : exponent     ? ldexpf(1024 + fraction, exponent - 25)
                                : ldexpf(fraction, -24);
    return bits >> 15 ? -size : size;
}

inline unsigned short to_half(float x) {
    unsigned short sign = signbit(x) ? 0x8000 : 0;
    if (x != x) return 0x7fff;
    float size = fabsf(x);
    if (size >= 65520) return sign | 0x7c00;
    int exponent;
    frexpf(size, &exponent);
    // units of the last place: of subnormal numbers all are alike
    int unit = exponent - 11 < -24 ? -24 : exponent - 11;
    int units = int(nearbyintf(ldexpf(size, -unit)));
    // a carry into the next power of two is one more in the exponent
    return sign | (unit == -24 ? units : ((unit + 24) << 10) + units);
}

// What makes of a kernel a function of a library: `run(call, blocks, threads, bytes of shared memory, backwards)`.
#define QNA_HOST(kernel)                                                                                     \
    static const Call* call_of_host;                                                                         \
    static void body_of_host() { kernel(*call_of_host); }                                                    \
    extern "C" void run(const Call* call, int blocks, int threads, int bytes, int backwards) {               \
        call_of_host = call;                                                                                 \
        host::run_grid(blocks, threads, bytes, backwards, body_of_host);                                     \
    }
