/* What this machine can do at most: fp32 multiply-adds per second, and bytes per second that are read from memory, or copied.
 *
 * usage: peak THREADS; prints JSON with flops and bytes per second of all threads together, of the best repetition ("best") and of the
 * middle one ("median"). A copied byte counts twice, as read and as written; its stores are ordinary ones, for which most processors first
 * read the line, as kernels do that do not know better.
 * Built with -O3 -march=native: the vectors below become the widest registers the compiler knows for the host.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__AVX512F__)
#define LANES 16
#define CHAINS 24 /* of 32 registers */
#elif defined(__AVX__)
#define LANES 8
#define CHAINS 12 /* of 16 registers */
#else
#define LANES 4
#define CHAINS 12
#endif

typedef float vector __attribute__((vector_size(LANES * 4)));

enum { STEPS = 4000000, REPEATS = 5 };
static const size_t BYTES_PER_THREAD = (size_t)128 << 20; /* several times any last-level cache */
static const size_t HUGE_PAGE = (size_t)2 << 20;

typedef enum { FLOPS, READ, COPY } kind;

typedef struct {
  pthread_barrier_t* barrier;
  kind kind;
  float* data;
  double seconds[REPEATS];
  float sink;
} job;

typedef struct {
  double best, median; /* per second */
} rates;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Independent chains hide the latency of a multiply-add. */
static float multiply_add(void) {
  vector sum[CHAINS], a, b;
  for (int lane = 0; lane < LANES; lane++) {
    a[lane] = 0.999f;
    b[lane] = 0.001f;
  }
  for (int chain = 0; chain < CHAINS; chain++) sum[chain] = a * (float)chain;
  for (int step = 0; step < STEPS; step++) {
    __asm__ volatile("" : "+x"(a), "+x"(b)); /* keeps the compiler from doing the loop in its head */
#pragma GCC unroll 32
    for (int chain = 0; chain < CHAINS; chain++) sum[chain] = sum[chain] * a + b;
  }
  vector total = sum[0];
  for (int chain = 1; chain < CHAINS; chain++) total += sum[chain];
  float result = 0;
  for (int lane = 0; lane < LANES; lane++) result += total[lane];
  return result;
}

static float read_all(const float* data) {
  const vector* end = (const vector*)((const char*)data + BYTES_PER_THREAD);
  vector sum[8] = {0};
  for (const vector* p = (const vector*)data; p < end; p += 8)
    for (int i = 0; i < 8; i++) sum[i] += p[i];
  float result = 0;
  for (int i = 0; i < 8; i++) result += sum[i][0];
  return result;
}

/* The first half into the second. The multiplication keeps the compiler from calling memcpy, which would store around the caches. */
static float copy_all(float* data) {
  const vector* from = (const vector*)data;
  vector* to = (vector*)((char*)data + BYTES_PER_THREAD / 2);
  const vector* end = to;
  while (from < end) *to++ = *from++ * 0.5f;
  return data[BYTES_PER_THREAD / 8];
}

static void* work(void* argument) {
  job* j = argument;
  for (int repeat = 0; repeat < REPEATS; repeat++) {
    pthread_barrier_wait(j->barrier);
    double start = now();
    j->sink += j->kind == FLOPS ? multiply_add() : j->kind == READ ? read_all(j->data) : copy_all(j->data);
    pthread_barrier_wait(j->barrier);
    j->seconds[repeat] = now() - start;
  }
  return NULL;
}

static int later(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static rates run(int threads, kind kind) {
  pthread_t* ids = calloc((size_t)threads, sizeof *ids);
  job* jobs = calloc((size_t)threads, sizeof *jobs);
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, NULL, (unsigned)threads);
  for (int t = 0; t < threads; t++) {
    jobs[t].barrier = &barrier;
    jobs[t].kind = kind;
    if (kind != FLOPS) {
      jobs[t].data = aligned_alloc(HUGE_PAGE, BYTES_PER_THREAD);
      if (jobs[t].data == NULL) exit(2);
#ifdef MADV_HUGEPAGE
      madvise(jobs[t].data, BYTES_PER_THREAD, MADV_HUGEPAGE); /* as weights lie: otherwise page tables are what is measured */
#endif
      memset(jobs[t].data, 1, BYTES_PER_THREAD);
    }
    pthread_create(&ids[t], NULL, work, &jobs[t]);
  }
  for (int t = 0; t < threads; t++) pthread_join(ids[t], NULL);
  double work_done = kind == FLOPS ? 2.0 * STEPS * CHAINS * LANES : (double)BYTES_PER_THREAD;
  qsort(jobs[0].seconds, REPEATS, sizeof(double), later);
  rates found = {work_done * threads / jobs[0].seconds[0], work_done * threads / jobs[0].seconds[REPEATS / 2]};
  volatile float keep = 0;
  for (int t = 0; t < threads; t++) {
    keep += jobs[t].sink;
    free(jobs[t].data);
  }
  free(jobs);
  free(ids);
  return found;
}

int main(int count, char** arguments) {
  int threads = count > 1 ? atoi(arguments[1]) : 1;
  if (threads < 1) return 2;
  rates flops = run(threads, FLOPS);
  rates read = run(threads, READ);
  rates copy = run(threads, COPY);
  const char* form = "\"%s\": {\"flops\": %.4g, \"bandwidth\": %.4g, \"copy\": %.4g}";
  printf("{");
  printf(form, "best", flops.best, read.best, copy.best);
  printf(", ");
  printf(form, "median", flops.median, read.median, copy.median);
  printf("}\n");
  return 0;
}
