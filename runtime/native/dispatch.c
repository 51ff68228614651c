#include "dispatch.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#include "runner.h"

/* dictionary[key] must still be `value`; if that is a tensor, of the same version and address. */
typedef struct {
  PyObject* dictionary;
  PyObject* key;
  PyObject* value;
  long long version; /* -1: not counted */
  void* address;
} watched;

typedef struct {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  PyObject* runners;      /* list of Runner, most recently used first */
  PyObject* fallback;     /* fallback(args, kwargs) when no runner fits, watched state changed or autograd would record */
  watched* watch;
  Py_ssize_t watch_count;
} Dispatch;

static PyObject* version_name;

/* The tensor's version counter; -1 when it has none. */
static long long version_of(PyObject* tensor) {
  PyObject* version = PyObject_GetAttr(tensor, version_name);
  long long number = version != NULL ? PyLong_AsLongLong(version) : -1;
  Py_XDECREF(version);
  if (PyErr_Occurred()) {
    PyErr_Clear();
    number = -1;
  }
  return number;
}

static bool changed(Dispatch* self) {
  for (Py_ssize_t i = 0; i < self->watch_count; ++i) {
    const watched* each = &self->watch[i];
    if (PyDict_GetItemWithError(each->dictionary, each->key) != each->value) {
      PyErr_Clear();
      return true;
    }
    if (each->address == NULL && each->version < 0) continue;
    if (torch_address(each->value) != each->address) return true;
    if (each->version >= 0 && version_of(each->value) != each->version) return true;
  }
  return false;
}

/* Whether autograd would record this call: 1, 0, or -1 with an exception set. */
static int needs_grad(Dispatch* self, PyObject* const* args, Py_ssize_t count) {
  const int enabled = torch_grad_enabled();
  if (enabled <= 0) return enabled;
  for (Py_ssize_t i = 0; i < count; ++i)
    if (torch_requires_grad(args[i])) return 1;
  for (Py_ssize_t i = 0; i < self->watch_count; ++i)
    if (torch_requires_grad(self->watch[i].value)) return 1;
  return 0;
}

static PyObject* call_fallback(Dispatch* self, PyObject* const* args, Py_ssize_t count, PyObject* keyword_names) {
  PyObject* positional = PyTuple_New(count);
  PyObject* keywords = PyDict_New();
  PyObject* result = NULL;
  if (positional == NULL || keywords == NULL) goto done;
  for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(positional, i, Py_NewRef(args[i]));
  const Py_ssize_t named = keyword_names != NULL ? PyTuple_GET_SIZE(keyword_names) : 0;
  for (Py_ssize_t i = 0; i < named; ++i)
    if (PyDict_SetItem(keywords, PyTuple_GET_ITEM(keyword_names, i), args[count + i]) != 0) goto done;
  PyObject* arguments[] = {positional, keywords};
  result = PyObject_Vectorcall(self->fallback, arguments, 2, NULL);
done:
  Py_XDECREF(positional);
  Py_XDECREF(keywords);
  return result;
}

static PyObject* dispatch_call(Dispatch* self, PyObject* const* args, size_t flags, PyObject* keyword_names) {
  const Py_ssize_t count = PyVectorcall_NARGS(flags);
  const Py_ssize_t named = keyword_names != NULL ? PyTuple_GET_SIZE(keyword_names) : 0;
  const int grad = needs_grad(self, args, count + named);
  if (grad < 0) return NULL;
  if (grad > 0) return call_fallback(self, args, count, keyword_names);
  if (changed(self)) return call_fallback(self, args, count, keyword_names);
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(self->runners); ++i) {
    PyObject* runner = Py_NewRef(PyList_GET_ITEM(self->runners, i));
    runner_binding binding;
    if (!runner_bind((Runner*)runner, args, count, keyword_names, &binding)) {
      Py_DECREF(runner);
      continue;
    }
    if (i > 0 && i < PyList_GET_SIZE(self->runners) && PyList_GET_ITEM(self->runners, i) == runner) {
      PyObject* first = PyList_GET_ITEM(self->runners, 0);
      PyList_SET_ITEM(self->runners, 0, runner);
      PyList_SET_ITEM(self->runners, i, first);
    }
    PyObject* result = runner_finish((Runner*)runner, &binding);
    Py_DECREF(runner);
    return result;
  }
  return call_fallback(self, args, count, keyword_names);
}

static PyObject* dispatch_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static char* names[] = {"fallback", NULL};
  PyObject* fallback;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", names, &fallback)) return NULL;
  Dispatch* self = (Dispatch*)type->tp_alloc(type, 0);
  if (self == NULL) return NULL;
  self->vectorcall = (vectorcallfunc)dispatch_call;
  self->fallback = Py_NewRef(fallback);
  self->runners = PyList_New(0);
  if (self->runners == NULL) Py_CLEAR(self);
  return (PyObject*)self;
}

static void clear_watch(Dispatch* self) {
  watched* watch = self->watch;
  const Py_ssize_t count = self->watch_count;
  self->watch = NULL;
  self->watch_count = 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    Py_XDECREF(watch[i].dictionary);
    Py_XDECREF(watch[i].key);
    Py_XDECREF(watch[i].value);
  }
  free(watch);
}

static int dispatch_traverse(Dispatch* self, visitproc visit, void* arg) {
  Py_VISIT(self->runners);
  Py_VISIT(self->fallback);
  for (Py_ssize_t i = 0; i < self->watch_count; ++i) {
    Py_VISIT(self->watch[i].dictionary);
    Py_VISIT(self->watch[i].key);
    Py_VISIT(self->watch[i].value);
  }
  return 0;
}

static int dispatch_clear(Dispatch* self) {
  clear_watch(self);
  Py_CLEAR(self->runners);
  Py_CLEAR(self->fallback);
  return 0;
}

static void dispatch_dealloc(Dispatch* self) {
  PyObject_GC_UnTrack(self);
  dispatch_clear(self);
  Py_TYPE(self)->tp_free((PyObject*)self);
}

/* ---- methods ---- */

static PyObject* dispatch_add(Dispatch* self, PyObject* runner) {
  if (!PyObject_TypeCheck(runner, &RunnerType)) {
    PyErr_SetString(PyExc_TypeError, "add() takes a Runner");
    return NULL;
  }
  if (PyList_Insert(self->runners, 0, runner) != 0) return NULL;
  Py_RETURN_NONE;
}

static PyObject* dispatch_reset(Dispatch* self, PyObject* unused) {
  (void)unused;
  PyObject* empty = PyList_New(0);
  if (empty == NULL) return NULL;
  Py_SETREF(self->runners, empty);
  clear_watch(self);
  Py_RETURN_NONE;
}

static PyObject* dispatch_watch(Dispatch* self, PyObject* entries) {
  if (!PyList_Check(entries)) {
    PyErr_SetString(PyExc_TypeError, "watch() takes a list of (dictionary, key, is tensor)");
    return NULL;
  }
  const Py_ssize_t count = PyList_GET_SIZE(entries);
  watched* watch = calloc((size_t)count + 1, sizeof *watch);
  if (watch == NULL) return PyErr_NoMemory();
  clear_watch(self);
  self->watch = watch;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject *dictionary, *key;
    int tensor;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(entries, i), "O!Oi", &PyDict_Type, &dictionary, &key, &tensor)) return NULL;
    PyObject* value = PyDict_GetItemWithError(dictionary, key);
    if (value == NULL) {
      if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, key);
      return NULL;
    }
    watch[i].dictionary = Py_NewRef(dictionary);
    watch[i].key = Py_NewRef(key);
    watch[i].value = Py_NewRef(value);
    watch[i].version = tensor ? version_of(value) : -1;
    watch[i].address = tensor ? torch_address(value) : NULL;
    self->watch_count = i + 1;
  }
  Py_RETURN_NONE;
}

static PyObject* dispatch_changed(Dispatch* self, PyObject* unused) {
  (void)unused;
  return PyBool_FromLong(changed(self));
}

static PyMethodDef dispatch_methods[] = {
    {"add", (PyCFunction)dispatch_add, METH_O, "add(runner): try this runner first."},
    {"reset", (PyCFunction)dispatch_reset, METH_NOARGS, "reset(): forget runners and watched state."},
    {"watch", (PyCFunction)dispatch_watch, METH_O,
     "watch(entries): from now on call the fallback once dictionary[key] is another object or, for tensors, was written to; "
     "entries are (dictionary, key, kind): 0 an object, 1 a tensor, 2 a tensor of which only the place in memory counts."},
    {"changed", (PyCFunction)dispatch_changed, METH_NOARGS, "changed(): whether watched state differs from what it was."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef dispatch_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Dispatch, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject DispatchType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mlc.runtime._native.Dispatch",
    .tp_doc = "Dispatch(fallback): calls the first runner whose flat signature fits the arguments. It calls fallback(args, kwargs) instead when "
              "none fits, when watched state has changed, and when gradients are enabled and an argument or a watched tensor requires one.",
    .tp_basicsize = sizeof(Dispatch),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Dispatch, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_new = dispatch_new,
    .tp_dealloc = (destructor)dispatch_dealloc,
    .tp_traverse = (traverseproc)dispatch_traverse,
    .tp_clear = (inquiry)dispatch_clear,
    .tp_methods = dispatch_methods,
    .tp_members = dispatch_members,
};

int dispatch_setup(void) {
  version_name = PyUnicode_InternFromString("_version");
  return version_name != NULL && PyType_Ready(&DispatchType) == 0 ? 0 : -1;
}
