"""The compression of the camera model against its formula and against a library."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn, idctn

from sel.camera import jpeg

# Compiled fast rather than well.
OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
fast_jpeg = jax.jit(jpeg, compiler_options=OPTIONS)

# ITU-T T.81, K.1 and K.2.
TABLES = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99
"""
TABLES = np.array(TABLES.split(), int).reshape(2, 8, 8)


def _jpeg_oracle(image: np.ndarray, quality: int) -> np.ndarray:
    """In float64, block by block, with the matrices of JFIF and SciPy's cosine transform."""
    height, width = image.shape[:2]
    padded = np.pad(image.astype(np.float64), [(0, -height % 8), (0, -width % 8), (0, 0)], "edge")
    rows = [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]]
    ycc = np.floor(padded @ np.array(rows).T + 0.5) - [128, 0, 0]
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    for top, left, c in np.ndindex(padded.shape[0] // 8, padded.shape[1] // 8, 3):
        place = (slice(8 * top, 8 * top + 8), slice(8 * left, 8 * left + 8), c)
        steps = np.clip((TABLES[min(c, 1)] * scale + 50) // 100, 1, 255)
        ycc[place] = np.floor(idctn(steps * np.round(dctn(ycc[place], norm="ortho") / steps), norm="ortho") + 0.5)
    y, cb, cr = np.moveaxis(ycc + np.array([128, 0, 0]), -1, 0)
    rgb = np.stack([y + 1.402 * cr, y - 0.344136286 * cb - 0.714136286 * cr, y + 1.772 * cb], -1)
    return np.clip(np.floor(rgb + 0.5), 0, 255)[:height, :width]


@pytest.mark.parametrize("quality", [1, 20, 50, 75, 95, 100])
def test_jpeg_is_the_formula_and_nearly_what_a_library_makes(quality):
    rows, columns = np.mgrid[:43, :61]
    noise = np.random.default_rng(0).integers(-20, 21, (43, 61, 3))
    waves = np.stack([np.sin(rows / 5), np.cos(columns / 7), np.sin((rows + columns) / 9)], -1)
    image = np.uint8(np.clip(120 + 80 * waves + noise, 0, 255))
    result = np.asarray(255 * fast_jpeg(jnp.asarray(image, jnp.float32) / 255, quality=quality))
    np.testing.assert_allclose(result, np.round(result), atol=1e-4)
    # Blocks' means are multiples of 1/8: some lie half-way between two steps, and the last bit decides.
    assert np.abs(result - _jpeg_oracle(image, quality)).mean() < 0.25

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(file)).astype(int)
    # Its cosine transform is one of integers: more coefficients go to the neighbouring step.
    loss = np.abs(image.astype(int) - expected).mean()
    assert np.abs(result - expected).mean() < 0.3 * loss + 0.2
    assert abs(np.abs(result - image).mean() - loss) < 0.01 * loss + 0.02


def test_jpeg_of_a_batch_is_that_of_each_image():
    images = jax.random.uniform(jax.random.key(0), (3, 16, 9, 3))
    together = fast_jpeg(images, quality=jnp.array([30.0, 60.0, 90.0]))
    for i, quality in enumerate((30.0, 60.0, 90.0)):
        # Compiled for other shapes, the last bit of a sum may differ, and with it the rounding to 8 bits.
        np.testing.assert_allclose(together[i], fast_jpeg(images[i], quality=quality), atol=1 / 255 + 1e-6)
    flat = jnp.full((16, 9, 3), 77 / 255)
    np.testing.assert_allclose(fast_jpeg(flat, quality=90.0), flat, atol=1e-6)
    with pytest.raises(ValueError, match="3 channels"):
        jpeg(jnp.zeros((8, 8, 1)), quality=90)
