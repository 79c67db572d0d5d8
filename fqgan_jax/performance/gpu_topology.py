"""Devices of GPU topologies, for which JAX's CUDA compiler works without a GPU."""

import os
import re
from collections.abc import Sequence

import jax

from fqgan_jax.errors import UserError, import_extra
from fqgan_jax.performance.chips import CHIPS, Chip, Gpu

GPUS = {chip.gpu.topology: chip for chip in CHIPS.values() if chip.gpu is not None}

# Without a GPU nothing can be timed, so the compiler cannot choose tiles for Triton's products; cuBLAS does them.
COMPILER_OPTIONS: dict[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}


def is_gpu_topology(name: str) -> bool:
    """Returns whether a topology names a GPU, as in "h100:8"."""
    return name.partition(":")[0] in GPUS


def gpu_topology_devices(name: str) -> Sequence[jax.Device]:
    """Returns the devices of a GPU topology: "h100:8" is one host of eight GPUs, "h100:8x2" eight hosts of two.

    Raises:
      UserError: the CUDA compiler is not installed or not of this version of JAX, or no host has as many GPUs.
    """
    chip_name, _, counts = name.partition(":")
    chip = GPUS[chip_name]
    gpu = chip.gpu
    assert gpu is not None
    hosts, gpus = _counts(name, counts, chip)
    import_extra("jax_cuda13_plugin", "cuda")
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # of versions, which asks a driver
    from jax.experimental import topologies

    layout = f"1x{hosts}x{gpus}"
    try:
        return topologies.get_topology_desc(
            chip_name, "cuda", target_config=_target_config(chip, gpu), topology=layout
        ).devices
    except RuntimeError as error:  # a plugin that does not belong to this JAX is not loaded
        raise UserError(
            f"The CUDA compiler cannot be used ({str(error).splitlines()[0]}): pip install fqgan-jax[cuda] brings "
            "the one of this version of JAX."
        ) from error


def _counts(name: str, counts: str, chip: Chip) -> tuple[int, int]:
    """Number of hosts, and of GPUs a host."""
    found = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)", counts)
    gpu, most = name.partition(":")[0], chip.host or 1
    if found is None or int(found[2]) > most:
        raise UserError(
            f"There is no topology {name!r}: after the chip comes the number of GPUs of one host, 1 to {most}, or the "
            f"number of hosts and that, as in {gpu}:{most} and {gpu}:4x{most}."
        )
    return int(found[1] or 1), int(found[2])


def _target_config(chip: Chip, gpu: Gpu) -> str:
    """The chip as a text proto (`xla.gpu.GpuTargetConfigProto`)."""
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          shared_memory_per_block: 49152 shared_memory_per_core: {gpu.shared_memory}
          shared_memory_per_block_optin: {gpu.shared_memory - 1024}
          core_count: {gpu.multiprocessors} fpus_per_core: {gpu.lanes} clock_rate_ghz: {gpu.clock}
          memory_bandwidth: {chip.bandwidth:.0f} device_memory_size: {gpu.memory} l2_cache_size: {gpu.l2_cache}
          cuda_compute_capability {{ major: {gpu.capability} }}
        }}
        platform_name: "CUDA" runtime_version {{ major: 13 }} dnn_version_info {{ major: 9 minor: 12 }}
        device_description_str: "{chip.kinds[0]}"
    """
