"""Devices of TPU topologies, for which the compiler works without TPU hardware."""

import os
from collections.abc import Sequence

import jax

from fqgan_jax.errors import UserError

# Without these the compiler looks for TPUs of this machine and complains that there are none.
_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is run, so plans may be made side by side
}


def topology_devices(name: str) -> Sequence[jax.Device]:
    """Returns the devices of a TPU topology such as "v5e:4x4", or those of this machine for "local".

    Raises:
      UserError: an unknown topology, or the TPU compiler is not installed.
    """
    if name == "local":
        return jax.devices()
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
    if any(getattr(device, "coords", None) is None for device in devices):
        return len(devices)
    return len({tuple(device.coords) for device in devices})
