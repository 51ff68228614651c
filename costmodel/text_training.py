"""Training the networks of the text model, and asking them: everything that runs torch."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .model import Floats
from .text_network import Shape, TextNetwork, batch, loss
from .tokens import UNKNOWN, Tokens, Vocabulary

if TYPE_CHECKING:
    from .text_model import Hyperparameters

Texts = Sequence[Tokens]

_ASKED_AT_ONCE = 32
"""Kernels of a batch when predicting, which bounds its memory."""
_LARGEST_GRADIENT = 1.0
PARTS = 20
"""Of the training, whose mean losses are kept."""
FORGOTTEN = 0.05
"""Share of the words that are shown as unknown in training, so that the model does not hang on single words, and knows that one."""


@dataclass
class _Member:
    """A network in training: the tasks that it sees, and its own random numbers."""

    network: TextNetwork
    texts: Sequence[Texts]
    wanted: Sequence[Floats]
    generator: np.random.Generator


def train_members(
    texts: Sequence[Texts], wanted: Sequence[Floats], vocabulary: Vocabulary, hyperparameters: Hyperparameters
) -> tuple[list[TextNetwork], list[list[float]]]:
    """The networks of an ensemble, and the mean loss in each part of the training of each.

    ``texts`` are the kernels of each task, ``wanted`` [kernels, characteristics] what to predict for them, NaN where it is not known.
    The same data and hyperparameters give the same networks. torch's own random numbers are left as they were.
    """
    count = max(2, math.ceil(hyperparameters.task_share * len(texts)))
    shape = Shape(len(vocabulary), wanted[0].shape[1], hyperparameters.embedding, hyperparameters.width)
    members = []
    with torch.random.fork_rng(devices=[]):
        for number in range(hyperparameters.members):
            generator = np.random.default_rng([hyperparameters.seed, number])
            torch.manual_seed(int(generator.integers(2**31)))
            chosen = generator.permutation(len(texts))[:count]
            members.append(_Member(TextNetwork(shape), [texts[i] for i in chosen], [wanted[i] for i in chosen], generator))

    def train(member: _Member) -> list[float]:
        return _train(member, vocabulary, hyperparameters)

    # A thread for each network: the operations are too small to be shared between threads.
    with _one_thread_each(), ThreadPoolExecutor(min(len(members), len(os.sched_getaffinity(0)))) as pool:
        losses = list(pool.map(train, members))
    return [member.network for member in members], losses


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Lets torch compute every operation on the thread that asks for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(member: _Member, vocabulary: Vocabulary, hyperparameters: Hyperparameters) -> list[float]:
    torch.set_num_threads(1)  # OpenMP remembers the number by thread
    network, generator = member.network.train(), member.generator
    optimiser = torch.optim.AdamW(network.parameters(), hyperparameters.learning_rate, weight_decay=hyperparameters.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, hyperparameters.learning_rate, total_steps=hyperparameters.steps)
    losses = []
    for chosen in itertools.islice(_endless_batches(len(member.texts), hyperparameters.batch_tasks, generator), hyperparameters.steps):
        kernels = batch([text for index in chosen for text in member.texts[index]], vocabulary)
        kernels.ids[torch.from_numpy(generator.random(kernels.ids.shape) < FORGOTTEN) & kernels.real] = UNKNOWN
        values = torch.from_numpy(np.concatenate([member.wanted[index] for index in chosen])).float()
        task = torch.from_numpy(np.repeat(np.arange(len(chosen)), [len(member.texts[index]) for index in chosen]))
        error = loss(network(kernels), values.nan_to_num(), (~values.isnan()).float(), task)
        optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
        optimiser.step()
        rate.step()
        losses.append(float(error.detach()))
    network.eval()
    return [float(part.mean()) for part in np.array_split(losses, min(PARTS, len(losses)))]


def _endless_batches(count: int, size: int, generator: np.random.Generator) -> Iterator[Sequence[int]]:
    """All of ``count`` numbers in a random order, about ``size`` at a time, again and again."""
    while True:
        for part in np.array_split(generator.permutation(count), -(-count // size)):
            yield part.tolist()


@torch.no_grad()
def predict_members(networks: Sequence[TextNetwork], texts: Texts, vocabulary: Vocabulary) -> Floats:
    """Predictions [members, kernels, characteristics] for ``texts``, in standard deviations."""
    parts = []
    with _one_thread_each():
        for begin in range(0, len(texts), _ASKED_AT_ONCE):
            kernels = batch(texts[begin : begin + _ASKED_AT_ONCE], vocabulary)
            parts.append(torch.stack([network(kernels) for network in networks]))
    return np.asarray(torch.cat(parts, 1).numpy(), dtype=np.float64)
