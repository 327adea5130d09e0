"""Types of arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]


Array = npt.NDArray[np.floating]
