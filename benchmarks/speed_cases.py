"""What `speed.py` measures: each case sets ours, as the commands compute it, beside what a user would write."""

import math
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
    adv_lib_apgd,
    adv_lib_pgd,
    art_pgd,
    captum_maps,
    foolbox_pgd,
    is_right,
    load_batches,
    load_model,
    margin_pgd,
    pyautoattack_apgd,
    quantus_maps,
    rank_attention,
    torchattacks_apgd,
    torchattacks_pgd,
)
from interleaved import Case, Contender, Finding, Run
from scipy.stats import spearmanr

from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.apgd import APGD
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attribution.gradients import compute_map
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.significance import holm, mcnemar
from interpret_robust.datasets import load
from interpret_robust.models import checkpoint
from interpret_robust.models.folding import fold
from interpret_robust.models.variants import find_variant
from interpret_robust.results.columns import Columns
from interpret_robust.study.tasks import AnalysisTask
from interpret_robust.training.job import Job
from interpret_robust.training.recipe_file import find_recipe
from interpret_robust.training.run import Run as TrainingRun

OUR_NAME = "ours"
"""Name of our contender in every case."""

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

QUICK_RECIPE = ("eps_ramp=0", "schedule=constant", "learning_rate=0.01")
"""The attack and the batch of `quick`, at full radius from the first step on."""

TRAININGS = {"at": ("at", RECIPE), "at-reg": ("at-reg", RECIPE), "at, quick": ("at", QUICK_RECIPE)}
"""Variant, and what differs from the recipe `quick`."""

TRAINING_ATTACKS = {"torchattacks": torchattacks_pgd, "foolbox": foolbox_pgd}
EVALUATED_ATTACKS = {**TRAINING_ATTACKS, "ART": art_pgd, "adv-lib": adv_lib_pgd}
APGD_ATTACKS = {"torchattacks": torchattacks_apgd, "pyautoattack": pyautoattack_apgd, "adv-lib": adv_lib_apgd}


@dataclass(frozen=True)
class Context:
    """The folder of the checkpoints, the number of test images, and a folder for what has to be written.

    `prefix` are data and architecture in the names of checkpoints.
    """

    checkpoints: Path
    images: int
    scratch: Path
    prefix: str = "cluttered-digits-small"

    def path(self, name: str, seed: int = 0) -> Path:
        """Return the path of a variant's checkpoint."""
        return self.checkpoints / f"{self.prefix}-{name}-seed{seed}.safetensors"

    def work(
        self, analysis: str, name: str = "at", seed: int = 0, readers: tuple[Path, ...] = (), **settings: Any
    ) -> Work:
        """Return an analysis of a variant's first test images, as its command prepares it."""
        options, path = analyses.get(analysis).settings(**settings), self.path(name, seed)
        return AnalysisTask(
            analysis, path, self.scratch, options, device="cpu", limit=self.images, evaluators=readers
        ).work()


def compare_training(context: Context) -> list[Case]:
    """Compare adversarial training steps."""
    return [_compare_recipe(context, title, name, changes) for title, (name, changes) in TRAININGS.items()]


def _compare_recipe(context: Context, title: str, name: str, changes: tuple[str, ...]) -> Case:
    subject = checkpoint.read(context.path(name))
    recipe = find_recipe("quick", "cluttered-digits", changes)
    job = Job(load(subject.about["source"]), "small", find_variant(name), 0, recipe)
    loops: dict[str, Callable[[Job], Any]] = {OUR_NAME: partial(TrainingRun, device=CPU)}
    for (library, pgd_of), layout in product(TRAINING_ATTACKS.items(), Layout):
        loops[layout.name_contender(library)] = partial(TrainingLoop, attack_of=pgd_of, layout=layout)

    def begin(contender: str, job: Job) -> Callable[[], checkpoint.Tensors]:
        loop = loops[contender](job)
        loop.model.load_state_dict(subject.tensors)

        def advance() -> checkpoint.Tensors:
            for _ in range(STEPS):
                loop.advance()
            return {key: tensor.clone() for key, tensor in loop.model.state_dict().items()}

        return advance

    def compare(weights: Mapping[str, checkpoint.Tensors]) -> Iterator[Finding]:
        clean = replace(job, recipe=replace(recipe, eps=0.0, attack_step=0.0))
        exact = {contender: begin(contender, clean)() for contender in weights}
        our_weights = exact.pop(OUR_NAME)
        distance = max(_measure_distance(our_weights, tensors, subject.tensors) for tensors in exact.values())
        yield Finding(
            f"from the same weights on the same batches at eps 0, where no random start matters, {STEPS} steps change "
            f"the weights as the others' do, but for at most {distance:.1e} of the change",
            distance < 1e-3,
        )
        work = context.work("robustness", name)
        yield from _judge_outcomes(
            {contender: _find_right(tensors, work) for contender, tensors in weights.items()},
            f"after {STEPS} steps at eps 8/255, under PGD-20",
        )

    return Case(
        f"train {title}",
        f"{STEPS} training steps of `{name}` from its trained weights: network `small`, cluttered digits, batch "
        f"{recipe.batch_size}, PGD of {recipe.attack_steps} steps of {round(255 * recipe.attack_step)}/255 in eps "
        "8/255, batch norm in eval mode in the attack",
        [Contender(contender, partial(begin, contender, job)) for contender in loops],
        lambda weights: list(compare(weights)),
    )


def _measure_distance(
    our_weights: checkpoint.Tensors, their_weights: checkpoint.Tensors, first_weights: checkpoint.Tensors
) -> float:
    """Return how far two trainings are from each other, as a share of how far ours went from the first weights."""

    def length(differences: Iterator[torch.Tensor]) -> float:
        return math.sqrt(sum(float(difference.double().square().sum()) for difference in differences))

    names = [name for name, tensor in first_weights.items() if tensor.is_floating_point()]
    distance = length(our_weights[name] - their_weights[name] for name in names)
    return distance / length(our_weights[name] - first_weights[name] for name in names)


def _find_right(weights: checkpoint.Tensors, work: Work) -> AnyArray:
    """Return which of the analysis's images are right under one fixed attack on a network with these weights."""
    network = work.network
    network.load_state_dict(weights)
    model, attack = fold(network), PGD(eps=8 / 255, step_size=2 / 255, steps=20)
    outcomes = []
    for batch in work.batches():
        adversarial = attack(model, batch.images, batch.labels, per_image_noise(0, batch.indices))
        outcomes.append(is_right(model, adversarial, batch.labels))
    return np.concatenate(outcomes)


def compare_pgd(context: Context) -> list[Case]:
    """Compare the evaluation of one attack."""
    description = (
        f"PGD of 20 steps on the network `small` of variant `at`, {context.images} test images in batches of 250, and "
        "what is right under it; ours also answers for the natural images, and measures each perturbation"
    )
    return [_compare_attack(context, "PGD-20", description, partial(_prepare_pgd, context), EVALUATED_ATTACKS)]


def compare_narrow(context: Context) -> list[Case]:
    """Compare the same with the paper's network and data (`irt data get cifar10`)."""
    context = replace(context, images=max(context.images // 5, 1), prefix="cifar10-narrow")
    description = (
        f"PGD of 20 steps on the paper's network of variant `at`, {context.images} test images of CIFAR-10 in one "
        "batch, and what is right under it; ours also answers for the natural images, and measures each perturbation"
    )
    case = _compare_attack(context, "PGD-20, narrow", description, partial(_prepare_pgd, context), EVALUATED_ATTACKS)
    return [replace(case, rounds=0.4)]


def compare_apgd(context: Context) -> list[Case]:
    """Compare the first attack of AutoAttack."""

    def prepare_ours() -> Run:
        work = context.work("robustness")
        attack = APGD(work.settings.eps, 20)

        def run() -> AnyArray:
            outcomes = []
            for batch in work.batches():
                ascent = attack(work.model, batch.images, batch.labels, per_image_noise(0, batch.indices))
                outcomes.append(is_right(work.model, ascent.adversarial, batch.labels))
            return np.concatenate(outcomes)

        return run

    description = (
        f"APGD of 20 steps on the cross-entropy, network `small` of variant `at`, {context.images} test images in "
        "batches of 250, and what is right under it"
    )
    return [_compare_attack(context, "APGD-CE-20", description, prepare_ours, APGD_ATTACKS)]


def _prepare_pgd(context: Context) -> Run:
    work = context.work("robustness", pgd="20", cw="none")
    return lambda: _evaluate(work)["PGD-20", 0]


def _compare_attack(
    context: Context,
    name: str,
    description: str,
    prepare_ours: Callable[[], Run],
    makers: Mapping[str, Callable[[int], Attack]],
) -> Case:
    """Compare which images are right under an attack of 20 steps of ours, and under those of libraries."""

    def prepare_theirs(maker: Callable[[int], Attack], layout: Layout) -> Run:
        run_attack, work = maker(20), context.work("robustness")
        model, batches = load_model(context.path("at"), layout), load_batches(work, layout)
        eps, step = work.settings.eps, work.settings.step_size

        def run() -> AnyArray:
            return np.concatenate(
                [is_right(model, run_attack(model, *batch, eps, step), batch.labels) for batch in batches]
            )

        return run

    peers = [
        Contender(layout.name_contender(library), partial(prepare_theirs, maker, layout))
        for (library, maker), layout in product(makers.items(), Layout)
    ]
    return Case(
        name,
        description,
        [Contender(OUR_NAME, prepare_ours), *peers],
        lambda outcomes: _judge_outcomes(outcomes, f"under {name}"),
    )


def compare_tables(context: Context) -> list[Case]:
    """Compare the paper's attack table of two models that attack each other."""
    context = replace(context, images=max(context.images // 5, 1))
    paths = [context.path("at", seed) for seed in (0, 1)]

    def prepare_ours() -> Run:
        works = [context.work("robustness", seed=seed, readers=(paths[1 - seed],)) for seed in (0, 1)]
        return lambda: {
            (source, *key): right for source, work in enumerate(works) for key, right in _evaluate(work).items()
        }

    def prepare_rows(*, is_shared: bool) -> Run:
        work = context.work("robustness")
        models, batches = [load_model(path, Layout.FAST) for path in paths], load_batches(work, Layout.FAST)
        eps, step = work.settings.eps, work.settings.step_size
        attacks = {
            f"{name}-{steps}": maker(steps)
            for (name, maker), step_counts in zip(
                {"PGD": torchattacks_pgd, "CW": margin_pgd}.items(), work.settings.steps().values(), strict=True
            )
            for steps in step_counts
        }

        def run() -> dict[Any, AnyArray]:
            outcomes: dict[Any, list[AnyArray]] = {}
            for batch, source, (reading, attack) in product(batches, (0, 1), attacks.items()):
                for target in (source, 1 - source):
                    if target == source or not is_shared:
                        adversarial = attack(models[source], *batch, eps, step)
                    right = is_right(models[target], adversarial, batch.labels)
                    outcomes.setdefault((source, reading, int(target != source)), []).append(right)
            return {key: np.concatenate(rows) for key, rows in outcomes.items()}

        return run

    return [
        Case(
            "attack table",
            "PGD-5, 20, 100, 200 and CW-30, 100 (PGD on the margin), white-box and from the other model, of two "
            f"networks `small` of variant `at`, {context.images} test images; ours reads two attacks on each model at "
            "all these steps; row by row, each is an attack of its own; `each attack once` shares it between the "
            "white-box row of one model and the black-box row of the other",
            [
                Contender(OUR_NAME, prepare_ours),
                Contender("row by row, tuned", partial(prepare_rows, is_shared=False)),
                Contender("each attack once, tuned", partial(prepare_rows, is_shared=True)),
            ],
            _judge_tables,
            rounds=0.4,
            warm_up=False,
        )
    ]


def compare_gradients(context: Context) -> list[Case]:
    """Compare gradient maps of images."""

    def prepare_ours() -> Run:
        work = context.work("gradient-maps")

        def run() -> AnyArray:
            return np.concatenate(
                [
                    compute_map("gradient", work.model, batch.images, batch.labels, batch.indices).numpy()
                    for batch in work.batches()
                ]
            )

        return run

    def prepare_theirs(maps_of: Callable[[], Maps], layout: Layout) -> Run:
        maps, work = maps_of(), context.work("gradient-maps")
        model, batches = load_model(context.path("at"), layout), load_batches(work, layout)
        return lambda: maps(model, batches)

    peers = [
        Contender(layout.name_contender(name), partial(prepare_theirs, maps_of, layout))
        for (name, maps_of), layout in product({"captum": captum_maps, "quantus": quantus_maps}.items(), Layout)
    ]
    by_image = Contender(
        "captum, image by image", partial(prepare_theirs, partial(captum_maps, batch_size=1), Layout.PLAIN)
    )
    return [
        Case(
            "gradient maps",
            f"gradients of the cross-entropy with respect to pixels, network `small` of variant `at`, {context.images} "
            "test images in batches of 250",
            [Contender(OUR_NAME, prepare_ours), *peers, by_image],
            _judge_maps,
            rounds=2.0,
        )
    ]


def compare_ranks(context: Context) -> list[Case]:
    """Compare the analysis of attention against robustness."""

    def prepare_ours() -> Run:
        work = context.work("attention-rank", "at-att")

        def run() -> dict[str, AnyArray]:
            columns = _compute_columns(work)
            return columns | work.analysis.summarize(Columns(columns), work.split)

        return run

    def prepare_theirs(layout: Layout) -> Run:
        attack, work = torchattacks_pgd(20), context.work("attention-rank", "at-att")
        model, batches = load_model(context.path("at-att"), layout), load_batches(work, layout)
        return lambda: rank_attention(model, batches, attack, work.settings.eps, work.settings.step_size)

    peers = [
        Contender(layout.name_contender("loop with torchattacks"), partial(prepare_theirs, layout)) for layout in Layout
    ]
    return [
        Case(
            "attention-rank",
            f"weights, distances and rank correlations of {context.images} test images under PGD-20, network "
            "`small` of variant `at-att`, with the paper's curve and its tests; ours also gives six other curves",
            [Contender(OUR_NAME, prepare_ours), *peers],
            _judge_ranks,
        )
    ]


def compare_start(context: Context) -> list[Case]:
    """Compare the time that the command takes to start."""
    irt = str(Path(sys.executable).with_name("irt"))

    def process(*command: str) -> Run:
        return lambda: subprocess.run(command, check=True, capture_output=True, text=True)

    def show() -> Run:
        work = replace(context, images=20).work("attention-rank", "at-att", steps=1)
        return process(irt, "show", str(work.run(overwrite=True)))

    def compare(processes: Mapping[str, subprocess.CompletedProcess[str]]) -> list[Finding]:
        command = next(iter(processes.values())).args
        trace = subprocess.run(
            [sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True
        )
        imports = {line.rpartition("|")[2].strip() for line in trace.stderr.splitlines()}
        return [Finding(f"it imports {'' if 'torch' in imports else 'no '}torch", "torch" not in imports)]

    description = "a whole process, beside that of a Python that only imports torch"
    torch_alone = Contender("import torch", lambda: process(sys.executable, "-c", "import torch"))
    commands = {"irt --help": lambda: process(irt, "--help"), "irt show": show}
    return [
        Case(name, description, [Contender(OUR_NAME, command), torch_alone], compare, has_memory=False)
        for name, command in commands.items()
    ]


CASES: dict[str, Callable[[Context], list[Case]]] = {
    "train": compare_training,
    "pgd": compare_pgd,
    "narrow": compare_narrow,
    "apgd": compare_apgd,
    "table": compare_tables,
    "gradients": compare_gradients,
    "attention-rank": compare_ranks,
    "start": compare_start,
}


def _compute_columns(work: Work) -> dict[str, AnyArray]:
    """Return the per-image columns of an analysis."""
    preparation = work.analysis.prepare(work)
    batches = [work.analysis.rows(work.model, batch, preparation) for batch in work.batches()]
    return {name: np.concatenate([columns[name] for columns in batches]) for name in batches[0]}


def _evaluate(work: Work) -> dict[tuple[str, int], AnyArray]:
    """Return which images (N,) of an attack table's source are right, by reading and by the number of the target."""
    columns = _compute_columns(work)
    right = columns["per_image/prediction"][:, 0] == columns["per_image/label"][:, None, None]
    readings, targets = work.settings.readings(), range(right.shape[2])
    return {(reading, target): right[:, row, target] for row, reading in enumerate(readings) for target in targets}


def _judge_outcomes(outcomes: Mapping[str, AnyArray], condition: str) -> list[Finding]:
    """Return a finding for each other contender, from which images (N,) are right, by McNemar's tests."""
    our_outcomes = outcomes[OUR_NAME]
    peers = {name: right for name, right in outcomes.items() if name != OUR_NAME}
    tests = [mcnemar(our_outcomes, right) for right in peers.values()]
    return [
        Finding(
            f"{condition}: {int(our_outcomes.sum())} of {len(our_outcomes)} images right by ours and "
            f"{int(right.sum())} by {name}; "
            f"{test.only_first} only by ours, {test.only_second} only by {name} (McNemar, Holm: p = {p_value:.2g})",
            p_value >= SIGNIFICANT,
        )
        for (name, right), test, p_value in zip(
            peers.items(), tests, holm([test.p_value for test in tests]), strict=True
        )
    ]


def _judge_tables(tables: Mapping[str, Mapping[Any, AnyArray]]) -> list[Finding]:
    """Return a finding for each other contender, from which images (N,) are right in each row of each model."""
    our_table, findings = tables[OUR_NAME], []
    for name, their_table in list(tables.items())[1:]:
        p_values = holm([mcnemar(right, their_table[row]).p_value for row, right in our_table.items()])
        difference = max(abs(float(right.mean() - their_table[row].mean())) for row, right in our_table.items())
        findings.append(
            Finding(
                f"{len(our_table)} accuracies of ours and of {name} differ by at most {difference:.1%} "
                f"(McNemar, Holm: smallest p = {min(p_values):.2g})",
                min(p_values) >= SIGNIFICANT,
            )
        )
    return findings


def _judge_maps(maps: Mapping[str, AnyArray]) -> list[Finding]:
    """Return a finding for each other contender, from gradients (N, C, H, W).

    Where rounding alone keeps an activation from zero, an image may have another gradient: the median has to be small.
    """
    our_maps, findings = maps[OUR_NAME], []
    for name, their_maps in list(maps.items())[1:]:
        relative = np.abs(our_maps - their_maps).max((1, 2, 3)) / np.abs(their_maps).max((1, 2, 3))
        signs = float((np.sign(our_maps) == np.sign(their_maps)).mean())
        findings.append(
            Finding(
                f"gradients of ours and of {name} differ by {np.median(relative):.1e} of an image's largest in the "
                f"median image and by {relative.max():.1e} in the worst; {signs:.4%} of all signs are equal",
                bool(np.median(relative) < 1e-4) and signs > 0.999,
            )
        )
    return findings


def _judge_ranks(answers: Mapping[str, Mapping[str, AnyArray]]) -> list[Finding]:
    """Return findings on what is right under attack, on the weights, and on the correlations."""
    our_columns = {name.removeprefix("per_image/"): values for name, values in answers[OUR_NAME].items()}
    pairs = zip(our_columns["attention"], -our_columns["distance"], strict=True)
    correlations = [spearmanr(*pair).statistic for pair in pairs]
    difference = float(np.abs(our_columns["spearman"] - correlations).max())
    sentence = f"SciPy's Spearman of our columns differs from ours by at most {difference:.1e}"
    findings = [Finding(sentence, difference < 1e-6)]
    under_attack = {**answers, OUR_NAME: our_columns}
    findings += _judge_outcomes(
        {name: columns["prediction_adversarial"] == columns["label"] for name, columns in under_attack.items()},
        "under PGD-20",
    )
    for name, their_columns in list(answers.items())[1:]:
        weights = float(
            np.abs(our_columns["attention"] - their_columns["attention"]).max() / our_columns["attention"].max()
        )
        mean, low, high = bootstrap_mean(our_columns["spearman"] - their_columns["spearman"])
        findings.append(
            Finding(
                f"attention of ours and of {name} differs by at most {weights:.1e} of its largest; mean Spearman "
                f"{our_columns['spearman'].mean():.4f} and {their_columns['spearman'].mean():.4f}, "
                f"difference {mean:.4f} [{low:.4f}, {high:.4f}] from other random starts",
                weights < 1e-3 and abs(mean) < 0.01,
            )
        )
    return findings
