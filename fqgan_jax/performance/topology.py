"""Devices of TPU and GPU topologies, for which the compilers work without the hardware."""

import os
import re
from collections.abc import Sequence

import jax

from fqgan_jax.errors import UserError
from fqgan_jax.performance.gpu_topology import COMPILER_OPTIONS, GPUS, gpu_topology_devices, is_gpu_topology

# Without these the compiler looks for TPUs of this machine and complains that there are none.
_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is run, so plans may be made side by side
}


def topology_devices(name: str) -> Sequence[jax.Device]:
    """Returns the devices of a topology such as "v5e:4x4" or "h100:8x8", or those of this machine for "local".

    Raises:
      UserError: an unknown topology, or its compiler is not installed.
    """
    if name == "local":
        return jax.devices()
    if is_gpu_topology(name):
        return gpu_topology_devices(name)
    if not re.match(r"v\d|tpu", name):
        raise UserError(
            f"There is no chip for topology {name!r}: choose v5e:4x4, v5p:8x8x4, v6e:16x16 or another one of TPUs; "
            f"{', '.join(f'{gpu}:8' for gpu in GPUS)} or another number of GPUs; or local."
        )
    for variable, value in _NO_TPU_HERE.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"There is no plan for topology {name!r} ({str(error).splitlines()[0]}): install the TPU compiler with "
            "pip install fqgan-jax[tpu], and choose a topology such as v5e:4x4, v5p:8x8x4 or v6e:16x16, or local."
        ) from error


def count_chips(devices: Sequence[jax.Device]) -> int:
    """Returns the number of chips of the devices: a v4 chip has two cores, each a device of its own."""
    if devices[0].platform != "tpu":
        return len(devices)
    return len({tuple(device.coords) for device in devices})


def hosts_of(devices: Sequence[jax.Device]) -> tuple[int, ...]:
    """Returns the host of each device; all devices of a TPU topology count as one, because links join them."""
    return tuple(0 if device.platform == "tpu" else device.process_index for device in devices)


def compiler_options(device: jax.Device) -> dict[str, str | bool]:
    """Returns what XLA must be told to compile for a device, which may be one of a topology."""
    return {} if device.platform == "tpu" or device in jax.devices() else COMPILER_OPTIONS
