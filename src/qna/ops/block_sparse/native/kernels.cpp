// One instruction set's kernels; compiled once per set with QNA_KERNELS naming the exported table.
#include "forward.h"
#include "parallel.h"
#include "problem.h"

namespace {

// vectors of queries in a panel: half the registers hold sums
#if defined(__AVX512F__)
constexpr int kVectors = 4;
#else
constexpr int kVectors = 2;
#endif

template <class T, class S, int N> void run(const qna::Forward& f) {
  const int64_t rows = f.rows();
  parallel(f.batch * f.heads * rows, f.threads, [&f] { return RowOfBlocks<T, S, N>(f); },
           [&](RowOfBlocks<T, S, N>& task, int64_t index) {
             const int64_t head = index / rows, i = index % rows;
             // a long row beside a short one, so that ranges of threads cost alike
             task.run(head / f.heads, head % f.heads, i % 2 ? rows - 1 - i / 2 : i / 2);
           });
}

template <class T, class S> void of(const qna::Forward& f) {
  std::min(f.block, f.length) > Simd<T>::width ? run<T, S, kVectors>(f) : run<T, S, 1>(f);
}

void forward(qna::Storage s, const qna::Forward& f) {
  switch (s) {
    case qna::Storage::f64: return of<double, double>(f);
    case qna::Storage::bf16: return of<float, bf16>(f);
    case qna::Storage::f16: return of<float, fp16>(f);
    default: return of<float, float>(f);
  }
}

}  // namespace

namespace qna {
extern const Kernels QNA_KERNELS;
const Kernels QNA_KERNELS = {forward};
}  // namespace qna
