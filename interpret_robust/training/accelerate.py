"""The fast path of training on a GPU, behind one seam: compiled networks, and a whole step replayed as a CUDA graph.

A step of a small network is thousands of kernels of a few microseconds, which take longer to launch than to run. A
graph launches them all at once. On a CPU there is nothing to gain: a step is what it is.
"""

import sys
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from interpret_robust.attacks.pgd import PGD
from interpret_robust.core import ranks
from interpret_robust.models import Classifier

Step = Callable[[PGD | None, Tensor, Tensor, Tensor], None]
"""The arithmetic of a training step on images, noise and labels: it changes tensors in place and looks at none."""

WARM_UP = 3
"""Steps that run before one is recorded: compilers, libraries and the optimizer prepare themselves in these."""


def accelerate(step: Step, model: Classifier, device: torch.device) -> Step:
    """Return the same step as fast as the device allows. On a GPU `model.features` is compiled.

    What several ranks do together is neither compiled nor recorded.
    """
    return RecordedStep(step, model) if device.type == "cuda" and ranks.count() == 1 else step


class RecordedStep:
    """A step that runs as written while its attack still changes, and is then recorded once and replayed.

    What cannot be compiled or recorded here runs as written, which is said once on stderr.
    """

    def __init__(self, step: Step, model: Classifier) -> None:
        self.step, self.model = step, model
        self.attack: PGD | None = None
        self.repeats = 0
        self.can_record = True
        self.is_proven = False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        _compile(model)

    def __call__(self, attack: PGD | None, *inputs: Tensor) -> None:
        """Do one step."""
        if attack != self.attack:
            self.attack, self.repeats, self.graph = attack, 0, None
        if self.repeats == WARM_UP and self.can_record:
            self._record(*inputs)
        self.repeats += 1
        if self.graph is None:
            self._as_written(*inputs)
            return
        for static, value in zip(self.inputs, inputs, strict=True):
            static.copy_(value)
        self.graph.replay()

    def _as_written(self, *inputs: Tensor) -> None:
        try:
            self.step(self.attack, *inputs)
        except Exception as error:
            # The compiler speaks up in the first step; that memory is full is no fault of its.
            if self.is_proven or "features" not in vars(self.model) or isinstance(error, torch.OutOfMemoryError):
                raise
            del self.model.features
            _say("torch.compile", error)
            self.step(self.attack, *inputs)
        self.is_proven = True

    def _record(self, *inputs: Tensor) -> None:
        """Take down the kernels of a step without running them."""
        self.inputs = tuple(values.clone() for values in inputs)
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step(self.attack, *self.inputs)
            self.graph = graph
        except Exception as error:
            self.can_record = False
            _say("a CUDA graph of the step", error)


def _compile(model: Classifier) -> None:
    """Compile what the attack and both passes of the objective go through. Graphs are ours, not the compiler's."""
    features = with_own_code(model.features)
    model.features = torch.compile(features, mode="max-autotune-no-cudagraphs", dynamic=False)  # type: ignore[method-assign]


def with_own_code(method: Any) -> MethodType:
    """Return a bound method of the same code in an object of its own.

    The compiler counts its results by the code object, and gives up at the eighth: models that share one would soon run
    uncompiled.
    """
    function = method.__func__
    code = function.__code__.replace()
    copied = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return MethodType(copied, method.__self__)


def _say(message: str, error: Exception) -> None:
    reason = str(error).strip().split("\n")[0]
    tqdm.write(f"training goes on without {message}, more slowly: {reason}", file=sys.stderr)
