// Forward: a block owns a tile of windows for a group of heads, a thread a run of neighbouring windows of one head.
#include "exact.cuh"
#include "windows.cuh"

// Shares of all queries times the first denominator; `ratio` is that over the others.
__device__ __forceinline__ float share_of_tap(
    const float (&e)[L], const float (&weighted)[L], const float (&ratio)[L]
) {
    float share = e[0] * weighted[0];
#pragma unroll
    for (int l = 1; l < L; ++l) share += ratio[l] * (e[l] * weighted[l]);
    return share;
}

extern "C" __global__ void __launch_bounds__(THREADS, QNA_RESIDENT) attend(const Call call) {
    QNA_SHARED(shared);
    int groups = groups_of(call);
    Share share = share_of(threadIdx.x);
    Seen seen = see(
        shared, call, place_of(blockIdx.x / groups, call.rows, call.columns, blockIdx.x % groups * HEADS)
    );
    __syncthreads();

    float sum[RUN][L], out[RUN][DP];
    add_denominators(sum, seen, share);
    int slow = 0; // windows that the exponentials do not serve
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        slow |= int(!served(sum[r])) << r;
#pragma unroll
        for (int l = 1; l < L; ++l) sum[r][l] = sum[r][0] * inverse(sum[r][l]);
#pragma unroll
        for (int c = 0; c < DP; ++c) out[r][c] = 0;
    }

    int cell = share.row * HALO_COLUMNS + share.column;
    const float* e = seen.e + cell * EXP_PITCH + share.head * L;
    const Stored* v = seen.values + cell * VALUE_PITCH + (share.part * HEADS + share.head) * DP;
    const float* w = seen.tables.weighted + share.head * L;
#pragma unroll 1
    for (int line = 0; line < K; ++line) {
        float weighted[K][L];
#pragma unroll
        for (int tap = 0; tap < K; ++tap) read<L>(weighted[tap], w + tap * HEADS * L);
#pragma unroll
        for (int c = 0; c < RUN + K - 1; ++c) {
            float at[L], value[DP];
            read<L>(at, e + c * EXP_PITCH);
            read<DP>(value, v + c * VALUE_PITCH);
#pragma unroll
            for (int r = 0; r < RUN; ++r) {
                if (c < r || c >= r + K) continue;
                float s = share_of_tap(at, weighted[c - r], sum[r]);
#pragma unroll
                for (int i = 0; i < DP; ++i) out[r][i] += s * value[i];
            }
        }
        e += HALO_COLUMNS * EXP_PITCH;
        v += HALO_COLUMNS * VALUE_PITCH;
        w += K * HEADS * L;
    }

    __syncthreads(); // the values have been read: their place takes the output
    Place place = *seen.place;
    Stored* stage = (Stored*)shared;
    Stored* to = stage + ((share.row * COLUMNS + share.column) * D + share.part * DP) * HEADS + share.head;
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        float scale = inverse(sum[r][0]);
#pragma unroll
        for (int c = 0; c < DP; ++c) to[(r * D + c) * HEADS] = narrow(out[r][c] * scale);
    }
    if (slow && place.head + share.head < call.heads) {
#pragma unroll 1
        for (int r = 0; r < RUN; ++r) {
            Lone at = {place.batch, place.y + share.row, place.x + share.column + r, place.head + share.head};
            if (!(slow >> r & 1) || at.y >= call.rows || at.x >= call.columns) continue;
            float own[DP];
            attend_exactly(call, at, share.part * DP, own);
#pragma unroll
            for (int c = 0; c < DP; ++c) to[(r * D + c) * HEADS] = narrow(own[c]);
        }
    }
    __syncthreads();
    write<D>(call.windows, stage, place, call.rows, call.columns, call.heads);
}
