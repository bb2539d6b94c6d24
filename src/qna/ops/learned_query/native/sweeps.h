// The two sweeps of the backward pass over tiles.
#pragma once

#include "backward.h"

namespace {

// Rows of grad_out: in place where the layout allows, else converted into `rows`.
template <class T, class S> struct GradRows {
  const Layout<T>& lay;
  const Geometry& geo;
  const qna::ValueMap& map;
  RowForm form;
  bool direct;
  int64_t step, pitch;

  GradRows(const Layout<T>& l, const Geometry& g, const qna::ValueMap& m) : lay(l), geo(g), map(m) {
    form = lay.row_form(m.stride[4], m.stride[5]);
    direct = form == RowForm::vectors && std::is_same<S, T>::value;
    step = direct ? lay.vector_step() : Simd<T>::width;
    pitch = int64_t(lay.dvec) * Simd<T>::width;
  }
  int64_t next_line() const { return map.stride[2] * geo.factor[1]; }
  // Pointers to the rows of `count` windows from (z, y, x) on, those of the block's sub-pixel.
  void line(int64_t batch, int block, int64_t z, int64_t y, int64_t x, int64_t count, T* room, const T** to) const {
    const qna::ValueMap from = map.at_subpixel(geo, lay.subpixel(block), sizeof(S));
    const int64_t(&st)[6] = from.stride;
    const S* src = static_cast<const S*>(from.data) + batch * st[0] + z * st[1] + y * st[2] + x * st[3];
    if constexpr (std::is_same<S, T>::value)
      if (direct) {
        src += lay.first_head(block);
        for (int64_t i = 0; i < count; ++i, src += st[3]) to[i] = src;
        return;
      }
    read_rows(lay, block, src, st[3], st[4], st[5], form, room, pitch, count);
    for (int64_t i = 0; i < count; ++i, room += pitch) to[i] = room;
  }
};

template <class T, class S> struct Sweep1 {
  static constexpr int V = Simd<T>::width;
  const qna::Backward& f;
  const Layout<T>& lay;
  const std::vector<Kernel<T>>& kernels;
  Statistics<T>& stats;
  ForwardTable<T> forward;
  BackwardTable<T> backward;
  Window<T> w;
  GradRows<T, S> grads;
  Array<T> den, num, room, products, sum_bias, sum_weight;
  Array<const T*> grad;
  std::vector<char> rare;

  Sweep1(const qna::Backward& f_, const Layout<T>& l, const std::vector<Kernel<T>>& k, Statistics<T>& s)
      : f(f_), lay(l), kernels(k), stats(s), w(l, f_.geo), grads(l, f_.geo, f_.grad_out) {
    forward = forward_table(lay, f.geo, w.runs);
    backward = backward_table(lay, f.geo, w.runs);
    products.resize(size_t(f.geo.taps() * lay.lanes)), sum_bias.resize(products.size());
    sum_weight.resize(products.size());
  }

  void run(int64_t batch, int block, int64_t tile) {
    int64_t lo[3], hi[3];
    stats.tiles.bounds(tile, lo, hi);
    const Kernel<T>& ker = kernels[block];
    const S* scores = static_cast<const S*>(f.scores.data);
    w.place(lo, hi);
    w.load_scores(scores, f.scores.stride, batch, block, ker.headroom);
    // a score out of range leaves the other windows of its tile nothing; or no window sees it, and its NaN times the 0
    // of a pixel past the line would stay NaN
    const bool beyond = ker.beyond || w.any_beyond();
    w.template start_values<S>(f.value, batch, block, w.lines_of_a_window());
    const int64_t owner = stats.owner(batch, block), slot = owner * stats.tiles.total() + tile;
    for (int k = 0; k < lay.lanes; k += V) store(&stats.top[slot * lay.lanes + k], load(&w.top[k]) + load(&ker.top[k]));
    std::unique_ptr<Array<T>>& exact = stats.exact[slot];
    auto& cells = stats.cells[slot];
    std::copy(w.lo, w.lo + 3, cells.lo), std::copy(w.n, w.n + 3, cells.n);
    std::fill(cells.scores, cells.scores + w.e.size(), T(0));
    for (Array<T>* sums : {&products, &sum_bias, &sum_weight}) std::fill(sums->begin(), sums->end(), T(0));
    w.list_taps(lo, hi);
    const int64_t width = hi[2] - lo[2], whole = whole_blocks(width);
    den.resize(size_t(whole * lay.lanes)), num.resize(den.size()), rare.resize(width), grad.resize(whole);
    if (!grads.direct && room.size() < size_t(width * grads.pitch)) room.assign(size_t(width * grads.pitch), T(0));
    std::fill(grad.begin() + width, grad.end(), w.zero.data());
    int64_t l = 0;
    for (int64_t z = lo[0]; z < hi[0]; ++z)
      for (int64_t y = lo[1]; y < hi[1]; ++y, ++l) {
        Span<T> span = span_of(w, ker, l);
        w.template load_lines<S>(w.end_of_lines(z, y));
        const bool next = w.in_place && y + 1 < hi[1] && w.line_count(l + 1) > 0;
        if (next) span.ahead = w.value.data() + w.line_taps(l + 1)[w.line_count(l + 1) - 1].cell;
        forward.denominators(span, 0, whole, den.data());
        const bool any = invert(den.data(), width, lay.lanes, rare.data()) || beyond;
        std::fill(den.begin() + width * lay.lanes, den.end(), T(0));
        const int64_t line = (z * f.geo.out[1] + y) * f.geo.out[2], local = l * width;
        grads.line(batch, block, z, y, lo[2], width, grads.direct ? nullptr : room.data(), grad.data());
        const GradLine<T> line_grads{grad.data(), grads.step, grads.direct && next ? grads.next_line() : 0};
        const int64_t at = (owner * stats.positions + line + lo[2]) * lay.lanes;
        T *r = &stats.r[at], *d = &stats.d[at];
        if (any) {  // the whole line: sums that one of its windows spoils would not be mended by the window alone
          if (!exact) start_exact(exact, scores, batch, block, lo, hi);
          for (int64_t x = 0; x < width; ++x)
            exact_row(ker, span, x * span.stride, grad[x], r + x * lay.lanes, d + x * lay.lanes,
                      &(*exact)[(local + x) * 2 * lay.lanes], cells.scores);
          continue;
        }
        std::fill(num.begin(), num.end(), T(0));
        const Scatter<T> to{den.data(), num.data(), cells.scores, products.data()};
        backward.each(lay.dvec, [&](const typename BackwardTable<T>::Part& part, int64_t first) {
          part.scatter(span, part.tap, whole, line_grads, first, to);
        });
        for (int64_t k = 0; k < width * lay.lanes; k += V)
          store(r + k, load(&den[k])), store(d + k, load(&num[k]) * load(&den[k]));
      }
    if (beyond) return;
    for (size_t i = 0; i < products.size(); i += V) {
      const Vec<T> product = load(&products[i]);
      store(&sum_bias[i], load(&sum_bias[i]) + load(&ker.ebw[i]) * product);
      store(&sum_weight[i], load(&sum_weight[i]) + load(&ker.eb[i]) * product);
    }
  }

  void start_exact(std::unique_ptr<Array<T>>& exact, const S* scores, int64_t batch, int block,
                   const int64_t (&lo)[3], const int64_t (&hi)[3]) {
    w.load_exact(scores, f.scores.stride, batch, block);
    exact.reset(new Array<T>());
    exact->assign(size_t((hi[0] - lo[0]) * (hi[1] - lo[1]) * (hi[2] - lo[2]) * 2 * lay.lanes),
                  std::numeric_limits<T>::quiet_NaN());
  }

  void exact_row(const Kernel<T>& ker, const Span<T>& s, int64_t cell, const T* g, T* r, T* d, T* own,
                 T* grad_scores) {
    forward_exact<T>(w, ker, s, cell, own, r, nullptr, 0);
    const Exchanges<T> swap(lay);
    std::fill(d, d + lay.lanes, T(0));
    s.each_tap(cell, [&](int64_t from, int64_t weight) {
      const T* v = w.value[from];
      Vec<T> dot{};
      for (int c = 0; c < lay.dvec; ++c) dot += load(g + c * grads.step) * load(v + c * w.step);
      dot = swap.template slices<-1>(dot);
      for (int k = 0; k < lay.lanes; k += V) {
        const Vec<T> x = exp_gap(exact_logit(w, ker, from * lay.lanes, weight, k), load_top(own, lay.lanes, k));
        const Vec<T> with = x * load(r + k) * dot, logit = with * load(&ker.weight[weight + k]);
        T *to = grad_scores + from * lay.lanes + k, *bias = &sum_bias[weight + k], *product = &sum_weight[weight + k];
        store(d + k, load(d + k) + logit), store(to, load(to) + logit);
        store(bias, load(bias) + logit), store(product, load(product) + with);
      }
    });
  }
};

template <class T, class S> struct Sweep2 {
  static constexpr int V = Simd<T>::width;
  const qna::Backward& f;
  const Geometry& geo;
  const Layout<T>& lay;
  const std::vector<Kernel<T>>& kernels;
  const Statistics<T>& stats;
  BackwardTable<T> table;
  Window<T> w;
  GradRows<T, S> grads;
  int64_t lo[3], n[3];             // the box of windows
  Array<T> r, d, top, rows, ds, room, sum_bias;
  Array<const T*> grad;
  Array<T*> dst;                   // of a line of positions
  Array<Tap> taps;
  int64_t pitch;

  Sweep2(const qna::Backward& f_, const Layout<T>& l, const std::vector<Kernel<T>>& k, const Statistics<T>& s)
      : f(f_), geo(f_.geo), lay(l), kernels(k), stats(s), w(l, f_.geo), grads(l, f_.geo, f_.grad_out) {
    table = backward_table(lay, geo, w.runs);
    pitch = int64_t(lay.dvec) * lay.vector_step();
    sum_bias.resize(size_t(geo.taps() * lay.lanes));
  }

  static int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

  // Blocks of a line that share their taps lie stride apart: this many, rounded up to whole blocks.
  int64_t line_blocks(int64_t width) const {
    int64_t q = (width + geo.stride[2] - 1) / geo.stride[2];
    return (q + lay.pixels - 1) / lay.pixels * lay.pixels;
  }

  void place(const int64_t (&jlo)[3], const int64_t (&jhi)[3]) {
    for (int a = 0; a < 3; ++a) {
      int64_t first = -floor_div(-(jlo[a] + geo.pad[a] - (geo.kernel[a] - 1) * geo.dilation[a]), geo.stride[a]);
      int64_t last = floor_div(jhi[a] - 1 + geo.pad[a], geo.stride[a]) + 1, margin = 0;
      if (a == 2) margin = line_blocks(jhi[2] - jlo[2]) + geo.kernel[2], last += margin;
      lo[a] = std::max(first, -margin);
      n[a] = std::max<int64_t>(std::min(last, geo.out[a] + margin) - lo[a], 0);
    }
  }

  // Windows of a line of the box that lie inside the map.
  int64_t first_inside() const { return std::min(std::max<int64_t>(-lo[2], 0), n[2]); }
  int64_t end_inside() const { return std::max(std::min(geo.out[2] - lo[2], n[2]), first_inside()); }

  // r and D of the box, r relative to this tile's exponents (or, for the exact path, as they are, with what they are
  // relative to). False if an r is too large for that, or of a window that took the exact path.
  bool load_windows(int64_t batch, int block, const Kernel<T>& ker, bool exact) {
    const int lanes = lay.lanes;
    const int64_t owner = stats.owner(batch, block);
    const size_t cells = size_t(n[0] * n[1] * n[2]);
    r.resize(cells * lanes), d.resize(cells * lanes);
    if (exact) top.resize(cells * 2 * lanes);
    bool fits = true;
    for (int64_t z = 0; z < n[0]; ++z)
      for (int64_t y = 0; y < n[1]; ++y) {
        const int64_t line = (z * n[1] + y) * n[2], i[2] = {lo[0] + z, lo[1] + y};
        const int64_t x0 = first_inside(), x1 = end_inside();
        for (Array<T>* map : {&r, &d}) {
          T* from = map->data() + line * lanes;
          std::fill(from, from + x0 * lanes, T(0)), std::fill(from + x1 * lanes, from + n[2] * lanes, T(0));
        }
        if (exact)  // nothing is left relative to infinity
          for (int64_t k = 0; k < n[2] * lanes; k += V)
            store_top(&top[(line * lanes + k / lanes * lanes) * 2], lanes, int(k % lanes),
                      {splat(std::numeric_limits<T>::infinity()), Vec<T>{}});
        int64_t tile = 0, inside = 0;
        for (int a = 0; a < 2; ++a) {
          const int64_t q = i[a] / stats.tiles.size[a], start = q * stats.tiles.size[a];
          tile = tile * stats.tiles.count[a] + q;
          inside = inside * std::min(stats.tiles.size[a], geo.out[a] - start) + i[a] - start;
        }
        for (int64_t x = x0; x < x1;) {  // the windows of one tile after the other
          const int64_t q = (lo[2] + x) / stats.tiles.size[2], start = q * stats.tiles.size[2];
          const int64_t size = std::min(stats.tiles.size[2], geo.out[2] - start);
          const int64_t end = std::min(start + size - lo[2], x1), at_x = inside * size + lo[2] + x - start;
          const int64_t slot = owner * stats.tiles.total() + tile * stats.tiles.count[2] + q;
          const int64_t at = owner * stats.positions + (i[0] * geo.out[1] + i[1]) * geo.out[2] + lo[2];
          if (!exact && !stats.exact[slot]) {
            fits &= load_ordinary(ker, slot, (at + x) * lanes, (line + x) * lanes, (end - x) * lanes);
            x = end;
            continue;
          }
          const T* own = stats.exact[slot] ? &(*stats.exact[slot])[at_x * 2 * lanes] : nullptr;
          for (; x < end; ++x, own = own ? own + 2 * lanes : own)
            fits &= load_window(ker, exact, slot, (at + x) * lanes, own, (line + x) * lanes);
        }
      }
    return fits;
  }

  // Windows of a tile that has none of the exact path.
  bool load_ordinary(const Kernel<T>& ker, int64_t slot, int64_t from, int64_t to, int64_t count) {
    Vec<T> largest{};
    for (int k = 0; k < lay.lanes; k += V) {
      const Vec<T> up = load(&w.top[k]) + load(&ker.top[k]) - load(&stats.top[slot * lay.lanes + k]);
      for (int64_t i = k; i < count; i += lay.lanes) {
        const Vec<T> v = scale2(load(&stats.r[from + i]), up);
        largest = vmax(v, largest);
        store(&r[to + i], v), store(&d[to + i], load(&stats.d[from + i]));
      }
    }
    return !any_below<T>(splat(1 / ExpLimits<T>::vanishing), largest);
  }

  bool load_window(const Kernel<T>& ker, bool exact, int64_t slot, int64_t from, const T* own, int64_t to) {
    bool fits = true;
    if (own && std::isnan(own[0])) own = nullptr;
    for (int k = 0; k < lay.lanes; k += V) {
      Vec<T> v = load(&stats.r[from + k]), relative_to = load(&stats.top[slot * lay.lanes + k]);
      if (exact) {
        if (own) {
          store_top(&top[to * 2], lay.lanes, k, load_top(own, lay.lanes, k));
        } else {  // relative to its own size: a gap to the tile's would be hundreds, and so would its rounding
          Vec<T> power;
          split_power<T>(v, v, power);
          store_top(&top[to * 2], lay.lanes, k, logit_of_power<T>(relative_to - power));
        }
      } else if (own) {
        fits = fits && !any_below<T>(Vec<T>{}, v);  // 0 where all is masked
      } else {
        v = scale2(v, load(&w.top[k]) + load(&ker.top[k]) - relative_to);
        fits = fits && !any_below<T>(splat(1 / ExpLimits<T>::vanishing), v);
      }
      store(&r[to + k], v), store(&d[to + k], load(&stats.d[from + k]));
    }
    return fits;
  }

  void load_grads(int64_t batch, int block) {
    grad.resize(size_t(n[0] * n[1] * n[2]));
    if (!grads.direct && rows.size() < grad.size() * grads.pitch) {
      rows.resize(grad.size() * grads.pitch);
      if (grads.form == RowForm::any) std::fill(rows.begin(), rows.end(), T(0));
    }
    const int64_t x0 = first_inside(), x1 = end_inside();
    for (int64_t line = 0; line < n[0] * n[1]; ++line) {
      const int64_t z = lo[0] + line / n[1], y = lo[1] + line % n[1], cell = line * n[2];
      const T** to = &grad[cell];
      std::fill(to, to + x0, w.zero.data()), std::fill(to + x1, to + n[2], w.zero.data());
      T* row = grads.direct ? nullptr : &rows[(cell + x0) * grads.pitch];
      grads.line(batch, block, z, y, lo[2] + x0, x1 - x0, row, to + x0);
    }
  }

  // Taps t and windows i with i * stride + t * dilation - pad = j, for the first position of a line with this phase;
  // or, for runs, the first of the windows that hold it in each of their lines.
  void list_taps(int64_t z, int64_t y, int64_t x, int64_t width, bool runs) {
    taps.clear();
    const int64_t j[3] = {z, y, x};
    int64_t i[3], t = 0;
    auto window = [&](int a, int64_t tap) {
      int64_t at = j[a] + geo.pad[a] - tap * geo.dilation[a];
      i[a] = floor_div(at, geo.stride[a]);
      return i[a] * geo.stride[a] == at;
    };
    auto add = [&](int64_t tap) {
      taps.push_back({((i[0] - lo[0]) * n[1] + i[1] - lo[1]) * n[2] + i[2] - lo[2], tap * lay.lanes});
    };
    for (int64_t a = 0; a < geo.kernel[0]; ++a) {
      bool fits_z = window(0, a) && i[0] >= 0 && i[0] < geo.out[0];
      for (int64_t b = 0; b < geo.kernel[1]; ++b, t += geo.kernel[2]) {
        if (!(fits_z && window(1, b) && i[1] >= 0 && i[1] < geo.out[1])) continue;
        if (runs) window(2, geo.kernel[2] - 1), add(t);
        else
          for (int64_t c = 0; c < geo.kernel[2]; ++c)
            if (window(2, c) && i[2] < geo.out[2] && i[2] + width > 0) add(t + c);
      }
    }
  }

  void run(int64_t batch, int block, const int64_t (&jlo)[3], const int64_t (&jhi)[3]) {
    const Kernel<T>& ker = kernels[block];
    const S* scores = static_cast<const S*>(f.scores.data);
    place(jlo, jhi);
    w.place_positions(jlo, jhi);
    w.load_scores(scores, f.scores.stride, batch, block, ker.headroom);
    // also for scores out of range that no window sees: their NaN times the 0 of a window outside the map stays NaN
    const bool exact = ker.beyond || w.any_beyond() || !load_windows(batch, block, ker, false);
    if (exact) {
      w.load_exact(scores, f.scores.stride, batch, block);
      load_windows(batch, block, ker, true);
    }
    load_grads(batch, block);
    std::fill(sum_bias.begin(), sum_bias.end(), T(0));
    const int64_t(&vs)[6] = f.grad_value.stride;
    const int64_t(&ss)[4] = f.grad_scores.stride;
    const RowForm form = lay.row_form(vs[4], vs[5]);
    constexpr bool same = std::is_same<S, T>::value;
    const bool direct = same && form == RowForm::vectors;
    const int64_t step = direct ? lay.vector_step() : V, stride = geo.stride[2];
    const int64_t width = jhi[2] - jlo[2], pixels = line_blocks(width);
    ds.resize(size_t(pixels * lay.lanes)), dst.resize(pixels);
    // sub-pixels add to the rows that the first has begun, in the map itself or in room for all of the tile
    const bool last = lay.subpixel(block) + 1 == lay.subpixels, keeps = !direct && lay.subpixels > 1;
    const int64_t phases = std::min(stride, width), rooms = keeps ? w.n[0] * w.n[1] * phases : 1;
    if (room.size() < size_t(rooms * pixels * pitch)) room.assign(size_t(rooms * pixels * pitch), T(0));
    int64_t at_room = 0;
    Gather<T> s{w.e.data(), r.data(),   d.data(),   ker.eb.data(), ker.ebw.data(), grad.data(),
                nullptr,    0,          geo.kernel[2], stride,     dst.data(),     ds.data(),
                grads.step, step,       0,          lay.subpixel(block) > 0, sum_bias.data(), &lay};
    for (int64_t z = jlo[0]; z < jhi[0]; ++z)
      for (int64_t y = jlo[1]; y < jhi[1]; ++y) {
        S* value_line = static_cast<S*>(f.grad_value.data) + batch * vs[0] + z * vs[1] + y * vs[2];
        S* score_line = static_cast<S*>(f.grad_scores.data) + batch * ss[0] + z * ss[1] + y * ss[2];
        const int64_t line = ((z - jlo[0]) * w.n[1] + (y - jlo[1])) * w.n[2];
        for (int64_t phase = 0; phase < phases; ++phase) {
          const int64_t live = (width - phase + stride - 1) / stride;
          s.dst_next = direct && y + 1 < jhi[1] ? vs[2] : 0;
          list_taps(z, y, jlo[2] + phase, pixels, table.runs && !exact);
          s.taps = taps.data(), s.count = int64_t(taps.size());
          for (int64_t q = 0; q < pixels; ++q) dst[q] = &room[(at_room + q) * pitch];
          if (keeps) at_room += pixels;
          if constexpr (same)
            if (direct) {
              T* to = value_line + (jlo[2] + phase) * vs[3] + lay.first_head(block);
              for (int64_t q = 0; q < live; ++q, to += stride * vs[3]) dst[q] = to;
            }
          load_scores_so_far(batch, block, z, y, jlo[2] + phase, live);
          const int64_t whole = (live + lay.pixels - 1) / lay.pixels * lay.pixels;
          if (!exact)
            table.each(lay.dvec, [&](const typename BackwardTable<T>::Part& part, int64_t first) {
              part.gather(s, part.tap, line + phase, whole, first);
            });
          else
            for (int64_t q = 0; q < live; ++q) exact_row(s, ker, line + phase + q * stride, q);
          for (int64_t q = 0; q < live; ++q) {
            const int64_t at = jlo[2] + phase + q * stride;
            fetch<S, 1, true>(score_line, at * ss[3] + ss[2], 0);
            write_scores(lay, block, score_line + at * ss[3], &ds[q * lay.lanes]);
          }
          if (!direct && last)
            write_rows(lay, block, value_line + (jlo[2] + phase) * vs[3], stride * vs[3], vs[4], vs[5], form, dst[0],
                       pitch, live);
        }
      }
    if (!exact)
      for (size_t i = 0; i < sum_bias.size(); i += V) store(&sum_bias[i], -load(&sum_bias[i]) * load(&ker.eb[i]));
  }

  // What sweep 1 found for the scores of `live` positions from (z, y, x) on, `stride` apart: the sum over all tiles of
  // windows that see them.
  void load_scores_so_far(int64_t batch, int block, int64_t z, int64_t y, int64_t x, int64_t live) {
    std::fill(ds.begin(), ds.end(), T(0));
    const int64_t first = stats.owner(batch, block) * stats.tiles.total(), step = geo.stride[2];
    int64_t from[3], to[3];
    for (int a = 0; a < 3; ++a) {
      from[a] = std::max<int64_t>(lo[a], 0) / stats.tiles.size[a];
      to[a] = (std::min(lo[a] + n[a], geo.out[a]) - 1) / stats.tiles.size[a];
    }
    for (int64_t a = from[0]; a <= to[0]; ++a)
      for (int64_t b = from[1]; b <= to[1]; ++b)
        for (int64_t c = from[2]; c <= to[2]; ++c) {
          const auto& cells = stats.cells[first + (a * stats.tiles.count[1] + b) * stats.tiles.count[2] + c];
          const int64_t i[2] = {z - cells.lo[0], y - cells.lo[1]}, q0 = x - cells.lo[2];
          if (i[0] < 0 || i[0] >= cells.n[0] || i[1] < 0 || i[1] >= cells.n[1]) continue;
          const T* line = cells.scores + (i[0] * cells.n[1] + i[1]) * cells.n[2] * lay.lanes;
          const int64_t begin = std::max<int64_t>(-floor_div(q0, step), 0);
          const int64_t end = std::min(live, floor_div(cells.n[2] - 1 - q0, step) + 1);
          for (int64_t q = begin; q < end; ++q)
            for (int k = 0; k < lay.lanes; k += V)
              store(&ds[q * lay.lanes + k],
                    load(&ds[q * lay.lanes + k]) + load(line + (q0 + q * step) * lay.lanes + k));
        }
  }

  // The same of one pixel, from scores of any size.
  void exact_row(const Gather<T>& s, const Kernel<T>& ker, int64_t e_cell, int64_t pixel) {
    const Exchanges<T> swap(lay);
    T *grad_scores = s.grad_scores + pixel * lay.lanes, *to = s.dst[pixel];
    if (!s.onto)
      for (int c = 0; c < lay.dvec; ++c) store(to + c * s.dst_step, Vec<T>{});
    for (const Tap& t : taps) {
      const int64_t at = pixel + t.cell;
      const T* g = grad[at];
      Vec<T> a{};
      for (int k = 0; k < lay.lanes; k += V) {
        const int64_t from = e_cell * lay.lanes + k, i = at * lay.lanes + k, tk = t.weight + k;
        const Logit<T> own = load_top(&top[at * 2 * lay.lanes], lay.lanes, k);
        const Vec<T> share = exp_gap(logit<T>(load(&w.scores[from]), load(&ker.bias[tk])), own) * load(&r[i]);
        const Vec<T> less = share * load(&d[i]);
        a += share * load(&ker.weight[tk]);
        store(grad_scores + k, load(grad_scores + k) - less);
        store(&sum_bias[tk], load(&sum_bias[tk]) - less);
      }
      a = swap.template queries<-1>(a);
      for (int c = 0; c < lay.dvec; ++c)
        store(to + c * s.dst_step, load(to + c * s.dst_step) + a * load(g + c * s.grad_step));
    }
  }
};

}  // namespace
