"""The fast path of training on a GPU, behind one seam: compiled networks, and a whole step replayed as a CUDA graph.

A step of a small network is thousands of kernels of a few microseconds, which take longer to launch than to run. A
graph launches them all at once. On a CPU there is nothing to gain: a step is what it is.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from interpret_robust.attacks.pgd import PGD
from interpret_robust.core import ranks
from interpret_robust.core.progress import say
from interpret_robust.models import Classifier

Step = Callable[[PGD | None, Tensor, Tensor, Tensor], None]
"""The arithmetic of a training step on images, noise and labels: it changes tensors in place and looks at none."""

WARM_UP = 3
"""Steps that run before one is recorded: compilers, libraries and the optimizer prepare themselves in these."""


def accelerate(step: Step, model: Classifier, device: torch.device) -> Step:
    """Return a training step that computes what `step` does, as fast as the device allows.

    On a GPU `model.features` is compiled.

    What several ranks do together is neither compiled nor recorded.
    """
    return RecordedStep(step, model) if device.type == "cuda" and ranks.count_ranks() == 1 else step


class RecordedStep:
    """A step that runs as written a few times, and is then recorded once and replayed.

    The radius of the attack and the length of its steps, which grow over a ramp, are numbers on the device that a
    recorded step reads anew. A step whose attack differs in more than these two is recorded anew.

    What cannot be compiled or recorded here runs as written, which is said once on stderr.
    """

    def __init__(self, step: Step, model: Classifier) -> None:
        self.step, self.model = step, model
        self.kind: PGD | None = None
        self.attack: PGD | None = None
        self.sizes = torch.zeros(2, device=next(model.parameters()).device)
        self.repeats = 0
        self.can_record = True
        self.is_proven = False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        _compile(model)

    def __call__(self, attack: PGD | None, *inputs: Tensor) -> None:
        """Do one step."""
        kind = attack and replace(attack, eps=0.0, step_size=0.0)
        if kind != self.kind:
            self.kind, self.repeats, self.graph = kind, 0, None
            self.attack = kind and _with_sizes(kind, self.sizes)
        if attack is not None:
            self.sizes[0].fill_(attack.eps)
            self.sizes[1].fill_(attack.step_size)
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


def _with_sizes(attack: PGD, sizes: Tensor) -> PGD:
    """Return an attack of the radius and the length of a step that `sizes` (2,) holds whenever it is run."""
    twin = copy.copy(attack)
    for name, size in zip(("eps", "step_size"), sizes, strict=True):
        object.__setattr__(twin, name, size)
    return twin


def _compile(model: Classifier) -> None:
    """Compile what the attack and both passes of the objective go through. Graphs are ours, not the compiler's."""
    features = keep_own_code(model.features)
    model.features = torch.compile(features, mode="max-autotune-no-cudagraphs", dynamic=False)  # type: ignore[method-assign]


def keep_own_code(method: Any) -> MethodType:
    """Return a bound method of the same code in an object of its own.

    The compiler counts its results by the code object, and gives up at the eighth: models that share one would soon run
    uncompiled.
    """
    function = method.__func__
    parts = function.__globals__, function.__name__, function.__defaults__, function.__closure__
    return MethodType(FunctionType(function.__code__.replace(), *parts), method.__self__)


def _say(message: str, error: Exception) -> None:
    reason = str(error).strip().split("\n")[0]
    say(f"training goes on without {message}, more slowly: {reason}")
