"""The page of precision="auto": well-formed, and every layer on it."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from mlc.precision_page import precision_page
from mlc.runtime.precision_report import LayerPrecision, PrecisionReport

REPORT = PrecisionReport(
    tolerance=1e-2,
    error=4e-3,
    samples=4,
    held_out=2,
    layers=(
        LayerPrecision(("block.query", "block.key"), 512, "int8", 2e-3, 1e-5, 3e-5),
        LayerPrecision(("head<0>",), 256, "w4", 3e-3, 0.5e-5, 2e-5),
        LayerPrecision(("",), 128, "fp32", 0.0, 1e-5, 1e-5),
    ),
)


def test_every_layer_is_on_the_page() -> None:
    content = precision_page("model & co", REPORT)
    text = " ".join(ElementTree.fromstring(content.partition("\n")[2]).itertext())
    for word in ("model & co", "block.query, block.key", "head<0>", "int8", "w4", "fp32", "2.0e-03", "tolerance 0.01"):
        assert word in text


def test_a_model_left_in_fp32() -> None:
    layers = tuple(dataclasses.replace(layer, mode="fp32", error=0.0) for layer in REPORT.layers)
    content = precision_page("model", dataclasses.replace(REPORT, layers=layers, note="a tolerance of 0.01 cannot be met"))
    assert "cannot be met" in content and "1 int8" not in content
    assert ElementTree.fromstring(precision_page("empty", dataclasses.replace(REPORT, layers=())).partition("\n")[2]) is not None


def test_sums_and_text() -> None:
    assert REPORT.modes == {"int8": 1, "w4": 1, "fp32": 1}
    assert REPORT.to_dict()["seconds"] == REPORT.seconds == pytest.approx(2.5e-5)
    assert "1 int8, 1 w4, 1 fp32" in str(REPORT) and "block.query, block.key" in str(REPORT)
