#include "guard.h"

#include <stdbool.h>

struct Guard {
  PyObject_HEAD
  PyThread_type_lock lock;
};

static PyObject* guard_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static char* names[] = {NULL};
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "", names)) return NULL;
  Guard* self = (Guard*)type->tp_alloc(type, 0);
  if (self == NULL) return NULL;
  self->lock = PyThread_allocate_lock();
  if (self->lock == NULL) {
    Py_DECREF(self);
    return PyErr_NoMemory();
  }
  return (PyObject*)self;
}

static void guard_dealloc(Guard* self) {
  if (self->lock != NULL) PyThread_free_lock(self->lock);
  Py_TYPE(self)->tp_free((PyObject*)self);
}

void guard_take(Guard* guard) {
  if (PyThread_acquire_lock(guard->lock, NOWAIT_LOCK)) return;
  Py_BEGIN_ALLOW_THREADS;
  PyThread_acquire_lock(guard->lock, WAIT_LOCK);
  Py_END_ALLOW_THREADS;
}

void guard_give(Guard* guard) { PyThread_release_lock(guard->lock); }

static PyObject* guard_enter(Guard* self, PyObject* unused) {
  (void)unused;
  guard_take(self);
  return Py_NewRef((PyObject*)self);
}

static PyObject* guard_exit(Guard* self, PyObject* unused) {
  (void)unused;
  guard_give(self);
  Py_RETURN_NONE;
}

static PyMethodDef guard_methods[] = {
    {"__enter__", (PyCFunction)guard_enter, METH_NOARGS, "Waits for the guard and takes it."},
    {"__exit__", (PyCFunction)guard_exit, METH_VARARGS, "Gives the guard back."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject GuardType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mlc.runtime._native.Guard",
    .tp_doc = "Guard(): the lock of a session's states, which runners take for each call; a context manager.",
    .tp_basicsize = sizeof(Guard),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = guard_new,
    .tp_dealloc = (destructor)guard_dealloc,
    .tp_methods = guard_methods,
};
