"""`irt train` and `irt recipes`: models from variants and seeds, and how they are trained."""

from collections.abc import Callable
from functools import cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interpret_robust.cli.options import (
    COUNT,
    NUMBER,
    SEED,
    Command,
    TextOption,
    add_examples,
    compute_deadline,
    dataset_options,
    device_option,
    forms_option,
    make_root,
    overwrite_option,
    root_option,
    run_on_all_ranks,
    say,
    time_limit_option,
)
from interpret_robust.core.errors import UserError
from interpret_robust.results.tables import FORMS

if TYPE_CHECKING:
    from interpret_robust.training.recipe import Recipe

EXAMPLES = (
    "irt train                        models of the quick study\n"
    "  irt train at at-att --seed 1     two models of the embedded data\n"
    "  irt train at at-att --seeds 3    six: seeds 0, 1 and 2 of each\n"
    "  irt train at --seed 4 --copies   two: seeds 4 and 5, for black-box attacks\n"
    "  irt train at --dataset cifar10 --recipe cifar-quick --limit 5000\n"
    "  irt train at --norm l2 --eps 0.5  adversarial training in L2\n"
    "  irt train at-reg --dataset cifar10 --arch narrow --time-limit 2h\n"
    "  irt train at --set epochs=4 --set learning_rate=0.05\n"
    "  irt train at --recipe mine.toml --log --log-steps 50"
)


def _variant(name: str) -> str:
    """Return the name of a variant. Raises UserError where there is none, before torch is loaded."""
    from interpret_robust.models.variants import find_variant

    return find_variant(name).name


def _make_recipes(command: Command) -> Command:
    """Return a command whose --recipe, --set, --norm and --eps become `recipe_for`, the recipe for an architecture.

    Raises UserError for a mistake in them before torch is loaded.
    """

    @wraps(command)
    def run(
        *arguments: Any,
        dataset: str,
        recipe: str | None,
        overrides: tuple[str, ...],
        norm: str | None,
        eps: float | None,
        **rest: Any,
    ) -> Any:
        from interpret_robust.training.recipe_file import find_recipe

        ball = {"norm": norm, "eps": eps}
        changes = (*(f"{name}={value}" for name, value in ball.items() if value is not None), *overrides)
        recipe_for = cache(partial(find_recipe, recipe, dataset, changes))
        recipe_for("small")
        return command(*arguments, dataset=dataset, recipe_for=recipe_for, **rest)

    return run


@click.command(epilog=add_examples(EXAMPLES))
@click.argument("variants", nargs=-1, type=TextOption("variant", _variant))
@dataset_options(default="cluttered-digits", show_default=True)
@click.option("--arch", help="small, small-wide3, cnn, narrow or wide3. [default: small]")
@click.option(
    "--recipe",
    metavar="TEXT",
    help="quick, cifar-quick, paper, fast, mnist, mnist-quick, or a FILE.toml. [default: by the dataset]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a field of the recipe, such as epochs=4; `irt recipes` lists all.",
)
@click.option("--norm", metavar="TEXT", help="Norm of adversarial training: linf, l2 or l1; needs --eps.")
@click.option("--eps", type=NUMBER, help="Its radius, such as 8/255 or 0.5. [default: the recipe's]")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The first, or only, training seed.")
@click.option(
    "--seeds", type=COUNT, default=1, show_default=True, help="Number of seeds of each model, starting at --seed."
)
@click.option("--copies", is_flag=True, help="Train at least two seeds, so that black-box attacks have a copy.")
@click.option("--limit", type=COUNT, help="Train on N images: the first, or if sorted by class, some of each class.")
@time_limit_option
@click.option("--log", is_flag=True, help="Write checkpoints/NAME.log.jsonl, with one line of JSON for each epoch.")
@click.option("--log-steps", type=COUNT, metavar="N", help="Also write a line every N steps, in all logs.")
@click.option(
    "--tensorboard",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the same numbers for TensorBoard, which has to be installed.",
)
@device_option
@overwrite_option
@root_option
@_make_recipes
@run_on_all_ranks
def train(
    variants: tuple[str, ...],
    dataset: str,
    arch: str | None,
    recipe_for: Callable[[str], "Recipe"],
    seed: int,
    seeds: int,
    copies: bool,
    limit: int | None,
    time_limit: float | None,
    log: bool,
    log_steps: int | None,
    tensorboard: Path | None,
    device: str,
    overwrite: bool,
    root: Path,
) -> None:
    """Train VARIANTS, the models that the paper compares.

    \b
    natural             on clean images, average pooling of local features
    natural-att         the same with attention in the place of the average
    natural-linear-att  the same with linear attention
    at                  on adversarial images (PGD)
    at-att              at, with attention
    at-reg              at, with clean and adversarial features kept near (Eq. 6)
    at-att-reg          at, with both

    Without VARIANTS, train what the quick study needs: the models that it is about, with --seeds or --copies several
    of each, and the evaluators that classify their gradient maps. Models that are there with the same recipe are
    skipped; a stopped run goes on where it was when the same command is given again.

    `irt recipes` lists all fields of the recipes and what they mean; `irt data --help` says what an .npz has to hold.
    """
    from interpret_robust.training.log import Logs

    logs = Logs(log, log_steps, tensorboard)
    folder = make_root(root).checkpoints
    from interpret_robust.study.tasks import do_all  # which loads torch
    from interpret_robust.study.training_set import doubt, list_tasks

    tasks = list_tasks(
        variants,
        dataset,
        arch,
        recipe_for,
        first_seed=seed,
        seeds=max(seeds, 2 if copies else 1),
        folder=folder,
        device=device,
        limit=limit,
        deadline=compute_deadline(time_limit),
        overwrite=overwrite,
        logs=logs,
    )
    if sentence := doubt(tasks):
        say(sentence)
    do_all(tasks, device, click.echo)


@click.command(
    epilog=add_examples("irt recipes\n  irt recipes paper mine.toml\n  irt recipes quick --form toml > mine.toml")
)
@click.argument("names", metavar="[RECIPES]...", nargs=-1)
@forms_option([*FORMS, "toml"], "How they are written; toml: one of them, as --recipe takes it.")
def recipes(names: tuple[str, ...], form: str) -> None:
    """List RECIPES of training (default: all): the fields, their values, and what they mean.

    `irt train --set FIELD=VALUE` changes one field, and `irt train --recipe FILE.toml` takes a recipe of yours, such as
    `--form toml` prints. docs/recipes.md says where recipes come from, and what to expect of them.
    """
    from interpret_robust.results.tables import render
    from interpret_robust.training.recipe import PRESETS, list_meanings
    from interpret_robust.training.recipe_file import find, format_toml

    chosen_recipes = {name: find(name) for name in names or PRESETS}
    if form == "toml":
        if len(chosen_recipes) > 1:
            raise UserError("--form toml prints one recipe: name it, such as `irt recipes quick --form toml`.")
        (recipe,) = chosen_recipes.values()
        click.echo(format_toml(recipe), nl=False)
        return
    rows = [
        {
            "field": field,
            **{name: _value(field, getattr(recipe, field), form) for name, recipe in chosen_recipes.items()},
            "meaning": meaning,
        }
        for field, meaning in list_meanings().items()
    ]
    click.echo(render(rows, form))


def _value(field: str, value: Any, form: str) -> str:
    """Return a value as people write it, such as 8/255; for programs a number is a number."""
    from interpret_robust.results.names import format_radius
    from interpret_robust.training.recipe_file import FRACTIONS

    if field in FRACTIONS and form not in ("csv", "json"):
        return format_radius(value)
    if isinstance(value, float):
        return repr(value) if form in ("csv", "json") else f"{value:g}"
    return str(value).lower()
