"""How fast, and how large: ahead-of-time plans and benchmarks."""
