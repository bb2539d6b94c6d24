// Rows whose channels lie together, as a map (.., heads, channels) has them, and the rows with the heads fastest that
// the kernels work on: blocks of heads by channels, turned in registers.
#pragma once

#include "simd.h"
#include "turn.h"

namespace {

constexpr int kPixelsAhead = 12;  // rows are asked for so long before they are written: a store would wait for its line

// How rows of a block of heads are read and written; null where its heads and channels make no whole vectors.
// `head`: from a head to the next; `chunks`: of C channels.
template <class T, class S> struct TurnedRows {
  void (*read)(const S* src, int64_t position, int64_t head, int64_t chunks, T* dst, int64_t row, int64_t count);
  void (*write)(S* dst, int64_t position, int64_t head, int64_t chunks, const T* src, int64_t row, int64_t count);
};

template <class T, class S, int H, int C> struct Turning {
  static constexpr int V = Simd<T>::width, N = H * C / V, heads = V / C;  // heads: in a vector

  static void read(const S* src, int64_t position, int64_t head, int64_t chunks, T* dst, int64_t row, int64_t count) {
    for (; count > 0; --count, src += position, dst += row)
      for (int64_t c = 0; c < chunks; ++c) {
        Vec<T> x[N];
        repeat<N>(QNA_EACH(i) { x[i] = load_as<T>(src + i * heads * head + c * C); });
        Turn<T, H, C>::run(x);
        repeat<N>(QNA_EACH(i) { store(dst + (c * N + i) * V, x[i]); });
      }
  }
  static void write(S* dst, int64_t position, int64_t head, int64_t chunks, const T* src, int64_t row, int64_t count) {
    for (; count > 0; --count, dst += position, src += row)
      for (int64_t c = 0; c < chunks; ++c) {
        Vec<T> x[N];
        repeat<N>(QNA_EACH(i) { x[i] = load(src + (c * N + i) * V); });
        Turn<T, C, H>::run(x);
        repeat<N>(QNA_EACH(i) {
          S* to = dst + i * heads * head + c * C;
          fetch<S, 1, true>(to, kPixelsAhead * position, 0);
          store_as<T>(to, x[i]);
        });
      }
  }
};

template <class T, class S, int H, int C> constexpr TurnedRows<T, S> turned() {
  if constexpr (H <= Simd<T>::width && C <= Simd<T>::width && H * C >= Simd<T>::width)
    return {Turning<T, S, H, C>::read, Turning<T, S, H, C>::write};
  else
    return {nullptr, nullptr};
}
template <class T, class S, int H> constexpr TurnedRows<T, S> turned(int64_t channels) {
  switch (channels) {
    case 2: return turned<T, S, H, 2>();
    case 4: return turned<T, S, H, 4>();
    case 8: return turned<T, S, H, 8>();
    case 16: return turned<T, S, H, 16>();
    default: return {nullptr, nullptr};
  }
}
template <class T, class S> constexpr TurnedRows<T, S> turned_rows(int64_t heads, int64_t channels) {
  switch (heads) {
    case 2: return turned<T, S, 2>(channels);
    case 4: return turned<T, S, 4>(channels);
    case 8: return turned<T, S, 8>(channels);
    case 16: return turned<T, S, 16>(channels);
    default: return {nullptr, nullptr};
  }
}

// Channels that are turned at a time: all of a head, or as many as a vector has; 0 where they do not divide so.
template <class T> constexpr int64_t turned_channels(int64_t depth, int64_t stride_head) {
  if (depth % Simd<T>::width == 0) return Simd<T>::width;
  return stride_head == depth ? depth : 0;  // a vector then holds several heads, which must lie together
}

}  // namespace
