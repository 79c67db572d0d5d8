"""Traffic of programs as XLA writes them for GPUs, counted by hand."""

from pathlib import Path

from fqgan_jax.performance.traffic import read_traffic

GPU = Path(__file__).with_name("gpu_step.hlo").read_text()
PRODUCT, WEIGHT, INPUT, WIDE = 16 * 32 * 2, 64 * 32 * 2, 16 * 64 * 2, 16 * 32 * 4
IMAGE = 2 * 8 * 8 * 16 * 2
EXPECTED = {
    # In the loop, of 24 layers: one layer's slice is copied, read by cuBLAS; the result is a row of another array.
    "jit(step)/while/body/slice": (24, 24 * (WEIGHT + 4 + WEIGHT)),
    "jit(step)/while/body/dot": (24, 24 * (INPUT + WEIGHT + PRODUCT)),
    "jit(step)/while/body/put": (24, 24 * (4 + PRODUCT + WIDE)),
    "jit(step)/conv": (1, IMAGE + 16 * 9 * 16 * 2 + 16 * 4 + IMAGE),
    "jit(step)/attention": (1, IMAGE + IMAGE // 2 + 2 * 4 * 8 * 4),
    "jit(step)/sliced": (1, INPUT + WEIGHT + 4 + PRODUCT),  # cuBLAS reads the slice in place
    "jit(step)/add": (1, 3 * PRODUCT),
    "jit(step)/convert": (1, PRODUCT + WIDE),
    "jit(step)/scatter": (1, 16 * 4 + WIDE + 2 * WIDE),
    "reduce-scatter-start to ((bf16[16,32]), (bf16[8,32]))": (1, PRODUCT + PRODUCT // 2),
    "all-gather-start to (bf16[8,32], bf16[16,32])": (1, PRODUCT // 2 + PRODUCT),
    "all-reduce-start to bf16[16,32]": (1, 2 * PRODUCT),
}


def test_every_operation_is_counted_as_often_as_it_runs_without_scratch_space():
    traffic = read_traffic(GPU, [0, 0, 1, 1])
    assert {mover.name: (mover.count, mover.bytes) for mover in traffic.movers} == EXPECTED
    assert traffic.bytes == sum(num_bytes for _, num_bytes in EXPECTED.values())
    assert traffic.unknown_loops == 0


def test_movers_are_sorted_and_say_what_they_are():
    movers = read_traffic(GPU, [0, 0, 1, 1]).movers
    assert [mover.bytes for mover in movers] == sorted((mover.bytes for mover in movers), reverse=True)
    assert {mover.name: mover.instructions for mover in movers}["jit(step)/while/body/dot"] == ("__cublas$lt$matmul",)


def test_collectives_within_and_between_hosts():
    scattered, gathered, reduced = (
        next(each for each in read_traffic(GPU, [0, 0, 1, 1]).collectives if each.kind == kind)
        for kind in ("reduce-scatter", "all-gather", "all-reduce")
    )
    assert (scattered.group, scattered.hosts, scattered.bytes) == (2, 1, PRODUCT)
    assert (scattered.sent_within, scattered.sent_between) == (PRODUCT / 2, 0)
    assert (gathered.group, gathered.hosts, gathered.bytes) == (2, 2, PRODUCT / 2)
    assert (gathered.sent_within, gathered.sent_between) == (0, PRODUCT / 2)
    assert (reduced.group, reduced.hosts) == (4, 2)
    assert (reduced.sent_within, reduced.sent_between) == (PRODUCT, PRODUCT / 2)
