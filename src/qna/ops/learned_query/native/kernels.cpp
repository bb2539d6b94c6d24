// One instruction set's kernels; compiled once per set with QNA_KERNELS naming the exported table.
#include "parallel.h"
#include "sweeps.h"

namespace {

template <class T>
std::vector<Kernel<T>> static_kernels(const Layout<T>& lay, const Geometry& g, const void* bias, const void* weight) {
  std::vector<Kernel<T>> out;
  for (int b = 0; b < lay.blocks; ++b)
    out.emplace_back(lay, b, g.taps(), static_cast<const T*>(bias), static_cast<const T*>(weight));
  return out;
}

// Positions of a tile: its rows and exponentials fit the second-level cache, where every block of heads and every
// sub-pixel finds them again.
template <class T> int64_t tile_positions(const Layout<T>& lay) {
  const int64_t row = int64_t(lay.head_blocks) * (2 * lay.dvec + lay.groups) * int64_t(sizeof(Vec<T>));
  return std::max<int64_t>(128, std::min<int64_t>(2048, (int64_t(1152) << 10) / row));
}

template <class T, class S> void run_forward(const qna::Forward& f) {
  const Layout<T> lay(f.geo);
  const auto kernels = static_kernels<T>(lay, f.geo, f.bias, f.weight);
  const Tiling tiles(f.geo.out, tile_positions(lay));
  const int64_t per_batch = tiles.total() * lay.blocks;
  parallel(
      f.geo.batch * per_batch, f.threads, [&] { return ForwardTask<T, S>(f, lay, kernels); },
      [&](ForwardTask<T, S>& task, int64_t i) {
        int64_t lo[3], hi[3];
        tiles.bounds(i % per_batch / lay.blocks, lo, hi);
        task.run(i / per_batch, int(i % lay.blocks), lo, hi);
      });
}

// Sums over the map are kept by parts, each in fp64 over its tiles: groups of batch items, and where these are few,
// ranges of their tiles. The shape alone decides, never the number of threads.
struct Parts {
  int64_t batch, tiles, groups, ranges;
  Parts(int64_t items, int64_t tiles_of_an_item)
      : batch(items),
        tiles(tiles_of_an_item),
        groups(std::min(items, kMost)),
        ranges(std::min(tiles, std::max<int64_t>(kMost / std::max<int64_t>(groups, 1), 1))) {}
  int64_t count() const { return groups * ranges; }
  int64_t first_item(int64_t group) const { return batch * group / groups; }
  int64_t first_tile(int64_t range) const { return tiles * range / ranges; }
  int64_t of(int64_t group, int64_t tile) const { return group * ranges + ((tile + 1) * ranges - 1) / tiles; }

 private:
  static constexpr int64_t kMost = 64;
};

// The last tile of windows that the positions of a tile need, counting whole lines of tiles.
inline int64_t last_window_tile(const Geometry& g, const Tiling& positions, int64_t tile, const Tiling& windows) {
  int64_t lo[3], hi[3], line[2];
  positions.bounds(tile, lo, hi);
  for (int a = 0; a < 2; ++a) line[a] = std::min((hi[a] - 1 + g.pad[a]) / g.stride[a], g.out[a] - 1) / windows.size[a];
  return (line[0] * windows.count[1] + line[1] + 1) * windows.count[2] - 1;
}

// The first of them, also counting whole lines.
inline int64_t first_window_tile(const Geometry& g, const Tiling& positions, int64_t tile, const Tiling& windows) {
  int64_t lo[3], hi[3], line[2];
  positions.bounds(tile, lo, hi);
  for (int a = 0; a < 2; ++a)
    line[a] = std::max<int64_t>(lo[a] + g.pad[a] - (g.kernel[a] - 1) * g.dilation[a], 0) / g.stride[a] / windows.size[a];
  return (line[0] * windows.count[1] + line[1]) * windows.count[2];
}

// Tiles of windows from the first that a tile of positions needs to the last: what the first sweep found for the scores
// of other tiles has been added up, or has yet to be found.
inline int64_t window_tiles_in_use(const Geometry& g, const Tiling& positions, const Tiling& windows) {
  int64_t most = 1;
  for (int64_t tile = 0; tile < positions.total(); ++tile)
    most = std::max(most, last_window_tile(g, positions, tile, windows) + 1 -
                              first_window_tile(g, positions, tile, windows));
  return std::min(most, windows.total());
}

template <class T, class S> void run_backward(const qna::Backward& f) {
  const Layout<T> lay(f.geo);
  const auto kernels = static_kernels<T>(lay, f.geo, f.bias, f.weight);
  const int64_t row = f.geo.taps() * lay.lanes, number = lay.scores();
  const Tiling positions(f.geo.in, tile_positions(lay)), windows(f.geo.out, tile_positions(lay));
  const Parts parts(f.geo.batch, positions.total()), window_parts(f.geo.batch, windows.total());
  // of each part and block: what the second sweep, then what the first adds to bias and weight
  std::vector<double> of_positions(size_t(parts.count() * lay.blocks * row), 0.0);
  std::vector<double> of_windows(size_t(window_parts.count() * lay.blocks * row * 2), 0.0);
  auto sweep1 = [&](Sweep1<T, S>& sweep, int64_t item, int64_t part, int64_t tile, int64_t block) {
    double* to = &of_windows[size_t((part * lay.blocks + block) * row * 2)];
    sweep.run(item, int(block), tile);
    for (int64_t k = 0; k < row; ++k) to[k] += sweep.sum_bias[k], to[row + k] += sweep.sum_weight[k];
  };
  auto sweep2 = [&](Sweep2<T, S>& sweep, int64_t item, int64_t part, int64_t tile, int64_t block) {
    double* to = &of_positions[size_t((part * lay.blocks + block) * row)];
    int64_t lo[3], hi[3];
    positions.bounds(tile, lo, hi);
    sweep.run(item, int(block), lo, hi);
    for (int64_t k = 0; k < row; ++k) to[k] += sweep.sum_bias[k];
  };
  if (f.geo.batch % f.threads == 0 || f.geo.batch >= 4 * f.threads) {
    // enough items for all threads: each takes an item through both sweeps, the second close behind the first, so that
    // it finds in a cache what the first has read
    struct Task {
      Statistics<T> stats;
      Sweep1<T, S> first;
      Sweep2<T, S> second;
      Task(const qna::Backward& f, const Layout<T>& lay, const std::vector<Kernel<T>>& kernels, const Tiling& windows,
           int64_t kept)
          : stats(f.geo, lay, windows, 1, kept), first(f, lay, kernels, stats), second(f, lay, kernels, stats) {}
    };
    const int64_t kept = window_tiles_in_use(f.geo, positions, windows);
    parallel(
        parts.groups, f.threads, [&] { return std::make_unique<Task>(f, lay, kernels, windows, kept); },
        [&](std::unique_ptr<Task>& task, int64_t group) {
          for (int64_t item = parts.first_item(group); item < parts.first_item(group + 1); ++item) {
            task->stats.start(item);
            int64_t done = 0;  // tiles of windows
            for (int64_t tile = 0; tile < positions.total(); ++tile) {
              for (const int64_t last = last_window_tile(f.geo, positions, tile, windows); done <= last; ++done)
                for (int64_t block = 0; block < lay.blocks; ++block)
                  sweep1(task->first, item, window_parts.of(group, done), done, block);
              for (int64_t block = 0; block < lay.blocks; ++block)
                sweep2(task->second, item, parts.of(group, tile), tile, block);
            }
          }
        });
  } else {
    Statistics<T> stats(f.geo, lay, windows, f.geo.batch, windows.total());
    // sweep(task, item, part, tile, block) for all of a part, in order; the sub-pixels of some heads by one thread
    auto by_parts = [&](const Parts& parts, auto make, auto sweep) {
      parallel(parts.count() * lay.head_blocks, f.threads, make, [&](auto& task, int64_t i) {
        const int64_t part = i / lay.head_blocks, group = part / parts.ranges, range = part % parts.ranges;
        const int64_t first = i % lay.head_blocks * lay.subpixels;
        for (int64_t item = parts.first_item(group); item < parts.first_item(group + 1); ++item)
          for (int64_t tile = parts.first_tile(range); tile < parts.first_tile(range + 1); ++tile)
            for (int64_t block = first; block < first + lay.subpixels; ++block) sweep(task, item, part, tile, block);
      });
    };
    by_parts(window_parts, [&] { return Sweep1<T, S>(f, lay, kernels, stats); }, sweep1);
    by_parts(parts, [&] { return Sweep2<T, S>(f, lay, kernels, stats); }, sweep2);
  }
  for (int64_t t = 0; t < f.geo.taps(); ++t)
    for (int block = 0; block < lay.blocks; ++block)
      for (int k = 0; k < lay.lanes; ++k) {
        const int64_t to = lay.source[size_t(block) * lay.lanes + k];
        if (to < 0 || !first_holder(lay, k)) continue;
        double bias = 0, weight = 0;
        for (int64_t part = 0; part < window_parts.count(); ++part) {
          const double* from = &of_windows[size_t((part * lay.blocks + block) * row * 2 + t * lay.lanes + k)];
          bias += from[0], weight += from[row];
        }
        for (int64_t part = 0; part < parts.count(); ++part)
          bias += of_positions[size_t((part * lay.blocks + block) * row + t * lay.lanes + k)];
        static_cast<T*>(f.grad_bias)[t * number + to] = T(bias);
        if (f.grad_weight) static_cast<T*>(f.grad_weight)[t * number + to] = T(weight);
      }
}

void forward(qna::Storage s, const qna::Forward& f) {
  switch (s) {
    case qna::Storage::f32: return run_forward<float, float>(f);
    case qna::Storage::f64: return run_forward<double, double>(f);
    case qna::Storage::bf16: return run_forward<float, bf16>(f);
    case qna::Storage::f16: return run_forward<float, fp16>(f);
  }
}

void backward(qna::Storage s, const qna::Backward& f) {
  switch (s) {
    case qna::Storage::f32: return run_backward<float, float>(f);
    case qna::Storage::f64: return run_backward<double, double>(f);
    case qna::Storage::bf16: return run_backward<float, bf16>(f);
    case qna::Storage::f16: return run_backward<float, fp16>(f);
  }
}

}  // namespace

namespace qna {
extern const Kernels QNA_KERNELS;
const Kernels QNA_KERNELS = {forward, backward, kVectorBytes};
}  // namespace qna
