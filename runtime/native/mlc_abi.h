/* The binary interface between a compiled program and whoever runs it.
 *
 * A program is one C function. The same interface serves on CPUs, on microcontrollers, in wasm and as the host half of a
 * GPU program; nothing here needs a library or an operating system.
 */
#ifndef MLC_ABI_H
#define MLC_ABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MLC_ABI_VERSION 1u

/* Bytes to which every buffer is aligned that a program is given or places in the arena or the constants. */
#define MLC_ALIGNMENT 64

/* What an entry returns when an index in the data is outside of the axis along which something is written; nothing was written there. */
#define MLC_INDEX_ERROR (-1)

/* Size of the buffer behind mlc_context.error, the final zero included. */
#define MLC_ERROR_BYTES 256

typedef struct mlc_context mlc_context;

/* One part of a parallel loop: part `index` of `count`. Zero means success. */
typedef int32_t (*mlc_task)(int32_t index, int32_t count, void* closure);

/* What a program may ask of its surroundings. One context belongs to one call in flight; the program does not change it. */
struct mlc_context {
  /* MLC_ABI_VERSION of the caller. */
  uint32_t abi_version;

  /* Number of threads parallel_for can use at most; 1 or more. */
  int32_t threads;

  /* The packed weights, aligned to MLC_ALIGNMENT. Read-only: the pages may be mapped from a file. */
  const void* constants;

  /* Runs task(0..count-1, count, closure), each index exactly once, in any order and on any thread, and returns when all
   * have ended: 0, or the code of a task that failed. A `count` of 0 or less means `threads`. Tasks must not wait for one
   * another. A call from within a task is allowed and runs serially. NULL: run the tasks yourself, in order. */
  int32_t (*parallel_for)(const mlc_context* context, mlc_task task, int32_t count, void* closure);

  /* When not NULL: to be called with begin = 1 before and begin = 0 after kernel call number `call` of the program. */
  void (*profile)(const mlc_context* context, int32_t call, int32_t begin);
  void* profile_data;

  /* The device stream of a GPU program (CUstream); NULL on a CPU. */
  void* stream;

  /* MLC_ERROR_BYTES of zero-terminated text that a failing kernel may fill; NULL: no text wanted. */
  char* error;

  /* The caller's own; programs leave it alone. */
  void* user;
};

/* The entry of a program.
 *
 * io:     pointers to the inputs, in the order of the signature, then to the outputs, then to the states: buffers whose
 *         content the caller keeps from call to call, and which the program reads and changes in place. Dense, row-major,
 *         aligned to MLC_ALIGNMENT. What the program writes (outputs, states, inputs that the signature calls mutated)
 *         overlaps nothing else in io. A call must have its states and mutated inputs for itself.
 * dims:   values of the symbolic dimensions in the order of the signature; NULL when there are none.
 * arena:  scratch memory of the size the program states, aligned to MLC_ALIGNMENT, with undefined content; used by this
 *         call alone.
 * Returns 0, or the code of the kernel that failed.
 */
typedef int32_t (*mlc_entry_fn)(const mlc_context* context, void* const* io, const int64_t* dims, void* arena);

#ifdef __cplusplus
}
#endif

#endif
