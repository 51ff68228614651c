/* What this machine can do at most with narrow numbers: multiply-adds per second, one counting as two operations.
 *
 * usage: peak_narrow; prints JSON with the rates of one thread: fp32 (fused multiply-adds), pairs (vpmaddwd and vpaddd: exact products of
 * bytes widened to 16 bits), bytes (vpdpbusd), bf16 (vdpbf16ps); 0 where the processor lacks the instruction.
 * Built with -O3 -march=native.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <time.h>

#if defined(__AVX512BW__)
#define BYTES 64
#define CHAINS 24 /* of 32 registers */
#elif defined(__AVX2__)
#define BYTES 32
#define CHAINS 12 /* of 16 registers */
#else
#error "an x86-64 processor with AVX2 or AVX-512 is needed"
#endif

typedef int vector __attribute__((vector_size(BYTES)));

enum { STEPS = 1000000, REPEATS = 7 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Operations per second of ROUND, over independent chains that hide its latency; each yields `products` multiply-adds. */
#define MEASURE(name, products, ROUND)                                            \
  static double name(void) {                                                      \
    double best = 0;                                                              \
    for (int repeat = 0; repeat < REPEATS; repeat++) {                            \
      vector sum[CHAINS] = {0}, a = {0}, b = {0};                                 \
      const double start = now();                                                 \
      for (int step = 0; step < STEPS; step++) {                                  \
        _Pragma("GCC unroll 32") for (int chain = 0; chain < CHAINS; chain++) ROUND; \
      }                                                                           \
      const double rate = 2.0 * (products) * CHAINS * STEPS / (now() - start);    \
      for (int chain = 0; chain < CHAINS; chain++) __asm__ volatile("" ::"v"(sum[chain])); \
      if (rate > best) best = rate;                                               \
    }                                                                             \
    return best;                                                                  \
  }

MEASURE(fp32, BYTES / 4, __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(sum[chain]) : "v"(a), "v"(b)))

MEASURE(pairs, BYTES / 2, {
  vector product;
  __asm__ volatile("vpmaddwd %2, %1, %0" : "=v"(product) : "v"(a), "v"(b));
  __asm__ volatile("vpaddd %1, %0, %0" : "+v"(sum[chain]) : "v"(product));
})

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
MEASURE(bytes, BYTES, __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum[chain]) : "v"(a), "v"(b)))
#else
static double bytes(void) { return 0; }
#endif

#if defined(__AVX512BF16__)
MEASURE(bf16, BYTES / 2, __asm__ volatile("vdpbf16ps %2, %1, %0" : "+v"(sum[chain]) : "v"(a), "v"(b)))
#else
static double bf16(void) { return 0; }
#endif

int main(void) {
  printf("{\"fp32\": %.6e, \"pairs\": %.6e, \"bytes\": %.6e, \"bf16\": %.6e}\n", fp32(), pairs(), bytes(), bf16());
  return 0;
}
