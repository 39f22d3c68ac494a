"""Strict arrays for every test: no silent rank promotion; float64 only inside `with x64()`."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
