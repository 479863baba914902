// Eight floats at a time, and the layout change between planes of pixels and vectors of channels.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

typedef float Vector __attribute__((vector_size(32), aligned(32), may_alias));

constexpr int LANES = 8;

inline Vector load(const float* p) { return (Vector)_mm256_loadu_ps(p); }
inline void store(float* p, Vector v) { _mm256_storeu_ps(p, (__m256)v); }
inline Vector broadcast(float value) { return (Vector)_mm256_set1_ps(value); }

// Four vectors, each [channel i: 4 pixels | channel i + 4: 4 pixels], to four of 8 channels at one pixel; its own inverse.
inline void transpose(Vector v[4]) {
  __m256 a = _mm256_unpacklo_ps((__m256)v[0], (__m256)v[1]), b = _mm256_unpackhi_ps((__m256)v[0], (__m256)v[1]);
  __m256 c = _mm256_unpacklo_ps((__m256)v[2], (__m256)v[3]), d = _mm256_unpackhi_ps((__m256)v[2], (__m256)v[3]);
  v[0] = (Vector)_mm256_shuffle_ps(a, c, 0x44);
  v[1] = (Vector)_mm256_shuffle_ps(a, c, 0xee);
  v[2] = (Vector)_mm256_shuffle_ps(b, d, 0x44);
  v[3] = (Vector)_mm256_shuffle_ps(b, d, 0xee);
}

// 4 neighbouring pixels of 8 channels, which are `plane` floats apart.
inline void load_pixels(const float* p, size_t plane, Vector v[4]) {
  for (int i = 0; i < 4; ++i)
    v[i] = (Vector)_mm256_insertf128_ps(
        _mm256_castps128_ps256(_mm_loadu_ps(p + i * plane)), _mm_loadu_ps(p + (i + 4) * plane), 1);
  transpose(v);
}

inline void store_pixels(float* p, size_t plane, Vector v[4]) {
  transpose(v);
  for (int i = 0; i < 4; ++i) {
    _mm_storeu_ps(p + i * plane, _mm256_castps256_ps128((__m256)v[i]));
    _mm_storeu_ps(p + (i + 4) * plane, _mm256_extractf128_ps((__m256)v[i], 1));
  }
}

inline float sum(Vector v) {
  float total = 0;
  for (int i = 0; i < LANES; ++i) total += v[i];
  return total;
}
