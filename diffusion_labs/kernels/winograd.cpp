// Convolution with a 3x3 kernel, stride 1 and padding 1, and its gradients, by Winograd's F(4x4, 3x3).
// The derivation is in docs/kernels.md; the names A, B, G are those of arXiv 1509.09308.

#include <omp.h>

#include <algorithm>

#include "memory.h"
#include "product.h"

namespace {

constexpr int TILE = 4;                  // outputs per side of a tile
constexpr int WINDOW = 6;                // inputs per side of a tile: also the number of points
constexpr int POINTS = WINDOW * WINDOW;  // products per tile
constexpr int64_t FEW_TILES = 64;        // whose transforms fit the L2 cache, or about
constexpr int64_t LARGE = 1 << 17;       // channels times channels, or tiles, whose transforms fit the L3 cache, or about
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

// Where `channels` channels of `tiles` tiles are in the transformed domain: [point][channel / PANEL][tile][PANEL].
struct Points {
  int64_t channels, tiles;
  size_t point() const { return channels * tiles + SKEW; }
  size_t panel() const { return tiles * PANEL; }
  size_t size() const { return POINTS * point(); }
  size_t at(int64_t channel, int64_t tile) const { return channel / PANEL * panel() + tile * PANEL + channel % PANEL; }
};

// Strip `strip` of x to the transformed domain, from tile `first` of v on.
void transform_input(const float* x, const Shape& s, int64_t strip, Vector* window, float* v, const Points& at,
                     int64_t first) {
  const int64_t width = s.width, plane = s.height * width, padded = width + 2;
  const int64_t image = strip / s.strips_per_image(), top = strip % s.strips_per_image() * TILE - 1;
  for (int64_t c = 0; c < at.channels; c += LANES) {
    for (int i = 0; i < WINDOW; ++i) {
      Vector* row = window + i * padded;
      const int64_t y = top + i;
      if (y < 0 || y >= s.height) {
        std::fill(row, row + padded, Vector{});
        continue;
      }
      const float* source = x + (image * at.channels + c) * plane + y * width;
      row[0] = row[padded - 1] = Vector{};
      int64_t j = 0;
      for (; j + 4 * TILE <= width; j += 4 * TILE) load_pixels<4>(source + j, plane, row + 1 + j);
      for (; j < width; j += TILE) load_pixels(source + j, plane, row + 1 + j);
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
        float* target = v + at.at(c, first + tile);
        for (int j = 0; j < WINDOW; ++j) store(target + (i * WINDOW + j) * at.point(), points[j]);
      }
  }
}

// `tiles` neighbouring tiles, from tile `first` of the panel m on, channels from c on, with the bias `shift`, to y.
template <int tiles>
inline void output_tiles(const float* m, const Points& at, int64_t first, int64_t c, Vector shift, float* y,
                         size_t plane, size_t width) {
  Vector pixels[TILE][tiles * TILE];
  for (int tile = 0; tile < tiles; ++tile) {
    Vector half[TILE][WINDOW];
    for (int j = 0; j < WINDOW; ++j) {
      Vector column[WINDOW], out[TILE];
      const float* source = m + at.at(c, first + tile) + j * at.point();
      for (int i = 0; i < WINDOW; ++i) column[i] = load(source + i * WINDOW * at.point());
      output_transform(column, out);
      for (int i = 0; i < TILE; ++i) half[i][j] = out[i];
    }
    for (int i = 0; i < TILE; ++i) {
      Vector* row = pixels[i] + tile * TILE;
      output_transform(half[i], row);
      for (int j = 0; j < TILE; ++j) row[j] += shift;
    }
  }
  for (int i = 0; i < TILE; ++i) store_pixels<tiles>(y + i * width, plane, pixels[i]);
}

// The tiles of a strip, from tile `first` of the panel m on, to PANEL channels of y, from `channel` of `channels` on.
void transform_output(const float* m, const Points& at, int64_t first, const float* bias, const Shape& s, int64_t strip,
                      int64_t channels, int64_t channel, float* y) {
  const int64_t plane = s.height * s.width, tiles = s.tiles_per_strip();
  const int64_t image = strip / s.strips_per_image(), top = strip % s.strips_per_image() * TILE;
  for (int64_t c = 0; c < PANEL; c += LANES) {
    const Vector shift = bias ? load(bias + channel + c) : Vector{};
    float* target = y + (image * channels + channel + c) * plane + top * s.width;
    int64_t tile = 0;
    for (; tile + 4 <= tiles; tile += 4)
      output_tiles<4>(m, at, first + tile, c, shift, target + tile * TILE, plane, s.width);
    for (; tile < tiles; ++tile) output_tiles<1>(m, at, first + tile, c, shift, target + tile * TILE, plane, s.width);
  }
}

// `tiles` neighbouring tiles of the gradient dy to the transformed domain, from tile `first` of m on.
template <int tiles>
inline void gradient_tiles(const float* dy, size_t plane, size_t width, float* m, const Points& at, int64_t c,
                           int64_t first) {
  Vector pixels[TILE][tiles * TILE];
  for (int i = 0; i < TILE; ++i) load_pixels<tiles>(dy + i * width, plane, pixels[i]);
  for (int tile = 0; tile < tiles; ++tile) {
    Vector rows[TILE][WINDOW];
    for (int i = 0; i < TILE; ++i) output_transform_transposed(pixels[i] + tile * TILE, rows[i]);
    for (int j = 0; j < WINDOW; ++j) {
      Vector column[TILE], points[WINDOW];
      for (int i = 0; i < TILE; ++i) column[i] = rows[i][j];
      output_transform_transposed(column, points);
      float* target = m + at.at(c, first + tile) + j * at.point();
      for (int i = 0; i < WINDOW; ++i) store(target + i * WINDOW * at.point(), points[i]);
    }
  }
}

// Strip `strip` of the gradient dy to the transformed domain, from tile `first` of m on.
void transform_gradient(const float* dy, const Shape& s, int64_t strip, float* m, const Points& at, int64_t first) {
  const int64_t plane = s.height * s.width, tiles = s.tiles_per_strip();
  const int64_t image = strip / s.strips_per_image(), top = strip % s.strips_per_image() * TILE;
  for (int64_t c = 0; c < at.channels; c += LANES) {
    const float* source = dy + (image * at.channels + c) * plane + top * s.width;
    int64_t tile = 0;
    for (; tile + 4 <= tiles; tile += 4)
      gradient_tiles<4>(source + tile * TILE, plane, s.width, m, at, c, first + tile);
    for (; tile < tiles; ++tile) gradient_tiles<1>(source + tile * TILE, plane, s.width, m, at, c, first + tile);
  }
}

// Weights [out, in, 3, 3] of PANEL outputs, from `channel` on, to u[point][in][PANEL], for the inputs from `begin` to
// `end`. For the gradient of the data, `flipped`: the kernel turned by half a turn, its inputs and outputs exchanged.
void transform_weight(const float* weight, int64_t in, int64_t out, bool flipped, int64_t channel, int64_t begin,
                      int64_t end, float* u, const Points& at) {
  const int64_t in_step = flipped ? out * 9 : 9, out_step = flipped ? 9 : in * 9;
  for (int64_t c = begin; c < end; ++c)
    for (int64_t lane = 0; lane < PANEL; lane += LANES) {
      const float* source = weight + (channel + lane) * out_step + c * in_step;
      Vector g[9];  // the last four overlap those before, as there is nothing to read after them
      for (int k : {0, 4, 5}) load_pixels(source + k, out_step, g + k);
      if (flipped) std::reverse(g, g + 9);
      Vector columns[WINDOW][3];
      for (int j = 0; j < 3; ++j) {
        const Vector column[3] = {g[j], g[3 + j], g[6 + j]};
        Vector points[WINDOW];
        weight_transform(column, points);
        for (int i = 0; i < WINDOW; ++i) columns[i][j] = points[i];
      }
      for (int i = 0; i < WINDOW; ++i) {
        Vector points[WINDOW];
        weight_transform(columns[i], points);
        float* target = u + i * WINDOW * at.point() + at.at(lane, c);
        for (int j = 0; j < WINDOW; ++j) store(target + j * at.point(), points[j]);
      }
    }
}

// Rows of tiles of all points, v, times the weights of a panel, u, to m.
void multiply(int rows, const float* v, const Points& inputs, const float* u, const Points& weights, float* m,
              const Points& outputs) {
  for (int p = 0; p < POINTS; ++p)
    product<PANEL, 1>(rows, v + p * inputs.point(), inputs.panel(), u + p * weights.point(), m + p * outputs.point(),
                      (int)(inputs.channels / PANEL), PANEL, false);
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
// Threads share the tiles, in blocks; or, where the transforms of the weights are larger than those of the tiles, or than
// the cache, the channels of the output: then the weights are transformed where they are needed, again for each `LARGE`
// part of the tiles.
void winograd_convolution(const float* x, const float* weight, const float* bias, float* y, int64_t batch, int64_t in,
                          int64_t out, int64_t height, int64_t width, int64_t flipped, int64_t block_tiles,
                          int32_t threads) {
  if (batch * out * height * width == 0) return;
  const Shape s{batch, height, width};
  const int64_t panels = out / PANEL, row = s.tiles_per_strip(), all = s.strips() * row;
  const bool heavy = (all <= std::max(FEW_TILES, out) || in * out > LARGE) && panels >= threads;
  const int64_t strips = heavy ? block_size(s, std::max(FEW_TILES, LARGE / in), 1) : block_size(s, block_tiles, threads);
  const Points inputs{in, strips * row}, outputs{PANEL, strips * row}, weights{PANEL, in};
  Buffer all_v = allocate(heavy ? inputs.size() : 0), all_u = allocate(heavy ? 0 : panels * weights.size());
#pragma omp parallel num_threads(threads)
  {
    Buffer window = allocate(WINDOW * (width + 2) * LANES), m = allocate(outputs.size());
    if (heavy) {
      Buffer u = allocate(weights.size());
      for (int64_t begin = 0; begin < s.strips(); begin += strips) {
        const int64_t end = std::min(begin + strips, s.strips());
#pragma omp for
        for (int64_t strip = begin; strip < end; ++strip)
          transform_input(x, s, strip, (Vector*)window.get(), all_v.get(), inputs, (strip - begin) * row);
#pragma omp for schedule(dynamic)
        for (int64_t panel = 0; panel < panels; ++panel) {
          transform_weight(weight, in, out, flipped, panel * PANEL, 0, in, u.get(), weights);
          multiply((int)((end - begin) * row), all_v.get(), inputs, u.get(), weights, m.get(), outputs);
          for (int64_t strip = begin; strip < end; ++strip)
            transform_output(m.get(), outputs, (strip - begin) * row, bias, s, strip, out, panel * PANEL, y);
        }
      }
    } else {
      Buffer v = allocate(inputs.size());
#pragma omp for collapse(2)
      for (int64_t panel = 0; panel < panels; ++panel)
        for (int64_t c = 0; c < in; c += PANEL)
          transform_weight(weight, in, out, flipped, panel * PANEL, c, c + PANEL, all_u.get() + panel * weights.size(),
                           weights);
#pragma omp for schedule(dynamic)
      for (int64_t begin = 0; begin < s.strips(); begin += strips) {
        const int64_t end = std::min(begin + strips, s.strips());
        for (int64_t strip = begin; strip < end; ++strip)
          transform_input(x, s, strip, (Vector*)window.get(), v.get(), inputs, (strip - begin) * row);
        for (int64_t panel = 0; panel < panels; ++panel) {
          multiply((int)((end - begin) * row), v.get(), inputs, all_u.get() + panel * weights.size(), weights, m.get(),
                   outputs);
          for (int64_t strip = begin; strip < end; ++strip)
            transform_output(m.get(), outputs, (strip - begin) * row, bias, s, strip, out, panel * PANEL, y);
        }
      }
    }
  }
}

// dw[out, in, 3, 3], the gradient of the weights, from x and dy, that of the output.
void winograd_weight_gradient(const float* x, const float* dy, float* dw, int64_t batch, int64_t in, int64_t out,
                              int64_t height, int64_t width, int64_t block_tiles, int32_t threads) {
  if (in * out == 0) return;
  const Shape s{batch, height, width};
  const size_t size = POINTS * in * out;
  threads = (int32_t)std::clamp<size_t>(MOST_SUMS / size, 1, threads);
  const int64_t strips = block_size(s, block_tiles, threads), tiles = strips * s.tiles_per_strip();
  const Points inputs{in, tiles}, outputs{out, tiles};
  Buffer sums = allocate(threads * size);  // [thread][point][out / PANEL][in][PANEL]
#pragma omp parallel num_threads(threads)
  {
    Buffer v = allocate(inputs.size()), m = allocate(outputs.size()), window = allocate(WINDOW * (width + 2) * LANES);
    float* du = sums.get() + omp_get_thread_num() * size;
    bool accumulate = false;
#pragma omp for schedule(static)
    for (int64_t begin = 0; begin < s.strips(); begin += strips) {
      const int64_t end = std::min(begin + strips, s.strips());
      const int depth = (int)((end - begin) * s.tiles_per_strip());
      for (int64_t strip = begin; strip < end; ++strip) {
        const int64_t first = (strip - begin) * s.tiles_per_strip();
        transform_input(x, s, strip, (Vector*)window.get(), v.get(), inputs, first);
        transform_gradient(dy, s, strip, m.get(), outputs, first);
      }
      for (int p = 0; p < POINTS; ++p)
        for (int64_t o = 0; o < out; o += PANEL)
          for (int64_t c = 0; c < in; c += PANEL)
            product<1, PANEL>(PANEL, v.get() + p * inputs.point() + inputs.at(c, 0), 0,
                              m.get() + p * outputs.point() + outputs.at(o, 0), du + (p * out + o) * in + c * PANEL, 1,
                              depth, accumulate);
      accumulate = true;
    }
    if (!accumulate) std::fill(du, du + size, 0.f);
#pragma omp barrier
    const int parts = omp_get_num_threads();
#pragma omp for collapse(2)
    for (int64_t o = 0; o < out; o += LANES)
      for (int64_t c = 0; c < in; ++c) {
        Vector half[3][WINDOW];
        for (int j = 0; j < WINDOW; ++j) {
          Vector column[WINDOW], g[3];
          for (int i = 0; i < WINDOW; ++i) {
            const int64_t p = i * WINDOW + j;
            const float* source = sums.get() + (p * out + o / PANEL * PANEL) * in + c * PANEL + o % PANEL;
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
