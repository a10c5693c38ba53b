// Rows of floats in memory, one row a Gaussian, to vectors that hold one column of several Gaussians, and back.
#pragma once
#include <cstring>

#include "simd.h"

namespace {

typedef double Double __attribute__((vector_size(8 * LANES), may_alias));
typedef int64_t Long __attribute__((vector_size(8 * LANES), may_alias));
typedef float Half __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t HalfInt __attribute__((vector_size(4 * LANES), may_alias));

inline Double wide(Half v) { return __builtin_convertvector(v, Double); }
inline Half narrow(Double v) { return __builtin_convertvector(v, Half); }

// Which Gaussians the lanes hold; the lanes beyond the end repeat the last one and are not written.
struct Rows {
    int first, valid;
    Rows(int first, int end) : first(first), valid(end - first < LANES ? end - first : LANES) {}
    size_t at(int lane) const { return first + (lane < valid ? lane : valid - 1); }
};

// In place: element j of vector i becomes element i of vector j, in log2(LANES) rounds of pairs.
inline void transpose(Half *v) {
    HalfInt lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
#pragma GCC unroll 3
    for (int d = 1; d < LANES; d *= 2) {
        const HalfInt low = (lane & d) ? lane - d + LANES : lane, high = (lane & d) ? lane + LANES : lane + d;
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++)
            if (!(i & d)) {
                const Half a = v[i], b = v[i + d];
                v[i] = __builtin_shuffle(a, b, low), v[i + d] = __builtin_shuffle(a, b, high);
            }
    }
}

inline Half load_row(const float *p) {
    Half v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// Calls for the lines that hold the rows first .. first + LANES - 1, to be read or (WRITE) written soon.
template <int WRITE>
inline void fetch(const float *p, int first, int end, size_t stride) {
    if (first + LANES > end) return;
    const char *line = (const char *)(p + first * stride), *last = (const char *)(p + (first + LANES) * stride);
    for (; line < last; line += 64) __builtin_prefetch(line, WRITE);
}

// Column 0 of rows that lie `stride` floats apart.
inline Double load(const float *p, const Rows &r, size_t stride) {
    Half v;
    for (int i = 0; i < LANES; i++) v[i] = p[r.at(i) * stride];
    return wide(v);
}

inline void set(Double &to, Half v) { to = wide(v); }
inline void set(Half &to, Half v) { to = v; }
inline Half half(Double v) { return narrow(v); }
inline Half half(Half v) { return v; }

// Columns 0 to count - 1, as Double or Half.
template <class Vector>
inline void load_columns(const float *p, const Rows &r, size_t stride, int count, Vector *out) {
    int k = 0;
    for (; k + LANES <= count; k += LANES) {
        Half block[LANES];
        for (int i = 0; i < LANES; i++) block[i] = load_row(p + r.at(i) * stride + k);
        transpose(block);
        for (int i = 0; i < LANES; i++) set(out[k + i], block[i]);
    }
    for (; k < count; k++) {
        Half v;
        for (int i = 0; i < LANES; i++) v[i] = p[r.at(i) * stride + k];
        set(out[k], v);
    }
}

template <class Vector>
inline void store_columns(float *p, const Rows &r, size_t stride, int count, const Vector *values) {
    for (int k = 0; k < count; k += LANES) {
        const int width = count - k < LANES ? count - k : LANES;
        Half block[LANES];
        for (int i = 0; i < LANES; i++) block[i] = half(values[k + (i < width ? i : 0)]);
        transpose(block);
        for (int i = 0; i < r.valid; i++) {
            float *to = p + (r.first + i) * stride + k;
            if (width == LANES) std::memcpy(to, &block[i], sizeof block[i]);
            else for (int j = 0; j < width; j++) to[j] = block[i][j];
        }
    }
}

}  // namespace
