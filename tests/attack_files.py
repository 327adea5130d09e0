"""Files of the attack table whose outcomes are made up: everything but the models is as `irt evaluate` writes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interpret_robust.analyses import autoattack, robustness
from interpret_robust.core.arrays import AnyArray
from interpret_robust.datasets import Split
from interpret_robust.results import hdf5, writer
from interpret_robust.results.hdf5 import Result

READINGS = ("PGD-5", "PGD-20", "CW-30")
Model = tuple[str, int | None]


def name_of(model: Model, dataset: str = "cluttered-digits", architecture: str = "small") -> str:
    return f"{dataset}-{architecture}-{model[0]}-seed{model[1]}"


def card_of(normalize: str) -> dict[str, Any]:
    """The part of a job that tells how a model from elsewhere is asked."""
    return {
        "card": {"model": "mine:net", "arguments": [], "normalize": normalize},
        "layers": {"local": "body", "attention": None},
    }


def write_robustness(
    folder: Path,
    models: Sequence[Model],
    natural: AnyArray,
    right: AnyArray,
    *,
    readings: Sequence[str] = READINGS,
    dataset: str = "cluttered-digits",
    architecture: str = "small",
    recipe: str = "quick",
    eps: float = 8 / 255,
    by_matrix: bool = False,
    normalize: str = "none",
    normalize_readers: str = "none",
    **ball: str,
) -> Result:
    """A file of the first of `models`, that all of them read, as `--matrix` names them where `by_matrix`. Models of the
    architecture `any` are from elsewhere, behind `normalize` the first and behind `normalize_readers` the others.

    `natural` (N, targets) and `right` (N, restarts, readings, targets) say which images are answered rightly.
    """
    jobs = {
        name_of((variant, seed), dataset, architecture): {
            "dataset": dataset,
            "architecture": architecture,
            "variant": variant,
            "seed": seed,
            "recipe": {"name": recipe},
            **(card_of(normalize_readers if place else normalize) if architecture == "any" else {}),
        }
        for place, (variant, seed) in enumerate(models)
    }
    (name, job), *readers = jobs.items()
    steps = {
        kind: [reading.split("-")[1] for reading in readings if reading.startswith(kind)] for kind in ("PGD", "CW")
    }
    config: dict[str, Any] = {
        "checkpoint": {"name": name, "sha256": f"hash of {name}", "job": job},
        "data": {"dataset": dataset, "split": "test", "images": len(natural), "sha256": "0"},
        "settings": {
            "eps": eps,
            "step_size": eps / 4,
            "seed": 0,
            "restarts": right.shape[1],
            "pgd": ",".join(steps["PGD"]) or "none",
            "cw": ",".join(steps["CW"]) or "none",
            **ball,
        },
        "local_grid": [8, 8],
    }
    if readers:
        config["evaluators"] = {
            "names": [reader for reader, _ in readers],
            "sha256": [f"hash of {reader}" for reader, _ in readers],
            "jobs": dict(readers),
            "given": by_matrix,
        }
    label = np.arange(len(natural), dtype=np.int16) % 10
    columns: dict[str, AnyArray] = {
        "label": label,
        "prediction_natural": np.where(natural, label[:, None], 10).astype(np.int16),
        "margin_natural": np.where(natural, 1, -1).astype(np.float32),
        "prediction": np.where(right, label[:, None, None, None], 10).astype(np.int16),
        "margin": np.where(right, 1, -1).astype(np.float32),
        "perturbation": np.full(right.shape[:3], eps, np.float32),
        "perturbation_l2": np.full(right.shape[:3], 1, np.float32),
        "gradients": np.full(len(label), 7 * right.shape[1], np.int32),
    }
    arrays = {f"per_image/{column}": values for column, values in columns.items()}
    path = folder / f"robustness-{name}-{len(list(folder.iterdir()))}.h5"
    places: dict[str, Any] = {"reading": tuple(readings), "restart": right.shape[1], "target": tuple(jobs)}
    with writer.open_rows(path, robustness.SCHEMA, len(label), places, config, {}) as rows:
        rows.append(arrays)
        split = Split(np.zeros((len(label), 2, 2, 1), np.uint8), label.astype(np.int64))
        rows.finish(robustness.summarize(rows.columns(), split), {})
    return hdf5.read(path)


def random(folder: Path, models: Sequence[Model], seed: int, images: int = 23, **other: Any) -> Result:
    """Outcomes at random, each target's own share of them right."""
    rng = np.random.default_rng(seed)
    shares = rng.uniform(0.3, 0.9, len(models))
    count = len(other.get("readings", READINGS))
    natural = rng.random((images, len(models))) < shares
    return write_robustness(folder, models, natural, rng.random((images, 2, count, len(models))) < shares, **other)


def write_autoattack(
    folder: Path, model: Model, right: AnyArray, *, eps: float = 8 / 255, normalize: str = "", **ball: str
) -> Result:
    """A file of AutoAttack on the first images of those of `write_robustness`: which (N,) are right after it.

    The model is from elsewhere where it is behind a normalization.
    """
    architecture = "any" if normalize else "small"
    name, label = name_of(model, architecture=architecture), np.arange(len(right), dtype=np.int16) % 10
    job = {"dataset": "cluttered-digits", "architecture": architecture, "variant": model[0], "seed": model[1]}
    job |= card_of(normalize) if normalize else {}
    config: dict[str, Any] = {
        "checkpoint": {"name": name, "sha256": f"hash of {name}", "job": job | {"recipe": {"name": "quick"}}},
        "data": {"dataset": "cluttered-digits", "split": "test", "images": len(right), "sha256": "0"},
        "settings": {"eps": eps, "attacks": "apgd-ce", "seed": 0, **ball},
        "local_grid": [8, 8],
    }
    answers = np.where(right, label, 10).astype(np.int16)
    columns: dict[str, AnyArray] = {
        "label": label,
        "prediction_natural": label,
        "prediction": answers[:, None],
        "margin": np.where(right, 1, -1).astype(np.float32),
        "perturbation": np.full(len(right), eps, np.float32),
    }
    path = folder / f"autoattack-{name}-{len(list(folder.iterdir()))}.h5"
    with writer.open_rows(path, autoattack.SCHEMA, len(right), {"attack": ("apgd-ce",)}, config, {}) as rows:
        rows.append({f"per_image/{column}": values for column, values in columns.items()})
        split = Split(np.zeros((len(right), 2, 2, 1), np.uint8), label.astype(np.int64))
        rows.finish(autoattack.summarize(rows.columns(), split), {})
    return hdf5.read(path)
