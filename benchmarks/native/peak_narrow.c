/* What this machine can do at most with narrow numbers: multiply-adds per second, one counting as two operations.
 *
 * usage: peak_narrow; prints JSON with the rates of one thread: fp32 (fused multiply-adds), pairs (vpmaddwd and vpaddd: exact products of
 * bytes widened to 16 bits), short1 and short2 (vpmaddubsw and vpmaddwd with ones: products of bytes summed in 16 bits over one word of
 * four or two before they are widened), bytes (vpdpbusd), bf16 (vdpbf16ps); 0 where the processor lacks the instruction.
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

/* Written out, since a loop over so many chains may stay one, with its sums in memory. */
#define TWELVE(ROUND, first)                                                                                              \
  ROUND((first)) ROUND((first) + 1) ROUND((first) + 2) ROUND((first) + 3) ROUND((first) + 4) ROUND((first) + 5)           \
  ROUND((first) + 6) ROUND((first) + 7) ROUND((first) + 8) ROUND((first) + 9) ROUND((first) + 10) ROUND((first) + 11)
#if CHAINS == 24
#define EACH(ROUND) TWELVE(ROUND, 0) TWELVE(ROUND, 12)
#else
#define EACH(ROUND) TWELVE(ROUND, 0)
#endif

typedef int vector __attribute__((vector_size(BYTES)));

enum { STEPS = 1000000, REPEATS = 7 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define KEEP(chain) __asm__ volatile("" ::"v"(sum[chain]));

/* Operations per second of ROUND, over independent chains that hide its latency; each yields `products` multiply-adds. */
#define MEASURE(name, products, ROUND)                                       \
  static double name(void) {                                                 \
    double best = 0;                                                         \
    for (int repeat = 0; repeat < REPEATS; repeat++) {                       \
      vector sum[CHAINS] = {0}, a = {0}, b = {0};                            \
      const double start = now();                                            \
      for (int step = 0; step < STEPS; step++) {                             \
        EACH(ROUND)                                                          \
      }                                                                      \
      const double rate = 2.0 * (products) * CHAINS * STEPS / (now() - start); \
      EACH(KEEP)                                                             \
      if (rate > best) best = rate;                                          \
    }                                                                        \
    return best;                                                             \
  }

#define MULTIPLY_ADD(instruction, chain) __asm__ volatile(instruction " %2, %1, %0" : "+v"(sum[chain]) : "v"(a), "v"(b));

#define FP32(chain) MULTIPLY_ADD("vfmadd231ps", chain)
MEASURE(fp32, BYTES / 4, FP32)

#define PAIRS(chain)                                                                 \
  {                                                                                  \
    vector product;                                                                  \
    __asm__ volatile("vpmaddwd %2, %1, %0" : "=v"(product) : "v"(a), "v"(b));        \
    __asm__ volatile("vpaddd %1, %0, %0" : "+v"(sum[chain]) : "v"(product));         \
  }
MEASURE(pairs, BYTES / 2, PAIRS)

#define SUM_OF_BYTES(result) __asm__ volatile("vpmaddubsw %2, %1, %0" : "=v"(result) : "v"(a), "v"(b));
#define ADD_WIDENED(sums, chain)                                                     \
  {                                                                                  \
    __asm__ volatile("vpmaddwd %1, %0, %0" : "+v"(sums) : "v"(b));                   \
    __asm__ volatile("vpaddd %1, %0, %0" : "+v"(sum[chain]) : "v"(sums));            \
  }

#define SHORT1(chain)                                                                \
  {                                                                                  \
    vector first;                                                                    \
    SUM_OF_BYTES(first)                                                              \
    ADD_WIDENED(first, chain)                                                        \
  }
MEASURE(short1, BYTES, SHORT1)

#define SHORT2(chain)                                                                \
  {                                                                                  \
    vector first, second;                                                            \
    SUM_OF_BYTES(first)                                                              \
    SUM_OF_BYTES(second)                                                             \
    __asm__ volatile("vpaddw %1, %0, %0" : "+v"(first) : "v"(second));               \
    ADD_WIDENED(first, chain)                                                        \
  }
MEASURE(short2, 2 * BYTES, SHORT2)

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define QUADS(chain) MULTIPLY_ADD("vpdpbusd", chain)
MEASURE(bytes, BYTES, QUADS)
#else
static double bytes(void) { return 0; }
#endif

#if defined(__AVX512BF16__)
#define HALVES(chain) MULTIPLY_ADD("vdpbf16ps", chain)
MEASURE(bf16, BYTES / 2, HALVES)
#else
static double bf16(void) { return 0; }
#endif

int main(void) {
  printf("{\"fp32\": %.6e, \"pairs\": %.6e, \"short1\": %.6e, \"short2\": %.6e, \"bytes\": %.6e, \"bf16\": %.6e}\n", fp32(), pairs(),
         short1(), short2(), bytes(), bf16());
  return 0;
}
