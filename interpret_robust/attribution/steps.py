"""The steps of a network, read from the autograd graph of one pass, and the layer that takes each.

A method that gives activation layers a rule of its own acts on layers alone: a nonlinear step that no such layer takes
(`F.relu` in a `forward`, a layer of another class) keeps its plain gradient, without a word.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

_LINEAR = """
Add Sub Rsub Neg Sum Mean Nansum Cumsum Lerp View UnsafeView ReshapeAlias Alias Transpose T Permute Expand Squeeze
Unsqueeze Select Slice Index IndexSelect Gather Cat Stack Split SplitWithSizes Unbind Unfold Im2Col Col2Im Clone
CopyBackwards ToCopy AsStrided Diagonal Tril Triu Trace Flip Roll Rot90 Repeat AvgPool2D AvgPool3D AdaptiveAvgPool2D
AdaptiveAvgPool3D MkldnnAdaptiveAvgPool2D UpsampleNearest1D UpsampleNearest2D UpsampleNearestExact2D UpsampleLinear1D
UpsampleBilinear2D UpsampleBilinear2DAa UpsampleBicubic2D UpsampleBicubic2DAa ConstantPadNd ReflectionPad1D
ReflectionPad2D ReplicationPad1D ReplicationPad2D PixelShuffle PixelUnshuffle ChannelShuffle AccumulateGrad
BackwardHookFunction
"""
LINEAR = frozenset(_LINEAR.split())
"""Operations that are linear in whatever depends on the image, as the nodes of their gradients are called; the last
is what torch puts around a layer with backward hooks."""

_PRODUCTS = "Mul Div Mm Bmm Mv Dot Addmm Addbmm Baddbmm Addmv Addcmul Convolution MkldnnConvolution"
PRODUCTS = frozenset(_PRODUCTS.split())
"""Operations that are linear in each of their factors: where two depend on the image, they are not."""

NORMS = frozenset(("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"))
"""Operations that are linear where their statistics do not come from the batch."""

_RECTIFIERS = "Relu Threshold ClampMin Clamp Hardtanh Maximum Where MaskedFill IndexPut CopySlices"
RECTIFIERS = frozenset(_RECTIFIERS.split())
"""Operations that are, or may be, a ReLU; the last hides whatever was done in place to a part of a tensor."""


class Step(NamedTuple):
    """An operation of a network whose result depends on the image.

    `layer` is the dotted name of the innermost layer that took it, empty for the network's own `forward`.
    """

    operation: str
    layer: str
    is_linear: bool
    rectifies: bool


class Pass(NamedTuple):
    """What happened in a pass of a network: its steps, and how often each layer ran."""

    steps: list[Step]
    runs: Counter[str]


@contextmanager
def copy_inputs(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Give layers copies of their inputs while this is entered.

    A hook on the gradient of a layer's input sees, and replaces, that of all who read the same tensor: the layer
    before, and every path around. A copy is read by the layer alone. That of a softmax is moved to a mean of zero,
    which a softmax does not notice: DeepLift takes the mean of its contributions away, and conserves the change of
    the answer only where the inputs sum to nothing.
    """

    def copy(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_copy(layer, value) if isinstance(value, Tensor) else value for value in inputs)

    handles = [layer.register_forward_pre_hook(copy) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copy(layer: nn.Module, value: Tensor) -> Tensor:
    if isinstance(layer, nn.Softmax) and layer.dim is not None:
        return value - value.mean(layer.dim, keepdim=True)
    return value.clone()


def trace(model: nn.Module, images: Tensor) -> Pass:
    """Return the steps of a pass of images (N, C, H, W) to the model's answer."""
    owners: dict[Node, str] = {}
    runs: Counter[str] = Counter()
    stack = [""]

    def claim(value: Any) -> None:
        for tensor in _tensors(value):
            for node in _walk(tensor.grad_fn, owners):
                owners[node] = stack[-1]

    def enter(name: str) -> Any:
        def hook(_: nn.Module, inputs: Any, keywords: Any) -> None:
            claim((inputs, keywords))
            stack.append(name)

        return hook

    def leave(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            claim(output)
            stack.pop()
            runs[name] += 1

        return hook

    modules = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_pre_hook(enter(name), with_kwargs=True) for name, module in modules]
    handles += [module.register_forward_hook(leave(name)) for name, module in modules]
    try:
        with torch.enable_grad():
            pixels = images.detach().clone().requires_grad_()
            answer = model(pixels.clone())
            claim(answer)
    finally:
        for handle in handles:
            handle.remove()
    return Pass(_steps(owners, pixels), runs)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in what a layer takes or gives."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _walk(node: Node | None, known_nodes: dict[Node, str]) -> list[Node]:
    """Return the nodes from `node` on that are not known, each behind those that it rests on."""
    order: dict[Node, None] = {}
    pending = [(node, False)]
    while pending:
        latest, is_complete = pending.pop()
        if latest is None or latest in known_nodes or latest in order:
            continue
        if is_complete:
            order[latest] = None
        else:
            pending += [(latest, True), *((parent, False) for parent, _ in latest.next_functions)]
    return list(order)


def _steps(owners: dict[Node, str], pixels: Tensor) -> list[Step]:
    """Return the steps that depend on the pixels."""
    depends: dict[Node | None, bool] = {None: False}
    for node in owners:
        parents = [parent for parent, _ in node.next_functions]
        depends[node] = any(depends[parent] for parent in parents) or getattr(node, "variable", None) is pixels
    steps = []
    for node, layer in owners.items():
        if depends[node]:
            dependent = [depends[parent] for parent, _ in node.next_functions]
            steps.append(Step(_operation(node), layer, _is_linear(node, dependent), _rectifies(node, dependent)))
    return steps


def _operation(node: Node) -> str:
    """Return what a node is the gradient of: `Relu` for ReluBackward0."""
    name = node.name().rpartition("::")[2].rstrip("0123456789")
    return name if name == "CopyBackwards" else name.removesuffix("Backward")


def _is_custom(node: Node, operation: str) -> bool:
    """Return whether a step is a `torch.autograd.Function` of someone's own."""
    return isinstance(node, torch.autograd.function.BackwardCFunction) and operation != "BackwardHookFunction"


def _is_linear(node: Node, dependent: list[bool]) -> bool:
    operation = _operation(node)
    if operation in PRODUCTS:
        return sum(dependent) == 1 and not (operation == "Div" and dependent[-1] and len(dependent) > 1)
    if operation in NORMS:
        return not getattr(node, "_saved_training", True)
    return operation in LINEAR and not _is_custom(node, operation)


def _rectifies(node: Node, dependent: list[bool]) -> bool:
    """Return whether a step may cut off what is negative; a lower bound other than zero is no ReLU's."""
    operation = _operation(node)
    if _is_custom(node, operation):
        return True
    if operation in ("Maximum", "Mul"):
        if sum(dependent) != 1 or len(dependent) != 2:
            return False
        other = getattr(node, "_saved_self" if dependent[1] else "_saved_other")
        if not isinstance(other, Tensor):
            return False
        return _is_mask(other) if operation == "Mul" else not bool(other.any())
    for bound in ("_saved_min", "_saved_min_val", "_saved_threshold"):
        low = getattr(node, bound, 0)
        if low is None or (not isinstance(low, Tensor) and low != 0):
            return False
    return operation in RECTIFIERS


def _is_mask(factor: Tensor) -> bool:
    """Return whether a factor switches some values off and leaves the others, as `x > 0` does."""
    is_on = factor != 0
    return bool((factor[is_on] == 1).all() and is_on.any() and not is_on.all())
