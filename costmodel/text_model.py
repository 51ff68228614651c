"""A cost model that reads kernels: from the text of a task and of its scheduled loops to time, vector instructions, spills, code size.

It knows nothing of templates and knobs, so that it serves those that it never saw. The price is that every candidate has to be
lowered and printed, a fifth to two fifths of what building it takes. An ensemble of small networks, each trained on its own sample of
the tasks, gives the uncertainty. The idea of reading the text of the IR for several characteristics at once is that of Das
and Mannarswamy, "ML-driven hardware cost model for MLIR", 2023.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen.record import Record
from ..codegen.space import Config
from ..codegen.task import Task
from ..errors import CostModelError
from .assembly_facts import KernelFacts
from .kernel_text import loop_text
from .model import CostModel, Floats, Prediction, latest_by_task
from .roofline import roofline
from .tokens import RESERVED, Tokens, Vocabulary, kernel_tokens

if TYPE_CHECKING:
    from .text_network import TextNetwork

CHARACTERISTICS = ("seconds", "vector_instructions", "spills", "code_bytes")
"""What is predicted. Seconds as the log over the roofline, the others as log(1 + count)."""


LEAST_DEVIATION = 1e-3
"""Of a characteristic that is the same for all kernels."""


@dataclass(frozen=True)
class Hyperparameters:
    """Of each network. ``task_share`` is the part of the tasks that one member of the ensemble sees, ``batch_tasks`` those in a step.

    ``steps`` are what training takes, whatever the data: some minutes on two cores.
    """

    members: int = 3
    steps: int = 600
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    batch_tasks: int = 3
    task_share: float = 0.8
    embedding: int = 32
    width: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    """A kernel to learn from: its task, its loops as text, median seconds of a call, and the facts of its code where they are known."""

    task: Task
    loops: str
    seconds: float
    facts: KernelFacts | None = None


@dataclass(frozen=True)
class Characteristics:
    """Predictions [configs] for kernels of one task, and by how much the members of the ensemble differ in log(1 + value)."""

    values: Mapping[str, Floats]
    deviations: Mapping[str, Floats]


@dataclass
class _Learned:
    """What training leaves. ``scale`` is that of :func:`_scale`."""

    vocabulary: Vocabulary
    scale: Floats
    networks: list[TextNetwork]
    attention: dict[str, float] = field(default_factory=dict)


class TextModel(CostModel):
    """Ranks and describes kernels by their text. ``text_of`` gives a config's loops; by default its template lowers it."""

    def __init__(self, hyperparameters: Hyperparameters | None = None, text_of: Callable[[Task, Config], str] = loop_text) -> None:
        self.hyperparameters = hyperparameters or Hyperparameters()
        self.text_of = text_of
        self.notes: dict[str, Any] = {}
        """Where the model comes from: data, evaluation. Saved with it."""
        self.losses: list[list[float]] = []
        """Mean loss in each part of the training, for each member, after :meth:`learn`."""
        self._learned: _Learned | None = None
        # A search asks for the same candidates again.
        self._tokens = lru_cache(maxsize=4096)(self._read)

    def _read(self, task: Task, config: Config) -> Tokens:
        return kernel_tokens(task, self.text_of(task, config))

    def reading(self, text_of: Callable[[Task, Config], str]) -> TextModel:
        """This model, with the loops of candidates from elsewhere."""
        model = TextModel(self.hyperparameters, text_of)
        model.notes, model.losses, model._learned = self.notes, self.losses, self._learned
        return model

    def fit(self, records: Sequence[Record], tasks: Mapping[str, Task]) -> None:
        """Lowers the config of each record and learns from texts and times alone; :meth:`learn` is for kernels with facts."""
        self.learn(
            [
                Sample(tasks[key], self.text_of(tasks[key], config), record.median)
                for key, found in latest_by_task(records, tasks).items()
                for config, record in found.items()
            ]
        )

    def learn(self, samples: Sequence[Sample]) -> None:
        """Trains from scratch; CostModelError when fewer than two tasks have two kernels."""
        from .text_training import train_members

        by_task: dict[str, list[Sample]] = {}
        for sample in samples:
            by_task.setdefault(sample.task.key, []).append(sample)
        groups = [group for group in by_task.values() if len(group) > 1]
        if len(groups) < 2:
            raise CostModelError(f"{len(groups)} tasks with several measured configs are too few to learn from; collect more")
        texts = [[kernel_tokens(sample.task, sample.loops) for sample in group] for group in groups]
        wanted = [np.asarray([_wanted(sample) for sample in group]) for group in groups]
        scale = _scale(np.concatenate(wanted))
        vocabulary = Vocabulary.of(text for group in texts for text in group)
        scaled = [(values - scale[0]) / np.maximum(scale[1], LEAST_DEVIATION) for values in wanted]
        networks, self.losses = train_members(texts, scaled, vocabulary, self.hyperparameters)
        few = [text for group in texts for text in group[:1]][:64]
        shares = np.mean([network.attention_by_word(few, vocabulary) for network in networks], axis=0)
        attention = dict(zip(("<unknown>", *vocabulary.words), shares.tolist(), strict=True))
        self._learned = _Learned(vocabulary, scale, networks, attention)

    def predict(self, task: Task, configs: Sequence[Config]) -> Prediction:
        """See :meth:`CostModel.predict`; CostModelError before :meth:`fit` or :meth:`load`."""
        slowdowns = self._predicted(task, configs)[:, :, 0]
        return Prediction(roofline(task).seconds * np.exp(slowdowns.mean(axis=0)), -slowdowns)

    def characteristics(self, task: Task, configs: Sequence[Config]) -> Characteristics:
        """Everything that the model says about ``configs`` (at least one) of ``task``: what its kernels' facts taught it."""
        predicted, scale = self._predicted(task, configs), self._known.scale
        mean, deviation = predicted.mean(axis=0), predicted.std(axis=0)
        learned = [(column, name) for column, name in enumerate(CHARACTERISTICS) if scale[1, column]]
        values = {name: np.expm1(mean[:, column]).clip(0) for column, name in learned}
        values["seconds"] = roofline(task).seconds * np.exp(mean[:, 0])
        return Characteristics(values, {name: deviation[:, column] for column, name in learned})

    def _predicted(self, task: Task, configs: Sequence[Config]) -> Floats:
        """Logarithms [members, configs, characteristics]."""
        from .text_training import predict_members

        learned = self._known
        texts = [self._tokens(task, config) for config in configs]
        return np.asarray(learned.scale[0] + learned.scale[1] * predict_members(learned.networks, texts, learned.vocabulary))

    @property
    def _known(self) -> _Learned:
        if self._learned is None:
            raise CostModelError("this cost model has learned nothing yet; fit it or load one")
        return self._learned

    def save(self, path: pathlib.Path) -> None:
        """Writes vocabulary, networks and notes as one JSON document."""
        from .text_file import write_document

        learned = self._known
        write_document(
            path,
            {
                "characteristics": list(CHARACTERISTICS),
                "hyperparameters": asdict(self.hyperparameters),
                "notes": self.notes,
                "words": list(learned.vocabulary.words),
                "scale": learned.scale.tolist(),
                "attention": learned.attention,
            },
            learned.networks,
        )

    @staticmethod
    def load(path: pathlib.Path) -> TextModel:
        """See :meth:`CostModel.load`."""
        from .text_file import read_document

        contents, networks = read_document(path, list(CHARACTERISTICS))
        try:
            model = TextModel(Hyperparameters(**contents["hyperparameters"]))
            model.notes = dict(contents["notes"])
            scale = np.asarray(contents["scale"], dtype=np.float64).reshape(2, len(CHARACTERISTICS))
            attention = {str(word): float(share) for word, share in contents["attention"].items()}
            if networks[0].shape.words != len(contents["words"]) + RESERVED:
                raise ValueError("the networks know another number of words")
            model._learned = _Learned(Vocabulary(tuple(contents["words"])), scale, networks, attention)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CostModelError(f"the cost model {path} is damaged: {error}; train it anew or delete the file") from error
        return model

    def explain(self) -> Mapping[str, float]:
        """Share of the attention by word, over kernels it learned from: what it looks at, which says less than what it makes of it."""
        shares = self._learned.attention if self._learned is not None else {}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _wanted(sample: Sample) -> list[float]:
    """The characteristics as logarithms, NaN where not known."""
    slowdown = math.log(sample.seconds / roofline(sample.task).seconds)
    if sample.facts is None:
        return [slowdown, math.nan, math.nan, math.nan]
    facts = sample.facts
    return [slowdown, *(math.log1p(count) for count in (facts.vector_instructions, facts.spills, facts.code_bytes))]


def _scale(wanted: Floats) -> Floats:
    """Mean and standard deviation [2, characteristics] of what is known; a deviation of 0 says that nothing is."""
    scale = np.zeros((2, wanted.shape[1]))
    for column, values in enumerate(wanted.T):
        known = values[~np.isnan(values)]
        if len(known):
            scale[:, column] = known.mean(), max(float(known.std()), LEAST_DEVIATION)
    return scale
