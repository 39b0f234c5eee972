"""What sqlbuffer costs, measured beside what one would use instead: `python -m benchmarks --help`."""
