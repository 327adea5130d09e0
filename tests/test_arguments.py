"""What a program gives that is of another kind: one sentence each, before anything is computed or written."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyone import Convolutions, noise, seed_network
from make_golden import file_of

import interpret_robust as ir
from interpret_robust import analyses
from interpret_robust.api import analysis
from interpret_robust.api.wording import as_arguments
from interpret_robust.core.device import resolve
from interpret_robust.core.errors import describe

API: Any = ir
"""The package, of which a test asks what its types forbid."""

RANK = file_of(analyses.get("attention-rank").schema)
MASKING = file_of(analyses.get("masking").schema)


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return ir.load(seed_network(Convolutions), noise(), label="mine")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be computed."""

    def compute(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(analysis, "Work", compute)
    monkeypatch.setattr("interpret_robust.api.model.TrainTask", compute)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ([], "there is no path in the list: give at least one."),
        ((), "there is no path in the list: give at least one."),
        (iter([]), "there is no path in the list: give at least one."),
        (3, "3 is no path: give that of an analysis file, or a list of those."),
        (None, "None is no path: give that of an analysis file, or a list of those."),
        ([RANK, 3], "3 is no path: give that of an analysis file, or a list of those."),
        ([RANK, None], "None is no path: give that of an analysis file, or a list of those."),
        ([[RANK]], "a value of type list is no path: give that of an analysis file, or a list of those."),
        (RANK.parent, f"{RANK.parent} is a folder: give one of the analysis files in it."),
        ([RANK, RANK.parent], f"{RANK.parent} is a folder: give one of the analysis files in it."),
        ([RANK, MASKING], "answers of several analyses have nothing in common: open each by itself."),
    ],
)
def test_what_is_no_answer_is_not_opened(path: Any, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interpret_robust.core.errors.LONGEST_VALUE", 20)
    with pytest.raises(ir.UserError) as error:
        ir.open(path)
    assert str(error.value) == sentence


def test_paths_of_every_form_are_opened() -> None:
    spearman = ir.open(RANK)["spearman"]
    for path in (str(RANK), np.str_(RANK)):
        assert ir.open(path)["spearman"] == spearman
    for paths in ([RANK], (str(RANK),), np.array([str(RANK)]), iter([RANK])):
        assert [answer["spearman"] for answer in API.open(paths)] == [spearman]


def test_no_answer_is_left_of_answers_by_a_sentence() -> None:
    answers = ir.open([RANK, RANK])
    assert len(answers[1:]) == 1
    with pytest.raises(ir.UserError, match=r"^there are no answers among these: give at least one\.$"):
        answers[2:]
    with pytest.raises(ir.UserError, match=r"^attention-rank holds nothing called '3': there are curve/"):
        API.open(RANK)[3]


@pytest.mark.usefixtures("refuse")
def test_what_is_no_model_is_not_asked(model: ir.Model) -> None:
    for wrong, sentence in (
        ([], "there is no model to ask in the list: give at least one."),
        (iter([]), "there is no model to ask in the list: give at least one."),
        (None, "None is no model to ask: give what ir.load returns, or a list of those."),
        (3, "3 is no model to ask: give what ir.load returns, or a list of those."),
        ([model, "a.json"], "'a.json' is no model to ask: give what ir.load returns, or a list of those."),
        ([model, model.network], "a value of type WrappedModel is no model to ask: give what ir.load"),
    ):
        with pytest.raises(ir.UserError) as error:
            API.analyze("alignment", wrong)
        assert str(error.value).startswith(sentence), error.value
    with pytest.raises(ir.UserError, match=r"^a value of type Model is no analysis: give its name first, such as 'att"):
        API.analyze(model, "alignment")


@pytest.mark.usefixtures("refuse")
@pytest.mark.parametrize("name", ["limit", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, float("nan"), "5", True, [5]])
def test_what_is_no_number_of_images_is_refused(model: ir.Model, name: str, value: Any) -> None:
    with pytest.raises(ir.UserError) as error:
        API.analyze("alignment", model, **{name: value})
    assert str(error.value).startswith(f"{name} is {value!r}: give a whole number of images from 1 on, or None for ")


def test_numbers_of_numpy_are_numbers(model: ir.Model) -> None:
    settings = {"steps": np.int8(1), "eps": np.float32(0.5)}
    answer = API.analyze("attention-rank", model, limit=np.int64(3), batch_size=np.uint8(2), **settings)
    config = answer.result.config
    assert (answer.result.count, config["batch_size"], config["settings"]["eps"]) == (3, 2, 0.5)


@pytest.mark.usefixtures("refuse")
@pytest.mark.parametrize("evaluators", [None, 3, "x.json", iter([])])
def test_what_is_no_list_of_models_reads_nothing(model: ir.Model, evaluators: Any) -> None:
    with pytest.raises(ir.UserError) as error:
        API.analyze("gradmap-score", model, evaluators=evaluators)
    assert str(error.value) == f"evaluators are {evaluators!r}: give a list of what ir.load returns."


@pytest.mark.usefixtures("refuse")
def test_what_is_no_model_in_a_list_of_evaluators_is_named(model: ir.Model) -> None:
    for evaluators, sentence in (
        ([3], "evaluators[0]: 3 is no model: give what ir.load returns."),
        ([model, "x.json"], "evaluators[1]: x.json is the name of a model: give ir.load('x.json')."),
        (
            [model.network],
            "evaluators[0]: a WrappedModel is a network: give ir.load(network, data), which tries it on a few images "
            "first.",
        ),
    ):
        with pytest.raises(ir.UserError) as error:
            API.analyze("gradmap-score", model, evaluators=evaluators)
        assert str(error.value) == sentence


IMAGES = torch.rand(9, 3, 12, 18)
ARRAYS: tuple[Any, ...] = (
    IMAGES,
    (IMAGES, torch.arange(9)),
    IMAGES.numpy(),
    {"images": IMAGES},
    noise().test,
    [noise()],
    torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES)),
    type(noise()),
    3,
)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("x" * 256, "has 256 characters"),
        ("\u00e9" * 128, "has 128 characters"),
        ("x/" * 2048, "has 4096 characters"),
        ("a\0b", "is 'a\\x00b', with a character that ends it"),
    ],
)
def test_what_no_file_can_be_called_is_refused(path: str, problem: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "model": lambda: API.load(path, noise()),
        "data": lambda: API.samples(path, 3),
        "path": lambda: API.open(path),
        "dataset": lambda: API.train("at", path),
        "root": lambda: API.train("at", root=path),
        "folder": lambda: API.open([RANK]).save(path),
    }
    for name, give in calls.items():
        with pytest.raises(ir.UserError) as error:
            give()
        assert str(error.value) == f"{name} {problem}, and no file is called so: give its path."
    for keep in (API.open(RANK).save, API.open(RANK).figure):
        with pytest.raises(ir.UserError, match="and no file is called so: give its path"):
            keep(path)
    with pytest.raises(ir.UserError, match=r"^path is 3: give a path, or a name, as text\.$"):
        API.open(RANK).save(3)


@pytest.mark.usefixtures("refuse")
@pytest.mark.parametrize("data", ARRAYS, ids=lambda data: type(data).__name__)
def test_arrays_that_are_no_dataset_are_told_how_they_become_one(model: ir.Model, data: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: API.load(seed_network(Convolutions), data),
        lambda: API.load("torchvision:resnet18", data, weights="random"),
        lambda: API.analyze("robustness", model, data),
        lambda: API.samples(data, 2),
    ]
    for give in calls:
        with pytest.raises(ir.UserError) as error:
            give()
        assert str(error.value) == (
            f"data is of type {type(data).__name__}: give ir.make_dataset(images, labels), the name of one dataset, or "
            "the path of its files."
        )


def test_what_is_no_network_is_told_by_its_type_alone() -> None:
    network = seed_network(Convolutions)
    for wrong, sentence in (
        (
            network.state_dict(),
            "model is of type OrderedDict, and a state dict has no network: load it into the network that it is of, "
            "and give that.",
        ),
        (Convolutions, "model is of type type: give the network that it makes, Convolutions(...)."),
        (seed_network, "model is of type function: give the network that it makes, seed_network(...)."),
        (
            None,
            "model is of type NoneType: give a network, the path of a checkpoint, or a name such as "
            "'torchvision:resnet18'.",
        ),
        (
            IMAGES,
            "model is of type Tensor: give a network, the path of a checkpoint, or a name such as 'torchvision:re",
        ),
        ([network], "model is of type list: give a network, the path of a checkpoint, or a name such as 'torchvision:"),
    ):
        with pytest.raises(ir.UserError) as error:
            API.load(wrong, noise())
        assert str(error.value).startswith(sentence)


def test_sentences_name_the_arguments_of_a_program() -> None:
    for sentence, expected in (
        ("--draws=1: two at least.", "draws=1: two at least."),
        ("More --draws are steadier.", "More draws are steadier."),
        ("give --dataset NAME (--local-layer).", "give data=NAME (local_layer)."),
        ("--model a.b:net (or timm:NAME) --weights net.pt.", "model=a.b:net (or timm:NAME) weights=net.pt."),
        ("--set batch_size=3 takes all", "batch_size=3 takes all"),
        ("`irt evaluate --apgd 100` or `--apgd 100`", "`irt evaluate --apgd 100` or `apgd=100`"),
        ("pip install --upgrade timm: or --overwrite", "pip install --upgrade timm: or overwrite=True"),
        ("a--b.h5 and x/--c.h5 are damaged", "a--b.h5 and x/--c.h5 are damaged"),
    ):
        assert as_arguments(sentence) == expected


def test_no_call_of_a_program_is_told_an_option(model: ir.Model) -> None:
    network = seed_network(Convolutions)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: API.load(network, noise(), draws=1), "draws=1: an expectation needs two draws at least."),
        (lambda: API.load(network, noise(), normalize="0,0,1,1"), "normalize=0,0,1,1 has 4 numbers, and these images"),
        (
            lambda: API.load("torchvision:resnet18"),
            "torchvision:resnet18 does not say which images it is for: give data",
        ),
        (lambda: API.analyze("robustness", model, device="cuda:7"), "device 'cuda:7' is no choice: device cuda takes"),
        (lambda: API.train("at", log_steps=3), "log_steps=3 needs a log: give log or tensorboard=FOLDER too."),
        (lambda: API.open(MASKING).figure(panel="x"), "the figure masking has one panel: leave panel out."),
    ]
    for give, sentence in calls:
        with pytest.raises(ir.UserError) as error:
            give()
        assert str(error.value).startswith(sentence), error.value


def test_a_model_that_was_only_loaded_is_not_said_to_be_trained(model: ir.Model) -> None:
    with pytest.raises(ir.UserError) as error:
        ir.analyze("robustness", model, noise(shape=(3, 8, 8)))
    assert re.search(
        r" was loaded for noise \(images \[3, 12, 18\], .* classes\), .*: give another data\.$", str(error.value)
    )


@pytest.mark.usefixtures("refuse")
@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("PGD", (0.1,), "norm"),
        ("PGD", (0.1,), "loss"),
        ("train", ("at",), "schedule"),
        ("train", ("at",), "attack_batch_norm"),
    ],
)
@pytest.mark.parametrize("value", [3, None, ["x"]])
def test_a_name_that_is_no_text_is_an_unknown_name(name: str, arguments: Any, kind: str, value: Any) -> None:
    with pytest.raises(ir.UserError, match=f"^unknown {kind} '{re.escape(repr(value))}': (did you mean .*)?known are "):
        getattr(ir, name)(*arguments, **{kind: value})


@pytest.mark.parametrize("value", [3, None, ["x"]])
def test_a_choice_that_is_no_text_is_an_unknown_choice(model: ir.Model, value: Any) -> None:
    for option in ("recalibrate", "device"):
        with pytest.raises(ir.UserError, match=rf"^unknown .* '{re.escape(repr(value))}': "):
            API.analyze("alignment", model, **{option: value})


def test_a_device_of_torch_is_a_device() -> None:
    assert resolve(torch.device("cpu")) == resolve("cpu") == torch.device("cpu")
    with pytest.raises(ir.UserError, match=r"^device 'cuda:1' is no choice: "):
        resolve(torch.device("cuda:1"))


@pytest.mark.usefixtures("refuse")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"variant": ["at", "natural"]}, "variant is ['at', 'natural']: give one name as text, such as 'at'."),
        ({"variant": None}, "variant is None: give one name as text, such as 'at'."),
        ({"dataset": None}, "dataset is None: give one name as text, such as 'cifar10'."),
        ({"dataset": noise()}, "dataset is a value of type Dataset: give one name as text, such as 'cifar10'."),
        ({"architecture": 3}, "architecture is 3: give one name as text, such as 'small'."),
        ({"recipe": 3}, "unknown recipe '3': known are "),
        ({"recipe": []}, "unknown recipe '[]': known are "),
        ({"limit": -1}, "limit is -1: give a whole number of images from 1 on, or None for all."),
        ({"limit": 0}, "limit is 0: give a whole number of images from 1 on, or None for all."),
        ({"seed": -1}, "seed is -1: it must not be negative."),
        ({"seed": 1.5}, "seed is 1.5: give a whole number."),
        ({"epochs": 1.5}, "epochs is 1.5: give a whole number."),
        ({"epochs": None}, "epochs is None: give a whole number."),
        ({"epochs": True}, "epochs is True: give a whole number."),
        ({"learning_rate": "0.1"}, "learning_rate is '0.1': give a number."),
        ({"ema": "none"}, "ema is 'none': give a number or None."),
        ({"flip": "no"}, "flip is 'no': give True or False."),
    ],
)
def test_what_cannot_be_trained_is_not(arguments: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ir.UserError) as error:
        API.train(**{"variant": "at", "root": tmp_path, **arguments})
    assert str(error.value).startswith(sentence)
    assert list(tmp_path.iterdir()) == []


def test_restarts_of_an_attack_are_whole() -> None:
    with pytest.raises(ir.UserError, match=r"^restarts are 1\.5: give a whole number\.$"):
        API.PGD(0.1, restarts=1.5)


def test_a_value_is_quoted_where_it_is_short() -> None:
    assert describe("x" * 78) == repr("x" * 78) and describe("x" * 79) == "a value of type str"
    assert describe(torch.nn.Sequential(torch.nn.ReLU())) == "a value of type Sequential"
