// Backward pass, in two sweeps that only ever write what they own, so that no result depends on scheduling.
//
//   sweep 1, over boxes of outputs i:    r = 1 / denominator,  D[l,h] = sum_t P W G,  G[t,h] = sum_d grad[i] value[j]
//   sweep 2, over boxes of positions j:  gathers from every window i that holds j
//       grad_value[j] += A grad[i],  A = sum_l P W        grad_scores[j] += P (W G - D)
//       grad_bias[t]  += P (W G - D)                      grad_weight[t] += P G
#pragma once

#include <memory>

#include "forward.h"

namespace {

// Sum over the channel slices of a vector; every lane ends with the sum of its head.
template <class T, int DS> inline Vec<T> add_slices(const Layout<T>& lay, Vec<T> a) {
  if constexpr (DS == 1) a += exchange<T>(a, lay.swap[0]);
  if constexpr (DS < 0)
    for (int s = 0; s < lay.dup_steps; ++s) a += exchange<T>(a, lay.swap[s]);
  return a;
}

// The rows of grad_out at a line of outputs.
template <class T> struct GradLine {
  const T* const* rows;
  int64_t step;  // between channel vectors
  int64_t next;  // from a row to that of the next line, to be fetched by then
};

// Sweep 2's view of a line of positions ("pixels"): windows i are cells, taps lead from the first pixel to its window.
template <class T> struct Gather {
  const T *e, *r, *d, *eb, *ebw;
  const T* const* grad;
  const Tap* taps;
  int64_t count;       // of taps; a run of windows stands under its last tap, and the taps count down along it
  int64_t stride;      // cells of e between pixels; neighbouring pixels have neighbouring windows
  const T* const* value;  // pixel -> its channels
  T* const* dst;          // pixel -> grad_value
  T* grad_scores;         // [pixels][lanes]
  int64_t value_step, grad_step, dst_step;
  int64_t dst_next;       // from a row of dst to that of the next line
  T *products, *inner;    // [taps][lanes]: the sums of E r G and E r D, which make the tile's grad_bias and grad_weight
  const Layout<T>* lay;
};

// sum_c a_c b_c over NCV channel vectors and their slices; every lane ends with the sum of its head.
template <class T, int DS, int NCV>
QNA_INLINE Vec<T> dot_rows(const Layout<T>& lay, const Vec<T> (&a)[NCV], const T* b, int64_t step) {
  Vec<T> dot = a[0] * load(b);
  repeat<NCV - 1>(QNA_EACH(c_) {
    constexpr int c = 1 + decltype(c_)::value;
    dot += a[c] * load(b + c * step);
  });
  return add_slices<T, DS>(lay, dot);
}

template <class T, int G, int PS, int DS, int NCV, int P> struct BackwardLoops {
  static constexpr int V = Simd<T>::width, GG = G > 0 ? G : 1;

  // num[pixel][lane] += sum over taps and these channels of e eb w G
  static void products(const Span<T>& s, int64_t cell, int64_t blocks, const GradLine<T>& grad, int64_t first,
                       T* num) {
    const int groups = G > 0 ? G : s.lay->groups, lanes = groups * V;
    for (const T* const* rows = grad.rows; blocks > 0; --blocks, cell += P * s.stride, rows += P, num += P * lanes) {
      Vec<T> g[P][NCV], sum[P][GG];
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { g[p][c] = load(rows[p] + (first + c) * grad.step); });
        repeat<GG>(QNA_EACH(k) { sum[p][k] = Vec<T>{}; });
      });
      s.each_tap(cell, [&](int64_t at, int64_t weight) __attribute__((always_inline)) {
        const T* w = s.ebw + weight;
        repeat<P>(QNA_EACH(p) {
          const T* e = s.e + (at + p * s.stride) * lanes;
          const Vec<T> dot = dot_rows<T, DS>(*s.lay, g[p], s.value[at + p * s.stride] + first * s.step, s.step);
          if constexpr (G > 0)
            repeat<GG>(QNA_EACH(k) { sum[p][k] += load(e + k * V) * load(w + k * V) * dot; });
          else
            for (int k = 0; k < groups; ++k) {
              T* to = num + p * lanes + k * V;
              store(to, load(to) + load(e + k * V) * load(w + k * V) * dot);
            }
        });
      });
      if constexpr (G > 0) add_to<P>(num, sum);
    }
  }

  template <int N> QNA_INLINE static void add_to(T* to, const Vec<T> (&sum)[N][GG]) {
    repeat<N>(QNA_EACH(p) {
      repeat<GG>(QNA_EACH(k) {
        T* at = to + (p * G + k) * V;
        store(at, load(at) + sum[p][k]);
      });
    });
  }

  // All gradients of a line of positions from these channels; the term with D counts once, with the first channels.
  static void gather(const Gather<T>& s, int64_t e_cell, int64_t cell, int64_t blocks, int64_t first) {
    const int groups = G > 0 ? G : s.lay->groups, lanes = groups * V;
    const T own = first == 0 ? T(1) : T(0);
    const T* from = s.e + e_cell * lanes;
    for (int64_t x = 0; x < blocks * P; x += P, cell += P, from += P * s.stride * lanes) {
      Vec<T> acc[P][NCV], ds[P][GG], e[P][GG];
      T* grad_scores = s.grad_scores + x * lanes;
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { acc[p][c] = Vec<T>{}; });
        repeat<(G > 0 ? G : 0)>(QNA_EACH(k) {
          ds[p][k] = Vec<T>{}, e[p][k] = load(from + p * s.stride * lanes + k * V);
        });
      });
      for (int64_t i = 0; i < s.count; ++i) {
        const int64_t at = cell + s.taps[i].cell, t = s.taps[i].weight;
        Vec<T> product[GG], inner[GG];
        repeat<(G > 0 ? G : 0)>(QNA_EACH(k) {
          product[k] = load(s.products + t + k * V), inner[k] = load(s.inner + t + k * V);
        });
        repeat<P>(QNA_EACH(p) {
          const T* v = s.value[x + p] + first * s.value_step;
          Vec<T> row[NCV];
          repeat<NCV>(QNA_EACH(c) { row[c] = load(s.grad[at + p] + (first + c) * s.grad_step); });
          const Vec<T> dot = dot_rows<T, DS>(*s.lay, row, v, s.value_step);
          const T* r = s.r + (at + p) * lanes;
          const T* d = s.d + (at + p) * lanes;
          Vec<T> a{};
          for (int k = 0; k < groups; ++k) {
            const Vec<T> one = G > 0 ? e[p][G > 0 ? k : 0] : load(from + p * s.stride * lanes + k * V);
            const Vec<T> share = one * load(r + k * V), with = share * dot, less = share * (load(d + k * V) * own);
            const Vec<T> b = load(s.eb + t + k * V), bw = load(s.ebw + t + k * V), logit = with * bw - less * b;
            a += share * bw;
            if constexpr (G > 0) {
              ds[p][k] += logit, product[k] += with, inner[k] += less;
            } else {
              T *to = grad_scores + p * lanes + k * V, *q = s.products + t + k * V, *w = s.inner + t + k * V;
              store(to, load(to) + logit), store(q, load(q) + with), store(w, load(w) + less);
            }
          }
          a = add_queries<T, PS>(*s.lay, a);
          repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * row[c]; });
        });
        repeat<(G > 0 ? G : 0)>(QNA_EACH(k) {
          store(s.products + t + k * V, product[k]), store(s.inner + t + k * V, inner[k]);
        });
      }
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { store(s.dst[x + p] + (first + c) * s.dst_step, acc[p][c]); });
      });
      if constexpr (G > 0) add_to<P>(grad_scores, ds);
    }
  }
};

// Windows whose taps are neighbours along x (stride and dilation 1), R of them: a cell is loaded once for both pixels
// of a block, as in `ForwardRuns`, and a window line unrolls.
template <class T, int G, int PS, int DS, int NCV, int R> struct BackwardRuns {
  static constexpr int V = Simd<T>::width, lanes = G * V;
  static constexpr int kProductPixels = 2, kGatherPixels = NCV < 8 ? 2 : 1;  // as the registers allow

  // meet(cell, its number, pixel, tap) for all of P pixels that meet in a window line, cell by cell
  template <int P, class Load, class Meet> QNA_INLINE static void each_meeting(Load load_cell, Meet meet) {
    repeat<R + P - 1>(QNA_EACH(x_) {
      constexpr int x = decltype(x_)::value, p0 = x < R ? 0 : x - R + 1, p1 = x < P ? x + 1 : P;
      const auto cell = load_cell(x_);
      repeat<p1 - p0>(QNA_EACH(p_) {
        constexpr int p = p0 + decltype(p_)::value;
        meet(cell, x_, std::integral_constant<int, p>{}, std::integral_constant<int, x - p>{});
      });
    });
  }
  struct Row { Vec<T> c[NCV]; };
  QNA_INLINE static Row load_row(const T* from, int64_t step) {
    Row row;
    repeat<NCV>(QNA_EACH(c) { row.c[c] = load(from + c * step); });
    return row;
  }
  QNA_INLINE static Vec<T> dot(const Layout<T>& lay, const Row& a, const Row& b) {
    Vec<T> sum = a.c[0] * b.c[0];
    repeat<NCV - 1>(QNA_EACH(c) { sum += a.c[c + 1] * b.c[c + 1]; });
    return add_slices<T, DS>(lay, sum);
  }

  static void products(const Span<T>& s, int64_t start, int64_t blocks, const GradLine<T>& grad, int64_t first,
                       T* num) {
    constexpr int P = kProductPixels;
    for (const T* const* rows = grad.rows; blocks > 0; --blocks, start += P, rows += P, num += P * lanes) {
      if (s.ahead)
        repeat<P>(QNA_EACH(p) {
          fetch<T, NCV>(s.ahead[start + p], first * s.step, s.step);
          fetch<T, NCV>(rows[p], grad.next + first * grad.step, grad.step);
        });
      Row g[P];
      Vec<T> sum[P][G];
      repeat<P>(QNA_EACH(p) {
        g[p] = load_row(rows[p] + first * grad.step, grad.step);
        repeat<G>(QNA_EACH(k) { sum[p][k] = Vec<T>{}; });
      });
      for (int64_t i = 0; i < s.count; ++i) {
        const T* e = s.e + (start + s.taps[i].cell) * lanes;
        const T* w = s.ebw + s.taps[i].weight;
        const T* const* v = s.value + (start + s.taps[i].cell);
        each_meeting<P>(
            QNA_EACH(x) { return load_row(v[x] + first * s.step, s.step); },
            [&](const Row& row, auto x, auto p, auto t) __attribute__((always_inline)) {
              const Vec<T> product = dot(*s.lay, g[p], row);
              repeat<G>(QNA_EACH(k) {
                sum[p][k] += load(e + x * lanes + k * V) * load(w + t * lanes + k * V) * product;
              });
            });
      }
      BackwardLoops<T, G, PS, DS, NCV, P>::template add_to<P>(num, sum);
    }
  }

  static void gather(const Gather<T>& s, int64_t e_cell, int64_t cell, int64_t blocks, int64_t first) {
    if (first == 0) return gather_of<true>(s, e_cell, cell, blocks, 0);
    gather_of<false>(s, e_cell, cell, blocks, first);
  }

  template <bool First>
  static void gather_of(const Gather<T>& s, int64_t e_cell, int64_t cell, int64_t blocks, int64_t first) {
    constexpr int P = kGatherPixels;
    const T* from = s.e + e_cell * lanes;
    for (int64_t at = 0; at < blocks * P; at += P, cell += P, from += P * lanes) {
      Vec<T> acc[P][NCV], ds[P][G], e[P][G];
      Row v[P];
      repeat<P>(QNA_EACH(p) {
        v[p] = load_row(s.value[at + p] + first * s.value_step, s.value_step);
        fetch<T, NCV, true>(s.dst[at + p], s.dst_next + first * s.dst_step, s.dst_step);
        repeat<NCV>(QNA_EACH(c) { acc[p][c] = Vec<T>{}; });
        repeat<G>(QNA_EACH(k) { ds[p][k] = Vec<T>{}, e[p][k] = load(from + p * lanes + k * V); });
      });
      for (int64_t i = 0; i < s.count; ++i) {
        const int64_t window = cell + s.taps[i].cell, t0 = s.taps[i].weight;
        const T *r = s.r + window * lanes, *d = s.d + window * lanes, *eb = s.eb + t0, *ebw = s.ebw + t0;
        const T* const* grad = s.grad + window;
        Vec<T> product[R][G], inner[R][G];
        repeat<R>(QNA_EACH(t) {
          repeat<G>(QNA_EACH(k) {
            product[t][k] = load(s.products + t0 + t * lanes + k * V);
            inner[t][k] = load(s.inner + t0 + t * lanes + k * V);
          });
        });
        each_meeting<P>(
            QNA_EACH(x) { return load_row(grad[x] + first * s.grad_step, s.grad_step); },
            [&](const Row& row, auto x, auto p, auto back) __attribute__((always_inline)) {
              constexpr int t = R - 1 - decltype(back)::value;
              const Vec<T> with_value = dot(*s.lay, row, v[p]);
              Vec<T> a;
              repeat<G>(QNA_EACH(k) {
                const Vec<T> share = e[p][k] * load(r + x * lanes + k * V), with = share * with_value;
                const Vec<T> bw = load(ebw + t * lanes + k * V);
                ds[p][k] += with * bw;
                if constexpr (k == 0) a = share * bw;
                else a += share * bw;
                product[t][k] += with;
                if constexpr (First) {  // the term with D counts once
                  const Vec<T> less = share * load(d + x * lanes + k * V);
                  ds[p][k] -= less * load(eb + t * lanes + k * V);
                  inner[t][k] += less;
                }
              });
              a = add_queries<T, PS>(*s.lay, a);
              repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * row.c[c]; });
            });
        repeat<R>(QNA_EACH(t) {
          repeat<G>(QNA_EACH(k) {
            store(s.products + t0 + t * lanes + k * V, product[t][k]);
            store(s.inner + t0 + t * lanes + k * V, inner[t][k]);
          });
        });
      }
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { store(s.dst[at + p] + (first + c) * s.dst_step, acc[p][c]); });
      });
      BackwardLoops<T, G, PS, DS, NCV, P>::template add_to<P>(s.grad_scores + at * lanes, ds);
    }
  }
};

// The loops for one layout, for as many channel vectors as the entry says, and the pixels of a block in each.
template <class T> struct BackwardTable {
  struct Entry {
    void (*products)(const Span<T>&, int64_t cell, int64_t blocks, const GradLine<T>&, int64_t first,
                     T* num) = nullptr;
    void (*gather)(const Gather<T>&, int64_t e_cell, int64_t cell, int64_t blocks, int64_t first) = nullptr;
    int product_pixels = 0, gather_pixels = 0;
  };
  Entry entries[4];  // 8, 4, 2, 1 channel vectors
  bool runs;         // for `gather` a tap stands for a run of windows

  // f(entry, first channel vector)
  template <class F> void each(int64_t dvec, F f) const {
    int64_t c = 0;
    for (int i = 0, n = 8; i < 4; ++i, n /= 2)
      for (; entries[i].gather && c + n <= dvec; c += n) f(entries[i], c);
  }
};

template <class T, int G, int PS, int DS, int NCV, int P>
typename BackwardTable<T>::Entry backward_entry(const Geometry& geo, bool runs) {
  if constexpr (G > 0)  // the window of most networks, in registers of its own
    if (runs && geo.kernel[2] == 3) {
      using Runs = BackwardRuns<T, G, PS, DS, NCV, 3>;
      return {Runs::products, Runs::gather, Runs::kProductPixels, Runs::kGatherPixels};
    }
  using Loops = BackwardLoops<T, G, PS, DS, NCV, P>;
  return {Loops::products, Loops::gather, P, P};
}

template <class T, int G, int PS, int DS, int P> BackwardTable<T> backward_table(const Geometry& geo, bool runs) {
  BackwardTable<T> t;
  t.runs = G > 0 && runs && geo.kernel[2] == 3;
  if constexpr (P == 2 && kVectorBytes == 64) t.entries[0] = backward_entry<T, G, PS, DS, 8, P>(geo, runs);
  t.entries[1] = backward_entry<T, G, PS, DS, 4, P>(geo, runs);
  t.entries[2] = backward_entry<T, G, PS, DS, 2, P>(geo, runs);
  t.entries[3] = backward_entry<T, G, PS, DS, 1, P>(geo, runs);
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
// the exponents that the denominators are relative to. Where a tile needed the exact path also what those of its
// positions are relative to that took it (two rows of lanes, those of Logit); NaN for the others.
template <class T> struct Statistics {
  const Tiling tiles;
  int lanes;
  int64_t positions;
  Array<T> r, d, top;                       // [batch][block][position or tile][lanes]
  std::vector<std::unique_ptr<Array<T>>> exact;  // per tile: [position of the tile][2][lanes]
  int64_t blocks, first = 0;                     // the batch item that they start with

  Statistics(const Geometry& g, const Layout<T>& lay, int64_t tile, int64_t items)
      : tiles(g.out, tile), lanes(lay.lanes), positions(g.out[0] * g.out[1] * g.out[2]), blocks(lay.blocks) {
    r.resize(size_t(items * blocks * positions * lanes));
    d.resize(r.size());
    top.resize(size_t(items * blocks * tiles.total() * lanes));
    exact.resize(size_t(items * blocks * tiles.total()));
  }
  void start(int64_t item) {
    first = item;
    for (auto& e : exact) e.reset();
  }
  int64_t owner(int64_t batch, int block) const { return (batch - first) * blocks + block; }
};

}  // namespace
