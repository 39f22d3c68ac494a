"""Where the trials of a sweep run: retries, crashes, resumption, one process in a folder, Slurm and Ray."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_trials import alive, make_trial, runs, wait_for
from programs import ROOT

from experiments.sweeps.launchers import environments, launch_local, launch_slurm
from experiments.sweeps.trials import Outcome, is_done, read_outcome, read_scores, record, start
from sel.errors import UserError


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
    script = f"import time; from experiments.sweeps.trials import Trial, start; start({trial!r}); time.sleep(600)"
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
from experiments.sweeps.launchers import launch_local
from experiments.sweeps.trials import Trial, is_done
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
    from experiments.sweeps.launch_ray import launch_ray

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
from experiments.sweeps.trials import Trial
from test_sweep_launchers import launch_on_ray
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
