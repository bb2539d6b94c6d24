// The gradients of bias and weight from the sums of all programs, in a fixed order: a thread adds a slice of the
// programs for one tap, query and head, and the slices are added one after the other.
#include "call.cuh"

constexpr int SUMS = 16, SLICES = 16;

extern "C" __global__ void __launch_bounds__(SUMS * SLICES) add_up(const Call call) {
    QNA_SHARED(shared);
    float(*parts)[2][SUMS] = (float(*)[2][SUMS])shared; // [SLICES]
    int each = L * call.heads, numbers = TAPS * each;
    int column = threadIdx.x % SUMS, slice = threadIdx.x / SUMS, number = blockIdx.x * SUMS + column;
    float upon_weight = 0, within = 0;
    if (number < numbers) {
        const float* from = (const float*)call.partials + number / each * 2 * each + number % each;
#pragma unroll 4
        for (int program = slice; program < call.programs; program += SLICES) {
            upon_weight += from[Offset(program) * 2 * numbers];
            within += from[Offset(program) * 2 * numbers + each];
        }
    }
    parts[slice][0][column] = upon_weight;
    parts[slice][1][column] = within;
    __syncthreads();
    if (slice > 0 || number >= numbers) return;
    upon_weight = within = 0;
    for (int i = 0; i < SLICES; ++i) {
        upon_weight += parts[i][0][column];
        within += parts[i][1][column];
    }
    float weight = call.weight ? ((const float*)call.weight)[number] : 1.0f;
    ((float*)call.of_bias)[number] = weight * upon_weight - within;
    if (call.of_weight) ((float*)call.of_weight)[number] = upon_weight;
}
