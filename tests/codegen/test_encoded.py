"""Encoded constants in programs: decoded for templates that do not know them, packed by a form for those that do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pytest
from check import tensor
from programs import HOST, assembled

from mlc.autotune.inputs import example_inputs
from mlc.autotune.measure import LocalMeasurer, Protocol
from mlc.codegen.assembly import tasks_of
from mlc.codegen.constant_layout import ConstantForm, constant_layouts_document, constant_layouts_of, register_form, stored, stored_bytes
from mlc.codegen.packing import PackedConstants
from mlc.codegen.task import Task
from mlc.codegen.templates import template_for
from mlc.ir import ArrayConstant, Constant, EncodedConstant, Graph, GraphBuilder, Layout, canonicalise, encode, interpret
from mlc.ir.encodings import Affine, BlockScaled, Codebook, Grouped, Scheme, Ternary, pack_codes
from mlc.runtime import Executable


@register_form
@dataclass(frozen=True)
class Nibbles(ConstantForm):
    """Codes in panels of ``rows`` rows, packed, then the scales."""

    kind = "test nibbles"
    rows: int

    def nbytes(self, constant: Constant) -> int:
        assert isinstance(constant, EncodedConstant)
        return constant.encoded_bytes

    def pack(self, constant: Constant) -> np.ndarray:
        assert isinstance(constant, EncodedConstant) and constant.scales is not None
        codes = pack_codes(constant.codes.reshape(-1, self.rows * constant.codes.shape[1]), 4)
        return np.concatenate([codes.reshape(-1), constant.scales.reshape(-1).view(np.uint8)])

    def document(self) -> list[Any]:
        return [self.rows]

    @classmethod
    def of(cls, document: list[Any]) -> Self:
        (rows,) = document
        return cls(int(rows))


def weight(*shape: int, seed: int = 0) -> ArrayConstant:
    return ArrayConstant((np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))


def layers(*weights: Constant) -> Graph:
    builder = GraphBuilder()
    x = builder.input(tensor((5, weights[0].type.static_shape[1])), "x")
    for each in weights:
        x = builder.call("linear", x, builder.constant(each))
    return builder.finish([x])


SCHEMES = [Affine("u8", 0, zero_point="stored"), Grouped("i3", 64, 1, "bf16"), BlockScaled("e4m3", 1), Codebook(4, 32, 1), Ternary(0)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_programs_compute_with_decoded_numbers(scheme: Scheme) -> None:
    graph = layers(encode(weight(40, 70), scheme.encoding), encode(weight(9, 40, seed=1), scheme.encoding))
    program = assembled(graph)
    x = np.random.default_rng(2).standard_normal((5, 70)).astype(np.float32)
    got = Executable(program.program, program.library, program.weights)(x)
    np.testing.assert_allclose(got, interpret(graph, [x], wide=True)[0], rtol=1e-5, atol=1e-5)


def test_the_task_is_that_of_the_dense_model_where_nobody_reads_codes() -> None:
    dense = layers(weight(40, 70))
    encoded = layers(encode(weight(40, 70), Grouped("i4", 32, 1).encoding))
    assert [kernel.task for kernel in tasks_of(encoded, HOST)] == [kernel.task for kernel in tasks_of(dense, HOST)]
    (call,) = assembled(encoded).program.calls
    assert call.precision == "(grouped)"
    assert [call.precision for call in assembled(dense).program.calls] == [""]


def test_a_form_packs_the_constant_itself() -> None:
    constant = encode(weight(8, 64), Grouped("i4", 32, 1, "f16").encoding)
    packed = PackedConstants()
    first, again = packed.place(constant, Nibbles(4)), packed.place(constant, Nibbles(4))
    other, decoded = packed.place(constant, Nibbles(8)), packed.place(constant, Layout.row_major(2))
    slots, blob = packed.finish()
    assert first == again and len(slots) == 3
    assert first.nbytes == other.nbytes == constant.encoded_bytes == 8 * 32 + 16 * 2
    np.testing.assert_array_equal(blob[first.position :][: first.static_nbytes], Nibbles(4).pack(constant))
    plain = blob[decoded.position :][: decoded.static_nbytes].view(np.float32).reshape(8, 64)
    np.testing.assert_array_equal(plain, constant.array())
    assert stored_bytes(constant, Layout.row_major(2)) == stored(constant, Layout.row_major(2)).nbytes == 8 * 64 * 4


def test_forms_in_files_read_back() -> None:
    layouts = {0: Nibbles(4), 2: Layout((1, 0), ((1, 16),))}
    document = constant_layouts_document(layouts)
    assert document == [[0, "test nibbles", 4], [2, [1, 0], [[1, 16]]]]
    assert constant_layouts_of(document) == layouts
    with pytest.raises(ValueError, match="no constant form is called 'other'"):
        constant_layouts_of([[0, "other", 1]])
    with pytest.raises(ValueError, match="defined twice"):
        register_form(type("Again", (Nibbles,), {}))


def test_measuring_takes_decoded_numbers_for_references() -> None:
    builder = GraphBuilder()
    encoding = Ternary(0).encoding
    x, w = builder.input(tensor((5, 64))), builder.input(tensor((8, 64)).with_encoding(encoding))
    task = Task(canonicalise(builder.finish([builder.call("linear", x, w)])), frozenset({1}), HOST, 1)
    first, second = example_inputs(task, 0), example_inputs(task, 1)
    assert len(np.unique(first[1][0])) == 3
    np.testing.assert_array_equal(first[1], second[1])
    assert Task.parse(task.text) == task
    template = template_for(task.graph)
    assert template is not None
    with LocalMeasurer(protocol=Protocol(rounds=1, seconds=0.001)) as measurer:
        (record,) = measurer.measure(task, [template.space(task).default])
    assert record.times, record.error
