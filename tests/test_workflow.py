"""The workflow: by Snakemake on one machine, and under a real Slurm of one node, files are those of one command."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interpret_robust import cli
from interpret_robust.cli import irt
from interpret_robust.core.folders import Folders
from interpret_robust.datasets import catalogue
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.datasets.npz import write_npz
from interpret_robust.models import checkpoint
from interpret_robust.models.card import Card
from interpret_robust.results import hdf5
from interpret_robust.study.plan import QUICK, find_study
from interpret_robust.study.reproduction import plan

WORKFLOW = Path(__file__).parent.parent / "workflow"
PROGRAMS = Path(sys.executable).parent
STUDY = "figure3"

needs_snakemake = pytest.mark.skipif(not (PROGRAMS / "snakemake").exists(), reason="snakemake is not installed")
needs_slurm = pytest.mark.skipif(
    not all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("slurmctld", "munged")),
    reason="Slurm is not installed",
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Few images under the name of the embedded data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRT_DATA", str(tmp_path_factory.mktemp("few")))
        catalogue._load.cache_clear()
        digits = make_cluttered_digits(192, 40)
        write_npz(catalogue.find_file("cluttered-digits"), catalogue._arrays(digits))
        yield dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    catalogue._load.cache_clear()


@pytest.fixture(scope="module")
def whole(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study by one command."""
    root = tmp_path_factory.mktemp("whole")
    irt.main(["reproduce", STUDY, "--root", str(root)], standalone_mode=False)
    return root


def head_of(file: str, config: dict[str, Any]) -> dict[str, Any]:
    """The names that a workflow's Python defines before its first rule."""
    text = (WORKFLOW / file).read_text(encoding="utf-8").partition("\nwildcard_constraints:")[0]
    names: dict[str, Any] = {"config": config}
    exec(compile(text, file, "exec"), names)
    return names


@pytest.mark.long
@pytest.mark.parametrize("name", ["figure3", "audit"])
def test_the_workflow_of_a_study_has_a_job_for_each_of_its_files(name: str) -> None:
    names = head_of("Snakefile", {"study": name, "seeds": 2})
    assert list(names["NEEDS"]) == [str(step.file) for step in plan(find_study(name, seeds=2))]
    assert names["PAGE"] == (["report.html"] if name == "audit" else [])
    assert names["REPRODUCE"].endswith(f"irt reproduce {name} --scale quick --device auto --seeds 2")


def test_the_workflow_of_models_from_elsewhere_has_a_job_for_each_card(tmp_path: Path) -> None:
    card = Card("torchvision:resnet18", label="mine")
    card.write(tmp_path / "mine.json")
    names = head_of("models.smk", {"cards": str(tmp_path), "data": "cifar10,here/own.npz", "ask": "robustness,masking"})
    assert names["CARDS"] == {card.name: str(tmp_path / "mine.json")}
    assert names["DATA"] == {"cifar10": "cifar10", "own": "here/own.npz"}
    assert names["ANSWER"] == "analyses/{question}-{data}-{model}-test.h5"


def contents(root: Path) -> dict[str, str]:
    """The checksum of what each file holds."""
    folders = Folders(root)
    models = {path.name: checkpoint.read(path).sha256 for path in folders.checkpoints.iterdir()}
    return models | {path.name: hdf5.attributes(path)["content_sha256"] for path in folders.analyses.iterdir()}


def snakemake(root: Path, environment: dict[str, str], *options: str, victim: str = "") -> str:
    """Run the workflow for the study; kill the job that makes `victim` once. What it said."""
    command = [PROGRAMS / "snakemake", "--snakefile", WORKFLOW / "Snakefile", "--directory", root, "--config"]
    log = root / "said.txt"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [*map(str, command), f"study={STUDY}", "mem_mb=800", *options], env=environment, stdout=out, stderr=out
        ) as process,
    ):
        if victim:
            kill(root / victim, process)
        process.wait(timeout=300)
    text = log.read_text()
    assert process.returncode == 0, text
    return text


def kill(victim: Path, engine: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to the process that makes a checkpoint, when it has begun to train."""
    state_file = victim.with_suffix(".state.safetensors")
    while engine.poll() is None and not state_file.exists():
        time.sleep(0.02)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"--only" in words and victim.name.encode() in words[words.index(b"--only") + 1]:
                os.kill(int(path.parent.name), signal.SIGKILL)


def test_a_plan_has_every_file_and_what_it_needs_before_it() -> None:
    for design in (QUICK, find_study("audit", seeds=2), find_study("figure3")):
        steps = plan(design)
        files: set[Path] = set()
        for step in steps:
            assert set(step.needs) <= files
            files.add(step.file)
        assert len(files) == len(steps)
        models = {step.file for step in steps if step.file.suffix == ".safetensors"}
        assert len(models) == len(design.models)
        for step in steps:
            subjects = [model for model in models if f"-{model.stem}-" in step.file.name]
            assert step.file in models or (step.needs[0] in subjects and set(step.needs) <= models)


def test_what_a_planned_answer_needs_is_who_reads_it() -> None:
    needs = {step.file.name: [need.stem for need in step.needs] for step in plan(find_study("audit", seeds=2))}
    name = "cluttered-digits-small-{}-seed{}".format
    assert needs["attention-rank-cluttered-digits-small-at-att-seed1-test.h5"] == [name("at-att", 1)]
    readers = needs["robustness-cluttered-digits-small-at-reg-seed0-test-apgd100.h5"]
    assert readers == [name("at-reg", 0), name("at-reg", 1)]
    score = needs["gradmap-score-cluttered-digits-small-at-seed0-test.h5"]
    assert score == [
        name("at", 0),
        name("natural", 1),
        name("natural", 2),
        "cluttered-digits-cnn-natural-seed1",
        name("at", 1),
    ]


@pytest.mark.long
def test_the_planned_names_are_those_of_the_files(whole: Path) -> None:
    assert {step.file.name for step in plan(find_study(STUDY))} == contents(whole).keys()


def mistake(command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What `irt` says on stderr of a mistake, for which it exits with status 2."""
    monkeypatch.setattr(sys, "argv", ["irt", *command])
    capfd.readouterr()
    with pytest.raises(SystemExit) as status:
        cli.main()
    assert status.value.code == 2
    return capfd.readouterr().err


@pytest.mark.long
def test_one_file_of_a_study_is_made_by_itself(
    whole: Path,
    environment: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = next(path.name for path in (whole / "checkpoints").iterdir() if "at-att-seed0" in path.name)
    answer = next(path.name for path in (whole / "analyses").iterdir() if "at-att-seed0-test" in path.name)
    command = ["reproduce", STUDY, "--root", str(tmp_path), "--only"]
    assert re.fullmatch(
        r"irt: .*at-att-seed0-test.* needs checkpoints/\S+, which is not there: `--only \S+` trains it\.\n",
        mistake([*command, answer], capfd, monkeypatch),
    )
    irt.main([*command, f"checkpoints/{model}"], standalone_mode=False)
    irt.main([*command, answer], standalone_mode=False)
    assert contents(tmp_path) == {name: content for name, content in contents(whole).items() if name in (model, answer)}
    assert not (tmp_path / "figures").exists()
    wrong = mistake([*command, "nonsense.h5"], capfd, monkeypatch)
    assert wrong.startswith("irt: unknown file of this study 'nonsense.h5'")


@needs_snakemake
def test_snakemake_makes_the_same_files_and_retries_a_killed_job(
    whole: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    victim = "checkpoints/cluttered-digits-small-at-att-seed0.safetensors"
    output = snakemake(tmp_path, environment, "--cores", "2", "--retries", "2", victim=victim)
    assert "Trying to restart job" in output
    assert contents(tmp_path) == contents(whole)
    assert (tmp_path / "tables.txt").read_text().strip()
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {p.name for p in (whole / "figures").iterdir()}
    repeat = snakemake(tmp_path, environment, "--cores", "2")
    assert "Nothing to be done" in repeat


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Slurm of one node, and what its clients need in their environment."""
    folder = tmp_path_factory.mktemp("slurm")
    script = WORKFLOW / "slurm-one-node.sh"
    began = subprocess.run([script, "start", folder], capture_output=True, text=True, check=False)
    assert began.returncode == 0, began.stderr
    yield {"SLURM_CONF": began.stdout.strip().removeprefix("export SLURM_CONF=")}
    subprocess.run([script, "stop", folder], check=True)


@needs_snakemake
@needs_slurm
def test_slurm_makes_the_same_files_and_retries_a_killed_job(
    whole: Path, environment: dict[str, str], slurm: dict[str, str], tmp_path: Path
) -> None:
    victim = "checkpoints/cluttered-digits-small-at-att-seed0.safetensors"
    profile = ["--workflow-profile", str(WORKFLOW / "profiles" / "slurm"), "--latency-wait", "5"]
    without_accounting = ["--slurm-status-command", "squeue", "--default-resources", "slurm_account=none"]
    # A status is asked for after so many seconds, and 10 later where nothing has ended: just above a job's length.
    soon = ["--slurm-init-seconds-before-status-checks", "8"]
    options = [*profile, *soon, *without_accounting, "slurm_partition=main"]
    output = snakemake(tmp_path, environment | slurm, *options, victim=victim)
    assert "SLURM jobid" in output and "Trying to restart job" in output
    assert contents(tmp_path) == contents(whole)


NETWORK = """
import torch

def net(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(),
        torch.nn.Linear(80, 10)
    )
"""


@needs_snakemake
def test_models_from_elsewhere_are_asked_on_each_data_set(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "my_network.py").write_text(NETWORK)
    write_npz(tmp_path / "mine.npz", dict(np.load(catalogue.find_file("cluttered-digits"))))
    for seed in (0, 1):
        card = Card("my_network:net", arguments=(("seed", seed),), label=f"net{seed}")
        (tmp_path / "cards").mkdir(exist_ok=True)
        card.write(tmp_path / "cards" / f"{seed}.json")
    config = ["cards=cards", "data=cluttered-digits,mine.npz", "ask=alignment", "limit=10"]
    command = [PROGRAMS / "snakemake", "--snakefile", WORKFLOW / "models.smk", "--directory", tmp_path, "--cores", "2"]
    process = subprocess.run(
        [*map(str, command), "--config", *config],
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    files = set((tmp_path / "analyses").iterdir())
    for data in ("cluttered-digits", "mine"):
        for seed in (0, 1):
            path = tmp_path / "analyses" / f"alignment-{data}-net{seed}-test-first10.h5"
            config = hdf5.read_provenance(path)["config"]
            assert (config["data"]["dataset"], config["data"]["images"]) == (data, 10)
            assert dict(config["checkpoint"]["job"]["card"]["arguments"]) == {"seed": seed}
            files.remove(path)
    assert not files and (tmp_path / "report.html").exists()
