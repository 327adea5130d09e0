"""What Python gives is what the commands give; networks, tensors and arrays of a program's own; parts used alone."""

import ast
import copy
import gc
import inspect
import json
import pydoc
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import C, Convolutions, H, K, W, assert_unchanged, noise, save_tiny, seed_network
from networks import Linear, array, pixels
from torch import nn

import interpret_robust as ir
from interpret_robust import analyses, cli
from interpret_robust.analyses.engine import validation
from interpret_robust.api.answers import Answer
from interpret_robust.api.help import describe_settings
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.intervals import Interval, wilson
from interpret_robust.datasets import Dataset
from interpret_robust.figures.drawing import compose
from interpret_robust.models.card import Card
from interpret_robust.models.checkpoint import Checkpoint
from interpret_robust.models.external import ExternalModel
from interpret_robust.models.wrapper import WrappedModel
from interpret_robust.results import hdf5
from interpret_robust.training.recipe_file import find_recipe

RESNET: dict[str, Any] = {"weights": "random", "local_layer": "layer2", "label": "resnet"}


pytestmark = pytest.mark.usefixtures("few_blocks")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with few images, and what the command says of a network."""
    root = tmp_path_factory.mktemp("api")
    data = save_tiny(root / "tiny.npz")
    words = ["--model", "torchvision:resnet18", "--weights", "random", "--local-layer", "layer2", "--label", "resnet"]
    location = ["--dataset", str(data), "--limit", "4", "--root", str(root)]
    cli.irt(["analyze", "alignment", *words, *location], standalone_mode=False)
    cli.irt(["analyze", "attention-rank", "--steps", "2", *words, *location], standalone_mode=False)
    return root


@pytest.fixture(scope="module")
def answer(place: Path) -> Answer:
    """What the network of `place` answers on three images; no test changes it."""
    return ir.analyze("alignment", ir.load("torchvision:resnet18", place / "tiny.npz", **RESNET), limit=3)


def file_of(place: Path, analysis: str) -> Path:
    (path,) = place.glob(f"analyses/{analysis}-*.h5")
    return path


def datasets(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.update({name: np.asarray(item[()])}) if isinstance(item, h5py.Dataset) else None
        )
    return arrays


@pytest.mark.long
@pytest.mark.parametrize(("analysis", "settings"), [("alignment", {}), ("attention-rank", {"steps": 2})])
def test_an_answer_holds_what_the_commands_file_holds(analysis: str, settings: dict[str, Any], place: Path) -> None:
    model = ir.load("torchvision:resnet18", place / "tiny.npz", **RESNET)
    answer = ir.analyze(analysis, model, limit=4, **settings)
    path = answer.save(place / f"{analysis}.h5", overwrite=True)
    expected, arrays = datasets(file_of(place, analysis)), datasets(path)
    assert arrays.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind in "fiu":
            np.testing.assert_array_equal(arrays[name], values, err_msg=name)
    for name in answer.arrays:
        np.testing.assert_array_equal(answer.arrays[name], expected[f"per_image/{name}"])
    for name in answer.statistics:
        assert "per_image" not in name
        if expected[name].dtype.kind in "fiu":
            np.testing.assert_array_equal(answer.statistics[name], expected[name])
    assert len(answer.arrays) + len(answer.statistics) > 10
    config = hdf5.read(path).config
    assert config == hdf5.read(file_of(place, analysis)).config


@pytest.mark.long
def test_an_answer_is_printed_as_the_command_prints_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ir.load("torchvision:resnet18", place / "tiny.npz", **RESNET)
    words = ["--model", "torchvision:resnet18", "--weights", "random", "--local-layer", "layer2", "--label", "resnet"]
    location = ["--dataset", str(place / "tiny.npz"), "--limit", "4", "--root", str(place)]
    cli.irt(["analyze", "alignment", *words, *location], standalone_mode=False)
    assert str(ir.analyze("alignment", model, limit=4)).strip() == capsys.readouterr().out.strip()


def test_an_answer_gives_arrays_by_name_and_says_which_there_are_not(answer: Answer) -> None:
    assert answer["per_image/cosine"].shape == answer.arrays["cosine"].shape == (3,)
    assert list(answer["cosine/own"]) == answer.statistics["cosine/own"].tolist()
    with pytest.raises(KeyError, match="cosin"):
        answer.arrays["cosin"]
    with pytest.raises(KeyError, match="cosine"):
        answer.arrays["per_image/cosine"]
    with pytest.raises(ir.UserError, match="nothing"):
        answer["nothing"]


def test_an_answer_is_kept_where_it_is_told_and_not_over_another(answer: Answer, tmp_path: Path) -> None:
    path = answer.save(str(tmp_path / "kept.h5"))
    assert path == tmp_path / "kept.h5" and validation.list_problems(path) == []
    with pytest.raises(ir.UserError, match=r"kept\.h5 is there already: overwrite=True replaces it\."):
        answer.save(path)
    assert answer.save(path, overwrite=True) == path
    kept = answer.save(tmp_path / "deep" / "analyses")
    assert kept.parent == tmp_path / "deep" / "analyses" and kept.suffix == ".h5" and kept.is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "kept.h5"]


def test_an_answer_is_drawn_and_the_picture_kept(answer: Answer, tmp_path: Path) -> None:
    open_before = plt.get_fignums()
    figure = answer.figure()
    assert figure.axes and not list(tmp_path.iterdir())
    answer.figure(tmp_path / "mine.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json", "mine.pdf", "mine.png"]
    assert plt.get_fignums() == open_before


@pytest.mark.long
def test_an_answer_that_is_forgotten_warns_of_nothing(place: Path) -> None:
    """Its folder goes with it."""
    answer = ir.analyze("alignment", ir.load("torchvision:resnet18", place / "tiny.npz", **RESNET), limit=2)
    folder = answer.result.path.parent
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        del answer
        gc.collect()
    assert not folder.exists()
    assert [str(record.message) for record in records] == []


@pytest.mark.long
def test_a_model_that_is_loaded_twice_is_not_shared(place: Path) -> None:
    first, second = (ir.load("torchvision:resnet18", place / "tiny.npz", **RESNET) for _ in range(2))
    with torch.no_grad():
        for weights in first.network.parameters():
            weights.zero_()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert first(images).std() == 0 and second(images).std() > 0


def test_a_checkpoint_is_loaded_with_its_own_data(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model = ir.load(make_checkpoint(tmp_path))
    assert isinstance(model.subject, Checkpoint) and model.subject.job["variant"] == "at-att"
    assert ir.load(str(model.subject.path)).subject.sha256 == model.subject.sha256


def replace_forward(network: Any) -> None:
    forward = network.forward
    network.forward = lambda images: -forward(images)


def negate_weights(network: Any) -> None:
    with torch.no_grad():
        network.classifier.weight.mul_(-1)


def negate_gradients(network: Any) -> None:
    network.classifier.register_full_backward_hook(lambda _, gradients, __: tuple(-gradient for gradient in gradients))


def change_eps(network: Any) -> None:
    next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)).eps = 1.0


CHANGES: dict[str, Callable[[Any], object]] = {
    "weights": negate_weights,
    "hook": lambda network: network.register_forward_hook(lambda _, __, logits: -logits),
    "forward": replace_forward,
    "gradients": negate_gradients,
    "eps": change_eps,
    "layer": lambda network: setattr(network, "classifier", nn.Sequential(network.classifier, nn.Tanh())),
    "double": lambda network: network.double(),
    "half": lambda network: network.half(),
}


@pytest.mark.long
@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_s_network_that_was_changed_is_asked_only_as_a_network(
    make_checkpoint: Callable[..., Path], tmp_path: Path, digits: Dataset, change: str
) -> None:
    """Of the checkpoint another number would be given than of the network that the program holds."""
    model = ir.load(make_checkpoint(tmp_path))
    ir.analyze("robustness", model, limit=2, pgd=1, cw="none")
    CHANGES[change](model.network)
    with pytest.raises(ir.UserError, match=r"was changed since it was loaded, .*: ir\.load\(model, data\) gives the"):
        ir.analyze("robustness", model, limit=2, pgd=1, cw="none")
    if change in ("weights", "eps", "layer"):
        images = torch.rand(3, *digits.image_shape, generator=torch.Generator().manual_seed(0))
        changed = ir.load(model, digits, label="changed")
        torch.testing.assert_close(changed(images), model(images))


def test_a_model_that_was_loaded_is_given_back(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    for model in (ir.load(seed_network(Convolutions), noise()), ir.load(make_checkpoint(tmp_path))):
        assert ir.load(model) is model


def test_a_model_from_elsewhere_is_loaded_anew_as_it_was_read() -> None:
    model = ir.load(seed_network(Convolutions), noise(), label="mine", normalize="0.5,0.25", local_layer="stem")
    other, images = ir.load(model, noise("other", count=7)), pixels(4, C, H, W)
    torch.testing.assert_close(other(images), seed_network(Convolutions)((images - 0.5) / 0.25))
    assert (other.name, other.subject.job["layers"]["local"]) == ("other-mine", "stem")
    assert isinstance(other.subject, ExternalModel)
    assert other.subject.data.test.sha256 == noise(count=7).test.sha256
    plain = ir.load(model, normalize="none", label="plain")
    torch.testing.assert_close(plain(images), seed_network(Convolutions)(images))
    with torch.no_grad():
        model.network.get_parameter("backbone.answer.bias").fill_(3.0)
    assert torch.equal(ir.load(model, label="now")(images), model(images))
    assert not torch.equal(other(images), model(images))


def test_a_network_that_holds_a_loaded_model_asks_its_own_copy() -> None:
    """The trial of a model keeps what it answered, and of whom."""
    inner, images = ir.load(seed_network(Convolutions), noise(), label="inner"), pixels(4, C, H, W)
    outer = ir.load(nn.Sequential(inner, nn.Identity()), noise(), label="outer")
    expected = inner(images)
    with torch.no_grad():
        inner.network.get_parameter("backbone.answer.bias").fill_(3.0)
    assert torch.equal(outer(images), expected)
    copies = [module for module in outer.modules() if isinstance(module, WrappedModel)]
    assert copies[1].follow_answers()() is None
    with torch.no_grad():
        copies[1].get_parameter("backbone.answer.bias").fill_(3.0)
    assert "it was changed since ('answer.bias')" in str(copies[1].follow_answers()())


def test_a_checkpoint_is_asked_alike_where_a_program_s_new_tensors_are_double(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    def ask() -> list[float]:
        margins = ir.analyze("robustness", ir.load(path), limit=2, pgd=2, cw="none").arrays["margin"]
        return [float(margin) for margin in margins.ravel()]

    path = make_checkpoint(tmp_path)
    expected = ask()
    torch.set_default_dtype(torch.float64)
    try:
        assert ask() == expected
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore::interpret_robust.core.errors.DoubtWarning")
def test_a_network_that_was_replaced_is_not_asked_as_the_first() -> None:
    model = ir.load(seed_network(Convolutions), noise(), label="mine")
    model.network = ir.load(seed_network(Convolutions, seed=3), noise(), label="other").network
    with pytest.raises(ir.UserError, match="the network of noise-mine was changed since it was loaded"):
        ir.analyze("robustness", model, limit=2, pgd=1, cw="none")


def test_a_network_in_another_precision_is_asked_where_it_takes_the_images() -> None:
    expected = ir.analyze("robustness", ir.load(seed_network(Convolutions), noise(), label="mine"), pgd=1, cw="none")
    changes: list[Callable[[Any], object]] = [
        lambda model: model.half(),
        lambda model: model.bfloat16(),
        lambda model: next(model.network.backbone.children()).double(),
    ]
    for change in changes:
        model, reader = (ir.load(seed_network(Convolutions), noise(), label=label) for label in ("mine", "reader"))
        change(model)
        sentence = r"the network of noise-mine was changed since it was loaded, .*: load yours again, with ir\.load"
        with pytest.raises(ir.UserError, match=sentence):
            ir.analyze("robustness", model, pgd=1, cw="none")
        with pytest.raises(ir.UserError, match=sentence):
            ir.analyze("gradmap-score", reader, evaluators=[model])
    model = ir.load(seed_network(Convolutions), noise(), label="mine")
    answer = ir.analyze("robustness", model.double(), pgd=1, cw="none")
    np.testing.assert_allclose(answer.arrays["margin"], expected.arrays["margin"], atol=1e-5)


def test_a_checkpoint_is_not_loaded_for_other_images(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """They would not be asked about: it knows its own."""
    path = make_checkpoint(tmp_path)
    for data in (noise(), "cluttered-digits"):
        with pytest.raises(ir.UserError, match=r"knows its images: give others to ir\.analyze\(name, model, data\)\.$"):
            ir.load(path, data)


def test_images_of_a_program_are_copied() -> None:
    images = noise().test.images.copy()
    data = ir.make_dataset(images, noise().test.labels)
    images[:] = 0
    assert np.array_equal(data.test.images, noise().test.images)


def test_one_logit_is_not_attacked() -> None:
    """The cross-entropy of one class is zero, whatever the logit: nothing would be changed, and all be right."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 1))
    with pytest.raises(ir.UserError, match="the model has one logit"):
        ir.PGD(8 / 255, 2 / 255, 3)(network, pixels(3, C, H, W), torch.zeros(3, dtype=torch.int64))


def test_models_that_read_are_given_as_evaluators(
    make_checkpoint: Callable[..., Path], tmp_path: Path, digits: Dataset
) -> None:
    model, reader = ir.load(make_checkpoint(tmp_path)), ir.load(make_checkpoint(tmp_path, "natural", 1))
    answer = ir.analyze("gradmap-score", model, digits, evaluators=[reader], limit=4)
    assert answer.result.config["evaluators"]["names"] == [reader.name]
    with pytest.raises(ir.UserError, match=r"gradmap-score needs other models that classify the maps of .*: give"):
        ir.analyze("gradmap-score", model, digits, limit=4)


def test_a_network_itself_can_be_asked() -> None:
    data, network = noise(), seed_network(Convolutions).train()
    model = ir.load(network, data, local_layer="body")
    assert isinstance(model.subject, ExternalModel)
    assert network.training and all(weights.requires_grad for weights in network.parameters())
    assert model.name == "noise-Convolutions"
    assert model.subject.card.model.endswith("anyone:Convolutions")
    images = torch.from_numpy(data.test.images).permute(0, 3, 1, 2).float() / 255
    with assert_unchanged(network):
        answer = ir.analyze("alignment", model)
    network.eval()
    with torch.no_grad():
        assert answer.arrays["prediction"].tolist() == network(images).argmax(1).tolist()
    inputs = images.requires_grad_()
    (gradient,) = torch.autograd.grad(
        F.cross_entropy(network(inputs), torch.from_numpy(data.test.labels), reduction="sum"), inputs
    )
    deviations = (images - images.mean((1, 2, 3), keepdim=True)).detach().flatten(1)
    np.testing.assert_allclose(
        answer.arrays["cosine"], F.cosine_similarity(deviations, -gradient.flatten(1)), rtol=1e-3, atol=1e-5
    )


def test_what_is_found_does_not_depend_on_batches() -> None:
    model = ir.load(seed_network(Convolutions), noise())
    whole, parts = (ir.analyze("alignment", model, batch_size=size) for size in (250, 2))
    for name in ("cosine", "alpha", "edge_cosine"):
        np.testing.assert_allclose(parts.arrays[name], whole.arrays[name], rtol=1e-4, atol=1e-6)


def test_a_network_is_copied_and_one_that_changed_is_asked_anew() -> None:
    network = seed_network(Convolutions)
    model = ir.load(network, noise())
    first = ir.analyze("alignment", model)["per_image/cosine"]
    with torch.no_grad():
        network.stem.weight.neg_()
    second = ir.analyze("alignment", ir.load(network, noise()))["per_image/cosine"]
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(ir.analyze("alignment", model)["per_image/cosine"], first)


def test_a_network_without_positions_is_asked_what_needs_none() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K))
    assert ir.analyze("alignment", ir.load(network, noise()))["per_image/cosine"].shape == (9,)
    with pytest.raises(ir.UserError, match="no layer of the network gives features at several positions"):
        ir.analyze("attention-rank", ir.load(network, noise()), steps=1)


def test_columns_may_be_taken_from_an_answer_that_nobody_keeps() -> None:
    model = ir.load(seed_network(Convolutions), noise())
    assert ir.analyze("alignment", model).arrays["cosine"].shape == (9,)
    assert ir.analyze("alignment", model).statistics["cosine/own"].shape == (3,)


def test_tensors_and_arrays_are_data() -> None:
    """Channels in front or behind, bytes or floats: the same images."""
    bytes_behind = noise().test.images
    floats_in_front = torch.from_numpy(bytes_behind).permute(0, 3, 1, 2) / 255
    labels = noise().test.labels
    forms = (bytes_behind, bytes_behind.transpose(0, 3, 1, 2), floats_in_front, floats_in_front.double().numpy())
    for images in forms:
        for targets in (labels, torch.from_numpy(labels), labels.astype(np.uint8)):
            data = ir.make_dataset(images, targets, "mine")
            assert np.array_equal(data.test.images, bytes_behind) and data.test.images.flags.c_contiguous
            assert np.array_equal(data.test.labels, labels) and data.test.labels.dtype == np.int64
            assert data.test is data.train
            assert (data.name, data.image_shape) == ("mine", (C, H, W))
            assert data.class_names == tuple(f"class {label}" for label in range(K))
    assert ir.make_dataset(bytes_behind, labels, class_names=tuple("abcdefgh")).class_names == tuple("abcdefgh")


def test_gray_images_are_data() -> None:
    images = noise(shape=(1, H, W)).test.images
    for form in (images, images.transpose(0, 3, 1, 2)):
        assert np.array_equal(ir.make_dataset(form, np.arange(9)).test.images, images)


IMAGES = np.zeros((4, 12, 18, 3), np.uint8)
LABELS = np.arange(4)


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (IMAGES[0, 0], LABELS, r"images have shape \(18, 3\)"),
        (IMAGES[:0], LABELS[:0], r"images have shape \(0, 12, 18, 3\)"),
        (IMAGES[..., :2], LABELS, r"images have shape \(4, 12, 18, 2\)"),
        (IMAGES.astype(np.int64), LABELS, "images are of type int64: give uint8, or floats"),
        (IMAGES + 1.5, LABELS, r"images have pixels from 1\.5 to .*: give floats in \[0, 1\], or uint8 from 0 to 255"),
        (IMAGES - 0.1, LABELS, r"images have pixels from -0\.1 to "),
        (IMAGES + np.nan, LABELS, "images have a pixel that is not a number"),
        (IMAGES.astype(bool), LABELS, "images are of type bool"),
        (IMAGES, LABELS[:3], "4 images have 3 labels: there is one for each"),
        (IMAGES, LABELS[:, None, None], r"labels are int64 of shape \(4, 1, 1\): give each image one integer"),
        (IMAGES, [0, 1, -1, 2], "image 2 has label -1: give each image one integer, at least 0"),
        (IMAGES, LABELS - 1, "image 0 has label -1: give each image one integer, at least 0"),
        (IMAGES, LABELS / 2, "labels are float64"),
        ([IMAGES[0], IMAGES[0, :3]], LABELS, "images are of type list, of which there is no array .*: give one array"),
        (torch.zeros(4, 3, 8, 8, device="meta"), LABELS, "images are of type Tensor, of which there is no array"),
        (IMAGES, [[0, 1], [2]], "labels are of type list, of which there is no array"),
        ({"images": IMAGES}, LABELS, r"images have shape \(\)"),
    ],
)
def test_other_arrays_are_the_users_error(images: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(ir.UserError, match=sentence):
        ir.make_dataset(images, labels)


@pytest.mark.parametrize(
    ("class_names", "labels", "sentence"),
    [
        (("a", "b"), LABELS, "label 3 has no name: there are 2 class names"),
        (None, LABELS + 10**9, "a label is 1000000003: numbers of classes go from 0 to 99999"),
        ("abcd", LABELS, "class names are 'abcd': give a list of texts"),
        (range(4), LABELS, r"class names are range\(0, 4\): give a list of texts"),
        (["a", "b\nc", "d", "e"], LABELS, "give a list of texts of printable characters"),
        (["a", "", "d", "e"], LABELS, "give a list of texts of printable characters"),
        ((letter for letter in "abc"), LABELS, "label 3 has no name: there are 3 class names"),
        (set("abcd"), LABELS, r"class names are {'\w'.*}, which has no order: give a list of them"),
        (frozenset("abcd"), LABELS, r"class names are frozenset.*, which has no order: give a list of them"),
        ({"a": 0, "b": 1, "c": 2}, LABELS, "label 3 has no name: there are 3 class names"),
        ({"a": 0, "b": 1, "c": 3}, LABELS, "are {'a': 0, 'b': 1, 'c': 3}: a dict gives each name its label"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, LABELS, "its label, from 0 on without a gap, such as {'cat': 0, 'dog': 1}"),
        ({"a": 0, "b": 1, "c": 1, "d": 2}, LABELS, "a dict gives each name its label, from 0 on without a gap"),
        ({0: "a", 1: "b", 2: "c", 3: "d"}, LABELS, "class names are {0: 'a', .*}: a dict gives each name its label"),
        (3, LABELS, "class names are 3: give a list of texts"),
        (np.array("abcd"), LABELS, "class names are .*: give a list of texts"),
    ],
)
def test_labels_without_names_and_names_that_are_none_are_the_users_error(
    class_names: Any, labels: Any, sentence: str
) -> None:
    with pytest.raises(ir.UserError, match=sentence):
        ir.make_dataset(IMAGES, labels, class_names=class_names)


def test_names_of_classes_are_given_in_any_form_that_has_an_order() -> None:
    numbers = {"d": 3, "b": np.int64(1), "a": 0, "c": 2}
    ordered = [*"abcd"], np.array([*"abcd"]), tuple("abcd"), (letter for letter in "abcd"), map(str, "abcd")
    for class_names in (*ordered, numbers, dict.fromkeys("abcd").keys(), iter("abcd")):
        assert API.make_dataset(IMAGES, LABELS, class_names=class_names).class_names == ("a", "b", "c", "d")


def test_a_dataset_without_a_name_of_text_is_the_users_error() -> None:
    for name in (None, 3, "", "a\nb"):
        with pytest.raises(ir.UserError, match="give a dataset a name of printable characters on one line"):
            ir.make_dataset(IMAGES, LABELS, name)  # type: ignore[arg-type]


def test_tensors_of_every_kind_are_data() -> None:
    """Those that ask for a gradient, sparse ones, lists and generators of tensors."""
    images = noise().test.images
    floats, labels = torch.from_numpy(images) / 255, torch.arange(len(images))
    asking = floats.clone().requires_grad_()
    sparse = torch.from_numpy(images).to_sparse()
    forms = (asking, floats.to_sparse(), sparse, [*asking], (image for image in floats), map(np.asarray, images))
    for form in forms:
        data = ir.make_dataset(form, labels.to_sparse())
        assert np.array_equal(data.test.images, images) and data.test.labels.tolist() == labels.tolist()
    assert ir.make_dataset(images, iter(labels)).test.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda model: ir.analyze("alignmnt", model), r"unknown analysis 'alignmnt': did you mean 'alignment'\?"),
        (
            lambda model: ir.analyze("alignment", model, sed=1),
            r"unknown option of alignment 'sed': did you mean 'seed'",
        ),
        (lambda model: ir.analyze("alignment", model, source="gradent"), "unknown source of maps 'gradent'"),
        (lambda model: ir.analyze("alignment", model, split="half"), "has no split 'half', but train and test"),
        (lambda model: ir.analyze("alignment", model, device="tpu"), "tpu"),
        (lambda model: ir.analyze("alignment", model, noise(shape=(3, 20, 20))), "20"),
        (lambda _: ir.load("torchvision:resnet18", weights="random"), "does not say which images it is for"),
        (lambda _: ir.load(seed_network(Convolutions)), "say which images the model is for"),
        (
            lambda _: ir.load(seed_network(Convolutions), noise(), weights="a.pt"),
            "has its weights already: load them where you build it",
        ),
        (lambda _: ir.load(seed_network(Convolutions), noise(), arguments={"a": 1}), "has its weights"),
        (
            lambda _: ir.load("a.safetensors", normalize="none"),
            "is a checkpoint of `irt train`, which needs no normalize",
        ),
        (lambda _: ir.load("gone.safetensors"), "there is no checkpoint gone.safetensors"),
        (lambda _: ir.load("gone.json", noise()), "there is no model card gone.json"),
        (lambda _: ir.load("resnet18", noise()), "there is no model resnet18: .*torchvision:resnet18"),
        (lambda _: ir.load(seed_network(Convolutions), noise(classes=3)), "answers with 7 classes, and noise has 3"),
        (lambda _: ir.load(seed_network(Convolutions), noise(), locallayer="body"), "locallayer"),
    ],
)
def test_a_mistake_is_one_sentence(call: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises(ir.UserError, match=sentence) as error:
        call(ir.load(seed_network(Convolutions), noise()))
    assert "\n" not in str(error.value)


def test_a_card_can_be_asked_of_images_in_memory(tmp_path: Path) -> None:
    from interpret_robust.models.card import Card

    Card("anyone:Convolutions", local_layer="stem", label="mine").write(tmp_path / "card.json")
    model = ir.load(tmp_path / "card.json", noise())
    assert (model.name, model.subject.local_shape()) == ("noise-mine", (4, 6, 9))


class Pair(Convolutions):
    """A network that answers with its logits and their negative."""

    def forward(self, images: torch.Tensor) -> Any:
        logits = super().forward(images)
        return logits, -logits


def test_paths_and_numbers_are_fields_of_a_card(tmp_path: Path) -> None:
    torch.save(seed_network(Convolutions, seed=5).state_dict(), tmp_path / "weights.pt")
    model = ir.load("anyone:Convolutions", noise(), weights=tmp_path / "weights.pt", normalize="none")
    images = pixels(2, C, H, W)
    torch.testing.assert_close(model(images), seed_network(Convolutions, seed=5)(images))
    for part, sign in ((0, 1), (1, -1), (np.int64(1), -1)):
        torch.testing.assert_close(
            ir.load(seed_network(Pair), noise(), logits=part)(images), sign * seed_network(Convolutions)(images)
        )


def test_arguments_are_given_by_name() -> None:
    model = ir.load("torchvision:resnet18", noise(), weights="random", arguments={"zero_init_residual": np.bool_(1)})
    network = model.network
    assert not any(network.backbone.get_parameter(f"layer{layer}.0.bn2.weight").any() for layer in (1, 2, 3, 4))
    assert model.name == "noise-torchvision-resnet18-zero_init_residual-True-random"


# --- parts used alone


def test_pgd_in_a_loop_of_ones_own_reaches_the_corner_of_the_ball() -> None:
    """The loss of a linear network of two classes is largest where each pixel goes with the sign of its weight."""
    network = Linear(C * H * W, 2).eval()
    images, labels = pixels(5, C, H, W, low=0.2, high=0.8), torch.tensor([0, 1, 1, 0, 1])
    attack = ir.PGD(eps=0.1, step_size=0.05, steps=6)
    adversarial = attack(network, images, labels, ir.generator_noise(torch.Generator().manual_seed(0)))
    difference = network.layer.weight[1] - network.layer.weight[0]
    direction = difference.sign().reshape(C, H, W) * (1 - 2 * labels)[:, None, None, None]
    torch.testing.assert_close(adversarial, images + 0.1 * direction)
    repetition = attack(network, images, labels, ir.per_image_noise(0, range(5)))
    torch.testing.assert_close(repetition, adversarial)
    with pytest.raises(ValueError, match="5 images, and 1 indices of images: give one for each"):
        attack(network, images, labels, ir.per_image_noise(0, [7]))


def test_the_regularizer_in_a_loop_of_ones_own_is_the_mean_distance_with_its_gradient() -> None:
    clean, adversarial = (pixels(5, 8, seed=seed).requires_grad_() for seed in (0, 1))
    term = ir.FeatureRegularization(0.3)(clean, adversarial)
    distances = np.linalg.norm(array(clean) - array(adversarial), axis=1)
    assert float(term.detach()) == pytest.approx(0.3 * distances.mean(), rel=1e-5)
    of_clean, of_adversarial = torch.autograd.grad(term, (clean, adversarial))
    expected = 0.3 / 5 * (array(clean) - array(adversarial)) / distances[:, None]
    np.testing.assert_allclose(array(of_clean), expected, rtol=1e-4)
    np.testing.assert_allclose(array(of_adversarial), -expected, rtol=1e-4)


def test_the_regularizer_takes_a_distance_of_ones_own() -> None:
    clean, adversarial = pixels(5, 8), pixels(5, 8, seed=1)
    term = ir.FeatureRegularization(2, lambda a, b: (a - b).abs().sum(1))(clean, adversarial)
    assert float(term) == pytest.approx(2 * np.abs(array(clean) - array(adversarial)).sum(1).mean(), rel=1e-5)
    assert float(ir.FeatureRegularization(0)(clean, adversarial)) == 0


def test_a_step_of_training_of_ones_own_lowers_the_whole_loss() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        body, answer = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 8), nn.ReLU()), nn.Linear(8, K)
    images, labels = pixels(5, C, H, W), torch.tensor([0, 6, 3, 3, 1])
    attack, term = ir.PGD(eps=0.03, step_size=0.01, steps=3), ir.FeatureRegularization(0.1)
    network = nn.Sequential(body, answer)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    losses = []
    for _ in range(10):
        adversarial = attack(network, images, labels, ir.per_image_noise(0, range(5)))
        features = body(adversarial)
        loss = F.cross_entropy(answer(features), labels) + term(body(images), features)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.01


def test_the_package_is_imported_without_torch_or_typing() -> None:
    code = "import sys, interpret_robust; print(sorted({'torch', 'numpy', 'captum', 'typing'} & set(sys.modules)))"
    code += "; interpret_robust.UserError; print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    assert process.stdout == "[]\nFalse\n"


def test_every_public_name_is_there_and_another_is_told() -> None:
    assert ir.__version__ == metadata.version("interpret-robust")
    for name in set(ir.__all__) - {"__version__"}:
        assert getattr(ir, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="module 'interpret_robust' has no attribute 'nothing'"):
        ir.nothing  # noqa: B018


def test_the_listed_names_are_the_public_names() -> None:
    assert dir(ir) == sorted(ir.__all__)
    assert next(iter(ir.questions())) == "robustness"


def test_samples_are_the_first_of_the_split(place: Path) -> None:
    x, y = ir.samples(place / "tiny.npz", 3)
    with np.load(place / "tiny.npz") as archive:
        images, labels = archive["x_test"][:3], archive["y_test"][:3]
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    assert np.array_equal(x.numpy(), (images.astype(np.float32) / 255).transpose(0, 3, 1, 2))
    assert y.tolist() == labels.tolist()
    for count in (0, 10**6):
        with pytest.raises(ir.UserError, match="images, so give 1 to"):
            ir.samples(place / "tiny.npz", count)


def test_an_opened_file_is_read_as_it_is_and_stays(place: Path) -> None:
    path = file_of(place, "alignment")
    answer = ir.open(path)
    arrays = datasets(path)
    for name, values in answer.statistics.items():
        assert np.array_equal(values, arrays[name], equal_nan=values.dtype.kind == "f")
    assert len(repr(answer)) < 200
    del answer
    gc.collect()
    assert path.exists()


def test_an_interval_of_booleans_is_wilsons() -> None:
    value, low, high = ir.interval(np.array([True] * 8 + [False] * 2))
    assert (value, low, high) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-6)


OUTCOMES = [True] * 8 + [False] * 2


@pytest.mark.parametrize(
    "values",
    [
        OUTCOMES,
        tuple(map(int, OUTCOMES)),
        torch.tensor(OUTCOMES),
        torch.tensor(OUTCOMES).long(),
        np.array(OUTCOMES, np.uint8),
        [np.bool_(outcome) for outcome in OUTCOMES],
    ],
    ids=lambda values: type(values).__name__,
)
def test_outcomes_of_every_type_have_wilson_s_interval(values: Any) -> None:
    assert ir.interval(values) == wilson(8, 10)


def test_integers_that_are_all_one_are_outcomes_and_floats_are_numbers() -> None:
    assert ir.interval(np.ones(12, int)) == wilson(12, 12)
    assert ir.interval(np.zeros(12, int)) == wilson(0, 12)
    assert ir.interval(np.array([0, 2, 1, 1])) == bootstrap_mean(np.array([0.0, 2, 1, 1]))
    difference = np.array([1.0, 0, 0, 0, 0, 0])  # of outcomes: the bootstrap does not rule zero out, as Wilson's would
    assert ir.interval(difference) == bootstrap_mean(difference)
    assert ir.interval(difference).low == 0 < wilson(1, 6).low


def test_numbers_of_every_type_have_the_interval_of_a_bootstrap() -> None:
    numbers = np.append(np.random.default_rng(0).integers(0, 256, 40) / 256, np.nan)  # which bfloat16 can hold
    expected = bootstrap_mean(numbers, seed=3)
    tensor = torch.tensor(numbers)
    columns = (numbers.tolist(), tensor, tensor.clone().requires_grad_(), tensor.bfloat16(), numbers.astype(np.float16))
    assert [ir.interval(values, seed=3) for values in columns] == [expected] * 5
    assert expected.value == numbers[:-1].mean() and expected != bootstrap_mean(numbers)
    columns_without_numbers: list[Any] = [[], np.array([], bool), torch.tensor([np.nan])]
    assert np.isnan([ir.interval(values) for values in columns_without_numbers]).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "values are None: give an array of booleans or numbers, one an image."),
        (["1", "0"], "values are ['1', '0']: give an array of booleans or numbers, one an image."),
        ([True, None], "values are [True, None]: give an array of booleans or numbers, one an image."),
        ([[1, 2], [3]], "values are [[1, 2], [3]]: give an array of booleans or numbers, one an image."),
        (1j, "values are 1j: give an array of booleans or numbers, one an image."),
        (0.5, "values have the shape (): give one boolean or number an image, (N,)."),
        (torch.ones(2, 3), "values have the shape (2, 3): give one boolean or number an image, (N,)."),
    ],
)
def test_an_interval_of_what_is_no_column_of_numbers_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ir.UserError) as error:
        ir.interval(values)
    assert str(error.value) == message


@pytest.fixture
def digits_model(make_checkpoint: Callable[..., Path], tmp_path: Path) -> ir.Model:
    return ir.load(make_checkpoint(tmp_path))


def test_a_model_is_called_like_any_network(digits_model: ir.Model) -> None:
    images, labels = ir.samples("cluttered-digits", 5)
    network = digits_model.subject.model(torch.device("cpu"))
    with torch.no_grad():
        np.testing.assert_array_equal(array(digits_model(images)), array(network(images)))
        np.testing.assert_array_equal(
            array(digits_model.features(images).pooled), array(network.features(images).pooled)
        )
    assert labels.shape == (5,) and images.shape == (5, 3, 32, 32)
    assert len(repr(digits_model)) < 400 and "at-att" in repr(digits_model)
    assert "dataset: cluttered-digits, 10 classes," in repr(digits_model)
    assert "at-att" in digits_model._repr_html_()


def test_an_attack_has_defaults_and_takes_labels_of_any_integer(digits_model: ir.Model) -> None:
    images, labels = ir.samples("cluttered-digits", 4)
    whole = ir.PGD(eps=8 / 255, step_size=2 / 255, steps=20)(
        digits_model, images, labels, ir.per_image_noise(0, range(4))
    )
    assert torch.equal(ir.PGD(eps=8 / 255, steps=20)(digits_model, images, labels), whole)
    assert torch.equal(ir.PGD(eps=8 / 255)(digits_model, images, labels.int()[:, None]), whole)
    with pytest.raises(ir.UserError, match=r"pixels lie in \d+ to 2\d\d: they must lie in 0 to 1"):
        ir.PGD(eps=8 / 255)(digits_model, images * 255, labels)
    with pytest.raises(ir.UserError, match="3 labels for 4 images"):
        ir.PGD(eps=8 / 255)(digits_model, images, labels[:3])


@pytest.mark.long
def test_several_models_give_several_answers(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    models = [ir.load(make_checkpoint(tmp_path, seed=seed)) for seed in (0, 1)]
    answers = ir.analyze("attention-rank", models, limit=6, steps=1)
    alone = ir.analyze("attention-rank", models[1], limit=6, steps=1)
    names = [model.name for model in models]
    assert answers["spearman"] == dict(zip(names, (answers[0]["spearman"], answers[1]["spearman"]), strict=True))
    train = ir.analyze("attention-rank", models[1], limit=6, steps=1, split="train")
    with pytest.raises(ir.UserError, match=f"several answers are of {names[1]}: take one by its place"):
        ir.Answers([alone, train])["spearman"]
    assert answers[1]["spearman"] == alone["spearman"] == alone["test/spearman"]
    assert alone["spearman"].low <= alone["spearman"].value <= alone["spearman"].high
    with pytest.raises(ir.UserError, match="did you mean 'spearman'"):
        alone["sperman"]
    assert len(repr(answers)) < 1500 and str(answers).count("seed1") >= 1
    assert len(answers.figure().axes) == len(answers.figure(panel="curve").axes)
    answers.figure(tmp_path / "ranks.png", panel="correlations")
    caption = json.loads((tmp_path / "ranks.json").read_text())["caption"]
    assert caption == compose("attention-rank", [answer.result for answer in answers], "correlations").caption
    with pytest.raises(ir.UserError, match="unknown panel of attention-rank 'curves': did you mean 'curve'"):
        alone.figure(panel="curves")
    paths = [answer.save(tmp_path / f"{index}.h5") for index, answer in enumerate(answers)]
    same_answers = ir.open(paths)
    assert same_answers["spearman"] == answers["spearman"]
    assert same_answers._repr_html_().count("<img src=") == 4


def test_answers_are_kept_under_the_names_of_the_command(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    paths = [make_checkpoint(tmp_path / "checkpoints", seed=seed) for seed in (0, 1)]
    answers = ir.analyze("alignment", [ir.load(path) for path in paths], limit=6, seed=3)
    assert "save keeps it" in repr(answers)
    files = answers.save(tmp_path / "analyses")
    stamps = [path.stat().st_mtime_ns for path in files]
    words = ["--limit", "6", "--seed", "3", "--root", str(tmp_path)]
    cli.irt(["analyze", "alignment", *map(str, paths), *words], standalone_mode=False)
    assert sorted((tmp_path / "analyses").glob("*.h5")) == sorted(files)
    assert [path.stat().st_mtime_ns for path in files] == stamps
    assert ir.open(files)["cosine/own"].keys() == answers["cosine/own"].keys()

    files[0].unlink()
    with pytest.raises(ir.UserError, match=f"{files[1].name} is there already: overwrite=True replaces it"):
        answers.save(tmp_path / "analyses")
    assert not files[0].exists()
    assert answers.save(tmp_path / "analyses", overwrite=True) == files
    assert answers[0].save(tmp_path) == tmp_path / files[0].name
    with pytest.raises(ir.UserError, match=r"two models are called alignment-.*\.h5 in files"):
        ir.Answers([answers[0], answers[0]]).save(tmp_path / "twice")
    with pytest.raises(ir.UserError, match=rf"{files[1].name} cannot be a folder \(File exists\): name one"):
        answers.save(files[1])


def test_help_lists_the_settings_of_each_question_as_they_are() -> None:
    text = pydoc.plain(pydoc.render_doc(ir.analyze))
    sections = re.split(r"\n {4}(?=[a-z0-9-]+: )", text.partition("Questions, and the settings")[2])[1:]
    by_name = {section.partition(":")[0]: section for section in sections}
    assert list(by_name) == analyses.list_names()
    for name in analyses.own_names():
        entries = re.findall(r"^ {8}(\w+)=(.+?): ", by_name[name], flags=re.MULTILINE)
        settings = fields(analyses.get(name).settings)
        assert [setting for setting, _ in entries] == [field.name for field in settings]
        for (_, value), field in zip(entries, settings, strict=True):
            numerator, _, denominator = value.partition("/255")
            number = float(numerator) / 255 if value.endswith("/255") else ast.literal_eval(numerator + denominator)
            assert number == field.default, (name, field.name)
    assert "norm=None: Norm of eps: linf" in by_name["robustness"] and "--" not in "".join(by_name.values())


def test_help_lists_the_fields_of_a_recipe_and_of_a_card() -> None:
    recipe = find_recipe(None, "cluttered-digits")
    entries = re.findall(r"^ {4}(\w+)=(.+?): \w", inspect.getdoc(ir.train) or "", flags=re.MULTILINE)
    assert [name for name, _ in entries] == [field.name for field in fields(recipe) if field.name != "name"]
    assert dict(entries) | {"eps": "8/255", "attack_step": "5/255", "epochs": repr(recipe.epochs)} == dict(entries)
    entries = re.findall(r"^ {4}(\w+)=", inspect.getdoc(ir.load) or "", flags=re.MULTILINE)
    assert set(entries) == {field.name for field in fields(Card)} - {"model"}


def test_help_names_an_analysis_of_another_package_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyses, "list_names", lambda: ["alignment", "tint"])
    monkeypatch.setattr(analyses, "about", "What is {}?".format)
    assert describe_settings().endswith("tint: What is tint?\n    `irt analyze tint --help` lists its settings.")
    assert "tint" not in sys.modules


def test_an_answer_becomes_a_tree_with_named_axes(digits_model: ir.Model, tmp_path: Path) -> None:
    pytest.importorskip("xarray")
    answer = ir.analyze("attention-rank", digits_model, limit=5, steps=1)
    tree = answer.to_xarray()
    np.testing.assert_array_equal(tree["per_image/spearman"].values, answer.arrays["spearman"])
    assert tree["per_image/spearman"].dims == ("sample",)
    assert tree["test/spearman"].sel(of="value").item() == answer["spearman"].value
    assert tree["curve/rank"].values.tolist() == list(range(tree["curve"].sizes["rank"]))


def test_a_model_is_trained_and_taken_when_it_is_there(tmp_path: Path) -> None:
    small: dict[str, Any] = {"epochs": 1, "batch_size": 16, "attack_steps": 1}
    model = ir.train("at", limit=32, root=tmp_path, **small)
    assert ir.train("at", limit=32, root=tmp_path, **small).subject.sha256 == model.subject.sha256
    with pytest.raises(ir.UserError, match="unknown recipe field 'epoch': did you mean 'epochs'"):
        ir.train("at", limit=32, root=tmp_path, epoch=1)


def test_what_there_is_can_be_listed() -> None:
    assert set(ir.datasets()) >= {"cluttered-digits", "cifar10"}
    assert "attention-rank" in ir.questions()


def test_a_statistic_says_what_it_is_of_and_stays_an_interval() -> None:
    answer = ir.open("analyses/attention-rank-cifar10-small-at-att-seed0-test-first1000.h5")
    statistic = answer["spearman"]
    assert repr(statistic) == (
        "<Statistic -0.6221 [-0.6315, -0.6122]: mean of Spearman of attention and robustness (minus distance) over "
        "positions, bootstrap 95 % interval; 1000 images>"
    )
    assert repr(copy.copy(statistic)) == repr(statistic) and statistic == Interval(*statistic)
    assert repr(statistic._replace(value=-0.5)) == "<Statistic -0.5 [-0.6315, -0.6122]>"


@pytest.mark.parametrize(
    "numbers",
    [
        ([0.5, 0.4, 0.3], [0.25, 0.2, 0.1]),
        [0.5, 0.4, 0.3, 0.25, 0.2, 0.1],
        (torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64), np.array([0.25, 0.2, 0.1])),
    ],
)
def test_normalization_may_be_lists_of_numbers(numbers: Any) -> None:
    images, network = pixels(4, C, H, W), seed_network(Convolutions)
    model = ir.load(network, noise(), label="mine", normalize=numbers)
    mean, deviation = (torch.tensor(values).reshape(3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.25, 0.2, 0.1]))
    torch.testing.assert_close(model(images), network.eval()((images - mean) / deviation))
    assert isinstance(model.subject, ExternalModel) and model.subject.card.normalize == "0.5,0.4,0.3,0.25,0.2,0.1"


def test_short_words_of_a_notebook_are_taken_and_wrong_ones_get_a_sentence(digits_model: ir.Model) -> None:
    answer = ir.analyze("robustness", digits_model, limit=4, pgd=[np.int64(1)], cw=None)
    assert answer.result.config["settings"]["pgd"] == "1" and answer.result.config["settings"]["cw"] == "none"
    assert isinstance(answer["natural"], Interval)
    share, low, high = answer["natural"]
    assert repr(answer["natural"]) == (
        f"<Statistic {share:.4g} [{low:.4g}, {high:.4g}]: share of natural images classified rightly, Wilson 95 %; "
        "4 images>"
    )
    assert "not saved" in repr(answer) and "accuracy/natural" in repr(answer.statistics)
    for wrong, sentence in (
        ({"restarts": "x"}, "restarts is 'x': robustness takes a whole number there"),
        ({"eps": True}, "eps is True: robustness takes a number there"),
        ({"limt": 3}, "did you mean 'limit'"),
    ):
        with pytest.raises(ir.UserError, match=sentence):
            ir.analyze("robustness", digits_model, **wrong)
    with pytest.raises(ir.UserError, match=r"give ir.load\('x.safetensors'\)"):
        ir.analyze("robustness", "x.safetensors")  # type: ignore[arg-type]


def test_a_column_of_the_table_is_never_taken_for_another_number(digits_model: ir.Model) -> None:
    answers = ir.analyze("attention-rank", [digits_model], limit=8, steps=1)
    with pytest.raises(ir.UserError, match=r"'relative' is a column of the table and the end of curve/relative"):
        answers["relative"]
    with pytest.raises(ir.UserError, match="it is a column of the printed table"):
        answers["mean map"]
    assert np.array_equal(answers[0]["curve/relative"], answers[0].statistics["curve/relative"])
    (name,) = answers["spearman"]
    assert answers[name] is answers[0] and repr(answers).startswith("<Answers attention-rank of 1 model:")


def test_what_is_no_model_and_no_file_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(ir.UserError, match="there is no model nope"):
        ir.load("nope")
    with pytest.raises(ir.UserError, match="is a folder: give one of the analysis files in it"):
        ir.open(tmp_path)


def test_names_as_they_are_printed_stand_for_files_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_checkpoint: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_checkpoint(tmp_path / "checkpoints", "at", 0)
    make_checkpoint(tmp_path / "checkpoints", "natural", 1)
    model = ir.load(path.stem)
    assert model.subject.location == f"checkpoints/{path.name}" and ir.load("at-seed0").name == model.name
    with pytest.raises(ir.UserError, match="'cluttered' is short for 2 files: give more of the name"):
        ir.load("cluttered")
    (file,) = ir.analyze("attention-rank", [model], limit=4, steps=1).save("analyses")
    assert file.parent.name == "analyses"
    assert ir.open(file.stem)["spearman"] == ir.open(file)["spearman"]


def corners(_: ir.Model, images: torch.Tensor) -> torch.Tensor:
    """All weight on the first position."""
    weights = torch.zeros(len(images), 54)
    weights[:, 0] = 1
    return weights


def test_a_function_that_a_module_holds_is_a_setting() -> None:
    model = ir.load(seed_network(Convolutions), noise(), label="mine")
    answer = ir.analyze("attention-rank", model, limit=3, steps=1, spatial_weight=corners)
    assert answer.result.config["settings"]["spatial_weight"] == f"{__name__}:corners"
    assert answer["per_image/attention"].sum(0).tolist() == [3, *[0] * 53]


@pytest.mark.parametrize("value", [lambda model, images: images, 0.5, ["grad-cam"]])
def test_what_is_no_text_is_no_text_setting(value: Any) -> None:
    model = ir.load(seed_network(Convolutions), noise(), label="mine")
    with pytest.raises(ir.UserError, match="attention-rank takes text there, or a function that a module holds"):
        ir.analyze("attention-rank", model, spatial_weight=value)


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        ({"normalize": (0.5, "x")}, r"a model's normalize is \[0.5, \"x\"\] where text or None is needed."),
        ({"resize": "32"}, 'a model\'s resize is "32" where a whole number or None is needed.'),
        ({"draws": 2.5}, "a model's draws is 2.5 where a whole number or None is needed."),
        ({"label": 3}, "^label=3: give a label of printable characters"),
        ({"arguments": "width=3"}, "arguments are 'width=3': give a dict by name"),
        ({"arguments": ["width"]}, r"arguments are \['width'\]: give a dict by name"),
        ({"arguments": {1: 2}}, r"arguments are {1: 2}: give a dict by name"),
        ({"arguments": {"layer": nn.ReLU}}, "^arguments layer=<class .*ReLU'> is no number, text or list"),
        ({"arguments": {"sizes": [np.zeros(2)]}}, r"^arguments sizes=array\(\[0., 0.\]\) is no number, text or list"),
        ({"local_layer": nn.ReLU()}, r"a model's local_layer is .*ReLU.* where text or None is needed."),
    ],
)
def test_a_field_of_another_type_is_one_sentence(card: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ir.UserError, match=sentence):
        ir.load(seed_network(Convolutions), noise(), **card)


API: Any = ir
"""The package, of which a test asks what its types forbid."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda _: API.analyze("robustness", nn.Conv2d(3, 4, 1)), "a Conv2d is a network: give ir.load"),
        (lambda _: API.analyze("robustness", [nn.ReLU()]), r"ReLU\(\) is no model to ask: give what ir.load"),
        (lambda model: API.analyze("robustness", model, limit="5"), "limit is '5': give a whole number of images"),
        (lambda model: API.analyze("robustness", model, limit=2.5), "limit is 2.5: give a whole number of images"),
        (
            lambda model: API.analyze("randomization", model, evaluators="x.json"),
            "^evaluators are 'x.json': give a list of what ir.load returns",
        ),
        (lambda _: API.samples(noise(), "8"), "count is '8': the test split has 9 images"),
        (lambda _: API.PGD(eps="8/255"), "eps is '8/255': it must be a number"),
        (lambda _: API.PGD(eps=0.1, steps="20"), "steps are '20': give a whole number"),
        (lambda _: API.PGD(eps=True), "^eps is True: it must be a number"),
        (lambda _: API.PGD(eps=0.1, step_size=True), "^step size is True: it must be a number"),
        (lambda _: API.PGD(eps=0.1, steps=True), "^steps are True: give a whole number"),
        (lambda _: API.PGD(eps=0.1, restarts=True), "^restarts are True: give a whole number"),
        (lambda _: API.PGD(eps=0.1, targeted="no"), "^targeted is 'no': give True or False"),
        (lambda _: API.PGD(eps=0.1, random_start=None), "^random_start is None: give True or False"),
        (lambda _: API.samples(noise(), True), "^count is True: the test split has 9 images"),
        (lambda _: API.train("at", overwrite="no"), "^overwrite is 'no': give True or False"),
        (lambda _: API.train("at", log=1), "^log is 1: give True or False"),
        (lambda model: API.analyze("gradmap-score", model, probe="no"), "^probe is 'no': give True or False"),
        (
            lambda model: API.analyze("robustness", model, pgd=5.0),
            r"^pgd is 5\.0: robustness takes text there, such as '5,20,100,200', or whole numbers\.$",
        ),
        (
            lambda model: API.analyze("robustness", model, apgd=True),
            r"^apgd is True: robustness takes text there, such as 'none', or whole numbers\.$",
        ),
        (
            lambda model: API.analyze("gradient-maps", model, source=["gradient"]),
            r"^source is \['gradient'\]: gradient-maps takes text there, such as 'gradient'\.$",
        ),
        (
            lambda model: API.analyze("robustness", model, eps=torch.zeros(3, 3, 8, 8)),
            r"^eps is a value of type Tensor: robustness takes a number there\.$",
        ),
    ],
)
def test_what_is_of_another_kind_is_one_sentence(ask: Callable[[Any], Any], sentence: str) -> None:
    with pytest.raises(ir.UserError, match=sentence):
        ask(ir.load(seed_network(Convolutions), noise(), label="mine"))
