// What one call is asked to do: sizes, strides (in elements) and raw pointers. Shared by every instruction set.
// One or two space axes are passed as three, with leading axes of size 1.
#pragma once

#include <cstdint>

#include "storage.h"

namespace qna {

struct Geometry {
  int64_t batch, queries, heads, depth;
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];  // pad: before the first position
  int64_t factor[3];  // outputs of a window: its sub-pixels, each with `queries` of its own
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t subpixels() const { return factor[0] * factor[1] * factor[2]; }
};

struct ScoreMap {  // (batch, z, y, x, subpixels * queries * heads), the last dense
  void* data;
  int64_t stride[4];
};

struct ValueMap {  // (batch, z, y, x, heads, depth)
  void* data;
  int64_t stride[6];

  // The outputs that are one sub-pixel of every window, by window; `bytes` of an element.
  ValueMap at_subpixel(const Geometry& geo, int64_t subpixel, int64_t bytes) const {
    ValueMap map = *this;
    int64_t offset = 0;
    for (int a = 2; a >= 0; --a) {
      offset += subpixel % geo.factor[a] * stride[1 + a], subpixel /= geo.factor[a];
      map.stride[1 + a] = stride[1 + a] * geo.factor[a];
    }
    map.data = static_cast<char*>(data) + offset * bytes;
    return map;
  }
};

struct Forward {
  Geometry geo;
  ScoreMap scores;
  ValueMap value, out;
  int threads;
  const void *bias, *weight;  // (taps, subpixels, queries, heads) dense, in the arithmetic type; weight may be null
};

struct Backward {
  Geometry geo;
  ScoreMap scores, grad_scores;
  ValueMap value, grad_out, grad_value;
  int threads;
  const void *bias, *weight;
  void *grad_bias, *grad_weight;  // dense, arithmetic type; grad_weight may be null
};

using ForwardFn = void (*)(Storage, const Forward&);
using BackwardFn = void (*)(Storage, const Backward&);

struct Kernels {
  ForwardFn forward;
  BackwardFn backward;
  int vector_bytes;
};

}  // namespace qna
