// The input side of a tile: the positions under the windows of a box of outputs, laid out as cells.
//
// Cells form lines along x that include the padding the tile can see, so that the loops over windows need no
// border cases: a cell outside the map has e^score = 0 and a pointer to a row of zeros.
#pragma once

#include "buffer.h"
#include "layout.h"

namespace {

struct Tap {
  int64_t cell;    // offset from the cell of the first tap position
  int64_t weight;  // offset of the tap's row in the static kernels
};

constexpr int kMaxGroups = 4;  // score vectors kept in registers while looking for the maximum

template <class T> struct Window {
  const Layout<T>& lay;
  const Geometry& geo;
  int64_t lo[3], n[3];         // first position and number of cells per axis
  bool runs;                   // the taps of a window line are neighbouring cells, none left out
  int64_t x_end;               // cells from this position on count as outside the map
  Array<T> e, mantissa, exponent, rows, zero;
  Array<const T*> value;       // cell -> channel row of the block
  Array<T> top;                // exponent subtracted from every score, per lane (whole numbers)
  Array<Tap> taps;             // one line of outputs after the other
  std::vector<int64_t> starts;
  int64_t step;                // between channel vectors of a row

  Window(const Layout<T>& l, const Geometry& g) : lay(l), geo(g) {
    zero.assign(size_t(lay.dvec) * lay.vector_step(), T(0));
    top.resize(lay.lanes);
    runs = geo.stride[2] == 1 && geo.dilation[2] == 1 && geo.kernel[2] >= lay.pixels - 1 && geo.kernel[2] <= 65;
  }
  int64_t cells() const { return n[0] * n[1] * n[2]; }

  // The positions lo..hi themselves, with empty cells after each line for the last block of pixels.
  void place_positions(const int64_t (&plo)[3], const int64_t (&phi)[3]) {
    for (int a = 0; a < 3; ++a) lo[a] = plo[a], n[a] = phi[a] - plo[a];
    n[2] += geo.stride[2] * lay.pixels;
    x_end = phi[2];
  }

  // The cells that the outputs lo..hi need; the last block of pixels may run past hi.
  void place(const int64_t (&olo)[3], const int64_t (&ohi)[3]) {
    x_end = geo.in[2];
    for (int a = 0; a < 3; ++a) {
      int64_t width = ohi[a] - olo[a], margin = 0;
      if (a == 2) {
        width = (width + lay.pixels - 1) / lay.pixels * lay.pixels;
        margin = width * geo.stride[a];
        if (runs) margin += geo.kernel[a];
      }
      int64_t first = olo[a] * geo.stride[a] - geo.pad[a];
      int64_t last = first + (width - 1) * geo.stride[a] + (geo.kernel[a] - 1) * geo.dilation[a] + 1;
      lo[a] = std::max(first, -margin);
      n[a] = std::max<int64_t>(std::min(last, geo.in[a] + margin) - lo[a], 0);
    }
  }

  template <class F> void each_line(F f) {
    for (int64_t z = 0; z < n[0]; ++z)
      for (int64_t y = 0; y < n[1]; ++y) f(lo[0] + z, lo[1] + y, (z * n[1] + y) * n[2]);
  }

  // e^(score - top) of every cell. False if a whole block is masked or the scores need the exact path throughout.
  template <class S> void load_scores(const S* base, const int64_t (&st)[4], int64_t batch, int block) {
    constexpr int V = Simd<T>::width;
    const int lanes = lay.lanes;
    e.resize(size_t(cells()) * lanes);
    int64_t x0 = std::max<int64_t>(-lo[2], 0), x1 = std::min(n[2], x_end - lo[2]);
    if (x1 < x0) x0 = x1 = 0;
    base += batch * st[0];
    const int groups = lanes / V;
    const bool direct = lay.direct_scores && groups <= kMaxGroups;
    const int64_t offset = direct ? lay.source[size_t(block) * lanes] : 0;
    const int64_t group_step = direct && groups > 1 ? lay.source[size_t(block) * lanes + V] - offset : 0;
    // pass 1: the maximum (and, where scores are no plain loads, a copy)
    std::fill(top.begin(), top.end(), -ExpLimits<T>::largest);
    Vec<T> best[kMaxGroups][2];
    for (int g = 0; g < kMaxGroups; ++g) best[g][0] = best[g][1] = splat(-ExpLimits<T>::largest);
    each_line([&](int64_t z, int64_t y, int64_t cell) {
      const S* src = base + z * st[1] + y * st[2] + (lo[2] + x0) * st[3];
      if (direct) {
        for (int g = 0; g < groups; ++g) {
          const S* p = src + offset + g * group_step;
          Vec<T> a = best[g][0], b = best[g][1];
          int64_t x = x0;
          for (; x + 1 < x1; x += 2, p += 2 * st[3]) a = vmax(load_as<T>(p), a), b = vmax(load_as<T>(p + st[3]), b);
          if (x < x1) a = vmax(load_as<T>(p), a);
          best[g][0] = a, best[g][1] = b;
        }
        return;
      }
      T* dst = e.data() + (cell + x0) * lanes;
      for (int64_t x = x0; x < x1; ++x, src += st[3], dst += lanes) {
        read_scores(lay, block, src, dst);
        for (int k = 0; k < lanes; k += V) store(&top[k], vmax(load(dst + k), load(&top[k])));
      }
    });
    bool huge = false;
    for (int g = 0; g < groups; ++g) {
      Vec<T> m, x, all = load(&top[g * V]);
      if (g < kMaxGroups) all = vmax(vmax(best[g][0], best[g][1]), all);
      huge |= any_below<T>(splat(ExpLimits<T>::largest / 2), all < splat(T(0)) ? -all : all);
      exp_split(all, m, x);
      store(&top[g * V], x);
    }
    // pass 2: the exponentials
    each_line([&](int64_t z, int64_t y, int64_t cell) {
      const S* src = base + z * st[1] + y * st[2] + (lo[2] + x0) * st[3] + offset;
      T* line = e.data() + cell * lanes;
      std::fill(line, line + x0 * lanes, T(0));
      for (int g = 0; g < groups; ++g) {
        const Vec<T> down = load(&top[g * V]), low = (down + ExpLimits<T>::negligible) * T(0.693147180559945309);
        const S* p = src + g * group_step;
        T* dst = line + x0 * lanes + g * V;
        if (huge) {  // scores beyond what the exponentials take: clamp them
          for (int64_t x = x0; x < x1; ++x, dst += lanes, p += st[3]) {
            Vec<T> m, q;
            exp_split(direct ? load_as<T>(p) : load(dst), m, q);
            store(dst, scale2(m, q - down));
          }
        } else if (direct) {
          for (int64_t x = x0; x < x1; ++x, dst += lanes, p += st[3]) store(dst, exp_below<T>(load_as<T>(p), down, low));
        } else {
          for (int64_t x = x0; x < x1; ++x, dst += lanes) store(dst, exp_below<T>(load(dst), down, low));
        }
      }
      std::fill(line + x1 * lanes, line + n[2] * lanes, T(0));
    });
  }

  // The same as exact pairs, for tiles that hold a window far below its neighbours.
  template <class S> void load_exact(const S* base, const int64_t (&st)[4], int64_t batch, int block) {
    constexpr int V = Simd<T>::width;
    const int lanes = lay.lanes;
    mantissa.assign(size_t(cells()) * lanes, T(0));
    exponent.assign(size_t(cells()) * lanes, -ExpLimits<T>::largest * 2);
    base += batch * st[0];
    each_line([&](int64_t z, int64_t y, int64_t cell) {
      for (int64_t x = 0; x < n[2]; ++x) {
        if (lo[2] + x < 0 || lo[2] + x >= x_end) continue;
        T* p = mantissa.data() + (cell + x) * lanes;
        T* q = exponent.data() + (cell + x) * lanes;
        read_scores(lay, block, base + z * st[1] + y * st[2] + (lo[2] + x) * st[3], p);
        for (int k = 0; k < lanes; k += V) {
          Vec<T> m, x2;
          exp_split(load(p + k), m, x2);
          store(p + k, m), store(q + k, x2);
        }
      }
    });
  }

  template <class S> void load_values(const S* base, const int64_t (&st)[6], int64_t batch, int block) {
    const bool plain = lay.in_place(st[4], st[5]);
    const bool direct = plain && std::is_same<S, T>::value;
    const int64_t row = int64_t(lay.dvec) * Simd<T>::width;
    value.resize(cells());
    step = direct ? lay.vector_step() : Simd<T>::width;
    if (!direct && rows.size() < size_t(cells() * row)) rows.assign(cells() * row, T(0));
    base += batch * st[0];
    const int64_t x0 = std::min(std::max<int64_t>(-lo[2], 0), n[2]), x1 = std::max(std::min(n[2], x_end - lo[2]), x0);
    each_line([&](int64_t z, int64_t y, int64_t cell) {
      const S* src = base + z * st[1] + y * st[2] + (lo[2] + x0) * st[3];
      const T** at = value.data() + cell;
      std::fill(at, at + x0, zero.data());
      std::fill(at + x1, at + n[2], zero.data());
      if constexpr (std::is_same<S, T>::value) {
        if (direct) {
          src += block * lay.block_step();
          for (int64_t x = x0; x < x1; ++x, src += st[3]) at[x] = src;
          return;
        }
      }
      T* dst = rows.data() + (cell + x0) * row;
      for (int64_t x = x0; x < x1; ++x, src += st[3], dst += row) {
        read_row(lay, block, src, st[4], st[5], plain, dst);
        at[x] = dst;
      }
    });
  }

  // The taps inside the map for every line of outputs of the box lo..hi; cells count from the first pixel of the line.
  void list_taps(const int64_t (&olo)[3], const int64_t (&ohi)[3]) {
    taps.clear(), starts.assign(1, 0);
    const int64_t width = (ohi[2] - olo[2] + lay.pixels - 1) / lay.pixels * lay.pixels;
    for (int64_t oz = olo[0]; oz < ohi[0]; ++oz)
      for (int64_t oy = olo[1]; oy < ohi[1]; ++oy) {
        int64_t t = 0;
        for (int64_t a = 0; a < geo.kernel[0]; ++a) {
          int64_t z = oz * geo.stride[0] - geo.pad[0] + a * geo.dilation[0];
          for (int64_t b = 0; b < geo.kernel[1]; ++b, t += geo.kernel[2]) {
            int64_t y = oy * geo.stride[1] - geo.pad[1] + b * geo.dilation[1];
            if (z < 0 || z >= geo.in[0] || y < 0 || y >= geo.in[1]) continue;
            for (int64_t c = 0; c < geo.kernel[2]; ++c) {
              int64_t x = olo[2] * geo.stride[2] - geo.pad[2] + c * geo.dilation[2];
              bool seen = x < geo.in[2] && x + (width - 1) * geo.stride[2] >= 0;
              if (!seen && !runs) continue;
              taps.push_back({((z - lo[0]) * n[1] + (y - lo[1])) * n[2] + (x - lo[2]), (t + c) * lay.lanes});
            }
          }
        }
        starts.push_back(int64_t(taps.size()));
      }
  }
  const Tap* line_taps(int64_t line) const { return taps.data() + starts[line]; }
  int64_t line_count(int64_t line) const { return starts[line + 1] - starts[line]; }
};

}  // namespace
