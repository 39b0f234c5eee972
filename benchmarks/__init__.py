"""The cost of sqlbuffer, and of other buffers on the same work: `python -m benchmarks --help`."""
