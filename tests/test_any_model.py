"""Models from anywhere through the command, from end to end: asked, drawn, reported, and declared by a card."""

import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import network_of, save_tiny
from command import Irt
from PIL import Image

from interpret_robust import cli
from interpret_robust.analyses.engine import validation
from interpret_robust.cli.models import declaration_options
from interpret_robust.cli.options import options
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import card as cards
from interpret_robust.models import external, libraries
from interpret_robust.models.card import Card
from interpret_robust.results import hdf5

MODELS: dict[str, list[str]] = {
    "torchvision-resnet18-random": ["--model", "torchvision:resnet18", "--weights", "random"],
    "vit-b-16": [
        *["--model", "torchvision:vit_b_16", "--weights", "random", "--model-arg", "image_size=32"],
        *["--label", "vit-b-16"],
    ],
    "timm-vit": [
        *["--model", "timm:vit_tiny_patch16_224", "--weights", "random", "--label", "timm-vit"],
        *["--model-arg", "img_size=32", "--model-arg", "patch_size=8", "--model-arg", "depth=3"],
    ],
    "timm-convnext_atto-random": ["--model", "timm:convnext_atto", "--weights", "random"],
    "robustbench-Wong2020Fast-random": ["--model", "robustbench:Wong2020Fast", "--weights", "random"],
}
GRIDS = {
    "torchvision-resnet18-random": (256, 2, 2),
    "vit-b-16": (768, 2, 2),
    "timm-vit": (192, 4, 4),
    "timm-convnext_atto-random": (160, 2, 2),
    "robustbench-Wong2020Fast-random": (512, 4, 4),
}
SLOW = ("vit-b-16", "robustbench-Wong2020Fast-random")
"""Of these, and tried with `pytest -m long`."""

QUESTIONS: dict[str, list[str]] = {
    "robustness": ["--pgd", "2", "--cw", "none"],
    "gradient-maps": [],
    "gradmap-score": [],
    "alignment": [],
    "attention-rank": ["--steps", "2"],
}
LIMIT = ["--limit", "4", "--batch-size", "4"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with few images and nothing else."""
    root = tmp_path_factory.mktemp("any")
    save_tiny(root / "tiny.npz")
    return root


@pytest.fixture(scope="module")
def reader(place: Path, make_checkpoint: Callable[..., Path]) -> Path:
    """A small natural network that reads maps."""
    (place / "readers").mkdir()
    return make_checkpoint(place / "readers", "natural", 1)


@pytest.fixture(scope="module", autouse=True)
def few_blocks_of_each_library(few_blocks: None) -> Iterator[None]:
    """Networks of robustbench have one block a stage too."""
    if importlib.util.find_spec("robustbench") is None:
        yield
        return
    with warnings.catch_warnings(action="ignore"):  # of what it imports
        libraries._name_autoattack()
        from robustbench.model_zoo.architectures.resnet import PreActResNet
    build = PreActResNet.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreActResNet, "__init__", lambda network, block, _: build(network, block, [1] * 4))
        yield


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in MODELS]
)
def question_files(request: pytest.FixtureRequest, place: Path, reader: Path) -> tuple[str, dict[str, Path]]:
    """The name of a model, and the file of each question about it, made by the command."""
    name: str = request.param
    library = name.partition("-")[0]
    if library in ("timm", "robustbench") and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    files = {}
    for question, settings in QUESTIONS.items():
        readers = ["--evaluator", str(reader)] if question == "gradmap-score" else []
        words = ["analyze", question, *MODELS[name], *settings, *readers, *LIMIT, "--dataset", str(place / "tiny.npz")]
        cli.irt([*words, "--root", str(place)], standalone_mode=False)
        (files[question],) = place.glob(f"analyses/{question}-tiny-{name}*.h5")
    return name, files


def card_of(name: str) -> Card:
    """The card that the command makes of a model's words."""
    calls: list[Any] = []
    command = click.command()(options(declaration_options)(lambda **settings: calls.append(settings)))
    command.main([*MODELS[name], "--dataset", "cifar10"], standalone_mode=False)
    (settings,) = calls
    settings.pop("dataset")
    card = cards.parse_reference(settings.pop("model"), **settings)
    assert isinstance(card, Card)
    return card


@pytest.mark.long
def test_every_question_can_be_asked_of_any_model(question_files: tuple[str, dict[str, Path]], place: Path) -> None:
    """What files hold is what the network itself gives."""
    name, files = question_files
    data = load(str(place / "tiny.npz"))
    network = network_of(card_of(name), 10).eval()
    images, labels = to_device(data.test.first(4), torch.device("cpu"))
    pixels = to_pixels(images).requires_grad_()
    logits = network(pixels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), pixels)
    for path in files.values():
        assert validation.list_problems(path) == []
        config = hdf5.read(path).config
        assert config["checkpoint"]["name"] == f"tiny-{name}"
        assert config["local_grid"] == list(GRIDS[name][1:])
    with h5py.File(files["alignment"]) as file:
        assert file["per_image/prediction"][:].tolist() == logits.argmax(1).tolist()
        assert file["per_image/label"][:].tolist() == labels.tolist()
        deviations = (pixels - pixels.mean((1, 2, 3), keepdim=True)).detach().flatten(1)
        cosine = F.cosine_similarity(deviations, -gradient.flatten(1))
        if name == "vit-b-16":  # a fresh one of torchvision answers zero, whatever it sees
            assert not gradient.any()
            cosine = cosine * torch.nan
        np.testing.assert_allclose(file["per_image/cosine"][:], cosine, rtol=1e-2, atol=1e-4)
    with h5py.File(files["attention-rank"]) as file:
        weights = file["per_image/attention"][:]
        assert weights.shape == (4, GRIDS[name][1] * GRIDS[name][2])
        finite = np.isfinite(weights).all(1)
        np.testing.assert_allclose(weights[finite].sum(1), 1, rtol=1e-5)
        assert (file["per_image/distance"][:] > 0).any()
    assert hdf5.read(files["gradmap-score"]).config["evaluators"]["names"] == ["cluttered-digits-small-natural-seed1"]


def test_the_default_layer_has_positions_and_its_shape_is_kept(
    question_files: tuple[str, dict[str, Path]], place: Path
) -> None:
    name, _ = question_files
    subject = external.find_subject(card_of(name), str(place / "tiny.npz"))
    assert subject.local_shape() == GRIDS[name]


@pytest.mark.long
def test_what_was_asked_is_not_asked_again(
    question_files: tuple[str, dict[str, Path]], place: Path, irt: Irt, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, files = question_files

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a model is tried for a question that is answered")

    monkeypatch.setattr(external, "try_out", fail)
    external._shared_model.cache_clear()
    stamp = files["alignment"].stat().st_mtime_ns
    code, out, err = irt(
        *["analyze", "alignment", *MODELS[name], *LIMIT, "--dataset", place / "tiny.npz", "--root", place]
    )
    assert code == 0 and f"{files['alignment'].name} is there already" in err
    assert "normalize" not in err  # nothing is tried out
    assert f"tiny-{name}" in out
    assert files["alignment"].stat().st_mtime_ns == stamp


@pytest.mark.long
def test_regions_and_deletions_of_a_model_from_elsewhere(
    question_files: tuple[str, dict[str, Path]], place: Path, irt: Irt
) -> None:
    name, _ = question_files
    if name != "timm-vit":
        pytest.skip("one is enough")
    location = [*MODELS[name], *LIMIT, "--dataset", place / "tiny.npz", "--root", place]
    for question, settings in (("feature-deletion", ["--steps", "2"]), ("localization", [])):
        code, out, err = irt("analyze", question, *settings, *location)
        assert code == 0, err
        (path,) = place.glob(f"analyses/{question}-tiny-{name}*.h5")
        assert validation.list_problems(path) == []
        assert f"tiny-{name}" in out


@pytest.mark.long
@pytest.mark.parametrize("question", ["map-quality", "attention-maps", "randomization"])
def test_other_questions_of_a_model_from_elsewhere(question: str, place: Path, reader: Path, irt: Irt) -> None:
    settings: dict[str, list[object]] = {
        "map-quality": ["--samples", "3"],
        "attention-maps": [],
        "randomization": ["--evaluator", reader],
    }
    location = ["--local-layer", "layer2", "--label", "two", *LIMIT, "--dataset", place / "tiny.npz", "--root", place]
    code, _, err = irt("analyze", question, *settings[question], *MODELS["torchvision-resnet18-random"], *location)
    assert code == 0, err
    (path,) = place.glob(f"analyses/{question}-tiny-two*.h5")
    assert validation.list_problems(path) == []


@pytest.mark.long
def test_what_came_out_is_drawn_and_reported(
    question_files: tuple[str, dict[str, Path]], place: Path, tmp_path: Path, irt: Irt
) -> None:
    name, files = question_files
    for question, path in files.items():
        without_pdf = [] if name == "timm-vit" else ["--no-pdf"]  # one of each is enough
        code, out, err = irt("figure", question, path, *without_pdf, "--root", place)
        assert code == 0, err
        picture = Path(out.splitlines()[-1])
        caption = json.loads(picture.with_suffix(".json").read_text())
        assert picture.exists() and any(name in key for key in caption["numbers"] or {name: 0}), caption
    if name != "timm-vit":  # one page is enough
        return
    (tmp_path / "analyses").mkdir()
    for path in files.values():
        shutil.copy(path, tmp_path / "analyses")
    code, _, err = irt("report", "--root", tmp_path)
    assert code == 0, err
    page = (tmp_path / "report.html").read_text()
    assert name in page


def test_no_file_speaks_of_answers_that_are_no_numbers_where_all_are(
    question_files: tuple[str, dict[str, Path]],
) -> None:
    """The probe of gradmap-score, which nobody asked for, has given no class either."""
    _, files = question_files
    assert "gradmap-score" in files
    for path in files.values():
        assert not any("finite" in doubt for doubt in hdf5.read(path).doubts), path


def test_models_of_several_origins_share_an_audit_and_flags(
    question_files: tuple[str, dict[str, Path]], place: Path, irt: Irt
) -> None:
    _, files = question_files
    code, out, err = irt("audit", *files.values())
    assert (code, out) == (2, "") and "claims compare models, and these " in err
    assert irt("audit", *files.values(), "--form", "csv")[0] == 0
    assert irt("flags", files["robustness"])[0] == 0
    assert irt("show", files["robustness"])[0] == 0
    assert irt("export", files["alignment"], "-o", place / "tables", "--overwrite")[0] == 0


def test_a_model_that_guesses_is_doubted_on_stderr_before_it_is_asked(place: Path, irt: Irt) -> None:
    location = ["--limit", "2", "--label", "doubtful", "--dataset", place / "tiny.npz", "--root", place]
    code, out, err = irt("analyze", "alignment", *MODELS["torchvision-resnet18-random"], *location)
    assert code == 0
    assert "warning: doubtful is right on" in err and "of 8 test images, hardly more than guessing" in err
    assert "In doubt: doubtful is right on" in " ".join(out.split())


@pytest.fixture
def talkative(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The words that name a network which prints in each call, and its data."""
    (place / "talkative.py").write_text(
        "import torch\n"
        "class Talkative(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(3072, 10)\n"
        "    def forward(self, images):\n"
        "        print('pixels of', tuple(images.shape))\n"
        "        return super().forward(images.flatten(1))\n"
    )
    monkeypatch.syspath_prepend(place)
    return ["--model", "talkative:Talkative", "--dataset", place / "tiny.npz"]


def test_what_a_network_prints_does_not_get_into_a_table(talkative: list[Any], place: Path, irt: Irt) -> None:
    words = [*talkative, "--limit", "2", "--root", place]
    code, out, err = irt("evaluate", *words, "--pgd", "1", "--cw", "none", "--form", "json")
    assert code == 0
    assert json.loads(out) and "pixels of (2, 3, 32, 32)" in err


def test_no_command_shows_what_a_network_prints_on_stdout(talkative: list[Any], place: Path, irt: Irt) -> None:
    images = load(str(place / "tiny.npz")).test.images[:2]
    np.save(place / "clean.npy", images)
    Image.fromarray(images[0]).save(place / "one.png")
    prints = {}
    for command in (
        ["verify", place / "clean.npy", "--eps", "0.1"],
        ["explain", place / "one.png", "--root", place],
        ["model", "layers"],
        ["model", "card", "-o", place / "talkative.json"],  # what was tried is not tried again
    ):
        code, out, err = irt(*command, *talkative)
        assert code == 0, err
        prints[str(command[1] if command[0] == "model" else command[0])] = ("pixels of" in err, "pixels of" in out)
    assert {name: in_err for name, (in_err, _) in prints.items()} == {
        "verify": True,
        "explain": True,
        "layers": True,
        "card": False,
    }
    assert not any(in_out for _, in_out in prints.values())


def test_layers_are_listed_by_the_command(place: Path, irt: Irt) -> None:
    words = [*MODELS["torchvision-resnet18-random"], "--dataset", place / "tiny.npz"]
    code, out, _ = irt("model", "layers", *words)
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[2:]}
    assert rows["layer3"] == ["Sequential", "256", "2x2", "taken"]
    assert rows["layer1"] == ["Sequential", "64", "8x8"]
    assert "layer4" not in rows and "fc" not in rows
    _, table, _ = irt("model", "layers", *words, "--all")
    assert "fc" in table and "one position" in table


@pytest.mark.long
def test_a_card_is_declared_once_and_used(place: Path, irt: Irt) -> None:
    words = [*MODELS["torchvision-resnet18-random"], "--local-layer", "layer2", "--label", "carded"]
    data, path = place / "tiny.npz", place / "card.json"
    code, out, err = irt("model", "card", *words, "--dataset", data, "-o", path)
    assert code == 0 and "of 8 test images" in out and "hardly more than guessing" in err
    assert "The order of its 10 classes was not tried: 8 images are too few." in err
    card = json.loads(path.read_text())
    assert (card["model"], card["normalize"], card["local_layer"]) == ("torchvision:resnet18", "0,1", "layer2")
    location = ["--limit", "2", "--dataset", data, "--root", place]
    code, out, _ = irt("analyze", "alignment", "--model", path, *location)
    assert code == 0 and "tiny-carded" in out
    code, _, err = irt("model", "card", *words, "--dataset", data, "-o", path)
    assert code == 2 and "is there already: --overwrite replaces it." in err
    assert irt("model", "card", *words, "--dataset", data, "-o", path, "--overwrite")[0] == 0
    code, out, err = irt("analyze", "alignment", path, *location)
    assert code == 0 and "is there already" in err
    code, _, err = irt("analyze", "alignment", *words, *location)
    assert code == 0 and "is there already" in err, "the words that a card was made of are the same model"


def test_cards_and_checkpoints_are_asked_together(
    place: Path, make_checkpoint: Callable[..., Path], irt: Irt, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{label}.json" for label in ("first", "second")]
    for path, model in zip(paths, ("torchvision:resnet18", "torchvision:shufflenet_v2_x0_5"), strict=True):
        Card(model, weights="random", normalize="none", label=path.stem).write(path)
    trained_model = make_checkpoint(tmp_path / "own", "at", 0)
    words = ["--dataset", place / "tiny.npz", *LIMIT, "--pgd", "1", "--cw", "none", "--root", tmp_path]
    code, _, err = irt("evaluate", paths[0], trained_model, *words)
    assert code == 0, err
    names = {file.name: result_evaluators(file) for file in (tmp_path / "analyses").glob("*.h5")}
    assert sorted(names.values()) == [["cluttered-digits-small-at-seed0"], ["tiny-first"]]
    code, _, err = irt("evaluate", *paths, "--matrix", *words, "--overwrite")
    assert code == 0, err
    files = (tmp_path / "analyses").glob("robustness-tiny-first-*.h5")
    assert ["tiny-first", "tiny-second"] in map(result_evaluators, files)


def result_evaluators(file: Path) -> list[str]:
    """The models that classify the adversarial images of a file."""
    return [str(name) for name in hdf5.read(file)["target"]]


@pytest.mark.long
def test_a_model_from_elsewhere_reads_maps(place: Path, make_checkpoint: Callable[..., Path], irt: Irt) -> None:
    words = [*MODELS["torchvision-resnet18-random"], "--label", "reader", "--dataset", place / "tiny.npz"]
    assert irt("model", "card", *words, "-o", place / "reader.json")[0] == 0
    (place / "own").mkdir()
    path = make_checkpoint(place / "own", "at", 0)
    code, _, err = irt(
        *["analyze", "gradmap-score", path, "--evaluator", place / "reader.json", *LIMIT, "--root", place],
        *["--dataset", place / "tiny.npz"],
    )
    assert code == 0, err
    (result,) = place.glob("analyses/gradmap-score-cluttered-digits-small-at-seed0-*.h5")
    assert hdf5.read(result).config["evaluators"]["names"] == ["tiny-reader"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--local-layer", "layr3"], "unknown layer 'layr3': did you mean 'layer3'?"),
        (["--local-layer", "fc"], "layer 'fc' gives a tensor of shape (1, 10)"),
        (["--attention-layer", "layr3"], "unknown layer 'layr3'"),
        (["--normalize", "imagnet"], "unknown normalization 'imagnet': did you mean 'imagenet'?"),
        (["--resize", "0"], "0 is not in the range x>=1"),
        (["--model-arg", "depth"], "'depth' is no argument of the form NAME=VALUE"),
        (["--model-arg", "sizes=[1,2]"], "torchvision:resnet18 cannot be built"),
        (["--spatial-weight", "attention"], "has no attention: use --spatial-weight grad-cam"),
        (["--spatial-weight", "gradcam"], "unknown spatial weight 'gradcam': did you mean 'grad-cam'?"),
        (["--weights", "gone.pt"], "there is no file of weights gone.pt"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(words: list[str], sentence: str, place: Path, irt: Irt) -> None:
    location = ["--limit", "2", "--dataset", place / "tiny.npz", "--root", place]
    code, _, err = irt("analyze", "attention-rank", *MODELS["torchvision-resnet18-random"], *words, *location)
    assert code == 2
    assert sentence in err
    assert err.startswith("irt: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [["--normalize", "none"], ["--label", "x"], ["--model-arg", "a=1"], ["--resize", "3"]]
)
def test_what_says_more_of_a_model_needs_one(words: list[str], place: Path, irt: Irt) -> None:
    code, _, err = irt("analyze", "alignment", *words, "--root", place)
    assert (code, err) == (2, "irt: --weights, --normalize and similar options describe a --model: name one.\n")


def test_a_model_from_elsewhere_without_data_is_the_users_error(place: Path, irt: Irt) -> None:
    code, _, err = irt("analyze", "alignment", *MODELS["torchvision-resnet18-random"], "--root", place)
    assert code == 2
    assert err == (
        "irt: torchvision:resnet18 does not say which images it is for: give --dataset NAME, or the path of its "
        "files.\n"
    )


def test_a_diffuse_name_is_not_taken_for_a_file(place: Path, irt: Irt) -> None:
    for name in ("resnet18", "torchvision:resnet181"):
        code, _, err = irt("model", "layers", "--model", name, "--dataset", place / "tiny.npz")
        assert code == 2 and err.count("\n") == 1
    code, _, err = irt(
        "model", "card", "--model", "torchvision:resnet18", "--dataset", "cifar10", "-o", place / "a.txt"
    )
    assert code == 2 and "a card's name ends in .json." in err


WEIGHTS = """
import torch

def middle(model, images):
    height, width = model.features(images).local.shape[2:]
    found = torch.zeros(len(images), height, width)
    found[:, height // 2, width // 2] = 2
    found[:, 0, 0] = 6
    return found
"""


def test_weights_of_positions_may_come_from_a_function_of_ones_own(
    place: Path, irt: Irt, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "weights_of_tests.py").write_text(WEIGHTS)
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = ["--spatial-weight", "weights_of_tests:middle", "--steps", "1", "--local-layer", "layer2"]
    location = ["--label", "own-weights", *LIMIT, "--dataset", place / "tiny.npz", "--root", place]
    code, _, err = irt("analyze", "attention-rank", *MODELS["torchvision-resnet18-random"], *words, *location)
    assert code == 0, err
    (path,) = place.glob("analyses/attention-rank-tiny-own-weights*.h5")
    expected = np.zeros((4, 4))
    expected[2, 2], expected[0, 0] = 0.25, 0.75
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["per_image/attention"][:], np.broadcast_to(expected.ravel(), (4, 16)))
    sys.modules.pop("weights_of_tests")


STATEFUL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.answer = nn.Conv2d(3, 4, 4, 4), nn.Linear(4 * 8 * 8, 10)
        self.factors = torch.linspace({low}, 1, 10)

    def forward(self, images):
        return self.answer(self.body(images).flatten(1)) * self.factors
"""


def test_a_network_whose_code_changed_is_not_taken_for_the_one_that_answered(
    tmp_path: Path, irt: Irt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state dict is the same, and numbers beside it differ."""
    save_tiny(tmp_path / "tiny.npz")
    monkeypatch.syspath_prepend(str(tmp_path))
    words: list[object] = [
        "analyze",
        "robustness",
        "--model",
        "code_of_tests:Net",
        "--label",
        "mine",
        "--pgd",
        "1",
        "--cw",
        "none",
    ]
    words += ["--dataset", tmp_path / "tiny.npz", "--root", tmp_path]

    def ask(low: float, *arguments: object) -> tuple[int, str, str]:
        (tmp_path / "code_of_tests.py").write_text(STATEFUL.format(low=low))
        monkeypatch.delitem(sys.modules, "code_of_tests", raising=False)
        importlib.invalidate_caches()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        external._shared_model.cache_clear()
        return irt(*words, *arguments)

    assert ask(0.5)[0] == 0
    code, _, err = ask(0.5)
    assert code == 0 and "is there already" in err
    code, _, err = ask(-1)
    assert code == 2 and "is of a network" in err and "that answered otherwise: its code, or numbers" in err
    assert ask(-1, "--overwrite")[0] == 0 and ask(-1)[0] == 0
