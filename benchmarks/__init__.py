"""Measurements that reproduce every performance claim of the project: `python -m benchmarks --help`."""
