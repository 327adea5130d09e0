"""A name becomes uint8 images, labels, class names and, where they exist, object masks."""

from interpret_robust.datasets.base import Dataset, Split
from interpret_robust.datasets.catalogue import NAMES, cache_folder, load

__all__ = ["NAMES", "Dataset", "Split", "cache_folder", "load"]
