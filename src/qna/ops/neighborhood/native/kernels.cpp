// One instruction set's kernels; compiled once per set with QNA_KERNELS naming the exported table.
#include <memory>

#include "halves.h"
#include "parallel.h"

namespace {

// task->run(item, head, group, box) for all boxes of all heads; every thread makes a task.
template <class T, class F, class Make> void each_box(const F& f, Make make) {
  const Geometry& g = f.geo;
  const Boxes boxes(g, box_positions<T>(g));
  parallel(g.batch * g.heads * boxes.total(), f.threads, make, [&](auto& task, int64_t i) {
    Group group;
    Box box;
    boxes.at(i % boxes.total(), group, box);
    const int64_t pair = i / boxes.total();
    if (!box.empty()) task->run(pair / g.heads, pair % g.heads, group, box);
  });
}

template <class T, class S> void run_forward(const qna::Forward& f) {
  each_box<T>(f, [&] { return std::make_unique<ForwardTask<T, S>>(f); });
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
  struct One {
    int64_t head, item, last_item, range, box, last_box;
  };
  One one(int64_t part) const {
    const int64_t range = part % ranges, group = part / ranges % groups;
    return {part / ranges / groups, batch * group / groups,      batch * (group + 1) / groups,
            range,                  boxes * range / ranges, boxes * (range + 1) / ranges};
  }
  // The bias's gradient from sums of every part, `entries` each.
  template <class T> void add_up(const std::vector<double>& sums, int64_t entries, T* to) const {
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t e = 0; e < entries; ++e) {
        double sum = 0;
        for (int64_t p = 0; p < groups * ranges; ++p) sum += sums[size_t((head * groups * ranges + p) * entries + e)];
        to[head * entries + e] = T(sum);
      }
  }
  int64_t most() const { return std::max<int64_t>(64 / heads, 1); }
};

inline int64_t bias_entries(const Geometry& g, bool wanted) {
  int64_t entries = wanted ? 1 : 0;
  for (const qna::Axis& axis : g.axis) entries *= 2 * axis.kernel - 1;
  return entries;
}

template <class T, class S> void run_backward(const qna::Backward& f) {
  const Geometry& g = f.geo;
  const Boxes boxes(g, box_positions<T>(g));
  const Parts parts(g, boxes.total());
  const int64_t positions = g.axis[0].size * g.axis[1].size * g.axis[2].size;
  const int64_t entries = bias_entries(g, f.grad_bias);
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
        const Parts::One one = parts.one(part);
        Sums& sums = task->sums;
        sums.bias.assign(size_t(entries), 0.0);
        for (int64_t item = one.item; item < one.last_item; ++item) {
          sums.extra_k.assign(size_t(of_k), 0.0), sums.extra_v.assign(size_t(of_v), 0.0);
          for (int64_t i = one.box; i < one.last_box; ++i) {
            Group group;
            Box box;
            boxes.at(i, group, box);
            if (!box.empty()) task->sweep.run(item, one.head, group, box, sums);
          }
          double* to = extra.data() + ((item * g.heads + one.head) * parts.ranges + one.range) * (of_k + of_v);
          std::copy(sums.extra_v.begin(), sums.extra_v.end(), std::copy(sums.extra_k.begin(), sums.extra_k.end(), to));
        }
        std::copy(sums.bias.begin(), sums.bias.end(), bias.data() + part * entries);
      });
  each_box<T>(f, [&] { return std::make_unique<KeySweep<T, S>>(f, delta.data()); });

  if (entries) parts.add_up(bias, entries, static_cast<T*>(f.grad_bias));
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

template <class T, class S> void run_products(const qna::Half& f) {
  each_box<T>(f, [&] { return std::make_unique<Products<T, S>>(f); });
}

template <class T, class S> void run_spread(const qna::Half& f) {
  each_box<T>(f, [&] { return std::make_unique<Spread<T, S>>(f); });
}

template <class T, class S> void run_sums(const qna::Half& f) {
  const Geometry& g = f.geo;
  const Boxes boxes(g, box_positions<T>(g));
  const Parts parts(g, boxes.total());
  const int64_t entries = bias_entries(g, f.grad_bias);
  std::vector<double> bias(size_t(parts.count() * entries), 0.0);
  struct Task {
    WeightedSums<T, S> sweep;
    std::vector<double> sums;
    explicit Task(const qna::Half& f) : sweep(f) {}
  };
  parallel(
      parts.count(), f.threads, [&] { return std::make_unique<Task>(f); },
      [&](std::unique_ptr<Task>& task, int64_t part) {
        const Parts::One one = parts.one(part);
        task->sums.assign(size_t(entries), 0.0);
        for (int64_t item = one.item; item < one.last_item; ++item)
          for (int64_t i = one.box; i < one.last_box; ++i) {
            Group group;
            Box box;
            boxes.at(i, group, box);
            if (!box.empty()) task->sweep.run(item, one.head, group, box, task->sums);
          }
        std::copy(task->sums.begin(), task->sums.end(), bias.data() + part * entries);
      });
  if (entries) parts.add_up(bias, entries, static_cast<T*>(f.grad_bias));
}

// name(storage, f): run_name of the arithmetic type and of what is stored.
#define QNA_BY_STORAGE(name, F)                                    \
  void name(qna::Storage s, const F& f) {                          \
    switch (s) {                                                   \
      case qna::Storage::f32: return run_##name<float, float>(f);  \
      case qna::Storage::f64: return run_##name<double, double>(f); \
      case qna::Storage::bf16: return run_##name<float, bf16>(f);  \
      case qna::Storage::f16: return run_##name<float, fp16>(f);   \
    }                                                              \
  }
QNA_BY_STORAGE(forward, qna::Forward)
QNA_BY_STORAGE(backward, qna::Backward)
QNA_BY_STORAGE(products, qna::Half)
QNA_BY_STORAGE(sums, qna::Half)
QNA_BY_STORAGE(spread, qna::Half)

}  // namespace

namespace qna {
extern const Kernels QNA_KERNELS;
const Kernels QNA_KERNELS = {forward, backward, products, sums, spread, kVectorBytes};
}  // namespace qna
