// One step, or the windows of a chunk, of a depthwise convolution over time and space.
//
// Frames are (H, W, C), channels last, wherever they lie: nothing is concatenated, and padding is never written. A tile of R rows and P
// columns of the output, of LANES channels, is summed in registers: each number that comes is loaded once for all outputs that it is part
// of. A load of channels that begins anywhere costs as much as two products, so that loads, not products, bound this kernel. This file is
// a library of its own for eager steps, and is part of the code of compiled programs.

#include <atomic>
#include <cstdint>

// A number that was loaded stays in its register. Compilers would load it again in each product.
#if defined(__AVX512F__)
#define KEEP(v) asm("" : "+v"(v))
#elif defined(__x86_64__)
#define KEEP(v) asm("" : "+x"(v))
#elif defined(__aarch64__)
#define KEEP(v) asm("" : "+w"(v))
#else
#define KEEP(v)
#endif

namespace continual_depthwise {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int WIDEST = 8;  // columns of a tile: 2 * 8 sums in 32 registers
#else
constexpr int WIDEST = 4;
#endif
constexpr int ROWS = 256;  // rows of all frames that one tile sees; the caller knows it

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

struct Frame {
  const float *data;
  int64_t batch_stride;
};

struct Geometry {
  int64_t channels, taps, kernel, stride, pad_h, pad_w, time_dilation, time_stride;
};

struct Call {
  const Geometry *geometry;
  const Frame *frames;
  const float *weight;  // (blocks of channels, taps, K, K, LANES)
  const float *bias;    // (C), or null
  float *out;           // (B, outputs, out_h, out_w, C)
  int64_t outputs, height, width, out_h, out_w;
  bool relu = false;  // whether numbers below 0 become 0
};

inline Lanes load(const float *p) { return *reinterpret_cast<const Lanes *>(p); }
inline void store(float *p, Lanes v) { *reinterpret_cast<Lanes *>(p) = v; }

// Rows are null where they would be padding; with EDGE, columns outside of the frame are padding.
template <int K, int S, int R, int P, bool EDGE>
inline void tile(const Call &call, const float *const *rows, int64_t column, int64_t channel, const float *w, float *y) {
  constexpr int I = (R - 1) * S + K, J = (P - 1) * S + K;
  const int64_t C = call.geometry->channels, taps = call.geometry->taps;
  const Lanes start = call.bias ? load(call.bias + channel) : Lanes{};
  Lanes sums[R][P];
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sums[r][p] = start;
  for (int64_t t = 0; t < taps; ++t, rows += I, w += K * K * LANES) {
#pragma GCC unroll 8
    for (int i = 0; i < I; ++i) {
      if (!rows[i]) continue;
      const float *x = rows[i] + column * C + channel;
#pragma GCC unroll 32
      for (int j = 0; j < J; ++j) {
        if (EDGE && uint64_t(column + j) >= uint64_t(call.width)) continue;
        Lanes v = load(x + j * C);
        KEEP(v);
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r) {
          const int h = i - r * S;
          if (h < 0 || h >= K) continue;
#pragma GCC unroll 8
          for (int k = 0; k < K; ++k)
            if (j >= k && (j - k) % S == 0 && (j - k) / S < P) sums[r][(j - k) / S] += v * load(w + (h * K + k) * LANES);
        }
      }
    }
  }
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      if (call.relu) sums[r][p] = sums[r][p] < 0 ? Lanes{} : sums[r][p];
      store(y + (r * call.out_w + p) * C, sums[r][p]);
    }
}

// R rows of an output. The last tile, and the last channels of each, reach back over what is done, and compute it again.
template <int K, int S, int R, int P>
void band(const Call &call, const float *const *rows, float *y) {
  const Geometry &g = *call.geometry;
  const int64_t C = g.channels, weights = g.taps * K * K * LANES;
  constexpr bool NARROW = P < 6 && WIDEST > 4;  // there are no tiles between the edges
  for (int64_t o = 0;; o += P) {
    if (o > call.out_w - P) o = call.out_w - P;
    const int64_t column = o * S - g.pad_w;
    const bool inside = column >= 0 && column + (P - 1) * S + K <= call.width;
    const float *w = call.weight;
    for (int64_t c = 0;; c += LANES, w += weights) {
      if (c > C - LANES) c = C - LANES;
      float *to = y + o * C + c;
      if (!NARROW && inside)
        tile<K, S, R, P, NARROW>(call, rows, column, c, w, to);
      else
        tile<K, S, R, P, true>(call, rows, column, c, w, to);
      if (c == C - LANES) break;
    }
    if (o == call.out_w - P) break;
  }
}

template <int K, int S, int R>
void by_width(const Call &call, const float *const *rows, float *y) {
  const int64_t tiles = (call.out_w + WIDEST - 1) / WIDEST, p = (call.out_w + tiles - 1) / tiles;
  if constexpr (WIDEST > 4) {
    if constexpr (R > 1 || K == 1) {  // not for the last row of an odd number, to compile less
      if (p > 7) return band<K, S, R, 8>(call, rows, y);
      if (p == 7 || call.out_w > 16) return band<K, S, R, 7>(call, rows, y);
    }
    if (p > 4) return band<K, S, R, 5>(call, rows, y);
  } else {
    if (p > 3) return band<K, S, R, 4>(call, rows, y);
  }
  if (p > 1) return band<K, S, R, 2>(call, rows, y);
  return band<K, S, R, 1>(call, rows, y);
}

template <int K, int S, int R>
void rows_from(const Call &call, int64_t image, int64_t first) {
  const Geometry &g = *call.geometry;
  constexpr int I = (R - 1) * S + K;
  const float *rows[ROWS];
  int n = 0;
  for (int64_t t = 0; t < g.taps; ++t) {
    const Frame &frame = call.frames[image % call.outputs * g.time_stride + t * g.time_dilation];
    const float *data = frame.data + image / call.outputs * frame.batch_stride;
    for (int i = 0; i < I; ++i) {
      const int64_t h = first * S - g.pad_h + i;
      rows[n++] = h < 0 || h >= call.height ? nullptr : data + h * call.width * g.channels;
    }
  }
  by_width<K, S, R>(call, rows, call.out + (image * call.out_h + first) * call.out_w * g.channels);
}

template <int K, int S>
void pair(const Call &call, int64_t index) {
  constexpr int R = K == 1 ? 1 : 2;  // rows in which a number is part of several outputs
  const int64_t pairs = (call.out_h + R - 1) / R, image = index / pairs, first = index % pairs * R;
  if (first + R <= call.out_h)
    rows_from<K, S, R>(call, image, first);
  else
    rows_from<K, S, 1>(call, image, first);
}

struct Work {
  const Call *call;
  std::atomic<int64_t> next;
  int64_t units, grain;
};

inline void work(void *data) {
  Work &w = *static_cast<Work *>(data);
  const Call &call = *w.call;
  for (;;) {
    const int64_t first = w.next.fetch_add(w.grain);
    if (first >= w.units) return;
    const int64_t stop = first + w.grain < w.units ? first + w.grain : w.units;
    for (int64_t i = first; i < stop; ++i) {
      if (call.geometry->kernel == 1)
        pair<1, 1>(call, i);
      else if (call.geometry->stride == 1)
        pair<3, 1>(call, i);
      else
        pair<3, 2>(call, i);
    }
  }
}

// `parallel` is the OpenMP runtime's GOMP_parallel, or null. It may run the work in fewer threads than asked for.
inline void run(const Call &call, int64_t batch, Parallel parallel, int64_t threads) {
  const int64_t together = call.geometry->kernel == 1 ? 1 : 2, units = batch * call.outputs * ((call.out_h + together - 1) / together);
  Work all{&call, {0}, units, (units + 4 * threads - 1) / (4 * threads)};
  if (threads > 1 && parallel)
    parallel(work, &all, unsigned(threads), 0);
  else
    work(&all);
}

}  // namespace
}  // namespace continual_depthwise

#ifndef CONTINUAL_IN_PACKAGE
extern "C" int64_t continual_lanes() { return continual_depthwise::LANES; }

extern "C" void continual_depthwise_run(const continual_depthwise::Geometry *geometry, const continual_depthwise::Frame *frames,
                                        const float *weight, const float *bias, float *out, int64_t batch, int64_t outputs,
                                        int64_t height, int64_t width, int64_t out_h, int64_t out_w,
                                        continual_depthwise::Parallel parallel, int64_t threads) {
  continual_depthwise::run({geometry, frames, weight, bias, out, outputs, height, width, out_h, out_w}, batch, parallel, threads);
}
#endif
