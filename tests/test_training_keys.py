"""A key that somebody sets is read, or it is an error: the table of what reads each key, and the rule."""

import json

import pytest
from programs import ROOT
from tiny_runs import configured

from configs.default import get_config as get_default
from experiments.run.config import load_config
from sel.errors import UserError
from sel.training import build_parts, check_keys, differences, from_json
from sel.training.keys import ALWAYS, EARLIER, brought_up_to_date, choices, keys_read, unread

QUICKSTART = f"{ROOT}/configs/quickstart.py"
# Only in the configurations that need them.
ELSEWHERE = {"model": {"depth"}, "data": {"longest_side", "darkenings", "camera", "validation_size"}}
# Options of the loss that may be added to a configuration.
OPTIONAL = {"loss": {"window_shape", "gray"}, "sampler": {"num_steps"}}


def offered(section):
    """All keys of a section, whatever is chosen."""
    read = [names for key, values in choices().items() if key.startswith(f"{section}.") for names in values.values()]
    return {*ALWAYS[section], *(name for names in read for name in names)}


def test_the_default_configuration_offers_every_key_that_is_read():
    default = from_json(get_default().to_json())
    assert set(default) == {*ALWAYS, *ALWAYS[""]} - {""}
    for section in set(ALWAYS) - {""}:
        missing = offered(section) - set(default[section])
        assert missing <= ELSEWHERE.get(section, set()) | OPTIONAL.get(section, set()), section
        assert set(default[section]) <= offered(section), section


FILES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "configs").glob("[a-z]*.py"))]


@pytest.mark.parametrize("file", [*FILES, "configs/default.py:unet", "configs/lol_v1.py:full"])
def test_what_configurations_give_is_read(file):
    config = load_config(f"{ROOT}/{file}", [])
    assert unread(config) == {}
    for section in set(ALWAYS) - {""}:
        assert set(config[section]) <= keys_read(config, section)


# A choice, and a key that it leaves unread.
UNREAD = [
    ("loss.name=l1", "loss.num_bins=16", "config.loss.name spatial_entropy or mixture, not by l1"),
    ("loss.name=l2", "loss.value_range=(0.0, 1.0)", "config.loss.name spatial_entropy or mixture, not by l2"),
    ("loss.name=spatial_entropy", "loss.l1=0.5", "config.loss.name mixture, not by spatial_entropy"),
    ("objective.compare=x_prev", "objective.clip_x0=None", "config.objective.compare x0, not by x_prev"),
    ("objective.t_weighting=noise", "objective.snr_cap=3.0", "t_weighting min_snr, not by noise"),
    ("optimizer.name=adam", "optimizer.weight_decay=0.1", "config.optimizer.name adamw or lion, not by adam"),
    ("optimizer.schedule=constant", "optimizer.gamma=0.1", "schedule multistep, not by constant"),
    ("optimizer.schedule=multistep", "optimizer.end_learning_rate=0.1", "schedule cosine, not by multistep"),
    ("sampler.method=ode", "sampler.clip_x0=None", "not by ode"),
    ("data.name=pairs", "data.darkenings=3", "config.data.name photographs or samples, not by pairs"),
]


@pytest.mark.parametrize(("choice", "key", "reason"), UNREAD)
def test_a_choice_takes_one_flag_and_what_it_does_not_read_can_not_be_set(choice, key, reason):
    chosen = load_config(QUICKSTART, [f"--config.{choice}"])
    section, name = key.partition("=")[0].split(".")
    assert name not in chosen[section]
    check_keys(chosen)
    for changes in ([choice, key], [key, choice]):
        with pytest.raises(UserError) as caught:
            load_config(QUICKSTART, [f"--config.{change}" for change in changes])
        assert str(caught.value).startswith(f"config.{section}.{name} is set in vain: it is read by config.")
        assert str(caught.value).endswith(reason)


@pytest.mark.parametrize(("choice", "key", "reason"), UNREAD[:7])
def test_training_refuses_keys_that_nothing_reads(choice, key, reason):
    """Whoever wrote the configuration, and however."""
    config = load_config(QUICKSTART, [f"--config.{choice}"])
    section, name = key.partition("=")[0].split(".")
    config[section][name] = 1
    with pytest.raises(UserError, match=f"config.{section}.{name} is set in vain"):
        build_parts(config)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("optimizer.weight_decays", "config.optimizer.weight_decays: there is no such key; did you mean weight_decay?"),
        ("ema.xyz", "config.ema.xyz: there is no such key; there are decay, every, warmup"),
        ("learning_rates", "config.learning_rates: there is no such key; there are "),
        ("optimiser", "config.optimiser: there is no such key; did you mean optimizer?"),
        ("sampler.steps", "config.sampler.steps: there is no such key"),
    ],
)
def test_unknown_keys_are_named(key, message):
    with pytest.raises(UserError) as caught:
        build_parts(configured({key: 1}))
    assert str(caught.value).startswith(message)


def test_a_section_that_is_none_is_named():
    with pytest.raises(UserError, match=r"config.ema is a section with keys of its own, found 3"):
        build_parts(configured({"ema": 3}))


FILE = """
from configs.default import get_config as get_default

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
        ("config.loss.name = 'l1'; config.loss.num_bins = 16", "config.loss.num_bins is set in vain: .*not by l1"),
        ("config.optimizer.lr = 1.0", "config.optimizer.lr: there is no such key"),
        ("config.ema.foo = None", "config.ema.foo: there is no such key"),
    ],
)
def test_the_rule_holds_for_files(tmp_path, change, message):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(change=change))
    if message is None:
        assert load_config(str(path), [])["loss"] == {"name": "l1"}
    else:
        with pytest.raises(UserError, match=f"--config={path}: {message}"):
            load_config(str(path), [])


def test_configurations_of_before_are_those_of_today():
    """Without the keys that there were not, and with ones that were not read."""
    today = configured({"max_skipped": EARLIER[""]["max_skipped"]})
    before = json.loads(json.dumps(today))
    for section, values in EARLIER.items():
        for name in values:
            del (before[section] if section else before)[name]
    del before["objective"]
    before["loss"]["num_bins"] = 16
    assert differences(brought_up_to_date(from_json(json.dumps(before))), today) == []
    assert brought_up_to_date(today) == today
    # Parameters from elsewhere were never trained here.
    stored = from_json(json.dumps({name: today[name] for name in ("model", "diffusion", "sampler")}))
    assert brought_up_to_date(stored) == stored
