// The GPU instructions that kernels.cu uses and CUDA C++ has no function for. on_cpu.h has the same functions for the
// CPU, so that the kernels' logic can be tested without a GPU.
#include <cuda_bf16.h>
#include <stdint.h>

// Loads four 8 x 8 matrices of 16-bit elements from shared memory. Lane i passes the address of row i % 8 of matrix
// i / 8. From each matrix it gets the elements (i / 4, 2 * (i % 4)) and (i / 4, 2 * (i % 4) + 1), the first in the lower
// half.
__device__ inline void ldmatrix(uint32_t (&r)[4], const __nv_bfloat16 *row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// ldmatrix of the transposed matrices.
__device__ inline void ldmatrix_trans(uint32_t (&r)[4], const __nv_bfloat16 *row) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// c += a b on the tensor cores: a is 16 x 16, b is 16 x 8, c is 16 x 8. The PTX ISA manual shows how the warp's lanes hold
// them ("Matrix Fragments for mma.m16n8k16 with floating point type").
__device__ inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Rounds two numbers to bf16. The first is in the lower half of the result.
__device__ inline uint32_t bf16x2(float first, float second) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
    return packed;
}

// 2^x with an error of about two units in the last place (PTX ISA manual, ex2.approx). 0 for minus infinity.
__device__ inline float exp2_approx(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// Starts a copy of 16 bytes into shared memory. If not `valid`, it writes zeros and reads nothing.
__device__ inline void cp_async(void *to, const void *from, bool valid) {
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes)
                 : "memory");
}

// Makes one group of the copies since the last call.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until this thread's copies have arrived, except those of the newest N groups.
template <int N> __device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
