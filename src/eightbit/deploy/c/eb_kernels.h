/*
 * Kernels of eightbit's C networks: int8 codes, int32 accumulators, no allocation, no floating point.
 *
 * Images lie with their channels last. Every kernel reads its input and writes its output from front to back, since
 * the two may share bytes of the arena; therefore nothing here is `restrict`.
 *
 * EB_SINGLE_ROUNDING  1: one rounding, ties towards plus infinity (ruy, XNNPACK's rndnu); 0: gemmlowp's two (TFLite
 *                     Micro, CMSIS-NN). The network's source sets it.
 * EB_PLAIN            define it to do without the processor's instructions for sums of four products.
 *
 * C99 leaves the right shift of negative numbers and the narrowing of numbers that do not fit to the compiler; here
 * the shift must repeat the sign, which is checked below, and nothing that does not fit is narrowed, but for uint32_t
 * to int32_t, which must keep the bits. GCC, Clang, Arm Compiler and IAR do both.
 */
#ifndef EB_KERNELS_H
#define EB_KERNELS_H

#include <stdint.h>
#include <string.h>

#if !defined(EB_PLAIN) && defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define EB_VNNI 1 /* eb_avx512.h has the convolutions, which lay out the input's rows in a place of their own */
#define EB_OFFSET 128u /* their products take unsigned codes: q + 128 */
#elif !defined(EB_PLAIN) && defined(__AVX2__)
#include <immintrin.h>
#define EB_AVX2 1
#define EB_OFFSET 0u
#elif !defined(EB_PLAIN) && defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_NEON)
#include <arm_neon.h>
#define EB_NEON 1
#define EB_OFFSET 0u
#else
#define EB_OFFSET 0u
#endif

#if !defined(EB_PLAIN) && !defined(EB_VNNI) && defined(__GNUC__) && (defined(__SSE4_1__) || defined(__ARM_NEON))
#define EB_VECTORS 1 /* of GCC and Clang: loops that add up stay in registers */
typedef int8_t eb_codes16 __attribute__((vector_size(16)));
typedef int16_t eb_wide16 __attribute__((vector_size(32)));
typedef int32_t eb_sums16 __attribute__((vector_size(64)));

static inline void eb_widen(const int8_t *from, eb_sums16 *to) { /* GCC takes one step at a time */
    eb_codes16 codes;
    memcpy(&codes, from, sizeof codes);
    *to = __builtin_convertvector(__builtin_convertvector(codes, eb_wide16), eb_sums16);
}
#endif

typedef char eb_shift_repeats_the_sign[(-2 >> 1) == -1 ? 1 : -1];

#define EB_ROWS 4   /* output pixels worked on at a time; the network's scratch has room for their inputs */
#define EB_LANES 16 /* output channels worked on at a time */
#define EB_RANK 6

/* A bias with the input's zero point in it; `sum` is that of the channel's weights. */
#define EB_BIAS(bias, sum) ((uint32_t)(bias) - EB_OFFSET * (uint32_t)(sum))

static inline int32_t eb_min(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t eb_max(int32_t a, int32_t b) { return a > b ? a : b; }

/* a * b * 2^-31, ties towards plus infinity; not for both the smallest. */
static inline int32_t eb_high(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31); }

/* value * 2^-times, ties away from zero, for 0 to 31 times. */
static inline int32_t eb_halved(int32_t value, int32_t times) {
    const int32_t mask = (int32_t)((UINT32_C(1) << times) - 1u);
    return (value >> times) + ((value & mask) > (mask >> 1) + (value < 0) ? 1 : 0);
}

/* acc * multiplier * 2^(shift - 31), for shifts from -31 to 0. */
static inline int32_t eb_scale_down(int32_t acc, int32_t multiplier, int32_t shift) {
#if EB_SINGLE_ROUNDING
    const int64_t half = (int64_t)1 << (30 - shift);
    return (int32_t)(((int64_t)acc * multiplier + half) >> (31 - shift));
#else
    return eb_halved(eb_high(acc, multiplier), -shift);
#endif
}

static inline int32_t eb_saturated(int64_t value) {
    return value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

/* The same for shifts from -31 to 30; what leaves int32_t saturates. */
static inline int32_t eb_scale(int32_t acc, int32_t multiplier, int32_t shift) {
    if (shift <= 0) return eb_scale_down(acc, multiplier, shift);
#if EB_SINGLE_ROUNDING
    return eb_saturated(((int64_t)acc * multiplier + ((int64_t)1 << (30 - shift))) >> (31 - shift));
#else
    return eb_scale_down(eb_saturated((int64_t)acc * ((int64_t)1 << shift)), multiplier, 0);
#endif
}

/* The code of a scaled value: saturated before the zero point is added, so that nothing overflows. */
static inline int8_t eb_code(int32_t value, int32_t zero_point) {
    return (int8_t)(eb_max(-128 - zero_point, eb_min(127 - zero_point, value)) + zero_point);
}

/* ---- convolutions and products with constant matrices ---------------------------------------------------------- */

typedef struct {
    const int8_t *weight;      /* [group][16 channels][depth / 4][channel][4]; depthwise: [tap][channel] */
    const uint32_t *bias;      /* EB_BIAS of each channel; depthwise: the bias itself */
    const int32_t *multiplier; /* of each channel */
    const int8_t *shift;       /* of each channel */
    int32_t batch, in_h, in_w, in_c, out_h, out_w, out_c, kernel_h, kernel_w, stride_h, stride_w;
    int32_t top, left, dilation_h, dilation_w, group;
    int32_t depth;  /* weights of a channel, filled up to a multiple of 4 */
    int32_t in_zero, out_zero;
    int32_t rare; /* whether a multiplier is outside [2^-29, 1/2) or a sum may be beyond 2^30 + 2^28 */
} eb_conv_t;

static inline void eb_codes(const eb_conv_t *p, const int32_t *acc, int32_t first, int32_t count, int8_t *y) {
    const int32_t *multiplier = p->multiplier + first, zero_point = p->out_zero;
    const int8_t *shift = p->shift + first;
    if (p->rare != 0) {
        for (int32_t j = 0; j < count; j++)
            y[j] = eb_code(eb_scale(acc[j], multiplier[j], shift[j]), zero_point);
        return;
    }
    if (count == EB_LANES) {
        int8_t out[EB_LANES];
        for (int32_t j = 0; j < EB_LANES; j++)
            out[j] = eb_code(eb_scale_down(acc[j], multiplier[j], shift[j]), zero_point);
        (void)memcpy(y, out, EB_LANES);
    } else {
        for (int32_t j = 0; j < count; j++)
            y[j] = eb_code(eb_scale_down(acc[j], multiplier[j], shift[j]), zero_point);
    }
}

typedef struct {
    int32_t dims[EB_RANK], a_step[EB_RANK], b_step[EB_RANK];
    int32_t a_zero, a_multiplier, a_shift, b_zero, b_multiplier, b_shift, out_zero, multiplier, shift;
} eb_binary_t;

#if defined(EB_VNNI)
#include "eb_avx512.h"
#else

static inline void eb_copy(int8_t *to, const int8_t *from, int32_t count) {
    for (; count >= 16; count -= 16, to += 16, from += 16) (void)memcpy(to, from, 16);
    for (; count > 0; count--) *to++ = *from++;
}

/* The inputs of one output pixel as a row of codes, the zero point where there is no input. */
static inline void eb_gather(const eb_conv_t *p, const int8_t *image, int32_t oy, int32_t ox, int32_t channel,
                             int8_t *row) {
    const int32_t width = p->in_c / p->group, left = ox * p->stride_w - p->left;
    const int whole = p->dilation_w == 1 && p->group == 1 && left >= 0 && left + p->kernel_w <= p->in_w;
    int8_t *const end = row + p->depth;
    for (int32_t i = 0; i < p->kernel_h; i++) {
        const int32_t iy = oy * p->stride_h - p->top + i * p->dilation_h;
        if (iy < 0 || iy >= p->in_h) {
            (void)memset(row, p->in_zero, (size_t)p->kernel_w * (size_t)width);
            row += p->kernel_w * width;
        } else if (whole != 0) {
            eb_copy(row, image + (iy * p->in_w + left) * p->in_c, p->kernel_w * width);
            row += p->kernel_w * width;
        } else {
            for (int32_t j = 0; j < p->kernel_w; j++, row += width) {
                const int32_t ix = left + j * p->dilation_w;
                if (ix < 0 || ix >= p->in_w)
                    (void)memset(row, p->in_zero, (size_t)width);
                else
                    eb_copy(row, image + (iy * p->in_w + ix) * p->in_c + channel, width);
            }
        }
    }
    while (row < end) *row++ = 0;
}

#if defined(EB_AVX2)
/* eb_products of two rows for 4 * `fours` channels: products of 16 bits, summed in pairs of neighbours. */
static inline void eb_products_avx2(const int8_t *one, const int8_t *two, int32_t depth, const int8_t *weight,
                                    int32_t lanes, const uint32_t *bias, int32_t fours, int32_t *acc,
                                    int32_t *acc_two) {
    __m256i sum[2][4];
    for (int32_t v = 0; v < fours; v++) sum[0][v] = sum[1][v] = _mm256_setzero_si256();
    for (int32_t k = 0; k < depth; k += 4, weight += 4 * lanes) {
        const __m256i a = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_loadu_si32(one + k)));
        const __m256i b = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_loadu_si32(two + k)));
        for (int32_t v = 0; v < fours; v++) {
            const __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(weight + 16 * v)));
            sum[0][v] = _mm256_add_epi32(sum[0][v], _mm256_madd_epi16(a, w));
            sum[1][v] = _mm256_add_epi32(sum[1][v], _mm256_madd_epi16(b, w));
        }
    }
    for (int32_t v = 0; v < fours; v++) {
        /* Each half holds two channels of both rows; the quarters are put in order. */
        __m256i both = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[0][v], sum[1][v]), 0xd8);
        const __m128i start = _mm_loadu_si128((const __m128i *)(const void *)(bias + 4 * v));
        both = _mm256_add_epi32(both, _mm256_broadcastsi128_si256(start));
        _mm_storeu_si128((__m128i *)(void *)(acc + 4 * v), _mm256_castsi256_si128(both));
        _mm_storeu_si128((__m128i *)(void *)(acc_two + 4 * v), _mm256_extracti128_si256(both, 1));
    }
}
#endif

/* acc[r][j] = bias + sum of codes * weights, for `rows` rows of codes and `lanes` output channels. */
static inline void eb_products(const int8_t *codes, int32_t depth, int32_t rows, const int8_t *weight,
                               const uint32_t *bias, int32_t lanes, int32_t acc[EB_ROWS][EB_LANES]) {
    uint32_t sum[EB_ROWS][EB_LANES]; /* unsigned: partial sums may wrap, the whole ones fit */
#if defined(EB_NEON)
    if (lanes == EB_LANES) {
        for (int32_t r = 0; r < rows; r++) {
            int32x4_t a[4];
            for (int32_t v = 0; v < 4; v++) a[v] = vreinterpretq_s32_u32(vld1q_u32(bias + 4 * v));
            for (int32_t k = 0; k < depth; k += 4) {
                int32_t four;
                memcpy(&four, codes + r * depth + k, 4);
                const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
                for (int32_t v = 0; v < 4; v++)
                    a[v] = vdotq_s32(a[v], vld1q_s8(weight + k * EB_LANES + 16 * v), x);
            }
            for (int32_t v = 0; v < 4; v++) vst1q_s32(acc[r] + 4 * v, a[v]);
        }
        return;
    }
#endif
    int32_t done = 0;
#if defined(EB_AVX2)
    done = lanes - lanes % 4;
    for (int32_t r = 0; r < rows; r += 2) {
        const int8_t *one = codes + r * depth, *two = r + 1 < rows ? one + depth : one;
        if (done == EB_LANES) {
            eb_products_avx2(one, two, depth, weight, lanes, bias, 4, acc[r], acc[r + 1]);
            continue;
        }
        for (int32_t j = 0; j < done; j += 4)
            eb_products_avx2(one, two, depth, weight + 4 * j, lanes, bias + j, 1, acc[r] + j, acc[r + 1] + j);
    }
    if (done == lanes) return;
#endif
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t j = done; j < lanes; j++) sum[r][j] = bias[j];
        for (int32_t k = 0; k < depth; k += 4) {
            const int8_t *x = codes + r * depth + k, *w = weight + k * lanes;
            for (int32_t j = done; j < lanes; j++)
                sum[r][j] += (uint32_t)(x[0] * w[4 * j] + x[1] * w[4 * j + 1] + x[2] * w[4 * j + 2] +
                                        x[3] * w[4 * j + 3]);
        }
        for (int32_t j = done; j < lanes; j++) acc[r][j] = (int32_t)sum[r][j];
    }
}

static inline void eb_conv(const eb_conv_t *p, const int8_t *x, int8_t *y, int8_t *scratch) {
    const int32_t channels = p->out_c / p->group, width = p->in_c / p->group;
    int32_t acc[EB_ROWS][EB_LANES];
    for (int32_t n = 0; n < p->batch; n++) {
        const int8_t *image = x + n * p->in_h * p->in_w * p->in_c;
        for (int32_t oy = 0; oy < p->out_h; oy++) {
            for (int32_t ox = 0; ox < p->out_w; ox += EB_ROWS) {
                const int32_t rows = eb_min(EB_ROWS, p->out_w - ox);
                int8_t *out = y + ((n * p->out_h + oy) * p->out_w + ox) * p->out_c;
                for (int32_t g = 0; g < p->group; g++) {
                    const int32_t begin = g * channels;
                    for (int32_t r = 0; r < rows; r++)
                        eb_gather(p, image, oy, ox + r, g * width, scratch + r * p->depth);
                    for (int32_t first = 0; first < channels; first += EB_LANES) {
                        const int32_t lanes = eb_min(EB_LANES, channels - first);
                        eb_products(scratch, p->depth, rows, p->weight + (begin + first) * p->depth,
                                    p->bias + begin + first, lanes, acc);
                        for (int32_t r = 0; r < rows; r++)
                            eb_codes(p, acc[r], begin + first, lanes, out + r * p->out_c + begin + first);
                    }
                }
            }
        }
    }
}

/* acc[j] += sum over the taps inside the image of (q - in_zero) * w, for `lanes` channels from q and w on. */
static inline void eb_taps(const eb_conv_t *p, const int8_t *image, const int8_t *weight, int32_t top, int32_t left,
                           int32_t lanes, int32_t *acc) {
    const int32_t channels = p->out_c, zero_point = p->in_zero;
#if defined(EB_VECTORS)
    eb_sums16 sum;
    memcpy(&sum, acc, sizeof sum);
#endif
    for (int32_t i = 0; i < p->kernel_h; i++) {
        const int32_t iy = top + i * p->dilation_h;
        if (iy < 0 || iy >= p->in_h) continue;
        for (int32_t k = 0; k < p->kernel_w; k++) {
            const int32_t ix = left + k * p->dilation_w;
            if (ix < 0 || ix >= p->in_w) continue;
            const int8_t *q = image + (iy * p->in_w + ix) * channels, *w = weight + (i * p->kernel_w + k) * channels;
#if defined(EB_VECTORS)
            if (lanes == EB_LANES) {
                eb_sums16 codes, weights;
                eb_widen(q, &codes);
                eb_widen(w, &weights);
                sum += (codes - zero_point) * weights;
                continue;
            }
#endif
            for (int32_t j = 0; j < lanes; j++) acc[j] += (q[j] - zero_point) * w[j];
        }
    }
#if defined(EB_VECTORS)
    if (lanes == EB_LANES) memcpy(acc, &sum, sizeof sum);
#endif
}

/* One filter a channel; taps outside the image stand for zeros and are left out. */
static inline void eb_depthwise(const eb_conv_t *p, const int8_t *x, int8_t *y, int8_t *scratch) {
    const int32_t channels = p->out_c;
    int32_t acc[EB_LANES] = {0};
    (void)scratch;
    for (int32_t n = 0; n < p->batch; n++, x += p->in_h * p->in_w * channels) {
        for (int32_t oy = 0; oy < p->out_h; oy++) {
            for (int32_t ox = 0; ox < p->out_w; ox++, y += channels) {
                for (int32_t first = 0; first < channels; first += EB_LANES) {
                    const int32_t lanes = eb_min(EB_LANES, channels - first);
                    for (int32_t j = 0; j < lanes; j++) acc[j] = (int32_t)p->bias[first + j];
                    eb_taps(p, x + first, p->weight + first, oy * p->stride_h - p->top, ox * p->stride_w - p->left,
                            lanes, acc);
                    eb_codes(p, acc, first, lanes, y + first);
                }
            }
        }
    }
}

/* How many of the first codes are added together by other means than one by one. */
static inline int32_t eb_add_many(const eb_binary_t *p, const int8_t *left, const int8_t *right, int8_t *y) {
    (void)p, (void)left, (void)right, (void)y;
    return 0;
}

#endif /* EB_VNNI */

/* ---- products of two tensors of codes -------------------------------------------------------------------------- */

typedef struct {
    int32_t dims[EB_RANK], a_step[EB_RANK], b_step[EB_RANK]; /* the matrices that are multiplied with one another */
    int32_t rows, depth, columns;
    int32_t a_zero, b_zero, out_zero, multiplier, shift;
} eb_matmul_t;

/* Moves on to the next place of a box, the last axis first; 0 behind the last one. */
static inline int eb_next(const int32_t *dims, int32_t axes, int32_t *place) {
    for (int32_t axis = axes - 1; axis >= 0; axis--) {
        if (++place[axis] < dims[axis]) return 1;
        place[axis] = 0;
    }
    return 0;
}

static inline int32_t eb_at(const int32_t *place, const int32_t *step, int32_t axes) {
    int32_t at = 0;
    for (int32_t axis = 0; axis < axes; axis++) at += place[axis] * step[axis];
    return at;
}

static inline void eb_matmul(const eb_matmul_t *p, const int8_t *a, const int8_t *b, int8_t *y) {
    int32_t place[EB_RANK] = {0};
    int32_t acc[EB_LANES];
    do {
        const int8_t *left = a + eb_at(place, p->a_step, EB_RANK), *right = b + eb_at(place, p->b_step, EB_RANK);
        for (int32_t i = 0; i < p->rows; i++, left += p->depth) {
            for (int32_t first = 0; first < p->columns; first += EB_LANES) {
                const int32_t lanes = eb_min(EB_LANES, p->columns - first);
                for (int32_t j = 0; j < lanes; j++) acc[j] = 0;
                for (int32_t k = 0; k < p->depth; k++) {
                    const int8_t *row = right + k * p->columns + first;
                    for (int32_t j = 0; j < lanes; j++) acc[j] += (left[k] - p->a_zero) * (row[j] - p->b_zero);
                }
                for (int32_t j = 0; j < lanes; j++)
                    *y++ = eb_code(eb_scale(acc[j], p->multiplier, p->shift), p->out_zero);
            }
        }
    } while (eb_next(p->dims, EB_RANK, place) != 0);
}

/* ---- sums and products, element by element --------------------------------------------------------------------- */

static inline int8_t eb_add_one(const eb_binary_t *p, int8_t a, int8_t b) {
    const int32_t left = eb_scale_down((a - p->a_zero) * (1 << 20), p->a_multiplier, p->a_shift);
    const int32_t right = eb_scale_down((b - p->b_zero) * (1 << 20), p->b_multiplier, p->b_shift);
    return eb_code(eb_scale(left + right, p->multiplier, p->shift), p->out_zero);
}

static inline int8_t eb_mul_one(const eb_binary_t *p, int8_t a, int8_t b) {
    return eb_code(eb_scale((a - p->a_zero) * (b - p->b_zero), p->multiplier, p->shift), p->out_zero);
}

#define EB_BINARY(name, one, many)                                                                              \
    static inline void name(const eb_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y) {                \
        const int32_t count = p->dims[EB_RANK - 1];                                                             \
        const int32_t a_step = p->a_step[EB_RANK - 1], b_step = p->b_step[EB_RANK - 1];                         \
        int32_t place[EB_RANK] = {0};                                                                           \
        do {                                                                                                    \
            const int8_t *left = a + eb_at(place, p->a_step, EB_RANK - 1);                                      \
            const int8_t *right = b + eb_at(place, p->b_step, EB_RANK - 1);                                     \
            int32_t i = many(p, left, right, y);                                                                \
            for (y += i; i < count; i++) *y++ = one(p, left[i * a_step], right[i * b_step]);                    \
        } while (eb_next(p->dims, EB_RANK - 1, place) != 0);                                                    \
    }
#define EB_NONE(p, left, right, y) 0
EB_BINARY(eb_add, eb_add_one, eb_add_many)
EB_BINARY(eb_mul, eb_mul_one, EB_NONE)

/* ---- pooling ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t batch, in_h, in_w, channels, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w;
    int32_t top, left, dilation_h, dilation_w;
    int32_t padding; /* average: whether what lies outside counts, as zeros */
    int32_t in_zero;
} eb_pool_t;

/* sum / count, half away from zero */
static inline int8_t eb_average(int32_t sum, int32_t count) {
    return (int8_t)((sum > 0 ? sum + count / 2 : sum - count / 2) / count);
}

#define EB_POOL(name, start, take, finish)                                                                      \
    static inline void name(const eb_pool_t *p, const int8_t *x, int8_t *y) {                                   \
        int32_t acc[EB_LANES];                                                                                  \
        for (int32_t n = 0; n < p->batch; n++, x += p->in_h * p->in_w * p->channels)                            \
            for (int32_t oy = 0; oy < p->out_h; oy++)                                                           \
                for (int32_t ox = 0; ox < p->out_w; ox++, y += p->channels)                                     \
                    for (int32_t first = 0; first < p->channels; first += EB_LANES) {                           \
                        const int32_t lanes = eb_min(EB_LANES, p->channels - first);                            \
                        int32_t count = 0;                                                                      \
                        for (int32_t j = 0; j < EB_LANES; j++) acc[j] = start;                                  \
                        for (int32_t i = 0; i < p->kernel_h; i++) {                                             \
                            const int32_t iy = oy * p->stride_h - p->top + i * p->dilation_h;                   \
                            if (iy < 0 || iy >= p->in_h) continue;                                              \
                            for (int32_t k = 0; k < p->kernel_w; k++) {                                         \
                                const int32_t ix = ox * p->stride_w - p->left + k * p->dilation_w;              \
                                if (ix < 0 || ix >= p->in_w) continue;                                          \
                                const int8_t *q = x + (iy * p->in_w + ix) * p->channels + first;                \
                                for (int32_t j = 0; j < lanes; j++) acc[j] = take(acc[j], q[j]);                \
                                count++;                                                                        \
                            }                                                                                   \
                        }                                                                                       \
                        for (int32_t j = 0; j < lanes; j++) y[first + j] = finish(p, acc[j], count);            \
                    }                                                                                           \
    }

static inline int32_t eb_plus(int32_t a, int32_t b) { return a + b; }
static inline int8_t eb_largest(const eb_pool_t *p, int32_t acc, int32_t count) {
    (void)p;
    (void)count;
    return (int8_t)acc;
}
static inline int8_t eb_mean_of(const eb_pool_t *p, int32_t acc, int32_t count) {
    const int32_t whole = p->kernel_h * p->kernel_w;
    const int32_t outside = p->padding != 0 ? whole - count : 0;
    return eb_average(acc + outside * p->in_zero, count + outside);
}
EB_POOL(eb_max_pool, -128, eb_max, eb_largest)
EB_POOL(eb_average_pool, 0, eb_plus, eb_mean_of)

typedef struct {
    int32_t batch, count, channels, in_zero, out_zero, multiplier, shift;
} eb_mean_t;

/* The mean of each channel over all pixels. */
static inline void eb_mean(const eb_mean_t *p, const int8_t *x, int8_t *y) {
    int32_t acc[EB_LANES];
    for (int32_t n = 0; n < p->batch; n++, x += p->count * p->channels)
        for (int32_t first = 0; first < p->channels; first += EB_LANES) {
            const int32_t lanes = eb_min(EB_LANES, p->channels - first);
            for (int32_t j = 0; j < lanes; j++) acc[j] = -p->count * p->in_zero;
            for (int32_t i = 0; i < p->count; i++)
                for (int32_t j = 0; j < lanes; j++) acc[j] += x[i * p->channels + first + j];
            for (int32_t j = 0; j < lanes; j++) *y++ = eb_code(eb_scale(acc[j], p->multiplier, p->shift), p->out_zero);
        }
}

typedef struct {
    const int32_t *exps; /* exp of a code that lies 255 to 0 below the row's largest, Q0.31 */
    int32_t rows, depth, multiplier, shift, out_zero;
} eb_softmax_t;

/* 1 / total of Q12.19: a significand in Q0.31, and the sum's power of two. Three steps of Newton's method. */
static inline int32_t eb_reciprocal(int32_t total, int32_t *power) {
    uint32_t bits = (uint32_t)total;
    for (*power = 12; (bits >> 31) == 0u; bits <<= 1) (*power)--;
    const int32_t half = (int32_t)(bits >> 1); /* the significand in [1/2, 1) */
    int32_t x = 1515870810 + eb_high(half, -1010580540); /* 48/17 - 32/17 d in Q2.29 */
    for (int32_t i = 0; i < 3; i++) x += eb_saturated((int64_t)eb_high(x, (1 << 29) - eb_high(half, x)) * 4);
    return eb_saturated((int64_t)x * 2);
}

/* Each code's share of its row's sum of exponentials, in 1/256, then in the output's codes. */
static inline void eb_softmax(const eb_softmax_t *p, const int8_t *x, int8_t *y) {
    for (int32_t r = 0; r < p->rows; r++, x += p->depth, y += p->depth) {
        int32_t largest = -128, total = 0, power;
        for (int32_t j = 0; j < p->depth; j++) largest = eb_max(largest, x[j]);
        for (int32_t j = 0; j < p->depth; j++) total += eb_halved(p->exps[255 + x[j] - largest], 12);
        const int32_t whole = eb_reciprocal(total, &power);
        for (int32_t j = 0; j < p->depth; j++) {
            const int32_t part = eb_high(whole, p->exps[255 + x[j] - largest]);
            const int32_t share = power > 8 ? 0 : eb_min(255, eb_halved(part, power + 23));
            y[j] = eb_code(eb_scale(share, p->multiplier, p->shift), p->out_zero);
        }
    }
}

/* ---- codes from place to place ---------------------------------------------------------------------------------- */

typedef struct {
    const int8_t *table; /* of 256 codes, or NULL: codes as they are */
    int32_t dims[EB_RANK], x_step[EB_RANK], y_step[EB_RANK], x_begin, y_begin;
} eb_move_t;

static inline void eb_move(const eb_move_t *p, const int8_t *x, int8_t *y) {
    const int32_t count = p->dims[EB_RANK - 1], x_step = p->x_step[EB_RANK - 1], y_step = p->y_step[EB_RANK - 1];
    int32_t place[EB_RANK] = {0};
    do {
        const int8_t *from = x + p->x_begin + eb_at(place, p->x_step, EB_RANK - 1);
        int8_t *to = y + p->y_begin + eb_at(place, p->y_step, EB_RANK - 1);
        if (p->table != NULL)
            for (int32_t i = 0; i < count; i++) to[i * y_step] = p->table[from[i * x_step] + 128];
        else
            for (int32_t i = 0; i < count; i++) to[i * y_step] = from[i * x_step];
    } while (eb_next(p->dims, EB_RANK - 1, place) != 0);
}

typedef struct {
    const int32_t *index; /* of `count` places */
    int32_t outer, length, count, inner;
} eb_take_t;

/* y[o][i] = x[o][index[i]], rows of `inner` codes, `length` of them for each o. */
static inline void eb_take(const eb_take_t *p, const int8_t *x, int8_t *y) {
    for (int32_t o = 0; o < p->outer; o++, x += p->length * p->inner)
        for (int32_t i = 0; i < p->count; i++, y += p->inner)
            (void)memcpy(y, x + p->index[i] * p->inner, (size_t)p->inner);
}

typedef struct {
    int32_t outer, count, inner;
} eb_reduce_max_t;

/* The largest of x[o][0], x[o][1], ... in each of `inner` places. */
static inline void eb_reduce_max(const eb_reduce_max_t *p, const int8_t *x, int8_t *y) {
    for (int32_t o = 0; o < p->outer; o++, y += p->inner) {
        (void)memcpy(y, x, (size_t)p->inner);
        x += p->inner;
        for (int32_t i = 1; i < p->count; i++, x += p->inner)
            for (int32_t j = 0; j < p->inner; j++)
                if (x[j] > y[j]) y[j] = x[j];
    }
}

typedef struct {
    int32_t count, value;
} eb_fill_t;

static inline void eb_fill(const eb_fill_t *p, int8_t *y) { (void)memset(y, p->value, (size_t)p->count); }

#endif
