/* Guard: the lock of a session. While a call holds it, no other call and no one else reads or writes the session's states. */
#ifndef MLC_GUARD_H
#define MLC_GUARD_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject GuardType;

typedef struct Guard Guard;

/* Waits for the guard, without the interpreter's lock where it must. The caller holds the interpreter's lock. A thread that has the guard
 * already must not take it again. */
void guard_take(Guard* guard);
void guard_give(Guard* guard);

#endif
