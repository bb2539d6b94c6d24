// The inner products and sums of attention between one row of channels and a window of others.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <utility>

#include "panels.h"

namespace {

// The rows of panels that one line of a box sees: the same for all its positions, which differ on the last axis alone.
struct Rows {
  std::vector<int64_t> panel, bias;  // number in the panels; of the table, the entry of an offset of 0

  void clear() { panel.clear(), bias.clear(); }
  void add(int64_t of_panel, int64_t of_bias) { panel.push_back(of_panel), bias.push_back(of_bias); }
};

// Taps in work at once: `taps` neighbours in each of some rows. Their numbers lie row by row, in whole vectors.
template <class T> struct Part {
  static constexpr int width = Simd<T>::width, most = 64;  // vectors
  const int64_t *panel, *bias;
  int rows, vectors;  // of a row
  int64_t x, offset, taps;  // first tap, in the panels and from the middle of the bias

  Part(const Rows& all, int64_t first, int64_t count, int64_t x, int64_t offset, int64_t taps)
      : panel(&all.panel[size_t(first)]),
        bias(&all.bias[size_t(first)]),
        rows(int(count)),
        vectors(int((taps + width - 1) / width)),
        x(x),
        offset(offset),
        taps(taps) {}
  int step() const { return vectors * width; }
  // lanes of the last vector of a row that are taps
  IVec<T> last() const {
    Vec<T> lanes;
    for (int i = 0; i < width; ++i) lanes[i] = T(i);
    return lanes < splat(T(taps - (vectors - 1) * width));
  }
};

// Cuts `taps` neighbours from x on in all rows into parts.
template <class T, class Work> QNA_INLINE void each_part(const Rows& all, int64_t x, int64_t offset, int64_t taps, Work work) {
  const int64_t count = int64_t(all.panel.size()), longest = Part<T>::most * Part<T>::width;
  if (count == 0 || taps <= 0) return;
  if (count * round_up(taps, Part<T>::width) <= longest) return work(Part<T>(all, 0, count, x, offset, taps));
  if (taps <= longest) {
    const int64_t rows = longest / round_up(taps, Part<T>::width);
    for (int64_t r = 0; r < count; r += rows) work(Part<T>(all, r, std::min(rows, count - r), x, offset, taps));
    return;
  }
  for (int64_t r = 0; r < count; ++r)
    for (int64_t t = 0; t < taps; t += longest)
      work(Part<T>(all, r, 1, x + t, offset + t, std::min(longest, taps - t)));
}

// Room for the numbers of a part.
template <class T> struct alignas(64) PartNumbers {
  T number[Part<T>::most * Part<T>::width];
};

// Queries of a line that are taken together, so that they share what is loaded of their keys; their rows of channels,
// sums and scores lie `pitch` apart.
constexpr int kTogether = 4;
// Vectors of scores of each of Q queries in work at once: as many as registers allow.
constexpr int kBlock(int Q) { return Q == 1 ? 8 : Q == 2 ? 6 : 3; }

// out[q] = sum_c a[q][c] panel[c] for Q queries and R rows of V vectors.
template <class T, int Q, int R, int V>
void dots_of(const T* a, int64_t a_pitch, const ByChannel<T>& panel, const int64_t* rows, int64_t x, T* out,
             int64_t step, int64_t out_pitch) {
  if constexpr (R * V <= kBlock(Q)) {
    constexpr int width = Simd<T>::width;
    const T* from[R];
    Vec<T> sum[Q * R * V];
    repeat<R>(QNA_EACH(r) { from[r] = panel.at(rows[r], x); });
    repeat<Q * R * V>(QNA_EACH(n) { sum[n] = Vec<T>{}; });
    const int64_t pitch = panel.pitch;
    for (int64_t c = 0; c < panel.channels; ++c) {
      if constexpr (Q <= 2) {
        Vec<T> factor[Q];
        repeat<Q>(QNA_EACH(q) { factor[q] = broadcast(a + q * a_pitch + c); });
        repeat<R * V>(QNA_EACH(n) {
          Vec<T> k = load(from[n / V] + c * pitch + n % V * width);
          if constexpr (Q > 1) k = in_register<T>(k);
          repeat<Q>(QNA_EACH(q) { sum[q * R * V + n] += factor[q] * k; });
        });
      } else {  // fewer vectors than queries: these stay in registers
        Vec<T> k[R * V];
        repeat<R * V>(QNA_EACH(n) { k[n] = in_register<T>(load(from[n / V] + c * pitch + n % V * width)); });
        repeat<Q>(QNA_EACH(q) {
          const Vec<T> factor = broadcast(a + q * a_pitch + c);
          repeat<R * V>(QNA_EACH(n) { sum[q * R * V + n] += factor * k[n]; });
        });
      }
    }
    repeat<Q>(QNA_EACH(q) {
      repeat<R>(QNA_EACH(r) {
        repeat<V>(QNA_EACH(v) { store(out + q * out_pitch + r * step + v * width, sum[(q * R + r) * V + v]); });
      });
    });
  }
}
template <class T>
using DotsFn = void (*)(const T*, int64_t, const ByChannel<T>&, const int64_t*, int64_t, T*, int64_t, int64_t);
template <class T, int Q, int... I> constexpr std::array<DotsFn<T>, 64> dots_table(std::integer_sequence<int, I...>) {
  return {dots_of<T, Q, I / 8 + 1, I % 8 + 1>...};
}

// out[q][t] = sum_c a[q][c] panel[t][c] for Q queries and all taps of a part.
template <int Q = 1, class T>
void dots(const T* a, const ByChannel<T>& panel, const Part<T>& part, T* out, int64_t a_pitch = 0,
          int64_t out_pitch = 0) {
  static constexpr auto table = dots_table<T, Q>(std::make_integer_sequence<int, 64>());
  constexpr int most = kBlock(Q);
  if (part.rows * part.vectors <= most)
    return table[size_t((part.rows - 1) * 8 + part.vectors - 1)](a, a_pitch, panel, part.panel, part.x, out, part.step(),
                                                                out_pitch);
  // blocks of much the same size, since a small one waits for its own sums
  for (int v = 0, columns = (part.vectors + most - 1) / most; columns; --columns) {
    const int vectors = (part.vectors - v + columns - 1) / columns, tallest = most / vectors;
    for (int r = 0, blocks = (part.rows + tallest - 1) / tallest; blocks; --blocks) {
      const int rows = (part.rows - r + blocks - 1) / blocks;
      table[size_t((rows - 1) * 8 + vectors - 1)](a, a_pitch, panel, part.panel + r, part.x + v * Part<T>::width,
                                                  out + r * part.step() + v * Part<T>::width, part.step(), out_pitch);
      r += rows;
    }
    v += vectors;
  }
}

template <int N, class T>
QNA_INLINE void add_rows(const T* weights, const ByPosition<T>& panel, const Part<T>& part, int64_t channel, T* sum) {
  // two sums of each where registers allow: one alone would wait for itself
  constexpr int width = Simd<T>::width, sets = N <= 4 ? 2 : 1;
  Vec<T> total[sets][N];
  repeat<N>(QNA_EACH(n) {
    total[0][n] = load(sum + channel + n * width);
    total[sets - 1][n] = sets > 1 ? Vec<T>{} : total[0][n];
  });
  const int64_t pitch = panel.pitch;
  for (int r = 0; r < part.rows; ++r, weights += part.step()) {
    const T* row = panel.at(part.panel[r], part.x) + channel;
    int64_t t = 0;
    for (; t + sets <= part.taps; t += sets, row += sets * pitch)
      repeat<sets>(QNA_EACH(set) {
        const Vec<T> w = broadcast(weights + t + set);
        repeat<N>(QNA_EACH(n) { total[set][n] += w * load(row + set * pitch + n * width); });
      });
    if (sets > 1 && t < part.taps) {
      const Vec<T> w = broadcast(weights + t);
      repeat<N>(QNA_EACH(n) { total[0][n] += w * load(row + n * width); });
    }
  }
  repeat<N>(QNA_EACH(n) {
    store(sum + channel + n * width, sets > 1 ? total[0][n] + total[sets - 1][n] : total[0][n]);
  });
}

// sum[c] += sum_t weights[t] panel[t][c].
template <class T> void add_rows(const T* weights, const ByPosition<T>& panel, const Part<T>& part, T* sum) {
  constexpr int width = Simd<T>::width;
  int64_t c = 0;
  for (; c + 8 * width <= panel.pitch; c += 8 * width) add_rows<8>(weights, panel, part, c, sum);
  for (; c + 4 * width <= panel.pitch; c += 4 * width) add_rows<4>(weights, panel, part, c, sum);
  if (c + 2 * width <= panel.pitch) add_rows<2>(weights, panel, part, c, sum), c += 2 * width;
  if (c < panel.pitch) add_rows<1>(weights, panel, part, c, sum);
}

// Whole vectors of a row of sums, times a number.
template <class T> QNA_INLINE void multiply(T* row, int64_t pitch, T by) {
  for (int64_t c = 0; c < pitch; c += Simd<T>::width) store(row + c, load(row + c) * by);
}

// Taps [begin, end) of a part, in each of its rows.
struct Window {
  int64_t begin, end;
};

// N vectors of channels of two queries, the second of which begins and ends no earlier.
template <int N, class T>
QNA_INLINE void add_rows_of_two(const T* weights, int64_t weights_pitch, const ByPosition<T>& panel, const Part<T>& part,
                                const Window* windows, int64_t channel, T* sum, int64_t sum_pitch) {
  constexpr int width = Simd<T>::width, sets = N <= 2 ? 2 : 1;  // as in add_rows
  Vec<T> total[2][sets * N];
  repeat<2>(QNA_EACH(q) {
    repeat<sets * N>(QNA_EACH(n) { total[q][n] = n < N ? load(sum + q * sum_pitch + channel + n * width) : Vec<T>{}; });
  });
  const int64_t pitch = panel.pitch;
  // what one of them sees alone is of no weight in the sums of the other, not even if it is NaN
  const int64_t apart = std::min(windows[0].end, windows[1].begin), common = windows[0].end;
  for (int r = 0; r < part.rows; ++r, weights += part.step()) {
    const T* row = panel.at(part.panel[r], part.x) + channel;
    auto add = [&](auto q, int64_t t) __attribute__((always_inline)) {
      const Vec<T> w = broadcast(weights + q * weights_pitch + t);
      repeat<N>(QNA_EACH(n) { total[q][n] += w * load(row + t * pitch + n * width); });
    };
    int64_t t = windows[0].begin;
    for (; t < apart; ++t) add(std::integral_constant<int, 0>{}, t);
    const auto add_to_both = [&](auto set, int64_t t) __attribute__((always_inline)) {
      const Vec<T> first = broadcast(weights + t), second = broadcast(weights + weights_pitch + t);
      repeat<N>(QNA_EACH(n) {
        const Vec<T> v = in_register<T>(load(row + t * pitch + n * width));
        total[0][set * N + n] += first * v;
        total[1][set * N + n] += second * v;
      });
    };
    t = std::max(t, windows[1].begin);
    for (; t + sets <= common; t += sets) repeat<sets>(QNA_EACH(set) { add_to_both(set, t + set); });
    if (sets > 1 && t < common) add_to_both(std::integral_constant<int, 0>{}, t++);
    for (; t < windows[1].end; ++t) add(std::integral_constant<int, 1>{}, t);
  }
  repeat<2>(QNA_EACH(q) {
    repeat<N>(QNA_EACH(n) {
      store(sum + q * sum_pitch + channel + n * width, sets > 1 ? total[q][n] + total[q][(sets - 1) * N + n] : total[q][n]);
    });
  });
}

// sum[q][c] += sum_t weights[q][t] panel[t][c] for two queries, each over its own window.
template <class T>
void add_rows_of_two(const T* weights, int64_t weights_pitch, const ByPosition<T>& panel, const Part<T>& part,
                     const Window* windows, T* sum, int64_t sum_pitch) {
  constexpr int width = Simd<T>::width;
  int64_t c = 0;
  for (; c + 4 * width <= panel.pitch; c += 4 * width)
    add_rows_of_two<4>(weights, weights_pitch, panel, part, windows, c, sum, sum_pitch);
  if (c + 2 * width <= panel.pitch) {
    add_rows_of_two<2>(weights, weights_pitch, panel, part, windows, c, sum, sum_pitch);
    c += 2 * width;
  }
  if (c < panel.pitch) add_rows_of_two<1>(weights, weights_pitch, panel, part, windows, c, sum, sum_pitch);
}

// panel[t][c] += weights[t] a[c].
template <class T> void add_to_rows(const T* weights, const T* a, const Part<T>& part, ByPosition<T>& panel) {
  for (int r = 0; r < part.rows; ++r, weights += part.step())
    for (int64_t t = 0; t < part.taps; ++t) {
      const Vec<T> w = broadcast(weights + t);
      T* row = panel.at(part.panel[r], part.x + t);
      for (int64_t c = 0; c < panel.pitch; c += Simd<T>::width) store(row + c, load(row + c) + w * load(a + c));
    }
}

// f of all lanes, two by two, by halves.
template <class T, class F> QNA_INLINE T over_lanes(Vec<T> x, F f) {
  constexpr int width = Simd<T>::width, stages = width == 16 ? 4 : width == 8 ? 3 : width == 4 ? 2 : 1;
  repeat<stages>(QNA_EACH(stage) {
    IVec<T> other;
    repeat<width>(QNA_EACH(i) { other[int(i)] = i ^ (1 << decltype(stage)::value); });
    x = f(x, exchange<T>(x, other));
  });
  return x[0];
}
template <class T> QNA_INLINE T largest(Vec<T> x) { return over_lanes<T>(x, [](Vec<T> a, Vec<T> b) { return vmax(a, b); }); }
template <class T> QNA_INLINE T sum_of(Vec<T> x) { return over_lanes<T>(x, [](Vec<T> a, Vec<T> b) { return a + b; }); }

// 2^n for whole numbers n of at most 0; 0 where that is under the smallest normal number.
QNA_INLINE Vec<float> power_of_two(Vec<float> n) {
  return (Vec<float>)((__builtin_convertvector(n, IVec<float>) + 127) << 23);
}
QNA_INLINE Vec<double> power_of_two(Vec<double> n) {
  // adding 1.5 * 2^52 leaves the whole number in the low bits
  const Vec<double> magic = splat(6755399441055744.0);
  return (Vec<double>)(((IVec<double>)(n + magic) - (IVec<double>)magic + 1023) << 52);
}

// e^x for x that is at most about 0; less than the smallest normal number is 0.
template <class T> QNA_INLINE Vec<T> exp_negative(Vec<T> x) {
  constexpr int least = std::numeric_limits<T>::min_exponent - 2;  // where `power_of_two` is 0
  const Vec<T> low = splat(T(least) * T(0.693147180559945309));
  Vec<T> mantissa, exponent;
  exp_reduced(x < low ? low : x, mantissa, exponent);
  return mantissa * power_of_two(exponent);
}

}  // namespace
