/* Times one kernel on the worker threads that compiled programs use. */
#include <stddef.h>
#include <time.h>

#include "threads.h"

extern __thread const mlc_context* mlc_current_context;

int32_t kernel_call(void* const* arguments);

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Seconds of each of `count` calls, after `warmup` untimed ones. Calls go around `sets` sets of arguments, `stride` pointers apart.
 * Returns the first error code of the kernel, else 0.
 */
__attribute__((visibility("default"))) int32_t time_kernel(void* const* arguments, int32_t sets, int32_t stride, int32_t threads, int32_t warmup,
                                                          int32_t count, double* seconds) {
  const mlc_context context = {.abi_version = MLC_ABI_VERSION, .threads = threads, .parallel_for = mlc_parallel_for};
  int32_t code = 0;
  mlc_current_context = &context;
  for (int32_t call = -warmup; call < count && code == 0; ++call) {
    void* const* set = arguments + (size_t)((call + warmup) % sets) * (size_t)stride;
    const double start = now();
    code = kernel_call(set);
    if (call >= 0) seconds[call] = now() - start;
  }
  mlc_current_context = 0;
  return code;
}
