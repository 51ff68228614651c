"""The benchmark of weights of few bits, on small ones."""

from __future__ import annotations

from mlc.benchmarks.encoded import MODES, choice, matvec, weight
from mlc.codegen.target import Target

TARGET = Target.parse("cpu -mcpu=x86-64-v3 -threads=1")


def test_a_matvec_reads_the_packed_weight_and_is_right() -> None:
    figure = matvec("w4", 64, TARGET, cache=1 << 16)
    assert figure.nbytes == weight(MODES["w4"], 64, 64).encoded_bytes
    assert figure.seconds > 0
    assert figure.error < 1e-6


def test_all_algorithms_are_compared_and_the_loss_is_that_of_the_chosen_one() -> None:
    figure = choice("w2", 2, weight(MODES["w2"], 64, 64), TARGET, cache=1 << 16)
    assert set(figure.seconds) == {"registers", "panels", "lookup", "fixed"}
    assert figure.loss == figure.seconds[figure.chosen] / min(figure.seconds.values()) - 1
