"""Traffic read from compiled programs, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from fqgan_jax.performance.collectives import Collective
from fqgan_jax.performance.traffic import read_traffic
from fqgan_jax.sharding.mesh import make_mesh

HOST = [0] * 8  # all devices are of one host


def compiled_text(function, *arguments, **options) -> str:
    return jax.jit(function, **options).lower(*arguments).compile().as_text()


def collective(kind: str, *, group: int, count: int, num_bytes: int) -> Collective:
    return Collective(kind=kind, group=group, count=count, bytes=num_bytes)


def by_kind(text: str) -> dict[str, Collective]:
    return {each.kind: each for each in read_traffic(text, HOST).collectives}


def on_mesh(function, in_spec, out_spec):
    mesh = make_mesh({"data": 4, "fsdp": 2})
    return jax.shard_map(function, mesh=mesh, in_specs=in_spec, out_specs=out_spec, check_vma=False)


def test_collectives_by_kind_with_their_groups_and_bytes():
    x = jnp.ones((8, 1000), jnp.float32)
    split = PartitionSpec(("data", "fsdp"))
    cases = {
        "all-reduce": (lambda x: lax.psum(x, "data"), 4, 4000),
        "all-gather": (lambda x: lax.all_gather(x, "fsdp"), 2, 4000),
        "reduce-scatter": (lambda x: lax.psum_scatter(x[0], "data", tiled=True), 4, 4000),
        "collective-permute": (lambda x: lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]), None, 4000),
    }
    for kind, (function, group, size) in cases.items():
        found = by_kind(compiled_text(on_mesh(function, split, split), x))
        assert set(found) == {kind}
        assert found[kind].count == 1
        assert found[kind].bytes == size
        assert group is None or found[kind].group == group


def test_collectives_in_a_loop_count_as_often_as_it_runs():
    x = jnp.ones((8, 1000), jnp.float32)

    def many(x):
        return lax.scan(lambda x, _: (lax.psum(jnp.sin(x), "data"), None), x, None, length=5)[0]

    found = by_kind(compiled_text(on_mesh(many, PartitionSpec("data"), PartitionSpec("data")), x))
    assert (found["all-reduce"].count, found["all-reduce"].bytes) == (5, 5 * 2 * 4000)


def test_gradients_of_replicated_weights_are_reduced_over_the_batch():
    mesh = make_mesh({"data": -1, "fsdp": 1})
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    step = jax.grad(lambda w, x: jnp.sum(jnp.tanh(x @ w)))
    text = compiled_text(step, jnp.ones((32, 64)), jnp.ones((16, 32)), in_shardings=(whole, split), out_shardings=whole)
    (reduced,) = read_traffic(text, HOST).collectives
    assert (reduced.kind, reduced.group, reduced.bytes) == ("all-reduce", 8, 32 * 64 * 4)
    assert reduced.sent_within == pytest.approx(2 * 7 / 8 * 32 * 64 * 4)


def test_memory_traffic_of_a_scan_takes_one_slice_at_a_time():
    weights, x = jnp.ones((10, 256, 256)), jnp.ones((256, 256))

    def loop(weights, x):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    array = 256 * 256 * 4
    traffic = read_traffic(compiled_text(loop, weights, x), HOST[:1])
    # Read x and w, write the product; its tanh may be an instruction of its own; copies of the carry may come on top.
    assert 10 * 3 * array <= traffic.bytes <= 10 * 10 * array
    assert traffic.unknown_loops == 0


def test_memory_traffic_of_one_instruction_is_its_operands_and_results():
    a, b = jnp.ones((128, 64)), jnp.ones((64, 32))
    text = compiled_text(jnp.matmul, a, b)
    assert read_traffic(text, HOST[:1]).bytes == 4 * (128 * 64 + 64 * 32 + 128 * 32)


TPU = """HloModule jit_step, is_scheduled=true

%body (p: (s32[], f32[24,8])) -> (s32[], f32[24,8]) {
  %p = (s32[]{:T(128)}, f32[24,8]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[24,8]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %r = (bf16[8]{0:T(128)(2,1)S(1)}, bf16[4]{0}) all-reduce(%a, %b), replica_groups=mesh['data'=4,'fsdp'=2] {'data'}
  %a = bf16[8]{0:T(128)(2,1)S(1)} constant({...})
  %b = bf16[4]{0} constant({...})
  %s = (bf16[4]{0}, bf16[8]{0}, u32[]) all-gather-start(%b), replica_groups=[4,2]<=[8], dimensions={0}
  %d = bf16[8]{0} all-gather-done(%s)
  %room = f32[4096]{0} custom-call(), custom_call_target="AllocateBuffer"
  %sl = ((f32[24,8]{1,0:T(8,128)}), f32[1,8]{1,0:T(1,128)S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:1], [0:8]}
  %sd = f32[1,8]{1,0:T(1,128)S(1)} slice-done(%sl)
  %cs = (f32[24,8]{1,0:T(8,128)S(1)}, f32[24,8]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %cd = f32[24,8]{1,0:T(8,128)S(1)} copy-done(%cs)
  ROOT %t = (s32[]{:T(128)}, f32[24,8]{1,0:T(8,128)}) tuple(%i, %x)
}

%condition (q: (s32[], f32[24,8])) -> pred[] {
  %q = (s32[]{:T(128)}, f32[24,8]{1,0:T(8,128)}) parameter(0)
  %limit = s32[]{:T(128)} constant(24)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %lt = pred[]{:T(512)} compare(%j, %limit), direction=LT
}

ENTRY %main (x: f32[24,8]) -> f32[24,8] {
  %x = f32[24,8]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[24,8]{1,0:T(8,128)}) tuple(%zero, %x)
  %loop = (s32[]{:T(128)}, f32[24,8]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[24,8]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize("devices", ["", ", device_ids=([2,4]T(1,0))"], ids=["in order", "in another order"])
def test_the_dialect_of_tpus(devices):
    """Loop lengths stand in the condition; groups name mesh axes; layouts hold parentheses; `S(1)` is fast memory."""
    traffic = read_traffic(TPU.replace("'fsdp'=2]", f"'fsdp'=2]{devices}"), HOST)
    found = {each.kind: each for each in traffic.collectives}
    assert found["all-reduce"] == collective("all-reduce", group=4, count=24, num_bytes=24 * (16 + 8))
    assert found["all-gather"] == collective("all-gather", group=2, count=24, num_bytes=24 * 8)
    assert traffic.unknown_loops == 0
    # A round reads %x whole and one slice of it into fast memory, reduces %b in place and gathers it into a new array.
    reduced, gathered = 8 + 8, 8 + 16 + 4
    assert traffic.bytes == 24 * (24 * 8 * 4 + 8 * 4 + reduced + gathered)
