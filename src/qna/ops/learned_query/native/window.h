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

constexpr int kScoresAhead = 32;  // positions

// Cells along an axis that `size` outputs need, border and the last block of pixels included. `margin`: cells outside
// the map that are kept on both sides.
inline int64_t cells_along(const Geometry& geo, int axis, int64_t size, int64_t* margin) {
  *margin = 0;
  if (axis == 2) size = whole_blocks(size), *margin = size * geo.stride[2] + geo.kernel[2];
  return (size - 1) * geo.stride[axis] + (geo.kernel[axis] - 1) * geo.dilation[axis] + 1;
}

template <class T> struct Window {
  const Layout<T>& lay;
  const Geometry& geo;
  int64_t lo[3], n[3];         // first position and number of cells per axis
  bool runs;                   // the taps of a window line are neighbouring cells, none left out
  int64_t x_end;               // cells from this position on count as outside the map
  Array<T> e, scores, rows, zero;  // scores: only where the exact path was asked for
  Array<const T*> value;       // cell -> channel row of the block
  RowForm form;                // of the value map
  bool in_place;               // its rows are read where they lie
  Array<T> top, best;          // exponent subtracted from every score, per lane (whole numbers); largest score
  std::vector<char> beyond;    // per score vector: some are larger than the exponentials take, and NaN in `e`
  Array<Tap> taps;             // one line of outputs after the other; of a run only the first tap
  std::vector<int64_t> starts;
  int64_t step;                // between channel vectors of a row

  Window(const Layout<T>& l, const Geometry& g) : lay(l), geo(g) {
    zero.assign(size_t(lay.dvec) * lay.vector_step(), T(0));
    top.resize(lay.lanes);
    runs = geo.stride[2] == 1 && geo.dilation[2] == 1 && geo.kernel[2] >= lay.pixels - 1 && geo.kernel[2] <= 65;
  }
  int64_t cells() const { return n[0] * n[1] * n[2]; }
  bool any_beyond() const { return std::find(beyond.begin(), beyond.end(), true) != beyond.end(); }
  int64_t run() const { return runs ? geo.kernel[2] : 1; }  // taps that an entry of `taps` stands for

  // Cells of a line that lie inside the map.
  int64_t first_inside() const { return std::min(std::max<int64_t>(-lo[2], 0), n[2]); }
  int64_t end_inside() const { return std::max(std::min(n[2], x_end - lo[2]), first_inside()); }

  // The positions lo..hi themselves, with empty cells after each line for the last block of pixels.
  void place_positions(const int64_t (&plo)[3], const int64_t (&phi)[3]) {
    for (int a = 0; a < 3; ++a) lo[a] = plo[a], n[a] = phi[a] - plo[a];
    n[2] += geo.stride[2] * lay.pixels;
    x_end = phi[2];
  }

  // The cells that the outputs lo..hi need; the last block of pixels may run past hi.
  void place(const int64_t (&olo)[3], const int64_t (&ohi)[3]) {
    x_end = (ohi[2] - 1) * geo.stride[2] - geo.pad[2] + (geo.kernel[2] - 1) * geo.dilation[2] + 1;
    x_end = std::min(x_end, geo.in[2]);
    for (int a = 0; a < 3; ++a) {
      int64_t margin;
      const int64_t first = olo[a] * geo.stride[a] - geo.pad[a];
      const int64_t last = first + cells_along(geo, a, ohi[a] - olo[a], &margin);
      lo[a] = std::max(first, -margin);
      n[a] = std::max<int64_t>(std::min(last, geo.in[a] + margin) - lo[a], 0);
    }
  }

  template <class F> void each_line(F f) {
    for (int64_t z = 0; z < n[0]; ++z)
      for (int64_t y = 0; y < n[1]; ++y) f(lo[0] + z, lo[1] + y, (z * n[1] + y) * n[2]);
  }

  // e^(score - top) of every cell. `top` is the maximum of the first line, unless a later one is so much larger that
  // range would be lost: one pass then does for finding the maximum and taking the exponentials. Scores that are larger
  // than the exponentials take give NaN: denominators show which windows see one. Exponentials may exceed 1 by
  // `headroom` powers of two.
  template <class S>
  void load_scores(const S* base, const int64_t (&st)[4], int64_t batch, int block, T headroom) {
    constexpr int V = Simd<T>::width;
    e.resize(size_t(cells()) * lay.lanes), best.resize(lay.lanes), beyond.resize(lay.lanes / V);
    base += batch * st[0];
    auto line_of = [&](int64_t z, int64_t y) {
      return base + z * st[1] + y * st[2] + (lo[2] + first_inside()) * st[3];
    };
    std::fill(best.begin(), best.end(), -ExpLimits<T>::largest);
    if (n[0] * n[1] > 0) find_largest(line_of(lo[0], lo[1]), st[3], block);
    for (;;) {
      for (int k = 0; k < lay.lanes; k += V) {
        const Vec<T> most = splat(ExpLimits<T>::largest), all = load(&best[k]);
        Vec<T> m, exponent;
        beyond[k / V] = any_below<T>(most, all);
        exp_reduced(all > most ? most : all, m, exponent);
        store(&top[k], exponent);
      }
      each_line([&](int64_t z, int64_t y, int64_t cell) {
        exponentials(line_of(z, y), st[3], block, &e[cell * lay.lanes]);
      });
      bool above = false;
      for (int k = 0; k < lay.lanes; k += V) {
        const Vec<T> most = splat(ExpLimits<T>::largest), all = load(&best[k]), in_range = all > most ? most : all;
        above |= any_below<T>(load(&top[k]) + headroom, in_range * T(1.44269504088896341));
        above |= !beyond[k / V] && any_below<T>(most, all);
      }
      if (!above) return;
    }
  }

  // The scores themselves, minus infinity outside the map, for tiles that hold a window which the exponentials do not
  // serve: one far below its neighbours, or with scores or biases beyond their range.
  template <class S> void load_exact(const S* base, const int64_t (&st)[4], int64_t batch, int block) {
    scores.assign(size_t(cells()) * lay.lanes, -std::numeric_limits<T>::infinity());
    base += batch * st[0];
    each_line([&](int64_t z, int64_t y, int64_t cell) {
      for (int64_t x = first_inside(); x < end_inside(); ++x)
        read_scores(lay, block, base + z * st[1] + y * st[2] + (lo[2] + x) * st[3], &scores[(cell + x) * lay.lanes]);
    });
  }

  // Channel rows of all cells, in place where the layout allows: after that they stand as they are. Other rows are
  // converted by `load_lines`, into room for so many lines of cells at a time.
  template <class S> void start_values(const qna::ValueMap& map, int64_t batch, int block, int64_t lines) {
    const int64_t(&st)[6] = map.stride;
    const S* base = static_cast<const S*>(map.data) + batch * st[0];
    form = lay.row_form(st[4], st[5]);
    in_place = form == RowForm::vectors && std::is_same<S, T>::value;
    value.resize(cells());
    step = in_place ? lay.vector_step() : Simd<T>::width;
    loaded = 0, kept = std::min(lines, n[0] * n[1]), values = &map, values_batch = batch, values_block = block;
    if constexpr (std::is_same<S, T>::value)
      if (in_place) {
        base += lay.first_head(block);
        each_line([&](int64_t z, int64_t y, int64_t cell) {
          fill_line(cell, base + z * st[1] + y * st[2] + (lo[2] + first_inside()) * st[3], st[3]);
        });
        loaded = n[0] * n[1];
      }
    const size_t room = in_place ? 0 : size_t(kept * n[2] * lay.dvec * Simd<T>::width);
    if (rows.size() < room) rows.assign(room, T(0));  // empty lanes of RowForm::any are never written
  }
  template <class S> void load_lines(int64_t end) {
    const int64_t row = int64_t(lay.dvec) * Simd<T>::width, x0 = first_inside(), x1 = end_inside();
    for (; loaded < end; ++loaded) {
      const int64_t(&st)[6] = values->stride;
      const int64_t z = lo[0] + loaded / n[1], y = lo[1] + loaded % n[1];
      const S* src = static_cast<const S*>(values->data) + values_batch * st[0] + z * st[1] + y * st[2] +
                     (lo[2] + x0) * st[3];
      T* dst = rows.data() + (loaded % kept * n[2] + x0) * row;
      fill_line(loaded * n[2], dst, row);
      read_rows(lay, values_block, src, st[3], st[4], st[5], form, dst, row, x1 - x0);
    }
  }

  // Lines of cells that one line of windows spans, and the end of those of the windows at (z, y).
  int64_t lines_of_a_window() const {
    return geo.kernel[0] > 1 ? n[0] * n[1] : (geo.kernel[1] - 1) * geo.dilation[1] + 1;
  }
  int64_t end_of_lines(int64_t z, int64_t y) const {
    if (geo.kernel[0] > 1) return n[0] * n[1];
    const int64_t cz = z * geo.stride[0] - geo.pad[0] - lo[0];
    const int64_t cy = y * geo.stride[1] - geo.pad[1] + lines_of_a_window() - lo[1];
    return std::min(cz * n[1] + std::min(cy, n[1]), n[0] * n[1]);
  }

  // The taps inside the map for every line of outputs of the box lo..hi; cells count from the first pixel of the line.
  void list_taps(const int64_t (&olo)[3], const int64_t (&ohi)[3]) {
    taps.clear(), starts.assign(1, 0);
    const int64_t width = whole_blocks(ohi[2] - olo[2]);
    for (int64_t oz = olo[0]; oz < ohi[0]; ++oz)
      for (int64_t oy = olo[1]; oy < ohi[1]; ++oy) {
        int64_t t = 0;
        for (int64_t a = 0; a < geo.kernel[0]; ++a) {
          int64_t z = oz * geo.stride[0] - geo.pad[0] + a * geo.dilation[0];
          for (int64_t b = 0; b < geo.kernel[1]; ++b, t += geo.kernel[2]) {
            int64_t y = oy * geo.stride[1] - geo.pad[1] + b * geo.dilation[1];
            if (z < 0 || z >= geo.in[0] || y < 0 || y >= geo.in[1]) continue;
            const int64_t line = ((z - lo[0]) * n[1] + (y - lo[1])) * n[2] - lo[2];
            for (int64_t c = 0; c < geo.kernel[2]; c += run()) {
              // positions of all the line's pixels; where none is in the map there may be no cells
              const int64_t x = olo[2] * geo.stride[2] - geo.pad[2] + c * geo.dilation[2];
              const int64_t end = x + (width - 1) * geo.stride[2] + run();
              if (x < geo.in[2] && end > 0) taps.push_back({line + x, (t + c) * lay.lanes});
            }
          }
        }
        starts.push_back(int64_t(taps.size()));
      }
  }
  const Tap* line_taps(int64_t line) const { return taps.data() + starts[line]; }
  int64_t line_count(int64_t line) const { return starts[line + 1] - starts[line]; }

 private:
  const qna::ValueMap* values;  // what `load_lines` reads, how far it has come, and how many lines there is room for
  int64_t values_batch, loaded, kept;
  int values_block;

  // Pointers to the rows of one line, `step` apart; zeros outside the map.
  void fill_line(int64_t cell, const T* row, int64_t row_step) {
    const T** at = value.data() + cell;
    const int64_t x0 = first_inside(), x1 = end_inside();
    std::fill(at, at + x0, zero.data()), std::fill(at + x1, at + n[2], zero.data());
    for (int64_t x = x0; x < x1; ++x, row += row_step) at[x] = row;
  }

  // The largest score per lane of one line, into `best`.
  template <class S> void find_largest(const S* src, int64_t pixel, int block) {
    for (int g = 0; g < lay.groups; ++g) {
      Vec<T> largest = load(&best[g * Simd<T>::width]);
      const auto& pick = lay.picks[size_t(block) * lay.groups + g];
      for (int64_t x = 0; x < end_inside() - first_inside(); ++x)
        largest = vmax(pick_scores<false, T>(pick, src + x * pixel), largest);
      store(&best[g * Simd<T>::width], largest);
    }
  }

  // The exponentials of one line, 0 outside the map; keeps the largest score in `best`.
  template <class S> void exponentials(const S* src, int64_t pixel, int block, T* line) {
    const int lanes = lay.lanes;
    const int64_t x0 = first_inside(), x1 = end_inside();
    std::fill(line, line + x0 * lanes, T(0));
    std::fill(line + x1 * lanes, line + n[2] * lanes, T(0));
    for (int g = 0; g < lay.groups; ++g) {
      T* to = line + x0 * lanes + g * Simd<T>::width;
      if (beyond[g]) exponentials_of<false, true>(src, pixel, block, g, x1 - x0, to);
      else if (lay.direct_scores) exponentials_of<true, false>(src, pixel, block, g, x1 - x0, to);
      else exponentials_of<false, false>(src, pixel, block, g, x1 - x0, to);
    }
  }

  // The same of one score vector. Beyond: some scores are larger than the exponentials take.
  template <bool Direct, bool Beyond, class S>
  void exponentials_of(const S* src, int64_t pixel, int block, int g, int64_t count, T* to) {
    const typename Layout<T>::Pick pick = lay.picks[size_t(block) * lay.groups + g];
    const Vec<T> down = load(&top[g * Simd<T>::width]);
    const Vec<T> low = lowest_above<T>(down);
    Vec<T> largest = load(&best[g * Simd<T>::width]);
    for (int64_t x = 0; x < count; ++x, to += lay.lanes, src += pixel) {
      fetch<S, 1>(src, kScoresAhead * pixel, 0);  // rows of scores and values: no stream that the processor sees
      const Vec<T> score = pick_scores<Direct, T>(pick, src);
      largest = vmax(score, largest);
      Vec<T> e = exp_below<T>(score, down, low);
      if constexpr (Beyond)
        e = score > splat(ExpLimits<T>::largest) ? splat(std::numeric_limits<T>::quiet_NaN()) : e;
      store(to, e);
    }
    store(&best[g * Simd<T>::width], largest);
  }
};

}  // namespace
