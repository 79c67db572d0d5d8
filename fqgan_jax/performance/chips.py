"""Peak figures of accelerator chips: one table, from the manufacturers' pages."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """What XLA's compiler for GPUs asks about a chip, beside its peak figures.

    Attributes:
      topology: name of the chip in a topology, as in `h100:8`.
      capability: compute capability, major version.
      multiprocessors: number of them.
      lanes: float32 units of a multiprocessor.
      shared_memory: bytes of shared memory of a multiprocessor; a block can take all but 1 KiB.
      l2_cache: bytes.
      clock: GHz.
      memory: bytes of memory that the driver reports.
    """

    topology: str
    capability: int
    multiprocessors: int
    lanes: int = 128
    shared_memory: int = 233472
    l2_cache: int
    clock: float
    memory: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Peak figures of one chip.

    Attributes:
      name: in the table.
      flops: dense bfloat16 operations a second.
      memory: bytes of its memory (HBM).
      bandwidth: bytes a second between chip and memory.
      interconnect: bytes a second that it can send to its neighbours, all links together, one way.
      network: bytes a second that it can send to chips of other hosts, if the interconnect ends at the host.
      host: number of chips that the interconnect joins, if it ends at the host.
      kinds: `jax.Device.device_kind`, as the runtimes spell it.
      gpu: for the compiler, if it is a GPU that can be planned for.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    interconnect: float
    network: float | None = None
    host: int | None = None
    kinds: tuple[str, ...] = ()
    gpu: Gpu | None = None


# TPUs: Google Cloud documentation, pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e", tables of the architecture;
# their memory is in GiB. Interconnect is half of the bidirectional figure: v4 has 6 links of 50 GB/s, v5e 4 of 50,
# v5p 6 of 100, v6e 4 of 100. All is certain but v6e's interconnect (older pages say 3584 Gbit/s).
#
# GPUs: NVIDIA's datasheets "A100 Tensor Core GPU" (SXM), "H100 Tensor Core GPU" (SXM), "H200 Tensor Core GPU" and
# "DGX B200", without sparsity, memory in GB; interconnect is half of NVLink's bidirectional figure. Network: datasheets
# of DGX A100 (200 Gbit/s a GPU), DGX H100, H200 and B200 (400 Gbit/s); each is a host of eight. Bandwidth is memory
# clock times bus width, which the datasheets round. `Gpu`: properties of the device as the CUDA driver reports them
# (`cudaGetDeviceProperties`), as in the target configs of XLA's repository (`xla/tools/hlo_opt/gpu_specs`).
_TERA, _GIGA, _MEGA, _GIB = 1e12, 1e9, 1e6, 2**30
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="TPU v4",
            flops=275 * _TERA,
            memory=32 * _GIB,
            bandwidth=1228 * _GIGA,
            interconnect=300 * _GIGA,
            kinds=("TPU v4",),
        ),
        Chip(
            name="TPU v5e",
            flops=197 * _TERA,
            memory=16 * _GIB,
            bandwidth=819 * _GIGA,
            interconnect=200 * _GIGA,
            kinds=("TPU v5 lite", "TPU v5e"),
        ),
        Chip(
            name="TPU v5p",
            flops=459 * _TERA,
            memory=95 * _GIB,
            bandwidth=2765 * _GIGA,
            interconnect=600 * _GIGA,
            kinds=("TPU v5", "TPU v5p"),
        ),
        Chip(
            name="TPU v6e",
            flops=918 * _TERA,
            memory=32 * _GIB,
            bandwidth=1640 * _GIGA,
            interconnect=400 * _GIGA,
            kinds=("TPU v6 lite", "TPU v6e"),
        ),
        Chip(
            name="A100 40GB",
            flops=312 * _TERA,
            memory=40 * _GIGA,
            bandwidth=1555 * _GIGA,
            interconnect=300 * _GIGA,
            network=25 * _GIGA,
            host=8,
            kinds=("NVIDIA A100-SXM4-40GB",),
        ),
        Chip(
            name="A100 80GB",
            flops=312 * _TERA,
            memory=80 * _GIGA,
            bandwidth=2039040 * _MEGA,
            interconnect=300 * _GIGA,
            network=25 * _GIGA,
            host=8,
            kinds=("NVIDIA A100-SXM4-80GB",),
            gpu=Gpu(
                topology="a100",
                capability=8,
                multiprocessors=108,
                lanes=64,
                shared_memory=167936,
                l2_cache=41943040,
                clock=1.41,
                memory=85100068864,
            ),
        ),
        Chip(
            name="H100 SXM",
            flops=989 * _TERA,
            memory=80 * _GIGA,
            bandwidth=3352320 * _MEGA,
            interconnect=450 * _GIGA,
            network=50 * _GIGA,
            host=8,
            kinds=("NVIDIA H100 80GB HBM3",),
            gpu=Gpu(
                topology="h100",
                capability=9,
                multiprocessors=132,
                l2_cache=52428800,
                clock=1.98,
                memory=84942979072,
            ),
        ),
        Chip(
            name="H200",
            flops=989 * _TERA,
            memory=141 * _GIGA,
            bandwidth=4800 * _GIGA,
            interconnect=450 * _GIGA,
            network=50 * _GIGA,
            host=8,
            kinds=("NVIDIA H200",),
            gpu=Gpu(
                topology="h200",
                capability=9,
                multiprocessors=132,
                l2_cache=52428800,
                clock=1.98,
                memory=151397597184,
            ),
        ),
        Chip(
            name="B200",
            flops=2250 * _TERA,
            memory=180 * _GIGA,
            bandwidth=7672320 * _MEGA,
            interconnect=900 * _GIGA,
            network=50 * _GIGA,
            host=8,
            kinds=("NVIDIA B200",),
            gpu=Gpu(
                topology="b200",
                capability=10,
                multiprocessors=148,
                l2_cache=132644864,
                clock=1.965,
                memory=191514411008,
            ),
        ),
    )
}
_OF_KIND = {kind: chip for chip in CHIPS.values() for kind in chip.kinds}


def chip_of(device: jax.Device) -> Chip | None:
    """Returns the chip of a device, None if the table has no entry (a CPU, for one)."""
    return _OF_KIND.get(device.device_kind)
