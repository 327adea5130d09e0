"""`irt explain`: the numbers of one picture are those of PGD and of the gradient, and bad input gets a sentence."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import command
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

import interpret_robust as ir
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.framing import Framing
from interpret_robust.figures.explanation import EMPHASIS, Explanation, Side, draw
from interpret_robust.models.external import find_subject
from interpret_robust.models.losses import loss_gradient
from interpret_robust.study import explain

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (31, 40, 3), np.uint8)).save(path)
    return path


@pytest.mark.usefixtures("users_pictures")
def test_numbers_are_those_of_pgd_and_the_gradient(
    irt: command.Irt, checkpoint: Path, picture: Path, digits: Dataset, tmp_path: Path
) -> None:
    label, eps = 2, 0.05
    options = ("--eps", eps, "--norm", "linf", "--steps", 3, "--root", tmp_path, "--device", "cpu")
    status, out, err = irt("explain", picture, checkpoint, "--class", digits.class_names[label], *options)
    drawing = Path(out.splitlines()[-1])
    assert (status, err) == (0, f"drew {drawing.name}\n")
    assert drawing.parent == tmp_path / "figures"
    with Image.open(drawing) as drawn_image:
        assert drawn_image.format == "PNG" and drawn_image.width == 1350
    content = json.loads(drawing.with_suffix(".json").read_text())
    numbers = content["numbers"]
    assert content["inputs"]["attack"] == numbers["attack"] == {"eps": eps, "norm": "linf", "steps": 3, "seed": 0}

    channels, size, _ = digits.image_shape
    with Image.open(picture) as photo:
        pixels = np.array(Framing.square(size)(photo.convert("L" if channels == 1 else "RGB")))
    image = torch.from_numpy(pixels.reshape(1, size, size, channels)).permute(0, 3, 1, 2) / 255
    network = find_subject(checkpoint).model(torch.device("cpu"))
    adversarial = ir.PGD(eps=eps, steps=3)(network, image, torch.tensor([label]))
    assert 0.9 * eps < float((adversarial - image).abs().max()) <= eps + 1e-6
    for side, images in (("natural", image), ("adversarial", adversarial)):
        with torch.no_grad():
            probabilities = network(images).softmax(1)[0]
            attention = network.features(images).attention
        assert attention is not None
        gradient = loss_gradient(network, images, torch.tensor([label]))
        shares = {digits.class_names.index(name): share for name, share in numbers[side]["probabilities"].items()}
        assert set(shares) == {label, *probabilities.topk(3).indices.tolist()}
        assert shares == {place: pytest.approx(float(probabilities[place]), rel=1e-3) for place in shares}
        assert numbers[side]["prediction"] == digits.class_names[int(probabilities.argmax())]
        assert numbers[side]["largest_gradient"] == pytest.approx(float(gradient.abs().max()), rel=1e-3)
        assert np.ravel(numbers[side]["weights"]) == pytest.approx(attention.numpy().ravel(), rel=1e-3)


def test_the_picture_names_its_model_and_says_what_its_colors_mean(
    checkpoint: Path, picture: Path, digits: Dataset
) -> None:
    model, device = find_subject(checkpoint), torch.device("cpu")
    photo = explain.read(picture, model, device)
    for label, origin in ((None, "predicted"), (2, "named")):
        attack = explain.Attack(None, None, 1, 0)
        explanation = explain.measure(model, model.model(device), photo, attack, label, "attention")
        figure = draw(explanation).figure
        assert figure.get_suptitle() == f"noise.png as {model.name} sees it"
        (legend,) = figure.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert names == [f"the {origin} class, from which the attack leads away", "other classes"]
        orange, _ = (to_hex(patch.get_facecolor()).upper() for patch in legend.get_patches())
        bars = [to_hex(bar.get_facecolor()).upper() for axes in figure.axes for bar in axes.patches]
        assert orange == EMPHASIS and bars.count(orange) == 2  # one in each list of classes


@pytest.mark.parametrize("attacked_class", [0, 3])
@pytest.mark.parametrize("kind", ["Grad-CAM", "relevance", "attention"])
def test_weights_of_the_predicted_class_say_of_which_class_they_are(kind: str, attacked_class: int) -> None:
    def side(prediction: int) -> Side:
        image = np.full((4, 6, 3), 0.5)
        return Side(image, np.eye(4)[prediction], image, image, np.full((2, 3), 1 / 6))

    names, attack = ("cat", "dog", "frog", "long horn"), {"eps": 8 / 255, "norm": "linf", "steps": 2, "seed": 0}
    drawing = draw(Explanation("a.png", "m", names, 0, True, attack, kind, "as it is", side(0), side(attacked_class)))
    texts = [[text.get_text() for text in drawing.figure.axes[place].texts] for place in (2, 6)]
    assert texts == ([[], []] if kind == "attention" else [["of cat"], [f"of {names[attacked_class]}"]])
    sentence = "; above they are of 'cat', below of 'long horn', and are not to be compared."
    assert (sentence in drawing.caption) == (kind != "attention" and attacked_class == 3)


def test_the_attack_leads_away_from_the_predicted_class_and_a_drawing_is_not_replaced(
    irt: command.Irt, checkpoint: Path, picture: Path, tmp_path: Path
) -> None:
    arguments = ("explain", picture, checkpoint, "--steps", 1, "-o", tmp_path / "a.png")
    status, out, err = irt(*arguments)
    assert status == 0 and "the attack leads away from the predicted class" in err
    numbers = json.loads((tmp_path / "a.json").read_text())["numbers"]
    heads, _, row, note, *_ = out.splitlines()
    assert re.split(" {2,}", heads) == ["picture", "natural", "under attack", "attacked class"]
    texts = [
        f"{name} {100 * numbers[side]['probabilities'][name]:.1f} %"
        for side, name in (
            ("natural", numbers["natural"]["prediction"]),
            ("adversarial", numbers["adversarial"]["prediction"]),
            ("adversarial", numbers["attacked_class"]),
        )
    ]
    assert re.split(" {2,}", row) == [picture.name, *texts]
    assert note.startswith("Attack: PGD-1, eps 8/255. ")
    assert numbers["attacked_class"] == numbers["natural"]["prediction"]
    content = (tmp_path / "a.png").read_bytes()
    assert irt(*arguments)[0] == 0
    status, _, err = irt(*arguments, "--seed", 1)
    assert status == 2 and "a.png exists already" in err and "--overwrite" in err
    assert (tmp_path / "a.png").read_bytes() == content
    assert irt(*arguments, "--seed", 1, "--overwrite")[0] == 0
    assert json.loads((tmp_path / "a.json").read_text())["numbers"]["attack"]["seed"] == 1


def test_bad_input_gets_a_sentence(irt: command.Irt, checkpoint: Path, picture: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for arguments, sentence in (
        ((checkpoint,), "no picture is named"),
        ((picture,), "no models are named"),
        ((tmp_path / "none.png", checkpoint), "none.png"),
        ((text, checkpoint), "text.png"),
        ((picture, checkpoint, "--eps", 2), "eps"),
        ((picture, text, checkpoint, "-o", "a.png"), "-o a.png is one file, and 2 pictures are named"),
        ((picture, checkpoint, "-o", "a.pdf"), "give a name that ends in .png"),
        ((picture, checkpoint, "--size", 8), "leave out --dataset, --size and --classes"),
    ):
        status, out, err = irt("explain", *arguments, "--root", tmp_path)
        assert (status, out) == (2, "") and sentence in err and "Traceback" not in err
    assert not (tmp_path / "figures").exists() or not [*(tmp_path / "figures").glob("*.png")]


def test_a_class_has_a_name_or_a_number() -> None:
    names = ("cat", "dog", "7")
    assert [explain.find_class(name, names) for name in ("DOG", "0", "7")] == [1, 0, 2]
    with pytest.raises(ir.UserError, match="unknown class 'cta': did you mean 'cat'"):
        explain.find_class("cta", names)
    for number in ("3", "-1"):
        with pytest.raises(
            ir.UserError, match=f"class {number} is none of these: give a number from 0 to 2, or a name"
        ):
            explain.find_class(number, names)
    hundred = (*(f"kind {number:02}" for number in range(99)), "pickup_truck")
    with pytest.raises(ir.UserError, match="unknown class 'Truck': of 100, the nearest are pickup_truck"):
        explain.find_class("Truck", hundred)


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 5),
    )


def test_a_model_from_elsewhere_needs_no_dataset(irt: command.Irt, picture: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text(json.dumps(["ant", "bee", "cat", "dog", "elk"]))
    arguments = ("explain", picture, "--model", "test_explain:small_network", "--normalize", "none", "--size", 20)
    for options, classes in (
        ((), [f"class {place}" for place in range(5)]),
        (("--classes", names), ["ant", "bee", "cat", "dog", "elk"]),
    ):
        path = tmp_path / f"{len(options)}.png"
        status, _, err = irt(*arguments, *options, "-o", path, "--steps", 1)
        assert status == 0, err
        numbers = json.loads(path.with_suffix(".json").read_text())["numbers"]
        with Image.open(picture) as photo:
            pixels = np.array(Framing.square(20)(photo.convert("RGB")))
        logits = small_network()(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2) / 255)
        share, place = logits.softmax(1).max(1)
        name = numbers["natural"]["prediction"]
        assert name == classes[int(place)]
        assert numbers["natural"]["probabilities"][name] == pytest.approx(float(share.detach()), rel=1e-3)
    words = ["inception" if word == "none" else word for word in arguments]
    status, _, err = irt(*words, *options, "-o", path, "--steps", 1)
    assert status == 2 and f"{path} exists already, for another picture, model or attack" in err
