/* What the kernels of a program expect from their surroundings, defined in terms of mlc_context.
 *
 * TVM's code generator turns a parallel loop into a call of TVMBackendParallelLaunch and registers each object's functions
 * when it is loaded. Both symbols are hidden: a TVM runtime in the same process keeps its own.
 */
#include "mlc_abi.h"

#define HIDDEN __attribute__((visibility("hidden")))

/* The context of the program call that runs on this thread; the entry sets it. */
HIDDEN __thread const mlc_context* mlc_current_context;

/* Not zero while the entry knows that the kernel it calls has too little to do for several threads. */
HIDDEN __thread int32_t mlc_serial;

/* Layouts of TVM's c_backend_api.h. */
typedef struct {
  void* sync_handle;
  int32_t num_task;
} tvm_parallel_group;
typedef int (*tvm_parallel_lambda)(int task_id, tvm_parallel_group* group, void* data);

typedef struct {
  tvm_parallel_lambda lambda;
  void* data;
} closure;

static int32_t run_part(int32_t index, int32_t count, void* opaque) {
  closure* part = (closure*)opaque;
  tvm_parallel_group group = {0, count};
  return part->lambda(index, &group, part->data);
}

HIDDEN int TVMBackendParallelLaunch(tvm_parallel_lambda lambda, void* data, int num_task) {
  const mlc_context* context = mlc_current_context;
  closure whole = {lambda, data};
  int32_t count = num_task > 0 ? num_task : mlc_serial || context == 0 ? 1 : context->threads;
  if (context && context->parallel_for && count > 1) return context->parallel_for(context, run_part, count, &whole);
  for (int32_t index = 0; index < count; ++index) {
    int32_t code = run_part(index, count, &whole);
    if (code) return code;
  }
  return 0;
}

HIDDEN int TVMFFIEnvModRegisterSystemLibSymbol(const char* name, void* symbol) {
  (void)name;
  (void)symbol;
  return 0;
}
