// Scaled dot-product attention of one head after another, in float32.
//
// Rows of queries go through together: a tile of scores q k^T, its softmax, and the product of that with v stay in the first cache. Keys
// lie across in panels and values in panels as they are, both filled up by zeros, so that nothing is read behind a tensor. This file is a
// library of its own for eager steps, and is part of the code of compiled programs.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace continual_attention {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 12;  // of a tile, of two vectors each: 24 registers out of 32
#else
constexpr int ROWS = 6;
#endif

constexpr int WIDTH = 2 * LANES;  // of a panel

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Bits __attribute__((vector_size(4 * LANES), may_alias));
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t FourBits __attribute__((vector_size(16)));
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

inline Lanes load(const float *p) { return *reinterpret_cast<const Lanes *>(p); }
inline void store(float *p, Lanes v) { *reinterpret_cast<Lanes *>(p) = v; }

inline Lanes filled(float value) {
  Lanes v;
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i) v[i] = value;
  return v;
}

struct Strides {
  int64_t batch, head, row;  // numbers lie side by side in a row
};

struct Call {
  const float *q, *k, *v, *mask;  // the mask is added to the scores, or null
  float *y;                       // (batch, rows, heads, features)
  int64_t batch, heads, rows, keys, size, features;
  Strides of_q, of_k, of_v, of_mask;
  float scale;
  bool causal;  // row i sees the keys 0 to i
};

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// c (R, V vectors) = a (R, k) b (k, V vectors).
template <int R, int V>
void tile(const float *a, int64_t a_row, const float *b, int64_t k, float *c, int64_t c_row) {
  Lanes sums[R][V] = {};
  for (int64_t i = 0; i < k; ++i, b += V * LANES) {
    Lanes right[V];
#pragma GCC unroll 2
    for (int j = 0; j < V; ++j) right[j] = load(b + j * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const float left = a[r * a_row + i];
#pragma GCC unroll 2
      for (int j = 0; j < V; ++j) sums[r][j] += left * right[j];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < V; ++j) store(c + r * c_row + j * LANES, sums[r][j]);
  }
}

// The same of all panels of `b`, the last of which is half of one where `columns` end before its second vector.
template <int R>
void product(const float *a, int64_t a_row, const float *b, int64_t k, int64_t apart, int64_t columns, float *c, int64_t c_row) {
  int64_t at = 0;
  for (; columns - at > LANES; at += WIDTH) tile<R, 2>(a, a_row, b + at * apart, k, c + at, c_row);
  if (at < columns) tile<R, 1>(a, a_row, b + at * apart, k, c + at, c_row);
}

template <int R>
void products(int64_t rows, const float *a, int64_t a_row, const float *b, int64_t k, int64_t apart, int64_t columns, float *c,
              int64_t c_row) {
  if constexpr (R > 1) {
    if (rows < R) return products<R - 1>(rows, a, a_row, b, k, apart, columns, c, c_row);
  }
  product<R>(a, a_row, b, k, apart, columns, c, c_row);
}

// ---- softmax ----

constexpr float NONE = -__builtin_inff();

inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

template <typename F>
inline float across(Lanes v, F f) {
  Bits place;
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i) place[i] = i;
#pragma GCC unroll 4
  for (int apart = LANES / 2; apart; apart /= 2) v = f(v, (Lanes)__builtin_shuffle(v, place ^ apart));
  return v[0];
}

// e^x of numbers that are not above 0: 0 below the smallest normal number, NaN of NaN.
inline Lanes exponential(Lanes x) {
  constexpr float MAGIC = 12582912.f;                 // 1.5 * 2^23: to add it rounds
  const Lanes whole = x * 1.44269504089f + MAGIC;     // n, in the low bits
  const Lanes n = whole - MAGIC;
  const Lanes f = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x = n ln 2 + f, |f| <= ln 2 / 2
  Lanes p = f * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * (f * f) + f + 1.f;
  const Lanes power = (Lanes)(((Bits)whole << 23) + (127 << 23));
  return x < -87.33654f ? filled(0) : p * power;
}

// Scores of a row, of which the first `count` are seen, times their scale and with the mask: the largest of them. There are whole vectors.
inline float scaled(float *scores, int64_t count, const float *mask, float scale) {
  Lanes most = filled(NONE);
  const int64_t whole = count / LANES * LANES;
  if (whole < count) {
    float last[LANES];
    for (int64_t i = 0; i < LANES; ++i) last[i] = whole + i < count ? mask ? mask[whole + i] : 0 : NONE;
    for (int64_t i = count; i < whole + LANES; ++i) scores[i] = 0;
    most = load(scores + whole) * scale + load(last);
    store(scores + whole, most);
    most = larger(most, filled(NONE));  // a number, if there is one
  }
  for (int64_t i = 0; i < whole; i += LANES) {
    Lanes score = load(scores + i) * scale;
    if (mask) score += load(mask + i);
    store(scores + i, score);
    most = larger(score, most);
  }
  return across(most, larger);
}

// Scores to what the values are multiplied by, but for the factor that it returns. Those behind `count` become 0, `all` in all.
inline float exponentials(float *scores, int64_t count, int64_t all, float top) {
  Lanes sum = {};
  if (top == NONE) top = 0;  // nothing is seen: zeros, as torch has it
  int64_t i = 0;
  for (; i < count; i += LANES) {
    const Lanes p = exponential(load(scores + i) - top);
    store(scores + i, p);
    sum += p;
  }
  for (; i < all; i += LANES) store(scores + i, filled(0));
  const float total = across(sum, [](Lanes a, Lanes b) { return a + b; });
  return total == 0 ? 0 : 1 / total;
}

// ---- panels ----

// Keys (keys, size) as panels (size, width) of keys side by side.
inline void lay_across(const float *k, int64_t row, int64_t keys, int64_t size, float *to) {
  for (int64_t at = 0; at < keys; at += WIDTH) {
    const int64_t width = keys - at > LANES ? WIDTH : LANES, count = keys - at < width ? keys - at : width;
    float *panel = to + at * size;
    for (int64_t j = 0; j < width; j += 4) {
      const float *from = k + (at + j) * row;
      int64_t d = 0;
      if (j + 4 <= count) {
        for (; d + 4 <= size; d += 4) {
          Four a, b, c, e;
          memcpy(&a, from + d, 16), memcpy(&b, from + row + d, 16), memcpy(&c, from + 2 * row + d, 16), memcpy(&e, from + 3 * row + d, 16);
          const Four ab = __builtin_shuffle(a, b, FourBits{0, 4, 1, 5}), ce = __builtin_shuffle(c, e, FourBits{0, 4, 1, 5});
          const Four ab2 = __builtin_shuffle(a, b, FourBits{2, 6, 3, 7}), ce2 = __builtin_shuffle(c, e, FourBits{2, 6, 3, 7});
          float *p = panel + d * width + j;
          *reinterpret_cast<Four *>(p) = __builtin_shuffle(ab, ce, FourBits{0, 1, 4, 5});
          *reinterpret_cast<Four *>(p + width) = __builtin_shuffle(ab, ce, FourBits{2, 3, 6, 7});
          *reinterpret_cast<Four *>(p + 2 * width) = __builtin_shuffle(ab2, ce2, FourBits{0, 1, 4, 5});
          *reinterpret_cast<Four *>(p + 3 * width) = __builtin_shuffle(ab2, ce2, FourBits{2, 3, 6, 7});
        }
      }
      for (; d < size; ++d) {
        for (int64_t i = 0; i < 4; ++i) panel[d * width + j + i] = j + i < count ? from[i * row + d] : 0;
      }
    }
  }
}

// Values (keys, features) as panels (keys, width).
inline void lay_out(const float *v, int64_t row, int64_t keys, int64_t features, float *to) {
  for (int64_t at = 0; at < features; at += WIDTH) {
    const int64_t width = features - at > LANES ? WIDTH : LANES, count = features - at < width ? features - at : width;
    float *panel = to + at * keys;
    for (int64_t i = 0; i < keys; ++i, panel += width) {
      const float *from = v + i * row + at;
      if (count == WIDTH) {
        store(panel, load(from)), store(panel + LANES, load(from + LANES));
      } else if (count == LANES) {
        store(panel, load(from));
      } else {
        for (int64_t j = 0; j < width; ++j) panel[j] = j < count ? from[j] : 0;
      }
    }
  }
}

// ---- heads ----

// Memory of a thread, kept for its next call.
struct Room {
  float *at = nullptr;
  int64_t size = 0;
  ~Room() { free(at); }
  float *of(int64_t numbers) {
    if (numbers > size) {
      free(at);
      at = static_cast<float *>(aligned_alloc(64, up(4 * numbers, 64)));
      size = at ? numbers : 0;
    }
    return at;
  }
};

struct Work {
  const Call *call;
  std::atomic<int64_t> next;
  std::atomic<bool> failed;
  int64_t units, blocks, height;
};

inline void rows_of(const Call &call, const float *q, const float *mask, int64_t row, int64_t count, const float *keys,
                    const float *values, float *scores, float *mean, float *y) {
  const int64_t across_keys = up(call.keys, LANES), across_values = up(call.features, LANES), last = row + count;
  const int64_t seen = call.causal && last < call.keys ? last : call.keys;
  const int64_t columns = up(seen, WIDTH) < across_keys ? up(seen, WIDTH) : across_keys;  // whole panels
  const auto own = [&](int64_t i) { return call.causal && row + i + 1 < seen ? row + i + 1 : seen; };
  float top[ROWS], factor[ROWS];
  products<ROWS>(count, q + row * call.of_q.row, call.of_q.row, keys, call.size, call.size, columns, scores, across_keys);
  for (int64_t i = 0; i < count; ++i)
    top[i] = scaled(scores + i * across_keys, own(i), mask ? mask + (row + i) * call.of_mask.row : nullptr, call.scale);
  for (int64_t i = 0; i < count; ++i) factor[i] = exponentials(scores + i * across_keys, own(i), columns, top[i]);
  products<ROWS>(count, scores, across_keys, values, seen, call.keys, call.features, mean, across_values);
  for (int64_t i = 0; i < count; ++i) {
    const float *from = mean + i * across_values;
    float *to = y + (row + i) * call.heads * call.features;
    int64_t j = 0;
    for (; j + LANES <= call.features; j += LANES) store(to + j, load(from + j) * factor[i]);
    for (; j < call.features; ++j) to[j] = from[j] * factor[i];
  }
}

inline void work(void *data) {
  Work &w = *static_cast<Work *>(data);
  const Call &call = *w.call;
  const int64_t across_keys = up(call.keys, LANES), across_values = up(call.features, LANES);
  static thread_local Room room;
  float *keys = room.of(across_keys * (call.size + ROWS) + across_values * (call.keys + ROWS));
  if (!keys) return w.failed.store(true);
  float *values = keys + across_keys * call.size, *scores = values + across_values * call.keys, *mean = scores + across_keys * ROWS;
  for (int64_t i; (i = w.next.fetch_add(1)) < w.units;) {
    const int64_t block = i % w.blocks, head = i / w.blocks % call.heads, b = i / w.blocks / call.heads;
    const auto own = [&](const float *p, const Strides &s) { return p ? p + b * s.batch + head * s.head : p; };
    const float *q = own(call.q, call.of_q), *mask = own(call.mask, call.of_mask);
    lay_across(own(call.k, call.of_k), call.of_k.row, call.keys, call.size, keys);
    lay_out(own(call.v, call.of_v), call.of_v.row, call.keys, call.features, values);
    const int64_t end = (block + 1) * w.height < call.rows ? (block + 1) * w.height : call.rows;
    float *y = call.y + (b * call.rows * call.heads + head) * call.features;
    for (int64_t row = block * w.height; row < end; row += ROWS)
      rows_of(call, q, mask, row, end - row < ROWS ? end - row : ROWS, keys, values, scores, mean, y);
  }
}

// Whether there was memory for it. `parallel` is the OpenMP runtime's GOMP_parallel, or null. It may run the work in fewer threads than
// asked for.
inline bool run(const Call &call, Parallel parallel, int64_t threads) {
  const int64_t heads = call.batch * call.heads, wanted = heads % threads ? (2 * threads + heads - 1) / heads : 1;
  const int64_t height = up((call.rows + wanted - 1) / wanted, ROWS), blocks = (call.rows + height - 1) / height;
  Work all{&call, {0}, {false}, heads * blocks, blocks, height};
  if (threads > 1 && parallel)
    parallel(work, &all, unsigned(threads), 0);
  else
    work(&all);
  return !all.failed.load();
}

}  // namespace
}  // namespace continual_attention

#ifndef CONTINUAL_IN_PACKAGE
extern "C" int64_t continual_lanes() { return continual_attention::LANES; }

extern "C" int64_t continual_attention_run(const float *q, const float *k, const float *v, const float *mask, float *y,
                                           const int64_t *sizes, const int64_t *strides, float scale, int64_t causal,
                                           continual_attention::Parallel parallel, int64_t threads) {
  continual_attention::Call call{q, k, v, mask, y, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], {}, {}, {}, {}, scale,
                                 causal != 0};
  memcpy(&call.of_q, strides, 12 * sizeof(int64_t));
  return continual_attention::run(call, parallel, threads);
}
#endif
