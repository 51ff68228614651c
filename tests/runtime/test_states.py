"""Models with caches and counters: sessions, threads, artifacts; arguments that are changed in place."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mlc
from mlc import SignatureError
from mlc.ir.program import Copy, Space


class Cached(nn.Module):
    """Writes its input into a cache and sums what is there, counting its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(3, 40, 16))
        self.register_buffer("count", torch.tensor(2), persistent=False)
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 16))

    def forward(self, x: Tensor) -> Tensor:
        position = torch.arange(x.shape[1]) + self.count
        self.cache.index_copy_(1, position, x * self.weight)
        self.count += x.shape[1]
        return self.cache.sum(1)


def inputs(count: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 2 if step == 0 else 1, 16, generator=generator) for step in range(count)]


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.usefixtures("no_grad")
def test_a_compiled_model_changes_its_modules_buffers() -> None:
    model, reference = Cached().eval(), Cached().eval()
    fast = mlc.compile(model)
    for x in inputs():
        torch.testing.assert_close(fast(x), reference(x))
    torch.testing.assert_close(model.cache, reference.cache)
    assert model.count == reference.count == 7
    states = fast.default_session.states
    assert states["cache"] is model.cache and states["count"] is model.count
    # The other way round, and through a buffer that replaces the old one.
    model.cache.zero_()
    reference.cache.zero_()
    model.count = torch.tensor(0)
    reference.count.zero_()
    for x in inputs(3, seed=1):
        torch.testing.assert_close(fast(x), reference(x))
    assert model.count == 4 and len(fast.signatures) == 2
    # A change of the weights compiles anew; the buffers stay what they are.
    for module in (model, reference):
        module.weight.mul_(2)
    with pytest.warns(UserWarning, match="compiled again"):
        torch.testing.assert_close(fast(inputs()[1]), reference(inputs()[1]))
    assert model.count == 5
    fast.default_session.reset()
    assert model.count == 2 and not model.cache.any()


@pytest.mark.usefixtures("no_grad")
def test_buffers_that_programs_cannot_work_on_are_copied() -> None:
    model, reference = Cached().eval(), Cached().eval()
    model.cache = torch.zeros(16, 40, 3).permute(2, 1, 0)
    model.count = torch.tensor([0, 2])[1]
    fast = mlc.compile(model)
    for x in inputs(3):
        torch.testing.assert_close(fast(x), reference(x))
    torch.testing.assert_close(model.cache, reference.cache)
    assert model.count == reference.count and fast.default_session.states["cache"] is model.cache
    fast.default_session.load_states({"count": torch.tensor(5)})
    assert model.count == 5


@pytest.mark.usefixtures("no_grad")
def test_sessions_are_independent() -> None:
    fast = mlc.compile(Cached().eval())
    sessions, references = [fast.session() for _ in range(2)], [Cached().eval() for _ in range(2)]
    streams = [inputs(seed=seed) for seed in range(2)]
    for step in range(4):
        for session, reference, stream in zip(sessions, references, streams, strict=True):
            torch.testing.assert_close(session(stream[step]), reference(stream[step]))
    assert fast.count == 2  # the module's own buffer
    assert [int(session.states["count"]) for session in sessions] == [7, 7]
    late = fast.session()
    torch.testing.assert_close(late(streams[0][0]), Cached().eval()(streams[0][0]))
    saved = {name: value.clone() for name, value in sessions[0].states.items()}
    sessions[1].load_states(saved)
    torch.testing.assert_close(sessions[1](streams[1][1]), sessions[0](streams[1][1]))
    sessions[0].reset()
    assert sessions[0].states["count"] == 2 and not sessions[0].states["cache"].any()
    with pytest.raises(SignatureError, match=r"no states \['k'\].*'cache', 'count'"):
        sessions[0].load_states({"k": saved["cache"]})
    with pytest.raises(SignatureError, match=r"count.*dtype"):
        sessions[0].load_states({"count": torch.tensor(1.0)})


def test_threads_call_sessions_at_the_same_time_and_take_turns_in_one() -> None:
    fast = mlc.compile(Cached().eval(), example_inputs=(inputs()[1],))
    shared = fast.session()
    results: list[Tensor] = []

    def work(seed: int) -> None:
        session = fast.session()
        with torch.inference_mode():
            for x in inputs(9, seed)[1:]:
                results_of[seed].append(session(x))
                shared(x)

    results_of: list[list[Tensor]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, results in enumerate(results_of):
        reference = Cached().eval()
        with torch.inference_mode():
            for x, result in zip(inputs(9, seed)[1:], results, strict=True):
                torch.testing.assert_close(result, reference(x))
    assert shared.states["count"] == 2 + 4 * 8
    with torch.inference_mode(), pytest.raises(IndexError, match="out of range"):
        for x in inputs(9)[1:]:
            shared(x)


def test_an_artifact_carries_the_first_contents(tmp_path: Path) -> None:
    model = Cached().eval()
    model.cache[0, 0] = 3.0
    fast = mlc.compile(model)
    stream = inputs(3)
    with torch.inference_mode():
        expected = [fast(x) for x in stream]
    fast.save(tmp_path / "m.mlc")
    loaded = mlc.load(tmp_path / "m.mlc")
    for session in (loaded, loaded.session()):
        for x, result in zip(stream, expected, strict=True):
            np.testing.assert_allclose(session(x.numpy()), result.numpy(), rtol=1e-6)
    assert loaded.default_session.states["count"] == 6


class Layers(nn.Module):
    """One cache for all layers, as those who write their own decoders have it; a ring; a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(2, 1, 6, 4))
        self.register_buffer("ring", torch.zeros(5, 4))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("seen", torch.zeros(6, dtype=torch.bool))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for layer in range(2):
            self.cache[layer][:, position] = x + layer
            total = total + self.cache[layer].sum(1)
        self.ring.copy_(torch.cat([self.ring[1:], x]))
        self.mean.mul_(0.9).add_(x[0], alpha=0.1)
        self.seen[position] = True
        return total + self.ring.amax(0) + self.mean + self.seen.sum()


@pytest.mark.usefixtures("no_grad")
def test_ways_to_write_a_cache() -> None:
    model, reference = Layers().eval(), Layers().eval()
    fast = mlc.compile(model)
    for step in (0, 3, 1):
        x, position = torch.randn(1, 4, generator=torch.Generator().manual_seed(step)), torch.tensor([step])
        torch.testing.assert_close(fast(x, position), reference(x, position))
        for (name, mine), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs, msg=name)
    (executable,) = fast.executables
    puts = [call for call in executable.program.calls if call.label.endswith("put")]
    assert not any(
        argument.space is Space.ARENA for call in puts for argument in call.arguments
    )  # rows go from the input to the cache, without a copy of a layer


class Decoder(nn.Module):
    """Attention over what was said so far, whose keys and values lie in two buffers."""

    def __init__(self, length: int = 64, width: int = 32) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 4, length, width // 4))
        self.register_buffer("values", torch.zeros(1, 4, length, width // 4))
        self.projection, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.length, self.width = length, width

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        query, key, value = (part.view(1, 1, 4, -1).transpose(1, 2) for part in self.projection(x).split(self.width, -1))
        self.keys.index_copy_(2, position, key)
        self.values.index_copy_(2, position, value)
        mask = (torch.arange(self.length) <= position)[None, None, None]
        seen = nn.functional.scaled_dot_product_attention(query, self.keys, self.values, attn_mask=mask)
        return x + self.output(seen.transpose(1, 2).reshape(1, 1, self.width))


@pytest.mark.usefixtures("no_grad")
def test_a_decode_step_copies_no_cache() -> None:
    model = Decoder().eval()
    reference = copy.deepcopy(model)
    fast = mlc.compile(model)
    for step in range(3):
        x, position = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(step)), torch.tensor([step])
        torch.testing.assert_close(fast(x, position), reference(x, position))
        torch.testing.assert_close(model.keys, reference.keys)
    (executable,) = fast.executables
    assert not any(isinstance(step, Copy) for step in executable.program.steps)
    assert [state.name for state in executable.program.states] == ["keys", "values"]
    assert executable.program.arena_bytes < model.keys.nbytes  # so none can lie there


def update(cache: Tensor, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    cache.index_copy_(0, position, x)
    return cache.sum(0), cache


@pytest.mark.usefixtures("no_grad")
def test_arguments_are_changed_in_place() -> None:
    fast = mlc.compile(update)
    x, position = torch.randn(1, 16), torch.tensor([2])
    caches = [torch.zeros(4, 16), torch.zeros(16, 4).t(), torch.zeros(65)[1:].reshape(4, 16)]  # aligned, strided, unaligned
    for cache in caches:
        version = cache._version
        total, same = fast(cache, x, position)
        assert same is cache and cache._version > version
        torch.testing.assert_close(total, x[0])
        torch.testing.assert_close(cache[2], x[0])
        assert cache.count_nonzero() == 16
    array = np.zeros((4, 16), np.float32)
    _, same = fast(array, x.numpy(), position.numpy())
    assert same is array and array[2].any()
    array.flags.writeable = False
    with pytest.raises(SignatureError, match="read-only"):
        fast(array, x.numpy(), position.numpy())
    with pytest.raises(SignatureError, match=r"shares memory with input 'x'.*clone"):
        fast(caches[0], caches[0][:1], position)
    with pytest.raises(SignatureError, match="changed in place; pass a tensor, not a ndarray"):
        fast(np.zeros((4, 16), np.float32), x, position)


def test_a_session_computes_no_gradients() -> None:
    fast = mlc.compile(Cached().eval(), example_inputs=(inputs()[1],))
    with pytest.raises(SignatureError, match=r"session computes no gradients.*no_grad"):
        fast.session()(inputs()[1])
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.deepcopy(fast)
