// Products of matrices in float32, of the sizes that steps have: one to a few thousand rows.
//
// c (m, n) = a (m, k) b (k, n) + bias. A tile of c is summed in registers, in the same order whatever is beside it, so that a row has the
// same bits beside any other rows. Of `b` there are three layouts: a weight in panels, (n / width, k, width), which is the fastest; rows
// of n numbers, as frames lie; and columns of k numbers, as torch keeps the weights of linear layers. This file is a library of its own
// for eager steps, and is part of the code of compiled programs.

#include <atomic>
#include <cstdint>
#include <cstring>

// What was computed stays in its register.
#if defined(__AVX512F__)
#define KEEP(v) asm("" : "+v"(v))
#elif defined(__x86_64__)
#define KEEP(v) asm("" : "+x"(v))
#elif defined(__aarch64__)
#define KEEP(v) asm("" : "+w"(v))
#else
#define KEEP(v)
#endif

namespace continual_product {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int SUMS = 24;  // registers of a tile, out of 32
#else
constexpr int SUMS = 12;  // out of 16
#endif

constexpr int64_t ROWS = 0, COLUMNS = -1;

constexpr int MOST_VECTORS = 3;       // of a panel
constexpr int64_t BLOCK = 64 * 1024;  // numbers of `a` that stay in the cache while panels go by

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

inline Lanes load(const float *p) { return *reinterpret_cast<const Lanes *>(p); }
inline void store(float *p, Lanes v) { *reinterpret_cast<Lanes *>(p) = v; }

// The first numbers of a row that ends there.
inline Lanes load_part(const float *p, int64_t count) {
  float part[LANES] = {};
  if (count > 0) memcpy(part, p, 4 * (count < LANES ? count : LANES));
  return load(part);
}

inline Lanes load_up_to(const float *p, int64_t count) { return count >= LANES ? load(p) : load_part(p, count); }

inline void store_part(float *p, Lanes v, int64_t count) {
  float part[LANES];
  store(part, v);
  if (count > 0) memcpy(p, part, 4 * count);
}

struct Call {
  const float *a, *b, *bias;
  float *c;
  int64_t m, k, n;
  int64_t panel;       // vectors of a panel of `b`; ROWS: `b` lies in rows of n, COLUMNS: in columns of k
  int64_t bias_by_row; // of c, not by its columns
  int64_t batch;       // products with the same `a`, on one `b` and c after the other
  int64_t relu;        // numbers of c below 0 become 0
};

// R rows of c from P panels of V vectors each.
template <int R, int V, int P>
void tile(const Call &call, const float *a, const float *b, int64_t row, int64_t column, float *c) {
  const bool packed = call.panel > 0;
  const int64_t k = call.k, n = call.n, step = packed ? V * LANES : n, apart = k * V * LANES;
  Lanes sums[R][V * P];
#pragma GCC unroll 16
  for (int j = 0; j < V * P; ++j) {
    Lanes start = {};
    if (call.bias && !call.bias_by_row) start = load_up_to(call.bias + column + j * LANES, n - column - j * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) sums[i][j] = call.bias && call.bias_by_row ? start + call.bias[row + i] : start;
  }
  // Rows of `b` that lie apart are read past their end, but for the last ones: nothing is read past the end of the last.
  int64_t whole = k;
  if (!packed) {
    const int64_t beyond = column + V * LANES - n;
    whole = beyond > 0 ? k - (beyond + n - 1) / n : k;
    if (whole < 0) whole = 0;
  }
  for (int64_t i = 0; i < whole; ++i, b += step) {
    Lanes right[V * P];
#pragma GCC unroll 16
    for (int j = 0; j < V * P; ++j) right[j] = load(b + (j / V) * apart + (j % V) * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const float left = a[r * k + i];
#pragma GCC unroll 16
      for (int j = 0; j < V * P; ++j) sums[r][j] += left * right[j];
    }
  }
  for (int64_t i = whole; i < k; ++i, b += step) {
#pragma GCC unroll 16
    for (int j = 0; j < V; ++j) {
      const Lanes right = load_part(b + j * LANES, n - column - j * LANES);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums[r][j] += a[r * k + i] * right;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int j = 0; j < V * P; ++j) {
      const int64_t left = n - column - j * LANES;
      if (call.relu) sums[r][j] = sums[r][j] < 0 ? Lanes{} : sums[r][j];
      if (left >= LANES)
        store(c + r * n + j * LANES, sums[r][j]);
      else
        store_part(c + r * n + j * LANES, sums[r][j], left);
    }
  }
}

// A number of rows, known when this runs: at most R.
template <int R, int V>
void rows_of(const Call &call, int64_t count, const float *a, const float *b, int64_t row, int64_t column, float *c) {
  if constexpr (R > 1) {
    if (count < R) return rows_of<R - 1, V>(call, count, a, b, row, column, c);
  }
  tile<R, V, 1>(call, a, b, row, column, c);
}

// Rows of one panel, in tiles of about the same height.
template <int V>
void panel(const Call &call, const float *b, int64_t first, int64_t last, int64_t column, float *c) {
  constexpr int MOST = SUMS / V < 14 ? SUMS / V : 14;
  const int64_t rows = last - first, tiles = (rows + MOST - 1) / MOST;
  for (int64_t i = 0, row = first; i < tiles; ++i) {
    const int64_t count = (last - row + tiles - i - 1) / (tiles - i);
    rows_of<MOST, V>(call, count, call.a + row * call.k, b, row, column, c + row * call.n + column);
    row += count;
  }
}

// One row alone: four panels together, since each sum waits for itself.
template <int V>
void one_row(const Call &call, const float *b, int64_t column, int64_t panels, float *c) {
  if (panels == 4) return tile<1, V, 4>(call, call.a, b, 0, column, c + column);
  for (int64_t i = 0; i < panels; ++i, column += V * LANES, b += call.k * V * LANES) tile<1, V, 1>(call, call.a, b, 0, column, c + column);
}

#ifndef CONTINUAL_IN_PACKAGE  // weights of packages are laid out in panels

// ---- columns: products of vectors along k, whose lanes are summed in the end ----

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

// The sum of the vectors of four numbers that a vector consists of.
inline Four quarter(Lanes v) {
  Four parts[LANES / 4];
  memcpy(parts, &v, sizeof v);
  Four sum = parts[0];
#pragma GCC unroll 4
  for (int i = 1; i < LANES / 4; ++i) sum += parts[i];
  return sum;
}

// The sums of four vectors.
inline Four sums_of(Lanes p, Lanes q, Lanes r, Lanes s) {
  typedef int Index __attribute__((vector_size(16)));
  const Four a = quarter(p), b = quarter(q), c = quarter(r), d = quarter(s);
  const Four ab = __builtin_shuffle(a, b, Index{0, 4, 1, 5}) + __builtin_shuffle(a, b, Index{2, 6, 3, 7});
  const Four cd = __builtin_shuffle(c, d, Index{0, 4, 1, 5}) + __builtin_shuffle(c, d, Index{2, 6, 3, 7});
  return __builtin_shuffle(ab, cd, Index{0, 1, 4, 5}) + __builtin_shuffle(ab, cd, Index{2, 3, 6, 7});
}

// The numbers of a row of k that no whole vector from its start holds, at the end of one; zeros before them.
inline Lanes load_last(const float *row, int64_t k) {
  Lanes last;
  if (k < LANES) {
    last = load_part(row, k);
  } else {
    typedef int32_t Bits __attribute__((vector_size(4 * LANES), may_alias));
    Bits place;
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) place[i] = i;
    const Bits seen = place >= int32_t(LANES - k % LANES);
    last = (Lanes)((Bits)load(row + k - LANES) & seen);
  }
  KEEP(last);  // else compilers multiply in both branches and add behind them, rounded twice: in some tiles, and not in others
  return last;
}

constexpr int DOT_ROWS = SUMS / 4;  // of `a`, for four columns

// R rows of `a` with 4 * G columns of `b`, of which `count` exist.
template <int R, int G>
void dots(const Call &call, const float *a, int64_t column, int64_t count, float *c) {
  const int64_t k = call.k, whole = k / LANES * LANES;
  const float *columns[4 * G];
#pragma GCC unroll 16
  for (int j = 0; j < 4 * G; ++j) columns[j] = call.b + (column + (j < count ? j : 0)) * k;
  Lanes sums[R][4 * G] = {};
  for (int64_t i = 0; i < whole; i += LANES) {
    Lanes right[4 * G];
#pragma GCC unroll 16
    for (int j = 0; j < 4 * G; ++j) right[j] = load(columns[j] + i);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Lanes left = load(a + r * k + i);
#pragma GCC unroll 16
      for (int j = 0; j < 4 * G; ++j) sums[r][j] += left * right[j];
    }
  }
  if (whole < k) {
    Lanes right[4 * G];
#pragma GCC unroll 16
    for (int j = 0; j < 4 * G; ++j) right[j] = load_last(columns[j], k);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Lanes left = load_last(a + r * k, k);
#pragma GCC unroll 16
      for (int j = 0; j < 4 * G; ++j) sums[r][j] += left * right[j];
    }
  }
#pragma GCC unroll 16
  for (int g = 0; g < G; ++g) {
    const int64_t left = count - 4 * g < 4 ? count - 4 * g : 4;
    if (left <= 0) return;
    Four bias = {};
    if (call.bias) memcpy(&bias, call.bias + column + 4 * g, 4 * left);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Lanes *s = sums[r] + 4 * g;
      const Four y = sums_of(s[0], s[1], s[2], s[3]) + bias;
      if (left == 4)
        *reinterpret_cast<Four *>(c + r * call.n + 4 * g) = y;
      else
        memcpy(c + r * call.n + 4 * g, &y, 4 * left);
    }
  }
}

template <int R>
void dots_of(const Call &call, int64_t rows, const float *a, int64_t column, int64_t count, float *c) {
  if constexpr (R > 1) {
    if (rows < R) return dots_of<R - 1>(call, rows, a, column, count, c);
  }
  dots<R, 1>(call, a, column, count, c);
}

// Eight columns with some rows.
inline void by_columns(const Call &call, int64_t first, int64_t last, int64_t column) {
  const int64_t count = call.n - column < 8 ? call.n - column : 8, rows = last - first, tiles = (rows + DOT_ROWS - 1) / DOT_ROWS;
  if (rows == 1) return dots<1, 2>(call, call.a + first * call.k, column, count, call.c + first * call.n + column);
  for (int64_t i = 0, row = first; i < tiles; ++i) {
    const int64_t height = (last - row + tiles - i - 1) / (tiles - i);
    for (int64_t j = 0; j < count; j += 4)
      dots_of<DOT_ROWS>(call, height, call.a + row * call.k, column + j, count - j < 4 ? count - j : 4,
                        call.c + row * call.n + column + j);
    row += height;
  }
}

#endif

struct Work {
  const Call *call;
  std::atomic<int64_t> next;
  int64_t units, blocks, height, panels, together, width;
};

template <int V>
void unit(const Call &call, const Work &w, int64_t block, int64_t first, const float *b, float *c) {
  const int64_t column = first * w.width;
  if (w.together > 1) return one_row<V>(call, b, column, w.panels - first < w.together ? w.panels - first : w.together, c);
  const int64_t row = block * w.height, last = row + w.height < call.m ? row + w.height : call.m;
  panel<V>(call, b, row, last, column, c);
}

inline void work(void *data) {
  Work &w = *static_cast<Work *>(data);
  const Call &call = *w.call;
  const int64_t groups = (w.panels + w.together - 1) / w.together;
  for (int64_t i; (i = w.next.fetch_add(1)) < w.units;) {
    const int64_t first = i % groups * w.together, block = i / groups % w.blocks, image = i / groups / w.blocks;
#ifndef CONTINUAL_IN_PACKAGE
    if (call.panel == COLUMNS) {
      by_columns(call, block * w.height, (block + 1) * w.height < call.m ? (block + 1) * w.height : call.m, first * w.width);
      continue;
    }
#endif
    const float *b = call.b + image * call.k * call.n;
    float *c = call.c + image * call.m * call.n;
    const int64_t left = call.n - first * w.width;
    b += call.panel ? first * w.width * call.k : first * w.width;
    const int64_t vectors = call.panel ? call.panel : (left + LANES - 1) / LANES;
    if (vectors == 1)
      unit<1>(call, w, block, first, b, c);
    else if (vectors == 2)
      unit<2>(call, w, block, first, b, c);
    else
      unit<3>(call, w, block, first, b, c);
  }
}

// `parallel` is the OpenMP runtime's GOMP_parallel, or null. It may run the work in fewer threads than asked for.
inline void run(const Call &call, Parallel parallel, int64_t threads) {
  const int64_t width = call.panel == COLUMNS ? 8 : (call.panel ? call.panel : MOST_VECTORS) * LANES;
  const int64_t panels = (call.n + width - 1) / width, together = call.panel > 0 && call.m == 1 ? 4 : 1;
  const int64_t groups = (panels + together - 1) / together, share = (call.m + threads - 1) / threads;
  int64_t height = BLOCK / (24 * call.k + 1) * 24 + 24;
  if (height > share && groups * call.batch < 4 * threads) height = share;
  const int64_t blocks = (call.m + height - 1) / height;
  Work all{&call, {0}, call.batch * blocks * groups, blocks, height, panels, together, width};
  if (threads > 1 && parallel)
    parallel(work, &all, unsigned(threads), 0);
  else
    work(&all);
}

}  // namespace
}  // namespace continual_product

#ifndef CONTINUAL_IN_PACKAGE
extern "C" int64_t continual_lanes() { return continual_product::LANES; }

extern "C" void continual_product_run(const float *a, const float *b, const float *bias, float *c, int64_t m, int64_t k, int64_t n,
                                      int64_t panel, int64_t bias_by_row, int64_t batch, int64_t relu,
                                      continual_product::Parallel parallel, int64_t threads) {
  continual_product::run({a, b, bias, c, m, k, n, panel, bias_by_row, batch, relu}, parallel, threads);
}
#endif
