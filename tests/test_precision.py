"""Models compiled with weights in fewer bits: what they compute is the model with rounded weights, what they report is the mode."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mlc
from mlc.codegen.precision import MODES, Precision, WeightAxes
from mlc.driver import lower_model
from mlc.errors import OptionError
from mlc.ir import EncodedConstant, Encoding, interpret, load_text, parse, print_graph, save_text, scheme_of
from mlc.options import check_options

LOWER = [name for name, mode in MODES.items() if mode.weights is not None]
PAGE = Path(mlc.__file__).parent / "docs" / "precision.md"
AXES = {nn.Linear: WeightAxes(0, 1), nn.Conv2d: WeightAxes(0, 1), nn.ConvTranspose2d: WeightAxes(1, 0)}


class Block(nn.Module):
    """Attention whose projections are merged, and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.norm = nn.LayerNorm(64)
        self.feed = nn.Sequential(nn.Linear(64, 160), nn.GELU(), nn.Linear(160, 64))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 32)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.feed(self.norm(x + self.out(attended)))


class Images(nn.Module):
    """Convolutions: of few channels, of many, grouped by channel, transposed; and a matrix product with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.pointwise = nn.Conv2d(64, 96, 1)
        self.up = nn.ConvTranspose2d(96, 32, 2, stride=2)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(torch.relu(self.first(x))))))
        return self.head(torch.relu(self.up(x)).mean((2, 3)))


def built(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = kind().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(parameter[0].numel(), 4) ** 0.5)
    return model, torch.randn(2, 3, 12, 12) if kind is Images else torch.randn(1, 7, 64)


def rounded(model: nn.Module, precision: object) -> nn.Module:
    """``model`` in float64 with its weights replaced by what their modes store of them."""
    table = Precision.of(precision)
    result = copy.deepcopy(model)
    merged: dict[object, list[nn.Module]] = {}
    for name, module in result.named_modules():
        if type(module) in AXES and table.mode(name).weights is not None:
            # Layers over one input that were merged share what belongs to a whole tensor: a codebook.
            merged.setdefault((name in "qkv") or name, []).append(module)
            module.mode = table.mode(name)
    for modules in merged.values():
        for mode in {module.mode for module in modules}:
            _round_weights([module for module in modules if module.mode == mode], mode.weights(AXES[type(modules[0])]))
    return result.double()


def _round_weights(modules: list[nn.Module], encoding: Encoding) -> None:
    scheme = scheme_of(encoding)
    weight = torch.cat([module.weight.detach() for module in modules]).numpy()
    if 2 * scheme.nbytes(weight.shape) <= weight.nbytes:
        decoded = torch.from_numpy(scheme.decode(scheme.quantise(weight)))
        for module, part in zip(modules, decoded.chunk(len(modules)), strict=True):
            module.weight.data = part


def close(model: nn.Module, x: Tensor, precision: object) -> mlc.CompiledModel:
    """``model`` compiled, after comparing it with the model of rounded weights."""
    fast = mlc.compile(model, example_inputs=(x,), precision=precision, strict=True)
    with torch.inference_mode():
        wanted = rounded(model, precision)(x.double())
        assert float((fast(x) - wanted).norm() / wanted.norm()) < 2e-6
    return fast


@pytest.mark.parametrize("mode", LOWER)
@pytest.mark.parametrize("kind", [Block, Images])
def test_every_mode_computes_the_model_with_rounded_weights(kind: type[nn.Module], mode: str) -> None:
    model, x = built(kind)
    fast = close(model, x, mode)
    labels = {kernel.precision.strip("()") for kernel in fast.report().programs[0].kernels}
    assert labels - {""} == {mode}


@pytest.mark.parametrize("mode", ["w8", "w3", "mxfp4"])
def test_compiled_programs_equal_the_interpreter(mode: str) -> None:
    model, x = built(Block)
    graph = lower_model(model, (x,), {}, check_options(precision=mode)).graph
    (wanted,) = interpret(graph, [x.numpy()], wide=True)
    with torch.inference_mode():
        got = mlc.compile(model, example_inputs=(x,), precision=mode, strict=True)(x).numpy()
    assert np.linalg.norm(got - wanted) < 2e-6 * np.linalg.norm(wanted)


def test_modes_by_module_and_what_the_report_says() -> None:
    model, x = built(Block)
    fast = close(model, x, {"": "w4", "feed": "w8", "feed.2": "fp32", "v": "mxfp8"})
    program = fast.report().programs[0]
    by_place = {kernel.location.split("'")[1]: kernel.precision.strip("()") for kernel in program.kernels if "linear" in kernel.label}
    assert by_place == {"q": "w4", "v": "mxfp8", "out": "w4", "feed.0": "w8", "feed.2": ""}
    assert "mode" in str(program) and "w8" in str(program)
    assert {"w4"} <= {kernel["precision"].strip("()") for kernel in program.to_dict()["kernels"]}
    assert "mode" not in str(mlc.compile(model, example_inputs=(x,), strict=True).report())


def test_dicts_reach_modules_by_pattern() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(3)))
    torch.manual_seed(0)
    close(model.eval(), torch.randn(3, 64), {"?.0": "w4", "1": "w8", "2": "fp32"})
    with pytest.raises(OptionError, match="'blocks' is no module of this model that computes; some are"):
        mlc.compile(model, example_inputs=(torch.randn(3, 64),), precision={"blocks": "w4"})


def test_embeddings_are_stored_in_8_bits_beside_a_tied_layer() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(1200, 64)
            self.norm = nn.LayerNorm(64)

        def forward(self, tokens: Tensor) -> Tensor:
            return nn.functional.linear(self.norm(self.embedding(tokens)), self.embedding.weight)

    model, tokens = Tied().eval(), torch.randint(0, 1200, (2, 5))
    fast = mlc.compile(model, example_inputs=(tokens,), precision="w8", strict=True)
    program = fast.report().programs[0]
    assert {kernel.precision.strip("()") for kernel in program.kernels} == {"w8"}
    reference = copy.deepcopy(model)
    weight = reference.embedding.weight.detach().numpy()
    scheme = scheme_of(MODES["w8"].weights(WeightAxes(0, 1)))
    reference.embedding.weight.data = torch.from_numpy(scheme.decode(scheme.quantise(weight)))
    with torch.inference_mode():
        wanted = reference.double()(tokens)
        assert float((fast(tokens) - wanted).norm() / wanted.norm()) < 2e-6
    plain = mlc.compile(model, example_inputs=(tokens,), precision={"embedding": "fp32"}, strict=True)
    assert {kernel.precision for kernel in plain.report().programs[0].kernels} == {""}


def test_weights_that_are_not_finite_stay_dense() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 8)).eval()
    model[1].weight.data[3, 4] = float("inf")
    x = torch.rand(2, 64)
    fast = mlc.compile(model, example_inputs=(x,), precision="w8", nonfinite="strict", strict=True)
    assert [kernel.precision.strip("()") for kernel in fast.report().programs[0].kernels] == ["w8", ""]
    with torch.inference_mode():
        assert torch.equal(fast(x).isfinite(), model(x).isfinite())


def test_saved_programs_keep_their_weights_and_report(tmp_path: Path) -> None:
    model, x = built(Images)
    fast = mlc.compile(model, example_inputs=(x,), precision="w4", strict=True)
    fast.save(tmp_path / "images.mlc")
    loaded = mlc.load(tmp_path / "images.mlc")
    with torch.inference_mode():
        assert torch.equal(loaded(x), fast(x))
    assert str(loaded.report()) == str(fast.report())


def test_lowered_graphs_with_encoded_weights_round_trip_through_files(tmp_path: Path) -> None:
    model, x = built(Block)
    graph = lower_model(model, (x,), {}, check_options(precision={"feed": "mxfp8", "out": "w4"})).graph
    save_text(graph, tmp_path / "block.txt")
    again = load_text(tmp_path / "block.txt")
    assert print_graph(again) == print_graph(graph)
    np.testing.assert_array_equal(interpret(again, [x.numpy()])[0], interpret(graph, [x.numpy()])[0])
    constants = {value.constant.digest: value.constant for value in graph.values() if value.constant is not None}
    assert sum(isinstance(constant, EncodedConstant) for constant in constants.values()) == 3
    assert print_graph(parse(print_graph(graph), constants)) == print_graph(graph)


def test_recurrent_layers_and_dynamic_shapes_take_modes_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    fast = mlc.compile(
        model,
        example_inputs=(torch.randn(4, 16),),
        dynamic_shapes=({0: torch.export.Dim("rows", min=2, max=64)},),
        precision="w8",
        strict=True,
    )
    wanted = rounded(model, "w8")
    with torch.inference_mode():
        for rows in (2, 9, 64):
            x = torch.randn(rows, 16)
            torch.testing.assert_close(fast(x), wanted(x.double()).float())
    recurrent = nn.GRU(32, 48, batch_first=True).eval()
    x = torch.randn(2, 6, 32)
    fast = mlc.compile(recurrent, example_inputs=(x,), precision="w8", strict=True)
    modes = [kernel.precision.strip("()") for kernel in fast.report().programs[0].kernels]
    assert modes.count("w8") == 2
    with torch.inference_mode():
        error = float((fast(x)[0] - recurrent(x)[0]).norm() / recurrent(x)[0].norm())
    assert 1e-5 < error < 0.02


def test_torch_compile_takes_one_mode_for_all() -> None:
    model, x = built(Block)
    fast = torch.compile(model, backend="mlc", options={"precision": "w4"})
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error", mlc.FallbackWarning)
        wanted = rounded(model, "w4")(x.double())
        assert float((fast(x) - wanted).norm() / wanted.norm()) < 2e-6
    torch._dynamo.reset()
    with pytest.raises(Exception, match="give one precision for all of it"), torch.inference_mode():
        torch.compile(model, backend="mlc", options={"precision": {"q": "w4"}})(x)
    torch._dynamo.reset()


def test_the_table_of_the_documentation_is_that_of_the_modes() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (\w+) \| ([\d.]+) \| ([\d.]+)% \| ([\d.]+)% \|$", PAGE.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == LOWER
    normal = np.random.default_rng(0).standard_normal((512, 4096))
    heavy = np.random.default_rng(0).standard_t(4, (512, 4096))
    arrays = [normal.astype(np.float32), heavy.astype(np.float32)]
    for name, doc, kind, bits, *errors in rows:
        scheme = scheme_of(MODES[name].weights(WeightAxes(0, 1)))
        assert (doc, kind) == (MODES[name].doc, scheme.name)
        assert float(bits) == pytest.approx(scheme.nbytes((512, 4096)) * 8 / (512 * 4096), abs=0.006)
        for array, stated in zip(arrays, errors, strict=True):
            error = np.linalg.norm(scheme.decode(scheme.quantise(array)) - array) / np.linalg.norm(array)
            assert 100 * error == pytest.approx(float(stated), abs=0.1, rel=0.02)
