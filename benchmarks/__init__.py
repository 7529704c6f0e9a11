"""Benchmarks: each module is a script, run from the repository's root with ``python -m benchmarks.<name>``."""
