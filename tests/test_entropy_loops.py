"""Loops that may run side by side: what they compute is what one loop after another would."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import sel
from sel.entropy import loops, sparse


def add_number(i, carry):
    total, work = carry
    work, (row,) = loops.store(work, [jnp.full((1, 4), i, total.dtype)])
    return total + row[0], work


@pytest.mark.parametrize("trips", [0, 1, 7])
@pytest.mark.parametrize("start", [0.0, np.nan, np.inf])
def test_loop_is_fori_loop(trips, start):
    carry = jnp.full(4, start), loops.buffers(1, jnp.zeros(()), (1, 4))
    expected = lax.fori_loop(0, trips, lambda i, total: total + i, carry[0])
    total, (buffer,) = loops.loop(jnp.int32(trips), add_number, carry)
    np.testing.assert_array_equal(total, expected)
    np.testing.assert_array_equal(buffer, [[max(trips - 1, 0)] * 4, [0] * 4])


def test_loop_keeps_float64():
    carry = jnp.zeros(4), loops.buffers(1, jnp.zeros(()), (1, 4))
    assert loops.loop(jnp.int32(3), add_number, carry)[0].dtype == carry[0].dtype


def test_store_writes_and_reads_from_a_place():
    (buffer,), (read,) = loops.store(loops.buffers(1, jnp.zeros(()), (2, 5)), [jnp.ones((2, 3))], start=1)
    np.testing.assert_array_equal(read, [[0, 1, 1, 1, 0]] * 2)
    assert buffer.shape == (3, 5)


@settings(deadline=None)  # each length is another program
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_evenly_gives_two_threads_as_much(work):
    order = np.asarray(loops.evenly(jnp.array(work)))
    assert sorted(order) == list(range(len(work)))
    ordered = np.array(work)[order]
    half = (len(work) + 1) // 2
    assert abs(ordered[:half].sum() - ordered[half:].sum()) <= max(work)


@given(st.integers(1, 5000))
def test_groups_are_large_enough_or_single(count):
    size = loops.group_size(count)
    assert size == 1 or size >= loops.FEWEST
    assert -(-count // size) * size - count < max(2, count // 4)


@pytest.fixture(scope="module")
def pair():
    """Large enough for groups of tiles, with tiles of much and of little work, and one left over."""
    x, y = np.mgrid[:72, :80] / 80
    noise = np.random.default_rng(0).normal(size=(72, 80)) * (x > 0.5)
    target = np.clip(y + 0.2 * noise, 0, 1)[..., None].astype(np.float32)
    return jnp.asarray(np.clip(target * 0.9 + 0.02, 0, 1)), jnp.asarray(target)


def loss_gradient(divergence="hellinger"):
    """A new function each time: what is patched in between must be compiled anew."""
    options = {"num_bins": 16, "implementation": "sparse", "divergence": divergence}
    return jax.jit(jax.value_and_grad(lambda x, y: sel.spatial_entropy_loss(x, y, **options)))


def test_tiles_side_by_side_equal_tiles_in_turn(pair, monkeypatch):
    assert loops.group_size(25) > 1
    step = loss_gradient()
    value, slopes = first = step(*pair)
    for _ in range(30):
        again = step(*pair)  # threads change no bit
        assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), first, again))
    monkeypatch.setattr(sparse, "group_size", lambda count: 1)
    expected, expected_slopes = loss_gradient()(*pair)
    # the same numbers in the same order, but for what compilers contract
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slopes, expected_slopes, rtol=1e-5, atol=1e-6 * float(jnp.abs(expected_slopes).max()))


@pytest.mark.parametrize("divergence", ["hellinger", "relative", "jensen_shannon"])
def test_a_pass_computes_only_what_the_loop_carries(pair, divergence):
    """Else XLA gives it memory that it shares with other loops, which then run one after another."""
    program = loss_gradient(divergence).lower(*pair).compile().as_text()
    bodies = re.findall(r"^%\S+ \(\S+: \(pred\[\], f32\[\], .*?^}", program, re.DOTALL | re.MULTILINE)
    bodies = [body for body in bodies if re.search("ROOT .* tuple", body)]
    assert len(bodies) == 2 * loops.group_size(25)
    for body in bodies:
        computed = re.findall(
            r"^  %(\S+) = \S+ (?!parameter|get-tuple-element|constant|bitcast)[\w-]+\(", body, re.MULTILINE
        )
        carried = re.search(r"ROOT .* tuple\((.*?)\)", body)[1]
        assert computed
        assert set(computed) <= set(re.findall(r"%([\w.-]+)", carried))
