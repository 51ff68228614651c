/* Sizes that depend on symbolic dimensions: postfix programs (see mlc.ir.size) and the values of a call. */
#ifndef MLC_SIZES_H
#define MLC_SIZES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
  int32_t kind; /* SIZE_NUMBER and SIZE_SYMBOL push, the others take two */
  int64_t value; /* the number, or the position of the symbol */
} size_item;

enum { SIZE_NUMBER = 0, SIZE_SYMBOL, SIZE_ADD, SIZE_MULTIPLY, SIZE_DIVIDE, SIZE_MODULO, SIZE_LARGER, SIZE_SMALLER };

/* `count` 0: not symbolic. */
typedef struct {
  int32_t count;
  size_item* items;
} size_code;

/* From a tuple of (kind, value) pairs, laid out one after the other; symbols must be below `symbols`. False with an exception set. */
bool size_code_init(size_code* code, PyObject* numbers, Py_ssize_t symbols);
void size_code_clear(size_code* code);

/* The number for `values` of the symbols; -1 when it cannot be computed (a division by zero). */
int64_t size_code_evaluate(const size_code* code, const int64_t* values);

/* A symbol: extent `axis` of input `input` is factor * value + offset, lower <= value <= upper (negative upper: no bound). */
typedef struct {
  Py_ssize_t input;
  int32_t axis;
  int64_t factor, offset, lower, upper;
} size_symbol;

#endif
