/* Launches kernels through the CUDA driver, which is opened when the first kernel runs: a library of a CUDA program links, and is
 * packed into artifacts, on machines without it. Only the few types of the driver's stable interface that are needed are repeated here.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>

#include "mlc_abi.h"

#define HIDDEN __attribute__((visibility("hidden")))

extern __thread const mlc_context* mlc_current_context;

typedef int (*get_context_fn)(void** context);
typedef int (*load_fn)(void** module, const void* image);
typedef int (*get_function_fn)(void** function, void* module, const char* name);
typedef int (*launch_fn)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                         unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra);
typedef int (*copy_fn)(uint64_t target, uint64_t source, size_t bytes, void* stream);
typedef int (*download_fn)(void* target, uint64_t source, size_t bytes, void* stream);
typedef int (*wait_fn)(void* stream);
typedef int (*error_fn)(int code, const char** text);

static struct {
  get_context_fn get_context;
  load_fn load;
  get_function_fn get_function;
  launch_fn launch;
  copy_fn copy;
  download_fn download;
  wait_fn wait;
  error_fn describe;
  int ready;
} driver;

/* A kernel as one CUDA context has loaded it. */
typedef struct entry {
  struct entry* next;
  void* context;
  void* function;
} entry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char NO_DRIVER[] = "no CUDA driver (libcuda.so.1) to run";

static int32_t fail(const char* name, const char* what, int code) {
  const mlc_context* context = mlc_current_context;
  const char* text = "";
  if (driver.describe && code) driver.describe(code, &text);
  if (context && context->error) snprintf(context->error, MLC_ERROR_BYTES, "%s %s: %s", what, name, text ? text : "");
  return code ? code : -1;
}

/* $MLC_CUDA_DRIVER names another library than the system's. */
static int open_driver(void) {
  const char* path = getenv("MLC_CUDA_DRIVER");
  void* library = dlopen(path && *path ? path : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return 0;
  *(void**)&driver.get_context = dlsym(library, "cuCtxGetCurrent");
  *(void**)&driver.load = dlsym(library, "cuModuleLoadData");
  *(void**)&driver.get_function = dlsym(library, "cuModuleGetFunction");
  *(void**)&driver.launch = dlsym(library, "cuLaunchKernel");
  *(void**)&driver.copy = dlsym(library, "cuMemcpyDtoDAsync_v2");
  *(void**)&driver.download = dlsym(library, "cuMemcpyDtoHAsync_v2");
  *(void**)&driver.wait = dlsym(library, "cuStreamSynchronize");
  *(void**)&driver.describe = dlsym(library, "cuGetErrorString");
  return driver.get_context && driver.load && driver.get_function && driver.launch && driver.copy && driver.download &&
         driver.wait;
}

/* The kernel in the current context, loaded there first if need be. */
static int find(const void* image, const char* name, void** loaded, void** function) {
  void* context = NULL;
  int code = driver.get_context(&context);
  if (code) return code;
  for (entry* each = __atomic_load_n((entry**)loaded, __ATOMIC_ACQUIRE); each; each = each->next)
    if (each->context == context) {
      *function = each->function;
      return 0;
    }
  pthread_mutex_lock(&lock);
  entry* each = *(entry**)loaded;
  while (each && each->context != context) each = each->next;
  if (!each) {
    void* module = NULL;
    each = malloc(sizeof *each);
    if (each) {
      each->context = context;
      each->next = *(entry**)loaded;
      code = driver.load(&module, image);
      if (!code) code = driver.get_function(&each->function, module, name);
      if (!code) {
        __atomic_store_n((entry**)loaded, each, __ATOMIC_RELEASE);
      } else {
        free(each);
        each = NULL;
      }
    }
  }
  pthread_mutex_unlock(&lock);
  if (each) *function = each->function;
  return each ? 0 : code ? code : -1;
}

static int ready(void) {
  if (!__atomic_load_n(&driver.ready, __ATOMIC_ACQUIRE)) {
    pthread_mutex_lock(&lock);
    if (!driver.ready) __atomic_store_n(&driver.ready, open_driver(), __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
  }
  return driver.ready;
}

static void* stream(void) { return mlc_current_context ? mlc_current_context->stream : NULL; }

/* Enqueues a copy within the device's memory. */
HIDDEN int32_t mlc_cuda_copy(void* target, const void* source, uint64_t bytes) {
  if (!ready()) return fail("a copy", NO_DRIVER, 0);
  const int code = driver.copy((uint64_t)(uintptr_t)target, (uint64_t)(uintptr_t)source, bytes, stream());
  return code ? fail("a value", "cannot copy", code) : 0;
}

/* Whether a byte in the device's memory is set, once the stream has got so far; false when that cannot be told, which the next
 * launch then reports. */
HIDDEN int32_t mlc_cuda_flag(const void* flag) {
  uint8_t value = 0;
  if (!ready() || driver.download(&value, (uint64_t)(uintptr_t)flag, 1, stream()) || driver.wait(stream())) return 0;
  return value != 0;
}

HIDDEN int32_t mlc_cuda_launch(const void* image, const char* name, void** loaded, uint32_t blocks, uint32_t threads, void** arguments) {
  if (!ready()) return fail(name, NO_DRIVER, 0);
  void* function = NULL;
  int code = find(image, name, loaded, &function);
  if (code) return fail(name, "cannot load", code);
  code = driver.launch(function, blocks, 1, 1, threads, 1, 1, 0, stream(), arguments, NULL);
  return code ? fail(name, "cannot launch", code) : 0;
}
