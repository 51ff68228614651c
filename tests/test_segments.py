"""Models of which PyTorch runs a part: the results are PyTorch's, the rest is compiled, and nothing of it happens silently."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mlc
import mlc.codegen.kernels
import mlc.segments
from mlc.errors import ArtifactError, FallbackWarning, UnsupportedOpError


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=2e-5, atol=2e-5)


def labels(fast: Any) -> list[str]:
    return [row.label for program in fast.report().programs for row in program.kernels]


def agrees(model: Callable[..., Any], *args: Any, calls: int = 2) -> Any:
    """The compiled model, which warned once and gave PyTorch's results, the same random numbers included."""
    fast = mlc.compile(model)
    with pytest.warns(FallbackWarning) as caught:
        for call in range(calls):
            torch.manual_seed(call)
            result, state = fast(*args), torch.random.get_rng_state()
            torch.manual_seed(call)
            same(result, model(*args))
            assert torch.equal(state, torch.random.get_rng_state())
    assert len(caught) == 1 and caught[0].filename == __file__
    return fast


torch.manual_seed(0)
linear = nn.Linear(4, 4)
x = torch.randn(4, 4)
eye = torch.eye(4)


def test_linear_algebra() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = torch.linalg.inv(linear(x) + 5 * eye) + 1
        spd = y @ y.t() + 3 * eye
        return torch.linalg.cholesky(spd).tanh(), torch.linalg.solve(spd, y).relu(), torch.linalg.eigvalsh(spd), torch.det(y) * 2

    fast = agrees(model, x)
    assert sum(label.startswith("pytorch: ") for label in labels(fast)) == 2  # the inverse, then all that needs its product
    assert labels(fast)[0] == "linear+add"
    with pytest.raises(torch.linalg.LinAlgError), pytest.warns(FallbackWarning):
        mlc.compile(lambda x: torch.linalg.inv(x * 0))(x)


def test_random_numbers_are_pytorchs_and_come_in_its_order() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        late = torch.relu(linear(x))
        first = torch.rand(4)
        second = torch.bernoulli(torch.sigmoid(late))
        third = nn.functional.dropout(late + first, 0.5, training=True)
        fourth = late[torch.randperm(4)] * torch.randn_like(first)
        fifth = torch.multinomial(torch.softmax(third, -1), 2) + torch.randint(0, 9, (2,))
        sixth = nn.functional.rrelu(late - 1, training=True) + torch.empty(4).uniform_(-1, 1) + torch.normal(late, 0.5)
        return second + 1, third * 2, fourth, fifth, sixth, torch.empty(4).exponential_() + torch.rand(4)

    agrees(model, x)


DATA_DEPENDENT: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "masks": (lambda x: (torch.relu(linear(linear(x)[x[:, 0] > 0])).sum(0) + 1, torch.masked_select(x * 2, x > 0).exp()), "linear+relu"),
    "positions": (lambda x: (torch.nonzero(linear(x) > 0) * 2 + 1, torch.unique((x * 2).round(), return_counts=True)), "mul+add"),
    "repetition": (lambda x: torch.repeat_interleave(linear(x), (x[:, 0] > 0).long() + 1, dim=0).relu() * 2, "take+relu+mul"),
    "numbers": (lambda x: (linear(x) * x.sum().item() + 1, x.new_ones(x.long().abs().sum().item() % 3 + 1, 4) + linear(x)[:1]), "add"),
}


@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_sizes_and_numbers_found_in_data(name: str) -> None:
    model, kernel = DATA_DEPENDENT[name]
    assert kernel in labels(agrees(model, x))


def test_parts_of_unknown_size_are_compiled_for_each_size_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(x: Tensor, keep: Tensor) -> Tensor:
        return torch.relu(linear(x[keep])) + 1

    fast = mlc.compile(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for count in (4, 0, 2, 4):
            keep = torch.arange(4) < count
            same(fast(x, keep), model(x, keep))
            same(fast(x.numpy(), keep.numpy()), model(x, keep).numpy())
    (executable,) = fast.executables
    assert len(executable.executables()) == 3
    monkeypatch.setattr(mlc.segments, "SIZE_LIMIT", 4)
    with pytest.warns(FallbackWarning, match="4 combinations of sizes") as caught:
        for count in range(5):
            keep = torch.arange(4) < count
            same(fast(x, keep), model(x, keep))
    assert len(caught) == 1 and len(executable.executables()) == 4


class Solver(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lgamma(torch.linalg.inv(self.first(x)).abs() + 1)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.solver = Solver()

    def forward(self, x: Tensor) -> Tensor:
        return self.solver(x) + torch.rand(4)


def test_one_message_names_every_operation_its_module_and_its_line() -> None:
    with pytest.warns(FallbackWarning) as caught:
        fast = mlc.compile(Outer().eval(), example_inputs=(x,))
    (warning,) = caught
    with pytest.raises(UnsupportedOpError) as refused:
        mlc.compile(Outer().eval(), example_inputs=(x,), strict=True)
    for message in (str(warning.message), str(refused.value), str(fast.report())):
        assert "aten.linalg_inv_ex.default (1 use, in module 'solver', test_segments.py:" in message
        assert "torch.linalg.inv(self.first(x))" in message
        assert "aten.rand.default (1 use, in the model itself, test_segments.py:" in message and "torch.rand(4)" in message
    profile = fast.profile(x, calls=2)
    assert profile.seconds and {row.symbol == "pytorch" for row in profile.kernels} == {True, False}


def test_only_whole_programs_are_saved(tmp_path: Path) -> None:
    with pytest.warns(FallbackWarning):
        fast = mlc.compile(Outer().eval(), example_inputs=(x,))
    with pytest.raises(ArtifactError, match=r"(?s)'Outer' cannot be saved.*linalg_inv_ex"):
        fast.save(tmp_path / "outer.mlc")
    assert not list(tmp_path.iterdir())


class Orthogonal(nn.Module):
    """What depends on weights alone is computed when the model is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        q, r = torch.linalg.qr(self.weight)
        return torch.relu(x @ (q * torch.sign(torch.diagonal(r))) + torch.linalg.inv(self.weight + 9 * torch.eye(4))[0])


def test_weights_made_by_linear_algebra_are_folded(tmp_path: Path) -> None:
    model = Orthogonal().eval()
    fast = mlc.compile(model, example_inputs=(x,), strict=True)
    same(fast(x), model(x))
    fast.save(tmp_path / "orthogonal.mlc")
    same(mlc.load(tmp_path / "orthogonal.mlc")(x), model(x))
    model.weight.add_(1)
    with pytest.warns(UserWarning, match="changed since it was compiled"):
        same(fast(x), model(x))


def test_operations_that_no_template_takes_run_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    template_for = mlc.codegen.kernels.template_for

    def picky(region: Any, *target: Any) -> Any:
        return None if any(node.op == "sin" for node in region.nodes) else template_for(region, *target)

    monkeypatch.setattr(mlc.codegen.kernels, "template_for", picky)

    def model(x: Tensor) -> Tensor:
        return torch.relu(linear(torch.sin(linear(x) + 1)))

    with pytest.warns(FallbackWarning, match=r"(?s)aten.sin.default \(1 use.*test_segments.py:\d+: return torch.relu.*no kernel"):
        fast = mlc.compile(model, example_inputs=(x,))
    same(fast(x), model(x))
    assert labels(fast) == ["linear+add", "pytorch: sin", "linear+relu"]
    with pytest.raises(UnsupportedOpError, match="sin"):
        mlc.compile(model, example_inputs=(x,), strict=True)


def test_views_are_left_to_pytorch_where_only_it_looks_at_them() -> None:
    def model(x: Tensor) -> Tensor:
        left, right = linear(x).t().split(2)
        return torch.linalg.pinv(left).t()[:, 1:] + torch.linalg.pinv(right).t()[:, 1:]

    assert labels(agrees(model, x)) == ["linear", "pytorch: linalg_pinv", "add"]


def test_training_mode_changes_buffers_as_in_pytorch() -> None:
    def make() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2)).train()

    model, reference = make(), make()
    fast = mlc.compile(model)
    with pytest.warns(FallbackWarning, match=r"model\.eval\(\)") as caught:
        for call in range(3):
            torch.manual_seed(call)
            result = fast(x)
            torch.manual_seed(call)
            same(result, reference(x))
            same(model.state_dict(), reference.state_dict())
    assert len(caught) == 1  # the changes are its own: nothing is compiled again
    model.eval(), reference.eval()
    with pytest.warns(UserWarning, match="training mode"):
        same(fast(x), reference(x))


def test_inputs_that_are_changed_passed_through_or_numpy() -> None:
    def model(x: Tensor, n: Tensor) -> tuple[Any, ...]:
        n.add_(1)
        return torch.linalg.matrix_exp(linear(x)) * n, x, linear.weight, {"n": n.sum().item(), "none": None}

    given, expected = [torch.ones(4), torch.ones(4)]
    with pytest.warns(FallbackWarning):
        fast = mlc.compile(model, example_inputs=(x, torch.ones(4)))
    result = fast(x, given)
    same(result, model(x, expected))
    same(given, expected)
    result[2].zero_()
    assert linear.weight.any()
    arrays = fast(x.numpy(), np.ones(4, np.float32))
    assert isinstance(arrays[0], np.ndarray) and arrays[3]["n"] == 8.0


def test_symbolic_sizes_keep_their_ranges() -> None:
    def model(x: Tensor, y: Tensor) -> Tensor:
        return torch.relu(nn.functional.dropout(x + y, 0.5, training=True)) * 0 + torch.relu(x * y)

    rows = torch.export.Dim("rows", min=2, max=9)
    with pytest.warns(FallbackWarning):
        fast = mlc.compile(model, example_inputs=(torch.ones(5, 4), torch.ones(5, 4)), dynamic_shapes=({0: rows}, {0: rows}))
    executable = fast.executables[0]
    for count in (2, 7):
        a, b = torch.randn(count, 4), torch.randn(count, 4)
        same(executable.run(executable.bind((a, b), {})), torch.relu(a * b))
    for a, b in ((torch.ones(12, 4), torch.ones(12, 4)), (torch.ones(5, 4), torch.ones(1, 4))):
        with pytest.raises(mlc.SignatureError, match="size"):
            executable.check(executable.bind((a, b), {}))
