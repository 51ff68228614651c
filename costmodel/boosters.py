"""The boosters of a ranking, and their part of a model's file: xgboost's binary form (UBJSON), compressed, in base 64, with a hash.

Many compilations ask no ranking, so that a file's boosters are checked by the hash when it is read, and unpacked when something is to be
predicted.
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
from .xgboost_library import TreeEnsemble


@dataclass(frozen=True)
class GrownBoosters:
    """Boosters that predict."""

    rankers: tuple[TreeEnsemble, ...]
    speeds: tuple[TreeEnsemble, ...]
    slowdown: TreeEnsemble


@dataclass(frozen=True)
class Boosters:
    """A pairwise ranking and a regression of speed for each member of an ensemble, and a regression of time over roofline.

    Each is text of a file (see :func:`packed`).
    """

    rankers: tuple[str, ...]
    speeds: tuple[str, ...]
    slowdown: str

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
    def from_document(document: Mapping[str, Any]) -> Boosters:
        """What :meth:`document` wrote; ValueError, TypeError or KeyError for what it did not."""
        stored = Boosters(tuple(document["rankers"]), tuple(document["speeds"]), document["slowdown"])
        if not stored.rankers:
            raise ValueError("it holds no ranking")
        if len(stored.rankers) != len(stored.speeds):
            raise ValueError(f"it holds {len(stored.rankers)} rankings and {len(stored.speeds)} regressions")
        if stored._digest(document["features"]) != document["sha256"]:
            raise ValueError("the hash of its boosters and features is another")
        return stored

    @functools.cached_property
    def grown(self) -> GrownBoosters:
        """CostModelError when this version of xgboost does not read them."""
        try:
            return GrownBoosters(
                tuple(TreeEnsemble(unpacked(text)) for text in self.rankers),
                tuple(TreeEnsemble(unpacked(text)) for text in self.speeds),
                TreeEnsemble(unpacked(self.slowdown)),
            )
        except (OSError, ValueError, zlib.error) as error:
            raise CostModelError(f"xgboost does not read a cost model's boosters: {error}; train it anew") from error

    def _digest(self, features: Sequence[str]) -> str:
        return hashlib.sha256("\n".join((*features, *self.rankers, *self.speeds, self.slowdown)).encode()).hexdigest()


def packed(booster: bytes) -> str:
    """A booster in xgboost's binary form as text of a file."""
    return base64.b64encode(zlib.compress(booster, zlib.Z_BEST_COMPRESSION)).decode()


def unpacked(text: str) -> bytes:
    """The booster that :func:`packed` made ``text`` of."""
    return zlib.decompress(base64.b64decode(text))
