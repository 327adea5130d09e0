"""What `speed.py` measures: each case sets ours, as the commands compute it, beside what a user would write."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alternatives import (
    Attack,
    Layout,
    Maps,
    TrainingLoop,
    art_pgd,
    batches_of,
    captum_maps,
    foolbox_pgd,
    is_right,
    margin_pgd,
    model_of,
    quantus_maps,
    ranks,
    torchattacks_pgd,
)
from interleaved import Case, Contender, Finding, Run
from scipy.stats import spearmanr

from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.pgd import PGD, per_image_noise
from interpret_robust.attribution.gradients import gradient_map
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.statistics import bootstrap_mean, holm, mcnemar
from interpret_robust.datasets import load
from interpret_robust.models import checkpoint
from interpret_robust.models.folded import fold
from interpret_robust.models.variants import variant
from interpret_robust.study.tasks import AnalysisTask
from interpret_robust.training.job import Job
from interpret_robust.training.recipe_file import recipe_of
from interpret_robust.training.run import Run as TrainingRun

OURS = "ours"
CPU = torch.device("cpu")
SIGNIFICANT = 0.05

STEPS = 4
"""Training steps in a round."""

RECIPE = (
    "batch_size=128",
    "attack_steps=5",
    "attack_step=2/255",
    "eps_ramp=0",
    "schedule=constant",
    "learning_rate=0.01",
)
"""What differs from the recipe `quick`: the paper's attack at full radius from the first step on."""

TRAINING_ATTACKS = {"torchattacks": torchattacks_pgd, "foolbox": foolbox_pgd}
EVALUATED_ATTACKS = {**TRAINING_ATTACKS, "ART": art_pgd}


@dataclass(frozen=True)
class Given:
    """Where the checkpoints are, how many test images are attacked, and a folder for what has to be written."""

    checkpoints: Path
    images: int
    scratch: Path

    def path(self, name: str, seed: int = 0) -> Path:
        """The checkpoint of a variant."""
        return self.checkpoints / f"cluttered-digits-small-{name}-seed{seed}.safetensors"

    def work(
        self, analysis: str, name: str = "at", seed: int = 0, readers: tuple[Path, ...] = (), **settings: Any
    ) -> Work:
        """An analysis of a variant's first test images, as its command prepares it."""
        chosen, path = analyses.get(analysis).settings(**settings), self.path(name, seed)
        return AnalysisTask(
            analysis, path, self.scratch, chosen, device="cpu", limit=self.images, evaluators=readers
        ).work()


def train(given: Given) -> list[Case]:
    """Adversarial training steps."""
    return [_training(given, name) for name in ("at", "at-reg")]


def _training(given: Given, name: str) -> Case:
    found = checkpoint.read(given.path(name))
    recipe = recipe_of("quick", "cluttered-digits", RECIPE)
    job = Job(load(found.about["source"]), "small", variant(name), 0, recipe)
    loops: dict[str, Callable[[Job], Any]] = {OURS: partial(TrainingRun, device=CPU)}
    for (library, pgd_of), layout in product(TRAINING_ATTACKS.items(), Layout):
        loops[layout.named(library)] = partial(TrainingLoop, attack_of=pgd_of, layout=layout)

    def begin(contender: str, job: Job) -> Callable[[], checkpoint.Tensors]:
        loop = loops[contender](job)
        loop.model.load_state_dict(found.tensors)

        def advance() -> checkpoint.Tensors:
            for _ in range(STEPS):
                loop.advance()
            return {key: tensor.clone() for key, tensor in loop.model.state_dict().items()}

        return advance

    def compare(weights: Mapping[str, checkpoint.Tensors]) -> Iterator[Finding]:
        clean = replace(job, recipe=replace(recipe, eps=0.0, attack_step=0.0))
        exact = {contender: begin(contender, clean)() for contender in weights}
        apart = max(_apart(exact[OURS], theirs, found.tensors) for other, theirs in exact.items() if other != OURS)
        yield Finding(
            f"from the same weights on the same batches at eps 0, where no random start matters, {STEPS} steps change "
            f"the weights as the others' do, but for at most {apart:.1e} of the change",
            apart < 1e-3,
        )
        work = given.work("robustness", name)
        yield from _same_outcomes(
            {other: _right_after(tensors, work) for other, tensors in weights.items()},
            f"after {STEPS} steps at eps 8/255, under PGD-20",
        )

    return Case(
        f"train {name}",
        f"{STEPS} training steps of `{name}` from its trained weights: network `small`, cluttered digits, batch 128, "
        "PGD of 5 steps of 2/255 in eps 8/255, batch norm in eval mode in the attack",
        [Contender(contender, partial(begin, contender, job)) for contender in loops],
        lambda weights: list(compare(weights)),
    )


def _apart(ours: checkpoint.Tensors, theirs: checkpoint.Tensors, before: checkpoint.Tensors) -> float:
    """How far two trainings are apart, as a share of how far ours went."""

    def length(differences: Iterator[torch.Tensor]) -> float:
        return sum(float(one.double().square().sum()) for one in differences) ** 0.5

    trained = [name for name, tensor in before.items() if tensor.is_floating_point()]
    apart = length(ours[name] - theirs[name] for name in trained)
    return apart / length(ours[name] - before[name] for name in trained)


def _right_after(weights: checkpoint.Tensors, work: Work) -> AnyArray:
    """Which of the analysis's images are right under one and the same attack on a network with these weights."""
    network = work.network
    network.load_state_dict(weights)
    model, attack = fold(network), PGD(eps=8 / 255, step_size=2 / 255, steps=20)
    found = []
    for batch in work.batches():
        adversarial = attack(model, batch.images, batch.labels, per_image_noise(0, batch.indices))
        found.append(is_right(model, adversarial, batch.labels))
    return np.concatenate(found)


def pgd(given: Given) -> list[Case]:
    """The evaluation of one attack."""

    def ours() -> Run:
        work = given.work("robustness", pgd="20", cw="none")
        return lambda: _outcomes(work)["PGD-20", 0]

    def theirs(attack: Callable[[int], Attack], layout: Layout) -> Run:
        chosen, work = attack(20), given.work("robustness")
        model, batches, settings = model_of(given.path("at"), layout), batches_of(work, layout), work.settings

        def run() -> AnyArray:
            found = [
                is_right(model, chosen(model, *batch, settings.eps, settings.step_size), batch.labels)
                for batch in batches
            ]
            return np.concatenate(found)

        return run

    others = [
        Contender(layout.named(name), partial(theirs, attack, layout))
        for (name, attack), layout in product(EVALUATED_ATTACKS.items(), Layout)
    ]
    return [
        Case(
            "PGD-20",
            f"PGD of 20 steps on the network `small` of variant `at`, {given.images} test images in batches of 250, "
            "and what is right under it; ours also answers for the natural images, and measures each perturbation",
            [Contender(OURS, ours), *others],
            lambda outcomes: _same_outcomes(outcomes, "under PGD-20"),
        )
    ]


def table(given: Given) -> list[Case]:
    """The paper's attack table of two models, each other's copy."""
    given = replace(given, images=max(given.images // 5, 1))
    paths = [given.path("at", seed) for seed in (0, 1)]

    def ours() -> Run:
        works = [given.work("robustness", seed=seed, readers=(paths[1 - seed],)) for seed in (0, 1)]
        return lambda: {
            (source, *key): right for source, work in enumerate(works) for key, right in _outcomes(work).items()
        }

    def row_by_row(*, once: bool) -> Run:
        work = given.work("robustness")
        models, batches = [model_of(path, Layout.TUNED) for path in paths], batches_of(work, Layout.TUNED)
        eps, step = work.settings.eps, work.settings.step_size
        attacks = {
            f"{name}-{steps}": maker(steps)
            for (name, maker), given_steps in zip(
                {"PGD": torchattacks_pgd, "CW": margin_pgd}.items(), work.settings.steps().values(), strict=True
            )
            for steps in given_steps
        }

        def run() -> dict[Any, AnyArray]:
            found: dict[Any, list[AnyArray]] = {}
            for batch, source, (reading, attack) in product(batches, (0, 1), attacks.items()):
                for target in (source, 1 - source):
                    if target == source or not once:
                        adversarial = attack(models[source], *batch, eps, step)
                    right = is_right(models[target], adversarial, batch.labels)
                    found.setdefault((source, reading, int(target != source)), []).append(right)
            return {key: np.concatenate(rows) for key, rows in found.items()}

        return run

    return [
        Case(
            "attack table",
            "PGD-5, 20, 100, 200 and CW-30, 100 (PGD on the margin), white-box and from the other model, of two "
            f"networks `small` of variant `at`, {given.images} test images; ours reads two attacks on each model at "
            "all these steps; row by row, each is an attack of its own; `each attack once` shares it between the "
            "white-box row of one model and the black-box row of the other",
            [
                Contender(OURS, ours),
                Contender("row by row, tuned", partial(row_by_row, once=False)),
                Contender("each attack once, tuned", partial(row_by_row, once=True)),
            ],
            _same_tables,
            rounds=0.4,
            warm_up=False,
        )
    ]


def gradients(given: Given) -> list[Case]:
    """Gradient maps of images."""

    def ours() -> Run:
        work = given.work("gradient-maps")

        def run() -> AnyArray:
            return np.concatenate(
                [
                    gradient_map("gradient", work.model, batch.images, batch.labels, batch.indices).numpy()
                    for batch in work.batches()
                ]
            )

        return run

    def theirs(maps_of: Callable[[], Maps], layout: Layout) -> Run:
        maps, work = maps_of(), given.work("gradient-maps")
        model, batches = model_of(given.path("at"), layout), batches_of(work, layout)
        return lambda: maps(model, batches)

    others = [
        Contender(layout.named(name), partial(theirs, maps_of, layout))
        for (name, maps_of), layout in product({"captum": captum_maps, "quantus": quantus_maps}.items(), Layout)
    ]
    one_by_one = Contender("captum, image by image", partial(theirs, partial(captum_maps, most=1), Layout.PLAIN))
    return [
        Case(
            "gradient maps",
            f"gradients of the cross-entropy with respect to pixels, network `small` of variant `at`, {given.images} "
            "test images in batches of 250",
            [Contender(OURS, ours), *others, one_by_one],
            _same_maps,
            rounds=2.0,
        )
    ]


def attention_rank(given: Given) -> list[Case]:
    """Attention against robustness."""

    def ours() -> Run:
        work = given.work("attention-rank", "at-att")

        def run() -> dict[str, AnyArray]:
            columns = _columns(work)
            return columns | work.analysis.summarize(columns, work.split)

        return run

    def theirs(layout: Layout) -> Run:
        attack, work = torchattacks_pgd(20), given.work("attention-rank", "at-att")
        model, batches = model_of(given.path("at-att"), layout), batches_of(work, layout)
        return lambda: ranks(model, batches, attack, work.settings.eps, work.settings.step_size)

    return [
        Case(
            "attention-rank",
            f"weights, distances and rank correlations of {given.images} test images under PGD-20, network `small` of "
            "variant `at-att`, with the paper's curve and its tests; ours also gives six other curves",
            [
                Contender(OURS, ours),
                *(Contender(layout.named("loop with torchattacks"), partial(theirs, layout)) for layout in Layout),
            ],
            _same_ranks,
        )
    ]


def start(given: Given) -> list[Case]:
    """The command's start."""
    irt = str(Path(sys.executable).with_name("irt"))

    def process(*command: str) -> Run:
        return lambda: subprocess.run(command, check=True, capture_output=True, text=True)

    def show() -> Run:
        work = replace(given, images=20).work("attention-rank", "at-att", steps=1)
        return process(irt, "show", str(work.run(overwrite=True)))

    def compare(ended: Mapping[str, subprocess.CompletedProcess[str]]) -> list[Finding]:
        command = next(iter(ended.values())).args
        told = subprocess.run(
            [sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True
        )
        imports = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
        return [Finding(f"it imports {'' if 'torch' in imports else 'no '}torch", "torch" not in imports)]

    what = "a whole process, beside that of a Python that only imports torch"
    torch_alone = Contender("import torch", lambda: process(sys.executable, "-c", "import torch"))
    commands = {"irt --help": lambda: process(irt, "--help"), "irt show": show}
    return [
        Case(name, what, [Contender(OURS, command), torch_alone], compare, has_memory=False)
        for name, command in commands.items()
    ]


CASES: dict[str, Callable[[Given], list[Case]]] = {
    "train": train,
    "pgd": pgd,
    "table": table,
    "gradients": gradients,
    "attention-rank": attention_rank,
    "start": start,
}


def _columns(work: Work) -> dict[str, AnyArray]:
    """The per-image columns of an analysis."""
    prepared = work.analysis.prepare(work)
    found = [work.analysis.rows(work.model, batch, prepared) for batch in work.batches()]
    return {name: np.concatenate([columns[name] for columns in found]) for name in found[0]}


def _outcomes(work: Work) -> dict[tuple[str, int], AnyArray]:
    """Which images (N,) of an attack table's source are right, by reading and by the number of the target."""
    columns = _columns(work)
    right = columns["per_image/prediction"][:, 0] == columns["per_image/label"][:, None, None]
    readings, targets = work.settings.readings(), range(right.shape[2])
    return {(reading, target): right[:, row, target] for row, reading in enumerate(readings) for target in targets}


def _same_outcomes(outcomes: Mapping[str, AnyArray], when: str) -> list[Finding]:
    """A finding for each other contender, from which images (N,) are right; McNemar's tests corrected by Holm."""
    ours, others = outcomes[OURS], {name: right for name, right in outcomes.items() if name != OURS}
    tests = [mcnemar(ours, right) for right in others.values()]
    return [
        Finding(
            f"{when}: {int(ours.sum())} of {len(ours)} images right by ours and {int(right.sum())} by {name}; "
            f"{test.only_first} only by ours, {test.only_second} only by {name} (McNemar, Holm: p = {p_value:.2g})",
            p_value >= SIGNIFICANT,
        )
        for (name, right), test, p_value in zip(
            others.items(), tests, holm([test.p_value for test in tests]), strict=True
        )
    ]


def _same_tables(tables: Mapping[str, Mapping[Any, AnyArray]]) -> list[Finding]:
    """A finding for each other contender, from which images (N,) are right in each row of each model."""
    ours, findings = tables[OURS], []
    for name, theirs in list(tables.items())[1:]:
        p_values = holm([mcnemar(right, theirs[row]).p_value for row, right in ours.items()])
        most = max(abs(float(right.mean() - theirs[row].mean())) for row, right in ours.items())
        findings.append(
            Finding(
                f"{len(ours)} accuracies of ours and of {name} differ by at most {most:.1%} "
                f"(McNemar, Holm: smallest p = {min(p_values):.2g})",
                min(p_values) >= SIGNIFICANT,
            )
        )
    return findings


def _same_maps(maps: Mapping[str, AnyArray]) -> list[Finding]:
    """A finding for each other contender, from gradients (N, C, H, W).

    An image whose activation is zero but for rounding may have another gradient: the median has to be small.
    """
    ours, findings = maps[OURS], []
    for name, theirs in list(maps.items())[1:]:
        relative = np.abs(ours - theirs).max((1, 2, 3)) / np.abs(theirs).max((1, 2, 3))
        signs = float((np.sign(ours) == np.sign(theirs)).mean())
        findings.append(
            Finding(
                f"gradients of ours and of {name} differ by {np.median(relative):.1e} of an image's largest in the "
                f"median image and by {relative.max():.1e} in the worst; {signs:.4%} of all signs are equal",
                bool(np.median(relative) < 1e-4) and signs > 0.999,
            )
        )
    return findings


def _same_ranks(found: Mapping[str, Mapping[str, AnyArray]]) -> list[Finding]:
    """What is right under attack, the weights, and the correlations."""
    ours = {name.removeprefix("per_image/"): values for name, values in found[OURS].items()}
    by_scipy = [spearmanr(*pair).statistic for pair in zip(ours["attention"], -ours["distance"], strict=True)]
    apart = float(np.abs(ours["spearman"] - by_scipy).max())
    findings = [Finding(f"SciPy's Spearman of our columns differs from ours by at most {apart:.1e}", apart < 1e-6)]
    under_attack = {OURS: ours} | {name: columns for name, columns in found.items() if name != OURS}
    findings += _same_outcomes(
        {name: columns["prediction_adversarial"] == columns["label"] for name, columns in under_attack.items()},
        "under PGD-20",
    )
    for name, theirs in list(found.items())[1:]:
        weights = float(np.abs(ours["attention"] - theirs["attention"]).max() / ours["attention"].max())
        mean, low, high = bootstrap_mean(ours["spearman"] - theirs["spearman"])
        findings.append(
            Finding(
                f"attention of ours and of {name} differs by at most {weights:.1e} of its largest; mean Spearman "
                f"{ours['spearman'].mean():.4f} and {theirs['spearman'].mean():.4f}, "
                f"difference {mean:.4f} [{low:.4f}, {high:.4f}] from other random starts",
                weights < 1e-3 and abs(mean) < 0.01,
            )
        )
    return findings
