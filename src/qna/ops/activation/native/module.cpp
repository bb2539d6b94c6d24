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

void* at(int64_t address) { return reinterpret_cast<void*>(static_cast<intptr_t>(address)); }

void forward(int storage, int form, int threads, int64_t count, int64_t x, int64_t y) {
  sets()->forward(static_cast<qna::Storage>(storage), static_cast<qna::Form>(form), {at(x), at(y), count, threads});
}

void backward(int storage, int form, int threads, int64_t count, int64_t grad, int64_t x, int64_t grad_x) {
  sets()->backward(static_cast<qna::Storage>(storage), static_cast<qna::Form>(form),
                   {at(grad), at(x), at(grad_x), count, threads});
}

}  // namespace

NB_MODULE(_native, m) {
  bind(m, sets());
  m.def("forward", &forward, nb::call_guard<nb::gil_scoped_release>());
  m.def("backward", &backward, nb::call_guard<nb::gil_scoped_release>());
}
