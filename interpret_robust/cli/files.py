"""`irt show`, `validate`, `verify` and `export`: what files hold, and whether it is good."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from interpret_robust.cli.options import (
    INPUT_FILE,
    MODEL_FILE,
    NUMBER,
    OWN_FILE,
    RESULT_FILE,
    SPLIT,
    add_examples,
    card_options,
    dataset_options,
    device_option,
    model_option,
    overwrite_option,
    references,
    warn,
)
from interpret_robust.core.errors import EXIT_USER_ERROR, UserError, escape_line_breaks
from interpret_robust.core.parsing import format_count
from interpret_robust.results.tables import render


@click.command(
    epilog=add_examples(
        "irt show analyses/attention-rank-cluttered-digits-small-at-att-seed0-test.h5\n"
        "  irt show analyses/robustness-cifar10-small-at-seed0-test.h5 --image 12"
    )
)
@click.argument("file", type=OWN_FILE)
@click.option("--image", type=click.IntRange(0), metavar="ROW", help="Show what an analysis says of one image alone.")
def show(file: Path, image: int | None) -> None:
    """Show what a checkpoint or an analysis file holds and how it was made, and verify its checksum."""
    from interpret_robust.cli import description

    click.echo(description.describe(file) if image is None else description.describe_image(file, image))


@click.command(epilog=add_examples("irt validate analyses/*.h5"))
@click.argument("files", nargs=-1, required=True, type=RESULT_FILE)
def validate(files: tuple[Path, ...]) -> None:
    """Check that analysis FILES are complete and that every dataset is as their schema says."""
    from interpret_robust.analyses.engine import validation
    from interpret_robust.results import hdf5

    bad = False
    for path in files:
        problems = validation.list_problems(path)
        bad |= bool(problems)
        for problem in problems:
            click.echo(f"irt: {escape_line_breaks(problem)}", err=True)
        if not problems:
            attributes = hdf5.attributes(path)
            click.echo(f"{path}: {attributes['schema']}, {format_count(attributes['n_done'], 'image')}, good")
    if bad:
        sys.exit(EXIT_USER_ERROR)


@click.command(
    epilog=add_examples(
        "irt verify theirs.npy checkpoints/NAME.safetensors\n"
        "  irt verify theirs.h5 NAME --key adversarial --eps 8/255\n"
        "  irt verify theirs.pth --model resnet18.json --dataset mine.npz --eps 8/255"
    )
)
@click.argument("file", type=INPUT_FILE)
@click.argument("checkpoint", type=MODEL_FILE, required=False)
@click.option("--eps", type=NUMBER, help="Radius, such as 8/255. [default: that of training]")
@click.option(
    "--norm", metavar="TEXT", help="Norm of --eps: linf, l2 or l1. [default: linf; without --eps, that of training]"
)
@click.option("--key", help="Name of the array of images, if an HDF5, .npz or .pth file has several.")
@dataset_options()
@click.option("--split", type=SPLIT, default="test", show_default=True)
@model_option
@card_options
@device_option
def verify(
    file: Path,
    checkpoint: Path | None,
    eps: float | None,
    norm: str | None,
    key: str | None,
    dataset: str | None,
    split: str,
    device: str,
    **card: Any,
) -> None:
    """Check adversarial images from any program, and measure the accuracy of CHECKPOINT or --model on them.

    FILE is HDF5, .npy, .npz, or tensors that torch saved (AutoAttack, torchattacks). Images are uint8, or floats in [0,
    1], of shape (N, C, H, W) or (N, H, W, C). They are the first N of the split, in its order, or those of an integer
    array `index` in the same file. Labels and clean images in the file have to be those of the split.
    """
    from interpret_robust.core.files import check_present

    check_present(file, "file", "give HDF5, .npy, .npz, or tensors as torch saves them")
    models = [*([checkpoint] if checkpoint else []), *references(card)]
    if len(models) != 1:
        raise UserError("irt verify uses one model: give a CHECKPOINT, or --model.")
    from interpret_robust.attacks import verify as verification
    from interpret_robust.core.device import resolve
    from interpret_robust.datasets import load
    from interpret_robust.models import external

    with redirect_stdout(sys.stderr):  # what a network prints must not get into a table
        subject = external.find_subject(models[0], dataset)
        data = load(dataset or subject.source)
        for doubt in subject.doubts:
            warn(doubt)
        good = verification.verify(file, subject, data, split, eps=eps, norm=norm, key=key, device=resolve(device))
    if good.doubt:
        warn(f"{subject.location} {good.doubt}")
    click.echo(render([{"model": subject.name, **good.cells()}]))
    click.echo(f"{file}: sha256 {good.sha256}, good against the {split} split of {data.name}")


@click.command(epilog=add_examples("irt export analyses/robustness-*-seed0-test.h5 --csv -o tables"))
@click.argument("files", nargs=-1, required=True, type=RESULT_FILE)
@click.option(
    "--csv", "form", flag_value="csv", default="csv", help="Write comma-separated values: the only form so far."
)
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder. [default: that of FILE]"
)
@overwrite_option
def export(files: tuple[Path, ...], form: str, output: Path | None, overwrite: bool) -> None:  # noqa: ARG001
    """Write the numbers of each image and the statistics of analysis FILES as tables."""
    from interpret_robust.results.export import to_csv

    targets = [(output or path.parent) / path.stem for path in files]
    if twice := sorted({str(target) for target in targets if targets.count(target) > 1}):
        raise UserError(f"two files would be written to {twice[0]}-images.csv: export them to different folders (-o).")
    for path in files:
        paths = to_csv(path, output or path.parent, overwrite=overwrite)
        click.echo(f"{paths.images}\n{paths.statistics}")
        if paths.left_out:
            click.echo(
                f"not exported, because they are pictures: {', '.join(paths.left_out)} (read them with h5py or xarray)"
            )
