// The Python module: raw pointers and sizes in, nothing checked here (cpu.py checks).
#include "module.h"

#include "problem.h"

namespace nb = nanobind;

namespace qna {
extern const Kernels kernels_baseline, kernels_v3, kernels_v4;  // those that the build has
}  // namespace qna

namespace {

InstructionSets<qna::Kernels>& sets() {
  static InstructionSets<qna::Kernels> sets(QNA_BASELINE(qna::kernels_baseline), QNA_V3(qna::kernels_v3),
                                            QNA_V4(qna::kernels_v4));
  return sets;
}

qna::Geometry geometry(Words& words) {
  qna::Geometry g;
  g.batch = words.next(), g.queries = words.next(), g.heads = words.next(), g.depth = words.next();
  for (int64_t* axis : {g.in, g.out, g.kernel, g.stride, g.dilation, g.pad, g.factor})
    for (int a = 0; a < 3; ++a) axis[a] = words.next();
  return g;
}

void forward(int storage, int threads, const std::vector<int64_t>& numbers) {
  Words words(numbers);
  qna::Forward f;
  f.geo = geometry(words);
  f.scores = words.map<qna::ScoreMap>();
  f.value = words.map<qna::ValueMap>();
  f.out = words.map<qna::ValueMap>();
  f.bias = words.pointer(), f.weight = words.pointer();
  f.threads = threads;
  words.end();
  sets()->forward(static_cast<qna::Storage>(storage), f);
}

void backward(int storage, int threads, const std::vector<int64_t>& numbers) {
  Words words(numbers);
  qna::Backward f;
  f.geo = geometry(words);
  f.scores = words.map<qna::ScoreMap>();
  f.grad_scores = words.map<qna::ScoreMap>();
  f.value = words.map<qna::ValueMap>();
  f.grad_out = words.map<qna::ValueMap>();
  f.grad_value = words.map<qna::ValueMap>();
  f.bias = words.pointer(), f.weight = words.pointer();
  f.grad_bias = words.pointer(), f.grad_weight = words.pointer();
  f.threads = threads;
  words.end();
  sets()->backward(static_cast<qna::Storage>(storage), f);
}

}  // namespace

NB_MODULE(_native, m) {
  bind(m, sets());
  m.def("forward", &forward, nb::call_guard<nb::gil_scoped_release>());
  m.def("backward", &backward, nb::call_guard<nb::gil_scoped_release>());
}
