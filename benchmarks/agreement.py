"""Do attacks of other libraries break the images that ours break? PGD, PGD on the margin, and AutoAttack.

    python benchmarks/agreement.py checkpoints/cifar10-small-at*-seed0.safetensors --json agreement.json

PGD-20 and CW-30 of the attack table against torchattacks.PGD and foolbox's LinfPGD with the same eps, step, number of
steps and random start, each library with its own random numbers. Neither library has the margin as a loss of PGD: for
CW, foolbox's LinfPGD is given it by overriding its `get_loss_fn`. Pairs are tested by McNemar's exact test, corrected
by Holm over all of them. Then AutoAttack, by torchattacks, against our worst case over all readings of PGD-200 and
CW-100, and APGD-CE and APGD-T of 100 steps. Exit status 1 where two libraries differ, or where AutoAttack is stronger
by more than TOLERANCE.
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
from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.core import provenance
from interpret_robust.core.device import describe, resolve
from interpret_robust.core.intervals import Interval, rate
from interpret_robust.core.significance import holm, mcnemar
from interpret_robust.datasets import load
from interpret_robust.models import checkpoint
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.losses import margin_loss
from interpret_robust.results import hdf5
from interpret_robust.results.attack_outcomes import Outcomes, find_right
from interpret_robust.results.autoattack_tables import compare_with_ours
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.tables import render

TOLERANCE = 0.02
"""Accuracy by which AutoAttack may be stronger than our worst case."""

BATCH = 250
SETTINGS = {"robustness": {"apgd": "100"}}
"""What is not the default: without APGD the worst case is too high on CIFAR-10."""

Attack = Callable[[nn.Module, Tensor, Tensor, float, float], Tensor]
"""Model, images, labels, eps and step size give adversarial images."""


class MarginPGD(foolbox.attacks.LinfPGD):  # type: ignore[misc]
    """foolbox's PGD on the margin: the best other logit minus the true one."""

    def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
        """Return the loss of a batch, in the form that foolbox asks for."""
        import eagerpy

        return lambda inputs: eagerpy.astensor(margin_loss(model(inputs).raw, labels.raw).sum())


def torchattacks_pgd(steps: int) -> Attack:
    """Return torchattacks' PGD on the cross-entropy."""

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        adversarial: Tensor = torchattacks.PGD(model, eps=eps, alpha=step, steps=steps, random_start=True)(
            images, labels
        )
        return adversarial

    return attack


def foolbox_pgd(attack_class: Any, steps: int) -> Attack:
    """Return foolbox's PGD; the class decides the loss."""

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        foolbox_model = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        pgd = attack_class(abs_stepsize=step, steps=steps, random_start=True)
        adversarial: Tensor = pgd.run(foolbox_model, images, foolbox.criteria.Misclassification(labels), epsilon=eps)
        return adversarial

    return attack


LIBRARIES: dict[str, dict[str, Attack]] = {
    "PGD-20": {"torchattacks": torchattacks_pgd(20), "foolbox": foolbox_pgd(foolbox.attacks.LinfPGD, 20)},
    "CW-30": {"foolbox, margin": foolbox_pgd(MarginPGD, 30)},
}


def analyze(name: str, path: Path, folder: Path, device: torch.device, limit: int) -> tuple[Work, Result]:
    """Run one of our analyses on a checkpoint and the first images of its test split."""
    subject = checkpoint.read(path)
    analysis, dataset = analyses.get(name), load(subject.about["source"])
    options = {
        "settings": analysis.settings(**SETTINGS.get(name, {})),
        "split": "test",
        "limit": limit,
        "batch_size": BATCH,
        "device": device,
    }
    work = Work(analysis, subject, dataset, folder, **options)
    if not work.is_done(overwrite=False):
        work.run()
    return work, hdf5.read(work.path)


def attack_all(attack: Attack, work: Work) -> Outcomes:
    """Return which of the images (N,) are still classified correctly under another library's attack."""
    torch.manual_seed(0)
    eps, step = work.settings.eps, work.settings.step_size
    outcomes = []
    for batch in work.batches():
        adversarial = attack(work.model, batch.images, batch.labels, eps, step).detach()
        adversarial = check_adversarial(work.model, adversarial, batch.images, eps)
        with torch.no_grad():
            outcomes.append((predict_classes(work.model(adversarial)) == batch.labels).cpu().numpy())
    return np.concatenate(outcomes)


def compare(work: Work, result: Result) -> Iterator[dict[str, Any]]:
    """Yield a row of the table for each attack and each other library."""
    for reading, libraries in LIBRARIES.items():
        our_outcomes = find_right(result, reading)
        for library, attack in libraries.items():
            their_outcomes = attack_all(attack, work)
            yield {
                "model": work.config["checkpoint"]["name"],
                "attack": reading,
                "library": library,
                "ours": rate(our_outcomes),
                "theirs": rate(their_outcomes),
                "only we have right": int((our_outcomes & ~their_outcomes).sum()),
                "only they": int((their_outcomes & ~our_outcomes).sum()),
                "McNemar p": mcnemar(our_outcomes, their_outcomes).p_value,
            }


def describe_setup(device: torch.device) -> dict[str, Any]:
    """Return the processor, the environment and the versions of the libraries."""
    versions = {"torchattacks": torchattacks.__version__, "foolbox": foolbox.__version__}
    environment = provenance.describe_environment(describe(device), torch.get_num_threads(), 1)
    return environment | versions | {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}


def main() -> None:
    """Compare on each checkpoint, print the tables, and say in the exit status whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="default: the first three at* in checkpoints/")
    parser.add_argument("--images", type=int, default=500, help="of the test split, for PGD and CW")
    parser.add_argument("--autoattack-images", type=int, default=200, help="of these; 0 for no AutoAttack")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--keep", type=Path, help="folder for the files of our analyses, to resume; default: none")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    paths = arguments.checkpoints or sorted(Path("checkpoints").glob("*-at*seed0.safetensors"))[:3]
    device, began = resolve(arguments.device), time.monotonic()
    warnings.simplefilter("ignore")  # foolbox's, on models in training mode and the like
    pairs: list[dict[str, Any]] = []
    comparisons = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for path in paths:
            work, our_result = analyze("robustness", path, folder, device, arguments.images)
            pairs += compare(work, our_result)
            if arguments.autoattack_images:
                _, autoattack = analyze("autoattack", path, folder, device, arguments.autoattack_images)
                comparisons.append((path.stem, compare_with_ours(autoattack, our_result)))
            print(f"{path.stem} done after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for row, p_value in zip(pairs, holm([row["McNemar p"] for row in pairs]), strict=True):
        row["Holm p"] = p_value
    print(f"{arguments.images} test images, white-box; accuracies with Wilson 95 % intervals")
    print(render([{key: _format_cell(value) for key, value in row.items()} for row in pairs]))
    if comparisons:
        print("\nAutoAttack (standard, by torchattacks) against our worst case on the same images")
        print(render([{"model": name, **comparison.cells()} for name, comparison in comparisons]))
    if arguments.json:
        names = [path.stem for path in paths]
        counts = {"images": arguments.images, "images of AutoAttack": arguments.autoattack_images}
        report = {
            "checkpoints": names,
            "commit": provenance.read_code_version()["commit"],
            **counts,
            "pairs": pairs,
            "worst case": {name: comparison._asdict() for name, comparison in comparisons},
        }
        arguments.json.write_text(
            json.dumps(report | {"machine": describe_setup(device)}, indent=1) + "\n", encoding="utf-8"
        )
    is_different = any(row["Holm p"] < 0.05 for row in pairs)
    sys.exit(is_different or any(comparison.difference.value > TOLERANCE for _, comparison in comparisons))


def _format_cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2g}"
    return value.percent() if isinstance(value, Interval) else str(value)


if __name__ == "__main__":
    main()
