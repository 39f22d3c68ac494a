"""A loss, a data set, an optimizer, a sampler and a key of one's own: each is a class, and a name for it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from programs import ROOT
from tiny_runs import pair

from experiments.run.config import load_config
from sel.choices import check, setting, to_dict
from sel.data import DATASETS, KINDS, Data
from sel.data.sources import Dataset, Split
from sel.diffusion import SAMPLERS, Ddim
from sel.errors import UserError
from sel.objective import LOSSES
from sel.training import Hooks, build_restore, find_checkpoint, from_stored, read_config, read_params, train
from sel.training.optimizer import OPTIMIZERS, Optimizer

pytestmark = pytest.mark.usefixtures("compile_little")


@dataclasses.dataclass(frozen=True)
class Charbonnier:
    """A smooth l1."""

    softness: float = setting(1e-3, above=0, doc="where it turns from square to absolute value")

    def __post_init__(self):
        check(self)

    def draw(self, key):
        return {}

    def __call__(self, predictions, targets):
        return jnp.sqrt((predictions - targets) ** 2 + self.softness**2).mean((1, 2, 3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Data):
    """Images of nothing."""

    count: int = setting(3, at_least=1, doc="pairs")

    def load(self, *, seed, report, bars):
        return tuple(pair(seed + i) for i in range(self.count)), (pair(seed),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Gradient descent."""

    momentum: float = setting(0.9, at_least=0, below=1, doc="decay of the mean of gradients")

    def update_rule(self, rate):
        return optax.sgd(rate, momentum=self.momentum)


@dataclasses.dataclass(frozen=True)
class Shy(Ddim):
    """Takes few steps."""

    few_steps = 2


@pytest.fixture
def ours(monkeypatch):
    monkeypatch.setitem(LOSSES, "charbonnier", Charbonnier)
    monkeypatch.setitem(KINDS, "noise", Noise)
    monkeypatch.setitem(OPTIMIZERS, "sgd", Sgd)
    monkeypatch.setitem(SAMPLERS, "shy", Shy)


CHOSEN = ["loss.name=charbonnier", "data.name=noise", "optimizer.name=sgd", "sampler.method=shy"]
SET = ["loss.softness=0.01", "data.count=5", "optimizer.momentum=0.5", "optimizer.schedule=constant"]
SMALL = ["num_steps=2", "batch_size=4", "model.width=4", "model.encoder_blocks=()", "model.decoder_blocks=()"]
SMALL += ["data.crop_size=16", "diffusion.num_steps=10"]


def test_ours_are_as_good_as_theirs(ours, tmp_path):
    """From the command line to a checkpoint, and back."""
    config = load_config(f"{ROOT}/configs/default.py", [f"--config.{change}" for change in (*CHOSEN, *SET, *SMALL)])
    assert (config.loss, config.data.count) == (Charbonnier(0.01), 5)
    assert config.optimizer.momentum == 0.5
    pairs, _ = config.data.load(seed=config.seed, report=None, bars=None)
    losses = []
    train(config, tmp_path, pairs, hooks=Hooks(on_step_end=lambda step, metrics: losses.append(metrics["loss"])))
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    stored = read_config(find_checkpoint(tmp_path))
    assert to_dict(stored, stored=True) == to_dict(config, stored=True)
    assert to_dict(from_stored(to_dict(config)))["loss"] == {"name": "charbonnier", "softness": 0.01}
    restore = build_restore(stored)
    assert restore.sampler == Shy(clip_x0=(0.0, 1.0))
    image = restore(jax.random.key(0), read_params(find_checkpoint(tmp_path)), pairs[0].mu / np.float32(255))
    assert np.isfinite(image).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("loss.softness=0", "config.loss.softness must be above 0 and finite, found 0.0"),
        ("loss.num_bins=8", "config.loss.num_bins has no effect: .* spatial_entropy or mixture, not by charbonnier"),
        ("optimizer.b1=0.5", "config.optimizer.b1 has no effect: .*adamw or adam or lion, not by sgd"),
        ("data.counts=1", "config.data.counts: there is no such key; did you mean data.count?"),
        ("loss.name=charbonier", "config.loss.name must be one of .*, charbonnier, found 'charbonier'"),
    ],
)
def test_ours_are_checked_as_theirs(ours, change, message):
    with pytest.raises(UserError, match=message):
        load_config(f"{ROOT}/configs/default.py", [f"--config.{one}" for one in (*CHOSEN, change)])


def test_a_public_set_is_its_layout(monkeypatch):
    split = Split(r"(?:.*/)?dark/(?P<stem>[^/]+)", r"(?:.*/)?bright/(?P<stem>[^/]+)", "dark/ and bright/")
    monkeypatch.setitem(DATASETS, "ours", Dataset("Ours", {"train": split}))
    changes = ["--config.data.name=ours", "--config.data.train=train", "--config.data.validation=0.5"]
    config = load_config(f"{ROOT}/configs/default.py", changes)
    assert to_dict(config)["data"]["name"] == config.data.name == "ours"
