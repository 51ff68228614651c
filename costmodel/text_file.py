"""The file of a text model: one JSON document, the networks' numbers in base 64 with a hash over them."""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ..errors import CostModelError
from .model import read_json
from .text_network import Shape, TextNetwork
from .tokens import CHANNELS, MAX_TOKENS

KIND = "text"
VERSION = 1
_FORMAT = "<f4"


def write_document(path: pathlib.Path, contents: dict[str, Any], networks: Sequence[TextNetwork]) -> None:
    """Writes ``contents``, which are JSON, and the numbers of ``networks``, which are of one shape."""
    members = [[_numbers(tensor) for tensor in network.state_dict().values()] for network in networks]
    head = {"format": "mlc-cost-model", "kind": KIND, "version": VERSION, "channels": list(CHANNELS), "tokens": MAX_TOKENS}
    weights = {"shape": asdict(networks[0].shape), "sha256": _digest(members), "networks": members}
    path.write_text(json.dumps({**head, **contents, **weights}))


def read_document(path: pathlib.Path, characteristics: Sequence[str]) -> tuple[dict[str, Any], list[TextNetwork]]:
    """What :func:`write_document` wrote; CostModelError when it is missing, damaged or of another version."""
    contents = read_json(path, KIND)
    made_for = (contents.get("version"), contents.get("channels"), contents.get("tokens"), contents.get("characteristics"))
    if made_for != (VERSION, list(CHANNELS), MAX_TOKENS, list(characteristics)):
        raise CostModelError(f"the cost model {path} was trained for other features than this version computes; train it anew")
    try:
        members = contents.pop("networks")
        if not members or _digest(members) != contents["sha256"]:
            raise ValueError("the hash of the networks is another")
        return contents, [_network(Shape(**contents["shape"]), member) for member in members]
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CostModelError(f"the cost model {path} is damaged: {error}; train it anew or delete the file") from error


def _numbers(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.numpy().astype(_FORMAT).tobytes()).decode()


def _digest(members: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256("\n".join(text for member in members for text in member).encode()).hexdigest()


def _network(shape: Shape, member: Sequence[str]) -> TextNetwork:
    network = TextNetwork(shape)
    state = {
        name: torch.from_numpy(np.frombuffer(base64.b64decode(text), _FORMAT).astype(np.float32)).reshape(tensor.shape)
        for (name, tensor), text in zip(network.state_dict().items(), member, strict=True)
    }
    network.load_state_dict(state)
    return network.eval()
