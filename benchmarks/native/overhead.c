/* Programs with next to no work, to time what surrounds a kernel.
 *
 * overhead_mlp: two dense layers of width 16 on one row, with a relu between; weights [in][out] and bias of each.
 * overhead_launch: parallel loops of one task per thread that takes TASK_NANOSECONDS. Input: number of loops, pause before each
 * in nanoseconds. Output: nanoseconds per loop beyond the task's.
 */
#define _GNU_SOURCE
#include <time.h>

#include "mlc_abi.h"

enum { WIDTH = 16, TASK_NANOSECONDS = 5000 };

static void dense(const float* restrict x, const float* restrict weight, const float* restrict bias, float* restrict y) {
  for (int j = 0; j < WIDTH; ++j) y[j] = bias[j];
  for (int k = 0; k < WIDTH; ++k)
    for (int j = 0; j < WIDTH; ++j) y[j] += x[k] * weight[k * WIDTH + j];
}

int32_t overhead_mlp(const mlc_context* context, void* const* io, const int64_t* dims, void* arena) {
  (void)dims;
  const float* weights = context->constants;
  float* hidden = arena;
  dense(io[0], weights, weights + WIDTH * WIDTH, hidden);
  for (int j = 0; j < WIDTH; ++j) hidden[j] = hidden[j] > 0 ? hidden[j] : 0;
  weights += WIDTH * (WIDTH + 1);
  dense(hidden, weights, weights + WIDTH * WIDTH, io[1]);
  return 0;
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void wait_for(int64_t nanoseconds) {
  const int64_t end = now() + nanoseconds;
  while (now() < end) {
  }
}

static int32_t busy(int32_t index, int32_t count, void* closure) {
  (void)index;
  (void)count;
  (void)closure;
  wait_for(TASK_NANOSECONDS);
  return 0;
}

int32_t overhead_launch(const mlc_context* context, void* const* io, const int64_t* dims, void* arena) {
  (void)dims;
  (void)arena;
  const int64_t* options = io[0];
  int64_t spent = 0;
  for (int64_t i = 0; i < options[0]; ++i) {
    wait_for(options[1]);
    const int64_t begin = now();
    const int32_t code = context->parallel_for(context, busy, 0, 0);
    if (code != 0) return code;
    spent += now() - begin;
  }
  *(double*)io[1] = (double)spent / (double)options[0] - TASK_NANOSECONDS;
  return 0;
}
