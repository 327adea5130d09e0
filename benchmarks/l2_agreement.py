"""Do other libraries break in the L2 ball the images that ours break? PGD and APGD on shipped checkpoints.

    python benchmarks/l2_agreement.py checkpoints/cifar10-small-at-seed0.safetensors \\
        checkpoints/cifar10-small-natural-seed0.safetensors --images 100 --json docs/agreement/l2.json

PGD-20 and PGD-100 with steps of eps / 8 against foolbox's L2PGD of the same steps and random starts, at each of EPS.
foolbox projects on the ball and then clips to the box; ours is the nearest point of both. Then our APGD-CE against
adv-lib's `apgd` in L2 (100 steps, the cross-entropy), where adv-lib is installed: it has no PGD in L2. Each library
draws its own random numbers. Pairs are tested by McNemar's exact test, corrected by Holm over all of them. Exit status
1 where a pair differs, or where the other breaks more than TOLERANCE of all images beyond ours.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import torch
from alternatives import import_adv_lib
from torch import Tensor, nn

from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.apgd import APGD
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.core import provenance
from interpret_robust.core.device import describe
from interpret_robust.core.files import replace_file
from interpret_robust.core.intervals import Interval, rate
from interpret_robust.core.significance import holm, mcnemar
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import Batch, make_batch
from interpret_robust.models import checkpoint
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.folding import fold
from interpret_robust.results.tables import render

EPS = (0.25, 0.5, 1.0)
STEPS = (20, 100)
TOLERANCE = 0.03
"""Share of images that another library may break beyond those that ours breaks."""

CPU = torch.device("cpu")
Attack = Callable[[nn.Module, Batch, float], Tensor]
"""Model, images with labels, and radius give adversarial images."""


def our_pgd(steps: int) -> Attack:
    """Return our PGD."""
    return lambda model, batch, eps: PGD(eps, steps=steps, norm="l2")(
        model, batch.images, batch.labels, per_image_noise(0, batch.indices)
    )


def foolbox_pgd(steps: int) -> Attack:
    """Return foolbox's L2PGD with steps of our length."""

    def attack(model: nn.Module, batch: Batch, eps: float) -> Tensor:
        foolbox_model = foolbox.PyTorchModel(model, bounds=(0, 1), device=batch.images.device)
        pgd = foolbox.attacks.L2PGD(abs_stepsize=eps / 8, steps=steps, random_start=True)
        adversarial: Tensor = pgd.run(
            foolbox_model, batch.images, foolbox.criteria.Misclassification(batch.labels), epsilon=eps
        )
        return adversarial

    return attack


def our_apgd(model: nn.Module, batch: Batch, eps: float) -> Tensor:
    """Attack a batch with our APGD-CE."""
    attack = APGD(eps, 100, norm="l2")
    return attack(model, batch.images, batch.labels, per_image_noise(0, batch.indices)).adversarial


def adv_lib_apgd(model: nn.Module, batch: Batch, eps: float) -> Tensor:
    """Attack a batch with adv-lib's APGD on the cross-entropy."""
    adversarial: Tensor = import_adv_lib().apgd(
        model, batch.images, batch.labels, eps, 2, n_iter=100, loss_function="ce"
    )
    return adversarial


def list_pairs() -> list[tuple[str, str, Attack, Attack]]:
    """Return, for each comparison, the attack's name, the other library's, our attack and the other."""
    with_foolbox = [(f"PGD-{steps}", "foolbox", our_pgd(steps), foolbox_pgd(steps)) for steps in STEPS]
    return with_foolbox + ([("APGD-CE-100", "adv-lib", our_apgd, adv_lib_apgd)] if find_adv_lib_version() else [])


def find_adv_lib_version() -> str | None:
    """Return adv-lib's version, or None where it is not installed."""
    try:
        return metadata.version("adv-lib")
    except metadata.PackageNotFoundError:
        return None


def find_right(attack: Attack, model: nn.Module, batch: Batch, eps: float) -> Any:
    """Return which images (N,) are right without an attack and under one."""
    torch.manual_seed(0)
    adversarial = check_adversarial(model, attack(model, batch, eps).detach(), batch.images, eps, "l2")
    with torch.no_grad():
        answers = [predict_classes(model(images)) == batch.labels for images in (batch.images, adversarial)]
    return (answers[0] & answers[1]).numpy()


def compare(path: Path, images: int) -> list[dict[str, Any]]:
    """Compare what all attacks leave right of a checkpoint's first test images, at each radius."""
    subject = checkpoint.read(path)
    batch, model = make_batch(load(subject.about["source"]).test, range(images), CPU), fold(subject.model(CPU))
    for weights in model.parameters():
        weights.requires_grad_(False)
    records = []
    for eps in EPS:
        for attack, library, our_attack, their_attack in list_pairs():
            our_outcomes, their_outcomes = (
                find_right(method, model, batch, eps) for method in (our_attack, their_attack)
            )
            pair = {"model": path.stem, "eps": eps, "attack": attack, "library": library}
            accuracies = {"ours": rate(our_outcomes), "theirs": rate(their_outcomes)}
            counts = {
                "only we have right": int((our_outcomes & ~their_outcomes).sum()),
                "only they": int((their_outcomes & ~our_outcomes).sum()),
            }
            outcomes = {
                "right by ours": np.flatnonzero(our_outcomes).tolist(),
                "by theirs": np.flatnonzero(their_outcomes).tolist(),
            }
            test = {"McNemar p": mcnemar(our_outcomes, their_outcomes).p_value}
            records.append(pair | accuracies | counts | test | outcomes)
            print(pair, counts, file=sys.stderr, flush=True)
    return records


def main() -> None:
    """Attack all models, print the table, and say in the exit status whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=100, help="the first of the test split")
    parser.add_argument("--json", type=Path, help="write outcomes of every image there too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    records = [row for path in arguments.checkpoints for row in compare(path, arguments.images)]
    for row, p_value in zip(records, holm([row["McNemar p"] for row in records]), strict=True):
        row["Holm p"] = p_value
    omissions = ("right by ours", "by theirs")
    table = [{key: format_cell(value) for key, value in row.items() if key not in omissions} for row in records]
    print(render(table, "markdown"))
    if arguments.json:
        machine = provenance.describe_environment(describe(CPU), torch.get_num_threads(), 1)
        versions = {"foolbox": foolbox.__version__, "adv-lib": find_adv_lib_version()}
        content = {"pairs": records, "images": arguments.images, "machine": machine, **versions}
        with replace_file(arguments.json) as partial:
            partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    is_weaker = any(row["only we have right"] > TOLERANCE * arguments.images for row in records)
    sys.exit(is_weaker or any(row["Holm p"] < 0.05 for row in records))


def format_cell(value: Any) -> str:
    """Format a value as the table holds it."""
    if isinstance(value, float):
        return f"{value:.2g}"
    return value.percent() if isinstance(value, Interval) else str(value)


if __name__ == "__main__":
    main()
