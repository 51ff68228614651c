/* Tensors of the host frameworks: what a program demands of one, where its data is, and how to make a new one. */
#ifndef MLC_TENSORS_H
#define MLC_TENSORS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "sizes.h"

/* An input or output of a program. dtype by DLPack's code and bits. Symbolic extents are -1 in `shape`, and then in `sizes`. */
typedef struct {
  PyObject* name;
  PyObject* shape_tuple;
  PyObject* stride_tuple; /* dense row-major, in elements */
  PyObject* torch_dtype;  /* looked up at the first output of the kind */
  PyObject* numpy_dtype;
  int64_t* shape;
  size_code* sizes; /* one for each axis; NULL when the shape is static */
  Py_ssize_t first_extent; /* of an input: where a call's extents of its axes stand */
  int32_t rank;
  uint8_t code;
  uint8_t bits;
  bool mutated; /* an input that the program changes in place */
  size_t bytes; /* of a static one */
} tensor_spec;

/* From a Python tuple (name, code, bits, shape), a symbolic extent being a tuple for size_code_init; false with an exception set. */
bool tensor_spec_init(tensor_spec* spec, PyObject* description, Py_ssize_t symbols);
void tensor_spec_clear(tensor_spec* spec);

typedef enum { KIND_UNKNOWN = 0, KIND_NUMPY, KIND_TORCH } tensor_kind;

/* Makes the classes of a framework known: (torch.Tensor, torch.nn.Parameter, torch.empty_strided, torch.is_grad_enabled,
 * {dtype name: dtype}, exchange table capsule) or (numpy.ndarray, {dtype name: dtype}). */
PyObject* tensors_adopt_torch(PyObject* module, PyObject* args);
PyObject* tensors_adopt_numpy(PyObject* module, PyObject* args);

/* The framework an object belongs to, when it is exactly one of the adopted classes. */
tensor_kind tensor_kind_of(PyObject* object);

typedef enum {
  FIT_NOT = 0,   /* another shape, dtype or device, strided, or not to be read this simply */
  FIT_READY,     /* can be passed as it stands */
  FIT_UNALIGNED, /* dense, but must be copied to aligned memory */
} tensor_fit;

/* How `object` fits the spec, whatever its symbolic extents are: those go to `extents` (one for each axis; not touched for a static
 * spec), its size to *bytes. Sets *data unless FIT_NOT; never raises. */
tensor_fit tensor_fits(PyObject* object, tensor_kind kind, const tensor_spec* spec, void** data, size_t* bytes, int64_t* extents);

/* A new tensor of the given framework, for `values` of the symbols; sets *data. NULL with an exception set. */
PyObject* tensor_new(tensor_kind kind, tensor_spec* spec, const int64_t* values, void** data);

/* Address of a torch tensor's first element, NULL when that cannot be told. Never raises. */
void* torch_address(PyObject* tensor);

/* Whether autograd records at the moment: 1, 0 (also while torch is not known), or -1 with an exception set. */
int torch_grad_enabled(void);

/* Whether an object is a torch tensor that requires a gradient. Never raises. */
bool torch_requires_grad(PyObject* object);

/* Bytes with the alignment programs ask for, exported through the buffer protocol: Buffer(nbytes). */
extern PyTypeObject BufferType;

#endif
