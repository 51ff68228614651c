#include "runner.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>
#include <time.h>

#include "guard.h"
#include "memory.h"
#include "threads.h"

/* ---- Library ---- */

typedef struct {
  PyObject_HEAD
  void* handle;
} Library;

static PyObject* library_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static char* names[] = {"path", NULL};
  PyObject* path = NULL;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&", names, PyUnicode_FSConverter, &path)) return NULL;
  Library* self = (Library*)type->tp_alloc(type, 0);
  if (self != NULL) {
    Py_BEGIN_ALLOW_THREADS;
    self->handle = dlopen(PyBytes_AS_STRING(path), RTLD_NOW | RTLD_LOCAL);
    Py_END_ALLOW_THREADS;
    if (self->handle == NULL) {
      PyErr_SetString(PyExc_OSError, dlerror());
      Py_CLEAR(self);
    }
  }
  Py_DECREF(path);
  return (PyObject*)self;
}

static void library_dealloc(Library* self) {
  if (self->handle != NULL) dlclose(self->handle);
  Py_TYPE(self)->tp_free((PyObject*)self);
}

PyTypeObject LibraryType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mlc.runtime._native.Library",
    .tp_doc = "Library(path): a loaded native library; OSError when it cannot be loaded.",
    .tp_basicsize = sizeof(Library),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = library_new,
    .tp_dealloc = (destructor)library_dealloc,
};

/* ---- Runner ---- */

/* What an argument of the flat signature must be: input number `leaf`, or, when that is negative, equal to `value`. */
typedef struct {
  Py_ssize_t leaf;
  PyObject* value;
} argument_plan;

typedef enum { OUTPUT_SINGLE, OUTPUT_TUPLE, OUTPUT_LIST, OUTPUT_BUILD } output_form;

struct Runner {
  PyObject_HEAD
  Library* library;
  mlc_entry_fn entry;
  Py_buffer constants;
  const void* constants_data;
  Py_ssize_t input_count, output_count, call_count;
  tensor_spec* inputs;
  tensor_spec* outputs;
  size_t arena_bytes;
  /* Symbolic dimensions: how a call tells them, room for them and for the extents of inputs, and the slots of the arena. */
  Py_ssize_t symbol_count, value_count, slot_count;
  size_symbol* symbols;
  size_code* slots;
  int32_t threads;
  bool release_lock;
  /* The buffers of the session that the program reads and changes; `guard` is NULL when there are none. */
  Py_ssize_t state_count;
  void** states;
  PyObject* state_owner; /* keeps their memory */
  Guard* guard;
  bool mutates; /* some input is changed in place */
  /* The flat signature. Without one (`flat` false), bind always fails. */
  bool flat;
  Py_ssize_t positional_count, keyword_count;
  argument_plan* arguments; /* positional, then keywords */
  PyObject* keyword_names;
  output_form form;
  PyObject* build; /* for OUTPUT_BUILD: called with the list of outputs */
};

static tensor_spec* parse_specs(PyObject* descriptions, Py_ssize_t* count, Py_ssize_t symbols) {
  *count = 0;
  const Py_ssize_t size = PyTuple_GET_SIZE(descriptions);
  tensor_spec* specs = calloc((size_t)size + 1, sizeof *specs);
  if (specs == NULL) {
    PyErr_NoMemory();
    return NULL;
  }
  for (Py_ssize_t i = 0; i < size; ++i) {
    *count = i + 1;
    PyObject* description = PyTuple_GET_ITEM(descriptions, i);
    if (!PyTuple_Check(description)) {
      PyErr_SetString(PyExc_TypeError, "a tensor is described by a tuple (name, code, bits, shape)");
      return specs;
    }
    if (!tensor_spec_init(&specs[i], description, symbols)) return specs;
  }
  return specs;
}

/* Tuples (input, axis, factor, offset, lower, upper), upper negative without a bound; false with an exception set. */
static bool parse_symbols(Runner* self, PyObject* symbols) {
  self->symbol_count = PyTuple_GET_SIZE(symbols);
  self->symbols = calloc((size_t)self->symbol_count + 1, sizeof *self->symbols);
  if (self->symbols == NULL) {
    PyErr_NoMemory();
    return false;
  }
  for (Py_ssize_t i = 0; i < self->symbol_count; ++i) {
    size_symbol* symbol = &self->symbols[i];
    int axis;
    long long factor, offset, lower, upper;
    if (!PyArg_ParseTuple(PyTuple_GET_ITEM(symbols, i), "niLLLL", &symbol->input, &axis, &factor, &offset, &lower, &upper)) return false;
    symbol->axis = axis;
    symbol->factor = factor;
    symbol->offset = offset;
    symbol->lower = lower;
    symbol->upper = upper;
  }
  return true;
}

/* The slots, and the places of extents; false with an exception set. */
static bool parse_slots(Runner* self, PyObject* slots) {
  self->slot_count = PyTuple_GET_SIZE(slots);
  self->slots = calloc((size_t)self->slot_count + 1, sizeof *self->slots);
  if (self->slots == NULL) {
    PyErr_NoMemory();
    return false;
  }
  for (Py_ssize_t i = 0; i < self->slot_count; ++i)
    if (!size_code_init(&self->slots[i], PyTuple_GET_ITEM(slots, i), self->symbol_count)) return false;
  self->value_count = self->symbol_count;
  for (Py_ssize_t i = 0; i < self->input_count; ++i) {
    if (self->inputs[i].sizes == NULL) continue;
    self->inputs[i].first_extent = self->value_count;
    self->value_count += self->inputs[i].rank;
  }
  for (Py_ssize_t i = 0; i < self->symbol_count; ++i) {
    const size_symbol* symbol = &self->symbols[i];
    if (symbol->input < 0 || symbol->input >= self->input_count || self->inputs[symbol->input].sizes == NULL || symbol->axis < 0 ||
        symbol->axis >= self->inputs[symbol->input].rank || symbol->factor < 1) {
      PyErr_SetString(PyExc_ValueError, "a symbol is told by an extent that does not exist");
      return false;
    }
  }
  return true;
}

/* (positional, keyword names, keywords): each argument an int (input number) or a 1-tuple (the value it must equal). */
static bool parse_plan(Runner* self, PyObject* plan) {
  if (plan == Py_None) return true;
  PyObject *positional, *names, *keywords;
  if (!PyArg_ParseTuple(plan, "O!O!O!", &PyTuple_Type, &positional, &PyTuple_Type, &names, &PyTuple_Type, &keywords)) return false;
  self->positional_count = PyTuple_GET_SIZE(positional);
  self->keyword_count = PyTuple_GET_SIZE(keywords);
  self->keyword_names = Py_NewRef(names);
  const Py_ssize_t total = self->positional_count + self->keyword_count;
  self->arguments = calloc((size_t)total + 1, sizeof *self->arguments);
  if (self->arguments == NULL) {
    PyErr_NoMemory();
    return false;
  }
  for (Py_ssize_t i = 0; i < total; ++i) {
    PyObject* each = i < self->positional_count ? PyTuple_GET_ITEM(positional, i)
                                                : PyTuple_GET_ITEM(keywords, i - self->positional_count);
    argument_plan* argument = &self->arguments[i];
    if (PyTuple_Check(each) && PyTuple_GET_SIZE(each) == 1) {
      argument->leaf = -1;
      argument->value = Py_NewRef(PyTuple_GET_ITEM(each, 0));
      continue;
    }
    argument->leaf = PyLong_AsSsize_t(each);
    if (argument->leaf < 0 || argument->leaf >= self->input_count) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "the plan names an input that does not exist");
      return false;
    }
  }
  self->flat = true;
  return true;
}

/* The addresses of the states, who keeps them, their guard; and which inputs are changed in place. */
static bool parse_states(Runner* self, PyObject* states, PyObject* owner, PyObject* guard, PyObject* mutated) {
  self->state_count = PyTuple_GET_SIZE(states);
  self->states = calloc((size_t)self->state_count + 1, sizeof *self->states);
  if (self->states == NULL) {
    PyErr_NoMemory();
    return false;
  }
  for (Py_ssize_t i = 0; i < self->state_count; ++i) {
    self->states[i] = PyLong_AsVoidPtr(PyTuple_GET_ITEM(states, i));
    if (PyErr_Occurred()) return false;
    if (self->states[i] == NULL || (uintptr_t)self->states[i] % MLC_ALIGNMENT != 0) {
      PyErr_Format(PyExc_ValueError, "state %zd is not aligned to %d bytes", i, MLC_ALIGNMENT);
      return false;
    }
  }
  if (self->state_count > 0) {
    if (!PyObject_TypeCheck(guard, &GuardType)) {
      PyErr_SetString(PyExc_TypeError, "a runner with states needs their Guard");
      return false;
    }
    self->guard = (Guard*)Py_NewRef(guard);
    self->state_owner = Py_NewRef(owner);
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mutated); ++i) {
    const Py_ssize_t input = PyLong_AsSsize_t(PyTuple_GET_ITEM(mutated, i));
    if (input < 0 || input >= self->input_count) {
      if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a mutated input does not exist");
      return false;
    }
    self->inputs[input].mutated = true;
    self->mutates = true;
  }
  return true;
}

static bool parse_output(Runner* self, PyObject* output) {
  if (PyUnicode_Check(output)) {
    if (PyUnicode_CompareWithASCIIString(output, "single") == 0 && self->output_count == 1)
      self->form = OUTPUT_SINGLE;
    else if (PyUnicode_CompareWithASCIIString(output, "tuple") == 0)
      self->form = OUTPUT_TUPLE;
    else if (PyUnicode_CompareWithASCIIString(output, "list") == 0)
      self->form = OUTPUT_LIST;
    else {
      PyErr_Format(PyExc_ValueError, "no output form %R for %zd outputs", output, self->output_count);
      return false;
    }
    return true;
  }
  self->form = OUTPUT_BUILD;
  self->build = Py_NewRef(output);
  return true;
}

static PyObject* runner_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  static char* names[] = {"library", "entry",   "inputs",       "outputs", "constants", "arena_bytes",
                          "threads", "calls",   "release_lock", "plan",    "output",    "states",
                          "state_owner", "guard", "mutated",    "symbols", "slots",     NULL};
  Library* library;
  const char* entry;
  PyObject *inputs, *outputs, *constants, *plan, *output, *states, *state_owner, *guard, *mutated, *symbols = NULL, *slots = NULL;
  Py_ssize_t arena_bytes, calls;
  int threads, release_lock;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!sO!O!OninpOOO!OOO!|O!O!", names, &LibraryType, &library, &entry, &PyTuple_Type,
                                   &inputs, &PyTuple_Type, &outputs, &constants, &arena_bytes, &threads, &calls, &release_lock, &plan,
                                   &output, &PyTuple_Type, &states, &state_owner, &guard, &PyTuple_Type, &mutated, &PyTuple_Type,
                                   &symbols, &PyTuple_Type, &slots))
    return NULL;
  Runner* self = (Runner*)type->tp_alloc(type, 0);
  if (self == NULL) return NULL;
  self->library = (Library*)Py_NewRef((PyObject*)library);
  self->entry = (mlc_entry_fn)dlsym(library->handle, entry);
  if (self->entry == NULL) {
    PyErr_Format(PyExc_OSError, "the library has no function '%s'", entry);
    goto fail;
  }
  self->arena_bytes = (size_t)arena_bytes;
  self->threads = threads < 1 ? 1 : threads;
  self->call_count = calls;
  self->release_lock = release_lock != 0;
  if (constants != Py_None) {
    if (PyObject_GetBuffer(constants, &self->constants, PyBUF_SIMPLE) != 0) goto fail;
    self->constants_data = self->constants.buf;
    if ((uintptr_t)self->constants_data % MLC_ALIGNMENT != 0) {
      PyErr_Format(PyExc_ValueError, "the constants are not aligned to %d bytes", MLC_ALIGNMENT);
      goto fail;
    }
  }
  if (symbols != NULL && !parse_symbols(self, symbols)) goto fail;
  self->inputs = parse_specs(inputs, &self->input_count, self->symbol_count);
  if (self->inputs == NULL || PyErr_Occurred()) goto fail;
  self->outputs = parse_specs(outputs, &self->output_count, self->symbol_count);
  if (self->outputs == NULL || PyErr_Occurred()) goto fail;
  if (slots != NULL && !parse_slots(self, slots)) goto fail;
  if (!parse_plan(self, plan) || !parse_output(self, output)) goto fail;
  if (!parse_states(self, states, state_owner, guard, mutated)) goto fail;
  return (PyObject*)self;
fail:
  Py_DECREF(self);
  return NULL;
}

static int runner_traverse(Runner* self, visitproc visit, void* arg) {
  Py_VISIT(self->library);
  Py_VISIT(self->build);
  Py_VISIT(self->state_owner);
  return 0;
}

static int runner_clear(Runner* self) {
  Py_CLEAR(self->build);
  Py_CLEAR(self->state_owner);
  return 0;
}

static void runner_dealloc(Runner* self) {
  PyObject_GC_UnTrack(self);
  runner_clear(self);
  for (Py_ssize_t i = 0; i < self->input_count; ++i) tensor_spec_clear(&self->inputs[i]);
  for (Py_ssize_t i = 0; i < self->output_count; ++i) tensor_spec_clear(&self->outputs[i]);
  free(self->inputs);
  free(self->outputs);
  free(self->symbols);
  for (Py_ssize_t i = 0; self->slots != NULL && i < self->slot_count; ++i) size_code_clear(&self->slots[i]);
  free(self->slots);
  if (self->arguments != NULL)
    for (Py_ssize_t i = 0; i < self->positional_count + self->keyword_count; ++i) Py_CLEAR(self->arguments[i].value);
  free(self->arguments);
  Py_CLEAR(self->keyword_names);
  if (self->constants.obj != NULL) PyBuffer_Release(&self->constants);
  free(self->states);
  Py_CLEAR(self->guard);
  Py_CLEAR(self->library);
  Py_TYPE(self)->tp_free((PyObject*)self);
}

/* ---- profiling ---- */

typedef struct {
  Py_ssize_t count;
  int64_t* started;
  int64_t* spent;
} profile_record;

static void profile_hook(const mlc_context* context, int32_t call, int32_t begin) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  const int64_t now = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
  profile_record* record = context->profile_data;
  if (call < 0 || call >= record->count) return;
  if (begin)
    record->started[call] = now;
  else
    record->spent[call] += now - record->started[call];
}

/* ---- running ---- */

static void raise_kernel_error(int32_t code, const char* text) {
  if (code == MLC_INDEX_ERROR) {
    PyErr_SetString(PyExc_IndexError, "an index is out of range for the axis along which a tensor is updated (is a cache full?)");
    return;
  }
  PyObject* errors = PyImport_ImportModule("mlc.errors");
  PyObject* type = errors != NULL ? PyObject_GetAttrString(errors, "KernelError") : NULL;
  if (type != NULL)
    PyErr_Format(type, "a native kernel failed with code %d%s%s; if the inputs are valid, please report it with the program's report()",
                 (int)code, text[0] != 0 ? ": " : "", text);
  Py_XDECREF(type);
  Py_XDECREF(errors);
}

/* The arena that a call needs for `values` of the symbols; SIZE_MAX when it cannot be told. */
static size_t arena_size(const Runner* self, const int64_t* values) {
  size_t bytes = self->arena_bytes;
  for (Py_ssize_t i = 0; i < self->slot_count; ++i) {
    const int64_t slot = size_code_evaluate(&self->slots[i], values);
    if (slot < 0 || (size_t)slot > SIZE_MAX / 4 || bytes > SIZE_MAX / 4) return SIZE_MAX;
    bytes += ((size_t)slot + MLC_ALIGNMENT - 1) / MLC_ALIGNMENT * MLC_ALIGNMENT;
  }
  return bytes;
}

/* Calls the entry with pointers in place; false with an exception set. */
static bool invoke(Runner* self, void** io, const int64_t* values, profile_record* profile) {
  mlc_arena* arena = NULL;
  const size_t bytes = arena_size(self, values);
  if (bytes > 0) {
    arena = bytes < SIZE_MAX ? mlc_arena_take(bytes) : NULL;
    if (arena == NULL) {
      PyErr_Format(PyExc_MemoryError, "no memory for an arena of %zu bytes", bytes);
      return false;
    }
  }
  char error[MLC_ERROR_BYTES];
  error[0] = 0;
  const mlc_context context = {
      .abi_version = MLC_ABI_VERSION,
      .threads = self->threads,
      .constants = self->constants_data,
      .parallel_for = mlc_parallel_for,
      .profile = profile != NULL ? profile_hook : NULL,
      .profile_data = profile,
      .error = error,
  };
  if (self->state_count > 0) memcpy(io + self->input_count + self->output_count, self->states, (size_t)self->state_count * sizeof *io);
  int32_t code;
  void* const base = arena != NULL ? arena->base : NULL;
  if (self->guard != NULL) guard_take(self->guard);
  if (self->release_lock) {
    Py_BEGIN_ALLOW_THREADS;
    code = self->entry(&context, io, values, base);
    Py_END_ALLOW_THREADS;
  } else {
    code = self->entry(&context, io, values, base);
  }
  if (self->guard != NULL) guard_give(self->guard);
  if (arena != NULL) mlc_arena_give(arena);
  if (code == 0) return true;
  error[MLC_ERROR_BYTES - 1] = 0;
  raise_kernel_error(code, error);
  return false;
}

static bool binding_init(Runner* self, runner_binding* binding) {
  const size_t total = (size_t)(self->input_count + self->output_count + self->state_count);
  binding->kind = KIND_UNKNOWN;
  binding->copies = NULL;
  binding->io = binding->inline_io;
  if (total > sizeof binding->inline_io / sizeof binding->inline_io[0]) binding->io = malloc(total * sizeof(void*));
  binding->values = binding->inline_values;
  const size_t numbers = (size_t)self->value_count;
  if (numbers > sizeof binding->inline_values / sizeof binding->inline_values[0]) binding->values = malloc(numbers * sizeof(int64_t));
  return binding->io != NULL && binding->values != NULL;
}

static void binding_clear(runner_binding* binding) {
  while (binding->copies != NULL) {
    void* next = *(void**)binding->copies;
    free(binding->copies);
    binding->copies = next;
  }
  if (binding->io != binding->inline_io) free(binding->io);
  if (binding->values != binding->inline_values) free(binding->values);
}

/* The values of the symbols from the extents of bound inputs; false when one is out of range or extents contradict each other. */
static bool bind_symbols(const Runner* self, runner_binding* binding) {
  int64_t* values = binding->values;
  for (Py_ssize_t i = 0; i < self->symbol_count; ++i) {
    const size_symbol* symbol = &self->symbols[i];
    const int64_t rest = values[self->inputs[symbol->input].first_extent + symbol->axis] - symbol->offset;
    values[i] = rest / symbol->factor;
    if (rest % symbol->factor != 0 || values[i] < symbol->lower || (symbol->upper >= 0 && values[i] > symbol->upper)) return false;
  }
  for (Py_ssize_t i = 0; self->symbol_count > 0 && i < self->input_count; ++i) {
    const tensor_spec* spec = &self->inputs[i];
    for (int32_t axis = 0; spec->sizes != NULL && axis < spec->rank; ++axis)
      if (spec->sizes[axis].count > 0 && size_code_evaluate(&spec->sizes[axis], values) != values[spec->first_extent + axis]) return false;
  }
  return true;
}

static bool bind_leaf(Runner* self, Py_ssize_t leaf, PyObject* object, runner_binding* binding) {
  const tensor_kind kind = tensor_kind_of(object);
  if (kind == KIND_UNKNOWN || (binding->kind != KIND_UNKNOWN && binding->kind != kind)) return false;
  binding->kind = kind;
  const tensor_spec* spec = &self->inputs[leaf];
  size_t bytes;
  const tensor_fit fit = tensor_fits(object, kind, spec, &binding->io[leaf], &bytes, binding->values + spec->first_extent);
  if (fit != FIT_UNALIGNED) return fit == FIT_READY;
  if (spec->mutated) return false;
  char* copy = mlc_aligned(MLC_ALIGNMENT + bytes);
  if (copy == NULL) return false;
  *(void**)copy = binding->copies;
  binding->copies = copy;
  memcpy(copy + MLC_ALIGNMENT, binding->io[leaf], bytes);
  binding->io[leaf] = copy + MLC_ALIGNMENT;
  return true;
}

/* Whether an input that is changed in place shares memory with another input: the program would read what it wrote. */
static bool inputs_overlap(const Runner* self, void* const* io) {
  for (Py_ssize_t i = 0; self->mutates && i < self->input_count; ++i) {
    if (!self->inputs[i].mutated) continue;
    for (Py_ssize_t j = 0; j < self->input_count; ++j) {
      const uintptr_t a = (uintptr_t)io[i], b = (uintptr_t)io[j];
      if (i != j && a < b + self->inputs[j].bytes && b < a + self->inputs[i].bytes) return true;
    }
  }
  return false;
}

static bool bind_argument(Runner* self, const argument_plan* plan, PyObject* object, runner_binding* binding) {
  if (plan->leaf >= 0) return bind_leaf(self, plan->leaf, object, binding);
  if (object == plan->value) return true;
  if (Py_TYPE(object) != Py_TYPE(plan->value)) return false;
  const int equal = PyObject_RichCompareBool(object, plan->value, Py_EQ);
  if (equal < 0) PyErr_Clear();
  return equal == 1;
}

bool runner_bind(Runner* self, PyObject* const* args, Py_ssize_t count, PyObject* keyword_names, runner_binding* binding) {
  const Py_ssize_t keywords = keyword_names != NULL ? PyTuple_GET_SIZE(keyword_names) : 0;
  if (!self->flat || count != self->positional_count || keywords != self->keyword_count) return false;
  if (!binding_init(self, binding)) return false;
  for (Py_ssize_t i = 0; i < count; ++i)
    if (!bind_argument(self, &self->arguments[i], args[i], binding)) goto mismatch;
  for (Py_ssize_t i = 0; i < keywords; ++i) {
    PyObject* name = PyTuple_GET_ITEM(self->keyword_names, i);
    Py_ssize_t at = -1;
    /* The usual order first. */
    for (Py_ssize_t step = 0; step < keywords && at < 0; ++step) {
      const Py_ssize_t candidate = (i + step) % keywords;
      PyObject* given = PyTuple_GET_ITEM(keyword_names, candidate);
      if (given == name || PyUnicode_Compare(given, name) == 0) at = candidate;
    }
    if (at < 0 || !bind_argument(self, &self->arguments[count + i], args[count + at], binding)) goto mismatch;
  }
  /* Without any tensor among the inputs nothing says which kind the outputs shall be. */
  if (binding->kind != KIND_UNKNOWN && bind_symbols(self, binding) && !inputs_overlap(self, binding->io)) return true;
mismatch:
  binding_clear(binding);
  return false;
}

static PyObject* shape_output(Runner* self, PyObject* outputs) {
  PyObject* result;
  switch (self->form) {
    case OUTPUT_SINGLE:
      result = Py_NewRef(PyList_GET_ITEM(outputs, 0));
      break;
    case OUTPUT_TUPLE:
      result = PyList_AsTuple(outputs);
      break;
    case OUTPUT_LIST:
      return outputs;
    default:
      result = PyObject_CallOneArg(self->build, outputs);
  }
  Py_DECREF(outputs);
  return result;
}

PyObject* runner_finish(Runner* self, runner_binding* binding) {
  PyObject* outputs = PyList_New(self->output_count);
  if (outputs == NULL) goto fail;
  for (Py_ssize_t i = 0; i < self->output_count; ++i) {
    PyObject* tensor = tensor_new(binding->kind, &self->outputs[i], binding->values, &binding->io[self->input_count + i]);
    if (tensor == NULL) goto fail;
    PyList_SET_ITEM(outputs, i, tensor);
  }
  if (!invoke(self, binding->io, binding->values, NULL)) goto fail;
  binding_clear(binding);
  return shape_output(self, outputs);
fail:
  binding_clear(binding);
  Py_XDECREF(outputs);
  return NULL;
}

/* ---- methods ---- */

static PyObject* runner_leaves(Runner* self, PyObject* const* args, Py_ssize_t count) {
  if (count != self->input_count) return Py_NewRef(Py_NotImplemented);
  runner_binding binding;
  if (!binding_init(self, &binding)) return PyErr_NoMemory();
  for (Py_ssize_t i = 0; i < count; ++i)
    if (!bind_leaf(self, i, args[i], &binding)) {
      binding_clear(&binding);
      return Py_NewRef(Py_NotImplemented);
    }
  if (binding.kind == KIND_UNKNOWN || !bind_symbols(self, &binding) || inputs_overlap(self, binding.io)) {
    binding_clear(&binding);
    return Py_NewRef(Py_NotImplemented);
  }
  return runner_finish(self, &binding);
}

static bool read_addresses(PyObject* addresses, const tensor_spec* specs, Py_ssize_t count, void** io) {
  if (!PyTuple_Check(addresses) || PyTuple_GET_SIZE(addresses) != count) {
    PyErr_Format(PyExc_ValueError, "expected a tuple of %zd addresses", count);
    return false;
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    io[i] = PyLong_AsVoidPtr(PyTuple_GET_ITEM(addresses, i));
    if (PyErr_Occurred()) return false;
    const bool wanted = specs[i].bytes > 0 && io[i] == NULL; /* of symbolic shape: it may be empty */
    if (wanted || ((specs[i].bytes > 0 || specs[i].sizes != NULL) && (uintptr_t)io[i] % MLC_ALIGNMENT != 0)) {
      PyErr_Format(PyExc_ValueError, "'%U' is not aligned to %d bytes", specs[i].name, MLC_ALIGNMENT);
      return false;
    }
  }
  return true;
}

/* The values of the symbols from a tuple; false with an exception set. */
static bool read_values(const Runner* self, PyObject* given, int64_t* values) {
  const Py_ssize_t count = given != NULL ? PyTuple_GET_SIZE(given) : 0;
  if (count != self->symbol_count) {
    PyErr_Format(PyExc_ValueError, "expected the values of %zd symbols", self->symbol_count);
    return false;
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    values[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(given, i));
    if (PyErr_Occurred()) return false;
    if (values[i] < self->symbols[i].lower || (self->symbols[i].upper >= 0 && values[i] > self->symbols[i].upper)) {
      PyErr_SetString(PyExc_ValueError, "the value of a symbol is outside of its range");
      return false;
    }
  }
  return true;
}

static bool invoke_addresses(Runner* self, PyObject* inputs, PyObject* outputs, PyObject* values, profile_record* profile) {
  runner_binding binding;
  if (!binding_init(self, &binding)) {
    PyErr_NoMemory();
    return false;
  }
  const bool done = read_values(self, values, binding.values) && read_addresses(inputs, self->inputs, self->input_count, binding.io) &&
                    read_addresses(outputs, self->outputs, self->output_count, binding.io + self->input_count) &&
                    invoke(self, binding.io, binding.values, profile);
  binding_clear(&binding);
  return done;
}

static PyObject* runner_run(Runner* self, PyObject* args) {
  PyObject *inputs, *outputs, *values = NULL;
  if (!PyArg_ParseTuple(args, "OO|O!", &inputs, &outputs, &PyTuple_Type, &values)) return NULL;
  if (!invoke_addresses(self, inputs, outputs, values, NULL)) return NULL;
  Py_RETURN_NONE;
}

static PyObject* runner_profile(Runner* self, PyObject* args) {
  PyObject *inputs, *outputs, *values = NULL;
  if (!PyArg_ParseTuple(args, "OO|O!", &inputs, &outputs, &PyTuple_Type, &values)) return NULL;
  profile_record record = {.count = self->call_count};
  record.started = calloc((size_t)self->call_count * 2 + 1, sizeof(int64_t));
  if (record.started == NULL) return PyErr_NoMemory();
  record.spent = record.started + self->call_count;
  PyObject* result = NULL;
  if (invoke_addresses(self, inputs, outputs, values, &record)) {
    result = PyList_New(self->call_count);
    for (Py_ssize_t i = 0; result != NULL && i < self->call_count; ++i) {
      PyObject* spent = PyLong_FromLongLong(record.spent[i]);
      if (spent == NULL)
        Py_CLEAR(result);
      else
        PyList_SET_ITEM(result, i, spent);
    }
  }
  free(record.started);
  return result;
}

static PyMethodDef runner_methods[] = {
    {"leaves", (PyCFunction)(void (*)(void))runner_leaves, METH_FASTCALL,
     "leaves(*inputs): run on the flat inputs; NotImplemented when one does not fit as it stands."},
    {"run", (PyCFunction)runner_run, METH_VARARGS,
     "run(input_addresses, output_addresses, symbols=()): run on memory the caller vouches for."},
    {"profile", (PyCFunction)runner_profile, METH_VARARGS,
     "profile(input_addresses, output_addresses, symbols=()): run and give the nanoseconds spent in each kernel call."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef runner_members[] = {
    {"threads", T_INT, offsetof(Runner, threads), READONLY, "Threads a call may use."},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject RunnerType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "mlc.runtime._native.Runner",
    .tp_doc = "One program with its library and weights, ready to be called.",
    .tp_basicsize = sizeof(Runner),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = runner_new,
    .tp_dealloc = (destructor)runner_dealloc,
    .tp_traverse = (traverseproc)runner_traverse,
    .tp_clear = (inquiry)runner_clear,
    .tp_methods = runner_methods,
    .tp_members = runner_members,
};
