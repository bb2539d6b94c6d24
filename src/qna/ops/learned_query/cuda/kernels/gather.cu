// Backward, over positions: the gradients of scores and values, gathered from the windows that hold a position, and each
// block's share of the sums that the gradients of bias and weight are.
#include "tiles.cuh"

// Per window, head and query: its normaliser, and that times the inner sum. Where a tile is exact: log-sum-exp, inner sum.
constexpr int NORM_PITCH = HEADS * 2 * L + 4;
constexpr int LINE_SUMS = K * HEADS * 2 * L; // of one line of taps: (tap, head, 2, query)

constexpr int GRADS = round_up(HALO_CELLS * VALUE_PITCH * SIZE, 16);
constexpr int GATHER_NUMBERS =
    HALO_CELLS * NORM_PITCH + CELLS * EXP_PITCH + TABLE_NUMBERS + 2 * WARPS * LINE_SUMS + K * LINE_SUMS;
static_assert(GRADS + 4 * GATHER_NUMBERS == QNA_SHARED_BYTES, "what the host asks for is what the kernel uses");
static_assert(GRADS + 4 * HALO_CELLS * NORM_PITCH >= SIZE * CELLS * (D + L) * HEADS, "the results find room");

struct Held {
    Stored* grads; // of the windows around the tile: (cell, part, head, channel)
    float* norms;  // (cell, head, 2, query)
    float* e;      // of the tile: (cell, head, query)
    Tables tables;
    float* line;   // sums of warps over one line of taps, two of them in turns
    float* totals; // of the block: (tap, head, 2, query)
};

__device__ __forceinline__ Held held_in(unsigned char* shared) {
    float* norms = (float*)(shared + GRADS);
    float* e = norms + HALO_CELLS * NORM_PITCH;
    float* tables = e + CELLS * EXP_PITCH;
    float* line = tables + TABLE_NUMBERS;
    return {(Stored*)shared, norms, e, tables_in(tables), line, line + 2 * WARPS * LINE_SUMS};
}

// Normalisers of the windows around a tile; whether any of them is out of range.
template <bool EXACT>
__device__ __forceinline__ bool fill_norms(
    const Held& held, const Call& call, const Place& place, int y, int x, const Stored* middle
) {
    bool far = false;
    for (int i = threadIdx.x; i < HALO_CELLS * L * HEADS; i += THREADS) {
        int head = i % HEADS, query = i / HEADS % L, cell = i / HEADS / L;
        int wy = y + cell / HALO_COLUMNS, wx = x + cell % HALO_COLUMNS;
        float lse = __int_as_float(0x7f800000), inner = 0;
        if (wy >= 0 && wy < call.rows && wx >= 0 && wx < call.columns && place.head + head < call.heads) {
            Offset at = window_at(call, place.batch, wy, wx) + query * call.heads + place.head + head;
            lse = ((const float*)call.lse)[at];
            inner = ((const float*)call.inner)[at];
        }
        float* to = held.norms + cell * NORM_PITCH + head * 2 * L + query;
        if (EXACT) {
            to[0] = lse;
            to[L] = inner;
        } else {
            int row = query * call.heads + min(place.head + head, call.heads - 1);
            float tap = or_zero(((const float*)call.bias)[TAPS / 2 * L * call.heads + row]);
            float norm = power_of_two((tap - lse) * LOG2E + shift_of(widen(middle[row])));
            far = far || !(norm <= WIDE);
            to[0] = norm;
            to[L] = norm * inner;
        }
    }
    return far;
}

// What a thread gathers for its run of positions.
struct Run {
    float e[RUN][L]; // exponentials, or scores where the tile is exact
    float value[RUN][DP];
    float of_score[RUN][L];
    float of_value[RUN][DP];
};

// One position under one tap of one window.
template <bool EXACT>
__device__ __forceinline__ void meet(
    Run& run, int r, const float (&grad)[DP], const float (&norm)[2 * L], const float (&factor)[L],
    const float (&weighted)[L], float (&sums)[2 * L]
) {
    float product = 0, share = 0;
#pragma unroll
    for (int i = 0; i < DP; ++i) product += grad[i] * run.value[r][i];
#pragma unroll
    for (int l = 0; l < L; ++l) {
        if (EXACT) {
            float p = expf(run.e[r][l] + factor[l] - norm[l]), times = p * product, within = p * norm[L + l];
            share += p * weighted[l];
            run.of_score[r][l] += weighted[l] * times - within;
            sums[l] += times;
            sums[L + l] += within;
        } else {
            // the position's exponential and the tap's factor are multiplied in where the sums over the other end
            float times = norm[l] * product;
            share += run.e[r][l] * (norm[l] * weighted[l]);
            run.of_score[r][l] += weighted[l] * times;
            run.of_score[r][l] -= factor[l] * norm[L + l];
            sums[l] += run.e[r][l] * times;
            sums[L + l] += run.e[r][l] * norm[L + l];
        }
    }
#pragma unroll
    for (int i = 0; i < DP; ++i) run.of_value[r][i] += share * grad[i];
}

// Factors of a line of taps, or, where the tile is exact, bias and weight themselves.
template <bool EXACT>
__device__ __forceinline__ void read_line(
    float (&factor)[K][L], float (&weighted)[K][L], const Held& held, const Call& call, int line, int first, int head
) {
    const float* weight = (const float*)call.weight;
#pragma unroll
    for (int tap = 0; tap < K; ++tap) {
        int at = ((line * K + tap) * HEADS + head) * L;
        if constexpr (EXACT) {
#pragma unroll
            for (int l = 0; l < L; ++l) {
                int from = ((line * K + tap) * L + l) * call.heads + min(first + head, call.heads - 1);
                factor[tap][l] = ((const float*)call.bias)[from];
                weighted[tap][l] = weight ? weight[from] : 1.0f;
            }
        } else {
            read<L>(factor[tap], held.tables.factors + at);
            read<L>(weighted[tap], held.tables.weighted + at);
        }
    }
}

// Add a line's sums of all threads to those of the block. `turn` tells which of two buffers no thread reads any more.
template <bool EXACT>
__device__ __forceinline__ void add_line(const float (&sums)[K][2 * L], const Held& held, int line, int turn) {
    float* buffer = held.line + turn % 2 * WARPS * LINE_SUMS;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int tap = 0; tap < K; ++tap) {
#pragma unroll
        for (int i = 0; i < 2 * L; ++i) {
            float sum = sums[tap][i];
#pragma unroll
            for (int m = HEADS; m < 32; m *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, m);
            if (lane < HEADS) buffer[warp * LINE_SUMS + (tap * HEADS + lane) * 2 * L + i] = sum;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < LINE_SUMS; i += THREADS) {
        float sum = 0;
        for (int w = 0; w < WARPS; ++w) sum += buffer[w * LINE_SUMS + i];
        float factor = EXACT ? 1 : held.tables.factors[line * K * HEADS * L + i / (2 * L) * L + i % L];
        held.totals[line * LINE_SUMS + i] += factor * sum;
    }
}

template <bool EXACT>
__device__ __forceinline__ void gather_lines(
    Run& run, const Held& held, const Call& call, const Share& share, int first, int turn
) {
    bool summed = call.partials != 0;
#pragma unroll 1
    for (int line = 0; line < K; ++line) {
        float factor[K][L], weighted[K][L], sums[K][2 * L];
        read_line<EXACT>(factor, weighted, held, call, line, first, share.head);
#pragma unroll
        for (int i = 0; i < K * 2 * L; ++i) sums[i / (2 * L)][i % (2 * L)] = 0;
        // under its first line of taps a position stands in the window farthest below
        int cell = (share.row + K - 1 - line) * HALO_COLUMNS + share.column;
        const Stored* g = held.grads + cell * VALUE_PITCH + (share.part * HEADS + share.head) * DP;
        const float* n = held.norms + cell * NORM_PITCH + share.head * 2 * L;
#pragma unroll
        for (int c = 0; c < RUN + K - 1; ++c) {
            float grad[DP], norm[2 * L];
            read<DP>(grad, g + c * VALUE_PITCH);
            read<2 * L>(norm, n + c * NORM_PITCH);
            // what does not depend on the channels is counted by one of the threads that share them
#pragma unroll
            for (int l = 0; l < L; ++l) norm[L + l] = share.part == 0 ? norm[L + l] : 0;
#pragma unroll
            for (int r = 0; r < RUN; ++r) {
                int tap = r + K - 1 - c;
                if (tap < 0 || tap >= K) continue;
                meet<EXACT>(run, r, grad, norm, factor[tap], weighted[tap], sums[tap]);
            }
        }
        if (summed) add_line<EXACT>(sums, held, line, turn + line);
    }
}

// Put the gradients of a run into the tile that all threads write, and tell where its scores' part begins.
__device__ __forceinline__ Stored* stage_run(Stored* stage, const Run& run, const Share& share, bool exact) {
    Stored* scores = stage + CELLS * D * HEADS;
    int cell = share.row * COLUMNS + share.column;
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
#pragma unroll
        for (int c = 0; c < DP; ++c) {
            stage[((cell + r) * D + share.part * DP + c) * HEADS + share.head] = narrow(run.of_value[r][c]);
        }
#pragma unroll
        for (int l = 0; l < L; ++l) {
            float sum = run.of_score[r][l];
#pragma unroll
            for (int m = HEADS; m < LANES; m *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, m);
            sum *= exact ? 1 : run.e[r][l];
            if (share.part == 0) scores[((cell + r) * L + l) * HEADS + share.head] = narrow(sum);
        }
    }
    return scores;
}

// Bring the tile at `place` into shared memory and registers; whether it is to be gathered exactly, because a number is out
// of range, or one of the tables was `lost`.
__device__ __forceinline__ bool hold(
    Run& run, const Held& held, const Call& call, const Place& place, const Share& share, bool lost
) {
    int own = (share.part * HEADS + share.head) * DP, cell = share.row * COLUMNS + share.column;
    fill_values<ROWS, COLUMNS>(
        held.grads, call.value, place, place.y, place.x, call.height, call.width, call.heads
    );
    const Stored* middle = middle_of(call, place, place.y + ROWS / 2, place.x + COLUMNS / 2);
    bool far = fill_exponentials<ROWS, COLUMNS>(held.e, call, place, place.y, place.x, middle);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        read<DP>(run.value[r], held.grads + (cell + r) * VALUE_PITCH + own);
        read<L>(run.e[r], held.e + (cell + r) * EXP_PITCH + share.head * L);
#pragma unroll
        for (int c = 0; c < DP; ++c) run.of_value[r][c] = 0;
#pragma unroll
        for (int l = 0; l < L; ++l) run.of_score[r][l] = 0;
    }
    __syncthreads();
    int y = place.y + call.above - (K - 1), x = place.x + call.left - (K - 1);
    fill_values<HALO_ROWS, HALO_COLUMNS>(
        held.grads, call.windows, place, y, x, call.rows, call.columns, call.heads
    );
    far = fill_norms<false>(held, call, place, y, x, middle) || far || lost;
    if (!__syncthreads_or(far)) return false;
    fill_norms<true>(held, call, place, y, x, middle);
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        int py = place.y + share.row, px = place.x + share.column + r, head = place.head + share.head;
        bool there = py < call.height && px < call.width && head < call.heads;
        const Stored* from = stored(call.scores.at) + (there ? cell_at(call.scores, place.batch, py, px) + head : 0);
#pragma unroll
        for (int l = 0; l < L; ++l) {
            run.e[r][l] = there ? widen(from[l * call.heads]) : __int_as_float(0xff800000);
        }
    }
    __syncthreads();
    return true;
}

extern "C" __global__ void __launch_bounds__(THREADS, QNA_RESIDENT) gather(const Call call) {
    QNA_SHARED(shared);
    Held held = held_in(shared);
    Share share = share_of(threadIdx.x);
    int groups = groups_of(call), first = blockIdx.x % groups * HEADS, program = blockIdx.x / groups;
    for (int i = threadIdx.x; i < K * LINE_SUMS; i += THREADS) held.totals[i] = 0;
    bool lost = fill_tables(held.tables, call, first);

    int tiles = tiles_of(call, call.height, call.width), each = ceil_of(tiles, call.programs);
    int last = min(program * each + each, tiles), turn = 0;
    for (int tile = program * each; tile < last; ++tile, turn += K) {
        Place place = place_of(tile, call.height, call.width, first);
        Run run;
        bool exact = hold(run, held, call, place, share, lost);
        if (exact) {
            gather_lines<true>(run, held, call, share, first, turn);
        } else {
            gather_lines<false>(run, held, call, share, first, turn);
        }
        __syncthreads();
        Stored* scores = stage_run(held.grads, run, share, exact);
        __syncthreads();
        write<D>(call.of_value, held.grads, place, call.height, call.width, call.heads);
        write<L>(call.of_scores, scores, place, call.height, call.width, call.heads);
        __syncthreads();
    }

    if (!call.partials) return;
    float* to = (float*)call.partials + Offset(program) * TAPS * 2 * L * call.heads;
    for (int i = threadIdx.x; i < K * LINE_SUMS; i += THREADS) {
        int query = i % (2 * L), head = i / (2 * L) % HEADS, tap = i / (2 * L) / HEADS;
        if (first + head < call.heads) to[(tap * 2 * L + query) * call.heads + first + head] = held.totals[i];
    }
}
