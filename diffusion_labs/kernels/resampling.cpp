// Halves and doubles of the sides of planes, times a factor. Each is the transpose of the other.

#include "vector.h"

extern "C" {

// y[planes, height / 2, width / 2]: the sums of 2 x 2 neighbours of x[planes, height, width], times `factor`.
void halve(const float* x, float* y, int64_t planes, int64_t height, int64_t width, double factor, int32_t threads) {
  const float weight = (float)factor;
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < planes * height / 2; ++row) {
    const float *top = x + 2 * row * width, *bottom = top + width;
    float* target = y + row * (width / 2);
    for (int64_t i = 0; i < width / 2; ++i)
      target[i] = weight * (top[2 * i] + top[2 * i + 1] + (bottom[2 * i] + bottom[2 * i + 1]));
  }
}

// y[planes, 2 height, 2 width]: each element of x[planes, height, width] 2 x 2 times, times `factor`.
void repeat(const float* x, float* y, int64_t planes, int64_t height, int64_t width, double factor, int32_t threads) {
  const float weight = (float)factor;
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < planes * height; ++row) {
    const float* source = x + row * width;
    float *top = y + 4 * row * width, *bottom = top + 2 * width;
    for (int64_t i = 0; i < width; ++i) top[2 * i] = top[2 * i + 1] = weight * source[i];
    for (int64_t i = 0; i < 2 * width; ++i) bottom[i] = top[i];
  }
}
}
