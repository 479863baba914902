// Convolution with a kernel of one position, that is, the same matrix product at each position, and the gradient of its
// weights. Inputs and outputs are planes [batch, channels, size], or tokens [batch, size, channels].

#include <omp.h>

#include <algorithm>

#include "memory.h"
#include "product.h"

namespace {

constexpr int BLOCK = 24;    // positions that are computed at once
constexpr int DEPTH = 256;   // positions of one sum of the gradient, whose factors fit the L2 cache

// One sample, as planes or as tokens.
struct Layout {
  int64_t channels, size;
  bool tokens;
  int64_t at(int64_t channel, int64_t position) const {
    return tokens ? position * channels + channel : channel * size + position;
  }
};

// `positions` of x from `first` on to a[channel][BLOCK]; what follows the last position is not written.
void pack_rows(const float* x, const Layout& from, int64_t first, int64_t positions, float* a) {
  if (from.tokens)
    tokens_to_columns(x + from.at(0, first), from.channels, positions, from.channels, a, BLOCK);
  else
    for (int64_t c = 0; c < from.channels; ++c) std::copy_n(x + from.at(c, first), positions, a + c * BLOCK);
}

// `positions` of x from `first` on to m[channel / PANEL][DEPTH][PANEL].
void pack_panels(const float* x, const Layout& from, int64_t first, int64_t positions, float* m) {
  for (int64_t c = 0; c < from.channels; c += LANES)
    for (int64_t i = 0; i < positions; i += 4) {
      Vector rows[4];
      if (from.tokens)
        for (int j = 0; j < 4; ++j) rows[j] = load(x + from.at(c, first + i + j));
      else
        load_pixels(x + from.at(c, first + i), from.size, rows);
      for (int j = 0; j < 4; ++j) store(m + (c / PANEL * DEPTH + i + j) * PANEL + c % PANEL, rows[j]);
    }
}

// PANEL channels, from c on, of `positions` of y from `first` on, from sums[position][PANEL].
void store_sums(const float* sums, const float* bias, int64_t c, const Layout& to, int64_t first, int64_t positions,
                float* y) {
  for (int64_t part = 0; part < PANEL; part += LANES) {
    const Vector shift = bias ? load(bias + c + part) : Vector{};
    for (int64_t i = 0; i < positions; i += 4) {
      Vector rows[4];
      for (int j = 0; j < 4; ++j) rows[j] = load(sums + (i + j) * PANEL + part) + shift;
      if (to.tokens)
        for (int j = 0; j < 4; ++j) store(y + to.at(c + part, first + i + j), rows[j]);
      else
        store_pixels(y + to.at(c + part, first + i), to.size, rows);
    }
  }
}

// Weights [out, in], or [in, out] if `flipped`, to u[out / PANEL][in][PANEL].
void pack_weight(const float* weight, int64_t in, int64_t out, bool flipped, float* u) {
  const int64_t in_step = flipped ? out : 1, out_step = flipped ? 1 : in;
  for (int64_t panel = 0; panel < out; panel += PANEL)
    for (int64_t c = 0; c < in; ++c)
      for (int64_t o = 0; o < PANEL; ++o) *u++ = weight[(panel + o) * out_step + c * in_step];
}

}  // namespace

extern "C" {

// y[batch, out, size] = weight[out, in] x[batch, in, size] + bias[out]; without bias if null. Channels are multiples of
// PANEL, the size is one of 4. If `flipped`, the weights are [in, out].
void pointwise(const float* x, const float* weight, const float* bias, float* y, int64_t batch, int64_t in,
               int64_t out, int64_t size, int64_t x_tokens, int64_t y_tokens, int64_t flipped, int32_t threads) {
  const Layout from{in, size, x_tokens != 0}, to{out, size, y_tokens != 0};
  Buffer u = allocate(in * out);
  pack_weight(weight, in, out, flipped, u.get());
  const int64_t blocks = (size + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(threads)
  {
    Buffer a = allocate(in * BLOCK), sums = allocate(BLOCK * PANEL);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < batch * blocks; ++block) {
      const int64_t sample = block / blocks, first = block % blocks * BLOCK;
      const int64_t positions = std::min<int64_t>(BLOCK, size - first);
      pack_rows(x + sample * in * size, from, first, positions, a.get());
      for (int64_t c = 0; c < out; c += PANEL) {
        product<1, BLOCK>((int)positions, a.get(), 0, u.get() + c * in, sums.get(), 1, (int)in, false);
        store_sums(sums.get(), bias, c, to, first, positions, y + sample * out * size);
      }
    }
  }
}

// dw[out, in], the gradient of the weights, from x and dy, that of the output.
void pointwise_weight_gradient(const float* x, const float* dy, float* dw, int64_t batch, int64_t in, int64_t out,
                               int64_t size, int64_t x_tokens, int64_t y_tokens, int32_t threads) {
  if (in * out == 0) return;
  const Layout inputs{in, size, x_tokens != 0}, outputs{out, size, y_tokens != 0};
  threads = (int32_t)std::clamp<size_t>(MOST_SUMS / (in * out), 1, threads);
  Buffer sums = allocate(threads * in * out);  // [thread][out / PANEL][in][PANEL]
  const int64_t blocks = (size + DEPTH - 1) / DEPTH;
#pragma omp parallel num_threads(threads)
  {
    Buffer v = allocate(in * DEPTH), m = allocate(out * DEPTH);
    float* own = sums.get() + omp_get_thread_num() * in * out;
    bool accumulate = false;
#pragma omp for schedule(static)
    for (int64_t block = 0; block < batch * blocks; ++block) {
      const int64_t sample = block / blocks, first = block % blocks * DEPTH;
      const int64_t positions = std::min<int64_t>(DEPTH, size - first);
      pack_panels(x + sample * in * size, inputs, first, positions, v.get());
      pack_panels(dy + sample * out * size, outputs, first, positions, m.get());
      for (int64_t o = 0; o < out; o += PANEL)
        for (int64_t c = 0; c < in; c += PANEL)
          product<1, PANEL>(PANEL, v.get() + c * DEPTH, 0, m.get() + o * DEPTH, own + o * in + c * PANEL, 1,
                            (int)positions, accumulate);
      accumulate = true;
    }
    if (!accumulate) std::fill(own, own + in * out, 0.f);
#pragma omp barrier
    const int parts = omp_get_num_threads();
#pragma omp for
    for (int64_t o = 0; o < out; ++o)
      for (int64_t c = 0; c < in; ++c) {
        float total = 0;
        for (int part = 0; part < parts; ++part)
          total += sums.get()[part * in * out + o / PANEL * PANEL * in + c * PANEL + o % PANEL];
        dw[o * in + c] = total;
      }
  }
}
}
