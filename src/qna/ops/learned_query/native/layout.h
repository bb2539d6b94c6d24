// How heads, queries and channels are spread over vector lanes.
//
// The kernels want the heads to be the fastest axis: one vector of attention weights (one lane per head) then serves
// every vector of channels. A map whose heads are the fastest axis and fit the lanes is read in place; any other is
// copied, tile by tile, into rows of that form. Heads are worked on in blocks of at most one vector.
//
//   hv    head lanes of a block, a power of two (fewer heads are padded)
//   pack  queries that share one score vector:  lane = query * hv + head  (the rest of the lanes repeats)
//   dup   channel slices that share one channel vector:  lane = slice * hv + head
//
// Where windows have several outputs, sub-pixels of a finer map, each has queries of its own that meet the same values:
// a block is then one sub-pixel of such a group of heads.
#pragma once

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "problem.h"
#include "simd.h"
#include "turned_rows.h"

namespace {

using qna::Geometry;

constexpr int kMaxPixels = 4;  // outputs that are worked on together, at most
inline int64_t whole_blocks(int64_t pixels) { return (pixels + kMaxPixels - 1) / kMaxPixels * kMaxPixels; }

// How a row of a value map lies in memory.
enum class RowForm {
  vectors,  // heads fastest, and they fill the lanes: whole vectors
  padded,   // heads fastest, but they leave lanes of a vector empty
  turned,   // channels fastest, in blocks that are turned in registers
  any,
};

template <class T> struct Layout {
  static constexpr int V = Simd<T>::width;
  int64_t queries, heads, depth;      // queries: of a sub-pixel
  int hv, pack, groups, dup;          // groups: score vectors per position (queries = groups * pack, padded)
  int head_blocks, subpixels, blocks; // block = block of heads * subpixels + subpixel
  int dvec;                           // channel vectors of a block
  int lanes;                          // groups * V
  int pixels;                         // output positions worked on together
  bool full_heads;                    // no padded head lane
  bool direct_scores;                 // a block's score vectors are plain loads
  IVec<T> swap[6];                    // lane ^ (hv << i)
  IVec<T> spread, collect;            // dense (slice, head) to lanes with empty heads, and back
  int pack_steps, dup_steps;
  std::vector<int64_t> source;        // lane -> number of the score, or -1 (one block after the other)

  // A score vector: a plain load from `offset` of which `count` lanes exist, lanes picked from it, and empty lanes.
  struct Pick {
    IVec<T> index, live;
    int64_t offset;
    int count;
  };
  std::vector<Pick> picks;            // one block after the other

  explicit Layout(const Geometry& g) : queries(g.queries), heads(g.heads), depth(g.depth) {
    hv = 1;
    while (hv < V && hv < heads) hv *= 2;
    pack = 1;
    if (kVectorBytes > 16)
      while (pack < 4 && pack < queries && hv * pack < V) pack *= 2;
    groups = int((queries + pack - 1) / pack);
    dup = V / hv;
    head_blocks = int((heads + hv - 1) / hv), subpixels = int(g.subpixels()), blocks = head_blocks * subpixels;
    dvec = int((depth + dup - 1) / dup);
    lanes = groups * V;
    pixels = (V == 16 && dvec % 8 != 0 && dvec < 8) ? 4 : 2;
    full_heads = heads % hv == 0;
    pack_steps = dup_steps = 0;
    while ((1 << pack_steps) < pack) ++pack_steps;
    while ((1 << dup_steps) < dup) ++dup_steps;
    for (int s = 0; s < 6; ++s)
      for (int k = 0; k < V; ++k) swap[s][k] = (k ^ (hv << s)) & (V - 1);
    for (int k = 0; k < V; ++k) spread[k] = int(k / hv * heads + k % hv) & (V - 1), collect[k] = 0;
    for (int k = 0; k < dup * std::min<int64_t>(heads, hv) && k < V; ++k) collect[k] = int(k / heads * hv + k % heads);
    source.resize(size_t(blocks) * lanes), picks.resize(size_t(blocks) * groups);
    direct_scores = true;
    for (int b = 0; b < blocks; ++b)
      for (int k = 0; k < lanes; ++k) {
        int64_t query = int64_t(k / V) * pack + (k % V) / hv % pack, head = first_head(b) + k % hv;
        int64_t s = query < queries && head < heads ? (subpixel(b) * queries + query) * heads + head : -1;
        source[size_t(b) * lanes + k] = s;
        int64_t first = source[size_t(b) * lanes + k / V * V];
        if (s < 0 || s != first + k % V) direct_scores = false;
        Pick& pick = picks[size_t(b) * groups + k / V];
        pick.offset = first, pick.count = int(std::min<int64_t>(V, scores() - first));
        pick.index[k % V] = s < 0 ? 0 : int(s - first), pick.live[k % V] = s < 0 ? 0 : -1;
      }
  }

  RowForm row_form(int64_t stride_head, int64_t stride_depth) const {
    if ((heads == 1 || stride_head == 1) && (depth == 1 || stride_depth == heads))
      return full_heads && depth % dup == 0 ? RowForm::vectors : RowForm::padded;
    const bool turns = full_heads && stride_depth == 1 &&
                       turned_rows<T, T>(hv, turned_channels<T>(depth, stride_head)).read != nullptr;
    return turns ? RowForm::turned : RowForm::any;
  }
  int64_t scores() const { return subpixels * queries * heads; }  // of a position
  int64_t subpixel(int block) const { return block % subpixels; }
  int64_t first_head(int block) const { return int64_t(block / subpixels) * hv; }
  int64_t vector_step() const { return int64_t(head_blocks) * V; }  // between channel vectors of a block, in place
};

// One position's row of a block, from storage to T with the heads fastest; empty lanes hold any number.
template <class T, class S>
inline void read_row(const Layout<T>& lay, int block, const S* src, int64_t sh, int64_t sd, RowForm form, T* dst) {
  constexpr int V = Simd<T>::width;
  const int64_t first = lay.first_head(block), n = std::min<int64_t>(lay.hv, lay.heads - first);
  switch (form) {
    case RowForm::vectors:
      src += first;
      for (int64_t c = lay.dvec, step = lay.vector_step(); c > 0; --c, src += step, dst += V)
        store(dst, load_as<T>(src));
      return;
    case RowForm::padded: {
      int64_t left = lay.depth * lay.heads - first, step = lay.dup * lay.heads;
      src += first;
      for (int c = 0; c < lay.dvec; ++c, src += step, left -= step, dst += V) {
        const Vec<T> v = left >= V ? load_as<T>(src) : load_first<T>(src, int(left));
        store(dst, lay.dup > 1 ? exchange<T>(v, lay.spread) : v);
      }
      return;
    }
    case RowForm::turned:  // by `read_rows`
    case RowForm::any:
      src += first * sh;
      for (int64_t i = 0; i < lay.depth; ++i, src += sd, dst += lay.hv)
        for (int64_t k = 0; k < n; ++k) dst[k] = widen(src[k * sh]);
  }
}

template <class T, class S>
inline void write_row(const Layout<T>& lay, int block, S* dst, int64_t sh, int64_t sd, RowForm form, const T* src) {
  constexpr int V = Simd<T>::width;
  const int64_t first = lay.first_head(block), n = std::min<int64_t>(lay.hv, lay.heads - first);
  switch (form) {
    case RowForm::vectors:
      dst += first;
      if (lay.head_blocks == 1) return store_row<T>(dst, src, lay.dvec);
      for (int c = 0; c < lay.dvec; ++c) store_as<T>(dst + c * lay.vector_step(), load(src + c * V));
      return;
    case RowForm::padded: {
      int64_t left = lay.depth * lay.heads - first, step = lay.dup * lay.heads;
      const int64_t dense = lay.dup > 1 ? step : n;
      dst += first;
      for (int c = 0; c < lay.dvec; ++c, dst += step, left -= step, src += V) {
        const Vec<T> v = load(src);
        store_first<T>(dst, lay.dup > 1 ? exchange<T>(v, lay.collect) : v, int(std::min(dense, left)));
      }
      return;
    }
    case RowForm::turned:  // by `write_rows`
    case RowForm::any:
      dst += first * sh;
      for (int64_t i = 0; i < lay.depth; ++i, dst += sd, src += lay.hv)
        for (int64_t k = 0; k < n; ++k) narrow(src[k], dst + k * sh);
  }
}

// The rows of `count` positions, `position` apart in the map and `row` apart in dst.
template <class T, class S>
inline void read_rows(const Layout<T>& lay, int block, const S* src, int64_t position, int64_t sh, int64_t sd,
                      RowForm form, T* dst, int64_t row, int64_t count) {
  if (form == RowForm::turned) {
    const int64_t channels = turned_channels<T>(lay.depth, sh);
    return turned_rows<T, S>(lay.hv, channels)
        .read(src + lay.first_head(block) * sh, position, sh, lay.depth / channels, dst, row, count);
  }
  for (; count > 0; --count, src += position, dst += row) read_row(lay, block, src, sh, sd, form, dst);
}
template <class T, class S>
inline void write_rows(const Layout<T>& lay, int block, S* dst, int64_t position, int64_t sh, int64_t sd, RowForm form,
                       const T* src, int64_t row, int64_t count) {
  if (form == RowForm::turned) {
    const int64_t channels = turned_channels<T>(lay.depth, sh);
    return turned_rows<T, S>(lay.hv, channels)
        .write(dst + lay.first_head(block) * sh, position, sh, lay.depth / channels, src, row, count);
  }
  for (; count > 0; --count, dst += position, src += row) {
    for (int c = 0; c < lay.dvec; ++c) fetch<S, 1, true>(dst, kPixelsAhead * position + c * lay.vector_step(), 0);
    write_row(lay, block, dst, sh, sd, form, src);
  }
}

// One score vector of a position whose scores start at src.
template <bool Direct, class T, class S>
QNA_INLINE Vec<T> pick_scores(const typename Layout<T>::Pick& pick, const S* src) {
  if constexpr (Direct) return load_as<T>(src + pick.offset);
  const Vec<T> v = pick.count == Simd<T>::width ? load_as<T>(src + pick.offset)
                                                : load_first<T>(src + pick.offset, pick.count);
  return pick.live ? exchange<T>(v, pick.index) : Vec<T>{};
}

// All scores of a position; empty lanes are masked.
template <class T, class S>
inline void read_scores(const Layout<T>& lay, int block, const S* src, T* dst) {
  const Vec<T> masked = splat(-std::numeric_limits<T>::infinity());
  for (int g = 0; g < lay.groups; ++g) {
    const auto& pick = lay.picks[size_t(block) * lay.groups + g];
    store(dst + g * Simd<T>::width, pick.live ? pick_scores<false, T>(pick, src) : masked);
  }
}

template <class T, class S>
inline void write_scores(const Layout<T>& lay, int block, S* dst, const T* src) {
  constexpr int V = Simd<T>::width;
  const int64_t* to = lay.source.data() + size_t(block) * lay.lanes;
  if (lay.direct_scores) {
    for (int k = 0; k < lay.lanes; k += V) store_as<T>(dst + to[k], load(src + k));
    return;
  }
  for (int k = 0; k < lay.lanes; ++k)
    if (to[k] >= 0) narrow(src[k], dst + to[k]);
}

// Lanes that only repeat another lane (or pad) must not be added twice: keeps the first holder of each number.
template <class T> inline bool first_holder(const Layout<T>& lay, int k) {
  return (k % Simd<T>::width) < lay.hv * lay.pack;
}

// The static kernels of a block: e^bias (relative to its maximum per lane), times weight, and what they are made of.
// Where a bias is larger than the exponentials take, they are NaN: denominators show which windows that concerns.
template <class T> struct Kernel {
  Array<T> eb, ebw, bias, weight, top;  // [taps][lanes]; top: [lanes], an exponent
  bool beyond;                          // some bias is too large
  T headroom;                           // powers of two by which exponentials of scores may exceed 1

  Kernel(const Layout<T>& lay, int block, int64_t taps, const T* b, const T* w) {
    constexpr int V = Simd<T>::width;
    size_t n = size_t(taps) * lay.lanes;
    eb.resize(n), ebw.resize(n), bias.resize(n), weight.resize(n);
    top.assign(lay.lanes, -ExpLimits<T>::largest);
    int64_t row = lay.scores();
    const int64_t* from = lay.source.data() + size_t(block) * lay.lanes;
    for (int64_t t = 0; t < taps; ++t)
      for (int k = 0; k < lay.lanes; ++k) {
        bias[t * lay.lanes + k] = from[k] < 0 ? T(0) : b[t * row + from[k]];
        weight[t * lay.lanes + k] = from[k] < 0 ? T(0) : w ? w[t * row + from[k]] : T(1);
      }
    for (size_t i = 0; i < n; i += V) store(&top[i % lay.lanes], vmax(load(&bias[i]), load(&top[i % lay.lanes])));
    const Vec<T> most = splat(ExpLimits<T>::largest), none = splat(std::numeric_limits<T>::quiet_NaN());
    beyond = false;
    for (int k = 0; k < lay.lanes; k += V) {
      const Vec<T> all = load(&top[k]);
      beyond |= any_below<T>(most, all);
      Vec<T> m, exponent;
      exp_reduced(all > most ? most : all, m, exponent);
      store(&top[k], exponent);
    }
    bool lost = false;
    for (size_t i = 0; i < n; i += V) {
      const Vec<T> x = load(&bias[i]), down = load(&top[i % lay.lanes]);
      const Vec<T> v = x > most ? none : exp_below<T>(x, down, lowest_above<T>(down));
      store(&eb[i], v), store(&ebw[i], v * load(&weight[i]));
      const Vec<T> whole = splat(std::numeric_limits<T>::min());
      lost |= any_below<T>(v, x < splat(std::numeric_limits<T>::lowest()) ? Vec<T>{} : whole);
    }
    // a factor that was lost is nothing beside `vanishing` only if it meets no exponential far above 1
    headroom = lost ? T(1) : ExpLimits<T>::headroom;
  }
};

}  // namespace
