"""`irt data`: the datasets there are, and what they look like."""

from pathlib import Path

import click

from interpret_robust.cli.groups import SentenceGroup
from interpret_robust.cli.options import SPLIT, add_examples, make_root, root_option
from interpret_robust.core.parsing import format_count
from interpret_robust.results.tables import render


@click.group(cls=SentenceGroup)
def data() -> None:
    """List, download and look at datasets.

    A dataset is a name (`irt data list`), pictures on disk (docs/pictures.md), or the path of an .npz that numpy.savez
    wrote with these arrays:

    \b
    x_train, x_test        images (N, H, W), or (N, H, W, 1 or 3): uint8, 0 to 255
    y_train, y_test        labels (N,): integers 0 to K-1, or names of classes
    mask_train, mask_test  optional: not 0 on the object, (N, H, W), bool or uint8
    class_names            optional: text (K,), in the order of the labels

    Data for tests alone have no x_train and y_train. The names of MedMNIST (train_images, ...) work too. `irt data get
    FILE.npz` checks a file.
    """


@data.command("list", epilog=add_examples("irt data list"))
def data_list() -> None:
    """List the datasets by name, and whether their file is here."""
    from interpret_robust.datasets.catalogue import describe_datasets, find_file, is_installed

    rows = [
        {
            "name": name,
            "here": "yes" if is_installed(name) or find_file(name).exists() else "no",
            "what": sentence,
        }
        for name, sentence in describe_datasets().items()
    ]
    click.echo(render(rows))
    click.echo("Folders of pictures work too, and any .npz of x_train, y_train, x_test and y_test: `irt data --help`.")


@data.command("get", epilog=add_examples("irt data get cifar10"))
@click.argument("name")
def data_get(name: str) -> None:
    """Generate or download dataset NAME, check it, and store it as an .npz."""
    from interpret_robust.datasets import load
    from interpret_robust.datasets.catalogue import find_file, is_installed

    dataset = load(name)
    train = f"{len(dataset.train)} train and " if dataset.is_for_training else ""
    classes = format_count(len(dataset.class_names), "class")
    if dataset.test.pictures is not None:
        empty_classes = sorted({*range(len(dataset.class_names))} - {*dataset.test.labels.tolist()})
        rest = (
            f", {len(empty_classes)} of them without test pictures ({dataset.class_names[empty_classes[0]]})"
            if empty_classes
            else ""
        )
        pictures = format_count(len(dataset.test), "test picture")
        click.echo(f"{name}: {train}{pictures}, {classes}{rest}")
        return
    channels, height, width = dataset.image_shape
    click.echo(
        f"{name}: {train}{format_count(len(dataset.test), 'test image')} of {height}x{width}x{channels}, "
        f"{classes}, "
        f"{'from an installed package' if is_installed(name) else f'in {find_file(name)}'}"
    )


THUMBNAIL = 128
"""Pixels a side of a picture on a contact sheet, unless the name says a size."""


@data.command("show", epilog=add_examples("irt data show cluttered-digits --split test"))
@click.argument("name")
@click.option("--split", type=SPLIT, help="Which images. [default: train, if there are any]")
@root_option
def data_show(name: str, split: str | None, root: Path) -> None:
    """Draw a contact sheet of dataset NAME, with the masked objects if there are masks.

    Pictures of a folder are resized and cropped to squares.
    """
    from interpret_robust.core.file_names import make_file_part
    from interpret_robust.datasets import load
    from interpret_robust.datasets.framing import Framing
    from interpret_robust.figures import contact_sheet
    from interpret_robust.figures.drawing import keep

    dataset = load(name).frame(Framing.square(THUMBNAIL))
    split = split or ("train" if dataset.is_for_training else "test")
    sources = {dataset.name: dataset.split(split).sha256}
    sheet = contact_sheet.draw(dataset, split)
    stem = make_file_part(f"data-{dataset.name}-{split}")
    picture = keep(lambda: sheet, make_root(root).figures, stem, sources, click.echo)
    click.echo(f"{sheet.caption}\n{picture}")
