"""The published variant against figures of the published implementation, computed in float64.

Each case is a pair of images slightly outside [0, 1], its bins, kernel and neighbour weights, and for each divergence
the loss (mean over images) and its gradient by the prediction. Cases 1 and 4 are kept in float64, the others in
float32. Densities are those of the target's first image and second channel.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit

from sel import joint_density, spatial_entropy_loss

GOLDEN = np.load(Path(__file__).parent / "golden" / "loss_cases.npz")
CASES = tuple(f"case{i}" for i in range(8))
FIGURES = [(case, d) for case in CASES for d in ("hellinger", "relative", "cross") if f"{case}/{d}" in GOLDEN]
IMPLEMENTATIONS = ("dense", "sparse")


@functools.cache
def loss_and_gradient(divergence, implementation, num_bins, kernel):
    def loss(prediction, target, weights):
        return spatial_entropy_loss(
            prediction,
            target,
            divergence=divergence,
            num_bins=num_bins,
            kernel=kernel,
            neighbor_weights=weights,
            variant="published",
            implementation=implementation,
        ).mean()

    return quick_jit(jax.value_and_grad(loss), level=num_bins // 32)


def check(case, divergence, implementation, dtype, value_tolerance, gradient_tolerance):
    num_bins, kernel = int(GOLDEN[f"{case}/num_bins"]), str(GOLDEN[f"{case}/kernel"])
    arrays = (jnp.asarray(GOLDEN[f"{case}/{name}"], dtype) for name in ("prediction", "target", "neighbor_weights"))
    value, gradient = loss_and_gradient(divergence, implementation, num_bins, kernel)(*arrays)
    assert value.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(value, GOLDEN[f"{case}/{divergence}"], rtol=value_tolerance)
    expected = GOLDEN[f"{case}/{divergence}_grad"]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=gradient_tolerance * np.abs(expected).max())


def test_every_case_is_here():
    assert len(FIGURES) == 22


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("case", "divergence"), FIGURES)
def test_float32_values_and_gradients(case, divergence, implementation):
    # Sums of some thousand float32 terms: 1e-6 of the value. Slopes are differences of densities that agree in two
    # digits or so, and the sparse ones leave out the emptiest bins: 1e-5 of the largest.
    check(case, divergence, implementation, jnp.float32, 1e-5, 1e-4)


@pytest.mark.parametrize(
    ("case", "divergence"), [("case1", "hellinger"), ("case1", "relative"), ("case1", "cross"), ("case4", "hellinger")]
)
def test_float64_values_and_gradients(case, divergence):
    with jax.enable_x64(True):
        check(case, divergence, "dense", jnp.float64, 1e-9, 1e-9)


@pytest.mark.parametrize(("case", "tolerance"), [("case1", 1e-9), ("case4", 1e-6)])
def test_float64_values_and_gradients_without_empty_bins(case, tolerance):
    # 8 bins are all visited. Of 32, blocks are left out where all 576 pixels together put less than 1e-6 of one pixel's
    # mass: at most 128 blocks, or 2e-7 of the mass. A gradient belongs to one pixel, which may lose a larger share.
    with jax.enable_x64(True):
        check(case, "relative", "sparse", jnp.float64, tolerance, 100 * tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if f"{case}/density_target" in GOLDEN])
def test_joint_density(case):
    options = {"num_bins": int(GOLDEN[f"{case}/num_bins"]), "kernel": str(GOLDEN[f"{case}/kernel"])}
    arrays = (jnp.asarray(GOLDEN[f"{case}/{name}"], jnp.float32) for name in ("target", "neighbor_weights"))
    density = quick_jit(lambda x, w: joint_density(x, neighbor_weights=w, variant="published", **options))(*arrays)
    # The figures are float32 themselves; exponents up to 14 lose one digit.
    np.testing.assert_allclose(density[:, 0, :, :, 1], GOLDEN[f"{case}/density_target"], rtol=1e-5, atol=1e-6)
