// A tile of maps in shared memory: values as they are stored, and the exponentials of scores in fp32.
#pragma once
#include "storage.cuh"

__host__ __device__ constexpr int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Numbers from one cell to the next. Values lie as (part, head, channel), so that a thread reads its channels by
// one word; 16 bytes more let the cells of neighbouring runs begin in other banks.
constexpr int VALUE_PITCH = round_up(D * HEADS * SIZE, 16) / SIZE + 16 / SIZE;
// exponentials lie as (head, query); so many more let a row of lanes that reads two runs read all banks
constexpr int EXP_PITCH = HEADS * L + round_up(HEADS * L < RUN ? 1 : HEADS * L / RUN, L);

// Tables of one group of heads in fp32: (taps, head, query).
struct Tables {
    float *factors, *weighted;
};

constexpr int TABLE_NUMBERS = 2 * TAPS * HEADS * L;

__device__ __forceinline__ Tables tables_in(float* at) { return {at, at + TAPS * HEADS * L}; }

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

// A finite stand-in for one number among many: 0 for minus infinity.
__device__ __forceinline__ float or_zero(float x) { return x == __int_as_float(0xff800000) ? 0 : x; }

// The score that stands for all of a tile: that of its middle, or of the position nearest to it.
__device__ __forceinline__ const Stored* middle_of(const Call& call, const Place& place, int y, int x) {
    int my = min(max(y, 0), call.height - 1), mx = min(max(x, 0), call.width - 1);
    return stored(call.scores.at) + cell_at(call.scores, place.batch, my, mx);
}

// What is subtracted of all exponents of a query and a head in a tile, in powers of two. It is the same number for all
// that is compared with one another, so that its rounding does not matter.
__device__ __forceinline__ float shift_of(float middle) { return or_zero(middle) * LOG2E; }

// e^(score - middle) of DOWN x ACROSS cells from (y, x) on, 0 outside the map; whether one of them is out of range.
template <int DOWN, int ACROSS>
__device__ __forceinline__ bool fill_exponentials(
    float* to, const Call& call, const Place& place, int y, int x, const Stored* middle
) {
    constexpr int GROUPS = HEADS / VECTOR, OWNERS = L * GROUPS, ALL = DOWN * ACROSS * OWNERS;
    const float none = __int_as_float(0xff800000);
    // a thread keeps to its query and its heads
    int group = threadIdx.x % GROUPS * VECTOR, query = threadIdx.x / GROUPS % L;
    int row = query * call.heads + place.head + group;
    bool there = place.head + group < call.heads, far = false;
    float shift[VECTOR];
    if (there) read<VECTOR>(shift, middle + row);
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) shift[v] = there ? shift_of(shift[v]) : 0;
#pragma unroll 2
    for (int i = threadIdx.x; i < ALL; i += THREADS) {
        int cell = i / OWNERS, cy = y + cell / ACROSS, cx = x + cell % ACROSS;
        float score[VECTOR];
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) score[v] = none;
        if (there && cy >= 0 && cy < call.height && cx >= 0 && cx < call.width) {
            read<VECTOR>(score, stored(call.scores.at) + cell_at(call.scores, place.batch, cy, cx) + row);
        }
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) {
            float e = power_of_two(score[v] * LOG2E - shift[v]);
            far = far || !(e <= WIDE);
            to[cell * EXP_PITCH + (group + v) * L + query] = e;
        }
    }
    return far;
}

// e^(bias - bias of the middle tap), and these times the weight. One that is not 0 and out of range becomes NaN, and so
// does every sum that it enters.
__device__ __forceinline__ bool fill_tables(const Tables& to, const Call& call, int first) {
    const float* bias = (const float*)call.bias;
    const float* weight = (const float*)call.weight;
    bool far = false;
    for (int i = threadIdx.x; i < TAPS * L * HEADS; i += THREADS) {
        int head = i % HEADS, query = i / HEADS % L, tap = i / HEADS / L;
        float factor = 0, weighted = 0;
        if (first + head < call.heads) {
            int row = query * call.heads + first + head, at = tap * L * call.heads + row;
            factor = power_of_two((bias[at] - or_zero(bias[TAPS / 2 * L * call.heads + row])) * LOG2E);
            if (!(factor <= TALL) || (factor < SMALLEST && bias[at] != __int_as_float(0xff800000))) {
                factor = __int_as_float(0x7fc00000);
                far = true;
            }
            weighted = factor * (weight ? weight[at] : 1.0f);
        }
        to.factors[(tap * HEADS + head) * L + query] = factor;
        to.weighted[(tap * HEADS + head) * L + query] = weighted;
    }
    return far;
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
