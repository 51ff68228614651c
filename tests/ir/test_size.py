"""Sizes as plain data agree with sympy, symbolic dimensions compare, and graphs take numbers for their symbols."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from mlc.ir import DType, GraphBuilder, Size, SymbolRange, TensorType, interpret, same_dim, size_of, specialise, symbol, verify
from mlc.ir.alias import reshaped_layout
from mlc.ir.layout import Layout
from mlc.ir.size import evaluate, largest

A, B = symbol("a"), symbol("b")


def expressions() -> st.SearchStrategy[sympy.Expr]:
    """Dimensions over two symbols as models make them."""
    leaves = st.one_of(st.sampled_from([A, B]), st.integers(1, 9).map(sympy.Integer))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
            st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1]),
            st.tuples(inner, st.integers(2, 5)).map(lambda pair: sympy.floor(pair[0] / pair[1])),
            st.tuples(inner, st.integers(2, 5)).map(lambda pair: sympy.ceiling(pair[0] / pair[1])),
            st.tuples(inner, st.integers(2, 5)).map(lambda pair: sympy.Mod(pair[0], pair[1])),
            st.tuples(inner, inner).map(lambda pair: sympy.Max(*pair)),
            st.tuples(inner, inner).map(lambda pair: sympy.Min(*pair)),
            st.tuples(inner, inner).map(lambda pair: pair[0] - pair[1]),
        ),
        max_leaves=6,
    )


@settings(max_examples=80, deadline=None)
@given(expressions(), st.integers(1, 40), st.integers(1, 40))
def test_a_size_is_what_sympy_says(expression: sympy.Expr, a: int, b: int) -> None:
    assert evaluate(size_of(expression), {"a": a, "b": b}) == int(expression.subs({A: a, B: b}))


def test_c_computes_the_same(tmp_path: Path) -> None:
    from mlc.codegen.entry import _SIZES

    sizes = [
        size_of(sympy.floor((A - 9) / 4) + sympy.Mod(A - 9, 4)),
        size_of(sympy.Max(A * B, 7) - sympy.Min(A, B)),
        size_of(-(-A // 8) * 8),
    ]
    helpers = "\n".join(line for line in _SIZES.splitlines() if line.startswith("static inline"))
    prints = "".join(f'printf("%lld\\n", (long long){size.to_c()});' for size in sizes if isinstance(size, Size))
    body = f"int main(void) {{ int64_t dim_a = 3, dim_b = 5; {prints} return 0; }}"
    source = tmp_path / "sizes.c"
    source.write_text(f"#include <stdint.h>\n#include <stdio.h>\n{helpers}\n{body}\n")
    subprocess.run(["cc", str(source), "-o", str(tmp_path / "sizes")], check=True)
    printed = subprocess.run([str(tmp_path / "sizes")], check=True, capture_output=True, text=True).stdout.split()
    assert [int(line) for line in printed] == [evaluate(size, {"a": 3, "b": 5}) for size in sizes]


def test_sizes_are_well_formed() -> None:
    assert str(size_of(2 * A + 1)) == "1+(2*a)" or str(size_of(2 * A + 1)) == "(2*a)+1"
    assert size_of(A).symbols == {"a"}  # type: ignore[union-attr]
    assert largest([3, 8]) == 8
    assert evaluate(largest([16, size_of(A), size_of(A)]), {"a": 40}) == 40
    for code in ((), ("a", "b"), ("+",), (1, "a", "+", "*"), ("a b",)):
        with pytest.raises(ValueError, match="size"):
            Size(code)


def test_dimensions_compare_for_all_sizes() -> None:
    assert same_dim(A * (B + 1), A * B + A)
    assert not same_dim(A * B, A)
    assert reshaped_layout((A, 64, B), Layout((0, 2, 1)), (A, 4, 16, B)) == Layout((0, 3, 1, 2))
    assert reshaped_layout((A, B, 64), Layout((0, 2, 1)), (A * B, 64)) is None


def test_a_graph_with_numbers_for_its_symbols() -> None:
    builder = GraphBuilder(symbols={"a": SymbolRange(2, 32), "b": SymbolRange(1)})
    x = builder.input(TensorType(DType.FLOAT32, (A, B, 3)), "x")
    flat = builder.call("reshape", x, shape=(A * B, 3))
    graph = builder.finish([builder.call("slice", flat, axis=0, start=0, stop=B, step=1)])
    concrete = specialise(graph, {"a": 4, "b": 5})
    verify(concrete)
    assert not concrete.symbols
    assert concrete.outputs[0].tensor.shape == (5, 3)
    data = np.arange(60, dtype=np.float32).reshape(4, 5, 3)
    np.testing.assert_array_equal(interpret(concrete, [data])[0], data.reshape(20, 3)[:5])
    assert [SymbolRange(*bounds).typical for bounds in ((2, 32), (1, 16), (5, None), (100, None), (7, 7))] == [8, 4, 32, 100, 7]
