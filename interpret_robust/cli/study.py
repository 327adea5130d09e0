"""`irt reproduce`, `plan`, `audit` and `flags`: whole studies, and what they say of the paper."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from interpret_robust.cli.options import (
    COUNT,
    RESULT_FILE,
    add_examples,
    compute_deadline,
    device_option,
    form_option,
    make_root,
    open_root,
    options,
    overwrite_option,
    root_option,
    run_on_all_ranks,
    say,
    time_limit_option,
)
from interpret_robust.core.errors import UserError
from interpret_robust.core.parsing import format_count
from interpret_robust.results.tables import Table, add_caption, add_captions, render

REPRODUCE_EXAMPLES = (
    "irt reproduce quick\n"
    "  irt reproduce cifar10 --time-limit 2h\n"
    "  irt reproduce table2                             small, embedded data\n"
    "  irt reproduce table2 --scale paper --root paper  the paper's own\n"
    "  irt reproduce audit --seeds 3\n"
    "  irt reproduce quick --only small-at-seed0.safetensors"
)

study_options = options(
    click.argument("name"),
    click.option(
        "--scale",
        type=click.Choice(["quick", "paper"]),
        default="quick",
        show_default=True,
        help="Small networks and data for a laptop, or those of the paper for a GPU.",
    ),
    click.option(
        "--seeds",
        type=COUNT,
        help="Number of training seeds. [default: 1 for quick and figures, 2 for table5 and cifar10, else 3]",
    ),
    click.option("--arch", help="An architecture instead of that of --scale, such as narrow."),
)


@click.command(epilog=add_examples("irt plan quick\n  irt plan audit --seeds 5 --form csv"))
@study_options
@form_option
@root_option
def plan(name: str, scale: str, seeds: int | None, arch: str | None, form: str, root: Path) -> None:
    """List the files of study NAME, what each of them needs, and whether it is there.

    Of a model in training the steps are told, such as `4,626 of 6,240 steps`. An answer that is there is made `anew`
    where more models are to classify its adversarial images. A model is `misnamed` if it is unfinished and has the name
    of a finished one, or the other way round; `irt train` says what to rename it to. A file is `another` if it has the
    name and other contents: a model of another recipe, an answer of other weights, or one that other models have read.
    `irt reproduce` will not replace it, so give another --root.

    A workflow engine can make each file by itself with irt reproduce NAME --only FILE; workflow/ has one for Snakemake.
    """
    from interpret_robust.datasets.catalogue import must_be_fetched
    from interpret_robust.study import plan as study
    from interpret_robust.study import reproduction

    plan_of_study = study.find_study(name, scale, seeds, arch)
    if must_be_fetched(plan_of_study.dataset):
        raise UserError(
            f"the images of {plan_of_study.dataset} are missing, and names of files depend on them: "
            f"`irt data get {plan_of_study.dataset}` fetches them."
        )
    steps = reproduction.plan(plan_of_study)
    rows = [
        {
            "file": str(step.file),
            "here": reproduction.tell_state(step, root),
            "needs": " ".join(need.stem for need in step.needs) if form in ("csv", "json") else _count(step.needs),
        }
        for step in steps
    ]
    if form != "text":
        click.echo(render(rows, form))
        return
    by_prefix: dict[str, list[dict[str, str]]] = {}
    for step, row in zip(steps, rows, strict=True):
        by_prefix.setdefault(_prefix(step.file, step.needs, plan_of_study.dataset), []).append(row)
    click.echo(add_captions(Table(group, prefix=prefix) for prefix, group in by_prefix.items()))
    models = _count_present([row["here"] for row in rows if not row["needs"]], "model")
    answers = _count_present([row["here"] for row in rows if row["needs"]], "answer")
    click.echo(f"\n{models} and {answers} are here.")


def _count_present(states: Sequence[str], noun: str) -> str:
    """Return text such as `10 of 39 answers (7 to be made anew)`."""
    anew = f" ({states.count('anew')} more to be made anew)" if "anew" in states else ""
    return f"{states.count('yes')} of {format_count(len(states), noun)}{anew}"


def _count(needs: Sequence[Path]) -> str:
    """Return how many models are needed."""
    return format_count(len(needs), "model") if needs else ""


def _prefix(file: Path, needs: Sequence[Path], dataset: str) -> str:
    """Return what the path of a planned file begins with: its folder, its analysis if it is an answer, and its data."""
    model, *_ = (*needs, file)
    return f"{file.parent}/{file.name.partition(model.stem)[0]}{dataset}-"


@click.command(epilog=add_examples(REPRODUCE_EXAMPLES))
@study_options
@time_limit_option
@click.option(
    "--only",
    "names_only",
    multiple=True,
    metavar="FILE",
    help="Make only this file of the study (see irt plan); repeat for more.",
)
@click.option("--pdf", "with_pdf", is_flag=True, help="Draw pictures as PDF too.")
@form_option
@device_option
@overwrite_option
@root_option
@run_on_all_ranks
def reproduce(
    name: str,
    scale: str,
    seeds: int | None,
    arch: str | None,
    time_limit: float | None,
    names_only: tuple[str, ...],
    with_pdf: bool,
    form: str,
    device: str,
    overwrite: bool,
    root: Path,
) -> None:
    """Run the study NAME: quick, cifar10, table1 to table6, section4.3, figure2 to figure4, or audit.

    quick asks nine questions of small models on the embedded data, with one training seed. cifar10 is the study on
    CIFAR-10 in docs/results.md. audit tests every claim of the paper over several seeds. The others are parts of the
    paper. The command trains models, analyzes them and draws figures. Files that exist are not made again, so the same
    command continues a study that was stopped, even on another machine.
    """
    from interpret_robust import analyses
    from interpret_robust.analyses.engine import printing
    from interpret_robust.core import ranks
    from interpret_robust.core.file_notices import gather_unchanged
    from interpret_robust.figures import drawing
    from interpret_robust.study import audit, reproduction
    from interpret_robust.study import plan as study
    from interpret_robust.study import report as reports

    folders = make_root(root)
    tell = partial(click.echo, err=form != "text")
    deadline = compute_deadline(time_limit)
    names = {Path(file).name for file in names_only} or None
    plan_of_study = study.find_study(name, scale, seeds, arch)
    if not names and ranks.find_rank() == 0:
        summary = reproduction.summarize(plan_of_study, folders.root, overwrite=overwrite)
        say(f"{name}: {summary}; `irt plan` lists them")
    answers = reproduction.reproduce(
        plan_of_study, folders, device, say, deadline, overwrite=overwrite, names_only=names
    )
    if ranks.find_rank() > 0 or names_only:
        return
    with gather_unchanged(say) as say_picture:
        for question, files in answers:
            tell(f"\n{question.analysis}, {question.images}")
            click.echo(printing.render_answers(files, form=form))
            drawing.draw_answers(question.analysis, files, folders, say_picture, with_pdf=with_pdf)
        if name in study.WITH_REPORT:
            tell("\nclaims of the paper")
            click.echo(audit.render_audits([analyses.read(path) for _, files in answers for path in files], form))
            reports.write(folders, folders.report, say_picture)
    if name in study.WITH_REPORT:
        tell(f"\neverything on one page: {folders.report}")
    tell(f"models in {folders.checkpoints}, answers in {folders.analyses}, pictures in {folders.figures}")


@click.command(
    epilog=add_examples("irt audit\n  irt audit --details\n  irt audit analyses/robustness-*-test.h5 --form markdown")
)
@click.argument("files", nargs=-1, type=RESULT_FILE)
@click.option("--details", is_flag=True, help="Show everything measured for each claim, as all forms but text do.")
@form_option
@root_option
def audit(files: tuple[Path, ...], details: bool, form: str, root: Path) -> None:
    """Judge each claim of the paper from analysis FILES (default: all) over all their training seeds.

    A claim holds, does not hold, or cannot be decided from these files. The line below it has the first of the numbers
    that must all agree, with its 95 % interval, the models and what was measured; a line with "but" has another number
    that decides. --details adds the paper's figures, all numbers and the controls. docs/choices.md explains how
    verdicts are reached.
    """
    from interpret_robust import analyses
    from interpret_robust.core import progress
    from interpret_robust.results.names import sort_newest_first
    from interpret_robust.study import audit as audits

    folders = open_root(root)
    paths = dict.fromkeys(files or folders.list_analyses())
    if not paths:
        raise UserError(
            f"there are no analyses in {folders.analyses}: `irt reproduce audit` makes all that the claims need."
        )
    results = [analyses.read(path) for path in progress.count_items([*paths], "audit", "files")]
    click.echo(audits.render_audits(sort_newest_first(results), form, details=details))


@click.command(epilog=add_examples("irt flags\n  irt flags analyses/masking-*-seed0-test.h5"))
@click.argument("files", nargs=-1, type=RESULT_FILE)
@form_option
@root_option
def flags(files: tuple[Path, ...], form: str, root: Path) -> None:
    """Look for signs that models hide their gradients, in FILES of robustness and masking (default: all).

    docs/flags.md explains what each flag measures, what it can mean, and what to do next.
    """
    from interpret_robust.core import progress
    from interpret_robust.study import flags as rules

    folders = open_root(root)
    paths = files or [path for name in rules.READS for path in folders.list_analyses(name)]
    if not paths:
        raise UserError(
            f"there are no files of {' or '.join(rules.READS)} in {folders.analyses}: `irt analyze masking` makes some."
        )
    flags_by_model = rules.collect_flags([rules.read(path) for path in progress.count_items(paths, "flags", "files")])
    if form in ("csv", "json"):
        click.echo(render(rules.list_numbers(flags_by_model), form))
    elif not any(flags_by_model.values()):
        click.echo(
            "No flag could be checked: these files lack what the checks need, which `irt analyze masking` measures."
        )
    else:
        click.echo(add_caption(rules.summarize_flags(flags_by_model), form))
        click.echo("\n".join(rules.describe_flags(flags_by_model)))
