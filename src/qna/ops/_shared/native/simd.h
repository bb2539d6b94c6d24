// Vectors of one register, written with GCC/Clang vector extensions: the width follows the instruction set the
// file is compiled for. Everything lives in an unnamed namespace, so that copies for several sets do not collide.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define QNA_INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Storage types of half width: arithmetic is always float or double.
struct bf16 { uint16_t bits; };
struct fp16 { uint16_t bits; };

// f(0), f(1), .. f(N - 1) with constant arguments: arrays indexed by them stay in registers, which a loop that is
// unrolled late does not achieve.
template <class F, int... I> QNA_INLINE void repeat_each(F&& f, std::integer_sequence<int, I...>) {
  (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F> QNA_INLINE void repeat(F&& f) { repeat_each(f, std::make_integer_sequence<int, N>{}); }
#define QNA_EACH(name) [&](auto name) __attribute__((always_inline))

template <class T> struct Simd;

template <> struct Simd<float> {
  using Int = int32_t;
  typedef float Vec __attribute__((vector_size(kVectorBytes)));
  typedef int32_t IVec __attribute__((vector_size(kVectorBytes)));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  static constexpr int width = kVectorBytes / 4;
};

template <> struct Simd<double> {
  using Int = int64_t;
  typedef double Vec __attribute__((vector_size(kVectorBytes)));
  typedef int64_t IVec __attribute__((vector_size(kVectorBytes)));
  typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  static constexpr int width = kVectorBytes / 8;
};

template <class T> using Vec = typename Simd<T>::Vec;
template <class T> using IVec = typename Simd<T>::IVec;

template <class T> inline Vec<T> load(const T* p) { return *reinterpret_cast<const typename Simd<T>::Unaligned*>(p); }
template <class T> inline void store(T* p, Vec<T> v) { *reinterpret_cast<typename Simd<T>::Unaligned*>(p) = v; }
template <class T> inline Vec<T> splat(T x) { return Vec<T>{} + x; }
// The same of a number in memory, in one load: x - 0 is x, also for -0, which compilers know; 0 + x they would add up
template <class T> QNA_INLINE Vec<T> broadcast(const T* x) { return *x - Vec<T>{}; }
// A value that is used several times, which compilers would rather load as often
template <class T> QNA_INLINE Vec<T> in_register(Vec<T> v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#endif
  return v;
}

// Asks for N vectors of a row, to be read (or written) soon. The address may lie outside the map.
template <class T, int N, bool Write = false> QNA_INLINE void fetch(const T* row, int64_t offset, int64_t step) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(row) + uintptr_t(offset) * sizeof(T);
  repeat<N>(QNA_EACH(c) {
    __builtin_prefetch(reinterpret_cast<const void*>(at + uintptr_t(c * step) * sizeof(T)), Write ? 1 : 0);
  });
}

// -- half-width storage ------------------------------------------------------------------------------------------

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(bf16 x) {
  uint32_t u = uint32_t(x.bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline float widen(fp16 x) {
  uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu, u;
  float f;
  if (rest >= 0x7c00u) {  // infinity or NaN
    u = 0x7f800000u | ((rest & 0x3ffu) << 13);
  } else {  // the exponents differ by 112; multiplying handles subnormal numbers too
    u = rest << 13;
    std::memcpy(&f, &u, 4);
    f *= 0x1p112f;
    std::memcpy(&u, &f, 4);
  }
  u |= sign;
  std::memcpy(&f, &u, 4);
  return f;
}

inline void narrow(float x, float* p) { *p = x; }
inline void narrow(double x, double* p) { *p = x; }
inline void narrow(float x, bf16* p) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  p->bits = (u & 0x7fffffffu) > 0x7f800000u ? uint16_t(0x7fc0) : uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
inline void narrow(float x, fp16* p) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  uint16_t sign = uint16_t((u >> 16) & 0x8000u);
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) {
    p->bits = 0x7e00;
  } else if (u >= 0x477ff000u) {  // rounds to 65536 or more
    p->bits = sign | 0x7c00;
  } else if (u < 0x38800000u) {  // subnormal: let a float addition do the rounding
    float f;
    std::memcpy(&f, &u, 4);
    f += 0.5f;
    std::memcpy(&u, &f, 4);
    p->bits = sign | uint16_t(u - 0x3f000000u);
  } else {
    u += 0xc8000fffu + ((u >> 13) & 1u);
    p->bits = sign | uint16_t(u >> 13);
  }
}

// One vector of arithmetic type T from (to) memory of storage type S.
template <class T> inline Vec<T> load_as(const T* p) { return load(p); }
template <class T> inline void store_as(T* p, Vec<T> v) { store(p, v); }

typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));

template <class T> inline Vec<float> load_as(const bf16* p) {
#if defined(__AVX512F__)  // which GCC would take apart
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#endif
  Words w = __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words) << 16;
  return (Vec<float>)w;
}
template <class T> inline void store_as(bf16* p, Vec<float> v) {
  Words u = (Words)v;
  Words nan = (Words)((u & 0x7fffffffu) > 0x7f800000u);
  Words r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  r = (nan & 0x7fc0u) | (~nan & r);
#if defined(__AVX2__) && !defined(__AVX512F__)  // which GCC would take apart
  const __m128i low = _mm256_castsi256_si128((__m256i)r), high = _mm256_extracti128_si256((__m256i)r, 1);
  return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(low, high));
#endif
  *reinterpret_cast<Halves*>(p) = __builtin_convertvector(r, Halves);
}
template <class T> inline Vec<float> load_as(const fp16* p) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Vec<float> v;
  for (int i = 0; i < Simd<float>::width; ++i) v[i] = widen(p[i]);
  return v;
#endif
}
template <class T> inline void store_as(fp16* p, Vec<float> v) {
  [[maybe_unused]] constexpr int nearest = 0x08;  // _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, nearest));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, nearest));
#else
  for (int i = 0; i < Simd<float>::width; ++i) narrow(float(v[i]), p + i);
#endif
}

// `count` vectors from src to dst.
template <class T, class S> inline void store_row(S* dst, const T* src, int count) {
  int c = 0;
#if defined(__AVX512BW__)
  if constexpr (std::is_same<S, bf16>::value) {  // two at a time: the upper words of both, rounded, are one vector
    __m512i upper;
    for (int k = 0; k < 32; ++k) reinterpret_cast<uint16_t*>(&upper)[k] = uint16_t(2 * k + 1);
    auto rounded = [](const T* p) {
      const __m512i u = _mm512_loadu_si512(p), up = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
      const __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000));
      const __m512i sum = _mm512_mask_add_epi32(up, odd, up, _mm512_set1_epi32(1));
      const __mmask16 nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(u), _mm512_castsi512_ps(u), _CMP_UNORD_Q);
      return _mm512_mask_mov_epi32(sum, nan, _mm512_set1_epi32(0x7fc00000));
    };
    for (; c + 2 <= count; c += 2, src += 32, dst += 32)
      _mm512_storeu_si512(dst, _mm512_permutex2var_epi16(rounded(src), upper, rounded(src + 16)));
  }
#endif
  for (; c < count; ++c, src += Simd<T>::width, dst += Simd<T>::width) store_as<T>(dst, load(src));
}

// The first n lanes alone; those loaded behind them are 0.
template <class T, class S> inline Vec<T> load_first(const S* p, int n) {
#if defined(__AVX512F__)
  if constexpr (std::is_same<S, float>::value) return (Vec<T>)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
#endif
  S room[Simd<T>::width] = {};
  for (int i = 0; i < n; ++i) room[i] = p[i];
  return load_as<T>(room);
}
template <class T, class S> inline void store_first(S* p, Vec<T> v, int n) {
#if defined(__AVX512F__)
  if constexpr (std::is_same<S, float>::value) return _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
#endif
  S room[Simd<T>::width];
  store_as<T>(room, v);
  for (int i = 0; i < n; ++i) p[i] = room[i];
}

// -- comparisons and lane exchange -------------------------------------------------------------------------------

template <class V> inline V vmax(V a, V b) { return a > b ? a : b; }

template <class T> inline bool any_below(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ) != 0;
  else return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_LT_OQ) != 0;
#else
  auto m = a < b;
  typename Simd<T>::Int any = 0;
  for (int i = 0; i < Simd<T>::width; ++i) any |= m[i];
  return any != 0;
#endif
}

// Also true where a is not a number.
template <class T> inline bool any_not_above(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NGE_UQ) != 0;
  else return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_NGE_UQ) != 0;
#else
  auto m = a >= b;
  typename Simd<T>::Int all = -1;
  for (int i = 0; i < Simd<T>::width; ++i) all &= m[i];
  return all == 0;
#endif
}

// x[lane ^ step] in every lane; `index` holds those numbers.
template <class T> inline Vec<T> exchange(Vec<T> x, IVec<T> index) { return __builtin_shuffle(x, index); }

// -- exponentials as (mantissa, exponent) -------------------------------------------------------------------------

template <class T> struct ExpLimits;
template <> struct ExpLimits<float> {
#if defined(__FMA__)
  static constexpr float largest = 0x1p21f;         // the reduction by log(2) is exact to here
#else
  static constexpr float largest = 0x1p14f;
#endif
  static constexpr float zero_below = -126.0f;      // exponents under this give 0
  static constexpr float negligible = -200.0f;      // 2^this times anything in range is 0
  static constexpr float headroom = 32.0f;          // exponentials may exceed 1 by this power of two
  static constexpr float vanishing = 0x1p-80f;      // a sum under this has lost terms worth 2^-46 of it
};
template <> struct ExpLimits<double> {
#if defined(__FMA__)
  static constexpr double largest = 0x1p40;
#else
  static constexpr double largest = 0x1p19;
#endif
  static constexpr double zero_below = -1022.0;
  static constexpr double negligible = -1200.0;
  static constexpr double headroom = 32.0;
  static constexpr double vanishing = 0x1p-900;
};

// log(2) in two parts
template <class T> struct Log2;
template <> struct Log2<float> {
  static constexpr float high = 0.693147182464599609375f, low = -1.904654299957768e-09f;
};
template <> struct Log2<double> {
  static constexpr double high = 0.693147180559945286227, low = 2.3190468138462995584e-17;
};

#if defined(__FMA__)
// x - a b, rounded once. Said outright: contraction is an optimisation, and the reduction below is wrong without it.
#if defined(__AVX512F__)
QNA_INLINE Vec<float> minus_product(Vec<float> x, Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)x);
}
QNA_INLINE Vec<double> minus_product(Vec<double> x, Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm512_fnmadd_pd((__m512d)a, (__m512d)b, (__m512d)x);
}
#else
QNA_INLINE Vec<float> minus_product(Vec<float> x, Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)x);
}
QNA_INLINE Vec<double> minus_product(Vec<double> x, Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm256_fnmadd_pd((__m256d)a, (__m256d)b, (__m256d)x);
}
#endif
#endif

// e^x = mantissa * 2^exponent with mantissa in [0.70, 1.42]; about 1 ulp up to |x| = ExpLimits::largest, because the
// argument is reduced with log(2) in parts.
QNA_INLINE Vec<float> exp_remainder(Vec<float> x, Vec<float> n) {  // e^x / 2^n for n = x / log(2), rounded
  using V = Vec<float>;
#if defined(__FMA__)
  V r = minus_product(x, n, splat(Log2<float>::high));
  r = minus_product(r, n, splat(Log2<float>::low));
#else
  V r = x - n * splat(0.693359375f);
  r = r - n * splat(-0x1.bdp-13f);
  r = r - n * splat(-1.9046543e-9f);
#endif
  V p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  return p * (r * r) + (r + 1.0f);
}
QNA_INLINE void exp_reduced(Vec<float> x, Vec<float>& mantissa, Vec<float>& exponent) {
  const Vec<float> magic = splat(12582912.0f);
  exponent = (x * splat(1.44269504088896341f) + magic) - magic;
  mantissa = exp_remainder(x, exponent);
}

QNA_INLINE void exp_reduced(Vec<double> x, Vec<double>& mantissa, Vec<double>& exponent) {
  using V = Vec<double>;
  const V magic = splat(6755399441055744.0);
  V n = (x * splat(1.44269504088896338700) + magic) - magic;
#if defined(__FMA__)
  V r = minus_product(x, n, splat(Log2<double>::high));
  r = minus_product(r, n, splat(Log2<double>::low));
#else
  V r = x - n * splat(6.93147180369123816490e-01);
  r = r - n * splat(1.90821492927058770002e-10);
#endif
  constexpr double taylor[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                               1.0 / 5040,      1.0 / 720,      1.0 / 120,     1.0 / 24,     1.0 / 6,     0.5};
  V p = splat(1.0 / 6227020800.0);
  for (double c : taylor) p = p * r + splat(c);
  p = p * (r * r) + (r + 1.0);
  mantissa = p;
  exponent = n;
}

// x * 2^n for whole numbers n; 0 where n is under the smallest normal exponent.
inline Vec<float> scale2(Vec<float> x, Vec<float> n) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_scalef_ps((__m512)x, (__m512)n);
#endif
  auto none = n < splat(ExpLimits<float>::zero_below);
  Vec<float> top = splat(127.0f), low = splat(-126.0f);
  n = n > top ? top : n;
  n = n < low ? low : n;
  IVec<float> bits = (__builtin_convertvector(n, IVec<float>) + 127) << 23;
  x = x * (Vec<float>)bits;
  return none ? Vec<float>{} : x;
}
inline Vec<double> scale2(Vec<double> x, Vec<double> n) {
#if defined(__AVX512F__)
  return (Vec<double>)_mm512_scalef_pd((__m512d)x, (__m512d)n);
#endif
  auto none = n < splat(ExpLimits<double>::zero_below);
  Vec<double> top = splat(1023.0), low = splat(-1022.0);
  n = n > top ? top : n;
  n = n < low ? low : n;
  // adding 1.5 * 2^52 leaves the whole number in the low bits
  IVec<double> whole = (IVec<double>)(n + splat(6755399441055744.0)) - (IVec<double>)splat(6755399441055744.0);
  x = x * (Vec<double>)((whole + 1023) << 52);
  return none ? Vec<double>{} : x;
}

// 1 / x for x in the middle of the exponent range, to about 1 ulp.
template <class T> QNA_INLINE Vec<T> inverse(Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    Vec<T> r = (Vec<T>)_mm512_rcp14_ps((__m512)x);
    return r + r * (splat(T(1)) - x * r);
  }
#endif
  return splat(T(1)) / x;
}

// e^x / 2^top for scores x that are at most about top * log(2); 0 for scores under `low`, which lies so far below that
// the result has no significance.
template <class T> QNA_INLINE Vec<T> exp_below(Vec<T> x, Vec<T> top, Vec<T> low) {
  Vec<T> m, n;
  exp_reduced(x < low ? low : x, m, n);
  return scale2(m, n - top);
}
template <class T> QNA_INLINE Vec<T> lowest_above(Vec<T> top) {
  return (top + ExpLimits<T>::negligible) * T(0.693147180559945309);
}

// -- score + bias of any size -------------------------------------------------------------------------------------

// (score + bias) / 2 as a sum of two numbers: nothing of it is lost, and the half cannot overflow.
template <class T> struct Logit {
  Vec<T> high, low;
};

template <class T> inline Logit<T> logit(Vec<T> score, Vec<T> bias) {
  const Vec<T> a = score * T(0.5), b = bias * T(0.5), high = a + b, added = high - a;
  const Vec<T> low = (a - (high - added)) + (b - added);
  return {high, high < splat(std::numeric_limits<T>::lowest()) ? Vec<T>{} : low};  // masked: no inf - inf
}

template <class T> inline Logit<T> larger(const Logit<T>& a, const Logit<T>& b) {
  const Vec<T> low = a.low > b.low ? a.low : b.low;
  return {vmax(a.high, b.high), a.high > b.high ? a.low : a.high < b.high ? b.low : low};
}

// e^(x - top): a gap that overflows is one that leaves nothing. 0 for a masked x, whatever the top.
template <class T> inline Vec<T> exp_gap(const Logit<T>& x, const Logit<T>& top) {
  const Vec<T> gap = ((x.high - top.high) + (x.low - top.low)) * T(2), zero{};
  const Vec<T> e = exp_below<T>(gap, zero, lowest_above<T>(zero));
  return x.high < splat(std::numeric_limits<T>::lowest()) ? zero : e;
}

// x = mantissa * 2^exponent with mantissa in [1, 2), for normal x > 0; mantissa 0 for 0.
template <class T> inline void split_power(Vec<T> x, Vec<T>& mantissa, Vec<T>& exponent) {
  constexpr int fraction = std::numeric_limits<T>::digits - 1, bias = std::numeric_limits<T>::max_exponent - 1;
  exponent = __builtin_convertvector(((IVec<T>)x >> fraction) - bias, Vec<T>);
  mantissa = scale2(x, -exponent);
}

// exponent * log(2), for whole exponents.
template <class T> inline Logit<T> logit_of_power(Vec<T> exponent) {
  constexpr T high = Log2<T>::high, low = Log2<T>::low;
  Logit<T> x;
  for (int i = 0; i < Simd<T>::width; ++i) {
    const T product = exponent[i] * high;
    x.high[i] = product / 2, x.low[i] = (std::fma(exponent[i], high, -product) + exponent[i] * low) / 2;
  }
  return x;
}

}  // namespace
