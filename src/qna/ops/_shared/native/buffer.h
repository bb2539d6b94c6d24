// Arrays that start on a cache line, whose memory a thread keeps for its next call, and the map from a task number
// to its tile.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace {

// Large blocks that a thread has freed. Fresh memory costs a page fault per 4 KiB, for a small map as much as the work.
class KeptBlocks {
 public:
  ~KeptBlocks() {
    for (const Block& b : blocks_) ::operator delete(b.data, kAlign);
  }
  void* take(size_t bytes) {
    bytes = rounded(bytes);
    for (Block& b : blocks_)
      if (b.bytes == bytes) {
        void* data = b.data;
        b = blocks_.back(), blocks_.pop_back(), total_ -= bytes;
        return data;
      }
    return ::operator new(bytes, kAlign);
  }
  void give(void* data, size_t bytes) noexcept {
    bytes = rounded(bytes);
    if (bytes < kSmallest || bytes + total_ > kMost || blocks_.size() == blocks_.capacity())
      return ::operator delete(data, kAlign);
    blocks_.push_back({data, bytes}), total_ += bytes;
  }

 private:
  struct Block {
    void* data;
    size_t bytes;
  };
  static constexpr std::align_val_t kAlign{64};
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kSmallest = 1, kMost = 0;  // nothing is kept or rounded: the sanitizer sees every end
  static size_t rounded(size_t bytes) { return bytes; }
#else
  static constexpr size_t kSmallest = 32 << 10, kMost = 32 << 20;
  static size_t rounded(size_t bytes) {  // to few different sizes, so that those of one call fit the next
    size_t size = kSmallest;
    while (size < bytes) size += size / 2 / 64 * 64;
    return bytes < kSmallest ? bytes : size;
  }
#endif
  std::vector<Block> blocks_ = reserved();
  size_t total_ = 0;

  static std::vector<Block> reserved() {
    std::vector<Block> blocks;
    blocks.reserve(32);
    return blocks;
  }
};
inline KeptBlocks& kept_blocks() {
  static thread_local KeptBlocks blocks;
  return blocks;
}

template <class T> struct CacheLine {
  using value_type = T;
  CacheLine() = default;
  template <class U> CacheLine(const CacheLine<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(kept_blocks().take(n * sizeof(T))); }
  void deallocate(T* p, size_t n) noexcept { kept_blocks().give(p, n * sizeof(T)); }
  template <class U> void construct(U* p) { ::new (static_cast<void*>(p)) U; }  // resize() leaves numbers unset
  template <class U, class... A> void construct(U* p, A&&... a) {
    ::new (static_cast<void*>(p)) U(static_cast<A&&>(a)...);
  }
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
