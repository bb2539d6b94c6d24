// Backward, over windows: the log-sum-exp of each, and the inner sum of the softmax's derivative,
// sum_t p weight (grad . value). A thread owns a run of windows of one head, as forward.
#include "exact.cuh"
#include "windows.cuh"

// Over the threads that share the channels of a head.
__device__ __forceinline__ float over_parts(float x) {
#pragma unroll
    for (int m = HEADS; m < LANES; m *= 2) x += __shfl_xor_sync(0xffffffffu, x, m);
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS, QNA_RESIDENT) sum_inside(const Call call) {
    QNA_SHARED(shared);
    int groups = groups_of(call);
    Place place = place_of(blockIdx.x / groups, call.rows, call.columns, blockIdx.x % groups * HEADS);
    Share share = share_of(threadIdx.x);
    int own = (share.part * HEADS + share.head) * DP;

    // the windows' gradients pass through shared memory into registers, and make room
    float grad[RUN][DP];
    fill_values<ROWS, COLUMNS>(
        (Stored*)shared, call.windows, place, place.y, place.x, call.rows, call.columns, call.heads
    );
    __syncthreads();
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        read<DP>(grad[r], (Stored*)shared + (share.row * COLUMNS + share.column + r) * VALUE_PITCH + own);
    }
    __syncthreads();
    Seen seen = see(shared, call, place);
    __syncthreads();

    float sum[RUN][L], inner[RUN][L];
    add_denominators(sum, seen, share);
#pragma unroll
    for (int i = 0; i < RUN * L; ++i) inner[i / L][i % L] = 0;
    int cell = share.row * HALO_COLUMNS + share.column;
    const float* e = seen.e + cell * EXP_PITCH + share.head * L;
    const Stored* v = seen.values + cell * VALUE_PITCH + own;
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
                float product = 0;
#pragma unroll
                for (int i = 0; i < DP; ++i) product += grad[r][i] * value[i];
#pragma unroll
                for (int l = 0; l < L; ++l) inner[r][l] += at[l] * weighted[c - r][l] * product;
            }
        }
        e += HALO_COLUMNS * EXP_PITCH;
        v += HALO_COLUMNS * VALUE_PITCH;
        w += K * HEADS * L;
    }

    place = *seen.place;
    int head = place.head + share.head, y = place.y + share.row;
    // before the threads of a warp part
#pragma unroll
    for (int i = 0; i < RUN * L; ++i) {
        inner[i / L][i % L] = over_parts(inner[i / L][i % L]) * inverse(sum[i / L][i % L]);
    }
    float *to_lse = (float*)call.lse, *to_inner = (float*)call.inner;
    int slow = 0;
    float middle[L]; // what the sums are relative to
    const Stored* score = middle_of(
        call, place, place.y - call.above + HALO_ROWS / 2, place.x - call.left + HALO_COLUMNS / 2
    );
#pragma unroll
    for (int l = 0; l < L; ++l) {
        int row = l * call.heads + min(head, call.heads - 1);
        float shift = shift_of(widen(score[row])) / LOG2E;
        middle[l] = shift + or_zero(((const float*)call.bias)[TAPS / 2 * L * call.heads + row]);
    }
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        bool there = share.part == 0 && head < call.heads && y < call.rows && place.x + share.column + r < call.columns;
        bool fine = served(sum[r]);
        slow |= int(there && !fine) << r;
        if (!there || !fine) continue;
        Offset at = window_at(call, place.batch, y, place.x + share.column + r) + head;
#pragma unroll
        for (int l = 0; l < L; ++l) {
            to_lse[at + l * call.heads] = middle[l] + logf(sum[r][l]);
            to_inner[at + l * call.heads] = inner[r][l];
        }
    }
#pragma unroll 1
    for (int r = 0; slow >> r; ++r) {
        if (!(slow >> r & 1)) continue;
        Lone lone = {place.batch, y, place.x + share.column + r, head};
        float lse[L], total[L];
        sum_inside_exactly(call, lone, lse, total);
        Offset at = window_at(call, lone.batch, lone.y, lone.x) + head;
#pragma unroll
        for (int l = 0; l < L; ++l) {
            to_lse[at + l * call.heads] = lse[l];
            to_inner[at + l * call.heads] = total[l];
        }
    }
}
