/*
 * Between floats and the codes of a network: the only floating point of eightbit's C, for hosts that have some.
 * A sensor whose readings are integers needs none of it: code = zero_point + reading / step, once for all.
 *
 *     code = saturate(round_half_even(x / scale) + zero_point), NaN gives -128;    x = scale * (code - zero_point)
 */
#ifndef EB_FLOAT_H
#define EB_FLOAT_H

#include <stdint.h>

static inline void eb_quantize(const float *x, int32_t count, float scale, int32_t zero_point, int8_t *codes) {
    const float low = (float)(-128 - zero_point), high = (float)(127 - zero_point);
    for (int32_t i = 0; i < count; i++) {
        float steps = x[i] / scale;
        if (!(steps > low)) steps = low;
        if (steps > high) steps = high;
        int32_t whole = (int32_t)steps; /* towards zero */
        const float rest = steps - (float)whole;
        if (rest > 0.5f || (rest == 0.5f && whole % 2 != 0)) whole++;
        if (rest < -0.5f || (rest == -0.5f && whole % 2 != 0)) whole--;
        codes[i] = (int8_t)(whole + zero_point);
    }
}

static inline void eb_dequantize(const int8_t *codes, int32_t count, float scale, int32_t zero_point, float *x) {
    for (int32_t i = 0; i < count; i++) x[i] = (float)(codes[i] - zero_point) * scale;
}

#endif
