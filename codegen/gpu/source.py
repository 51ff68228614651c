"""The same device function as CUDA C++ and as OpenCL C."""

from __future__ import annotations

import re
from typing import Any

from ...errors import BuildError

_CUDA_HEAD = """\
#include <stdint.h>
#define uchar unsigned char
#define ushort unsigned short
#define uint unsigned int
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN_F __int_as_float(0x7fffffff)
#define CUDART_INF __longlong_as_double(0x7ff0000000000000LL)
#define CUDART_NAN __longlong_as_double(0x7fffffffffffffffLL)
"""
"""In place of TVM's own preamble, whose system headers a compiler reads for longer than the kernel itself."""

_OPENCL_HEAD = """\
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
typedef char int8_t;
typedef uchar uint8_t;
typedef short int16_t;
typedef ushort uint16_t;
typedef int int32_t;
typedef uint uint32_t;
typedef long int64_t;
typedef ulong uint64_t;
#define CUDART_INF_F as_float(0x7f800000)
#define CUDART_NAN_F as_float(0x7fffffff)
#define CUDART_INF as_double(0x7ff0000000000000L)
#define CUDART_NAN as_double(0x7fffffffffffffffL)
"""

_MATHS = (
    "acos acosh asin asinh atan atan2 atanh ceil cos cosh erf erfc exp exp2 expm1 fabs floor fma fmax fmin fmod log log10 log1p log2 "
    "pow rint round rsqrt sin sinh sqrt tan tanh trunc"
)
"""Functions that CUDA calls with an f behind their names for fp32, and OpenCL without."""


def cuda_source(function: Any, symbol: str) -> str:
    """CUDA C++ of ``function`` as the kernel ``symbol``."""
    text = _kernel(function, symbol)
    return ("#include <cuda_fp16.h>\n" if re.search(r"\bhalf\b", text) else "") + _CUDA_HEAD + text


def opencl_source(function: Any, symbol: str) -> str:
    """OpenCL C of ``function`` as the kernel ``symbol``: the CUDA source, word for word but for the names of what the languages share.

    (TVM's own generator of OpenCL prints constants with seven digits, which are too few for exp.)
    """
    text = _kernel(function, symbol)
    for pattern, replacement in _WORDS:
        text = re.sub(pattern, replacement, text)
    return _OPENCL_HEAD + "".join(f"#define {name}f {name}\n" for name in _MATHS.split()) + text


_WORDS = (
    (r'extern "C" __global__ void __launch_bounds__\((\d+)\)', r"__kernel __attribute__((reqd_work_group_size(\1, 1, 1))) void"),
    (r"(\w+)\* __restrict__", r"__global \1* restrict"),
    (r"__shared__( alignas\(\d+\))?", "__local"),
    (r"alignas\(\d+\) ", ""),
    (r"__syncthreads\(\)", "barrier(CLK_LOCAL_MEM_FENCE)"),
    (r"\bblockIdx\.x\b", "get_group_id(0)"),
    (r"\bthreadIdx\.x\b", "get_local_id(0)"),
    (r"\bnearbyintf?\(", "rint("),
)


def _kernel(function: Any, symbol: str) -> str:
    """What TVM's generator gives, without its preamble."""
    import tvm
    from tvm.tirx import transform

    device = tvm.target.Target({"kind": "cuda", "arch": "sm_80"})
    # 2: a function that is launched on a device.
    function = function.with_attr({"global_symbol": symbol, "tirx.noalias": True, "calling_conv": 2, "target": device})
    passes = tvm.ir.transform.Sequential([transform.LowerIntrin(), transform.UnrollLoop()])
    # Loops are unrolled by the device's compiler, which TVM tells so.
    config = {"tirx.UnrollLoop": {"auto_max_step": 0, "explicit_unroll": False}}
    try:
        with tvm.transform.PassContext(opt_level=3, config=config):
            module = passes(tvm.IRModule({symbol: function}))
        text = str(tvm.get_global_func("target.build.cuda")(module, device).inspect_source())
    except Exception as error:
        raise BuildError(f"CUDA code generation of kernel {symbol} failed: {error}") from error
    start = text.find('extern "C" __global__')
    if start < 0:
        raise BuildError(f"the CUDA source of kernel {symbol} has no kernel in it")
    return text[start:]
