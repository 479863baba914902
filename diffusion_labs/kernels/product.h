// The matrix product of the transformed domain: small, and with everything in the cache.
#pragma once

#include "vector.h"

constexpr int PANEL = 16;             // columns of a product, and channels that lie together in memory
constexpr int PARTS = PANEL / LANES;  // vectors of a row
constexpr int ROWS = LANES == 16 ? 24 : 6;  // their sums, a row of b and a factor fit the registers

// c[rows, PANEL] (+)= a[rows, depth] b[depth, PANEL], all strides known: element (i, k) of a is at
// a[i * a_row + k * a_column], where k goes through `blocks` of `depth`, which are a_block apart.
template <int rows, int a_row, int a_column>
inline void panel(const float* a, size_t a_block, const float* b, float* c, int blocks, int depth, bool accumulate) {
  Vector sums[rows][PARTS];
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < PARTS; ++j) sums[i][j] = accumulate ? load(c + i * PANEL + j * LANES) : Vector{};
  for (int block = 0; block < blocks; ++block, a += a_block) {
    const float* factors = a;
    for (int k = 0; k < depth; ++k, b += PANEL, factors += a_column) {
      Vector row[PARTS];
#pragma GCC unroll 2
      for (int j = 0; j < PARTS; ++j) row[j] = load(b + j * LANES);
#pragma GCC unroll 32
      for (int i = 0; i < rows; ++i) {
        const Vector factor = broadcast(factors[i * a_row]);
#pragma GCC unroll 2
        for (int j = 0; j < PARTS; ++j) sums[i][j] += factor * row[j];
      }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < PARTS; ++j) store(c + i * PANEL + j * LANES, sums[i][j]);
}

// The same for a number of rows that is known when it runs, at most `most`.
template <int a_row, int a_column, int most = ROWS>
inline void panel_of(int rows, const float* a, size_t a_block, const float* b, float* c, int blocks, int depth,
                     bool accumulate) {
  if constexpr (most > 1)
    if (rows < most) return panel_of<a_row, a_column, most - 1>(rows, a, a_block, b, c, blocks, depth, accumulate);
  panel<most, a_row, a_column>(a, a_block, b, c, blocks, depth, accumulate);
}

// The same for any number of rows, in panels of about equal size.
template <int a_row, int a_column>
inline void product(int rows, const float* a, size_t a_block, const float* b, float* c, int blocks, int depth,
                    bool accumulate) {
  const int panels = (rows + ROWS - 1) / ROWS;
  for (int i = 0, begin = 0; i < panels; ++i) {
    const int end = rows * (i + 1) / panels;
    panel_of<a_row, a_column>(end - begin, a + begin * a_row, a_block, b, c + begin * PANEL, blocks, depth, accumulate);
    begin = end;
  }
}
