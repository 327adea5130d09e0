"""Watch the layers of anyone's network in a pass, or hold the output of one fixed.

Nothing of the network is changed: each hook is there for one pass.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from interpret_robust.core.errors import UserError, find_nearest
from interpret_robust.models.logits import list_tensors, select_part
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.recomputation import disable_recomputation


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """Return the layer of a dotted name. Raises UserError for a name that no layer has."""
    modules_by_name: dict[str, nn.Module] = {path: module for path, module in network.named_modules() if path}
    if name not in modules_by_name:
        nearest = find_nearest(name, list(modules_by_name))
        hint = f"did you mean '{nearest}'? " if nearest else ""
        top = ", ".join(path for path in modules_by_name if "." not in path)
        raise UserError(f"unknown layer '{name}': {hint}the top layers are {top}; `irt model layers` lists more.")
    return modules_by_name[name]


@contextmanager
def register_hooks(pairs: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Register forward hooks that are there while this is entered."""
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        with disable_recomputation():
            yield
    finally:
        for handle in handles:
            handle.remove()


class _PassEnd(BaseException):
    """Ends a pass behind the layer that was asked for: no Exception, which a network may catch."""


def take_output(network: nn.Module, preprocess: Preprocess, images: Tensor, name: str) -> Any:
    """Return what a layer gives for images when it first runs, as it was then: nothing behind it is computed."""
    outputs: list[Any] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        check_outside(name, output)
        outputs.append(output.clone() if isinstance(output, Tensor) else output)
        raise _PassEnd

    with suppress(_PassEnd), register_hooks([(find_layer(network, name), keep)]):
        network(preprocess(images).clone())
    return outputs[-1] if outputs else None


def sees_all(network: nn.Module, name: str, preprocess: Preprocess, image: Tensor) -> bool:
    """Return whether the answer does not depend on the image where a layer's output is held fixed."""
    return count_beyond(network, name, preprocess, image) == 0


def count_beyond(network: nn.Module, name: str, preprocess: Preprocess, images: Tensor) -> int:
    """Return for how many of images (N, C, H, W) the answer depends on them though a layer's output is held fixed.

    Example:
        >>> count_beyond(network, "layer4", preprocess, images)
        0
    """
    pixels = preprocess(images).requires_grad_()
    with register_hooks([(find_layer(network, name), _cut)]), probe_answer(network) as answers:
        network(pixels.clone())
    if not answers[-1].requires_grad:
        return 0
    (gradient,) = torch.autograd.grad(answers[-1], pixels, allow_unused=True)
    # Zero times an infinite slope on the way is no number.
    return 0 if gradient is None else int((gradient.nan_to_num(0) != 0).flatten(1).any(1).sum())


class _Anchor(torch.autograd.Function):
    """The identity, with a gradient of zero. Not `detach`: a network may call autograd in its forward."""

    @staticmethod
    def forward(_: Any, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return torch.zeros_like(gradients[0])


def _cut(_: nn.Module, __: Any, output: Any) -> Any:
    """Hold the output of a layer fixed: a forward hook."""
    return _Anchor.apply(output) if isinstance(output, Tensor) and output.requires_grad else output


def is_inside(output: Any) -> bool:
    """Return whether a layer ran inside a transform such as torch.func.vmap, which its output must not leave."""
    return any(map(torch._C._functorch.is_functorch_wrapped_tensor, list_tensors(output)))


def check_outside(name: str, output: Any) -> None:
    """Raise UserError for what a layer gave inside such a transform."""
    if is_inside(output):
        raise UserError(
            f"layer '{name}' runs inside of torch.func.vmap or another transform, where its output cannot be taken: "
            "name a layer outside of it, or call this one on whole batches."
        )


def use_part(network: nn.Module, part: str | None) -> AbstractContextManager[None]:
    """Make a network answer with a part of its answer, see `logits.as_logits`, while this is entered.

    Example:
        >>> with use_part(network, "1"), probe_answer(network) as answers:
        ...     network(pixels)
    """
    return register_hooks([] if part is None else [(network, lambda _, __, answer: select_part(answer, part))])


@contextmanager
def probe_answer(network: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a number that depends on all that the answer does, the last of a list after a pass of the network.

    It is made of what linear layers see, the one that answers or else the last on the way to the answer: fresh
    transformers begin with an answer of zero, which depends on nothing. Of an answer of several parts those that may be
    logits (N, classes) count.
    """
    answers: list[Tensor] = []
    linear_passes: list[tuple[Any, Tensor]] = []

    def record_input(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and not is_inside(inputs[0]):
            linear_passes.append((output, inputs[0].square().sum()))

    def record_answer(_: nn.Module, __: Any, answer: Any) -> None:
        tensors = list_tensors(answer)
        logits = [tensor for tensor in tensors if tensor.ndim == 2] or tensors
        own_numbers = [number for output, number in linear_passes if any(output is tensor for tensor in logits)]
        if not own_numbers:
            nodes = _list_nodes(logits)
            own_numbers = [number for output, number in linear_passes if output.grad_fn in nodes][-1:]
        start = sum(own_numbers, torch.zeros(()))
        answers.append(sum((tensor.square().sum() for tensor in logits), start))
        linear_passes.clear()

    linear = [(module, record_input) for module in network.modules() if isinstance(module, nn.Linear)]
    with torch.enable_grad(), register_hooks([*linear, (network, record_answer)]):
        yield answers


def _list_nodes(tensors: Sequence[Tensor]) -> set[Any]:
    """Return the nodes of the graph from which tensors were computed."""
    nodes: set[Any] = set()
    rest = [tensor.grad_fn for tensor in tensors]
    while rest:
        node = rest.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            rest += [parent for parent, _ in node.next_functions]
    return nodes
