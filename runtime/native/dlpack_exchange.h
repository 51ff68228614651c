/* The part of DLPack 1.3 that the runtime speaks: the table of C functions a framework offers as
 * `type.__dlpack_c_exchange_api__`. Source: the specification at https://dmlc.github.io/dlpack/latest/c_api.html.
 */
#ifndef MLC_DLPACK_EXCHANGE_H
#define MLC_DLPACK_EXCHANGE_H

#include <stdint.h>

enum { DLPACK_CPU = 1, DLPACK_CUDA_HOST = 3 };

enum {
  DLPACK_INT = 0,
  DLPACK_UINT = 1,
  DLPACK_FLOAT = 2,
  DLPACK_BFLOAT = 4,
  DLPACK_COMPLEX = 5,
  DLPACK_BOOL = 6,
};

typedef struct {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim;
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides; /* in elements; NULL: dense and row-major */
  uint64_t byte_offset;
} dlpack_tensor;

typedef struct dlpack_exchange {
  struct {
    uint32_t major;
    uint32_t minor;
  } version;
  struct dlpack_exchange* previous;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  /* Fills `out` with a view that lives as long as the object is not touched; -1 with an exception set when it cannot. */
  int (*tensor_from_object)(void* object, dlpack_tensor* out);
  void* current_stream;
} dlpack_exchange;

#endif
