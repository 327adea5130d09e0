"""The network under attack: in which mode it is, with frozen weights, on copies of images that it may change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from interpret_robust.attacks.settings import BatchNormMode
from interpret_robust.core.errors import UserError
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import list_precisions
from interpret_robust.models.logits import as_logits, describe_answer


class OnCopies(nn.Module):
    """A network whose images are copied first: its first layer may change them in place.

    One whose weights are all in double precision gets them so.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.dtype = torch.float64 if list_precisions(network) == {torch.float64} else torch.float32

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits (N, classes) of images (N, C, H, W), which stay as they are.

        Raises UserError for other answers than logits, and for one logit: the cross-entropy of one class is zero, so
        that nothing would be changed.
        """
        answer = self.network(images.to(self.dtype, copy=True))
        if not isinstance(answer, Tensor):
            raise UserError(
                f"the model answers with {describe_answer(answer)}: let it return the logits (N, classes) alone, as "
                "ir.load(model, data) reads them."
            )
        logits = as_logits(answer, None, None, answer.dtype)
        if logits.ndim != 2 or len(logits) != len(images):
            raise UserError(
                f"the model answers {len(images)} images with {describe_answer(answer)}: let it return logits "
                "(N, classes)."
            )
        if logits.shape[1:] == (1,):
            raise UserError("the model has one logit z, which no loss can lower: give two, torch.cat([-z, z], 1) / 2.")
        return logits


def as_classifier(model: nn.Module) -> nn.Module:
    """Return a model that leaves images as they are and answers with logits (N, classes): itself, or around it."""
    return model if isinstance(model, Classifier | OnCopies) else OnCopies(model)


@contextmanager
def switch_batch_norm(model: nn.Module, mode: BatchNormMode) -> Iterator[None]:
    """Put the whole model in `mode`, and give each module its own mode back, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(mode == "train")
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def freeze_weights(model: nn.Module) -> Iterator[None]:
    """Let no weight ask for a gradient while this is entered: nothing is kept or, if compiled, computed for them."""
    flags = [(weights, weights.requires_grad) for weights in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for weights, asks in flags:
            weights.requires_grad_(asks)


def check_weights(model: nn.Module) -> None:
    """Raise UserError where a model may have failed because of how its weights are kept."""
    if any(weights.is_inference() for weights in (*model.parameters(), *model.buffers())):
        raise UserError(
            "the model was made in torch.inference_mode, where nothing gets a gradient: build or load it outside."
        )
    if list_precisions(model) and list_precisions(model) <= {torch.float16, torch.bfloat16}:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in list_precisions(model)))
        raise UserError(f"the model has weights in {names}, and images are float32: give model.float().")
