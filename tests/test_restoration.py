"""Images in tiles: as whole images, without seams, compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sel.diffusion import SAMPLERS, DpmSolver, Ode, Posterior, make_schedule, marginal_mean
from sel.models import ConditionalNAFNet
from sel.models.nafnet import pooled
from sel.restoration import TiledRestore, lay_tiles

KEY = jax.random.key(0)
SCHEDULE = make_schedule(num_steps=8)
pytestmark = pytest.mark.usefixtures("compile_little")


class Pointwise(nn.Module):
    """Sees one pixel at a time: tiles can change nothing."""

    @nn.compact
    def __call__(self, x_t, mu, t):
        scale = self.param("scale", nn.initializers.ones, ())
        return scale * (x_t - mu) + 0.1 * mu + 0.01 * t[:, None, None, None]


def smooth(height, width):
    y, x = np.mgrid[:height, :width] / 200
    return np.stack([0.2 + 0.1 * np.sin(x + y), 0.15 + 0.1 * np.cos(x), 0.2 - 0.05 * y], -1).astype(np.float32)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_tiles_change_nothing_for_a_network_that_sees_one_pixel(sampler):
    mu, params = smooth(70, 250), {"scale": jnp.ones(())}
    options = {"sampler": sampler, "num_steps": 3, "overlap": 32}
    whole, tiled = (TiledRestore(Pointwise(), SCHEDULE, tile=tile, **options) for tile in (256, 128))
    # The weights of overlapping tiles sum to 1 up to rounding, which the steps enlarge by 1/eps at most.
    np.testing.assert_allclose(tiled(KEY, params, mu), whole(KEY, params, mu), atol=1e-4)


class Brightener(nn.Module):
    """Knows that the clean image is the blurred dark one at a mean of 0.5: borders and statistics matter to it."""

    @nn.compact
    def __call__(self, x_t, mu, t):
        blurred = nn.avg_pool(mu, (5, 5), padding="SAME", count_include_pad=True)
        x0 = 0.5 * blurred / pooled(self, mu)
        return (x_t - marginal_mean(SCHEDULE, x0, mu, t)) / SCHEDULE.sigma_bar[t][:, None, None, None]


@pytest.mark.parametrize("sampler", [Posterior, DpmSolver])
def test_tiles_of_a_smooth_image_are_the_whole_image_without_seams(sampler):
    mu = smooth(420, 500)
    options = {"sampler": sampler(clip_x0=(0.0, 1.0)), "num_steps": 4}
    whole = TiledRestore(Brightener(), SCHEDULE, tile=512, **options)(KEY, {}, mu)
    restore = TiledRestore(Brightener(), SCHEDULE, tile=256, **options)
    difference = restore(KEY, {}, mu) - whole
    # What is left is the mean over squares in the place of that of the whole image, one factor for all pixels.
    assert np.abs(difference).max() < 2 / 255
    # Seams would be jumps to the next pixel that the whole image doesn't have; the blur makes one at its border.
    for axis in (0, 1):
        assert np.abs(np.diff(difference[8:-8, 8:-8], axis=axis)).max() < 0.1 / 255
    restore._measure = lambda *_: {}  # every tile with a mean of its own
    assert np.abs(restore(KEY, {}, mu) - whole).max() > 20 / 255


def test_given_statistics_replace_those_of_the_image():
    module = ConditionalNAFNet(width=4, encoder_blocks=(), middle_blocks=2, decoder_blocks=())
    x_t, mu = jax.random.uniform(KEY, (2, 2, 16, 24, 3))
    t = jnp.array([3, 3])

    @jax.jit
    def init():
        variables = module.init(KEY, x_t, mu, t)
        assert set(variables) == {"params"}
        # At the start blocks are the identity.
        return jax.tree.map(lambda leaf: leaf + 0.05 * jax.random.normal(KEY, leaf.shape), variables["params"])

    params = init()
    apply = jax.jit(module.apply, static_argnames="mutable")
    predicted, kept = apply({"params": params}, x_t, mu, t, mutable=("statistics",))
    again = apply({"params": params, **kept}, x_t, mu, t)
    np.testing.assert_allclose(again, predicted, rtol=1e-5, atol=1e-5)
    # Means of two images are not those of each.
    assert np.abs(apply({"params": params}, x_t, mu, t) - predicted).max() > 2e-4
    # Of one image they are what it has anyway.
    twice = [jnp.concatenate([image[:1], image[:1]]) for image in (x_t, mu)]
    predicted, kept = apply({"params": params}, *twice, t, mutable=("statistics",))
    np.testing.assert_allclose(apply({"params": params}, *twice, t), predicted, rtol=1e-5, atol=1e-5)


def test_tiles_compile_once_and_report():
    params, reports = {"scale": jnp.ones(())}, []
    restore = TiledRestore(Pointwise(), SCHEDULE, tile=128, overlap=32, num_steps=2)
    restore(KEY, params, smooth(150, 300), lambda done, total: reports.append((done, total)))
    assert reports == [(done, 12) for done in range(1, 13)]
    restore(KEY, params, smooth(300, 140))
    assert restore._predict._cache_size() == 1
    # Small images of about one size share a compilation, too.
    reports.clear()
    for size in ((50, 60), (61, 63), (33, 40)):
        restore(KEY, params, smooth(*size), lambda done, total: reports.append((done, total)))
    assert restore._predict._cache_size() == 2
    assert reports == [(1, 2), (2, 2)] * 3


@pytest.mark.parametrize("sampler", [Posterior((0.0, 1.0)), DpmSolver((0.0, 1.0)), Ode()], ids=str)
def test_a_small_image_goes_step_by_step_to_the_same(sampler):
    restore = TiledRestore(Pointwise(), SCHEDULE, sampler=sampler)
    params, mu = {"scale": jnp.full((), 0.7)}, smooth(64, 96)
    np.testing.assert_allclose(restore(KEY, params, mu), restore.whole(KEY, params, mu[None])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [(1, 64, 0), (500, 128, 32), (129, 128, 32), (641, 640, 64), (6000, 640, 64), (193, 128, 0)],
)
def test_weights_of_tiles_sum_to_one(size, tile, overlap):
    tiles = lay_tiles(size, tile=tile, overlap=overlap)
    total = np.zeros(tiles.total)
    for index, start in enumerate(tiles.starts):
        total[start : start + tiles.length] += tiles.weight(index)
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert size <= tiles.total < size + 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 100}, "tile: got 100, expected a multiple of 64"),
        ({"tile": 192}, "tile: got 192, .* 4 overlaps, 256"),
        ({"overlap": 33}, "overlap: got 33"),
        ({"num_steps": 9}, "num_steps must be a whole number from 1 to 8, .*, found 9"),
        ({"sampler": "euler"}, "sampler must be one of posterior, .*, found 'euler'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TiledRestore(Pointwise(), SCHEDULE, **options)
