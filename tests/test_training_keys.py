"""A key that somebody sets is read, or it is an error; and each key is defined once, by a field."""

import dataclasses
import json

import pytest
from programs import ROOT
from tiny_runs import configured, written

from configs.default import get_config as get_default
from configs.low_light import SETS
from experiments.run.config import load_config
from sel.choices import check, choice, differences, flatten, keys, parse, readers, section, setting, to_dict, unread
from sel.data import DATASETS
from sel.errors import UserError
from sel.training import Config, ModelConfig, from_stored

QUICKSTART = f"{ROOT}/configs/quickstart.py"
FILES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "configs").glob("[a-z]*.py"))]
FILES = sorted({*FILES} - {"configs/config_dict.py", "configs/low_light.py"})
VARIANTS = ["configs/default.py:unet", "configs/lol_v1.py:full", *(f"configs/low_light.py:{name}" for name in SETS)]


def test_the_default_configuration_holds_every_key_that_it_reads_and_no_other():
    default = flatten(get_default().to_dict())
    assert set(default) == set(keys(Config, default))


@pytest.mark.parametrize(
    "file",
    [*FILES, *VARIANTS],
)
def test_configurations_load_and_can_be_written_down(file):
    config = load_config(f"{ROOT}/{file}", [])
    assert parse(Config, json.loads(json.dumps(to_dict(config)))) == config
    assert not unread(Config, flatten(to_dict(config)))


def test_every_public_set_has_a_configuration():
    assert {*SETS, "lol_v1"} == set(DATASETS)
    full = load_config(f"{ROOT}/configs/low_light.py:sice,full", [])
    assert (full.data.name, full.data.fraction, full.model.width) == ("sice", 0.1, 64)
    with pytest.raises(UserError, match=r"low_light.py:sise: variant of configs/low_light.py must be one of .*'sise'"):
        load_config(f"{ROOT}/configs/low_light.py:sise", [])


def test_every_key_says_what_it_means_and_may_be():
    every = list(readers(Config))
    assert len({key for key, _, _ in every}) >= 80
    for key, about, _ in every:
        assert about.doc, key
        assert "its own kind" not in about.rule, key


# A choice, and a key that has no effect with it.
UNREAD = [
    ("loss.name=l1", "loss.num_bins=16", "config.loss.name spatial_entropy or mixture, not by l1"),
    ("loss.name=l2", "loss.value_range=(0.0, 1.0)", "config.loss.name spatial_entropy or mixture, not by l2"),
    ("loss.name=spatial_entropy", "loss.l1=0.5", "config.loss.name mixture, not by spatial_entropy"),
    ("objective.compare=x_prev", "objective.clip_x0=None", "config.objective.compare x0, not by x_prev"),
    ("objective.t_weighting=noise", "objective.snr_cap=3.0", "t_weighting min_snr, not by noise"),
    ("optimizer.name=adam", "optimizer.weight_decay=0.1", "config.optimizer.name adamw or lion, not by adam"),
    ("optimizer.schedule=constant", "optimizer.gamma=0.1", "schedule multistep, not by constant"),
    ("optimizer.schedule=multistep", "optimizer.end_learning_rate=0.1", "schedule cosine, not by multistep"),
    ("sampler.method=ode", "sampler.clip_x0=None", "posterior or ddim or dpm_solver, not by ode"),
    ("data.name=pairs", "data.darkenings=3", "config.data.name photographs or samples, not by pairs"),
    ("model.name=unet", "model.middle_blocks=3", "config.model.name nafnet, not by unet"),
]


@pytest.mark.parametrize(("choice", "key", "reason"), UNREAD)
def test_a_choice_takes_one_flag_and_what_has_no_effect_can_not_be_set(choice, key, reason):
    chosen = load_config(QUICKSTART, [f"--config.{choice}"])
    section, name = key.partition("=")[0].split(".")
    assert name not in to_dict(chosen)[section]
    for changes in ([choice, key], [key, choice]):
        with pytest.raises(UserError) as caught:
            load_config(QUICKSTART, [f"--config.{change}" for change in changes])
        assert str(caught.value).startswith(f"config.{section}.{name} has no effect: it is read by config.")
        assert str(caught.value).endswith(reason)
    values = to_dict(chosen)
    values[section][name] = 1
    with pytest.raises(UserError, match=f"config.{section}.{name} has no effect"):
        parse(Config, values)


def test_another_choice_brings_its_own_defaults():
    """But what a file sets for the first choice holds for the second, where that has it, too."""
    config = load_config(QUICKSTART, ["--config.data.name=photographs", "--config.loss.name=mixture"])
    assert (config.data.validation, config.data.train, config.data.darkenings) == (0.1, "", 4)
    assert (config.data.crop_size, config.loss.num_bins, config.loss.value_range) == (64, 16, (-0.3, 1.3))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("optimizer.weight_decays", "config.optimizer.weight_decays: there is no such key; did you mean optimizer.wei"),
        ("ema.xyz", "config.ema.xyz: there is no such key; there are decay, every, warmup"),
        ("learning_rates", "config.learning_rates: there is no such key; there are "),
        ("optimiser", "config.optimiser: there is no such key; did you mean optimizer?"),
        ("sampler.steps", "config.sampler.steps: there is no such key; did you mean sampler.num_steps?"),
    ],
)
def test_unknown_keys_are_named(key, message):
    with pytest.raises(UserError) as caught:
        configured({key: 1})
    assert str(caught.value).startswith(message)


FILE = """
from configs.default import get_config as get_default
from configs.low_light import SETS

def get_config():
    config = get_default()
    {change}
    return config
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.loss.name = 'l1'", None),
        ("config.loss.name = 'l1'; config.loss.num_bins = 32", None),  # its value of before: nothing is set
        ("config.loss = type(config)({'name': 'l1'})", None),
        ("config.loss.name = 'l1'; config.loss.num_bins = 16", "config.loss.num_bins has no effect: .*not by l1"),
        ("config.optimizer.lr = 1.0", "config.optimizer.lr: there is no such key"),
        ("config.ema.foo = None", "config.ema.foo: there is no such key"),
    ],
)
def test_the_rule_holds_for_files(tmp_path, change, message):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(change=change))
    if message is None:
        assert to_dict(load_config(str(path), []))["loss"] == {"name": "l1"}
    else:
        with pytest.raises(UserError, match=f"--config={path}: {message}"):
            load_config(str(path), [])


@pytest.mark.parametrize("fraction", ["0.1", "'0.1'"])
def test_a_fraction_may_be_a_number(tmp_path, fraction):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(change=f"config.data.validation = {fraction}"))
    assert load_config(str(path), []).data.fraction == 0.1
    assert load_config(str(path), ["--config.data.validation=0.2"]).data.validation == 0.2
    assert load_config(str(path), ["--config.data.validation=val"]).data.fraction is None


def test_configurations_of_before_are_those_of_today():
    """Without the keys that there were not, and with ones that were not read."""
    today = configured({"max_skipped": 10})
    before = written({"max_skipped": 10})
    for key in ("max_skipped", "optimizer.name", "optimizer.schedule", "ema.warmup", "checkpoint.keep_best"):
        *sections, name = key.split(".")
        del (before[sections[0]] if sections else before)[name]
    del before["objective"], before["sampler"]["num_steps"], before["compute"]
    before["loss"]["num_bins"] = 16
    assert differences(to_dict(from_stored(before), stored=True), to_dict(today, stored=True)) == []
    # Parameters from elsewhere were never trained here.
    stored = {name: before[name] for name in ("model", "diffusion", "sampler")}
    assert type(from_stored(stored)) is ModelConfig
    assert from_stored(stored).model == today.model


@dataclasses.dataclass(frozen=True)
class Plain:
    size: int = setting(3, at_least=1, earlier=2, doc="a size")
    place: str = setting("here", doc="where", stored=False)

    def __post_init__(self):
        check(self)


@dataclasses.dataclass(frozen=True)
class Whole:
    part: Plain = section(Plain, doc="a part")
    kind: Plain = choice({"plain": Plain, "same": Plain}, "plain", doc="a kind", selector="called")


def test_a_value_that_runs_had_before_there_was_a_key():
    assert parse(Whole, {}) == Whole()
    assert parse(Whole, {}, stored=True).part.size == 2
    assert parse(Whole, {"part": {"size": 5}}, stored=True).part.size == 5
    with pytest.raises(UserError, match=r"config.part.sized: there is no such key; did you mean part.size?"):
        parse(Whole, {"part": {"sized": 5}}, stored=True)  # of a later version: the rest may mean something else
    assert to_dict(Whole(), stored=True) == {"part": {"size": 3}, "kind": {"called": "plain", "size": 3}}
