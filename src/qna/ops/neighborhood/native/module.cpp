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

void read(Words& words, qna::Geometry& g) {
  g.batch = words.next(), g.heads = words.next(), g.dim = words.next(), g.value_dim = words.next();
  g.extra = words.next();
  for (qna::Axis& axis : g.axis) {
    axis.size = words.next(), axis.kernel = words.next(), axis.dilation = words.next();
    for (const int64_t** table : {&axis.first, &axis.count, &axis.skipped})
      *table = static_cast<const int64_t*>(words.pointer());
  }
}

void read(Words& words, qna::Inputs& f) {
  read(words, f.geo);
  f.q = words.map<qna::Map>(), f.k = words.map<qna::Map>(), f.v = words.map<qna::Map>();
  f.bias = words.pointer(), f.extra_keys = words.pointer(), f.extra_values = words.pointer();
  f.key_mask = static_cast<const uint8_t*>(words.pointer());
}

void forward(int storage, int threads, double scale, const std::vector<int64_t>& numbers) {
  Words words(numbers);
  qna::Forward f;
  read(words, f);
  f.out = words.map<qna::Map>(), f.lse = words.pointer();
  f.scale = scale, f.threads = threads;
  words.end();
  sets()->forward(static_cast<qna::Storage>(storage), f);
}

void backward(int storage, int threads, double scale, const std::vector<int64_t>& numbers) {
  Words words(numbers);
  qna::Backward f;
  read(words, f);
  for (qna::Map* map : {&f.grad_out, &f.grad_q, &f.grad_k, &f.grad_v}) *map = words.map<qna::Map>();
  f.lse = words.pointer(), f.grad_lse = words.pointer();
  f.grad_bias = words.pointer(), f.grad_extra_keys = words.pointer(), f.grad_extra_values = words.pointer();
  f.scale = scale, f.threads = threads;
  words.end();
  sets()->backward(static_cast<qna::Storage>(storage), f);
}

// A sweep of a half: its name in the table of kernels.
template <void (*qna::Kernels::*Sweep)(qna::Storage, const qna::Half&)>
void half(int storage, int threads, double scale, const std::vector<int64_t>& numbers, double unseen) {
  Words words(numbers);
  qna::Half f;
  read(words, f.geo);
  f.taps = words.map<qna::Map>(), f.at_query = words.map<qna::Map>(), f.at_key = words.map<qna::Map>();
  f.bias = words.pointer(), f.grad_bias = words.pointer();
  f.key_mask = static_cast<const uint8_t*>(words.pointer());
  f.scale = scale, f.unseen = unseen, f.threads = threads;
  words.end();
  ((*sets().operator->()).*Sweep)(static_cast<qna::Storage>(storage), f);
}

}  // namespace

NB_MODULE(_native, m) {
  bind(m, sets());
  m.def("forward", &forward, nb::call_guard<nb::gil_scoped_release>());
  m.def("backward", &backward, nb::call_guard<nb::gil_scoped_release>());
  m.def("products", &half<&qna::Kernels::products>, nb::call_guard<nb::gil_scoped_release>());
  m.def("sums", &half<&qna::Kernels::sums>, nb::call_guard<nb::gil_scoped_release>());
  m.def("spread", &half<&qna::Kernels::spread>, nb::call_guard<nb::gil_scoped_release>());
}
