"""What a file says of a model, and what tells that model from others."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from interpret_robust.core.configs import hash_config
from interpret_robust.core.file_names import make_file_part
from interpret_robust.models.traits import list_traits


def identify_model(sha256: str, job: Mapping[str, Any]) -> str:
    """Return what a model has in common with itself in other files, and with no other model.

    Args:
        sha256: over its tensors. Of a checkpoint of ours this is all.
        job: how it was made. One from elsewhere computes another function of the same tensors behind another
            normalization, with another part of the answer as logits, or else, see `models.traits`.

    Example:
        >>> resnet = {"card": {"model": "torchvision:resnet18", "normalize": "imagenet"}}
        >>> other = {"card": {"model": "torchvision:resnet18"}}
        >>> identify_model("b5bb9d80", resnet) == identify_model("b5bb9d80", other)
        False
    """
    parts = list_traits(job)
    return hash_config({"sha256": sha256, **parts}) if parts else sha256


class ModelEntry(NamedTuple):
    """What a file says of a model: its name, the SHA-256 over its tensors, and how it was made."""

    name: str
    sha256: str
    job: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Return what tells it from other models, see `identify_model`."""
        return identify_model(self.sha256, self.job)

    @property
    def title(self) -> str:
        """Return what tables call it: its name, but with the label of one from elsewhere as it was given.

        Example:
            >>> ModelEntry("cifar10-.._mine-9f4f0b7e", "b5bb9d80", {"dataset": "cifar10", "variant": "../mine"}).title
            'cifar10-../mine'
        """
        title = f"{self.job.get('dataset')}-{self.job.get('variant')}"
        return title if make_file_part(title) == self.name else self.name


def list_evaluators(config: Mapping[str, Any]) -> list[ModelEntry]:
    """Return the models that read what a file's model gives, from its configuration, in order."""
    stored = config.get("evaluators", {"names": (), "sha256": ()})
    jobs = stored.get("jobs", {})
    return [
        ModelEntry(name, sha256, jobs.get(name, {}))
        for name, sha256 in zip(stored["names"], stored["sha256"], strict=True)
    ]
