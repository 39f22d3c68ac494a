"""Measurements, each printing one table: `python -m benchmarks.NAME`."""
