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

static int32_t nothing(int32_t index, int32_t count, void* closure) {
  (void)index;
  (void)count;
  (void)closure;
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

/* `samples` times of `calls` calls each: seconds a call. Before each sample the `cold_count` memory areas are evicted.
 * Stops once `limit` seconds have passed; the number of samples taken, or minus one when a call fails. */
int32_t mlc_measure_time(mlc_entry_fn entry, void* const* io, void* arena, int32_t threads, const void* const* cold,
                         const uint64_t* cold_bytes, int32_t cold_count, int32_t calls, int32_t samples, double limit,
                         double* seconds) {
  const mlc_context context = context_of(threads);
  const double start = now();
  int32_t taken = 0;
  while (taken < samples && (taken == 0 || now() - start < limit)) {
    for (int32_t area = 0; area < cold_count; ++area) evict(cold[area], cold_bytes[area]);
    /* The eviction took long enough for the workers to fall asleep; in a network they are awake. */
    if (threads > 1) mlc_parallel_for(&context, nothing, threads, 0);
    const double begin = now();
    for (int32_t call = 0; call < calls; ++call)
      if (entry(&context, io, 0, arena) != 0) return -1;
    seconds[taken++] = (now() - begin) / calls;
  }
  return taken;
}
