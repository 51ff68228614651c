"""What becomes of control flow in the passes."""

from __future__ import annotations

from golden import check, transformed

LOOP = """
graph @main(%h: f32[4], %x: f32[5,4], %w: f32[4,4], %unread: f32[3]) {
  %s = full() {shape = [], value = 2.0, dtype = f32} : f32[]
  %a, %b, %c, %d = loop(%h, %s, %x, %w, %unread) {trips = 5, carried = 2, sliced = 1}
      : f32[4], f32[], f32[5,4], f32[5,4] {
    graph @body(%h: f32[4], %s: f32[], %x: f32[4], %w: f32[4,4], %unread: f32[3]) {
      %e = exp(%w) : f32[4,4]
      %l = linear(%x, %e) : f32[4]
      %m = mul(%l, %s) : f32[4]
      %n = add(%m, %h) : f32[4]
      %o = neg(%n) : f32[4]
      return %n, %s, %n, %o
    }
  }
  return %a, %b, %c
}"""


def test_loops_lose_what_rounds_do_not_change() -> None:
    check(
        LOOP,
        "control-flow",
        """
        graph @main(%h: f32[4], %x: f32[5,4], %w: f32[4,4], %unread: f32[3]) {
          %s = full() {shape = [], value = 2.0, dtype = f32} : f32[]
          %e = exp(%w) : f32[4,4]
          %0 = linear(%x, %e) : f32[5,4]
          %1, %2 = loop(%h, %0) {trips = 5, carried = 1, sliced = 1} : f32[4], f32[5,4] {
            graph @body(%h: f32[4], %l: f32[4]) {
              %0 = full() {shape = [], value = 2.0, dtype = f32} : f32[]
              %m = mul(%l, %0) : f32[4]
              %n = add(%m, %h) : f32[4]
              return %n, %n
            }
          }
          return %1, %s, %2
        }""",
    )


def test_a_known_predicate_and_single_rounds_are_written_out() -> None:
    text = """
    graph @main(%x: f32[2]) {
      %p = full() {shape = [], value = true, dtype = b1} : b1[]
      %y = cond(%p, %x) : f32[2] {
        graph @then(%x: f32[2]) {
          %n = neg(%x) : f32[2]
          return %n
        }
      } {
        graph @else(%x: f32[2]) {
          return %x
        }
      }
      %z, %s = loop(%y) {trips = 1, carried = 1} : f32[2], f32[1,2] {
        graph @body(%x: f32[2]) {
          %e = exp(%x) : f32[2]
          return %e, %x
        }
      }
      return %z, %s
    }"""
    check(
        text,
        "control-flow",
        """
        graph @main(%x: f32[2]) {
          %n = neg(%x) : f32[2]
          %e = exp(%n) : f32[2]
          %0 = reshape(%n) {shape = [1,2]} : f32[1,2]
          return %e, %0
        }""",
    )


def test_passes_enter_regions() -> None:
    result = transformed(LOOP, "control-flow,simplify,common-subexpressions,layout,fuse,dead-code")
    assert result.count("fusion(") == 4, "the exponential, the layer of all elements, the number, and one kernel a round"


def test_operands_of_while_loops_that_stay_the_same() -> None:
    check(
        """
        graph @main(%i: i64[], %k: i64[]) {
          %n = full() {shape = [], value = 9, dtype = i64} : i64[]
          %j, %l, %m = while(%i, %k, %n) : i64[], i64[], i64[] {
            graph @condition(%i: i64[], %k: i64[], %n: i64[]) {
              %p = lt(%i, %n) : b1[]
              return %p
            }
          } {
            graph @body(%i: i64[], %k: i64[], %n: i64[]) {
              %o = full() {shape = [], value = 1, dtype = i64} : i64[]
              %j = add(%i, %o) : i64[]
              return %j, %k, %n
            }
          }
          return %j, %l, %m
        }""",
        "control-flow",
        """
        graph @main(%i: i64[], %k: i64[]) {
          %n = full() {shape = [], value = 9, dtype = i64} : i64[]
          %0 = while(%i) : i64[] {
            graph @condition(%i: i64[]) {
              %0 = full() {shape = [], value = 9, dtype = i64} : i64[]
              %p = lt(%i, %0) : b1[]
              return %p
            }
          } {
            graph @body(%i: i64[]) {
              %o = full() {shape = [], value = 1, dtype = i64} : i64[]
              %j = add(%i, %o) : i64[]
              return %j
            }
          }
          return %0, %k, %n
        }""",
    )
