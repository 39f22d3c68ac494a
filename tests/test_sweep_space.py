"""What sweeps are made of, and the sweep files."""

import ast
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import ROOT

from configs.sweeps.space import choice, crossed, grid, integers, log_uniform, sampled, uniform, zipped
from experiments import sweep
from experiments.run.config import load_config
from experiments.sweeps.trials import flag, trial_name
from sel.errors import UserError


def test_grids_columns_and_products():
    assert grid({"a": (1, 2), "b": "xy"}) == [{"a": a, "b": b} for a in (1, 2) for b in "xy"]
    assert zipped({"a": (1, 2), "b": "xy"}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert crossed([{}, {"a": 1}], grid({"b": (2, 3)})) == [{"b": 2}, {"b": 3}, {"a": 1, "b": 2}, {"a": 1, "b": 3}]
    with pytest.raises(ValueError, match=r"equally many values, found .'a': 2, 'b': 1."):
        zipped({"a": (1, 2), "b": "x"})


@given(seed=st.integers(0, 10**6), low=st.floats(1e-8, 1.0), factor=st.floats(1.0, 1e6), count=st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_draws_stay_inside_their_bounds_and_repeat_themselves(seed, low, factor, count):
    draws = {
        "rate": log_uniform(low, low * factor),
        "decay": uniform(-low, low * factor),
        "bins": integers(2, 5),
        "kernel": choice(("logistic", "sech")),
    }
    space = sampled(count, draws, seed=seed)
    for changes in space:
        assert low <= changes["rate"] <= low * factor
        assert -low <= changes["decay"] <= low * factor
        assert changes["bins"] in (2, 3, 4, 5)
        assert changes["kernel"] in ("logistic", "sech")
    assert sampled(count, draws, seed=seed) == space
    assert sampled(count + 5, draws, seed=seed)[:count] == space


def test_log_uniform_draws_have_a_uniform_logarithm():
    rates = [changes["rate"] for changes in sampled(4000, {"rate": log_uniform(1e-5, 1e-1)}, seed=3)]
    # A quarter in each decade; four standard deviations of a binomial count.
    for low in (1e-5, 1e-4, 1e-3, 1e-2):
        inside = sum(low <= rate < 10 * low for rate in rates)
        assert abs(inside - 1000) < 4 * math.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize("make", [lambda: log_uniform(0, 1), lambda: uniform(2, 1), lambda: sampled(0, {}, seed=0)])
def test_wrong_bounds_are_refused(make):
    with pytest.raises(ValueError, match="found"):
        make()


@pytest.mark.parametrize("value", [16, 0.003, 1e-05, "gaussian", (1, 3, 5), "global", -0.5])
def test_changes_survive_the_command_line(value):
    keys = {int: "loss.num_bins", float: "loss.bandwidth", tuple: "loss.windows", str: "loss.kernel"}
    key = "loss.windows" if value == "global" else keys[type(value)]
    section, name = key.split(".")
    if value == -0.5:  # of the right type, but refused
        with pytest.raises(UserError, match=r"config.loss.bandwidth must be .*, found -0.5"):
            load_config("configs/quickstart.py", [flag(key, value)])
    else:
        assert getattr(getattr(load_config("configs/quickstart.py", [flag(key, value)]), section), name) == value
    assert re.fullmatch(r"[\w.=+-]+", trial_name(7, {key: value}))


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_sweep_files_ask_possible_questions(path, tmp_path, monkeypatch):
    if path.stem == "space":
        return
    monkeypatch.chdir(ROOT)
    space = sweep.load_sweep(str(path))
    made = sweep.make_trials(space, "configs/quickstart.py", [], tmp_path)
    assert len({trial.name for trial in made}) == len(made) == len(space) > 1
    assert sweep.load_sweep(str(path)) == space


def test_sweep_files_are_pure():
    for path in (ROOT / "configs/sweeps").glob("*.py"):
        names = {node.names[0].name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)}
        assert names <= {"itertools", "math", "random"}
