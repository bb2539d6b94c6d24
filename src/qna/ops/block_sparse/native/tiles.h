// Products of small matrices whose columns are queries, a lane each.
#pragma once

#include "simd.h"

namespace {

// rows of a tile: with four vectors of queries 16 sums, which hides the latency of a multiply-add
constexpr int kTileRows = 4;

// c[m][*] = first(m) + sum_i a[m row + i step] b[i][*] for M rows; b and c have N vectors in a row.
template <class T, int M, int N, class First>
QNA_INLINE void tile(const T* a, int64_t row, int64_t step, const T* b, T* c, int64_t count, First first) {
  constexpr int width = Simd<T>::width;
  Vec<T> sum[M][N];
  repeat<M>(QNA_EACH(m) { repeat<N>(QNA_EACH(n) { sum[m][n] = first(c + (m * N + n) * width, int(n)); }); });
  for (int64_t i = 0; i < count; ++i, a += step, b += N * width) {
    Vec<T> column[N];
    repeat<N>(QNA_EACH(n) { column[n] = load(b + n * width); });
    repeat<M>(QNA_EACH(m) {
      const Vec<T> x = in_register<T>(broadcast(a + m * row));
      repeat<N>(QNA_EACH(n) { sum[m][n] += x * column[n]; });
    });
  }
  repeat<M>(QNA_EACH(m) { repeat<N>(QNA_EACH(n) { store(c + (m * N + n) * width, sum[m][n]); }); });
}

// The same for any number of rows.
template <class T, int N, class First>
inline void product(const T* a, int64_t row, int64_t step, const T* b, T* c, int64_t rows, int64_t count, First first) {
  constexpr int width = Simd<T>::width;
  int64_t m = 0;
  for (; m + kTileRows <= rows; m += kTileRows)
    tile<T, kTileRows, N>(a + m * row, row, step, b, c + m * N * width, count, first);
  for (; m < rows; ++m) tile<T, 1, N>(a + m * row, row, step, b, c + m * N * width, count, first);
}

}  // namespace
