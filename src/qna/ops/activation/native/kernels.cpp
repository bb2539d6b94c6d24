// One instruction set's kernels; compiled once per set with QNA_KERNELS naming the exported table.
#include "functions.h"
#include "parallel.h"
#include "problem.h"

namespace {

constexpr int kWidth = Simd<float>::width;
// numbers that a thread takes at a time: less is not worth its start
constexpr int64_t kPiece = 1 << 14;

// run(from, count) for pieces of all `count` numbers.
template <class Run> void in_pieces(int64_t count, int threads, Run run) {
  const int64_t pieces = (count + kPiece - 1) / kPiece;
  parallel(pieces, threads, [] { return 0; }, [&](int, int64_t piece) {
    const int64_t from = piece * kPiece;
    run(from, std::min(kPiece, count - from));
  });
}

template <class P, class S> void run_forward(const qna::Forward& f) {
  in_pieces(f.count, f.threads, [&](int64_t from, int64_t count) {
    const S* x = static_cast<const S*>(f.x) + from;
    S* y = static_cast<S*>(f.y) + from;
    for (; count >= kWidth; count -= kWidth, x += kWidth, y += kWidth)
      store_as<float>(y, P::value(load_as<float>(x)));
    if (count) store_first<float>(y, P::value(load_first<float>(x, int(count))), int(count));
  });
}

template <class P, class S> void run_backward(const qna::Backward& f) {
  in_pieces(f.count, f.threads, [&](int64_t from, int64_t count) {
    const S *x = static_cast<const S*>(f.x) + from, *grad = static_cast<const S*>(f.grad) + from;
    S* to = static_cast<S*>(f.grad_x) + from;
    for (; count >= kWidth; count -= kWidth, x += kWidth, grad += kWidth, to += kWidth)
      store_as<float>(to, load_as<float>(grad) * P::slope(load_as<float>(x)));
    if (!count) return;
    const int n = int(count);
    store_first<float>(to, load_first<float>(grad, n) * P::slope(load_first<float>(x, n)), n);
  });
}

template <class P> void forward_of(qna::Storage s, const qna::Forward& f) {
  switch (s) {
    case qna::Storage::bf16: return run_forward<P, bf16>(f);
    case qna::Storage::f16: return run_forward<P, fp16>(f);
    default: return run_forward<P, float>(f);
  }
}

template <class P> void backward_of(qna::Storage s, const qna::Backward& f) {
  switch (s) {
    case qna::Storage::bf16: return run_backward<P, bf16>(f);
    case qna::Storage::f16: return run_backward<P, fp16>(f);
    default: return run_backward<P, float>(f);
  }
}

void forward(qna::Storage s, qna::Form form, const qna::Forward& f) {
  form == qna::Form::tanh ? forward_of<TanhForm>(s, f) : forward_of<ErfForm>(s, f);
}

void backward(qna::Storage s, qna::Form form, const qna::Backward& f) {
  form == qna::Form::tanh ? backward_of<TanhForm>(s, f) : backward_of<ErfForm>(s, f);
}

}  // namespace

namespace qna {
extern const Kernels QNA_KERNELS;
const Kernels QNA_KERNELS = {forward, backward};
}  // namespace qna
