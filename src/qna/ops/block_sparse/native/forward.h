// A row of blocks: the queries of one block over the blocks of keys that it keeps, with a softmax that goes along.
//
// Queries are lanes. Scores are keys x queries, values channels x queries, so that the largest score, the sum and the
// rescaling of a query need no exchange between lanes, and keys and values are read as they lie, number by number.
#pragma once

#include <algorithm>
#include <limits>

#include "buffer.h"
#include "problem.h"
#include "tiles.h"

namespace {

// keys that are scored at once: their scores for a panel of queries stay in the nearest cache
constexpr int64_t kKeys = 128;

template <class T, class S, int N> class RowOfBlocks {
 public:
  static constexpr int kWidth = Simd<T>::width, kPanel = N * kWidth;

  explicit RowOfBlocks(const qna::Forward& f)
      : f_(f),
        panels_((std::min(f.block, f.length) + kPanel - 1) / kPanel),
        keys_(std::min({kKeys, f.block, f.length})),
        queries_(panels_ * f.dim * kPanel),
        sums_(panels_ * f.value_dim * kPanel),
        top_(panels_ * kPanel),
        total_(panels_ * kPanel),
        scores_(keys_ * kPanel),
        key_(keys_ * f.dim),
        value_(keys_ * f.value_dim) {}

  void run(int64_t batch, int64_t head, int64_t row) {
    const int64_t kv_head = head / (f_.heads / f_.kv_heads), rows = f_.rows(), from = row * f_.block;
    const int64_t count = std::min(f_.block, f_.length - from);
    const bool* kept = f_.kept + ((batch * f_.heads + head) * rows + row) * rows;
    read_queries(at(f_.q, batch, head, from), count);
    std::fill(sums_.begin(), sums_.end(), T(0));
    std::fill(total_.begin(), total_.end(), T(0));
    std::fill(top_.begin(), top_.end(), std::numeric_limits<T>::lowest());
    for (int64_t column = 0; column <= row; ++column) {
      if (!kept[column]) continue;
      const int64_t first = column * f_.block, last = std::min(first + f_.block, f_.length);
      for (int64_t key = first; key < last; key += keys_) {
        const int64_t n = std::min(keys_, last - key);
        copy(key_.data(), f_.k, at(f_.k, batch, kv_head, key), n, f_.dim);
        copy(value_.data(), f_.v, at(f_.v, batch, kv_head, key), n, f_.value_dim);
        for (int64_t p = 0; p * kPanel < count; ++p) attend(p, n, column == row ? key - from : -f_.block);
      }
    }
    write(batch, head, from, count);
  }

 private:
  const qna::Forward& f_;
  const int64_t panels_, keys_;
  // by panels: channels x queries; the largest score and the sum of exponentials; keys x queries
  Array<T> queries_, sums_, top_, total_, scores_;
  Array<T> key_, value_;

  static const S* at(const qna::Map& m, int64_t batch, int64_t head, int64_t position) {
    return static_cast<const S*>(m.data) + batch * m.stride[0] + head * m.stride[1] + position * m.stride[2];
  }

  // Scaled, transposed, zeros behind the last.
  void read_queries(const S* q, int64_t count) {
    const T scale = T(f_.scale);
    for (int64_t p = 0; p < panels_; ++p)
      for (int64_t i = 0; i < kPanel; ++i) {
        const int64_t query = p * kPanel + i;
        T* to = queries_.data() + p * f_.dim * kPanel + i;
        for (int64_t c = 0; c < f_.dim; ++c)
          to[c * kPanel] = query < count ? T(widen(q[query * f_.q.stride[2] + c * f_.q.stride[3]])) * scale : T(0);
      }
  }

  // Rows of a map, dense and in the type of arithmetic.
  static void copy(T* to, const qna::Map& m, const S* from, int64_t rows, int64_t channels) {
    const int64_t whole = m.stride[3] == 1 ? channels / kWidth * kWidth : 0;
    for (int64_t r = 0; r < rows; ++r, from += m.stride[2], to += channels) {
      int64_t c = 0;
      for (; c < whole; c += kWidth) store(to + c, load_as<T>(from + c));
      for (; c < channels; ++c) to[c] = T(widen(from[c * m.stride[3]]));
    }
  }

  // One panel of queries over n keys. The first key lies `ahead` positions behind the first query of the block; query i
  // sees key j if i >= j + ahead, all of them where that is -block.
  void attend(int64_t p, int64_t n, int64_t ahead) {
    const int64_t behind = p * kPanel;  // queries of the block before this panel
    n = std::min(n, behind + kPanel - ahead);
    if (n <= 0) return;
    T *scores = scores_.data(), *top = top_.data() + behind, *total = total_.data() + behind;
    product<T, N>(key_.data(), f_.dim, 1, queries_.data() + p * f_.dim * kPanel, scores, n, f_.dim,
                  [](const T*, int) { return Vec<T>{}; });
    const int64_t all = behind - ahead;  // keys up to this one are seen by the panel's first query
    for (int64_t j = std::max<int64_t>(all + 1, 0); j < n; ++j)
      for (int64_t i = 0; i < j - all; ++i) scores[j * kPanel + i] = -std::numeric_limits<T>::infinity();
    Vec<T> was[N], high[N], sum[N], fade[N];
    repeat<N>(QNA_EACH(c) { high[c] = was[c] = load(top + c * kWidth); });
    for (int64_t j = 0; j < n; ++j)
      repeat<N>(QNA_EACH(c) { high[c] = vmax(high[c], load(scores + j * kPanel + c * kWidth)); });
    const Vec<T> zero{}, low = lowest_above<T>(zero);
    repeat<N>(QNA_EACH(c) {
      fade[c] = exp_below<T>(was[c] - high[c], zero, low);
      sum[c] = load(total + c * kWidth) * fade[c];
    });
    for (int64_t j = 0; j < n; ++j)
      repeat<N>(QNA_EACH(c) {
        T* at = scores + j * kPanel + c * kWidth;
        const Vec<T> share = exp_below<T>(load(at) - high[c], zero, low);
        store(at, share);
        sum[c] += share;
      });
    repeat<N>(QNA_EACH(c) { store(top + c * kWidth, high[c]), store(total + c * kWidth, sum[c]); });
    product<T, N>(value_.data(), 1, f_.value_dim, scores, sums_.data() + p * f_.value_dim * kPanel, f_.value_dim, n,
                  [&fade](const T* c, int lane) { return load(c) * fade[lane]; });
  }

  void write(int64_t batch, int64_t head, int64_t from, int64_t count) {
    S* out = const_cast<S*>(at(f_.out, batch, head, from));
    T* lse = static_cast<T*>(f_.lse);
    if (lse) lse += (batch * f_.heads + head) * f_.length + from;
    for (int64_t i = 0; i < count; ++i) {
      const T total = total_[i];
      // nothing was attended: all scores -inf, or no block
      const bool none = total == T(0);
      const T* sums = sums_.data() + i / kPanel * f_.value_dim * kPanel + i % kPanel;
      for (int64_t c = 0; c < f_.value_dim; ++c)
        narrow(none ? T(0) : sums[c * kPanel] / total, out + i * f_.out.stride[2] + c * f_.out.stride[3]);
      if (lse) lse[i] = none ? -std::numeric_limits<T>::infinity() : top_[i] + std::log(total);
    }
  }
};

}  // namespace
