// Inner loops of the forward pass over a line of neighbouring outputs: denominators, then values.
//
// A line is worked on inside one call, so that what a call costs, and what stays in registers from one block of pixels
// to the next, is paid once. Windows whose taps are neighbours along x have loops of their own (`ForwardRuns`).
#pragma once

#include "window.h"

namespace {

// What the inner loops read. Cells and weights of `taps` belong to the first pixel of the tile's line.
template <class T> struct Span {
  const T *e, *eb, *ebw;
  const T* const* value;
  const Tap* taps;
  int64_t count, run;  // entries of `taps`, and the neighbouring taps that each stands for
  int64_t stride;      // cells between pixels
  int64_t step;        // between channel vectors of a row
  const Layout<T>* lay;
  const T* const* ahead;  // rows that the next line will read first, to be fetched by then; or null

  // f(cell, weight) for every tap of the pixel at `cell`
  template <class F> QNA_INLINE void each_tap(int64_t cell, F f) const {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t x = 0; x < run; ++x) f(cell + taps[i].cell + x, taps[i].weight + x * lay->lanes);
  }
};

// Where the channel vectors of a line go.
template <class T> struct Rows {
  T* data;
  int64_t pixel, step;  // between pixels, between channel vectors
  bool ahead;           // ask for them ahead

  template <int NCV, int P> QNA_INLINE void fetch_ahead(const T* dst) const {
    if (ahead)
      repeat<P>(QNA_EACH(p) { fetch<T, NCV, true>(dst, (p + kPixelsAhead) * pixel, step); });
  }
};

// The layout's lane exchanges, copied to where no store can change them. A number of steps of -1: as the layout says.
template <class T> struct Exchanges {
  IVec<T> swap[6];
  int pack_steps, dup_steps;
  explicit Exchanges(const Layout<T>& lay) : pack_steps(lay.pack_steps), dup_steps(lay.dup_steps) {
    std::copy(lay.swap, lay.swap + 6, swap);
  }
  // Sum over the queries packed into one vector; every lane ends with the sum of its head.
  template <int PS> QNA_INLINE Vec<T> queries(Vec<T> a) const { return add<PS>(a, pack_steps); }
  // Sum over the channel slices of a vector; every lane ends with the sum of its head.
  template <int DS> QNA_INLINE Vec<T> slices(Vec<T> a) const { return add<DS>(a, dup_steps); }

 private:
  template <int N> QNA_INLINE Vec<T> add(Vec<T> a, int steps) const {
    if constexpr (N >= 0)
      repeat<(N > 0 ? N : 0)>(QNA_EACH(s) { a += exchange<T>(a, swap[s]); });
    else
      for (int s = 0; s < steps; ++s) a += exchange<T>(a, swap[s]);
    return a;
  }
};

// 1 / denominator of one pixel: in registers, or in memory where the number of score vectors is not known.
template <class T, int G> struct Inverse {
  Vec<T> r[G > 0 ? G : 1];
  const T* all;
  QNA_INLINE void set(const T* p) {
    all = p;
    repeat<(G > 0 ? G : 0)>(QNA_EACH(g) { r[g] = load(p + g * Simd<T>::width); });
  }
};

// The share A = sum_l E (e^B W) r that one tap of one pixel gives to its value.
template <class T, int G, int PS>
QNA_INLINE Vec<T> share(const Exchanges<T>& swap, int lanes, const T* e, const T* w, const Inverse<T, G>& inv) {
  constexpr int V = Simd<T>::width;
  Vec<T> a;
  if constexpr (G > 0) {
    a = load(e) * load(w) * inv.r[0];
    repeat<(G > 1 ? G - 1 : 0)>(QNA_EACH(g_) {
      constexpr int g = 1 + decltype(g_)::value;
      a += load(e + g * V) * load(w + g * V) * inv.r[g];
    });
  } else {
    a = load(e) * load(w) * load(inv.all);
    for (int k = V; k < lanes; k += V) a += load(e + k) * load(w + k) * load(inv.all + k);
  }
  return swap.template queries<PS>(a);
}

// Any window. G: score vectors per cell; PS: lane exchanges per vector; -1 = as the layout says.
template <class T, int G, int PS, int NCV, int P> struct ForwardLoops {
  static constexpr int V = Simd<T>::width;

  static void denominators(const Span<T>& s, int64_t cell, int64_t pixels, T* den) {
    constexpr int Q = kMaxPixels;
    const int lanes = s.lay->lanes;
    for (int64_t x = 0; x < pixels; x += Q, cell += Q * s.stride, den += Q * lanes)
      for (int k = 0; k < lanes; k += V) {
        Vec<T> sum[Q];
        repeat<Q>(QNA_EACH(p) { sum[p] = Vec<T>{}; });
        for (int64_t i = 0; i < s.count; ++i) {
          const T* e = s.e + (cell + s.taps[i].cell) * lanes + k;
          const Vec<T> b = load(s.eb + s.taps[i].weight + k);
          repeat<Q>(QNA_EACH(p) { sum[p] += load(e + p * s.stride * lanes) * b; });
        }
        repeat<Q>(QNA_EACH(p) { store(den + p * lanes + k, sum[p]); });
      }
  }

  static void values(const Span<T>& s, int64_t cell, int64_t blocks, const T* r, int64_t first, const Rows<T>& to) {
    const int lanes = G > 0 ? G * V : s.lay->lanes;
    const Exchanges<T> swap(*s.lay);
    T* dst = to.data + first * to.step;
    for (; blocks > 0; --blocks, cell += P * s.stride, r += P * lanes, dst += P * to.pixel) {
      to.template fetch_ahead<NCV, P>(dst);
      Vec<T> acc[P][NCV];
      Inverse<T, G> inv[P];
      repeat<P>(QNA_EACH(p) {
        inv[p].set(r + p * lanes);
        repeat<NCV>(QNA_EACH(c) { acc[p][c] = Vec<T>{}; });
      });
      for (int64_t i = 0; i < s.count; ++i) {
        const int64_t at = cell + s.taps[i].cell;
        const T* w = s.ebw + s.taps[i].weight;
        repeat<P>(QNA_EACH(p) {
          const Vec<T> a = share<T, G, PS>(swap, lanes, s.e + (at + p * s.stride) * lanes, w, inv[p]);
          const T* v = s.value[at + p * s.stride] + first * s.step;
          repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * load(v + c * s.step); });
        });
      }
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { store(dst + p * to.pixel + c * to.step, acc[p][c]); });
      });
    }
  }
};

constexpr int kHeldTaps = kVectorBytes == 64 ? 8 : 4;  // static weights that fit the registers beside the sums

// The denominators' part of windows whose taps are neighbours along x.
template <class T, int G> struct RunDenominators {
  static constexpr int V = Simd<T>::width, Q = kMaxPixels;
  using Add = void (*)(const T*, const T*, int64_t, int, T*);

  // N neighbouring taps for all pixels of a line: their weights stay in registers, the sums pass through memory.
  template <int N, bool First> static void add(const T* e, const T* b, int64_t pixels, int all_lanes, T* den) {
    const int lanes = G > 0 ? G * V : all_lanes;
    for (int k = 0; k < lanes; k += V) {
      Vec<T> held[N];
      repeat<N>(QNA_EACH(n) { held[n] = load(b + n * lanes + k); });
      const T* from = e + k;
      T* to = den + k;
      for (int64_t x = 0; x < pixels; x += Q, from += Q * lanes, to += Q * lanes) {
        Vec<T> sum[Q], ev[Q + N - 1];
        repeat<Q + N - 1>(QNA_EACH(c) { ev[c] = load(from + c * lanes); });
        repeat<Q>(QNA_EACH(q) {
          if constexpr (First) sum[q] = ev[q] * held[0];
          else sum[q] = load(to + q * lanes) + ev[q] * held[0];
        });
        repeat<N - 1>(QNA_EACH(n_) {
          constexpr int n = 1 + decltype(n_)::value;
          repeat<Q>(QNA_EACH(q) { sum[q] += ev[q + n] * held[n]; });
        });
        repeat<Q>(QNA_EACH(q) { store(to + q * lanes, sum[q]); });
      }
    }
  }

  template <bool First, int... N> static Add adder(int64_t taps, std::integer_sequence<int, N...>) {
    static constexpr Add of[] = {add<N + 1, First>...};
    return of[taps - 1];
  }

  static void line(const Span<T>& s, int64_t cell, int64_t pixels, T* den) {
    const int lanes = s.lay->lanes;
    const std::make_integer_sequence<int, kHeldTaps> upto{};
    const int64_t parts = (s.run + kHeldTaps - 1) / kHeldTaps;
    if (s.count == 0) std::fill(den, den + pixels * lanes, T(0));
    for (int64_t i = 0; i < s.count; ++i)
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t x = s.run * part / parts, n = s.run * (part + 1) / parts - x;
        const Add f = i + part == 0 ? adder<true>(n, upto) : adder<false>(n, upto);
        f(s.e + (cell + s.taps[i].cell + x) * lanes, s.eb + s.taps[i].weight + x * lanes, pixels, lanes, den);
      }
  }
};

// Windows whose taps are neighbours along x (stride and dilation 1): a cell is loaded once for all the pixels of a
// block that see it. Pixel p sees the run's cell x under tap x - p. Needs a run of at least P - 1 taps.
template <class T, int G, int PS, int NCV, int P> struct ForwardRuns {
  static constexpr int V = Simd<T>::width;

  // One cell's part of the pixels P0 .. P1 - 1; w: the weights of the tap under which pixel 0 sees it.
  template <int P0, int P1>
  QNA_INLINE static void cell(const Span<T>& s, const Exchanges<T>& swap, const T* e, const T* w, const T* v,
                              const Inverse<T, G> (&inv)[P], Vec<T> (&acc)[P][NCV]) {
    const int lanes = G > 0 ? G * V : s.lay->lanes;
    Vec<T> row[NCV];
    repeat<NCV>(QNA_EACH(c) { row[c] = load(v + c * s.step); });
    repeat<P1 - P0>(QNA_EACH(p_) {
      constexpr int p = P0 + decltype(p_)::value;
      const Vec<T> a = share<T, G, PS>(swap, lanes, e, w - p * lanes, inv[p]);
      repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * row[c]; });
    });
  }

  // R: taps of a run where that is known, so that a window line unrolls; else 0.
  template <int R>
  static void values(const Span<T>& s, int64_t start, int64_t blocks, const T* r, int64_t first, const Rows<T>& to) {
    const int lanes = G > 0 ? G * V : s.lay->lanes;
    const Exchanges<T> swap(*s.lay);
    const int64_t run = R > 0 ? R : s.run, at = first * s.step;
    T* dst = to.data + first * to.step;
    for (; blocks > 0; --blocks, start += P, r += P * lanes, dst += P * to.pixel) {
      to.template fetch_ahead<NCV, P>(dst);
      if (s.ahead)
        repeat<P>(QNA_EACH(p) { fetch<T, NCV>(s.ahead[start + p], at, s.step); });
      Vec<T> acc[P][NCV];
      Inverse<T, G> inv[P];
      repeat<P>(QNA_EACH(p) {
        inv[p].set(r + p * lanes);
        repeat<NCV>(QNA_EACH(c) { acc[p][c] = Vec<T>{}; });
      });
      for (int64_t i = 0; i < s.count; ++i) {
        const T* e = s.e + (start + s.taps[i].cell) * lanes;
        const T* w = s.ebw + s.taps[i].weight;
        const T* const* v = s.value + (start + s.taps[i].cell);
        // cells that only the first pixels see, cells that all see, cells that only the last see
        repeat<P - 1>(QNA_EACH(x) { cell<0, x + 1>(s, swap, e + x * lanes, w + x * lanes, v[x] + at, inv, acc); });
        if constexpr (R > 0)
          repeat<(R > P - 1 ? R - P + 1 : 0)>(QNA_EACH(x_) {
            constexpr int x = P - 1 + decltype(x_)::value;
            cell<0, P>(s, swap, e + x * lanes, w + x * lanes, v[x] + at, inv, acc);
          });
        else
          for (int64_t x = P - 1; x < run; ++x) cell<0, P>(s, swap, e + x * lanes, w + x * lanes, v[x] + at, inv, acc);
        e += run * lanes, w += run * lanes, v += run;
        repeat<P - 1>(QNA_EACH(x) { cell<x + 1, P>(s, swap, e + x * lanes, w + x * lanes, v[x] + at, inv, acc); });
      }
      repeat<P>(QNA_EACH(p) {
        repeat<NCV>(QNA_EACH(c) { store(dst + p * to.pixel + c * to.step, acc[p][c]); });
      });
    }
  }
};

// The loops for one layout: denominators of `pixels` (a multiple of kMaxPixels) outputs; values of `blocks` blocks of
// lay.pixels outputs, for as many channel vectors as the entry says, from `first` on.
template <class T> struct ForwardTable {
  using Denominators = void (*)(const Span<T>&, int64_t cell, int64_t pixels, T* den);
  using Values = void (*)(const Span<T>&, int64_t cell, int64_t blocks, const T* r, int64_t first, const Rows<T>&);
  Denominators denominators;
  Values values[4] = {};  // 8, 4, 2, 1 channel vectors

  void all_values(const Span<T>& s, int64_t cell, int64_t blocks, const T* r, const Rows<T>& to) const {
    int64_t c = 0;
    for (int i = 0, n = 8; i < 4; ++i, n /= 2)
      for (; values[i] && c + n <= s.lay->dvec; c += n) values[i](s, cell, blocks, r, c, to);
  }
};

template <class T, int G, int PS, int NCV, int P>
typename ForwardTable<T>::Values values_of(const Geometry& geo, bool runs) {
  if (!runs) return ForwardLoops<T, G, PS, NCV, P>::values;
  if constexpr (NCV >= 4 && G > 0) {  // windows of every network, in registers of their own
    if (geo.kernel[2] == 3) return ForwardRuns<T, G, PS, NCV, P>::template values<3>;
    if (geo.kernel[2] == 5) return ForwardRuns<T, G, PS, NCV, P>::template values<5>;
  }
  return ForwardRuns<T, G, PS, NCV, P>::template values<0>;
}

template <class T, int G, int PS, int P> ForwardTable<T> forward_table(const Geometry& geo, bool runs) {
  ForwardTable<T> t;
  t.denominators = runs ? RunDenominators<T, G>::line : ForwardLoops<T, G, PS, 1, P>::denominators;
  if constexpr (P == 2 && kVectorBytes == 64) t.values[0] = values_of<T, G, PS, 8, P>(geo, runs);
  t.values[1] = values_of<T, G, PS, 4, P>(geo, runs);
  t.values[2] = values_of<T, G, PS, 2, P>(geo, runs);
  t.values[3] = values_of<T, G, PS, 1, P>(geo, runs);
  return t;
}

template <class T, int P> ForwardTable<T> forward_table(const Layout<T>& lay, const Geometry& geo, bool runs) {
  const int groups = lay.groups, steps = lay.pack_steps;
  if (groups == 1 && steps == 0) return forward_table<T, 1, 0, P>(geo, runs);
  if (groups == 1 && steps == 1) return forward_table<T, 1, 1, P>(geo, runs);
  if (groups == 1 && steps == 2) return forward_table<T, 1, 2, P>(geo, runs);
  if (groups == 2 && steps == 0) return forward_table<T, 2, 0, P>(geo, runs);
  if (groups == 2 && steps == 1) return forward_table<T, 2, 1, P>(geo, runs);
  return forward_table<T, -1, -1, P>(geo, runs);
}

template <class T> ForwardTable<T> forward_table(const Layout<T>& lay, const Geometry& geo, bool runs) {
  if constexpr (Simd<T>::width == 16)
    if (lay.pixels == 4) return forward_table<T, 4>(lay, geo, runs);
  return forward_table<T, 2>(lay, geo, runs);
}

}  // namespace
