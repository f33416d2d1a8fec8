/*
 * Convolutions for x86 with AVX-512 VNNI, whose instruction adds to each of 16 sums four products, unsigned times signed.
 *
 * The input rows of an output row are laid into `scratch`, once each: as unsigned codes, q + 128, with the padding
 * beside them, so that no pixel is at a border. Sums of up to 7 pixels and 2 x 16 channels stay in registers until
 * they are whole. The integers are those of eb_kernels.h, which includes this.
 */
#ifndef EB_AVX512_H
#define EB_AVX512_H

#include <immintrin.h>

#define EB_INLINE static inline __attribute__((always_inline)) /* loops of constant length unroll, arrays are registers */
#define EB_PIXELS 7
#define EB_BLOCKS 2

/* What makes codes of the sums of 16 channels. */
typedef struct {
    __m512i start, even, odd; /* biases; multipliers of the even and the odd channels, doubled */
    __m512i add, shift, late; /* half a step and the zero point, which is added late where the shift is too far */
    __m512i add_even, add_odd; /* the same in the products' upper halves, and half a unit in the lower ones */
    int32_t first, lanes;     /* channels */
    __mmask16 mask;
} eb_block_t;

static inline void eb_spread(eb_block_t *b) {
    const __m512i half = _mm512_set1_epi64(INT64_C(1) << 31);
    b->add_even = _mm512_or_si512(_mm512_slli_epi64(b->add, 32), half);
    b->add_odd = _mm512_mask_mov_epi32(half, 0xaaaa, b->add);
}

static inline void eb_block(const eb_conv_t *p, int32_t first, int32_t lanes, eb_block_t *b) {
    const __m512i one = _mm512_set1_epi32(1), zero_point = _mm512_set1_epi32(p->out_zero);
    b->first = first;
    b->lanes = lanes;
    b->mask = (__mmask16)((1u << lanes) - 1u);
    b->start = _mm512_maskz_loadu_epi32(b->mask, p->bias + first);
    b->even = _mm512_slli_epi32(_mm512_maskz_loadu_epi32(b->mask, p->multiplier + first), 1);
    b->odd = _mm512_srli_epi64(b->even, 32);
    b->shift = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(b->mask, p->shift + first));
    b->shift = _mm512_sub_epi32(_mm512_setzero_si512(), b->shift);
    const __mmask16 near = _mm512_cmplt_epi32_mask(b->shift, _mm512_set1_epi32(23));
    b->late = _mm512_mask_mov_epi32(zero_point, near, _mm512_setzero_si512());
    b->add = _mm512_add_epi32(_mm512_sllv_epi32(one, _mm512_sub_epi32(b->shift, one)),
                              _mm512_maskz_sllv_epi32(near, zero_point, b->shift));
    eb_spread(b);
}

/* eb_code(eb_scale_down()) of 16 sums, for multipliers below 1/2: the products' upper halves, shifted. A doubled
 * multiplier is 2^32 less when it is read as signed, for which the sum itself is added to the upper half. */
EB_INLINE __m128i eb_narrowed(const eb_block_t *b, __m512i acc) {
    __m512i even = _mm512_mul_epi32(acc, b->even);
    __m512i odd = _mm512_mul_epi32(_mm512_shuffle_epi32(acc, _MM_PERM_DDBB), b->odd);
#if EB_SINGLE_ROUNDING
    acc = _mm512_add_epi32(acc, b->add);
#else
    even = _mm512_add_epi64(even, b->add_even);
    odd = _mm512_add_epi64(odd, b->add_odd);
    acc = _mm512_add_epi32(acc, _mm512_srai_epi32(acc, 31)); /* ties away from zero */
#endif
    const __m512i high = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
    const __m512i scaled = _mm512_srav_epi32(_mm512_add_epi32(high, acc), b->shift);
    return _mm512_cvtsepi32_epi8(_mm512_add_epi32(scaled, b->late));
}

/* Sums of one pixel and block, as codes to the pixel's channels from `y` on. */
EB_INLINE void eb_put(const eb_block_t *b, __m512i acc, int8_t *y) {
    if (b->lanes == EB_LANES)
        _mm_storeu_si128((__m128i *)(void *)(y + b->first), eb_narrowed(b, acc));
    else
        _mm_mask_storeu_epi8(y + b->first, b->mask, eb_narrowed(b, acc));
}

/* The same for any multipliers; not part of the loops, since it is rare and long. */
static __attribute__((noinline)) void eb_put_rare(const eb_conv_t *p, const eb_block_t *b, const int32_t *acc,
                                                  int8_t *y) {
    eb_codes(p, acc, b->first, b->lanes, y + b->first);
}

/* q to q + 128, as unsigned codes. */
static inline void eb_flip(int8_t *to, const int8_t *from, int32_t count) {
    for (; count >= 64; count -= 64, to += 64, from += 64)
        _mm512_storeu_si512(to, _mm512_xor_si512(_mm512_loadu_si512(from), _mm512_set1_epi8(-128)));
    for (; count > 0; count--) *to++ = (int8_t)(*from++ ^ -128);
}

/* The stretches of codes that an output pixel reads: `count` rows of `length` bytes, the next pixel's `step` further. */
typedef struct {
    const int8_t *codes;
    int32_t count, length, step;
    int32_t line, first, every, held; /* bytes of a row; of `held` rows in a ring the first one, and the next */
} eb_rows_t;

/* The sums have names, a and b with the pixel's number: arrays of them would not stay in registers. */
#define EB_EACH_PIXEL(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6)
#define EB_SUMS(r) __m512i a##r = b[0].start, b##r = b[EB_BLOCKS - 1].start;
#define EB_ADD(r)                                                                                               \
    if (r < pixels) {                                                                                           \
        const __m512i four = eb_four(from + r * step + k);                                                      \
        a##r = _mm512_dpbusd_epi32(a##r, four, wa);                                                             \
        if (blocks == 2) b##r = _mm512_dpbusd_epi32(b##r, four, wb);                                            \
    }
#define EB_PUT(r)                                                                                               \
    if (r < pixels) {                                                                                           \
        eb_put(&b[0], a##r, y + r * p->out_c);                                                                  \
        if (blocks == 2) eb_put(&b[1], b##r, y + r * p->out_c);                                                 \
    }
#define EB_KEEP(r)                                                                                              \
    if (r < pixels) {                                                                                           \
        _mm512_storeu_si512(sums[r][0], a##r);                                                                  \
        _mm512_storeu_si512(sums[r][1], b##r);                                                                  \
    }

EB_INLINE __m512i eb_four(const int8_t *codes) {
    int32_t four;
    memcpy(&four, codes, 4);
    return _mm512_set1_epi32(four);
}

/* Sums of `pixels` pixels from `at` on and 16 * `blocks` channels, as codes to `y`. */
EB_INLINE void eb_tile(const eb_conv_t *p, const eb_rows_t *rows, int32_t at, const int8_t *weight,
                       const eb_block_t *b, int32_t blocks, int32_t pixels, int8_t *y) {
    const int64_t next = EB_LANES * p->depth, step = rows->step, length = rows->length;
    EB_EACH_PIXEL(EB_SUMS)
    for (int32_t i = 0, row = rows->first; i < rows->count; i++, row += rows->every) {
        row -= row >= rows->held ? rows->held : 0;
        const int8_t *from = rows->codes + row * rows->line + at * step;
        for (int64_t k = 0; k < length; k += 4, weight += 4 * b->lanes) {
            const __m512i wa = _mm512_maskz_loadu_epi32(b->mask, weight);
            const __m512i wb = blocks == 2 ? _mm512_loadu_si512(weight + next) : wa;
            EB_EACH_PIXEL(EB_ADD)
        }
    }
    if (!p->rare) {
        EB_EACH_PIXEL(EB_PUT)
        return;
    }
    int32_t sums[EB_PIXELS][EB_BLOCKS][EB_LANES];
    EB_EACH_PIXEL(EB_KEEP)
    for (int32_t r = 0; r < pixels; r++)
        for (int32_t c = 0; c < blocks; c++) eb_put_rare(p, &b[c], sums[r][c], y + r * p->out_c);
}

/* One output row, for the channels of one or two blocks. */
EB_INLINE void eb_strip(const eb_conv_t *p, const eb_rows_t *rows, const int8_t *weight, const eb_block_t *b,
                        int32_t blocks, int8_t *y) {
    int32_t at = 0;
    for (; at + EB_PIXELS <= p->out_w; at += EB_PIXELS)
        eb_tile(p, rows, at, weight, b, blocks, EB_PIXELS, y + at * p->out_c);
    y += at * p->out_c;
    switch (p->out_w - at) {
    case 6: eb_tile(p, rows, at, weight, b, blocks, 6, y); break;
    case 5: eb_tile(p, rows, at, weight, b, blocks, 5, y); break;
    case 4: eb_tile(p, rows, at, weight, b, blocks, 4, y); break;
    case 3: eb_tile(p, rows, at, weight, b, blocks, 3, y); break;
    case 2: eb_tile(p, rows, at, weight, b, blocks, 2, y); break;
    case 1: eb_tile(p, rows, at, weight, b, blocks, 1, y); break;
    default: break;
    }
}

/* Row `iy` of the input from `channel` on, as unsigned codes; on both sides of it the padding is there already. */
static inline void eb_lay(const eb_conv_t *p, const int8_t *image, int32_t iy, int32_t channel, int32_t line,
                          int8_t *to) {
    const int32_t width = p->in_c / p->group;
    const int32_t begin = eb_min(p->left * width, line), end = eb_min((p->left + p->in_w) * width, line);
    if (iy < 0 || iy >= p->in_h) {
        memset(to, p->in_zero ^ -128, (size_t)line);
        return;
    }
    image += iy * p->in_w * p->in_c + channel;
    if (p->group == 1)
        eb_flip(to + begin, image, end - begin);
    else
        for (int32_t at = begin; at < end; at += width, image += p->in_c) eb_flip(to + at, image, width);
}

/* The inputs of each pixel of an output row one behind the other, for rows whose fours would cross their ends. Copies
 * of four bytes run over into what is written after them, or into room between the pixels. */
static inline void eb_line_up(const eb_conv_t *p, const eb_rows_t *rows, int8_t *to) {
    const int32_t width = p->in_c / p->group, taps = p->dilation_w == 1 ? 1 : p->kernel_w;
    const int32_t count = taps == 1 ? p->kernel_w * width : width, next = p->depth + 4;
    for (int32_t i = 0, row = rows->first; i < rows->count; i++, row += rows->every) {
        row -= row >= rows->held ? rows->held : 0;
        const int8_t *from = rows->codes + row * rows->line;
        for (int32_t j = 0; j < taps; j++, from += p->dilation_w * width, to += count)
            for (int32_t k = 0; k < count; k += 4)
                for (int32_t ox = 0; ox < p->out_w; ox++) memcpy(to + ox * next + k, from + ox * rows->step + k, 4);
    }
}

static inline void eb_conv(const eb_conv_t *p, const int8_t *x, int8_t *y, int8_t *scratch) {
    const int32_t channels = p->out_c / p->group, width = p->in_c / p->group, stretch = p->kernel_w * width;
    const int32_t line = ((p->out_w - 1) * p->stride_w + (p->kernel_w - 1) * p->dilation_w + 1) * width;
    const int32_t held = (p->kernel_h - 1) * p->dilation_h + 1;
    int8_t *const lined_up = p->dilation_w == 1 && stretch % 4 == 0 ? NULL : scratch + held * line + 4;
    eb_block_t b[EB_BLOCKS];
    memset(scratch, p->in_zero ^ -128, (size_t)(held * line));
    for (int32_t n = 0; n < p->batch; n++, x += p->in_h * p->in_w * p->in_c) {
        int32_t laid = -p->top; /* rows above are in the ring, or needed no more */
        for (int32_t oy = 0; oy < p->out_h; oy++, y += p->out_w * p->out_c) {
            const int32_t top = oy * p->stride_h - p->top;
            for (int32_t g = 0; g < p->group; g++) {
                for (int32_t iy = p->group == 1 ? eb_max(laid, top) : top; iy < top + held; iy++)
                    eb_lay(p, x, iy, g * width, line, scratch + (iy + p->top) % held * line);
                laid = top + held;
                eb_rows_t rows = {scratch, p->kernel_h, stretch, p->stride_w * width,
                                  line,    (top + p->top) % held, p->dilation_h, held};
                if (lined_up) {
                    const eb_rows_t single = {lined_up, 1, p->depth, p->depth + 4, 0, 0, 0, 1};
                    eb_line_up(p, &rows, lined_up);
                    rows = single;
                }
                const int8_t *weight = p->weight + g * channels * p->depth;
                for (int32_t first = 0, blocks; first < channels; first += blocks * EB_LANES) {
                    blocks = first + EB_BLOCKS * EB_LANES <= channels ? EB_BLOCKS : 1;
                    for (int32_t c = 0; c < blocks; c++) {
                        const int32_t from = first + c * EB_LANES;
                        eb_block(p, g * channels + from, eb_min(EB_LANES, channels - from), &b[c]);
                    }
                    if (blocks == EB_BLOCKS)
                        eb_strip(p, &rows, weight + first * p->depth, b, EB_BLOCKS, y);
                    else
                        eb_strip(p, &rows, weight + first * p->depth, b, 1, y);
                }
            }
        }
    }
}

/* eb_scale_down((code - zero_point) << 20) of 16 codes: the multiplier is taken in two parts, for products of 32 bits. */
EB_INLINE __m512i eb_raised(const int8_t *codes, int32_t zero_point, int32_t multiplier, int32_t shift) {
    const int two = !EB_SINGLE_ROUNDING, first = two || shift == 0; /* roundings; whether of the lower part's end */
    const __m512i lower = _mm512_set1_epi32(multiplier & 2047), upper = _mm512_set1_epi32(multiplier >> 11);
    const __m512i add = _mm512_set1_epi32(shift == 0 ? 0 : 1 << (-shift - 1));
    const __m512i ties = _mm512_set1_epi32(two && shift != 0 ? -1 : 0);
    const __m512i code = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)codes));
    const __m512i steps = _mm512_sub_epi32(code, _mm512_set1_epi32(zero_point));
    if (multiplier == 1 << 30 && shift == 0) return _mm512_slli_epi32(steps, 19); /* of the larger scale: a half */
    __m512i high = _mm512_add_epi32(_mm512_mullo_epi32(steps, lower), _mm512_set1_epi32(first ? 1024 : 0));
    high = _mm512_add_epi32(_mm512_mullo_epi32(steps, upper), _mm512_srai_epi32(high, 11));
    high = _mm512_add_epi32(high, _mm512_and_si512(_mm512_srai_epi32(high, 31), ties));
    return _mm512_srav_epi32(_mm512_add_epi32(high, add), _mm512_set1_epi32(-shift));
}

/* Sums of the first codes, in sixteens; how many. */
static inline int32_t eb_add_many(const eb_binary_t *p, const int8_t *left, const int8_t *right, int8_t *y) {
    const int32_t axis = EB_RANK - 1, count = p->dims[axis] / 16 * 16, shift = -p->shift;
    if (p->a_step[axis] != 1 || p->b_step[axis] != 1 || shift < 1 || shift > 22 || p->multiplier == 0) return 0;
    eb_block_t b = {.even = _mm512_set1_epi32((int32_t)(2u * (uint32_t)p->multiplier)), .first = 0, .lanes = EB_LANES};
    b.odd = b.even;
    b.add = _mm512_set1_epi32((1 << (shift - 1)) + p->out_zero * (1 << shift));
    b.shift = _mm512_set1_epi32(shift);
    b.late = _mm512_setzero_si512();
    eb_spread(&b);
    for (int32_t i = 0; i < count; i += 16) {
        const __m512i one = eb_raised(left + i, p->a_zero, p->a_multiplier, p->a_shift);
        const __m512i two = eb_raised(right + i, p->b_zero, p->b_multiplier, p->b_shift);
        eb_put(&b, _mm512_add_epi32(one, two), y + i);
    }
    return count;
}

/* Bytes of 16 channels in four rows, to [channel][row]. */
EB_INLINE __m512i eb_fours(const int8_t *const *row, __mmask16 mask) {
    const __m512i lanes = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    const __m128i bytes = _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i all = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(mask, row[0]));
    all = _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(mask, row[1]), 1);
    all = _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(mask, row[2]), 2);
    all = _mm512_inserti32x4(all, _mm_maskz_loadu_epi8(mask, row[3]), 3);
    return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(lanes, all), _mm512_broadcast_i32x4(bytes));
}

/* 16 channels of all columns that an output row reads, four rows of the window together: [column][rows / 4][16][4]. */
static inline void eb_lay_fours(const eb_conv_t *p, const int8_t *image, int32_t top, const eb_block_t *b,
                                int32_t columns, int8_t *to) {
    const int32_t quads = (p->kernel_h + 3) / 4;
    const int32_t begin = eb_min(p->left, columns), end = eb_min(p->left + p->in_w, columns);
    const __m512i flip = _mm512_set1_epi8(-128), zero_points = _mm512_set1_epi8((char)p->in_zero);
    int8_t outside[EB_LANES];
    memset(outside, p->in_zero, sizeof outside);
    for (int32_t q = 0; q < quads; q++) {
        const int8_t *row[4];
        int32_t step[4];
        for (int32_t i = 0; i < 4; i++) {
            const int32_t iy = top + (4 * q + i) * p->dilation_h;
            const int inside = iy >= 0 && iy < p->in_h;
            row[i] = inside ? image + iy * p->in_w * p->in_c + b->first : outside;
            step[i] = inside ? p->in_c : 0;
        }
        for (int32_t c = 0; c < columns; c++) {
            __m512i codes = zero_points;
            if (c >= begin && c < end) {
                codes = eb_fours(row, b->mask);
                for (int32_t i = 0; i < 4; i++) row[i] += step[i];
            }
            _mm512_storeu_si512(to + 64 * (c * quads + q), _mm512_xor_si512(codes, flip));
        }
    }
}

/* What the sums of a block's channels begin with, then its weights as [column][rows / 4][16][4]. */
static inline void eb_pack_depthwise(const eb_conv_t *p, const eb_block_t *b, int8_t *to) {
    const int32_t quads = (p->kernel_h + 3) / 4, channels = p->out_c;
    const int8_t none[EB_LANES] = {0};
    __m512i sum = _mm512_setzero_si512();
    int8_t *weight = to + 64;
    for (int32_t k = 0; k < p->kernel_w; k++)
        for (int32_t q = 0; q < quads; q++, weight += 64) {
            const int8_t *row[4];
            for (int32_t i = 0; i < 4; i++) {
                const int32_t tap = 4 * q + i;
                row[i] = tap < p->kernel_h ? p->weight + (tap * p->kernel_w + k) * channels + b->first : none;
            }
            const __m512i fours = eb_fours(row, b->mask);
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), fours);
            _mm512_storeu_si512(weight, fours);
        }
    sum = _mm512_mullo_epi32(sum, _mm512_set1_epi32(128 + p->in_zero));
    _mm512_storeu_si512(to, _mm512_sub_epi32(b->start, sum));
}

/* Sums of `pixels` pixels whose codes begin at `x`, as codes to `y`. */
EB_INLINE void eb_depthwise_tile(const eb_conv_t *p, const int8_t *x, const int8_t *weight, const eb_block_t *b,
                                 int32_t pixels, int8_t *y) {
    const int32_t size = 64 * ((p->kernel_h + 3) / 4), step = p->stride_w * size, every = p->dilation_w * size;
    __m512i acc[4];
    for (int32_t r = 0; r < pixels; r++) acc[r] = b->start;
    for (int32_t k = 0; k < p->kernel_w; k++, x += every)
        for (int32_t q = 0; q < size; q += 64, weight += 64) {
            const __m512i w = _mm512_loadu_si512(weight);
            for (int32_t r = 0; r < pixels; r++)
                acc[r] = _mm512_dpbusd_epi32(acc[r], _mm512_loadu_si512(x + r * step + q), w);
        }
    for (int32_t r = 0; r < pixels; r++) {
        int32_t sums[EB_LANES];
        if (!p->rare) {
            eb_put(b, acc[r], y + r * p->out_c);
        } else {
            _mm512_storeu_si512(sums, acc[r]);
            eb_put_rare(p, b, sums, y + r * p->out_c);
        }
    }
}

static inline void eb_depthwise(const eb_conv_t *p, const int8_t *x, int8_t *y, int8_t *scratch) {
    const int32_t channels = p->out_c, size = 64 * ((p->kernel_h + 3) / 4);
    const int32_t columns = (p->out_w - 1) * p->stride_w + (p->kernel_w - 1) * p->dilation_w + 1;
    const int32_t packed = 64 + p->kernel_w * size;
    eb_block_t b;
    for (int32_t n = 0; n < p->batch; n++, x += p->in_h * p->in_w * channels)
        for (int32_t oy = 0; oy < p->out_h; oy++, y += p->out_w * channels)
            for (int32_t first = 0; first < channels; first += EB_LANES) {
                int8_t *const weight = scratch + columns * size + first / EB_LANES * packed;
                int32_t ox = 0;
                eb_block(p, first, eb_min(EB_LANES, channels - first), &b);
                if (n == 0 && oy == 0) eb_pack_depthwise(p, &b, weight);
                b.start = _mm512_loadu_si512(weight);
                eb_lay_fours(p, x, oy * p->stride_h - p->top, &b, columns, scratch);
                for (; ox + 4 <= p->out_w; ox += 4)
                    eb_depthwise_tile(p, scratch + ox * p->stride_w * size, weight + 64, &b, 4, y + ox * channels);
                for (; ox < p->out_w; ox++)
                    eb_depthwise_tile(p, scratch + ox * p->stride_w * size, weight + 64, &b, 1, y + ox * channels);
            }
}

#endif
