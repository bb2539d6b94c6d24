// Scores of a vector of neighbouring queries, a lane each, for windows that would leave most lanes of a vector empty if
// their taps were the lanes: as many vectors as a query has taps, all lanes in use, and a softmax that needs no sum or
// maximum over lanes.
#pragma once

#include "scores.h"

namespace {

// The windows of some neighbouring queries, at most a vector of them, which all have as many taps.
template <class T> struct Across {
  static constexpr int width = Simd<T>::width;
  int64_t queries, x, first;  // how many, the first, and the first key of its window
  bool moving;                // whether each window begins a key behind the one before
  IVec<T> behind;             // else where each begins, from the first on
  int64_t start[width];       // the same

  // False where windows differ in their taps, or lie further apart than a vector reaches.
  bool set(const Line& line, int64_t x_, int64_t end, int64_t taps) {
    x = x_, queries = std::min<int64_t>(width, end - x), first = line.first[size_t(x)], moving = true;
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = x + std::min(i, queries - 1);
      start[i] = line.first[size_t(at)] - first, behind[int(i)] = typename Simd<T>::Int(start[i]);
      if (start[i] >= width || line.last[size_t(at)] - line.first[size_t(at)] != taps) return false;
      moving = moving && (i >= queries || start[i] == i);
    }
    return true;
  }
};

// out[r][t] = sum_c q[c] panel[c][t ...] for N neighbouring taps of R rows, `row_pitch` numbers of `out` apart.
template <int R, int N, bool Moving, class T>
void dots_across(const T* q, const ByChannel<T>& panel, const int64_t* rows, int64_t x, IVec<T> behind, T* out,
                 int64_t row_pitch) {
  constexpr int width = Simd<T>::width;
  const T* from[R];
  Vec<T> sum[R * N];
  repeat<R>(QNA_EACH(r) { from[r] = panel.at(rows[r], x); });
  repeat<R * N>(QNA_EACH(n) { sum[n] = Vec<T>{}; });
  const int64_t pitch = panel.pitch;
  for (int64_t c = 0; c < panel.channels; ++c) {
    const Vec<T> factor = load(q + c * width);
    repeat<R * N>(QNA_EACH(n) {
      Vec<T> k = load(from[n / N] + c * pitch + n % N);
      if constexpr (!Moving) k = exchange<T>(k, behind);
      sum[n] += factor * k;
    });
  }
  repeat<R * N>(QNA_EACH(n) { store(out + n / N * row_pitch + n % N * width, sum[n]); });
}
template <class T>
using DotsAcrossFn = void (*)(const T*, const ByChannel<T>&, const int64_t*, int64_t, IVec<T>, T*, int64_t);
template <class T, int R, bool Moving, int... I>
constexpr std::array<DotsAcrossFn<T>, sizeof...(I)> dots_across_table(std::integer_sequence<int, I...>) {
  return {dots_across<R, I + 1, Moving, T>...};
}

// The scores of all taps of a line, row by row and a vector each.
template <bool Moving, class T>
void dots_across(const T* q, const ByChannel<T>& panel, const Rows& rows, int64_t x, int64_t taps, IVec<T> behind,
                 T* out) {
  // as many rows and taps at once as registers allow
  constexpr int width = Simd<T>::width, tall = kVectorBytes == 64 ? 2 : 1, most = kVectorBytes == 64 ? 12 : 11;
  constexpr std::make_integer_sequence<int, most> each{};
  static constexpr auto one = dots_across_table<T, 1, Moving>(each), two = dots_across_table<T, tall, Moving>(each);
  const int64_t count = int64_t(rows.panel.size()), pitch = taps * width;
  for (int64_t r = 0; r < count;) {
    const bool both = tall == 2 && r + 2 <= count;
    for (int64_t t = 0, parts = (taps + most - 1) / most; parts; --parts) {  // of much the same size
      const int64_t n = (taps - t + parts - 1) / parts;
      const auto work = (both ? two : one)[size_t(n - 1)];
      work(q, panel, &rows.panel[size_t(r)], x + t, behind, out + r * pitch + t * width, pitch);
      t += n;
    }
    r += both ? 2 : 1;
  }
}

// Scores become their exponentials, relative to the largest of each lane; `top` and `total` as those of a softmax.
template <class T> QNA_INLINE void exponentials_across(T* scores, int64_t count, T* top, T* total) {
  constexpr int width = Simd<T>::width;
  const Vec<T> never = splat(kNever<T>);
  Vec<T> most[4] = {never, never, never, never}, sum[4] = {};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4)
    repeat<4>(QNA_EACH(n) { most[n] = vmax(load(scores + (i + n) * width), most[n]); });
  for (; i < count; ++i) most[0] = vmax(load(scores + i * width), most[0]);
  const Vec<T> largest = vmax(vmax(most[0], most[1]), vmax(most[2], most[3]));
  const Vec<T> base = largest == never ? Vec<T>{} : largest;
  const auto take = [&](int64_t at) __attribute__((always_inline)) {
    const Vec<T> e = exp_negative<T>(load(scores + at * width) - base);
    store(scores + at * width, e);
    return e;
  };
  for (i = 0; i + 4 <= count; i += 4) repeat<4>(QNA_EACH(n) { sum[n] += take(i + n); });
  for (; i < count; ++i) sum[0] += take(i);
  store(top, largest), store(total, (sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// Sums of N vectors of channels of two queries, whose windows of `taps` keys a row begin `apart` from one another;
// a query's weights lie a vector apart.
template <int N, class T>
QNA_INLINE void add_across(const T* first, const T* second, const ByPosition<T>& panel, const Rows& rows, int64_t x,
                           int64_t apart, int64_t taps, int64_t channel, T* sum, int64_t sum_pitch) {
  constexpr int width = Simd<T>::width;
  Vec<T> total[2][N];
  repeat<2>(QNA_EACH(q) { repeat<N>(QNA_EACH(n) { total[q][n] = Vec<T>{}; }); });
  const int64_t pitch = panel.pitch, alone = std::min(apart, taps);
  for (int64_t number : rows.panel) {
    const T* row = panel.at(number, x) + channel;
    const auto add = [&](auto q, const T* weight, const T* v) __attribute__((always_inline)) {
      const Vec<T> w = broadcast(weight);
      repeat<N>(QNA_EACH(n) { total[q][n] += w * load(v + n * width); });
    };
    // what one of them sees alone is of no weight in the sums of the other, not even if it is NaN
    int64_t t = 0;
    for (; t < alone; ++t) add(std::integral_constant<int, 0>{}, first + t * width, row + t * pitch);
    for (; t < taps; ++t) {
      const Vec<T> a = broadcast(first + t * width), b = broadcast(second + (t - apart) * width);
      repeat<N>(QNA_EACH(n) {
        const Vec<T> v = in_register<T>(load(row + t * pitch + n * width));
        total[0][n] += a * v;
        total[1][n] += b * v;
      });
    }
    for (t = std::max(t, apart); t < apart + taps; ++t)
      add(std::integral_constant<int, 1>{}, second + (t - apart) * width, row + t * pitch);
    first += taps * width, second += taps * width;
  }
  repeat<2>(QNA_EACH(q) {
    repeat<N>(QNA_EACH(n) { store(sum + q * sum_pitch + channel + n * width, total[q][n]); });
  });
}

template <class T>
void add_across(const T* first, const T* second, const ByPosition<T>& panel, const Rows& rows, int64_t x, int64_t apart,
                int64_t taps, T* sum, int64_t sum_pitch) {
  constexpr int width = Simd<T>::width;
  int64_t c = 0;
  const auto some = [&](auto n) __attribute__((always_inline)) {
    add_across<decltype(n)::value>(first, second, panel, rows, x, apart, taps, c, sum, sum_pitch);
    c += decltype(n)::value * width;
  };
  while (c + 4 * width <= panel.pitch) some(std::integral_constant<int, 4>{});
  if (c + 2 * width <= panel.pitch) some(std::integral_constant<int, 2>{});
  if (c < panel.pitch) some(std::integral_constant<int, 1>{});
}

}  // namespace
