// The matrix product of the transformed domain: small, and with everything in the cache.
#pragma once

#include "vector.h"

// c[rows, 16] (+)= a[rows, depth] b[depth, 16]; element (i, k) of a is at a[i * a_row + k * a_column].
template <int rows>
inline void panel(const float* a, size_t a_row, size_t a_column, const float* b, size_t b_row, float* c, size_t c_row,
                  int depth, bool accumulate) {
  Vector left[rows], right[rows];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
    left[i] = accumulate ? load(c + i * c_row) : Vector{};
    right[i] = accumulate ? load(c + i * c_row + LANES) : Vector{};
  }
  for (int k = 0; k < depth; ++k) {
    const Vector b_left = load(b + k * b_row), b_right = load(b + k * b_row + LANES);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const Vector factor = broadcast(a[i * a_row + k * a_column]);
      left[i] += factor * b_left;
      right[i] += factor * b_right;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
    store(c + i * c_row, left[i]);
    store(c + i * c_row + LANES, right[i]);
  }
}

// The same for any number of rows, in panels of at most six: their 12 sums and the 3 factors fill the 16 registers.
inline void product(int rows, const float* a, size_t a_row, size_t a_column, const float* b, size_t b_row, float* c,
                    size_t c_row, int depth, bool accumulate) {
  const int panels = (rows + 5) / 6;
  for (int i = 0, begin = 0; i < panels; ++i) {
    const int end = (int)((int64_t)rows * (i + 1) / panels);
    const float* a_begin = a + begin * a_row;
    float* c_begin = c + begin * c_row;
    switch (end - begin) {
      case 6: panel<6>(a_begin, a_row, a_column, b, b_row, c_begin, c_row, depth, accumulate); break;
      case 5: panel<5>(a_begin, a_row, a_column, b, b_row, c_begin, c_row, depth, accumulate); break;
      case 4: panel<4>(a_begin, a_row, a_column, b, b_row, c_begin, c_row, depth, accumulate); break;
      case 3: panel<3>(a_begin, a_row, a_column, b, b_row, c_begin, c_row, depth, accumulate); break;
      case 2: panel<2>(a_begin, a_row, a_column, b, b_row, c_begin, c_row, depth, accumulate); break;
      default: panel<1>(a_begin, a_row, a_column, b, b_row, c_begin, c_row, depth, accumulate);
    }
    begin = end;
  }
}
