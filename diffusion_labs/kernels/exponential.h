// The exponential function of a vector.
#pragma once

#include "vector.h"

typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

constexpr float ROUND = 12582912.f;  // 1.5 2^23: adding it rounds to an integer, which its last bits then hold

// e^x = 2^n e^r with |r| <= ln(2) / 2, where a polynomial of degree 6 is exact to a rounding error.
inline Vector exponential(Vector x) {
  const Vector least = broadcast(-87.f), most = broadcast(87.f);
  const Vector raised = x < least ? least : x, bounded = raised > most ? most : raised;  // NaN stays
  const Vector rounded = bounded * 1.44269504f + ROUND, n = rounded - ROUND;
  const Vector r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
  const Vector p =
      1 + r * (1 + r * (1.f / 2 + r * (1.f / 6 + r * (1.f / 24 + r * (1.f / 120 + r * (1.f / 720))))));
  return p * (Vector)(((Integers)rounded + 127) << 23);  // the shift leaves of ROUND nothing
}
