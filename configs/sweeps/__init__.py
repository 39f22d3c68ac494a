"""Sweeps: `get_sweep()` of each file returns the changes of every trial, as dictionaries from key to value."""
