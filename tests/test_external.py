"""Models of any origin: how they are named, built and read, what is said of those that do not fit, and of doubts."""

import builtins
import importlib.util
import json
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyone import C, Convolutions, H, K, Levels, W, assert_unchanged, hooks, levels, network_of, noise, seed_network
from networks import array, pixels
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import number_classes
from interpret_robust.datasets.npz import write_npz
from interpret_robust.models import external, libraries
from interpret_robust.models.building import build_network, make_preprocess
from interpret_robust.models.card import Card, parse_reference
from interpret_robust.models.checks.reading import MOST_NAMES
from interpret_robust.models.checks.trial import Trial, try_out
from interpret_robust.models.external import ExternalModel, bring, find_subject, read
from interpret_robust.models.layer_table import list_layer_rows
from interpret_robust.models.loose_pictures import bring_with_pictures
from interpret_robust.models.normalization import STATISTICS

CPU = torch.device("cpu")
FULL = Card(
    "timm:vit_tiny_patch16_224",
    weights="random",
    arguments=(("img_size", 32), ("global_pool", "avg"), ("drop", None)),
    normalize="0.5,0.25",
    resize=64,
    local_layer="blocks.3",
    attention_layer="blocks.3.attn",
    label="mine",
)

OWN_MODULE = """
import torch
from anyone import Convolutions

def net(**arguments):
    return Convolutions(**arguments)

number = 7
text = lambda: "text"
count = lambda: 3

def fails():
    raise RuntimeError("no such thing.\\nat all")
"""


MODULE_WITH_OBJECT = """
from anyone import Convolutions

class Here:
    held = Convolutions()

def net():
    return Convolutions()
"""


def require(library: str) -> None:
    """Skip a test without an optional library; robustbench cannot be imported under its own names."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module `mine_of_tests`; what is imported from it is forgotten."""
    (tmp_path / "mine_of_tests.py").write_text(OWN_MODULE)
    (tmp_path / "held_by_tests.py").write_text(MODULE_WITH_OBJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("mine_of_tests", "held_by_tests"):
        sys.modules.pop(name, None)


def bring_model(network: nn.Module, data: Dataset, **card: Any) -> ExternalModel:
    return bring(network, Card("mine:net", **card), data, data.name)


# --- arguments that would make a library read a file


@pytest.mark.parametrize(
    ("model", "argument"),
    [
        ("torchvision:resnet18", "weights"),
        ("torchvision:resnet18", "weights_backbone"),
        ("torchvision:resnet18", "pretrained"),
        ("timm:resnet18", "checkpoint_path"),
        ("timm:resnet18", "pretrained_cfg"),
        ("timm:resnet18", "pretrained_cfg_overlay"),
        ("timm:resnet18", "cache_dir"),
        ("robustbench:Standard", "model_dir"),
        ("robustbench:Standard", "custom_checkpoint"),
    ],
)
@pytest.mark.parametrize("weights", [None, "random"])
def test_no_argument_makes_a_library_read_a_file(
    model: str, argument: str, weights: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder, which would leave a marker, is never called: the name of a file does not reach the library."""
    marker = tmp_path / "marker"
    monkeypatch.setitem(libraries.BUILDERS, model.partition(":")[0], lambda *arguments: marker.touch())
    with pytest.raises(UserError, match=f"--model-arg {argument} could make .* name the file with --weights"):
        network_of(Card(model, weights=weights, arguments=((argument, str(tmp_path / "file.pt")),)), 10)
    assert not marker.exists()


@pytest.mark.parametrize("argument", ["drop_path", "drop_path_rate", "weight_init", "init_weights", "use_checkpoint"])
def test_other_arguments_reach_the_library(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def builder(*arguments: Any) -> nn.Module:
        calls.append(arguments)
        return nn.Identity()

    monkeypatch.setitem(libraries.BUILDERS, "timm", builder)
    network_of(Card("timm:any", weights="random", arguments=((argument, 3),)), 10)
    assert calls == [("any", False, 10, {argument: 3})]


# --- cards


def test_a_label_is_kept_as_text_and_never_leaves_the_folder() -> None:
    model = bring_model(seed_network(Convolutions), noise("of/../data"), label="../../a/b")
    assert (model.job["variant"], model.job["dataset"]) == ("../../a/b", "of/../data")
    assert Path(model.name).name == model.name


@pytest.mark.parametrize(
    ("card", "name"),
    [
        (Card("torchvision:resnet18"), "torchvision-resnet18"),
        (
            Card("torchvision:resnet18", weights="random", local_layer="layer3"),
            "torchvision-resnet18-random-layer3",
        ),
        (Card("torchvision:resnet18", weights="some/where/best.v2.pt"), "torchvision-resnet18-best.v2"),
        (Card("timm:resnet50.a1_in1k"), "timm-resnet50.a1_in1k"),
        (Card("robustbench:cifar10/Linf/Engstrom2019Robustness"), "robustbench-cifar10-Linf-Engstrom2019Robustness"),
        (Card("a.b:c", arguments=(("width", 3), ("deep", True))), "a.b-c-width-3-deep-True"),
        (Card("a.b:c", attention_layer="gate"), "a.b-c-gate"),
        (FULL, "mine"),
    ],
)
def test_a_card_has_a_name_that_can_be_a_files(card: Card, name: str) -> None:
    assert card.name == name


@pytest.mark.parametrize("card", [FULL, Card("torchvision:resnet18")])
def test_a_card_comes_back_as_it_was_written(card: Card, tmp_path: Path) -> None:
    card.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == card
    entries = json.loads((tmp_path / "card.json").read_text())
    assert (entries["format"], entries["format_version"]) == ("interpret-robust-model", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.parametrize("weights", ["net.pt", "models/net.pt", "/elsewhere/models/net.pt"])
def test_weights_beside_a_card_are_found_from_another_folder(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    card = Card("mine:net", weights=weights)
    card.write(folder / "card.json")
    monkeypatch.chdir(tmp_path)
    assert Card.read(Path("sent/card.json")) == card, "without a file, the path stays as it was written"
    (folder / "net.pt").write_text("weights")
    assert Card.read(Path("sent/card.json")).weights == str(Path("sent/net.pt"))


def test_a_card_that_may_mean_two_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sent").mkdir()
    Card("mine:net", weights="net.pt").write(Path("sent/card.json"))
    for name in ("net.pt", "sent/net.pt"):
        Path(name).write_text("weights")
    assert Card.read(Path("sent/card.json")).weights == "net.pt", "a copy is no other file"
    Path("net.pt").write_text("WEIGHTS")
    with pytest.raises(UserError) as error:
        Card.read(Path("sent/card.json"))
    assert str(error.value) == (
        f"{Path('sent/card.json')} may mean net.pt or {Path('sent/net.pt')}, which differ: move one of them away, or "
        "rename it."
    )


def test_a_card_read_back_can_be_asked_for_again(tmp_path: Path) -> None:
    """Cards are keys of what is kept in memory, also those with a list among their arguments."""
    card = Card("timm:convnext_atto", arguments=(("depths", (1, 1, 2, 1)),))
    card.write(tmp_path / "card.json")
    assert len({card, Card.read(tmp_path / "card.json")}) == 1


def test_the_words_of_a_card_are_the_options_that_give_it() -> None:
    import click

    from interpret_robust.cli.options import card_options

    cards: list[Card] = []

    @click.command()
    @click.option("--model")
    @card_options
    def command(model: str, **card: Any) -> None:
        result = parse_reference(model, **card)
        assert isinstance(result, Card)
        cards.append(result)

    for card in (FULL, Card("torchvision:resnet18"), Card("a:b", arguments=(("flag", True), ("text", "a b")))):
        command.main(card.words(), standalone_mode=False)
        assert cards[-1] == card
    command.main(Card("a:b", arguments=(("text", "3.5"),)).words(), standalone_mode=False)
    assert cards[-1].arguments == (("text", "3.5"),)


def test_a_card_is_not_replaced_unasked(tmp_path: Path) -> None:
    Card("a:b").write(tmp_path / "card.json")
    with pytest.raises(UserError, match=r"card\.json is there already: --overwrite replaces it\."):
        Card("a:c").write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == Card("a:b")
    Card("a:c").write(tmp_path / "card.json", overwrite=True)
    assert Card.read(tmp_path / "card.json") == Card("a:c")


def card_text(**fields: Any) -> str:
    whole = {"format": "interpret-robust-model", "format_version": 1, "model": "a:b", "arguments": []}
    return json.dumps({key: value for key, value in (whole | fields).items() if value != "gone"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no model card: it is not JSON"),
        ("[]", "is no model card: `irt model card` makes them"),
        ("null", "is no model card: `irt model card` makes them"),
        (card_text(format="something else"), "is no model card: `irt model card` makes them"),
        (card_text(format_version=2), "is a model card of format 2, and this irt reads 1"),
        (card_text(format_version="gone"), "is a model card of format None"),
        (card_text(color="red"), "is no model card that this irt knows: it has no field 'color'"),
        (card_text(model="gone"), "is no model card that this irt knows"),
        (card_text(arguments="gone"), "is no model card that this irt knows"),
        (card_text(arguments=[1, 2]), "is no model card that this irt knows"),
        (card_text(arguments=[["a", 1, 2]]), "is no model card that this irt knows"),
        (card_text(resize=-3), "--resize -3"),
        (card_text(resize=True), "resize is true where a whole number or null is needed"),
        (card_text(resize=2.5), "resize is 2.5 where"),
        (card_text(resize="32"), 'resize is "32" where'),
        (card_text(model=None), "model is null where text is needed"),
        (card_text(model=["a"]), r'model is \["a"\] where text is needed'),
        (card_text(weights=3), "weights is 3 where text or null is needed"),
        (card_text(label={}), "label is {} where text or null is needed"),
        (card_text(normalize=[1]), r"normalize is \[1\] where text or null is needed"),
        (card_text(local_layer=False), "local_layer is false where text or null is needed"),
        (card_text(attention_layer="a\0"), "attention_layer is .* which has control characters"),
        (card_text(arguments={"a": 1}), "arguments is .* where a list of"),
        (card_text(arguments=[[1, "a"]]), "arguments is .* where a list of"),
        (card_text(arguments=[["a", {"b": 1}]]), '--model-arg a={"b": 1} is an object'),
        (card_text(arguments=[["a", [[{}]]]]), "--model-arg a={} is an object"),
        ("[" * 100_000, "is no model card: it is not JSON"),
    ],
)
def test_a_file_of_another_kind_is_no_card(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        Card.read(path)


def test_a_card_that_is_missing_or_not_text_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no model card .*gone\.json: `irt model card` makes them"):
        Card.read(tmp_path / "gone.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="it is not JSON"):
        Card.read(tmp_path / "binary.json")


def test_a_model_is_named_by_a_path_or_by_where_it_comes_from(tmp_path: Path) -> None:
    assert parse_reference("a/b.safetensors") == Path("a/b.safetensors")
    assert parse_reference("timm:x", weights=None, arguments=(), resize=3) == Card("timm:x", resize=3)
    FULL.write(tmp_path / "card.json")
    assert parse_reference(str(tmp_path / "card.json")) == FULL
    other = parse_reference(str(tmp_path / "card.json"), label="theirs", local_layer=None, arguments=())
    assert isinstance(other, Card) and other.label == "theirs" and other.local_layer == "blocks.3"


def test_a_checkpoint_takes_no_options_of_a_card() -> None:
    sentence = r"a\.safetensors is a checkpoint .* needs no label, normalize: .* --weights a\.safetensors\."
    with pytest.raises(UserError, match=sentence):
        parse_reference("a.safetensors", normalize="none", label="x", weights=None)


@pytest.mark.parametrize("resize", [0, -3])
def test_images_cannot_be_resized_to_nothing(resize: int) -> None:
    with pytest.raises(UserError, match=f"--resize {resize}: images have at least one pixel a side"):
        Card("a:b", resize=resize)


# --- networks


def test_a_librarys_network_has_the_weights_of_seed_zero_and_the_random_state_stays() -> None:
    card, state = Card("torchvision:resnet18", weights="random"), torch.get_rng_state()
    network = network_of(card, K)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        from torchvision.models import resnet18

        expected = resnet18(weights=None, num_classes=K).state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        repetition = network_of(card, K)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in repetition.state_dict().items())


def test_arguments_go_to_whatever_builds_the_network(folder: Path) -> None:
    network = network_of(
        Card("torchvision:resnet18", "random", (("width_per_group", 64), ("zero_init_residual", True))), K
    )
    assert not any(network.get_parameter(f"layer{layer}.1.bn2.weight").any() for layer in (1, 2, 3, 4))
    own_network = network_of(Card("mine_of_tests:net", arguments=(("classes", 5),)), K)
    assert own_network.get_parameter("answer.bias").shape == (5,)


@pytest.mark.long
def test_a_file_of_weights_says_for_how_many_classes_its_network_is(tmp_path: Path) -> None:
    """Where nobody else does, as of single pictures; a number that is given as an argument is taken."""
    network = network_of(Card("torchvision:resnet18", weights="random"), K)
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "mine.pt")
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "picture.png")
    card = Card("torchvision:resnet18", str(tmp_path / "mine.pt"), normalize="none")
    model = bring_with_pictures(card, [tmp_path / "picture.png"], size=36)
    assert model.job["class_names"] == [f"class {number}" for number in range(K)]
    images = torch.full((1, 3, 36, 36), 90 / 255)
    torch.testing.assert_close(model.model(torch.device("cpu"))(images), network.eval()(images))
    card = Card("torchvision:resnet18", "random", arguments=(("num_classes", K + 2),))
    assert network_of(card, K).get_parameter("fc.bias").shape == (K + 2,)


def test_timm_builds_for_so_many_classes() -> None:
    require("timm")
    arguments = (("img_size", 32), ("patch_size", 8), ("depth", 1))
    network = network_of(Card("timm:vit_tiny_patch16_224", "random", arguments), K)
    assert network(pixels(2, 3, 32, 32)).shape == (2, K)
    assert network.num_prefix_tokens == 1


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_a_library_may_warn_about_its_own_networks(name: str) -> None:
    assert network_of(Card(f"torchvision:{name}", "random"), K).training


def test_a_model_of_ones_own_is_found_in_the_working_directory(folder: Path) -> None:
    network = network_of(Card("mine_of_tests:net"), 99)
    expected = seed_network(Convolutions)
    assert torch.equal(network.get_parameter("answer.weight"), expected.answer.weight)
    assert isinstance(network_of(Card("held_by_tests:Here.held"), K), Convolutions)


def test_a_model_of_ones_own_is_the_same_whenever_its_module_was_imported(folder: Path) -> None:
    """What a module draws while it is imported must not be missing at the second call."""
    first, second = (network_of(Card("held_by_tests:net"), K).get_parameter("stem.weight") for _ in range(2))
    assert torch.equal(first, second)


def test_weights_of_a_model_given_as_it_is_do_not_change_it_for_others(folder: Path) -> None:
    """The object of a module is one for all that import it."""
    save_file(seed_network(Convolutions, seed=5).state_dict(), folder / "other.safetensors")
    weights_before = network_of(Card("held_by_tests:Here.held"), K).get_parameter("answer.weight").clone()
    network_of(Card("held_by_tests:Here.held", str(folder / "other.safetensors")), K)
    weights_after = network_of(Card("held_by_tests:Here.held"), K).get_parameter("answer.weight")
    assert torch.equal(weights_before, weights_after)


MISTAKES = [
    (
        "resnet18",
        {},
        "there is no model resnet18: a class or function of yours is package.module:resnet18, a network of a library",
    ),
    (
        "torchvision:resnet81",
        {},
        r"unknown torchvision model 'resnet81': did you mean 'resnet18'\? of \d+, the nearest are resnet18, resnet",
    ),
    ("torchvision:", {}, "unknown torchvision model ''"),
    ("timm:vit_tinny_patch16_224", {}, r"unknown timm model .* did you mean 'vit_tiny_patch16_224'\?"),
    ("torchvison:resnet18", {}, "torchvison:resnet18: module 'torchvison' cannot be imported"),
    ("mine_of_tests.py:net", {}, "mine_of_tests.py' cannot be imported .*: give mine_of_tests:net, without .py."),
    ("a b:c", {}, "'a b:c' names nothing that can be imported: give package.module:name"),
    ("mine_of_tests:", {}, "names nothing that can be imported"),
    ("mine_of_tests:nett", {}, r"mine_of_tests:nett: mine_of_tests has no 'nett', but 'net'\."),
    ("mine_of_tests:count", {}, "mine_of_tests:count gives an int, and a model is a torch.nn.Module"),
    ("mine_of_tests:text", {}, "mine_of_tests:text gives a str, and a model is a torch.nn.Module"),
    ("mine_of_tests:number", {}, "mine_of_tests:number gives an int, and a model is a torch.nn.Module"),
    ("mine_of_tests:fails", {}, r"mine_of_tests:fails cannot be built \(no such thing\): --model-arg"),
    ("mine_of_tests:net", {"weights": "pretrained"}, "mine_of_tests:net has no pretrained weights to choose"),
    ("mine_of_tests:net", {"arguments": (("color", 3),)}, r"mine_of_tests:net cannot be built \(.*color"),
    (
        "mine_of_tests:net",
        {"weights": "gone.pt"},
        "there is no file of weights gone.pt: give one, or --wei",
    ),
    ("torchvision:resnet18", {"weights": "imagenet"}, "there is no file of weights imagenet"),
    ("torchvision:resnet18", {"weights": "random", "arguments": (("color", 3),)}, r"cannot be built \(.*color"),
    ("robustbench:Engstrom2019Robustnes", {}, r"did you mean 'Engstrom2019Robustness'\?"),
    ("robustbench:cifar11/Linf/Standard", {}, "unknown RobustBench dataset 'cifar11': did you mean 'cifar10"),
    ("robustbench:cifar10/Lin/Standard", {}, r"unknown RobustBench threat model 'Lin': did you mean 'Linf'\?"),
    ("robustbench:cifar10/Standard", {}, "robustbench:cifar10/Standard: give NAME, or DATASET/THREAT/NAME"),
]


@pytest.mark.parametrize(("model", "card", "sentence"), MISTAKES)
def test_a_network_that_cannot_be_had_is_the_users_error(
    model: str, card: dict[str, Any], sentence: str, folder: Path
) -> None:
    for library in ("timm", "robustbench"):
        if model.startswith(library):
            require(library)
    with pytest.raises(UserError, match=sentence) as error:
        network_of(Card(model, **card), K)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("library", ["timm", "robustbench"])
def test_a_missing_library_is_told_with_the_extra_that_brings_it(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail_import(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fail_import)
    with pytest.raises(UserError, match=rf"{library}:NAME needs {library}, which is missing: pip install 'int"):
        network_of(Card(f"{library}:anything"), K)


# --- weights from a file


def save_torch(tensors: Any, path: Path) -> None:
    torch.save(tensors, path)


def other_weights() -> dict[str, Tensor]:
    return dict(seed_network(Convolutions, seed=5).state_dict())


FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda tensors: tensors,
    "of a DataParallel": lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
    "nested": lambda tensors: {"state_dict": tensors, "epoch": 3},
    "nested as a model": lambda tensors: {"model": tensors, "optimizer": {"lr": 0.1}},
    "nested as a model's state": lambda tensors: {"model_state_dict": tensors},
    "nested, of a DataParallel": lambda tensors: {
        "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["pt", "pth", "safetensors"])
def test_weights_are_read_from_a_file_of_tensors(form: str, ending: str, folder: Path) -> None:
    if ending == "safetensors" and form.startswith("nested"):
        pytest.skip("safetensors files are flat")
    path = folder / f"weights.{ending}"
    (save_file if ending == "safetensors" else save_torch)(FORMS[form](other_weights()), path)
    network = network_of(Card("mine_of_tests:net", weights=str(path)), K).eval()
    with torch.no_grad():
        expected = seed_network(Convolutions, seed=5)(pixels(2, C, H, W))
        assert torch.equal(network(pixels(2, C, H, W)), expected)


def test_tensors_that_a_network_lacks_are_kept_as_a_doubt(folder: Path) -> None:
    save_file(other_weights() | {"loss.margin": torch.ones(K)}, folder / "more.safetensors")
    card = Card("mine_of_tests:net", weights=str(folder / "more.safetensors"), label="mine")
    network, remarks = build_network(card, number_classes(K))
    model = bring(network, card, noise(), "noise", remarks)
    assert model.doubts[0].startswith("mine has all its weights from more.safetensors, which also holds 'loss.margin'")
    assert torch.equal(
        model.model(torch.device("cpu"))(pixels(2, C, H, W)), seed_network(Convolutions, seed=5)(pixels(2, C, H, W))
    )


def all_but(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in other_weights().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "difference"),
    [
        (all_but("body.bias"), r"1 tensors differ, first body.bias \(none in the file, shape \(8,\) in the network\)"),
        (
            other_weights() | {"more": torch.zeros(2, 3)},
            r"1 tensors differ, first more \(shape \(2, 3\) in the file, none in the network\)",
        ),
        (
            other_weights() | {"answer.bias": torch.zeros(9)},
            r"1 tensors differ, first answer.bias \(shape \(9,\) in the file, shape \(7,\) in the network\)",
        ),
        (
            other_weights() | {"answer.bias": torch.zeros(7, device="meta")},
            r"1 tensors differ, first answer.bias \(shape \(7,\) without numbers in the file, shape \(7,\) in",
        ),
        ({"else": torch.zeros(2)}, "11 tensors differ, first answer.bias"),
    ],
)
def test_a_file_of_other_weights_is_the_users_error(tensors: dict[str, Tensor], difference: str, folder: Path) -> None:
    torch.save(tensors, "weights.pt")
    with pytest.raises(UserError, match=rf"weights.pt does not hold the weights of mine_of_tests:net: {difference}"):
        network_of(Card("mine_of_tests:net", weights="weights.pt"), K)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm"),))


@pytest.mark.parametrize("with_torch", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(with_torch: bool, folder: Path) -> None:
    if with_torch:
        torch.save({"state_dict": other_weights(), "args": Harmful()}, "weights.pt")
    else:
        Path("weights.pt").write_bytes(pickle.dumps(Harmful()))
    with (
        warnings.catch_warnings(record=True, action="always") as warning_list,
        pytest.raises(
            UserError, match=r"weights\.pt is no state dict that torch reads .* nothing else is unpickled"
        ) as error,
    ):
        network_of(Card("mine_of_tests:net", weights="weights.pt"), K)
    assert "\n" not in str(error.value)
    assert not warning_list, "a library's words beside the sentence"
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"epoch": 3}, "holds no state dict"),
        ([torch.zeros(2)], "holds no state dict"),
        (torch.zeros(2), "holds no state dict"),
    ],
)
def test_a_file_without_a_state_dict_is_the_users_error(content: Any, sentence: str, folder: Path) -> None:
    torch.save(content, "weights.pt")
    with pytest.raises(UserError, match=sentence):
        network_of(Card("mine_of_tests:net", weights="weights.pt"), K)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("data", [b"", b"not weights at all", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_the_users_error(ending: str, data: bytes, folder: Path) -> None:
    path = folder / f"weights.{ending}"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"weights\.{ending} is (damaged|no state dict)") as error:
        network_of(Card("mine_of_tests:net", weights=str(path)), K)
    assert "\n" not in str(error.value)


# --- what pixels a network expects


class WithStatistics(nn.Module):
    pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}  # noqa: RUF012


IMAGENET, PLAIN = STATISTICS["imagenet"], STATISTICS["none"]


@pytest.mark.parametrize(
    ("card", "network", "expected"),
    [
        (Card("torchvision:resnet18"), nn.Identity(), IMAGENET),
        (Card("torchvision:resnet18", weights="pretrained"), nn.Identity(), IMAGENET),
        (Card("torchvision:resnet18", weights="random"), nn.Identity(), PLAIN),
        (Card("torchvision:resnet18", weights="mine.pt"), nn.Identity(), IMAGENET),
        (Card("timm:x", weights="mine.pt"), WithStatistics(), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
        (Card("torchvision:resnet18", normalize="none"), nn.Identity(), PLAIN),
        (Card("timm:x"), WithStatistics(), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
        (Card("timm:x", weights="random"), WithStatistics(), PLAIN),
        (Card("timm:x", normalize="0.5,0.25"), WithStatistics(), ((0.5,), (0.25,))),
        (Card("robustbench:x"), nn.Identity(), PLAIN),
        (Card("a:b"), nn.Identity(), PLAIN),
    ],
)
def test_what_is_left_open_follows_where_the_weights_come_from(card: Card, network: nn.Module, expected: Any) -> None:
    preprocess = make_preprocess(card, network, 3)
    np.testing.assert_allclose(array(preprocess.mean).ravel(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(array(preprocess.deviation).ravel(), expected[1], rtol=1e-6)


def test_what_was_left_open_is_filled_in() -> None:
    assert bring_model(seed_network(Convolutions), noise()).card.normalize == "0,1"
    model = bring(seed_network(Convolutions), Card("torchvision:resnet18"), noise(), "noise")
    assert model.card.normalize == "0.485,0.456,0.406,0.229,0.224,0.225"
    second = bring(seed_network(Convolutions), model.card, noise(), "noise")
    images = pixels(2, C, H, W)
    torch.testing.assert_close(second.wrapper(images), model.wrapper(images))


# --- a network and data


def test_a_model_that_is_brought_knows_what_is_asked_of_it() -> None:
    data = noise()
    external_model = bring(seed_network(Convolutions).train(), Card("mine:net", local_layer="body"), data, "path.npz")
    assert (external_model.name, external_model.location, external_model.source) == (
        "noise-mine-net-body",
        "mine:net",
        "path.npz",
    )
    assert external_model.local_shape() == (8, 6, 9)
    job = {
        key: external_model.job[key] for key in ("dataset", "image_shape", "class_names", "variant", "seed", "layers")
    }
    assert job == {
        "dataset": "noise",
        "image_shape": [C, H, W],
        "class_names": [f"class {k}" for k in range(K)],
        "variant": "mine-net-body",
        "seed": None,
        "layers": {"local": "body", "attention": None},
    }
    assert Card.from_entries(json.loads(json.dumps(external_model.job["card"]))) == external_model.card
    model = external_model.model(CPU)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(pixels(2, C, H, W)), seed_network(Convolutions)(pixels(2, C, H, W)))


def test_bringing_a_network_leaves_no_hooks_and_the_random_state() -> None:
    network = seed_network(Convolutions)
    network.requires_grad_(False)
    with assert_unchanged(network):
        bring_model(network, noise())
    assert hooks(network) == 0


def test_the_checksum_follows_the_weights_and_nothing_else() -> None:
    first = bring_model(seed_network(Convolutions), noise())
    assert bring_model(seed_network(Convolutions), noise("other", count=11), label="theirs").sha256 == first.sha256
    other = seed_network(Convolutions)
    with torch.no_grad():
        other.body.weight[0, 0, 0, 0] += 1e-3
    assert bring_model(other, noise()).sha256 != first.sha256
    statistics = seed_network(Convolutions)
    statistics.norm.running_mean[1] += 1e-3
    assert bring_model(statistics, noise()).sha256 != first.sha256


class LateStem(Convolutions):
    """A convolution that comes later in the pass is named first."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.late = nn.Conv2d(8, 8, 1)
        super().__init__()
        self.late = nn.Conv2d(8, 8, 1)

    def named_modules(self, *arguments: Any, **options: Any) -> Iterator[tuple[str, nn.Module]]:
        modules = dict(super().named_modules(*arguments, **options))
        yield from sorted(modules.items(), key=lambda entry: (entry[0] != "", entry[0] != "late"))

    def classify(self, activations: Tensor) -> Tensor:
        return super().classify(self.late(activations))


def test_a_network_may_name_its_first_convolution_last() -> None:
    assert bring_model(seed_network(LateStem), noise()).local_shape() == (8, 6, 9)


class Answers(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("network", "data", "sentence"),
    [
        (
            Convolutions(),
            noise("gray", (1, H, W)),
            "mine:net takes images of 3 channels, and those of gray have 1: give a --dataset of such images (pictures "
            "on disk have three, a .npz of gray ones one), or let forward change them.",
        ),
        (
            Convolutions(channels=1),
            noise(),
            "mine:net takes images of 1 channel, and those of noise have 3: give a --dataset of such images (pictures "
            "on disk have three, a .npz of gray ones one), or let forward change them.",
        ),
        (
            Convolutions(classes=9),
            noise(),
            "mine:net answers with 9 classes, and noise has 7: give images of its classes",
        ),
        (Convolutions(height=24), noise(), "mine:net does not take the images of noise, 3x12x18 ("),
        (
            Answers({"x": torch.zeros(1, 2)}),
            noise(),
            "with a dict: --logits names the part that are the logits; its tensors",
        ),
        (
            Answers(torch.zeros(1, K, 1)),
            noise(),
            "mine:net does not answer with logits (N, classes) but with a tensor of shape (1, 7, 1): let its forward "
            "return shape (1, 7) for one image.",
        ),
        (
            Answers(None),
            noise(),
            "the network does not answer with a tensor but with a NoneType: wrap it so that it returns",
        ),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_the_users_error(
    network: nn.Module, data: Dataset, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        bring_model(network, data)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_size_that_images_were_resized_to_is_told_with_the_error() -> None:
    with pytest.raises(UserError, match=r"3x12x18 resized to 20 \(.*\); if that is about their size, --resize N"):
        bring_model(seed_network(Convolutions), noise(), resize=20)


def test_a_network_of_patches_can_be_built_for_the_size_of_images() -> None:
    pytest.importorskip("timm")
    card = Card("timm:vit_tiny_patch16_224", weights="random", arguments=(("depth", 1),))
    with pytest.raises(UserError, match=r"--resize N gives it another, and --model-arg img_size=N builds it for that"):
        read(network_of(card, K), card, noise(), "noise")
    with pytest.raises(UserError, match=r"--resize N gives it another\.$"):
        bring_model(seed_network(Convolutions, C, 20, 20), noise(), resize=16)


def test_resized_images_that_are_not_square_have_square_local_features() -> None:
    model = bring_model(seed_network(Convolutions, C, 20, 20), noise(), resize=20)
    assert model.local_shape() == (8, 10, 10)
    model = bring_model(seed_network(Convolutions, C, 20, 20), noise(), resize=20, local_layer="body")
    assert model.model(CPU).features(pixels(2, C, H, W)).local.shape == (2, 8, 10, 10)


@pytest.mark.parametrize("field", ["local_layer", "attention_layer"])
def test_a_layer_that_is_not_there_is_told_with_the_nearest(field: str) -> None:
    with pytest.raises(UserError, match=r"unknown layer 'bodi': did you mean 'body'\?"):
        bring_model(seed_network(Convolutions), noise(), **{field: "bodi"})


def test_a_layer_without_positions_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="layer 'answer' gives a tensor of shape"):
        bring_model(seed_network(Convolutions), noise(), local_layer="answer")


def test_attention_of_another_shape_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="'stem' gives a tensor of shape"):
        bring_model(seed_network(Convolutions), noise(), local_layer="body", attention_layer="stem")


def test_a_network_without_positions_can_be_brought() -> None:
    model = bring_model(nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K)), noise())
    assert model.local_shape() == (0, 0, 0)
    assert model.job["layers"] == {"local": None, "attention": None}


# --- by name, with data from a file


def write_noise(path: Path, shape: tuple[int, int, int] = (C, H, W)) -> Path:
    data = noise(shape=shape)
    split = data.train
    write_npz(path, {"x_train": split.images, "y_train": split.labels, "x_test": split.images, "y_test": split.labels})
    return path


def test_a_model_from_elsewhere_needs_to_be_told_its_images(folder: Path) -> None:
    with pytest.raises(UserError, match=r"mine_of_tests:net does not say which images it is for: give --dataset NAME"):
        find_subject(Card("mine_of_tests:net"))


def test_a_card_and_its_file_are_the_same_model(folder: Path) -> None:
    data, card = write_noise(folder / "images.npz"), Card("mine_of_tests:net", local_layer="stem", label="mine")
    card.write(folder / "card.json")
    by_card, by_file = find_subject(card, str(data)), find_subject(folder / "card.json", str(data))
    assert (by_card.name, by_card.sha256) == (by_file.name, by_file.sha256)
    assert by_card.name == "images-mine"
    assert find_subject(card, str(data)) is by_card


def test_layers_are_listed_with_the_one_that_is_taken(folder: Path) -> None:
    data = str(write_noise(folder / "images.npz"))
    rows = list_layer_rows(Card("mine_of_tests:net"), data)
    assert [(row["layer"], row["channels"], row["positions"], row[""]) for row in rows] == [
        ("stem", "4", "6x9", ""),
        ("norm", "4", "6x9", ""),
        ("rectify", "4", "6x9", ""),
        ("body", "8", "6x9", ""),
        ("rectify_again", "8", "6x9", "taken"),
    ]
    with_all = list_layer_rows(Card("mine_of_tests:net", local_layer="stem"), data, with_all=True)
    assert [row["layer"] for row in with_all if row[""] == "taken"] == ["stem"]
    assert with_all[-1] == {"layer": "answer", "kind": "Linear", "channels": "", "positions": "", "": ""}


# --- doubts


def levels_in(normalization: str, classes: int = 20) -> Levels:
    """A network that is right on `levels` under this normalization of the first channel."""
    mean, deviation = STATISTICS[normalization]
    return Levels(classes, float(np.mean(mean)), float(np.mean(deviation)))


@pytest.mark.parametrize("right", ["imagenet", "cifar10", "none"])
def test_a_model_that_is_right_raises_no_doubt(right: str) -> None:
    data = levels()
    trial = bring_model(levels_in(right), data, normalize=right).trial
    assert trial.images == 100 and trial.accuracy > 0.85 and trial.doubts == ()


@pytest.mark.parametrize(
    ("right", "declaration"),
    [("none", "imagenet"), *((name, "none") for name in STATISTICS if name != "none")],
)
def test_a_model_that_is_right_under_another_normalization_is_in_doubt(right: str, declaration: str) -> None:
    data = levels()
    trial = bring_model(levels_in(right), data, normalize=declaration).trial
    beginning = f"mine:net is right on {trial.accuracy:.0%} of 100 test images with --normalize {declaration}, "
    alternatives, remedy = trial.doubts[-1].removeprefix(f"{beginning}and on ").split(": ")
    assert remedy == "give --normalize as the network was trained."
    better = [other.split(" with ") for other in alternatives.split(", ")]
    assert better[0][1] == right and len(better) <= MOST_NAMES
    accuracies = [bring_model(levels_in(right), data, normalize=name).trial.accuracy for _, name in better]
    assert accuracies == sorted(accuracies)[::-1] and accuracies[-1] > trial.accuracy
    assert [accuracy for accuracy, _ in better] == [f"{accuracy:.0%}" for accuracy in accuracies]


def test_a_model_that_guesses_is_in_doubt() -> None:
    data = levels(10, 60)
    trial = bring_model(Levels(10, 2.0, 0.0), data).trial
    assert (trial.accuracy, trial.images) == (0.1, 60)
    assert "is right on 10% of 60 test images, hardly more than guessing (10%): are its norm" in trial.doubts[-1]
    random = bring_model(Levels(10, 2.0, 0.0), data, weights="random").trial
    assert random.doubts[-1].endswith("hardly more than guessing (10%): its weights are random.")


def test_a_model_is_tried_once_and_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def count(*arguments: Any, **options: Any) -> Trial:
        calls.append(arguments[2])
        return try_out(*arguments, **options)

    monkeypatch.setattr(external, "try_out", count)
    model = read(Levels(10, 2.0, 0.0), Card("mine:net"), levels(10, 60), "levels")
    _ = model.name, model.sha256, model.local_shape(), model.view(model.data)
    assert calls == []
    model.model(torch.device("cpu"))
    assert (model.doubts, calls) == (model.trial.doubts, ["mine:net"])


def test_trying_out_leaves_the_model_as_it_is() -> None:
    data = noise()
    model = bring_model(seed_network(Convolutions), data)
    with assert_unchanged(model.wrapper):
        assert try_out(model.wrapper, data, "mine", "none", None).images == 9


@pytest.mark.filterwarnings("ignore")  # of timm, about torch
@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("timm.models:create_model", (("model_name", "resnet10t"), ("checkpoint_path", "mine.pt"))),
        ("torch:load", (("f", "mine.pt"), ("weights_only", False))),
    ],
)
def test_a_librarys_function_is_given_no_file(
    model: str, arguments: tuple[tuple[str, Any], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.pt").write_bytes(b"not read")
    with pytest.raises(UserError, match=r"could make .* read, and unpickle, the file mine.pt: name it with --weights"):
        network_of(Card(model, arguments=arguments), 3)


def noisy() -> nn.Module:
    print("Downloading weights")
    network: nn.Module = seed_network(Convolutions)
    return network


def test_what_a_builder_prints_does_not_go_where_tables_go(capsys: pytest.CaptureFixture[str]) -> None:
    network_of(Card(f"{__name__}:noisy"), K)
    output = capsys.readouterr()
    assert output.out == ""
    assert "Downloading weights" in output.err
