"""What import_model accepts and gives back: kinds of models, pytrees, constants, places in the source, errors."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from eager import check, compare, ints, rand, run
from torch import Tensor, fx, nn

from mlc import ir
from mlc.errors import ExportError, UnsupportedOpError
from mlc.frontend import import_model
from mlc.ir.size import Size


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        self.register_buffer("scale", rand(4), persistent=False)
        self.register_buffer("offset", rand(4, seed=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).tanh() * self.scale + self.offset


def test_kinds_of_models() -> None:
    block, x = Block().eval(), rand(2, 4)
    exported = torch.export.export(block, (x,))
    traced = fx.symbolic_trace(block)
    truth = block(x)
    for model in (block, lambda x: block(x), block.forward, traced, exported, exported.run_decompositions()):
        imported = import_model(model, (x,))
        ir.verify(imported.graph)
        compare(run(imported, (x,))[0], truth)


def test_an_exported_program_needs_no_arguments() -> None:
    assert import_model(torch.export.export(Block().eval(), (rand(2, 4),))).signature.inputs[0].shape == (2, 4)


def test_a_fully_decomposed_program_is_understood() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm, self.group = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
            self.layer, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.group(torch.nn.functional.silu(self.norm(self.convolution(x)))).mean((2, 3))
            y = nn.functional.scaled_dot_product_attention(y[None, None], y[None, None], y[None, None])
            return self.head(self.layer(y)).softmax(-1)

    model, x = Model().eval(), rand(2, 2, 6, 6)
    exported = torch.export.export(model, (x,)).run_decompositions()
    with torch.no_grad():
        compare(run(import_model(exported), (x,))[0], model(x))


Point = namedtuple("Point", ["x", "y"])


@dataclasses.dataclass
class Result:
    first: Tensor
    rest: list[Tensor]
    nothing: Tensor | None = None


torch.export.register_dataclass(Result)


def test_pytrees_of_arguments_and_results() -> None:
    def model(a: Tensor, pair: dict[str, Any], *, scale: float, flag: bool, options: Any = None, mask: Tensor) -> Any:
        total = a + pair["left"] * scale
        return {"total": total, "list": [a, (total, None)], "count": 3, "again": total, "point": Point(a * mask, mask)}

    args = (rand(2), {"left": rand(2, seed=1), "right": [rand(3)]})
    kwargs = {"scale": 2.0, "flag": True, "options": None, "mask": rand(2, seed=2)}
    signature = check(model, args, kwargs).signature
    assert [spec.name for spec in signature.inputs] == ["a", "pair_left", "pair_right_0", "mask"]
    leaf = lambda index: {"kind": "leaf", "index": index}  # noqa: E731
    value = lambda scalar: {"kind": "value", "value": scalar}  # noqa: E731
    assert signature.input_tree == {
        "kind": "tuple",
        "items": [
            {
                "kind": "tuple",
                "items": [leaf(0), {"kind": "dict", "keys": ["left", "right"], "items": [leaf(1), {"kind": "list", "items": [leaf(2)]}]}],
            },
            {
                "kind": "dict",
                "keys": ["scale", "flag", "options", "mask"],
                "items": [value(2.0), value(True), value(None), leaf(3)],
            },
        ],
    }
    tree = signature.output_tree
    assert tree["keys"] == ["total", "list", "count", "again", "point"]
    total, items, count, again, point = tree["items"]
    assert total == again == leaf(0), "a tensor returned twice is one output"
    assert items["items"][1] == {"kind": "tuple", "items": [leaf(0), value(None)]}
    assert count == value(3)
    assert point["kind"] == "object" and point["type"].endswith("Point") and point["keys"] == ["x", "y"]
    assert [spec.name for spec in signature.outputs] == ["total", "list.0", "point.x", "point.y"]


def test_result_classes() -> None:
    tree = check(lambda x: Result(x + 1, [x * 2]), (rand(2),)).signature.output_tree
    assert tree["type"].endswith("Result") and tree["keys"] == ["first", "rest", "nothing"]
    assert check(lambda x: OrderedDict(b=x, a=x + 1), (rand(2),)).signature.output_tree["keys"] == ["b", "a"]
    assert check(lambda x: x.topk(1), (rand(2),)).signature.output_tree["kind"] == "tuple"


def test_the_same_tensor_given_twice_is_two_inputs() -> None:
    x = rand(3)
    imported = check(lambda a, b: a - 2 * b, (x, x))
    assert len(imported.graph.inputs) == 2


def test_an_input_or_a_weight_may_be_the_result() -> None:
    weight = rand(2)
    imported = check(lambda x: (x, weight, x.view(3, 1)), (rand(3),))
    assert imported.graph.outputs[0] is imported.graph.inputs[0]


def test_weights_share_memory_and_tied_ones_are_one_constant() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embedding(tokens))

    model = Tied().eval()
    imported = check(model, (ints(2, 3, low=0, high=7),))
    (node,) = [node for node in imported.graph.nodes if node.op == "constant"]
    array = node.attributes["value"].array()  # type: ignore[union-attr]
    assert np.shares_memory(array, model.head.weight.detach().numpy())
    assert node.location.module in ("embedding.weight", "head.weight") and node.location.origin == "parameter"


def test_buffers_that_are_not_persistent_and_lifted_constants() -> None:
    block = Block().eval()
    table = torch.tensor([1.0, 2.0, 3.0, 4.0])
    imported = check(lambda x: block(x) * table, (rand(2, 4),))
    assert sum(node.op == "constant" for node in imported.graph.nodes) == 5


def test_half_weights_and_strided_weights() -> None:
    base = rand(4, 6)
    check(lambda x: (x @ base.bfloat16()[:, ::2], x @ base.t()[:4].bfloat16()), (rand(2, 4).bfloat16(),))
    check(lambda x: x @ base[:, 1::2], (rand(2, 4),))


def test_nodes_know_their_place() -> None:
    imported = import_model(Block().eval(), (rand(2, 4),))
    (linear,) = [node for node in imported.graph.nodes if node.op == "linear"]
    (tanh,) = [node for node in imported.graph.nodes if node.op == "tanh"]
    assert (linear.location.module, linear.location.origin) == ("inner.0", "aten.linear.default")
    assert tanh.location.module == "" and tanh.location.origin == "aten.tanh.default"
    assert tanh.location.source.startswith("test_import_model.py:")
    assert tanh.location.source.endswith(": return self.inner(x).tanh() * self.scale + self.offset")


def test_a_projection_by_a_transposed_weight_is_a_linear_layer() -> None:
    weight, bias = rand(5, 4), rand(5)
    imported = check(lambda x: torch.addmm(bias, x, weight.t()), (rand(3, 4),))
    assert [node.op for node in imported.graph.nodes if node.op != "constant"] in (["linear"], ["permute", "linear"])


class Regions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x * 2
        with torch.autocast("cpu", enabled=False):
            z = y.float() @ y.float().T
        return z + 1


def test_grad_and_autocast_regions_are_inlined() -> None:
    """Exported with gradients on, the regions are sub-graphs."""
    x = rand(3, 4)
    with torch.enable_grad():
        exported = torch.export.export(Regions(), (x,))
    assert any("wrap_with" in str(node.target) for node in exported.graph.nodes)
    imported = import_model(exported)
    ir.verify(imported.graph)
    compare(run(imported, (x,))[0], Regions()(x))


def test_all_unsupported_operations_are_named_at_once() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: Tensor) -> Tensor:
            y = self.block(x) + torch.rand(4)
            z = torch.igamma(y, x) + torch.igamma(x, y)
            return z.index_put((torch.tensor([0]), x[0] > 0), x[:1])

    with pytest.raises(UnsupportedOpError) as caught:
        import_model(Model().eval(), (rand(2, 4),))
    message = str(caught.value)
    assert "aten.rand.default (1 use, in the model itself, test_import_model.py:" in message
    assert "pass them as an argument" in message
    assert "aten.igamma.default (2 uses, first in the model itself, test_import_model.py:" in message
    assert "z = torch.igamma(y, x) + torch.igamma(x, y)" in message
    assert "aten.index_put.default" in message and "torch.where" in message


UNSUPPORTED: dict[str, tuple[Callable[..., Any], str]] = {
    "data-dependent size": (lambda x: x[x > 0] * 2, "depends on the data"),
    "nonzero": (lambda x: x.nonzero(), "depends on the data"),
    "active dropout": (lambda x: torch.nn.functional.dropout(x, 0.5, training=True), "dropout"),
    "active dropout of attention": (
        lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        "dropout_p=0",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_uses_say_what_to_do(name: str) -> None:
    function, remedy = UNSUPPORTED[name]
    with pytest.raises(UnsupportedOpError, match=remedy):
        import_model(function, (rand(4, 4),))


def test_a_buffer_that_changes_is_a_state() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.full((), 2.0))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return x * self.count

    imported = import_model(Counter().eval(), (rand(2),))
    ir.verify(imported.graph)
    (state,) = imported.states
    assert (state.name, float(state.initial.array())) == ("count", 2.0)
    y, count = ir.interpret(imported.graph, [np.float32([1, 2]), np.float32(5)])
    np.testing.assert_array_equal(y, [6, 12])
    assert count == 6


def test_an_argument_changed_in_place_is_a_state_and_may_be_returned() -> None:
    def update(cache: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        cache[1:3].copy_(x)
        return cache.sum(), cache.mul_(2)

    imported = import_model(update, (rand(4, 3), rand(2, 3)))
    ir.verify(imported.graph)
    assert [spec.mutated for spec in imported.signature.inputs] == [True, False]
    assert imported.signature.input_tree["items"][0]["items"][0] == {"kind": "leaf", "index": 0, "passed": 2}
    assert imported.signature.output_tree["items"][1] == {"kind": "leaf", "index": 1}
    cache, x = rand(4, 3), rand(2, 3)
    total, after = ir.interpret(imported.graph, [cache.numpy(), x.numpy()])
    expected, changed = update(cache, x)
    compare(total, expected)
    compare(after, changed)


def test_a_parameter_that_changes_is_unsupported() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.weight += 1
            return x * self.weight

    with pytest.raises(UnsupportedOpError, match=r"weight.*\n.*register_buffer"):
        import_model(Model().eval(), (rand(2),))


def test_training_mode_is_refused_where_it_matters() -> None:
    with pytest.raises(UnsupportedOpError, match=r"(?s)native_dropout.*in module 'inner.1'.*model.eval\(\)"):
        import_model(Block().train(), (rand(2, 4),))
    with pytest.raises(UnsupportedOpError, match=r"(?s)batch_norm.*in module '0'.*model\.eval"):
        import_model(nn.Sequential(nn.BatchNorm1d(4)), (rand(2, 4),))
    ir.verify(import_model(nn.Sequential(nn.Linear(4, 4)).train(), (rand(2, 4),)).graph)


def test_what_cannot_be_exported_is_explained() -> None:
    def branching(x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x

    with pytest.raises(ExportError, match=r"(?s)torch.export cannot.*test_import_model.py:\d+: if x.sum\(\) > 0:.*torch.where") as caught:
        import_model(branching, (rand(2),))
    assert caught.value.__cause__ is not None
    with pytest.raises(ExportError, match="pass an nn"):
        import_model(3, ())  # type: ignore[arg-type]


def test_a_result_that_cannot_be_rebuilt_is_refused() -> None:
    class Box:
        def __init__(self, content: Tensor) -> None:
            self.content = content

    torch.utils._pytree.register_pytree_node(
        Box, lambda box: ([box.content], None), lambda items, _: Box(*items), serialized_type_name="test_import_model.Box"
    )
    with pytest.raises(ExportError, match="cannot be rebuilt"):
        import_model(lambda x: Box(x + 1), (rand(2),))


def test_dynamic_dimensions_become_symbols() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    imported = import_model(model, (rand(5, 4),), dynamic_shapes={"input": {0: batch}})
    ir.verify(imported.graph)
    (symbol,) = imported.graph.symbols
    assert imported.graph.symbols[symbol] == ir.SymbolRange(2, 64)
    assert str(imported.graph.outputs[0].tensor.shape[0]) == symbol
    assert imported.signature.inputs[0].shape == (Size((symbol,)), 4)
    assert ir.print_graph(ir.parse(ir.print_graph(imported.graph))) == ir.print_graph(imported.graph)
    for rows in (5, 9):
        x = rand(rows, 4)
        with torch.no_grad():
            compare(run(imported, (x,))[0], model(x))


def test_a_language_model_of_any_batch_and_length() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, use_cache=False)).eval()
    ranges = {0: torch.export.Dim("batch", min=1, max=8), 1: torch.export.Dim("length", min=2, max=32)}
    imported = import_model(model, (), {"input_ids": ints(2, 5, low=0, high=64)}, dynamic_shapes={"input_ids": ranges})
    ir.verify(imported.graph)
    assert sorted(imported.graph.symbols.values(), key=str) == [ir.SymbolRange(1, 8), ir.SymbolRange(2, 32)]
    for shape in ((2, 5), (3, 7)):
        tokens = ints(*shape, low=0, high=64, seed=shape[1])
        with torch.no_grad():
            compare(run(imported, (tokens,))[0], model(tokens).logits)


def test_sizes_that_may_not_fit_are_explained() -> None:
    def skip(x: Tensor) -> Tensor:
        halved = nn.functional.max_pool2d(x, 2)
        return torch.cat([x, nn.functional.interpolate(halved, scale_factor=2)], 1)

    with pytest.raises((UnsupportedOpError, ExportError), match=r"dynamic_shapes|Dim"):
        import_model(skip, (rand(1, 2, 8, 8),), dynamic_shapes={"x": {2: torch.export.Dim("height", min=4)}})
    with pytest.raises(ExportError, match="dynamic_shapes"):
        import_model(nn.Linear(4, 3).eval(), (rand(5, 4),), dynamic_shapes={"input": {0: torch.export.Dim("batch", max=4)}})
