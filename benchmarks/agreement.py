"""Do other libraries find what we find? PGD, PGD on the margin, and AutoAttack, on the same images.

    python benchmarks/agreement.py checkpoints/cluttered-digits-small-at*-seed0.safetensors --json agreement.json

PGD-20 and CW-30 of the attack table against torchattacks.PGD and foolbox's LinfPGD with the same eps, step, number of
steps and random start, each library with its own random numbers. Neither library has the margin as a loss of PGD: for
CW, foolbox's LinfPGD is given it by overriding its `get_loss_fn`. Pairs are tested by McNemar's exact test, corrected
by Holm over all of them. Then AutoAttack, by torchattacks, against our worst case over all readings of PGD-200 and
CW-100. Exit status 1 where two libraries differ, or where AutoAttack is stronger by more than MOST.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import foolbox
import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.pgd import check_adversarial, margin_loss
from interpret_robust.core import provenance
from interpret_robust.core.device import describe, resolve
from interpret_robust.core.statistics import holm, mcnemar, rate
from interpret_robust.datasets import load
from interpret_robust.models import checkpoint
from interpret_robust.models.classifier import predicted_classes
from interpret_robust.results import hdf5
from interpret_robust.results.attack_outcomes import Outcomes, right
from interpret_robust.results.autoattack_tables import weaker_than_ours
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.tables import render

MOST = 0.02
"""By which AutoAttack may be stronger than our worst case."""

BATCH = 250
Attack = Callable[[nn.Module, Tensor, Tensor, float, float], Tensor]
"""Model, images, labels, eps and step size give adversarial images."""


class MarginPGD(foolbox.attacks.LinfPGD):
    """foolbox's PGD on the margin: the best other logit minus the true one."""

    def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
        """The loss of a batch, as foolbox wants it."""
        import eagerpy

        return lambda inputs: eagerpy.astensor(margin_loss(model(inputs).raw, labels.raw).sum())


def by_torchattacks(steps: int) -> Attack:
    """PGD on the cross-entropy by torchattacks."""

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        found: Tensor = torchattacks.PGD(model, eps=eps, alpha=step, steps=steps, random_start=True)(images, labels)
        return found

    return attack


def by_foolbox(kind: Any, steps: int) -> Attack:
    """PGD of a kind by foolbox."""

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        pgd = kind(abs_stepsize=step, steps=steps, random_start=True)
        found: Tensor = pgd.run(wrapped, images, foolbox.criteria.Misclassification(labels), epsilon=eps)
        return found

    return attack


OTHERS: dict[str, dict[str, Attack]] = {
    "PGD-20": {"torchattacks": by_torchattacks(20), "foolbox": by_foolbox(foolbox.attacks.LinfPGD, 20)},
    "CW-30": {"foolbox, margin": by_foolbox(MarginPGD, 30)},
}


def analyzed(name: str, path: Path, folder: Path, device: torch.device, limit: int) -> tuple[Work, Result]:
    """One of our analyses of a checkpoint at its default settings, of the first images of its test split."""
    found = checkpoint.read(path)
    analysis, dataset = analyses.get(name), load(found.about["source"])
    given = {"settings": analysis.settings(), "split": "test", "limit": limit, "batch_size": BATCH, "device": device}
    work = Work(analysis, found, dataset, folder, **given)
    if not work.is_done(overwrite=False):
        work.run()
    return work, hdf5.read(work.path)


def right_under(attack: Attack, work: Work) -> Outcomes:
    """Which of the images (N,) are right under another library's attack."""
    torch.manual_seed(0)
    eps, step = work.settings.eps, work.settings.step_size
    found = []
    for batch in work.batches():
        adversarial = attack(work.model, batch.images, batch.labels, eps, step).detach()
        adversarial = check_adversarial(work.model, adversarial, batch.images, eps)
        with torch.no_grad():
            found.append((predicted_classes(work.model(adversarial)) == batch.labels).cpu().numpy())
    return np.concatenate(found)


def compared(work: Work, ours: Result) -> Iterator[dict[str, Any]]:
    """A row for each attack and other library."""
    for reading, libraries in OTHERS.items():
        mine = right(ours, reading)
        for library, attack in libraries.items():
            theirs = right_under(attack, work)
            yield {
                "model": work.config["checkpoint"]["name"],
                "attack": reading,
                "library": library,
                "ours": rate(mine),
                "theirs": rate(theirs),
                "only we have right": int((mine & ~theirs).sum()),
                "only they": int((theirs & ~mine).sum()),
                "McNemar p": mcnemar(mine, theirs).p_value,
            }


def machine(device: torch.device) -> dict[str, Any]:
    """What computed, and with which versions."""
    others = {"torchattacks": torchattacks.__version__, "foolbox": foolbox.__version__}
    environment = provenance.environment(describe(device), torch.get_num_threads(), 1)
    return environment | others | {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}


def main() -> None:
    """Compare on each checkpoint, print the tables, and say in the exit status whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="default: the first three at* in checkpoints/")
    parser.add_argument("--images", type=int, default=500, help="of the test split, for PGD and CW")
    parser.add_argument("--autoattack-images", type=int, default=200, help="of these; 0 for no AutoAttack")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--keep", type=Path, help="folder for the files of our analyses, to resume; default: none")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    paths = given.checkpoints or sorted(Path("checkpoints").glob("*-at*seed0.safetensors"))[:3]
    device, began = resolve(given.device), time.monotonic()
    warnings.simplefilter("ignore")  # foolbox's, on models in training mode and the like
    pairs, worst = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        for path in paths:
            work, ours = analyzed("robustness", path, folder, device, given.images)
            pairs += compared(work, ours)
            if given.autoattack_images:
                _, autoattack = analyzed("autoattack", path, folder, device, given.autoattack_images)
                worst.append((path.stem, weaker_than_ours(autoattack, ours)))
            print(f"{path.stem} done after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for row, p_value in zip(pairs, holm([row["McNemar p"] for row in pairs]), strict=True):
        row["Holm p"] = p_value
    print(f"{given.images} test images, white-box; accuracies with Wilson 95 % intervals")
    print(render([{key: _shown(value) for key, value in row.items()} for row in pairs]))
    if worst:
        print("\nAutoAttack (standard, by torchattacks) against our worst case on the same images")
        print(render([{"model": name, **found.cells()} for name, found in worst]))
    if given.json:
        told = {"pairs": pairs, "worst case": {name: found._asdict() for name, found in worst}}
        given.json.write_text(json.dumps(told | {"machine": machine(device)}, indent=1) + "\n", encoding="utf-8")
    differing = any(row["Holm p"] < 0.05 for row in pairs)
    sys.exit(differing or any(found.difference.value > MOST for _, found in worst))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2g}"
    return value.percent() if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    main()
