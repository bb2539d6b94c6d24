// Scores of a window's taps: products, bias and mask.
#pragma once

#include <cmath>
#include <limits>

#include "products.h"

namespace {

template <class T> constexpr T kNever = -std::numeric_limits<T>::infinity();

// The bias of one head by the offset from the query to the key, its rows filled up with zeros; or by the offset from
// the key to the query, so that neighbouring queries of one key find neighbouring entries. Before the first row and
// behind the last there is room for what queries read that are taken together.
template <class T> class BiasTable {
 public:
  BiasTable(const Geometry& g, const void* bias, int64_t head, bool reversed) {
    for (int a = 0; a < 3; ++a) size_[a] = 2 * g.axis[a].kernel - 1;
    pitch_ = size_[2] + Simd<T>::width;
    if (!bias) return;
    numbers.assign(size_t(size_[0] * size_[1] * pitch_ + 2 * front()), T(0));
    const T* from = static_cast<const T*>(bias) + head * size_[0] * size_[1] * size_[2];
    for (int64_t row = 0; row < size_[0] * size_[1]; ++row)
      for (int64_t x = 0; x < size_[2]; ++x) numbers[size_t(front() + row * pitch_ + (reversed ? size_[2] - 1 - x : x))] = *from++;
  }
  // Entry of keys that are so far behind their queries on the first two axes, and as far as these on the last.
  int64_t at(int64_t z, int64_t y) const {
    return front() + ((z + size_[0] / 2) * size_[1] + y + size_[1] / 2) * pitch_ + size_[2] / 2;
  }
  static constexpr int64_t front() { return Simd<T>::width + kTogether; }
  int64_t rows() const { return size_[0] * size_[1]; }
  int64_t pitch() const { return pitch_; }
  int64_t width() const { return size_[2]; }
  const T* data() const { return numbers.empty() ? nullptr : numbers.data(); }

  Array<T> numbers;

 private:
  int64_t size_[3], pitch_;
};

// f(number of a vector's first tap, its row, first tap in the row, whether it is the row's last vector)
template <class T, class F> QNA_INLINE void each_vector(const Part<T>& part, F f) {
  int64_t at = 0;
  for (int r = 0; r < part.rows; ++r)
    for (int v = 0; v < part.vectors; ++v, at += Part<T>::width) f(at, r, v * Part<T>::width, v + 1 == part.vectors);
}

// Adds bias and mask, where there are any, to the products of a part; what is no tap becomes -inf. Returns the largest.
template <class T>
QNA_INLINE Vec<T> finish_scores(const Part<T>& part, const T* bias, const ByChannel<T>* mask, T* scores) {
  const Vec<T> never = splat(kNever<T>);
  const IVec<T> last = part.last();
  Vec<T> top = never;
  each_vector<T>(part, [&](int64_t at, int r, int64_t t, bool is_last) __attribute__((always_inline)) {
    Vec<T> x = load(scores + at);
    if (bias) x += load(bias + part.bias[r] + part.offset + t);
    if (mask) x += load(mask->at(part.panel[r], part.x + t));
    if (is_last) x = last ? x : never;
    store(scores + at, x);
    top = vmax(x, top);
  });
  return top;
}

// As `finish_scores`, of a query that is taken together with others: what is not in its window becomes -inf. Its bias
// begins `behind` entries before that of the part.
template <class T>
QNA_INLINE Vec<T> finish_window(const Part<T>& part, const Window& window, int64_t behind, const T* bias,
                                const ByChannel<T>* mask, T* scores) {
  constexpr int width = Part<T>::width;
  const Vec<T> never = splat(kNever<T>);
  Vec<T> lanes, top = never;
  for (int i = 0; i < width; ++i) lanes[i] = T(i);
  for (int v = 0; v < part.vectors; ++v) {
    const Vec<T> tap = lanes + T(v * width);
    const IVec<T> seen = (tap >= T(window.begin)) & (tap < T(window.end));
    T* at = scores + v * width;
    for (int r = 0; r < part.rows; ++r, at += part.step()) {
      Vec<T> x = load(at);
      if (bias) x += load(bias + part.bias[r] + part.offset - behind + v * width);
      if (mask) x += load(mask->at(part.panel[r], part.x + v * width));
      x = seen ? x : never;
      store(at, x);
      top = vmax(x, top);
    }
  }
  return top;
}

// Scores relative to `base` become their exponentials; returns the sum.
template <class T> QNA_INLINE T exponentials(const Part<T>& part, T base, T* scores) {
  constexpr int width = Part<T>::width;
  Vec<T> total[2] = {};
  const auto take = [&](T* at) __attribute__((always_inline)) {
    const Vec<T> e = exp_negative<T>(load(at) - splat(base));
    store(at, e);
    return e;
  };
  const int vectors = part.rows * part.vectors;
  int i = 0;
  for (; i + 2 <= vectors; i += 2) {
    total[0] += take(scores + i * width);
    total[1] += take(scores + (i + 1) * width);
  }
  if (i < vectors) total[0] += take(scores + i * width);
  return sum_of<T>(total[0] + total[1]);
}

}  // namespace
