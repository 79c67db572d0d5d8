"""XLA's flags for tests."""

# Tiny programs: compiling them takes longer than running them. On a busy machine virtual devices wait long for each
# other, and collectives on CPUs give up after half a minute by default.
_PATIENT = "--xla_cpu_collective_timeout_seconds=600 --xla_cpu_collective_call_terminate_timeout_seconds=600"
FLAGS = f"--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 {_PATIENT}"
PROCESS_FLAGS = FLAGS.replace("device_count=8", "device_count=4")  # of each of several processes
