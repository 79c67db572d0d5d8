"""Many processes, one run: starting them, stopping them at the same step, ending them together.

`jax.distributed` does the work. If a process is missing it ends the others without an explanation, so
the processes first check over a socket of their own that all are present.
"""

import itertools
import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import jax
from jax._src import distributed
from jax._src.clusters import ClusterEnv  # what `jax.distributed.initialize` asks; there is no public name for it
from jax.experimental import multihost_utils

from fqgan_jax.errors import UserError

COMPILE_TIMEOUT = 3600  # seconds in which all processes have compiled a training step
LEAVE_TIMEOUT = 10  # seconds in which processes that all fail alike come together
_meetings = itertools.count()  # each barrier has a name of its own, the same on all processes


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout_seconds: int = 300,
) -> None:
    """Starts `jax.distributed` if flags or the environment name more than one process.

    JAX detects what is not given on SLURM, Open MPI, TPU pods and Kubernetes. Call it before any device is used.

    Args:
      coordinator: "HOST:PORT" of process 0.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      timeout_seconds: how long to wait for the others.

    Raises:
      UserError: missing or impossible values, or processes that did not start in time.
    """
    given = (coordinator, num_processes, process_id)
    address, count, index, devices = _detected(*given, timeout_seconds)
    if count == 1 or (count is None and given == (None, None, None)):
        return
    if (
        (address is None or count is None or index is None)
        or not 0 <= index < count
        or not address.rpartition(":")[2].isdigit()
    ):
        raise UserError(
            f"--coordinator={address} --num-processes={count} --process-id={index} is incomplete: the environment does "
            "not say the rest. Give HOST:PORT of process 0, the number of processes, and this one's number from 0."
        )
    _check_all_present(address, count, index, timeout_seconds)
    jax.distributed.initialize(
        address, count, index, devices, cluster_detection_method="deactivate", initialization_timeout=timeout_seconds
    )


def _detected(
    address: str | None, count: int | None, index: int | None, timeout: int
) -> tuple[str | None, int | None, int | None, Sequence[int] | None]:
    """Returns address, count and index completed by JAX's detection of the cluster, and this process's own devices."""
    address = address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    # In Kubernetes JAX asks the server about this pod, which has an answer for indexed jobs only.
    if "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" not in os.environ:
        return address, count, index, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the package `kubernetes` is missing: flags do without it
        found = ClusterEnv.auto_detect_unset_distributed_params(address, count, index, None, None, timeout)
    return (*found[:3], None) if "JAX_LOCAL_DEVICE_IDS" in os.environ else found


def _check_all_present(address: str, count: int, index: int, timeout: float) -> None:
    """Returns when all processes have told process 0 their names, over the port that JAX uses afterwards.

    Raises:
      UserError: on every process that started, with the numbers of those that did not.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    if index == 0:
        answer = _collect_names(int(port), count, deadline, timeout)
    else:
        answer = _report_name(host.strip("[]"), int(port), index=index, deadline=deadline, timeout=timeout)
    if answer:
        raise UserError(answer)


def _collect_names(port: int, count: int, deadline: float, timeout: float) -> str:
    """Process 0 waits for the others and answers them; returns the answer, empty if all are present."""
    names, answer = {0: socket.gethostname()}, ""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with ExitStack() as opened:
        try:
            server = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
        except OSError as error:
            return f"Process 0 cannot listen on port {port} ({error.strerror}): choose another one for --coordinator."
        opened.enter_context(server)
        streams = []
        while len(names) < count and not answer:
            try:
                server.settimeout(max(deadline - time.monotonic(), 0.01))
                connection = opened.enter_context(server.accept()[0])
                connection.settimeout(5)
                stream = opened.enter_context(connection.makefile("rw"))
                index, name = json.loads(stream.readline())
            except TimeoutError:
                if time.monotonic() >= deadline:
                    answer = _missing(names, count, timeout)
            except (OSError, ValueError):  # a connection of another program
                continue
            else:
                streams.append(stream)
                if index in names:
                    answer = f"Two processes have the number {index}, on {names[index]} and {name}: count from 0 on."
                names[index] = name
        for stream in streams:
            stream.write(json.dumps(answer) + "\n")
            stream.flush()
    return answer


def _missing(names: dict[int, str], count: int, timeout: float) -> str:
    absent = ", ".join(str(index) for index in range(count) if index not in names)
    came = ", ".join(f"{index} on {name}" for index, name in sorted(names.items()))
    return (
        f"Of {count} processes these did not come within {timeout:g} seconds: {absent} (there: {came}). "
        "Look at their output and whether their hosts reach this one, then start all again."
    )


def _report_name(host: str, port: int, *, index: int, deadline: float, timeout: float) -> str:
    """Sends number and host of any other process to process 0, and returns the answer."""
    while True:
        try:
            with socket.create_connection((host, port), max(deadline - time.monotonic(), 0.01)) as connection:
                connection.settimeout(max(deadline - time.monotonic(), 0.01) + 10)
                stream = connection.makefile("rw")
                stream.write(json.dumps([index, socket.gethostname()]) + "\n")
                stream.flush()
                return json.loads(stream.readline())
        except (OSError, ValueError) as error:
            if time.monotonic() >= deadline:
                return (
                    f"Process 0 was not reached at {host}:{port} within {timeout:g} seconds ({error}). Look at its "
                    "output and whether its host reaches this one, then start all again."
                )
            time.sleep(0.2)


def are_many() -> bool:
    """Whether `start` found more than one process."""
    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process is the one that writes files, logs and prints."""
    return jax.process_index() == 0


def agreed_to_stop(step: int) -> bool:
    """Whether SIGTERM reached any process and this is the step that all agreed on to stop at; call it at every step."""
    return multihost_utils.reached_preemption_sync_point(step)


def compiled_together(step: jax.stages.Wrapped) -> Callable:
    """Returns the jitted function; each of many processes compiles it at its first call and then waits for the others.

    They compile at different speeds, and collectives on CPUs fail if one is half a minute late.
    """
    if not are_many():
        return step
    compiled: list[Callable] = []

    def run(*arguments):
        if not compiled:
            compiled.append(step.lower(*arguments).compile())
            _client().wait_at_barrier(f"compiled {next(_meetings)}", COMPILE_TIMEOUT * 1000)
        return compiled[0](*arguments)

    return run


def _client() -> Any:
    """Returns this process's connection to the others."""
    return distributed.global_state.client


def exchange(text: str) -> list[str]:
    """Returns the texts of all processes, in order of their numbers, once all have given theirs; uses no devices."""
    if not are_many():
        return [text]
    client, name, timeout = _client(), f"exchange {next(_meetings)}", COMPILE_TIMEOUT * 1000
    client.key_value_set(f"{name} {jax.process_index()}", text)
    # Process 0 collects, so that the others ask for one text each.
    if is_first():
        texts = [client.blocking_key_value_get(f"{name} {index}", timeout) for index in range(jax.process_count())]
        client.key_value_set(name, json.dumps(texts))
    return json.loads(client.blocking_key_value_get(name, timeout))


def leave(code: int) -> None:
    """Ends a process of many after an error, and does not wait for the others if only this one failed."""
    try:
        # If all fail alike each prints its error; JAX waits far longer at the end of a process.
        _client().wait_at_barrier("fqgan_jax_leave", LEAVE_TIMEOUT * 1000)
    except jax.errors.JaxRuntimeError:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
