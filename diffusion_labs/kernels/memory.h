// Aligned memory that is given back, and how much of it sums may take.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>

constexpr size_t MOST_SUMS = 1 << 27;  // numbers that the threads may sum in, together: half a gigabyte

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float, Free>;

inline Buffer allocate(size_t count) {
  Buffer buffer(static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64)));
  if (!buffer) {  // in a thread, whose errors nobody can catch
    std::fprintf(stderr, "diffusion_labs: the kernels get no memory for %zu numbers\n", count);
    std::abort();
  }
  return buffer;
}
