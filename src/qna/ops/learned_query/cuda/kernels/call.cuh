// What a kernel is told of a call, and what was settled when it was compiled.
#pragma once
#include <machine.cuh>

typedef long long Offset;

constexpr int K = QNA_KERNEL;    // taps of a window along each of its two axes
constexpr int L = QNA_QUERIES;   // queries of a head: 1, 2 or 4
constexpr int D = QNA_CHANNELS;  // channels of a head
constexpr int PARTS = QNA_PARTS; // threads that share the channels of a head
constexpr int DP = D / PARTS;    // channels of a thread
constexpr int HEADS = QNA_HEADS; // heads of a block, some of them beyond the last
constexpr int ROWS = QNA_ROWS;   // the tile of windows, or of positions, that a block has in work
constexpr int COLUMNS = QNA_COLUMNS;
constexpr int RUN = QNA_RUN;       // neighbours in a row that a thread owns
constexpr int VECTOR = QNA_VECTOR; // neighbouring heads that are read from a map at once

constexpr int LANES = HEADS * PARTS; // threads of a run
constexpr int RUNS = COLUMNS / RUN;  // runs of a row
constexpr int THREADS = LANES * RUNS * ROWS;
constexpr int WARPS = THREADS / 32;
constexpr int TAPS = K * K;
constexpr int HALO_ROWS = ROWS + K - 1; // what the tile sees
constexpr int HALO_COLUMNS = COLUMNS + K - 1;
constexpr int CELLS = ROWS * COLUMNS;
constexpr int HALO_CELLS = HALO_ROWS * HALO_COLUMNS;

static_assert(D % PARTS == 0 && COLUMNS % RUN == 0 && HEADS % VECTOR == 0, "the tile does not come out even");
static_assert(LANES <= 32 && (LANES & (LANES - 1)) == 0 && THREADS % 32 == 0, "warps hold whole runs");
static_assert(THREADS % (HEADS / VECTOR * L) == 0, "threads keep to a query and their heads");

// Sums between SMALLEST and LARGEST have lost nothing that shows: what vanishes is below 2^-126, times a factor of the bias of
// at most TALL. Of products of three, an exponential and a normaliser are at most WIDE.
constexpr float SMALLEST = 1.0f / (1LL << 60), LARGEST = float(1LL << 60);
constexpr float TALL = float(1 << 20), WIDE = float(1LL << 40);
constexpr float LOG2E = 1.4426950408889634f;

// A map whose rows hold (numbers, heads), the heads next to each other; strides in elements.
struct Map {
    Offset at, item, row, column;
};

// One call of any of the kernels; `KernelCall` in arguments.py is the same.
struct Call {
    Map scores, value;
    Map windows;              // the output, or its gradient
    Map of_scores, of_value;  // gradients
    Offset bias, weight;      // (taps, L, heads) in fp32; no address stands for a weight of 1
    Offset lse, inner;        // (B, rows, columns, L, heads) in fp32: log-sum-exp and the softmax's inner sum
    Offset partials;          // (programs, taps, 2, L, heads) in fp32; no address where they are not wanted
    Offset of_bias, of_weight;
    int batch, heads;
    int height, width;      // of the map
    int rows, columns;      // of windows
    int above, left;        // positions that the first window hangs over the map's start
    int programs;           // blocks that share the tiles of a group of heads
    int unused;
};

// Where the tile of a block begins, among windows or among positions.
struct Place {
    int batch, y, x, head;
};

__device__ __forceinline__ int ceil_of(int a, int b) { return (a + b - 1) / b; }

__device__ __forceinline__ int groups_of(const Call& call) { return ceil_of(call.heads, HEADS); }

// The tile of this number over a map of `rows` x `columns`, for the heads from `head` on.
__device__ __forceinline__ Place place_of(int tile, int rows, int columns, int head) {
    int across = ceil_of(columns, COLUMNS), down = ceil_of(rows, ROWS);
    int x = tile % across, rest = tile / across;
    return {rest / down, rest % down * ROWS, x * COLUMNS, head};
}

__device__ __forceinline__ int tiles_of(const Call& call, int rows, int columns) {
    return call.batch * ceil_of(rows, ROWS) * ceil_of(columns, COLUMNS);
}

// A thread's share of a tile: a head, a part of its channels, and a run of neighbours.
struct Share {
    int head, part, row, column;
};

__device__ __forceinline__ Share share_of(int thread) {
    int run = thread / LANES;
    return {thread % HEADS, thread / HEADS % PARTS, run / RUNS, run % RUNS * RUN};
}

// First number of a window in (B, rows, columns, L, heads).
__device__ __forceinline__ Offset window_at(const Call& call, int b, int y, int x) {
    return ((Offset(b) * call.rows + y) * call.columns + x) * L * call.heads;
}
