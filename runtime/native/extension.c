/* The extension module mlc.runtime._native. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>

#include "dispatch.h"
#include "guard.h"
#include "memory.h"
#include "mlc_abi.h"
#include "runner.h"
#include "tensors.h"
#include "threads.h"

static PyObject* available_cpus(PyObject* module, PyObject* unused) {
  (void)module;
  (void)unused;
  return PyLong_FromLong(mlc_available_cpus());
}

static PyObject* trim(PyObject* module, PyObject* unused) {
  (void)module;
  (void)unused;
  return PyLong_FromSize_t(mlc_arena_trim());
}

static PyMethodDef functions[] = {
    {"adopt_torch", tensors_adopt_torch, METH_VARARGS,
     "adopt_torch(Tensor, Parameter, empty_strided, dtypes, exchange): make torch's classes known."},
    {"adopt_numpy", tensors_adopt_numpy, METH_VARARGS, "adopt_numpy(ndarray, dtypes): make NumPy's array known."},
    {"available_cpus", available_cpus, METH_NOARGS, "available_cpus(): CPUs the calling thread may run on."},
    {"trim", trim, METH_NOARGS, "trim(): free all idle arenas; their size in bytes."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Calls compiled programs: thread pool, arenas, guards, dispatch.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__native(void) {
  static int ready;
  if (!ready) {
    const int error = mlc_threads_setup();
    if (error != 0) {
      errno = error;
      return PyErr_SetFromErrno(PyExc_OSError);
    }
    ready = 1;
  }
  if (PyType_Ready(&BufferType) != 0 || PyType_Ready(&GuardType) != 0 || PyType_Ready(&LibraryType) != 0 ||
      PyType_Ready(&RunnerType) != 0 || dispatch_setup() != 0)
    return NULL;
  PyObject* module = PyModule_Create(&definition);
  if (module == NULL) return NULL;
  if (PyModule_AddObjectRef(module, "Buffer", (PyObject*)&BufferType) != 0 ||
      PyModule_AddObjectRef(module, "Guard", (PyObject*)&GuardType) != 0 ||
      PyModule_AddObjectRef(module, "Library", (PyObject*)&LibraryType) != 0 ||
      PyModule_AddObjectRef(module, "Runner", (PyObject*)&RunnerType) != 0 ||
      PyModule_AddObjectRef(module, "Dispatch", (PyObject*)&DispatchType) != 0 ||
      PyModule_AddIntConstant(module, "ABI_VERSION", MLC_ABI_VERSION) != 0 ||
      PyModule_AddIntConstant(module, "ALIGNMENT", MLC_ALIGNMENT) != 0) {
    Py_DECREF(module);
    return NULL;
  }
  return module;
}
