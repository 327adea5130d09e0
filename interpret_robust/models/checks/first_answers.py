"""Whether a model still answers after an analysis what it answered when it was tried."""

from collections.abc import Callable

import torch
from torch import Tensor

from interpret_robust.core.random_numbers import preserve_random_numbers, seed_all
from interpret_robust.models.checks.answers import is_same
from interpret_robust.models.checks.own_numbers import describe_changes, sum_up
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.wrapper import WrappedModel


class FirstAnswers:
    """What a model answers to a few images (N, C, H, W) when it is tried, to tell later whether that has changed.

    A copy of the model asks the copy: this is no function that would go on asking the original. Random numbers are
    seed 0's, and those of the process left as found.
    """

    def __init__(self, model: WrappedModel, images: Tensor) -> None:
        self._model, self._images = model, images
        self._answers = self._ask()
        self._is_steady, self._sums = is_same(self._answers, self._ask()), sum_up(model.backbone)

    @torch.no_grad()
    def _ask(self) -> Tensor:
        device = self._model.preprocess.mean.device
        with preserve_random_numbers(device):
            seed_all(0, 0)
            self._model.restart_draws(0)
            logits: Tensor = self._model(self._images.to(device)).cpu()
            return logits

    def follow(self) -> Callable[[], str | None]:
        """Ask again before an analysis, and return what asks once more after it and gives a sentence, or None.

        None is said of a model whose answers differ at once, which the trial tells of. Sentences begin with a verb, to
        be read behind the model's name.

        Example:
            >>> finish = FirstAnswers(model, images).follow()
            >>> finish()
        """
        answers_before = self._ask()
        return lambda: self._compare(answers_before)

    def _compare(self, answers_before: Tensor) -> str | None:
        last_answers = self._ask()
        if not self._is_steady or is_same(self._answers, last_answers):
            return None
        count = int((predict_classes(self._answers) != predict_classes(last_answers)).sum())
        difference = (
            f"answered {len(self._images)} images differently after this analysis than when it was loaded ({count} "
            "decisions changed)"
        )
        changes = describe_changes(self._sums, sum_up(self._model.backbone))
        if is_same(answers_before, last_answers):
            return (
                f"{difference}, and before it as after it: it was changed since{changes and f' ({changes})'}, or "
                "it counts its passes. These numbers are of the network as it is now, which was not tried: "
                "ir.load(network, data) tries it anew."
            )
        if changes:
            return (
                f"{difference}: its forward changes its own numbers ({changes}), so that these numbers cannot be "
                "repeated. Let it leave its weights and buffers as they are."
            )
        return (
            f"{difference}: its answers change from call to call, so these numbers cannot be repeated. Does it "
            "count its passes, or remember earlier images?"
        )
