// What a tile of windows sees, in shared memory, and the denominators of its windows.
#pragma once
#include "tiles.cuh"

struct Seen {
    Stored* values; // (cell, part, head, channel)
    float* e;       // (cell, head, query)
    Tables tables;
    Place* place; // of the tile: kept here, it needs no registers in between
};

constexpr int SEEN_VALUES = round_up(HALO_CELLS * VALUE_PITCH * SIZE, 16);
constexpr int SEEN_BYTES =
    SEEN_VALUES + 4 * (HALO_CELLS * EXP_PITCH + TABLE_NUMBERS) + int(sizeof(Place));

// Fill `shared` for the windows at `place`; the caller waits for all threads before it reads.
__device__ __forceinline__ Seen see(unsigned char* shared, const Call& call, const Place& place) {
    static_assert(SEEN_BYTES == QNA_SHARED_BYTES, "what the host asks for is what the kernel uses");
    float* e = (float*)(shared + SEEN_VALUES);
    float* tables = e + HALO_CELLS * EXP_PITCH;
    Seen seen = {(Stored*)shared, e, tables_in(tables), (Place*)(tables + TABLE_NUMBERS)};
    if (threadIdx.x == 0) *seen.place = place;
    int y = place.y - call.above, x = place.x - call.left;
    fill_values<HALO_ROWS, HALO_COLUMNS>(
        seen.values, call.value, place, y, x, call.height, call.width, call.heads
    );
    fill_tables(seen.tables, call, place.head);
    const Stored* middle = middle_of(call, place, y + HALO_ROWS / 2, x + HALO_COLUMNS / 2);
    fill_exponentials<HALO_ROWS, HALO_COLUMNS>(e, call, place, y, x, middle);
    return seen;
}

// Sums of exponentials and factors over the taps. Each cell of a line is read once for all windows of the run.
__device__ __forceinline__ void add_denominators(float (&sum)[RUN][L], const Seen& seen, const Share& share) {
#pragma unroll
    for (int i = 0; i < RUN * L; ++i) sum[i / L][i % L] = 0;
    const float* e = seen.e + (share.row * HALO_COLUMNS + share.column) * EXP_PITCH + share.head * L;
    const float* f = seen.tables.factors + share.head * L;
#pragma unroll 1
    for (int line = 0; line < K; ++line, e += HALO_COLUMNS * EXP_PITCH, f += K * HEADS * L) {
        float factor[K][L];
#pragma unroll
        for (int tap = 0; tap < K; ++tap) read<L>(factor[tap], f + tap * HEADS * L);
#pragma unroll
        for (int c = 0; c < RUN + K - 1; ++c) {
            float at[L];
            read<L>(at, e + c * EXP_PITCH);
#pragma unroll
            for (int r = 0; r < RUN; ++r) {
                if (c < r || c >= r + K) continue;
#pragma unroll
                for (int l = 0; l < L; ++l) sum[r][l] += at[l] * factor[c - r][l];
            }
        }
    }
}

// Whether the exponentials of the tile serve a window: whatever vanished of its terms is at most 2^-66 of their sum.
__device__ __forceinline__ bool served(const float (&sum)[L]) {
    bool all = true;
#pragma unroll
    for (int l = 0; l < L; ++l) all = all && sum[l] >= SMALLEST && sum[l] <= LARGEST;
    return all;
}
