/* The process-wide worker threads that run the parallel loops of compiled programs. */
#ifndef MLC_THREADS_H
#define MLC_THREADS_H

#include "mlc_abi.h"

/* The mlc_context.parallel_for of the runtime. */
int32_t mlc_parallel_for(const mlc_context* context, mlc_task task, int32_t count, void* closure);

/* Number of CPUs the calling thread may run on; at least 1. */
int32_t mlc_available_cpus(void);

/* Registers what keeps the pool usable in a forked child; 0 or an errno. To be called once. */
int mlc_threads_setup(void);

#endif
