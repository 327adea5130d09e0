"""`irt checkpoints` and `irt model`: the models that are here, and models from elsewhere."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from interpret_robust.cli.groups import SentenceGroup
from interpret_robust.cli.options import (
    add_examples,
    card_options,
    dataset_options,
    form_option,
    open_root,
    options,
    overwrite_option,
    root_option,
    say,
    warn,
)
from interpret_robust.core.errors import UserError
from interpret_robust.models.model_names import FORMS
from interpret_robust.results.tables import add_caption, render


@click.group(cls=SentenceGroup, invoke_without_command=True)
@click.pass_context
def checkpoints(context: click.Context) -> None:
    """Look at the trained models; `irt checkpoints` alone lists them."""
    if context.invoked_subcommand is None:
        context.invoke(checkpoints_list, form="text", root=Path())


@checkpoints.command("list", epilog=add_examples("irt checkpoints list\n  irt checkpoints list --form markdown"))
@form_option
@root_option
def checkpoints_list(form: str, root: Path) -> None:
    """List the checkpoints in checkpoints/ with their accuracies, if analyses/ has them, and verify their checksums.

    Unfinished trainings are listed too, with the step that each of them has come to.
    """
    from interpret_robust.cli import listing

    table = listing.list_models(open_root(root))
    click.echo(add_caption(table) if form == "text" else render(table, form))


@click.group(cls=SentenceGroup)
def model() -> None:
    """Look at a model from elsewhere, and store how to use it."""


declaration_options = options(
    click.option("--model", required=True, metavar="MODEL", help=f"{FORMS[0].upper()}{FORMS[1:]}."),
    card_options,
    dataset_options(required=True),
)


@model.command(
    "layers",
    epilog=add_examples(
        "irt model layers --model torchvision:resnet18 --dataset my-images.npz\n"
        "  irt model layers --model my_networks:Net --dataset my-images.npz --all"
    ),
)
@declaration_options
@click.option("--all", "with_all_layers", is_flag=True, help="List also layers that cannot give local features.")
def model_layers(model: str, dataset: str, with_all_layers: bool, **card: Any) -> None:
    """List the layers of a model whose output can be the local features, and which one is the default.

    For a transformer, a line below says how many heads of self-attention each block has.
    """
    from interpret_robust.models import card as cards

    reference = cards.parse_reference(model, **card)
    cards.check_files(reference)
    from interpret_robust.models.layer_table import describe_attention, list_layer_rows  # which loads torch

    with redirect_stdout(sys.stderr):  # what a network prints must not get into a table
        rows, words = (
            list_layer_rows(reference, dataset, with_all=with_all_layers),
            describe_attention(reference, dataset),
        )
    click.echo(render(rows))
    if words:
        click.echo(words)


@model.command(
    "card",
    epilog=add_examples(
        "irt model card --model timm:resnet50 --dataset mine.npz -o resnet50.json\n"
        "  irt analyze attention-rank --model resnet50.json --dataset mine.npz"
    ),
)
@declaration_options
@overwrite_option
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The card to write, .json."
)
def model_card(model: str, dataset: str, overwrite: bool, output: Path, **card: Any) -> None:
    """Try a model on a few images, and write how to use it to a card, which --model then accepts."""
    from interpret_robust.models import card as cards

    if output.suffix != ".json":
        raise UserError(f"{output}: a card's name ends in .json.")
    reference = cards.parse_reference(model, **card)
    cards.check_files(reference)
    from interpret_robust.models import external

    with redirect_stdout(sys.stderr):
        subject = external.find_subject(reference, dataset)
        if not isinstance(subject, external.ExternalModel):
            raise UserError(f"{model} is a checkpoint of `irt train`, which needs no card: give it to `irt analyze`.")
        outcome = subject.trial  # before a card is written
    subject.card.write(output, overwrite=overwrite)
    for doubt in subject.doubts:
        warn(doubt)
    if subject.doubts:
        say(f"{output} is written as declared: --overwrite replaces it.")
    click.echo(f"{output}: right on {outcome.accuracy:.0%} of {outcome.images} test images of {dataset}")
    if (classes := len(subject.data.class_names)) > outcome.images:
        say(f"The order of its {classes} classes was not tried: {outcome.images} images are too few.")
