// Single windows relative to their own largest score, for those that the exponentials of a tile do not serve. Read from
// the maps as they lie; slow, and rare.
#pragma once
#include "storage.cuh"

// A window under the eyes of one thread.
struct Lone {
    int batch, y, x, head;
};

__device__ __forceinline__ float logit(const Call& call, const Lone& at, int ty, int tx, int query, bool& inside) {
    int y = at.y - call.above + ty, x = at.x - call.left + tx;
    inside = y >= 0 && y < call.height && x >= 0 && x < call.width;
    if (!inside) return __int_as_float(0xff800000);
    const Stored* from = stored(call.scores.at) + cell_at(call.scores, at.batch, y, x);
    float score = widen(from[query * call.heads + at.head]);
    return score + ((const float*)call.bias)[((ty * K + tx) * L + query) * call.heads + at.head];
}

// The largest score + bias of each query, 0 where a window holds no position, and the sum relative to it.
__device__ __forceinline__ void normalise(const Call& call, const Lone& at, float (&top)[L], float (&sum)[L]) {
    const float none = __int_as_float(0xff800000);
    bool inside;
#pragma unroll
    for (int l = 0; l < L; ++l) {
        top[l] = none;
        sum[l] = 0;
#pragma unroll 1
        for (int tap = 0; tap < TAPS; ++tap) top[l] = fmaxf(top[l], logit(call, at, tap / K, tap % K, l, inside));
        top[l] = top[l] == none ? 0 : top[l];
#pragma unroll 1
        for (int tap = 0; tap < TAPS; ++tap) sum[l] += expf(logit(call, at, tap / K, tap % K, l, inside) - top[l]);
    }
}

__device__ __forceinline__ float weight_of(const Call& call, int tap, int query, int head) {
    return call.weight ? ((const float*)call.weight)[(tap * L + query) * call.heads + head] : 1.0f;
}

// The values of the position under a tap, for a part of the channels.
__device__ __forceinline__ float value_of(const Call& call, const Lone& at, int tap, int channel) {
    int y = at.y - call.above + tap / K, x = at.x - call.left + tap % K;
    const Stored* from = stored(call.value.at) + cell_at(call.value, at.batch, y, x);
    return widen(from[channel * call.heads + at.head]);
}

// DP channels of the output of a window, from `first` on.
__device__ __forceinline__ void attend_exactly(const Call& call, const Lone& at, int first, float (&out)[DP]) {
    float top[L], sum[L];
    normalise(call, at, top, sum);
#pragma unroll
    for (int c = 0; c < DP; ++c) out[c] = 0;
#pragma unroll 1
    for (int tap = 0; tap < TAPS; ++tap) {
        float share = 0;
        bool inside = false;
#pragma unroll
        for (int l = 0; l < L; ++l) {
            float p = expf(logit(call, at, tap / K, tap % K, l, inside) - top[l]) / (sum[l] == 0 ? 1 : sum[l]);
            share += p * weight_of(call, tap, l, at.head);
        }
        if (!inside) continue;
#pragma unroll
        for (int c = 0; c < DP; ++c) out[c] += share * value_of(call, at, tap, first + c);
    }
}

// The log-sum-exp of a window, and the softmax's inner sum, over all channels.
__device__ __forceinline__ void sum_inside_exactly(const Call& call, const Lone& at, float (&lse)[L], float (&inner)[L]) {
    float top[L], sum[L];
    normalise(call, at, top, sum);
#pragma unroll
    for (int l = 0; l < L; ++l) inner[l] = 0;
    const Stored* grad = stored(call.windows.at) + cell_at(call.windows, at.batch, at.y, at.x);
#pragma unroll 1
    for (int tap = 0; tap < TAPS; ++tap) {
        float product = 0;
        bool inside;
        logit(call, at, tap / K, tap % K, 0, inside);
        if (!inside) continue;
#pragma unroll 1
        for (int c = 0; c < D; ++c) product += widen(grad[c * call.heads + at.head]) * value_of(call, at, tap, c);
#pragma unroll
        for (int l = 0; l < L; ++l) {
            float p = expf(logit(call, at, tap / K, tap % K, l, inside) - top[l]) / (sum[l] == 0 ? 1 : sum[l]);
            inner[l] += p * weight_of(call, tap, l, at.head) * product;
        }
    }
#pragma unroll
    for (int l = 0; l < L; ++l) lse[l] = sum[l] == 0 ? __int_as_float(0x7f800000) : top[l] + logf(sum[l]);
}
