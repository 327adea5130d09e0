"""`irt figure` and `irt report`: what people look at."""

from pathlib import Path

import click

from interpret_robust.cli.options import (
    OUTPUT_FILE,
    RESULT_FILE,
    TextOption,
    add_examples,
    make_root,
    open_root,
    root_option,
)
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.file_notices import gather_unchanged
from interpret_robust.core.parsing import parse_number
from interpret_robust.core.spelling import translate_name
from interpret_robust.results.tables import render


def _width(text: str) -> float:
    """Return a width in inches. Raises ValueError for one that is not from 3 to 40."""
    inches = parse_number(text)
    if not 3 <= inches <= 40:
        raise ValueError(text)
    return inches


@click.command(
    epilog=add_examples(
        "irt figure all\n  irt figure robustness analyses/robustness-*.h5\n"
        "  irt figure attention-rank --panel curve -o rank.pdf --width 3.3"
    )
)
@click.argument("name", required=False)
@click.argument("files", nargs=-1, type=RESULT_FILE)
@click.option("--pdf/--no-pdf", "with_pdf", default=True, show_default=True, help="Draw a PDF in addition to the PNG.")
@click.option("--panel", metavar="NAME", help="Draw one panel of a figure that has several.")
@click.option(
    "-o",
    "--output",
    type=OUTPUT_FILE,
    metavar="FILE",
    help="Write one picture to this .png, .pdf or .svg: the first panel, or that of --panel.",
)
@click.option(
    "--width",
    type=TextOption("width from 3 to 40 inches", _width, "3.3, 6.75 or 10"),
    metavar="INCHES",
    help="Width of the picture of -o, from 3 to 40: 3.3 for one column of a paper, 6.75 for two, 10 for a slide. "
    "[default: 6.75]",
)
@root_option
def figure(
    name: str | None,
    files: tuple[Path, ...],
    with_pdf: bool,
    panel: str | None,
    output: Path | None,
    width: float | None,
    root: Path,
) -> None:
    """Draw figure NAME, or all, from analysis FILES; models are not needed.

    Without FILES, all files of that analysis are used. Files with the same images and settings share a picture, or
    several pictures if the figure has panels; those of other networks do so only if you name them. Without NAME, the
    names of the figures are listed.
    """
    from interpret_robust import analyses, figures
    from interpret_robust.figures import drawing, style

    if name is None:
        rows = [
            {"figure": name, "shows": analyses.about(name), "panels": ", ".join(figures.list_plots(name))}
            for name in figures.list_names()
        ]
        click.echo(render(rows))
        return
    name = translate_name(name)
    if name != "all" and name not in figures.list_names():
        raise unknown("figure", name, [*figures.list_names(), "all"])
    if name == "all" and files:
        raise UserError("irt figure all draws every analysis in the folder: give no files.")
    if name == "all" and (output or panel):
        raise UserError(f"{'-o' if output else '--panel'} needs one figure: name it instead of 'all'.")
    if width and not output:
        raise UserError("--width needs -o, the file of the picture: give one, such as -o figure.pdf.")
    folders = make_root(root) if files and not output else open_root(root)
    if output:
        drawing.draw_to(output, name, files, folders, panel=panel, width=width or style.WIDTH)
        pictures = [output]
    else:
        with gather_unchanged(click.echo) as say_picture:
            if files:
                pictures = drawing.draw(name, files, folders.figures, say_picture, panel=panel, with_pdf=with_pdf)
            else:
                names = figures.list_names() if name == "all" else [name]
                pictures = drawing.draw_folder(names, folders, say_picture, panel=panel, with_pdf=with_pdf)
    click.echo("\n".join(map(str, pictures)))


@click.command(epilog=add_examples("irt report\n  irt report --root study -o study.html"))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The page. [default: report.html in root]"
)
@root_option
def report(output: Path | None, root: Path) -> None:
    """Make one HTML page of all analyses, with verdicts on claims, tables, pictures, a gallery and provenance.

    The page needs no other files and no network.
    """
    folders = open_root(root)
    from interpret_robust.study import report as reports

    with gather_unchanged(click.echo) as say_picture:
        page = reports.write(folders, output or folders.report, say_picture)
    click.echo(page)
