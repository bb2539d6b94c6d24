// What maps store, and how it is read and written by vectors; all arithmetic is in fp32.
#pragma once
#include "call.cuh"

#if QNA_STORAGE == 0
typedef float Stored;
#else
typedef unsigned short Stored;
#endif

constexpr int SIZE = sizeof(Stored);

__device__ __forceinline__ float widen(Stored x) {
#if QNA_STORAGE == 0
    return x;
#elif QNA_STORAGE == 1
    return __uint_as_float(unsigned(x) << 16);
#else
    return from_half(x);
#endif
}

// Two neighbours in one register.
__device__ __forceinline__ void widen(unsigned pair, float& first, float& second) {
#if QNA_STORAGE == 1
    first = __uint_as_float(pair << 16);
    second = __uint_as_float(pair & 0xffff0000u);
#elif QNA_STORAGE == 2
    first = from_half(pair & 0xffffu);
    second = from_half(pair >> 16);
#endif
}

__device__ __forceinline__ Stored narrow(float x) {
#if QNA_STORAGE == 0
    return x;
#elif QNA_STORAGE == 1
    return to_bfloat16(x);
#else
    return to_half(x);
#endif
}

// So many bytes that lie on a multiple of their number, of at most 16.
template <int BYTES>
struct Word;
template <>
struct Word<2> {
    typedef unsigned short Type;
};
template <>
struct Word<4> {
    typedef unsigned Type;
};
template <>
struct Word<8> {
    typedef uint2 Type;
};
template <>
struct Word<16> {
    typedef uint4 Type;
};

// The longest word that N numbers of this size are made of.
__host__ __device__ constexpr int word_bytes(int bytes, int size) {
    return bytes % 16 == 0 ? 16 : bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : size;
}

// Copy N numbers by the longest words that divide them; both sides lie on multiples of such a word.
template <int N, class T>
__device__ __forceinline__ void copy(T* to, const T* from) {
    constexpr int BYTES = word_bytes(N * sizeof(T), sizeof(T));
    typedef typename Word<BYTES>::Type Each;
#pragma unroll
    for (int i = 0; i < int(N * sizeof(T)) / BYTES; ++i) ((Each*)to)[i] = ((const Each*)from)[i];
}

template <int N, class T>
struct alignas(word_bytes(N * sizeof(T), sizeof(T))) Numbers {
    T at[N];
};

// N stored numbers in fp32; of half precision two come out of a register by an instruction each.
template <int N>
__device__ __forceinline__ void read(float (&to)[N], const Stored* from) {
    if constexpr (SIZE == 2 && N % 2 == 0) {
        Numbers<N / 2, unsigned> pairs;
        constexpr int BYTES = word_bytes(N * SIZE, SIZE);
        typedef typename Word<BYTES>::Type Each;
#pragma unroll
        for (int i = 0; i < N * SIZE / BYTES; ++i) ((Each*)pairs.at)[i] = ((const Each*)from)[i];
#pragma unroll
        for (int i = 0; i < N / 2; ++i) widen(pairs.at[i], to[2 * i], to[2 * i + 1]);
    } else {
        Numbers<N, Stored> numbers;
        copy<N>(numbers.at, from);
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = widen(numbers.at[i]);
    }
}

#if QNA_STORAGE != 0
template <int N>
__device__ __forceinline__ void read(float (&to)[N], const float* from) {
    Numbers<N, float> bits;
    copy<N>(bits.at, from);
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = bits.at[i];
}
#endif

__device__ __forceinline__ const Stored* stored(Offset at) { return (const Stored*)at; }

__device__ __forceinline__ Offset cell_at(const Map& map, int b, int y, int x) {
    return b * map.item + y * map.row + x * map.column;
}
