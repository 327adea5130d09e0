"""What is to be trained: everything that decides the weights, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interpret_robust.core.configs import as_stored
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import make_file_part
from interpret_robust.datasets import Dataset
from interpret_robust.models.variants import Variant
from interpret_robust.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Job:
    """One model: a dataset (`limit` of its training images, see `Split.draw`), an architecture, a variant, a seed and a
    recipe.
    """

    dataset: Dataset
    architecture: str
    variant: Variant
    seed: int
    recipe: Recipe
    limit: int | None = None

    @property
    def name(self) -> str:
        """Return the checkpoint's name, without its ending. It holds the norm of training unless that is l-infinity."""
        norm = self.recipe.norm if self.variant.adversarial and self.recipe.norm != "linf" else ""
        parts = [self.dataset.name, self.architecture, self.variant.name, norm, f"seed{self.seed}"]
        return make_file_part("-".join(part for part in parts if part))

    def describe(self) -> dict[str, Any]:
        """Return the job as JSON: two jobs with equal descriptions give equal weights on one machine.

        To the last bit they do so with an equal number of threads, which the checkpoint notes beside the job. Raises
        UserError for training images of another size than the test images.
        """
        train = self.dataset.train.draw(self.limit)
        height, width = train.images.shape[1:3]
        if (height, width) != self.dataset.image_shape[1:]:
            raise UserError(
                f"{self.dataset.name} has training pictures of {width}x{height} and test pictures of another size: "
                "--size N resizes the shorter side to N and crops the center."
            )
        return {
            "dataset": self.dataset.name,
            "dataset_sha256": train.sha256,
            "images": len(train),
            "image_shape": list(self.dataset.image_shape),
            "class_names": list(self.dataset.class_names),
            "architecture": self.architecture,
            "variant": self.variant.name,
            "seed": self.seed,
            "recipe": as_stored(self.recipe),
        }


def drop_name(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the weights of a job: its description without its recipe's name, whose numbers stand in it.

    Example:
        >>> drop_name({"seed": 0, "recipe": {"name": "mine", "epochs": 4}})
        {'seed': 0, 'recipe': {'epochs': 4}}
    """
    numbers = {name: value for name, value in description["recipe"].items() if name != "name"}
    return {**description, "recipe": numbers}
