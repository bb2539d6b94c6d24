// What one call is asked to do. Shared by every instruction set.
#pragma once

#include <cstdint>

#include "storage.h"

namespace qna {

enum class Form : int { erf = 0, tanh = 1 };

struct Forward {
  const void* x;
  void* y;  // may be x
  int64_t count;
  int threads;
};

struct Backward {
  const void *grad, *x;
  void* grad_x;
  int64_t count;
  int threads;
};

struct Kernels {
  void (*forward)(Storage, Form, const Forward&);
  void (*backward)(Storage, Form, const Backward&);
};

}  // namespace qna
