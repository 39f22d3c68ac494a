"""The sweep program, its report, and the files that deploy it."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fake_trials import make_trial
from PIL import Image
from programs import ROOT, TINY, assert_one_line

from configs.sweeps.space import grid
from experiments import sweep
from experiments.sweeps import trials
from experiments.sweeps.report import result_table, results, write_csv, write_plot
from experiments.sweeps.trials import record
from sel.errors import UserError


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
    assert "no plot was drawn: matplotlib is not installed" in capsys.readouterr().out


def test_the_program_trains_compares_and_goes_on(shell, tmp_path):
    file, workdir = tmp_path / "bins.py", tmp_path / "a sweep"
    file.write_text("def get_sweep():\n    return [{'data.crop_size': size} for size in (16, 4000)]\n")
    quick = [*TINY, "--config.num_steps=4", "--config.validate_every=2"]
    command = ["sweep", f"--sweep={file}", f"--workdir={workdir}", "--parallel=2", "--retries=0", *quick]
    result = shell(*command)
    assert (result.code, result.err) == (0, "")
    assert "2 trials" in result.out
    assert "001-crop_size=4000: failed error: 3 of 3 pairs are too small for crops of 4000" in result.out
    folder = workdir / "trials" / "000-crop_size=16"
    mean = json.loads((folder / "validation.json").read_text())[-1]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scored = [(line["step"], line["validation_psnr"]) for line in lines if "validation_psnr" in line]
    # At the last step the same parameters restore the same two images with the same noise.
    assert scored[-1] == (4, mean["psnr"])
    assert [step for step, _ in scored] == [2, 4]
    best = json.loads((workdir / "best.json").read_text())
    assert best["changes"] == {"data.crop_size": 16}
    assert best["scores"]["psnr"] == mean["psnr"]
    again = shell(*command)
    assert again.code == 0
    assert "2 trials" in again.out
    assert "2 of them done" in again.out
    assert_one_line(shell(*command, "--config.seed=1"), "another sweep")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "def get_sweep():\n    return [{'loss.bins': 4}]\n",
            "trial 000-bins=4: config.loss.bins: there is no",
        ),
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


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--hours=3"], "--hours has no effect without --launcher=slurm"),
        (["--cpus_per_trial=2"], "--cpus_per_trial has no effect without --launcher=ray or --launcher=slurm"),
        (["--noearly_stopping"], "--early_stopping has no effect without --launcher=ray"),
        (["--launcher=slurm", "--address=auto"], "--address has no effect without --launcher=ray"),
        (["--launcher=ray", "--partition=gpu"], "--partition has no effect without --launcher=slurm"),
        (
            ["--launcher=ray", "--accelerator=TPU"],
            "no effect without --accelerators_per_trial=NUMBER",
        ),
        (["--launcher=ray", "--noearly_stopping", "--grace_steps=5"], "no effect with --noearly_stopping"),
        (["--launcher=ray", "--grace_steps=5"], "no effect without --config.validate_every"),
    ],
)
def test_a_flag_that_nothing_reads_is_refused(shell, tmp_path, arguments, problem):
    result = shell("sweep", "--sweep=configs/sweeps/divergence.py", f"--workdir={tmp_path / 'none'}", *arguments)
    assert_one_line(result, problem)
    assert not (tmp_path / "none").exists()


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
    flags = sweep.flags.FLAGS
    known = {name for name in flags if flags.find_module_defining_flag(name).startswith("experiments.sweep")}
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
