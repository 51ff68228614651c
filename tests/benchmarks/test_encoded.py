"""The benchmark of weights of few bits, on small ones."""

from __future__ import annotations

from mlc.benchmarks.encoded import MODES, choice, loss, matvec, weight
from mlc.codegen.target import Target

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=1")


def test_a_matvec_reads_the_packed_weight_and_is_right() -> None:
    figure = matvec("w4", 64, TARGET, cache=1 << 16)
    assert figure.nbytes == weight(MODES["w4"], 64, 64).encoded_bytes
    assert figure.seconds > 0
    assert figure.error < 1e-6


def test_all_algorithms_are_compared() -> None:
    figure = choice("w2", 2, weight(MODES["w2"], 64, 64), TARGET, cache=1 << 16)
    assert set(figure.seconds) == {"registers", "panels", "lookup", "fixed"}
    assert figure.chosen in figure.seconds
    assert figure.loss >= 0


def test_the_loss_compares_within_rounds() -> None:
    rounds = [{"fixed": 3.0, "lookup": 2.0}, {"fixed": 30.0, "lookup": 24.0}, {"fixed": 10.0, "lookup": 9.0}]
    assert loss(rounds, "fixed") == 0.25
    assert loss(rounds, "lookup") == 0
