// Arrays that start on a cache line, and the map from a task number to its tile.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace {

template <class T> struct CacheLine {
  using value_type = T;
  CacheLine() = default;
  template <class U> CacheLine(const CacheLine<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
  template <class U> void construct(U* p) { ::new (static_cast<void*>(p)) U; }  // resize() leaves numbers unset
  template <class U, class... A> void construct(U* p, A&&... a) { ::new (static_cast<void*>(p)) U(static_cast<A&&>(a)...); }
  bool operator==(const CacheLine&) const { return true; }
  bool operator!=(const CacheLine&) const { return false; }
};
template <class T> using Array = std::vector<T, CacheLine<T>>;

// Boxes of a map, chosen from its shape alone: never from the batch or the number of threads, so that neither
// changes a bit of any result.
struct Tiling {
  int64_t extent[3], size[3], count[3];

  Tiling(const int64_t (&map)[3], int64_t positions) {
    int64_t left = positions;
    for (int a = 2; a >= 0; --a) {
      extent[a] = map[a];
      int64_t want = std::min(map[a], a == 2 ? std::max<int64_t>(left / 8, 64) : std::max<int64_t>(left, 1));
      count[a] = (map[a] + want - 1) / want;
      size[a] = (map[a] + count[a] - 1) / count[a];
      if (a == 2 && count[a] > 1) size[a] = (size[a] + 3) / 4 * 4;
      count[a] = (map[a] + size[a] - 1) / size[a];
      left /= size[a];
    }
  }
  int64_t total() const { return count[0] * count[1] * count[2]; }
  void bounds(int64_t tile, int64_t (&lo)[3], int64_t (&hi)[3]) const {
    for (int a = 2; a >= 0; --a) {
      lo[a] = tile % count[a] * size[a];
      hi[a] = std::min(lo[a] + size[a], extent[a]);
      tile /= count[a];
    }
  }
};

}  // namespace
