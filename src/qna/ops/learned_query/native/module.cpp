// The Python module: raw pointers and sizes in, nothing checked here (cpu.py checks), the instruction set chosen once.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "problem.h"

namespace nb = nanobind;

namespace qna {
extern const Kernels kernels_baseline, kernels_v3, kernels_v4;  // those that the build has
}  // namespace qna

namespace {

struct Choice {
  const char* name;
  const qna::Kernels* kernels;
};

// Every set that this build has and this processor runs, best first.
std::vector<Choice> available() {
  std::vector<Choice> sets;
#if defined(__x86_64__)
  __builtin_cpu_init();
  [[maybe_unused]] const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                   __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
  [[maybe_unused]] const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                                   __builtin_cpu_supports("avx512cd");
#endif
#if defined(QNA_HAS_V4)
  if (v4) sets.push_back({"x86-64-v4", &qna::kernels_v4});
#endif
#if defined(QNA_HAS_V3)
  if (v3) sets.push_back({"x86-64-v3", &qna::kernels_v3});
#endif
#if defined(QNA_HAS_BASELINE)
  sets.push_back({"baseline", &qna::kernels_baseline});
#endif
  return sets;
}

Choice best() {
  const std::vector<Choice> sets = available();
  if (sets.empty()) throw nb::import_error("this build has no kernels for this processor");
  return sets.front();
}

Choice chosen{};

// A flat list of numbers, read in order.
class Words {
 public:
  explicit Words(const std::vector<int64_t>& words) : words_(words) {}
  int64_t next() {
    if (at_ == words_.size()) throw std::invalid_argument("too few numbers for this call");
    return words_[at_++];
  }
  void* pointer() { return reinterpret_cast<void*>(static_cast<intptr_t>(next())); }
  qna::Geometry geometry() {
    qna::Geometry g;
    g.batch = next(), g.queries = next(), g.heads = next(), g.depth = next();
    for (int64_t* axis : {g.in, g.out, g.kernel, g.stride, g.dilation, g.pad, g.factor})
      for (int a = 0; a < 3; ++a) axis[a] = next();
    return g;
  }
  template <class Map> Map map() {
    Map m;
    m.data = pointer();
    for (int64_t& s : m.stride) s = next();
    return m;
  }
  void end() const {
    if (at_ != words_.size()) throw std::invalid_argument("too many numbers for this call");
  }

 private:
  const std::vector<int64_t>& words_;
  size_t at_ = 0;
};

void forward(int storage, int threads, const std::vector<int64_t>& numbers) {
  Words words(numbers);
  qna::Forward f;
  f.geo = words.geometry();
  f.scores = words.map<qna::ScoreMap>();
  f.value = words.map<qna::ValueMap>();
  f.out = words.map<qna::ValueMap>();
  f.bias = words.pointer(), f.weight = words.pointer();
  f.threads = threads;
  words.end();
  chosen.kernels->forward(static_cast<qna::Storage>(storage), f);
}

void backward(int storage, int threads, const std::vector<int64_t>& numbers) {
  Words words(numbers);
  qna::Backward f;
  f.geo = words.geometry();
  f.scores = words.map<qna::ScoreMap>();
  f.grad_scores = words.map<qna::ScoreMap>();
  f.value = words.map<qna::ValueMap>();
  f.grad_out = words.map<qna::ValueMap>();
  f.grad_value = words.map<qna::ValueMap>();
  f.bias = words.pointer(), f.weight = words.pointer();
  f.grad_bias = words.pointer(), f.grad_weight = words.pointer();
  f.threads = threads;
  words.end();
  chosen.kernels->backward(static_cast<qna::Storage>(storage), f);
}

}  // namespace

NB_MODULE(_native, m) {
  chosen = best();
  m.def("forward", &forward, nb::call_guard<nb::gil_scoped_release>());
  m.def("backward", &backward, nb::call_guard<nb::gil_scoped_release>());
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const Choice& c : available()) names.push_back(c.name);
    return names;
  });
  m.def("use", [](const std::string& name) {
    for (const Choice& c : available())
      if (c.name == name) {
        chosen = c;
        return;
      }
    throw std::invalid_argument("this processor or build has no instruction set " + name);
  });
  m.def("in_use", [] { return std::string(chosen.name); });
}
