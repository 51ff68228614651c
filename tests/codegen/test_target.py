"""Targets: reading, printing, refusing."""

from __future__ import annotations

import pytest

from mlc.codegen.platforms.cortex_m import BY_NAME
from mlc.codegen.platforms.cpu import host_features
from mlc.codegen.platforms.families import FAMILIES
from mlc.codegen.platforms.x86 import PROCESSORS, closest
from mlc.codegen.target import Kind, Target
from mlc.errors import TargetError


@pytest.mark.parametrize("mcpu", [processor.mcpu for processor in PROCESSORS])
def test_text_form_round_trips(mcpu: str) -> None:
    target = Target.parse(f"cpu -mcpu={mcpu} -threads=3")
    assert Target.parse(str(target)) == target
    assert (target.mcpu, target.threads) == (mcpu, 3)


def test_cache_sizes_round_trip() -> None:
    target = Target.parse("cpu -mcpu=znver4 -threads=2 -l1=16 -l3=1024")
    assert (target.l1_bytes, target.l3_bytes) == (16 << 10, 1 << 20)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize("options", ["", " -flash=512K -ram=96K", " -ram=100000 -clock=216"])
@pytest.mark.parametrize("name", BY_NAME)
def test_microcontrollers_round_trip(name: str, options: str) -> None:
    target = Target.parse(name + options)
    assert Target.parse(str(target)) == target
    assert (target.kind, target.threads, target.vector_lanes) == (Kind.CORTEX_M, 1, 1)


def test_memories_of_a_microcontroller_are_options() -> None:
    target = Target.parse("cortex-m4 -flash=512K -ram=100000 -clock=168")
    assert target.device is not None
    assert (target.device.flash_bytes, target.device.ram_bytes, target.frequency) == (512 << 10, 100_000, 168e6)


def test_every_listed_target_is_parsed_by_its_own_family() -> None:
    for family in FAMILIES.values():
        for target in family.listed():
            assert Target.parse(str(target)) == target


def test_host_is_a_processor_whose_features_the_machine_has() -> None:
    target = Target.parse("cpu")
    assert set(target.features) <= host_features()[1]
    assert Target.parse(str(target)) == target


def test_closest_processor_needs_its_features() -> None:
    everything = frozenset(PROCESSORS[0].features)
    assert closest("AuthenticAMD", everything).mcpu == "znver5"
    assert closest("AuthenticAMD", everything - {"avx512_vp2intersect"}).mcpu == "znver4"
    assert closest("GenuineIntel", everything - {"avx512f"}).mcpu == "alderlake"
    assert closest("GenuineIntel", everything - {"avx512f", "avx_vnni"}).mcpu == "skylake"
    assert closest("", frozenset()).mcpu == "x86-64"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("cuda -arch=sm_91", "no architecture is called"),
        ("cortex-a53", "not yet supported"),
        ("cortex-m99", "cortex-m4"),
        ("cortex-m4 -ram=lots", "256K"),
        ("cortex-m4 -threads=2", "flash"),
        ("wasm", "not yet supported"),
        ("toaster", "names no target"),
        ("", "empty"),
        ("cpu -mcpu=z80", "znver5"),
        ("cpu -threads=0", "at least 1"),
        ("cpu -cores=2", "threads"),
        ("cpu fast", "-option=value"),
    ],
)
def test_refusals_say_what_is_allowed(text: str, part: str) -> None:
    with pytest.raises(TargetError, match=part):
        Target.parse(text)
