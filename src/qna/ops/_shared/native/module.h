// What the Python modules of all ops share: which instruction set runs, and flat lists of numbers as arguments.
// Raw pointers and sizes come in, checked by whoever calls.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

// the address of a set's table of kernels where this build has the set
#if defined(QNA_HAS_BASELINE)
#define QNA_BASELINE(table) &table
#else
#define QNA_BASELINE(table) nullptr
#endif
#if defined(QNA_HAS_V3)
#define QNA_V3(table) &table
#else
#define QNA_V3(table) nullptr
#endif
#if defined(QNA_HAS_V4)
#define QNA_V4(table) &table
#else
#define QNA_V4(table) nullptr
#endif

namespace {

// One op's kernels for every instruction set that this build has and this processor runs; the best is taken first.
template <class Kernels> class InstructionSets {
 public:
  InstructionSets([[maybe_unused]] const Kernels* baseline, [[maybe_unused]] const Kernels* v3,
                  [[maybe_unused]] const Kernels* v4) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool runs_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
    const bool runs_v4 = runs_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512cd");
    if (v4 && runs_v4) sets_.push_back({"x86-64-v4", v4});
    if (v3 && runs_v3) sets_.push_back({"x86-64-v3", v3});
#endif
    if (baseline) sets_.push_back({"baseline", baseline});
    if (sets_.empty()) throw nanobind::import_error("this build has no kernels for this processor");
    chosen_ = sets_.front();
  }
  const Kernels* operator->() const { return chosen_.kernels; }
  const char* in_use() const { return chosen_.name; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const Set& set : sets_) names.push_back(set.name);
    return names;
  }
  void use(const std::string& name) {
    for (const Set& set : sets_)
      if (set.name == name) {
        chosen_ = set;
        return;
      }
    throw std::invalid_argument("this processor or build has no instruction set " + name);
  }

 private:
  struct Set {
    const char* name;
    const Kernels* kernels;
  };
  std::vector<Set> sets_;
  Set chosen_{};
};

// Lets Python ask for the sets and choose among them.
template <class Kernels> void bind(nanobind::module_& m, InstructionSets<Kernels>& sets) {
  m.def("instruction_sets", [&sets] { return sets.names(); });
  m.def("use", [&sets](const std::string& name) { sets.use(name); });
  m.def("in_use", [&sets] { return std::string(sets.in_use()); });
}

// A flat list of numbers, read in order.
class Words {
 public:
  explicit Words(const std::vector<int64_t>& words) : words_(words) {}
  int64_t next() {
    if (at_ == words_.size()) throw std::invalid_argument("too few numbers for this call");
    return words_[at_++];
  }
  void* pointer() { return reinterpret_cast<void*>(static_cast<intptr_t>(next())); }
  template <class Map> Map map() {  // an address, then strides
    Map m;
    m.data = pointer();
    for (int64_t& s : m.stride) s = next();
    return m;
  }
  void end() const {
    if (at_ != words_.size()) throw std::invalid_argument("too many numbers for this call");
  }

 private:
  const std::vector<int64_t>& words_;
  size_t at_ = 0;
};

}  // namespace
