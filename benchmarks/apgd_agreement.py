"""Does another library's APGD break images that our worst case with APGD leaves right?

    python benchmarks/apgd_agreement.py analyses/robustness-cifar10-small-at*-seed0-test-apgd100-first1000.h5 \\
        --images 1000 --json apgd-agreement.json

Each file of `irt evaluate` says which images its model has right on the natural image and under PGD and CW. These alone
are attacked, by our APGD-CE and APGD-T and by torchattacks' APGD and APGDT: 100 steps, towards 9 classes, one
start each, the file's own radius. The outcome of an image depends on the image and its index alone, so that ours is
what `irt evaluate --apgd 100` would find. The JSON is written after every batch, and a run goes on from it.
Exit status 1 where torchattacks breaks more than TOLERANCE of a model's images beyond ours.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from interpret_robust.analyses.robustness import APGD_PURPOSES
from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.apgd import APGD, TargetedAPGD
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.core import provenance
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.device import describe
from interpret_robust.core.files import replace_file
from interpret_robust.core.intervals import Interval, rate
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import make_batch
from interpret_robust.models import checkpoint
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.folding import fold
from interpret_robust.results import hdf5
from interpret_robust.results.attack_outcomes import find_right_in_worst_case, list_readings
from interpret_robust.results.hdf5 import Result

TOLERANCE = 0.003
"""Share of a model's images that the other library may break beyond ours."""

BATCH, STEPS, SEED = 250, 100, 0
CPU = torch.device("cpu")


def break_images(
    model: nn.Module, images: Tensor, labels: Tensor, indices: list[int], eps: float
) -> dict[str, list[int]]:
    """Attack images (N, C, H, W), all of them right before, and return the indices of those that each attack breaks."""
    noises = [per_image_noise(SEED, indices, purpose) for purpose in APGD_PURPOSES]
    their_apgd = torchattacks.APGD(model, eps=eps, steps=STEPS, loss="ce", seed=SEED)
    their_apgd_t = torchattacks.APGDT(model, eps=eps, steps=STEPS, n_classes=10, seed=SEED)
    images_by_attack: dict[str, Tensor] = {
        "ours, APGD-CE": APGD(eps, STEPS)(model, images, labels, noises[0]).adversarial,
        "ours, APGD-T": TargetedAPGD(eps, STEPS)(model, images, labels, noises[1]).adversarial,
        "theirs, APGD-CE": their_apgd(images, labels).detach(),
        "theirs, APGD-T": their_apgd_t(images, labels).detach(),
    }
    indices_by_attack = {}
    for name, images_of_attack in images_by_attack.items():
        adversarial = check_adversarial(model, images_of_attack, images, eps)
        with torch.no_grad():
            wrong = (predict_classes(model(adversarial)) != labels).tolist()
        indices_by_attack[name] = [index for index, is_wrong in zip(indices, wrong, strict=True) if is_wrong]
    return indices_by_attack


def group_right_images(result: Result, images: int) -> list[AnyArray]:
    """Return the indices of the images that PGD and CW leave right, for each BATCH of a file's first `images`."""
    readings = [reading for reading in list_readings(result) if not reading.startswith("APGD")]
    right = find_right_in_worst_case(result, subset=readings)[:images]
    return [first + np.flatnonzero(right[first : first + BATCH]) for first in range(0, images, BATCH)]


def attack(result: Result, places: AnyArray) -> dict[str, list[int]]:
    """Attack the images in these places with the model of a file; see `break_images`."""
    path = Path("checkpoints") / f"{result.config['checkpoint']['name']}.safetensors"
    subject = checkpoint.read(path)
    if subject.sha256 != result.config["checkpoint"]["sha256"]:
        sys.exit(f"{path} is not the model of {result.path}")
    data = result.config["data"]
    batch = make_batch(load(data["dataset"]).split(data["split"]), range(int(places.max()) + 1), CPU)
    model, eps = fold(subject.model(CPU)), result.config["settings"]["eps"]
    return break_images(model, batch.images[places], batch.labels[places], places.tolist(), eps)


def summarize(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table: what the finished batches say of a model."""
    batches = list(record["batches"].values())
    union = {
        side: {index for batch in batches for attack in ("APGD-CE", "APGD-T") for index in batch[f"{side}, {attack}"]}
        for side in ("ours", "theirs")
    }
    images, right = sum(batch["images"] for batch in batches), sum(batch["right"] for batch in batches)
    return {
        "model": name,
        "images": images,
        "without APGD": rate(np.arange(images) < right),
        "with APGD": rate(np.arange(images) < right - len(union["ours"])),
        "broken by ours": len(union["ours"]),
        "broken by theirs": len(union["theirs"]),
        "only by theirs": len(union["theirs"] - union["ours"]),
        "only by ours": len(union["ours"] - union["theirs"]),
    }


def render_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    cells = [[value.percent() if isinstance(value, Interval) else str(value) for value in row.values()] for row in rows]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Attack batch by batch, all models in turn, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="of `irt evaluate`")
    parser.add_argument("--images", type=int, default=1000, help="the first of each file, a multiple of 250")
    parser.add_argument("--json", type=Path, required=True, help="outcomes so far, to go on from")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    outcomes: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {"models": {}}
    results = [hdf5.read(path) for path in options.files]
    outcomes["machine"] = provenance.describe_environment(describe(CPU), torch.get_num_threads(), 1)
    outcomes["torchattacks"], outcomes["steps"], outcomes["seed"] = torchattacks.__version__, STEPS, SEED
    for place in range(0 if options.table else options.images // BATCH):
        for result in results:
            record = outcomes["models"].setdefault(result.config["checkpoint"]["name"], {"batches": {}})
            record |= {"file": result.path.name, "eps": result.config["settings"]["eps"]}
            if str(place * BATCH) not in record["batches"]:
                indices = group_right_images(result, options.images)[place]
                record["batches"][str(place * BATCH)] = {
                    "images": BATCH,
                    "right": len(indices),
                    **attack(result, indices),
                }
                with replace_file(options.json) as partial:
                    partial.write_text(json.dumps(outcomes) + "\n", encoding="utf-8")
                print(summarize(result.config["checkpoint"]["name"], record), file=sys.stderr, flush=True)
    rows = [summarize(name, record) for name, record in outcomes["models"].items()]
    print(render_table(rows))
    sys.exit(any(row["only by theirs"] > TOLERANCE * row["images"] for row in rows))


if __name__ == "__main__":
    main()
