// Forward pass of one tile: denominators, then values, for blocks of neighbouring outputs.
#pragma once

#include <type_traits>

#include "window.h"

namespace {

constexpr int kMaxPixels = 4;

// What the inner loops read; cell is the first pixel's, pixels are `stride` cells apart.
template <class T> struct Span {
  const T *e, *eb, *ebw;
  const T* const* value;
  const Tap* taps;
  int64_t count, stride;
  int64_t step;  // between channel vectors of a row
  int64_t run;   // taps of a window line, or 0
  const Layout<T>* lay;
};

// Sum over the queries packed into one vector; every lane ends with the sum of its head.
template <class T, int PS> inline Vec<T> add_queries(const Layout<T>& lay, Vec<T> a) {
  if constexpr (PS == 1) a += exchange<T>(a, lay.swap[0]);
  if constexpr (PS < 0)
    for (int s = 0; s < lay.pack_steps; ++s) a += exchange<T>(a, lay.swap[s]);
  return a;
}

// G: score vectors per cell; PS: lane exchanges per vector; -1 = as the layout says.
template <class T, int G, int PS, int NCV, int P> struct ForwardLoops {
  static constexpr int V = Simd<T>::width;

  static void denominators(const Span<T>& s, int64_t cell, T* den) {
    const int groups = G > 0 ? G : s.lay->groups, lanes = groups * V;
    for (int g = 0; g < groups; ++g) {
      Vec<T> sum[P], odd[P];  // two chains each: an addition takes four cycles
      repeat<P>(QNA_EACH(p) { sum[p] = odd[p] = Vec<T>{}; });
      int64_t i = 0;
      for (; i + 1 < s.count; i += 2) {
        const T* e = s.e + (cell + s.taps[i].cell) * lanes + g * V;
        const T* f = s.e + (cell + s.taps[i + 1].cell) * lanes + g * V;
        Vec<T> b = load(s.eb + s.taps[i].weight + g * V), c = load(s.eb + s.taps[i + 1].weight + g * V);
        repeat<P>(QNA_EACH(p) {
          sum[p] += load(e + p * s.stride * lanes) * b;
          odd[p] += load(f + p * s.stride * lanes) * c;
        });
      }
      if (i < s.count) {
        const T* e = s.e + (cell + s.taps[i].cell) * lanes + g * V;
        Vec<T> b = load(s.eb + s.taps[i].weight + g * V);
        repeat<P>(QNA_EACH(p) { sum[p] += load(e + p * s.stride * lanes) * b; });
      }
      repeat<P>(QNA_EACH(p) { sum[p] += odd[p]; });
      repeat<P>(QNA_EACH(p) { store(den + p * lanes + g * V, sum[p]); });
    }
  }

  static void values(const Span<T>& s, int64_t cell, const T* r, int64_t first, T* const* dst, int64_t dst_step) {
    const int groups = G > 0 ? G : s.lay->groups, lanes = groups * V;
    Vec<T> acc[P][NCV];
    repeat<P>(QNA_EACH(p) { repeat<NCV>(QNA_EACH(c) { acc[p][c] = Vec<T>{}; }); });
    Vec<T> rr[P][G > 0 ? G : 1];
    if constexpr (G > 0)
      repeat<P>(QNA_EACH(p) { repeat<(G > 0 ? G : 0)>(QNA_EACH(g) { rr[p][g] = load(r + p * lanes + g * V); }); });
    for (int64_t i = 0; i < s.count; ++i) {
      const int64_t at = cell + s.taps[i].cell;
      const T* e = s.e + at * lanes;
      const T* const* vp = s.value + at;
      const T* w = s.ebw + s.taps[i].weight;
      repeat<P>(QNA_EACH(p) {
        Vec<T> a;
        if constexpr (G > 0) {
          a = load(e + p * s.stride * lanes) * load(w) * rr[p][0];
          repeat<(G > 1 ? G - 1 : 0)>(QNA_EACH(g_) { constexpr int g = 1 + decltype(g_)::value; a += load(e + p * s.stride * lanes + g * V) * load(w + g * V) * rr[p][g]; });
        } else {
          a = load(e + p * s.stride * lanes) * load(w) * load(r + p * lanes);
          for (int g = 1; g < groups; ++g)
            a += load(e + p * s.stride * lanes + g * V) * load(w + g * V) * load(r + p * lanes + g * V);
        }
        a = add_queries<T, PS>(*s.lay, a);
        const T* v = vp[p * s.stride] + first * s.step;
        repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * load(v + c * s.step); });
      });
    }
    repeat<P>(QNA_EACH(p) { repeat<NCV>(QNA_EACH(c) { store(dst[p] + (first + c) * dst_step, acc[p][c]); }); });
  }
};

// The same for windows whose taps are neighbours along x (stride and dilation 1): the taps of a window line form a run,
// and a cell is loaded once for all the pixels that see it. Pixel p sees the run's cell x under tap x - p. Needs a run
// of at least P - 1 taps.
template <class T, int G, int PS, int NCV, int P> struct ForwardRuns {
  static constexpr int V = Simd<T>::width;

  template <int P0, int P1> QNA_INLINE static void denominator(const T* e, const T* b, Vec<T> (&sum)[P]) {
    const Vec<T> ev = load(e);
    repeat<P1 - P0>(QNA_EACH(p_) { constexpr int p = P0 + decltype(p_)::value; sum[p] += ev * load(b - p * G * V); });
  }

  static void denominators(const Span<T>& s, int64_t cell, T* den) {
    constexpr int lanes = G * V;
    const int64_t run = s.run;
    repeat<(G > 0 ? G : 0)>(QNA_EACH(g) {
      Vec<T> sum[P], odd[P];
      repeat<P>(QNA_EACH(p) { sum[p] = odd[p] = Vec<T>{}; });
      for (int64_t i = 0; i < s.count; i += run) {
        const T* e = s.e + (cell + s.taps[i].cell) * lanes + g * V;
        const T* b = s.eb + s.taps[i].weight + g * V;
        if constexpr (P > 1) denominator<0, 1>(e, b, sum);
        if constexpr (P > 2) denominator<0, 2>(e + lanes, b + lanes, odd), denominator<0, 3>(e + 2 * lanes, b + 2 * lanes, sum);
        int64_t x = P - 1;
        for (; x + 1 < run; x += 2) {
          denominator<0, P>(e + x * lanes, b + x * lanes, odd);
          denominator<0, P>(e + (x + 1) * lanes, b + (x + 1) * lanes, sum);
        }
        if (x < run) denominator<0, P>(e + x * lanes, b + x * lanes, odd);
        if constexpr (P > 1) denominator<1, P>(e + run * lanes, b + run * lanes, sum);
        if constexpr (P > 2) {
          denominator<2, P>(e + (run + 1) * lanes, b + (run + 1) * lanes, odd);
          denominator<3, P>(e + (run + 2) * lanes, b + (run + 2) * lanes, sum);
        }
      }
      repeat<P>(QNA_EACH(p) { store(den + p * lanes + g * V, sum[p] + odd[p]); });
    });
  }

  template <int P0, int P1>
  QNA_INLINE static void value(const Span<T>& s, const T* e, const T* w, const T* v, const Vec<T> (&r)[P][G], Vec<T> (&acc)[P][NCV]) {
    Vec<T> ev[G], vv[NCV];
    repeat<(G > 0 ? G : 0)>(QNA_EACH(g) { ev[g] = load(e + g * V); });
    repeat<NCV>(QNA_EACH(c) { vv[c] = load(v + c * s.step); });
    repeat<P1 - P0>(QNA_EACH(p_) { constexpr int p = P0 + decltype(p_)::value;
      Vec<T> a = ev[0] * load(w - p * G * V) * r[p][0];
      repeat<(G > 1 ? G - 1 : 0)>(QNA_EACH(g_) { constexpr int g = 1 + decltype(g_)::value; a += ev[g] * load(w - p * G * V + g * V) * r[p][g]; });
      a = add_queries<T, PS>(*s.lay, a);
      repeat<NCV>(QNA_EACH(c) { acc[p][c] += a * vv[c]; });
    });
  }

  static void values(const Span<T>& s, int64_t cell, const T* rp, int64_t first, T* const* dst, int64_t dst_step) {
    constexpr int lanes = G * V;
    const int64_t run = s.run;
    Vec<T> acc[P][NCV], r[P][G];
    repeat<P>(QNA_EACH(p) {
      repeat<NCV>(QNA_EACH(c) { acc[p][c] = Vec<T>{}; });
      repeat<(G > 0 ? G : 0)>(QNA_EACH(g) { r[p][g] = load(rp + p * lanes + g * V); });
    });
    const int64_t at = first * s.step;
    for (int64_t i = 0; i < s.count; i += run) {
      const T* e = s.e + (cell + s.taps[i].cell) * lanes;
      const T* w = s.ebw + s.taps[i].weight;
      const T* const* v = s.value + (cell + s.taps[i].cell);
      if constexpr (P > 1) value<0, 1>(s, e, w, v[0] + at, r, acc);
      if constexpr (P > 2) {
        value<0, 2>(s, e + lanes, w + lanes, v[1] + at, r, acc);
        value<0, 3>(s, e + 2 * lanes, w + 2 * lanes, v[2] + at, r, acc);
      }
      for (int64_t x = P - 1; x < run; ++x) value<0, P>(s, e + x * lanes, w + x * lanes, v[x] + at, r, acc);
      e += run * lanes, w += run * lanes, v += run;
      if constexpr (P > 1) value<1, P>(s, e, w, v[0] + at, r, acc);
      if constexpr (P > 2) {
        value<2, P>(s, e + lanes, w + lanes, v[1] + at, r, acc);
        value<3, P>(s, e + 2 * lanes, w + 2 * lanes, v[2] + at, r, acc);
      }
    }
    repeat<P>(QNA_EACH(p) { repeat<NCV>(QNA_EACH(c) { store(dst[p] + (first + c) * dst_step, acc[p][c]); }); });
  }
};

template <class T> struct ForwardTable {
  void (*den)(const Span<T>&, int64_t, T*);
  void (*val[4])(const Span<T>&, int64_t, const T*, int64_t, T* const*, int64_t);  // 8, 4, 2, 1 channel vectors
};

template <class T, int G, int PS, int P> ForwardTable<T> forward_table(bool runs) {
  ForwardTable<T> t{};
  if constexpr (G > 0) {
    if (runs) {
      t.den = ForwardRuns<T, G, PS, 1, P>::denominators;
      if constexpr (P == 2 && kVectorBytes == 64) t.val[0] = ForwardRuns<T, G, PS, 8, P>::values;
      t.val[1] = ForwardRuns<T, G, PS, 4, P>::values;
      t.val[2] = ForwardRuns<T, G, PS, 2, P>::values;
      t.val[3] = ForwardRuns<T, G, PS, 1, P>::values;
      return t;
    }
  }
  t.den = ForwardLoops<T, G, PS, 1, P>::denominators;
  if constexpr (P == 2 && kVectorBytes == 64)
    t.val[0] = ForwardLoops<T, G, PS, 8, P>::values;
  t.val[1] = ForwardLoops<T, G, PS, 4, P>::values;
  t.val[2] = ForwardLoops<T, G, PS, 2, P>::values;
  t.val[3] = ForwardLoops<T, G, PS, 1, P>::values;
  return t;
}

template <class T, int P> ForwardTable<T> forward_table(const Layout<T>& lay, bool runs) {
  if (lay.groups == 1 && lay.pack_steps == 0) return forward_table<T, 1, 0, P>(runs);
  if (lay.groups == 1 && lay.pack_steps == 1) return forward_table<T, 1, 1, P>(runs);
  if (lay.groups == 2 && lay.pack_steps == 0) return forward_table<T, 2, 0, P>(runs);
  return forward_table<T, -1, -1, P>(runs);
}

// One output by its own maximum, from exact pairs: out = sum_l r_l sum_t 2^(..) w v. Any scores, any bias.
template <class T>
void forward_exact(const Window<T>& w, const Kernel<T>& ker, const Span<T>& s, int64_t cell, T* top, T* r, T* dst, int64_t dst_step) {
  constexpr int V = Simd<T>::width;
  const Layout<T>& lay = w.lay;
  const int lanes = lay.lanes;
  for (int k = 0; k < lanes; k += V) {
    Vec<T> best = splat(-4 * ExpLimits<T>::largest), sum{};
    for (int64_t i = 0; i < s.count; ++i) {
      const Tap& t = s.taps[i];
      int64_t at = (cell + t.cell) * lanes + k;
      Vec<T> live = load(&w.mantissa[at]) * load(&ker.mantissa[t.weight + k]);
      Vec<T> x = load(&w.exponent[at]) + load(&ker.exponent[t.weight + k]);
      best = vmax(live == Vec<T>{} ? best : x, best);
    }
    for (int64_t i = 0; i < s.count; ++i) {
      const Tap& t = s.taps[i];
      int64_t at = (cell + t.cell) * lanes + k;
      sum += scale2(load(&w.mantissa[at]) * load(&ker.mantissa[t.weight + k]),
                    load(&w.exponent[at]) + load(&ker.exponent[t.weight + k]) - best);
    }
    store(top + k, best);
    store(r + k, sum == Vec<T>{} ? Vec<T>{} : splat(T(1)) / sum);
  }
  if (!dst) return;
  for (int c = 0; c < lay.dvec; ++c) store(dst + c * dst_step, Vec<T>{});
  for (int64_t i = 0; i < s.count; ++i) {
      const Tap& t = s.taps[i];
    Vec<T> a{};
    for (int k = 0; k < lanes; k += V) {
      int64_t at = (cell + t.cell) * lanes + k;
      Vec<T> x = scale2(load(&w.mantissa[at]) * load(&ker.mantissa[t.weight + k]),
                        load(&w.exponent[at]) + load(&ker.exponent[t.weight + k]) - load(top + k));
      a += x * load(r + k) * load(&ker.weight[t.weight + k]);
    }
    a = add_queries<T, -1>(lay, a);
    const T* v = w.value[cell + t.cell];
    for (int c = 0; c < lay.dvec; ++c) store(dst + c * dst_step, load(dst + c * dst_step) + a * load(v + c * w.step));
  }
}

// Denominators to their inverses; true if one is too small to be trusted.
template <class T> inline bool invert(T* den, int64_t n) {
  bool rare = false;
  for (int64_t k = 0; k < n; k += Simd<T>::width) {
    Vec<T> s = load(den + k);
    rare |= any_below<T>(s, splat(ExpLimits<T>::vanishing));
    store(den + k, inverse<T>(s));
  }
  return rare;
}

// Everything a thread needs for forward tiles.
template <class T, class S> struct ForwardTask {
  static constexpr int V = Simd<T>::width;
  const qna::Forward& f;
  const Layout<T>& lay;
  const std::vector<Kernel<T>>& kernels;
  ForwardTable<T> table;
  Window<T> w;
  Array<T> den, top, scratch;
  std::vector<char> rare;
  int64_t pitch;  // between rows of scratch

  ForwardTask(const qna::Forward& f_, const Layout<T>& l, const std::vector<Kernel<T>>& k)
      : f(f_), lay(l), kernels(k), w(l, f_.geo) {
    table = lay.pixels == 4 ? forward_table<T, 4>(lay, w.runs) : forward_table<T, 2>(lay, w.runs);
    top.resize(lay.lanes);
    pitch = int64_t(lay.dvec) * lay.vector_step();
    scratch.assign(size_t(kMaxPixels * pitch), T(0));
  }

  void run(int64_t batch, int block, const int64_t (&lo)[3], const int64_t (&hi)[3]) {
    const Kernel<T>& ker = kernels[block];
    const S* scores = static_cast<const S*>(f.scores.data);
    w.place(lo, hi);
    w.load_scores(scores, f.scores.stride, batch, block);
    w.load_values(static_cast<const S*>(f.value.data), f.value.stride, batch, block);
    bool exact_ready = false;
    const int64_t(&os)[6] = f.out.stride;
    const bool plain = lay.in_place(os[4], os[5]);
    constexpr bool same = std::is_same<S, T>::value;
    const int64_t step = plain && same ? lay.vector_step() : V;
    Span<T> span{w.e.data(), ker.eb.data(), ker.ebw.data(), w.value.data(), nullptr, 0, f.geo.stride[2], w.step, w.runs ? f.geo.kernel[2] : 0, &lay};
    w.list_taps(lo, hi);
    const int64_t block_lanes = int64_t(lay.pixels) * lay.lanes, blocks = (hi[2] - lo[2] + lay.pixels - 1) / lay.pixels;
    den.resize(size_t(blocks * block_lanes)), rare.resize(blocks);
    int64_t l = 0;
    for (int64_t z = lo[0]; z < hi[0]; ++z)
      for (int64_t y = lo[1]; y < hi[1]; ++y, ++l) {
        span.taps = w.line_taps(l), span.count = w.line_count(l);
        S* line = static_cast<S*>(f.out.data) + batch * os[0] + z * os[1] + y * os[2];
        // all denominators of the line first: no block waits for its own division
        for (int64_t i = 0; i < blocks; ++i) table.den(span, i * lay.pixels * f.geo.stride[2], &den[i * block_lanes]);
        for (int64_t i = 0; i < blocks; ++i)
          rare[i] = invert(&den[i * block_lanes], std::min<int64_t>(lay.pixels, hi[2] - lo[2] - i * lay.pixels) * lay.lanes);
        for (int64_t i = 0; i < blocks; ++i) {
          const int64_t x = lo[2] + i * lay.pixels, cell = i * lay.pixels * f.geo.stride[2];
          const int live = int(std::min<int64_t>(lay.pixels, hi[2] - x));
          T* r = &den[i * block_lanes];
          T* dst[kMaxPixels];
          for (int p = 0; p < lay.pixels; ++p) {
            dst[p] = scratch.data() + p * pitch;
            if constexpr (same)
              if (plain && p < live) dst[p] = line + (x + p) * os[3] + block * lay.block_step();
          }
          if (!rare[i]) {
            int64_t c = 0;
            for (int k = 0, n = 8; k < 4; ++k, n /= 2)
              while (table.val[k] && c + n <= lay.dvec) {
                table.val[k](span, cell, r, c, dst, step);
                c += n;
              }
          } else {
            if (!exact_ready) w.load_exact(scores, f.scores.stride, batch, block), exact_ready = true;
            for (int p = 0; p < live; ++p)
              forward_exact(w, ker, span, cell + p * f.geo.stride[2], top.data(), r + p * lay.lanes, dst[p], step);
          }
          if (!(same && plain))
            for (int p = 0; p < live; ++p) write_row(lay, block, line + (x + p) * os[3], os[4], os[5], plain, dst[p]);
        }
      }
  }
};

}  // namespace
