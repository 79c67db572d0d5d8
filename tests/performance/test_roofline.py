"""Peak figures, rooflines and scaling, against arithmetic by hand."""

from types import SimpleNamespace

import jax
import pytest

from fqgan_jax.performance.chips import CHIPS, Chip, chip_of
from fqgan_jax.performance.roofline import roofline, scaling
from fqgan_jax.performance.traffic import Collective

CHIP = Chip(name="test", flops=100, memory=1000, bandwidth=10, interconnect=5)


def test_chips_are_found_by_the_kind_of_their_devices():
    kinds = {"TPU v5 lite": 197e12, "TPU v5": 459e12, "TPU v6 lite": 918e12, "TPU v4": 275e12, "NVIDIA H200": 989e12}
    for kind, flops in kinds.items():
        assert chip_of(SimpleNamespace(device_kind=kind)).flops == flops
    assert chip_of(SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")) is CHIPS["H100 SXM"]
    assert chip_of(jax.devices("cpu")[0]) is None
    assert CHIPS["TPU v5e"].memory == 16 * 2**30


def test_the_slowest_side_bounds():
    collectives = [Collective(kind="all-reduce", group=4, count=1, bytes=100)]
    both = roofline(CHIP, 400, 30, collectives)
    assert (both.compute, both.memory, both.interconnect) == (4, 3, 30)
    assert (both.seconds, both.bound) == (30, "interconnect")
    assert roofline(CHIP, 400, 30).bound == "compute"


def test_weak_scaling_lets_rings_grow():
    over_all, within = (
        Collective(kind="all-reduce", group=4, count=1, bytes=10),
        Collective(kind="all-gather", group=2, count=1, bytes=5),
    )
    here = roofline(CHIP, 400, 30, [over_all, within])
    one, two = scaling(CHIP, here, collectives=[over_all, within], chips=4, hosts=1, counts=(1, 2))
    assert (one.overlapped, one.exposed) == (4, 4)
    assert two.exposed == pytest.approx(4 + (10 + 5) / 5)
    (many,) = scaling(CHIP, here, collectives=[over_all], chips=4, hosts=1, counts=(1000,))
    assert many.exposed == pytest.approx(4 + 2 * 999 / 1000 * 10 / 5)


HOSTS = Chip(name="hosts", flops=100, memory=1000, bandwidth=10, interconnect=5, network=1, host=4)


def test_the_network_is_a_side_of_its_own():
    between = Collective(kind="all-reduce", group=8, hosts=2, count=1, bytes=100)
    both = roofline(HOSTS, 400, 30, [between])
    assert (both.interconnect, both.network) == (2 * 3 / 4 * 100 / 5, 2 / 2 * 100 / 4 / 1)
    assert (both.seconds, both.bound) == (30, "interconnect")


def test_collectives_grow_over_hosts():
    """Compiled for one host of four: on eight chips a quarter of each sum crosses the network."""
    within = Collective(kind="all-reduce", group=4, count=1, bytes=100)
    here = roofline(HOSTS, 400, 30, [within])
    two, four, eight = scaling(HOSTS, here, collectives=[within], chips=4, hosts=1, counts=(2, 4, 8))
    assert two.exposed == pytest.approx(4 + 2 / 2 * 100 / 5)
    assert four.exposed == pytest.approx(4 + here.interconnect)
    assert eight.exposed == pytest.approx(4 + here.interconnect + 100 / 4)


def test_collectives_of_one_device_a_host_grow_with_the_hosts_and_others_stay():
    """Compiled for two hosts of two, with the state split within a host."""
    between = Collective(kind="all-reduce", group=2, hosts=2, count=1, bytes=100)
    within = Collective(kind="all-gather", group=2, hosts=1, count=1, bytes=10)
    here = roofline(HOSTS, 400, 30, [between, within])
    four, eight = scaling(HOSTS, here, collectives=[between, within], chips=4, hosts=2, counts=(4, 8))
    assert four.exposed == pytest.approx(4 + 2 * 1 / 2 * 100 + 10 / 5)
    assert eight.exposed == pytest.approx(4 + 2 * 3 / 4 * 100 + 10 / 5)
