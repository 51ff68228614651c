"""Calling programs: kinds of tensors, views, keyword and nested arguments, errors."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_programs import adder, build, call_tree, leaf, mlp, mlp_reference, program, spec

from mlc.errors import ArtifactError, DeviceUnavailableError, KernelError, SignatureError
from mlc.ir.program import ALIGNMENT, Signature
from mlc.runtime import Executable

COPY = """
int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {
  memcpy(io[1], io[0], BYTES);
  return 0;
}
"""

NUMPY = {
    "b1": "bool",
    "u8": "uint8",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
}
NUMPY |= {"c64": "complex64"}


def copier(folder: Path, dtype: str, *shape: int) -> Executable:
    """out = x, byte for byte."""
    itemsize = 2 if dtype == "bf16" else np.dtype(NUMPY[dtype]).itemsize
    signature = Signature((spec("x", *shape, dtype=dtype),), (spec("out", *shape, dtype=dtype),))
    return Executable(program(signature), build(COPY, folder, BYTES=int(np.prod(shape)) * itemsize))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_outputs_follow_the_kind_of_the_inputs(tmp_path: Path) -> None:
    add = adder(tmp_path)
    a, b = numbers(4, 8), numbers(4, 8, seed=1)
    out = add(a, b)
    assert type(out) is np.ndarray
    np.testing.assert_array_equal(out, a + b)
    for first, second in [
        (torch.from_numpy(a), torch.from_numpy(b)),
        (torch.from_numpy(a), b),
        (a, torch.nn.Parameter(torch.from_numpy(b))),
    ]:
        out = add(first, second)
        assert type(out) is torch.Tensor and not out.requires_grad
        np.testing.assert_array_equal(out.numpy(), a + b)


def test_constants_and_arena_reach_the_program(tmp_path: Path) -> None:
    run, weights = mlp(tmp_path)
    for seed in range(3):
        x = numbers(1, 16, seed=seed)
        np.testing.assert_allclose(run(x), mlp_reference(weights, x), rtol=1e-5, atol=1e-5)


def test_outputs_are_new_and_aligned(tmp_path: Path) -> None:
    add = adder(tmp_path)
    a = numbers(4, 8)
    first, second = add(a, a), add(a, -a)
    assert first.any() and not second.any()
    assert first.flags.writeable and first.__array_interface__["data"][0] % ALIGNMENT == 0


VIEWS = {
    "unaligned": lambda make: make(33)[1:].reshape(4, 8),
    "transposed": lambda make: make(8, 4).T,
    "strided": lambda make: make(8, 16)[::2, ::2],
    "column": lambda make: make(4, 16)[:, 3:11],
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_copied_to_aligned_memory(tmp_path: Path, view: str) -> None:
    add = adder(tmp_path)
    other = numbers(4, 8, seed=1)
    array = VIEWS[view](lambda *shape: numbers(*shape))
    for _ in range(2):
        np.testing.assert_array_equal(add(array, other), array + other)
        tensor = VIEWS[view](lambda *shape: torch.from_numpy(numbers(*shape)))
        np.testing.assert_array_equal(add(tensor, torch.from_numpy(other)).numpy(), array + other)


def test_negative_strides_broadcasts_and_read_only_arrays(tmp_path: Path) -> None:
    add = adder(tmp_path)
    other = numbers(4, 8)
    row = numbers(8)
    frozen = numbers(4, 8)
    frozen.flags.writeable = False
    for array in (numbers(4, 8)[::-1, ::-1], np.broadcast_to(row, (4, 8)), frozen, np.asfortranarray(numbers(4, 8))):
        np.testing.assert_array_equal(add(array, other), array + other)
    np.testing.assert_array_equal(add(torch.from_numpy(row).expand(4, 8), other).numpy(), row + other)


def test_lazily_conjugated_and_negated_tensors_are_resolved(tmp_path: Path) -> None:
    z = torch.view_as_complex(torch.from_numpy(numbers(3, 2)))
    assert torch.equal(copier(tmp_path, "c64", 3)(z.conj()), z.conj().resolve_conj())
    single = z[:1].conj().imag
    assert single.is_neg()
    assert torch.equal(copier(tmp_path, "f32", 1)(single), single.resolve_neg())
    assert torch.equal(copier(tmp_path, "f32")(single[0]), single[0].resolve_neg())
    assert torch.equal(copier(tmp_path, "f32", 3)(z.conj().imag), z.conj().imag.resolve_neg())


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4), (2, 1, 3)])
def test_every_dtype_and_rank(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    run = copier(tmp_path, dtype, *shape)
    array = (np.random.default_rng(0).standard_normal(shape) * 10).astype(NUMPY[dtype])
    for _ in range(2):
        out = run(array)
        assert out.dtype == array.dtype and out.shape == shape
        np.testing.assert_array_equal(out, array)
        tensor = torch.from_numpy(np.array(array))
        out = run(tensor)
        assert out.dtype == tensor.dtype and out.shape == shape and torch.equal(out, tensor)


def test_bfloat16_in_both_kinds(tmp_path: Path) -> None:
    import ml_dtypes

    run = copier(tmp_path, "bf16", 3, 5)
    array = numbers(3, 5).astype(ml_dtypes.bfloat16)
    out = run(array)
    assert out.dtype == array.dtype and (out == array).all()
    tensor = torch.randn(3, 5, dtype=torch.bfloat16)
    assert torch.equal(run(tensor), tensor)


def test_arrays_of_other_libraries_come_in_through_dlpack(tmp_path: Path) -> None:
    class Foreign:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **kwargs: Any) -> Any:
            return self.array.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    a = numbers(4, 8)
    np.testing.assert_array_equal(adder(tmp_path)(Foreign(a), a), a + a)


def test_subclasses_of_tensors_are_accepted(tmp_path: Path) -> None:
    class Tagged(torch.Tensor):
        pass

    class Table(np.ndarray):
        pass

    a = numbers(4, 8)
    add = adder(tmp_path)
    assert torch.equal(add(torch.from_numpy(a).as_subclass(Tagged), a), torch.from_numpy(a + a))
    np.testing.assert_array_equal(add(a.view(Table), a), a + a)


@pytest.mark.parametrize(
    ("arguments", "keywords", "expected"),
    [
        ((numbers(4, 7), numbers(4, 8)), {}, "input 'a' has shape (4, 7), the program was compiled for (4, 8)"),
        ((numbers(32), numbers(4, 8)), {}, "input 'a' has shape (32,)"),
        ((numbers(4, 8), numbers(4, 8).astype(np.float64)), {}, "input 'b' has dtype float64, the program was compiled for dtype float32"),
        ((numbers(4, 8), numbers(4, 8).astype(">f4")), {}, "input 'b' has dtype >f4"),
        ((torch.zeros(4, 8), torch.zeros(4, 8, dtype=torch.int64)), {}, "input 'b' has dtype torch.int64"),
        ((torch.zeros(4, 8), torch.zeros(4, 8, device="meta")), {}, "input 'b' has device meta"),
        ((torch.zeros(4, 8), torch.zeros(4, 8).to_sparse()), {}, "input 'b' has layout torch.sparse_coo"),
        ((numbers(4, 8),), {}, "got 1 positional arguments"),
        ((numbers(4, 8),) * 3, {}, "got 3 positional arguments"),
        ((numbers(4, 8),), {"c": numbers(4, 8)}, "and the keywords ['c']"),
        ((numbers(4, 8), [[1.0] * 8] * 4), {}, "input 'b' must be a tensor of f32[4,8], got a list"),
        ((numbers(4, 8), None), {}, "got a NoneType"),
    ],
)
def test_what_does_not_fit_is_explained(tmp_path: Path, arguments: Any, keywords: Any, expected: str) -> None:
    add = adder(tmp_path)
    for _ in range(2):
        with pytest.raises(SignatureError) as caught:
            add(*arguments, **keywords)
        assert expected in str(caught.value)
        add(numbers(4, 8), numbers(4, 8))


def test_positional_inputs_may_be_given_by_name(tmp_path: Path) -> None:
    a, b = numbers(4, 8), numbers(4, 8, seed=1)
    np.testing.assert_array_equal(adder(tmp_path)(a, b=b), a + b)
    np.testing.assert_array_equal(adder(tmp_path)(b=b, a=a), a + b)


def with_trees(folder: Path, inputs: Any, outputs: Any = None) -> Executable:
    """``a - b`` (so that a swap shows) under given trees."""
    source = "int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {"
    source += " for (int i = 0; i < 4; ++i) { ((float*)io[2])[i] = ((float*)io[0])[i] - ((float*)io[1])[i];"
    source += " ((float*)io[3])[i] = ((float*)io[0])[i]; } return 0; }"
    signature = Signature((spec("a", 4), spec("b", 4)), (spec("difference", 4), spec("copy", 4)), inputs, outputs or {})
    return Executable(program(signature), build(source, folder))


def test_keywords_come_in_any_order_and_specialised_values_are_checked(tmp_path: Path) -> None:
    tree = call_tree([{"kind": "value", "value": None}], {"first": leaf(0), "scale": {"kind": "value", "value": 2.0}, "second": leaf(1)})
    run = with_trees(tmp_path, tree)
    a, b = numbers(4), numbers(4, seed=1)
    for _ in range(2):
        for result in (run(None, first=a, scale=2.0, second=b), run(None, second=b, scale=2.0, first=a)):
            np.testing.assert_array_equal(result[0], a - b)
            np.testing.assert_array_equal(result[1], a)
    for wrong in (3.0, 2, True, None):
        with pytest.raises(SignatureError, match=r"argument 'scale' is .*, but the program was compiled for 2\.0"):
            run(None, first=a, scale=wrong, second=b)
    with pytest.raises(SignatureError, match="compiled for None"):
        run(0, first=a, scale=2.0, second=b)


def test_nested_arguments_and_results(tmp_path: Path) -> None:
    tree = call_tree([{"kind": "dict", "keys": ["y", "x"], "items": [{"kind": "list", "items": [leaf(1)]}, leaf(0)]}])
    out = {"kind": "dict", "keys": ["d"], "items": [{"kind": "tuple", "items": [leaf(1), {"kind": "value", "value": 7}, leaf(0)]}]}
    run = with_trees(tmp_path, tree, out)
    a, b = numbers(4), numbers(4, seed=1)
    result = run({"x": a, "y": [b]})
    assert list(result) == ["d"] and result["d"][1] == 7
    np.testing.assert_array_equal(result["d"][0], a)
    np.testing.assert_array_equal(result["d"][2], a - b)
    with pytest.raises(SignatureError, match=r"args\[0\] lacks \['y'\]"):
        run({"x": a})
    with pytest.raises(SignatureError, match=r"args\[0\]\['y'\] must be a list of 1 items"):
        run({"x": a, "y": (b,)})


def test_lists_and_single_results_of_several_outputs(tmp_path: Path) -> None:
    tree = call_tree([leaf(0), leaf(1)])
    a, b = numbers(4), numbers(4, seed=1)
    as_list = with_trees(tmp_path, tree, {"kind": "list", "items": [leaf(0), leaf(1)]})(a, b)
    assert type(as_list) is list and len(as_list) == 2
    np.testing.assert_array_equal(with_trees(tmp_path, tree, leaf(1))(a, b), a)
    swapped = with_trees(tmp_path, tree, {"kind": "tuple", "items": [leaf(1), leaf(0)]})(a, b)
    np.testing.assert_array_equal(swapped[0], a)


def test_output_objects_are_made_of_their_class(tmp_path: Path) -> None:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    name = f"{BaseModelOutputWithPooling.__module__}.{BaseModelOutputWithPooling.__qualname__}"
    out = {"kind": "object", "type": name, "keys": ["last_hidden_state", "pooler_output"], "items": [leaf(0), leaf(1)]}
    result = with_trees(tmp_path, call_tree([leaf(0), leaf(1)]), out)(torch.ones(4), torch.ones(4))
    assert isinstance(result, BaseModelOutputWithPooling)
    assert torch.equal(result.pooler_output, torch.ones(4)) and torch.equal(result[0], torch.zeros(4))


def test_many_inputs(tmp_path: Path) -> None:
    count = 60
    source = "int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) { float s = 0;"
    source += f" for (int i = 0; i < {count}; ++i) s += *(float*)io[i]; *(float*)io[{count}] = s; return 0; }}"
    signature = Signature(tuple(spec(f"x{i}", 1) for i in range(count)), (spec("sum", 1),))
    run = Executable(program(signature), build(source, tmp_path))
    arrays = [np.full(1, float(i), np.float32) for i in range(count)]
    for _ in range(2):
        assert run(*arrays)[0] == sum(range(count))
        assert run(*map(torch.from_numpy, arrays)).item() == sum(range(count))


def test_inputs_are_not_kept_alive(tmp_path: Path) -> None:
    add = adder(tmp_path)
    a = torch.ones(4, 8)
    add(a, a)
    add(a[:, :], torch.ones(8, 4).T)
    reference = weakref.ref(a)
    del a
    gc.collect()
    assert reference() is None


def test_a_failing_kernel_raises_with_its_text(tmp_path: Path) -> None:
    source = "int32_t mlc_entry(const mlc_context* c, void* const* io, const int64_t* dims, void* arena) {"
    source += ' snprintf(c->error, MLC_ERROR_BYTES, "index %d out of range", 7); return 3; }'
    run = Executable(program(Signature((spec("x", 1),), (spec("y", 1),))), build(source, tmp_path))
    with pytest.raises(KernelError, match="code 3: index 7 out of range"):
        run(np.zeros(1, np.float32))


def test_missing_cpu_features_are_named_at_the_call(tmp_path: Path) -> None:
    run = adder(tmp_path, features=("sse2", "quantum9000"), target="cpu -mcpu=future")
    with pytest.raises(DeviceUnavailableError, match=r"'cpu -mcpu=future'.*lacks: quantum9000"):
        run(numbers(4, 8), numbers(4, 8))


def test_broken_libraries_and_weights_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    signature = Signature((spec("x", 1),), (spec("y", 1),))
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        Executable(program(signature), broken)(np.zeros(1, np.float32))
    with pytest.raises(ArtifactError, match="no function 'other'"):
        Executable(program(signature, entry="other"), build(COPY, tmp_path, BYTES=4))(np.zeros(1, np.float32))
    with pytest.raises(ArtifactError, match="needs 64 bytes of weights and got 8"):
        Executable(program(signature, weights=bytes(64)), broken, bytes(8))


def test_unaligned_weights_are_copied_once(tmp_path: Path) -> None:
    run, weights = mlp(tmp_path)
    shifted = np.empty(weights.nbytes + 1, np.uint8)[1:]
    shifted[:] = weights.view(np.uint8)
    x = numbers(1, 16)
    np.testing.assert_array_equal(Executable(run.program, run.library, shifted)(x), run(x))
    np.testing.assert_array_equal(Executable(run.program, run.library, weights.tobytes())(x), run(x))
