"""The boosters of a ranking, and their part of a model's file: xgboost's binary form (UBJSON), compressed, in base 64, with a hash.

Reading them takes xgboost a tenth of a second, and importing it more. Many compilations ask no ranking, so that a file's boosters are
checked by the hash when it is read, and read themselves when something is to be predicted.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CostModelError


@dataclass(frozen=True)
class Boosters:
    """A pairwise ranking and a regression of speed for each member of an ensemble, and a regression of time over roofline."""

    rankers: tuple[Any, ...]
    speeds: tuple[Any, ...]
    slowdown: Any


@dataclass(frozen=True)
class StoredBoosters:
    """Boosters as they stand in a file, each as text."""

    rankers: tuple[str, ...]
    speeds: tuple[str, ...]
    slowdown: str

    @staticmethod
    def of(boosters: Boosters) -> StoredBoosters:
        return StoredBoosters(tuple(map(_text, boosters.rankers)), tuple(map(_text, boosters.speeds)), _text(boosters.slowdown))

    def document(self, features: Sequence[str]) -> dict[str, Any]:
        """Their part of a file, with that of the ``features`` which they take."""
        return {
            "features": list(features),
            "sha256": self._digest(features),
            "rankers": list(self.rankers),
            "speeds": list(self.speeds),
            "slowdown": self.slowdown,
        }

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> StoredBoosters:
        """What :meth:`document` wrote; ValueError, TypeError or KeyError for what it did not."""
        stored = StoredBoosters(tuple(document["rankers"]), tuple(document["speeds"]), document["slowdown"])
        if not stored.rankers:
            raise ValueError("it holds no ranking")
        if len(stored.rankers) != len(stored.speeds):
            raise ValueError(f"it holds {len(stored.rankers)} rankings and {len(stored.speeds)} regressions")
        if stored._digest(document["features"]) != document["sha256"]:
            raise ValueError("the hash of its boosters and features is another")
        return stored

    @functools.cached_property
    def boosters(self) -> Boosters:
        """CostModelError when this version of xgboost does not read them."""
        try:
            return Boosters(tuple(map(_booster, self.rankers)), tuple(map(_booster, self.speeds)), _booster(self.slowdown))
        except Exception as error:
            raise CostModelError(f"xgboost does not read a cost model's boosters: {error}; train it anew") from error

    def _digest(self, features: Sequence[str]) -> str:
        return hashlib.sha256("\n".join((*features, *self.rankers, *self.speeds, self.slowdown)).encode()).hexdigest()


def _text(booster: Any) -> str:
    return base64.b64encode(zlib.compress(booster.save_raw("ubj"), zlib.Z_BEST_COMPRESSION)).decode()


def _booster(text: str) -> Any:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(zlib.decompress(base64.b64decode(text))))
    return booster
