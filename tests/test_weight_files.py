"""Weights as people's programs save them: below keys, behind prefixes, beside a moving average, in other precisions."""

import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anyone import C, Convolutions, H, K, W, noise, seed_network
from networks import pixels
from safetensors.torch import save_file
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust.core.errors import DoubtWarning, UserError
from interpret_robust.datasets.base import Dataset, Split, number_classes
from interpret_robust.models.building import build_network
from interpret_robust.models.card import Card
from interpret_robust.models.checks.file_accuracy import find_accuracies
from interpret_robust.models.copying import unwrap
from interpret_robust.models.external import bring
from interpret_robust.models.normalization import STATISTICS
from interpret_robust.models.weights.classes import list_order_doubts
from interpret_robust.models.weights.content import read_content
from interpret_robust.models.weights.files import count_rows, load_weights

Weights = dict[str, Tensor]


def weights(seed: int = 1) -> Weights:
    tensors: Weights = seed_network(Convolutions, seed=seed).state_dict()
    return tensors


def add_prefix(prefix: str, tensors: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def infix(word: str, tensors: Weights) -> Weights:
    """Names with a word behind that of the outermost layer, as where this alone was wrapped."""
    return {name.replace(".", f".{word}.", 1): tensor for name, tensor in tensors.items()}


def answers_of(path: Path, key: str | None = None) -> Tensor:
    """The logits of a network that began with other weights and then read a file."""
    network: nn.Module = seed_network(Convolutions, seed=0)
    load_weights(network, "mine", path, key)
    logits: Tensor = network(pixels(3, C, H, W))
    return logits


def expected(seed: int = 1) -> Tensor:
    logits: Tensor = seed_network(Convolutions, seed=seed)(pixels(3, C, H, W))
    return logits


def without_counters(tensors: Weights) -> Weights:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def in_precision(dtype: torch.dtype, tensors: Weights) -> Weights:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def nest_under(key: str) -> Callable[[Weights], Any]:
    """Weights at a key, beside what an optimizer keeps."""
    return lambda tensors: {key: tensors, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}


LAYOUTS: dict[str, Callable[[Weights], Any]] = {
    "plain": lambda tensors: tensors,
    "compiled": lambda tensors: add_prefix("_orig_mod.", tensors),
    "data-parallel": lambda tensors: add_prefix("module.", tensors),
    "both": lambda tensors: add_prefix("module._orig_mod.", tensors),
    "a layer checkpointed": lambda tensors: infix("_checkpoint_wrapped_module", tensors),
    "a layer compiled": lambda tensors: infix("_orig_mod", tensors),
    "a layer data-parallel": lambda tensors: add_prefix("model.", infix("module", tensors)),
    "all layers sharded": lambda tensors: add_prefix("_fsdp_wrapped_module.", infix("_fsdp_wrapped_module", tensors)),
    "averaged counters": lambda tensors: {name: tensor.float() for name, tensor in tensors.items()},
    "behind an epoch": lambda tensors: (3, tensors),
    "behind an epoch, nested": lambda tensors: [3, {"model": add_prefix("module.", tensors)}],
    "both the other way": lambda tensors: add_prefix("_orig_mod.module.", tensors),
    "Lightning": lambda tensors: {
        "state_dict": add_prefix("model.", tensors),
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
    },
    "Lightning with a loss": lambda tensors: {
        "state_dict": add_prefix("model.", tensors) | {"loss.weight": torch.ones(7), "metric.total": torch.tensor(3)}
    },
    **{key: nest_under(key) for key in ("net", "weights", "params", "model_state", "model_state_dict", "model")},
    "deep": lambda tensors: {"checkpoint": {"model": {"weights": add_prefix("backbone.", tensors)}}},
    "without counters": without_counters,
    "half": lambda tensors: {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    },
    "double": lambda tensors: {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    },
    "sparse": lambda tensors: tensors | {"answer.weight": tensors["answer.weight"].to_sparse()},
    "parameters": lambda tensors: {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()},
}


@pytest.mark.filterwarnings("ignore:.*[Ss]parse.*")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_read_however_they_are_wrapped(layout: str, tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](weights()), tmp_path / "weights.pt")
    tolerance = 0.02 if layout == "half" else 1e-6
    torch.testing.assert_close(answers_of(tmp_path / "weights.pt"), expected(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "model."])
def test_safetensors_are_read_behind_a_prefix(prefix: str, tmp_path: Path) -> None:
    save_file(add_prefix(prefix, weights()), tmp_path / "weights.safetensors")
    torch.testing.assert_close(answers_of(tmp_path / "weights.safetensors"), expected())


TWINS: dict[str, tuple[Callable[[Weights, Weights], Any], str, str]] = {
    "beside": (lambda first, second: {"model": first, "model_ema": second}, "model", "model_ema"),
    "timm": (lambda first, second: {"state_dict": first, "state_dict_ema": second}, "state_dict", "state_dict_ema"),
    "inside": (
        lambda first, second: {"state_dict": add_prefix("model.", first) | add_prefix("model.ema.", second)},
        "state_dict.model",
        "state_dict.model.ema",
    ),
    "Lightning": (
        lambda first, second: {"state_dict": add_prefix("model.", first) | add_prefix("ema_model.module.", second)},
        "state_dict.model",
        "state_dict.ema_model.module",
    ),
    "averaged counters": (
        lambda first, second: {
            "student": first,
            "teacher": {name: tensor.float() for name, tensor in second.items()},
        },
        "student",
        "teacher",
    ),
}


@pytest.mark.parametrize("layout", TWINS)
def test_of_two_sets_that_fit_the_user_chooses_one(layout: str, tmp_path: Path) -> None:
    build, first, second = TWINS[layout]
    path = tmp_path / "weights.pt"
    torch.save(build(weights(1), weights(2)), path)
    with pytest.raises(UserError) as error:
        answers_of(path)
    assert f"holds several weights of mine, at '{first}', '{second}': --weights-key chooses one" in str(error.value)
    torch.testing.assert_close(answers_of(path, first), expected(1))
    torch.testing.assert_close(answers_of(path, second), expected(2))
    with pytest.raises(UserError, match=rf"at --weights-key typo; places that do: '{first}', '{second}'"):
        answers_of(path, "typo")


AVERAGES: dict[str, Callable[[Weights, Weights], Any]] = {
    "a list": lambda first, second: {"model": first, "ema": {"decay": 0.99, "shadow_params": list(second.values())}},
    "names without dots": lambda first, second: {
        "model": first,
        "model_ema": {name.replace(".", ""): tensor for name, tensor in second.items()},
    },
    "parameters only": lambda first, second: {
        "model": first,
        "ema": {name: tensor for name, tensor in second.items() if "running" not in name},
    },
}


@pytest.mark.parametrize("layout", AVERAGES)
def test_a_moving_average_in_another_form_is_not_passed_over(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(AVERAGES[layout](weights(1), weights(2)), path)
    with pytest.raises(UserError, match="looks like a moving average of them in another form: --weights-key 'model'"):
        answers_of(path)
    torch.testing.assert_close(answers_of(path, "model"), expected(1))


@pytest.mark.parametrize("weight_sum", [{"weight_sum": 3.0}, {}], ids=["sum", "no sum"])
@pytest.mark.parametrize("train_mode", [True, False])
def test_weights_between_the_steps_of_a_schedule_free_optimizer_are_refused(
    train_mode: bool, weight_sum: dict[str, float], tmp_path: Path
) -> None:
    """As `schedulefree` saves them: in training mode weights are where gradients are taken, not their average."""
    group = {"lr": 0.1, "train_mode": train_mode, "params": [0]} | weight_sum
    path = tmp_path / "weights.pt"
    torch.save({"model": weights(), "optimizer": {"state": {}, "param_groups": [group]}}, path)
    if train_mode:
        with pytest.raises(UserError, match=r"call optimizer\.eval\(\) before .*--weights-key 'model'"):
            answers_of(path)
    torch.testing.assert_close(answers_of(path, "model" if train_mode else None), expected())


def test_colors_are_told_from_other_means(tmp_path: Path) -> None:
    rest = {"bn.running_mean": torch.zeros(3), "log_sigma": torch.zeros(1), "head": {"sigma": torch.ones(1)}}
    path, network = tmp_path / "weights.pt", seed_network(Convolutions, seed=0)
    rest |= {"val_loss": {"mean_value": torch.tensor(0.3), "std": torch.tensor(0.1)}, "normalization": "batch"}
    rest |= {"summary": {"mean": 91.2, "std": 0.3}, "mean_robustness": [0.6, 0.4, 0.2], "variance": "0.1 0.2 0.2"}
    rest |= {"smoothing": {"sigma": [0.12, 0.25, 0.5]}, "weight_stats": {"mean": 0.0, "std": 0.1}}
    rest |= {"input_range": [0, 1], "cfg": "init: {type: Normal, mean: -2.0, std: 0.1}"}
    rest |= {"init": {"mean": 0.0, "std": 0.02}, "noise_mean": 0.0, "noise_std": 0.1, "args.mean": None}
    torch.save({"model": weights(), "args": {"sigma": 0.25, "std": 0.1}, "metrics": {"mean": 0.9}} | rest, path)
    load_weights(network, "mine", path, normalization=STATISTICS["none"])
    torch.testing.assert_close(network(pixels(3, C, H, W)), expected())


@pytest.mark.parametrize("kind", ["in a layer", "twice"])
def test_weights_behind_wrappers_beside_others_are_a_choice(kind: str, tmp_path: Path) -> None:
    """Names that a wrapper changed count as much as those it did not; and one place may hold two."""
    first, second = infix("_fsdp_wrapped_module", weights(1)), weights(2)
    content = (
        {"model": first, "init": second}
        if kind == "in a layer"
        else add_prefix("model.", weights(1)) | {"model": second}
    )
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="holds several weights of mine, at "):
        answers_of(tmp_path / "weights.pt")


def test_part_of_weights_behind_a_wrapper_is_left_aside_and_said(tmp_path: Path) -> None:
    path, network = tmp_path / "weights.pt", seed_network(Convolutions, seed=0)
    name = next(iter(weights()))
    torch.save(weights(1) | {f"module.{name}": weights(2)[name]}, path)
    assert load_weights(network, "mine", path).extras == [f"module.{name}"]
    torch.testing.assert_close(network(pixels(3, C, H, W)), expected(1))


class Numbered(nn.Module):
    """A layer that keeps a number in its state dict, which is no tensor."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(3, 3), scale

    def _save_to_state_dict(self, state: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(state, prefix, keep_vars)
        state[f"{prefix}scale"] = self.scale

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.scale = state.pop(f"{prefix}scale")
        super()._load_from_state_dict(state, prefix, *rest)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_number_that_a_layer_keeps_is_read(prefix: str, tmp_path: Path) -> None:
    source, network = nn.Sequential(Numbered(3.0)), nn.Sequential(Numbered(1.0))
    torch.save(add_prefix(prefix, source.state_dict()), tmp_path / "weights.pt")
    assert load_weights(network, "mine", tmp_path / "weights.pt") == ([], [], [])
    torch.testing.assert_close(network.state_dict(), source.state_dict())


def test_tensors_kept_beside_are_compared_and_missed(tmp_path: Path) -> None:
    source, network = ExtraLayer({"scale": torch.arange(3)}), ExtraLayer({"scale": torch.zeros(3)})
    path = tmp_path / "weights.pt"
    torch.save({"model": source.state_dict(), "copy": source.state_dict()}, path)
    load_weights(network, "mine", path)
    assert torch.equal(network.extra["scale"], torch.arange(3))
    other = ExtraLayer({"scale": torch.ones(3)}).state_dict() | source.layer.state_dict(prefix="layer.")
    torch.save({"model": source.state_dict(), "other": other}, path)
    with pytest.raises(UserError, match="holds several weights of mine, at 'model', 'other'"):
        load_weights(network, "mine", path)
    torch.save(source.layer.state_dict(prefix="layer."), path)
    assert load_weights(ExtraLayer(torch.arange(3)), "mine", path).gaps == ["_extra_state"]


@pytest.mark.parametrize(
    "entry",
    [
        {"args": {"mu": 7, "sigma": 0.25}, "acc_mean": 0.7, "acc_std": 0.1},
        {"config": {"params": 11, "train_mode": "finetune"}},
        {"metrics": {"average_precision": torch.zeros(7)}},
        {"args": {"train_mode": True, "normalize": True, "mean": None, "std": 0.1, "norm": "batch", "scale": 2.0}},
        {"history": {"train_loss_ema": torch.zeros(9)}, "loss_ema": torch.zeros(10)},
    ],
    ids=["numbers", "mode", "average", "options", "curves"],
)
def test_ordinary_numbers_of_training_are_no_question(entry: dict[str, Any], tmp_path: Path) -> None:
    path, network = tmp_path / "weights.pt", seed_network(Convolutions, seed=0)
    torch.save({"model": weights()} | entry, path)
    assert load_weights(network, "mine", path, normalization=STATISTICS["none"]) == ([], [], [])
    torch.testing.assert_close(network(pixels(3, C, H, W)), expected())


@pytest.mark.parametrize(
    ("entry", "accuracies"),
    [
        ({"acc": 93.5}, [("acc", 93.5, 0.935)]),
        ({"log": {"best_val_acc1": torch.tensor(0.75)}}, [("log.best_val_acc1", 0.75, 0.75)]),
        ({"train_acc": 0.99, "acc5": 0.98, "top": 5, "acc_history": [0.9], "test_loss": 0.9}, []),
        ({"accuracy": torch.tensor([0.9, 0.8])}, []),
        ({"best_acc": True, "acc": 0.0, "test_accuracy": 100}, []),
    ],
)
def test_an_accuracy_that_a_file_states_is_found(
    entry: dict[str, Any], accuracies: list[tuple[str, float, float]]
) -> None:
    assert list(find_accuracies({"model": weights()} | entry)) == accuracies


@pytest.mark.parametrize(("share", "is_doubted"), [(0.93, True), (0.8, False), (0.5, False)])
def test_a_model_that_is_less_accurate_than_its_file_says_is_doubted(
    share: float, is_doubted: bool, tmp_path: Path
) -> None:
    """Two grays, exchanged in a third of the images."""
    labels = np.arange(96) % 2
    images = np.broadcast_to((80 + 80 * (labels ^ (np.arange(96) % 6 > 3)))[:, None, None, None], (96, 6, 6, 3))
    split = Split(images.astype(np.uint8), labels)
    data = Dataset("grays", split, split, ("dark", "bright"))

    class Grays(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            gray = pixels.mean((1, 2, 3)) - 120 / 255
            return torch.stack([-gray, gray], 1)

    torch.save({"model": {}, "best_acc": share}, tmp_path / "net.pt")
    model = bring(Grays(), Card("mine:net", weights=str(tmp_path / "net.pt"), label="mine"), data, "g")
    sentence = "mine is right on 67% of 96 test images, and 'best_acc' in net.pt is 0.93: is the network built as"
    assert any(doubt.startswith(sentence) for doubt in model.doubts) == is_doubted


def test_a_network_that_renames_and_resizes_what_it_loads_is_left_to_torch(tmp_path: Path) -> None:
    class Renaming(nn.Module):
        bank: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.register_buffer("bank", torch.zeros(0))

        def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
            for name in ("weight", "bias"):
                state[f"{prefix}layer.{name}"] = state.pop(f"{prefix}old.{name}")
            self.bank = torch.zeros_like(state[f"{prefix}bank"])
            super()._load_from_state_dict(state, prefix, *rest)

    source, network = nn.Linear(3, 3), Renaming()
    torch.save({"model": source.state_dict(prefix="old.") | {"bank": torch.arange(7.0)}}, tmp_path / "old.pt")
    assert load_weights(network, "mine", tmp_path / "old.pt") == ([], [], [])
    assert torch.equal(network.layer.weight, source.weight) and torch.equal(network.bank, torch.arange(7.0))


def test_a_layer_that_refuses_its_part_is_one_sentence(tmp_path: Path) -> None:
    class Refusing(nn.Linear):
        def _load_from_state_dict(self, *_: Any) -> None:
            raise ValueError("version should be 2")

    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"does not load into mine, though all shapes fit \(version should be 2\)"):
        load_weights(Refusing(3, 3), "mine", tmp_path / "weights.pt")


def test_tensors_that_share_memory_are_one(tmp_path: Path) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = nn.Parameter(first.weight.data)
    network = nn.Sequential(first, second)
    torch.save(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match="which are one tensor in mine: build it with a tensor for each"):
        load_weights(network, "mine", tmp_path / "weights.pt")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_older_names_of_weight_norm_are_read(prefix: str, tmp_path: Path) -> None:
    """torch reads them too; the length is doubled, so that it is not what a new network begins with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        older = nn.Sequential(nn.Conv2d(C, 4, 3), nn.utils.weight_norm(nn.Conv2d(4, K, 3)), nn.Flatten(2))
    newer = nn.Sequential(nn.Conv2d(C, 4, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(4, K, 3)), nn.Flatten(2))
    tensors = older.state_dict()
    tensors["1.weight_g"] *= 2
    path, images = tmp_path / "weights.pt", pixels(3, C, H, W)
    torch.save(add_prefix(prefix, tensors), path)
    assert load_weights(newer, "mine", path).extras == []
    torch.testing.assert_close(newer(images), older(images))


COLORS = torch.tensor([0.5, 0.4, 0.3])

NORMALIZATIONS: dict[str, Callable[[Weights], Any]] = {
    "1.mean": lambda tensors: add_prefix("0.", tensors) | {"1.mean": COLORS, "1.std": COLORS},
    "model.normalizer.new_mean": lambda tensors: {
        "model": add_prefix("module.", tensors) | {"normalizer.new_mean": COLORS.reshape(1, 3, 1, 1)}
    },
    "data.mu": lambda tensors: {"data": {"mu": COLORS}, "state_dict": tensors},
    "cfg.MEAN": lambda tensors: {"cfg": {"MEAN": 0.5, "STD": [0.2]}, "model": tensors},
    "model.normalize": lambda tensors: {"model": {"normalize": [[0.5] * 3, [0.2] * 3]}, "weights": tensors},
    "args.mean": lambda tensors: {"args": {"mean": [0.5, 0.4, 0.3], "std": (0.2, 0.2, 0.2)}, "model": tensors},
    "args.means": lambda tensors: {"args": {"means": "0.5, 0.4, 0.3"}, "model": tensors},
    "cfg.PIXEL_MEAN": lambda tensors: {"cfg": {"PIXEL_MEAN": [123.7, 116.3, 103.5]}, "model": tensors},
    "norm.mean_rgb": lambda tensors: {"norm": {"mean_rgb": [[[0.5]], [[0.4]], [[0.3]]]}, "model": tensors},
    "stddev_rgb": lambda tensors: {"stddev_rgb": [0.2, 0.2, 0.1], "model": tensors},
    "hyper_parameters.mean": lambda tensors: {"hyper_parameters": {"mean": COLORS}, "state_dict": tensors},
    "gray.mean": lambda tensors: {"gray": {"mean": torch.tensor(0.5), "sigma": torch.tensor(0.2)}, "model": tensors},
    "norm.mean": lambda tensors: {"norm": {"mean": 0.5, "var": 0.04}, "model": tensors},
    "mean_std": lambda tensors: {"mean_std": torch.stack([COLORS, COLORS]), "model": tensors},
    "stats.0": lambda tensors: {"stats": (COLORS, COLORS), "model": tensors},
    "normalize": lambda tensors: {"normalize": "imagenet", "model": tensors},
    "opt.mean": lambda tensors: {"opt": {"mean": "(0.5, 0.4, 0.3)", "std": "(0.2, 0.2, 0.2)"}, "model": tensors},
    "best_acc.mean": lambda tensors: {"best_acc": {"state_dict": tensors, "mean": [0.5] * 3, "std": [0.2] * 3}},
    "cfg.image_mean": lambda tensors: {"cfg": {"image_mean": 0.47, "image_std": 0.25}, "model": tensors},
    "rgb.mean": lambda tensors: {"rgb": {"mean": {"r": 0.5, "g": 0.4, "b": 0.3}}, "model": tensors},
    "nargs.mean": lambda tensors: {"nargs": {"mean": ["0.5", "0.4", "0.3"]}, "model": tensors},
    "colors.shift": lambda tensors: {"colors": {"shift": [0.5, 0.4, 0.3], "scale": [0.2] * 3}, "model": tensors},
    "input_range": lambda tensors: {"input_range": [-1, 1], "model": tensors},
    "preprocessing": lambda tensors: {"preprocessing": "imagenet_default", "model": tensors},
    "meta.cfg": lambda tensors: {
        "meta": {"cfg": "img_norm = dict(\n  mean=[\n    123.7,\n 116.3, 103.5])"},
        "model": tensors,
    },
    "yaml": lambda tensors: {"yaml": "data:\n  mean:\n  - 0.5\n  - 0.4\n  - 0.3\n", "model": tensors},
    "tf": lambda tensors: {
        "tf": "Compose([ToTensor(), Normalize((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))])",
        "model": tensors,
    },
    "config.normalize_input": lambda tensors: {"config": {"normalize_input": True}, "model": tensors},
    "data.doNormalize": lambda tensors: {"data": {"doNormalize": True, "zca": False}, "model": tensors},
    "hparams.zca_whitening": lambda tensors: {"hparams": {"zca_whitening": True}, "state_dict": tensors},
    "transform": lambda tensors: {"transform": "Compose(\n  Normalize(mean=(0.5,), std=(0.2,))\n)", "model": tensors},
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_normalization_beside_the_weights_is_not_passed_over_unless_the_user_names_one(
    name: str, tmp_path: Path
) -> None:
    path, network = tmp_path / "weights.pt", seed_network(Convolutions, seed=0)
    torch.save(NORMALIZATIONS[name](weights()), path)
    with pytest.raises(UserError, match=f"at '{name}' what looks like the normalization that they were trained with"):
        load_weights(network, "mine", path, normalization=STATISTICS["none"])
    load_weights(network, "mine", path)
    torch.testing.assert_close(network(pixels(3, C, H, W)), expected())


def test_the_normalization_that_is_used_is_no_question(tmp_path: Path) -> None:
    path, network = tmp_path / "weights.pt", seed_network(Convolutions, seed=0)
    mean, deviation = STATISTICS["imagenet"]
    torch.save({"model": weights(), "args": {"mean": list(mean), "std": torch.tensor(deviation)}}, path)
    assert load_weights(network, "mine", path, normalization=STATISTICS["imagenet"]).extras == []
    with pytest.raises(UserError, match=r"at 'args\.mean'"):
        load_weights(network, "mine", path, normalization=STATISTICS["none"])
    torch.save({"model": weights(), "args": {"mean": [0, 0, 0], "std": [1.0, 1.0, 1.0]}}, path)
    load_weights(network, "mine", path, normalization=STATISTICS["none"])
    torch.save({"model": weights(), "args": {"normalize_input": True}}, path)
    load_weights(network, "mine", path, normalization=STATISTICS["imagenet"])
    other_options = {"normalize_input": False, "normalize_before": True, "batch_norm": True, "layer_norm": True}
    torch.save({"model": weights(), "args": other_options}, path)
    load_weights(network, "mine", path, normalization=STATISTICS["none"])


def test_a_normalization_that_the_network_holds_itself_is_used(tmp_path: Path) -> None:
    class Normalizing(nn.Module):
        def __init__(self, mean: Tensor) -> None:
            super().__init__()
            self.network = seed_network(Convolutions)
            self.register_buffer("mean", mean)

    network = Normalizing(torch.zeros(3))
    torch.save(Normalizing(COLORS).state_dict(), tmp_path / "weights.pt")
    load_weights(network, "mine", tmp_path / "weights.pt", normalization=STATISTICS["none"])
    assert torch.equal(network.state_dict()["mean"], COLORS)


def test_the_counter_of_averaged_weights_is_no_second_set(tmp_path: Path) -> None:
    average = torch.optim.swa_utils.AveragedModel(seed_network(Convolutions, seed=1))
    torch.save(average.state_dict(), tmp_path / "weights.pt")
    torch.testing.assert_close(answers_of(tmp_path / "weights.pt"), expected())


def test_a_key_without_a_file_is_refused() -> None:
    for weights_of_card in (None, "random", "pretrained"):
        with pytest.raises(UserError, match="--weights-key ema chooses among weights in a file: give --weights FILE"):
            Card("mine:net", weights=weights_of_card, weights_key="ema")


def test_two_equal_sets_are_no_choice(tmp_path: Path) -> None:
    torch.save({"model": weights(), "model_ema": weights()}, tmp_path / "weights.pt")
    torch.testing.assert_close(answers_of(tmp_path / "weights.pt"), expected())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"model": {**weights(), "more": torch.zeros(2, 3)}},
            r"1 tensors at 'model' differ, first more \(shape \(2, 3\)",
        ),
        (
            add_prefix("model.", {**weights(), "answer.bias": torch.zeros(9)}),
            r"1 tensors at 'model' differ, first answer.bias",
        ),
        ({name: (100 * tensor).to(torch.int8) for name, tensor in weights().items()}, "in the file"),
        ({name: tensor.to(torch.float8_e4m3fn) for name, tensor in weights().items()}, "of float8_e4m3fn in the file"),
        ({"epoch": 3}, "holds no state dict"),
        ({}, "holds no state dict"),
        (torch.zeros(3), "holds no state dict"),
    ],
)
def test_a_file_without_the_weights_is_one_sentence(content: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=sentence):
        answers_of(tmp_path / "weights.pt")


EXTRA_LAYERS: dict[str, tuple[Weights, list[str]]] = {
    "head": (
        {"projection.0.weight": torch.zeros(4, 8), "projection.0.bias": torch.zeros(4)},
        ["projection.0.weight", "projection.0.bias"],
    ),
    "loss": ({"criterion.weight": torch.ones(7)}, ["criterion.weight"]),
    "optimizer": ({"optimizer.exp_avg.stem.weight": torch.zeros(4, C, 3, 3)}, ["optimizer.exp_avg.stem.weight"]),
    "counter": ({"queue.num_batches_tracked": torch.tensor(3)}, []),
}


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("kind", EXTRA_LAYERS)
def test_layers_that_the_network_lacks_are_left_aside_and_said(kind: str, prefix: str, tmp_path: Path) -> None:
    """At the top of a safetensors file, and behind the prefix of the network."""
    extras, names = EXTRA_LAYERS[kind]
    path, network = tmp_path / "weights.safetensors", seed_network(Convolutions, seed=0)
    save_file(add_prefix(prefix, weights() | extras), path)
    assert sorted(load_weights(network, "mine", path).extras) == sorted(prefix + name for name in names)
    torch.testing.assert_close(network(pixels(3, C, H, W)), expected())


def other_parameters() -> list[Tensor]:
    return [parameter.detach() for parameter in seed_network(Convolutions, seed=2).parameters()]


def other_vector() -> Tensor:
    return torch.cat([parameter.flatten() for parameter in other_parameters()])


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ({"masks": {"stem": torch.zeros(4, C, 3, 3)}}, ["masks.stem"]),
        ({"lora": {"A": torch.zeros(7, 2), "B": torch.zeros(2, 9)}}, ["lora.A", "lora.B"]),
        ({"optimizer": {"state": {0: {"exp_avg": torch.zeros(4, 3)}}}, "lr_schedule": [torch.zeros(9)]}, []),
        ({"trained_params": {"A": torch.zeros(7, 2)}}, ["trained_params.A"]),
        ({"prototypes": torch.zeros(7, 2)}, ["prototypes"]),
        ({"callbacks": {"best": {"stem.weight": torch.zeros(4, C, 3, 3)}}}, ["callbacks.best.stem.weight"]),
        ({"opt": [{"exp_avg": torch.zeros(7, 2)}], "state": {"optimizers": {"m": torch.zeros(7, 2)}}}, []),
        ({"losses": torch.zeros(30), "epoch": torch.tensor(3), "accuracy": torch.zeros(30)}, []),
        ({"pruned": torch.ones(30, dtype=torch.bool), "scales": torch.ones(30)}, ["pruned", "scales"]),
        ({"random_features": {"weight": torch.zeros(7, 2)}}, ["random_features.weight"]),
        ({"hypernetwork": {"w": torch.zeros(7, 2)}, "logit_shift": torch.zeros(7)}, ["hypernetwork.w", "logit_shift"]),
        ({"scales": {"stem": torch.tensor(0.1)}, "masks": {"answer": [True, False]}}, ["scales.stem", "masks"]),
        ({"scheduler": {"best": other_parameters()}, "slow": other_vector()}, ["slow", "scheduler.best.0"]),
        ({"AdEMAMix": {"exp_avg": torch.zeros(7)}}, ["AdEMAMix.exp_avg"]),
        ({"args": {"lora": {"A": torch.zeros(7, 2)}}}, ["args.lora.A"]),
    ],
    ids=[
        *("masks", "adapters", "optimizer", "trained", "top", "weights", "other optimizers", "curves"),
        *("flat parts", "words of training in another name", "other layers", "numbers of parts", "copies"),
        *("no average", "parts below words of training"),
    ],
)
def test_tensors_at_other_keys_are_said(entry: dict[str, Any], names: list[str], tmp_path: Path) -> None:
    path, network = tmp_path / "weights.pt", seed_network(Convolutions, seed=0)
    torch.save({"model": weights()} | entry, path)
    assert load_weights(network, "mine", path).extras == names
    torch.testing.assert_close(network(pixels(3, C, H, W)), expected())
    assert load_weights(network, "mine", path, "model").extras == []


def test_a_key_is_no_beginning_of_another(tmp_path: Path) -> None:
    """A moving average of parameters alone, in a flat file, whose name begins as that of the weights does."""
    path, network = tmp_path / "weights.safetensors", seed_network(Convolutions, seed=0)
    average = {name: weights.detach() + 1 for name, weights in network.named_parameters()}
    save_file(add_prefix("model.", weights()) | add_prefix("model_ema.", average), path)
    assert load_weights(network, "mine", path, "model").extras == []
    torch.testing.assert_close(network(pixels(3, C, H, W)), expected())


@pytest.mark.parametrize("number", [{"epoch": torch.tensor(3)}, {"best_acc": torch.tensor(0.9)}])
def test_numbers_that_tell_how_far_training_was_lie_beside_weights(number: Weights, tmp_path: Path) -> None:
    path, network = tmp_path / "weights.pt", seed_network(Convolutions, seed=0)
    for tensors in (weights(), add_prefix("net.", weights())):
        torch.save(tensors | number, path)
        assert load_weights(network, "mine", path) == ([], [], [])
    torch.save(add_prefix("net.", weights()) | {"gain": torch.tensor(0.5)}, path)
    assert load_weights(network, "mine", path).extras == ["gain"]
    torch.save(weights() | {"gain": torch.tensor(0.5)}, path)
    with pytest.raises(UserError, match="1 tensors differ, first gain"):
        load_weights(network, "mine", path)


class Lenient(Convolutions):
    """A network that loads what it knows, as many programs do, and is silent of the rest."""

    def load_state_dict(self, state_dict: Any, *_: Any, **__: Any) -> Any:
        return super().load_state_dict(
            {k: v for k, v in state_dict.items() if not k.startswith("answer")}, strict=False
        )


def test_a_network_that_leaves_weights_out_is_refused(tmp_path: Path) -> None:
    torch.save(weights(1), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"does not fill 'answer\.\w+' of mine, which stays as it was built"):
        load_weights(seed_network(Lenient, seed=0), "mine", tmp_path / "weights.pt")
    same = seed_network(Lenient, seed=1)
    assert load_weights(same, "mine", tmp_path / "weights.pt") == ([], [], [])
    torch.save({name: tensor.to_sparse() for name, tensor in weights(1).items()}, tmp_path / "weights.pt")
    assert load_weights(same, "mine", tmp_path / "weights.pt") == ([], [], [])


@pytest.mark.parametrize(("dtype", "number"), [(torch.uint8, 300), (torch.half, 1e6)])
def test_numbers_that_are_too_large_for_a_buffer_are_refused(dtype: torch.dtype, number: float, tmp_path: Path) -> None:
    network = nn.ModuleDict({"stem": nn.Linear(3, 2)})
    network.register_buffer("shift", torch.zeros(2, dtype=dtype))
    kind = torch.int64 if dtype == torch.uint8 else torch.float32
    for largest, fits in ((3, True), (number, False)):
        torch.save(network.state_dict() | {"shift": torch.tensor([1, largest], dtype=kind)}, tmp_path / "weights.pt")
        if fits:
            load_weights(network, "mine", tmp_path / "weights.pt")
            assert network.get_buffer("shift").tolist() == [1, 3]
        else:
            with pytest.raises(UserError, match="1 tensors differ, first shift"):
                load_weights(network, "mine", tmp_path / "weights.pt")


@pytest.mark.parametrize(("value", "is_drawn"), [("torch.rand(2)", True), ("torch.ones(2)", False)])
@pytest.mark.parametrize("kind", ["tensor", "buffer"])
def test_a_tensor_that_a_network_draws_and_no_file_holds_is_doubted(
    value: str, is_drawn: bool, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = (
        f"self.factor = {value}" if kind == "tensor" else f"self.register_buffer('factor', {value}, persistent=False)"
    )
    (tmp_path / f"drawing_{kind}_{is_drawn}.py").write_text(
        f"import torch\nclass Network(torch.nn.Linear):\n    def __init__(self):\n"
        f"        super().__init__(3, 2)\n        {setting}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "weights.pt")
    card = Card(f"drawing_{kind}_{is_drawn}:Network", weights=str(tmp_path / "weights.pt"))
    state = torch.get_rng_state()
    _, remarks = build_network(card, number_classes(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert [remark.startswith("draws 'factor' when it is built, and no file") for remark in remarks] == [
        True
    ] * is_drawn


NAMES = ["ant", "bee", "cow"]
SAID = "has 'bee' as its class 2 by '{}' of {}, and the images have it as label 1 (2 of 3 classes differ so): answers"

ORDERS: dict[str, Any] = {
    "class_to_idx": {"ant": 0, "cow": 1, "bee": 2},
    "idx_to_class": {2: "bee", 0: "ant", 1: "cow"},
    "id2label": {"0": "ANT", "1": "Cow", "2": "Bee"},
    "classes": ["ant", "cow", "bee"],
    "class_names": ("ant", "cow", "bee"),
    "label_names": "ant, cow, bee",
    "target_names": json.dumps(["ant", "cow", "bee"]),
    "labels": [["ant", "n01"], ["cow", "n02"], ["bee", "n03"]],
}


@pytest.mark.parametrize("key", ORDERS)
@pytest.mark.parametrize("place", ["", "hyper_parameters.data"])
def test_an_order_of_classes_that_a_file_states_is_compared(
    key: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "three_classes.py").write_text("import torch\ndef build(): return torch.nn.Linear(3, 3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = {key: ORDERS[key]}
    for outer in reversed(place.split(".") if place else []):
        entry = {outer: entry}
    torch.save({"state_dict": nn.Linear(3, 3).state_dict(), **entry}, tmp_path / "net.pt")
    card = Card("three_classes:build", weights=str(tmp_path / "net.pt"))
    (remark,) = build_network(card, NAMES)[1]
    assert remark.startswith(SAID.format(f"{place}.{key}".lstrip("."), "net.pt"))
    for names in (["ant", "cow", "bee"], ["Ant", "COW", "bee"], ["x", "y", "z"], number_classes(3), [*NAMES, "dog"]):
        assert build_network(card, names)[1] == []


@pytest.mark.parametrize(
    "entry",
    [
        {"classes": 3},
        {"classes": torch.arange(3)},
        {"class_weights": {"ant": 0, "cow": 1, "bee": 2}},
        {"class_to_idx": {"ant": 0, "cow": 1, "bee": 5}},
        {"labels": [None, 2, "ant"]},
        {"dataset": {"names": {"train": ["ant", "cow", "bee"]}}},
        {"class_names": "[" * 100_000},
    ],
)
def test_what_is_no_list_of_classes_says_nothing_of_their_order(entry: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"state_dict": nn.Linear(3, 3).state_dict(), **entry}, tmp_path / "net.pt")
    rest = load_weights(nn.Linear(3, 3), "mine", tmp_path / "net.pt")
    assert [*list_order_doubts(rest.class_lists, NAMES, "net.pt")] == []


@pytest.mark.parametrize("key", ["classes", "config"])
def test_the_texts_of_safetensors_state_an_order_of_classes(key: str, tmp_path: Path) -> None:
    order = ["ant", "cow", "bee"]
    text = json.dumps(order if key == "classes" else {"id2label": dict(enumerate(order))})
    save_file(nn.Linear(3, 3).state_dict(), tmp_path / "net.safetensors", {"format": "pt", key: text})
    rest = load_weights(nn.Linear(3, 3), "mine", tmp_path / "net.safetensors")
    (remark,) = list_order_doubts(rest.class_lists, NAMES, "it")
    assert remark.startswith(SAID.format(key if key == "classes" else "config.id2label", "it"))


@pytest.mark.parametrize("place", ["class_to_idx", "config.id2label"])
def test_an_order_of_classes_that_a_network_keeps_is_compared(place: str) -> None:
    network = seed_network(Convolutions)
    names = [f"name {number}" for number in range(K)]
    order = {name: number for number, name in enumerate(reversed(names))}
    if place == "class_to_idx":
        network.class_to_idx = order
    else:
        network.config = SimpleNamespace(id2label={number: name for name, number in order.items()})
    with pytest.warns(DoubtWarning, match=rf"mine has 'name 0' as its class 6 by '{place}' of the network, .*6 of 7"):
        ir.load(network, replace(noise(), class_names=tuple(names)), label="mine")
    doubts = ir.load(network, replace(noise(), class_names=tuple(reversed(names)))).doubts
    assert not any(place in doubt for doubt in doubts)


def test_files_are_read_by_what_they_hold_not_by_their_names(tmp_path: Path) -> None:
    save_file(weights(1), tmp_path / "weights.bin")
    torch.save(weights(2), tmp_path / "weights.safetensors")
    torch.testing.assert_close(answers_of(tmp_path / "weights.bin"), expected(1))
    torch.testing.assert_close(answers_of(tmp_path / "weights.safetensors"), expected(2))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("weights.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "`git lfs pull` fetches"),
        ("weights.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a pointer that Git LFS left"),
        ("weights.safetensors.index.json", b'{"weight_map": {"a": "b"}}', "in several files: save them as one"),
    ],
)
def test_what_stands_in_place_of_weights_is_named(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        answers_of(tmp_path / name)


def test_a_program_of_torch_is_named(tmp_path: Path) -> None:
    exported = torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),))
    torch.export.save(exported, tmp_path / "network.pt2")
    with pytest.raises(UserError, match="is a program of torch"):
        answers_of(tmp_path / "network.pt2")


def test_the_number_of_classes_is_that_of_the_rows_that_differ(tmp_path: Path) -> None:
    """Of the last layer alone: a file of other inner layers tells nothing, nor does one that fits."""

    def network(features: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(C, features, 3), nn.BatchNorm2d(features), nn.Conv2d(features, classes, 1))

    for name, features, classes in (("seven", 5, 7), ("wide", 6, 7), ("same", 5, 11)):
        torch.save({"epoch": 3, "net": add_prefix("module.", network(features, classes).state_dict())}, tmp_path / name)
    counts = [count_rows(network(5, 11), tmp_path / name, None, 11) for name in ("seven", "wide", "same")]
    assert counts == [7, None, None]
    assert count_rows(network(5, 11), tmp_path / "seven", "net", 11) == 7


def test_arrays_of_numpy_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", weight=np.zeros((2, 3)), bias=np.zeros(2))
    with pytest.raises(UserError, match="holds arrays of NumPy, and weights are read from tensors"):
        answers_of(tmp_path / "weights.npz")


def test_a_file_without_auxiliary_heads_has_a_remedy(tmp_path: Path) -> None:
    network = nn.ModuleDict({"stem": nn.Linear(3, 2), "aux1": nn.Linear(2, 2)})
    torch.save({"stem." + name: tensor for name, tensor in network["stem"].state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="It lacks auxiliary heads: --model-arg aux_logits=false"):
        load_weights(network, "mine", tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["polyak", "avg_params", "EMACallback", "emaWeights", "EMA"])
def test_an_average_in_another_form_is_a_choice(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": weights(1), name: list(weights(2).values())}, path)
    with pytest.raises(UserError, match=f"at '{name}.0' what looks like a moving average"):
        answers_of(path)
    torch.testing.assert_close(answers_of(path, "model"), expected(1))


def test_a_layer_that_is_called_like_an_average_is_none(tmp_path: Path) -> None:
    network = nn.ModuleDict({"ema": nn.Linear(3, 2)})
    tensors = network.state_dict()
    optimizer = {"state": {name: {"exp_avg": torch.zeros(7)} for name in tensors}}
    torch.save({"model": tensors, "optimizer": optimizer}, tmp_path / "weights.pt")
    assert load_weights(network, "mine", tmp_path / "weights.pt") == ([], [], [])


def test_a_key_names_where_weights_lie_or_what_they_lie_below(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    content = {
        "state": add_prefix("net.", weights(1)) | {"head.weight": torch.zeros(7, 2)},
        "ema.": weights(2),
    }
    torch.save(content, path)
    for key, seed in (("state", 1), ("state.net", 1), ("state.net.", 1), ("ema.", 2), ("ema", 2)):
        network = seed_network(Convolutions, seed=0)
        assert load_weights(network, "mine", path, key).extras == []
        torch.testing.assert_close(network(pixels(3, C, H, W)), expected(seed))
    with pytest.raises(UserError, match=r"no weights of mine at --weights-key head; places that do: 'state\.net'"):
        load_weights(network, "mine", path, "head")


def test_an_equal_moving_average_is_nothing_left_aside(tmp_path: Path) -> None:
    path, network = tmp_path / "weights.safetensors", seed_network(Convolutions, seed=0)
    save_file(weights() | add_prefix("ema.", weights()) | {"criterion.weight": torch.ones(7)}, path)
    assert load_weights(network, "mine", path).extras == ["criterion.weight"]


@pytest.mark.parametrize(("first", "second"), [("", "ema"), ("model.", "model.teacher")])
def test_weights_and_their_average_beside_a_loss_are_a_choice(first: str, second: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(
        add_prefix(first, weights(1))
        | add_prefix(f"{second}.", weights(2))
        | {f"{first}criterion.weight": torch.ones(7)},
        path,
    )
    with pytest.raises(UserError, match="holds several weights of mine"):
        answers_of(path)
    torch.testing.assert_close(answers_of(path, second), expected(2))


@pytest.mark.parametrize(
    "name",
    ["body.scale", "body.gate.weight", "body2.weight", "register"],
    ids=["a part of a layer", "a layer inside", "one more of its kind", "a tensor of the network itself"],
)
def test_more_of_the_layers_that_the_network_has_is_another_network(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(weights() | {name: torch.ones(1, 4, 8)}, path)
    with pytest.raises(UserError, match=rf"does not hold the weights of mine: 1 tensors differ, first {name} "):
        answers_of(path)


class Nest(nn.Module):
    """Like torchvision's ResNet-18, of which the first name stands at the end of others: `conv.weight`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.layer = nn.ModuleDict({"0": nn.ModuleDict({"conv": nn.Conv2d(4, 5, 1), "bn": nn.BatchNorm2d(5)})})


@pytest.mark.parametrize("prefix", ["", "module.", "model.module."])
def test_a_first_name_may_stand_at_the_end_of_others(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    source, fresh = Nest(), Nest()
    torch.save(add_prefix(prefix, source.state_dict()), tmp_path / "nested.pt")
    load_weights(fresh, "nested", tmp_path / "nested.pt")
    for name, tensor in source.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_deeper_network_of_the_same_names_is_another_network(prefix: str, tmp_path: Path) -> None:
    """As ResNet-34 is: its file holds all weights of ResNet-18, in their shapes."""
    deep = Nest()
    deep.layer["1"] = nn.ModuleDict({"conv": nn.Conv2d(5, 5, 1), "bn": nn.BatchNorm2d(5)})
    save_file(add_prefix(prefix, deep.state_dict()), tmp_path / "deep.safetensors")
    with pytest.raises(UserError, match=r"6 tensors.* differ, first layer\.1\.bn\.bias"):
        load_weights(Nest(), "nested", tmp_path / "deep.safetensors")
    load_weights(deep, "deep", tmp_path / "deep.safetensors")


def test_weights_beside_those_of_a_compiled_network_are_a_choice(tmp_path: Path) -> None:
    """Without what a wrapper puts before them, both have the same names."""
    path = tmp_path / "weights.pt"
    torch.save(weights(1) | add_prefix("_orig_mod.", weights(2)), path)
    with pytest.raises(UserError, match="holds several weights of mine, at the top, '_orig_mod'"):
        answers_of(path)
    torch.testing.assert_close(answers_of(path, "_orig_mod"), expected(2))


class TiedLayers(nn.Module):
    """Two layers, of one weight unless `is_apart`."""

    def __init__(self, *, is_apart: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        if not is_apart:
            self.second.weight = self.first.weight


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("absent", ["first.weight", "second.weight"])
def test_a_tensor_of_two_names_may_be_held_once(absent: str, prefix: str, tmp_path: Path) -> None:
    """As `safetensors.torch.save_model` writes it."""
    source_network, network = TiedLayers(), TiedLayers()
    tensors = {name: tensor for name, tensor in source_network.state_dict().items() if name != absent}
    save_file(add_prefix(prefix, tensors), tmp_path / "shared.safetensors")
    assert load_weights(network, "shared", tmp_path / "shared.safetensors").extras == []
    assert torch.equal(network.second.weight, source_network.first.weight)
    assert torch.equal(network.second.bias, source_network.second.bias)


def test_two_tensors_for_one_are_refused(tmp_path: Path) -> None:
    """Only the last of them would be kept."""
    torch.save(TiedLayers(is_apart=True).state_dict(), tmp_path / "apart.pt")
    with pytest.raises(UserError, match=r"other numbers at 'first\.weight' than at 'second\.weight', which are one"):
        load_weights(TiedLayers(), "shared", tmp_path / "apart.pt")


class VersionedNetwork(nn.Module):
    """A network whose weights meant half as much before version 2."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def _load_from_state_dict(self, state: Any, prefix: str, versions: Any, *rest: Any) -> None:
        if (versions.get("version") or 1) < 2:
            state[f"{prefix}layer.weight"] = 2 * state[f"{prefix}layer.weight"]
        super()._load_from_state_dict(state, prefix, versions, *rest)


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("wrap", [lambda network: network, nn.DataParallel], ids=["plain", "wrapped"])
def test_a_network_is_told_the_version_of_a_file(wrap: Any, is_new: bool, tmp_path: Path) -> None:
    source_network, network = VersionedNetwork(), VersionedNetwork()
    state = wrap(source_network).state_dict()
    if not is_new:
        del state._metadata
    torch.save({"model": state}, tmp_path / "versioned.pt")
    load_weights(network, "versioned", tmp_path / "versioned.pt")
    assert torch.equal(network.layer.weight, source_network.layer.weight * (1 if is_new else 2))


class ExtraLayer(nn.Module):
    """A layer that keeps something beside its tensors."""

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.layer, self.extra = nn.Linear(3, 3), extra

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, extra: Any) -> None:
        self.extra = extra


def test_what_a_layer_keeps_beside_its_tensors_is_read_where_a_file_holds_it(tmp_path: Path) -> None:
    source_network, network = ExtraLayer({"scale": 3}), ExtraLayer({"scale": 1})
    torch.save(add_prefix("model.", source_network.state_dict()), tmp_path / "kept.pt")
    load_weights(network, "mine", tmp_path / "kept.pt")
    assert network.extra == {"scale": 3} and torch.equal(network.layer.weight, source_network.layer.weight)
    other_network = ExtraLayer({"scale": 1})
    save_file(source_network.layer.state_dict(prefix="layer."), tmp_path / "bare.safetensors")
    assert load_weights(other_network, "mine", tmp_path / "bare.safetensors") == ([], ["_extra_state"], [])
    assert other_network.extra == {"scale": 1} and torch.equal(other_network.layer.weight, source_network.layer.weight)


def test_layers_whose_sizes_are_open_take_those_of_the_file(tmp_path: Path) -> None:
    source_network, network = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.LazyLinear(3))
    torch.save(source_network.state_dict(), tmp_path / "sizes.pt")
    load_weights(network, "mine", tmp_path / "sizes.pt")
    torch.testing.assert_close(network(torch.ones(2, 4)), source_network(torch.ones(2, 4)))
    torch.save({"other": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"first 0\.bias \(none in the file, a shape left open in the network\)"):
        load_weights(nn.Sequential(nn.LazyLinear(3)), "mine", tmp_path / "other.pt")


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda network: torch.compile(network, backend="eager")])
def test_a_builder_may_give_a_wrapped_network(wrap: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrapped_builder.py").write_text("def build(): raise NotImplementedError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("wrapped_builder.build", lambda: wrap(seed_network(Convolutions, seed=0)))
    torch.save(weights(), tmp_path / "weights.pt")
    network, remarks = build_network(
        Card("wrapped_builder:build", weights=str(tmp_path / "weights.pt")), number_classes(7)
    )
    torch.testing.assert_close(unwrap(network)(pixels(3, C, H, W)), expected())
    assert remarks == []


# --- checksums of archives


def exchange(path: Path, first: int, second: int) -> None:
    """Exchange two bytes of a file."""
    content = bytearray(path.read_bytes())
    content[first], content[second] = content[second], content[first]
    path.write_bytes(content)


def test_a_part_of_an_archive_that_has_not_its_checksum_is_damaged(tmp_path: Path) -> None:
    """Torch would load other numbers."""
    path = tmp_path / "weights.pt"
    torch.save(weights(1), path)
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = path.read_bytes()
    first = next(
        place for place in range(entry.header_offset + 300, len(content)) if content[place] != content[place + 1]
    )
    exchange(path, first, first + 1)
    with pytest.raises(UserError, match=rf"weights\.pt is damaged, at '{entry.filename}' \(Bad CRC-32"):
        read_content(path)


def test_every_exchange_of_bytes_is_told_or_changes_nothing(tmp_path: Path) -> None:
    path, generator = tmp_path / "weights.pt", np.random.default_rng(0)
    torch.save(weights(1), path)
    content, expected = path.read_bytes(), read_content(path)
    refusals = 0
    for _ in range(200):
        path.write_bytes(content)
        exchange(path, *(int(place) for place in generator.integers(0, len(content), 2)))
        try:
            other_weights = read_content(path)
        except UserError as error:
            refusals += str(error).count("\n") == 0
            continue
        assert other_weights.keys() == expected.keys()
        assert all(torch.equal(other_weights[name], tensor) for name, tensor in expected.items())
    assert refusals > 50


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    """Torch writes zeros for them where it is told to."""
    path = tmp_path / "weights.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights(1), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert all(torch.equal(read_content(path)[name], tensor) for name, tensor in weights(1).items())


def test_a_batch_norm_of_two_names_may_lack_its_counters_in_a_file(tmp_path: Path) -> None:
    class TwoNames(Convolutions):
        def __init__(self) -> None:
            super().__init__()
            self.sequence = nn.Sequential(self.stem, self.norm)

    network = seed_network(TwoNames, seed=1)
    path = tmp_path / "net.pt"
    torch.save(without_counters(network.state_dict()), path)
    other = seed_network(TwoNames)
    load_weights(other, "mine", path)
    torch.testing.assert_close(other(pixels(3, C, H, W)), network(pixels(3, C, H, W)))
