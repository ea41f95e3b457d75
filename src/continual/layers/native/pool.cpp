// Pooling of images in float32 from planes, as frames come, to channels last, as pools keep them.
//
// Rows of the window are joined first, along the row; then its columns. Rows of some channels are turned together.

#include <atomic>
#include <cstdint>
#include <cstring>

namespace continual_pool {
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

constexpr int64_t ROOM = 512;  // numbers of a row with its padding, and of what is read behind it

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

inline int64_t up(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

struct Call {
  const float *x;  // (batch, channels, height, width)
  float *y;        // (batch, out_h, out_w, channels)
  int64_t batch, channels, height, width, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
  int64_t of_row, of_plane;  // strides of the batch and of the channels
  int64_t maximum;           // or the mean
};

// Of a row with its padding and of what is read behind it.
inline int64_t room_of(const Call &call) {
  const int64_t read = up(call.out_w) * call.stride_w + call.kernel_w, written = call.pad_w + up(call.width);
  return up(read > written ? read : written) + LANES;
}

struct Mean {
  static constexpr float NOTHING = 0;
  static Lanes join(Lanes a, Lanes b) { return a + b; }
};

struct Maximum {
  static constexpr float NOTHING = -__builtin_inff();
  static Lanes join(Lanes a, Lanes b) { return (b > a) | (b != b) ? b : a; }  // NaN stays
};

// `count` rows of a plane, joined; behind them are LANES numbers of padding. Whole vectors are read, up to the end of the memory.
template <typename T>
void join_rows(const float *plane, const float *end, int64_t width, int64_t count, float *row) {
  const int64_t whole = plane + (count - 1) * width + up(width) <= end ? up(width) : width / LANES * LANES;
  for (int64_t at = 0; at < whole; at += LANES) {
    Lanes sum = load(plane + at);
    for (int64_t r = 1; r < count; ++r) sum = T::join(sum, load(plane + r * width + at));
    store(row + at, sum);
  }
  if (whole < width) {
    float part[LANES] = {};
    memcpy(part, plane + whole, 4 * (width - whole));
    Lanes sum = load(part);
    for (int64_t r = 1; r < count; ++r) {
      memcpy(part, plane + r * width + whole, 4 * (width - whole));
      sum = T::join(sum, load(part));
    }
    store(row + whole, sum);
  }
  store(row + width, filled(T::NOTHING));
}

// Every second number of two vectors.
inline Lanes every_second(Lanes a, Lanes b) {
  Bits even;
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i) even[i] = 2 * i;
  return __builtin_shuffle(a, b, even);
}

inline Lanes apart(const float *p, int64_t stride) {
  if (stride == 1) return load(p);
  if (stride == 2) return every_second(load(p), load(p + LANES));
  float found[LANES];
  for (int i = 0; i < LANES; ++i) found[i] = p[i * stride];
  return load(found);
}

// Rows of LANES channels, (LANES, room), to pixels of `channels` numbers, of which these are `count`.
inline void turn(const float *rows, int64_t room, int64_t width, int64_t count, int64_t channels, float *y) {
  for (int64_t c = 0; c < count; c += 4) {
    const float *r = rows + c * room;
    int64_t j = 0;
    for (; c + 4 <= count && j + 4 <= width; j += 4) {
      const Four p = *reinterpret_cast<const Four *>(r + j), q = *reinterpret_cast<const Four *>(r + room + j);
      const Four s = *reinterpret_cast<const Four *>(r + 2 * room + j), t = *reinterpret_cast<const Four *>(r + 3 * room + j);
      const Four pq = __builtin_shuffle(p, q, FourBits{0, 4, 1, 5}), st = __builtin_shuffle(s, t, FourBits{0, 4, 1, 5});
      const Four pq2 = __builtin_shuffle(p, q, FourBits{2, 6, 3, 7}), st2 = __builtin_shuffle(s, t, FourBits{2, 6, 3, 7});
      float *to = y + j * channels + c;
      *reinterpret_cast<Four *>(to) = __builtin_shuffle(pq, st, FourBits{0, 1, 4, 5});
      *reinterpret_cast<Four *>(to + channels) = __builtin_shuffle(pq, st, FourBits{2, 3, 6, 7});
      *reinterpret_cast<Four *>(to + 2 * channels) = __builtin_shuffle(pq2, st2, FourBits{0, 1, 4, 5});
      *reinterpret_cast<Four *>(to + 3 * channels) = __builtin_shuffle(pq2, st2, FourBits{2, 3, 6, 7});
    }
    for (; j < width; ++j)
      for (int64_t i = c; i < count && i < c + 4; ++i) y[j * channels + i] = rows[i * room + j];
  }
}

// A row of outputs of some channels. `joined` has room for a padded row of each, filled with what padding is.
template <typename T>
void row_of(const Call &call, int64_t b, int64_t channel, int64_t count, int64_t i, float *joined, int64_t padded,
            float *found) {
  const int64_t room = up(call.out_w), top = i * call.stride_h - call.pad_h;
  const int64_t first = top > 0 ? top : 0, last = top + call.kernel_h < call.height ? top + call.kernel_h : call.height;
  const float share = call.maximum ? 1.f : 1.f / float(call.kernel_h * call.kernel_w);
  const float *planes = call.x + b * call.of_row + channel * call.of_plane;
  const float *end = call.x + (call.batch - 1) * call.of_row + (call.channels - 1) * call.of_plane + call.height * call.width;
  for (int64_t c = 0; c < count; ++c) {  // what is stored here is read when it has arrived in the cache
    join_rows<T>(planes + c * call.of_plane + first * call.width, end, call.width, last - first, joined + c * padded + call.pad_w);
  }
  for (int64_t c = 0; c < count; ++c) {
    for (int64_t j = 0; j < call.out_w; j += LANES) {
      const float *from = joined + c * padded + j * call.stride_w;
      Lanes sum = apart(from, call.stride_w);
      for (int64_t k = 1; k < call.kernel_w; ++k) sum = T::join(sum, apart(from + k, call.stride_w));
      store(found + c * room + j, sum * share);
    }
  }
  turn(found, room, call.out_w, count, call.channels, call.y + (b * call.out_h + i) * call.out_w * call.channels + channel);
}

template <typename T>
void rows_of(const Call &call, int64_t b, int64_t channel) {
  float joined[LANES * ROOM], found[LANES * ROOM];
  const int64_t padded = room_of(call);
  const int64_t count = call.channels - channel < LANES ? call.channels - channel : LANES;
  for (int64_t c = 0; c < count; ++c)
    for (int64_t j = 0; j < padded; j += LANES) store(joined + c * padded + j, filled(T::NOTHING));
  for (int64_t row = 0; row < call.out_h; ++row) row_of<T>(call, b, channel, count, row, joined, padded, found);
}

struct Work {
  const Call *call;
  std::atomic<int64_t> next;
  int64_t units, groups;
};

inline void work(void *data) {
  Work &w = *static_cast<Work *>(data);
  const Call &call = *w.call;
  for (int64_t i; (i = w.next.fetch_add(1)) < w.units;) {
    const int64_t channel = i % w.groups * LANES, b = i / w.groups;
    if (call.maximum)
      rows_of<Maximum>(call, b, channel);
    else
      rows_of<Mean>(call, b, channel);
  }
}

inline void run(const Call &call, Parallel parallel, int64_t threads) {
  const int64_t groups = (call.channels + LANES - 1) / LANES;
  Work all{&call, {0}, call.batch * groups, groups};
  if (threads > 1 && parallel)
    parallel(work, &all, unsigned(threads), 0);
  else
    work(&all);
}

}  // namespace
}  // namespace continual_pool

extern "C" int64_t continual_lanes() { return continual_pool::LANES; }

extern "C" void continual_pool_run(const float *x, float *y, const int64_t *sizes, continual_pool::Parallel parallel, int64_t threads) {
  continual_pool::Call call{x, y};
  memcpy(&call.batch, sizes, 15 * sizeof(int64_t));
  continual_pool::run(call, parallel, threads);
}
