"""What `irt show` says of a checkpoint, of the state of a training, and of how an answer was made."""

from collections.abc import Callable
from pathlib import Path

from interpret_robust.cli.description import _list_origin, describe
from interpret_robust.models import checkpoint

SESSION = {
    "code": {"version": "0.1.0", "commit": "bbb"},
    "environment": {"torch": "2.14", "device": "cpu"},
    "precision": "float32",
}
OTHER_CODE = SESSION | {"code": {"version": "0.1.0", "commit": "aaa"}, "step": 1222}
OTHER_ENVIRONMENT = SESSION | {"environment": {"device": "cuda"}, "step": 1255}


def test_sessions_and_times_are_told_as_people_read_them(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    whole = checkpoint.read(make_checkpoint(tmp_path))
    state = {
        **SESSION,
        "earlier": [OTHER_CODE, OTHER_ENVIRONMENT, SESSION | {"step": 1686}],
        "history": [{"epoch": 12345, "cross_entropy": 1.5, "seconds": 11630.2}],
        "step": 9,
        "seconds": 12877.2,
        "line_step": 8,
    }
    path = tmp_path / "mine.state.safetensors"
    checkpoint.write(path, whole.about | state, whole.tensors)
    facts, table = describe(path).split("\n\n")[1:]
    assert facts.split("\n")[-5:] == [
        "step: 9 of 10 steps",
        "time: 3 h 35 min",
        "earlier, to step 1,222: code.commit: aaa, else as above",
        "earlier, to step 1,255: environment.torch: not noted, environment.device: cuda, else as above",
        "earlier, to step 1,686: as above",
    ]
    assert table.split("\n")[0].split() == ["epoch", "cross_entropy", "time"]
    assert table.split("\n")[2].split(None, 2) == ["12345", "1.5", "3 h 14 min"]
    assert "line_step" not in facts


def test_of_an_evaluator_trained_alike_only_the_differences_are_told() -> None:
    job = {"variant": "at", "seed": 0, "recipe": {"eps": 0.1, "epochs": 2}}
    evaluators = {"names": ["a", "b", "c"], "jobs": {"a": job | {"seed": 1}, "b": job, "c": {"variant": "mine"}}}
    config = {"checkpoint": {"job": job}, "evaluators": evaluators}
    text = "\n".join(_list_origin({"config": config, "run": {"seconds": 61.0}, "environment": {"device": "cpu"}}))
    assert text.split("\n")[4:] == [
        'config.evaluators.names: ["a", "b", "c"]',
        "config.evaluators.jobs.a: seed: 1, else as config.checkpoint.job",
        "config.evaluators.jobs.b: as config.checkpoint.job",
        "config.evaluators.jobs.c.variant: mine",
        "run.time: 1 min 1 s",
        "environment.device: cpu",
    ]
