"""The self-attention of a transformer, watched in a pass, and which of its tokens are the image's.

Nothing of the network is changed. What torch computes in one fused step, which shows no weights, is computed step by
step while a pass is watched, inside of `nn.MultiheadAttention` too; a softmax that a network takes itself is kept.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FunctionType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpret_robust.core.errors import UserError
from interpret_robust.models.classifier import Classifier
from interpret_robust.models.layers import hooks, prefix_tokens
from interpret_robust.models.recomputation import disable_recomputation

SOFTMAX = (torch.softmax, torch.Tensor.softmax, F.softmax)


class _Watch(TorchFunctionMode):
    """A mode in which the weights of each attention are kept, and may be differentiated by."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        if function is F.scaled_dot_product_attention:
            return self._attend(*arguments, **keywords)
        if function is F.multi_head_attention_forward:
            return self._attend_in_heads(*arguments, **keywords)
        result = function(*arguments, **keywords)
        if function in SOFTMAX and result.ndim in (3, 4):
            axis = keywords.get("dim", arguments[1] if len(arguments) > 1 else None)
            return self._keep(result) if axis in (-1, result.ndim - 1) else result
        return result

    def _keep(self, weights: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights.requires_grad_()
        self.weights.append(weights)
        return weights.clone()  # the network may compute in its place

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Return what `F.scaled_dot_product_attention` does, by the formula of its documentation."""
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-2, -1)
        if is_causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = torch._safe_softmax(scores, -1)  # zero, not NaN, for a query without keys, as in what is fused
        return F.dropout(self._keep(weights), dropout_p) @ value

    def _attend_in_heads(self, *arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor | None]:
        """Return what `F.multi_head_attention_forward` does, by a copy of it that attends as above."""
        original: Any = F.multi_head_attention_forward
        names = {**original.__globals__, "scaled_dot_product_attention": self._attend}
        function: Any = FunctionType(original.__code__, names, argdefs=original.__defaults__)
        output, _ = function(*arguments, **{**keywords, "need_weights": False})
        if not keywords.get("need_weights", True):
            return output, None
        weights = self.weights[-1] if output.ndim == 3 else self.weights[-1][0]
        return output, weights.mean(-3) if keywords.get("average_attn_weights", True) else weights


@contextmanager
def watch_attention() -> Iterator[list[Tensor]]:
    """Yield a list to which each attention of the networks that run inside adds its weights (N, heads, T, T).

    Its answers are those of the plain pass, up to rounding. Where gradients are enabled they may be taken with respect
    to the weights.

    Example:
        >>> with watch_attention() as blocks:
        ...     logits = network(images)
    """
    with disable_recomputation(), _Watch() as watch:
        yield watch.weights


class Tokens(NamedTuple):
    """The tokens of a transformer: those from number `first` on lie on a grid (height, width) over the image.

    `readers` is what share each has of those that the answer is read from, behind the last attention: the class token,
    or all of the image's where their mean is classified. They are of all tokens (T,); behind a pool by attention, whose
    queries are no tokens, of its queries. `heads` is how many each attention has, the first block first.
    `token_count` is T.
    """

    first: int
    grid: tuple[int, int]
    readers: Tensor
    heads: tuple[int, ...]
    token_count: int

    def arrange_on_grid(self, rows: Tensor) -> Tensor:
        """Return the entries (N, height, width) for the image's tokens of rows (N, 1, T) over all tokens."""
        height, width = self.grid
        return rows[:, 0, self.first : self.first + height * width].reshape(len(rows), height, width)


_CACHE: WeakKeyDictionary[Classifier, dict[tuple[tuple[int, ...], torch.device], Tokens]] = WeakKeyDictionary()
"""What was seen of models whose weights stay as they are, by the shape of an image and where it lies."""


def tokens(model: Classifier, image: Tensor) -> Tokens:
    """Return the tokens of a model, seen in a pass of one image (1, C, H, W).

    Raises UserError for a model without self-attention, or whose attention is not over all tokens of the image, such as
    that in windows.

    Example:
        >>> tokens(model, image).heads
        (3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3)
    """
    if model.draws is not None:
        raise UserError("a network that draws random numbers attends differently in each pass: leave --draws out.")
    cache = _CACHE.setdefault(model, {})
    kind = tuple(image.shape), image.device
    if kind not in cache:
        cache[kind] = _look(model, image)
    return cache[kind]


def _look(model: Classifier, image: Tensor) -> Tokens:
    """Return the tokens of a model from passes of one image (1, C, H, W)."""
    with torch.no_grad():
        height, width = model.features(image).local.shape[2:]
    with torch.enable_grad(), _waken(model), watch_attention() as blocks:
        answer = model(image).square().sum()
    _check(blocks, height, width)
    (gradient,) = torch.autograd.grad(answer, blocks[-1], allow_unused=True)
    count = blocks[0].shape[-1]
    first = _first(model, count, height * width)
    is_read = torch.zeros(()) if gradient is None else (gradient != 0).flatten(0, -3).any(-1).any(0).float()
    if not is_read.any():
        raise UserError("the answer of this network does not depend on its last attention.")
    heads = tuple(1 if weights.ndim == 3 else weights.shape[1] for weights in blocks)
    return Tokens(first, (height, width), is_read / is_read.sum(), heads, count)


def _waken(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which linear layers whose weights are all zero depend on what they see, token by token.

    Fresh transformers begin with such a layer, and their answer of zero depends on nothing.
    """

    def add_squares(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + inputs[0].square().sum(-1, keepdim=True)

    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and not module.weight.any()]
    return hooks((layer, add_squares) for layer in layers)


def _check(blocks: list[Tensor], height: int, width: int) -> None:
    """Raise UserError where weights are not of all tokens for all tokens of one image, or for a pool's queries."""
    if not blocks:
        raise UserError(
            "this network has no self-attention that can be seen, such as rollout, relevance and head:BLOCK are made "
            "of: take grad-cam for weights of positions, or gradient for maps of pixels."
        )
    shapes = dict.fromkeys(tuple(weights.shape) for weights in blocks)
    count = blocks[0].shape[-1]
    sizes = {weights.shape[-2:] for weights in blocks if not is_pool(weights) or weights is not blocks[-1]}
    is_seen = sizes <= {(count, count)} and blocks[-1].shape[-1] in (count, height * width)
    if not is_seen or count < height * width or any(shape[0] != 1 for shape in shapes):
        raise UserError(
            f"the attention of this network gives weights of shape {', '.join(map(str, shapes))} for one image with "
            f"{height}x{width} local features: in each block all tokens have to attend to all (1, heads, T, T), not "
            "to those of a window or of another grid; only a pool that comes last may have queries of its own."
        )


def is_pool(weights: Tensor) -> bool:
    """Return whether attention (..., Q, T) pools tokens: it has other queries than these."""
    return weights.shape[-2] != weights.shape[-1]


def _first(model: Classifier, count: int, positions: int) -> int:
    """Return the number of the image's first token among `count`. Raises UserError where they do not fit."""
    first = getattr(model, "first_token", None)
    if first is None:
        prefix = prefix_tokens(model.backbone)
        first = count - positions if prefix is None or count == positions else prefix
        if first + positions == count:
            return int(first)
    elif first + positions <= count:
        return int(first)
    raise UserError(
        f"attention is over {count} tokens, of which {first} come before those of the image, and the local features "
        f"have {positions} positions: --local-layer names a layer of the same grid."
    )


def attend(model: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the weights (N, heads, Q, T) of each attention in a pass of images (N, C, H, W), and the logits."""
    with watch_attention() as blocks:
        logits = model(images)
    return [weights if weights.ndim == 4 else weights[:, None] for weights in blocks], logits
