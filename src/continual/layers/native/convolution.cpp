// One step of a convolution over time and space, for frames of several channels.
//
// Frames are (H, W, C), channels last, wherever they lie. Some rows of all frames of a window are copied with zeros around them and with
// the taps of a pixel side by side, as many as stay in the cache. There the numbers that an output sees of a row lie in one piece, and the
// pieces of the outputs beside it overlap: a row of outputs is a product of matrices, whose left rows are `stride` pixels apart. Tiles and
// panels are those of product.cpp. This file is a library of its own, and is part of the code of compiled programs.

#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

namespace continual_convolution {
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

constexpr int64_t BLOCK = 24 * 1024;  // numbers of the copied rows that a unit of work steps over

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

inline Lanes load(const float *p) { return *reinterpret_cast<const Lanes *>(p); }
inline void store(float *p, Lanes v) { *reinterpret_cast<Lanes *>(p) = v; }

struct Geometry {
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
};

struct Call {
  const Geometry *geometry;
  const float *const *frames;  // the taps of each window, (B, taps)
  const float *weight;         // panels (n, kernel_h * kernel_w * taps * C, panel * LANES)
  const float *bias;           // (features), or null
  float *out;                  // (B, out_h, out_w, features)
  int64_t taps, height, width, channels, out_h, out_w, features;
  int64_t panel;  // vectors of a panel
};

// What an output sees: pieces of so many numbers, at these distances; of the next output, `apart` further.
struct Pieces {
  const int64_t *offsets;
  int64_t count, length, apart;
};

// The first numbers of a vector, where features end within it.
inline Lanes load_up_to(const float *p, int64_t count) {
  if (count >= LANES) return load(p);
  float part[LANES] = {};
  if (count > 0) memcpy(part, p, 4 * count);
  return load(part);
}

inline void store_up_to(float *p, Lanes v, int64_t count) {
  if (count >= LANES) return store(p, v);
  float part[LANES];
  store(part, v);
  if (count > 0) memcpy(p, part, 4 * count);
}

// R outputs of a row, V vectors of features.
template <int R, int V>
void tile(const Call &call, const Pieces &pieces, const float *x, const float *w, int64_t feature, float *y) {
  const int64_t left = call.features - feature;
  Lanes sums[R][V];
#pragma GCC unroll 4
  for (int j = 0; j < V; ++j) {
    const Lanes start = call.bias ? load_up_to(call.bias + feature + j * LANES, left - j * LANES) : Lanes{};
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r][j] = start;
  }
  for (int64_t p = 0; p < pieces.count; ++p) {
    const float *from = x + pieces.offsets[p];
    for (int64_t i = 0; i < pieces.length; ++i, w += V * LANES) {
      Lanes weights[V];
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) weights[j] = load(w + j * LANES);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const float number = from[r * pieces.apart + i];
#pragma GCC unroll 4
        for (int j = 0; j < V; ++j) sums[r][j] += number * weights[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) store_up_to(y + r * call.features + j * LANES, sums[r][j], left - j * LANES);
}

// A number of outputs, known when this runs: at most R.
template <int R, int V>
void tile_of(const Call &call, const Pieces &pieces, int64_t count, const float *x, const float *w, int64_t feature, float *y) {
  if constexpr (R > 1) {
    if (count < R) return tile_of<R - 1, V>(call, pieces, count, x, w, feature, y);
  }
  tile<R, V>(call, pieces, x, w, feature, y);
}

// A row of outputs, in tiles of about the same width.
template <int V>
void row(const Call &call, const Pieces &pieces, const float *x, const float *w, int64_t feature, float *y) {
  constexpr int MOST = SUMS / V < 14 ? SUMS / V : 14;
  const int64_t tiles = (call.out_w + MOST - 1) / MOST;
  for (int64_t i = 0, o = 0; i < tiles; ++i) {
    const int64_t count = (call.out_w - o + tiles - i - 1) / (tiles - i);
    tile_of<MOST, V>(call, pieces, count, x + o * pieces.apart, w, feature, y + o * call.features);
    o += count;
  }
}

// Rows of the frames of a window from `first` on, with zeros around, the taps of a pixel side by side.
inline void copy(const Call &call, const float *const *frames, int64_t first, int64_t rows, float *to) {
  const int64_t pad = call.geometry->pad_w, channels = call.channels, pixel = channels * call.taps, wide = call.width + 2 * pad;
  for (int64_t h = first; h < first + rows; ++h, to += wide * pixel) {
    if (h < 0 || h >= call.height) {
      memset(to, 0, 4 * wide * pixel);
      continue;
    }
    memset(to, 0, 4 * pad * pixel);
    memset(to + (wide - pad) * pixel, 0, 4 * pad * pixel);
    for (int64_t t = 0; t < call.taps; ++t) {
      const float *from = frames[t] + h * call.width * channels;
      float *at = to + pad * pixel + t * channels;
      const int64_t together = call.taps == 1 ? call.width : 1;
      for (int64_t w = 0; w < call.width; w += together) memcpy(at + w * pixel, from + w * channels, 4 * together * channels);
    }
  }
}

struct Work {
  const Call *call;
  std::atomic<int64_t> next;
  int64_t units, blocks, height;
};

// One block of rows of outputs after another: all panels of each on the same copy.
inline void work(void *data) {
  static thread_local std::vector<float> copied;  // kept, as memory that is given back comes with faults of its pages
  Work &all = *static_cast<Work *>(data);
  const Call &call = *all.call;
  const Geometry &g = *call.geometry;
  const int64_t pixel = call.channels * call.taps, line = (call.width + 2 * g.pad_w) * pixel;
  const int64_t joined = g.dilation_w == 1 ? g.kernel_w : 1, reach = (g.kernel_h - 1) * g.dilation_h + 1;
  std::vector<int64_t> offsets;
  for (int64_t h = 0; h < g.kernel_h; ++h)
    for (int64_t w = 0; w < g.kernel_w; w += joined) offsets.push_back(h * g.dilation_h * line + w * g.dilation_w * pixel);
  const Pieces pieces{offsets.data(), int64_t(offsets.size()), joined * pixel, g.stride_w * pixel};
  const int64_t width = call.panel * LANES, size = pieces.count * pieces.length * width;
  copied.resize(((all.height - 1) * g.stride_h + reach) * line);
  for (int64_t i; (i = all.next.fetch_add(1)) < all.units;) {
    const int64_t image = i / all.blocks, first = i % all.blocks * all.height;
    const int64_t last = first + all.height < call.out_h ? first + all.height : call.out_h;
    copy(call, call.frames + image * call.taps, first * g.stride_h - g.pad_h, (last - first - 1) * g.stride_h + reach, copied.data());
    const float *w = call.weight;
    for (int64_t feature = 0; feature < call.features; feature += width, w += size)
      for (int64_t o = first; o < last; ++o) {
        const float *x = copied.data() + (o - first) * g.stride_h * line;
        float *y = call.out + (image * call.out_h + o) * call.out_w * call.features + feature;
        if (call.panel == 1)
          row<1>(call, pieces, x, w, feature, y);
        else if (call.panel == 2)
          row<2>(call, pieces, x, w, feature, y);
        else
          row<3>(call, pieces, x, w, feature, y);
      }
  }
}

// `parallel` is the OpenMP runtime's GOMP_parallel, or null. It may run the work in fewer threads than asked for.
inline void run(const Call &call, int64_t batch, Parallel parallel, int64_t threads) {
  const Geometry &g = *call.geometry;
  const int64_t line = g.stride_h * (call.width + 2 * g.pad_w) * call.channels * call.taps, share = (call.out_h + threads - 1) / threads;
  const int64_t most = BLOCK / line + 1, height = most < share ? most : share, blocks = (call.out_h + height - 1) / height;
  Work all{&call, {0}, batch * blocks, blocks, height};
  if (threads > 1 && parallel)
    parallel(work, &all, unsigned(threads), 0);
  else
    work(&all);
}

}  // namespace
}  // namespace continual_convolution

#ifndef CONTINUAL_IN_PACKAGE
extern "C" int64_t continual_lanes() { return continual_convolution::LANES; }

extern "C" void continual_convolution_run(const continual_convolution::Geometry *geometry, const float *const *frames, const float *weight,
                                          const float *bias, float *out, int64_t batch, int64_t taps, int64_t height, int64_t width,
                                          int64_t channels, int64_t out_h, int64_t out_w, int64_t features, int64_t panel,
                                          continual_convolution::Parallel parallel, int64_t threads) {
  continual_convolution::run({geometry, frames, weight, bias, out, taps, height, width, channels, out_h, out_w, features, panel}, batch,
                             parallel, threads);
}
#endif
