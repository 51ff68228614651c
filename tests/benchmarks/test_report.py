"""What a report concludes: the best peer, ratios by rounds, the bound, and the forms a report takes."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch import nn

from mlc.benchmarks.machine import Machine, Peaks
from mlc.benchmarks.models import CPU, ZOO, expand
from mlc.benchmarks.page import page
from mlc.benchmarks.report import Comparison, Plan, Report, Timing
from mlc.benchmarks.systems import SYSTEMS, against
from mlc.benchmarks.work import Work, work

HERE = Machine("a <fast> processor", cores=2, threads=2, flops=1e12, bandwidth=1e11, copy=8e10, cache=1 << 20)
WORK = Work(flops=2_000_000_000, weights=10_000_000, ends=1_000_000)
PEERS = ("mlc", "eager", "inductor", "onnxruntime", "openvino")


def timing(system: str, *medians: float, error: float = 1e-7) -> Timing:
    return Timing.of(system, [[median, median, median] for median in medians], prepare_s=1.0, error=error)


def comparison(*timings: Timing, needs: Work = WORK, peaks: tuple[Peaks, ...] = (HERE.peaks,) * 3) -> Comparison:
    return Comparison("a & b", needs, 1e-5, {each.system: each for each in timings}, peaks)


FULL = comparison(
    timing("mlc", 4e-3, 8e-3, 5e-3),
    timing("eager", 9e-3, 9e-3, 9e-3),
    timing("inductor", 6e-3, 6e-3, 6e-3),
    Timing("onnxruntime", failed="Refused: an operator <called> 'x' & more"),
    timing("openvino", 1e-3, 1e-3, 1e-3, error=0.5),
)
REPORT = Report(HERE, Plan(("a & b",), systems=PEERS, rounds=3), {"torch": "1"}, (FULL,))


def test_the_best_peer_ran_and_is_right() -> None:
    assert FULL.best_peer == "inductor"
    assert not FULL.sound("openvino") and not FULL.sound("onnxruntime")


def test_a_peer_may_round_more_than_mlc() -> None:
    found = comparison(timing("mlc", 1e-3, error=1e-4), timing("eager", 1e-3), timing("openvino", 5e-4, error=1e-4))
    assert found.best_peer == "openvino"
    assert not found.sound("mlc")
    assert math.isnan(found.against_best)


def test_ratios_are_paired_by_rounds() -> None:
    assert FULL.against_best == pytest.approx(6 / 5)
    drift = comparison(timing("mlc", 1e-3, 2e-3, 8e-3), timing("eager", 2e-3, 6e-3, 8e-3))
    assert drift.against_best == pytest.approx(2)  # rounds: 2, 3, 1; the medians' quotient is 3


def test_least_times_are_of_whichever_peer_has_them() -> None:
    slow_but_once = Timing.of("onnxruntime", [[2e-3, 9e-3, 9e-3]])
    found = comparison(timing("mlc", 4e-3, 1e-3), timing("eager", 3e-3), slow_but_once)
    assert found.best_peer == "eager"
    assert found.against_best_least == pytest.approx(2)


def test_without_peers_there_is_no_ratio() -> None:
    alone = comparison(timing("mlc", 1e-3), Timing("eager", failed="no"))
    assert alone.best_peer is None
    assert math.isnan(alone.against_best)
    report = Report(HERE, Plan(("a",)), {}, (alone,))
    assert math.isnan(report.against_best)
    assert report.to_dict()["against_best_peer"] is None


def test_the_geometric_mean_is_over_models_with_a_peer() -> None:
    twice, half = (
        comparison(timing("mlc", 1e-3), timing("eager", 4e-3)),
        comparison(timing("mlc", 1e-3), timing("eager", 1e-3)),
    )
    assert Report(HERE, Plan(()), {}, (twice, half)).against_best == pytest.approx(2)


@pytest.mark.parametrize(
    ("needs", "seconds"),
    [
        (Work(2_000_000_000, 10_000_000, 0), 2e-3),  # arithmetic
        (Work(2_000_000, 1_000_000_000, 0), 1e-2),  # memory
        (Work(2_000_000, 500_000, 500_000), 2e-6),  # all of it stays in the cache
    ],
)
def test_the_bound_is_that_of_the_resource_that_takes_longest(needs: Work, seconds: float) -> None:
    found = comparison(timing("mlc", 2 * seconds), needs=needs)
    report = Report(HERE, Plan(()), {}, (found,))
    assert report.bound(found) == pytest.approx(seconds)
    assert report.fraction(found, "mlc") == pytest.approx(0.5)


def test_the_fraction_is_of_what_the_machine_could_do_in_the_same_round() -> None:
    slower = Peaks(HERE.flops / 2, HERE.bandwidth / 2, HERE.copy / 2)
    found = comparison(timing("mlc", 2.5e-3, 5e-3, 8e-3), peaks=(HERE.peaks, slower, slower))
    report = Report(HERE, Plan(()), {}, (found,))
    assert report.bound(found) == pytest.approx(2e-3)
    assert report.fraction(found, "mlc") == pytest.approx(0.8)  # rounds: 0.8, 0.8, 0.5


def test_a_report_survives_json() -> None:
    plain = json.loads(json.dumps(REPORT.to_dict(), allow_nan=False))
    assert plain["against_best_peer"] == pytest.approx(1.2)
    (model,) = plain["models"]
    assert model["best_peer"] == "inductor" and model["bound_s"] == pytest.approx(2e-3)
    assert model["systems"]["onnxruntime"] == {"failed": "Refused: an operator <called> 'x' & more"}
    again = Report.from_dict(plain)
    assert again == REPORT
    assert again.to_dict() == REPORT.to_dict()


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    text = page(REPORT)
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    space = {"h": "http://www.w3.org/1999/xhtml", "s": "http://www.w3.org/2000/svg"}
    assert len(root.findall(".//s:circle", space)) == 4  # the roofline has every system that ran
    assert len(root.findall(".//s:rect", space)) == 4
    assert len(root.findall(".//h:tbody/h:tr", space)) == 1
    shown = "".join(root.itertext())
    assert "1.20x" in shown and "a <fast> processor" in shown and "Refused: an operator <called>" in shown
    linked = {value for element in root.iter() for name, value in element.attrib.items() if name in ("src", "href")}
    assert not linked and "@import" not in text and "url(" not in text


def test_an_empty_report_has_a_page() -> None:
    ElementTree.fromstring(page(Report(HERE, Plan(()), {}, ())).removeprefix("<!DOCTYPE html>\n"))


def test_inductor_stands_for_both_of_its_configurations() -> None:
    assert against(["eager", "inductor"]) == ("mlc", "eager", "inductor", "inductor-tuned")
    assert set(against(list(SYSTEMS))) == set(SYSTEMS)


def test_the_cpu_suite_names_models_of_the_zoo() -> None:
    assert expand(["cpu"]) == CPU
    assert set(CPU) <= set(ZOO) and len(set(CPU)) == len(CPU) >= 16


class _Embedded(nn.Module):
    """Tokens to logits with one matrix for both, read whole; a second table of which two rows are read; a weight that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.tied = nn.Embedding(50, 8)
        self.positions = nn.Embedding(100, 8)
        self.unused = nn.Linear(8, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tied(tokens) + self.positions(torch.arange(2))
        return x @ self.tied.weight.T


def test_weights_count_once_and_as_far_as_they_are_read() -> None:
    needs = work(_Embedded(), (torch.tensor([3, 4]),))
    assert needs.flops == 2 * 2 * 8 * 50
    assert needs.weights == 4 * (50 * 8 + 2 * 8)
    assert needs.ends == 2 * 8 + 4 * 2 * 50


def test_a_causal_mask_halves_attention() -> None:
    class Attention(nn.Module):
        def __init__(self, causal: bool) -> None:
            super().__init__()
            self.causal = causal

        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(q, q, q, is_causal=self.causal)

    q = torch.randn(1, 2, 16, 8)
    assert work(Attention(causal=False), (q,)).flops == 2 * 2 * 16 * 16 * 16
    assert work(Attention(causal=True), (q,)).flops == 2 * 2 * (16 * 17 // 2) * 16


def test_a_better_peak_counts() -> None:
    better = HERE.at_least(Peaks(flops=2e12, bandwidth=1e10, copy=1e10))
    assert (better.flops, better.bandwidth, better.copy) == (2e12, 1e11, 8e10)


def test_memory_is_bounded_by_its_mix_of_reads_and_writes() -> None:
    peaks = Peaks(flops=1e12, bandwidth=1e11, copy=8e10)
    assert peaks.memory_seconds(10**9, 0) == pytest.approx(0.01)
    assert peaks.memory_seconds(10**9, 10**9) == pytest.approx(2e9 / 8e10)
