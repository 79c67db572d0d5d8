"""Peak figures of accelerator chips: one table, from the manufacturers' pages."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Peak figures of one chip.

    Attributes:
      name: in the table.
      flops: dense bfloat16 operations a second.
      memory: bytes of its memory (HBM).
      bandwidth: bytes a second between chip and memory.
      interconnect: bytes a second that it can send to its neighbours, all links together, one way.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    interconnect: float


# TPUs: Google Cloud documentation, pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e", tables of the architecture;
# their memory is in GiB. Interconnect is half of the bidirectional figure: v4 has 6 links of 50 GB/s, v5e 4 of 50,
# v5p 6 of 100, v6e 4 of 100. All is certain but v6e's interconnect (older pages say 3584 Gbit/s).
# GPUs: NVIDIA's datasheets "A100 Tensor Core GPU" (SXM), "H100 Tensor Core GPU" (SXM), "H200 Tensor Core GPU", without
# sparsity, memory in GB; interconnect is half of NVLink's bidirectional figure. All is certain.
_TERA, _GIGA, _GIB = 1e12, 1e9, 2**30
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(name="TPU v4", flops=275 * _TERA, memory=32 * _GIB, bandwidth=1228 * _GIGA, interconnect=300 * _GIGA),
        Chip(name="TPU v5e", flops=197 * _TERA, memory=16 * _GIB, bandwidth=819 * _GIGA, interconnect=200 * _GIGA),
        Chip(name="TPU v5p", flops=459 * _TERA, memory=95 * _GIB, bandwidth=2765 * _GIGA, interconnect=600 * _GIGA),
        Chip(name="TPU v6e", flops=918 * _TERA, memory=32 * _GIB, bandwidth=1640 * _GIGA, interconnect=400 * _GIGA),
        Chip(name="A100 40GB", flops=312 * _TERA, memory=40 * _GIGA, bandwidth=1555 * _GIGA, interconnect=300 * _GIGA),
        Chip(name="A100 80GB", flops=312 * _TERA, memory=80 * _GIGA, bandwidth=2039 * _GIGA, interconnect=300 * _GIGA),
        Chip(name="H100 SXM", flops=989 * _TERA, memory=80 * _GIGA, bandwidth=3350 * _GIGA, interconnect=450 * _GIGA),
        Chip(name="H200", flops=989 * _TERA, memory=141 * _GIGA, bandwidth=4800 * _GIGA, interconnect=450 * _GIGA),
    )
}

# `jax.Device.device_kind` as the runtimes spell it.
_KINDS = {
    "TPU v4": "TPU v4",
    "TPU v5 lite": "TPU v5e",
    "TPU v5e": "TPU v5e",
    "TPU v5": "TPU v5p",
    "TPU v5p": "TPU v5p",
    "TPU v6 lite": "TPU v6e",
    "TPU v6e": "TPU v6e",
    "NVIDIA A100-SXM4-40GB": "A100 40GB",
    "NVIDIA A100-SXM4-80GB": "A100 80GB",
    "NVIDIA H100 80GB HBM3": "H100 SXM",
    "NVIDIA H200": "H200",
}


def chip_of(device: jax.Device) -> Chip | None:
    """Returns the chip of a device, None if the table has no entry (a CPU, for one)."""
    return CHIPS.get(_KINDS.get(device.device_kind, ""))
