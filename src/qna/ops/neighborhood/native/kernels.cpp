// One instruction set's kernels; compiled once per set with QNA_KERNELS naming the exported table.
#include <memory>

#include "backward.h"
#include "parallel.h"

namespace {

template <class T, class S> void run_forward(const qna::Forward& f) {
  const Geometry& g = f.geo;
  const Boxes boxes(g, box_positions<T>(g));
  parallel(
      g.batch * g.heads * boxes.total(), f.threads, [&] { return std::make_unique<ForwardTask<T, S>>(f); },
      [&](std::unique_ptr<ForwardTask<T, S>>& task, int64_t i) {
        Group group;
        Box box;
        boxes.at(i % boxes.total(), group, box);
        const int64_t pair = i / boxes.total();
        if (!box.empty()) task->run(pair / g.heads, pair % g.heads, group, box);
      });
}

// Sums over the map are kept by parts, each in fp64 over its boxes: of each head groups of batch items, and where these
// are few, ranges of their boxes. The shape alone decides, never the number of threads.
struct Parts {
  int64_t batch, heads, boxes, groups, ranges;
  Parts(const Geometry& g, int64_t boxes)
      : batch(g.batch),
        heads(g.heads),
        boxes(boxes),
        groups(std::min(batch, most())),
        ranges(std::min(boxes, std::max<int64_t>(most() / groups, 1))) {}
  int64_t count() const { return heads * groups * ranges; }
  int64_t most() const { return std::max<int64_t>(64 / heads, 1); }
};

template <class T, class S> void run_backward(const qna::Backward& f) {
  const Geometry& g = f.geo;
  const Boxes boxes(g, box_positions<T>(g));
  const Parts parts(g, boxes.total());
  const int64_t positions = g.axis[0].size * g.axis[1].size * g.axis[2].size;
  int64_t entries = f.grad_bias ? 1 : 0;
  for (const qna::Axis& axis : g.axis) entries *= 2 * axis.kernel - 1;
  Array<T> delta(static_cast<size_t>(g.batch * positions * g.heads));
  std::vector<double> bias(size_t(parts.count() * entries), 0.0);
  // of every batch item, head and range
  const int64_t of_k = g.extra * g.dim, of_v = g.extra * g.value_dim;
  std::vector<double> extra(size_t(g.batch * g.heads * parts.ranges * (of_k + of_v)), 0.0);

  struct Query {
    QuerySweep<T, S> sweep;
    Sums sums;
    Query(const qna::Backward& f, T* delta) : sweep(f, delta) {}
  };
  parallel(
      parts.count(), f.threads,
      [&] { return std::make_unique<Query>(f, delta.data()); },
      [&](std::unique_ptr<Query>& task, int64_t part) {
        const int64_t range = part % parts.ranges, group_of_items = part / parts.ranges % parts.groups;
        const int64_t head = part / parts.ranges / parts.groups;
        Sums& sums = task->sums;
        sums.bias.assign(size_t(entries), 0.0);
        for (int64_t item = g.batch * group_of_items / parts.groups;
             item < g.batch * (group_of_items + 1) / parts.groups; ++item) {
          sums.extra_k.assign(size_t(of_k), 0.0), sums.extra_v.assign(size_t(of_v), 0.0);
          for (int64_t i = parts.boxes * range / parts.ranges; i < parts.boxes * (range + 1) / parts.ranges; ++i) {
            Group group;
            Box box;
            boxes.at(i, group, box);
            if (!box.empty()) task->sweep.run(item, head, group, box, sums);
          }
          double* to = extra.data() + ((item * g.heads + head) * parts.ranges + range) * (of_k + of_v);
          std::copy(sums.extra_v.begin(), sums.extra_v.end(), std::copy(sums.extra_k.begin(), sums.extra_k.end(), to));
        }
        std::copy(sums.bias.begin(), sums.bias.end(), bias.data() + part * entries);
      });
  parallel(
      g.batch * g.heads * boxes.total(), f.threads, [&] { return std::make_unique<KeySweep<T, S>>(f, delta.data()); },
      [&](std::unique_ptr<KeySweep<T, S>>& sweep, int64_t i) {
        Group group;
        Box box;
        boxes.at(i % boxes.total(), group, box);
        const int64_t pair = i / boxes.total();
        if (!box.empty()) sweep->run(pair / g.heads, pair % g.heads, group, box);
      });

  for (int64_t head = 0; head < g.heads; ++head)
    for (int64_t e = 0; e < entries; ++e) {
      double sum = 0;
      for (int64_t p = 0; p < parts.groups * parts.ranges; ++p)
        sum += bias[size_t((head * parts.groups * parts.ranges + p) * entries + e)];
      static_cast<T*>(f.grad_bias)[head * entries + e] = T(sum);
    }
  for (int64_t pair = 0; pair < g.batch * g.heads; ++pair)
    for (int64_t n = 0; n < of_k + of_v; ++n) {
      double sum = 0;
      for (int64_t r = 0; r < parts.ranges; ++r) sum += extra[size_t((pair * parts.ranges + r) * (of_k + of_v) + n)];
      const bool key = n < of_k;
      const int64_t channels = key ? g.dim : g.value_dim, at = key ? n : n - of_k;
      const int64_t row = (pair / g.heads * g.extra + at / channels) * g.heads + pair % g.heads;
      static_cast<T*>(key ? f.grad_extra_keys : f.grad_extra_values)[row * channels + at % channels] = T(sum);
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
