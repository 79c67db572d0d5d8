"""Speed and memory: ahead-of-time plans and benchmarks."""
