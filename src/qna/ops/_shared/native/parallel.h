// Work shared by threads in ranges that the number of threads alone decides.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

// Runs work(task, index) for every index, one Task per thread; an exception in a thread is thrown again afterwards.
template <class Make, class Work> void parallel(int64_t count, int threads, Make make, Work work) {
  std::exception_ptr error;
#if !defined(_OPENMP)
  threads = 1;
#else
  threads = int(std::min<int64_t>(threads, count));
#pragma omp parallel num_threads(threads) if (threads > 1)
#endif
  {
    try {
      auto task = make();
#if defined(_OPENMP)
      const int64_t rank = omp_get_thread_num(), team = omp_get_num_threads();
#else
      const int64_t rank = 0, team = 1;
#endif
      for (int64_t i = count * rank / team; i < count * (rank + 1) / team; ++i) work(task, i);
    } catch (...) {
#if defined(_OPENMP)
#pragma omp critical
#endif
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace
