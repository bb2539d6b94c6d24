// Forward pass of one tile, line by line: denominators, inverses, values.
#pragma once

#include <type_traits>

#include "lines.h"

namespace {

// Maps beyond this are taken to be in memory rather than in a cache, and rows are asked for a line ahead.
constexpr int64_t kCacheBytes = 12 << 20;
// Outputs that are converted together, where they are not written in place; whole blocks.
constexpr int64_t kConverted = 4 * kMaxPixels;

template <class T> Span<T> span_of(const Window<T>& w, const Kernel<T>& ker, int64_t line) {
  return {w.e.data(),         ker.eb.data(), ker.ebw.data(),      w.value.data(), w.line_taps(line),
          w.line_count(line), w.run(),       w.geo.stride[2], w.step,         &w.lay,         nullptr};
}

// What one tap makes of one cell (at its first lane), for the lanes k .. k + V.
template <class T> Logit<T> exact_logit(const Window<T>& w, const Kernel<T>& ker, int64_t at, int64_t weight, int k) {
  return logit<T>(load(&w.scores[at + k]), load(&ker.bias[weight + k]));
}

// The largest of a window, per lane: two numbers, those of Logit.
template <class T> Logit<T> load_top(const T* top, int lanes, int k) { return {load(top + k), load(top + lanes + k)}; }
template <class T> void store_top(T* top, int lanes, int k, const Logit<T>& x) {
  store(top + k, x.high), store(top + lanes + k, x.low);
}

// One output by its own maximum: out = sum_l r_l sum_t e^(score + bias - top_l) w v. Any scores, any bias. Keeps top
// (two rows of lanes) and r.
template <class T>
void forward_exact(const Window<T>& w, const Kernel<T>& ker, const Span<T>& s, int64_t cell, T* top, T* r, T* dst,
                   int64_t dst_step) {
  constexpr int V = Simd<T>::width;
  const Layout<T>& lay = w.lay;
  const int lanes = lay.lanes;
  for (int k = 0; k < lanes; k += V) {
    Logit<T> best{splat(-std::numeric_limits<T>::infinity()), Vec<T>{}};
    s.each_tap(cell, [&](int64_t from, int64_t weight) {
      best = larger(exact_logit(w, ker, from * lanes, weight, k), best);
    });
    Vec<T> sum{};
    s.each_tap(cell, [&](int64_t from, int64_t weight) {
      sum += exp_gap(exact_logit(w, ker, from * lanes, weight, k), best);
    });
    store_top(top, lanes, k, best);
    store(r + k, sum == Vec<T>{} ? Vec<T>{} : splat(T(1)) / sum);
  }
  if (!dst) return;
  const Exchanges<T> swap(lay);
  for (int c = 0; c < lay.dvec; ++c) store(dst + c * dst_step, Vec<T>{});
  s.each_tap(cell, [&](int64_t from, int64_t weight) {
    Vec<T> a{};
    for (int k = 0; k < lanes; k += V)
      a += exp_gap(exact_logit(w, ker, from * lanes, weight, k), load_top(top, lanes, k)) * load(r + k) *
           load(&ker.weight[weight + k]);
    a = swap.template queries<-1>(a);
    const T* v = w.value[from];
    for (int c = 0; c < lay.dvec; ++c) store(dst + c * dst_step, load(dst + c * dst_step) + a * load(v + c * w.step));
  });
}

// Denominators to their inverses; marks the pixels where one is too small to be trusted, or NaN because of a score or
// bias out of range, and says if there are any.
template <class T> inline bool invert(T* den, int64_t pixels, int lanes, char* rare) {
  bool any = false;
  for (int64_t p = 0; p < pixels; ++p) {
    bool small = false;
    for (int k = 0; k < lanes; k += Simd<T>::width, den += Simd<T>::width) {
      const Vec<T> s = load(den);
      small |= any_not_above<T>(s, splat(ExpLimits<T>::vanishing));
      store(den, inverse<T>(s));
    }
    rare[p] = small, any |= small;
  }
  return any;
}

// Everything a thread needs for forward tiles.
template <class T, class S> struct ForwardTask {
  static constexpr int V = Simd<T>::width;
  static constexpr bool same = std::is_same<S, T>::value;
  const qna::Forward& f;
  const Layout<T>& lay;
  const std::vector<Kernel<T>>& kernels;
  Window<T> w;
  ForwardTable<T> table;
  qna::ValueMap to;  // of the block's sub-pixel
  RowForm form;      // of its rows
  bool direct;       // they are written in place
  bool prefetch;
  Array<T> den, top, scratch;
  std::vector<char> rare;

  ForwardTask(const qna::Forward& f_, const Layout<T>& l, const std::vector<Kernel<T>>& k)
      : f(f_), lay(l), kernels(k), w(l, f_.geo), table(forward_table(l, f_.geo, w.runs)) {
    form = lay.row_form(f.out.stride[4], f.out.stride[5]);
    direct = form == RowForm::vectors && same;
    prefetch = w.runs && f.geo.batch * f.value.stride[0] * int64_t(sizeof(S)) > kCacheBytes;
    top.resize(size_t(lay.lanes) * 2);
  }

  void run(int64_t batch, int block, const int64_t (&lo)[3], const int64_t (&hi)[3]) {
    const S* scores = static_cast<const S*>(f.scores.data);
    w.place(lo, hi);
    w.load_scores(scores, f.scores.stride, batch, block, kernels[block].headroom);
    w.template start_values<S>(f.value, batch, block, w.lines_of_a_window());
    w.list_taps(lo, hi);
    const int64_t width = hi[2] - lo[2];
    to = f.out.at_subpixel(f.geo, lay.subpixel(block), sizeof(S));
    const int64_t(&os)[6] = to.stride;
    den.resize(size_t(whole_blocks(width) * lay.lanes)), rare.resize(width);
    scratch.resize(size_t(kConverted * lay.dvec * V));
    bool exact = false;
    int64_t l = 0;
    for (int64_t z = lo[0]; z < hi[0]; ++z)
      for (int64_t y = lo[1]; y < hi[1]; ++y, ++l) {
        Span<T> span = span_of(w, kernels[block], l);
        w.template load_lines<S>(w.end_of_lines(z, y));
        if (prefetch && w.in_place && y + 1 < hi[1] && w.line_count(l + 1) > 0)
          span.ahead = w.value.data() + w.line_taps(l + 1)[w.line_count(l + 1) - 1].cell;
        // all denominators of the line first: no block waits for its own division
        table.denominators(span, 0, whole_blocks(width), den.data());
        const bool any = invert(den.data(), width, lay.lanes, rare.data());
        if (any && !exact) w.load_exact(scores, f.scores.stride, batch, block), exact = true;
        S* out = static_cast<S*>(to.data) + batch * os[0] + z * os[1] + y * os[2] + lo[2] * os[3];
        line(span, kernels[block], block, width, any, out);
      }
  }

 private:
  // Values of one line of `live` outputs; `any`: some of them are marked rare.
  void line(const Span<T>& span, const Kernel<T>& ker, int block, int64_t live, bool any, S* out) {
    const int P = lay.pixels;
    const Rows<T> room{scratch.data(), int64_t(lay.dvec) * V, V, false};
    const int64_t pixel = to.stride[3];
    if constexpr (same)
      if (direct) {
        const Rows<T> rows{out + lay.first_head(block), pixel, lay.vector_step(), true};
        const int64_t whole = live / P, rest = live - whole * P;
        table.all_values(span, 0, whole, den.data(), rows);
        if (rest > 0) {  // a block that runs past the line must not write there
          table.all_values(span, whole * P * span.stride, 1, &den[whole * P * lay.lanes], room);
          for (int64_t p = 0; p < rest; ++p)
            for (int c = 0; c < lay.dvec; ++c)
              store(rows.data + (whole * P + p) * rows.pixel + c * rows.step, load(room.data + p * room.pixel + c * V));
        }
        if (any) exact_rows(span, ker, 0, live, rows);
        return;
      }
    // so few at a time that they are still in the first-level cache when they are written
    for (int64_t first = 0; first < live; first += kConverted) {
      const int64_t count = std::min(live - first, kConverted);
      table.all_values(span, first * span.stride, (count + P - 1) / P, &den[first * lay.lanes], room);
      if (any) exact_rows(span, ker, first, count, room);
      write_rows(lay, block, out + first * pixel, pixel, to.stride[4], to.stride[5], form, room.data, room.pixel, count);
    }
  }

  void exact_rows(const Span<T>& span, const Kernel<T>& ker, int64_t first, int64_t count, const Rows<T>& rows) {
    for (int64_t p = 0; p < count; ++p)
      if (rare[first + p])
        forward_exact(w, ker, span, (first + p) * span.stride, top.data(), &den[(first + p) * lay.lanes],
                      rows.data + p * rows.pixel, rows.step);
  }
};

}  // namespace
