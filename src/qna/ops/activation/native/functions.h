// x P(x) and its derivative, a vector at a time, for the two forms of P.
#pragma once

#include "simd.h"

namespace {

// x, at least low and at most high; a NaN stays one.
QNA_INLINE Vec<float> clamp(Vec<float> x, float low, float high) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), (__m512)x));
#elif defined(__AVX2__)
  return (Vec<float>)_mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), (__m256)x));
#else
  x = x < splat(low) ? splat(low) : x;
  return x > splat(high) ? splat(high) : x;
#endif
}

// e^x for |x| <= 87.3, where mantissa and exponent meet in a normal number, or in one that is nothing beside 1.
QNA_INLINE Vec<float> exponential(Vec<float> x) {
  // rounding to the magic number's unit leaves the exponent in its lowest bits
  const Vec<float> magic = splat(12582912.0f), shifted = x * 1.44269504088896341f + magic, n = shifted - magic;
  return (Vec<float>)((IVec<float>)exp_remainder(x, n) + ((IVec<float>)shifted << 23));
}

// P(x) = (1 + tanh u) / 2 = 1 / (1 + e^-2u), 2u = x (a + b x^2).
struct TanhForm {
  static constexpr float a = 1.5957691216057308f, b = 0.07135481627159767f;  // 2 sqrt(2/pi), and 0.044715 of it
  static constexpr float edge = 9.99f;                                      // where |2u| reaches 87.1

  QNA_INLINE static Vec<float> power(Vec<float> x) { return exponential(x * (x * x * -b - a)); }
  QNA_INLINE static Vec<float> value(Vec<float> x) {
    const Vec<float> p = inverse<float>(power(clamp(x, -edge, edge)) + 1.0f);
    // minus infinity gives 0, as its neighbours do
    return clamp(x, -edge, std::numeric_limits<float>::infinity()) * p;
  }
  QNA_INLINE static Vec<float> slope(Vec<float> x) {
    x = clamp(x, -edge, edge);
    const Vec<float> t = power(x), p = inverse<float>(t + 1.0f);
    return p + p * (x * (t * p) * (x * x * (3.0f * b) + a));
  }
};

// P(x) = (1 + erf(x / sqrt 2)) / 2. Of |x| it is 1 - e^(-x^2/2) h(|x|), where h falls slowly: a polynomial of
// v = |x| / (|x| + 3), made by weighted least squares until the largest relative error, 7e-9 to |x| = 13.5, was even.
struct ErfForm {
  static constexpr float edge = 13.2f;  // where x^2 / 2 reaches 87.1

  QNA_INLINE static Vec<float> gauss(Vec<float> x) { return exponential(x * x * -0.5f); }
  QNA_INLINE static Vec<float> probability(Vec<float> x, Vec<float> gauss) {
    constexpr float c[] = {0.027552379295f, -0.094369091094f, 0.086034566164f, 0.0071940166244f, 0.063292354345f,
                           -0.15911871195f, -0.28690207005f,  1.0531486273f,   -1.1968263388f,   0.5f};
    const Vec<float> size = (Vec<float>)((IVec<float>)x & 0x7fffffff), v = size * inverse<float>(size + 3.0f);
    Vec<float> h = splat(c[0]);
    for (int i = 1; i < 10; ++i) h = h * v + c[i];
    const Vec<float> tail = gauss * h;
    return x > Vec<float>{} ? 1.0f - tail : tail;
  }
  QNA_INLINE static Vec<float> value(Vec<float> x) {
    const Vec<float> near = clamp(x, -edge, edge);
    return clamp(x, -edge, std::numeric_limits<float>::infinity()) * probability(near, gauss(near));
  }
  QNA_INLINE static Vec<float> slope(Vec<float> x) {
    x = clamp(x, -edge, edge);
    const Vec<float> g = gauss(x);
    return probability(x, g) + x * (g * 0.3989422804014327f);  // 1 / sqrt(2 pi)
  }
};

}  // namespace
