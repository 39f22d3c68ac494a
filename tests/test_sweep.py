"""Sweeps: what they are made of, where they run, and how they go on after a crash."""

import ast
import contextlib
import csv
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from programs import ROOT, TINY, assert_one_line

from configs.sweeps.space import choice, crossed, grid, integers, log_uniform, sampled, uniform, zipped
from experiments import sweep, trials
from experiments.config import load_config
from experiments.launchers import environments, launch_local, launch_slurm
from experiments.sweep_report import result_table, results, write_csv, write_plot
from experiments.trials import Outcome, Trial, flag, is_done, read_outcome, read_scores, record, start, trial_name
from sel.errors import UserError
from sel.training.build import build_loss

# A program that behaves like training, in a tenth of a second. It goes on from the step it reached, and crashes or
# hangs as it is told.
FAKE = """
import json, os, pathlib, signal, sys, time
folder, kind, score, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
with (folder / "runs.txt").open("a") as file:
    file.write(f"start {os.getpid()} {time.time()}\\n")
signal.signal(signal.SIGTERM, lambda *_: ((folder / "saved").touch(), sys.exit(3)))
first = len((folder / "runs.txt").read_text().splitlines()) == 1
if kind == "crash" or (kind == "once" and first):
    sys.exit("error: the value is impossible")
with (folder / "metrics.jsonl").open("a") as file:
    for step in range(1, 9):
        time.sleep(seconds / 8)
        print(json.dumps({"step": step, "validation_psnr": score + step}), file=file, flush=True)
if kind == "hang" and first:
    time.sleep(600)
(folder / "validation.json").write_text(json.dumps([{"name": "mean", "psnr": score + 10, "ssim": 0.5}]))
with (folder / "runs.txt").open("a") as file:
    file.write(f"end {os.getpid()} {time.time()}\\n")
"""


def make_trial(root, index, kind="fine", score=0.0, seconds=0.05, **changes):
    changes = changes or {"x": index}
    name = trial_name(index, changes)
    folder = str(root / "trials" / name)
    return Trial(name, changes, folder, (sys.executable, "-c", FAKE, folder, kind, str(score), str(seconds)), 9, True)


def runs(trial):
    path = Path(trial.folder) / "runs.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


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
    given = load_config("configs/quickstart.py", [flag(key, value)])[section][name]
    assert given == (list(value) if isinstance(value, tuple) else value)
    assert re.fullmatch(r"[\w.=+-]+", trial_name(7, {key: value}))


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_sweep_files_ask_possible_questions(path, tmp_path, monkeypatch):
    if path.stem == "space":
        return
    monkeypatch.chdir(ROOT)
    space = sweep.load_sweep(str(path))
    made = sweep.make_trials(space, "configs/quickstart.py", [], tmp_path)
    assert len({trial.name for trial in made}) == len(made) == len(space) > 1
    for changes in {tuple(flag(*item) for item in trial.changes.items() if "loss" in item[0]) for trial in made}:
        build_loss(load_config("configs/quickstart.py", changes))
    assert sweep.load_sweep(str(path)) == space


def test_a_crash_is_retried_and_recorded_and_the_others_go_on(tmp_path):
    kinds = ("fine", "crash", "once", "fine")
    made = [make_trial(tmp_path, i, kind, score=i, seconds=0.4) for i, kind in enumerate(kinds)]
    told = {}
    launch_local(made, lambda trial, outcome: told.update({trial.name: outcome}), retries=2, parallel=2)
    assert {trial.name: read_outcome(trial) for trial in made} == told
    assert [(told[trial.name].state, told[trial.name].attempts) for trial in made] == [
        ("finished", 1),
        ("failed", 3),
        ("finished", 2),
        ("finished", 1),
    ]
    assert told[made[1].name].error == "error: the value is impossible"
    assert read_scores(made[3]) == {"psnr": 13.0, "ssim": 0.5}
    assert read_scores(made[1]) == {}
    # Two at once, never three.
    texts = [Path(trial.folder, "runs.txt").read_text().splitlines() for trial in (made[0], made[2], made[3])]
    (a, b), (_, c, d), (e, f) = [[float(line.split()[2]) for line in text] for text in texts]
    spans = [(a, b), (c, d), (e, f)]
    assert not all(
        x[0] < y[1] and y[0] < x[1] for x, y in ((spans[0], spans[1]), (spans[0], spans[2]), (spans[1], spans[2]))
    )


def test_more_retries_open_a_failed_trial_again(tmp_path):
    trial = make_trial(tmp_path, 0)
    assert read_outcome(trial) == Outcome()
    assert not is_done(trial, 0)
    record(trial, "failed", 1.5)
    assert is_done(trial, 0)
    assert not is_done(trial, 1)
    assert record(trial, "finished", 2.0) == Outcome("finished", 2, 3.5, "")
    assert is_done(trial, 5)


def test_a_trial_ends_with_the_process_that_started_it_and_may_save_its_state(tmp_path):
    trial = make_trial(tmp_path, 0, "hang")
    script = f"import time; from experiments.trials import Trial, start; start({trial!r}); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_for(lambda: (Path(trial.folder) / "metrics.jsonl").exists())
    child = int(Path(trial.folder, "runs.txt").read_text().split()[1])
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not alive(child))
    assert (Path(trial.folder) / "saved").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS doesn't tell a process of the end of its parent")
def test_a_trial_ends_with_its_guard(tmp_path):
    trial = make_trial(tmp_path, 0, "hang")
    guard = start(trial)
    wait_for(lambda: (Path(trial.folder) / "metrics.jsonl").exists())
    child = int(Path(trial.folder, "runs.txt").read_text().split()[1])
    guard.send_signal(signal.SIGKILL)
    guard.wait()
    wait_for(lambda: not alive(child))
    assert (Path(trial.folder) / "saved").exists()


def test_only_one_process_at_a_time_works_in_a_folder(tmp_path):
    trial = make_trial(tmp_path, 0, seconds=1)
    first, second = start(trial), start(trial)
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert runs(trial) == ["start", "end", "start", "end"]
    assert "waiting for its end" in (Path(trial.folder) / "log.txt").read_text()


def test_a_killed_sweep_goes_on_and_runs_nothing_twice(tmp_path):
    made = [make_trial(tmp_path, i, "hang" if i == 1 else "fine") for i in range(3)]
    script = f"""
from experiments.launchers import launch_local
from experiments.trials import Trial, is_done
trials = [trial for trial in {made!r} if not is_done(trial, 1)]
launch_local(trials, lambda *_: None, retries=1, parallel=1)
"""
    command = [sys.executable, "-c", script]
    killed = subprocess.Popen(command, cwd=ROOT)
    wait_for(lambda: (Path(made[1].folder) / "metrics.jsonl").exists())
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert [read_outcome(trial).state for trial in made] == ["finished", "open", "open"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert [(read_outcome(trial).state, read_outcome(trial).attempts) for trial in made] == [("finished", 1)] * 3
    assert [runs(trial) for trial in made] == [["start", "end"], ["start", "start", "end"], ["start", "end"]]


def test_trials_at_once_share_the_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3,5")
    assert environments(2) == [{"CUDA_VISIBLE_DEVICES": "0,3"}, {"CUDA_VISIBLE_DEVICES": "2,5"}]
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES names 4"):
        environments(5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environments(3) == [{}, {}, {}]


def test_a_sweep_may_grow_but_not_change(tmp_path):
    sweep.claim(tmp_path, "a.py", ["--config.seed=1"], [{"x": (1, 3)}])
    sweep.claim(tmp_path, "a.py", ["--config.seed=1"], [{"x": (1, 3)}, {"x": "global"}])
    for config, changes, space in (("b.py", ["--config.seed=1"], [{"x": (1, 3)}]), ("a.py", [], [{"x": (1, 3)}])):
        with pytest.raises(UserError, match="another sweep"):
            sweep.claim(tmp_path, config, changes, space)
    with pytest.raises(UserError, match="another sweep"):
        sweep.claim(tmp_path, "a.py", ["--config.seed=1"], [{"x": (1, 5)}])


@pytest.fixture
def judged(tmp_path):
    """Six trials in a grid, one of which failed."""
    made = []
    for index, changes in enumerate(grid({"loss.kernel": ("sech", "gaussian"), "loss.num_bins": (8, 16, 32)})):
        trial = make_trial(tmp_path, index, **changes)
        made.append(trial)
        record(trial, "failed" if index == 4 else "finished", 1.0)
        if index != 4:
            (Path(trial.folder) / "validation.json").write_text(json.dumps([{"name": "mean", "psnr": 20.0 + index}]))
    return made


def test_the_report_ranks_the_trials(judged, tmp_path):
    rows = results(judged)
    assert [row["trial"][:3] for row in rows] == ["005", "003", "002", "001", "000", "004"]
    write_csv(tmp_path / "results.csv", rows)
    with (tmp_path / "results.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [read[0][name] for name in ("loss.kernel", "loss.num_bins", "psnr")] == ["gaussian", "32", "25.0"]
    assert (read[5]["state"], read[5]["psnr"], read[5]["error"]) == ("failed", "", "no output")
    table = result_table(rows, trials.swept_keys(judged), "title")
    assert table.row_count == 6
    assert [column.header for column in table.columns][1:3] == ["loss.kernel", "loss.num_bins"]


def test_the_plot_shows_the_best_and_its_absence_is_told(judged, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    widths = {}
    for keys in (
        ["loss.kernel", "loss.num_bins"],
        ["loss.num_bins"],
        ["loss.kernel"],
        ["trial", "loss.num_bins", "psnr"],
    ):
        write_plot(tmp_path / "plot.png", results(judged), keys)
        with Image.open(tmp_path / "plot.png") as picture:
            widths[len(keys)] = picture.width
    # Two keys share a panel; three have one each.
    assert widths[1] == widths[2] < widths[3] / 2
    sweep.conclude(judged, tmp_path)
    assert "Best: --config.loss.kernel=gaussian --config.loss.num_bins=32" in capsys.readouterr().out
    assert json.loads((tmp_path / "best.json").read_text())["scores"] == {"psnr": 25.0}
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    sweep.conclude(judged, tmp_path)
    assert "No plot: that needs matplotlib" in capsys.readouterr().out


def test_submitit_runs_retries_and_records(tmp_path):
    pytest.importorskip("submitit")
    made = [make_trial(tmp_path, i, kind) for i, kind in enumerate(("crash", "once"))]
    told = []
    options = {"folder": tmp_path / "slurm", "retries": 1, "parallel": 0, "cluster": "local", "timeout_min": 5}
    launch_slurm(made, lambda trial, _: told.append(trial.name), **options)
    assert sorted(told) == [trial.name for trial in made]
    assert [(read_outcome(trial).state, read_outcome(trial).attempts) for trial in made] == [
        ("failed", 2),
        ("finished", 2),
    ]


def launch_on_ray(made, root, **options):
    from experiments.launch_ray import launch_ray

    told = []
    common = {"retries": 1, "parallel": 2, "address": "", "resources": {"CPU": 1.0}, "grace_steps": 0}
    launch_ray(made, lambda trial, _: told.append(trial.name), folder=root / "ray", **{**common, **options})
    return told


@pytest.mark.slow
def test_ray_runs_eight_trials_of_which_one_crashes_and_one_is_killed(tmp_path):
    pytest.importorskip("ray.tune")
    kinds = ["fine", "crash", "fine", "hang", "fine", "fine", "fine", "fine"]
    made = [make_trial(tmp_path, i, kind, score=i, seconds=0.5) for i, kind in enumerate(kinds)]
    script = f"""
from pathlib import Path
from test_sweep import Trial, launch_on_ray
launch_on_ray({made!r}, Path({str(tmp_path)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment)
    hanging = Path(made[3].folder) / "runs.txt"
    wait_for(lambda: (Path(made[3].folder) / "metrics.jsonl").exists() or process.poll(), seconds=300)
    os.kill(int(hanging.read_text().split()[1]), signal.SIGKILL)
    assert process.wait(300) == 0
    assert [read_outcome(trial).state for trial in made] == ["finished", "failed", *["finished"] * 6]
    assert [read_outcome(trial).attempts for trial in made] == [1, 2, 1, 2, 1, 1, 1, 1]


@pytest.mark.slow
def test_ray_stops_weak_trials_and_knows_it_again_when_it_goes_on(tmp_path):
    pytest.importorskip("ray.tune")
    made = [make_trial(tmp_path, i, score=100.0 - 10 * i, seconds=4) for i in range(6)]
    told = launch_on_ray(made, tmp_path, grace_steps=2)
    states = [read_outcome(trial).state for trial in made]
    assert sorted(told) == [trial.name for trial in made]
    # The best is never stopped; with a third promoted, of six that come one after another from best to worst most are.
    assert states[0] == "finished"
    assert states.count("stopped") >= 2
    assert {*states} == {"finished", "stopped"}
    before = [runs(trial) for trial in made]
    assert launch_on_ray(made, tmp_path, grace_steps=2) == []
    assert [runs(trial) for trial in made] == before
    assert [read_outcome(trial).attempts for trial in made] == [1] * 6


def test_the_program_trains_compares_and_goes_on(shell, tmp_path):
    file, workdir = tmp_path / "bins.py", tmp_path / "a sweep"
    file.write_text("def get_sweep():\n    return [{'loss.num_bins': bins} for bins in (4, 0)]\n")
    quick = [*TINY, "--config.num_steps=4", "--config.validate_every=2"]
    command = ["sweep", f"--sweep={file}", f"--workdir={workdir}", "--parallel=2", "--retries=0", *quick]
    result = shell(*command)
    assert (result.code, result.err) == (0, "")
    assert "2 trials" in result.out
    assert "001-num_bins=0: failed error: config.loss: num_bins must be a whole number of at least 2" in result.out
    folder = workdir / "trials" / "000-num_bins=4"
    mean = json.loads((folder / "validation.json").read_text())[-1]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scored = [(line["step"], line["validation_psnr"]) for line in lines if "validation_psnr" in line]
    # At the last step the same parameters restore the same two images with the same noise.
    assert scored[-1] == (4, mean["psnr"])
    assert [step for step, _ in scored] == [2, 4]
    best = json.loads((workdir / "best.json").read_text())
    assert best["changes"] == {"loss.num_bins": 4}
    assert best["scores"]["psnr"] == mean["psnr"]
    again = shell(*command)
    assert again.code == 0
    assert "2 trials" in again.out
    assert "2 of them done" in again.out
    assert_one_line(shell(*command, "--config.seed=1"), "another sweep")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def get_sweep():\n    return [{'loss.bins': 4}]\n", "--config.loss.bins: there is no such key"),
        ("def get_sweep():\n    return [4]\n", "returns a list of dictionaries"),
        ("def get_sweep():\n    return 1 / 0\n", "ZeroDivisionError"),
        ("", "must define get_sweep()"),
    ],
)
def test_a_wrong_sweep_is_one_line(shell, tmp_path, text, problem):
    file = tmp_path / "wrong.py"
    file.write_text(text)
    workdir = tmp_path / "none"
    assert_one_line(shell("sweep", f"--sweep={file}", f"--workdir={workdir}", "--launcher=ray"), problem)
    assert not workdir.exists()


def test_deployment_files_are_valid_and_agree():
    yaml = pytest.importorskip("yaml")
    documents = [d for path in (ROOT / "deploy").glob("*.yaml") for d in yaml.safe_load_all(path.read_text())]
    jobs = [document for document in documents if document["kind"] == "RayJob"]
    assert jobs
    docker = (ROOT / "deploy" / "Dockerfile").read_text()
    for job in jobs:
        cluster = job["spec"]["rayClusterSpec"]
        assert f"rayproject/ray:{cluster['rayVersion']}-" in docker
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        pods = [group["template"]["spec"] for group in groups]
        assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
        claims = {volume["persistentVolumeClaim"]["claimName"] for pod in pods for volume in pod["volumes"]}
        assert claims <= {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
    for path in (*(ROOT / "deploy").glob("*.sh"), *(ROOT / "deploy").glob("*.sbatch")):
        subprocess.run(["bash", "-n", path], check=True)


def test_documented_sweeps_exist():
    known = {name for name in sweep.flags.FLAGS if sweep.flags.FLAGS.find_module_defining_flag(name) == sweep.__name__}
    pages = [ROOT / "README.md", *(ROOT / "deploy").iterdir(), *(ROOT / "configs/sweeps").glob("*.py")]
    text = "\n".join(page.read_text() for page in pages).replace("\\\n", " ")
    # YAML folds the lines of a command.
    text = re.sub(r"\n\s+(?=--)", " ", text)
    commands = re.findall(r"python3? -m experiments\.sweep ([^\n`'\"]*)", text)
    assert len(commands) >= 8
    for command in commands:
        arguments = [word.partition("=") for word in shlex.split(command) if word.startswith("--")]
        for name, _, value in arguments:
            assert name.startswith("--config.") or name[2:] in known, command
            if name == "--sweep":
                assert (ROOT / value.partition(":")[0]).exists(), command


def test_sweep_files_are_pure():
    for path in (ROOT / "configs/sweeps").glob("*.py"):
        names = {node.names[0].name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)}
        assert names <= {"itertools", "math", "random"}
