"""What a model makes of one picture, and of the same under PGD, by the functions that analyses are made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.settings import Norm, resolve_ball
from interpret_robust.attribution.gradients import choose_weight, compute_map, compute_position_weights
from interpret_robust.attribution.scale_rules import as_image
from interpret_robust.core import progress
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.device import exact, resolve
from interpret_robust.core.errors import Say, UserError, unknown
from interpret_robust.core.file_names import make_file_part
from interpret_robust.core.files import hash_file
from interpret_robust.datasets.batches import to_numpy, to_pixels
from interpret_robust.datasets.class_names import find
from interpret_robust.datasets.decoding import open_picture, read_pixels
from interpret_robust.datasets.framing import Framing
from interpret_robust.datasets.picture_files import Files
from interpret_robust.figures import drawing, saving, style
from interpret_robust.figures.explanation import Explanation, Side, draw
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import NO_CLASS, predict_classes
from interpret_robust.models.external import ExternalModel
from interpret_robust.models.folding import fold
from interpret_robust.models.subject import Subject
from interpret_robust.results.model_entry import identify_model
from interpret_robust.results.names import WEIGHTS

MOST_CHOICES = 10
"""Classes that a sentence lists; of more only those of the nearest names."""


@dataclass(frozen=True)
class Attack:
    """PGD on one picture; `eps` and `norm` None are those of training, as `attacks.settings.resolve_ball` has them."""

    eps: float | None
    norm: str | None
    steps: int
    seed: int

    def resolve(self, recipe: Mapping[str, Any]) -> tuple[PGD, dict[str, Any]]:
        """Return the attack, and its settings by name. Raises UserError where one is out of range."""
        norm: Norm
        norm, eps = resolve_ball(self.norm, self.eps, recipe)
        attack = PGD(eps=eps, steps=self.steps, norm=norm)
        return attack, {"eps": eps, "norm": norm, "steps": self.steps, "seed": self.seed}


@dataclass(frozen=True)
class Photo:
    """A picture as a model takes it: pixels (1, C, H, W) in [0, 1], what people call it, how it was framed in words."""

    pixels: Tensor
    name: str
    framing: str


def read(path: Path, subject: Subject, device: torch.device) -> Photo:
    """Return a picture that is on disk, upright, resized and cropped as the model's images are.

    Raises UserError for what is no picture or a damaged one.
    """
    try:
        with open_picture(Files.list(Path(), [str(path)]), 0) as image:
            pixels, framing = read_pixels(image, tuple(subject.job["image_shape"]), _framing(subject))
    except UserError as error:
        raise UserError(f"a picture cannot be read: {error}.") from error
    tensor = to_pixels(torch.from_numpy(pixels))
    return Photo(tensor.permute(2, 0, 1)[None].contiguous().to(device), path.name, framing.text)


def _framing(subject: Subject) -> Framing | None:
    """Return how the pictures that a model was brought with are resized and cropped; None where they are not."""
    images = subject.data.reference.images if isinstance(subject, ExternalModel) else None
    return getattr(images, "framing", None)


def find_class(name: str, class_names: tuple[str, ...]) -> int:
    """Return the number of a class by its name, without case, or by its number. Raises UserError for another text."""
    (place,) = find([name], [[class_name] for class_name in class_names])
    if place is not None:
        return place
    if name.isascii() and name.removeprefix("-").isdigit():
        if 0 <= int(name) < len(class_names):
            return int(name)
        raise UserError(f"class {name} is none of these: give a number from 0 to {len(class_names) - 1}, or a name.")
    raise unknown("class", name, class_names, limit=MOST_CHOICES)


@exact()
def measure(
    subject: Subject, network: Classifier, photo: Photo, attack: Attack, label: int | None, weight: str | None
) -> Explanation:
    """Return what a model makes of a picture, on the device of its network, and of its adversarial image.

    The random start is that of `irt evaluate` for the first image of a split. The attack leads away from `label`, or,
    where that is None, from the predicted class. `weight` says whose weights are laid over it, see
    `attribution.gradients.choose_weight`. Raises UserError for an attack out of range, and where answers or
    gradients are not numbers.

    Example:
        >>> measure(subject, network, photo, attack, None, "grad-cam").row()["natural"]
        'cat 97.3 %'
    """
    pgd, settings = attack.resolve(subject.job.get("recipe", {}))
    images = photo.pixels
    with torch.no_grad():
        predicted = int(predict_classes(network(images)))
    if predicted == NO_CLASS:
        raise UserError(f"{subject.location} answers {photo.name} with logits that are not numbers.")
    labels = torch.tensor([predicted if label is None else label], device=images.device)
    adversarial = pgd(network, images, labels, per_image_noise(attack.seed, [0]))
    natural, adversarial_side = (_side(subject, network, pixels, labels, weight) for pixels in (images, adversarial))
    return Explanation(
        photo.name,
        subject.name,
        tuple(subject.job["class_names"]),
        int(labels),
        label is None,
        settings,
        None if weight is None else WEIGHTS.get(weight, weight),
        photo.framing,
        natural,
        adversarial_side,
    )


def _side(subject: Subject, network: Classifier, images: Tensor, labels: Tensor, weight: str | None) -> Side:
    gradient = compute_map("gradient", network, images, labels, [0])
    weights: AnyArray | None = None
    if weight is not None:
        weights = to_numpy(compute_position_weights(network, images, weight)[0]).reshape(subject.local_shape()[1:])
    with torch.no_grad():
        probabilities = to_numpy(network(images).float().softmax(1)[0])
    return Side(_array(images), probabilities, _array(gradient), _array(as_image(gradient, "clip", 0.0)), weights)


def _array(images: Tensor) -> AnyArray:
    """Return the first of images (N, C, H, W) as (H, W, C)."""
    return to_numpy(images[0].permute(1, 2, 0))


@dataclass(frozen=True)
class Slide:
    """Where a picture is from, where its explanation is drawn, and what it is drawn of."""

    source: Path
    path: Path
    inputs: Mapping[str, Any]

    def check_free(self, *, with_pdf: bool) -> None:
        """Raise UserError where something else is drawn there already."""
        folder, name, version = self.path.parent, self.path.stem, metadata.version("interpret-robust")
        if self.path.exists() and not saving.is_drawn(folder, name, self.inputs, version, with_pdf=with_pdf):
            raise UserError(
                f"{self.path} exists already, for another picture, model or attack: --overwrite replaces it, and -o "
                "names another file."
            )

    def keep(self, explanation: Explanation, say: Say, *, overwrite: bool, with_pdf: bool) -> None:
        """Draw an explanation, unless it is there already. Raises UserError as `check_free`, unless told to replace."""

        def make() -> style.Drawing:
            if not overwrite:
                self.check_free(with_pdf=with_pdf)
            return draw(explanation)

        drawing.keep(make, self.path.parent, self.path.stem, self.inputs, say, with_pdf=with_pdf)


def list_slides(
    subject: Subject,
    paths: Sequence[Path],
    attack: Attack,
    label: int | None,
    folder: Path,
    output: Path | None,
    weight: str = "auto",
) -> list[Slide]:
    """Return where the explanations of pictures are drawn: in `folder`, by the names of picture and model, or at
    `output`.

    Raises UserError for two pictures that would have one name.
    """
    _, settings = attack.resolve(subject.job.get("recipe", {}))
    class_text = "predicted" if label is None else subject.job["class_names"][label]
    conditions: dict[str, Any] = {
        "model": identify_model(subject.sha256, subject.job),
        "attack": settings,
        "class": class_text,
    }
    if weight != "auto":  # which drawings from before there was a choice are of
        conditions["weights"] = weight
    places = [output or folder / f"{make_file_part(f'explanation-{path.stem}-{subject.name}')}.png" for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(
                f"{paths[places.index(place)]} and {paths[number]} would both be drawn as {place}: draw one of them "
                "with -o."
            )
    return [
        Slide(path, place, {path.name: hash_file(path), **conditions})
        for path, place in zip(paths, places, strict=True)
    ]


def explain(
    subject: Subject, slides: Sequence[Slide], attack: Attack, label: int | None, device: str, weight: str = "auto"
) -> Iterator[tuple[Explanation, Slide]]:
    """Yield the explanation of each picture, see `measure`. Raises UserError as `read` and `measure` do."""
    place = resolve(device)
    weights_name = choose_weight(weight, subject)
    photos = [read(slide.source, subject, place) for slide in slides]
    network = subject.model(place)
    if place.type == "cpu":
        network = fold(network)
    for photo, slide in progress.count_items([*zip(photos, slides, strict=True)], "explain", "pictures"):
        yield measure(subject, network, photo, attack, label, weights_name), slide
