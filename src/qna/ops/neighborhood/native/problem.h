// What one call is asked to do: sizes, strides (in elements) and raw pointers. Shared by every instruction set.
// One or two space axes are passed as three, with leading axes of size 1.
#pragma once

#include <cstdint>

#include "storage.h"

namespace qna {

// Windows along one axis. Query i attends the positions first[i], first[i] + dilation, .. count[i] of them, which
// lie outside of the map only where these are keys of zeros; skipped[i] taps of its window come before.
struct Axis {
  int64_t size, kernel, dilation;
  const int64_t *first, *count, *skipped;
};

struct Geometry {
  int64_t batch, heads, dim, value_dim, extra;  // channels of a query and of a value, keys outside the map
  Axis axis[3];
};

struct Map {  // (batch, z, y, x, heads, channels)
  void* data;
  int64_t stride[6];
};

struct Inputs {
  Geometry geo;
  Map q, k, v;
  const void* bias;                           // (heads, 2 kernel - 1 per axis) dense, arithmetic type, or null
  const void *extra_keys, *extra_values;      // (batch, extra, heads, channels) dense, as maps are stored, or null
  const uint8_t* key_mask;                    // (batch, z, y, x) dense, 0 where no query may look, or null
  double scale;
  int threads;
};

struct Forward : Inputs {
  Map out;
  void* lse;  // (batch, z, y, x, heads) dense, arithmetic type, or null
};

struct Backward : Inputs {
  Map grad_out, grad_q, grad_k, grad_v;
  const void *lse, *grad_lse;  // as in Forward
  void* grad_bias;             // as bias, or null
  void *grad_extra_keys, *grad_extra_values;  // dense, arithmetic type, or null
};

// One sweep of a half: of numbers per tap, what is at queries and what is at keys it makes one of the other two.
struct Half {
  Geometry geo;             // its value_dim is its dim
  Map taps, at_query, at_key;  // the channels of `taps` are the taps of all axes, those of the last fastest
  const void* bias;         // as in Inputs
  void* grad_bias;          // as in Backward
  const uint8_t* key_mask;  // as in Inputs
  double scale, unseen;     // `unseen` are the products of taps that are not attended
  int threads;
};

struct Kernels {
  void (*forward)(Storage, const Forward&);
  void (*backward)(Storage, const Backward&);
  void (*products)(Storage, const Half&);
  void (*sums)(Storage, const Half&);
  void (*spread)(Storage, const Half&);
  int vector_bytes;
};

}  // namespace qna
