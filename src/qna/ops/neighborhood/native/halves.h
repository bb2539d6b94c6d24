// The two halves of the op, by three sweeps between numbers of all taps, what is at a query and what is at its keys:
//
//     products   taps[i,t] = scale at_query[i] . at_key[t] + bias    scores, and the gradient of weights
//     sums       at_query[i] = scale sum_t taps[i,t] at_key[t]       values, and the gradient of a query
//     spread     at_key[j] = scale sum_i taps[i,t] at_query[i]       the gradients of a key and of a value
#pragma once

#include "backward.h"

namespace {

// Numbers of all taps of some neighbouring queries of a line, tap by tap, in the arithmetic type. They may be read a
// vector beyond their end.
template <class T, class S> class Taps {
 public:
  static constexpr int width = Simd<T>::width;

  explicit Taps(const Geometry& g) : taps_(1) {
    for (const qna::Axis& axis : g.axis) taps_ *= axis.kernel;
    pitch_ = round_up(taps_, width) + width;
    data_.assign(size_t(width * pitch_), T(0));
  }
  T* at(int64_t query) { return &data_[size_t(query * pitch_)]; }

  // Of `count` queries, at most a vector of them. Where these lie one after the other and taps do not, they are turned.
  void read(const S* from, int64_t step, int64_t tap_step, int64_t count) {
    if (step != 1 || tap_step == 1) {
      for (int64_t i = 0; i < count; ++i) read_row<T>(from + i * step, tap_step, taps_, T(1), at(i));
      return;
    }
    for (int64_t t = 0; t < taps_; t += width) {
      Vec<T> block[width];
      for (int64_t i = 0; i < width; ++i) {
        const S* row = from + (t + i) * tap_step;
        block[i] = t + i >= taps_ ? Vec<T>{} : count == width ? load_as<T>(row) : load_first<T>(row, int(count));
      }
      transpose<T>(block);
      for (int64_t i = 0; i < count; ++i) store(at(i) + t, block[i]);
    }
  }

  void write(S* to, int64_t step, int64_t tap_step, int64_t count) {
    if (step != 1 || tap_step == 1) {
      for (int64_t i = 0; i < count; ++i) write_row<T>(at(i), taps_, to + i * step, tap_step);
      return;
    }
    for (int64_t t = 0; t < taps_; t += width) {
      Vec<T> block[width];
      for (int64_t i = 0; i < width; ++i) block[i] = load(at(i) + t);
      transpose<T>(block);
      for (int64_t i = 0; i < std::min<int64_t>(width, taps_ - t); ++i) {
        S* row = to + (t + i) * tap_step;
        if (count == width) store_as<T>(row, block[i]);
        else store_first<T>(row, block[i], int(count));
      }
    }
  }

 private:
  int64_t taps_, pitch_;
  Array<T> data_;
};

// What the three sweeps have in common: one head at a time, a line of queries after the other.
template <class T, class S> class HalfSweep {
 public:
  explicit HalfSweep(const qna::Half& f) : f_(f), g_(f.geo), taps_(f.geo) {}

 protected:
  static constexpr int width = Simd<T>::width;

  // The rows of keys within `keys` that the queries of a line see, and which of their taps these are.
  void rows_of_line(const Group& group, const Box& keys, const BiasTable<T>& bias, int64_t z, int64_t y) {
    rows_.clear(), tap_rows_.clear();
    const Line &deep = *group.line[0], &down = *group.line[1];
    const auto each = [&](const Line& line, int axis, int64_t m, auto work) {
      for (int64_t key = std::max(line.first[size_t(m)], keys.lo[axis]);
           key < std::min(line.last[size_t(m)], keys.hi[axis]); ++key)
        work(key, key - line.first[size_t(m)] + line.skipped[size_t(m)]);
    };
    each(deep, 0, z, [&](int64_t zk, int64_t tz) {
      each(down, 1, y, [&](int64_t yk, int64_t ty) {
        rows_.add(keys.row(zk, yk), bias.at(zk - z, yk - y));
        tap_rows_.push_back((tz * g_.axis[1].kernel + ty) * g_.axis[2].kernel);
      });
    });
  }

  // Taps that a query of a line sees in every row of keys within `keys`.
  struct Seen {
    int64_t first, taps, tap;  // key, how many from there on, number of the first
  };
  Seen seen(const Group& group, const Box& keys, int64_t x) const {
    const Line& line = *group.line[2];
    const int64_t from = line.first[size_t(x)], first = std::max(from, keys.lo[2]);
    return {first, std::min(line.last[size_t(x)], keys.hi[2]) - first, first - from + line.skipped[size_t(x)]};
  }

  // work(part, numbers of its first tap in each row) for all that a query sees.
  template <class Work> void parts(const Seen& seen, const Box& keys, int64_t x, T* taps, Work work) {
    const int64_t begin = seen.first - keys.lo[2];
    each_part<T>(rows_, begin, seen.first - x, seen.taps, [&](const Part<T>& part) {
      const int64_t* rows = &tap_rows_[size_t(part.panel - rows_.panel.data())];
      work(part, [&](int r, int64_t t) __attribute__((always_inline)) {
        return taps + rows[r] + seen.tap + part.x - begin + t;
      });
    });
  }

  // Numbers of a part's taps, as products and sums take them: zeros beside the last, and where a mask hides a key.
  template <class At> void pack(const Part<T>& part, At at, const ByChannel<T>* mask) {
    const IVec<T> last = part.last();
    each_vector<T>(part, [&](int64_t n, int r, int64_t t, bool is_last) __attribute__((always_inline)) {
      Vec<T> x = load(at(r, t));
      if (is_last) x = last ? x : Vec<T>{};
      if (mask) x = load(mask->at(part.panel[r], part.x + t)) == Vec<T>{} ? x : Vec<T>{};
      store(part_.number + n, x);
    });
  }

  // work(z, y, x, how many) for the queries of a box in blocks of a vector, the rows of keys being those of their line.
  template <class Work>
  void each_block(const Group& group, const Box& queries, const Box& keys, const BiasTable<T>& bias, Work work) {
    for (int64_t z = queries.lo[0]; z < queries.hi[0]; ++z)
      for (int64_t y = queries.lo[1]; y < queries.hi[1]; ++y) {
        rows_of_line(group, keys, bias, z, y);
        for (int64_t x = queries.lo[2]; x < queries.hi[2]; x += width)
          work(z, y, x, std::min<int64_t>(width, queries.hi[2] - x));
      }
  }
  int64_t step_of_queries(const Group& group) const { return group.line[2]->step * f_.taps.stride[3]; }

  const qna::Half& f_;
  const Geometry& g_;
  Copier<T, S> copier_;
  Taps<T, S> taps_;
  Rows rows_;
  std::vector<int64_t> tap_rows_;
  PartNumbers<T> part_;
  Array<T> row_;
};

template <class T, class S> class Products : HalfSweep<T, S> {
 public:
  using HalfSweep<T, S>::HalfSweep;

  void run(int64_t item, int64_t head, const Group& group, const Box& box) {
    const BiasTable<T> bias(g_, f_.bias, head, false);
    const Box keys = seen_by(box, group, true);
    copier_.box(f_.at_key, item, head, group, keys, g_.dim, T(1), g_, f_.key_mask, nullptr, &keys_);
    if (f_.key_mask) mask_rows(f_, item, group, keys, mask_);
    const Head<const S> from(f_.at_query, item, head, group);
    const Head<S> to(f_.taps, item, head, group);
    row_.resize(size_t(round_up(g_.dim, width)));
    this->each_block(group, box, keys, bias, [&](int64_t z, int64_t y, int64_t x, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        read_row<T>(from.at(z, y, x + i), f_.at_query.stride[5], g_.dim, T(f_.scale), row_.data());
        const auto seen = this->seen(group, keys, x + i);
        T* taps = taps_.at(i);
        this->parts(seen, keys, x + i, taps, [&](const Part<T>& part, auto at) {
          dots(row_.data(), keys_, part, part_.number);
          finish(part, bias.data(), at);
        });
        fill(seen, taps);
      }
      taps_.write(to.at(z, y, x), this->step_of_queries(group), f_.taps.stride[5], count);
    });
  }

 private:
  using Base = HalfSweep<T, S>;
  using Base::copier_, Base::f_, Base::g_, Base::part_, Base::row_, Base::tap_rows_, Base::taps_, Base::width;

  // Whole vectors are written: what is beside a row is written by the next, or filled afterwards.
  template <class At> void finish(const Part<T>& part, const T* bias, At at) {
    const Vec<T> hidden = splat(T(f_.unseen));
    each_vector<T>(part, [&](int64_t n, int r, int64_t t, bool) __attribute__((always_inline)) {
      Vec<T> x = load(part_.number + n);
      if (bias) x += load(bias + part.bias[r] + part.offset + t);
      if (f_.key_mask) x = load(mask_.at(part.panel[r], part.x + t)) == Vec<T>{} ? x : hidden;
      store(at(r, t), x);
    });
  }

  // What a query does not see.
  void fill(const typename Base::Seen& seen, T* taps) const {
    const int64_t rows = g_.axis[0].kernel * g_.axis[1].kernel, kernel = g_.axis[2].kernel;
    if (int64_t(tap_rows_.size()) == rows && seen.taps == kernel) return;
    const T unseen = T(f_.unseen);
    size_t next = 0;
    for (int64_t row = 0; row < rows; ++row, taps += kernel) {
      const bool here = seen.taps > 0 && next < tap_rows_.size() && tap_rows_[next] == row * kernel;
      std::fill(taps, taps + (here ? seen.tap : kernel), unseen);
      if (here) std::fill(taps + seen.tap + seen.taps, taps + kernel, unseen), ++next;
    }
  }

  ByChannel<T> keys_, mask_;
};

template <class T, class S> class WeightedSums : HalfSweep<T, S> {
 public:
  using HalfSweep<T, S>::HalfSweep;

  // Adds to `of_bias`, where that is wanted, the numbers of all taps by their offset.
  void run(int64_t item, int64_t head, const Group& group, const Box& box, std::vector<double>& of_bias) {
    const BiasTable<T> bias(g_, f_.bias, head, false);
    const Box keys = seen_by(box, group, true);
    copier_.box(f_.at_key, item, head, group, keys, g_.dim, T(1), g_, f_.key_mask, &keys_, nullptr);
    if (f_.key_mask) mask_rows(f_, item, group, keys, mask_);
    if (f_.grad_bias) grad_bias_.assign(bias.numbers.size(), T(0));
    const Head<const S> from(f_.taps, item, head, group);
    const Head<S> to(f_.at_query, item, head, group);
    row_.resize(size_t(round_up(g_.dim, width)));
    this->each_block(group, box, keys, bias, [&](int64_t z, int64_t y, int64_t x, int64_t count) {
      taps_.read(from.at(z, y, x), this->step_of_queries(group), f_.taps.stride[5], count);
      for (int64_t i = 0; i < count; ++i) {
        std::fill(row_.begin(), row_.end(), T(0));
        this->parts(this->seen(group, keys, x + i), keys, x + i, taps_.at(i), [&](const Part<T>& part, auto at) {
          this->pack(part, at, f_.key_mask ? &mask_ : nullptr);
          add_rows(part_.number, keys_, part, row_.data());
          if (f_.grad_bias)
            each_vector<T>(part, [&](int64_t n, int r, int64_t t, bool) {
              T* entry = &grad_bias_[size_t(part.bias[r] + part.offset + t)];
              store(entry, load(entry) + load(part_.number + n));
            });
        });
        multiply(row_.data(), int64_t(row_.size()), T(f_.scale));
        write_row<T>(row_.data(), g_.dim, to.at(z, y, x + i), f_.at_query.stride[5]);
      }
    });
    if (f_.grad_bias) add_table(bias, grad_bias_, of_bias);
  }

 private:
  using Base = HalfSweep<T, S>;
  using Base::copier_, Base::f_, Base::g_, Base::part_, Base::row_, Base::taps_, Base::width;

  ByPosition<T> keys_;
  ByChannel<T> mask_;
  Array<T> grad_bias_;
};

// Owns a box of keys: what each query gives them is added up in the order of the queries.
template <class T, class S> class Spread : HalfSweep<T, S> {
 public:
  using HalfSweep<T, S>::HalfSweep;

  void run(int64_t item, int64_t head, const Group& group, const Box& keys) {
    const BiasTable<T> no_bias(g_, nullptr, head, false);
    sums_.resize(keys.rows(), keys.size(2), g_.dim);
    std::fill(sums_.data.begin(), sums_.data.end(), T(0));
    const Head<const S> from(f_.taps, item, head, group), queries(f_.at_query, item, head, group);
    row_.resize(size_t(round_up(g_.dim, width)));
    const Box asking = seen_by(keys, group, false);
    this->each_block(group, asking, keys, no_bias, [&](int64_t z, int64_t y, int64_t x, int64_t count) {
      taps_.read(from.at(z, y, x), this->step_of_queries(group), f_.taps.stride[5], count);
      for (int64_t i = 0; i < count; ++i) {
        read_row<T>(queries.at(z, y, x + i), f_.at_query.stride[5], g_.dim, T(f_.scale), row_.data());
        this->parts(this->seen(group, keys, x + i), keys, x + i, taps_.at(i), [&](const Part<T>& part, auto at) {
          this->pack(part, at, nullptr);
          add_to_rows(part_.number, row_.data(), part, sums_);
        });
      }
    });
    write(item, head, group, keys);
  }

 private:
  using Base = HalfSweep<T, S>;
  using Base::copier_, Base::f_, Base::g_, Base::part_, Base::row_, Base::taps_, Base::width;

  void write(int64_t item, int64_t head, const Group& group, const Box& keys) {
    const Head<S> to(f_.at_key, item, head, group);
    const int64_t positions = g_.axis[0].size * g_.axis[1].size * g_.axis[2].size;
    for (int64_t z = keys.lo[0]; z < keys.hi[0]; ++z)
      for (int64_t y = keys.lo[1]; y < keys.hi[1]; ++y)
        for (int64_t x = keys.lo[2]; x < keys.hi[2]; ++x) {
          T* sum = sums_.at(keys.row(z, y), x - keys.lo[2]);
          if (f_.key_mask && !f_.key_mask[item * positions + group.position(g_, {z, y, x})])
            std::fill(sum, sum + sums_.pitch, T(0));
          write_row<T>(sum, g_.dim, to.at(z, y, x), f_.at_key.stride[5]);
        }
  }

  ByPosition<T> sums_;
};

}  // namespace
