// Group normalisation, scale and shift, SiLU and dropout in one pass over the data, and its gradients in another.
//
//   y = SiLU(z) * mask,  z = xhat * scale + shift,  xhat = (x - mean) * rstd
//
// or y = z. x is [batch, channels, size]; scale and shift are [batch, channels], whose rows are so many floats apart as
// said, 0 where all samples have the same; mean and rstd are [batch, groups].

#include <algorithm>
#include <cmath>

#include "exponential.h"

namespace {

typedef uint32_t Naturals __attribute__((vector_size(4 * LANES)));

inline Vector sigmoid(Vector z) { return reciprocal(1 + exponential(-z)); }

// Which of the LANES elements from `index` on stay: a hash of their number and the seed, compared with the rate. Its
// multipliers are those of MurmurHash3's finaliser. `random_mask` in normalisation.py is the same.
struct Mask {
  uint32_t low, high, threshold;
  float kept;

  Mask(float rate, int64_t seed)
      : low((uint32_t)seed), high((uint32_t)(seed >> 32)), threshold((uint32_t)(rate * 2147483648.0)),
        kept(rate < 1 ? 1 / (1 - rate) : 0) {}

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

// One group of channels of one sample.
struct Group {
  int64_t number, width, size, sample, channel;

  Group(int64_t number, int64_t channels, int64_t groups, int64_t size)
      : number(number), width(channels / groups), size(size), sample(number / groups),
        channel(number % groups * width) {}
  int64_t count() const { return width * size; }
  int64_t begin() const { return number * count(); }
};

// The sum of value(i) for i = 0, LANES, ..., below count: several sums, as one would wait for itself.
template <typename Value>
inline float total(int64_t count, Value value) {
  Vector sums[4]{};
  int64_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES)
    for (int j = 0; j < 4; ++j) sums[j] += value(i + j * LANES);
  for (; i < count; i += LANES) sums[0] += value(i);
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <bool silu>
void group_norm(const float* x, const float* scale, const float* shift, float* y, float* mean, float* rstd,
                int64_t batch, int64_t channels, int64_t size, int64_t groups, int64_t scale_row, int64_t shift_row,
                double eps, const Mask& mask, bool masked, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t number = 0; number < batch * groups; ++number) {
    const Group group(number, channels, groups, size);
    const float* source = x + group.begin();
    const int64_t count = group.count();
    const float center = total(count, [&](int64_t i) { return load(source + i); }) / count;
    const float variance = total(count, [&](int64_t i) {
                             const Vector deviation = load(source + i) - center;
                             return deviation * deviation;
                           }) / count;
    mean[number] = center;
    rstd[number] = 1 / std::sqrt(variance + (float)eps);
    for (int64_t c = 0; c < group.width; ++c) {
      const float factor = rstd[number] * scale[group.sample * scale_row + group.channel + c];
      const float offset = shift[group.sample * shift_row + group.channel + c];
      for (int64_t i = c * size; i < (c + 1) * size; i += LANES) {
        const Vector z = (load(source + i) - center) * factor + offset;
        Vector out = silu ? z * sigmoid(z) : z;
        if (masked) out *= mask((uint32_t)(group.begin() + i));
        store(y + group.begin() + i, out);
      }
    }
  }
}

template <bool silu>
void group_norm_gradient(const float* dy, const float* x, const float* scale, const float* shift, const float* mean,
                         const float* rstd, float* dx, float* d_scale, float* d_shift, int64_t batch, int64_t channels,
                         int64_t size, int64_t groups, int64_t scale_row, int64_t shift_row, const Mask& mask,
                         bool masked, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t number = 0; number < batch * groups; ++number) {
    const Group group(number, channels, groups, size);
    const float *source = x + group.begin(), center = mean[number], inverse = rstd[number];
    const float* factors = scale + group.sample * scale_row + group.channel;
    const float* offsets = shift + group.sample * shift_row + group.channel;
    float* target = dx + group.begin();
    float mean_d = 0, mean_dx = 0;  // of d = dL / dxhat, and of d xhat
    for (int64_t c = 0; c < group.width; ++c) {
      Vector total{}, product{};
      for (int64_t i = c * size; i < (c + 1) * size; i += LANES) {
        const Vector normed = (load(source + i) - center) * inverse;
        Vector d = load(dy + group.begin() + i);
        if (silu) {
          const Vector z = normed * factors[c] + offsets[c], s = sigmoid(z);
          d *= s * (1 + z * (1 - s));
        }
        if (masked) d *= mask((uint32_t)(group.begin() + i));
        total += d;
        product += d * normed;
        store(target + i, d);
      }
      d_shift[number * group.width + c] = sum(total);
      d_scale[number * group.width + c] = sum(product);
      mean_d += factors[c] * sum(total) / group.count();
      mean_dx += factors[c] * sum(product) / group.count();
    }
    // dx = rstd (d - mean(d) - xhat mean(d xhat))
    for (int64_t c = 0; c < group.width; ++c)
      for (int64_t i = c * size; i < (c + 1) * size; i += LANES) {
        const Vector normed = (load(source + i) - center) * inverse;
        store(target + i, inverse * (factors[c] * load(target + i) - mean_d - normed * mean_dx));
      }
  }
}

}  // namespace

extern "C" {

// y, and mean and rstd for the gradients.
void group_norm(const float* x, const float* scale, const float* shift, float* y, float* mean, float* rstd,
                int64_t batch, int64_t channels, int64_t size, int64_t groups, int64_t scale_row, int64_t shift_row,
                int64_t silu, double eps, double rate, int64_t seed, int32_t threads) {
  (silu ? group_norm<true> : group_norm<false>)(x, scale, shift, y, mean, rstd, batch, channels, size, groups,
                                                scale_row, shift_row, eps, Mask(rate, seed), rate > 0, threads);
}

// dx, and d_scale and d_shift [batch, channels], from dy.
void group_norm_gradient(const float* dy, const float* x, const float* scale, const float* shift, const float* mean,
                         const float* rstd, float* dx, float* d_scale, float* d_shift, int64_t batch, int64_t channels,
                         int64_t size, int64_t groups, int64_t scale_row, int64_t shift_row, int64_t silu, double rate,
                         int64_t seed, int32_t threads) {
  (silu ? group_norm_gradient<true> : group_norm_gradient<false>)(dy, x, scale, shift, mean, rstd, dx, d_scale,
                                                                  d_shift, batch, channels, size, groups, scale_row,
                                                                  shift_row, Mask(rate, seed), rate > 0, threads);
}
}
