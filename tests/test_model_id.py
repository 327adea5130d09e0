"""What makes two answers those of one model: its weights, and of one from elsewhere how these are asked."""

from typing import Any

import pytest
import torch
from anyone import Convolutions, noise, seed_network

import interpret_robust as ir
from interpret_robust.core.errors import UserError
from interpret_robust.models.normalization import name_statistics
from interpret_robust.results.model_entry import identify_model
from interpret_robust.results.names import label

CARD: dict[str, Any] = {
    "model": "mine:net",
    "weights": "best.pt",
    "arguments": [["depth", 3]],
    "normalize": "imagenet",
    "resize": None,
    "local_layer": None,
    "attention_layer": None,
    "label": None,
}
JOB: dict[str, Any] = {
    "dataset": "digits",
    "class_names": ["a", "b"],
    "architecture": "any",
    "variant": "mine-net-best",
    "seed": None,
    "card": CARD,
    "layers": {"local": "layer4", "attention": None},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"normalize": "none"},
        {"normalize": "0.485,0.456,0.406,0.229,0.224,0.226"},
        {"resize": 64},
        {"logits": "1"},
        {"draws": 20},
        {"arguments": [["depth", 4]]},
        {"arguments": []},
        {"model": "mine:other"},
        {"label": "mine"},
    ],
)
def test_what_changes_the_function_changes_the_model(changes: dict[str, Any]) -> None:
    assert identify_model("a", JOB) != identify_model("a", JOB | {"card": CARD | changes})


@pytest.mark.parametrize(
    "layers", [{"local": "layer3", "attention": None}, {"local": "layer4", "attention": "head"}, {"local": None}]
)
def test_local_features_of_another_layer_are_of_another_model(layers: dict[str, Any]) -> None:
    assert identify_model("a", JOB) != identify_model("a", JOB | {"layers": layers})


@pytest.mark.parametrize(
    "changes",
    [
        {"normalize": "0.485,0.456,0.406,0.229,0.224,0.225"},
        {"weights": "copy of best.pt"},
        {"weights_key": "model_ema"},
        {"local_layer": "layer4"},
        {"arguments": (("depth", 3),)},
    ],
)
def test_what_does_not_change_the_function_leaves_the_model(changes: dict[str, Any]) -> None:
    job = JOB | {"dataset": "others", "class_names": ["c", "d"], "variant": "elsewhere", "card": CARD | changes}
    assert identify_model("a", JOB) == identify_model("a", job)
    assert identify_model("a", JOB) != identify_model("b", job)


def test_a_checkpoint_of_ours_is_told_by_its_weights_alone() -> None:
    job = {"dataset": "cifar10", "architecture": "small", "variant": "at", "seed": 0, "recipe": {"name": "quick"}}
    assert identify_model("a", job) == identify_model("a", job | {"variant": "at-att", "seed": 1, "images": 50}) == "a"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("imagenet", "imagenet"),
        ("0.485,0.456,0.406,0.229,0.224,0.225", "imagenet"),
        ("0,0,0,1,1,1", "none"),
        ("0.5,0.5,0.5,0.50,0.5,0.5", "inception"),
        ("0,0.00392157", "bytes"),
        ("0.40,0.2", "0.4,0.2"),
        ("0.4,0.4,0.2,0.25", "0.4,0.4,0.2,0.25"),
    ],
)
def test_a_normalization_has_one_name(text: str, name: str) -> None:
    assert name_statistics(text) == name


@pytest.mark.filterwarnings("ignore::interpret_robust.core.errors.DoubtWarning")
def test_answers_of_one_network_behind_two_normalizations_stand_apart() -> None:
    data = noise()
    models = [ir.load(seed_network(Convolutions), data, normalize=name) for name in ("none", "0.5,0.25")]
    assert models[0].name == models[1].name
    answers = ir.analyze("robustness", models, pgd=1, cw="none")
    names = [f"noise-Convolutions (normalize {name})" for name in ("none", "0.5,0.25")]
    assert list(answers["accuracy/natural"]) == names
    images = torch.from_numpy(data.test.images).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(data.test.labels)
    for name, (mean, deviation) in zip(names, ((0, 1), (0.5, 0.25)), strict=True):
        predicted = seed_network(Convolutions)((images - mean) / deviation).argmax(1)
        assert answers[name].result["per_image/prediction_natural"][:, 0].tolist() == predicted.tolist()
        right = float((predicted == labels).float().mean())
        assert answers["accuracy/natural"][name].value == pytest.approx(right)
    assert all(name in str(answers).replace("\n", " ") for name in ("normalize none", "normalize 0.5,0.25"))
    frame = answers.to_dataframe()
    assert frame["model"].unique().tolist() == ["Convolutions, normalize none", "Convolutions, normalize 0.5,0.25"]
    assert list(answers.to_xarray().children) == names
    assert label(answers[0].result) == "Convolutions"


@pytest.mark.filterwarnings("ignore::interpret_robust.core.errors.DoubtWarning")
def test_a_model_may_read_for_the_same_weights_otherwise_asked_but_not_for_itself() -> None:
    data, network = noise(), seed_network(Convolutions)
    model = ir.load(network, data)

    def ask(**card: Any) -> str:
        reader = ir.load(network, data, **card)
        return str(ir.analyze("robustness", model, pgd=1, cw="none", evaluators=[reader]))

    assert "PGD-1 of      Convolutions  otherwise" in ask(normalize="clip", label="otherwise")
    for arguments in (
        {"label": "again"},
        {"label": "again", "local_layer": "stem"},
        {"label": "again", "normalize": "0,1"},
    ):
        with pytest.raises(UserError, match="cannot be its own evaluator"):
            ask(**arguments)
    with pytest.raises(UserError, match=r"one name \(noise-Convolutions\): their columns could not be told apart"):
        ask(normalize="clip")
