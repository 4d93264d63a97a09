"""Bytes in and out of HLO instructions, as profiles need them."""

from scripts.instruction_bytes import instruction_bytes

HLO = """
HloModule jit_f, is_scheduled=true

ENTRY %main (x: bf16[4,8], w: bf16[16,8]) -> (bf16[4,16], f32[]) {
  %x.1 = bf16[4,8]{1,0} parameter(0)
  %w.1 = bf16[16,8]{1,0} parameter(1), sharding={replicated}
  %dot = bf16[4,16]{1,0} fusion(%x.1, %w.1), kind=kCustom, calls=%fused, metadata={op_name="jit(f)/dot(%x.1)"}
  %square = bf16[4,8]{1,0} multiply(%x.1, %x.1)
  %two = (bf16[4,16]{1,0}, f32[]) custom-call(%dot, %square), custom_call_target="__gpu$xla.gpu.triton"
  ROOT %get.2 = s32[] get-tuple-element(%two), index=1
}
"""


def test_each_operand_and_the_result_count_once():
    sizes = instruction_bytes(HLO)
    assert sizes["x.1"] == 64 and sizes["w.1"] == 256
    assert sizes["dot"] == 64 + 256 + 128
    assert sizes["square"] == 2 * 64
    assert sizes["two"] == (128 + 4) + 128 + 64
    assert sizes["get.2"] == 4 + 132
