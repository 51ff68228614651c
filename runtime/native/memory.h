/* Aligned memory and the arenas that calls in flight borrow. */
#ifndef MLC_MEMORY_H
#define MLC_MEMORY_H

#include <stddef.h>

/* Memory aligned to MLC_ALIGNMENT, with undefined content; NULL when there is none left. Give it back with free(). */
void* mlc_aligned(size_t bytes);

/* The same for memory that lives long. From 2 MiB on it is zeroed, aligned to 2 MiB and asks for huge pages. */
void* mlc_region_new(size_t bytes);
void mlc_region_free(void* base, size_t bytes);

typedef struct mlc_arena {
  struct mlc_arena* next;
  void* base;
  size_t bytes;
} mlc_arena;

/* Borrows an idle arena of at least `bytes`, or makes one; NULL when memory is short. Callers hold the interpreter's lock. */
mlc_arena* mlc_arena_take(size_t bytes);
void mlc_arena_give(mlc_arena* arena);

/* Frees all idle arenas; their size in bytes. */
size_t mlc_arena_trim(void);

#endif
