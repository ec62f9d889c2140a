// kernels.cu on the CPU, for tests: the same words as primitives.cuh and CUDA's own, done by one fiber a
// thread. Blocks run one after the other. Within a block a warp runs as far ahead of the others as it can,
// now the first one and now the last one first, and so do the threads of a warp: what is read without waiting
// for whoever writes it, or written while somebody may still have to read, comes out wrong.
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

// Where some fibers wait for each other.
struct Meeting {
    unsigned expected = 0, arrived = 0, number = 0;

    void leave_if_all_are_here() {
        if (arrived == expected) {
            arrived = 0;
            number++;
        }
    }
};

struct Warp {
    Meeting meeting;
    // What lanes give each other: two, as the slowest may still read one while the fastest writes the next.
    uint64_t given[2][LANES];
};

struct Copy {
    void *to;
    const void *from;
    bool there;

    void arrive() const {
        if (there) memcpy(to, from, 16);
        else memset(to, 0, 16);
    }
};

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    bool started, ended;
    const Meeting *waits_at;
    unsigned waits_for;
    std::vector<std::vector<Copy>> copies;
};

constexpr size_t STACK = 1 << 17;

struct Block {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Warp> warps;
    Meeting meeting;
    jmp_buf scheduler;
    ucontext_t first;
    unsigned current;
    void (*kernel)(const void *);
    const void *args;
    // Copies arrive at once in one block and as late as they may in the next.
    bool prompt;
};

inline Block block;

[[noreturn]] inline void die(const char *why) {
    fprintf(stderr, "kernel on the CPU: %s\n", why);
    abort();
}

inline void wait(Meeting &meeting) {
    Fiber &fiber = *block.fibers[block.current];
    fiber.waits_at = &meeting;
    fiber.waits_for = meeting.number + 1;
    meeting.arrived++;
    meeting.leave_if_all_are_here();
    if (meeting.number == fiber.waits_for) {
        fiber.waits_at = nullptr;
        return;
    }
    if (_setjmp(fiber.place) == 0) _longjmp(block.scheduler, 1);
}

inline void body() {
    block.kernel(block.args);
    Fiber &fiber = *block.fibers[block.current];
    for (auto &group : fiber.copies) {
        if (!group.empty()) die("a thread ended before its copies had arrived");
    }
    fiber.ended = true;
    // Whoever is gone is waited for no longer.
    for (Meeting *meeting : {&block.meeting, &block.warps[block.current / LANES].meeting}) {
        meeting->expected--;
        if (meeting->arrived > 0) meeting->leave_if_all_are_here();
    }
    _longjmp(block.scheduler, 1);
}

inline void resume(unsigned index, Dim &thread) {
    Fiber &fiber = *block.fibers[index];
    block.current = index;
    thread = {index, 0, 0};
    if (_setjmp(block.scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, body, 0);
    setcontext(&fiber.context);
}

// Every thread of a warp as far as it goes; whether any went anywhere.
inline bool run_warp(unsigned warp, bool ascending, Dim &thread) {
    bool moved = false;
    for (unsigned i = 0; i < LANES; i++) {
        unsigned index = warp * LANES + (ascending ? i : LANES - 1 - i);
        Fiber &fiber = *block.fibers[index];
        if (fiber.ended || (fiber.waits_at && fiber.waits_at->number != fiber.waits_for)) continue;
        fiber.waits_at = nullptr;
        moved = true;
        resume(index, thread);
    }
    return moved;
}

inline void run_block(unsigned threads, Dim &thread) {
    while (block.fibers.size() < threads) {
        block.fibers.push_back(std::make_unique<Fiber>());
        block.fibers.back()->stack = std::make_unique<char[]>(STACK);
    }
    block.warps.assign(threads / LANES, Warp());
    for (Warp &warp : block.warps) warp.meeting.expected = LANES;
    block.meeting = Meeting{threads, 0, 0};
    block.prompt = !block.prompt;
    for (unsigned i = 0; i < threads; i++) {
        Fiber &fiber = *block.fibers[i];
        fiber.started = fiber.ended = false;
        fiber.waits_at = nullptr;
        fiber.copies.assign(1, {});
    }
    for (bool ascending = true;; ascending = !ascending) {
        bool moved = false;
        for (unsigned i = 0; i < threads / LANES; i++) {
            unsigned warp = ascending ? i : threads / LANES - 1 - i;
            for (bool lanes_ascend = ascending; run_warp(warp, lanes_ascend, thread);
                 lanes_ascend = !lanes_ascend) {
                moved = true;
            }
        }
        bool alive = false;
        for (unsigned i = 0; i < threads; i++) alive |= !block.fibers[i]->ended;
        if (!alive) return;
        if (!moved) die("threads wait for each other for ever");
    }
}

// Every lane of a warp gives a number; they are all there when this returns.
inline const uint64_t *exchange(uint64_t mine) {
    Warp &warp = block.warps[block.current / LANES];
    uint64_t *given = warp.given[warp.meeting.number % 2];
    given[block.current % LANES] = mine;
    wait(warp.meeting);
    return given;
}

} // namespace on_cpu

inline Dim threadIdx, blockIdx, blockDim;

inline void __syncthreads() { on_cpu::wait(on_cpu::block.meeting); }
inline void __threadfence() {}
inline float __ldcg(const float *from) { return *from; }
inline float exp2_approx(float x) { return exp2f(x); }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }

inline unsigned atomicAdd(unsigned *to, unsigned more) {
    unsigned before = *to;
    *to += more;
    return before;
}

template <typename T> T __shfl_xor_sync(unsigned, T x, int mask) {
    uint64_t mine = 0;
    memcpy(&mine, &x, sizeof x);
    uint64_t other = on_cpu::exchange(mine)[(threadIdx.x % on_cpu::LANES) ^ mask];
    T theirs;
    memcpy(&theirs, &other, sizeof theirs);
    return theirs;
}

inline uint32_t bf16x2(float first, float second) {
    return __float2bfloat16_rn(first).bits | static_cast<uint32_t>(__float2bfloat16_rn(second).bits) << 16;
}

namespace on_cpu {

// The number at (row, column) of matrix `matrix`, whose rows the lanes name.
inline uint16_t number(const uint64_t *rows, int matrix, int row, int column) {
    auto *numbers = reinterpret_cast<const __nv_bfloat16 *>(rows[matrix * 8 + row]);
    return numbers[column].bits;
}

inline void load(uint32_t (&r)[4], const __nv_bfloat16 *row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) die("a row of a matrix is not at a multiple of 16 bytes");
    const uint64_t *rows = exchange(reinterpret_cast<uintptr_t>(row));
    int lane = threadIdx.x % LANES;
    for (int matrix = 0; matrix < 4; matrix++) {
        int i = lane / 4, j = lane % 4 * 2;
        uint32_t low = transposed ? number(rows, matrix, j, i) : number(rows, matrix, i, j);
        uint32_t high = transposed ? number(rows, matrix, j + 1, i) : number(rows, matrix, i, j + 1);
        r[matrix] = low | high << 16;
    }
    // Nobody goes on to write there before all have read.
    exchange(0);
}

inline float half_of(uint64_t two, int which) {
    return __bfloat162float({static_cast<uint16_t>(two >> (16 * which))});
}

} // namespace on_cpu

inline void ldmatrix(uint32_t (&r)[4], const __nv_bfloat16 *row) { on_cpu::load(r, row, false); }
inline void ldmatrix_trans(uint32_t (&r)[4], const __nv_bfloat16 *row) { on_cpu::load(r, row, true); }

// By the tables of the PTX manual: lane = 4 * group + member. Of a, registers 0 to 3 hold rows `group`,
// `group + 8`, `group`, `group + 8` and columns `2 * member`, there, 8 further, there; of b registers 0
// and 1 rows `2 * member` and 8 further, column `group`; of c rows `group` and `group + 8`, columns
// `2 * member` and the next.
inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    using namespace on_cpu;
    uint64_t a_of[2][LANES], b_of[LANES];
    for (int part = 0; part < 2; part++) {
        uint64_t two = a[part * 2] | static_cast<uint64_t>(a[part * 2 + 1]) << 32;
        memcpy(a_of[part], exchange(two), sizeof a_of[part]);
    }
    memcpy(b_of, exchange(b0 | static_cast<uint64_t>(b1) << 32), sizeof b_of);
    auto a_at = [&](int row, int column) {
        uint64_t of = a_of[column / 8][row % 8 * 4 + column % 8 / 2];
        return half_of(of, row / 8 * 2 + column % 2);
    };
    auto b_at = [&](int row, int column) {
        return half_of(b_of[column * 4 + row % 8 / 2], row / 8 * 2 + row % 2);
    };
    int lane = threadIdx.x % LANES;
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) c[i] += a_at(row, k) * b_at(k, column);
    }
}

inline void cp_async(void *to, const void *from, bool there) {
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0) {
        on_cpu::die("a copy is not at a multiple of 16 bytes");
    }
    on_cpu::Copy copy = {to, from, there};
    if (on_cpu::block.prompt) copy.arrive();
    else on_cpu::block.fibers[threadIdx.x]->copies.back().push_back(copy);
}

inline void cp_async_commit() { on_cpu::block.fibers[threadIdx.x]->copies.emplace_back(); }

template <int N> void cp_async_wait() {
    auto &groups = on_cpu::block.fibers[threadIdx.x]->copies;
    // The last one is still open.
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

#define KERNEL(NAME, THREADS, ARGS, ...)                                                             \
    static bool NAME##_there =                                                                       \
        on_cpu::kernels                                                                              \
            .insert({#NAME, {THREADS, sizeof(ARGS), [](const void *a) {                              \
                                 const ARGS args = *static_cast<const ARGS *>(a);                    \
                                 __VA_ARGS__(args);                                                  \
                             }}})                                                                    \
            .second;

// 0, or what is wrong: 1 there is no such kernel, 2 it has another number of threads, 3 the arguments differ.
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
