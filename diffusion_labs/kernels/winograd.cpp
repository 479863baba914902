// Convolution with a 3x3 kernel, stride 1 and padding 1, and its gradients, by Winograd's F(4x4, 3x3).
// The derivation is in docs/kernels.md; the names A, B, G are those of arXiv 1509.09308.

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "product.h"

namespace {

constexpr int TILE = 4;                  // outputs per side of a tile
constexpr int WINDOW = 6;                // inputs per side of a tile: also the number of points
constexpr int POINTS = WINDOW * WINDOW;  // products per tile
constexpr int PANEL = 16;                // output channels of one panel of the matrix product
constexpr size_t MOST_SUMS = 1 << 27;    // numbers that the threads may sum in, together: half a gigabyte
constexpr size_t SKEW = 16;              // keeps the rows of the transformed domain out of each other's cache sets

// The points 0, +-a, +-b and infinity, with a b = 1: small constants, so little is lost to rounding.
constexpr float a = 0.70710678118654752f, b = 1.41421356237309505f;
constexpr float aa = 0.5f, bb = 2.f, aaa = a * aa, bbb = b * bb;
constexpr float na = 1.f / (2 * aa * (aa - bb)), nb = 1.f / (2 * bb * (bb - aa));  // 1 / prod over q != p of (p - q)

// B^T d: from 6 inputs in a row to the 6 points.
inline void input_transform(const Vector d[6], Vector v[6]) {
  v[0] = d[0] - (aa + bb) * d[2] + d[4];
  const Vector even_a = d[4] - bb * d[2], odd_a = a * (d[3] - bb * d[1]);
  v[1] = even_a + odd_a;
  v[2] = even_a - odd_a;
  const Vector even_b = d[4] - aa * d[2], odd_b = b * (d[3] - aa * d[1]);
  v[3] = even_b + odd_b;
  v[4] = even_b - odd_b;
  v[5] = d[1] - (aa + bb) * d[3] + d[5];
}

// A^T m: from 6 points to 4 outputs.
inline void output_transform(const Vector m[6], Vector y[4]) {
  const Vector even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
  y[0] = m[0] + even_a + even_b;
  y[1] = a * odd_a + b * odd_b;
  y[2] = aa * even_a + bb * even_b;
  y[3] = aaa * odd_a + bbb * odd_b + m[5];
}

// A y: from 4 gradients of outputs to 6 points, the transpose of the above.
inline void output_transform_transposed(const Vector y[4], Vector m[6]) {
  m[0] = y[0];
  const Vector even_a = y[0] + aa * y[2], odd_a = a * y[1] + aaa * y[3];
  m[1] = even_a + odd_a;
  m[2] = even_a - odd_a;
  const Vector even_b = y[0] + bb * y[2], odd_b = b * y[1] + bbb * y[3];
  m[3] = even_b + odd_b;
  m[4] = even_b - odd_b;
  m[5] = y[3];
}

// G g: from 3 weights to the 6 points.
inline void weight_transform(const Vector g[3], Vector u[6]) {
  u[0] = g[0];
  const Vector even_a = na * (g[0] + aa * g[2]), odd_a = (na * a) * g[1];
  u[1] = even_a + odd_a;
  u[2] = even_a - odd_a;
  const Vector even_b = nb * (g[0] + bb * g[2]), odd_b = (nb * b) * g[1];
  u[3] = even_b + odd_b;
  u[4] = even_b - odd_b;
  u[5] = g[2];
}

// G^T u: from 6 points to 3 gradients of weights, the transpose of the above.
inline void weight_transform_transposed(const Vector u[6], Vector g[3]) {
  const Vector even_a = na * (u[1] + u[2]), even_b = nb * (u[3] + u[4]);
  g[0] = u[0] + even_a + even_b;
  g[1] = (na * a) * (u[1] - u[2]) + (nb * b) * (u[3] - u[4]);
  g[2] = aa * even_a + bb * even_b + u[5];
}

// Images [batch, channels, height, width]; a strip is one row of tiles of one image.
struct Shape {
  int64_t batch, height, width;
  int64_t strips_per_image() const { return height / TILE; }
  int64_t strips() const { return batch * strips_per_image(); }
  int64_t tiles_per_strip() const { return width / TILE; }
};

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float, Free>;

Buffer allocate(size_t count) {
  return Buffer(static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64)));
}

// Strip `strip` of `channels` channels of x to the transformed domain: v[point][tile][channel].
void transform_input(const float* x, const Shape& s, int64_t strip, int64_t channels, Vector* window, float* v,
                     size_t point) {
  const int64_t width = s.width, plane = s.height * width, padded = width + 2;
  const int64_t image = strip / s.strips_per_image(), top = strip % s.strips_per_image() * TILE - 1;
  for (int64_t c = 0; c < channels; c += LANES) {
    for (int i = 0; i < WINDOW; ++i) {
      Vector* row = window + i * padded;
      const int64_t y = top + i;
      if (y < 0 || y >= s.height) {
        std::fill(row, row + padded, Vector{});
        continue;
      }
      const float* source = x + (image * channels + c) * plane + y * width;
      row[0] = row[padded - 1] = Vector{};
      for (int64_t j = 0; j < width; j += TILE) load_pixels(source + j, plane, row + 1 + j);
    }
    for (int64_t j = 0; j < padded; ++j) {
      Vector column[WINDOW], points[WINDOW];
      for (int i = 0; i < WINDOW; ++i) column[i] = window[i * padded + j];
      input_transform(column, points);
      for (int i = 0; i < WINDOW; ++i) window[i * padded + j] = points[i];
    }
    for (int64_t tile = 0; tile < s.tiles_per_strip(); ++tile)
      for (int i = 0; i < WINDOW; ++i) {
        Vector points[WINDOW];
        input_transform(window + i * padded + tile * TILE, points);
        for (int j = 0; j < WINDOW; ++j) store(v + (i * WINDOW + j) * point + tile * channels + c, points[j]);
      }
  }
}

// The tiles of a strip from the transformed domain, m[point][tile][PANEL], to 16 channels of y, from `first` on.
void transform_output(const float* m, size_t point, const float* bias, const Shape& s, int64_t strip, int64_t channels,
                      int64_t first, float* y) {
  const int64_t plane = s.height * s.width;
  const int64_t image = strip / s.strips_per_image(), top = strip % s.strips_per_image() * TILE;
  for (int64_t tile = 0; tile < s.tiles_per_strip(); ++tile)
    for (int64_t c = 0; c < PANEL; c += LANES) {
      Vector half[TILE][WINDOW];
      for (int j = 0; j < WINDOW; ++j) {
        Vector column[WINDOW], out[TILE];
        for (int i = 0; i < WINDOW; ++i) column[i] = load(m + (i * WINDOW + j) * point + tile * PANEL + c);
        output_transform(column, out);
        for (int i = 0; i < TILE; ++i) half[i][j] = out[i];
      }
      const Vector shift = bias ? load(bias + first + c) : Vector{};
      float* target = y + (image * channels + first + c) * plane + top * s.width + tile * TILE;
      for (int i = 0; i < TILE; ++i) {
        Vector pixels[TILE];
        output_transform(half[i], pixels);
        for (int j = 0; j < TILE; ++j) pixels[j] += shift;
        store_pixels(target + i * s.width, plane, pixels);
      }
    }
}

// Strip `strip` of the gradient dy to the transformed domain: m[point][tile][channel].
void transform_gradient(const float* dy, const Shape& s, int64_t strip, int64_t channels, float* m, size_t point) {
  const int64_t plane = s.height * s.width;
  const int64_t image = strip / s.strips_per_image(), top = strip % s.strips_per_image() * TILE;
  for (int64_t c = 0; c < channels; c += LANES)
    for (int64_t tile = 0; tile < s.tiles_per_strip(); ++tile) {
      const float* source = dy + (image * channels + c) * plane + top * s.width + tile * TILE;
      Vector rows[TILE][WINDOW];
      for (int i = 0; i < TILE; ++i) {
        Vector pixels[TILE];
        load_pixels(source + i * s.width, plane, pixels);
        output_transform_transposed(pixels, rows[i]);
      }
      for (int j = 0; j < WINDOW; ++j) {
        Vector column[TILE], points[WINDOW];
        for (int i = 0; i < TILE; ++i) column[i] = rows[i][j];
        output_transform_transposed(column, points);
        for (int i = 0; i < WINDOW; ++i) store(m + (i * WINDOW + j) * point + tile * channels + c, points[i]);
      }
    }
}

// Weights [out, in, 3, 3] to u[out / 16][point][in][16]. For the gradient of the data, `flipped`: the kernel turned by
// half a turn, and its inputs and outputs exchanged.
void transform_weight(const float* weight, int64_t in, int64_t out, bool flipped, float* u, int threads) {
  const int64_t in_step = flipped ? out * 9 : 9, out_step = flipped ? 9 : in * 9;
#pragma omp parallel for collapse(2) num_threads(threads)
  for (int64_t panel = 0; panel < out / PANEL; ++panel)
    for (int64_t c = 0; c < in; ++c) {
      alignas(32) float g[9][PANEL];
      const float* source = weight + panel * PANEL * out_step + c * in_step;
      for (int lane = 0; lane < PANEL; ++lane)
        for (int k = 0; k < 9; ++k) g[flipped ? 8 - k : k][lane] = source[lane * out_step + k];
      for (int half = 0; half < PANEL; half += LANES) {
        Vector columns[WINDOW][3];
        for (int j = 0; j < 3; ++j) {
          const Vector column[3] = {load(g[j] + half), load(g[3 + j] + half), load(g[6 + j] + half)};
          Vector points[WINDOW];
          weight_transform(column, points);
          for (int i = 0; i < WINDOW; ++i) columns[i][j] = points[i];
        }
        for (int i = 0; i < WINDOW; ++i) {
          Vector points[WINDOW];
          weight_transform(columns[i], points);
          for (int j = 0; j < WINDOW; ++j)
            store(u + ((panel * POINTS + i * WINDOW + j) * in + c) * PANEL + half, points[j]);
        }
      }
    }
}

// Strips per block: about `tiles` tiles, and as many blocks for one thread as for another.
int64_t block_size(const Shape& s, int64_t tiles, int threads) {
  const int64_t most = std::max<int64_t>(1, tiles / s.tiles_per_strip());
  const int64_t rounds = (s.strips() + most * threads - 1) / (most * threads);
  return (s.strips() + rounds * threads - 1) / (rounds * threads);
}

}  // namespace

extern "C" {

// y[batch, out, height, width] = x[batch, in, height, width] * weight[out, in, 3, 3] + bias[out]; without bias if null.
void winograd_convolution(const float* x, const float* weight, const float* bias, float* y, int64_t batch, int64_t in,
                          int64_t out, int64_t height, int64_t width, int64_t flipped, int64_t block_tiles,
                          int32_t threads) {
  const Shape s{batch, height, width};
  Buffer u = allocate(POINTS * in * out);
  transform_weight(weight, in, out, flipped, u.get(), threads);

  const int64_t strips = block_size(s, block_tiles, threads), tiles = strips * s.tiles_per_strip();
  const size_t point = tiles * in + SKEW, out_point = tiles * PANEL + SKEW;
#pragma omp parallel num_threads(threads)
  {
    Buffer v = allocate(POINTS * point), m = allocate(POINTS * out_point), window = allocate(6 * (width + 2) * LANES);
#pragma omp for schedule(dynamic)
    for (int64_t begin = 0; begin < s.strips(); begin += strips) {
      const int64_t end = std::min(begin + strips, s.strips());
      const int rows = (int)((end - begin) * s.tiles_per_strip());
      for (int64_t strip = begin; strip < end; ++strip)
        transform_input(x, s, strip, in, (Vector*)window.get(), v.get() + (strip - begin) * s.tiles_per_strip() * in,
                        point);
      for (int64_t first = 0; first < out; first += PANEL) {
        for (int p = 0; p < POINTS; ++p)
          product(rows, v.get() + p * point, in, 1, u.get() + (first / PANEL * POINTS + p) * in * PANEL, PANEL,
                  m.get() + p * out_point, PANEL, (int)in, false);
        for (int64_t strip = begin; strip < end; ++strip)
          transform_output(m.get() + (strip - begin) * s.tiles_per_strip() * PANEL, out_point, bias, s, strip, out,
                           first, y);
      }
    }
  }
}

// dw[out, in, 3, 3], the gradient of the weights, from x and dy, that of the output.
void winograd_weight_gradient(const float* x, const float* dy, float* dw, int64_t batch, int64_t in, int64_t out,
                              int64_t height, int64_t width, int64_t block_tiles, int32_t threads) {
  const Shape s{batch, height, width};
  const size_t size = POINTS * in * out;
  threads = (int32_t)std::clamp<size_t>(MOST_SUMS / size, 1, threads);
  const int64_t strips = block_size(s, block_tiles, threads), tiles = strips * s.tiles_per_strip();
  const size_t point = tiles * in + SKEW, out_point = tiles * out + SKEW;
  Buffer sums = allocate(threads * size);  // [thread][point][in][out]
#pragma omp parallel num_threads(threads)
  {
    Buffer v = allocate(POINTS * point), m = allocate(POINTS * out_point), window = allocate(6 * (width + 2) * LANES);
    float* du = sums.get() + omp_get_thread_num() * size;
    bool accumulate = false;
#pragma omp for schedule(static)
    for (int64_t begin = 0; begin < s.strips(); begin += strips) {
      const int64_t end = std::min(begin + strips, s.strips());
      const int depth = (int)((end - begin) * s.tiles_per_strip());
      for (int64_t strip = begin; strip < end; ++strip) {
        const int64_t tile = (strip - begin) * s.tiles_per_strip();
        transform_input(x, s, strip, in, (Vector*)window.get(), v.get() + tile * in, point);
        transform_gradient(dy, s, strip, out, m.get() + tile * out, out_point);
      }
      for (int p = 0; p < POINTS; ++p)
        for (int64_t first = 0; first < out; first += PANEL)
          product((int)in, v.get() + p * point, 1, in, m.get() + p * out_point + first, out,
                  du + p * in * out + first, out, depth, accumulate);
      accumulate = true;
    }
    if (!accumulate) std::fill(du, du + size, 0.f);
#pragma omp barrier
    const int parts = omp_get_num_threads();
#pragma omp for collapse(2)
    for (int64_t c = 0; c < in; ++c)
      for (int64_t o = 0; o < out; o += LANES) {
        Vector half[3][WINDOW];
        for (int j = 0; j < WINDOW; ++j) {
          Vector column[WINDOW], g[3];
          for (int i = 0; i < WINDOW; ++i) {
            const float* source = sums.get() + (i * WINDOW + j) * in * out + c * out + o;
            column[i] = load(source);
            for (int part = 1; part < parts; ++part) column[i] += load(source + part * size);
          }
          weight_transform_transposed(column, g);
          for (int i = 0; i < 3; ++i) half[i][j] = g[i];
        }
        for (int i = 0; i < 3; ++i) {
          Vector g[3];
          weight_transform_transposed(half[i], g);
          for (int j = 0; j < 3; ++j)
            for (int lane = 0; lane < LANES; ++lane) dw[((o + lane) * in + c) * 9 + i * 3 + j] = g[j][lane];
        }
      }
  }
}
}
