/* The inner loops of sweep.py: bit patterns of fp32 numbers, and the errors of results. */
#include <math.h>
#include <stdint.h>
#include <string.h>

__attribute__((visibility("default"))) void sweep_patterns(uint32_t start, uint32_t step, int32_t count, float *x)
{
    for (int32_t i = 0; i < count; ++i) {
        uint32_t bits = start + step * (uint32_t)i;
        memcpy(x + i, &bits, sizeof bits);
    }
}

/* Infinity as 2^128: the largest fp32 number is one unit away. */
static double limited(double value)
{
    const double end = 0x1p128;
    return value > end ? end : value < -end ? -end : value;
}

/* One unit in the last place of an exact result that is rounded to fp32; of subnormal numbers, that of the smallest normal ones. */
static double unit_of(double exact)
{
    float rounded = (float)exact;
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    bits &= 0x7F800000u;
    bits = bits < 0x00800000u ? 0x00800000u : bits > 0x7F000000u ? 0x7F000000u : bits;
    memcpy(&rounded, &bits, sizeof bits);
    return rounded * 0x1p-23;
}

static double difference(float result, double exact)
{
    int missing = isnan(result) != 0, due = isnan(exact) != 0;
    if (missing | due)
        return missing == due ? 0.0 : INFINITY;
    return fabs(limited(result) - limited(exact));
}

/* The largest error in units of the last place, and where it is. */
__attribute__((visibility("default"))) double sweep_units(const float *x, const float *result, const double *exact, int32_t count,
                                                          int32_t *where)
{
    double worst = -1.0;
    (void)x;
    for (int32_t i = 0; i < count; ++i) {
        double error = difference(result[i], exact[i]) / unit_of(exact[i]);
        if (error > worst) {
            worst = error;
            *where = i;
        }
    }
    return worst;
}

/* The same of the absolute error over max(1, |x|). */
__attribute__((visibility("default"))) double sweep_relative_to_argument(const float *x, const float *result, const double *exact,
                                                                         int32_t count, int32_t *where)
{
    double worst = -1.0;
    for (int32_t i = 0; i < count; ++i) {
        double size = limited(fabs((double)x[i]));
        double error = difference(result[i], exact[i]) / (size > 1.0 ? size : 1.0);
        if (error > worst) {
            worst = error;
            *where = i;
        }
    }
    return worst;
}
