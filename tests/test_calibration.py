"""Samples for ``calibration=``: as arguments are written in Python, and as a file holds them for the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import mlc
from mlc.arguments import input_names
from mlc.calibration import samples_of
from mlc.calibration_file import read_calibration
from mlc.errors import OptionError
from mlc.options import check_options
from mlc.tuning import model_tasks


class Scaled(nn.Module):
    """A layer over features, times a number for each, at tokens that a table has a vector for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 64)
        self.table = nn.Embedding(10, 32)

    def forward(self, x: Tensor, tokens: Tensor, states: list[Tensor]) -> Tensor:
        return self.layer(x + self.table(tokens)) * states[0]


def example() -> tuple[Any, ...]:
    return torch.ones(2, 32), torch.zeros(2, dtype=torch.int64), [torch.ones(64)]


def arrays(samples: int = 3) -> dict[str, np.ndarray]:
    """Samples one after the other for x and tokens, along an axis of their own for the state; in NumPy's usual dtypes."""
    draw = np.random.default_rng(0)
    return {
        "x": draw.normal(size=(2 * samples, 32)),
        "tokens": draw.integers(0, 10, 2 * samples).astype(np.int32),
        "states.0": draw.normal(size=(samples, 64)).astype(np.float32),
    }


def expected(number: int) -> tuple[Tensor, Tensor, Tensor]:
    x, tokens, state = arrays().values()
    rows = slice(2 * number, 2 * number + 2)
    return torch.tensor(x[rows], dtype=torch.float32), torch.tensor(tokens[rows], dtype=torch.int64), torch.tensor(state[number])


def written(folder: Path, kind: str) -> Path:
    path = folder / f"samples.{kind.partition(' ')[0]}"
    tensors = {name: torch.from_numpy(array) for name, array in arrays().items()}
    if kind == "npz":
        np.savez(path, **arrays())
    elif kind == "npz by position":
        np.savez(path, *arrays().values())
    elif kind == "safetensors":
        save_file(tensors, path)
    elif kind == "pt of arrays":
        torch.save(tensors, path)
    elif kind == "pt of samples":
        torch.save([(x, tokens, [state]) for x, tokens, state in map(expected, range(3))], path)
    else:
        torch.save([{"x": x, "tokens": tokens, "states": [state]} for x, tokens, state in map(expected, range(3))], path)
    return path


@pytest.mark.parametrize("kind", ["npz", "npz by position", "safetensors", "pt of arrays", "pt of samples", "pt of named samples"])
def test_every_kind_of_file_gives_the_same_samples(tmp_path: Path, kind: str) -> None:
    samples = samples_of(read_calibration(written(tmp_path, kind), Scaled(), example()), Scaled())
    assert len(samples) == 3
    for number, (x, tokens, states) in enumerate(samples):
        for given, right in zip((x, tokens, *states), expected(number), strict=True):
            assert given.dtype is right.dtype and torch.equal(given, right)


def without(name: str) -> dict[str, np.ndarray]:
    return {key: array for key, array in arrays().items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {**arrays(), "mask": np.ones(3)},
            r"array 'mask', which is no positional input of the model; it needs .* 'x', 'tokens', 'states.0'",
        ),
        (without("tokens"), "no array for the input 'tokens'; it needs an array for each of 'x', 'tokens', 'states.0'"),
        (
            {**arrays(), "x": np.ones((6, 31))},
            r"input 'x' is float64\[6, 31\], and float32\[2, 32\] in the example inputs; give .* float32\[n, 2, 32\] or \[n\*2, 32\]",
        ),
        ({**arrays(), "x": np.ones((5, 32))}, r"input 'x' is float64\[5, 32\]"),
        ({**arrays(), "tokens": np.full(6, 0.5)}, r"input 'tokens' is float64\[6\], and int64\[2\]"),
        ({**arrays(), "states.0": np.ones((4, 64))}, "samples of different numbers: 3 of 'x', 3 of 'tokens', 4 of 'states.0'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, content: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "samples.npz", **content)
    with pytest.raises(OptionError, match=message):
        read_calibration(tmp_path / "samples.npz", Scaled(), example())


def absent(path: Path) -> None:
    pass


def no_archive(path: Path) -> None:
    path.write_text("x,tokens\n1,2\n")


def a_number(path: Path) -> None:
    torch.save(3, path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("samples.npz", absent, "there is no calibration file .*samples.npz"),
        ("samples.csv", no_archive, "samples.csv' is of no known kind; give .npz, .safetensors or .pt"),
        ("samples.npz", no_archive, "samples.npz' cannot be read"),
        ("samples.safetensors", no_archive, "samples.safetensors' cannot be read"),
        ("samples.pt", a_number, "holds a int; save a list of samples"),
    ],
)
def test_files_that_hold_no_samples_are_refused(tmp_path: Path, name: str, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / name)
    with pytest.raises(OptionError, match=message):
        read_calibration(tmp_path / name, Scaled(), example())


def test_files_of_pickled_code_are_not_run(tmp_path: Path) -> None:
    torch.save([nn.Linear(2, 2)], tmp_path / "samples.pt")
    with pytest.raises(OptionError, match="cannot be read"):
        read_calibration(tmp_path / "samples.pt", Scaled(), example())


def test_names_are_those_of_the_parameters() -> None:
    args = example()
    assert input_names(Scaled(), args) == ("x", "tokens", "states.0")
    assert input_names(torch.export.export(Scaled(), args), args) == ("x", "tokens", "states.0")


def test_samples_may_be_written_in_several_ways() -> None:
    x, y = torch.ones(2), torch.zeros(2)

    def function(left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        return left + right * scale

    assert samples_of([(x, y)], function) == samples_of([{"right": y, "left": x}], function) == samples_of(iter([[x, y]]), function)
    assert samples_of([x], function) == ((x,),)
    with pytest.raises(OptionError, match="gives no input 'right', but others after it"):
        samples_of([{"left": x, "scale": 2.0}], function)
    with pytest.raises(OptionError, match="names the input 'middle', and the model has 'left', 'right', 'scale'"):
        samples_of([{"middle": x}], function)


def test_positional_arguments_vary_while_keyword_arguments_stay() -> None:
    """A model whose example has keyword arguments: samples are of its positional ones."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
            return self.layer(x) * mask

    torch.manual_seed(0)
    model, x, mask = Masked().eval(), torch.randn(64, 32), torch.ones(32)
    with torch.no_grad():
        fast = mlc.compile(model, example_inputs=(x,), example_kwargs={"mask": mask}, precision="int8", calibration=[x], strict=True)
        assert torch.dist(fast(x, mask=mask), model(x, mask=mask)) < 0.02 * model(x, mask=mask).norm()
        narrow = mlc.compile(model, example_inputs=(x,), example_kwargs={"mask": mask}, precision="int8", calibration=[x / 8], strict=True)
        assert torch.dist(narrow(x, mask=mask), fast(x, mask=mask)) > 0.1 * model(x, mask=mask).norm(), "large numbers are cut off"


def test_kernels_to_tune_are_those_of_the_compilation() -> None:
    """Ranges that are known change the kernels: tuning has to see them."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32)).eval(), torch.randn(16, 64)

    def keys(samples: Any) -> set[str]:
        options = check_options(precision="int8", calibration=samples_of(samples, model))
        return {kernel.task.key for kernel in model_tasks(model, (x,), {}, options)}

    compiled = mlc.compile(model, example_inputs=(x,), precision="int8", calibration=[x])
    (program,) = compiled.report().programs
    assert {kernel.task for kernel in program.kernels if kernel.task} == keys([x]) != keys(None)
