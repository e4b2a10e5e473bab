"""Benchmarks: one file per question. `python -m benchmarks NAME` runs one and prints its table."""
