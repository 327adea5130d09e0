"""`irt explore`: models side by side on one image while the attack on it grows."""

from pathlib import Path
from typing import Any

import click

from interpret_robust.cli.options import (
    COUNT,
    INPUT_FILE,
    OUTPUT_FILE,
    SEED,
    SPLIT,
    add_examples,
    card_options,
    dataset_options,
    device_option,
    model_option,
    models_and_pictures,
    open_root,
    root_option,
    say,
    spatial_weight_option,
    warn,
)
from interpret_robust.core.errors import UserError

EXAMPLES = (
    "irt explore\n"
    "  irt explore checkpoints/a.safetensors checkpoints/b.safetensors 12\n"
    "  irt explore my-cat.png --dataset cifar10\n"
    "  irt explore --save explore.html --images 20"
)


@click.command(epilog=add_examples(EXAMPLES))
@click.argument("subjects", nargs=-1, metavar="[CHECKPOINT]... [IMAGE]", type=INPUT_FILE)
@model_option
@card_options
@dataset_options()
@click.option("--split", type=SPLIT, default="test", show_default=True, help="Which images.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the random starts.")
@spatial_weight_option
@click.option(
    "--norm", help="Norm that the page begins with, and that of --save: linf, l2 or l1. [default: that of training]"
)
@click.option(
    "--save",
    type=OUTPUT_FILE,
    metavar="FILE",
    help="Write the page as one file that opens anywhere, instead of showing it.",
)
@click.option(
    "--images", type=COUNT, default=20, show_default=True, help="Number of images in that file, from the first."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the page. [default: a free one]")
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
@device_option
@root_option
def explore(
    subjects: tuple[Path, ...],
    dataset: str | None,
    split: str,
    seed: int,
    spatial_weight: str,
    norm: str | None,
    save: Path | None,
    images: int,
    port: int,
    browser: bool,
    device: str,
    root: Path,
    **card: Any,
) -> None:
    """Compare models on one image, on a page in the browser, while the attack on it grows.

    IMAGE is the number of an image of the split, or a picture file. Without CHECKPOINT and --model, the page shows one
    seed of each variant in checkpoints/. Only this machine can open the page; Ctrl-C ends it.
    """
    models, pictures = models_and_pictures(subjects, card)
    if len(pictures) > 1:
        raise UserError(f"{' and '.join(map(str, pictures))} are two images: give one.")
    picture = str(pictures[0]) if pictures else "0"
    if save is not None and not picture.isdigit():
        raise UserError(f"--save writes images of the split, not {picture}: give the number of one, or no --save.")
    candidates = [] if models else open_root(root).all_models()

    from interpret_robust.study.explorer import opening, page_file  # which load torch
    from interpret_robust.study.explorer.server import Server

    explorer = opening.open_explorer(models, candidates, dataset, split, seed, device, picture, spatial_weight, norm)
    for exhibit in explorer.exhibits:
        for doubt in exhibit.subject.doubts:
            warn(doubt)
    if save is not None:
        page_file.write(explorer, save, images, click.echo)
        return
    with Server(explorer, port) as server:
        click.echo(server.address)
        say(f"models: {', '.join(exhibit.subject.name for exhibit in explorer.exhibits)}")
        say("only this machine can open the page; Ctrl-C ends it")
        if browser:
            click.launch(server.address)
        server.serve_until_interrupted()
