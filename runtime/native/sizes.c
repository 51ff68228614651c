#include "sizes.h"

#include <stdlib.h>

enum { MOST_ITEMS = 4096, STACK = 64 };

static bool refuse(const char* text) {
  PyErr_SetString(PyExc_ValueError, text);
  return false;
}

bool size_code_init(size_code* code, PyObject* numbers, Py_ssize_t symbols) {
  const Py_ssize_t length = PyTuple_GET_SIZE(numbers);
  if (length == 0 || length % 2 != 0 || length / 2 > MOST_ITEMS) return refuse("a size is a tuple of pairs of kind and value");
  code->items = calloc((size_t)length / 2, sizeof *code->items);
  if (code->items == NULL) {
    PyErr_NoMemory();
    return false;
  }
  int32_t depth = 0;
  for (Py_ssize_t i = 0; i < length / 2; ++i) {
    size_item* item = &code->items[i];
    item->kind = (int32_t)PyLong_AsLong(PyTuple_GET_ITEM(numbers, 2 * i));
    item->value = PyLong_AsLongLong(PyTuple_GET_ITEM(numbers, 2 * i + 1));
    if (PyErr_Occurred()) return false;
    if (item->kind < SIZE_NUMBER || item->kind > SIZE_SMALLER) return refuse("a size has an unknown operator");
    if (item->kind == SIZE_SYMBOL && (item->value < 0 || item->value >= symbols)) return refuse("a size names a symbol that does not exist");
    depth += item->kind <= SIZE_SYMBOL ? 1 : -1;
    if (depth < 1 || depth > STACK) return refuse("a size is no postfix program, or too deep");
  }
  if (depth != 1) return refuse("a size must come to one number");
  code->count = (int32_t)(length / 2);
  return true;
}

void size_code_clear(size_code* code) {
  free(code->items);
  code->items = NULL;
  code->count = 0;
}

static int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a % b < 0) != (b < 0)); }

int64_t size_code_evaluate(const size_code* code, const int64_t* values) {
  int64_t stack[STACK];
  int32_t depth = 0;
  for (int32_t i = 0; i < code->count; ++i) {
    const size_item* item = &code->items[i];
    if (item->kind <= SIZE_SYMBOL) {
      stack[depth++] = item->kind == SIZE_NUMBER ? item->value : values[item->value];
      continue;
    }
    const int64_t b = stack[--depth];
    int64_t* a = &stack[depth - 1];
    switch (item->kind) {
      case SIZE_ADD:
        *a += b;
        break;
      case SIZE_MULTIPLY:
        if (__builtin_mul_overflow(*a, b, a)) return -1;
        break;
      case SIZE_DIVIDE:
        if (b == 0) return -1;
        *a = floor_divide(*a, b);
        break;
      case SIZE_MODULO:
        if (b == 0) return -1;
        *a -= floor_divide(*a, b) * b;
        break;
      case SIZE_LARGER:
        *a = *a > b ? *a : b;
        break;
      default:
        *a = *a < b ? *a : b;
    }
  }
  return stack[0];
}
