"""Facts of machine code: of assembly whose facts can be counted by hand, and of a kernel that mlc generates."""

from __future__ import annotations

import pathlib
import re

import pytest

from mlc.codegen.build import c_compiler, compile_object, run_tool
from mlc.codegen.target import Target
from mlc.codegen.templates import template_for
from mlc.costmodel.assembly_facts import is_vector, kernel_facts, text_bytes
from mlc.costmodel.kernel_text import loops_and_assembly
from mlc.costmodel.sampling import sample_tasks
from mlc.errors import CostModelError

BY_HAND = """\
	.text
	.globl	kernel
	.type	kernel,@function
kernel:
	pushq	%rbx
	subq	$64, %rsp
	vmovups	%ymm1, 32(%rsp)         # 32-byte Spill, but in no loop
	xorl	%eax, %eax
.LBB0_1:
	xorl	%ecx, %ecx
	vmovups	32(%rsp), %ymm2         # 32-byte Reload, in the outer loop only
.LBB0_2:
	vmovups	(%rdi,%rcx,4), %ymm0
	vmovups	%ymm3, (%rsp)           # 32-byte Spill
	vfmadd231ps	(%rsp), %ymm0, %ymm1    # 32-byte Folded Reload
	vmovss	(%rsi), %xmm4
	vfmadd213ss	%xmm4, %xmm4, %xmm4
	movq	8(%rsp), %rdx           # 8-byte Reload
	incl	16(%rsp)                # 4-byte Folded Spill
	leaq	24(%rsp), %r8
	movl	(%rsp,%rcx,4), %r9d
	incq	%rcx
	cmpq	$16, %rcx
	jne	.LBB0_2
	incq	%rax
	cmpq	%rsi, %rax
	jne	.LBB0_1
	addq	$64, %rsp
	popq	%rbx
	vzeroupper
	retq
.Lfunc_end0:
	.size	kernel, .Lfunc_end0-kernel
	.type	__truncsfhf2,@function
__truncsfhf2:
	vpaddd	%xmm0, %xmm0, %xmm0
	retq
.Lfunc_end1:
	.size	__truncsfhf2, .Lfunc_end1-__truncsfhf2
	.section	".note.GNU-stack","",@progbits
"""


def assembled(text: str, folder: pathlib.Path) -> bytes:
    source, result = folder / "kernel.s", folder / "kernel.o"
    source.write_text(text)
    run_tool([c_compiler(), "-c", str(source), "-o", str(result)])
    return result.read_bytes()


def test_counts_of_assembly_written_by_hand(tmp_path: pathlib.Path) -> None:
    facts = kernel_facts(BY_HAND, assembled(BY_HAND, tmp_path))
    assert facts.instructions == 25
    # Two moves before the inner loop; in it a load, a store and a multiplication. Scalar instructions do not count.
    assert facts.vector_instructions == 5
    # In the inner loop: the store and the increment; the multiplication's operand, the reload and the increment.
    assert (facts.spill_stores, facts.spill_loads, facts.spills) == (2, 3, 5)


def test_size_of_code_whose_size_is_known(tmp_path: pathlib.Path) -> None:
    text = '.text\nkernel:\n  nop\n  nop\n  ret\n.section .rodata,"a"\n.zero 100\n.section ".note.GNU-stack","",@progbits\n'
    assert text_bytes(assembled(text, tmp_path)) == 3


@pytest.mark.parametrize(
    ("instruction", "vector"),
    [
        ("vaddps %ymm0, %ymm1, %ymm2", True),
        ("vfmadd231ps (%rax), %zmm0, %zmm1", True),
        ("vxorps %xmm0, %xmm0, %xmm0", True),
        ("vbroadcastss (%rax), %xmm1", True),
        ("vmovdqu (%rax), %xmm1", True),
        ("vmovss (%rax), %xmm1", False),
        ("vcvtsi2ss %eax, %xmm0, %xmm0", False),
        ("vcvttss2si %xmm0, %eax", False),
        ("vmovd %xmm0, %eax", False),
        ("addq $8, %rax", False),
    ],
)
def test_what_a_vector_instruction_is(instruction: str, vector: bool) -> None:
    assert is_vector(instruction) is vector


def test_a_real_kernel() -> None:
    target = Target.parse("cpu -mcpu=x86-64-v3 -threads=2")
    task = next(task for task in sample_tasks(20, 0, target, 2) if task.graph.nodes[0].op == "linear")
    template = template_for(task.graph, target.kind)
    assert template is not None
    config = template.space(task).default
    loops, assembly = loops_and_assembly(task, config)
    facts = kernel_facts(assembly, compile_object(template.lower(task, config).function, "kernel", target))
    multiplies = len(re.findall(r"^\s+vfmadd\w+ps\s.*%ymm", assembly, re.MULTILINE))
    assert "for " in loops and multiplies > 10
    assert multiplies < facts.vector_instructions < facts.instructions
    assert facts.spills == 0  # the register tile fits the registers by construction
    assert 2 * facts.instructions < facts.code_bytes < 12 * facts.instructions


def test_what_is_no_kernel_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(CostModelError, match="defines no function"):
        kernel_facts("int main() {}", assembled(BY_HAND, tmp_path))
    for content, reason in ((b"no object", "no 64-bit ELF"), (assembled(BY_HAND, tmp_path)[:100], "cannot be read")):
        with pytest.raises(CostModelError, match=reason):
            kernel_facts(BY_HAND, content)
