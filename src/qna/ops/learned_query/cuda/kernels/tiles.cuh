// A tile of maps in shared memory: values as they are stored, and the exponentials of scores in fp32.
#pragma once
#include "storage.cuh"

__host__ __device__ constexpr int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Numbers from one cell to the next. Values lie as (part, head, channel), so that a thread reads its channels by
// one word; 16 bytes more let the cells of neighbouring runs begin in other banks.
constexpr int VALUE_PITCH = round_up(D * HEADS * SIZE, 16) / SIZE + 16 / SIZE;
// exponentials lie as (head, query)
constexpr int EXP_PITCH = HEADS * L + 4;

constexpr int SPREAD = HEADS / VECTOR * L < 32 ? 32 : HEADS / VECTOR * L;
constexpr int ROOM = THREADS / SPREAD * L * HEADS; // partial maxima

// Tables of one group of heads, fp32: factors (taps, head, query), largest (query, head).
struct Tables {
    float *factors, *weighted;
    float *largest; // bias under any tap; NaN where a factor would be lost beside it
};

constexpr int TABLE_NUMBERS = 2 * TAPS * HEADS * L + L * HEADS;

__device__ __forceinline__ Tables tables_in(float* at) {
    return {at, at + TAPS * HEADS * L, at + 2 * TAPS * HEADS * L};
}

// Values of DOWN x ACROSS cells from (y, x) on; 0 outside the map and beyond the last head. A warp takes a line: what
// its cells share of their addresses is computed once.
template <int DOWN, int ACROSS>
__device__ __forceinline__ void fill_values(
    Stored* to, const Map& map, const Place& place, int y, int x, int height, int width, int heads
) {
    constexpr int GROUPS = HEADS / VECTOR, OWNERS = D * GROUPS, EACH = (ACROSS * OWNERS + 31) / 32;
    int lane = threadIdx.x % 32;
    for (int line = threadIdx.x / 32; line < DOWN; line += WARPS) {
        int cy = y + line;
        bool inside = cy >= 0 && cy < height;
        const Stored* from = stored(map.at) + cell_at(map, place.batch, inside ? cy : 0, x) + place.head;
        Stored* begin = to + line * ACROSS * VALUE_PITCH;
#pragma unroll(EACH < 8 ? EACH : 8)
        for (int n = 0; n < EACH; ++n) {
            int i = lane + n * 32, group = i % GROUPS * VECTOR, channel = i / GROUPS % D, cell = i / OWNERS;
            if (EACH * 32 != ACROSS * OWNERS && cell >= ACROSS) break;
            Numbers<VECTOR, Stored> numbers{};
            if (inside && x + cell >= 0 && x + cell < width && place.head + group < heads) {
                copy<VECTOR>(numbers.at, from + cell * map.column + (channel * heads + group));
            }
            Stored* at = begin + cell * VALUE_PITCH + (channel / DP * HEADS + group) * DP + channel % DP;
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) at[v * DP] = numbers.at[v];
        }
    }
}

// e^(score - top) of DOWN x ACROSS cells, `top` (query, head) being the largest score of the tile, or 0 where all
// are masked; 0 outside the map. A score is read once and kept in a register until the largest is known.
template <int DOWN, int ACROSS>
__device__ __forceinline__ void fill_exponentials(
    float* to, float* top, float* room, const Map& map, const Place& place, int y, int x, int height, int width,
    int heads
) {
    constexpr int GROUPS = HEADS / VECTOR, OWNERS = L * GROUPS, ALL = DOWN * ACROSS * OWNERS;
    constexpr int EACH = (ALL + THREADS - 1) / THREADS;
    const float none = __int_as_float(0xff800000); // minus infinity
    float score[EACH][VECTOR], most[VECTOR];
    int group = threadIdx.x % GROUPS * VECTOR, query = threadIdx.x / GROUPS % L;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) most[v] = none;
#pragma unroll
    for (int n = 0; n < EACH; ++n) {
        int cell = (threadIdx.x + n * THREADS) / OWNERS;
        int cy = y + cell / ACROSS, cx = x + cell % ACROSS;
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) score[n][v] = none;
        if (cell < DOWN * ACROSS && cy >= 0 && cy < height && cx >= 0 && cx < width && place.head + group < heads) {
            const Stored* from = stored(map.at) + cell_at(map, place.batch, cy, cx);
            read<VECTOR>(score[n], from + query * heads + place.head + group);
        }
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) most[v] = fmaxf(most[v], score[n][v]);
    }
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
#pragma unroll
        for (int m = OWNERS; m < 32; m *= 2) most[v] = fmaxf(most[v], __shfl_xor_sync(0xffffffffu, most[v], m));
        if (threadIdx.x % SPREAD < OWNERS) {
            room[threadIdx.x / SPREAD * L * HEADS + query * HEADS + group + v] = most[v];
        }
    }
    __syncthreads();
    if (threadIdx.x < L * HEADS) {
        float largest = none;
        for (int i = 0; i < THREADS / SPREAD; ++i) largest = fmaxf(largest, room[i * L * HEADS + threadIdx.x]);
        top[threadIdx.x] = largest == none ? 0 : largest;
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < EACH; ++n) {
        int cell = (threadIdx.x + n * THREADS) / OWNERS;
        if (cell < DOWN * ACROSS) {
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) {
                float e = exp_of(score[n][v] - top[query * HEADS + group + v]);
                to[cell * EXP_PITCH + (group + v) * L + query] = e;
            }
        }
    }
}

// e^(bias - largest), and these times the weight. If one that is not 0 would be below SMALLEST, all of its query and
// head are NaN, and so is every sum that they enter.
__device__ __forceinline__ void fill_tables(const Tables& to, const Call& call, int first) {
    const float* bias = (const float*)call.bias;
    const float* weight = (const float*)call.weight;
    for (int i = threadIdx.x; i < TAPS * L * HEADS; i += THREADS) {
        int head = i % HEADS, query = i / HEADS % L, tap = i / HEADS / L;
        bool there = first + head < call.heads;
        int at = (tap * L + query) * call.heads + first + head;
        to.factors[(tap * HEADS + head) * L + query] = there ? bias[at] : 0.0f;
        to.weighted[(tap * HEADS + head) * L + query] = !there ? 0.0f : weight ? weight[at] : 1.0f;
    }
    __syncthreads();
    if (threadIdx.x < L * HEADS) {
        const float none = __int_as_float(0xff800000);
        const float* column = to.factors + threadIdx.x % HEADS * L + threadIdx.x / HEADS;
        float most = none, least = -none;
#pragma unroll
        for (int tap = 0; tap < TAPS; ++tap) {
            float b = column[tap * HEADS * L];
            most = fmaxf(most, b);
            least = fminf(least, b == none ? -none : b);
        }
        most = most == none ? 0 : most;
        to.largest[threadIdx.x] = expf(least - most) < SMALLEST ? __int_as_float(0x7fc00000) : most;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TAPS * L * HEADS; i += THREADS) {
        float factor = expf(to.factors[i] - to.largest[i % L * HEADS + i / L % HEADS]);
        to.factors[i] = factor;
        to.weighted[i] *= factor;
    }
}

// Write N numbers of each cell of a tile, staged as (cell, number, head), to a map's rows of (number, head). A warp takes
// a line.
template <int N>
__device__ __forceinline__ void write(
    const Map& map, const Stored* stage, const Place& place, int height, int width, int heads
) {
    constexpr int GROUPS = HEADS / VECTOR, OWNERS = N * GROUPS, EACH = (COLUMNS * OWNERS + 31) / 32;
    int lane = threadIdx.x % 32;
    for (int line = threadIdx.x / 32; line < ROWS && place.y + line < height; line += WARPS) {
        Stored* to = (Stored*)map.at + cell_at(map, place.batch, place.y + line, place.x) + place.head;
        const Stored* from = stage + line * COLUMNS * N * HEADS;
#pragma unroll(EACH < 8 ? EACH : 8)
        for (int n = 0; n < EACH; ++n) {
            int i = lane + n * 32, group = i % GROUPS * VECTOR, number = i / GROUPS % N, cell = i / OWNERS;
            if (cell < COLUMNS && place.x + cell < width && place.head + group < heads) {
                copy<VECTOR>(to + cell * map.column + (number * heads + group), from + i * VECTOR);
            }
        }
    }
}
