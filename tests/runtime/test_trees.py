"""Pytrees from their JSON descriptions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc.errors import ArtifactError, SignatureError
from mlc.runtime import trees

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.sampled_from([0.5, -0.0])


def described(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(children, max_size=3)
    sequences = st.builds(lambda kind, items: {"kind": kind, "items": items}, st.sampled_from(["tuple", "list"]), items)
    dicts = st.dictionaries(st.text(max_size=3), children, max_size=3).map(
        lambda entries: {"kind": "dict", "keys": list(entries), "items": list(entries.values())}
    )
    return sequences | dicts


TREES = st.recursive(st.just({"kind": "leaf"}) | SCALARS.map(lambda value: {"kind": "value", "value": value}), described, max_leaves=12)


def numbered(tree: Any, counter: list[int]) -> Any:
    if tree["kind"] == "leaf":
        counter[0] += 1
        return {"kind": "leaf", "index": counter[0] - 1}
    return {**tree, "items": [numbered(item, counter) for item in tree["items"]]} if "items" in tree else tree


@given(TREES)
def test_flatten_undoes_unflatten(tree: Any) -> None:
    counter = [0]
    tree = json.loads(json.dumps(numbered(tree, counter)))
    trees.check(tree, counter[0])
    leaves = [object() for _ in range(counter[0])]
    assert trees.flatten(tree, trees.unflatten(tree, leaves), counter[0], "x") == leaves


OBJECT = {
    "kind": "object",
    "type": "nowhere.Output",
    "keys": ["logits", "loss"],
    "items": [{"kind": "leaf", "index": 0}, {"kind": "value", "value": 1}],
}


def test_unknown_output_classes_become_namespaces() -> None:
    made = trees.unflatten(OBJECT, ["x"])
    assert made.logits == made["logits"] == made[0] == "x"
    assert list(made) == ["logits", "loss"] and len(made) == 2 and made[:2] == ("x", 1)
    assert repr(made) == "nowhere.Output(logits='x', loss=1)"
    assert trees.flatten(OBJECT, made, 1, "x") == ["x"]
    with pytest.raises(SignatureError, match=r"must be a nowhere\.Output with 'loss'"):
        trees.flatten(OBJECT, {"logits": 1}, 1, "x")


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {},
        {"kind": "leaf", "index": 2},
        {"kind": "leaf", "index": -1},
        {"kind": "leaf", "index": True},
        {"kind": "value"},
        {"kind": "set", "items": []},
        {"kind": "dict", "keys": ["a"], "items": []},
        {"kind": "object", "keys": [], "items": []},
        {"kind": "tuple", "items": [{"kind": "list", "items": None}]},
    ],
)
def test_malformed_descriptions_are_refused(tree: Any) -> None:
    with pytest.raises(ArtifactError, match="structure"):
        trees.check(tree, 2)


def test_endless_nesting_is_refused() -> None:
    tree: dict[str, Any] = {"kind": "leaf", "index": 0}
    for _ in range(1000):
        tree = {"kind": "list", "items": [tree]}
    with pytest.raises(ArtifactError):
        trees.check(tree, 1)


def test_plans_cover_flat_calls_only() -> None:
    leaf, value = {"kind": "leaf", "index": 0}, {"kind": "value", "value": None}
    args = {"kind": "tuple", "items": [value, leaf]}
    kwargs = {"kind": "dict", "keys": ["k"], "items": [leaf]}
    assert trees.flat_plan({"kind": "tuple", "items": [args, kwargs]}) == (((None,), 0), ("k",), (0,))
    nested = {"kind": "tuple", "items": [{"kind": "list", "items": [leaf]}]}
    assert trees.flat_plan({"kind": "tuple", "items": [nested, kwargs]}) is None
