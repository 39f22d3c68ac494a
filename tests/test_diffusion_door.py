"""Misuse of the diffusion is refused in words. In a process of its own: here, types are checked first."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sel.diffusion import make_schedule, sample

ROOT = Path(__file__).parents[1]
# What is refused, and the words of the refusal.
REFUSED = {
    "sample(KEY, predict, MU[0], schedule=SCHEDULE)": "mu must have the shape [b, h, w, c]; one image is a batch",
    "sample(KEY, predict, (255 * MU).astype(jnp.uint8), schedule=SCHEDULE)": "mu must be an array of floating-point",
    "sample(KEY, predict, [[0.5]], schedule=SCHEDULE)": "mu must be an array of floating-point numbers, found list",
    "sample(3, predict, MU, schedule=SCHEDULE)": "key must be one random key, such as jax.random.key(0), found 3",
    "sample(jax.random.split(KEY), predict, MU, schedule=SCHEDULE)": "key must be one random key",
    "sample(KEY, predict, MU, schedule=SCHEDULE, num_steps=2.5)": "num_steps must be a whole number from 1 to 10",
    "sample(KEY, predict, MU, schedule=SCHEDULE, num_steps=True)": "num_steps must be a whole number from 1 to 10",
    "sample(KEY, lambda x_t, mu, t: x_t[..., :1], MU, schedule=SCHEDULE)": "the predicted noise must have the shape",
    "x0_from_noise(SCHEDULE, MU, MU, MU, 11)": "t must lie in 1..10, found 11",
    "x0_from_noise(SCHEDULE, MU, MU, MU, jnp.array([1, 0]))": "t must lie in 1..10, found [1 0]",
    "x0_from_noise(SCHEDULE, MU, MU, MU, 1.0)": "t must be whole numbers, found 1.0",
    "x0_from_noise(SCHEDULE, MU, MU, MU[..., :1], 1)": "noise_hat must have the shape of x_t",
    "marginal_mean(SCHEDULE, MU, MU[:1], 1)": "mu must have the shape of x0, (2, 4, 4, 3), found (1, 4, 4, 3)",
    "marginal_mean(SCHEDULE, MU, MU, -1)": "t must lie in 0..10, found -1",
    "reverse_sde_mean(SCHEDULE, MU, MU, MU, 101)": "t must lie in 1..10, found 101",
    "posterior_std(SCHEDULE, 3, s=3)": "s must lie in 0..2, found 3",
    "implicit_step(SCHEDULE, MU, MU, MU, 3, s=-1)": "s must lie in 0..2, found -1",
    "score_from_noise(SCHEDULE, MU, 0)": "t must lie in 1..10, found 0",
    "NETWORK.init(KEY, MU, MU[..., :1], T)": "mu must have the shape of x_t",
    "NETWORK.init(KEY, MU, MU, T[:1])": "t must be one time for each image, of shape (2,), found (1,)",
}
SCRIPT = """
import json, sys
import jax, jax.numpy as jnp
from sel.diffusion import *
from sel.models import ConditionalNAFNet

KEY, SCHEDULE, MU, T = jax.random.key(0), make_schedule(num_steps=10), jnp.full((2, 4, 4, 3), 0.5), jnp.array([1, 2])
NETWORK = ConditionalNAFNet(width=4, encoder_blocks=(), decoder_blocks=())
predict = lambda x_t, mu, t: x_t

def found(call):
    try:
        return f"returned {eval(call)}"
    except ValueError as error:
        return str(error)
    except Exception as error:
        return repr(error)

print(json.dumps([found(call) for call in json.load(sys.stdin)]))
"""


def test_misuse_is_refused_in_words():
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, input=json.dumps(list(REFUSED)), cwd=ROOT, capture_output=True, text=True, check=True
    )
    for (call, words), found in zip(REFUSED.items(), json.loads(done.stdout), strict=True):
        assert found.startswith(words), f"{call}: {found}"


def test_other_kinds_of_keys_and_counts_are_taken():
    schedule, mu = make_schedule(num_steps=10), jnp.full((1, 4, 4, 3), 0.5)

    def draw(key, num_steps):
        return sample(key, lambda x_t, mu, t: x_t, mu, schedule=schedule, num_steps=num_steps)

    expected = draw(jax.random.key(0), 5)
    np.testing.assert_array_equal(draw(jax.random.PRNGKey(0), 5), expected)
    np.testing.assert_array_equal(draw(jax.random.key(0), np.int64(5)), expected)
