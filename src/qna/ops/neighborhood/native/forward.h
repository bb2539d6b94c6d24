// Forward: a few queries of a line after the others, their windows chunk by chunk with a softmax that goes along.
#pragma once

#include "across.h"

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
  auto row = [&](int64_t m) { return m < g.extra ? from + m * g.heads * channels : nullptr; };
  copier.line(row, g.extra, 1, channels, T(1), 0, by_position, by_channel);
}

// Rows of 0, and -inf where a mask hides a key.
template <class T, class F>
void mask_rows(const F& f, int64_t item, const Group& group, const Box& keys, ByChannel<T>& rows) {
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
    q_pitch_ = round_up(g_.dim, Simd<T>::width);
    q_.resize(size_t(box.size(2) * q_pitch_)), sum_.resize(size_t(kTogether * v_.pitch));
    for (int64_t z = box.lo[0]; z < box.hi[0]; ++z)
      for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
        const Place at{item, head, &group, &box, &keys, &bias, z, y};
        rows_of_queries(group, keys, bias, z, y, rows_);
        read_line(at);
        const bool across = by_lanes();
        for (int64_t x = box.lo[2]; x < box.hi[2];)
          x = across && lanes(at, x) ? across_.x + across_.queries : some_of_line(at, x);
      }
  }

 private:
  struct Place {
    int64_t item, head;
    const Group* group;
    const Box *box, *keys;
    const BiasTable<T>* bias;
    int64_t z, y;
    const Line& line() const { return *group->line[2]; }
  };
  // Queries from x on that are taken together: what they see of a row of keys, and where their scores are.
  struct Several {
    int queries;
    int64_t x, first, taps, scores;
  };

  int64_t positions() const { return g_.axis[0].size * g_.axis[1].size * g_.axis[2].size; }

  // The queries of a line; what is needed soon is asked for.
  void read_line(const Place& at) {
    const Head<const S> from(f_.q, at.item, at.head, *at.group);
    const Head<S> to(f_.out, at.item, at.head, *at.group);
    const int64_t begin = at.box->lo[2], end = at.box->hi[2];
    const bool dense = f_.q.stride[5] == 1;
    const int64_t step = at.line().step * f_.q.stride[3], step_out = at.line().step * f_.out.stride[3];
    const S* here = from.at(at.z, at.y, begin);
    const S* next = at.y + 1 < at.box->hi[1] ? from.at(at.z, at.y + 1, begin) : nullptr;
    S* out = to.at(at.z, at.y, begin);
    for (int64_t i = 0; i < end - begin; ++i) {
      const int64_t later = i + kAhead - (end - begin);
      if (dense && later < 0) fetch_row(here + (i + kAhead) * step, g_.dim);
      else if (dense && next && later < end - begin) fetch_row(next + later * step, g_.dim);
      fetch_row<true>(out + i * step_out, g_.value_dim);
      read_row<T>(here + i * step, f_.q.stride[5], g_.dim, T(f_.scale), query(at, begin + i));
    }
  }
  T* query(const Place& at, int64_t x) { return &q_[size_t((x - at.box->lo[2]) * q_pitch_)]; }

  // By the vectors of a row that their windows take together, and what a vector costs each of them.
  int planned() const {
    const auto cost = [&](int q) {
      return round_up(g_.axis[2].kernel + q - 1, Simd<T>::width) * (q == 1 ? 12 : q == 2 ? 8 : 7);
    };
    return cost(4) <= cost(2) && cost(4) <= cost(1) ? 4 : cost(2) <= cost(1) ? 2 : 1;
  }

  // Whether queries of this line are better taken a lane each: measured, of vectors that have enough of them.
  bool by_lanes() const {
    constexpr int width = Simd<T>::width;
    const int64_t kernel = g_.axis[2].kernel, rows = int64_t(rows_.panel.size());
    return width >= 8 && kernel < 12 && rows > 0 && rows * kernel * width <= room && !f_.key_mask;
  }

  // Attends queries from x on, a lane each; false where their windows are none for that.
  bool lanes(const Place& at, int64_t x) {
    constexpr int width = Simd<T>::width;
    const int64_t taps = g_.axis[2].kernel, rows = int64_t(rows_.panel.size()), count = rows * taps;
    if (!across_.set(at.line(), x, at.box->hi[2], taps) || (f_.bias && !across_.moving)) return false;
    turned_.resize(size_t(q_pitch_ * width));
    for (int64_t c = 0; c < q_pitch_; c += width) {
      Vec<T> block[width];
      for (int64_t i = 0; i < width; ++i) block[i] = i < across_.queries ? load(query(at, x + i) + c) : Vec<T>{};
      transpose<T>(block);
      for (int64_t i = 0; i < width; ++i) store(&turned_[size_t((c + i) * width)], block[i]);
    }
    if (int64_t(scores_.size()) < count * width) scores_.resize(size_t(count * width));
    T* scores = scores_.data();
    const int64_t first = across_.first - at.keys->lo[2];
    if (across_.moving) dots_across<true>(turned_.data(), k_, rows_, first, taps, across_.behind, scores);
    else dots_across<false>(turned_.data(), k_, rows_, first, taps, across_.behind, scores);
    for (int64_t row = 0; f_.bias && row < rows; ++row)  // the same of all queries: their windows move with them
      for (int64_t t = 0; t < taps; ++t) {
        T* to = scores + (row * taps + t) * width;
        store(to, load(to) + splat(at.bias->data()[rows_.bias[size_t(row)] + across_.first - x + t]));
      }
    alignas(64) T top[width], total[width];
    exponentials_across(scores, count, top, total);
    for (int64_t i = 0; i < across_.queries; i += 2) {
      const int64_t other = std::min(i + 1, across_.queries - 1), apart = across_.start[other] - across_.start[i];
      add_across(scores + i, scores + other, v_, rows_, first + across_.start[i], apart, taps, sum_.data(), v_.pitch);
      top_[0] = top[i], top_[1] = top[other], total_[0] = total[i], total_[1] = total[other];
      if (other == i) finish<1>(at, {1, x + i, 0, 0, 0});
      else finish<2>(at, {2, x + i, 0, 0, 0});
    }
    return true;
  }

  // As many as were planned, where their windows take no more vectors than that, else one.
  Several from(const Place& at, int64_t x) const {
    const Line& line = at.line();
    const int n = planned();
    Several found{1, x, line.first[size_t(x)], line.last[size_t(x)] - line.first[size_t(x)], 0};
    if (x + n > at.box->hi[2]) return found;
    const int64_t taps = line.last[size_t(x + n - 1)] - found.first;
    if (taps <= round_up(g_.axis[2].kernel + n - 1, Simd<T>::width)) found.queries = n, found.taps = taps;
    return found;
  }

  // Attends queries from x on; returns the next. Scores are made row by row of the keys for as many queries as there
  // is room, so that a row is read from the nearest cache for all of them.
  int64_t some_of_line(const Place& at, int64_t x) {
    const int64_t rows = int64_t(rows_.panel.size());
    several_.clear();
    int64_t end = 0;
    while (x < at.box->hi[2]) {
      Several next = from(at, x);
      const int64_t of_query = rows * round_up(next.taps, Simd<T>::width);
      if (of_query > longest) {  // in parts, and alone
        if (several_.empty()) return in_parts(at, next);
        break;
      }
      if (!several_.empty() && end + next.queries * of_query > room) break;
      next.scores = end, end += next.queries * of_query;
      several_.push_back(next), x += next.queries;
    }
    if (int64_t(scores_.size()) < end) scores_.resize(size_t(end));
    // of a row as many vectors as a block takes, and as many rows as there is room for, in steps of much the same size
    const int64_t vectors = std::max<int64_t>(round_up(several_[0].taps, Simd<T>::width) / Simd<T>::width, 1);
    const int64_t tallest = std::max<int64_t>(kBlock(several_[0].queries) / vectors, 1);
    const int64_t steps = (rows + tallest - 1) / tallest, step = steps ? (rows + steps - 1) / steps : 1;
    for (int64_t row = 0; row < rows; row += step)
      for (const Several& s : several_)
        if (s.taps > 0) {
          const Part<T> part(rows_, row, std::min(step, rows - row), s.first - at.keys->lo[2], s.first - s.x, s.taps);
          const int64_t pitch = rows * part.step();
          T* to = &scores_[size_t(s.scores + row * part.step())];
          if (s.queries == 4) dots<4>(query(at, s.x), k_, part, to, q_pitch_, pitch);
          else if (s.queries == 2) dots<2>(query(at, s.x), k_, part, to, q_pitch_, pitch);
          else dots<1>(query(at, s.x), k_, part, to);
        }
    for (const Several& s : several_) {
      if (s.queries == 4) attend<4>(at, s);
      else if (s.queries == 2) attend<2>(at, s);
      else attend<1>(at, s);
    }
    return x;
  }

  // Queries whose scores are there.
  template <int Q> void attend(const Place& at, const Several& s) {
    start<Q>();
    const int64_t rows = int64_t(rows_.panel.size());
    if (rows && s.taps > 0) {
      const Part<T> part(rows_, 0, rows, s.first - at.keys->lo[2], s.first - s.x, s.taps);
      Window windows[Q];
      for (int q = 0; q < Q; ++q) windows[q] = window(at, s, q);
      absorb<Q>(part, windows, v_, at.bias->data(), mask(), &scores_[size_t(s.scores)], rows * part.step());
    }
    finish<Q>(at, s);
  }

  // Queries whose windows have more taps than scores are kept of.
  int64_t in_parts(const Place& at, const Several& s) {
    if (s.queries == 4) in_parts<4>(at, s);
    else if (s.queries == 2) in_parts<2>(at, s);
    else in_parts<1>(at, s);
    return s.x + s.queries;
  }
  template <int Q> void in_parts(const Place& at, const Several& s) {
    start<Q>();
    const int64_t begin = s.first - at.keys->lo[2];
    each_part<T>(rows_, begin, s.first - s.x, s.taps, [&](const Part<T>& part) {
      Window windows[Q];
      for (int q = 0; q < Q; ++q) {
        windows[q] = window(at, s, q);
        windows[q] = {std::max<int64_t>(windows[q].begin + begin - part.x, 0),
                      std::min(windows[q].end + begin - part.x, part.taps)};
      }
      dots<Q>(query(at, s.x), k_, part, part_, q_pitch_, longest);
      absorb<Q>(part, windows, v_, at.bias->data(), mask(), part_, longest);
    });
    finish<Q>(at, s);
  }

  Window window(const Place& at, const Several& s, int q) const {
    const Line& line = at.line();
    return {line.first[size_t(s.x + q)] - s.first, line.last[size_t(s.x + q)] - s.first};
  }
  const ByChannel<T>* mask() const { return f_.key_mask ? &mask_ : nullptr; }

  template <int Q> void start() {
    for (int q = 0; q < Q; ++q) top_[q] = kNever<T>, total_[q] = 0;
    for (int64_t c = 0; c < Q * v_.pitch; c += Simd<T>::width) store(&sum_[size_t(c)], Vec<T>{});
  }

  // Extra keys, and the results.
  template <int Q> void finish(const Place& at, const Several& s) {
    each_part<T>(extra_, 0, 0, g_.extra, [&](const Part<T>& part) {
      Window windows[Q];
      for (Window& window : windows) window = {0, part.taps};
      dots<Q>(query(at, s.x), extra_k_, part, part_, q_pitch_, longest);
      absorb<Q>(part, windows, extra_v_, nullptr, nullptr, part_, longest);
    });
    const Head<S> to(f_.out, at.item, at.head, *at.group);
    for (int q = 0; q < Q; ++q) {
      T* sum = &sum_[size_t(q * v_.pitch)];
      multiply(sum, v_.pitch, total_[q] == 0 ? T(0) : T(1) / total_[q]);
      write_row<T>(sum, g_.value_dim, to.at(at.z, at.y, s.x + q), f_.out.stride[5]);
      if (f_.lse) {
        const int64_t m[3] = {at.z, at.y, s.x + q};
        static_cast<T*>(f_.lse)[(at.item * positions() + at.group->position(g_, m)) * g_.heads + at.head] =
            total_[q] == 0 ? kNever<T> : top_[q] + std::log(total_[q]);
      }
    }
  }

  // Takes the products of a part into the softmax of Q queries, `pitch` apart, and its values into their sums.
  template <int Q>
  void absorb(const Part<T>& part, const Window* windows, const ByPosition<T>& v, const T* bias,
              const ByChannel<T>* mask, T* products, int64_t pitch) {
    for (int q = 0; q < Q; ++q) {
      T *scores = products + q * pitch, *sum = &sum_[size_t(q * v_.pitch)];
      const Vec<T> of_part = Q == 1 ? finish_scores(part, bias, mask, scores)
                                    : finish_window(part, windows[q], q, bias, mask, scores);
      const T top = std::max(top_[q], largest<T>(of_part));
      // where nothing is attended so far, any finite number will do, and a NaN stays one
      const T base = top == kNever<T> ? T(0) : top;
      if (top > top_[q] && total_[q] != 0) {
        const T less = std::exp(top_[q] - top);
        total_[q] *= less;
        multiply(sum, v_.pitch, less);
      }
      top_[q] = top;
      total_[q] += exponentials(part, base, scores);
    }
    if constexpr (Q == 1) return add_rows(products, v, part, sum_.data());
    for (int q = 0; q < Q; q += 2)
      add_rows_of_two(products + q * pitch, pitch, v, part, windows + q, &sum_[size_t(q * v_.pitch)], v_.pitch);
  }

  // scores of a query, and of several, in numbers: the latter stay in the nearest cache
  static constexpr int64_t longest = Part<T>::most * Part<T>::width, room = (16 << 10) / sizeof(T);

  const qna::Forward& f_;
  const Geometry& g_;
  Copier<T, S> copier_;
  ByChannel<T> k_, mask_, extra_k_;
  ByPosition<T> v_, extra_v_;
  Array<T> q_, turned_, sum_;
  Across<T> across_;
  Rows rows_, extra_;  // of keys in the map, and outside of it
  alignas(64) T part_[kTogether * longest];  // scores of a part
  Array<T> scores_;                          // scores of all of several_
  std::vector<Several> several_;
  int64_t q_pitch_;
  T top_[kTogether], total_[kTogether];
};

}  // namespace
