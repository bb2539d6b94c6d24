// Forward: one query after the other, its window chunk by chunk with a softmax that goes along.
#pragma once

#include "scores.h"

namespace {

// Positions of a box: its copies, and those of what it sees, are to stay in the second-level cache.
template <class T> int64_t box_positions(const Geometry& g) {
  const int64_t bytes = (round_up(g.dim, Simd<T>::width) + round_up(g.value_dim, Simd<T>::width)) * int64_t(sizeof(T));
  return std::max<int64_t>(64, std::min<int64_t>(4096, (int64_t(256) << 10) / bytes));
}

// The rows of keys that the queries of a line (z, y) see.
template <class T>
void rows_of_queries(const Group& group, const Box& keys, const BiasTable<T>& bias, int64_t z, int64_t y, Rows& rows) {
  rows.clear();
  for (int64_t zk = group.line[0]->first[size_t(z)]; zk < group.line[0]->last[size_t(z)]; ++zk)
    for (int64_t yk = group.line[1]->first[size_t(y)]; yk < group.line[1]->last[size_t(y)]; ++yk)
      rows.add(keys.row(zk, yk), bias.at(zk - z, yk - y));
}

// Extra keys or values of one head.
template <class T, class S>
void copy_extra(const void* data, int64_t item, int64_t head, int64_t channels, const Geometry& g, Copier<T, S>& copier,
                ByPosition<T>* by_position, ByChannel<T>* by_channel) {
  if (by_position) by_position->resize(1, g.extra, channels);
  if (by_channel) by_channel->resize(1, g.extra, channels);
  const S* from = static_cast<const S*>(data) + (item * g.extra * g.heads + head) * channels;
  auto row = [&](int64_t m) { return from + m * g.heads * channels; };
  copier.line(row, g.extra, 1, channels, T(1), 0, by_position, by_channel);
}

// Rows of 0, and -inf where a mask hides a key.
template <class T>
void mask_rows(const qna::Inputs& f, int64_t item, const Group& group, const Box& keys, ByChannel<T>& rows) {
  const Geometry& g = f.geo;
  const uint8_t* mask = f.key_mask + item * g.axis[0].size * g.axis[1].size * g.axis[2].size;
  fill_rows<T>(keys, rows, [&](int64_t z, int64_t y, int64_t x) {
    const int64_t m[3] = {z, y, x};
    for (int a = 0; a < 3; ++a)
      if (m[a] < 0 || m[a] >= group.line[a]->size) return T(0);  // a key of zeros, which the mask does not concern
    return mask[group.position(g, m)] ? T(0) : kNever<T>;
  });
}

template <class T, class S> class ForwardTask {
 public:
  explicit ForwardTask(const qna::Forward& f) : f_(f), g_(f.geo) { extra_.add(0, 0); }

  void run(int64_t item, int64_t head, const Group& group, const Box& box) {
    const BiasTable<T> bias(g_, f_.bias, head, false);
    const Box keys = seen_by(box, group, true);
    copier_.box(f_.k, item, head, group, keys, g_.dim, T(1), g_, f_.key_mask, nullptr, &k_);
    copier_.box(f_.v, item, head, group, keys, g_.value_dim, T(1), g_, f_.key_mask, &v_, nullptr);
    if (f_.key_mask) mask_rows(f_, item, group, keys, mask_);
    if (g_.extra) {
      copy_extra<T, S>(f_.extra_keys, item, head, g_.dim, g_, copier_, nullptr, &extra_k_);
      copy_extra<T, S>(f_.extra_values, item, head, g_.value_dim, g_, copier_, &extra_v_, nullptr);
    }
    q_.resize(size_t(round_up(g_.dim, Simd<T>::width)));
    sum_.resize(size_t(v_.pitch));
    const Head<const S> from(f_.q, item, head, group);
    const Head<S> to(f_.out, item, head, group);
    const ByChannel<T>* mask = f_.key_mask ? &mask_ : nullptr;
    const Line& line = *group.line[2];
    for (int64_t z = box.lo[0]; z < box.hi[0]; ++z)
      for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
        rows_of_queries(group, keys, bias, z, y, rows_);
        for (int64_t x = box.lo[2]; x < box.hi[2]; ++x) {
          read_row<T>(from.at(z, y, x), f_.q.stride[5], g_.dim, T(f_.scale), q_.data());
          top_ = kNever<T>, total_ = 0;
          std::fill(sum_.begin(), sum_.end(), T(0));
          const int64_t first = line.first[size_t(x)], taps = line.last[size_t(x)] - first;
          each_part<T>(rows_, first - keys.lo[2], first - x, taps,
                       [&](const Part<T>& part) { attend(part, k_, v_, bias.data(), mask); });
          each_part<T>(extra_, 0, 0, g_.extra,
                       [&](const Part<T>& part) { attend(part, extra_k_, extra_v_, nullptr, nullptr); });
          const T share = total_ == 0 ? T(0) : T(1) / total_;
          for (T& number : sum_) number *= share;
          write_row<T>(sum_.data(), g_.value_dim, to.at(z, y, x), f_.out.stride[5]);
          if (f_.lse) {
            const int64_t m[3] = {z, y, x};
            static_cast<T*>(f_.lse)[(item * positions() + group.position(g_, m)) * g_.heads + head] =
                total_ == 0 ? kNever<T> : top_ + std::log(total_);
          }
        }
      }
  }

 private:
  int64_t positions() const { return g_.axis[0].size * g_.axis[1].size * g_.axis[2].size; }

  void attend(const Part<T>& part, const ByChannel<T>& k, const ByPosition<T>& v, const T* bias,
              const ByChannel<T>* mask) {
    T* scores = scores_.number;
    dots(q_.data(), k, part, scores);
    const T top = std::max(top_, largest<T>(finish_scores(part, bias, mask, scores)));
    // where nothing is attended so far, any finite number will do, and a NaN stays one
    const T base = top == kNever<T> ? T(0) : top;
    if (top > top_ && total_ != 0) {
      const T less = std::exp(top_ - top);
      total_ *= less;
      for (T& number : sum_) number *= less;
    }
    top_ = top;
    Vec<T> total{};
    for (int v = 0; v < part.rows * part.vectors; ++v) {
      const Vec<T> e = exp_negative<T>(load(scores + v * Simd<T>::width) - splat(base));
      store(scores + v * Simd<T>::width, e);
      total += e;
    }
    total_ += sum_of<T>(total);
    add_rows(scores, v, part, sum_.data());
  }

  const qna::Forward& f_;
  const Geometry& g_;
  Copier<T, S> copier_;
  ByChannel<T> k_, mask_, extra_k_;
  ByPosition<T> v_, extra_v_;
  Array<T> q_, sum_;
  Rows rows_, extra_;  // of keys in the map, and outside of it
  PartNumbers<T> scores_;
  T top_, total_;
};

}  // namespace
