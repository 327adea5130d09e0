"""Anyone's network as a classifier of ours: pixels go in, and what a layer of it gives are its local features."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from interpret_robust.core import progress
from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import preserve_random_numbers, seed_all
from interpret_robust.models.classifier import Classifier, Features
from interpret_robust.models.layers.hooks import check_outside, find_layer, register_hooks
from interpret_robust.models.layers.maps import as_map, count_prefix_tokens
from interpret_robust.models.logits import as_logits, describe_answer
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.recomputation import disable_recomputation


class WrappedModel(Classifier):
    """A network of anyone's: pixels in [0, 1] go in, logits come out, its weights are frozen and it is in eval mode.

    Args:
        network: takes images (N, C, H, W) after `preprocess`, gives logits (N, classes).
        preprocess: see `Preprocess`.
        local_layer: dotted name of the layer whose output are the local features; None for a network without.
        attention_layer: dotted name of a layer that gives the attention over positions, see `as_weights`; None for a
            network without.
        first_token: number of the first token of the image in the output of `local_layer`, see `layers.maps.as_map`.
        is_last: whether channels come last there where shapes do not tell, see `layers.maps.as_map`.
        part: which part of the network's answer are the logits, see `logits.as_logits`.
        classes: how many there are; 2 takes a network that answers with one number.
        draws: of a network that draws random numbers, how many passes stand for their expectation; None for one pass.

    Its `pooled` features are the logits: what lies behind the local features is not taken apart.
    `attention_tokens` is set by `checks.attention.read_attention`, see `as_weights`. After its trial
    `follow_answers` tells, around an analysis, whether its answers have changed, see
    `checks.first_answers.FirstAnswers`. Raises UserError for a name that no layer has.
    """

    is_folded = True  # it is used as it is
    answers_alone = False

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        local_layer: str | None = None,
        attention_layer: str | None = None,
        *,
        first_token: int | None = None,
        is_last: bool = False,
        part: str | None = None,
        classes: int | None = None,
        draws: int | None = None,
    ) -> None:
        super().__init__(network, nn.Identity(), nn.Identity())
        self.preprocess = preprocess
        for name in (local_layer, attention_layer):
            if name is not None:
                find_layer(network, name)
        self.local_layer, self.attention_layer = local_layer, attention_layer
        self.first_token, self.is_last = first_token, is_last
        self.part, self.classes, self.draws = part, classes, draws
        self.attention_tokens: tuple[int, Tensor] | None = None
        self.follow_answers: Callable[[], Callable[[], str | None]] = lambda: lambda: None
        self.restart_draws(0)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        # Pixels anew for each draw: a network may work in their place.
        with disable_recomputation():
            return self._average_draws(lambda: (self._logits(self.preprocess(images), images),))[0]

    def _logits(self, pixels: Tensor, images: Tensor) -> Tensor:
        """Return the logits of images, whose pixels the network is given. Raises UserError where they are not one row
        for each image.
        """
        progress.count_pass()
        logits = as_logits(self.backbone(pixels), self.part, self.classes, images.dtype)
        if len(logits) != len(images):
            raise UserError(
                f"the network answers {len(images)} images with {len(logits)} rows of logits: does it return what it "
                "answered earlier, or take images for parts of one?"
            )
        return logits

    def _average_draws(self, run: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return what a pass gives, logits last; of a network that draws random numbers the expectation over draws.

        That is the mean of features, and the logarithm of the mean probabilities. Each pass has random numbers of its
        own, see `restart_draws`; the process's are left as found.
        """
        if self.draws is None:
            return run()
        with preserve_random_numbers(self.preprocess.mean.device):
            seed_all(self._start, self._passes)
            self._passes += 1
            results = list(zip(*(run() for _ in range(self.draws)), strict=True))
        *features, logits = [torch.stack(tensors) for tensors in results]
        return (*(tensors.mean(0) for tensors in features), logits.log_softmax(2).logsumexp(0) - math.log(self.draws))

    def restart_draws(self, start: int) -> None:
        """Make the random numbers of the passes that follow depend on `start` alone, and not on the passes before."""
        self._start, self._passes = start, 0

    def features(self, images: Tensor) -> Features:
        """Return the features as any classifier does. Raises UserError where the layer's output has no positions,
        or comes several times.
        """
        if self.attention_layer is None:
            local, logits = self._average_draws(lambda: self._pass_through(images, lambda local: local))
            return Features(local, None, logits)
        local, attention, logits = self._average_draws(lambda: self._attend(images, str(self.attention_layer)))
        return Features(local, attention, logits)

    def _attend(self, images: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return local features, attention and logits of one pass."""
        outputs: list[Any] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            check_outside(name, output)
            outputs.append(_copy(output))

        with register_hooks([(self.backbone.get_submodule(name), keep)]):
            local, logits = self._pass_through(images, lambda local: local)
        _check_runs(name, len(outputs))
        count, _, height, width = local.shape
        return local, as_weights(outputs[0], (count, height, width), name, self.attention_tokens), logits

    def rest(self, images: Tensor, local: Tensor) -> Tensor:
        """Return the logits if the local features of images were `local`: a whole pass, with these in their place."""
        return self._average_draws(lambda: self._pass_through(images, lambda _: local))[-1]

    def local_module(self) -> nn.Module:
        """Return the module, see `Classifier`. Raises UserError for a network without local features."""
        if self.local_layer is None:
            raise UserError(
                "no layer of the network gives features at several positions, of those that run once in a pass: name "
                "one by --local-layer."
            )
        return self.backbone.get_submodule(self.local_layer)

    def _pass_through(self, images: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return local features, and the logits of what `change` makes of them, in one pass."""
        captures: list[Tensor] = []
        pixels = self.preprocess(images)
        aspect = pixels.shape[2] / pixels.shape[3]

        def replace(_: nn.Module, __: Any, output: Any) -> Tensor:
            check_outside(str(self.local_layer), output)
            feature_map = as_map(
                output, aspect, count_prefix_tokens(self.backbone), self.first_token, is_last=self.is_last
            )
            if feature_map is not None and len(feature_map.local) != len(images):
                raise UserError(
                    f"layer '{self.local_layer}' gives {describe_answer(output)}, and local features of {len(images)} "
                    "images have a row for each: do some images leave the network early, or are they folded into one? "
                    "Name a layer that all of them pass by --local-layer."
                )
            if feature_map is None:
                raise UserError(
                    f"layer '{self.local_layer}' gives {describe_answer(output)}, and local features are (N, C, H, W), "
                    "(N, H, W, C) or (N, tokens, C): `irt model layers` lists those that do."
                )
            local = feature_map.local.to(images.dtype)  # of half precision perhaps
            captures.append(local)
            # A copy goes on, since the next layer may compute in its place.
            return feature_map.put_back(change(local).to(feature_map.local.dtype)).clone()

        with register_hooks([(self.local_module(), replace)]):
            logits = self._logits(pixels, images)
        _check_runs(self.local_layer, len(captures))
        return captures[0], logits


def _copy(output: Any) -> Any:
    """Return what a layer gave, as it was then: the next one may compute in its place."""
    return output.clone() if isinstance(output, Tensor) else output


def _check_runs(name: str | None, runs: int) -> None:
    if runs != 1:
        reason = "" if runs else ", as where all images leave the network early"
        raise UserError(
            f"layer '{name}' runs {runs} times in a pass{reason}: name one that runs once, `irt model layers` lists "
            "them."
        )


def as_weights(
    output: Any, shape: tuple[int, int, int], label: str, tokens: tuple[int, Tensor] | None = None
) -> Tensor:
    """Return weights (N, H*W) that sum to one, or NaN where all are zero, from what a layer or a function `label` gave.

    `shape` is (N, H, W). It gave (N, H*W), (N, 1, H*W), (N, H, W) or (N, 1, H, W); or the attention of a transformer,
    (N, heads, T, T), of which that of the first token for the last H*W is taken, averaged over the heads; or, with
    `tokens`, for those from a number on, and of all tokens by their shares (T,). Raises UserError for any other shape,
    and for weights that are negative or not finite.
    """
    count, height, width = shape
    positions = height * width
    if not isinstance(output, Tensor):
        raise UserError(f"'{label}' gives {describe_answer(output)}, and weights of positions are a tensor.")
    if output.ndim == 4 and output.shape[2] == output.shape[3] > positions and output.shape[0] == count:
        first, readers = tokens or (output.shape[3] - positions, None)
        rows = output[:, :, 0] if readers is None else (readers.to(output) @ output)
        output = rows[..., first : first + positions].mean(1)
    if tuple(output.shape) not in ((count, positions), (count, 1, positions), shape, (count, 1, height, width)):
        raise UserError(
            f"'{label}' gives {describe_answer(output)}, and {count} images with {height}x{width} positions need "
            f"weights of shape ({count}, {positions}) or ({count}, {height}, {width})."
        )
    weights: Tensor = output.reshape(count, positions).float()
    if not bool((weights >= 0).all() and weights.isfinite().all()):
        raise UserError(f"'{label}' gives weights that are negative or not finite: they are shares of one.")
    return weights / weights.sum(1, keepdim=True)
