// What only a card has: its shared memory, and conversions that take one instruction.
// Where the kernels are compiled for a host, another file of this name stands before it.
#pragma once

#define QNA_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

__device__ __forceinline__ unsigned short to_bfloat16(float x) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

__device__ __forceinline__ unsigned short to_half(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

__device__ __forceinline__ float from_half(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

// 2^x to two units of rounding; 0 where it is below the normal numbers.
__device__ __forceinline__ float power_of_two(float x) {
    float e;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(x));
    return e;
}

// 1 / x to a unit of rounding, for x between 2^-126 and 2^126.
__device__ __forceinline__ float inverse(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
