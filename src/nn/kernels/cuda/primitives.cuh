// The instructions that kernels.cu is written in, on a GPU. on_cpu.h has the same ones for
// the CPU, so that the kernels' logic can be tested without a GPU.
#include <cuda_bf16.h>
#include <stdint.h>

// Four 8 x 8 matrices of 16-bit numbers out of shared memory: lane i names a row of 8 numbers, that of
// row i % 8 of matrix i / 8, and gets the numbers (i / 4, 2 * (i % 4)) and the one beside it of each.
__device__ inline void ldmatrix(uint32_t (&r)[4], const __nv_bfloat16 *row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// The same of the transposed matrices.
__device__ inline void ldmatrix_trans(uint32_t (&r)[4], const __nv_bfloat16 *row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// c += a b on the tensor cores: a is 16 x 16, b 16 x 8, laid out over a warp as the PTX manual says
// (Matrix Fragments for mma.m16n8k16).
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two numbers rounded to 16 bits, the first in the lower half.
__device__ inline uint32_t bf16x2(float first, float second) {
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
}

// 2^x to about two units in the last place; 0 for minus infinity.
__device__ inline float exp2_approx(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// 16 bytes on their way into shared memory; zeros where there is nothing to read.
__device__ inline void cp_async(void *to, const void *from, bool there) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes)
                 : "memory");
}

// What was sent since the last call is one group.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// This thread's copies have arrived but for those of the newest N groups.
template <int N> __device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
