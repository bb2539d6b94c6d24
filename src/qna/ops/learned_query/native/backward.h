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

// Sweep 2's view: windows i are cells, taps lead from the block's first position to its window.
template <class T> struct Gather {
  const T *e, *r, *d, *eb, *ebw;
  const T* const* grad;
  const Tap* taps;
  int64_t count, stride;        // stride: cells of e between pixels; neighbouring pixels have neighbouring windows
  int64_t value_step, grad_step;
  T *sum_bias, *sum_weight;     // [taps][lanes]
  const Layout<T>* lay;
};

template <class T, int G, int PS, int DS, int NCV, int P> struct BackwardLoops {
  static constexpr int V = Simd<T>::width;

  // num[p][lane] += sum over taps and these channels of e eb w G
  static void products(const Span<T>& s, int64_t cell, const T* const* grad, int64_t grad_step, int64_t first, T* num) {
    const int groups = G > 0 ? G : s.lay->groups, lanes = groups * V;
    Vec<T> g[P][NCV], sum[P][G > 0 ? G : 1];
    repeat<P>(QNA_EACH(p) {
      repeat<NCV>(QNA_EACH(c) { g[p][c] = load(grad[p] + (first + c) * grad_step); });
      repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { sum[p][k] = Vec<T>{}; });
    });
    s.each_tap(cell, [&](int64_t at, int64_t weight) __attribute__((always_inline)) {
      const T* w = s.ebw + weight;
      repeat<P>(QNA_EACH(p) {
        const T* e = s.e + (at + p * s.stride) * lanes;
        const T* v = s.value[at + p * s.stride] + first * s.step;
        Vec<T> dot = g[p][0] * load(v);
        repeat<NCV - 1>(QNA_EACH(c_) { constexpr int c = 1 + decltype(c_)::value; dot += g[p][c] * load(v + c * s.step); });
        dot = add_slices<T, DS>(*s.lay, dot);
        if constexpr (G > 0)
          repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { sum[p][k] += load(e + k * V) * load(w + k * V) * dot; });
        else
          for (int k = 0; k < groups; ++k) {
            T* to = num + p * lanes + k * V;
            store(to, load(to) + load(e + k * V) * load(w + k * V) * dot);
          }
      });
    });
    if constexpr (G > 0)
      repeat<P>(QNA_EACH(p) { repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { store(num + p * lanes + k * V, load(num + p * lanes + k * V) + sum[p][k]); }); });
  }

  // All gradients of a block of positions from these channels; the term with D counts once, with the first channels.
  static void gather(const Gather<T>& s, int64_t e_cell, int64_t cell, const T* const* value, int64_t first, T* grad_scores,
                     T* const* dst, int64_t dst_step) {
    const int groups = G > 0 ? G : s.lay->groups, lanes = groups * V;
    constexpr int GG = G > 0 ? G : 1;
    Vec<T> acc[P][NCV], ds[P][GG], e[P][GG];
    const T* from = s.e + e_cell * lanes;
    const T own = first == 0 ? T(1) : T(0);
    repeat<P>(QNA_EACH(p) {
      repeat<NCV>(QNA_EACH(c) { acc[p][c] = Vec<T>{}; });
      repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { ds[p][k] = Vec<T>{}, e[p][k] = load(from + p * s.stride * lanes + k * V); });
    });
    for (int64_t i = 0; i < s.count; ++i) {
      const int64_t at = cell + s.taps[i].cell, t = s.taps[i].weight;
      Vec<T> sb[GG], sw[GG];
      repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { sb[k] = load(s.sum_bias + t + k * V), sw[k] = load(s.sum_weight + t + k * V); });
      repeat<P>(QNA_EACH(p) {
        const T* g = s.grad[at + p] + first * s.grad_step;
        const T* v = value[p] + first * s.value_step;
        Vec<T> gc[NCV];
        repeat<NCV>(QNA_EACH(c) { gc[c] = load(g + c * s.grad_step); });
        Vec<T> dot = gc[0] * load(v);
        repeat<NCV - 1>(QNA_EACH(c_) { constexpr int c = 1 + decltype(c_)::value; dot += gc[c] * load(v + c * s.value_step); });
        dot = add_slices<T, DS>(*s.lay, dot);
        const T* r = s.r + (at + p) * lanes;
        const T* d = s.d + (at + p) * lanes;
        Vec<T> a{};
        for (int k = 0; k < groups; ++k) {
          Vec<T> er = (G > 0 ? e[p][G > 0 ? k : 0] : load(from + p * s.stride * lanes + k * V)) * load(r + k * V);
          Vec<T> share = er * load(s.eb + t + k * V), x = er * load(s.ebw + t + k * V);
          Vec<T> logit = x * dot - share * (load(d + k * V) * own);
          a += x;
          if constexpr (G > 0) {
            ds[p][k] += logit, sb[k] += logit, sw[k] += share * dot;
          } else {
            T *to = grad_scores + p * lanes + k * V, *b = s.sum_bias + t + k * V, *w = s.sum_weight + t + k * V;
            store(to, load(to) + logit), store(b, load(b) + logit), store(w, load(w) + share * dot);
          }
        }
        a = add_queries<T, PS>(*s.lay, a);
        repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * gc[c]; });
      });
      repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { store(s.sum_bias + t + k * V, sb[k]), store(s.sum_weight + t + k * V, sw[k]); });
    }
    repeat<P>(QNA_EACH(p) {
      repeat<NCV>(QNA_EACH(c) { store(dst[p] + (first + c) * dst_step, acc[p][c]); });
      repeat<(G > 0 ? G : 0)>(QNA_EACH(k) { store(grad_scores + p * lanes + k * V, load(grad_scores + p * lanes + k * V) + ds[p][k]); });
    });
  }
};

template <class T> struct BackwardTable {
  void (*products[4])(const Span<T>&, int64_t, const T* const*, int64_t, int64_t, T*);
  void (*gather[4])(const Gather<T>&, int64_t, int64_t, const T* const*, int64_t, T*, T* const*, int64_t);
};

template <class T, int G, int PS, int DS, int P> BackwardTable<T> backward_table() {
  BackwardTable<T> t{};
  if constexpr (P == 2 && kVectorBytes == 64) {
    t.products[0] = BackwardLoops<T, G, PS, DS, 8, P>::products;
    t.gather[0] = BackwardLoops<T, G, PS, DS, 8, P>::gather;
  }
  t.products[1] = BackwardLoops<T, G, PS, DS, 4, P>::products;
  t.products[2] = BackwardLoops<T, G, PS, DS, 2, P>::products;
  t.products[3] = BackwardLoops<T, G, PS, DS, 1, P>::products;
  t.gather[1] = BackwardLoops<T, G, PS, DS, 4, P>::gather;
  t.gather[2] = BackwardLoops<T, G, PS, DS, 2, P>::gather;
  t.gather[3] = BackwardLoops<T, G, PS, DS, 1, P>::gather;
  return t;
}

template <class T, int P> BackwardTable<T> backward_table(const Layout<T>& lay) {
  if (lay.groups == 1 && lay.pack_steps == 0 && lay.dup_steps == 0) return backward_table<T, 1, 0, 0, P>();
  if (lay.groups == 1 && lay.pack_steps == 1 && lay.dup_steps == 1) return backward_table<T, 1, 1, 1, P>();
  if (lay.groups == 2 && lay.pack_steps == 0 && lay.dup_steps == 0) return backward_table<T, 2, 0, 0, P>();
  return backward_table<T, -1, -1, -1, P>();
}

// What sweep 1 leaves for sweep 2: per output position and lane, 1/denominator and D; per tile, the exponents that the
// denominators are relative to. Where a tile needed the exact path also what those of its positions are relative to
// that took it (two rows of lanes, those of Logit); NaN for the others.
template <class T> struct Statistics {
  const Tiling tiles;
  int lanes;
  int64_t positions;
  Array<T> r, d, top;                       // [batch][block][position or tile][lanes]
  std::vector<std::unique_ptr<Array<T>>> exact;  // per tile: [position of the tile][2][lanes]

  Statistics(const Geometry& g, const Layout<T>& lay, int64_t tile)
      : tiles(g.out, tile), lanes(lay.lanes), positions(g.out[0] * g.out[1] * g.out[2]) {
    r.resize(size_t(g.batch * lay.blocks * positions * lanes));
    d.resize(r.size());
    top.resize(size_t(g.batch * lay.blocks * tiles.total() * lanes));
    exact.resize(size_t(g.batch * lay.blocks * tiles.total()));
  }
};

}  // namespace
