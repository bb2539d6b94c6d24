// Backward pass, in two sweeps that only ever write what they own, so that no result depends on scheduling.
//
//   sweep 1, over boxes of outputs i:    r = 1 / denominator,  D[l,h] = sum_t P W G,  G[t,h] = sum_d grad[i] value[j]
//       grad_scores[j] += P W G     grad_bias[t] += P W G     grad_weight[t] += P G
//   sweep 2, over boxes of positions j:  gathers from every window i that holds j
//       grad_scores[j] -= P D       grad_bias[t] -= P D       grad_value[j] += A grad[i],  A = sum_l P W
//
// G takes as many operations as the value's gradient, so it is made once. What a box of windows adds to the scores'
// gradients stays with the box, borders included, until the second sweep puts the boxes together.
#pragma once

#include <memory>

#include "forward.h"

namespace {

// The rows of grad_out at a line of outputs.
template <class T> struct GradLine {
  const T* const* rows;
  int64_t step;  // between channel vectors
  int64_t next;  // from a row to that of the next line, to be fetched by then
};

// What sweep 1 makes of a line of windows and their cells.
template <class T> struct Scatter {
  const T* r;   // [pixels][lanes], 1 / denominator; 0 for pixels past the line
  T* num;       // [pixels][lanes]: D / r
  T* scores;    // [cells][lanes]: sum over windows of P W G
  T* products;  // [taps][lanes]: sum over windows of E r G, which makes the gradients of bias and weight
};

// Sweep 2's view of a line of positions ("pixels"): windows i are cells, taps lead from the first pixel to its window.
template <class T> struct Gather {
  const T *e, *r, *d, *eb, *ebw;
  const T* const* grad;
  const Tap* taps;
  int64_t count, run;  // of taps, and those of a run: its first window sees the pixel under its last tap
  int64_t stride;      // cells of e between pixels; neighbouring pixels have neighbouring windows
  T* const* dst;       // pixel -> grad_value
  T* grad_scores;      // [pixels][lanes]
  int64_t grad_step, dst_step;
  int64_t dst_next;    // from a row of dst to that of the next line
  bool onto;           // add to what the sub-pixels before have left in dst
  T* inner;            // [taps][lanes]: sum of E r D, the tile's part of grad_bias
  const Layout<T>* lay;
};

// Any window. G: score vectors per cell; PS, DS: lane exchanges that add up queries and channel slices.
template <class T, int G, int PS, int DS, int NCV, int P> struct BackwardLoops {
  static constexpr int V = Simd<T>::width, GG = G > 0 ? G : 1;

  // Sweep 1 for a line of windows, from these channels.
  static void scatter(const Span<T>& span, int64_t, int64_t pixels, const GradLine<T>& grads, int64_t first,
                      const Scatter<T>& sums) {
    const Span<T> s = span;  // copies, which no store can change
    const GradLine<T> grad = grads;
    const Scatter<T> to = sums;
    const Exchanges<T> swap(*s.lay);
    const int groups = G > 0 ? G : s.lay->groups, lanes = groups * V;
    int64_t cell = 0;
    for (int64_t x = 0; x < pixels; x += P, cell += P * s.stride) {
      const T* r = to.r + x * lanes;
      T* num = to.num + x * lanes;
      Vec<T> g[P][NCV], sum[P][GG];
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { g[p][c] = load(grad.rows[x + p] + (first + c) * grad.step); });
        repeat<GG>(QNA_EACH(k) { sum[p][k] = Vec<T>{}; });
      });
      s.each_tap(cell, [&](int64_t at, int64_t weight) __attribute__((always_inline)) {
        repeat<P>(QNA_EACH(p) {
          const T* v = s.value[at + p * s.stride] + first * s.step;
          Vec<T> dot = g[p][0] * load(v);
          repeat<NCV - 1>(QNA_EACH(c) { dot += g[p][c + 1] * load(v + (c + 1) * s.step); });
          dot = swap.template slices<DS>(dot);
          for (int k = 0; k < groups; ++k) {
            const int64_t i = (at + p * s.stride) * lanes + k * V, t = weight + k * V;
            const Vec<T> w = load(s.ebw + t), part = load(s.e + i) * dot, with = part * load(r + p * lanes + k * V);
            if constexpr (G > 0) sum[p][G > 0 ? k : 0] += part * w;
            else add(num + p * lanes + k * V, part * w);
            add(to.scores + i, with * w), add(to.products + t, with);
          }
        });
      });
      if constexpr (G > 0) add_to<P>(num, sum);
    }
  }

  QNA_INLINE static void add(T* to, Vec<T> x) { store(to, load(to) + x); }
  template <int N> QNA_INLINE static void add_to(T* to, const Vec<T> (&sum)[N][GG]) {
    repeat<N>(QNA_EACH(p) {
      repeat<GG>(QNA_EACH(k) { add(to + (p * G + k) * V, sum[p][k]); });
    });
  }

  // Sweep 2 for a line of positions, from these channels; the term with D counts once, with the first channels.
  static void gather(const Gather<T>& all, int64_t, int64_t e_cell, int64_t pixels, int64_t first) {
    const Gather<T> s = all;  // a copy, which no store can change
    const Exchanges<T> swap(*s.lay);
    int64_t cell = 0;
    const int groups = G > 0 ? G : s.lay->groups, lanes = groups * V;
    const T own = first == 0 ? T(1) : T(0);
    const T* from = s.e + e_cell * lanes;
    for (int64_t x = 0; x < pixels; x += P, cell += P, from += P * s.stride * lanes) {
      Vec<T> acc[P][NCV], ds[P][GG], e[P][GG];
      T* grad_scores = s.grad_scores + x * lanes;
      repeat<P>(QNA_EACH(p) {
        const T* dst = s.dst[x + p] + first * s.dst_step;
        repeat<NCV>(QNA_EACH(c) { acc[p][c] = s.onto ? load(dst + c * s.dst_step) : Vec<T>{}; });
        repeat<(G > 0 ? G : 0)>(QNA_EACH(k) {
          ds[p][k] = Vec<T>{}, e[p][k] = load(from + p * s.stride * lanes + k * V);
        });
      });
      for (int64_t i = 0; i < s.count; ++i) {
        const int64_t at = cell + s.taps[i].cell, t = s.taps[i].weight;
        Vec<T> inner[GG];
        repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { inner[k] = load(s.inner + t + k * V); });
        repeat<P>(QNA_EACH(p) {
          const T* r = s.r + (at + p) * lanes;
          const T* d = s.d + (at + p) * lanes;
          Vec<T> a{};
          for (int k = 0; k < groups; ++k) {
            const Vec<T> one = G > 0 ? e[p][G > 0 ? k : 0] : load(from + p * s.stride * lanes + k * V);
            const Vec<T> share = one * load(r + k * V), less = share * (load(d + k * V) * own);
            const Vec<T> logit = less * load(s.eb + t + k * V);
            a += share * load(s.ebw + t + k * V);
            if constexpr (G > 0) ds[p][k] -= logit, inner[k] += less;
            else add(grad_scores + p * lanes + k * V, -logit), add(s.inner + t + k * V, less);
          }
          a = swap.template queries<PS>(a);
          const T* row = s.grad[at + p] + first * s.grad_step;
          repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * load(row + c * s.grad_step); });
        });
        repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { store(s.inner + t + k * V, inner[k]); });
      }
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { store(s.dst[x + p] + (first + c) * s.dst_step, acc[p][c]); });
      });
      if constexpr (G > 0) add_to<P>(grad_scores, ds);
    }
  }
};

// Windows whose taps are neighbours along x (stride and dilation 1), and R of these taps: a cell is loaded once for all
// pixels of a block, as in `ForwardRuns`, and a window line unrolls.
template <class T, int G, int PS, int DS, int NCV, int R> struct BackwardRuns {
  static constexpr int V = Simd<T>::width, lanes = G * V;

  // meet(cell, its number, pixel, tap) for all of P pixels that meet in a window line, cell by cell; leave(cell, its
  // number) after the last pixel of each
  template <int P, class Load, class Meet, class Leave>
  QNA_INLINE static void each_meeting(Load load_cell, Meet meet, Leave leave) {
    repeat<R + P - 1>(QNA_EACH(x_) {
      constexpr int x = decltype(x_)::value, p0 = x < R ? 0 : x - R + 1, p1 = x < P ? x + 1 : P;
      auto cell = load_cell(x_);
      repeat<p1 - p0>(QNA_EACH(p_) {
        constexpr int p = p0 + decltype(p_)::value;
        meet(cell, x_, std::integral_constant<int, p>{}, std::integral_constant<int, x - p>{});
      });
      leave(cell, x_);
    });
  }
  struct Row { Vec<T> c[NCV]; };
  QNA_INLINE static Row load_row(const T* from, int64_t step) {
    Row row;
    repeat<NCV>(QNA_EACH(c) { row.c[c] = load(from + c * step); });
    return row;
  }
  // Their inner product, in two sums, because a chain of additions is what the processor waits for.
  QNA_INLINE static Vec<T> multiply(const Row& a, const Row& b) {
    if constexpr (NCV == 1) return a.c[0] * b.c[0];
    else {
      Vec<T> sum[2] = {a.c[0] * b.c[0], a.c[1] * b.c[1]};
      repeat<NCV - 2>(QNA_EACH(c) { sum[c % 2] += a.c[c + 2] * b.c[c + 2]; });
      return sum[0] + sum[1];
    }
  }
  // One vector for each of the score vectors of N taps.
  template <int N> struct Sums { Vec<T> of[N][G]; };
  template <int N> QNA_INLINE static Sums<N> load_sums(const T* from) {
    Sums<N> sums;
    repeat<N>(QNA_EACH(t) {
      repeat<G>(QNA_EACH(k) { sums.of[t][k] = load(from + t * lanes + k * V); });
    });
    return sums;
  }
  template <int N> QNA_INLINE static void store_sums(T* to, const Sums<N>& sums) {
    repeat<N>(QNA_EACH(t) {
      repeat<G>(QNA_EACH(k) { store(to + t * lanes + k * V, sums.of[t][k]); });
    });
  }

  // Taps tap .. tap + R - 1 of each window line.
  static void scatter(const Span<T>& span, int64_t tap, int64_t pixels, const GradLine<T>& grads, int64_t first,
                      const Scatter<T>& sums) {
    constexpr int P = NCV < 8 && R == 3 ? 4 : 2;  // as the registers allow
    struct Cell { Row row; Sums<1> e, scores; };
    const Span<T> s = span;  // copies, which no store can change
    const GradLine<T> grad = grads;
    const Scatter<T> to = sums;
    const Exchanges<T> swap(*s.lay);
    for (int64_t at = 0; at < pixels; at += P) {
      const T* const* rows = grad.rows + at;
      Row g[P];
      const Sums<P> r = load_sums<P>(to.r + at * lanes);
      Sums<P> num = load_sums<P>(to.num + at * lanes);
      repeat<P>(QNA_EACH(p) { g[p] = load_row(rows[p] + first * grad.step, grad.step); });
      for (int64_t i = 0; i < s.count; ++i) {
        if (s.ahead && tap == 0)
          for (int64_t p = i; p < P; p += 3) {
            fetch<T, NCV>(s.ahead[at + p], first * s.step, s.step);
            fetch<T, NCV>(rows[p], grad.next + first * grad.step, grad.step);
          }
        const int64_t cells = at + s.taps[i].cell + tap, weight = s.taps[i].weight + tap * lanes;
        const T *e = s.e + cells * lanes, *w = s.ebw + weight;
        const T* const* v = s.value + cells;
        T *scores = to.scores + cells * lanes, *products = to.products + weight;
        Sums<R> product = load_sums<R>(products);
        each_meeting<P>(
            QNA_EACH(x) {
              return Cell{load_row(v[x] + first * s.step, s.step), load_sums<1>(e + x * lanes),
                          load_sums<1>(scores + x * lanes)};
            },
            [&](Cell& cell, auto, auto p, auto t) __attribute__((always_inline)) {
              const Vec<T> dot = swap.template slices<DS>(multiply(g[p], cell.row));
              repeat<G>(QNA_EACH(k) {
                const Vec<T> part = cell.e.of[0][k] * dot, with = part * r.of[p][k], bw = load(w + t * lanes + k * V);
                num.of[p][k] += part * bw, cell.scores.of[0][k] += with * bw, product.of[t][k] += with;
              });
            },
            [&](const Cell& cell, auto x)
                __attribute__((always_inline)) { store_sums<1>(scores + x * lanes, cell.scores); });
        store_sums<R>(products, product);
      }
      store_sums<P>(to.num + at * lanes, num);
    }
  }

  static void gather(const Gather<T>& s, int64_t tap, int64_t e_cell, int64_t pixels, int64_t first) {
    if (first == 0) return gather_of<true>(s, tap, e_cell, pixels, 0);
    gather_of<false>(s, tap, e_cell, pixels, first);
  }

  template <bool First>
  static void gather_of(const Gather<T>& all, int64_t tap, int64_t e_cell, int64_t pixels, int64_t first) {
    constexpr int P = 2;
    const Gather<T> s = all;  // a copy, which no store can change
    const Exchanges<T> swap(*s.lay);
    for (int64_t at = 0; at < pixels; at += P) {
      Vec<T> acc[P][NCV];
      const Sums<P> e = load_sums<P>(s.e + (e_cell + at) * lanes);
      Sums<P> ds;
      if constexpr (First) ds = load_sums<P>(s.grad_scores + at * lanes);
      repeat<P>(QNA_EACH(p) {
        const T* dst = s.dst[at + p] + first * s.dst_step;
        fetch<T, NCV, true>(dst, s.dst_next, s.dst_step);
        repeat<NCV>(QNA_EACH(c) { acc[p][c] = tap > 0 || s.onto ? load(dst + c * s.dst_step) : Vec<T>{}; });
      });
      for (int64_t i = 0; i < s.count; ++i) {
        const int64_t window = at + s.taps[i].cell + s.run - tap - R, t0 = s.taps[i].weight + tap * lanes;
        const T *r = s.r + window * lanes, *d = s.d + window * lanes, *eb = s.eb + t0, *ebw = s.ebw + t0;
        const T* const* grad = s.grad + window;
        Sums<R> inner;
        if constexpr (First) inner = load_sums<R>(s.inner + t0);
        each_meeting<P>(
            QNA_EACH(x) { return load_row(grad[x] + first * s.grad_step, s.grad_step); },
            [&](const Row& row, auto x, auto p, auto back) __attribute__((always_inline)) {
              constexpr int t = R - 1 - decltype(back)::value;
              Vec<T> a;
              repeat<G>(QNA_EACH(k) {
                const Vec<T> share = e.of[p][k] * load(r + x * lanes + k * V), bw = load(ebw + t * lanes + k * V);
                if constexpr (k == 0) a = share * bw;
                else a += share * bw;
                if constexpr (First) {  // the term with D counts once
                  const Vec<T> less = share * load(d + x * lanes + k * V);
                  ds.of[p][k] -= less * load(eb + t * lanes + k * V), inner.of[t][k] += less;
                }
              });
              a = swap.template queries<PS>(a);
              repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * row.c[c]; });
            },
            [](const Row&, auto) {});
        if constexpr (First) store_sums<R>(s.inner + t0, inner);
      }
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { store(s.dst[at + p] + (first + c) * s.dst_step, acc[p][c]); });
      });
      if constexpr (First) store_sums<P>(s.grad_scores + at * lanes, ds);
    }
  }
};

// A run of taps in parts that have loops of their own, sizes 7, 5 and 3 (fp64: 3); none if it cannot be made of them.
template <class T> inline std::vector<int> parts_of_run(int64_t taps) {
  auto possible = [](int64_t n) { return n == 0 || (sizeof(T) == 4 ? n == 3 || n > 4 : n % 3 == 0); };
  std::vector<int> sizes;
  if (taps == 0 || !possible(taps)) return sizes;
  for (int n : {7, 5, 3})
    while (taps >= n && possible(taps - n) && (n == 3 || sizeof(T) == 4)) sizes.push_back(n), taps -= n;
  return sizes;
}

// The loops for one layout: what to call for as many channel vectors as the entry says, for parts of the taps.
template <class T> struct BackwardTable {
  struct Part {
    void (*scatter)(const Span<T>&, int64_t tap, int64_t pixels, const GradLine<T>&, int64_t first, const Scatter<T>&);
    void (*gather)(const Gather<T>&, int64_t tap, int64_t e_cell, int64_t pixels, int64_t first);
    int64_t tap = 0;
  };
  std::vector<Part> entries[4];  // 8, 4, 2, 1 channel vectors
  bool runs;                     // for `gather` a tap stands for a run of windows

  // f(part, first channel vector)
  template <class F> void each(int64_t dvec, F f) const {
    int64_t c = 0;
    for (int i = 0, n = 8; i < 4; ++i, n /= 2)
      for (; !entries[i].empty() && c + n <= dvec; c += n)
        for (const Part& part : entries[i]) f(part, c);
  }
};

template <class T, int G, int PS, int DS, int NCV, int P>
std::vector<typename BackwardTable<T>::Part> backward_entry(const std::vector<int>& sizes) {
  std::vector<typename BackwardTable<T>::Part> parts;
  if constexpr (G > 0) {
    int64_t tap = 0;
    auto add = [&](auto r) {
      using Runs = BackwardRuns<T, G, PS, DS, NCV, decltype(r)::value>;
      parts.push_back({Runs::scatter, Runs::gather, tap}), tap += r;
    };
    for (int r : sizes) {
      if (r == 3) add(std::integral_constant<int, 3>{});
      if constexpr (sizeof(T) == 4) {
        if (r == 5) add(std::integral_constant<int, 5>{});
        if (r == 7) add(std::integral_constant<int, 7>{});
      }
    }
    if (!parts.empty()) return parts;
  }
  using Loops = BackwardLoops<T, G, PS, DS, NCV, P>;
  return {{Loops::scatter, Loops::gather}};
}

template <class T, int G, int PS, int DS, int P> BackwardTable<T> backward_table(const Geometry& geo, bool runs) {
  const std::vector<int> sizes = G > 0 && runs ? parts_of_run<T>(geo.kernel[2]) : std::vector<int>{};
  BackwardTable<T> t;
  t.runs = !sizes.empty();
  if constexpr (P == 2 && kVectorBytes == 64) t.entries[0] = backward_entry<T, G, PS, DS, 8, P>(sizes);
  t.entries[1] = backward_entry<T, G, PS, DS, 4, P>(sizes);
  t.entries[2] = backward_entry<T, G, PS, DS, 2, P>(sizes);
  t.entries[3] = backward_entry<T, G, PS, DS, 1, P>(sizes);
  return t;
}

template <class T, int P> BackwardTable<T> backward_table(const Layout<T>& lay, const Geometry& geo, bool runs) {
  const int groups = lay.groups, pack = lay.pack_steps, dup = lay.dup_steps;
  if (groups == 1 && pack == 0 && dup == 0) return backward_table<T, 1, 0, 0, P>(geo, runs);
  if (groups == 1 && pack == 1 && dup == 1) return backward_table<T, 1, 1, 1, P>(geo, runs);
  if (groups == 2 && pack == 0 && dup == 0) return backward_table<T, 2, 0, 0, P>(geo, runs);
  return backward_table<T, -1, -1, -1, P>(geo, runs);
}

template <class T> BackwardTable<T> backward_table(const Layout<T>& lay, const Geometry& geo, bool runs) {
  return lay.pixels == 4 ? backward_table<T, 4>(lay, geo, runs) : backward_table<T, 2>(lay, geo, runs);
}

// What sweep 1 leaves for sweep 2, of some batch items: per output position and lane, 1/denominator and D; per tile,
// the exponents that the denominators are relative to, and the gradients that its windows give to the scores of all
// cells they see. Where a tile needed the exact path also what those of its positions are relative to that took it
// (two rows of lanes, those of Logit); NaN for the others.
template <class T> struct Statistics {
  struct Cells {
    int64_t lo[3], n[3];
    T* scores;  // [cells][lanes]
  };
  const Tiling tiles;
  int lanes;
  int64_t positions;
  Array<T> r, d, top;                       // [batch][block][position or tile][lanes]
  Array<T> scores;                          // what `cells` point to
  std::vector<std::unique_ptr<Array<T>>> exact;  // per tile: [position of the tile][2][lanes]
  std::vector<Cells> cells;                      // per tile
  int64_t blocks, first = 0;                     // the batch item that they start with

  // `kept`: tiles of an item whose scores are needed at a time, one after the other
  Statistics(const Geometry& g, const Layout<T>& lay, const Tiling& windows, int64_t items, int64_t kept)
      : tiles(windows), lanes(lay.lanes), positions(g.out[0] * g.out[1] * g.out[2]), blocks(lay.blocks) {
    r.resize(size_t(items * blocks * positions * lanes));
    d.resize(r.size());
    top.resize(size_t(items * blocks * tiles.total() * lanes));
    exact.resize(size_t(items * blocks * tiles.total())), cells.resize(exact.size());
    int64_t most = lanes;  // numbers of a tile's cells
    for (int a = 0; a < 3; ++a) {
      int64_t margin;
      const int64_t along = cells_along(g, a, tiles.size[a], &margin);
      most *= std::min(along, g.in[a] + 2 * margin);
    }
    const int64_t total = tiles.total();
    scores.resize(size_t(items * blocks * kept * most));
    for (int64_t i = 0; i < int64_t(cells.size()); ++i)
      cells[i].scores = &scores[size_t((i / total * kept + i % total % kept) * most)];
  }
  void start(int64_t item) {
    first = item;
    for (auto& e : exact) e.reset();
  }
  int64_t owner(int64_t batch, int block) const { return (batch - first) * blocks + block; }
};

}  // namespace
