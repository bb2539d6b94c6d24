// Which keys a query sees and which queries see a key, in one group of positions that are equal modulo the dilation;
// a call is as many problems without dilation as there are groups, and each is cut into boxes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "problem.h"

namespace {

using qna::Geometry;

// An axis of a group. Both pairs of tables grow with the position, so that what a range of positions sees is a range.
struct Line {
  int64_t residue, step, size;
  std::vector<int64_t> first, last;  // query m sees the keys [first, last)
  std::vector<int64_t> skipped;      // taps of its window that come before
  std::vector<int64_t> from, to;     // key m is seen by the queries [from, to)

  Line(const qna::Axis& axis, int64_t residue) : residue(residue), step(axis.dilation) {
    for (int64_t i = residue; i < axis.size; i += step) {
      first.push_back((axis.first[i] - residue) / step);
      last.push_back(first.back() + axis.count[i]);
      skipped.push_back(axis.skipped[i]);
    }
    size = int64_t(first.size());
    for (int64_t key = 0, begin = 0, end = 0; key < size; ++key) {
      while (begin < size && last[begin] <= key) ++begin;
      while (end < size && first[end] <= key) ++end;
      from.push_back(begin), to.push_back(std::max(begin, end));
    }
  }
};

// A group of positions, by its lines along the three axes.
struct Group {
  const Line* line[3];
  // number of a position in a dense map
  int64_t position(const Geometry& g, const int64_t (&m)[3]) const {
    int64_t p = 0;
    for (int a = 0; a < 3; ++a) p = p * g.axis[a].size + line[a]->residue + m[a] * line[a]->step;
    return p;
  }
};

struct Box {
  int64_t lo[3], hi[3];
  int64_t size(int axis) const { return hi[axis] - lo[axis]; }
  int64_t rows() const { return size(0) * size(1); }
  int64_t row(int64_t z, int64_t y) const { return (z - lo[0]) * size(1) + y - lo[1]; }
  bool empty() const { return size(0) <= 0 || size(1) <= 0 || size(2) <= 0; }
};

// The positions that those of `box` see: keys of queries, or queries of keys.
inline Box seen_by(const Box& box, const Group& group, bool queries) {
  Box seen;
  for (int a = 0; a < 3; ++a) {
    const Line& line = *group.line[a];
    seen.lo[a] = (queries ? line.first : line.from)[size_t(box.lo[a])];
    seen.hi[a] = (queries ? line.last : line.to)[size_t(box.hi[a] - 1)];
  }
  return seen;
}

// All boxes of all groups, by number; the shape alone decides, never the batch or the number of threads.
class Boxes {
 public:
  Boxes(const Geometry& g, int64_t positions) : tiling_(tiled(g, positions)) {
    for (int a = 0; a < 3; ++a)
      for (int64_t r = 0; r < std::min(g.axis[a].dilation, g.axis[a].size); ++r) lines_[a].emplace_back(g.axis[a], r);
  }
  int64_t total() const { return tiling_.total() * count(0) * count(1) * count(2); }
  void at(int64_t number, Group& group, Box& box) const {
    tiling_.bounds(number % tiling_.total(), box.lo, box.hi);
    number /= tiling_.total();
    for (int a = 2; a >= 0; --a) {
      group.line[a] = &lines_[a][size_t(number % count(a))];
      number /= count(a);
      box.hi[a] = std::min(box.hi[a], group.line[a]->size);
    }
  }

 private:
  int64_t count(int axis) const { return int64_t(lines_[axis].size()); }
  static Tiling tiled(const Geometry& g, int64_t positions) {
    int64_t longest[3];  // group, which is the first
    for (int a = 0; a < 3; ++a) longest[a] = (g.axis[a].size + g.axis[a].dilation - 1) / g.axis[a].dilation;
    return Tiling(longest, positions);
  }

  std::vector<Line> lines_[3];
  Tiling tiling_;
};

}  // namespace
