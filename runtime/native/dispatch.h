/* Dispatch: several runners behind one callable, and the state of a module they depend on. */
#ifndef MLC_DISPATCH_H
#define MLC_DISPATCH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject DispatchType;

/* Readies the type; -1 with an exception set. */
int dispatch_setup(void);

#endif
