// As many floats at a time as a register holds, and the layout change between planes of pixels and vectors of channels.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#ifdef __AVX512F__
constexpr int LANES = 16;
constexpr int REGISTERS = 32;
#else
constexpr int LANES = 8;
constexpr int REGISTERS = 16;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4 * LANES), may_alias));
typedef Vector Unaligned __attribute__((aligned(4), may_alias));

inline Vector load(const float* p) { return *(const Unaligned*)p; }
inline void store(float* p, Vector v) { *(Unaligned*)p = v; }

// 4 neighbouring pixels of LANES channels, which are `plane` floats apart. A register has parts of four floats; a vector
// of pixels has those of channel i of each four channels, a vector of channels all of them at one pixel.
#ifdef __AVX512F__
inline Vector broadcast(float value) { return (Vector)_mm512_set1_ps(value); }
inline Vector about_reciprocal(Vector v) { return (Vector)_mm512_rcp14_ps((__m512)v); }

inline Vector parts(const float* p, size_t plane) {
  const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * plane), 1);
  const __m256 high =
      _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + 8 * plane)), _mm_loadu_ps(p + 12 * plane), 1);
  return (Vector)_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

inline void store_parts(float* p, size_t plane, Vector v) {
  _mm_storeu_ps(p, _mm512_castps512_ps128((__m512)v));
  _mm_storeu_ps(p + 4 * plane, _mm512_extractf32x4_ps((__m512)v, 1));
  _mm_storeu_ps(p + 8 * plane, _mm512_extractf32x4_ps((__m512)v, 2));
  _mm_storeu_ps(p + 12 * plane, _mm512_extractf32x4_ps((__m512)v, 3));
}

// Its own inverse: four vectors of pixels to four vectors of channels.
inline void transpose(Vector v[4]) {
  __m512 a = _mm512_unpacklo_ps((__m512)v[0], (__m512)v[1]), b = _mm512_unpackhi_ps((__m512)v[0], (__m512)v[1]);
  __m512 c = _mm512_unpacklo_ps((__m512)v[2], (__m512)v[3]), d = _mm512_unpackhi_ps((__m512)v[2], (__m512)v[3]);
  v[0] = (Vector)_mm512_shuffle_ps(a, c, 0x44);
  v[1] = (Vector)_mm512_shuffle_ps(a, c, 0xee);
  v[2] = (Vector)_mm512_shuffle_ps(b, d, 0x44);
  v[3] = (Vector)_mm512_shuffle_ps(b, d, 0xee);
}
#else
inline Vector broadcast(float value) { return (Vector)_mm256_set1_ps(value); }
inline Vector about_reciprocal(Vector v) { return (Vector)_mm256_rcp_ps((__m256)v); }

inline Vector parts(const float* p, size_t plane) {
  return (Vector)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * plane), 1);
}

inline void store_parts(float* p, size_t plane, Vector v) {
  _mm_storeu_ps(p, _mm256_castps256_ps128((__m256)v));
  _mm_storeu_ps(p + 4 * plane, _mm256_extractf128_ps((__m256)v, 1));
}

// Its own inverse: four vectors of pixels to four vectors of channels.
inline void transpose(Vector v[4]) {
  __m256 a = _mm256_unpacklo_ps((__m256)v[0], (__m256)v[1]), b = _mm256_unpackhi_ps((__m256)v[0], (__m256)v[1]);
  __m256 c = _mm256_unpacklo_ps((__m256)v[2], (__m256)v[3]), d = _mm256_unpackhi_ps((__m256)v[2], (__m256)v[3]);
  v[0] = (Vector)_mm256_shuffle_ps(a, c, 0x44);
  v[1] = (Vector)_mm256_shuffle_ps(a, c, 0xee);
  v[2] = (Vector)_mm256_shuffle_ps(b, d, 0x44);
  v[3] = (Vector)_mm256_shuffle_ps(b, d, 0xee);
}
#endif

// 4 * quads neighbouring pixels. A cache line of a channel is read or written at once: channels whose planes are 4 KB,
// or a multiple of that, are in one set of the cache.
template <int quads = 1>
inline void load_pixels(const float* p, size_t plane, Vector v[4 * quads]) {
  for (int i = 0; i < 4; ++i)
    for (int quad = 0; quad < quads; ++quad) v[4 * quad + i] = parts(p + i * plane + 4 * quad, plane);
  for (int quad = 0; quad < quads; ++quad) transpose(v + 4 * quad);
}

template <int quads = 1>
inline void store_pixels(float* p, size_t plane, Vector v[4 * quads]) {
  for (int quad = 0; quad < quads; ++quad) transpose(v + 4 * quad);
  for (int i = 0; i < 4; ++i)
    for (int quad = 0; quad < quads; ++quad) store_parts(p + i * plane + 4 * quad, plane, v[4 * quad + i]);
}

// `count` tokens of `channels` channels, `token` floats apart, to columns[channel][stride]; a multiple of 4 of them.
inline void tokens_to_columns(const float* tokens, size_t token, int64_t count, int64_t channels, float* columns,
                              size_t stride) {
  for (int64_t c = 0; c < channels; c += LANES)
    for (int64_t i = 0; i < count; i += 4) {
      Vector rows[4];
      for (int j = 0; j < 4; ++j) rows[j] = load(tokens + (i + j) * token + c);
      store_pixels(columns + c * stride + i, stride, rows);
    }
}

// 1 / v of what is neither 0 nor infinite, by a step of Newton's method, as a division takes longer.
inline Vector reciprocal(Vector v) {
  const Vector y = about_reciprocal(v);
  return y * (2 - v * y);
}

inline float sum(Vector v) {
  float total = 0;
  for (int i = 0; i < LANES; ++i) total += v[i];
  return total;
}
