"""XLA's flags for tests."""

# Tiny programs: compiling them takes longer than running them.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
# For tests that start many processes, which on a busy machine wait long for each other.
PROCESS_FLAGS = (
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1 "
    "--xla_cpu_collective_timeout_seconds=600 --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
