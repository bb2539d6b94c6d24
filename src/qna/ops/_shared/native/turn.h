// Small matrices turned in registers: R rows of C numbers, both powers of two, become C rows of R.
//
// A number of the matrix has an address of log2(R C) bits, of which the lowest choose a lane and the rest a vector.
// Turning permutes the bits. Each stage exchanges one that chooses a vector for one that chooses a lane, by two
// permutations of each pair of vectors; what order the bits are then in is settled by the last.
#pragma once

#include "simd.h"

namespace {

constexpr int bits_of(int power) { return power > 1 ? 1 + bits_of(power / 2) : 0; }

template <class T, int R, int C> struct Turn {
  static constexpr int V = Simd<T>::width, vectors = R * C / V, lane_bits = bits_of(V), bits = bits_of(R * C);
  static_assert(vectors > 0 && vectors * V == R * C, "whole vectors");
  static constexpr bool any_two = kVectorBytes == 64;  // one instruction picks any lanes of two vectors

  static constexpr int target(int bit) { return bit < bits_of(C) ? bit + bits_of(R) : bit - bits_of(C); }

  struct Stage {
    int bit;           // of the vector's number, exchanged
    int index[2][V];   // lanes of the pair that make its vectors
  };
  struct Plan {
    int stages = 0;
    Stage stage[5] = {};
    bool reorder = false;  // the lanes of each vector, at the end
    int order[V] = {};
    int number[vectors] = {};  // vector -> its number in the turned matrix
  };

  // The lane of a vector whose bits are arranged as `from` that holds what lane `at` of arrangement `to` does.
  static constexpr int lane_of(int at, const int* to, const int* from, int absent, int bit) {
    int lane = 0;
    for (int i = 0; i < lane_bits; ++i) {
      int value = from[i] == absent ? bit : 0;
      for (int k = 0; k < lane_bits; ++k)
        if (to[k] == from[i]) value = at >> k & 1;
      lane |= value << i;
    }
    return lane;
  }

  static constexpr Plan make_plan() {
    Plan plan;
    int place[bits] = {}, wanted[bits] = {};  // position -> bit of the address
    for (int i = 0; i < bits; ++i) place[i] = i, wanted[target(i)] = i;
    int left = 0;
    for (int i = lane_bits; i < bits; ++i) left += target(place[i]) < lane_bits;
    for (; left > 0; --left) {
      int from = -1, to = -1;  // the lowest of the lanes' bits that leaves, and of those that come
      for (int k = lane_bits - 1; k >= 0; --k)
        if (target(place[k]) >= lane_bits) to = k;
      for (int i = lane_bits; i < bits; ++i)
        if (target(place[i]) < lane_bits && (from < 0 || target(place[i]) < target(place[from]))) from = i;
      int next[lane_bits] = {};
      for (int k = 0; k < lane_bits; ++k) next[k] = k == to ? place[from] : place[k];
      if (sizeof(T) == 4 && to == 0)  // as the cheapest instruction has it: two of one vector, then two of the other
        next[0] = place[1], next[1] = place[from];
      if (any_two && left == 1)
        for (int k = 0; k < lane_bits; ++k) next[k] = wanted[k];
      Stage& stage = plan.stage[plan.stages++];
      stage.bit = from - lane_bits;
      for (int half = 0; half < 2; ++half)
        for (int lane = 0; lane < V; ++lane) {
          int second = 0;
          for (int k = 0; k < lane_bits; ++k)
            if (next[k] == place[from]) second = lane >> k & 1;
          stage.index[half][lane] = second * V + lane_of(lane, next, place, place[to], half);
        }
      place[from] = place[to];
      for (int k = 0; k < lane_bits; ++k) place[k] = next[k];
    }
    for (int lane = 0; lane < V; ++lane) {
      plan.order[lane] = lane_of(lane, wanted, place, -1, 0);
      plan.reorder = plan.reorder || plan.order[lane] != lane;
    }
    for (int v = 0; v < vectors; ++v)
      for (int i = lane_bits; i < bits; ++i) plan.number[v] |= (v >> (i - lane_bits) & 1) << (target(place[i]) - lane_bits);
    return plan;
  }
  static constexpr Plan plan = make_plan();

  template <int S, int Half, int... I> QNA_INLINE static IVec<T> stage_index(std::integer_sequence<int, I...>) {
    return IVec<T>{plan.stage[S].index[Half][I]...};
  }
  template <int... I> QNA_INLINE static IVec<T> last_index(std::integer_sequence<int, I...>) {
    return IVec<T>{plan.order[I]...};
  }

  // The vectors of a matrix by rows become those of the turned one.
  QNA_INLINE static void run(Vec<T> (&x)[vectors]) {
    constexpr std::make_integer_sequence<int, V> lanes{};
    repeat<plan.stages>(QNA_EACH(s) {
      constexpr int S = decltype(s)::value, bit = 1 << plan.stage[S].bit;
      const IVec<T> low = stage_index<S, 0>(lanes), high = stage_index<S, 1>(lanes);
      repeat<vectors>(QNA_EACH(v) {
        constexpr int one = decltype(v)::value;
        if constexpr ((one & bit) == 0) {
          const Vec<T> a = x[one], b = x[one | bit];
          x[one] = __builtin_shuffle(a, b, low), x[one | bit] = __builtin_shuffle(a, b, high);
        }
      });
    });
    Vec<T> turned[vectors];
    repeat<vectors>(QNA_EACH(v) {
      constexpr int from = decltype(v)::value;
      if constexpr (plan.reorder) turned[plan.number[from]] = __builtin_shuffle(x[from], last_index(lanes));
      else turned[plan.number[from]] = x[from];
    });
    repeat<vectors>(QNA_EACH(v) { x[v] = turned[v]; });
  }
};

}  // namespace
