/* Runner: one program with its library and weights, ready to be called. */
#ifndef MLC_RUNNER_H
#define MLC_RUNNER_H

#include "mlc_abi.h"
#include "tensors.h"

extern PyTypeObject LibraryType;
extern PyTypeObject RunnerType;

typedef struct Runner Runner;

/* The input pointers a call was bound to. */
typedef struct {
  tensor_kind kind;
  void** io; /* inputs, room for the outputs behind them */
  void* copies; /* aligned copies of inputs, each linked to the next by its first bytes */
  int64_t* values; /* of the symbols, then the extents of the inputs with symbolic ones */
  void* inline_io[32];
  int64_t inline_values[48];
} runner_binding;

/* Matches a vectorcall's arguments against the runner's flat signature: true and a filled binding, or false without an
 * exception. A binding must be passed on to runner_finish. */
bool runner_bind(Runner* runner, PyObject* const* args, Py_ssize_t count, PyObject* keyword_names, runner_binding* binding);

/* Runs a bound call and releases the binding; the outputs in the signature's structure, or NULL with an exception set. */
PyObject* runner_finish(Runner* runner, runner_binding* binding);

#endif
