"""What collectives send, by hand; groups as compilers write them, against lists of devices."""

import pytest

from fqgan_jax.performance.collectives import KINDS, Collective, sizes_of_groups


def collective(kind: str, *, group: int, hosts: int = 1, num_bytes: float = 100) -> Collective:
    return Collective(kind=kind, group=group, hosts=hosts, count=1, bytes=num_bytes)


def test_rings_send_what_each_kind_needs():
    assert collective("all-reduce", group=4).sent_within == 150
    assert collective("all-gather", group=4).sent_within == 300
    assert collective("all-gather", group=4).regrouped(group=8, hosts=1).sent_within == 350  # eighths of the same 400
    assert collective("reduce-scatter", group=4).sent_within == 75
    assert collective("all-to-all", group=4).regrouped(group=2, hosts=1).sent_within == 50
    assert collective("collective-permute", group=4).sent_within == 100
    assert all(collective(kind, group=4).sent_between == 0 for kind in KINDS)


def test_hosts_exchange_the_share_of_each_device():
    """Four hosts of eight: a device reduces an eighth of the array with its like on the other hosts."""
    reduced = collective("all-reduce", group=32, hosts=4, num_bytes=800)
    assert (reduced.sent_within, reduced.sent_between) == (2 * 7 / 8 * 800, 2 * 3 / 4 * 100)
    # Gathered, 32 shares of 100: three come from the other hosts, then 7/8 of all from those of the own host.
    gathered = collective("all-gather", group=32, hosts=4, num_bytes=100)
    assert (gathered.sent_within, gathered.sent_between) == (7 / 8 * 3200, 3 * 100)
    scattered = collective("reduce-scatter", group=32, hosts=4, num_bytes=3200)
    assert (scattered.sent_within, scattered.sent_between) == (7 / 8 * 3200, 3 * 100)
    # One device a host: everything goes over the network.
    assert collective("all-reduce", group=4, hosts=4).sent_within == 0
    assert collective("all-reduce", group=4, hosts=4).sent_between == 150
    # What is meant for other hosts goes there directly: 24 of 32 parts.
    exchanged = collective("all-to-all", group=32, hosts=4, num_bytes=3200)
    assert exchanged.sent_between == 2400
    assert collective("collective-permute", group=8, hosts=2).sent_between == 100


HOSTS = [0, 0, 0, 0, 1, 1, 1, 1]
GROUPS = {
    "replica_groups={{0,1},{2,3},{4,5},{6,7}}": (2, 1),
    "replica_groups={{0,4},{1,5},{2,6},{3,7}}": (2, 2),
    "replica_groups={}": (8, 2),
    "replica_groups=[2,4]<=[8]": (4, 1),
    "replica_groups=[4,2]<=[2,4]T(1,0)": (2, 2),
    "replica_groups=mesh['data'=2,'fsdp'=4] {'fsdp'}": (4, 1),
    "replica_groups=mesh['data'=2,'fsdp'=4] {'data'}": (2, 2),
    "replica_groups=mesh['data'=2,'fsdp'=4] {'data','fsdp'}": (8, 2),
    # Device ids in another order: rows (0, 4), (1, 5), ...
    "replica_groups=mesh['data'=4,'fsdp'=2], device_ids=([2,4]T(1,0)) {'fsdp'}": (2, 2),
    "replica_groups=mesh['data'=4,'fsdp'=2], device_ids=([2,4]T(1,0)) {'data'}": (4, 1),
    # A part of an axis: of 8 = 2 x 4, the 4 within, or the 2.
    "replica_groups=mesh['data'=8] {'data':(2)4}": (4, 1),
    "replica_groups=mesh['data'=8] {'data':(1)2}": (2, 2),
    "source_target_pairs={{0,1},{1,0}}": (8, 1),
    "source_target_pairs={{3,4}}": (8, 2),
}


@pytest.mark.parametrize("attributes", GROUPS)
def test_groups_and_the_hosts_that_they_span(attributes):
    assert sizes_of_groups(f"channel_id=1, {attributes}, use_global_device_ids=true", HOSTS) == GROUPS[attributes]
