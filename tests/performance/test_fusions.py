"""Bytes that fusions read and write, by hand."""

import pytest

from fqgan_jax.performance.fusions import Fusions
from fqgan_jax.performance.hlo import parse

TEXT = """HloModule fusions

%fused_third (p0: f32[24,8,96], p1: s32[]) -> bf16[8,32] {
  %p0 = f32[24,8,96]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %layer = f32[1,8,96]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,8,96}
  %flat = f32[8,96]{1,0} bitcast(%layer)
  %narrow = bf16[8,96]{1,0} convert(%flat)
  ROOT %third = bf16[8,32]{1,0} slice(%narrow), slice={[0:8], [32:64]}
}

%fused_square (p0: f32[24,8,96]) -> f32[24,8,96] {
  %p0 = f32[24,8,96]{2,1,0} parameter(0)
  ROOT %square = f32[24,8,96]{2,1,0} multiply(%p0, %p0)
}

%fused_sum (p0: f32[24,8,96]) -> f32[8] {
  %p0 = f32[24,8,96]{2,1,0} parameter(0)
  %zero = f32[] constant(0)
  %square = f32[24,8,96]{2,1,0} fusion(%p0), kind=kLoop, calls=%fused_square
  %sums = f32[24,8]{1,0} reduce(%square, %zero), dimensions={2}, to_apply=%add
  %row = f32[1,8]{1,0} slice(%sums), slice={[0:1], [0:8]}
  ROOT %flat = f32[8]{0} bitcast(%row)
}

%fused_unused (p0: f32[24,8,96], p1: f32[8]) -> (f32[8], f32[24,8,96]) {
  %p0 = f32[24,8,96]{2,1,0} parameter(0)
  %p1 = f32[8]{0} parameter(1)
  %negated = f32[8]{0} negate(%p1)
  %row = f32[1,8,1]{2,1,0} bitcast(%p1)
  %zero = s32[] constant(0)
  %put = f32[24,8,96]{2,1,0} dynamic-update-slice(%p0, %row, %zero, %zero, %zero)
  ROOT %both = (f32[8]{0}, f32[24,8,96]{2,1,0}) tuple(%negated, %put)
}

ENTRY %main (x: f32[24,8,96], i: s32[], y: f32[8]) -> f32[8] {
  %x = f32[24,8,96]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %y = f32[8]{0} parameter(2)
  %third = bf16[8,32]{1,0} fusion(%x, %i), kind=kLoop, calls=%fused_third
  %whole = f32[8]{0} fusion(%x), kind=kInput, calls=%fused_sum
  ROOT %updated = (f32[8]{0}, f32[24,8,96]{2,1,0}) fusion(%x, %y), kind=kLoop, calls=%fused_unused
}
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("third", 8 * 32 * 4 + 4 + 8 * 32 * 2),  # a third of one layer, though the whole layer is converted
        ("whole", 24 * 8 * 96 * 4 + 8 * 4),  # sums need all that they add
        ("updated", 8 * 4 + 8 * 4 + 8 * 4),  # the array is updated in place
    ],
)
def test_fusions_read_what_their_results_need(name, expected):
    computations, entry = parse(TEXT)
    instructions = computations[entry]
    fusion = instructions[name]
    operands = [instructions[operand] for operand in fusion.operands]
    assert Fusions(computations).bytes(fusion, operands) == pytest.approx(expected)
