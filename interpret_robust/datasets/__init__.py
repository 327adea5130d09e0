"""A name becomes uint8 images, labels, class names and, where they exist, object masks."""

import sys
from types import ModuleType

from interpret_robust.datasets.base import Dataset, Split
from interpret_robust.datasets.catalogue import describe_datasets, find_cache_folder, load

__all__ = ["Dataset", "Split", "find_cache_folder", "load"]


class _Datasets(ModuleType):
    """This package, which is also the function `ir.datasets`."""

    def __call__(self) -> dict[str, str]:
        """Return the datasets by name, each with one sentence about it.

        Example:
            >>> "cifar10" in ir.datasets()
            True
        """
        return describe_datasets()


sys.modules[__name__].__class__ = _Datasets
