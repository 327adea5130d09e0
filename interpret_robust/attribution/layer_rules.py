"""Whether a method of captum that has rules for layers acts on all of a network that it should.

Guided backpropagation and deconvolution have a rule for ReLU alone, DeepLift one for each of a few nonlinear layers.
"""

import re

from torch import Tensor, nn

from interpret_robust.attribution.steps import Pass, Step, trace
from interpret_robust.core.errors import UserError

OF_CHANGES = ("DeepLift", "DeepLiftShap")
"""Methods that give each nonlinear layer the slope of its change from the baseline to the image."""

OF_RELU = ("GuidedBackprop", "Deconvolution", "GuidedGradCam")
"""Methods that give ReLU layers a gradient of their own."""

LAYER_OF = {
    "Relu": nn.ReLU,
    "ClampMin": nn.ReLU,
    "Elu": nn.ELU,
    "LeakyRelu": nn.LeakyReLU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
    "Softplus": nn.Softplus,
    "MaxPool2DWithIndices": nn.MaxPool2d,
    "Softmax": nn.Softmax,
}
"""The layer that takes a step in a way that DeepLift has a rule for."""

INSTEAD = "use captum:IntegratedGradients, which needs no layers"


def list_layers_with_rule(name: str, model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that a method acts on, by dotted name.

    DeepLift compares exact classes, and passes by layers with backward hooks of others.
    """
    modules = model.named_modules()
    if name in OF_CHANGES:
        return {path: layer for path, layer in modules if _has_rule(layer) and not _has_hooks(layer)}
    return {path: layer for path, layer in modules if isinstance(layer, nn.ReLU)}


def _has_rule(layer: nn.Module | None) -> bool:
    """Return whether DeepLift has a rule for a layer of this type."""
    from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR  # which takes long to load

    return type(layer) in SUPPORTED_NON_LINEAR


def check_steps(name: str, model: nn.Module, image: Tensor) -> None:
    """Raise UserError where a pass of an image (1, C, H, W) takes a step that a method should act on by no layer that
    it knows, or by one that its rule is wrong for.
    """
    one_pass, layers = trace(model, image), list_layers_with_rule(name, model)
    steps = [step for step in one_pass.steps if (not step.is_linear if name in OF_CHANGES else step.rectifies)]
    if not steps:
        raise UserError(f"captum's {name} changes what ReLU layers do, and this network has none that are modules.")
    for step in steps:
        if step.layer not in layers:
            raise UserError(_describe(name, model, step))
        if name in OF_CHANGES:
            _check_rule(name, step.layer, layers[step.layer], one_pass)
        elif sum(other.layer == step.layer for other in steps) > one_pass.runs[step.layer]:
            raise UserError(f"captum's {name} treats {_place(model, step.layer)} as one ReLU, but it has several.")


def _check_rule(name: str, path: str, layer: nn.Module, one_pass: Pass) -> None:
    """Raise UserError where a rule of DeepLift is not right for a layer as it is used."""
    runs = one_pass.runs[path]
    if runs > 1:
        raise UserError(
            f"captum's {name} keeps one input for each layer, and layer '{_short(path)}' runs {runs} times in a pass: "
            "give each run a layer of its own."
        )
    if isinstance(layer, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) and _overlaps(layer):
        raise UserError(
            f"captum's {name} loses a pixel's part in all but one window of a max pool, and the windows of layer "
            f"'{_short(path)}' overlap: {INSTEAD}."
        )


def _overlaps(pool: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d) -> bool:
    """Return whether a pixel can lie in several windows of a max pool."""
    kernel, stride = ((size,) * 3 if isinstance(size, int) else size for size in (pool.kernel_size, pool.stride))
    return any(side > step for side, step in zip(kernel, stride, strict=False))


def _has_hooks(layer: nn.Module) -> bool:
    return len(layer._backward_hooks) > 0


def _describe(name: str, model: nn.Module, step: Step) -> str:
    """Return the sentence for a step that a method does not see."""
    operation, layer = step.operation, model.get_submodule(step.layer)
    remedy = "call an nn.ReLU layer there"
    if name in OF_CHANGES:
        known_layer = LAYER_OF.get(operation)
        remedy = INSTEAD if known_layer is None else f"call a plain nn.{known_layer.__name__} layer there"
    if _has_rule(layer) and _has_hooks(layer):
        remedy = "take away the layer's backward hooks, which keep captum from it"
    return (
        f"captum's {name} acts on layers that it knows, and {_place(model, step.layer)} takes {_spell(operation)} "
        f"without one: {remedy}."
    )


def _spell(operation: str) -> str:
    """Return `native_layer_norm` for NativeLayerNorm, and `max_pool2d_with_indices` for MaxPool2DWithIndices."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=\dD)(?=[A-Z])", "_", operation).lower()


def _place(model: nn.Module, path: str) -> str:
    layer = type(model.get_submodule(path)).__name__
    name = _short(path)
    return f"layer '{name}' ({layer})" if name else "the network's own forward"


def _short(path: str) -> str:
    """Return a layer's name as its network has it, without the part of ours around it."""
    return f"{path}.".removeprefix("network.").removeprefix("backbone.").rstrip(".")
