/* The process-wide worker threads.
 *
 * A launch gives each participant a contiguous share of the task indices, the same one every time, so that a thread meets its
 * own data in its own cache. Indices are claimed one by one from the share's `claim` word; whoever is done early takes what
 * others have not begun. A launch therefore never waits for a worker that the system has not woken yet, only for tasks that
 * run. The calling thread is participant 0.
 *
 * The pool serves one launch at a time. A launch that finds it taken, by another thread or because it is itself part of a
 * task, runs serially where it stands.
 */
#define _GNU_SOURCE
#include "threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

enum { MAX_PARTICIPANTS = 256, MAX_INDICES = 0xffff };

/* How long a worker looks out for the next launch before it sleeps, and a launcher for the last task. Kernels that run on one thread
 * take up to a millisecond, and waking a worker of a virtual machine some fifty microseconds: one that sleeps between the parallel
 * kernels of a call costs more than what it saves. */
static const int64_t SPIN_NANOSECONDS = 2000000;

typedef struct {
  /* Generation of the launch (32 bits), next unclaimed index (16), end of the share (16). The generation in the word makes
   * a claim fail that was prepared for an earlier launch. */
  _Alignas(128) _Atomic uint64_t claim;
  /* 1 while the worker sleeps or is about to. */
  _Atomic uint32_t sleeping;
} participant;

typedef struct {
  participant participants[MAX_PARTICIPANTS];
  /* The current launch. Written while no index is unclaimed, so a thread that reads a stale mixture cannot claim with it. */
  _Alignas(128) _Atomic(mlc_task) task;
  _Atomic(void*) closure;
  _Atomic int32_t count;
  _Atomic int32_t base;
  _Atomic uint32_t float_control;
  _Atomic int32_t width;
  _Atomic int32_t launcher_cpu;
  /* Tasks of the launch that have not ended, and the first failure. */
  _Alignas(128) _Atomic uint32_t remaining;
  _Atomic uint32_t launcher_sleeping;
  _Atomic int32_t failure;
  _Alignas(128) _Atomic uint32_t taken;
  uint32_t generation;
  int32_t workers;
#if defined(__linux__)
  cpu_set_t cpus; /* where the program may run, as of the first worker's start */
#endif
} thread_pool;

static thread_pool pool;
static _Thread_local bool inside_task;

static inline uint64_t pack(uint32_t generation, uint32_t next, uint32_t end) {
  return (uint64_t)generation << 32 | (uint64_t)next << 16 | end;
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb");
#endif
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Rounding and denormal handling belong to the thread that called the program; workers follow it, so that a result does not
 * depend on which thread computed it. */
static inline uint32_t read_float_control(void) {
#if defined(__x86_64__) || defined(__i386__)
  return _mm_getcsr() & ~0x3fu;
#elif defined(__aarch64__)
  uint64_t value;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(value));
  return (uint32_t)value;
#else
  return 0;
#endif
}

static inline void write_float_control(uint32_t value) {
#if defined(__x86_64__) || defined(__i386__)
  _mm_setcsr(value);
#elif defined(__aarch64__)
  __asm__ __volatile__("msr fpcr, %0" : : "r"((uint64_t)value));
#else
  (void)value;
#endif
}

static void sleep_while_equal(_Atomic uint32_t* word, uint32_t value) {
#if defined(__linux__)
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
  if (atomic_load(word) == value) usleep(50);
#endif
}

static void wake(_Atomic uint32_t* word) {
#if defined(__linux__)
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
#else
  (void)word;
#endif
}

/* Runs every index of `share` that is still unclaimed in this generation. */
static void run_share(participant* share, uint32_t generation) {
  uint64_t claim = atomic_load_explicit(&share->claim, memory_order_acquire);
  for (;;) {
    const uint32_t next = (uint32_t)(claim >> 16) & 0xffff;
    const uint32_t end = (uint32_t)claim & 0xffff;
    if ((uint32_t)(claim >> 32) != generation || next >= end) return;
    const mlc_task task = atomic_load_explicit(&pool.task, memory_order_relaxed);
    void* const closure = atomic_load_explicit(&pool.closure, memory_order_relaxed);
    const int32_t count = atomic_load_explicit(&pool.count, memory_order_relaxed);
    const int32_t base = atomic_load_explicit(&pool.base, memory_order_relaxed);
    const uint32_t control = atomic_load_explicit(&pool.float_control, memory_order_relaxed);
    if (!atomic_compare_exchange_weak_explicit(&share->claim, &claim, pack(generation, next + 1, end), memory_order_acq_rel,
                                               memory_order_acquire))
      continue;
    const uint32_t own_control = read_float_control();
    if (own_control != control) write_float_control(control);
    const int32_t code = task(base + (int32_t)next, count, closure);
    if (own_control != control) write_float_control(own_control);
    if (code != 0) {
      int32_t none = 0;
      atomic_compare_exchange_strong(&pool.failure, &none, code);
    }
    if (atomic_fetch_sub(&pool.remaining, 1) == 1 && atomic_load(&pool.launcher_sleeping)) wake(&pool.remaining);
    claim = atomic_load_explicit(&share->claim, memory_order_acquire);
  }
}

/* One participant's part of a launch: its own share, then what is left of the others'. */
static void participate(int32_t self, uint32_t generation, int32_t width) {
  run_share(&pool.participants[self], generation);
  for (int32_t step = 1; step < width; ++step) run_share(&pool.participants[(self + step) % width], generation);
}

static uint32_t await_generation(participant* self, uint32_t seen) {
  int64_t deadline = 0;
  for (uint32_t round = 0;; ++round) {
    const uint32_t generation = (uint32_t)(atomic_load_explicit(&self->claim, memory_order_acquire) >> 32);
    if (generation != seen) return generation;
    relax();
    if (round % 32 != 31) continue;
    const int64_t time = now();
    if (deadline == 0) deadline = time + SPIN_NANOSECONDS;
    if (time < deadline) continue;
    atomic_store(&self->sleeping, 1);
    while ((uint32_t)(atomic_load(&self->claim) >> 32) == seen && atomic_load(&self->sleeping) == 1)
      sleep_while_equal(&self->sleeping, 1);
    atomic_store(&self->sleeping, 0);
    deadline = 0;
  }
}

static int32_t current_cpu(void) {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

/* When no CPU is idle, the system wakes a worker where its launcher runs, and there the two alternate instead of running at the
 * same time, however unimportant what the other CPUs do. So a worker that finds itself there moves away. */
static void leave_launcher(int32_t width) {
#if defined(__linux__)
  const int32_t cpu = atomic_load_explicit(&pool.launcher_cpu, memory_order_relaxed);
  if (cpu < 0 || current_cpu() != cpu || CPU_COUNT(&pool.cpus) < width) return;
  cpu_set_t elsewhere = pool.cpus;
  CPU_CLR(cpu, &elsewhere);
  if (CPU_COUNT(&elsewhere) > 0) sched_setaffinity(0, sizeof elsewhere, &elsewhere);
#else
  (void)width;
#endif
}

static void* worker(void* argument) {
  const int32_t self = (int32_t)(intptr_t)argument;
  inside_task = true;
  uint32_t seen = 0;
  for (;;) {
    seen = await_generation(&pool.participants[self], seen);
    const int32_t width = atomic_load_explicit(&pool.width, memory_order_relaxed);
    leave_launcher(width);
    participate(self, seen, width);
  }
  return NULL;
}

/* Starts workers until there are `wanted` or the system gives no more. Signals stay with the threads of the program. */
static void start_workers(int32_t wanted) {
  if (pool.workers >= wanted) return;
#if defined(__linux__)
  if (pool.workers == 0 && sched_getaffinity(0, sizeof pool.cpus, &pool.cpus) != 0) CPU_ZERO(&pool.cpus);
#endif
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  while (pool.workers < wanted) {
    participant* next = &pool.participants[pool.workers + 1];
    atomic_store(&next->claim, 0);
    atomic_store(&next->sleeping, 0);
    pthread_t thread;
    if (pthread_create(&thread, &attributes, worker, (void*)(intptr_t)(pool.workers + 1)) != 0) break;
    pool.workers += 1;
  }
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int32_t run_serially(mlc_task task, int32_t count, void* closure) {
  for (int32_t index = 0; index < count; ++index) {
    const int32_t code = task(index, count, closure);
    if (code != 0) return code;
  }
  return 0;
}

static void await_remaining(void) {
  int64_t deadline = 0;
  for (uint32_t round = 0;; ++round) {
    uint32_t remaining = atomic_load_explicit(&pool.remaining, memory_order_acquire);
    if (remaining == 0) return;
    relax();
    if (round % 32 != 31) continue;
    const int64_t time = now();
    if (deadline == 0) deadline = time + SPIN_NANOSECONDS;
    if (time < deadline) continue;
    atomic_store(&pool.launcher_sleeping, 1);
    while ((remaining = atomic_load(&pool.remaining)) != 0) sleep_while_equal(&pool.remaining, remaining);
    atomic_store(&pool.launcher_sleeping, 0);
    return;
  }
}

/* Runs indices base .. base + indices - 1 on `width` participants. The caller owns the pool. */
static void launch(mlc_task task, int32_t base, int32_t indices, int32_t count, void* closure, int32_t width) {
  uint32_t generation = ++pool.generation;
  if (generation == 0) generation = ++pool.generation; /* 0 is what a new worker has seen */
  atomic_store_explicit(&pool.task, task, memory_order_relaxed);
  atomic_store_explicit(&pool.closure, closure, memory_order_relaxed);
  atomic_store_explicit(&pool.count, count, memory_order_relaxed);
  atomic_store_explicit(&pool.base, base, memory_order_relaxed);
  atomic_store_explicit(&pool.float_control, read_float_control(), memory_order_relaxed);
  atomic_store_explicit(&pool.width, width, memory_order_relaxed);
  atomic_store_explicit(&pool.launcher_cpu, current_cpu(), memory_order_relaxed);
  atomic_store_explicit(&pool.remaining, (uint32_t)indices, memory_order_relaxed);
  for (int32_t i = width - 1; i >= 0; --i) {
    participant* each = &pool.participants[i];
    const uint32_t begin = (uint32_t)((int64_t)indices * i / width);
    const uint32_t end = (uint32_t)((int64_t)indices * (i + 1) / width);
    atomic_store(&each->claim, pack(generation, begin, end));
    if (i > 0 && begin < end && atomic_load(&each->sleeping) && atomic_exchange(&each->sleeping, 0)) wake(&each->sleeping);
  }
  inside_task = true;
  participate(0, generation, width);
  inside_task = false;
  await_remaining();
}

int32_t mlc_parallel_for(const mlc_context* context, mlc_task task, int32_t count, void* closure) {
  if (count <= 0) count = context->threads > 0 ? context->threads : 1;
  int32_t width = context->threads < count ? context->threads : count;
  if (width > MAX_PARTICIPANTS) width = MAX_PARTICIPANTS;
  if (width <= 1 || inside_task || atomic_load_explicit(&pool.taken, memory_order_relaxed) ||
      atomic_exchange_explicit(&pool.taken, 1, memory_order_acquire))
    return run_serially(task, count, closure);
  start_workers(width - 1);
  if (width > pool.workers + 1) width = pool.workers + 1;
  atomic_store_explicit(&pool.failure, 0, memory_order_relaxed);
  for (int32_t base = 0; base < count && atomic_load(&pool.failure) == 0; base += MAX_INDICES) {
    const int32_t indices = count - base < MAX_INDICES ? count - base : MAX_INDICES;
    launch(task, base, indices, count, closure, width);
  }
  const int32_t failure = atomic_load(&pool.failure);
  atomic_store_explicit(&pool.taken, 0, memory_order_release);
  return failure;
}

int32_t mlc_available_cpus(void) {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    const int32_t count = CPU_COUNT(&set);
    if (count > 0) return count;
  }
#endif
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (int32_t)online : 1;
}

/* The child of a fork has one thread: forget the workers, they start anew with the first launch. */
static void after_fork_in_child(void) {
  memset(&pool, 0, sizeof pool);
  inside_task = false;
}

int mlc_threads_setup(void) { return pthread_atfork(NULL, NULL, after_fork_in_child); }
