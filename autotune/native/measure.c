/* Times compiled kernels. Linked with the runtime's thread pool, so that a kernel runs here as it runs in a program. */
#include <stdint.h>
#include <time.h>

#include "mlc_abi.h"
#include "threads.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Drops memory from all caches, as the other kernels of a network do to weights between two calls. */
static void evict(const void* memory, uint64_t bytes) {
#if defined(__x86_64__)
  const char* line = (const char*)memory;
  for (uint64_t offset = 0; offset < bytes; offset += 64) _mm_clflush(line + offset);
  _mm_mfence();
#else
  (void)memory;
  (void)bytes;
#endif
}

typedef struct {
  char* const* memory;
  const uint64_t* bytes;
  int32_t count;
} mlc_areas;

/* Writes what is there already: a thread leaves its share of each area in its own caches, as if it had just computed it. */
static int32_t rewrite(int32_t index, int32_t count, void* closure) {
  const mlc_areas* areas = closure;
  for (int32_t area = 0; area < areas->count; ++area) {
    const uint64_t lines = areas->bytes[area] / 64;
    volatile char* memory = areas->memory[area];
    for (uint64_t line = lines * index / count; line < lines * (index + 1) / count; ++line) memory[64 * line] = memory[64 * line];
  }
  return 0;
}

static mlc_context context_of(int32_t threads) {
  mlc_context context = {0};
  context.abi_version = MLC_ABI_VERSION;
  context.threads = threads;
  context.parallel_for = mlc_parallel_for;
  return context;
}

/* One call of a kernel; its code. */
int32_t mlc_measure_call(mlc_entry_fn entry, void* const* io, void* arena, int32_t threads) {
  const mlc_context context = context_of(threads);
  return entry(&context, io, 0, arena);
}

/* `samples` times of `calls` calls each: seconds a call. Before each sample the memory areas in `cold` are evicted, and those in `fresh`
 * written in equal shares by the threads, the eviction having taken long enough for the workers to fall asleep; in a network they are awake.
 * Stops once `limit` seconds have passed; the number of samples taken, or minus one when a call fails. */
int32_t mlc_measure_time(mlc_entry_fn entry, void* const* io, void* arena, int32_t threads, const mlc_areas* cold,
                         const mlc_areas* fresh, int32_t calls, int32_t samples, double limit, double* seconds) {
  const mlc_context context = context_of(threads);
  const double start = now();
  int32_t taken = 0;
  while (taken < samples && (taken == 0 || now() - start < limit)) {
    for (int32_t area = 0; area < cold->count; ++area) evict(cold->memory[area], cold->bytes[area]);
    if (threads > 1) mlc_parallel_for(&context, rewrite, threads, (void*)fresh);
    const double begin = now();
    for (int32_t call = 0; call < calls; ++call)
      if (entry(&context, io, 0, arena) != 0) return -1;
    seconds[taken++] = (now() - begin) / calls;
  }
  return taken;
}
