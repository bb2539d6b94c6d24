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

void forward(int storage, int threads, double scale, const std::vector<int64_t>& numbers) {
  Words words(numbers);
  qna::Forward f;
  for (int64_t* size : {&f.batch, &f.heads, &f.kv_heads, &f.length, &f.dim, &f.value_dim, &f.block}) *size = words.next();
  for (qna::Map* map : {&f.q, &f.k, &f.v, &f.out}) *map = words.map<qna::Map>();
  f.kept = static_cast<const bool*>(words.pointer());
  f.lse = words.pointer();
  f.scale = scale;
  f.threads = threads;
  words.end();
  nb::gil_scoped_release released;
  sets()->forward(static_cast<qna::Storage>(storage), f);
}

}  // namespace

NB_MODULE(_native, m) {
  bind(m, sets());
  m.def("forward", &forward);
}
