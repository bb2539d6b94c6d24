// What one call is asked to do. Shared by every instruction set.
#pragma once

#include <cstdint>

#include "storage.h"

namespace qna {

// (B, heads, N, channels) by strides in numbers.
struct Map {
  void* data;
  int64_t stride[4];
};

struct Forward {
  int64_t batch, heads, kv_heads, length, dim, value_dim, block;
  Map q, k, v, out;
  const bool* kept;  // (B, heads, rows, rows), dense
  void* lse;         // (B, heads, N), dense, in the type of arithmetic; null where it is not wanted
  double scale;
  int threads;

  int64_t rows() const { return (length + block - 1) / block; }
};

struct Kernels {
  void (*forward)(Storage, const Forward&);
};

}  // namespace qna
