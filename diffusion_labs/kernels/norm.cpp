// Group normalisation, scale and shift, SiLU and dropout in one pass over the data, and its gradients in another.
//
//   y = SiLU(z) * mask,  z = xhat * scale + shift,  xhat = (x - mean) * rstd
//
// x is [batch, channels, size]; scale and shift are [batch, channels]; mean and rstd are [batch, groups].

#include <algorithm>
#include <cmath>

#include "exponential.h"

namespace {

typedef uint32_t Naturals __attribute__((vector_size(4 * LANES)));

inline Vector sigmoid(Vector z) { return 1 / (1 + exponential(-z)); }

// Which of the LANES elements from `index` on stay: a hash of their number and the seed, compared with the rate. Its
// multipliers are those of MurmurHash3's finaliser. `random_mask` in normalisation.py is the same.
struct Mask {
  uint32_t low, high, threshold;
  float kept;

  Mask(float rate, int64_t seed)
      : low((uint32_t)seed), high((uint32_t)(seed >> 32)), threshold((uint32_t)(rate * 2147483648.0)),
        kept((float)(1 / (1 - rate))) {}

  inline Vector operator()(uint32_t index) const {
    Naturals lanes;
    for (int i = 0; i < LANES; ++i) lanes[i] = i;
    Naturals h = (index + lanes) * 0x9e3779b1u ^ low;
    h = (h ^ h >> 16) * 0x85ebca6bu + high;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    h = (h ^ h >> 16) >> 1;
    const Integers stays = (Integers)h >= (Integers)(threshold + Naturals{});
    return (Vector)(stays & (Integers)(kept + Vector{}));
  }
};

}  // namespace

extern "C" {

void norm_silu(const float* x, const float* scale, const float* shift, float* y, float* mean, float* rstd,
               int64_t batch, int64_t channels, int64_t size, int64_t groups, double eps, double rate, int64_t seed,
               int32_t threads) {
  const int64_t width = channels / groups, count = width * size;
  const Mask mask(rate, (uint64_t)seed);
#pragma omp parallel for num_threads(threads)
  for (int64_t group = 0; group < batch * groups; ++group) {
    const float* source = x + group * count;
    Vector total{}, squares{};
    for (int64_t i = 0; i < count; i += LANES) total += load(source + i);
    const float center = sum(total) / count;
    for (int64_t i = 0; i < count; i += LANES) {
      const Vector deviation = load(source + i) - center;
      squares += deviation * deviation;
    }
    mean[group] = center;
    rstd[group] = 1 / std::sqrt(sum(squares) / count + (float)eps);
    for (int64_t c = 0; c < width; ++c) {
      const float factor = rstd[group] * scale[group * width + c], offset = shift[group * width + c];
      for (int64_t i = c * size; i < (c + 1) * size; i += LANES) {
        const Vector z = (load(source + i) - center) * factor + offset;
        Vector out = z * sigmoid(z);
        if (rate > 0) out *= mask((uint32_t)(group * count + i));
        store(y + group * count + i, out);
      }
    }
  }
}

// dx, and d_scale and d_shift [batch, channels], from dy.
void norm_silu_gradient(const float* dy, const float* x, const float* scale, const float* shift, const float* mean,
                        const float* rstd, float* dx, float* d_scale, float* d_shift, int64_t batch, int64_t channels,
                        int64_t size, int64_t groups, double rate, int64_t seed, int32_t threads) {
  const int64_t width = channels / groups, count = width * size;
  const Mask mask(rate, (uint64_t)seed);
#pragma omp parallel for num_threads(threads)
  for (int64_t group = 0; group < batch * groups; ++group) {
    const float *source = x + group * count, center = mean[group], inverse = rstd[group];
    float* target = dx + group * count;
    float mean_d = 0, mean_dx = 0;  // of d = dL / dxhat, and of d xhat
    for (int64_t c = 0; c < width; ++c) {
      const float factor = scale[group * width + c], offset = shift[group * width + c];
      Vector total{}, product{};
      for (int64_t i = c * size; i < (c + 1) * size; i += LANES) {
        const Vector normed = (load(source + i) - center) * inverse, z = normed * factor + offset, s = sigmoid(z);
        Vector d = load(dy + group * count + i) * s * (1 + z * (1 - s));
        if (rate > 0) d *= mask((uint32_t)(group * count + i));
        total += d;
        product += d * normed;
        store(target + i, d);
      }
      d_shift[group * width + c] = sum(total);
      d_scale[group * width + c] = sum(product);
      mean_d += factor * sum(total) / count;
      mean_dx += factor * sum(product) / count;
    }
    // dx = rstd (d - mean(d) - xhat mean(d xhat))
    for (int64_t c = 0; c < width; ++c) {
      const float factor = scale[group * width + c];
      for (int64_t i = c * size; i < (c + 1) * size; i += LANES) {
        const Vector normed = (load(source + i) - center) * inverse;
        store(target + i, inverse * (factor * load(target + i) - mean_d - normed * mean_dx));
      }
    }
  }
}
}
