"""`irt explain`: what a model makes of one picture, with and without an attack, as a PNG for a slide."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interpret_robust.cli.options import (
    COUNT,
    DATASET,
    INPUT_FILE,
    NUMBER,
    OUTPUT_FILE,
    SEED,
    add_examples,
    card_options,
    classes_option,
    device_option,
    make_root,
    model_option,
    models_and_pictures,
    overwrite_option,
    root_option,
    say,
    size_option,
    spatial_weight_option,
    warn,
)
from interpret_robust.core.errors import UserError
from interpret_robust.results.tables import Table, add_caption

if TYPE_CHECKING:
    from interpret_robust.models.card import Reference
    from interpret_robust.models.subject import Subject

EXAMPLES = (
    "irt explain cat.jpg --model torchvision:resnet18 --class tabby\n"
    "  irt explain cat.jpg dog.jpg checkpoints/cifar10-small-at-seed0.safetensors\n"
    "  irt explain cat.jpg --model timm:resnet18 --classes names.json -o cat.png"
)


@click.command(epilog=add_examples(EXAMPLES))
@click.argument("subjects", nargs=-1, metavar="PICTURE... [CHECKPOINT]", type=INPUT_FILE)
@model_option
@card_options
@click.option("--class", "class_name", metavar="NAME", help="The true class. [default: the predicted one]")
@click.option("--eps", type=NUMBER, help="Radius of the attack. [default: that of training, else 8/255]")
@click.option("--norm", help="Norm of --eps: linf, l2 or l1. [default: linf; without --eps, that of training]")
@click.option("--steps", type=COUNT, default=10, show_default=True, help="Steps of PGD.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the random start.")
@spatial_weight_option
@click.option(
    "--dataset", type=DATASET, metavar="TEXT", help="Dataset from which --model takes the image size and the classes."
)
@size_option
@classes_option
@click.option("-o", "--output", type=OUTPUT_FILE, metavar="FILE", help="The PNG. [default: in figures/]")
@click.option("--pdf/--no-pdf", "with_pdf", default=False, help="Draw a PDF in addition to the PNG.")
@overwrite_option
@device_option
@root_option
def explain(
    subjects: tuple[Path, ...],
    class_name: str | None,
    eps: float | None,
    norm: str | None,
    steps: int,
    seed: int,
    spatial_weight: str,
    dataset: str | None,
    size: int | None,
    classes: str | None,
    output: Path | None,
    with_pdf: bool,
    overwrite: bool,
    device: str,
    root: Path,
    **card: Any,
) -> None:
    """Draw what a model predicts for a picture and which pixels matter, with and without an attack.

    Each picture becomes a PNG with the gradient map and the attention (or Grad-CAM) laid over the picture.
    The attack leads away from the class of --class or, without it, from the class that the model predicts.
    """
    models, pictures = models_and_pictures(subjects, card)
    reference = _reference(models)
    _check_pictures(pictures, output)
    if isinstance(reference, Path) and (dataset, size, classes) != (None, None, None):
        raise UserError(f"{reference} knows its classes and sizes: leave out --dataset, --size and --classes.")

    from interpret_robust.study import explain as explanations  # which loads torch

    with redirect_stdout(sys.stderr):  # what a network prints must not get among the names of the pictures
        subject = _subject(reference, pictures, dataset, size, classes)
        for doubt in subject.doubts:
            warn(doubt)
    label = None if class_name is None else explanations.find_class(class_name, subject.job["class_names"])
    if label is None:
        say("no --class is given: the attack leads away from the predicted class, right or wrong")
    attack = explanations.Attack(eps, norm, steps, seed)
    folder = make_root(root).figures
    slides = explanations.list_slides(subject, pictures, attack, label, folder, output, spatial_weight)
    if not overwrite:
        for slide in slides:
            slide.check_free(with_pdf=with_pdf)
    table = Table([])
    with redirect_stdout(sys.stderr):
        for explanation, slide in explanations.explain(subject, slides, attack, label, device, spatial_weight):
            table.append(explanation.row())
            table.note = (
                f"Attack: {explanation.attack_text}. The attacked class is the one that the attack leads away from, "
                "with its probability under attack."
            )
            slide.keep(explanation, say, overwrite=overwrite, with_pdf=with_pdf)
    click.echo(add_caption(table))
    for slide in slides:
        click.echo(slide.path)


def _reference(models: "list[Reference]") -> "Reference":
    """Return the one model that is named. Raises UserError for none, and for several."""
    from interpret_robust.models.card import Card

    if len(models) != 1:
        raise UserError(f"{len(models) or 'no'} models are named: give one, a CHECKPOINT or --model MODEL.")
    (reference,) = models
    return Card.read(reference) if isinstance(reference, Path) and reference.suffix == ".json" else reference


def _check_pictures(pictures: list[Path], output: Path | None) -> None:
    """Raise UserError without pictures, where one is not there, and for one file that several would be drawn to."""
    from interpret_robust.core.files import check_present

    if not pictures:
        raise UserError("no picture is named: give the path of a PNG, a JPEG or the like, or several.")
    for path in pictures:
        check_present(path, "picture", "give the path of a PNG, a JPEG or the like")
    if output is not None and len(pictures) > 1:
        raise UserError(f"-o {output} is one file, and {len(pictures)} pictures are named: leave -o out.")
    if output is not None and output.suffix != ".png":
        raise UserError(f"-o {output}: give a name that ends in .png.")


def _subject(
    reference: "Reference", pictures: list[Path], dataset: str | None, size: int | None, classes: str | None
) -> "Subject":
    """Return the model, one from elsewhere with its dataset, or with the pictures where none is named."""
    from interpret_robust.datasets.reference import merge
    from interpret_robust.models.external import find_subject
    from interpret_robust.models.loose_pictures import bring_with_pictures

    if isinstance(reference, Path) or dataset is not None:
        return find_subject(reference, merge(dataset, size, skips_damaged=False, classes=classes))
    return bring_with_pictures(reference, pictures, size, None if classes is None else Path(classes))
