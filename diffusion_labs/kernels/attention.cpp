// softmax(q k^T / sqrt(d)) v in each head, without gradients. Rows of scores, for a block of queries, stay in the cache.

#include <algorithm>
#include <cmath>

#include "exponential.h"
#include "memory.h"
#include "product.h"

namespace {

constexpr int BLOCK = 24;  // queries that are computed at once

// Tokens of one head: `token` floats apart.
struct Head {
  const float* data;
  int64_t token;
  const float* at(int64_t i, int64_t channel) const { return data + i * token + channel; }
};

// The scores s[key / PANEL][BLOCK][PANEL] of a query, times `scale`, to e^(s - max); returns their sum.
float exponentials(float* s, int64_t panels, float scale) {
  Vector most = broadcast(-INFINITY);
  for (int64_t panel = 0; panel < panels; ++panel)
    for (int part = 0; part < PANEL; part += LANES) {
      const Vector v = load(s + panel * BLOCK * PANEL + part);
      most = v > most ? v : most;
    }
  float top = most[0];
  for (int i = 1; i < LANES; ++i) top = std::max(top, most[i]);
  Vector total{};
  for (int64_t panel = 0; panel < panels; ++panel)
    for (int part = 0; part < PANEL; part += LANES) {
      float* target = s + panel * BLOCK * PANEL + part;
      const Vector e = exponential((load(target) - top) * scale);
      total += e;
      store(target, e);
    }
  return sum(total);
}

}  // namespace

extern "C" {

// y[batch, n, heads, dim] from q[batch, heads, n, dim], k and v[batch, heads, m, dim], whose samples, heads and tokens
// are so many floats apart as said. n is a multiple of 4; m and dim are multiples of PANEL.
void attention(const float* q, const float* k, const float* v, float* y, int64_t batch, int64_t heads, int64_t n,
               int64_t m, int64_t dim, int64_t q_sample, int64_t q_head, int64_t q_token, int64_t k_sample,
               int64_t k_head, int64_t k_token, int64_t v_sample, int64_t v_head, int64_t v_token, int32_t threads) {
  const float scale = 1 / std::sqrt((float)dim);
  const int64_t panels = m / PANEL;
#pragma omp parallel num_threads(threads)
  {
    Buffer keys = allocate(m * dim), values = allocate(m * dim);  // [key / PANEL][dim][PANEL], [dim / PANEL][key][PANEL]
    Buffer queries = allocate(dim * BLOCK), scores = allocate(m * BLOCK), sums = allocate(BLOCK * PANEL);
#pragma omp for collapse(2) schedule(static)
    for (int64_t sample = 0; sample < batch; ++sample)
      for (int64_t head = 0; head < heads; ++head) {
        const Head query{q + sample * q_sample + head * q_head, q_token};
        const Head key{k + sample * k_sample + head * k_head, k_token};
        const Head value{v + sample * v_sample + head * v_head, v_token};
        for (int64_t panel = 0; panel < panels; ++panel)
          tokens_to_columns(key.at(panel * PANEL, 0), key.token, PANEL, dim, keys.get() + panel * PANEL * dim, PANEL);
        for (int64_t c = 0; c < dim; c += PANEL)
          for (int64_t i = 0; i < m; ++i) std::copy_n(value.at(i, c), PANEL, values.get() + c * m + i * PANEL);

        for (int64_t first = 0; first < n; first += BLOCK) {
          const int rows = (int)std::min<int64_t>(BLOCK, n - first);
          tokens_to_columns(query.at(first, 0), query.token, rows, dim, queries.get(), BLOCK);
          for (int64_t panel = 0; panel < panels; ++panel)
            product<1, BLOCK>(rows, queries.get(), 0, keys.get() + panel * PANEL * dim,
                              scores.get() + panel * BLOCK * PANEL, 1, (int)dim, false);
          float shares[BLOCK];
          for (int i = 0; i < rows; ++i) shares[i] = 1 / exponentials(scores.get() + i * PANEL, panels, scale);
          for (int64_t c = 0; c < dim; c += PANEL) {
            product<PANEL, 1>(rows, scores.get(), BLOCK * PANEL, values.get() + c * m, sums.get(), (int)panels, PANEL,
                              false);
            for (int i = 0; i < rows; ++i) {
              float* target = y + ((sample * n + first + i) * heads + head) * dim + c;
              for (int part = 0; part < PANEL; part += LANES)
                store(target + part, load(sums.get() + i * PANEL + part) * shares[i]);
            }
          }
        }
      }
  }
}
}
