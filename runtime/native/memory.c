#define _GNU_SOURCE
#include "memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "mlc_abi.h"

static const size_t HUGE_PAGE = (size_t)2 << 20;

static size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

void* mlc_aligned(size_t bytes) { return aligned_alloc(MLC_ALIGNMENT, round_up(bytes > 0 ? bytes : 1, MLC_ALIGNMENT)); }

void* mlc_region_new(size_t bytes) {
  if (bytes < HUGE_PAGE) return mlc_aligned(bytes);
  const size_t size = round_up(bytes, HUGE_PAGE);
  char* mapped = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return NULL;
  /* Keep the aligned part of the mapping only. */
  char* base = (char*)round_up((uintptr_t)mapped, HUGE_PAGE);
  if (base > mapped) munmap(mapped, (size_t)(base - mapped));
  const size_t behind = (size_t)(mapped + HUGE_PAGE - base);
  if (behind > 0) munmap(base + size, behind);
#ifdef MADV_HUGEPAGE
  madvise(base, size, MADV_HUGEPAGE);
#endif
  return base;
}

void mlc_region_free(void* base, size_t bytes) {
  if (bytes < HUGE_PAGE)
    free(base);
  else
    munmap(base, round_up(bytes, HUGE_PAGE));
}

/* Idle arenas, smallest first. */
static mlc_arena* idle;

static void arena_free(mlc_arena* arena) {
  mlc_region_free(arena->base, arena->bytes);
  free(arena);
}

mlc_arena* mlc_arena_take(size_t bytes) {
  mlc_arena** link = &idle;
  while (*link != NULL && (*link)->bytes < bytes) link = &(*link)->next;
  mlc_arena* arena = *link;
  if (arena != NULL) {
    *link = arena->next;
    return arena;
  }
  /* All idle arenas are too small: a larger one replaces one of them, so that memory follows the calls in flight and not the
   * number of programs. */
  if (idle != NULL) {
    mlc_arena* replaced = idle;
    idle = replaced->next;
    arena_free(replaced);
  }
  arena = malloc(sizeof *arena);
  if (arena == NULL) return NULL;
  arena->bytes = bytes > 0 ? bytes : 1;
  arena->base = mlc_region_new(arena->bytes);
  if (arena->base == NULL) {
    free(arena);
    return NULL;
  }
  return arena;
}

void mlc_arena_give(mlc_arena* arena) {
  mlc_arena** link = &idle;
  while (*link != NULL && (*link)->bytes < arena->bytes) link = &(*link)->next;
  arena->next = *link;
  *link = arena;
}

size_t mlc_arena_trim(void) {
  size_t freed = 0;
  while (idle != NULL) {
    mlc_arena* arena = idle;
    idle = arena->next;
    freed += arena->bytes;
    arena_free(arena);
  }
  return freed;
}
