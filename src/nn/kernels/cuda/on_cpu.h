// Emulates the GPU for tests: the functions of primitives.cuh and those of CUDA that kernels.cu uses. Blocks run one
// after the other. Every thread of a block is a fiber that runs until it waits at a barrier. The order of warps, and of
// the threads of a warp, alternates between ascending and descending, so that a missing barrier gives wrong results.
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#define __device__
#define __shared__ static

using std::max;
using std::min;

struct __nv_bfloat16 {
    uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

struct Dim {
    unsigned x, y, z;
};

namespace on_cpu {

constexpr int LANES = 32;

// A point where fibers wait for each other.
struct Barrier {
    unsigned expected = 0, arrived = 0, generation = 0;

    void release_if_complete() {
        if (arrived == expected) {
            arrived = 0;
            generation++;
        }
    }
};

struct Warp {
    Barrier barrier;
    // Values that the lanes exchange. There are two sets, because a slow lane may still read one while a fast lane
    // writes the next.
    uint64_t exchanged[2][LANES];
};

// An asynchronous copy of 16 bytes.
struct Copy {
    void *to;
    const void *from;
    bool valid;

    void arrive() const {
        if (valid) memcpy(to, from, 16);
        else memset(to, 0, 16);
    }
};

struct Fiber {
    ucontext_t context;
    jmp_buf resume_point;
    std::unique_ptr<char[]> stack;
    bool started, ended;
    const Barrier *waiting_at;
    unsigned awaited_generation;
    std::vector<std::vector<Copy>> copies;
};

constexpr size_t STACK = 1 << 17;

struct Block {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Warp> warps;
    Barrier barrier;
    jmp_buf scheduler;
    unsigned current;
    void (*kernel)(const void *);
    const void *args;
    // Whether copies arrive at once, or as late as allowed. It alternates between blocks.
    bool copies_arrive_at_once;
};

inline Block block;

[[noreturn]] inline void fail(const char *why) {
    fprintf(stderr, "kernel on the CPU: %s\n", why);
    abort();
}

// Waits until all fibers have arrived at the barrier.
inline void wait(Barrier &barrier) {
    Fiber &fiber = *block.fibers[block.current];
    fiber.waiting_at = &barrier;
    fiber.awaited_generation = barrier.generation + 1;
    barrier.arrived++;
    barrier.release_if_complete();
    if (barrier.generation == fiber.awaited_generation) {
        fiber.waiting_at = nullptr;
        return;
    }
    if (_setjmp(fiber.resume_point) == 0) _longjmp(block.scheduler, 1);
}

// The main function of a fiber.
inline void run_fiber() {
    block.kernel(block.args);
    Fiber &fiber = *block.fibers[block.current];
    for (auto &group : fiber.copies) {
        if (!group.empty()) fail("a thread ended before its copies had arrived");
    }
    fiber.ended = true;
    // Barriers no longer wait for a thread that has ended.
    for (Barrier *barrier : {&block.barrier, &block.warps[block.current / LANES].barrier}) {
        barrier->expected--;
        if (barrier->arrived > 0) barrier->release_if_complete();
    }
    _longjmp(block.scheduler, 1);
}

// Runs a fiber until it waits or ends.
inline void resume(unsigned index, Dim &thread) {
    Fiber &fiber = *block.fibers[index];
    block.current = index;
    thread = {index, 0, 0};
    if (_setjmp(block.scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.resume_point, 1);
    fiber.started = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
    setcontext(&fiber.context);
}

// Runs every thread of a warp until it waits or ends. Returns whether any thread ran.
inline bool run_warp(unsigned warp, bool ascending, Dim &thread) {
    bool progressed = false;
    for (unsigned i = 0; i < LANES; i++) {
        unsigned index = warp * LANES + (ascending ? i : LANES - 1 - i);
        Fiber &fiber = *block.fibers[index];
        if (fiber.ended || (fiber.waiting_at && fiber.waiting_at->generation != fiber.awaited_generation)) continue;
        fiber.waiting_at = nullptr;
        progressed = true;
        resume(index, thread);
    }
    return progressed;
}

// Runs all threads of a block.
inline void run_block(unsigned threads, Dim &thread) {
    while (block.fibers.size() < threads) {
        block.fibers.push_back(std::make_unique<Fiber>());
        block.fibers.back()->stack = std::make_unique<char[]>(STACK);
    }
    block.warps.assign(threads / LANES, Warp());
    for (Warp &warp : block.warps) warp.barrier.expected = LANES;
    block.barrier = Barrier{threads, 0, 0};
    block.copies_arrive_at_once = !block.copies_arrive_at_once;
    for (unsigned i = 0; i < threads; i++) {
        Fiber &fiber = *block.fibers[i];
        fiber.started = fiber.ended = false;
        fiber.waiting_at = nullptr;
        fiber.copies.assign(1, {});
    }
    for (bool ascending = true;; ascending = !ascending) {
        bool progressed = false;
        for (unsigned i = 0; i < threads / LANES; i++) {
            unsigned warp = ascending ? i : threads / LANES - 1 - i;
            for (bool lanes_ascend = ascending; run_warp(warp, lanes_ascend, thread);
                 lanes_ascend = !lanes_ascend) {
                progressed = true;
            }
        }
        bool alive = false;
        for (unsigned i = 0; i < threads; i++) alive |= !block.fibers[i]->ended;
        if (!alive) return;
        if (!progressed) fail("deadlock: all threads wait");
    }
}

// Passes a value to the other lanes of the warp. Returns the values of all lanes.
inline const uint64_t *exchange(uint64_t value) {
    Warp &warp = block.warps[block.current / LANES];
    uint64_t *values = warp.exchanged[warp.barrier.generation % 2];
    values[block.current % LANES] = value;
    wait(warp.barrier);
    return values;
}

} // namespace on_cpu

inline Dim threadIdx, blockIdx, blockDim;

inline void __syncthreads() { on_cpu::wait(on_cpu::block.barrier); }
inline void __threadfence() {}
inline float __ldcg(const float *from) { return *from; }
inline float exp2_approx(float x) { return exp2f(x); }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }

inline unsigned atomicAdd(unsigned *to, unsigned addend) {
    unsigned before = *to;
    *to += addend;
    return before;
}

template <typename T> T __shfl_xor_sync(unsigned, T x, int mask) {
    uint64_t value = 0;
    memcpy(&value, &x, sizeof x);
    uint64_t received = on_cpu::exchange(value)[(threadIdx.x % on_cpu::LANES) ^ mask];
    T result;
    memcpy(&result, &received, sizeof result);
    return result;
}

inline uint32_t bf16x2(float first, float second) {
    return __float2bfloat16_rn(first).bits | static_cast<uint32_t>(__float2bfloat16_rn(second).bits) << 16;
}

namespace on_cpu {

// The element (row, column) of matrix `matrix`. `rows` holds the row addresses that the lanes passed.
inline uint16_t element(const uint64_t *rows, int matrix, int row, int column) {
    auto *elements = reinterpret_cast<const __nv_bfloat16 *>(rows[matrix * 8 + row]);
    return elements[column].bits;
}

inline void load(uint32_t (&r)[4], const __nv_bfloat16 *row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("a row of a matrix is not at a multiple of 16 bytes");
    const uint64_t *rows = exchange(reinterpret_cast<uintptr_t>(row));
    int lane = threadIdx.x % LANES;
    for (int matrix = 0; matrix < 4; matrix++) {
        int i = lane / 4, j = lane % 4 * 2;
        uint32_t low = transposed ? element(rows, matrix, j, i) : element(rows, matrix, i, j);
        uint32_t high = transposed ? element(rows, matrix, j + 1, i) : element(rows, matrix, i, j + 1);
        r[matrix] = low | high << 16;
    }
    // Waits until all lanes have read the matrices, because shared memory may be overwritten afterwards.
    exchange(0);
}

// One of the four bf16 elements in `packed`.
inline float unpack(uint64_t packed, int which) {
    return __bfloat162float({static_cast<uint16_t>(packed >> (16 * which))});
}

} // namespace on_cpu

inline void ldmatrix(uint32_t (&r)[4], const __nv_bfloat16 *row) { on_cpu::load(r, row, false); }
inline void ldmatrix_trans(uint32_t (&r)[4], const __nv_bfloat16 *row) { on_cpu::load(r, row, true); }

// Fragments as in the tables of the PTX ISA manual, with lane = 4 * group + member. Each register of a and b holds two
// elements. Registers 0 to 3 of a hold rows `group`, `group + 8`, `group`, `group + 8`, from columns `2 * member`,
// `2 * member`, `2 * member + 8`, `2 * member + 8` on. Registers 0 and 1 of b hold column `group`, from rows `2 * member`
// and `2 * member + 8` on. c holds rows `group` and `group + 8`, columns `2 * member` and `2 * member + 1`.
inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    using namespace on_cpu;
    uint64_t a_of[2][LANES], b_of[LANES];
    for (int part = 0; part < 2; part++) {
        uint64_t packed = a[part * 2] | static_cast<uint64_t>(a[part * 2 + 1]) << 32;
        memcpy(a_of[part], exchange(packed), sizeof a_of[part]);
    }
    memcpy(b_of, exchange(b0 | static_cast<uint64_t>(b1) << 32), sizeof b_of);
    auto a_at = [&](int row, int column) {
        uint64_t packed = a_of[column / 8][row % 8 * 4 + column % 8 / 2];
        return unpack(packed, row / 8 * 2 + column % 2);
    };
    auto b_at = [&](int row, int column) {
        return unpack(b_of[column * 4 + row % 8 / 2], row / 8 * 2 + row % 2);
    };
    int lane = threadIdx.x % LANES;
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) c[i] += a_at(row, k) * b_at(k, column);
    }
}

inline void cp_async(void *to, const void *from, bool valid) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0) {
        on_cpu::fail("a copy is not at a multiple of 16 bytes");
    }
    on_cpu::Copy copy = {to, from, valid};
    if (on_cpu::block.copies_arrive_at_once) copy.arrive();
    else on_cpu::block.fibers[threadIdx.x]->copies.back().push_back(copy);
}

inline void cp_async_commit() { on_cpu::block.fibers[threadIdx.x]->copies.emplace_back(); }

template <int N> void cp_async_wait() {
    auto &groups = on_cpu::block.fibers[threadIdx.x]->copies;
    // The last group is not committed yet.
    while (groups.size() > N + 1) {
        for (const on_cpu::Copy &copy : groups.front()) copy.arrive();
        groups.erase(groups.begin());
    }
}

namespace on_cpu {

struct Kernel {
    unsigned threads;
    size_t args;
    void (*run)(const void *);
};

inline std::unordered_map<std::string, Kernel> kernels;

} // namespace on_cpu

#define KERNEL(NAME, THREADS, ARGS, ...)                                                            \
    static bool NAME##_registered =                                                                 \
        on_cpu::kernels                                                                             \
            .insert({#NAME, {THREADS, sizeof(ARGS), [](const void *a) {                             \
                                 const ARGS args = *static_cast<const ARGS *>(a);                   \
                                 __VA_ARGS__(args);                                                 \
                             }}})                                                                   \
            .second;

// Runs a kernel. Returns 0, or why it cannot: 1 for an unknown kernel, 2 for a wrong number of threads, 3 for a wrong
// size of the arguments.
extern "C" int launch(const char *name, const unsigned *blocks, unsigned threads, const void *args, size_t size) {
    auto found = on_cpu::kernels.find(name);
    if (found == on_cpu::kernels.end()) return 1;
    const on_cpu::Kernel &kernel = found->second;
    if (threads != kernel.threads) return 2;
    if (size != kernel.args) return 3;
    on_cpu::block.kernel = kernel.run;
    on_cpu::block.args = args;
    blockDim = {threads, 1, 1};
    for (unsigned z = 0; z < blocks[2]; z++) {
        for (unsigned y = 0; y < blocks[1]; y++) {
            for (unsigned x = 0; x < blocks[0]; x++) {
                blockIdx = {x, y, z};
                on_cpu::run_block(threads, threadIdx);
            }
        }
    }
    return 0;
}
