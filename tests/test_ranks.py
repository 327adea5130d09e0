"""One, two and three processes: the same batches, the same weights, the same files; and what a killed one leaves."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_jobs
import torch
from rank_jobs import ANALYSES, NORMS, TRAININGS
from safetensors.torch import load_file
from torch import Tensor, nn

from interpret_robust.cli import irt, main
from interpret_robust.core import ranks
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.datasets.batches import Batch
from interpret_robust.models import Classifier, build, checkpoint
from interpret_robust.models.shared_norm import SharedNorm2d, share_batch_norm
from interpret_robust.results import hdf5
from interpret_robust.training.run import Run

Make = Callable[..., Path]
Outputs = tuple[Path, int]


pytestmark = pytest.mark.long  # whose processes are started anew for each number of them


@pytest.fixture(scope="module", params=[2, 3])
def outputs(request: pytest.FixtureRequest, make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """What two processes did together, and three."""
    folder = tmp_path_factory.mktemp("ranks")
    make_checkpoint(folder, "at-att")
    rank_jobs.together(request.param, rank_jobs.in_group, rank_jobs.do_jobs, folder)
    return folder, request.param


def test_alone_nothing_is_different() -> None:
    assert (ranks.find_rank(), ranks.count_ranks(), ranks.count_restarts()) == (0, 1, 0)
    assert ranks.take_part(7) == slice(0, 7)
    assert ranks.gather_flags(True, False) == (True, False)
    tensor = torch.arange(3.0)
    assert ranks.sum_over_ranks(tensor) is tensor
    assert ranks.run_on_first(lambda: {"a": 1}) == {"a": 1}
    with ranks.process_group():
        assert ranks.count_ranks() == 1


@pytest.mark.parametrize(("length", "count"), [(64, 3), (16, 5), (7, 7), (3, 4)])
def test_parts_are_all_of_it_in_order(length: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count_ranks", lambda: count)
    numbers, sizes = [], []
    for index in range(count):
        monkeypatch.setattr(ranks, "find_rank", lambda index=index: index)
        part = list(range(length))[ranks.take_part(length)]
        numbers += part
        sizes.append(len(part))
    assert numbers == list(range(length))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("name", NORMS)
def test_a_shared_batch_norm_is_that_of_the_whole_batch(outputs: Outputs, name: str) -> None:
    folder, count = outputs
    whole = rank_jobs.normalize(name, slice(None))
    parts = [load_file(folder / f"norm-{name}-{index}.safetensors") for index in range(count)]
    for key, values in whole.items():
        if key in ("y", "x", "eval"):
            torch.testing.assert_close(torch.cat([part[key] for part in parts]), values, rtol=1e-9, atol=1e-11)
        else:
            for part in parts:
                torch.testing.assert_close(part[key], values, rtol=1e-9, atol=1e-11)


def test_sharing_batch_norm_changes_no_name_and_no_mode() -> None:
    model = build("small", "nonlinear", (3, 32, 32), 10, seed=0)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    share_batch_norm(model)
    share_batch_norm(model)
    assert tensors.keys() == model.state_dict().keys()
    assert modes == [module.training for module in model.modules()]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(type(norm) is SharedNorm2d for norm in norms)
    images = torch.rand(5, 3, 32, 32)
    plain = build("small", "nonlinear", (3, 32, 32), 10, seed=0).eval()
    torch.testing.assert_close(model.eval()(images), plain(images))


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm3d(4), nn.SyncBatchNorm(4), nn.BatchNorm2d(4, affine=False), nn.BatchNorm1d(4, momentum=None)]
)
def test_a_batch_norm_that_cannot_be_shared_is_refused(norm: nn.Module) -> None:
    with pytest.raises(UserError, match=r"cannot share the batch norm 1 \(.*\): train it by one\."):
        share_batch_norm(nn.Sequential(nn.Identity(), norm))


@cache
def alone(name: str) -> dict[str, Tensor]:
    return rank_jobs.train_steps(name)


@pytest.mark.parametrize("name", TRAININGS)
def test_weights_after_many_steps_are_those_of_one_process(outputs: Outputs, name: str) -> None:
    folder, count = outputs
    states = [load_file(folder / f"trained-{name}-{index}.safetensors") for index in range(count)]
    start = rank_jobs.run_of(name).final_tensors()
    weights = {key for key in start if "running" not in key}
    assert max(float((alone(name)[key] - start[key]).abs().max()) for key in weights) > 1e-4  # they have learned
    for key in weights:
        torch.testing.assert_close(states[0][key], alone(name)[key], rtol=0, atol=1e-5)
    torch.testing.assert_close(states[0]["totals.sums"], alone(name)["totals.sums"], rtol=1e-4, atol=1e-3)
    assert torch.equal(states[0]["totals.predictions"].sum(), alone(name)["totals.predictions"].sum())
    for other in states[1:]:
        for key in start:
            assert torch.equal(other[key], states[0][key]), key


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_has_the_same_content(outputs: Outputs, name: str, tmp_path: Path) -> None:
    folder, count = outputs
    (result,) = (folder / "analyses").glob(f"{name}-*.h5")
    single = rank_jobs.work_of(next(folder.glob("*-at-att-seed0.safetensors")), tmp_path, name).run()
    assert (result.name, content(result)) == (single.name, content(single))
    assert hdf5.read_provenance(result)["environment"]["processes"] == count
    assert hdf5.read_provenance(single)["environment"]["processes"] == 1


def content(path: Path) -> str:
    hdf5.read(path)
    return str(hdf5.attributes(path)["content_sha256"])


def test_what_stopped_ranks_left_counts_for_one_process(outputs: Outputs, tmp_path: Path) -> None:
    folder, _ = outputs
    messages = [
        (folder / f"said-{index}.txt").read_text(encoding="utf-8").split("\n")[0] for index in range(outputs[1])
    ]
    assert all(line.startswith("Stopped: gradient-maps") for line in messages)
    path = next(folder.glob("*-at-att-seed0.safetensors"))
    work = rank_jobs.work_of(path, folder / "stopped", "gradient-maps")
    starts = []
    rows = work.analysis.rows

    def note(model: Classifier, batch: Batch, context: object) -> dict[str, AnyArray]:
        starts.append(batch.indices.start)
        return rows(model, batch, context)

    work.analysis = replace(work.analysis, rows=note)
    result = work.run()
    # Rank 1 was late after its first batch, the second of all, and the others had all the time that they wanted.
    assert starts == {2: [21, 35], 3: [28]}[outputs[1]]
    assert content(result) == content(rank_jobs.work_of(path, tmp_path, "gradient-maps").run())
    assert [file.name for file in result.parent.iterdir()] == [result.name]


def test_every_rank_hears_what_the_first_one_says(outputs: Outputs) -> None:
    folder, count = outputs
    for index in range(count):
        lines = (folder / f"said-{index}.txt").read_text(encoding="utf-8").split("\n")[1:]
        kind = "UserError" if index == 0 else "FromFirst"
        assert lines == [
            f"{kind}: only rank 0 can know",
            "[0, 'é']",
            "b''",
            "(True, False)",
            f"UserError: a batch of 1 images cannot be shared by {count} processes: "
            "--set batch_size=N takes a multiple of them.",
        ]


def test_a_killed_worker_costs_the_steps_since_the_last_save_and_is_in_the_history(tmp_path: Path) -> None:
    runs, logs = [], []
    for name in ("killed", "left alone"):
        (folder := tmp_path / name).mkdir()
        rank_jobs.together(2, rank_jobs.in_group, rank_jobs.train_and_be_killed, folder, restarts=1)
        log, path = sorted(folder.iterdir())
        runs.append(checkpoint.read(path))
        logs.append([json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()])
    restart, whole = runs
    assert restart.sha256 == whole.sha256
    steps = [row.pop("restarted_from_step", None) for row in restart.about["history"]]
    assert len(steps) == 3 and steps[0] is steps[2] is None and steps[1] in (8, 9)
    for row in (*restart.about["history"], *whole.about["history"]):
        row.pop("seconds")
    assert restart.about["history"] == whole.about["history"]
    (earlier,) = restart.about["earlier"]
    assert (earlier["step"], earlier["restart"], earlier["environment"]["processes"]) == (steps[1], 1, 2)
    assert whole.about["earlier"] == []
    check_logs(logs[0], logs[1], [row["accuracy"] for row in whole.about["history"]])


def check_logs(restart: list[dict[str, Any]], whole: list[dict[str, Any]], accuracies: list[float]) -> None:
    """The log has every line once, whoever was killed, and counts the images of all ranks."""
    for row in (*restart, *whole):
        for name in ("time", "seconds", "restarted_from_step"):
            row.pop(name, None)
    assert restart == whole
    assert [row["step"] for row in whole] == [2, 4, 6, 6, 8, 10, 12, 12, 14, 16, 18, 18]
    assert [row["accuracy"] for row in whole if row["kind"] == "epoch"] == accuracies
    for epoch, accuracy in enumerate(accuracies):
        of_steps = [row["accuracy"] for row in whole[4 * epoch : 4 * epoch + 3]]
        assert sum(of_steps) / 3 == pytest.approx(accuracy, rel=1e-5)


def test_one_process_goes_on_where_two_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The totals of an unfinished epoch are those of all ranks, and only the first takes them up."""
    run = Run(rank_jobs.killed_job(), torch.device("cpu"))
    for _ in range(4):
        run.advance()
    state, tensors = run.state()
    snapshot = checkpoint.Checkpoint(tmp_path, state, {name: tensor.clone() for name, tensor in tensors.items()}, "")
    monkeypatch.setattr(ranks, "find_rank", lambda: 1)
    other = Run(rank_jobs.killed_job(), torch.device("cpu"))
    other.restore(snapshot)
    assert not other.totals.sums.any() and run.totals.sums.any()


def test_a_command_prints_once(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    labels = np.arange(40) % 3
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    train = ["train", "natural", "at", "--dataset", str(tmp_path / "data.npz"), "--recipe", "quick"]
    sizes = ["--set", "epochs=1", "--set", "batch_size=20", "--root", str(tmp_path)]
    rank_jobs.together(2, rank_jobs.command, tmp_path, *train, *sizes)
    outputs = [(tmp_path / f"printed-{index}.txt").read_text(encoding="utf-8") for index in range(2)]
    assert outputs[1] == ""
    assert [line.split(":")[0] for line in outputs[0].splitlines()] == [
        "trained data-small-natural-seed0.safetensors",
        "trained data-small-at-seed0.safetensors",
    ]


def test_a_mistake_is_told_once_on_each_node(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["irt", "train", "nonsense"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(ranks, "process_group", nullcontext)
    for local, sentence in (("0", "irt: unknown variant 'nonsense'"), ("1", "")):
        monkeypatch.setenv("LOCAL_RANK", local)
        with pytest.raises(SystemExit) as exit_info:
            main()
        assert exit_info.value.code == 2
        assert capsys.readouterr().err.startswith(sentence) and bool(sentence) == (local == "0")


def test_torchrun_and_a_time_limit_would_go_round_in_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(UserError, match="would restart a run that stops at --time-limit: leave out"):
        irt.main(["train", "at", "--time-limit", "9h"], standalone_mode=False)


def test_other_commands_are_for_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("figure", "audit", "show", "validate"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "1")
        assert irt.main([name, "nonsense"], standalone_mode=False) == 0
        monkeypatch.setenv("RANK", "0")
        with pytest.raises((UserError, SystemExit)):
            irt.main([name, "nonsense"], standalone_mode=False)
