// Copies of a box of one head in the arithmetic type: by the position, and by the channel, so that a vector holds the
// same channel of neighbouring positions and a window of any start is an unaligned load.
#pragma once

#include <cstdint>

#include "simd.h"
#include "windows.h"

namespace {

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// (rows, width, channels), the channels filled up with zeros to whole vectors.
template <class T> struct ByPosition {
  int64_t width = 0, pitch = 0;
  Array<T> data;
  void resize(int64_t rows, int64_t row_width, int64_t channels) {
    width = round_up(row_width, Simd<T>::width), pitch = round_up(channels, Simd<T>::width);
    data.resize(size_t(rows * width * pitch));
  }
  T* at(int64_t row, int64_t x) { return &data[size_t((row * width + x) * pitch)]; }
  const T* at(int64_t row, int64_t x) const { return &data[size_t((row * width + x) * pitch)]; }
};

// (rows, channels, width), with zeros behind the width for a vector that begins within it. An odd number of cache lines
// is between neighbours on any axis: a power of two would put a window into a few sets of the cache.
template <class T> struct ByChannel {
  int64_t channels = 0, width = 0, pitch = 0, row_pitch = 0;
  Array<T> data;
  void resize(int64_t rows, int64_t row_width, int64_t channels_) {
    channels = channels_, width = round_up(row_width, Simd<T>::width) + Simd<T>::width;
    pitch = odd_lines(width), row_pitch = odd_lines(channels * pitch);
    data.resize(size_t(rows * row_pitch));
  }
  T* at(int64_t row, int64_t x) { return &data[size_t(row * row_pitch + x)]; }
  const T* at(int64_t row, int64_t x) const { return &data[size_t(row * row_pitch + x)]; }

 private:
  static int64_t odd_lines(int64_t numbers) {
    const int64_t line = 64 / int64_t(sizeof(T));
    return ((numbers + line - 1) / line | 1) * line;
  }
};

// r[i][j] = r[j][i]: blocks of 1, 2, 4 .. lanes change places.
template <class T> QNA_INLINE void transpose(Vec<T> (&r)[Simd<T>::width]) {
  constexpr int width = Simd<T>::width, stages = width == 16 ? 4 : width == 8 ? 3 : width == 4 ? 2 : 1;
  repeat<stages>(QNA_EACH(stage) {
    constexpr int step = 1 << decltype(stage)::value;
    IVec<T> other, upper;
    repeat<width>(QNA_EACH(j) { other[int(j)] = j ^ step, upper[int(j)] = j & step ? -1 : 0; });
    repeat<width>(QNA_EACH(i) {
      if constexpr (!(i & step)) {
        const Vec<T> a = r[i], b = r[i + step];
        r[i] = upper ? exchange<T>(b, other) : a;
        r[i + step] = upper ? b : exchange<T>(a, other);
      }
    });
  });
}

// `channels` numbers of a map, `stride` apart, as whole vectors filled up with zeros, times `scale`.
template <class T, class S> void read_row(const S* from, int64_t stride, int64_t channels, T scale, T* to) {
  constexpr int width = Simd<T>::width;
  int64_t c = 0;
  if (stride == 1) {
    for (; c + width <= channels; c += width) store(to + c, load_as<T>(from + c) * scale);
    if (c < channels) store(to + c, load_first<T>(from + c, int(channels - c)) * scale);
    return;
  }
  for (; c < channels; ++c) to[c] = T(widen(from[c * stride])) * scale;
  for (; c % width; ++c) to[c] = 0;
}

template <class T, class S> void write_row(const T* from, int64_t channels, S* to, int64_t stride) {
  constexpr int width = Simd<T>::width;
  int64_t c = 0;
  if (stride == 1) {
    for (; c + width <= channels; c += width) store_as<T>(to + c, load(from + c));
    if (c < channels) store_first<T>(to + c, load(from + c), int(channels - c));
    return;
  }
  for (; c < channels; ++c) narrow(from[c], to + c * stride);
}

// The numbers of one head in a map.
template <class S> struct Head {
  S* data;
  const int64_t* stride;
  const Group* group;
  Head(const qna::Map& map, int64_t item, int64_t head, const Group& group)
      : data(static_cast<S*>(map.data) + item * map.stride[0] + head * map.stride[4]), stride(map.stride), group(&group) {
    for (int a = 0; a < 3; ++a) data += group.line[a]->residue * map.stride[a + 1];
  }
  S* at(int64_t z, int64_t y, int64_t x) const {
    const int64_t m[3] = {z, y, x};
    S* p = data;
    for (int a = 0; a < 3; ++a) p += m[a] * group->line[a]->step * stride[a + 1];
    return p;
  }
};

// Rows of a head lie apart in memory, where no prefetcher looks for them: asks for one that is needed soon.
template <bool Write = false, class S> QNA_INLINE void fetch_row(const S* row, int64_t channels) {
  for (int64_t c = 0; c < channels; c += 64 / int64_t(sizeof(S))) __builtin_prefetch(row + c, Write ? 1 : 0);
}
constexpr int64_t kAhead = 32;  // positions

// Copies `count` rows of channels of a line; row(x) is where they are, null for zeros, and beyond the line what will
// be copied next.
template <class T, class S> class Copier {
 public:
  template <class Row>
  void line(Row row, int64_t count, int64_t stride, int64_t channels, T scale, int64_t number, ByPosition<T>* by_position,
            ByChannel<T>* by_channel) {
    const int64_t pitch = round_up(channels, width);
    if (!by_position) rows_.resize(size_t(width * pitch));
    for (int64_t x = 0; x < count; x += width) {
      T* rows = by_position ? by_position->at(number, x) : rows_.data();
      for (int64_t i = x; stride == 1 && i < std::min(x + width, count); ++i)
        if (const S* from = row(i + kAhead)) fetch_row(from, channels);
      for (int64_t i = 0; i < width; ++i) {
        const S* from = x + i < count ? row(x + i) : nullptr;
        if (from) read_row<T>(from, stride, channels, scale, rows + i * pitch);
        else std::fill(rows + i * pitch, rows + (i + 1) * pitch, T(0));
      }
      for (int64_t c = 0; by_channel && c < channels; c += width) {
        Vec<T> block[width];
        for (int64_t i = 0; i < width; ++i) block[i] = load(rows + i * pitch + c);
        transpose<T>(block);
        T* to = by_channel->at(number, x) + c * by_channel->pitch;
        for (int64_t i = 0; i < std::min<int64_t>(width, channels - c); ++i) store(to + i * by_channel->pitch, block[i]);
      }
    }
    for (int64_t c = 0; by_channel && c < channels; ++c)
      store(by_channel->at(number, by_channel->width - width) + c * by_channel->pitch, Vec<T>{});
  }

  // A box of a head; keys outside of the map, and those that a mask hides, are zeros.
  void box(const qna::Map& map, int64_t item, int64_t head, const Group& group, const Box& box, int64_t channels, T scale,
           const Geometry& g, const uint8_t* mask, ByPosition<T>* by_position, ByChannel<T>* by_channel) {
    const Head<const S> from(map, item, head, group);
    if (by_position) by_position->resize(box.rows(), box.size(2), channels);
    if (by_channel) by_channel->resize(box.rows(), box.size(2), channels);
    const int64_t size = group.line[2]->size, step = group.line[2]->step * map.stride[3];
    const uint8_t* of_item = mask ? mask + item * g.axis[0].size * g.axis[1].size * g.axis[2].size : nullptr;
    for (int64_t z = box.lo[0]; z < box.hi[0]; ++z)
      for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
        // this line and the next; an address costs as much as a row, so that they are counted on from these
        const auto start = [&](int64_t y) {
          const bool inside = z >= 0 && z < group.line[0]->size && y >= 0 && y < group.line[1]->size;
          return inside ? from.at(z, y, 0) : nullptr;
        };
        const S *here = start(y), *next = start(y + 1);
        auto row = [&](int64_t at) -> const S* {
          const int64_t later = at >= box.size(2), x = box.lo[2] + at - later * box.size(2);
          const S* base = later ? next : here;
          if (!base || x < 0 || x >= size) return nullptr;
          return of_item && !of_item[group.position(g, {z, y + later, x})] ? nullptr : base + x * step;
        };
        line(row, box.size(2), map.stride[5], channels, scale, box.row(z, y), by_position, by_channel);
      }
  }

 private:
  static constexpr int width = Simd<T>::width;
  Array<T> rows_;
};

// One number per position of a box, in rows as those of ByChannel; value(z, y, x) gives them.
template <class T, class Value> void fill_rows(const Box& box, ByChannel<T>& rows, Value value) {
  rows.resize(box.rows(), box.size(2), 1);
  for (int64_t z = box.lo[0]; z < box.hi[0]; ++z)
    for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
      T* row = rows.at(box.row(z, y), 0);
      for (int64_t x = box.lo[2]; x < box.hi[2]; ++x) *row++ = value(z, y, x);
      std::fill(row, rows.at(box.row(z, y), rows.width), T(0));
    }
}

}  // namespace
