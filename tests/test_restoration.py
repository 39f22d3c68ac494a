"""Images in tiles: as whole images, without seams, compiled once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sel.diffusion import SAMPLERS, DpmSolver, Ode, Posterior, make_schedule, marginal_mean
from sel.models import ConditionalNAFNet
from sel.models.nafnet import pooled
from sel.restoration import MARGIN, TiledRestore, extended, lay_tiles

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


def framed(mu):
    """As the network sees a small image: its mirror image around it, up to a multiple of 32."""
    margins = [(MARGIN, extended(side) - side - MARGIN) for side in mu.shape[:2]]
    return np.pad(mu, (*margins, (0, 0)), mode="symmetric")


def inside(x, mu):
    return x[MARGIN : MARGIN + mu.shape[0], MARGIN : MARGIN + mu.shape[1]]


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
    assert restore._predict.kept() == 1
    # Small images of about one size share a compilation, too.
    reports.clear()
    for size in ((50, 60), (61, 63), (49, 80)):
        restore(KEY, params, smooth(*size), lambda done, total: reports.append((done, total)))
    assert restore._predict.kept() == 2
    assert reports == [(1, 2), (2, 2)] * 3


class Shy(nn.Module):
    """Sees zeros outside the image, and takes them for noise: up to two pixels from the border it is wrong."""

    @nn.compact
    def __call__(self, x_t, mu, t):
        inside = nn.avg_pool(0 * mu + 1, (5, 5), padding="SAME", count_include_pad=True)
        x0 = jnp.where(inside < 0.99, 1.0, 0.5)
        return (x_t - marginal_mean(SCHEDULE, x0, mu, t)) / SCHEDULE.sigma_bar[t][:, None, None, None]


@pytest.mark.parametrize("size", [(48, 80), (64, 96), (150, 200)])
def test_what_a_network_does_at_its_border_is_cut_off(size):
    """All four sides, whether a size is a multiple of 32 or not, in one tile or several."""
    restore = TiledRestore(Shy(), SCHEDULE, num_steps=2, tile=128, overlap=32)
    np.testing.assert_allclose(restore(KEY, {}, smooth(*size)), 0.5, atol=1e-3)


def test_programs_are_kept_for_few_shapes():
    restore = TiledRestore(Pointwise(), SCHEDULE, num_steps=1)
    params, first = {"scale": jnp.ones(())}, restore(KEY, {"scale": jnp.ones(())}, smooth(10, 10))
    for number in range(1, 10):
        restore(KEY, params, smooth(10, 10 + 32 * number))
    assert (restore._predict.kept(), restore._start.kept(), restore._advance.kept()) == (8, 8, 8)
    np.testing.assert_array_equal(restore(KEY, params, smooth(10, 10)), first)


@pytest.mark.parametrize("sampler", [Posterior((0.0, 1.0)), DpmSolver((0.0, 1.0)), Ode()], ids=str)
def test_a_small_image_goes_step_by_step_to_the_same(sampler):
    restore = TiledRestore(Pointwise(), SCHEDULE, sampler=sampler)
    params, mu = {"scale": jnp.full((), 0.7)}, smooth(64, 96)
    whole = restore.whole(KEY, params, framed(mu)[None])[0]
    np.testing.assert_allclose(restore(KEY, params, mu), inside(whole, mu), atol=1e-5)


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
    assert size + 2 * MARGIN <= tiles.total < size + 2 * MARGIN + 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 100}, "tile must be a multiple of 64 .*, found 100"),
        ({"tile": 192}, "tile must be .* 4 overlaps, 256, found 192"),
        ({"overlap": 33}, "overlap must be a multiple of 32 .*, found 33"),
        ({"num_steps": 9}, "num_steps must be a whole number from 1 to 8, .*, found 9"),
        ({"sampler": "euler"}, "sampler must be one of posterior, .*, found 'euler'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TiledRestore(Pointwise(), SCHEDULE, **options)
