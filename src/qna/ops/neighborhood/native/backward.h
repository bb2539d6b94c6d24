// Backward: the shares are made again from the log-sum-exp, once by the query and once by the key, so that every sweep
// writes what it owns.
#pragma once

#include "forward.h"

namespace {

// Gradients of a head's bias and of one batch item's extra keys and values, as far as some boxes add to them.
struct Sums {
  std::vector<double> bias, extra_k, extra_v;
};

// Adds the entries of a head's bias that a table holds to sums of them.
template <class T> void add_table(const BiasTable<T>& bias, const Array<T>& table, std::vector<double>& sums) {
  for (int64_t row = 0; row < bias.rows(); ++row)
    for (int64_t x = 0; x < bias.width(); ++x)
      sums[size_t(row * bias.width() + x)] += table[size_t(bias.front() + row * bias.pitch() + x)];
}

template <class T> inline int64_t number_of(const Geometry& g, int64_t item, int64_t head, const Group& group,
                                            const int64_t (&m)[3]) {
  return (item * g.axis[0].size * g.axis[1].size * g.axis[2].size + group.position(g, m)) * g.heads + head;
}

// By the query: its gradient, those of bias and extra keys, and `delta`, what all shares of the query have in common.
template <class T, class S> class QuerySweep {
 public:
  QuerySweep(const qna::Backward& f, T* delta) : f_(f), g_(f.geo), delta_(delta) { extra_.add(0, 0); }

  void run(int64_t item, int64_t head, const Group& group, const Box& box, Sums& sums) {
    const BiasTable<T> bias(g_, f_.bias, head, false);
    const Box keys = seen_by(box, group, true);
    copier_.box(f_.k, item, head, group, keys, g_.dim, T(1), g_, f_.key_mask, &keys_, &k_);
    copier_.box(f_.v, item, head, group, keys, g_.value_dim, T(1), g_, f_.key_mask, nullptr, &v_);
    if (f_.key_mask) mask_rows(f_, item, group, keys, mask_);
    if (g_.extra) {
      copy_extra<T, S>(f_.extra_keys, item, head, g_.dim, g_, copier_, &extra_keys_, &extra_k_);
      copy_extra<T, S>(f_.extra_values, item, head, g_.value_dim, g_, copier_, nullptr, &extra_v_);
      grad_extra_k_.resize(1, g_.extra, g_.dim), grad_extra_v_.resize(1, g_.extra, g_.value_dim);
      std::fill(grad_extra_k_.data.begin(), grad_extra_k_.data.end(), T(0));
      std::fill(grad_extra_v_.data.begin(), grad_extra_v_.data.end(), T(0));
    }
    if (f_.grad_bias) grad_bias_.assign(bias.numbers.size(), T(0));
    q_.resize(size_t(k_pitch())), grad_q_.resize(size_t(k_pitch()));
    upstream_.resize(size_t(round_up(g_.value_dim, Simd<T>::width)));
    const ByChannel<T>* mask = f_.key_mask ? &mask_ : nullptr;
    const Line& line = *group.line[2];
    for (int64_t z = box.lo[0]; z < box.hi[0]; ++z)
      for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
        rows_of_queries(group, keys, bias, z, y, rows_);
        for (int64_t x = box.lo[2]; x < box.hi[2]; ++x) {
          start(item, head, group, {z, y, x});
          const int64_t first = line.first[size_t(x)], taps = line.last[size_t(x)] - first;
          each_part<T>(rows_, first - keys.lo[2], first - x, taps,
                       [&](const Part<T>& part) { shares(part, false, k_, v_, bias.data(), mask); });
          each_part<T>(extra_, 0, 0, g_.extra,
                       [&](const Part<T>& part) { shares(part, true, extra_k_, extra_v_, nullptr, nullptr); });
          const int64_t number = number_of<T>(g_, item, head, group, {z, y, x});
          common_ = sum_of<T>(product_) - static_cast<const T*>(f_.grad_lse)[number];
          delta_[number] = common_;
          for (const Piece& piece : pieces_) {
            T *p = &shares_[size_t(piece.at)], *of_scores = &scores_[size_t(piece.at)];
            gradients(piece.part, p, of_scores);
            add_rows(of_scores, piece.extra ? extra_keys_ : keys_, piece.part, grad_q_.data());
            if (piece.extra) {
              add_to_rows(of_scores, q_.data(), piece.part, grad_extra_k_);
              add_to_rows(p, upstream_.data(), piece.part, grad_extra_v_);
            } else if (f_.grad_bias) {
              add_bias(piece.part, of_scores);
            }
          }
          for (T& number : grad_q_) number *= T(f_.scale);
          const Head<S> to(f_.grad_q, item, head, group);
          write_row<T>(grad_q_.data(), g_.dim, to.at(z, y, x), f_.grad_q.stride[5]);
        }
      }
    add_up(bias, sums);
  }

 private:
  int64_t k_pitch() const { return round_up(g_.dim, Simd<T>::width); }

  void start(int64_t item, int64_t head, const Group& group, const int64_t (&m)[3]) {
    const auto at = [&](const qna::Map& map) { return Head<const S>(map, item, head, group).at(m[0], m[1], m[2]); };
    read_row<T>(at(f_.q), f_.q.stride[5], g_.dim, T(f_.scale), q_.data());
    read_row<T>(at(f_.grad_out), f_.grad_out.stride[5], g_.value_dim, T(1), upstream_.data());
    std::fill(grad_q_.begin(), grad_q_.end(), T(0));
    pieces_.clear();
    product_ = Vec<T>{};
    const int64_t number = number_of<T>(g_, item, head, group, m);
    lse_ = static_cast<const T*>(f_.lse)[number];
    if (lse_ == kNever<T>) lse_ = -lse_;  // a query that attends nothing: all shares 0
  }

  // Shares of a part, and their gradients, kept until what all of the query's have in common is known.
  void shares(const Part<T>& part, bool extra, const ByChannel<T>& k, const ByChannel<T>& v, const T* bias,
              const ByChannel<T>* mask) {
    const int64_t at = pieces_.empty() ? 0 : pieces_.back().at + pieces_.back().part.rows * pieces_.back().part.step();
    pieces_.push_back({part, at, extra});
    const size_t end = size_t(at + part.rows * part.step());
    if (scores_.size() < end) scores_.resize(end), shares_.resize(end);
    T *scores = &scores_[size_t(at)], *of_shares = &shares_[size_t(at)];
    dots(q_.data(), k, part, scores);
    dots(upstream_.data(), v, part, of_shares);
    finish_scores(part, bias, mask, scores);
    const IVec<T> last = part.last();
    each_vector<T>(part, [&](int64_t n, int, int64_t, bool is_last) __attribute__((always_inline)) {
      const Vec<T> p = exp_negative<T>(load(scores + n) - splat(lse_));
      Vec<T> of_share = load(of_shares + n);
      if (is_last) of_share = last ? of_share : Vec<T>{};  // beside the last tap may be anything
      product_ += p * of_share;
      store(scores + n, p), store(of_shares + n, of_share);
    });
  }

  // From shares and their gradients (in each other's place) to shares and gradients of scores.
  void gradients(const Part<T>& part, T* p, T* of_scores) const {
    const IVec<T> last = part.last();
    each_vector<T>(part, [&](int64_t n, int, int64_t, bool is_last) __attribute__((always_inline)) {
      const Vec<T> share = load(of_scores + n), of_score = share * (load(p + n) - splat(common_));
      store(p + n, share);
      store(of_scores + n, is_last ? (last ? of_score : Vec<T>{}) : of_score);
    });
  }

  void add_bias(const Part<T>& part, const T* of_scores) {
    each_vector<T>(part, [&](int64_t n, int r, int64_t t, bool) {
      T* to = &grad_bias_[size_t(part.bias[r] + part.offset + t)];
      store(to, load(to) + load(of_scores + n));
    });
  }

  void add_up(const BiasTable<T>& bias, Sums& sums) const {
    if (f_.grad_bias) add_table(bias, grad_bias_, sums.bias);
    for (int64_t m = 0; m < g_.extra; ++m) {
      for (int64_t c = 0; c < g_.dim; ++c) sums.extra_k[size_t(m * g_.dim + c)] += grad_extra_k_.at(0, m)[c];
      for (int64_t c = 0; c < g_.value_dim; ++c) sums.extra_v[size_t(m * g_.value_dim + c)] += grad_extra_v_.at(0, m)[c];
    }
  }

  const qna::Backward& f_;
  const Geometry& g_;
  T* delta_;
  Copier<T, S> copier_;
  ByChannel<T> k_, v_, mask_, extra_k_, extra_v_;
  ByPosition<T> keys_, extra_keys_, grad_extra_k_, grad_extra_v_;
  Array<T> q_, upstream_, grad_q_, grad_bias_;
  Rows rows_, extra_;  // of keys in the map, and outside of it
  struct Piece {
    Part<T> part;
    int64_t at;
    bool extra;
  };
  std::vector<Piece> pieces_;  // the parts of a query, whose numbers lie one behind the other
  Array<T> scores_, shares_;
  Vec<T> product_;
  T common_, lse_;
};

// By the key: its gradient and that of its value, gathered from all queries that see it.
template <class T, class S> class KeySweep {
 public:
  KeySweep(const qna::Backward& f, const T* delta) : f_(f), g_(f.geo), delta_(delta) {}

  void run(int64_t item, int64_t head, const Group& group, const Box& box) {
    const BiasTable<T> bias(g_, f_.bias, head, true);
    const Box queries = seen_by(box, group, false);
    copier_.box(f_.q, item, head, group, queries, g_.dim, T(f_.scale), g_, nullptr, &queries_, &q_);
    copier_.box(f_.grad_out, item, head, group, queries, g_.value_dim, T(1), g_, nullptr, &upstreams_, &upstream_);
    const T* lse = static_cast<const T*>(f_.lse);
    const auto number = [&](int64_t z, int64_t y, int64_t x) { return number_of<T>(g_, item, head, group, {z, y, x}); };
    fill_rows<T>(queries, lse_, [&](int64_t z, int64_t y, int64_t x) {
      const T of_query = lse[number(z, y, x)];
      return of_query == kNever<T> ? -of_query : of_query;
    });
    fill_rows<T>(queries, common_, [&](int64_t z, int64_t y, int64_t x) { return delta_[number(z, y, x)]; });
    k_.resize(size_t(round_up(g_.dim, Simd<T>::width))), grad_k_.resize(k_.size());
    v_.resize(size_t(round_up(g_.value_dim, Simd<T>::width))), grad_v_.resize(v_.size());
    const Head<const S> of_k(f_.k, item, head, group), of_v(f_.v, item, head, group);
    const Head<S> to_k(f_.grad_k, item, head, group), to_v(f_.grad_v, item, head, group);
    for (int64_t z = box.lo[0]; z < box.hi[0]; ++z)
      for (int64_t y = box.lo[1]; y < box.hi[1]; ++y) {
        rows_of_keys(group, queries, bias, z, y);
        for (int64_t x = box.lo[2]; x < box.hi[2]; ++x) {
          std::fill(grad_k_.begin(), grad_k_.end(), T(0));
          std::fill(grad_v_.begin(), grad_v_.end(), T(0));
          if (attended(item, group, {z, y, x})) {
            read_row<T>(of_k.at(z, y, x), f_.k.stride[5], g_.dim, T(1), k_.data());
            read_row<T>(of_v.at(z, y, x), f_.v.stride[5], g_.value_dim, T(1), v_.data());
            gather(*group.line[2], queries, bias, x);
          }
          write_row<T>(grad_k_.data(), g_.dim, to_k.at(z, y, x), f_.grad_k.stride[5]);
          write_row<T>(grad_v_.data(), g_.value_dim, to_v.at(z, y, x), f_.grad_v.stride[5]);
        }
      }
  }

 private:
  bool attended(int64_t item, const Group& group, const int64_t (&m)[3]) const {
    return !f_.key_mask ||
           f_.key_mask[item * g_.axis[0].size * g_.axis[1].size * g_.axis[2].size + group.position(g_, m)];
  }

  // The rows of queries that see the keys of a line (z, y).
  void rows_of_keys(const Group& group, const Box& queries, const BiasTable<T>& bias, int64_t z, int64_t y) {
    rows_.clear();
    for (int64_t zq = group.line[0]->from[size_t(z)]; zq < group.line[0]->to[size_t(z)]; ++zq)
      for (int64_t yq = group.line[1]->from[size_t(y)]; yq < group.line[1]->to[size_t(y)]; ++yq)
        rows_.add(queries.row(zq, yq), bias.at(z - zq, y - yq));
  }

  void gather(const Line& line, const Box& queries, const BiasTable<T>& bias, int64_t x) {
    const int64_t first = line.from[size_t(x)], count = line.to[size_t(x)] - first;
    each_part<T>(rows_, first - queries.lo[2], first - x, count, [&](const Part<T>& part) {
      dots(k_.data(), q_, part, scores_.number);
      dots(v_.data(), upstream_, part, shares_.number);
      finish_scores(part, bias.data(), static_cast<const ByChannel<T>*>(nullptr), scores_.number);
      each_vector<T>(part, [&](int64_t at, int r, int64_t t, bool) __attribute__((always_inline)) {
        const Vec<T> lse = load(lse_.at(part.panel[r], part.x + t)), common = load(common_.at(part.panel[r], part.x + t));
        const Vec<T> p = exp_negative<T>(load(scores_.number + at) - lse);
        store(scores_.number + at, p * (load(shares_.number + at) - common));
        store(shares_.number + at, p);
      });
      add_rows(scores_.number, queries_, part, grad_k_.data());
      add_rows(shares_.number, upstreams_, part, grad_v_.data());
    });
  }

  const qna::Backward& f_;
  const Geometry& g_;
  const T* delta_;
  Copier<T, S> copier_;
  ByChannel<T> q_, upstream_, lse_, common_;
  ByPosition<T> queries_, upstreams_;
  Array<T> k_, v_, grad_k_, grad_v_;
  Rows rows_;
  PartNumbers<T> scores_, shares_;
};

}  // namespace
