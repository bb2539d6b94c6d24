// One instruction set's kernels; compiled once per set with QNA_KERNELS naming the exported table.
#include <exception>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "sweeps.h"

namespace {

// Runs work(task, index) for every index, one Task per thread; an exception in a thread is thrown again afterwards.
template <class Make, class Work> void parallel(int64_t count, int threads, Make make, Work work) {
  std::exception_ptr error;
#if !defined(_OPENMP)
  threads = 1;
#else
  threads = int(std::min<int64_t>(threads, count));
#pragma omp parallel num_threads(threads) if (threads > 1)
#endif
  {
    try {
      auto task = make();
#if defined(_OPENMP)
      const int64_t rank = omp_get_thread_num(), team = omp_get_num_threads();
#else
      const int64_t rank = 0, team = 1;
#endif
      for (int64_t i = count * rank / team; i < count * (rank + 1) / team; ++i) work(task, i);
    } catch (...) {
#if defined(_OPENMP)
#pragma omp critical
#endif
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

template <class T>
std::vector<Kernel<T>> static_kernels(const Layout<T>& lay, const Geometry& g, const void* bias, const void* weight) {
  std::vector<Kernel<T>> out;
  for (int b = 0; b < lay.blocks; ++b)
    out.emplace_back(lay, b, g.taps(), static_cast<const T*>(bias), static_cast<const T*>(weight));
  return out;
}

// Positions of a tile: its rows and exponentials fit the second-level cache, where every block of heads finds them
// again.
template <class T> int64_t tile_positions(const Layout<T>& lay) {
  const int64_t row = int64_t(lay.blocks) * (2 * lay.dvec + lay.groups) * int64_t(sizeof(Vec<T>));
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

// Sums over the map are kept by a fixed number of parts, each in fp64 over its tiles, whatever the number of threads.
constexpr int64_t kParts = 64;

// Batch items that both sweeps of backward take before the next: few, so that the second finds in a cache what the
// first has read, and enough for all threads.
template <class T>
int64_t items_together(const Layout<T>& lay, const Geometry& g, int64_t tasks, int threads) {
  const int64_t row = int64_t(lay.blocks) * (2 * lay.dvec + lay.groups) * int64_t(sizeof(Vec<T>));
  const int64_t item = g.in[0] * g.in[1] * g.in[2] * row;
  return std::max<int64_t>({1, (int64_t(2) << 20) / item, threads > 1 ? (4 * threads + tasks - 1) / tasks : 1});
}

template <class T, class S> void run_backward(const qna::Backward& f) {
  const Layout<T> lay(f.geo);
  const auto kernels = static_kernels<T>(lay, f.geo, f.bias, f.weight);
  const Tiling tiles(f.geo.in, tile_positions(lay));
  const int64_t together = std::min(f.geo.batch, items_together(lay, f.geo, tiles.total() * lay.blocks, f.threads));
  Statistics<T> stats(f.geo, lay, tile_positions(lay), together);
  const int64_t items = f.geo.batch * tiles.total(), parts = std::min(items, kParts);
  const int64_t row = f.geo.taps() * lay.lanes, number = lay.queries * lay.heads;
  std::vector<double> sums(size_t(parts * lay.blocks * row * 2), 0.0);
  for (int64_t first = 0; first < f.geo.batch; first += together) {
    const int64_t end = std::min(first + together, f.geo.batch), per_batch = stats.tiles.total() * lay.blocks;
    stats.start(first);
    parallel(
        (end - first) * per_batch, f.threads, [&] { return Sweep1<T, S>(f, lay, kernels, stats); },
        [&](Sweep1<T, S>& task, int64_t i) {
          task.run(first + i / per_batch, int(i % lay.blocks), i % per_batch / lay.blocks);
        });
    const int64_t item0 = first * tiles.total(), item1 = end * tiles.total();
    const int64_t part0 = ((item0 + 1) * parts - 1) / items, part1 = (item1 * parts - 1) / items + 1;
    parallel(
        (part1 - part0) * lay.blocks, f.threads, [&] { return Sweep2<T, S>(f, lay, kernels, stats); },
        [&](Sweep2<T, S>& task, int64_t i) {
          const int64_t part = part0 + i / lay.blocks, block = i % lay.blocks;
          double* to = &sums[size_t((part * lay.blocks + block) * row * 2)];
          const int64_t from = std::max(items * part / parts, item0);
          const int64_t until = std::min(items * (part + 1) / parts, item1);
          for (int64_t item = from; item < until; ++item) {
            int64_t lo[3], hi[3];
            tiles.bounds(item % tiles.total(), lo, hi);
            task.run(item / tiles.total(), int(block), lo, hi);
            for (int64_t k = 0; k < row; ++k) to[k] += task.sum_bias[k], to[row + k] += task.sum_weight[k];
          }
        });
  }
  for (int64_t t = 0; t < f.geo.taps(); ++t)
    for (int block = 0; block < lay.blocks; ++block)
      for (int k = 0; k < lay.lanes; ++k) {
        const int64_t to = lay.source[size_t(block) * lay.lanes + k];
        if (to < 0 || !first_holder(lay, k)) continue;
        double bias = 0, weight = 0;
        for (int64_t part = 0; part < parts; ++part) {
          const double* from = &sums[size_t((part * lay.blocks + block) * row * 2 + t * lay.lanes + k)];
          bias += from[0], weight += from[row];
        }
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
