#include "tensors.h"

#include <stdlib.h>
#include <string.h>

#include "dlpack_exchange.h"
#include "memory.h"
#include "mlc_abi.h"

/* What the runtime knows of the frameworks, filled when the first tensor of each is seen. */
static struct {
  PyTypeObject* tensor;
  PyTypeObject* parameter;
  PyObject* empty_strided;
  PyObject* is_grad_enabled;
  PyObject* dtypes;
  PyObject* dtype_keyword;
  const dlpack_exchange* exchange;
} torch;

static struct {
  PyTypeObject* array;
  PyObject* dtypes;
} numpy;

/* ---- Buffer ---- */

typedef struct {
  PyObject_HEAD
  void* data;
  size_t bytes;
  bool region; /* from mlc_region_new, else from mlc_aligned */
} Buffer;

static PyObject* buffer_make(size_t bytes, bool region) {
  Buffer* self = PyObject_New(Buffer, &BufferType);
  if (self == NULL) return NULL;
  self->bytes = bytes;
  self->region = region;
  self->data = region ? mlc_region_new(bytes) : mlc_aligned(bytes);
  if (self->data == NULL) {
    Py_DECREF(self);
    return PyErr_NoMemory();
  }
  return (PyObject*)self;
}

static PyObject* buffer_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static char* names[] = {"nbytes", NULL};
  Py_ssize_t bytes;
  (void)type;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n", names, &bytes)) return NULL;
  if (bytes < 0) {
    PyErr_SetString(PyExc_ValueError, "nbytes must not be negative");
    return NULL;
  }
  return buffer_make((size_t)bytes, true);
}

static void buffer_dealloc(Buffer* self) {
  if (self->data != NULL) {
    if (self->region)
      mlc_region_free(self->data, self->bytes);
    else
      free(self->data);
  }
  PyObject_Free(self);
}

static int buffer_export(Buffer* self, Py_buffer* view, int flags) {
  return PyBuffer_FillInfo(view, (PyObject*)self, self->data, (Py_ssize_t)self->bytes, 0, flags);
}

static PyBufferProcs buffer_procs = {.bf_getbuffer = (getbufferproc)buffer_export};

PyTypeObject BufferType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mlc.runtime._native.Buffer",
    .tp_doc = "Buffer(nbytes): aligned memory, from 2 MiB on in huge pages where the system has them.",
    .tp_basicsize = sizeof(Buffer),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = buffer_new,
    .tp_dealloc = (destructor)buffer_dealloc,
    .tp_as_buffer = &buffer_procs,
};

/* ---- specs ---- */

/* The symbolic extents of a shape; false with an exception set. */
static bool read_sizes(tensor_spec* spec, PyObject* shape, Py_ssize_t symbols) {
  for (int32_t axis = 0; axis < spec->rank; ++axis) {
    PyObject* extent = PyTuple_GET_ITEM(shape, axis);
    if (!PyTuple_Check(extent)) continue;
    if (spec->sizes == NULL) spec->sizes = calloc((size_t)spec->rank, sizeof *spec->sizes);
    if (spec->sizes == NULL) {
      PyErr_NoMemory();
      return false;
    }
    if (!size_code_init(&spec->sizes[axis], extent, symbols)) return false;
  }
  return true;
}

bool tensor_spec_init(tensor_spec* spec, PyObject* description, Py_ssize_t symbols) {
  memset(spec, 0, sizeof *spec);
  int code, bits;
  PyObject *name, *shape;
  if (!PyArg_ParseTuple(description, "UiiO!", &name, &code, &bits, &PyTuple_Type, &shape)) return false;
  spec->rank = (int32_t)PyTuple_GET_SIZE(shape);
  spec->code = (uint8_t)code;
  spec->bits = (uint8_t)bits;
  spec->shape = malloc(sizeof(int64_t) * (size_t)(spec->rank + 1));
  spec->stride_tuple = PyTuple_New(spec->rank);
  if (spec->shape == NULL || spec->stride_tuple == NULL) {
    PyErr_NoMemory();
    return false;
  }
  spec->name = Py_NewRef(name);
  if (!read_sizes(spec, shape, symbols)) return false;
  if (spec->sizes != NULL) {
    for (int32_t axis = 0; axis < spec->rank; ++axis)
      spec->shape[axis] = spec->sizes[axis].count > 0 ? -1 : PyLong_AsLongLong(PyTuple_GET_ITEM(shape, axis));
    return !PyErr_Occurred();
  }
  spec->shape_tuple = Py_NewRef(shape);
  int64_t elements = 1, step = 1;
  for (int32_t axis = spec->rank - 1; axis >= 0; --axis) {
    const int64_t extent = PyLong_AsLongLong(PyTuple_GET_ITEM(shape, axis));
    if (extent < 0) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "extents must not be negative");
      return false;
    }
    PyObject* stride = PyLong_FromLongLong(step);
    if (stride == NULL) return false;
    PyTuple_SET_ITEM(spec->stride_tuple, axis, stride);
    spec->shape[axis] = extent;
    elements *= extent;
    step *= extent > 0 ? extent : 1;
  }
  spec->bytes = (size_t)elements * spec->bits / 8;
  return true;
}

void tensor_spec_clear(tensor_spec* spec) {
  Py_CLEAR(spec->name);
  Py_CLEAR(spec->shape_tuple);
  Py_CLEAR(spec->stride_tuple);
  Py_CLEAR(spec->torch_dtype);
  Py_CLEAR(spec->numpy_dtype);
  for (int32_t axis = 0; spec->sizes != NULL && axis < spec->rank; ++axis) size_code_clear(&spec->sizes[axis]);
  free(spec->sizes);
  spec->sizes = NULL;
  free(spec->shape);
  spec->shape = NULL;
}

/* ---- frameworks ---- */

PyObject* tensors_adopt_torch(PyObject* module, PyObject* args) {
  PyObject *tensor, *parameter, *empty_strided, *is_grad_enabled, *dtypes, *capsule;
  (void)module;
  if (!PyArg_ParseTuple(args, "O!O!OOO!O", &PyType_Type, &tensor, &PyType_Type, &parameter, &empty_strided, &is_grad_enabled,
                        &PyDict_Type, &dtypes, &capsule))
    return NULL;
  const dlpack_exchange* exchange = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
  if (exchange == NULL) return NULL;
  while (exchange != NULL && exchange->version.major != 1) exchange = exchange->previous;
  if (exchange == NULL || exchange->tensor_from_object == NULL) {
    PyErr_SetString(PyExc_RuntimeError, "this version of torch has no DLPack 1.x exchange table");
    return NULL;
  }
  if (torch.tensor == NULL) {
    torch.tensor = (PyTypeObject*)Py_NewRef(tensor);
    torch.parameter = (PyTypeObject*)Py_NewRef(parameter);
    torch.empty_strided = Py_NewRef(empty_strided);
    torch.is_grad_enabled = Py_NewRef(is_grad_enabled);
    torch.dtypes = Py_NewRef(dtypes);
    torch.dtype_keyword = Py_BuildValue("(s)", "dtype");
    torch.exchange = exchange;
  }
  Py_RETURN_NONE;
}

PyObject* tensors_adopt_numpy(PyObject* module, PyObject* args) {
  PyObject *array, *dtypes;
  (void)module;
  if (!PyArg_ParseTuple(args, "O!O!", &PyType_Type, &array, &PyDict_Type, &dtypes)) return NULL;
  if (numpy.array == NULL) {
    numpy.array = (PyTypeObject*)Py_NewRef(array);
    numpy.dtypes = Py_NewRef(dtypes);
  }
  Py_RETURN_NONE;
}

tensor_kind tensor_kind_of(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (type == torch.tensor || type == torch.parameter) return KIND_TORCH;
  if (type == numpy.array) return KIND_NUMPY;
  return KIND_UNKNOWN;
}

static PyObject* is_neg_name;

/* Whether a tensor is a lazily negated view. */
static bool is_negated(PyObject* tensor) {
  if (is_neg_name == NULL) is_neg_name = PyUnicode_InternFromString("is_neg");
  PyObject* answer = is_neg_name != NULL ? PyObject_CallMethodNoArgs(tensor, is_neg_name) : NULL;
  if (answer == NULL) PyErr_Clear();
  Py_XDECREF(answer);
  return answer != Py_False;
}

static inline bool aligned(const void* data, size_t bytes) {
  return bytes == 0 || ((uintptr_t)data % MLC_ALIGNMENT == 0 && data != NULL);
}

/* What a dense tensor of this shape takes. */
static size_t bytes_of(const tensor_spec* spec, const int64_t* shape) {
  int64_t elements = 1;
  for (int32_t axis = 0; axis < spec->rank; ++axis) elements *= shape[axis];
  return (size_t)elements * spec->bits / 8;
}

static tensor_fit torch_fits(PyObject* object, const tensor_spec* spec, void** data, size_t* bytes, int64_t* extents) {
  dlpack_tensor view;
  if (torch.exchange->tensor_from_object(object, &view) != 0) {
    PyErr_Clear();
    return FIT_NOT;
  }
  if (view.device_type != DLPACK_CPU && view.device_type != DLPACK_CUDA_HOST) return FIT_NOT;
  if (view.code != spec->code || view.bits != spec->bits || view.lanes != 1 || view.ndim != spec->rank) return FIT_NOT;
  /* A lazily conjugated view has the same strides as its base; the careful path resolves it. */
  if (spec->code == DLPACK_COMPLEX) return FIT_NOT;
  *bytes = spec->bytes;
  if (spec->sizes != NULL) {
    for (int32_t axis = 0; axis < spec->rank; ++axis) extents[axis] = view.shape[axis];
    *bytes = bytes_of(spec, extents);
  }
  int64_t step = 1;
  for (int32_t axis = spec->rank - 1; axis >= 0; --axis) {
    const int64_t extent = spec->shape[axis] >= 0 ? spec->shape[axis] : extents[axis];
    if (view.shape[axis] != extent) return FIT_NOT;
    if (view.strides != NULL && view.strides[axis] != step && extent > 1 && *bytes > 0) return FIT_NOT;
    step *= extent;
  }
  /* DLPack does not tell of lazy negation. Such views come out of complex numbers with a stride of 2, so only a single
   * element can look dense. */
  if (spec->code == DLPACK_FLOAT && *bytes * 8 == spec->bits && is_negated(object)) return FIT_NOT;
  *data = (char*)view.data + view.byte_offset;
  return aligned(*data, *bytes) ? FIT_READY : FIT_UNALIGNED;
}

/* The DLPack code of a native-endian struct format of one element; -1 for others. */
static int format_code(const char* format) {
  if (format == NULL) return DLPACK_UINT;
  if (*format == '@' || *format == '=') ++format;
  if (format[0] == 'Z' && (format[1] == 'f' || format[1] == 'd') && format[2] == 0) return DLPACK_COMPLEX;
  if (format[0] == 0 || format[1] != 0) return -1;
  switch (format[0]) {
    case '?':
      return DLPACK_BOOL;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q':
      return DLPACK_INT;
    case 'B':
    case 'H':
    case 'I':
    case 'L':
    case 'Q':
      return DLPACK_UINT;
    case 'e':
    case 'f':
    case 'd':
      return DLPACK_FLOAT;
    default:
      return -1;
  }
}

static tensor_fit numpy_fits(PyObject* object, const tensor_spec* spec, void** data, size_t* bytes, int64_t* extents) {
  Py_buffer view;
  if (PyObject_GetBuffer(object, &view, PyBUF_STRIDES | PyBUF_FORMAT | (spec->mutated ? PyBUF_WRITABLE : 0)) != 0) {
    PyErr_Clear();
    return FIT_NOT;
  }
  bool fits = view.ndim == spec->rank && view.itemsize * 8 == spec->bits && format_code(view.format) == spec->code;
  *bytes = spec->bytes;
  if (fits && spec->sizes != NULL) {
    for (int32_t axis = 0; axis < spec->rank; ++axis) extents[axis] = view.shape[axis];
    *bytes = bytes_of(spec, extents);
  }
  Py_ssize_t step = view.itemsize;
  for (int32_t axis = spec->rank - 1; fits && axis >= 0; --axis) {
    const int64_t extent = spec->shape[axis] >= 0 ? spec->shape[axis] : extents[axis];
    fits = view.shape[axis] == extent && (view.strides[axis] == step || extent <= 1 || *bytes == 0);
    step *= extent;
  }
  *data = view.buf;
  /* The caller keeps a reference to the array, which therefore does not move. */
  PyBuffer_Release(&view);
  if (!fits) return FIT_NOT;
  return aligned(*data, *bytes) ? FIT_READY : FIT_UNALIGNED;
}

tensor_fit tensor_fits(PyObject* object, tensor_kind kind, const tensor_spec* spec, void** data, size_t* bytes, int64_t* extents) {
  switch (kind) {
    case KIND_TORCH:
      return torch_fits(object, spec, data, bytes, extents);
    case KIND_NUMPY:
      return numpy_fits(object, spec, data, bytes, extents);
    default:
      return FIT_NOT;
  }
}

void* torch_address(PyObject* tensor) {
  dlpack_tensor view;
  if (torch.exchange == NULL || torch.exchange->tensor_from_object(tensor, &view) != 0) {
    PyErr_Clear();
    return NULL;
  }
  return (char*)view.data + view.byte_offset;
}

int torch_grad_enabled(void) {
  if (torch.is_grad_enabled == NULL) return 0;
  PyObject* enabled = PyObject_CallNoArgs(torch.is_grad_enabled);
  if (enabled == NULL) return -1;
  Py_DECREF(enabled);
  return enabled == Py_True;
}

static PyObject* requires_grad_name;

bool torch_requires_grad(PyObject* object) {
  if (tensor_kind_of(object) != KIND_TORCH) return false;
  if (requires_grad_name == NULL) requires_grad_name = PyUnicode_InternFromString("requires_grad");
  PyObject* answer = requires_grad_name != NULL ? PyObject_GetAttr(object, requires_grad_name) : NULL;
  if (answer == NULL) PyErr_Clear();
  Py_XDECREF(answer);
  return answer != Py_False;
}

/* ---- new tensors ---- */

static const char* dtype_name(const tensor_spec* spec) {
  switch (spec->code) {
    case DLPACK_BOOL:
      return "bool";
    case DLPACK_BFLOAT:
      return "bfloat16";
    case DLPACK_COMPLEX:
      return spec->bits == 64 ? "complex64" : "complex128";
    case DLPACK_FLOAT:
      return spec->bits == 16 ? "float16" : spec->bits == 32 ? "float32" : "float64";
    case DLPACK_UINT:
      return "uint8";
    default:
      return spec->bits == 8 ? "int8" : spec->bits == 16 ? "int16" : spec->bits == 32 ? "int32" : "int64";
  }
}

/* The framework's dtype object of an output, borrowed; looked up once per spec. */
static PyObject* dtype_of(PyObject* dtypes, tensor_spec* spec, tensor_kind kind) {
  PyObject** cached = kind == KIND_TORCH ? &spec->torch_dtype : &spec->numpy_dtype;
  if (*cached == NULL) {
    PyObject* dtype = PyDict_GetItemString(dtypes, dtype_name(spec));
    if (dtype == NULL)
      PyErr_Format(PyExc_TypeError, "output '%U' has the unknown dtype %s", spec->name, dtype_name(spec));
    else
      *cached = Py_NewRef(dtype);
  }
  return *cached;
}

static PyObject* torch_new(tensor_spec* spec, void** data) {
  PyObject* dtype = dtype_of(torch.dtypes, spec, KIND_TORCH);
  if (dtype == NULL) return NULL;
  PyObject* arguments[] = {spec->shape_tuple, spec->stride_tuple, dtype};
  PyObject* tensor = PyObject_Vectorcall(torch.empty_strided, arguments, 2, torch.dtype_keyword);
  if (tensor == NULL) return NULL;
  dlpack_tensor view;
  if (torch.exchange->tensor_from_object(tensor, &view) != 0) {
    Py_DECREF(tensor);
    return NULL;
  }
  *data = (char*)view.data + view.byte_offset;
  if (view.device_type != DLPACK_CPU || !aligned(*data, spec->bytes)) {
    PyErr_SetString(PyExc_RuntimeError,
                    "torch.empty_strided gave no aligned CPU memory for an output; call the program without a default device "
                    "other than the CPU");
    Py_DECREF(tensor);
    return NULL;
  }
  return tensor;
}

static PyObject* numpy_new(tensor_spec* spec, void** data) {
  PyObject* dtype = dtype_of(numpy.dtypes, spec, KIND_NUMPY);
  if (dtype == NULL) return NULL;
  PyObject* buffer = buffer_make(spec->bytes, false);
  if (buffer == NULL) return NULL;
  *data = ((Buffer*)buffer)->data;
  PyObject* arguments[] = {spec->shape_tuple, dtype, buffer};
  PyObject* array = PyObject_Vectorcall((PyObject*)numpy.array, arguments, 3, NULL);
  Py_DECREF(buffer);
  return array;
}

static PyObject* static_new(tensor_kind kind, tensor_spec* spec, void** data) {
  if (kind == KIND_TORCH) return torch_new(spec, data);
  if (kind == KIND_NUMPY) return numpy_new(spec, data);
  PyErr_SetString(PyExc_SystemError, "no framework to make an output with");
  return NULL;
}

PyObject* tensor_new(tensor_kind kind, tensor_spec* spec, const int64_t* values, void** data) {
  if (spec->sizes == NULL) return static_new(kind, spec, data);
  /* The spec with the shape of this call; only the dtypes looked up in it outlive the call. */
  tensor_spec concrete = *spec;
  PyObject* result = NULL;
  concrete.shape_tuple = PyTuple_New(spec->rank);
  concrete.stride_tuple = PyTuple_New(spec->rank);
  if (concrete.shape_tuple == NULL || concrete.stride_tuple == NULL) goto done;
  int64_t elements = 1, step = 1;
  for (int32_t axis = spec->rank - 1; axis >= 0; --axis) {
    const int64_t extent = spec->shape[axis] >= 0 ? spec->shape[axis] : size_code_evaluate(&spec->sizes[axis], values);
    PyObject* number = PyLong_FromLongLong(extent);
    PyObject* stride = PyLong_FromLongLong(step);
    if (number != NULL) PyTuple_SET_ITEM(concrete.shape_tuple, axis, number);
    if (stride != NULL) PyTuple_SET_ITEM(concrete.stride_tuple, axis, stride);
    if (number == NULL || stride == NULL) goto done;
    if (extent < 0) {
      PyErr_Format(PyExc_ValueError, "output '%U' would have a negative extent for these inputs", spec->name);
      goto done;
    }
    elements *= extent;
    step *= extent > 0 ? extent : 1;
  }
  concrete.bytes = (size_t)elements * spec->bits / 8;
  result = static_new(kind, &concrete, data);
  spec->torch_dtype = concrete.torch_dtype;
  spec->numpy_dtype = concrete.numpy_dtype;
done:
  Py_XDECREF(concrete.shape_tuple);
  Py_XDECREF(concrete.stride_tuple);
  return result;
}
